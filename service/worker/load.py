"""Decoding: from a file to the pixels of a region, upright, scaled, and in the requested color profile."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import pyvips

from service.images.geometry import Box, Plan, drawing_size, round_half_up
from service.images.info import SHRINK_ON_LOAD, ImageInfo
from service.images.options import Profile
from service.rendering.protocol import Failure, ImageError
from service.worker import bounds, color, color_space, vips_errors
from service.worker.color_space import ColorSpace
from service.worker.failures import broken_image
from service.worker.files import ImageFile, open_image
from service.worker.formats import (
    animation,
    apng,
    avif_sequence,
    gif,
    gif_frames,
    hdr,
    heic,
    isobmff,
    jpeg,
    jxl,
    layered_avif,
    png,
    svg,
    tiff_colors,
    webp_frames,
)
from service.worker.formats.animation import Animation
from service.worker.orientation import LEFT_IS_FAR, TOP_IS_FAR, is_transposed, orientation_of, upright_size

# Truncated data and wrong checksums are errors. Warnings of a decoder are not: files of many cameras cause them.
FAIL_ON = "error"


class ShrinkRule(NamedTuple):
    """The factor by which a JPEG is scaled down at least, after its decoder has shrunk it: the decoder's result is a little too sharp.

    exact: where the decoder's factor divides both sides. rounded: where it does not. The decoder then drops the rest, so that what
    remains is stretched by up to a pixel.
    """

    exact: Fraction
    rounded: Fraction


# A factor of two is left to the resampler.
CAREFUL_SHRINK = ShrinkRule(Fraction(2), Fraction(2))
# The decoder shrinks as far as it can.
_WHOLE_SHRINK = ShrinkRule(Fraction(1), Fraction(1))
# Where 1.5 is left, decoding takes 0.8 of the time, and the same SSIMULACRA2 1 % more bytes; where 1.2 is left, 4 % more. `rounded` is a
# little below 2, because the sides of a rendition are rounded too: 1,707 pixels are 3.998 × 427.
SHRINK_RULES: Mapping[int, ShrinkRule] = {1: CAREFUL_SHRINK, 2: CAREFUL_SHRINK, 3: ShrinkRule(Fraction(3, 2), Fraction(19, 10))}

# Band formats whose samples are color levels, interpretations whose samples are colors in any band format, and the largest number of bands
# of each interpretation, alpha included.
_LEVEL_FORMATS = frozenset({"uchar", "ushort"})
_COLOR_INTERPRETATIONS = frozenset({"scrgb", "lab", "labs", "xyz"})
_MAX_BANDS, _DEFAULT_MAX_BANDS = {"b-w": 2, "grey16": 2, "cmyk": 5}, 4


def load_still(
    file: ImageFile,
    info: ImageInfo,
    plan: Plan,
    *,
    profile: Profile = "srgb",
    page: int = 0,
    high_bit_depth: bool = False,
    shrink_rule: ShrinkRule = CAREFUL_SHRINK,
    keep_hdr: bool = False,
) -> pyvips.Image:
    """Return the region of `plan` at its `unturned` size, gray or RGB, with alpha if the original has it.

    The image is lazy: a broken file may raise `pyvips.Error` only when its pixels are read.

    page: of a file with several pages or frames, from 0.
    high_bit_depth: return 16 bits per band if the original has them, otherwise 8.
    shrink_rule: how far the decoder of a JPEG shrinks (see `SHRINK_RULES`).
    keep_hdr: return PQ and HLG levels as they are (see `hdr.mark`), instead of mapping them to the range of an ordinary screen.
    """
    if info.vector:
        return svg.rasterize(svg.sanitize(bytes(file.body), drawing_size(plan)), plan.region, *plan.unrotated_size)
    opened = _open(file, info, plan, page, shrink_rule)
    if keep_hdr and hdr.color_space(opened) is not None:
        return enlarge(_shrink_16_bit(_crop_stored(opened, info, plan.region), *plan.unrotated_size), *plan.unrotated_size)
    return _load_region(opened, info, plan, profile, high_bit_depth=high_bit_depth)


def load_animation(file: ImageFile, info: ImageInfo, plan: Plan, *, profile: Profile = "srgb") -> Animation:
    """Return an animation whose frames are each as from `load_still`."""
    return _open_animation(file, info).map(
        lambda frame: _load_region(color.replace_unusable_profile(frame), info, plan, profile, high_bit_depth=False)
    )


def _open_animation(file: ImageFile, info: ImageInfo) -> Animation:
    """Return an animation whose frames have the size, the levels and the colors of the original."""
    if info.format == "jxl":
        return jxl.open_animation(file.body, info.frames)
    if info.format == "avif":
        sequence = avif_sequence.survey(file.body, info.frames)
        return Animation(sequence.timing, lambda: avif_sequence.decode(file.body, sequence))
    if info.format == "png":
        opened = open_image(file.body, access="sequential")
        timing = apng.survey(file.body, info.frames).timing
        frames = Animation(timing, lambda: apng.decode(file.body, opened, alpha=info.alpha))
        return frames.map(lambda frame: _assign_stated_colors(frame, file, info, 0))
    opened = open_image(file.body, n=-1, access="sequential", fail_on=FAIL_ON)
    if info.format == "webp":
        return Animation(animation.timing(opened), lambda: webp_frames.decode(file.body, opened))
    if info.format == "gif" and _has_filled_areas(opened, file, info):
        return Animation(animation.timing(opened), lambda: gif_frames.decode(file.body, opened))
    return animation.from_strip(lambda: open_image(file.body, n=-1, access="sequential", fail_on=FAIL_ON))


def _has_filled_areas(opened: pyvips.Image, file: ImageFile, info: ImageInfo) -> bool:
    """Return whether libvips fills areas of a GIF that are transparent."""
    return info.alpha and (not opened.hasalpha() or gif.has_filled_areas(file.body, info.frames))


def _open_frame(file: ImageFile, info: ImageInfo, number: int) -> pyvips.Image:
    """Return a frame of an animation that libvips does not read correctly."""
    return next(islice(_open_animation(file, info).frames(), number, None))


def load_whole(file: ImageFile, info: ImageInfo) -> pyvips.Image:
    """Return the whole original at the size of its intermediate, with its own profile and values (CMYK and Lab become sRGB)."""
    width, height = info.intermediate or (info.width, info.height)
    plan = Plan.whole(info.width, info.height, width, height)
    # Nothing is left to the resampler where the intermediate is what the decoder makes.
    rule = _WHOLE_SHRINK if info.shrinks_on_load else CAREFUL_SHRINK
    return _load_region(_open(file, info, plan, 0, rule), info, plan, "keep", high_bit_depth=False)


def check_original(file: ImageFile, info: ImageInfo) -> None:
    """Check that an original can be shown as intended.

    Raises `ImageError` for samples that are not colors, and for a GIF or JPEG that ends early; `pyvips.Error` if a frame or page does not
    decode. The first page is not decoded here: making the placeholder does that.
    """
    if info.format == "jxl" and info.frames > 1:
        jxl.check_complete(file.body, info.frames)
    if info.vector or info.format in {"heic", "jxl"}:
        return
    if info.format == "tiff":
        _check_tiff(file, info)
        return
    if not info.sequence:
        _check_samples(open_image(file.body, access="sequential"), info)
    _check_complete(file, info)


def check_decoded(info: ImageInfo) -> None:
    """Check that an original was decoded without loss. Raises `ImageError`.

    libjpeg goes on with gray where data is missing, and only warns. libvips keeps the first warning until its next operation is built, so
    this must be called as soon as all pixels have been read.
    """
    if info.format == "jpeg" and jpeg.means_loss(warnings := vips_errors.pending()):
        raise ImageError(broken_image("jpeg", warnings))


def check_repaired(file: ImageFile, info: ImageInfo) -> None:
    """Check that no more is missing in a JPEG than the end marker that `service.worker.repair` has appended.

    Raises `ImageError` and `pyvips.Error`.
    """
    if info.format == "jpeg":
        _check_complete(file, info)
        open_image(file.body, access="sequential", fail_on=FAIL_ON, shrink=SHRINK_ON_LOAD[0]).avg()
        check_decoded(info)


def _check_samples(image: pyvips.Image, info: ImageInfo) -> None:
    """Check that the samples of an image are colors: a TIFF may also hold measurements or masks. Raises `ImageError`."""
    is_color = image.format in _LEVEL_FORMATS or image.interpretation in _COLOR_INTERPRETATIONS
    if is_color and image.bands <= _MAX_BANDS.get(image.interpretation, _DEFAULT_MAX_BANDS):
        return
    raise ImageError(
        Failure(
            "unsupported",
            f"The samples of this {info.format.upper()} image are not colors that can be shown.",
            expected="gray, RGB, CMYK or Lab of 8 or 16 bits, or RGB or Lab in floating point; with or without alpha",
            received=f"{image.bands} bands of {image.format}, {image.interpretation}",
            remedy="Export it as an ordinary TIFF or PNG of 8 or 16 bits, and send that.",
        )
    )


def _check_complete(file: ImageFile, info: ImageInfo) -> None:
    """Check that all frames of an animation, and all pages after the first, decode. Raises `ImageError` and `pyvips.Error`."""
    if info.format == "gif" and not gif.survey(file.body, info.frames, bounds.MAX_BLOCKS).complete:
        raise ImageError(broken_image("gif", "it ends within a block"))
    if info.format == "jpeg" and jpeg.lacks_scans(file.stored):
        raise ImageError(broken_image("jpeg", "it ends between two scans"))
    _check_pages(file, info, alike=not info.page_sizes)


def _check_tiff(file: ImageFile, info: ImageInfo) -> None:
    """Check that the colors of all pages of a TIFF can be shown, and that all pages after the first decode, as `_check_complete`."""
    pages = tiff_colors.of_pages(file.stored)[: info.frames]
    for colors in dict.fromkeys(pages):
        if failure := tiff_colors.unsupported(colors):
            raise ImageError(failure)
        page = pages.index(colors)
        _check_samples(tiff_colors.convert(open_image(file.body, page=page, access="sequential"), colors), info)
    for page, colors in enumerate(pages):
        if colors.is_subsampled and tiff_colors.is_incomplete(open_image(file.body, page=page, access="sequential", fail_on=FAIL_ON)):
            raise ImageError(broken_image("tiff", "pixels are missing"))
    _check_pages(file, info, alike=not info.page_sizes and len(set(pages)) == 1)


def _check_pages(file: ImageFile, info: ImageInfo, *, alike: bool) -> None:
    """Check that all pages or frames after the first decode. Raises `pyvips.Error`.

    alike: whether they have the same size and colors, so that libvips can read all of them at once.
    """
    if not alike:
        for page in range(1, info.frames):
            open_image(file.body, page=page, access="sequential", fail_on=FAIL_ON).avg()
    elif info.animated and info.format != "gif":
        for frame in _open_animation(file, info).frames():
            frame.avg()
    elif info.frames > 1:
        open_image(file.body, n=-1, access="sequential", fail_on=FAIL_ON).avg()


def _open(file: ImageFile, info: ImageInfo, plan: Plan, page: int, rule: ShrinkRule) -> pyvips.Image:
    """Return an opened page. A JPEG is already shrunk as far as its decoder should."""
    if info.format == "heic" and file.intermediate_of is None:
        return heic.decode(file.body)
    if info.format == "jxl" and file.intermediate_of is None:
        return color.replace_unusable_profile(jxl.decode(file.body, page))
    if info.sequence or (info.animated and info.format == "png"):
        return _open_frame(file, info, page)
    options = {"page": page} if page else {}
    if jpeg.is_jpeg(file.body):
        options["shrink"] = shrink_on_load(*_upright_file_size(file, info), info, plan, rule)
    image = open_image(file.body, access="sequential", fail_on=FAIL_ON, **options)
    if info.format == "gif" and _has_filled_areas(image, file, info):
        frame = _open_frame(file, info, page)
        # A frame that libvips reads correctly has the same bands as ever, and its renditions the same bytes.
        return frame if image.hasalpha() else color.remove_opaque_alpha(frame)
    return image if file.intermediate_of is not None else _assign_stated_colors(image, file, info, page)


def _assign_stated_colors(image: pyvips.Image, file: ImageFile, info: ImageInfo, page: int) -> pyvips.Image:
    """Return an opened original with the color space that its file states without an ICC profile, which libvips ignores."""
    if info.format == "avif":
        picture = isobmff.picture(file.body)
        if picture.selects_layer:
            # Pillow follows the rest of the description too.
            return _assign_unless_profile(layered_avif.decode(file.body, image), picture.space)
        return _correct_avif(image, picture)
    image = color.replace_unusable_profile(image)
    if info.format == "tiff" and (colors := tiff_colors.of_page(file.stored, page)):
        return tiff_colors.convert(image, colors)
    if info.format != "png":
        return image
    stated = png.colors(file.body, bounds.MAX_CHUNKS)
    if stated.profile and not color.has_profile(image) and (profile := png.decompress_profile(stated.profile)):
        # libpng refuses a profile of RGB in a gray image, and browsers do not.
        image = color.replace_unusable_profile(color.with_profile(image, profile))
    space = stated.coded or (None if color.has_profile(image) else stated.measured)
    return image if space is None else color.assign(image, space)


def _correct_avif(image: pyvips.Image, picture: isobmff.Picture) -> pyvips.Image:
    """Return an opened AVIF with its color space, and corrected where libheif does not follow the description of the picture."""
    if picture.limited_gray or picture.limited_alpha:
        image = color.expand_limited_range(image, colors=picture.limited_gray, alpha=picture.limited_alpha)
    if picture.premultiplied:
        image = color.unpremultiply(image)
    if picture.gray and color.is_profile_of_gray(image):
        image = color.to_one_band(image)
    return _assign_unless_profile(image, picture.space)


def _assign_unless_profile(image: pyvips.Image, space: ColorSpace) -> pyvips.Image:
    image = color.replace_unusable_profile(image)
    return image if color.has_profile(image) else color.assign(image, space)


def _upright_file_size(file: ImageFile, info: ImageInfo) -> tuple[int, int]:
    """Return the size of an original or an intermediate, given the header of the original."""
    size = None if file.intermediate_of is None else info.intermediate
    return size or (info.width, info.height)


def shrink_on_load(file_width: int, file_height: int, info: ImageInfo, plan: Plan, rule: ShrinkRule) -> int:
    """Return the factor by which the decoder of a JPEG shrinks it.

    file_width, file_height: of the upright JPEG, which shows the whole original at any size, as a gain map does. info: of the original.
    """
    width, height = plan.unrotated_size
    x_shrink = Fraction(plan.region.width * file_width, info.width * width)
    y_shrink = Fraction(plan.region.height * file_height, info.height * height)
    for shrink in SHRINK_ON_LOAD:
        left = rule.rounded if file_width % shrink or file_height % shrink else rule.exact
        if min(x_shrink, y_shrink) >= shrink * left:
            return shrink
    return 1


def _load_region(opened: pyvips.Image, info: ImageInfo, plan: Plan, profile: Profile, *, high_bit_depth: bool) -> pyvips.Image:
    """Return the region of an opened page: upright, scaled, and converted to `profile`."""
    gray = color.is_gray(opened)
    image = _crop_stored(opened, info, plan.region)
    width, height = plan.unrotated_size
    if hdr.color_space(image) is not None:
        image = hdr.tone_map_to_sdr(_shrink_16_bit(image, width, height), display_p3=profile != "srgb")
        return enlarge(image if profile == "srgb" else color.assign(image, color_space.DISPLAY_P3), width, height)
    if high_bit_depth and color.is_high_bit_depth(image):
        return _scale_16_bit(image, width, height, profile)
    upright_width, upright_height = upright_size(image.width, image.height, orientation_of(image))
    options = color.icc_options(opened, profile)
    image = image.thumbnail_image(min(width, upright_width), height=min(height, upright_height), size="force", **options)
    # libvips reads all pixels here if it turns the image.
    vips_errors.keep()
    if options.get("output_profile") == "srgb":
        # Browsers assume sRGB for images without a profile.
        image = color.remove_profile(image)
    return enlarge(color.to_8_bit(image, gray=gray), width, height)


def enlarge(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Return `image` scaled up to `width` × `height`, neither of which is smaller than its own.

    The centers of both coincide; libvips' `resize` would shift the picture by half a pixel.
    """
    if (image.width, image.height) == (width, height):
        return image
    x_scale, y_scale = width / image.width, height / image.height
    max_alpha = 65_535 if color.is_high_bit_depth(image) else 255
    premultiplied = image.premultiply(max_alpha=max_alpha) if image.hasalpha() else image
    large = premultiplied.affine(
        [x_scale, 0, 0, y_scale],
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[0, 0, width, height],
        odx=(x_scale - 1) / 2,
        ody=(y_scale - 1) / 2,
        extend="copy",
        premultiplied=True,
    )
    if image.hasalpha():
        large = large.unpremultiply(max_alpha=max_alpha).rint().cast(image.format)
    return large.copy(interpretation=image.interpretation)


def _crop_stored(image: pyvips.Image, info: ImageInfo, region: Box) -> pyvips.Image:
    """Return the part of a stored page that becomes `region` of the upright original.

    image: not yet upright, and possibly shrunk on load.
    region: in pixels of the upright original at full size.
    """
    if (region.width, region.height) == (info.width, info.height):
        return image
    orientation = orientation_of(image)
    upright_width, upright_height = upright_size(image.width, image.height, orientation)
    x_scale, y_scale = Fraction(upright_width, info.width), Fraction(upright_height, info.height)
    left, right = round_half_up(region.left * x_scale), round_half_up((region.left + region.width) * x_scale)
    top, bottom = round_half_up(region.top * y_scale), round_half_up((region.top + region.height) * y_scale)
    left, top = min(left, upright_width - 1), min(top, upright_height - 1)
    width, height = max(1, right - left), max(1, bottom - top)
    if orientation in LEFT_IS_FAR:
        left = upright_width - left - width
    if orientation in TOP_IS_FAR:
        top = upright_height - top - height
    return image.crop(top, left, height, width) if is_transposed(orientation) else image.crop(left, top, width, height)


def _scale_16_bit(image: pyvips.Image, width: int, height: int, profile: Profile) -> pyvips.Image:
    """Return a 16-bit page upright, scaled, and converted to `profile`, with 16 bits per band."""
    options = color.icc_options(image, profile)
    gray = color.is_gray(image)
    scaled = _shrink_16_bit(image, width, height)
    if options:
        output = options.pop("output_profile")
        scaled = scaled.icc_transform(output, embedded=True, depth=16, **options)
    return enlarge(scaled.colourspace("grey16") if gray else scaled, width, height)


def _shrink_16_bit(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Return a 16-bit page upright and at most `width` × `height`, in its own profile."""
    gray = color.is_gray(image)
    upright = image.copy_memory().autorot() if orientation_of(image) != 1 else image
    alpha = upright.hasalpha()
    if alpha:
        upright = upright.premultiply(max_alpha=65_535)
    scaled = upright.resize(min(1, width / upright.width), vscale=min(1, height / upright.height))
    if alpha:
        scaled = scaled.unpremultiply(max_alpha=65_535)
    return scaled.rint().cast("ushort").copy(interpretation="grey16" if gray else "rgb16")

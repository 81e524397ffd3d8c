"""Decoding: the pixels of an original's region, upright, at a size, in the colours that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pyvips

from service.images.geometry import Box, Plan, drawing_at, half_up
from service.images.info import ImageInfo
from service.images.options import Profile
from service.rendering.protocol import Failure, ImageError
from service.worker import bounds, color
from service.worker.files import Input, load
from service.worker.formats import gif, hdr, heic, isobmff, png, svg
from service.worker.probe import broken, unread_animation

# Truncation and failed check sums are errors; what a decoder only warns of (many cameras' files) is not.
FAIL_ON = "error"

# A JPEG's decoder shrinks by so much at no cost, with some sharpness of its own: a factor of two is left to the resampler.
_SHRINKS_ON_LOAD = (8, 4, 2)
_LEFT_TO_RESAMPLE = 2

# Formats of samples that are levels, and interpretations in which other ones are colours too; most bands, alpha included, of each.
_LEVELS = frozenset({"uchar", "ushort"})
_MEASURED = frozenset({"scrgb", "lab", "labs", "xyz"})
_MOST_BANDS, _MOST_BANDS_ELSE = {"b-w": 2, "grey16": 2, "cmyk": 5}, 4

# Orientations that lie on their side, and those in which the upright left, or top, is the far end of a stored axis (Exif 2.32, tag 0x0112).
_SIDEWAYS = frozenset({5, 6, 7, 8})
_LEFT_IS_FAR = frozenset({2, 3, 6, 7})
_TOP_IS_FAR = frozenset({3, 4, 7, 8})


def still(source: Input, info: ImageInfo, steps: Plan, *, profile: Profile = "srgb", page: int = 0, deep: bool = False) -> pyvips.Image:
    """Return the region of `steps` at its `unturned` size, in 8 bits a band, grey or not, with alpha if the original has it.

    Its page is `page`. With `deep`, 16 bits where the original has them. Lazy: a broken file may show when it is used.
    """
    if info.vector:
        return svg.rasterised(svg.sanitised(bytes(source.body), drawing_at(steps)), steps.region, *steps.unturned)
    opened = _opened(source, info, steps, page)
    return _region(opened, info, steps, profile, deep=deep)


def frames(source: Input, info: ImageInfo, steps: Plan, *, profile: Profile = "srgb") -> tuple[pyvips.Image, Iterator[pyvips.Image]]:
    """Return the animation as opened, for its delays and loop count, and its frames in order, each as `still` gives one.

    They come from one decoder that goes forward only: use them in order.
    """
    strip = load(source.body, n=-1, access="sequential", fail_on=FAIL_ON)
    height = strip.get_page_height()

    def pages() -> Iterator[pyvips.Image]:
        for number in range(info.frames):
            page = strip.crop(0, number * height, strip.width, height).copy()
            page.remove("page-height")
            page.remove("n-pages")
            yield _region(page, info, steps, profile, deep=False)

    return strip, pages()


def check(source: Input, info: ImageInfo) -> None:
    """Return if an original can be shown as it was meant: no animation that would come out as a still, samples that are colours, whole.

    Raises `ImageError` and `pyvips.Error`.
    """
    if _is_unread_animation(source, info):
        raise ImageError(unread_animation(info.format))
    if info.vector or info.format == "heic":
        return
    _check_samples(load(source.body, access="sequential"), info)
    _check_whole(source, info)


def _is_unread_animation(source: Input, info: ImageInfo) -> bool:
    if info.format == "png":
        return png.survey(source.body, bounds.MAX_CHUNKS).animated
    return info.format == "avif" and b"avis" in isobmff.brands(source.body)


def _check_samples(image: pyvips.Image, info: ImageInfo) -> None:
    """Return if the samples of an image are levels of colours: measurements and masks may stand in a TIFF too."""
    levels = image.format in _LEVELS or image.interpretation in _MEASURED
    if levels and image.bands <= _MOST_BANDS.get(image.interpretation, _MOST_BANDS_ELSE):
        return
    raise ImageError(
        Failure(
            "unsupported",
            f"The samples of this {info.format.upper()} are no picture that can be shown.",
            expected="grey, RGB, CMYK or Lab of 8 or 16 bits, or RGB or Lab in floating point; with alpha or without",
            received=f"{image.bands} bands of {image.format}, {image.interpretation}",
            remedy="Export it as an ordinary TIFF or PNG of 8 or 16 bits, and send that.",
        )
    )


def _check_whole(source: Input, info: ImageInfo) -> None:
    """Return if every frame of an animation, and every page but the first, decodes, and a GIF is not cut short."""
    if info.format == "gif" and not gif.survey(source.body, info.frames, bounds.MAX_BLOCKS).whole:
        raise ImageError(broken("gif", "it ends within a block"))
    if info.page_sizes:
        for page in range(1, info.frames):
            load(source.body, page=page, access="sequential", fail_on=FAIL_ON).avg()
    elif info.frames > 1:
        load(source.body, n=-1, access="sequential", fail_on=FAIL_ON).avg()


def reduced(source: Input, info: ImageInfo) -> pyvips.Image:
    """Return the whole original at the size of its intermediate, its numbers and profile kept (CMYK and Lab aside)."""
    width, height = info.intermediate or (info.width, info.height)
    steps = Plan.whole(info.width, info.height, width, height)
    return _region(_opened(source, info, steps, 0), info, steps, "keep", deep=False)


def _opened(source: Input, info: ImageInfo, steps: Plan, page: int) -> pyvips.Image:
    if info.format == "heic" and source.intermediate_of is None:
        return heic.decoded(source.body)
    pages = {"page": page} if page else {}
    image = load(source.body, access="sequential", fail_on=FAIL_ON, **pages)
    if image.get("vips-loader").startswith("jpegload") and (shrink := _shrink_on_load(image, info, steps)) > 1:
        return load(source.body, access="sequential", fail_on=FAIL_ON, shrink=shrink)
    if info.format == "avif" and source.intermediate_of is None and not image.get_typeof("icc-profile-data"):
        return _told_of_colours(image, isobmff.colours(source.body))
    return image


def _told_of_colours(image: pyvips.Image, said: isobmff.Colours | None) -> pyvips.Image:
    """Return an AVIF without a profile with what it says of its colours in place of one, which libvips leaves out."""
    if said is None or color.is_grey(image):
        return image
    if said.transfer == hdr.PQ and color.is_deep(image):
        return hdr.marked(image, said.primaries)
    return color.in_display_p3(image) if said.primaries == color.DISPLAY_P3_PRIMARIES else image


def _shrink_on_load(image: pyvips.Image, info: ImageInfo, steps: Plan) -> int:
    file_width = image.height if _orientation(image) in _SIDEWAYS else image.width
    file_height = image.width if _orientation(image) in _SIDEWAYS else image.height
    width, height = steps.unturned
    across = Fraction(steps.region.width * file_width, info.width * width)
    down = Fraction(steps.region.height * file_height, info.height * height)
    room = min(across, down)
    return next((shrink for shrink in _SHRINKS_ON_LOAD if room >= shrink * _LEFT_TO_RESAMPLE), 1)


def _region(opened: pyvips.Image, info: ImageInfo, steps: Plan, profile: Profile, *, deep: bool) -> pyvips.Image:
    """Return the region of an opened page, upright, scaled, converted."""
    grey = color.is_grey(opened)
    image = _part(opened, info, steps.region)
    width, height = steps.unturned
    if hdr.is_marked(image):
        image = hdr.for_screens(_shrunk_deep(image, width, height))
        if profile == "p3":
            image = image.icc_transform("p3", input_profile="srgb", intent=color.RENDERING_INTENT)
        return enlarged(image, width, height)
    if deep and color.is_deep(image):
        return _scaled_deep(image, width, height, profile)
    sideways = _orientation(image) in _SIDEWAYS
    upright_width, upright_height = (image.height, image.width) if sideways else (image.width, image.height)
    options = color.conversion(opened, profile)
    image = image.thumbnail_image(min(width, upright_width), height=min(height, upright_height), size="force", **options)
    if options.get("output_profile") == "srgb":
        # What every browser takes for granted is not said.
        image = color.without_profile(image)
    return enlarged(color.of_8_bits(image, grey=grey), width, height)


def enlarged(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Return `image` at a size that no side of it exceeds, its middle in the middle (libvips' resize would lay it half a pixel off)."""
    if (image.width, image.height) == (width, height):
        return image
    across, down = width / image.width, height / image.height
    most = 65_535 if color.is_deep(image) else 255
    whole = image.premultiply(max_alpha=most) if image.hasalpha() else image
    large = whole.affine(
        [across, 0, 0, down],
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[0, 0, width, height],
        odx=(across - 1) / 2,
        ody=(down - 1) / 2,
        extend="copy",
        premultiplied=True,
    )
    if image.hasalpha():
        large = large.unpremultiply(max_alpha=most).rint().cast(image.format)
    return large.copy(interpretation=image.interpretation)


def _part(image: pyvips.Image, info: ImageInfo, region: Box) -> pyvips.Image:
    """Return the part of a stored page, not yet upright, that is `region` of the upright original, whatever it was shrunk by on load."""
    if (region.width, region.height) == (info.width, info.height):
        return image
    orientation = _orientation(image)
    sideways = orientation in _SIDEWAYS
    upright_width, upright_height = (image.height, image.width) if sideways else (image.width, image.height)
    across, down = Fraction(upright_width, info.width), Fraction(upright_height, info.height)
    left, right = half_up(region.left * across), half_up((region.left + region.width) * across)
    top, bottom = half_up(region.top * down), half_up((region.top + region.height) * down)
    left, top = min(left, upright_width - 1), min(top, upright_height - 1)
    width, height = max(1, right - left), max(1, bottom - top)
    if orientation in _LEFT_IS_FAR:
        left = upright_width - left - width
    if orientation in _TOP_IS_FAR:
        top = upright_height - top - height
    return image.crop(top, left, height, width) if sideways else image.crop(left, top, width, height)


def _scaled_deep(image: pyvips.Image, width: int, height: int, profile: Profile) -> pyvips.Image:
    """Return a page of 16 bits upright and scaled, still of 16 bits."""
    options = color.conversion(image, profile)
    grey = color.is_grey(image)
    scaled = _shrunk_deep(image, width, height)
    if options:
        output = options.pop("output_profile")
        scaled = scaled.icc_transform(output, embedded=True, depth=16, **options)
    return enlarged(scaled.colourspace("grey16") if grey else scaled, width, height)


def _shrunk_deep(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Return a page of 16 bits upright, and no larger than this, its numbers as they are."""
    grey = color.is_grey(image)
    upright = image.copy_memory().autorot() if _orientation(image) != 1 else image
    alpha = upright.hasalpha()
    if alpha:
        upright = upright.premultiply(max_alpha=65_535)
    across, down = min(1, width / upright.width), min(1, height / upright.height)
    scaled = upright.resize(across, vscale=down)
    if alpha:
        scaled = scaled.unpremultiply(max_alpha=65_535)
    return scaled.rint().cast("ushort").copy(interpretation="grey16" if grey else "rgb16")


def _orientation(image: pyvips.Image) -> int:
    orientation = int(image.get("orientation")) if image.get_typeof("orientation") else 1
    return orientation if 1 <= orientation <= 8 else 1

"""A second, independent implementation of transforms with NumPy and Pillow, with which tests compare the pixels of renditions.

Pictures are arrays of height × width × 4 (red, green, blue, alpha) of 0 to 1, with premultiplied alpha, so that averages of pixels are
averages of visible light. The code is simple rather than fast. It lacks the options of encoders, and `sharpen`, whose algorithm is
libvips' own; tests check only the direction of its effect.
"""

from __future__ import annotations

import io
from fractions import Fraction
from math import cos, floor, radians, sin

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps
from PIL.Image import Resampling

from service.images.formats import Format
from service.images.options import FocalPoint, Overlay, Sides
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Transform
from service.worker.save import ENCODER_SETTINGS

Pixels = npt.NDArray[np.float64]

# The sigma of background=blur as a fraction of the canvas's longest side.
_BACKDROP_SIGMA = 1 / 50

_LUMINANCE = np.array([0.213, 0.715, 0.072])

# Gravity → the position along the side, 0 to 1. A gravity that is missing stands for the middle, 0.5.
_ANCHOR_X = {"west": 0.0, "northwest": 0.0, "southwest": 0.0, "east": 1.0, "northeast": 1.0, "southeast": 1.0}
_ANCHOR_Y = {"north": 0.0, "northwest": 0.0, "northeast": 0.0, "south": 1.0, "southwest": 1.0, "southeast": 1.0}


def reference(
    original: Image.Image,
    transform: Transform,
    overlay: Image.Image | None = None,
    *,
    resampling: Resampling = Resampling.LANCZOS,
    vector_scale: int = 0,
) -> Image.Image:
    """Apply `transform` to an upright sRGB picture (see `decode_upright`) and return the result as RGBA.

    `overlay`: the picture of `transform.overlay`. `vector_scale`: for a vector image, how many times larger than its declared size
    `original` was drawn; 0 for other images.
    """
    scale = vector_scale or 1
    width, height = original.width // scale, original.height // scale
    box = trim_box(original, transform) if transform.trim is not None else crop_box(width, height, transform)
    left, top, right, bottom = (length * scale for length in box)
    pixels = _array(original)[top:bottom, left:right]
    pixels = _flip(_rotate(pixels, transform.rotate, resampling), transform.flip)
    pixels = _resize(pixels, box, (width, height), transform, resampling, may_enlarge=transform.enlarge or vector_scale > 0)
    plain = pixels = _adjust(pixels, transform)
    if transform.fit == "contain":
        pixels = _contain(pixels, transform, rotated_size(box[2] - box[0], box[3] - box[1], transform.rotate))
    if transform.overlay is not None and overlay is not None:
        pixels = _overlay(pixels, _array(overlay), transform.overlay, resampling)
    if transform.round is not None:
        pixels = pixels * rounded_corners(pixels.shape[1], pixels.shape[0], transform.round)[..., None]
    pixels = _pad(pixels, transform.pad)
    if transform.background is not None:
        pixels = _over(pixels, _backdrop(transform.background, plain, pixels.shape[:2], resampling))
    return _image(pixels)


def decode_upright(body: bytes, frame: int = 0) -> Image.Image:
    """Decode a file with Pillow and return the picture upright and in sRGB, converted by littlecms if it has a profile."""
    image = Image.open(io.BytesIO(body))
    image.seek(frame)
    image.load()
    return to_srgb(ImageOps.exif_transpose(image), image.info.get("icc_profile"))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert a picture from `profile` to sRGB; return RGB or RGBA, or L or LA for gray."""
    if image.mode in {"P", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode in {"I;16", "I", "1"}:
        samples = np.asarray(image).astype(np.float64)
        image = Image.fromarray((samples * (255 if image.mode == "1" else 255 / 65_535)).round().astype(np.uint8), "L")
    if profile is not None:
        gray = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip() == "GRAY"
        if gray and image.mode in {"RGB", "RGBA"}:
            # Pillow decodes gray with alpha of 16 bits to three bands.
            image = image.convert("LA" if image.mode == "RGBA" else "L")
        # A profile of three colors does not apply to gray.
        profile = profile if gray == (image.mode in {"L", "LA"}) else None
    if profile is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    colors = image.convert({"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode))
    out = ImageCms.profileToProfile(
        colors,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    if out is None:
        raise ValueError("littlecms returned no picture")
    if colors.mode == "L":
        out = out.convert("L")
    if image.mode in {"RGBA", "LA"}:
        out.putalpha(image.getchannel("A"))
    return out


def crop_box(width: int, height: int, transform: Transform) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the crop of an upright `width` × `height` original, before trimming."""
    crop = transform.crop
    if crop is None:
        return 0, 0, width, height
    edges = [crop.left, crop.top, crop.left + crop.width, crop.top + crop.height]
    if not crop.percent:
        left, top, right, bottom = (int(edge) for edge in edges)
        return left, top, right, bottom
    left, top, right, bottom = (
        round_half_up(Fraction(str(round(edge, 4))) * side / 100) for edge, side in zip(edges, (width, height, width, height), strict=True)
    )
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(left + 1, right), max(top + 1, bottom)


def trim_box(original: Image.Image, transform: Transform) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of an upright original after its crop and the trimming of the borders within it."""
    tolerance = transform.trim
    left, top, right, bottom = crop_box(*original.size, transform)
    pixels = np.asarray(original.convert("RGBA")).astype(int)[top:bottom, left:right]
    corner = pixels[0, 0]
    differs = pixels[..., 3] > tolerance if corner[3] == 0 else (np.abs(pixels - corner) > tolerance).any(axis=2)
    if not differs.any():
        return left, top, right, bottom
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def rotated_size(width: int, height: int, degrees: float) -> tuple[int, int]:
    """Return the width and the height of the bounding box of a `width` × `height` picture that is rotated."""
    cosine, sine = abs(cos(radians(degrees))), abs(sin(radians(degrees)))
    # Nine decimals, because the floating-point cos(90°) is not exactly 0.
    return round_half_up(Fraction(str(round(width * cosine + height * sine, 9)))), round_half_up(
        Fraction(str(round(width * sine + height * cosine, 9)))
    )


def box_of(width: int, height: int, transform: Transform) -> tuple[Fraction | None, Fraction | None]:
    """Return the width and height of the box of a transform for a rotated picture, `None` where it names none."""
    box_width = None if transform.width is None else Fraction(transform.width)
    box_height = None if transform.height is None else Fraction(transform.height)
    if transform.ratio is None:
        return box_width, box_height
    shape = Fraction(transform.ratio.width, transform.ratio.height)
    if box_width is None and box_height is None:
        is_wider = Fraction(width, height) > shape
        # As high as the picture if that is what fits, or for fit=contain what goes around it.
        box_width, box_height = (None, Fraction(height)) if is_wider != (transform.fit == "contain") else (Fraction(width), None)
    return (box_width, box_width / shape) if box_width is not None else ((box_height or 0) * shape, box_height)


def scaled_size(width: int, height: int, transform: Transform, *, may_enlarge: bool) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return the size to which a rotated picture is scaled, and the size to which fit=cover crops it then, or `None`."""
    box_width, box_height = box_of(width, height, transform)
    if box_width is None and box_height is None:
        return (width, height), None
    if box_width is None or box_height is None:
        scale = box_width / width if box_width is not None else (box_height or Fraction(0)) / height
        return _scale_size(width, height, scale if may_enlarge else min(scale, Fraction(1))), None
    scale_x, scale_y = box_width / width, box_height / height
    if transform.fit in {"inside", "contain", "outside"}:
        scale = max(scale_x, scale_y) if transform.fit == "outside" else min(scale_x, scale_y)
        return _scale_size(width, height, scale if may_enlarge else min(scale, Fraction(1))), None
    # The box shrinks in proportion until the picture fills it without being enlarged.
    shrink = Fraction(1) if may_enlarge else min(Fraction(1), 1 / scale_x, 1 / scale_y)
    box = max(1, round_half_up(box_width * shrink)), max(1, round_half_up(box_height * shrink))
    if transform.fit == "fill":
        return box, None
    return _scale_size(width, height, max(Fraction(box[0], width), Fraction(box[1], height))), box


def round_half_up(length: Fraction) -> int:
    """Return the nearest whole number; halves are rounded up."""
    return floor(length + Fraction(1, 2))


def rounded_corners(width: int, height: int, radius: int | str) -> Pixels:
    """Return the coverage of each pixel, 0 to 1, of a picture with rounded corners; "max" is the largest possible radius."""
    max_radius = min(width, height) / 2
    r = max_radius if isinstance(radius, str) else min(float(radius), max_radius)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    beyond_x = np.maximum(0, np.maximum(r - x, x - (width - r)))
    beyond_y = np.maximum(0, np.maximum(r - y, y - (height - r)))
    inside: Pixels = np.clip(r + 0.5 - np.hypot(beyond_x, beyond_y), 0, 1)
    return np.where((beyond_x > 0) & (beyond_y > 0), inside, 1.0)


def gaussian_blur(pixels: Pixels, sigma: float) -> Pixels:
    """Return a picture blurred by a Gaussian of `sigma` pixels; the pixels of the edges are repeated outwards."""
    radius = max(1, round(4 * sigma))
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        margins = [(radius, radius) if axis == side else (0, 0) for side in range(3)]
        rows = np.pad(pixels, margins, mode="edge")
        length = pixels.shape[axis]
        pixels = sum(weight * rows.take(range(start, start + length), axis) for start, weight in enumerate(weights))
    return pixels


def encoder_loss(picture: Image.Image, image_format: Format) -> float:
    """Return the mean difference, in steps of 8-bit sRGB, that Pillow's encoder causes at the default quality and effort of renditions."""
    if image_format == "png":
        return 0.0
    pixels = np.asarray(picture).astype(int)
    if image_format == "gif":
        # At least 0.5, because the colors of a palette may be rounded.
        return max(0.5, float(np.abs(pixels - np.asarray(picture.quantize(256).convert("RGB"))).mean()))
    out = io.BytesIO()
    # libaom's speed, as libvips derives it from an effort.
    effort = {"speed": 9 - ENCODER_SETTINGS[PIPELINE_VERSION].avif_effort} if image_format == "avif" else {}
    picture.save(out, image_format.upper(), quality=DEFAULTS[PIPELINE_VERSION].quality[image_format], **effort)
    return float(np.abs(pixels - np.asarray(Image.open(out).convert("RGB"))).mean())


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Return a picture on a white background, in RGB."""
    return flatten_on_color(image, (255, 255, 255))


def flatten_on_color(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Return a picture on a background of one color, in RGB."""
    return Image.alpha_composite(Image.new("RGBA", image.size, color), image.convert("RGBA")).convert("RGB")


def _rotate(pixels: Pixels, degrees: float, resampling: Resampling) -> Pixels:
    if degrees % 90 == 0:
        return np.rot90(pixels, -int(degrees // 90))
    height, width = pixels.shape[:2]
    size = rotated_size(width, height, degrees)
    c, s = cos(radians(degrees)), sin(radians(degrees))
    # Coefficients that map a position in the rotated picture to the position in the original, with the centers on each other.
    to_x = (c, s, width / 2 - c * size[0] / 2 - s * size[1] / 2)
    to_y = (-s, c, height / 2 + s * size[0] / 2 - c * size[1] / 2)
    interpolation = Resampling.BICUBIC if resampling is Resampling.LANCZOS else Resampling.BILINEAR
    bands = [_band(pixels, band).transform(size, Image.Transform.AFFINE, (*to_x, *to_y), interpolation) for band in range(4)]
    return _merge_bands(bands)


def _flip(pixels: Pixels, flip: str) -> Pixels:
    return pixels[:, ::-1] if flip == "horizontal" else pixels[::-1] if flip == "vertical" else pixels


def _resize(
    pixels: Pixels,
    box: tuple[int, int, int, int],
    original: tuple[int, int],
    transform: Transform,
    resampling: Resampling,
    *,
    may_enlarge: bool,
) -> Pixels:
    """Return the rotated region scaled and, with fit=cover, cropped; `box` is the position of the region in the original."""
    left, top, right, bottom = box
    size, crop = scaled_size(*rotated_size(right - left, bottom - top, transform.rotate), transform, may_enlarge=may_enlarge)
    pixels = _scale(pixels, size, resampling)
    if crop is None:
        return pixels
    if isinstance(transform.gravity, FocalPoint):
        x, y = locate_focal_point(transform.gravity, box, original, transform)
        # Nine decimals, because the floating-point 0.57 × 200 is not exactly 114.
        left, top = (
            round_half_up(Fraction(str(round(place * side - length / 2, 9))))
            for place, side, length in zip((x, y), size, crop, strict=True)
        )
        left, top = max(0, min(left, size[0] - crop[0])), max(0, min(top, size[1] - crop[1]))
    else:
        left = floor((size[0] - crop[0]) * _ANCHOR_X.get(transform.gravity, 0.5))
        top = floor((size[1] - crop[1]) * _ANCHOR_Y.get(transform.gravity, 0.5))
    return pixels[top : top + crop[1], left : left + crop[0]]


def locate_focal_point(
    focal: FocalPoint, box: tuple[int, int, int, int], original: tuple[int, int], transform: Transform
) -> tuple[float, float]:
    """Return the position of a focal point in its region after rotating and flipping: x and y, each 0 to 1."""
    left, top, right, bottom = box
    x = min(1.0, max(0.0, (focal.x * original[0] - left) / (right - left))) * (right - left)
    y = min(1.0, max(0.0, (focal.y * original[1] - top) / (bottom - top))) * (bottom - top)
    width, height = rotated_size(right - left, bottom - top, transform.rotate)
    c, s = cos(radians(transform.rotate)), sin(radians(transform.rotate))
    # Rotate clockwise around the center; y points down.
    x, y = x - (right - left) / 2, y - (bottom - top) / 2
    x, y = (c * x - s * y) / width + 0.5, (s * x + c * y) / height + 0.5
    return (1 - x if transform.flip == "horizontal" else x), (1 - y if transform.flip == "vertical" else y)


def _adjust(pixels: Pixels, transform: Transform) -> Pixels:
    alpha = pixels[..., 3:]
    colors = np.divide(pixels[..., :3], alpha, out=np.zeros_like(pixels[..., :3]), where=alpha > 0)
    colors = np.clip(colors * transform.brightness, 0, 1)
    colors = np.clip((colors - 0.5) * transform.contrast + 0.5, 0, 1)
    colors = colors ** (1 / transform.gamma)
    saturation = 0.0 if transform.grayscale else transform.saturation
    gray = (colors @ _LUMINANCE)[..., None]
    colors = np.clip(gray + saturation * (colors - gray), 0, 1)
    pixels = np.concatenate([colors * alpha, alpha], axis=2)
    return pixels if transform.blur is None else gaussian_blur(pixels, transform.blur)


def _contain(pixels: Pixels, transform: Transform, rotated: tuple[int, int]) -> Pixels:
    height, width = pixels.shape[:2]
    box = box_of(*rotated, transform)
    extra_width, extra_height = (max(1, round_half_up(side or Fraction(0))) - own for side, own in zip(box, (width, height), strict=True))
    left = floor(extra_width * _ANCHOR_X.get(str(transform.gravity), 0.5))
    top = floor(extra_height * _ANCHOR_Y.get(str(transform.gravity), 0.5))
    return _pad(pixels, Sides(top, extra_width - left, extra_height - top, left))


def _overlay(pixels: Pixels, overlay_pixels: Pixels, overlay: Overlay, resampling: Resampling) -> Pixels:
    height, width = pixels.shape[:2]
    overlay_height, overlay_width = overlay_pixels.shape[:2]
    wanted_width = max(1, round_half_up(Fraction(str(overlay.scale)) * width))
    scale = min(Fraction(wanted_width, overlay_width), Fraction(height, overlay_height))
    overlay_pixels = _scale(overlay_pixels, _scale_size(overlay_width, overlay_height, scale), resampling) * overlay.opacity
    overlay_height, overlay_width = overlay_pixels.shape[:2]
    anchor_x, anchor_y = _ANCHOR_X.get(overlay.gravity, 0.5), _ANCHOR_Y.get(overlay.gravity, 0.5)
    left = floor((width - overlay_width) * anchor_x) + (-overlay.x if anchor_x == 1 else overlay.x)
    top = floor((height - overlay_height) * anchor_y) + (-overlay.y if anchor_y == 1 else overlay.y)
    layer = np.zeros_like(pixels)
    rows, columns = slice(max(0, top), max(0, top + overlay_height)), slice(max(0, left), max(0, left + overlay_width))
    visible = layer[rows, columns]
    layer[rows, columns] = overlay_pixels[max(0, -top) :, max(0, -left) :][: visible.shape[0], : visible.shape[1]]
    return _over(layer, pixels)


def _pad(pixels: Pixels, pad: Sides) -> Pixels:
    return np.pad(pixels, ((pad.top, pad.bottom), (pad.left, pad.right), (0, 0)))


def _backdrop(background: str, plain: Pixels, size: tuple[int, ...], resampling: Resampling) -> Pixels:
    """Return the background of a picture of `size` (height, width): a color, or with "blur" the blurred picture `plain`."""
    height, width = size
    if background != "blur":
        red, green, blue, *rest = bytes.fromhex(background)
        alpha = rest[0] / 255 if rest else 1.0
        return np.broadcast_to(np.array([red / 255 * alpha, green / 255 * alpha, blue / 255 * alpha, alpha]), (height, width, 4))
    scale = max(Fraction(width, plain.shape[1]), Fraction(height, plain.shape[0]))
    # The backdrop is opaque; transparent parts of the picture become white.
    filled = _scale(_over(plain, np.ones_like(plain)), _scale_size(plain.shape[1], plain.shape[0], scale), resampling)
    top, left = (filled.shape[0] - height) // 2, (filled.shape[1] - width) // 2
    return gaussian_blur(filled[top : top + height, left : left + width], max(height, width) * _BACKDROP_SIGMA)


def _over(front: Pixels, back: Pixels) -> Pixels:
    return front + back * (1 - front[..., 3:])


def _scale_size(width: int, height: int, scale: Fraction) -> tuple[int, int]:
    return max(1, round_half_up(width * scale)), max(1, round_half_up(height * scale))


def _scale(pixels: Pixels, size: tuple[int, int], resampling: Resampling) -> Pixels:
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return _merge_bands([_band(pixels, band).resize(size, resampling) for band in range(4)])


def _band(pixels: Pixels, band: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., band], np.float32))


def _merge_bands(bands: list[Image.Image]) -> Pixels:
    """Return the bands as one array, clipped to valid values: alpha at most 1, colors at most alpha."""
    pixels = np.stack([np.asarray(band) for band in bands], axis=2).astype(np.float64)
    alpha = np.clip(pixels[..., 3:], 0, 1)
    return np.concatenate([np.clip(pixels[..., :3], 0, alpha), alpha], axis=2)


def _array(image: Image.Image) -> Pixels:
    pixels = np.asarray(image.convert("RGBA")).astype(np.float64) / 255
    pixels[..., :3] *= pixels[..., 3:]
    return pixels


def _image(pixels: Pixels) -> Image.Image:
    alpha = pixels[..., 3:]
    colors = np.divide(pixels[..., :3], alpha, out=np.zeros_like(pixels[..., :3]), where=alpha > 0)
    return Image.fromarray((np.concatenate([colors, alpha], axis=2).clip(0, 1) * 255).round().astype(np.uint8), "RGBA")

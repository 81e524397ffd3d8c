"""What a rendition must look like: every option of a transform once more, by NumPy and Pillow, with nothing of the code under test.

Pictures are arrays of height × width × 4 (red, green, blue, alpha), 0 to 1, the colors multiplied by alpha, so that a mean of
pixels is a mean of light that is seen. Slow and plain on purpose. `sharpen` is missing: it is libvips' own, tests look at its
direction. So are the encoder's options.
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

Pixels = npt.NDArray[np.float64]

# Of background=blur: the sigma as a part of the canvas's longest side.
_BACKDROP_SIGMA = 1 / 50

_LUMINANCE = np.array([0.213, 0.715, 0.072])

# Compass words → where on a side, 0 to 1; a word that is not in it is in the middle.
_ACROSS = {"west": 0.0, "northwest": 0.0, "southwest": 0.0, "east": 1.0, "northeast": 1.0, "southeast": 1.0}
_DOWN = {"north": 0.0, "northwest": 0.0, "northeast": 0.0, "south": 1.0, "southwest": 1.0, "southeast": 1.0}


def reference(
    original: Image.Image,
    transform: Transform,
    overlay: Image.Image | None = None,
    *,
    resampling: Resampling = Resampling.LANCZOS,
    vector_scale: int = 0,
) -> Image.Image:
    """Return what `transform` makes of an upright sRGB picture (see `decoded`), as RGBA.

    With `vector_scale` the original is a vector image that was drawn so many times larger than it says it is.
    """
    drawn = vector_scale or 1
    width, height = original.width // drawn, original.height // drawn
    box = trimmed(original, transform) if transform.trim is not None else cropped(width, height, transform)
    left, top, right, bottom = (length * drawn for length in box)
    pixels = _array(original)[top:bottom, left:right]
    pixels = _flipped(_turned(pixels, transform.rotate, resampling), transform.flip)
    pixels = _resized(pixels, box, (width, height), transform, resampling, grows=transform.enlarge or vector_scale > 0)
    plain = pixels = _adjusted(pixels, transform)
    if transform.fit == "contain":
        pixels = _contained(pixels, transform)
    if transform.overlay is not None and overlay is not None:
        pixels = _overlaid(pixels, _array(overlay), transform.overlay, resampling)
    if transform.round is not None:
        pixels = pixels * rounded_corners(pixels.shape[1], pixels.shape[0], transform.round)[..., None]
    pixels = _padded(pixels, transform.pad)
    if transform.background is not None:
        pixels = _over(pixels, _backdrop(transform.background, plain, pixels.shape[:2], resampling))
    return _image(pixels)


def decoded(body: bytes, frame: int = 0) -> Image.Image:
    """Return the picture of a file as Pillow reads it: upright, sRGB by littlecms where a profile is embedded, alpha where it has some."""
    image = Image.open(io.BytesIO(body))
    image.seek(frame)
    image.load()
    return in_srgb(ImageOps.exif_transpose(image), image.info.get("icc_profile"))


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return a picture in sRGB (RGB or RGBA, gray as L or LA), its numbers meant in `profile`."""
    if image.mode in {"P", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode in {"I;16", "I", "1"}:
        deep = np.asarray(image).astype(np.float64)
        image = Image.fromarray((deep * (255 if image.mode == "1" else 255 / 65_535)).round().astype(np.uint8), "L")
    if profile is not None:
        gray = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip() == "GRAY"
        if gray and image.mode in {"RGB", "RGBA"}:
            # Pillow makes three bands of a gray with alpha that has 16 bits.
            image = image.convert("LA" if image.mode == "RGBA" else "L")
        # A profile of three colors says nothing of a gray.
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
        raise ValueError("littlecms gave no picture")
    if colors.mode == "L":
        out = out.convert("L")
    if image.mode in {"RGBA", "LA"}:
        out.putalpha(image.getchannel("A"))
    return out


def cropped(width: int, height: int, transform: Transform) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is kept of an upright `width` × `height` original, before trimming."""
    crop = transform.crop
    if crop is None:
        return 0, 0, width, height
    edges = [crop.left, crop.top, crop.left + crop.width, crop.top + crop.height]
    if not crop.percent:
        left, top, right, bottom = (int(edge) for edge in edges)
        return left, top, right, bottom
    left, top, right, bottom = (
        half_up(Fraction(str(round(edge, 4))) * side / 100) for edge, side in zip(edges, (width, height, width, height), strict=True)
    )
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(left + 1, right), max(top + 1, bottom)


def trimmed(original: Image.Image, transform: Transform) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is left of an upright original when its borders are trimmed within its crop."""
    tolerance = transform.trim
    left, top, right, bottom = cropped(*original.size, transform)
    pixels = np.asarray(original.convert("RGBA")).astype(int)[top:bottom, left:right]
    corner = pixels[0, 0]
    differs = pixels[..., 3] > tolerance if corner[3] == 0 else (np.abs(pixels - corner) > tolerance).any(axis=2)
    if not differs.any():
        return left, top, right, bottom
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def turned_size(width: int, height: int, degrees: float) -> tuple[int, int]:
    """Return width and height of the box around a `width` × `height` picture that is turned."""
    across, down = abs(cos(radians(degrees))), abs(sin(radians(degrees)))
    # Nine decimals: cos(90°) is not quite 0 here.
    return half_up(Fraction(str(round(width * across + height * down, 9)))), half_up(
        Fraction(str(round(width * down + height * across, 9)))
    )


def scaled_size(width: int, height: int, transform: Transform, *, grows: bool) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return the size that a turned picture is scaled to, and the size that cover then cuts out of it."""
    box_width, box_height = transform.width, transform.height
    if box_width is None and box_height is None:
        return (width, height), None
    if box_width is None or box_height is None:
        scale = Fraction(box_width, width) if box_width is not None else Fraction(box_height or 0, height)
        return _scaled(width, height, scale if grows else min(scale, Fraction(1))), None
    across, down = Fraction(box_width, width), Fraction(box_height, height)
    if transform.fit in {"inside", "contain", "outside"}:
        scale = max(across, down) if transform.fit == "outside" else min(across, down)
        return _scaled(width, height, scale if grows else min(scale, Fraction(1))), None
    # The box keeps its shape and shrinks until the picture fills it.
    shrink = Fraction(1) if grows else min(Fraction(1), 1 / across, 1 / down)
    box = max(1, half_up(box_width * shrink)), max(1, half_up(box_height * shrink))
    if transform.fit == "fill":
        return box, None
    return _scaled(width, height, max(Fraction(box[0], width), Fraction(box[1], height))), box


def half_up(length: Fraction) -> int:
    """Return the nearest whole number, the larger one where two are as near."""
    return floor(length + Fraction(1, 2))


def rounded_corners(width: int, height: int, radius: int | str) -> Pixels:
    """Return how much of each pixel is left, 0 to 1, when the corners of a picture are rounded; "max" is the largest radius."""
    longest = min(width, height) / 2
    reach = longest if isinstance(radius, str) else min(float(radius), longest)
    down, across = np.mgrid[0:height, 0:width] + 0.5
    beyond_x = np.maximum(0, np.maximum(reach - across, across - (width - reach)))
    beyond_y = np.maximum(0, np.maximum(reach - down, down - (height - reach)))
    inside: Pixels = np.clip(reach + 0.5 - np.hypot(beyond_x, beyond_y), 0, 1)
    return np.where((beyond_x > 0) & (beyond_y > 0), inside, 1.0)


def gaussian(pixels: Pixels, sigma: float) -> Pixels:
    """Return a picture blurred by a Gaussian of `sigma` pixels; beyond the edges it goes on as at the edge."""
    reach = max(1, round(4 * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        room = [(reach, reach) if axis == side else (0, 0) for side in range(3)]
        rows = np.pad(pixels, room, mode="edge")
        length = pixels.shape[axis]
        pixels = sum(weight * rows.take(range(start, start + length), axis) for start, weight in enumerate(weights))
    return pixels


def encoder_loss(picture: Image.Image, image_format: Format) -> float:
    """Return the mean difference, in steps of 8-bit sRGB, that Pillow's encoder makes at the quality that renditions have by default."""
    if image_format == "png":
        return 0.0
    pixels = np.asarray(picture).astype(int)
    if image_format == "gif":
        # However few colors there are, a palette may be of rounded ones.
        return max(0.5, float(np.abs(pixels - np.asarray(picture.quantize(256).convert("RGB"))).mean()))
    out = io.BytesIO()
    picture.save(out, image_format.upper(), quality=DEFAULTS[PIPELINE_VERSION].quality[image_format])
    return float(np.abs(pixels - np.asarray(Image.open(out).convert("RGB"))).mean())


def on_white(image: Image.Image) -> Image.Image:
    """Return a picture laid on white, RGB."""
    return on_color(image, (255, 255, 255))


def on_color(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Return a picture laid on a color, RGB."""
    return Image.alpha_composite(Image.new("RGBA", image.size, color), image.convert("RGBA")).convert("RGB")


def _turned(pixels: Pixels, degrees: float, resampling: Resampling) -> Pixels:
    if degrees % 90 == 0:
        return np.rot90(pixels, -int(degrees // 90))
    height, width = pixels.shape[:2]
    size = turned_size(width, height, degrees)
    c, s = cos(radians(degrees)), sin(radians(degrees))
    # From a place in the turned picture to the one in the original that comes there, middle on middle.
    across = (c, s, width / 2 - c * size[0] / 2 - s * size[1] / 2)
    down = (-s, c, height / 2 + s * size[0] / 2 - c * size[1] / 2)
    between = Resampling.BICUBIC if resampling is Resampling.LANCZOS else Resampling.BILINEAR
    bands = [_band(pixels, band).transform(size, Image.Transform.AFFINE, (*across, *down), between) for band in range(4)]
    return _valid(bands)


def _flipped(pixels: Pixels, flip: str) -> Pixels:
    return pixels[:, ::-1] if flip == "horizontal" else pixels[::-1] if flip == "vertical" else pixels


def _resized(
    pixels: Pixels,
    box: tuple[int, int, int, int],
    original: tuple[int, int],
    transform: Transform,
    resampling: Resampling,
    *,
    grows: bool,
) -> Pixels:
    """Return the turned region scaled and, with fit=cover, cut; `box` is where the region lay in the original."""
    left, top, right, bottom = box
    size, cut = scaled_size(*turned_size(right - left, bottom - top, transform.rotate), transform, grows=grows)
    pixels = _scaled_to(pixels, size, resampling)
    if cut is None:
        return pixels
    if isinstance(transform.gravity, FocalPoint):
        x, y = focal_place(transform.gravity, box, original, transform)
        # Nine decimals: 0.57 × 200 is not quite 114 here.
        left, top = (
            half_up(Fraction(str(round(place * side - length / 2, 9)))) for place, side, length in zip((x, y), size, cut, strict=True)
        )
        left, top = max(0, min(left, size[0] - cut[0])), max(0, min(top, size[1] - cut[1]))
    else:
        left = floor((size[0] - cut[0]) * _ACROSS.get(transform.gravity, 0.5))
        top = floor((size[1] - cut[1]) * _DOWN.get(transform.gravity, 0.5))
    return pixels[top : top + cut[1], left : left + cut[0]]


def focal_place(focal: FocalPoint, box: tuple[int, int, int, int], original: tuple[int, int], transform: Transform) -> tuple[float, float]:
    """Return where a point of the original lies in its region, turned and flipped: x and y, each 0 to 1."""
    left, top, right, bottom = box
    x = min(1.0, max(0.0, (focal.x * original[0] - left) / (right - left))) * (right - left)
    y = min(1.0, max(0.0, (focal.y * original[1] - top) / (bottom - top))) * (bottom - top)
    across, down = turned_size(right - left, bottom - top, transform.rotate)
    c, s = cos(radians(transform.rotate)), sin(radians(transform.rotate))
    # About the middle, clockwise as seen: down is positive.
    x, y = x - (right - left) / 2, y - (bottom - top) / 2
    x, y = (c * x - s * y) / across + 0.5, (s * x + c * y) / down + 0.5
    return (1 - x if transform.flip == "horizontal" else x), (1 - y if transform.flip == "vertical" else y)


def _adjusted(pixels: Pixels, transform: Transform) -> Pixels:
    alpha = pixels[..., 3:]
    colors = np.divide(pixels[..., :3], alpha, out=np.zeros_like(pixels[..., :3]), where=alpha > 0)
    colors = np.clip(colors * transform.brightness, 0, 1)
    colors = np.clip((colors - 0.5) * transform.contrast + 0.5, 0, 1)
    colors = colors ** (1 / transform.gamma)
    saturation = 0.0 if transform.grayscale else transform.saturation
    gray = (colors @ _LUMINANCE)[..., None]
    colors = np.clip(gray + saturation * (colors - gray), 0, 1)
    pixels = np.concatenate([colors * alpha, alpha], axis=2)
    return pixels if transform.blur is None else gaussian(pixels, transform.blur)


def _contained(pixels: Pixels, transform: Transform) -> Pixels:
    height, width = pixels.shape[:2]
    room_across, room_down = (transform.width or width) - width, (transform.height or height) - height
    left = floor(room_across * _ACROSS.get(str(transform.gravity), 0.5))
    top = floor(room_down * _DOWN.get(str(transform.gravity), 0.5))
    return _padded(pixels, Sides(top, room_across - left, room_down - top, left))


def _overlaid(pixels: Pixels, mark: Pixels, overlay: Overlay, resampling: Resampling) -> Pixels:
    height, width = pixels.shape[:2]
    mark_height, mark_width = mark.shape[:2]
    across = max(1, half_up(Fraction(str(overlay.scale)) * width))
    scale = min(Fraction(across, mark_width), Fraction(height, mark_height))
    mark = _scaled_to(mark, _scaled(mark_width, mark_height, scale), resampling) * overlay.opacity
    mark_height, mark_width = mark.shape[:2]
    anchor_x, anchor_y = _ACROSS.get(overlay.gravity, 0.5), _DOWN.get(overlay.gravity, 0.5)
    left = floor((width - mark_width) * anchor_x) + (-overlay.x if anchor_x == 1 else overlay.x)
    top = floor((height - mark_height) * anchor_y) + (-overlay.y if anchor_y == 1 else overlay.y)
    layer = np.zeros_like(pixels)
    rows, columns = slice(max(0, top), max(0, top + mark_height)), slice(max(0, left), max(0, left + mark_width))
    seen = layer[rows, columns]
    layer[rows, columns] = mark[max(0, -top) :, max(0, -left) :][: seen.shape[0], : seen.shape[1]]
    return _over(layer, pixels)


def _padded(pixels: Pixels, pad: Sides) -> Pixels:
    return np.pad(pixels, ((pad.top, pad.bottom), (pad.left, pad.right), (0, 0)))


def _backdrop(background: str, plain: Pixels, size: tuple[int, ...], resampling: Resampling) -> Pixels:
    """Return what lies behind a picture of `size` (height, width): a color, or with "blur" the picture itself."""
    height, width = size
    if background != "blur":
        red, green, blue, *rest = bytes.fromhex(background)
        alpha = rest[0] / 255 if rest else 1.0
        return np.broadcast_to(np.array([red / 255 * alpha, green / 255 * alpha, blue / 255 * alpha, alpha]), (height, width, 4))
    scale = max(Fraction(width, plain.shape[1]), Fraction(height, plain.shape[0]))
    # Nothing shines through it: what was clear is white.
    filled = _scaled_to(_over(plain, np.ones_like(plain)), _scaled(plain.shape[1], plain.shape[0], scale), resampling)
    top, left = (filled.shape[0] - height) // 2, (filled.shape[1] - width) // 2
    return gaussian(filled[top : top + height, left : left + width], max(height, width) * _BACKDROP_SIGMA)


def _over(front: Pixels, back: Pixels) -> Pixels:
    return front + back * (1 - front[..., 3:])


def _scaled(width: int, height: int, scale: Fraction) -> tuple[int, int]:
    return max(1, half_up(width * scale)), max(1, half_up(height * scale))


def _scaled_to(pixels: Pixels, size: tuple[int, int], resampling: Resampling) -> Pixels:
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return _valid([_band(pixels, band).resize(size, resampling) for band in range(4)])


def _band(pixels: Pixels, band: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., band], np.float32))


def _valid(bands: list[Image.Image]) -> Pixels:
    """Return bands as pixels, what a filter overshot cut off: no alpha above 1, no color above its alpha."""
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

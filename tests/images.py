"""The pictures that tests upload: made here with NumPy and Pillow, the same on every machine, and the shared corpus where it is.

Every picture is the same scene: clouds, a few hard edges, and in each corner of the upright picture a patch of one colour.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms
from PIL.Image import Transpose

REPOSITORY = Path(__file__).parents[1]

Colour = tuple[int, int, int]

# Corner of the upright picture → the colour of its patch.
CORNERS: dict[str, Colour] = {
    "top left": (255, 0, 0),
    "top right": (0, 255, 0),
    "bottom left": (0, 0, 255),
    "bottom right": (255, 255, 255),
}

FRAME_COLOURS: tuple[Colour, ...] = ((230, 40, 40), (40, 200, 60), (50, 70, 220), (240, 220, 40))

# What `camera_jpeg` hides in its metadata, and what therefore must not be found in a rendition.
CAMERA = "Lightbox 7"
PLACE = "Kirkjufell"

# Orientation (Exif 2.32, tag 0x0112) → what turns the upright picture into the stored one.
_STORED = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


def patch_side(width: int, height: int) -> int:
    """Return the side in pixels of the corner patches of a `width` × `height` picture."""
    return max(1, min(width, height) // 6)


@functools.cache
def picture(width: int = 1600, height: int = 1200, *, seed: int = 0) -> Image.Image:
    """Return the scene upright, RGB; do not change it."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    down, across = down / height, across / width
    shades = np.random.default_rng(seed)
    bands = []
    for band in range(3):
        cloud = 120 + 50 * np.cos(np.pi * (across * (band + 1) + down))
        for waves in (2, 5, 11, 23):
            turn, lean = shades.uniform(0, 2 * np.pi, 2)
            cloud += 40 / waves**0.5 * np.sin(waves * (across * np.cos(lean) + down * np.sin(lean)) * 2 * np.pi + turn)
        bands.append(cloud)
    pixels = np.stack(bands, axis=-1)
    # A disc and a bar: edges as hard as any in a photo.
    pixels[(across - 0.5) ** 2 + (down - 0.4) ** 2 < 0.02] *= 0.4
    pixels[(np.abs(down - 0.75) < 0.04) & (np.abs(across - 0.5) < 0.25)] += 70
    pixels = pixels.clip(0, 255)
    side = patch_side(width, height)
    for corner, colour in CORNERS.items():
        rows = slice(0, side) if "top" in corner else slice(height - side, height)
        columns = slice(0, side) if "left" in corner else slice(width - side, width)
        pixels[rows, columns] = colour
    return Image.fromarray(pixels.round().astype(np.uint8), "RGB")


def photo_jpeg(
    width: int = 1600, height: int = 1200, *, quality: int = 88, orientation: int = 1, progressive: bool = False, seed: int = 0
) -> bytes:
    """Return the scene as a JPEG; `width` and `height` are the upright picture's, whatever the stored orientation."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    image = picture(width, height, seed=seed)
    stored = image.transpose(_STORED[orientation]) if orientation in _STORED else image
    return _saved(stored, "JPEG", quality=quality, progressive=progressive, subsampling=0, exif=exif)


def turned(width: int, height: int, orientation: int, image_format: str) -> bytes:
    """Return the scene, upright `width` × `height`, stored turned in one of Pillow's formats that can say so."""
    stored = picture(width, height).transpose(_STORED[orientation])
    if image_format == "TIFF":
        return _saved(stored, "TIFF", tiffinfo={ExifTags.Base.Orientation.value: orientation})
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return _saved(stored, image_format, exif=exif, quality=92)


@functools.cache
def large_jpeg(width: int, height: int, *, progressive: bool = False) -> bytes:
    """Return the scene enlarged, as a JPEG: quick to make, slow or costly to render."""
    return _saved(picture(1500, 1000).resize((width, height)), "JPEG", quality=85, progressive=progressive)


def camera_jpeg(width: int = 400, height: int = 300) -> bytes:
    """Return a JPEG with a camera's name, a place, GPS coordinates, XMP, a comment and an sRGB profile in its metadata."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = CAMERA
    exif[ExifTags.Base.ImageDescription] = PLACE
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef] = "N"
    gps[ExifTags.GPS.GPSLatitude] = (64.0, 55.0, 34.2)
    gps[ExifTags.GPS.GPSLongitudeRef] = "W"
    gps[ExifTags.GPS.GPSLongitude] = (23.0, 18.0, 40.6)
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{PLACE}</x:xmpmeta>'.encode()
    return _saved(picture(width, height), "JPEG", quality=90, exif=exif, xmp=xmp, comment=PLACE, icc_profile=srgb_profile())


def rgb_png(width: int = 400, height: int = 300, *, profile: bytes | None = None) -> bytes:
    """Return the scene as an opaque PNG, its numbers meant in `profile`."""
    return _saved(picture(width, height), "PNG", icc_profile=profile)


def rgba_png(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a PNG whose right half is transparent but for the two corner patches."""
    image = picture(width, height).convert("RGBA")
    alpha = np.full((height, width), 255, np.uint8)
    side = patch_side(width, height)
    alpha[side : height - side, width // 2 :] = 0
    image.putalpha(Image.fromarray(alpha, "L"))
    return _saved(image, "PNG")


def grey_png(width: int = 400, height: int = 300, *, alpha: bool = False) -> bytes:
    """Return the scene as a grey PNG, with `alpha` transparent in its right half."""
    image = picture(width, height).convert("L")
    if alpha:
        mask = np.full((height, width), 255, np.uint8)
        mask[:, width // 2 :] = 0
        image = Image.merge("LA", (image, Image.fromarray(mask, "L")))
    return _saved(image, "PNG")


def png16(width: int = 400, height: int = 300, *, grey: bool = False) -> bytes:
    """Return the scene as a PNG of 16 bits a band: RGB, which Pillow cannot write, or grey."""
    image = picture(width, height).convert("L") if grey else picture(width, height)
    # 257 takes 0..255 to 0..65535; a little more in the low byte must not show in 8 bits.
    pixels = (np.asarray(image).astype(np.uint16) * 257).astype(">u2").reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if grey else 2, 0, 0, 0)
    return _PNG_SIGNATURE + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", zlib.compress(rows, 6)) + _png_chunk(b"IEND", b"")


def palette_png(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a PNG of 64 colours."""
    return _saved(picture(width, height).quantize(64), "PNG")


def palette_gif(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a GIF of one frame and 64 colours."""
    return _saved(picture(width, height).quantize(64), "GIF")


def cmyk_jpeg(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a CMYK JPEG without a profile."""
    return _saved(picture(width, height).convert("CMYK"), "JPEG", quality=92, subsampling=0)


def flat_png(width: int, height: int, colour: Colour, *, profile: bytes | None = None) -> bytes:
    """Return a PNG of one colour."""
    return _saved(Image.new("RGB", (width, height), colour), "PNG", icc_profile=profile)


def clear_png(width: int, height: int) -> bytes:
    """Return a PNG without a pixel that is seen: black, wholly transparent."""
    return _saved(Image.new("RGBA", (width, height)), "PNG")


def noise_png(width: int, height: int) -> bytes:
    """Return an RGBA PNG of random bands, each 0 or 255: nothing is larger once encoded."""
    bits = np.random.default_rng(0).integers(0, 2, (height, width, 4), np.uint8)
    return _saved(Image.fromarray(bits * np.uint8(255), "RGBA"), "PNG")


def two_colour_png(width: int, height: int, colour: Colour, other: Colour, share: float) -> bytes:
    """Return a PNG whose left `share` (0 to 1) is `colour` and whose rest is `other`."""
    image = Image.new("RGB", (width, height), other)
    image.paste(colour, (0, 0, round(width * share), height))
    return _saved(image, "PNG")


def animated_gif(width: int = 120, height: int = 90, *, frames: int = 3) -> bytes:
    """Return a GIF whose frames are of one colour each: `FRAME_COLOURS` in turn."""
    return _animation(width, height, frames, "GIF")


def animated_webp(width: int = 120, height: int = 90, *, frames: int = 3) -> bytes:
    """Return a lossless WebP whose frames are of one colour each: `FRAME_COLOURS` in turn."""
    return _animation(width, height, frames, "WEBP", lossless=True)


def webp(width: int = 400, height: int = 300, *, alpha: bool = False) -> bytes:
    """Return the scene as a lossy WebP, with `alpha` transparent as `rgba_png` is."""
    image = Image.open(io.BytesIO(rgba_png(width, height))) if alpha else picture(width, height)
    return _saved(image, "WEBP", quality=90)


def avif(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as an AVIF."""
    return _saved(picture(width, height), "AVIF", quality=85, speed=9)


def grey_tiff(width: int, height: int) -> bytes:
    """Return a TIFF of one grey, a small file whatever its size."""
    return _saved(Image.new("L", (width, height), 128), "TIFF", compression="tiff_adobe_deflate")


def tiff(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a TIFF."""
    return _saved(picture(width, height), "TIFF", compression="tiff_adobe_deflate")


def truncated(image: bytes, share: float = 0.6) -> bytes:
    """Return the first `share` (0 to 1) of an image's bytes."""
    return image[: int(len(image) * share)]


def mutated(image: bytes, seed: int, changes: int = 12) -> bytes:
    """Return an image with some bytes behind its first 24 changed, and a stretch of it cut out."""
    chance = np.random.default_rng(seed)
    out = bytearray(image)
    for at in chance.integers(24, len(out), changes):
        out[at] = int(chance.integers(0, 256))
    cut = int(chance.integers(24, len(out)))
    del out[cut : cut + int(chance.integers(0, 64))]
    return bytes(out)


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a file of some hundred bytes whose header declares a grey PNG of `width` × `height` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(100_000), 9)
    return _PNG_SIGNATURE + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", lines) + _png_chunk(b"IEND", b"")


def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def p3_profile() -> bytes:
    """Return an ICC profile of Display P3 (its primaries adapted to D50, and sRGB's curve as a table of 1,024 steps)."""
    steps = np.linspace(0, 1, 1_024)
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    curve = b"curv" + bytes(4) + struct.pack(">I", len(steps)) + (linear * 65_535).round().astype(">u2").tobytes()
    name = b"Display P3"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": _xyz(0.96420, 1.0, 0.82491),
        b"rXYZ": _xyz(0.51512, 0.24120, -0.00105),
        b"gXYZ": _xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": _xyz(0.15710, 0.06657, 0.78407),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sIIIQI12s4s44s",
        start + len(body),
        b"lcms",
        0x0210_0000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        struct.pack(">6H", 2024, 1, 1, 0, 0, 0),
        b"acsp",
        b"APPL",
        0,
        0,
        0,
        0,
        1,
        _xyz(0.96420, 1.0, 0.82491)[8:],
        b"lcms",
        bytes(44),
    )
    return header + table + body


def jpeg_bomb(width: int = 65_000, height: int = 65_000, *, progressive: bool = False) -> bytes:
    """Return a small JPEG whose header declares `width` × `height` pixels."""
    image = bytearray(photo_jpeg(64, 48, progressive=progressive))
    frame = image.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    image[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(image)


def gif_bomb(width: int = 65_000, height: int = 65_000) -> bytes:
    """Return a small GIF whose header and only frame declare `width` × `height` pixels."""
    image = bytearray(animated_gif(4, 4, frames=1))
    frame = image.index(b",\0\0\0\0\4\0\4\0")
    image[6:10] = image[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(image)


def webp_bomb(width: int = 16_383, height: int = 16_383) -> bytes:
    """Return a small lossy WebP whose header declares `width` × `height` pixels (RFC 6386 §9.1)."""
    image = bytearray(webp(16, 16))
    start = image.index(b"\x9d\x01\x2a") + 3
    image[start : start + 4] = struct.pack("<HH", width, height)
    return bytes(image)


def corpus() -> Path | None:
    """Return the folder of real images beside the checkout, `None` where there is none."""
    folder = REPOSITORY.parent / "shared" / "corpus"
    return folder if folder.is_dir() else None


def corpus_files(folder: str) -> list[Path]:
    """Return the files of one folder of the corpus, in order; none where there is no corpus."""
    root = corpus()
    return sorted(root.joinpath(folder).iterdir()) if root is not None else []


def opened(body: bytes) -> Image.Image:
    """Return an image decoded with Pillow, to its end."""
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference of two pictures of one size, in steps of 8-bit sRGB."""
    if one.size != other.size:
        raise ValueError(f"pictures of {one.size} and {other.size} cannot be compared")
    difference = np.asarray(one.convert("RGB")).astype(np.int16) - np.asarray(other.convert("RGB"))
    return float(np.abs(difference).mean())


def corner_colours(image: Image.Image, inset: float = 0.04) -> dict[str, Colour]:
    """Return the colour of the picture near each of its corners, `inset` of its shorter side away from both edges."""
    rgb = image.convert("RGB")
    step = int(min(rgb.size) * inset)
    at = {
        "top left": (step, step),
        "top right": (rgb.width - 1 - step, step),
        "bottom left": (step, rgb.height - 1 - step),
        "bottom right": (rgb.width - 1 - step, rgb.height - 1 - step),
    }
    return {corner: _rgb(rgb, place) for corner, place in at.items()}


def near(colour: Colour, other: Colour, tolerance: int = 40) -> bool:
    """Return whether two colours differ by at most `tolerance` in every band."""
    return all(abs(one - two) <= tolerance for one, two in zip(colour, other, strict=True))


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _rgb(image: Image.Image, place: tuple[int, int]) -> Colour:
    red, green, blue = np.asarray(image)[place[1], place[0]].tolist()
    return red, green, blue


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _animation(width: int, height: int, frames: int, image_format: str, **options: object) -> bytes:
    pictures = [Image.new("RGB", (width, height), FRAME_COLOURS[frame % len(FRAME_COLOURS)]) for frame in range(frames)]
    return _saved(pictures[0], image_format, save_all=True, append_images=pictures[1:], duration=80, loop=0, **options)


def _saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **{name: value for name, value in options.items() if value is not None})
    return out.getvalue()


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65_536) for value in (x, y, z)))

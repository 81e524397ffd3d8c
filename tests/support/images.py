"""The pictures that tests upload: generated with NumPy and Pillow, the same on every machine, and the shared corpus if there is one.

Most generated pictures show the same scene: clouds, a few hard edges, and in each corner of the upright picture a patch of one color.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import ExifTags, Image, ImageCms
from PIL.Image import Transpose

REPOSITORY = Path(__file__).parents[2]

Color = tuple[int, int, int]

# Corner of the upright picture → the color of its patch.
CORNERS: dict[str, Color] = {
    "top left": (255, 0, 0),
    "top right": (0, 255, 0),
    "bottom left": (0, 0, 255),
    "bottom right": (255, 255, 255),
}

FRAME_COLORS: tuple[Color, ...] = ((230, 40, 40), (40, 200, 60), (50, 70, 220), (240, 220, 40))

_BLOCK_BYTES = 1 << 20

# Texts in the metadata of `camera_jpeg`, which a rendition must not contain.
CAMERA = "Lightbox 7"
PLACE = "Kirkjufell"

# The artist and the copyright notice in the metadata of `copyrighted_jpeg`.
ARTIST = "Anna Jons"
COPYRIGHT = "(c) 2026 Anna Jons"

# Orientation (Exif 2.32, tag 0x0112) → the operation that makes the stored picture from the upright one.
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


def picture(width: int = 1600, height: int = 1200, *, seed: int = 0) -> Image.Image:
    """Return the upright scene in RGB. The image is cached, so callers must not change it."""
    return _scene(width, height, seed)


# Its arguments have one form, because a cache makes an image again whose arguments are given in another way, such as by keyword.
@functools.cache
def _scene(width: int, height: int, seed: int) -> Image.Image:
    x, y = np.arange(width, dtype=np.float32) / width, np.arange(height, dtype=np.float32) / height
    disc = (x - 0.5) ** 2 + ((y - 0.4) ** 2)[:, np.newaxis] < 0.02
    bar = np.ix_(np.abs(y - 0.75) < 0.04, np.abs(x - 0.5) < 0.25)
    side = patch_side(width, height)
    rng = np.random.default_rng(seed)
    bands = []
    for band in range(3):
        # Amplitude, and the phase in each column and each row.
        waves = [(50.0, np.pi * (band + 1) * x.astype(np.float64) + np.pi / 2, np.pi * y.astype(np.float64))]
        for count in (2, 5, 11, 23):
            phase, direction = rng.uniform(0, 2 * np.pi, 2)
            across, down = count * np.cos(direction) * 2 * np.pi, count * np.sin(direction) * 2 * np.pi
            waves.append((40 / count**0.5, x * across + phase, y * down))
        # The sine of a sum, by which each wave takes sines of a row and a column, and not of every pixel; and the sum of all waves as a
        # product of matrices, which takes a fifth of the time of one outer product after another.
        columns = np.stack([amplitude * function(phase) for amplitude, phase, _ in waves for function in (np.sin, np.cos)])
        rows = np.stack([function(phase) for _, _, phase in waves for function in (np.cos, np.sin)], axis=1)
        levels = 120 + rows @ columns
        # A disc and a bar, whose edges are as hard as any in a photo.
        levels[disc] *= 0.4
        levels[bar] += 70
        for corner, color in CORNERS.items():
            vertical = slice(0, side) if "top" in corner else slice(height - side, height)
            horizontal = slice(0, side) if "left" in corner else slice(width - side, width)
            levels[vertical, horizontal] = color[band]
        bands.append(Image.fromarray(levels.clip(0, 255).round().astype(np.uint8), "L"))
    return Image.merge("RGB", bands)


@functools.cache
def photo_jpeg(
    width: int = 1600, height: int = 1200, *, quality: int = 88, orientation: int = 1, progressive: bool = False, seed: int = 0
) -> bytes:
    """Return the scene as a JPEG with an Exif orientation (1 to 8); `width` and `height` are those of the upright picture."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    image = picture(width, height, seed=seed)
    stored = image.transpose(_STORED[orientation]) if orientation in _STORED else image
    return _encode(stored, "JPEG", quality=quality, progressive=progressive, subsampling=0, exif=exif)


@functools.cache
def oriented_scene(width: int, height: int, orientation: int, image_format: str) -> bytes:
    """Return the scene with an Exif orientation (2 to 8) in TIFF, WebP or another format; the sides are those of the upright picture."""
    stored = picture(width, height).transpose(_STORED[orientation])
    if image_format == "TIFF":
        return _encode(stored, "TIFF", tiffinfo={ExifTags.Base.Orientation.value: orientation})
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return _encode(stored, image_format, exif=exif, quality=92)


def oriented_jpeg(upright: Image.Image, orientation: int) -> bytes:
    """Return a picture as a JPEG with an Exif orientation (1 to 8)."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = upright.transpose(_STORED[orientation]) if orientation in _STORED else upright
    return _encode(image, "JPEG", quality=95, subsampling=0, exif=exif)


@functools.cache
def large_jpeg(width: int, height: int, *, progressive: bool = False) -> bytes:
    """Return the enlarged scene as a JPEG, which is quick to make and slow to render."""
    return _encode(picture(1500, 1000).resize((width, height)), "JPEG", quality=85, progressive=progressive)


@functools.cache
def camera_jpeg(width: int = 400, height: int = 300) -> bytes:
    """Return a JPEG with a camera's name, a place, GPS coordinates, XMP, a comment and an sRGB profile in its metadata."""
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{PLACE}</x:xmpmeta>'.encode()
    return _encode(picture(width, height), "JPEG", quality=90, exif=_camera(), xmp=xmp, comment=PLACE, icc_profile=srgb_profile())


@functools.cache
def copyrighted_jpeg(width: int = 400, height: int = 300, *, orientation: int = 1) -> bytes:
    """Return a JPEG with a camera's metadata, an artist, a copyright notice and an orientation; the sides are the upright picture's."""
    exif = _camera()
    exif[ExifTags.Base.Artist] = ARTIST
    exif[ExifTags.Base.Copyright] = COPYRIGHT
    exif[ExifTags.Base.Orientation] = orientation
    image = picture(width, height)
    stored = image.transpose(_STORED[orientation]) if orientation in _STORED else image
    return _encode(stored, "JPEG", quality=90, subsampling=0, exif=exif)


@functools.cache
def rgb_jpeg(width: int = 400, height: int = 300, *, profile: bytes | None = None) -> bytes:
    """Return the scene as a JPEG with an embedded `profile`; its numbers are not converted."""
    return _encode(picture(width, height), "JPEG", quality=90, icc_profile=profile)


@functools.cache
def rgb_png(width: int = 400, height: int = 300, *, profile: bytes | None = None) -> bytes:
    """Return the scene as an opaque PNG with an embedded `profile`; its numbers are not converted."""
    return _encode(picture(width, height), "PNG", icc_profile=profile)


@functools.cache
def framed_png(width: int, height: int, margin: tuple[int, int]) -> bytes:
    """Return the scene, `width` × `height`, as a PNG with a light border, whose horizontal and vertical width is `margin`."""
    horizontal, vertical = margin
    framed = Image.new("RGB", (width + 2 * horizontal, height + 2 * vertical), (250, 250, 250))
    scene = picture(width, height).point(lambda level: level * 3 // 4)
    framed.paste(scene, margin)
    return _encode(framed, "PNG")


@functools.cache
def rgba_png(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a PNG whose right half is transparent except for the two corner patches."""
    image = picture(width, height).convert("RGBA")
    alpha = np.full((height, width), 255, np.uint8)
    side = patch_side(width, height)
    alpha[side : height - side, width // 2 :] = 0
    image.putalpha(Image.fromarray(alpha, "L"))
    return _encode(image, "PNG")


@functools.cache
def gray_png(width: int = 400, height: int = 300, *, alpha: bool = False) -> bytes:
    """Return the scene as a gray PNG; with `alpha` its right half is transparent."""
    image = picture(width, height).convert("L")
    if alpha:
        mask = np.full((height, width), 255, np.uint8)
        mask[:, width // 2 :] = 0
        image = Image.merge("LA", (image, Image.fromarray(mask, "L")))
    return _encode(image, "PNG")


@functools.cache
def png16(width: int = 400, height: int = 300, *, gray: bool = False) -> bytes:
    """Return the scene as a PNG of 16 bits per band: gray, or RGB, which Pillow cannot write."""
    image = picture(width, height).convert("L") if gray else picture(width, height)
    # The factor maps 0..255 to 0..65535.
    return png(np.asarray(image).astype(np.uint16) * np.uint16(257), 16)


def png(
    samples: npt.NDArray[np.uint16],
    bits: int,
    *,
    interlaced: bool = False,
    palette: Sequence[tuple[int, ...]] = (),
    clear: tuple[int, ...] = (),
    profile: bytes | None = None,
) -> bytes:
    """Return a PNG in any of its modes (W3C PNG §11.2.1).

    `samples`: height × width (gray, or indices into `palette`, whose colors may have alpha), or height × width × bands (gray and alpha,
    RGB, RGBA). `bits`: per sample, as many as the mode allows. `clear`: the one gray or color that is transparent (tRNS).
    """
    height, width = samples.shape[:2]
    pixels = samples.reshape(height, width, -1).astype(np.uint16)
    color_type = 3 if palette else {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    passes = _ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(
        b"\0" + _pack(row, bits) for left, top, step_x, step_y in passes if left < width for row in pixels[top::step_y, left::step_x]
    )
    chunks = [_png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(interlaced)))]
    if profile is not None:
        chunks.append(_png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile)))
    if palette:
        chunks.append(_png_chunk(b"PLTE", b"".join(bytes(color[:3]) for color in palette)))
        if len(palette[0]) == 4:
            chunks.append(_png_chunk(b"tRNS", bytes(color[3] for color in palette)))
    if clear:
        chunks.append(_png_chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)))
    chunks += [_png_chunk(b"IDAT", zlib.compress(rows, 6)), _png_chunk(b"IEND", b"")]
    return _PNG_SIGNATURE + b"".join(chunks)


@functools.cache
def gray_jpeg(width: int = 400, height: int = 300, *, profile: bytes | None = None) -> bytes:
    """Return the scene as a JPEG of one band."""
    return _encode(picture(width, height).convert("L"), "JPEG", quality=92, icc_profile=profile)


@functools.cache
def palette_png(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a PNG of 64 colors."""
    return _encode(picture(width, height).quantize(64), "PNG")


@functools.cache
def palette_gif(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a GIF of one frame and 64 colors."""
    return _encode(picture(width, height).quantize(64), "GIF")


@functools.cache
def cmyk_jpeg(width: int = 400, height: int = 300, *, profile: bytes | None = None) -> bytes:
    """Return the scene as a CMYK JPEG with an embedded `profile`; its numbers are not converted."""
    return _encode(picture(width, height).convert("CMYK"), "JPEG", quality=92, subsampling=0, icc_profile=profile)


def flat_png(width: int, height: int, color: Color, *, profile: bytes | None = None) -> bytes:
    """Return a PNG of one color."""
    return _encode(Image.new("RGB", (width, height), color), "PNG", icc_profile=profile)


@functools.cache
def clear_png(width: int, height: int) -> bytes:
    """Return a PNG whose pixels are all black and fully transparent."""
    return _encode(Image.new("RGBA", (width, height)), "PNG")


@functools.cache
def noise_png(width: int, height: int) -> bytes:
    """Return an RGBA PNG whose samples are 0 or 255 at random, the content that takes the most bytes once it is encoded."""
    bits = np.random.default_rng(0).integers(0, 2, (height, width, 4), np.uint8)
    return _encode(Image.fromarray(bits * np.uint8(255), "RGBA"), "PNG")


@functools.cache
def two_color_png(width: int, height: int, color: Color, other: Color, share: float) -> bytes:
    """Return a PNG whose left `share` (0 to 1) is `color` and whose rest is `other`."""
    image = Image.new("RGB", (width, height), other)
    image.paste(color, (0, 0, round(width * share), height))
    return _encode(image, "PNG")


@functools.cache
def animated_gif(width: int = 120, height: int = 90, *, frames: int = 3) -> bytes:
    """Return a GIF whose frames are of one color each: `FRAME_COLORS` in turn."""
    return _animation(width, height, frames, "GIF")


@functools.cache
def animated_webp(width: int = 120, height: int = 90, *, frames: int = 3) -> bytes:
    """Return a lossless WebP whose frames are of one color each: `FRAME_COLORS` in turn."""
    return _animation(width, height, frames, "WEBP", lossless=True)


def film(width: int = 120, height: int = 90, *, frames: int = 5) -> list[Image.Image]:
    """Return the frames of an animation: a disc that moves over a background that changes between black and white, in few colors."""
    y, x = np.mgrid[0:height, 0:width]
    pictures = []
    for frame in range(frames):
        pixels = np.full((height, width, 3), 255 * (frame % 2), np.uint8)
        disc = (x - width * (frame + 1) / (frames + 1)) ** 2 + (y - height * 0.4) ** 2 < (height / 5) ** 2
        pixels[disc] = FRAME_COLORS[frame % len(FRAME_COLORS)]
        pictures.append(Image.fromarray(pixels, "RGB"))
    return pictures


def animation(
    pictures: Sequence[Image.Image], image_format: str, *, delays: Sequence[int] = (), loops: int | None = 0, disposal: int = 0
) -> bytes:
    """Return an animated GIF or lossless WebP.

    `delays`: in milliseconds, 80 for each frame by default. `loops`: as the format counts them; `None` leaves the number out.
    """
    options: dict[str, object] = {"duration": list(delays) or 80, "loop": loops}
    options |= {"lossless": True} if image_format == "WEBP" else {"disposal": disposal}
    return _encode(pictures[0], image_format, save_all=True, append_images=pictures[1:], **options)


@functools.cache
def lab_tiff(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a TIFF of CIE Lab (D50), 16 bits per band: L from 0 to 65,535, a and b in 1/256 (TIFF Technical Note 4)."""
    lab = _lab(np.asarray(picture(width, height)) / 255)
    pixels = np.stack([lab[0] / 100 * 65_535, lab[1] * 256, lab[2] * 256], axis=-1).round().astype(np.int64) & 0xFFFF
    body = pixels.astype("<u2").tobytes()
    # Tag, type (3: 16 bits, 4: 32 bits), count, and the value or its offset (TIFF 6.0 §8).
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 8),
        (273, 4, 1, 14),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(body)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I3H", 14 + len(body), 16, 16, 16) + body + directory


def pages_tiff(pictures: Sequence[Image.Image]) -> bytes:
    """Return a TIFF of several pages."""
    return _encode(pictures[0], "TIFF", save_all=True, append_images=pictures[1:], compression="tiff_adobe_deflate")


@functools.cache
def webp(width: int = 400, height: int = 300, *, alpha: bool = False) -> bytes:
    """Return the scene as a lossy WebP; with `alpha` it is transparent like `rgba_png`."""
    image = Image.open(io.BytesIO(rgba_png(width, height))) if alpha else picture(width, height)
    return _encode(image, "WEBP", quality=90)


@functools.cache
def avif(width: int = 400, height: int = 300, *, subsampling: str = "4:2:0") -> bytes:
    """Return the scene as an AVIF."""
    return _encode(picture(width, height), "AVIF", quality=85, speed=9, subsampling=subsampling)


@functools.cache
def heic(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a HEIC with HEVC and without chroma subsampling."""
    out = io.BytesIO()
    pillow_heif.from_pillow(picture(width, height)).save(out, quality=90, chroma=444)
    return out.getvalue()


@functools.cache
def gray_tiff(width: int, height: int) -> bytes:
    """Return a TIFF of one gray, whose file is small even if it has many pixels."""
    return _encode(Image.new("L", (width, height), 128), "TIFF", compression="tiff_adobe_deflate")


@functools.cache
def tiff(width: int = 400, height: int = 300) -> bytes:
    """Return the scene as a TIFF."""
    return _encode(picture(width, height), "TIFF", compression="tiff_adobe_deflate")


def truncated(image: bytes, share: float = 0.6) -> bytes:
    """Return the first `share` (0 to 1) of an image's bytes."""
    return image[: int(len(image) * share)]


def mutated(image: bytes, seed: int, changes: int = 12) -> bytes:
    """Return an image with `changes` of its bytes changed and a block removed, both after the first 24 bytes."""
    rng = np.random.default_rng(seed)
    out = bytearray(image)
    for at in rng.integers(24, len(out), changes):
        out[at] = int(rng.integers(0, 256))
    cut = int(rng.integers(24, len(out)))
    del out[cut : cut + int(rng.integers(0, 64))]
    return bytes(out)


def compressed_zeros(count: int) -> bytes:
    """Return `count` zero bytes in the format of zlib, without compressing more than 2 MiB of them (RFC 1950, RFC 1951)."""
    packed = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # After a full flush, the compressed bytes do not depend on the earlier ones.
    blocks = packed.compress(bytes(_BLOCK_BYTES)) + packed.flush(zlib.Z_FULL_FLUSH)
    rest = packed.compress(bytes(count % _BLOCK_BYTES)) + packed.flush()
    # Adler-32: the first sum stays 1, and each byte adds it to the second (RFC 1950 §8.2).
    checksum = struct.pack(">HH", count % 65_521, 1)
    return b"\x78\xda" + blocks * (count // _BLOCK_BYTES) + rest + checksum


@functools.cache
def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a gray PNG of a few hundred bytes whose header declares `width` × `height` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(100_000), 9)
    return _PNG_SIGNATURE + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", lines) + _png_chunk(b"IEND", b"")


@functools.cache
def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@functools.cache
def p3_profile() -> bytes:
    """Return an ICC profile of Display P3 (its primaries adapted to D50, and sRGB's curve as a table of 1,024 steps)."""
    steps = np.linspace(0, 1, 1_024)
    primaries = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
    return _rgb_profile(b"Display P3", primaries, _curve((_linear(steps) * 65_535).round()))


@functools.cache
def wide_profile() -> bytes:
    """Return an ICC profile of the primaries of Adobe RGB (1998), adapted to D50, and its gamma of 2 + 51/256."""
    primaries = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
    return _rgb_profile(b"Wide", primaries, _curve(np.array([563])))


@functools.cache
def gray_profile() -> bytes:
    """Return an ICC profile of gray with a gamma of 1.8, in which the same numbers are lighter than in sRGB."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {**_common_tags(b"Gray 1.8"), b"kTRC": _curve(np.array([461]))})


@functools.cache
def cmyk_profile(*, only_perceptual: bool = False) -> bytes:
    """Return an ICC profile of four inks: a table of 7 steps per ink that maps to CIE Lab.

    `only_perceptual`: leave out A2B1, so that the table in A2B0 is used for every intent.
    """
    steps = np.linspace(0, 1, 7)
    inks = np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), axis=-1)
    # The inks are not pure cyan, magenta, yellow and black.
    rgb = (1 - inks[..., :3] @ np.array([[0.9, 0.2, 0.05], [0.1, 0.85, 0.3], [0.0, 0.1, 0.9]])).clip(0, 1) * (1 - 0.85 * inks[..., 3:])
    intents = (b"A2B0",) if only_perceptual else (b"A2B0", b"A2B1")
    return _profile(b"prtr", b"CMYK", b"Lab ", {**_common_tags(b"Four inks"), **dict.fromkeys(intents, _table_to_lab(rgb))})


def table_profile(**gammas: float) -> bytes:
    """Return an ICC profile of RGB with lookup tables, in the tags that have the names of the arguments, such as `A2B0`.

    gammas: the powers of the levels that turn them into sRGB.
    """
    levels = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 3, indexing="ij"), axis=-1)
    tables = {name.encode(): _table_to_lab(levels**gamma) for name, gamma in gammas.items()}
    return _profile(b"mntr", b"RGB ", b"Lab ", {**_common_tags(b"Tables"), **tables})


def _table_to_lab(rgb: npt.NDArray[np.float64]) -> bytes:
    """Return a lookup table to CIE Lab (ICC.1:2001-04 §6.5.8).

    rgb: levels of sRGB, 0 to 1; an axis for each input, and the last for red, green and blue.
    """
    inputs, lab = rgb.ndim - 1, _lab(rgb)
    table = np.stack([lab[0] / 100 * 0xFF00, (lab[1] + 128) * 256, (lab[2] + 128) * 256], axis=-1).clip(0, 0xFFFF)
    straight = np.array([0, 0xFFFF])
    numbers = np.concatenate([*[straight] * inputs, table.round().ravel(), *[straight] * 3])
    head = struct.pack(">4B9i2H", inputs, 3, len(rgb), 0, *(65_536 * (cell % 4 == 0) for cell in range(9)), 2, 2)
    return b"mft2" + bytes(4) + head + numbers.astype(">u2").tobytes()


def unreadable_profile(name: bytes = b"\xe9\xff\xfe\xfd") -> bytes:
    """Return an ICC profile of RGB whose curves have an unknown type, the four bytes of `name`. Little CMS quotes them in its message."""
    # A multi-function table that has only three curves (ICC.1:2010 §10.10).
    curves = (name + bytes(8)) * 3
    table = b"mAB " + bytes(4) + struct.pack(">BBH5I", 3, 3, 0, 32, 0, 0, 0, 0) + curves
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**_common_tags(b"Unreadable"), b"A2B0": table})


@functools.cache
def jpeg_bomb(width: int = 65_000, height: int = 65_000, *, progressive: bool = False) -> bytes:
    """Return a small JPEG whose header declares `width` × `height` pixels."""
    image = bytearray(photo_jpeg(64, 48, progressive=progressive))
    frame = image.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    image[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(image)


@functools.cache
def gif_bomb(width: int = 65_000, height: int = 65_000) -> bytes:
    """Return a small GIF whose header and only frame declare `width` × `height` pixels."""
    image = bytearray(animated_gif(4, 4, frames=1))
    frame = image.index(b",\0\0\0\0\4\0\4\0")
    image[6:10] = image[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(image)


@functools.cache
def webp_bomb(width: int = 16_383, height: int = 16_383) -> bytes:
    """Return a small lossy WebP whose header declares `width` × `height` pixels (RFC 6386 §9.1)."""
    image = bytearray(webp(16, 16))
    start = image.index(b"\x9d\x01\x2a") + 3
    image[start : start + 4] = struct.pack("<HH", width, height)
    return bytes(image)


def corpus() -> Path | None:
    """Return the directory of real images next to the checkout, or `None` if there is none."""
    folder = REPOSITORY.parent / "shared" / "corpus"
    return folder if folder.is_dir() else None


def corpus_files(folder: str) -> list[Path]:
    """Return the files of one directory of the corpus, in order, or an empty list if there is no corpus."""
    root = corpus()
    return sorted(root.joinpath(folder).iterdir()) if root is not None else []


def decode(body: bytes) -> Image.Image:
    """Return an image that Pillow has decoded completely."""
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference of two pictures of the same size, in steps of 8-bit sRGB."""
    if one.size != other.size:
        raise ValueError(f"expected two pictures of the same size, got {one.size} and {other.size}")
    difference = np.asarray(one.convert("RGB")).astype(np.int16) - np.asarray(other.convert("RGB"))
    return float(np.abs(difference).mean())


def corner_colors(image: Image.Image, inset: float = 0.04) -> dict[str, Color]:
    """Return the color near each corner of the picture; `inset` is the distance from both edges as a fraction of the shorter side."""
    rgb = image.convert("RGB")
    step = int(min(rgb.size) * inset)
    at = {
        "top left": (step, step),
        "top right": (rgb.width - 1 - step, step),
        "bottom left": (step, rgb.height - 1 - step),
        "bottom right": (rgb.width - 1 - step, rgb.height - 1 - step),
    }
    return {corner: _rgb(rgb, place) for corner, place in at.items()}


def near(color: Color, other: Color, tolerance: int = 40) -> bool:
    """Return whether two colors differ by at most `tolerance` in every band."""
    return all(abs(one - two) <= tolerance for one, two in zip(color, other, strict=True))


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# The passes of an interlaced PNG: left, top, horizontal step, vertical step (W3C PNG §8.2).
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def _rgb(image: Image.Image, place: tuple[int, int]) -> Color:
    red, green, blue = np.asarray(image)[place[1], place[0]].tolist()
    return red, green, blue


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _animation(width: int, height: int, frames: int, image_format: str, **options: object) -> bytes:
    pictures = [Image.new("RGB", (width, height), FRAME_COLORS[frame % len(FRAME_COLORS)]) for frame in range(frames)]
    return _encode(pictures[0], image_format, save_all=True, append_images=pictures[1:], duration=80, loop=0, **options)


def _camera() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = CAMERA
    exif[ExifTags.Base.ImageDescription] = PLACE
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef] = "N"
    gps[ExifTags.GPS.GPSLatitude] = (64.0, 55.0, 34.2)
    gps[ExifTags.GPS.GPSLongitudeRef] = "W"
    gps[ExifTags.GPS.GPSLongitude] = (23.0, 18.0, 40.6)
    return exif


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **{name: value for name, value in options.items() if value is not None})
    return out.getvalue()


def _pack(row: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Return the bytes of a row's samples of `bits` each, most significant first (W3C PNG §7.2)."""
    if bits == 16:
        return row.astype(">u2").tobytes()
    planes = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(planes.ravel()).tobytes()


def _linear(encoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the linear light of sRGB's encoded values, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _lab(rgb: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Return CIE L, a and b (D50) of sRGB values of 0 to 1."""
    xyz = _linear(rgb) @ np.array([[0.43607, 0.22250, 0.01393], [0.38506, 0.71688, 0.09710], [0.14308, 0.06062, 0.71417]])
    ratio = xyz / np.array([0.96420, 1.0, 0.82491])
    cube = np.where(ratio > 216 / 24_389, np.cbrt(ratio), (24_389 / 27 * ratio + 16) / 116)
    return [116 * cube[..., 1] - 16, 500 * (cube[..., 0] - cube[..., 1]), 200 * (cube[..., 1] - cube[..., 2])]


def _rgb_profile(name: bytes, primaries: Sequence[tuple[float, float, float]], curve: bytes) -> bytes:
    tags = {b"rXYZ": _xyz(*primaries[0]), b"gXYZ": _xyz(*primaries[1]), b"bXYZ": _xyz(*primaries[2])}
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**_common_tags(name), **tags, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def _common_tags(name: bytes) -> dict[bytes, bytes]:
    return {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": _xyz(0.96420, 1.0, 0.82491),
    }


def _curve(entries: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">I", len(entries)) + entries.astype(">u2").tobytes()


def _profile(device: bytes, colors: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return an ICC profile of version 2.1 (ICC.1:2001-04 §6.1): its header, the table of tags, the tags."""
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
        device,
        colors,
        connection,
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


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65_536) for value in (x, y, z)))

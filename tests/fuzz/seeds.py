"""Good images of every format that the service accepts, from which mutated images are made."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image

from tests.support import images

Kind: TypeAlias = Literal["jpeg", "png", "gif", "webp", "avif", "heic", "tiff", "svg"]
# The white point and the primaries of Display P3 in units of 0.00001 (PNG, third edition, §11.3.2.1).
DISPLAY_P3 = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)
Samples: TypeAlias = npt.NDArray[np.uint16]

# Larger files of the corpus would take most of the time without adding other structures.
MAX_CORPUS_FILE_BYTES = 300_000

_SUFFIXES: dict[str, Kind] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".gif": "gif",
    ".webp": "webp",
    ".avif": "avif",
    ".heic": "heic",
    ".heif": "heic",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".svg": "svg",
}

DRAWING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="120" height="90" viewBox="0 0 120 90">'
    b"<style>.a{fill:red} rect.b, g > circle{stroke:#00f;stroke-width:2}</style>"
    b'<defs><linearGradient id="g"><stop offset="0" stop-color="red"/>'
    b'<stop offset="1" stop-color="#00f" stop-opacity=".5"/></linearGradient>'
    b'<filter id="f"><feGaussianBlur stdDeviation="3"/><feOffset dx="2" dy="2"/></filter><clipPath id="c"><circle r="40"/></clipPath>'
    b'<pattern id="p" width="8" height="8" patternUnits="userSpaceOnUse"><path d="M0 0L8 8M8 0L0 8" stroke="#333"/></pattern>'
    b'<mask id="m"><rect width="60" height="60" fill="#fff"/></mask><symbol id="s"><path d="M0 0C10 10 20 10 30 0Z"/></symbol></defs>'
    b'<rect class="b" width="90" height="60" fill="url(#g)" transform="rotate(20 50 50)"/>'
    b'<g clip-path="url(#c)" mask="url(#m)"><circle cx="60" cy="45" r="40" fill="url(#p)" filter="url(#f)"/></g>'
    b'<use href="#s" x="10"/><use xlink:href="#s" y="30"/><text x="20" y="60" font-size="24" class="a">'
    b'Text <tspan dy="4">more</tspan></text></svg>'
)

# Style rules of every kind that CSS has, most of which a cleaner of style sheets has to take apart (CSS Syntax 3, Conditional Rules 3).
STYLED_DRAWING = (
    b'<?xml version="1.0" encoding="UTF-8"?><!-- a prologue --><!DOCTYPE svg [<!ENTITY ns "http://www.w3.org/2000/svg"><!ENTITY c "red">]>'
    b'<svg xmlns="&ns;" width="120" height="90"><style type="text/css"><![CDATA[@charset "utf-8";@import url("https://example.com/a.css");'
    b"@namespace svg url(http://www.w3.org/2000/svg);@media screen and (min-width:1px),print{.a{fill:#f00}"
    b"@media (prefers-color-scheme:dark){.a{fill:#000}}}@supports (fill:red){.b{fill:green}}"
    b"@font-face{font-family:x;src:url(https://example.com/x.woff2)}@keyframes k{from{opacity:0}to{opacity:1}}@page{margin:0}@layer l;"
    b'.c\\:d,#e>rect:not(.f):nth-child(2n+1)::before{fill:url(#g) !important;content:"}"}/* } */.h{fill:url(https://example.com/#g)}'
    b'*{--v:1;stroke:calc(1px*2)}]]></style><defs><linearGradient id="g"><stop offset="0" stop-color="&c;"/></linearGradient>'
    b'<filter id="f"><feDiffuseLighting surfaceScale="4"><feDistantLight azimuth="60" elevation="55"/></feDiffuseLighting>'
    b'<feMorphology operator="dilate" radius="2"/><feTurbulence baseFrequency=".1" numOctaves="2"/>'
    b'<feColorMatrix type="hueRotate" values="9"/>'
    b'<feComponentTransfer><feFuncR type="gamma" exponent="2"/></feComponentTransfer><feDisplacementMap scale="5"/><feFlood/><feMerge/>'
    b'</filter></defs><g class="a c:d" id="e"><rect class="b" width="60" height="40" style="fill:url(#g);cursor:url(https://example.com/)"/>'
    b'<circle cx="60" cy="45" r="30" fill="url(https://example.com/#g) blue" filter="url(#f)"/></g></svg>'
)


class Seed(NamedTuple):
    """A good image: its name, its format, its bytes."""

    name: str
    kind: Kind
    body: bytes


def seeds() -> list[Seed]:
    """Return every seed: generated ones first, then the small files of the corpus if it lies next to the checkout."""
    return [*generated_seeds(), *_from_corpus()]


@cache
def generated_seeds() -> tuple[Seed, ...]:
    """Return the seeds that are generated, which takes two seconds the first time."""
    return tuple(_generated())


def _generated() -> Iterator[Seed]:
    yield from (Seed(f"generated {name}", "jpeg", body) for name, body in _jpegs().items())
    yield from (Seed(f"generated {name}", "png", body) for name, body in _pngs().items())
    yield from (Seed(f"generated {name}", "tiff", body) for name, body in _tiffs().items())
    yield from (Seed(f"generated {name}", kind, body) for name, (kind, body) in _others().items())
    yield Seed("generated drawing", "svg", DRAWING)
    yield Seed("generated drawing with style rules", "svg", STYLED_DRAWING)
    yield Seed("generated drawing in UTF-16", "svg", STYLED_DRAWING.decode().replace("UTF-8", "UTF-16").encode("utf-16"))
    yield from (Seed(f"generated drawing with a {kind} picture", "svg", _drawing_with(kind, body)) for kind, body in _embedded().items())


def _from_corpus() -> Iterator[Seed]:
    root = images.corpus()
    paths = [] if root is None else sorted(root.rglob("*"))
    for path in paths:
        kind = _SUFFIXES.get(path.suffix.lower())
        if kind is not None and path.stat().st_size <= MAX_CORPUS_FILE_BYTES:
            yield Seed(f"{path.parent.name}/{path.name}", kind, path.read_bytes())


def _jpegs() -> dict[str, bytes]:
    return {
        "jpeg": images.photo_jpeg(120, 90),
        "jpeg, progressive": images.photo_jpeg(120, 90, progressive=True),
        "jpeg, large": images.photo_jpeg(900, 700, quality=30),
        "jpeg, turned": images.photo_jpeg(120, 90, orientation=6),
        "jpeg, camera and sRGB": images.camera_jpeg(120, 90),
        "jpeg, owned": images.copyrighted_jpeg(120, 90, orientation=3),
        "jpeg, Display P3": _encode(images.picture(120, 90), "JPEG", icc_profile=images.p3_profile()),
        "jpeg, gray with a profile": images.gray_jpeg(120, 90, profile=images.gray_profile()),
        "jpeg, cmyk": images.cmyk_jpeg(80, 60),
        "jpeg, cmyk with a profile": images.cmyk_jpeg(80, 60, profile=images.cmyk_profile()),
        "jpeg with a gain map": _gain_map(),
    }


def _pngs() -> dict[str, bytes]:
    gray: Samples = np.asarray(images.picture(60, 45).convert("L")).astype(np.uint16)
    colors: Samples = np.asarray(images.picture(60, 45)).astype(np.uint16)
    palette = [(level, 255 - level, level // 2, level) for level in range(256)]
    frames = images.film(60, 45)
    return {
        "png": images.rgb_png(80, 60),
        "png with a profile": images.rgb_png(80, 60, profile=images.wide_profile()),
        "png, alpha": images.rgba_png(80, 60),
        "png, gray alpha": images.gray_png(80, 60, alpha=True),
        "png, palette": images.palette_png(80, 60),
        "png, palette with alpha": images.png(gray, 8, palette=palette),
        "png, 1 bit": images.png(gray >> np.uint16(7), 1),
        "png, 4 bits, interlaced": images.png(gray >> np.uint16(4), 4, interlaced=True),
        "png, 16 bits, interlaced": images.png(colors * np.uint16(257), 16, interlaced=True),
        "png, one color transparent": images.png(colors, 8, clear=(255, 0, 0)),
        "png, 16 bits": images.png16(80, 60),
        "png, animated": _encode(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=80),
        "png, animated, parts and disposal": _encode(
            frames[0], "PNG", save_all=True, append_images=frames[1:], duration=80, disposal=1, blend=1, loop=3, default_image=True
        ),
        "png, PQ": _with_chunks(images.png16(80, 60), b"cICP\x09\x10\x00\x01", b"cLLI" + bytes(8), b"mDCV" + bytes(24)),
        "png, gamma and chromaticities": _with_chunks(
            images.rgb_png(80, 60), struct.pack(">4sI", b"gAMA", 100_000), struct.pack(">4s8I", b"cHRM", *DISPLAY_P3)
        ),
        "png with XMP": _with_chunks(images.rgb_png(80, 60), b"iTXtXML:com.adobe.xmp" + bytes(5) + b"<x:xmpmeta/>"),
    }


def _tiffs() -> dict[str, bytes]:
    scene = pyvips.Image.new_from_buffer(images.rgb_png(96, 72), "").copy_memory()
    saved: dict[str, dict[str, object]] = {
        "tiled": {"tile": True, "tile_width": 32, "tile_height": 32, "compression": "deflate"},
        "BigTIFF, LZW": {"bigtiff": True, "compression": "lzw", "predictor": "horizontal"},
        "JPEG in tiles": {"tile": True, "tile_width": 32, "tile_height": 32, "compression": "jpeg"},
        "pyramid": {"tile": True, "tile_width": 32, "tile_height": 32, "pyramid": True, "compression": "deflate"},
        "packed": {"compression": "packbits"},
        "with a profile": {"compression": "deflate", "profile": "p3"},
    }
    pictures = {f"tiff, {name}": bytes(scene.tiffsave_buffer(**options)) for name, options in saved.items()}
    return pictures | {
        "tiff": images.tiff(96, 72),
        "tiff, pages": images.pages_tiff(images.film(60, 45)),
        "tiff, pages of several sizes": images.pages_tiff([images.picture(60, 40), images.picture(40, 70)]),
        "tiff, Lab": images.lab_tiff(40, 30),
        "tiff, 16 bits": bytes(scene.colourspace("rgb16").tiffsave_buffer(compression="deflate")),
        "tiff, floating point": bytes(scene.colourspace("scrgb").tiffsave_buffer(compression="deflate")),
        "tiff, 1 bit": bytes(scene.colourspace("b-w").tiffsave_buffer(bitdepth=1, compression="ccittfax4")),
        "tiff, cmyk": _encode(images.picture(60, 45).convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "tiff, white is zero": _small_tiff(0, 1, bits=4),
        "tiff, palette": _small_tiff(3, 1, fields={320: tuple(range(0, 65_536, 256)) * 3}),
        "tiff, YCbCr": _small_tiff(6, 3, fields={530: (1, 1)}),
        "tiff, YCbCr subsampled": _small_tiff(6, 3, fields={530: (2, 2), 279: (24 * 18 * 3 // 2,)}),
        "tiff, CIELab of 8 bits": _small_tiff(8, 3),
        "tiff, ICCLab": _small_tiff(9, 3),
        "tiff, planes": _small_tiff(2, 3, fields={284: (2,), 273: (8, 440, 872), 279: (432, 432, 432)}),
        "tiff, associated alpha": _small_tiff(2, 4, fields={338: (1,)}),
        "tiff, signed": _small_tiff(1, 1, bits=16, fields={339: (2,)}),
        "tiff, pages of different colors": images.pages_tiff([images.picture(40, 30), images.picture(40, 30).convert("L")]),
        "tiff, turned": images.oriented_scene(60, 45, 8, "TIFF"),
    }


def _others() -> dict[str, tuple[Kind, bytes]]:
    frames = images.film(60, 45)
    scene = pyvips.Image.new_from_buffer(images.rgba_png(96, 72), "").copy_memory()
    return {
        "gif": ("gif", images.palette_gif(80, 60)),
        "gif, animated": ("gif", images.animation(frames, "GIF", disposal=2)),
        "gif, interlaced": ("gif", _encode(images.picture(60, 45).quantize(16), "GIF", interlace=1)),
        "webp": ("webp", images.webp(96, 72)),
        "webp, alpha": ("webp", images.webp(96, 72, alpha=True)),
        "webp, lossless with a profile": (
            "webp",
            _encode(images.picture(60, 45), "WEBP", lossless=True, icc_profile=images.srgb_profile(), exif=Image.Exif().tobytes()),
        ),
        "webp, animated": ("webp", images.animation(frames, "WEBP")),
        "avif": ("avif", images.avif(96, 72)),
        "avif, 4:4:4": ("avif", images.avif(64, 48, subsampling="4:4:4")),
        "avif, 10 bits with alpha": ("avif", bytes(scene.heifsave_buffer(compression="av1", bitdepth=10, effort=0))),
        "avif with a profile": ("avif", _encode(images.picture(64, 48), "AVIF", speed=9, icc_profile=images.p3_profile())),
        "avif, PQ": ("avif", _with_cicp(images.avif(64, 48), 9, 16, 9, 0)),
        "avif, HLG": ("avif", _with_cicp(images.avif(64, 48), 9, 18, 9, 1)),
        "avif, linear P3": ("avif", _with_cicp(images.avif(64, 48), 12, 8, 6, 1)),
        "avif, gray": ("avif", images.avif(64, 48, subsampling="4:0:0")),
        "avif, animated": ("avif", _encode(frames[0], "AVIF", save_all=True, append_images=frames[1:3], speed=9)),
        "heic": ("heic", images.heic(96, 72)),
        "heic, larger": ("heic", images.heic(600, 400)),
    }


def _embedded() -> dict[str, bytes]:
    return {
        "png": images.rgba_png(16, 12),
        "jpeg": images.photo_jpeg(16, 12),
        "webp": images.webp(16, 12),
        "gif": images.palette_gif(16, 12),
        "svg+xml": DRAWING,
    }


def _drawing_with(kind: str, picture: bytes) -> bytes:
    return (
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="60mm" height="45mm"><image width="16" height="12" '
        b'href="data:image/' + kind.encode() + b";base64," + base64.b64encode(picture) + b'"/></svg>'
    )


def _gain_map() -> bytes:
    """Return an Ultra HDR photo: a JPEG with a second one, the gain map, behind it."""
    bright = pyvips.Image.new_from_buffer(images.rgb_png(96, 72), "").colourspace("scrgb") * 3
    return bytes(bright.uhdrsave_buffer())


def _with_cicp(avif: bytes, primaries: int, transfer: int, matrix: int, full_range: int) -> bytes:
    """Return an AVIF with other code points of ITU-T H.273 in its container, not in its stream."""
    at = avif.index(b"colrnclx") + 8
    return avif[:at] + struct.pack(">HHHB", primaries, transfer, matrix, full_range << 7) + avif[at + 7 :]


def _with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """Return a PNG with chunks after its header; each is a type and data."""
    packed = b"".join(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return png[:33] + packed + png[33:]


def _small_tiff(photometric: int, bands: int, *, bits: int = 8, fields: Mapping[int, tuple[int, ...]] | None = None) -> bytes:
    """Return an uncompressed TIFF of noise, 24 × 18, with a photometric interpretation (TIFF 6.0, tag 262) and more fields of shorts."""
    width, height = 24, 18
    row_bytes = (width * bands * bits + 7) // 8
    entries = {
        256: (width,), 257: (height,), 258: (bits,) * bands, 259: (1,), 262: (photometric,), 273: (8,), 277: (bands,), 278: (height,),
        279: (row_bytes * height,), **(fields or {}),
    }  # fmt: skip
    pixels = np.random.default_rng(photometric).integers(0, 256, row_bytes * height, np.uint8).tobytes()
    data, directory = pixels, struct.pack("<H", len(entries))
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            data += bytes(len(data) % 2)
            directory += struct.pack("<HHII", tag, 3, len(values), 8 + len(data))
            data += packed
        else:
            directory += struct.pack("<HHI4s", tag, 3, len(values), packed)
    data += bytes(len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()

"""Good images of every format that the service accepts, from which mutated images are made."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image

from tests.support import images

Kind: TypeAlias = Literal["jpeg", "png", "gif", "webp", "avif", "heic", "tiff", "svg"]
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


class Seed(NamedTuple):
    """A good image: its name, its format, its bytes."""

    name: str
    kind: Kind
    body: bytes


def seeds() -> list[Seed]:
    """Return every seed: generated ones first, then the small files of the corpus if it lies next to the checkout."""
    return [*_generated(), *_from_corpus()]


def _generated() -> Iterator[Seed]:
    yield from (Seed(f"generated {name}", "jpeg", body) for name, body in _jpegs().items())
    yield from (Seed(f"generated {name}", "png", body) for name, body in _pngs().items())
    yield from (Seed(f"generated {name}", "tiff", body) for name, body in _tiffs().items())
    yield from (Seed(f"generated {name}", kind, body) for name, (kind, body) in _others().items())
    yield Seed("generated drawing", "svg", DRAWING)
    yield Seed("generated drawing with a picture", "svg", _drawing_with_picture())


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
        "avif, animated": ("avif", _encode(frames[0], "AVIF", save_all=True, append_images=frames[1:3], speed=9)),
        "heic": ("heic", images.heic(96, 72)),
        "heic, larger": ("heic", images.heic(600, 400)),
    }


def _drawing_with_picture() -> bytes:
    picture = base64.b64encode(images.rgba_png(16, 12))
    return (
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="60mm" height="45mm"><image width="16" height="12" '
        b'href="data:image/png;base64,' + picture + b'"/></svg>'
    )


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()

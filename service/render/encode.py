"""Encoders: one function per format, from pixels to bytes, no metadata in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyvips

from service.render.colour import on_white
from service.transform import Format

# Efforts are what a client may wait for: AVIF above 3 costs four times as much for one per cent of bytes, WebP above 4 twice for four.
WEBP_EFFORT = 3
AVIF_EFFORT = 2
PNG_COMPRESSION = 7

# mozjpeg's table 3 (ImageMagick's, by N. Robidoux) is both smaller and nearer to the original than the standard one.
JPEG_QUANT_TABLE = 3


def encode(image: pyvips.Image, image_format: Format, quality: int) -> bytes:
    """Return `image` (height × width × bands, 8 bits, sRGB or grey, alpha or not) encoded, its metadata left out."""
    return _ENCODERS[image_format](image, quality)


def _avif(image: pyvips.Image, quality: int) -> bytes:
    return bytes(image.heifsave_buffer(compression="av1", Q=quality, effort=AVIF_EFFORT, keep="none"))


def _webp(image: pyvips.Image, quality: int) -> bytes:
    return bytes(image.webpsave_buffer(Q=quality, effort=WEBP_EFFORT, keep="none"))


def _jpeg(image: pyvips.Image, quality: int) -> bytes:
    return bytes(on_white(image).jpegsave_buffer(Q=quality, optimize_coding=True, quant_table=JPEG_QUANT_TABLE, keep="none"))


def _png(image: pyvips.Image, quality: int) -> bytes:  # noqa: ARG001 - PNG loses nothing
    return bytes(image.pngsave_buffer(compression=PNG_COMPRESSION, filter="all", keep="none"))


_ENCODERS: Mapping[Format, Callable[[pyvips.Image, int], bytes]] = {"avif": _avif, "webp": _webp, "jpeg": _jpeg, "png": _png}

"""Repairs of good files that the decoders of libvips refuse or misread: a byte or two is missing at the end, or a label misleads them."""

from __future__ import annotations

import re

from service.worker.formats import jpeg, tiff, tiff_colors, webp

_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
# Any marker that does not occur within the data of a scan, where 0xFF is followed by zero or is a restart marker (ITU-T T.81 §B.1.1.5).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# If a JPEG has no such marker in this many bytes at its end, it ends within its pixels: other data would have one by chance.
_JPEG_TAIL_BYTES = 65_536

_RIFF, _WEBP = b"RIFF", b"WEBP"


def repaired(body: memoryview) -> memoryview:
    """Return a file as the decoders of libvips read it right: the same object if nothing has to be repaired, otherwise a copy.

    A JPEG that ends within its pixels gets its end marker (T.81 §B.1.1.3, EOI). The decoder will notice if more is missing.

    A WebP gets the byte that pads its last chunk to an even size.

    Some pages of a TIFF are labeled as RGB (see `tiff_colors.relabel`).
    """
    if jpeg.is_jpeg(body) and bytes(body[-2:]) != _JPEG_END:
        tail = bytes(body[-_JPEG_TAIL_BYTES:])
        return body if _JPEG_MARKER.search(tail, tail.rfind(_JPEG_SCAN) + len(_JPEG_SCAN)) else _append(body, _JPEG_END)
    if bytes(body[:4]) == _RIFF and bytes(body[8:12]) == _WEBP:
        return _append(body, b"\0") if webp.lacks_padding(body) else body
    if bytes(body[:4]) in tiff.SIGNATURES:
        return tiff_colors.relabel(body)
    return body


def _append(body: memoryview, end: bytes) -> memoryview:
    return memoryview(b"".join((body, end)))

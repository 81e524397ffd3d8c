"""Pictures that are embedded in an SVG as `data:` URLs (RFC 2397).

As in browsers, raster pictures are known by their content, not by the declared type. librsvg decodes plain PNG and JPEG; others are decoded
by libvips, and embedded anew as PNG.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pyvips

from service.worker.formats import webp
from service.worker.formats.svg_tree import Warnings, refuse, refuse_unsupported

MAX_PIXELS = 16_000_000

_DATA_URL = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_BASE64 = re.compile(r";\s*base64\s*$", re.IGNORECASE)
_NOT_BASE64 = re.compile(rb"[\s]+")
_WEBP_BYTES_PER_PIXEL = 12
# Formats that browsers show and that are not decoded here.
_UNSUPPORTED = {b"BM": "BMP", b"\0\0\1\0": "ICO", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL"}
_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks of a PNG that affect its colors, and of an animation.
_PNG_EXTRAS = (b"iCCP", b"cICP", b"gAMA", b"cHRM", b"acTL", b"eXIf")


class Picture(NamedTuple):
    """A raster picture that librsvg can decode: its `data:` URL, and its size in pixels."""

    url: str
    width: int
    height: int


class Drawing(NamedTuple):
    """An SVG document that is embedded."""

    body: bytes


class Pictures:
    """Reads the embedded pictures of one document, and adds up their pixels."""

    def __init__(self, warnings: Warnings) -> None:
        self._warnings = warnings
        self._pixels = 0
        self._known: dict[str, Picture | None] = {}

    def read(self, url: str) -> Picture | Drawing | None:
        """Return an embedded picture, or `None` if it is broken or the URL refers to another file.

        Raises `ImageError`: `too-many-pixels` beyond `MAX_PIXELS` in all, `unsupported` for formats that only browsers show.
        """
        match = _DATA_URL.match(url)
        if match is None:
            if url.strip():
                self._warnings.add("Removed a picture that is in another file.")
            return None
        body = _decode(url[match.end() :], is_base64=bool(_BASE64.search(match[1])))
        if match[1].strip().lower().startswith("image/svg+xml"):
            return Drawing(body)
        if url not in self._known:
            self._known[url] = self._read_raster(body)
        picture = self._known[url]
        if picture is None:
            self._warnings.add("Removed an embedded picture that is broken.")
        return picture

    def _read_raster(self, body: bytes) -> Picture | None:
        for signature, name in _UNSUPPORTED.items():
            if body.startswith(signature):
                refuse_unsupported(f"Embedded pictures in the format {name}", name)
        if not _is_known(body):
            return None
        if body.startswith(b"RIFF"):
            self._count(webp.survey(memoryview(body), 1_000).decoded_bytes // _WEBP_BYTES_PER_PIXEL)
        try:
            image = pyvips.Image.new_from_buffer(body, "", access="sequential")
            if not body.startswith(b"RIFF"):
                self._count(image.width * image.height)
            if _is_plain(body, image):
                kind = "png" if body.startswith(_PNG) else "jpeg"
                return Picture(f"data:image/{kind};base64,{base64.b64encode(body).decode()}", image.width, image.height)
            image = _to_srgb(image)
            encoded = image.pngsave_buffer(compression=1, filter="none", keep="none")
        except pyvips.Error:
            return None
        return Picture(f"data:image/png;base64,{base64.b64encode(encoded).decode()}", image.width, image.height)

    def _count(self, pixels: int) -> None:
        self._pixels += pixels
        if self._pixels > MAX_PIXELS:
            refuse(
                "too-many-pixels",
                "The pictures embedded in the SVG have too many pixels.",
                f"at most {MAX_PIXELS} pixels",
                "more",
            )


def _decode(data: str, *, is_base64: bool) -> bytes:
    """Return the content of a `data:` URL, as much of it as can be decoded."""
    body = unquote_to_bytes(data)
    if not is_base64:
        return body
    packed = _NOT_BASE64.sub(b"", body).rstrip(b"=")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        return b""


def _is_known(body: bytes) -> bool:
    return (
        body.startswith((_PNG, b"\xff\xd8\xff", b"GIF8"))
        or (body.startswith(b"RIFF") and body[8:12] == b"WEBP")
        or (body[4:8] == b"ftyp" and body[8:12] in {b"avif", b"avis", b"mif1"})
    )


def _is_plain(body: bytes, image: pyvips.Image) -> bool:
    """Return whether librsvg decodes a picture as browsers do: a whole PNG or JPEG of 8 bits in sRGB, that needs no rotation."""
    if image.bands == 4 and image.interpretation == "cmyk":
        return False
    if image.format != "uchar" or image.get_typeof("icc-profile-data") or image.get_typeof("orientation"):
        return False
    if body.startswith(_PNG):
        header = body[: body.find(b"IDAT")] if b"IDAT" in body else b""
        return body[-8:-4] == b"IEND" and bool(header) and not any(name in header for name in _PNG_EXTRAS)
    return body.startswith(b"\xff\xd8\xff") and body.rstrip(b"\0").endswith(b"\xff\xd9")


def _to_srgb(image: pyvips.Image) -> pyvips.Image:
    """Return the pixels of a picture, upright, in 8-bit sRGB."""
    image = image.autorot()
    if image.get_typeof("icc-profile-data") or image.interpretation == "cmyk":
        try:
            image = image.icc_transform("srgb", embedded=True, input_profile="cmyk" if image.interpretation == "cmyk" else "srgb")
        except pyvips.Error:
            image = image.colourspace("srgb")
    else:
        image = image.colourspace("srgb")
    return image.cast("uchar").copy_memory()

"""The metadata of an original, read from its container: libvips reads some of them in some containers only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from service.rendering.protocol import ImageError
from service.worker.formats import apng, exif, iptc, isobmff, jpeg, jxl, png, tiff, webp, xmp
from service.worker.formats.xmp import Property

# Tags of TIFF: XMP, data sets of IPTC, and image resources of Photoshop.
_TIFF_XMP, _TIFF_IPTC, _TIFF_PHOTOSHOP = 700, 33_723, 34_377

# Keywords of text in PNG: those of the standard (third edition, §11.3.3.1) that state rights, and of XMP. ImageMagick writes other metadata
# in hexadecimal digits after a name and a length.
_PNG_PROPERTIES = {"Author": xmp.CREATOR, "Copyright": xmp.COPYRIGHT_NOTICE}
_PNG_XMP, _PNG_RAW = "XML:com.adobe.xmp", "Raw profile type "

# XMP in a GIF is not divided into blocks, and ends with bytes that lead a decoder to the next block (XMP specification part 3, §1.1.2).
_GIF_XMP_START, _GIF_XMP_END = re.compile(rb"!\xff\x0bXMP DataXMP"), re.compile(rb"\x01\xff\xfe\xfd")

_MAX_BLOCK_BYTES = 8 << 20


class Metadata(NamedTuple):
    """The metadata of an original, each empty if there is none.

    exif: from its TIFF header on. xmp: a packet. photoshop: a segment as in a JPEG, with IPTC in it. texts: those that state rights, by
    their properties in XMP.
    """

    exif: bytes = b""
    xmp: bytes = b""
    photoshop: bytes = b""
    texts: Mapping[Property, list[str]] = {}


NOTHING = Metadata()


def read(body: memoryview, image_format: str, page: int) -> Metadata:
    """Return the metadata of an original, without blocks that are damaged.

    image_format: of the original. page: of a TIFF, from 0.
    """
    reader = _READERS.get(image_format)
    if reader is None:
        return NOTHING
    try:
        found = reader(body, page)
    except (EOFError, ImageError, ValueError):
        return NOTHING
    block = found.exif.removeprefix(jpeg.EXIF)
    return found._replace(exif=block if block[:4] in tiff.SIGNATURES else b"")


def _jpeg(body: memoryview, _page: int) -> Metadata:
    found = Metadata()
    photoshop = b""
    for marker, _, content in jpeg.segments(body):
        if marker == jpeg.APPLICATION_1 and content[: len(jpeg.EXIF)] == jpeg.EXIF and not found.exif:
            found = found._replace(exif=bytes(content))
        elif marker == jpeg.APPLICATION_1 and content[: len(jpeg.XMP)] == jpeg.XMP and not found.xmp:
            found = found._replace(xmp=bytes(content[len(jpeg.XMP) :]))
        elif marker == jpeg.APPLICATION_13 and content[: len(iptc.PHOTOSHOP)] == iptc.PHOTOSHOP:
            # Long ones are divided between segments.
            photoshop += bytes(content[len(iptc.PHOTOSHOP) :] if photoshop else content)
    return found._replace(photoshop=photoshop)


def _png(body: memoryview, _page: int) -> Metadata:
    blocks: dict[str, bytes] = {}
    for kind, content in png.metadata_chunks(body, apng.MAX_CHUNKS):
        if kind == b"eXIf":
            blocks.setdefault("exif", bytes(content))
        elif _is_png_keyword(keyword := png.keyword(content)) and keyword not in blocks:
            blocks[keyword] = png.text(kind, content)
    photoshop = _raw(blocks, "iptc") or _raw(blocks, "8bim")
    if photoshop:
        photoshop = iptc.PHOTOSHOP + photoshop if iptc.is_resource(photoshop) else iptc.segment_of(photoshop)
    raw_exif = _raw(blocks, "exif") or _raw(blocks, "APP1")
    texts = {known: [blocks[keyword].decode("utf-8", "replace")] for keyword, known in _PNG_PROPERTIES.items() if blocks.get(keyword)}
    return Metadata(blocks.get("exif", b"") or raw_exif, blocks.get(_PNG_XMP, b"") or _raw(blocks, "xmp"), photoshop, texts)


def _is_png_keyword(keyword: str) -> bool:
    return keyword == _PNG_XMP or keyword in _PNG_PROPERTIES or keyword.startswith(_PNG_RAW)


def _raw(blocks: Mapping[str, bytes], name: str) -> bytes:
    """Return a block that is written in hexadecimal digits after its name and length."""
    digits = blocks.get(_PNG_RAW + name, b"").split(None, 2)[2:]
    try:
        return bytes.fromhex(digits[0].decode("latin-1")) if digits else b""
    except ValueError:
        return b""


def _webp(body: memoryview, _page: int) -> Metadata:
    blocks: dict[bytes, bytes] = {}
    for kind, content in webp.chunks_of(body):
        if kind in {b"EXIF", b"XMP "}:
            blocks.setdefault(kind, bytes(content))
    return Metadata(blocks.get(b"EXIF", b""), blocks.get(b"XMP ", b""))


def _tiff(body: memoryview, page: int) -> Metadata:
    values = tiff.page_values(body, page)
    packet, data_sets, photoshop = (bytes(values[tag].data) if tag in values else b"" for tag in (_TIFF_XMP, _TIFF_IPTC, _TIFF_PHOTOSHOP))
    # Programs that write both keep IPTC out of the resources.
    segment = iptc.segment_of(data_sets) if data_sets else iptc.PHOTOSHOP
    return Metadata(exif.from_tiff(body, page), packet, segment + photoshop if data_sets or photoshop else b"")


def _heif(body: memoryview, _page: int) -> Metadata:
    item = isobmff.primary_id(isobmff.first(body, b"meta")[4:])
    return Metadata(isobmff.exif_of(body, item, _MAX_BLOCK_BYTES), isobmff.xmp_of(body, item, _MAX_BLOCK_BYTES))


def _jxl(body: memoryview, _page: int) -> Metadata:
    return Metadata(*jxl.read_metadata(body))


def _gif(body: memoryview, _page: int) -> Metadata:
    # Not with one regular expression, which would search for the end after each of many beginnings.
    start = _GIF_XMP_START.search(body)
    end = _GIF_XMP_END.search(body, start.end()) if start else None
    return Metadata(xmp=bytes(body[start.end() : end.start()])) if start and end else NOTHING


_READERS: Mapping[str, Callable[[memoryview, int], Metadata]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "tiff": _tiff,
    "avif": _heif,
    "heic": _heif,
    "jxl": _jxl,
    "gif": _gif,
}

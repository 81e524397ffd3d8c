"""Gain maps in HEIC and AVIF: another picture in the file, found by a `tmap` item (ISO/IEC 23008-12, ISO 21496-1) or by Apple's type."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from service.worker.formats import isobmff, ultra_hdr
from service.worker.formats.ultra_hdr import GainMapInfo

_APPLE_KIND = b"urn:com:apple:photo:2020:aux:hdrgainmap"
_MAX_METADATA_BYTES = 1 << 16
# A picture has one tone-mapped form. Each that is examined costs a pass over the tables of the file.
_MAX_TONE_MAPPED = 8

# Exif in such a file begins with the offset of its TIFF header from there (ISO/IEC 23008-12 §A.2.1).
_EXIF_OFFSET_BYTES = 4


class Location(NamedTuple):
    """The item of a gain map, and the meaning of its levels."""

    item: int
    info: GainMapInfo


def find(body: memoryview) -> Location | None:
    """Return the gain map of the primary picture, `None` if it has none that is understood."""
    try:
        found = _find(body)
    except EOFError:
        return None
    return found if found is not None and found.info.is_usable else None


def _find(body: memoryview) -> Location | None:
    meta = isobmff.first(body, b"meta")[4:]
    primary = isobmff.primary_id(meta)
    types = isobmff.item_types(meta)
    tone_mapped = (item for item in dict.fromkeys(isobmff.referring(meta, b"dimg", primary)) if types.get(item) == b"tmap")
    for item in islice(tone_mapped, _MAX_TONE_MAPPED):
        inputs = isobmff.references(meta, b"dimg", item)
        if len(inputs) == 2 and inputs[0] == primary:
            # The metadata begins with the version of its own box.
            content = isobmff.item_content(body, item, _MAX_METADATA_BYTES)
            info = ultra_hdr.read_iso(content[1:]) if content[:1] == b"\0" else None
            if info is not None:
                return Location(inputs[1], info)
    for item, properties in isobmff.properties_of_items(meta, isobmff.referring(meta, b"auxl", primary)).items():
        if _APPLE_KIND in bytes(dict(properties).get(b"auxC", b"")):
            exif = isobmff.exif_of(body, primary, _MAX_METADATA_BYTES)
            info = ultra_hdr.read_xmp(isobmff.xmp_of(body, item, _MAX_METADATA_BYTES), exif)
            info = info or ultra_hdr.apple_info(ultra_hdr.apple_headroom(exif))
            return None if info is None else Location(item, info)
    return None

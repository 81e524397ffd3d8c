"""IPTC-IIM (Information Interchange Model 4.2), the metadata of news agencies, and the image resources of Photoshop that hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from service.worker.formats import xmp
from service.worker.formats.xmp import Property

# The Photoshop segment of a JPEG: a list of image resources, each with a signature, an id, a name and data (Adobe Photoshop File Formats
# Specification, Image Resource Blocks).
PHOTOSHOP = b"Photoshop 3.0\0"
_RESOURCE_SIGNATURE = b"8BIM"
_IPTC_RESOURCE = 0x0404
_THUMBNAIL_RESOURCES = frozenset({1_033, 1_036})

# IIM §1.6: a data set begins with this byte, a record number, a number in the record, and the length of its data.
_TAG_MARKER, _HEADER_BYTES, _EXTENDED_LENGTH = 0x1C, 5, 0x8000
_APPLICATION_RECORD = 2
# More than any program writes.
_MAX_DATA_SETS = 1_000

# Data sets of the application record that state rights, and others, with their properties in XMP (IPTC Photo Metadata Standard, IPTC Core).
RIGHTS: Mapping[int, Property] = {80: xmp.CREATOR, 110: xmp.CREDIT, 116: xmp.COPYRIGHT_NOTICE}
EVERY: Mapping[int, Property] = {
    **RIGHTS,
    5: xmp.TITLE,
    25: xmp.KEYWORDS,
    40: xmp.photoshop("Instructions"),
    85: xmp.photoshop("AuthorsPosition"),
    90: xmp.photoshop("City"),
    92: xmp.LOCATION,
    95: xmp.photoshop("State"),
    101: xmp.photoshop("Country"),
    103: xmp.photoshop("TransmissionReference"),
    105: xmp.photoshop("Headline"),
    115: xmp.photoshop("Source"),
    120: xmp.DESCRIPTION,
    122: xmp.photoshop("CaptionWriter"),
}


class Resource(NamedTuple):
    """An image resource. whole: with its header and padding."""

    number: int
    data: bytes
    whole: bytes


def resources(segment: bytes) -> Iterator[Resource]:
    """Yield the resources of a Photoshop segment, up to the first that is malformed; those beyond its end are left out."""
    start = len(PHOTOSHOP)
    while segment[start : start + 4] == _RESOURCE_SIGNATURE:
        number = int.from_bytes(segment[start + 4 : start + 6], "big")
        # The name begins with its length. Name and data are padded to an even number of bytes.
        data_start = start + 6 + _round_up_to_even(1 + int.from_bytes(segment[start + 6 : start + 7], "big"))
        length = int.from_bytes(segment[data_start : data_start + 4], "big")
        end = data_start + 4 + _round_up_to_even(length)
        if end <= len(segment) + 1:
            yield Resource(number, segment[data_start + 4 : data_start + 4 + length], segment[start:end])
        start = end


def is_resource(content: bytes) -> bool:
    """Return whether data begins with an image resource."""
    return content.startswith(_RESOURCE_SIGNATURE)


def strip_thumbnails(segment: bytes) -> bytes:
    """Return the Photoshop segment of a JPEG without thumbnails, up to the first resource that is malformed."""
    if not segment.startswith(PHOTOSHOP):
        return segment
    return PHOTOSHOP + b"".join(found.whole for found in resources(segment) if found.number not in _THUMBNAIL_RESOURCES)


def segment_of(data_sets: bytes) -> bytes:
    """Return a Photoshop segment with data sets of IIM."""
    header = _RESOURCE_SIGNATURE + _IPTC_RESOURCE.to_bytes(2, "big") + b"\0\0" + len(data_sets).to_bytes(4, "big")
    return PHOTOSHOP + header + data_sets + bytes(len(data_sets) % 2)


def properties(segment: bytes, selected: Mapping[int, Property]) -> dict[Property, list[str]]:
    """Return the properties of XMP for the data sets in a Photoshop segment, those that may be repeated with several texts.

    selected: the data sets to read.
    """
    data_sets = next((found.data for found in resources(segment) if found.number == _IPTC_RESOURCE), b"")
    out: dict[Property, list[str]] = {}
    for record, number, data in islice(_data_sets(data_sets), _MAX_DATA_SETS):
        text = _decode(data)
        if record == _APPLICATION_RECORD and number in selected and text:
            out.setdefault(selected[number], []).append(text)
    return out


def _data_sets(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the record, the number and the data of each data set, up to the first that is malformed."""
    position = 0
    while position + _HEADER_BYTES <= len(content) and content[position] == _TAG_MARKER:
        length = int.from_bytes(content[position + 3 : position + 5], "big")
        end = position + _HEADER_BYTES + length
        if length >= _EXTENDED_LENGTH or end > len(content):
            return
        yield content[position + 1], content[position + 2], content[position + _HEADER_BYTES : end]
        position = end


def _decode(data: bytes) -> str:
    """Return a text. Programs write UTF-8 or Windows' Western European characters, and do not always say which (IIM §1:90)."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return text.strip("\0 \r\n\t")


def _round_up_to_even(length: int) -> int:
    return length + length % 2

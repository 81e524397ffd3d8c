"""Metadata: what a rendition tells of its origin, and nothing that is no longer true of it."""

from __future__ import annotations

import re

import pyvips

from service.images.transform import Transform

# Fields of Exif that say whose picture it is (Exif 2.32, tags 0x013B and 0x8298).
_COPYRIGHT_FIELDS = frozenset({"exif-ifd0-Artist", "exif-ifd0-Copyright"})

# What is no longer true of a rendition: it is upright, its size is another, and a picture in miniature would show what was cropped away.
_STALE_FIELDS = frozenset({"orientation", "exif-ifd0-Orientation", "jpeg-thumbnail-data"})

# The same in XMP, as attributes and as elements: `tiff:Orientation`; pictures in miniature (`xmp:Thumbnails`); and what a phone's file has
# behind its first picture, a gain map or a film, which no rendition has (Ultra HDR: `hdrgm`, `Container:Directory`).
_XMP_TURN = re.compile(rb"""(:Orientation(?:\s*=\s*["']|\s*>)\s*)[0-9]+""")
_XMP_STALE_ATTRIBUTE = re.compile(rb"""\shdrgm:\w+\s*=\s*(?:"[^"]*"|'[^']*')""")
_XMP_STALE_ELEMENT = re.compile(rb"<((?:[\w-]{1,40}:)?(?:Thumbnails|Directory)|hdrgm:\w+)\b[^<>]*>")

# And in Photoshop's block of a JPEG (Adobe Photoshop File Formats: image resources): blocks of a signature, a number, a name and data.
_PHOTOSHOP, _RESOURCE = b"Photoshop 3.0\0", b"8BIM"
_MINIATURE_RESOURCES = frozenset({1_033, 1_036})


def with_metadata(image: pyvips.Image, transform: Transform) -> pyvips.Image:
    """Return `image` with what the transform lets it tell; encoders write nothing else."""
    if transform.metadata == "none":
        return image
    image = image.copy()
    for field in image.get_fields():
        private = field.startswith("exif-") and field != "exif-data" and field not in _COPYRIGHT_FIELDS
        if field in _STALE_FIELDS or field.startswith("exif-ifd1-") or (private and transform.metadata == "copyright"):
            image.remove(field)
    for field, made_true in (("xmp-data", correct_xmp), ("iptc-data", strip_thumbnails)):
        if not image.get_typeof(field):
            continue
        block = made_true(bytes(image.get(field)))
        image.remove(field)
        if block:
            image.set_type(pyvips.GValue.blob_type, field, block)
    return image


def correct_xmp(packet: bytes) -> bytes:
    """Return an XMP packet (UTF-8) of a picture that is upright and alone in its file; nothing where an element has no end."""
    packet = _XMP_STALE_ATTRIBUTE.sub(b"", _XMP_TURN.sub(rb"\g<1>1", packet))
    kept, at = bytearray(), 0
    # By hand: an expression that looks for the end of each element reads to the end of a hostile packet as often as one begins.
    while start := _XMP_STALE_ELEMENT.search(packet, at):
        kept += packet[at : start.start()]
        at = start.end()
        if not start[0].endswith(b"/>"):
            closing = packet.find(b"</" + start[1], at)
            at = packet.find(b">", closing) + 1 if closing >= 0 else 0
            if at == 0:
                return b""
    return bytes(kept + packet[at:])


def strip_thumbnails(block: bytes) -> bytes:
    """Return a JPEG's Photoshop block without pictures in miniature; as far as it can be read."""
    if not block.startswith(_PHOTOSHOP):
        return block
    kept, at = bytearray(_PHOTOSHOP), len(_PHOTOSHOP)
    while block[at : at + 4] == _RESOURCE:
        number = int.from_bytes(block[at + 4 : at + 6], "big")
        # The name has its length in front, and both parts are filled up to an even number of bytes.
        data_at = at + 6 + _even(1 + int.from_bytes(block[at + 6 : at + 7], "big"))
        end = data_at + 4 + _even(int.from_bytes(block[data_at : data_at + 4], "big"))
        if number not in _MINIATURE_RESOURCES and end <= len(block) + 1:
            kept += block[at:end]
        at = end
    return bytes(kept)


def _even(length: int) -> int:
    return length + length % 2

"""Metadata: what a rendition tells of its origin, and nothing that is no longer true of it."""

from __future__ import annotations

import re

import pyvips

from service.transform import Transform

# Fields of Exif that say whose picture it is (Exif 2.32, tags 0x013B and 0x8298).
_COPYRIGHT_FIELDS = frozenset({"exif-ifd0-Artist", "exif-ifd0-Copyright"})

# What is no longer true of a rendition: it is upright, its size is another, and a picture in miniature would show what was cropped away.
_STALE_FIELDS = frozenset({"orientation", "exif-ifd0-Orientation", "jpeg-thumbnail-data"})

# The same in XMP (XMP Specification, part 2: `tiff:Orientation`, an attribute or an element, and `xmp:Thumbnails`).
_XMP_TURN = re.compile(rb"""(:Orientation(?:\s*=\s*["']|\s*>)\s*)[0-9]+""")
_XMP_MINIATURES = re.compile(rb"<(?:[\w-]+:)?Thumbnails\b.*?</(?:[\w-]+:)?Thumbnails\s*>", re.DOTALL)

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
    for field, made_true in (("xmp-data", upright_xmp), ("iptc-data", without_miniatures)):
        if image.get_typeof(field):
            image.set_type(pyvips.GValue.blob_type, field, made_true(bytes(image.get(field))))
    return image


def upright_xmp(packet: bytes) -> bytes:
    """Return an XMP packet (UTF-8) of a picture that is upright, without pictures in miniature."""
    return _XMP_MINIATURES.sub(b"", _XMP_TURN.sub(rb"\g<1>1", packet))


def without_miniatures(block: bytes) -> bytes:
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

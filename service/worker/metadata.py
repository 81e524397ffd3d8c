"""Metadata of a rendition: the fields that its transform requests, without those that became false when it was made."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import NamedTuple

import pyvips

from service.images.formats import Format
from service.images.options import Metadata
from service.worker import original_metadata
from service.worker.formats import iptc, jpeg, xmp
from service.worker.orientation import orientation_of

# Exif fields that name the owner of a picture (Exif 2.32, tags 0x013B and 0x8298).
_COPYRIGHT_FIELDS = frozenset({"exif-ifd0-Artist", "exif-ifd0-Copyright"})

# Fields that are false for a rendition: it is upright, and the embedded thumbnail would show parts that were cropped away.
_STALE_FIELDS = frozenset({"orientation", "exif-ifd0-Orientation", "jpeg-thumbnail-data"})

_BLOCK_FIELDS = frozenset({"xmp-data", "iptc-data"})

# The same fields in XMP, as attributes and as elements: `tiff:Orientation`, `xmp:Thumbnails`, and the description of the gain map or video
# that a phone appends to the picture (Ultra HDR: `hdrgm`, `Container:Directory`), which no rendition has.
_XMP_ORIENTATION = re.compile(rb"""(:Orientation(?:\s*=\s*["']|\s*>)\s*)[0-9]+""")
_XMP_STALE_ATTRIBUTE = re.compile(rb"""\shdrgm:\w+\s*=\s*(?:"[^"]*"|'[^']*')""")
_XMP_STALE_ELEMENT = re.compile(rb"<((?:[\w-]{1,40}:)?(?:Thumbnails|Directory)|hdrgm:\w+)\b[^<>]*>")


def select_metadata(image: pyvips.Image, keep: Metadata, image_format: Format, original: original_metadata.Metadata) -> pyvips.Image:
    """Return `image` with the metadata that a rendition may have; encoders write no other.

    keep: the value of the transform's option. image_format: of the rendition. original: the metadata of its original.
    """
    if keep == "none":
        return image
    image = image.copy()
    blocks = {"exif-data": jpeg.EXIF + original.exif if original.exif else b"", **_other_blocks(keep, image_format, original)}
    for field in [field for field in image.get_fields() if field in _BLOCK_FIELDS or field.startswith("exif-")]:
        image.remove(field)
    for field, block in blocks.items():
        if block:
            image.set_type(pyvips.GValue.blob_type, field, block)
    # libvips has derived these from the Exif, and writes the Exif from them.
    for field in image.get_fields():
        is_private = field.startswith("exif-") and field != "exif-data" and field not in _COPYRIGHT_FIELDS
        if field in _STALE_FIELDS or field.startswith("exif-ifd1-") or (is_private and keep == "copyright"):
            image.remove(field)
    return image


def _other_blocks(keep: Metadata, image_format: Format, original: original_metadata.Metadata) -> dict[str, bytes]:
    """Return the XMP and the Photoshop segment of a rendition.

    Only JPEG has the segment, which holds IPTC. In other formats its content moves to the XMP if that lacks it.
    """
    if keep == "copyright":
        stated, known = xmp.rights(original.xmp)
        stated += _missing_properties(original, iptc.RIGHTS, known)
        return {"xmp-data": xmp.packet_of(xmp.description(stated)) if stated else b""}
    packet = correct_xmp(original.xmp)
    missing = _missing_properties(original, {} if image_format == "jpeg" else iptc.EVERY, xmp.values(original.xmp))
    if missing:
        packet = xmp.add(packet, xmp.description(missing), len(packet) + xmp.MAX_PACKET_BYTES)
    return {"xmp-data": packet, "iptc-data": iptc.strip_thumbnails(original.photoshop)}


def _missing_properties(original: original_metadata.Metadata, data_sets: Mapping[int, xmp.Property], known: Container[str]) -> str:
    """Return the properties, as XML, that an original states in IPTC or in texts of a PNG and not in its XMP.

    data_sets: of IPTC. known: the names of those in its XMP.
    """
    stated = {**original.texts, **iptc.properties(original.photoshop, data_sets)}
    return "".join(xmp.property_xml(found, texts) for found, texts in stated.items() if found.name not in known)


class Blocks(NamedTuple):
    """Metadata as they stand in a file, each empty if there is none. Exif begins with its TIFF header."""

    exif: bytes
    xmp: bytes
    icc: bytes


def blocks(image: pyvips.Image, keep: str) -> Blocks:
    """Return the metadata of an image for an encoder that is not one of libvips'.

    keep: the metadata to write, as libvips' `keep` option.
    """
    kept = keep.split("|")
    return Blocks(
        _exif_block(image) if "exif" in kept else b"",
        bytes(image.get("xmp-data")) if "xmp" in kept and image.get_typeof("xmp-data") else b"",
        bytes(image.get("icc-profile-data")) if "icc" in kept and image.get_typeof("icc-profile-data") else b"",
    )


def stored_blocks(image: pyvips.Image, keep: Metadata, original: original_metadata.Metadata) -> Blocks:
    """Return the metadata of a rendition whose pixels stay as they are stored, with its orientation, and without its ICC profile.

    keep: not `all`. original: the metadata of the original.
    """
    selected = select_metadata(image, keep, "jxl", original)
    has_owner = keep == "copyright" and any(map(selected.get_typeof, _COPYRIGHT_FIELDS))
    fields = _exif_fields(selected) if has_owner else set()
    fields |= {"orientation"} if orientation_of(image) != 1 else set()
    packet = bytes(selected.get("xmp-data")) if keep == "copyright" and selected.get_typeof("xmp-data") else b""
    return Blocks(_write_exif(image, fields) if fields else b"", packet, b"")


def _exif_block(image: pyvips.Image) -> bytes:
    """Return the Exif of an image with its fields as they are now."""
    return _write_exif(image, _exif_fields(image))


def _exif_fields(image: pyvips.Image) -> set[str]:
    return {field for field in image.get_fields() if field.startswith("exif-")}


def _write_exif(image: pyvips.Image, fields: set[str]) -> bytes:
    """Return Exif with fields of an image. Only a saver of libvips writes them, so a pixel is saved."""
    pixel = pyvips.Image.black(1, 1).copy(xres=image.xres, yres=image.yres)
    for field in sorted(fields):
        pixel.set_type(image.get_typeof(field), field, image.get(field))
    # With the Exif, libvips also adds all its fields.
    for field in _exif_fields(pixel) | {"orientation"}:
        if field not in fields and pixel.get_typeof(field):
            pixel.remove(field)
    saved = pyvips.Image.new_from_buffer(pixel.jpegsave_buffer(keep="exif"), "")
    return bytes(saved.get("exif-data")).removeprefix(jpeg.EXIF) if saved.get_typeof("exif-data") else b""


def correct_xmp(packet: bytes) -> bytes:
    """Return an XMP packet (UTF-8) that states an upright picture, without thumbnails and without descriptions of appended pictures.

    Returns nothing if an element that must be removed has no end tag.
    """
    packet = _XMP_STALE_ATTRIBUTE.sub(b"", _XMP_ORIENTATION.sub(rb"\g<1>1", packet))
    out, position = bytearray(), 0
    # Not with one regular expression: searching for the end tag of each element takes quadratic time in a hostile packet.
    while start := _XMP_STALE_ELEMENT.search(packet, position):
        out += packet[position : start.start()]
        position = start.end()
        if not start[0].endswith(b"/>"):
            end_tag = packet.find(b"</" + start[1], position)
            position = packet.find(b">", end_tag) + 1 if end_tag >= 0 else 0
            if position == 0:
                return b""
    return bytes(out + packet[position:])

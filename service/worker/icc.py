"""ICC profiles (ICC.1:2022): checks the structure of those in files, and makes those of color spaces that files state otherwise."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from service.worker.color_space import D50_XYZ, ColorSpace, Curve, rgb_to_d50

# A header (§7.2): size, preferred CMM, version, class, color space, connection space, date; signature, platform to intent; illuminant,
# creator to the end.
_HEADER_BYTES, _HEADER = 128, ">I4sI4s4s4s12x4s28x12s48x"
_VERSION = 0x0430_0000

# The tag table (§7.3): a count, then 12 bytes for each tag, which are its signature, offset and size.
_TAG_ENTRY_BYTES, _MAX_TAGS = 12, 100
_MIN_TAG_BYTES = 4

# Classes that describe no device: device link, abstract and named colors (§7.2.5).
_CLASSES_WITHOUT_DEVICE = frozenset({b"link", b"abst", b"nmcl"})
_CONNECTION_SPACES = frozenset({b"XYZ ", b"Lab "})
_MAX_MAJOR_VERSION = 4

# Color space of a device → sets of tags, one of which a profile must have to be read from (§8.3 to §8.5).
_TABLES = (frozenset({b"A2B0"}), frozenset({b"A2B1"}))
_SUFFICIENT_TAGS = {
    b"GRAY": (frozenset({b"kTRC"}), *_TABLES),
    b"RGB ": (frozenset({b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"}), *_TABLES),
    b"CMYK": _TABLES,
}


def device_space(profile: bytes) -> bytes:
    """Return the color space that a profile describes, such as `RGB `, whatever its structure is like."""
    return profile[16:20]


def trim(profile: bytes) -> bytes:
    """Return a profile without bytes after its end, or nothing if its structure is damaged or it does not describe an image's colors."""
    if len(profile) < _HEADER_BYTES + 4:
        return b""
    size, _, version, kind, space, connection, signature, _ = struct.unpack_from(_HEADER, profile)
    is_known = signature == b"acsp" and version >> 24 <= _MAX_MAJOR_VERSION and connection in _CONNECTION_SPACES
    if not is_known or size > len(profile) or kind in _CLASSES_WITHOUT_DEVICE:
        return b""
    found = frozenset(_tags(profile[:size]))
    return profile[:size] if any(sufficient <= found for sufficient in _SUFFICIENT_TAGS.get(space, ())) else b""


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Return the data of the tags of a profile by their signatures, nothing if one of them lies outside it."""
    count = int.from_bytes(profile[_HEADER_BYTES : _HEADER_BYTES + 4], "big")
    end_of_table = _HEADER_BYTES + 4 + count * _TAG_ENTRY_BYTES
    if count > _MAX_TAGS or end_of_table > len(profile):
        return {}
    tags = list(struct.iter_unpack(">4sII", profile[_HEADER_BYTES + 4 : end_of_table]))
    if any(length < _MIN_TAG_BYTES or start + length > len(profile) for _, start, length in tags):
        return {}
    return {name: profile[start : start + length] for name, start, length in tags}


def gray_of_rgb(profile: bytes) -> bytes:
    """Return the profile of the grays of a sound profile of RGB, nothing if its three curves differ or are a table."""
    found = _tags(profile)
    curves = {found.get(name) for name in (b"rTRC", b"gTRC", b"bTRC")}
    curve = curves.pop()
    return b"" if curves or curve is None else _assemble(b"GRAY", {b"kTRC": curve})


def is_perceptual(profile: bytes) -> bool:
    """Return whether the colors of a sound profile are those of its table for the perceptual intent, A2B0.

    If that is its only description of colors, it serves every intent (§8). For RGB browsers use it whatever other tables there are.
    """
    found = _tags(profile)
    if b"A2B0" not in found:
        return False
    if b"A2B1" not in found:
        return not found.keys() & {b"rXYZ", b"kTRC"}
    return device_space(profile) == b"RGB " and found[b"A2B0"] != found[b"A2B1"]


def make_profile(space: ColorSpace, *, gray: bool) -> bytes:
    """Return an ICC profile (ICC.1:2022, version 4.3) of a color space whose transfer is a curve.

    gray: for images of one band, for which primaries have no meaning.
    """
    if isinstance(space.transfer, int):
        # A profile cannot describe levels beyond white.
        raise ValueError("PQ or HLG")  # noqa: TRY004 - a value, not a type
    curve = _parametric_curve(space.transfer)
    if gray:
        return _assemble(b"GRAY", {b"kTRC": curve})
    columns = zip(*rgb_to_d50(space.primaries), strict=True)
    colorants = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    return _assemble(b"RGB ", colorants | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def _assemble(device: bytes, colors: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("Color space of the file"), b"cprt": _text("CC0"), b"wtpt": _xyz(D50_XYZ), **colors}
    table, content = bytearray(struct.pack(">I", len(tags))), bytearray()
    start = _HEADER_BYTES + 4 + _TAG_ENTRY_BYTES * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    header = struct.pack(_HEADER, start + len(content), b"", _VERSION, b"mntr", device, b"XYZ ", b"acsp", _xyz(D50_XYZ)[8:])
    return bytes(header + table + content)


def _parametric_curve(parameters: Curve) -> bytes:
    kind = {1: 0, 3: 1, 5: 3}[len(parameters)]
    return b"para" + bytes(4) + struct.pack(">H2x", kind) + b"".join(_fixed(value) for value in parameters)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in values)


def _fixed(value: float) -> bytes:
    """Return an `s15Fixed16Number` (ICC.1:2022 §4.6)."""
    return max(-(1 << 31), min((1 << 31) - 1, round(value * 65_536))).to_bytes(4, "big", signed=True)

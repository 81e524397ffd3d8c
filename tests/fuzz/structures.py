"""Mutations that know the format: a chunk with its checksum right, a box of a nested box, an entry of a directory, a tag of a profile."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import Random

from tests.fuzz.containers import CONTAINERS, Container, tiff_entries
from tests.fuzz.mutate import ANY, NUMBERS, Mutator, fill_block, flip_bits, set_bytes, set_number, truncate, with_number
from tests.fuzz.seeds import Kind

# Boxes that hold boxes, and how many bytes stand before the first (ISO/IEC 14496-12, 23008-12).
_NESTING_BOXES = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iinf": 6, b"iref": 4, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}

_PNG_EXTRAS = (
    b"cICP\x09\x10\x00\x01", b"gAMA\x00\x01\x86\xa0", b"gAMA\x00\x00\x00\x00", b"sRGB\x00", b"cHRM" + bytes(32), b"pHYs" + bytes(9),
    b"tRNS" + bytes(300), b"acTL\x00\x00\x00\x02\x00\x00\x00\x00", b"eXIfMM\x00*" + b"\xff" * 300,
    b"zTXtx\x00\x00" + zlib.compress(bytes(1 << 16)), b"iTXtx\x00\x01\x00\x00\x00" + zlib.compress(bytes(1 << 16)), b"PLTE" + bytes(768),
    b"bKGD\x00\x01", b"IDAT", b"IEND",
)  # fmt: skip

_ICC_WORDS = (
    b"curv", b"para", b"XYZ ", b"mft1", b"mft2", b"mAB ", b"mBA ", b"text", b"desc", b"mluc", b"sf32", b"GRAY", b"RGB ", b"CMYK", b"Lab ",
    b"link", b"mntr", b"prtr", b"scnr", b"abst", b"nmcl", b"ncl2", b"A2B0", b"B2A0", b"kTRC", b"rTRC", b"wtpt", b"\xff\xfe\xfd\xfc",
    b"\x80\x81\xe2\x28",
)  # fmt: skip

_SVG_VALUES = (
    b"", b"0", b"-1", b"1e9", b"1e-9", b"1e308", b"1e999", b"NaN", b"inf", b"99999999999", b"65535", b"65536", b"100%", b"-100%", b"1e6%",
    b"9in", b"8000mm", b"url(#g)", b"url(#f)", b"url(#m)", b"url(#p)", b"url(#s)", b"url(#c)", b"url(http://127.0.0.1/a)", b"#s", b"#m",
    b"data:image/png;base64,AAAA", b"file:///etc/passwd", b"rotate(1e9)", b"scale(0)", b"scale(1e9 1e-9)", b"matrix(0 0 0 0 0 0)",
    b"skewX(90)", b"M0 0" + b"L9 9 0 5" * 900, b"0 0 0 0", b"0 0 1e9 1", b"1 1 -5 5", b"&amp;&#0;", b"\xff\xfe", b"expression(1)",
    b"\\75 rl(x)", b"a" * 5_000, b"1," * 5_000, b"currentColor", b"inherit", b"9" * 400,
)  # fmt: skip
_SVG_PIECES = (
    b'<use href="#s"/>', b'<g id="s">', b"</g>", b'<use href="#a" id="a"/>',
    b'<pattern id="p" width="1" height="1"><rect fill="url(#p)" width="9" height="9"/></pattern>',
    b'<filter id="f" x="-9" y="-9" width="99" height="99"><feGaussianBlur stdDeviation="400"/></filter>',
    b'<mask id="m"><g mask="url(#m)"><path d="M0 0H9V9"/></g></mask>', b'<rect width="9999" height="9999" filter="url(#f)"/>',
    b"<g>" * 70, b"</g>" * 70, b"<text>" + b"x" * 4_000 + b"</text>", b'<text font-size="30000">W</text>',
    b"<style>" + b"a," * 3_000 + b"b{fill:red}</style>", b"<style>@import url(x);*{fill:url(#g)}</style>", b"<style>/*</style>",
    b"<script>1</script>", b"<foreignObject/>", b"<!--", b"-->", b"<![CDATA[", b"]]>", b'<?xml version="1.0" encoding="utf-16"?>',
    b'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>', b"&b;", b"&#xFFFFFF;", b'<svg width="9" height="9">',
    b'<image href="a.png" width="9" height="9"/>', b'<path d="M0 0' + b"A9 9 0 1 1 5 5" * 600 + b'"/>', b"<tspan>" * 60,
    b'<path stroke-dasharray="0.0001" d="M0 0H9999" stroke="red"/>',
)  # fmt: skip

_ATTRIBUTE = re.compile(rb"""=\s*("[^"]*"|'[^']*')""")
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")


def mutators(kind: Kind) -> tuple[Mutator, ...]:
    """Return the mutations of a format, those that know it and those that do not, as often as each is wanted."""
    special: dict[Kind, tuple[Mutator, ...]] = {
        "jpeg": (jpeg_frame, profile, profile, exif),
        "png": (png_pixels, png_extra, png_profile, png_profile),
        "gif": (),
        "webp": (profile, profile, exif),
        "avif": (box, box, box, profile),
        "heic": (box, box, box, profile),
        "tiff": (directory, directory, directory, profile),
        "svg": (svg_value, svg_value, svg_piece, svg_piece, svg_number),
    }
    parts = CONTAINERS.get(kind)
    return (*special[kind] * 2, *(() if parts is None else (_changed(parts), *(_moved(parts), _spliced(parts)) * 2)), *ANY)


def _changed(container: Container) -> Mutator:
    def change_part(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
        parts = container.split(body)
        if parts:
            at = chance.randrange(len(parts))
            parts[at] = chance.choice(ANY)(parts[at] or b"\0", chance, [other for file in others[:2] for other in container.split(file)])
        return container.join(parts)

    return change_part


def _moved(container: Container) -> Mutator:
    def move_parts(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
        parts = container.split(body)
        if not parts:
            return body
        at, to = chance.randrange(len(parts)), chance.randrange(len(parts))
        match chance.randrange(4):
            case 0:
                del parts[at]
            case 1:
                parts[at], parts[to] = parts[to], parts[at]
            case 2:
                parts.insert(to, parts[at])
            case _:
                repeats = chance.choice((2, 8, 64, 500))
                parts[at:at] = [parts[at]] * min(repeats, 300_000 // (1 + len(parts[at])))
        return container.join(parts)

    return move_parts


def _spliced(container: Container) -> Mutator:
    def splice_parts(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
        parts, other = container.split(body), container.split(chance.choice(others)) if others else []
        if parts and other:
            at = chance.randrange(len(parts))
            parts[at : at + chance.randrange(2)] = [chance.choice(other)]
        return container.join(parts)

    return splice_parts


def jpeg_frame(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a JPEG with a field of its frame header changed: precision, size, components, sampling (ITU-T T.81 §B.2.2)."""
    match = re.search(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb]", body)
    if match is None or match.end() + 20 > len(body):
        return body
    at = match.end() + 2 + chance.randrange(15)
    size = 2 if at in {match.end() + 3, match.end() + 5} else 1
    changed = with_number(body, chance, at, size, "big")
    # Another process: baseline, progressive, lossless, arithmetic.
    return (
        changed
        if chance.random() < 0.9
        else changed[: match.end() - 1] + bytes([chance.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA))]) + changed[match.end() :]
    )


def profile(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a file with something in one of its ICC profiles changed."""
    places = [match.start() - 36 for match in re.finditer(b"acsp", body) if match.start() >= 36]
    if not places:
        return body
    at = chance.choice(places)
    size = max(132, int.from_bytes(body[at : at + 4], "big"))
    changed = changed_profile(body[at : at + size], chance)
    return body[:at] + changed + body[at + size :]


def changed_profile(icc: bytes, chance: Random) -> bytes:  # noqa: PLR0911 - one for each change
    """Return an ICC profile of the same length with its header, its table or one of its tags changed (ICC.1:2022 §7)."""
    if len(icc) < 144:
        return set_number(icc, chance, ())
    entry = 132 + 12 * chance.randrange(max(1, min(64, int.from_bytes(icc[128:132], "big"), (len(icc) - 132) // 12)))
    tag = int.from_bytes(icc[entry + 4 : entry + 8], "big")
    match chance.randrange(9):
        case 0:
            # Version, device, colours, connection space, intent.
            at = chance.choice((0, 8, 12, 16, 20, 64))
            return _with_word(icc, chance, at)
        case 1:
            return _with_word(icc, chance, entry)
        case 2:
            return with_number(icc, chance, entry + chance.choice((4, 8)), 4, "big")
        case 3:
            return with_number(icc, chance, 128, 4, "big")
        case 4 if tag + 12 <= len(icc):
            return with_number(icc, chance, tag + chance.choice((4, 8, 8, 8)), 4, "big")
        case _ if tag + 12 <= len(icc):
            return _with_word(icc, chance, tag)
        case _:
            return set_bytes(icc, chance, ())


def exif(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Return a file with something in its Exif directory changed."""
    match = re.search(rb"(II\*\0|MM\0\*)", body)
    return body if match is None else body[: match.start()] + directory(body[match.start() :], chance, others)


def png_pixels(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a PNG whose rows, filters among them, are changed, too few or too many."""
    container = CONTAINERS["png"]
    parts = container.split(body)
    with suppress(zlib.error):
        rows = zlib.decompress(b"".join(part[4:] for part in parts if part.startswith(b"IDAT")))
        changes: tuple[Mutator, ...] = (set_bytes, flip_bits, fill_block, truncate, lambda rows, *_: rows * 3)
        rows = chance.choice(changes)(rows, chance, ())
        before = [part for part in parts if not part.startswith((b"IDAT", b"IEND"))]
        return container.join([*before, b"IDAT" + zlib.compress(rows, 1), b"IEND"])
    return body


def png_extra(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a PNG with one more chunk somewhere, often one that does not belong there."""
    container = CONTAINERS["png"]
    parts = container.split(body)
    parts.insert(chance.randrange(1, len(parts) + 1) if parts else 0, chance.choice(_PNG_EXTRAS))
    return container.join(parts)


def png_profile(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a PNG with something in its ICC profile changed, below the compression."""
    container = CONTAINERS["png"]
    parts = container.split(body)
    for at, part in enumerate(parts):
        packed_at = part.find(b"\0") + 2
        if part.startswith(b"iCCP"):
            with suppress(zlib.error):
                parts[at] = part[:packed_at] + zlib.compress(changed_profile(zlib.decompress(part[packed_at:]), chance))
    return container.join(parts)


def box(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return an AVIF or HEIC with one of its boxes, however deep, changed in its place: a number, its type, its size, its content."""
    boxes = list(_boxes(body, 0, len(body)))
    if not boxes:
        return body
    start, end = chance.choice(boxes)
    content = body[start + 8 : end]
    match chance.randrange(6):
        case 0:
            return body[: start + 4] + chance.choice((b"free", *(body[one + 4 : one + 8] for one, _ in boxes))) + body[start + 8 :]
        case 1:
            return with_number(body, chance, start, 4, "big")
        case 2:
            other_start, other_end = chance.choice(boxes)
            return body[: start + 8] + body[other_start + 8 : other_end][: len(content)].ljust(len(content), b"\0") + body[end:]
        case _:
            changed = chance.choice((set_number, set_number, set_bytes, flip_bits))(content, chance, ())
            return body[: start + 8] + changed + body[end:]


def directory(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:  # noqa: PLR0911 - one for each change
    """Return a TIFF with an entry of a directory changed, copied over another, or the link to the next directory set (TIFF 6.0 §2)."""
    entries = list(tiff_entries(body))
    if not entries:
        return body
    order = "little" if body.startswith(b"II") else "big"
    at, size = chance.choice(entries)
    match chance.randrange(6):
        case 0:
            other = chance.choice(entries)[0]
            return body[:at] + body[other : other + size] + body[at + size :]
        case 1:
            return with_number(body, chance, at, 2, order)
        case 2:
            return body[: at + 2] + struct.pack("<H" if order == "little" else ">H", chance.randrange(19)) + body[at + 4 :]
        case 3:
            return with_number(body, chance, at + 4, size // 3, order)
        case 4:
            # The link behind the last entry.
            last = entries[-1][0]
            return with_number(body, chance, min(last + size, len(body) - 4), 4, order)
        case _:
            return with_number(body, chance, at + size - (4 if size == 12 else 8), chance.choice((2, 4)), order)


def svg_value(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a document with the value of an attribute set to another."""
    found = list(_ATTRIBUTE.finditer(body))
    if not found:
        return body
    match = chance.choice(found)
    value = chance.choice(_SVG_VALUES) if chance.random() < 0.8 else chance.choice(found).group(1)[1:-1]
    return body[: match.start(1) + 1] + value + body[match.end(1) - 1 :]


def svg_piece(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a document with something costly, hostile or out of place put between its tags."""
    places = [match.start() for match in re.finditer(b"<", body)] or [0]
    at = chance.choice(places)
    return body[:at] + chance.choice(_SVG_PIECES) * chance.choice((1, 1, 1, 4, 40)) + body[at:]


def svg_number(body: bytes, chance: Random, _: Sequence[bytes]) -> bytes:
    """Return a document with one of its numbers set to another."""
    found = list(_NUMBER.finditer(body))
    if not found:
        return body
    match = chance.choice(found)
    return body[: match.start()] + str(chance.choice(NUMBERS)).encode() + body[match.end() :]


def _with_word(icc: bytes, chance: Random, at: int) -> bytes:
    word = chance.choice(_ICC_WORDS) if chance.random() < 0.6 else chance.randbytes(4)
    return icc[:at] + word + icc[at + 4 :]


def _boxes(body: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Give start and end of every box in a stretch, outer ones first."""
    while start + 8 <= end:
        size = int.from_bytes(body[start : start + 4], "big")
        stop = start + size if 8 <= size <= end - start else end
        yield start, stop
        if (inner := _NESTING_BOXES.get(body[start + 4 : start + 8])) is not None:
            yield from _boxes(body, start + 8 + inner, stop)
        start = stop


def name_of(mutator: Callable[..., object]) -> str:
    """Return what a mutation is called in a report."""
    return getattr(mutator, "__name__", "mutation")

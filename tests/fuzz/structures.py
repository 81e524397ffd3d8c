"""Mutations that know the format: of a chunk whose checksum stays right, a nested box, an entry of a directory, a tag of a profile."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import Random

from tests.fuzz.containers import CONTAINERS, Container, tiff_entries
from tests.fuzz.mutate import ANY, NUMBERS, Mutator, fill_block, flip_bits, set_bytes, set_number, set_number_at, truncate
from tests.fuzz.seeds import Kind

# Boxes that contain boxes, and the number of bytes before the first one (ISO/IEC 14496-12, 23008-12).
_NESTING_BOXES = {
    b"meta": 4,
    b"iprp": 0,
    b"ipco": 0,
    b"iinf": 6,
    b"iref": 4,
    b"moov": 0,
    b"trak": 0,
    b"mdia": 0,
    b"minf": 0,
    b"stbl": 0,
    b"dinf": 0,
    b"edts": 0,
    b"stsd": 8,
    b"av01": 78,
}

_PNG_CHUNKS = (
    b"cICP\x09\x10\x00\x01", b"cICP\x0c\x12\x00\x01", b"cICP\x01\x08\x00\x00", b"cICP\xff\xff\x09\x07", b"mDCV" + bytes(24),
    b"cLLI" + b"\xff" * 8, b"gAMA\x00\x01\x86\xa0", b"gAMA\xff\xff\xff\xff", b"gAMA\x00\x00\x00\x01", b"gAMA\x00\x00\x00\x00",
    b"sRGB\x00", b"cHRM" + bytes(32), b"pHYs" + bytes(9),
    b"tRNS" + bytes(300), b"acTL\x00\x00\x00\x02\x00\x00\x00\x00", b"acTL\xff\xff\xff\xff\x00\x00\x00\x01",
    b"fcTL" + bytes(26), b"fcTL\x00\x00\x00\x01\xff\xff\xff\xff" + bytes(18), b"fdAT\x00\x00\x00\x01", b"fdAT" + b"\xff" * 9,
    b"eXIfMM\x00*" + b"\xff" * 300,
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
_SVG_FRAGMENTS = (
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

# Pieces of style sheets (CSS Syntax 3): at-rules, escapes, comments and brackets, complete and not.
_CSS_FRAGMENTS = (
    b"@media print{", b"}", b"{", b"@import 'http://127.0.0.1/a';", b'@import url("data:text/css,*{fill:red}");', b"@charset 'x';",
    b"@font-face{src:url(file:///etc/passwd)}", b"@supports not (fill:url(#g)){*{fill:red}}", b"@media " * 300, b"@x{" * 300, b"/*", b"*/",
    b"<!--", b"-->", b"\\", b"\\000000", b"\\110000 ", b"\\75\\72\\6c(http://127.0.0.1/)", b"u\\rl(x)", b'"', b"'", b"(", b")", b"[", b"]",
    b"fill:url(http://127.0.0.1/#g)", b";stroke:url(#g) url(#s)", b"!important", b"*{filter:url(#f) blur(99px)}", b"." + b"a" * 9_000,
    b"a " * 3_000 + b"{}", b":is(" * 200, b":not(*)" * 300, b"a,b,c>d~e+f " * 300, b"{fill:red}" * 900,
    b"*{--a:var(--a)}", b"*{d:path('M0 0')}",
    b"*{background:image-set('a' 1x)}", b"*{mask:url(#m),url(http://127.0.0.1/)}", b"\x00", b"\xff", b"\xef\xbb\xbf",
)  # fmt: skip

# TIFF tag → values that select another kind of samples (TIFF 6.0 §8, its technical notes 1 and 2, and the registry of libtiff).
_TIFF_KINDS = {
    258: (1, 2, 4, 8, 12, 16, 24, 32, 64),
    259: (1, 2, 3, 4, 5, 6, 7, 8, 32_766, 32_773, 32_809, 32_908, 32_946, 34_661, 34_676, 34_712, 34_887, 34_925, 50_000, 50_001, 50_002),
    262: (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 32_803, 32_844, 32_845, 34_892),
    266: (1, 2),
    274: (1, 3, 6, 8, 9),
    277: (1, 2, 3, 4, 5, 9),
    284: (1, 2),
    317: (1, 2, 3),
    322: (1, 16, 24, 65_520),
    332: (1, 2),
    338: (0, 1, 2),
    339: (1, 2, 3, 4, 5, 6),
    530: (1, 2, 4, 8),
}

_STYLE = re.compile(rb"<style[^>]*>(.*?)</style>|style=\"([^\"]*)\"", re.DOTALL)
_ATTRIBUTE = re.compile(rb"""=\s*("[^"]*"|'[^']*')""")
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")


def mutators(kind: Kind) -> tuple[Mutator, ...]:
    """Return the mutations for a format, both those that know it and the general ones; likelier ones appear several times."""
    special: dict[Kind, tuple[Mutator, ...]] = {
        "jpeg": (change_jpeg_frame, change_embedded_profile, change_embedded_profile, change_exif, change_gain_map),
        "png": (change_png_rows, insert_png_chunk, change_png_profile, change_png_profile),
        "gif": (),
        "webp": (change_embedded_profile, change_embedded_profile, change_exif),
        "avif": (change_box, change_box, change_box, change_embedded_profile),
        "heic": (change_box, change_box, change_box, change_embedded_profile),
        "tiff": (change_directory, change_directory, change_tiff_kind, change_tiff_kind, change_embedded_profile),
        "svg": (set_svg_attribute, set_svg_attribute, insert_svg_fragment, insert_svg_fragment, set_svg_number, insert_css, insert_css),
    }
    parts = CONTAINERS.get(kind)
    return (*special[kind] * 2, *(() if parts is None else (_part_changer(parts), *(_part_mover(parts), _part_splicer(parts)) * 2)), *ANY)


def _part_changer(container: Container) -> Mutator:
    def change_part(body: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        parts = container.split(body)
        if parts:
            at = rng.randrange(len(parts))
            parts[at] = rng.choice(ANY)(parts[at] or b"\0", rng, [other for file in others[:2] for other in container.split(file)])
        return container.join(parts)

    return change_part


def _part_mover(container: Container) -> Mutator:
    def move_parts(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
        parts = container.split(body)
        if not parts:
            return body
        at, to = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(4):
            case 0:
                del parts[at]
            case 1:
                parts[at], parts[to] = parts[to], parts[at]
            case 2:
                parts.insert(to, parts[at])
            case _:
                repeats = rng.choice((2, 8, 64, 500))
                parts[at:at] = [parts[at]] * min(repeats, 300_000 // (1 + len(parts[at])))
        return container.join(parts)

    return move_parts


def _part_splicer(container: Container) -> Mutator:
    def splice_parts(body: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        parts, other = container.split(body), container.split(rng.choice(others)) if others else []
        if parts and other:
            at = rng.randrange(len(parts))
            parts[at : at + rng.randrange(2)] = [rng.choice(other)]
        return container.join(parts)

    return splice_parts


def change_jpeg_frame(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return a JPEG with a field of its frame header changed: precision, size, components, sampling (ITU-T T.81 §B.2.2)."""
    match = re.search(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb]", body)
    if match is None or match.end() + 20 > len(body):
        return body
    at = match.end() + 2 + rng.randrange(15)
    size = 2 if at in {match.end() + 3, match.end() + 5} else 1
    changed = set_number_at(body, rng, at, size, "big")
    # Some of the time, declare another coding process: baseline, progressive, lossless, arithmetic.
    return (
        changed
        if rng.random() < 0.9
        else changed[: match.end() - 1] + bytes([rng.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA))]) + changed[match.end() :]
    )


def change_embedded_profile(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return a file with a change in one of its ICC profiles."""
    places = [match.start() - 36 for match in re.finditer(b"acsp", body) if match.start() >= 36]
    if not places:
        return body
    at = rng.choice(places)
    size = max(132, int.from_bytes(body[at : at + 4], "big"))
    changed = change_profile(body[at : at + size], rng)
    return body[:at] + changed + body[at + size :]


def change_profile(icc: bytes, rng: Random) -> bytes:  # noqa: PLR0911 - one for each change
    """Return an ICC profile of the same length with its header, its table or one of its tags changed (ICC.1:2022 §7)."""
    if len(icc) < 144:
        return set_number(icc, rng, ())
    entry = 132 + 12 * rng.randrange(max(1, min(64, int.from_bytes(icc[128:132], "big"), (len(icc) - 132) // 12)))
    tag = int.from_bytes(icc[entry + 4 : entry + 8], "big")
    match rng.randrange(9):
        case 0:
            # Size, version, device class, color space, connection space, intent.
            at = rng.choice((0, 8, 12, 16, 20, 64))
            return _set_word(icc, rng, at)
        case 1:
            return _set_word(icc, rng, entry)
        case 2:
            return set_number_at(icc, rng, entry + rng.choice((4, 8)), 4, "big")
        case 3:
            return set_number_at(icc, rng, 128, 4, "big")
        case 4 if tag + 12 <= len(icc):
            return set_number_at(icc, rng, tag + rng.choice((4, 8, 8, 8)), 4, "big")
        case _ if tag + 12 <= len(icc):
            return _set_word(icc, rng, tag)
        case _:
            return set_bytes(icc, rng, ())


def change_exif(body: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Return a file with a change in its Exif directory."""
    match = re.search(rb"(II\*\0|MM\0\*)", body)
    return body if match is None else body[: match.start()] + change_directory(body[match.start() :], rng, others)


def change_png_rows(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return a PNG whose rows or their filters are changed, or with too few or too many rows."""
    container = CONTAINERS["png"]
    parts = container.split(body)
    with suppress(zlib.error):
        rows = zlib.decompress(b"".join(part[4:] for part in parts if part.startswith(b"IDAT")))
        changes: tuple[Mutator, ...] = (set_bytes, flip_bits, fill_block, truncate, lambda rows, *_: rows * 3)
        rows = rng.choice(changes)(rows, rng, ())
        before = [part for part in parts if not part.startswith((b"IDAT", b"IEND"))]
        return container.join([*before, b"IDAT" + zlib.compress(rows, 1), b"IEND"])
    return body


def insert_png_chunk(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return a PNG with an additional chunk at a random place, which is often the wrong one."""
    container = CONTAINERS["png"]
    parts = container.split(body)
    parts.insert(rng.randrange(1, len(parts) + 1) if parts else 0, rng.choice(_PNG_CHUNKS))
    return container.join(parts)


def change_png_profile(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return a PNG with a change in its ICC profile, which is decompressed before and compressed after it."""
    container = CONTAINERS["png"]
    parts = container.split(body)
    for at, part in enumerate(parts):
        packed_at = part.find(b"\0") + 2
        if part.startswith(b"iCCP"):
            with suppress(zlib.error):
                parts[at] = part[:packed_at] + zlib.compress(change_profile(zlib.decompress(part[packed_at:]), rng))
    return container.join(parts)


def change_box(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return an AVIF or HEIC with one box, at any depth, changed in place: a number, its type, its size, or its content."""
    boxes = list(_boxes(body, 0, len(body)))
    if not boxes:
        return body
    start, end = rng.choice(boxes)
    content = body[start + 8 : end]
    match rng.randrange(6):
        case 0:
            return body[: start + 4] + rng.choice((b"free", *(body[one + 4 : one + 8] for one, _ in boxes))) + body[start + 8 :]
        case 1:
            return set_number_at(body, rng, start, 4, "big")
        case 2:
            other_start, other_end = rng.choice(boxes)
            return body[: start + 8] + body[other_start + 8 : other_end][: len(content)].ljust(len(content), b"\0") + body[end:]
        case _:
            changed = rng.choice((set_number, set_number, set_bytes, flip_bits))(content, rng, ())
            return body[: start + 8] + changed + body[end:]


def change_directory(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:  # noqa: PLR0911 - one for each change
    """Return a TIFF with an entry of a directory changed, copied over another, or the link to the next directory set (TIFF 6.0 §2)."""
    entries = list(tiff_entries(body))
    if not entries:
        return body
    order = "little" if body.startswith(b"II") else "big"
    at, size = rng.choice(entries)
    match rng.randrange(6):
        case 0:
            other = rng.choice(entries)[0]
            return body[:at] + body[other : other + size] + body[at + size :]
        case 1:
            return set_number_at(body, rng, at, 2, order)
        case 2:
            return body[: at + 2] + struct.pack("<H" if order == "little" else ">H", rng.randrange(19)) + body[at + 4 :]
        case 3:
            return set_number_at(body, rng, at + 4, size // 3, order)
        case 4:
            # The offset of the next directory, which follows the last entry.
            last = entries[-1][0]
            return set_number_at(body, rng, min(last + size, len(body) - 4), 4, order)
        case _:
            return set_number_at(body, rng, at + size - (4 if size == 12 else 8), rng.choice((2, 4)), order)


def change_tiff_kind(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return a TIFF with the value of a field that says how its samples are to be read replaced by another known value."""
    order = "<" if body.startswith(b"II") else ">"
    fields = [
        (at + size - (4 if size == 12 else 8), tag)
        for at, size in tiff_entries(body)
        if (tag := struct.unpack_from(f"{order}H", body, at)[0]) in _TIFF_KINDS
    ]
    if not fields:
        return body
    at, tag = rng.choice(fields)
    return body[:at] + struct.pack(f"{order}H", rng.choice(_TIFF_KINDS[tag])) + body[at + 2 :]


def change_gain_map(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return a JPEG with a change in the metadata that describes its gain map, or in the second picture of the file (CIPA DC-007)."""
    places = [match.start() for match in re.finditer(rb"hdrgm|MPF\0|urn:iso:std:iso:ts:21496|Container:Directory|\xff\xd8\xff", body)][1:]
    if not places:
        return body
    at = rng.choice(places)
    head = body[at : at + 160]
    return body[:at] + rng.choice((set_number, set_bytes, set_svg_number, flip_bits))(head, rng, ()) + body[at + 160 :]


def insert_css(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return an SVG document with a piece of CSS inserted into one of its style sheets or style attributes."""
    sheets = [match.span(1 if match.group(1) is not None else 2) for match in _STYLE.finditer(body)]
    if not sheets:
        return body
    at = rng.randint(*rng.choice(sheets))
    return body[:at] + rng.choice(_CSS_FRAGMENTS) + body[at:]


def set_svg_attribute(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return an SVG document with the value of one attribute replaced."""
    found = list(_ATTRIBUTE.finditer(body))
    if not found:
        return body
    match = rng.choice(found)
    value = rng.choice(_SVG_VALUES) if rng.random() < 0.8 else rng.choice(found).group(1)[1:-1]
    return body[: match.start(1) + 1] + value + body[match.end(1) - 1 :]


def insert_svg_fragment(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return an SVG document with a costly, hostile or misplaced fragment inserted before a tag."""
    places = [match.start() for match in re.finditer(b"<", body)] or [0]
    at = rng.choice(places)
    return body[:at] + rng.choice(_SVG_FRAGMENTS) * rng.choice((1, 1, 1, 4, 40)) + body[at:]


def set_svg_number(body: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    """Return an SVG document with one number replaced."""
    found = list(_NUMBER.finditer(body))
    if not found:
        return body
    match = rng.choice(found)
    return body[: match.start()] + str(rng.choice(NUMBERS)).encode() + body[match.end() :]


def _set_word(icc: bytes, rng: Random, at: int) -> bytes:
    word = rng.choice(_ICC_WORDS) if rng.random() < 0.6 else rng.randbytes(4)
    return icc[:at] + word + icc[at + 4 :]


def _boxes(body: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of every box between `start` and `end`, outer ones before their contents."""
    while start + 8 <= end:
        size = int.from_bytes(body[start : start + 4], "big")
        stop = start + size if 8 <= size <= end - start else end
        yield start, stop
        if (inner := _NESTING_BOXES.get(body[start + 4 : start + 8])) is not None:
            yield from _boxes(body, start + 8 + inner, stop)
        start = stop


def name_of(mutator: Callable[..., object]) -> str:
    """Return the name of a mutation for reports."""
    return getattr(mutator, "__name__", "mutation")

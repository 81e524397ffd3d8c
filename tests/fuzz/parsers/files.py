"""Targets for image files and the metadata in them: what is read of a file without a codec, in the order of a render process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from math import isfinite
from xml.parsers import expat

from PIL import Image

from service.images.info import Limits
from service.rendering.protocol import ImageError
from service.worker import bounds, gain_map, icc, metadata, original_metadata, repair
from service.worker.formats import (
    apng,
    av1,
    avif_sequence,
    exif,
    gif,
    heif_gain_map,
    iptc,
    isobmff,
    jpeg,
    png,
    svg_tree,
    tiff,
    tiff_colors,
    ultra_hdr,
    webp,
    xmp,
)
from tests.fuzz.mutate import ANY
from tests.fuzz.parsers.target import MAX_INPUT_BYTES, Target, check_failure
from tests.fuzz.seeds import Kind, generated_seeds
from tests.fuzz.structures import change_profile, mutators
from tests.support import gain_maps, images

_LIMITS = Limits(max_pixels=100_000_000, max_whole_pixels=50_000_000, max_output_pixels=50_000_000, max_frames=512, codec_bytes=256 << 20)
_MAX_FRAMES = 64


def _file(kind: Kind, data: bytes) -> None:
    """Read a file as a probe and a render do before a codec sees it."""
    stored = memoryview(data)
    body = repair.repaired(stored)
    assert len(body) <= len(stored) + 2 * len(stored) + 64
    svg_tree.is_svg(body)
    try:
        bounds.check(body, _LIMITS)
    except ImageError as error:
        check_failure(error)
        return
    found = original_metadata.read(body, kind, 0)
    assert found.exif[:4] in {b"", *tiff.SIGNATURES}
    gain_map.has_gain_map(body, kind)
    _READERS[kind](body)


def _jpeg(body: memoryview) -> None:
    jpeg.survey(body, bounds.MAX_SCANS, bounds.MAX_SEGMENTS)
    jpeg.lacks_scans(body)
    jpeg.has_unambiguous_colors(body)
    jpeg.pixel_count(bytes(body))
    found = ultra_hdr.find(body)
    assert found is None or len(found.body) <= len(body)
    stripped = jpeg.replace_metadata(body, jpeg.color_segment)
    assert len(stripped) <= len(body)
    assert not any(
        segment.content[:6] == jpeg.EXIF or segment.content[: len(jpeg.XMP)] == jpeg.XMP for segment in jpeg.segments(memoryview(stripped))
    )


def _png(body: memoryview) -> None:
    png.survey(body, bounds.MAX_CHUNKS)
    png.colors(body, bounds.MAX_CHUNKS)
    png.pixel_count(bytes(body))
    try:
        found = apng.survey(body, _MAX_FRAMES)
    except ValueError:
        return
    assert 1 <= found.frames <= _MAX_FRAMES + 1


def _gif(body: memoryview) -> None:
    found = gif.survey(body, _LIMITS.max_frames, bounds.MAX_BLOCKS)
    assert found.frames <= _LIMITS.max_frames
    gif.has_filled_areas(body, found.frames)
    assert sum(1 for _ in gif.frames(body, with_files=False)) <= found.frames + 1


def _webp(body: memoryview) -> None:
    webp.survey(body, bounds.MAX_CHUNKS)
    assert (bytes(body[:4]), bytes(body[8:12])) != (b"RIFF", b"WEBP") or not webp.lacks_padding(body)


def _tiff(body: memoryview) -> None:
    pages = tiff_colors.of_pages(body)
    for page in pages[:_MAX_FRAMES]:
        tiff_colors.unsupported(page)
    tiff_colors.explain(body)
    try:
        sizes = tiff.page_sizes(body, _MAX_FRAMES)
    except ValueError:
        sizes = []
    assert len(sizes) <= _MAX_FRAMES
    for number in (0, 1, 5):
        assert len(exif.from_tiff(body, number)) < 65_533


def _heif(body: memoryview) -> None:
    isobmff.picture(body)
    isobmff.brands(body)
    found = heif_gain_map.find(body)
    if found is not None:
        try:
            assert len(isobmff.with_primary(body, found.item)) == len(body)
        except EOFError:
            return
    if avif_sequence.is_sequence(body):
        try:
            sequence = avif_sequence.survey(body, _MAX_FRAMES)
        except ValueError:
            return
        assert len(sequence.timing.delays) <= _MAX_FRAMES


_READERS: dict[Kind, Callable[[memoryview], None]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "webp": _webp,
    "tiff": _tiff,
    "avif": _heif,
    "heic": _heif,
}


def _icc(data: bytes) -> None:
    profile = icc.trim(data)
    assert data.startswith(profile)
    icc.device_space(data)
    if profile:
        assert icc.trim(profile) == profile
        icc.is_perceptual(profile)
        gray = icc.gray_of_rgb(profile)
        assert icc.trim(gray) == gray


def _exif(data: bytes) -> None:
    headroom = ultra_hdr.apple_headroom(data)
    assert isfinite(headroom)
    assert headroom >= 0
    info = ultra_hdr.apple_info(headroom)
    assert info is None or isinstance(info.is_usable, bool)
    block = exif.from_tiff(memoryview(data), 0)
    assert block == b"" or tiff.page_values(memoryview(block), 0)


def _xmp(data: bytes) -> None:
    well_formed = _is_well_formed(data)
    xmp.values(data)
    stated, names = xmp.rights(data)
    packet = xmp.packet_of(xmp.description(stated))
    assert _is_well_formed(packet), packet
    assert xmp.rights(packet) == (stated, names), "the rights are read again as they were written"
    added = xmp.add(data, xmp.description(xmp.property_xml(xmp.TITLE, ["a <b> & c", "\0\ud800"])))
    assert not well_formed or _is_well_formed(added)
    corrected = metadata.correct_xmp(data)
    if well_formed:
        assert metadata.correct_xmp(corrected) == corrected
    info = ultra_hdr.read_xmp(data, b"")
    assert info is None or isinstance(info.is_usable, bool)


def _is_well_formed(packet: bytes) -> bool:
    parser = expat.ParserCreate(namespace_separator=" ")
    try:
        parser.Parse(packet, True)
    except (expat.ExpatError, ValueError):
        return False
    return True


def _iptc(resources: bytes) -> None:
    data = iptc.PHOTOSHOP + resources
    stripped = iptc.strip_thumbnails(data)
    assert iptc.strip_thumbnails(stripped) == stripped
    assert not {1033, 1036} & {found.number for found in iptc.resources(stripped)}
    for selected in (iptc.EVERY, iptc.RIGHTS):
        for kind, texts in iptc.properties(data, selected).items():
            assert texts
            assert _is_well_formed(xmp.packet_of(xmp.description(xmp.property_xml(kind, texts))))


def _gain_map(data: bytes) -> None:
    info = ultra_hdr.read_iso(data)
    if info is not None and info.is_usable:
        again = ultra_hdr.read_iso(ultra_hdr.write_iso(info))
        assert again is not None
        assert again.is_usable


def _av1(data: bytes) -> None:
    header = av1.sequence_header(data)
    if header is not None:
        assert all(0 <= number <= 255 for number in (header.primaries, header.transfer))


def _of_kind(kind: Kind) -> list[bytes]:
    return [seed.body for seed in generated_seeds() if seed.kind == kind and len(seed.body) <= MAX_INPUT_BYTES]


def _profiles() -> list[bytes]:
    return [
        images.srgb_profile(),
        images.p3_profile(),
        images.wide_profile(),
        images.gray_profile(),
        images.cmyk_profile(),
        images.table_profile(),
        images.unreadable_profile(),
    ]


_RIGHTS_PACKET = gain_maps.packet(
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" tiff:Orientation="6">'
    "<dc:creator><rdf:Seq><rdf:li>A &amp; B</rdf:li></rdf:Seq></dc:creator>"
    '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">C</rdf:li></rdf:Alt></dc:rights><xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails>'
    '<plus:Licensor><rdf:Seq><rdf:li rdf:parseType="Resource"><plus:LicensorURL>https://example.com</plus:LicensorURL></rdf:li></rdf:Seq>'
    "</plus:Licensor></rdf:Description>"
)
_PACKETS = (
    _RIGHTS_PACKET,
    gain_maps.hdrgm([0.0], [2.0])[4 + len(gain_maps.XMP) :],
    gain_maps.hdrgm([0.0, 0.1, 0.2], [1.0, 2.0, 3.0], elements=True)[4 + len(gain_maps.XMP) :],
)


def _photoshop(*data_sets: tuple[int, bytes]) -> bytes:
    content = b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text)) + text for number, text in data_sets)
    thumbnail = b"8BIM" + struct.pack(">HHI", 1036, 0, 6) + b"thumbs"
    return iptc.segment_of(content) + thumbnail


def _camera_exif() -> bytes:
    return original_metadata.read(memoryview(images.camera_jpeg(16, 12)), "jpeg", 0).exif


def _streams() -> list[bytes]:
    """Return the beginnings of AV1 streams, which have their sequence headers."""
    pictures = [(body, isobmff.primary_id(isobmff.first(body, b"meta")[4:])) for body in _of_kind("avif")]
    return [isobmff.item_content(body, item, 64) for body, item in pictures if item]


_XML_WORDS = (
    b"<rdf:li>",
    b"</rdf:li>",
    b"<rdf:Seq>",
    b"</rdf:RDF>",
    b"<rdf:Description>",
    b"<xmp:Thumbnails>",
    b"</xmp:Thumbnails>",
    b'tiff:Orientation="8"',
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"&lt;",
    b"&#x0;",
    b"<!DOCTYPE a>",
    b'rdf:parseType="Resource"',
    b'xmlns="http://purl.org/dc/elements/1.1/"',
    b"<dc:rights>",
    b'hdrgm:GainMapMax="1"',
    b"\xef\xbb\xbf",
)

TARGETS: dict[str, Target] = {
    **{kind: Target(partial(_file, kind), partial(_of_kind, kind), mutators=mutators(kind)) for kind in _READERS},
    "icc": Target(_icc, _profiles, mutators=(*ANY, lambda body, rng, _: change_profile(body, rng))),
    "exif": Target(
        _exif,
        lambda: [gain_maps.apple_exif(0.5, 0.01), images.tiff(4, 3), Image.Exif().tobytes()[6:], _camera_exif()],
        mutators=mutators("tiff"),
    ),
    "xmp": Target(_xmp, lambda: _PACKETS, _XML_WORDS),
    "iptc": Target(
        _iptc,
        lambda: [_photoshop((80, b"A"), (116, b"C & D"), (25, b"k"), (25, b"\xe9"), (105, b"T"))[len(iptc.PHOTOSHOP) :]],
        (b"8BIM", b"\x1c\x02"),
    ),
    "gain_map": Target(_gain_map, lambda: [gain_maps.iso([0.0], [2.0]), gain_maps.iso([0.0, 0.1, 0.2], [1.0, 2.0, 3.0])]),
    "av1": Target(_av1, _streams),
}

"""Metadata in every place where containers have them: the rights of an original are in each rendition that may have them.

ExifTool reads the renditions.
"""

from __future__ import annotations

import functools
import io
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from service.images.formats import Format
from service.rendering.pool import RenderPool
from service.worker import original_metadata
from service.worker.formats import iptc, jxl_encoder, xmp
from tests.support import gain_maps, images, tiffs
from tests.support.exiftool import read_metadata
from tests.support.lazy import LazyMapping
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

FORMATS: tuple[Format, ...] = ("jxl", "avif", "webp", "jpeg", "png")

ARTIST, NOTICE = "Berenice Abbott", "© 1936 B. Abbott & <heirs>"
CREDIT, TERMS, STATEMENT, LICENSOR = "Federal Art Project", "No reuse", "https://example.com/terms", "https://example.com/license"
# Texts that say where and with what a photo was taken, and more about a person than that it is hers.
PRIVATE = ("SN-0815-4711", "Lightbox 7", "Kirkjufell", "64.9262", "+49 30 123456")

PACKET = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:D="http://purl.org/dc/elements/1.1/"
 xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"
 photoshop:Credit="{CREDIT}" photoshop:City="Kirkjufell" exif:GPSLatitude="64.9262N" aux:SerialNumber="SN-0815-4711"
 xmpRights:Marked="True"><D:creator><rdf:Seq><rdf:li>{ARTIST}</rdf:li></rdf:Seq></D:creator>
<D:title><rdf:Alt><rdf:li xml:lang="x-default">Kirkjufell</rdf:li></rdf:Alt></D:title>
<D:rights><rdf:Alt><rdf:li xml:lang="x-default">© 1936 B. Abbott &amp; &lt;heirs></rdf:li>
<rdf:li xml:lang="de">© 1936</rdf:li></rdf:Alt></D:rights>
<xmpRights:UsageTerms><rdf:Alt><rdf:li xml:lang="x-default">{TERMS}</rdf:li></rdf:Alt></xmpRights:UsageTerms>
<xmpRights:WebStatement rdf:resource="{STATEMENT}"/><exif:UserComment>Lightbox 7</exif:UserComment>
<plus:Licensor><rdf:Seq><rdf:li rdf:parseType="Resource"><plus:LicensorURL>{LICENSOR}</plus:LicensorURL>
<plus:LicensorTelephone1>+49 30 123456</plus:LicensorTelephone1></rdf:li></rdf:Seq></plus:Licensor>
</rdf:Description></rdf:RDF></x:xmpmeta>{" " * 100}<?xpacket end="w"?>""".encode()

STATED_IN_XMP = {
    "XMP:Creator": [ARTIST],
    "XMP:Rights": NOTICE,
    "XMP:Rights-de": "© 1936",
    "XMP:Credit": CREDIT,
    "XMP:Marked": True,
    "XMP:UsageTerms": TERMS,
    "XMP:WebStatement": STATEMENT,
    "XMP:Licensor": [{"LicensorURL": LICENSOR}],
}


def data_set(number: int, text: str) -> bytes:
    data = text.encode()
    return struct.pack(">BBBH", 0x1C, 2, number, len(data)) + data


DATA_SETS = b"\x1c\x01\x5a\0\3\x1b%G" + data_set(80, ARTIST) + data_set(116, NOTICE) + data_set(110, CREDIT) + data_set(90, "Kirkjufell")
RESOURCES = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(DATA_SETS)) + DATA_SETS + bytes(len(DATA_SETS) % 2)
STATED_IN_IPTC = {"XMP:Creator": [ARTIST], "XMP:Rights": NOTICE, "XMP:Credit": CREDIT}
STATED_IN_EXIF = {"EXIF:Artist": ARTIST, "EXIF:Copyright": "(c) 1936 B. Abbott"}
STATED_IN_TEXT = {"XMP:Creator": [ARTIST], "XMP:Rights": "© 1936 B. Abbott"}

PICTURE = images.picture(40, 30)


def exif() -> bytes:
    block = Image.Exif()
    block[ExifTags.Base.Artist] = ARTIST
    block[ExifTags.Base.Copyright] = "(c) 1936 B. Abbott"
    block[ExifTags.Base.Model] = "Lightbox 7"
    place = block.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    place[ExifTags.GPS.GPSLatitude] = (64.0, 55.0, 34.2)
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = "SN-0815-4711"
    return block.tobytes()


def saved(image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    PICTURE.save(out, image_format, **options)
    return out.getvalue()


def with_segment(marker: int, content: bytes) -> bytes:
    plain = saved("JPEG")
    return plain[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + plain[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a PNG with chunks before and after its pixels."""
    plain = saved("PNG")
    return plain[:33] + before + plain[33:-12] + after + plain[-12:]


def with_tags(tags: Mapping[int, tuple[int, bytes]], *, order: str = "<", big: bool = False) -> bytes:
    """Return a TIFF with further tags: their types, of one byte each, and their values."""
    extra = {tag: (kind, list(value)) for tag, (kind, value) in tags.items()}
    return tiffs.tiff(tiffs.page(np.asarray(PICTURE), tiffs.RGB, order=order, extra=extra), order=order, big=big)


def with_exif_directories() -> bytes:
    out = io.BytesIO()
    block = Image.Exif()
    block.load(exif())
    PICTURE.save(out, "TIFF", exif=block)
    return out.getvalue()


def heif(**metadata: bytes) -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(PICTURE).save(out, quality=80, **metadata)
    return out.getvalue()


def jpeg_xl(*, exif: bytes = b"", xmp: bytes = b"") -> bytes:
    image = pyvips.Image.new_from_memory(PICTURE.tobytes(), *PICTURE.size, 3, "uchar").copy(interpretation="srgb")
    return jxl_encoder.encode(image, jxl_encoder.Settings(effort=1, exif=exif, xmp=xmp))


def gif() -> bytes:
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    plain = images.palette_gif(40, 30)
    return plain[:-1] + b"!\xff\x0bXMP DataXMP" + PACKET + trailer + b";"


def raw_profile(name: str, content: bytes) -> PngInfo:
    """Return a text chunk as ImageMagick writes it."""
    info = PngInfo()
    digits = content.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    info.add_text(f"Raw profile type {name}", f"\n{name}\n{len(content):8}\n{lines}\n", zip=True)
    return info


INTERNATIONAL = b"XML:com.adobe.xmp\0"

# Container and place → a file, and the rights that its renditions state.
CASES: dict[str, tuple[Callable[[], bytes], Mapping[str, object]]] = {
    "jpeg exif": (lambda: saved("JPEG", exif=exif()), STATED_IN_EXIF),
    "jpeg xmp": (lambda: saved("JPEG", xmp=PACKET), STATED_IN_XMP),
    "jpeg iptc": (lambda: with_segment(0xED, b"Photoshop 3.0\0" + RESOURCES), STATED_IN_IPTC),
    "png eXIf": (lambda: saved("PNG", exif=exif()), STATED_IN_EXIF),
    "png eXIf after pixels": (lambda: with_chunks(after=chunk(b"eXIf", exif()[6:])), STATED_IN_EXIF),
    "png iTXt": (lambda: with_chunks(chunk(b"iTXt", INTERNATIONAL + b"\0\0\0\0" + PACKET)), STATED_IN_XMP),
    "png iTXt compressed": (lambda: with_chunks(chunk(b"iTXt", INTERNATIONAL + b"\1\0\0\0" + zlib.compress(PACKET))), STATED_IN_XMP),
    "png iTXt after pixels": (lambda: with_chunks(after=chunk(b"iTXt", INTERNATIONAL + b"\0\0\0\0" + PACKET)), STATED_IN_XMP),
    "png tEXt and zTXt": (
        lambda: with_chunks(
            chunk(b"tEXt", b"Author\0" + ARTIST.encode()), chunk(b"zTXt", b"Copyright\0\0" + zlib.compress(b"\xa9 1936 B. Abbott"))
        ),
        STATED_IN_TEXT,
    ),
    "png raw exif": (lambda: saved("PNG", pnginfo=raw_profile("exif", exif())), STATED_IN_EXIF),
    "png raw iptc": (lambda: saved("PNG", pnginfo=raw_profile("iptc", RESOURCES)), STATED_IN_IPTC),
    "png raw xmp": (lambda: saved("PNG", pnginfo=raw_profile("xmp", PACKET)), STATED_IN_XMP),
    "webp exif": (lambda: saved("WEBP", exif=exif()), STATED_IN_EXIF),
    "webp xmp": (lambda: saved("WEBP", xmp=PACKET), STATED_IN_XMP),
    "tiff tags": (
        lambda: with_tags({315: (2, ARTIST.encode() + b"\0"), 33_432: (2, b"(c) 1936 B. Abbott\0"), 272: (2, b"Lightbox 7\0")}),
        STATED_IN_EXIF,
    ),
    "tiff tags, big-endian": (
        lambda: with_tags({315: (2, ARTIST.encode() + b"\0"), 33_432: (2, b"(c) 1936 B. Abbott\0")}, order=">"),
        STATED_IN_EXIF,
    ),
    "tiff tags, BigTIFF": (
        lambda: with_tags({315: (2, ARTIST.encode() + b"\0"), 33_432: (2, b"(c) 1936 B. Abbott\0")}, big=True),
        STATED_IN_EXIF,
    ),
    "tiff exif": (with_exif_directories, STATED_IN_EXIF),
    "tiff xmp": (lambda: with_tags({700: (1, PACKET)}), STATED_IN_XMP),
    "tiff iptc": (lambda: with_tags({33_723: (7, DATA_SETS)}), STATED_IN_IPTC),
    "tiff photoshop": (lambda: with_tags({34_377: (7, RESOURCES)}), STATED_IN_IPTC),
    "avif exif": (lambda: saved("AVIF", exif=exif(), speed=10), STATED_IN_EXIF),
    "avif xmp": (lambda: saved("AVIF", xmp=PACKET, speed=10), STATED_IN_XMP),
    "heic exif": (lambda: heif(exif=exif()), STATED_IN_EXIF),
    "heic xmp": (lambda: heif(xmp=PACKET), STATED_IN_XMP),
    "jxl exif": (lambda: jpeg_xl(exif=exif()[6:]), STATED_IN_EXIF),
    "jxl xmp": (lambda: jpeg_xl(xmp=PACKET), STATED_IN_XMP),
    "gif xmp": (gif, STATED_IN_XMP),
}  # fmt: skip


@pytest.mark.parametrize(("name", "image_format"), list(zip(CASES, FORMATS * len(CASES), strict=False)))
async def test_metadata_copyright_keeps_the_rights_of_every_container(
    pool: RenderPool, tmp_path: Path, name: str, image_format: Format
) -> None:
    """Each in one format; the long test renders all. The reader of this one is that of the service, which the long one verifies."""
    make, stated = CASES[name]
    body = (await rendered(pool, written(tmp_path, make()), "width=20,metadata=copyright,effort=0", image_format)).body
    found = original_metadata.read(memoryview(body), image_format, 0)
    assert (ARTIST.encode() in found.exif) == ("EXIF:Artist" in stated)
    _, names = xmp.rights(found.xmp)
    assert {tag.partition(":")[2] for tag in stated if "-" not in tag and "EXIF" not in tag} == {
        known.rpartition(" ")[2].capitalize() if known.endswith(("creator", "rights")) else known.rpartition(" ")[2] for known in names
    }
    assert [text for text in PRIVATE if text.encode() in body] == []


async def test_metadata_of_animations_is_kept(pool: RenderPool, tmp_path: Path) -> None:
    frames = images.film(40, 30, frames=2)
    webp, png = io.BytesIO(), io.BytesIO()
    frames[0].save(webp, "WEBP", save_all=True, append_images=frames[1:], xmp=PACKET)
    frames[0].save(png, "PNG", save_all=True, append_images=frames[1:], exif=exif())
    body = (await rendered(pool, written(tmp_path, webp.getvalue()), "width=20,metadata=copyright", "webp")).body
    assert b"ANMF" in body
    assert CREDIT.encode() in body
    assert b"Kirkjufell" not in body
    body = (await rendered(pool, written(tmp_path, png.getvalue()), "width=20,metadata=copyright", "webp")).body
    assert b"ANMF" in body
    assert ARTIST.encode() in body
    assert b"Lightbox" not in body


async def test_metadata_copyright_of_an_hdr_photo_is_beside_its_gain_map(pool: RenderPool, tmp_path: Path) -> None:
    photo = gain_maps.gain_map_jpeg(
        PICTURE,
        gain_maps.levels(gain_maps.stops_field(20, 15)),
        gain_maps.iso([0.0], [2.0]),
        xmp=PACKET,
        exif=exif(),
    )
    path = written(tmp_path, photo)
    body = (await rendered(pool, path, "width=20,metadata=copyright,dynamic_range=high", "jpeg")).body
    assert body.count(b"\xff\xd8\xff") == 2
    assert body.count(b"http://ns.adobe.com/xap/1.0/\0") == 2, "that of the picture, and that of the map"
    assert CREDIT.encode() in body
    assert ARTIST.encode() in body
    assert b"Kirkjufell" not in body
    for image_format in ("avif", "jxl"):
        body = (await rendered(pool, path, "width=20,metadata=copyright,dynamic_range=high", image_format)).body
        found = original_metadata.read(memoryview(body), image_format, 0)
        assert CREDIT.encode() in found.xmp
        assert ARTIST.encode() in found.exif


def declared(entities: str, text: str) -> bytes:
    """Return a packet with a document type declaration."""
    return f'<!DOCTYPE x [{entities}]><x:xmpmeta xmlns:x="adobe:ns:meta/">{text}</x:xmpmeta>'.encode()


RIGHTS_PROPERTY = '<d:rights xmlns:d="http://purl.org/dc/elements/1.1/">{}</d:rights>'
HOSTILE = LazyMapping[bytes](
    {
        "entities in entities": lambda: declared(
            '<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY {chr(98 + step)} "{f"&{chr(97 + step)};" * 10}">' for step in range(12)), "&m;"
        ),
        "a long entity, often": lambda: declared(f'<!ENTITY a "{"a" * 50_000}">', RIGHTS_PROPERTY.format("&a;" * 50_000)),
        "an outside entity": lambda: declared('<!ENTITY a SYSTEM "file:///etc/passwd">', RIGHTS_PROPERTY.format("&a;")),
        "deep": lambda: b"<a>" * 600_000,
        "closed and deep": lambda: b"<a>" * 200_000 + b"</a>" * 200_000,
        "many elements": lambda: b"<a>" + b"<b/>" * 450_000 + b"</a>",
        "many attributes": lambda: b"<a " + b" ".join(b"a%d=''" % number for number in range(180_000)) + b"/>",
        "many namespaces": lambda: b"<a " + b" ".join(b"xmlns:a%d='a'" % number for number in range(110_000)) + b"/>",
        "large": lambda: b"<a>" + b" " * (3 << 20) + b"</a>",
    }
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xmp_has_no_rights_and_costs_little_time(name: str) -> None:
    started = time.process_time()
    assert xmp.rights(HOSTILE[name]) == ("", frozenset())
    assert sum(map(len, xmp.values(HOSTILE[name]).values())) < 200_000
    assert time.process_time() - started < 10


@pytest.mark.parametrize("name", ["entities in entities", "deep", "large"])
async def test_hostile_xmp_is_ignored_and_the_photo_is_taken(pool: RenderPool, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, with_chunks(chunk(b"iTXt", INTERNATIONAL + b"\1\0\0\0" + zlib.compress(HOSTILE[name]))))
    assert (await probed(pool, path)).info.width == 40
    for keep in ("copyright", "all"):
        body = (await rendered(pool, path, f"width=20,metadata={keep}", "webp")).body
        assert images.decode(body).size == (20, 15)


async def test_metadata_that_decompress_to_very_much_are_ignored(pool: RenderPool, tmp_path: Path) -> None:
    packet = images.compressed_zeros(64 << 20)
    path = written(tmp_path, with_chunks(after=chunk(b"iTXt", INTERNATIONAL + b"\1\0\0\0" + packet) * 64))
    body = (await rendered(pool, path, "width=20,metadata=all", "webp")).body
    assert len(body) < 10_000


PACKET_START, PACKET_END = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s">' % xmp.RDF.encode(), b"</rdf:RDF></x:xmpmeta>"


def rights_of(description: str) -> dict[str, list[str]]:
    """Return the values of the rights that are selected from a description, by their local names."""
    properties, _ = xmp.rights(PACKET_START + description.encode() + PACKET_END)
    found = xmp.values(xmp.packet_of(xmp.description(properties)))
    return {name.rpartition(" ")[2]: values for name, values in found.items() if values not in ([""], ["x-default"])}


NAMESPACES = 'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'


@pytest.mark.parametrize(
    ("description", "rights"),
    [
        (f'<rdf:Description {NAMESPACES} dc:rights="mine" dc:title="no"/>', {"rights": ["mine"]}),
        (f"<rdf:Description {NAMESPACES}><dc:rights>mine</dc:rights><dc:title>no</dc:title></rdf:Description>", {"rights": ["mine"]}),
        (f'<rdf:Description {NAMESPACES} dc:rights="mine"><dc:rights>yours</dc:rights></rdf:Description>', {"rights": ["mine"]}),
        (
            f"<rdf:Description {NAMESPACES}><dc:rights><rdf:Bag/></dc:rights><dc:rights>mine</dc:rights></rdf:Description>",
            {"rights": ["mine"]},
        ),
        (f"<rdf:Description {NAMESPACES}><dc:title><dc:rights>no</dc:rights></dc:title></rdf:Description>", {}),
        (f"<rdf:Description {NAMESPACES}><dc:rights>mi<dc:title>no</dc:title>ne</dc:rights></rdf:Description>", {"rights": ["mine"]}),
        (f"<rdf:Description {NAMESPACES}><photoshop:Credit>{'a' * 70_000}</photoshop:Credit><dc:rights>mine</dc:rights></rdf:Description>",
         {"rights": ["mine"]}),
        (f"<rdf:Description {NAMESPACES}><dc:rights>mine</dc:rights><dc:title></rdf:Description>", {}),
        (f"<rdf:Description {NAMESPACES}><dc:rights>&lt;a b='&amp;\"</dc:rights></rdf:Description>", {"rights": ["<a b='&\""]}),
    ],
)  # fmt: skip
def test_rights_are_selected_from_every_form_of_xmp(description: str, rights: dict[str, list[str]]) -> None:
    assert rights_of(description) == rights


@given(cut=st.integers(0, len(PACKET)), replaced=st.binary(max_size=20))
def test_damaged_xmp_has_rights_or_none(cut: int, replaced: bytes) -> None:
    properties, names = xmp.rights(PACKET[:cut] + replaced + PACKET[cut + len(replaced) :])
    assert bool(properties) == bool(names)
    xmp.values(xmp.packet_of(xmp.description(properties)))
    assert not any(text in properties for text in PRIVATE)


@given(content=st.binary(max_size=60), name=st.sampled_from(sorted(CASES)), cut=st.integers(12, 2_000))
def test_metadata_of_damaged_files_are_read_as_far_as_possible(content: bytes, name: str, cut: int) -> None:
    body = bytearray(_made(name))
    body[cut : cut + len(content)] = content
    found = original_metadata.read(memoryview(bytes(body)), name.partition(" ")[0], 0)
    iptc.properties(found.photoshop, iptc.EVERY)
    assert len(found.exif) < 70_000


@functools.cache
def _made(name: str) -> bytes:
    return CASES[name][0]()


@pytest.mark.long
async def test_metadata_copyright_keeps_only_the_rights_of_every_container_in_every_format(pool: RenderPool, tmp_path: Path) -> None:
    paths, expected = await every_rendition(pool, tmp_path, "copyright")
    for path, found, (name, stated) in zip(paths, read_metadata(paths), expected, strict=True):
        assert {tag: found.get(tag) for tag in stated} == stated, name
        assert [tag for tag in found if "GPS" in tag or "Serial" in tag or tag.endswith("Model")] == [], name
        assert [text for text in PRIVATE if text.encode() in path.read_bytes()] == [], name


@pytest.mark.long
async def test_metadata_all_keeps_those_of_every_container_in_every_format(pool: RenderPool, tmp_path: Path) -> None:
    paths, expected = await every_rendition(pool, tmp_path, "all")
    for found, (name, rights) in zip(read_metadata(paths), expected, strict=True):
        stated = _stated_with_all(name, rights)
        assert {tag: found.get(tag) for tag in stated} == stated, name


def _stated_with_all(name: str, rights: Mapping[str, object]) -> Mapping[str, object]:
    """Return what a rendition with all metadata states. name: of the case and the format. rights: of the original."""
    if rights is STATED_IN_IPTC and name.endswith("jpeg"):
        return {"IPTC:By-line": ARTIST, "IPTC:CopyrightNotice": NOTICE, "IPTC:Credit": CREDIT, "IPTC:City": "Kirkjufell"}
    if rights is STATED_IN_IPTC:
        return {**rights, "XMP:City": "Kirkjufell"}
    if rights is STATED_IN_XMP:
        licensors = [{"LicensorURL": LICENSOR, "LicensorTelephone1": "+49 30 123456"}]
        return {**rights, "XMP:City": "Kirkjufell", "XMP:SerialNumber": "SN-0815-4711", "XMP:Licensor": licensors}
    if rights is STATED_IN_TEXT and name.endswith("png"):
        return {**rights, "PNG:Author": ARTIST}
    if rights is STATED_IN_EXIF and "tags" not in name:
        return {**rights, "EXIF:Model": "Lightbox 7", "EXIF:SerialNumber": "SN-0815-4711", "EXIF:GPSLatitude": "64 deg 55' 34.20\""}
    return rights


async def every_rendition(pool: RenderPool, folder: Path, keep: str) -> tuple[list[Path], list[tuple[str, Mapping[str, object]]]]:
    """Return the paths of renditions of all cases in all formats, their names, and the rights that they state."""
    paths, expected = [], []
    for number, (name, (make, stated)) in enumerate(CASES.items()):
        original = written(folder, make())
        for image_format in FORMATS:
            body = (await rendered(pool, original, f"width=20,metadata={keep},effort=0", image_format)).body
            paths.append(written(folder, body, f"{number}.{image_format}"))
            expected.append((f"{name} to {image_format}", stated))
    return paths, expected

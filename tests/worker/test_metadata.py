"""Metadata of renditions: none, the owner only, or all."""

import io
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from service.images.formats import Format
from service.rendering.pool import RenderPool
from service.worker.formats.iptc import strip_thumbnails
from service.worker.metadata import correct_xmp
from tests.support import images
from tests.support.renders import rendered, written

pytestmark = pytest.mark.anyio

ARTIST, COPYRIGHT = "Berenice Abbott", "(c) 1936 B. Abbott"
WITH_METADATA: list[Format] = ["jxl", "avif", "webp", "jpeg", "png"]

# The owner, and the tags that libvips writes into every Exif block: resolution, its unit, orientation, a pointer to an empty block.
OWNERSHIP = {ExifTags.Base.Artist, ExifTags.Base.Copyright}
TECHNICAL = {
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Orientation,
    ExifTags.Base.ExifOffset,
}


@pytest.fixture(scope="module")
def photo_with_metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a photo stored on its side, with owner, camera, location and a thumbnail in its metadata."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = ARTIST
    exif[ExifTags.Base.Copyright] = COPYRIGHT
    exif[ExifTags.Base.Model] = images.CAMERA
    exif[ExifTags.Base.Orientation] = 6
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    place[ExifTags.GPS.GPSLatitude] = (64.0, 55.0, 34.2)
    body = io.BytesIO()
    images.picture(400, 300).save(body, "JPEG", exif=exif, xmp=f"<x:xmpmeta>{images.PLACE}</x:xmpmeta>".encode(), quality=90)
    return written(tmp_path_factory.mktemp("photo_with_metadata"), body.getvalue())


@pytest.mark.parametrize("image_format", WITH_METADATA)
async def test_metadata_none_removes_all(pool: RenderPool, photo_with_metadata: Path, image_format: Format) -> None:
    image = images.decode((await rendered(pool, photo_with_metadata, "width=150", image_format)).body)
    assert image.size == (150, 200)
    assert not image.getexif()
    assert "xmp" not in image.info


@pytest.mark.parametrize("image_format", WITH_METADATA)
async def test_metadata_copyright_keeps_the_owner_and_removes_camera_and_location(
    pool: RenderPool, photo_with_metadata: Path, image_format: Format
) -> None:
    result = await rendered(pool, photo_with_metadata, "width=150,metadata=copyright", image_format)
    exif = images.decode(result.body).getexif()
    assert exif[ExifTags.Base.Artist] == ARTIST
    assert exif[ExifTags.Base.Copyright] == COPYRIGHT
    assert set(exif) <= OWNERSHIP | TECHNICAL
    assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
    for private in (images.CAMERA, images.PLACE, "xmpmeta"):
        assert private.encode() not in result.body


@pytest.mark.parametrize("image_format", WITH_METADATA)
async def test_metadata_all_keeps_camera_and_location_and_resets_the_orientation(
    pool: RenderPool, photo_with_metadata: Path, image_format: Format
) -> None:
    image = images.decode((await rendered(pool, photo_with_metadata, "width=150,metadata=all", image_format)).body)
    exif = image.getexif()
    assert image.size == (150, 200)
    assert exif[ExifTags.Base.Model] == images.CAMERA
    assert exif[ExifTags.Base.Artist] == ARTIST
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == pytest.approx((64.0, 55.0, 34.2))
    assert exif.get(ExifTags.Base.Orientation, 1) == 1


async def test_metadata_of_a_gif_is_always_removed(pool: RenderPool, photo_with_metadata: Path) -> None:
    plain = await rendered(pool, photo_with_metadata, "width=150", "gif")
    assert (await rendered(pool, photo_with_metadata, "width=150,metadata=all", "gif")).body == plain.body


async def test_metadata_all_of_a_crop_has_no_thumbnail_of_the_removed_part(pool: RenderPool, tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    images.picture(160, 120).save(thumbnail, "JPEG", quality=40)
    body = io.BytesIO()
    images.picture(400, 300).save(body, "JPEG", exif=exif_with_thumbnail(thumbnail.getvalue()), quality=90)
    assert thumbnail.getvalue() in body.getvalue()
    result = await rendered(pool, written(tmp_path, body.getvalue()), "crop=0:0:100:100,metadata=all", "jpeg")
    assert images.decode(result.body).getexif()[ExifTags.Base.Artist] == "Ada"
    assert result.body.count(b"\xff\xd8\xff") == 1


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4" {turn}>{inside}
<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource"><xmpGImg:image xmlns:xmpGImg="g">aGlkZGVu</xmpGImg:image></rdf:li></rdf:Alt>
</xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "avif", "jxl"])
@pytest.mark.parametrize(("turn", "inside"), [('tiff:Orientation="6"', ""), ("", "<tiff:Orientation>6</tiff:Orientation>")])
async def test_metadata_all_keeps_xmp_without_orientation_and_thumbnails(
    pool: RenderPool, tmp_path: Path, image_format: Format, turn: str, inside: str
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    body = io.BytesIO()
    images.picture(400, 300).save(body, "JPEG", exif=exif, xmp=XMP.format(turn=turn, inside=inside).encode(), quality=90)
    result = await rendered(pool, written(tmp_path, body.getvalue()), "width=150,metadata=all", image_format)
    image = images.decode(result.body)
    assert image.size == ImageOps.exif_transpose(image).size == (150, 200)
    assert b'xmp:Rating="4"' in result.body
    assert b"Orientation" in result.body
    assert b"aGlkZGVu" not in result.body


@pytest.mark.parametrize("quote", ['"', "'"])
def test_xmp_has_no_description_of_appended_pictures(quote: str) -> None:
    kept = b"<rdf:Description xmp:Rating='4'"
    packet = kept + b"\nhdrgm:Version='1.0' hdrgm:GainMapMax='2.5'>".replace(b"'", quote.encode())
    packet += b"<hdrgm:Gamma><rdf:Seq><rdf:li>1</rdf:li></rdf:Seq></hdrgm:Gamma><Container:Directory><rdf:Seq>"
    packet += b"<rdf:li Item:Semantic='GainMap' Item:Length='9'/></rdf:Seq></Container:Directory><dc:title>Directory</dc:title>"
    assert correct_xmp(packet) == kept + b"><dc:title>Directory</dc:title>"


@pytest.mark.parametrize(
    "part", [b"<hdrgm:a><xmp:Thumbnails>", b" ", b" hdrgm:a=", b":Orientation ", b"</xmp:Thumbnails>", b"<a:", b"<hdrgm:a />"]
)
def test_xmp_of_any_length_is_corrected_in_linear_time(part: bytes) -> None:
    """Elements that begin again and again do not make it search the packet again and again."""
    packet = b"<x:xmpmeta>" + part * 200_000
    started = time.process_time()
    found = correct_xmp(packet)
    assert time.process_time() - started < 2
    assert len(found) <= len(packet)
    assert b"hdrgm:a>" not in found


def resource(number: int, data: bytes, name: bytes = b"") -> bytes:
    """Return a resource as Photoshop writes it, with both parts padded to an even number of bytes."""
    named = bytes([len(name)]) + name
    named += bytes(len(named) % 2)
    return b"8BIM" + struct.pack(">H", number) + named + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)


async def test_metadata_all_has_no_photoshop_thumbnail(pool: RenderPool, tmp_path: Path) -> None:
    kept = resource(0x0404, b"\x1c\x02\x50\0\3Ada") + resource(0x0BB7, b"odd", b"named")
    block = b"Photoshop 3.0\0" + resource(0x0409, b"MINIATURE of old") + kept + resource(0x040C, b"MINIATURE of new!")
    plain = images.photo_jpeg(200, 150)
    body = plain[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    result = await rendered(pool, written(tmp_path, body), "crop=0:0:50:50,metadata=all", "jpeg")
    assert b"Photoshop 3.0\0" + kept in result.body
    assert b"MINIATURE" not in result.body


@given(block=st.binary(max_size=80), whole=st.booleans())
def test_strip_thumbnails_of_arbitrary_bytes_ends(block: bytes, whole: bool) -> None:
    source = b"Photoshop 3.0\0" + (resource(0x0404, block) if whole else b"8BIM" + block)
    assert strip_thumbnails(source) == source if whole else len(strip_thumbnails(source)) <= len(source)


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """Return an Exif block whose first directory has an artist and whose second has a thumbnail (Exif 2.32, §4.5)."""
    first, second = 8, 8 + 2 + 12 + 4
    offset = second + 2 + 3 * 12 + 4
    artist = struct.pack("<HHHI4s", 1, 0x013B, 2, 4, b"Ada\0") + struct.pack("<I", second)
    entries = ((0x0103, 3, 6), (0x0201, 4, offset), (0x0202, 4, len(thumbnail)))
    directory = struct.pack("<H", 3) + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"Exif\0\0" + b"II*\0" + struct.pack("<I", first) + artist + directory + struct.pack("<I", 0) + thumbnail

"""JPEG to JPEG XL without loss: the same bytes come back, but no metadata that a rendition must not have, and it is shown like the JPEG."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from service.errors import ServiceError
from service.rendering.pool import RenderPool
from service.worker.formats import jpeg
from tests.support import images
from tests.support.chromium import Painter, visible_distance
from tests.support.gain_maps import RDF, encode_jpeg, insert, packet, segment
from tests.support.jpeg_xl import restored_jpeg
from tests.support.renders import LIMITS, check_words, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 96, 64
# In steps of 8-bit sRGB: decoders scale chroma up, and round, in their own ways.
TOLERANCE = 1.5
LOSSLESS, ORIGINAL = "lossless=true", "profile=keep,metadata=all,lossless=true"


def photo(**options: object) -> bytes:
    return encode_jpeg(images.picture(WIDTH, HEIGHT), 90, **options)


def without_jfif(body: bytes) -> bytes:
    assert body[2:4] == b"\xff\xe0"
    return body[:2] + body[4 + int.from_bytes(body[4:6], "big") :]


def gray(quality: int = 90) -> bytes:
    return encode_jpeg(images.picture(WIDTH, HEIGHT).convert("L"), quality)


KINDS: dict[str, bytes] = {
    "4:2:0": photo(subsampling="4:2:0"),
    "4:2:2": photo(subsampling="4:2:2"),
    "4:4:4": photo(subsampling="4:4:4"),
    "progressive": photo(progressive=True),
    "optimized": photo(optimize=True),
    "restart markers": photo(restart_marker_blocks=4),
    "gray": gray(),
    "gray, progressive": encode_jpeg(images.picture(WIDTH, HEIGHT).convert("L"), progressive=True),
    "red, green and blue": photo(keep_rgb=True),
    "without JFIF": without_jfif(photo()),
    "odd sides": encode_jpeg(images.picture(33, 17), subsampling="4:2:0"),
    "one pixel": encode_jpeg(Image.new("RGB", (1, 1), (200, 60, 30))),
    "narrow": encode_jpeg(images.picture(300, 60).crop((0, 0, 300, 1))),
}


async def recompressed(pool: RenderPool, folder: Path, body: bytes, spelling: str = LOSSLESS) -> tuple[bytes, bytes | None]:
    """Return a JPEG XL rendition, and the JPEG that it restores, if it does."""
    made = (await rendered(pool, written(folder, body), spelling, "jxl")).body
    return made, restored_jpeg(made)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spelling", [LOSSLESS, ORIGINAL])
async def test_jpeg_of_every_kind_comes_back_byte_by_byte(pool: RenderPool, tmp_path: Path, kind: str, spelling: str) -> None:
    _, restored = await recompressed(pool, tmp_path, KINDS[kind], spelling)
    assert restored == KINDS[kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_chromium_shows_a_recompressed_jpeg_like_the_jpeg(pool: RenderPool, painter: Painter, tmp_path: Path, kind: str) -> None:
    made, _ = await recompressed(pool, tmp_path, KINDS[kind])
    shown, expected = painter.draw(made, "jxl"), painter.draw(KINDS[kind], "jpeg")
    assert shown is not None
    assert expected is not None
    assert visible_distance(shown, expected) < TOLERANCE


async def test_recompressed_photo_is_a_fifth_smaller(pool: RenderPool, tmp_path: Path) -> None:
    noise = np.random.default_rng(3).normal(0, 6, (300, 400, 3))
    body = encode_jpeg(Image.fromarray((np.asarray(images.picture(400, 300)) + noise).clip(0, 255).astype(np.uint8)), 85)
    made, restored = await recompressed(pool, tmp_path, body)
    assert restored == body
    assert len(made) < 0.85 * len(body)


@pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")
async def test_recompressed_camera_photos_are_a_fifth_smaller(pool: RenderPool, tmp_path: Path) -> None:
    bodies = [path.read_bytes() for path in images.corpus_files("orientation")]
    made = [await recompressed(pool, tmp_path, body, ORIGINAL) for body in bodies]
    assert [restored for _, restored in made] == bodies
    assert sum(len(body) for body, _ in made) < 0.9 * sum(map(len, bodies))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("spelling", [LOSSLESS, "metadata=copyright,lossless=true", ORIGINAL])
async def test_orientation_stays_in_the_jpeg_and_is_applied_in_the_jpeg_xl(
    pool: RenderPool, painter: Painter, tmp_path: Path, orientation: int, spelling: str
) -> None:
    body = images.copyrighted_jpeg(WIDTH, HEIGHT, orientation=orientation)
    result = await rendered(pool, written(tmp_path, body), spelling, "jxl")
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    restored = restored_jpeg(result.body)
    assert restored is not None
    assert images.decode(restored).getexif().get(ExifTags.Base.Orientation, 1) == orientation
    pictures = [painter.draw(body, "jpeg"), painter.draw(restored, "jpeg"), painter.draw(result.body, "jxl")]
    expected = pictures[0]
    assert expected is not None
    for picture in pictures:
        assert picture is not None
        assert visible_distance(picture, expected) < TOLERANCE
    # As an original it is upright too.
    again = images.decode((await rendered(pool, written(tmp_path, result.body, "again"), "full", "png")).body)
    assert visible_distance(again.convert("RGBA"), expected) < TOLERANCE


SECRET = b"somewhere private"
HIDING_PLACES: dict[str, bytes] = {
    "Exif": segment(0xE1, b"Exif\0\0II*\0" + SECRET),
    "second Exif": segment(0xE1, b"Exif\0\0" + SECRET) * 2,
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET),
    "extended XMP": segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + SECRET),
    "thumbnail of JFIF": segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\5\1" + SECRET[:15]),
    "thumbnail of JFXX": segment(0xE0, b"JFXX\0\x10" + SECRET),
    "picture index": segment(0xE2, b"MPF\0" + SECRET),
    "IPTC": segment(0xED, b"Photoshop 3.0\x008BIM" + SECRET),
    "provenance": segment(0xEB, b"JP\0\0" + SECRET),
    "unknown application": segment(0xE7, SECRET),
    "comment": segment(0xFE, SECRET),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
@pytest.mark.parametrize("spelling", [LOSSLESS, "metadata=copyright,lossless=true"])
async def test_metadata_is_removed_before_a_jpeg_is_recompressed(pool: RenderPool, tmp_path: Path, place: str, spelling: str) -> None:
    """Within, before the end, and after it."""
    plain = photo(progressive=True)
    hidden = HIDING_PLACES[place]
    scan = plain.rindex(b"\xff\xda")
    body = insert(plain[:scan] + hidden + plain[scan:-2] + hidden + plain[-2:], hidden) + SECRET
    assert SECRET[:15] in body
    _, restored = await recompressed(pool, tmp_path, body, spelling)
    assert restored is not None
    assert SECRET[:15] not in restored
    assert images.distance(images.decode(restored), images.decode(plain)) == 0


async def test_bytes_between_segments_are_removed_before_a_jpeg_is_recompressed(pool: RenderPool, tmp_path: Path) -> None:
    _, restored = await recompressed(pool, tmp_path, insert(KINDS["4:2:0"], SECRET))
    assert restored == KINDS["4:2:0"]


async def test_metadata_all_gives_the_original_back_with_its_index_and_the_pictures_behind_its_end(
    pool: RenderPool, tmp_path: Path
) -> None:
    body = (
        insert(images.camera_jpeg(WIDTH, HEIGHT), *(HIDING_PLACES[place] for place in ("XMP", "picture index", "IPTC", "comment"))) + gray()
    )
    _, restored = await recompressed(pool, tmp_path, body, ORIGINAL)
    assert restored == body


async def test_metadata_copyright_of_a_recompressed_jpeg_keeps_the_owner_only(pool: RenderPool, tmp_path: Path) -> None:
    body = images.copyrighted_jpeg(WIDTH, HEIGHT, orientation=6)
    made, restored = await recompressed(pool, tmp_path, body, "metadata=copyright,lossless=true")
    assert restored is not None
    again = (await rendered(pool, written(tmp_path, made, "again"), "metadata=all", "jpeg")).body
    for found in (restored, again):
        exif = images.decode(found).getexif()
        assert (exif[ExifTags.Base.Artist], exif[ExifTags.Base.Copyright]) == (images.ARTIST, images.COPYRIGHT)
        assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
        assert images.CAMERA.encode() not in found
        assert images.PLACE.encode() not in found


@pytest.mark.parametrize(
    ("profile", "spelling", "outcome"),
    [
        (images.srgb_profile(), LOSSLESS, "dropped"),
        (images.srgb_profile(), ORIGINAL, "kept"),
        (images.srgb_profile(), "profile=keep,lossless=true", "kept"),
        (images.srgb_profile(), "profile=p3,lossless=true", "converted"),
        (images.p3_profile(), LOSSLESS, "converted"),
        (images.p3_profile(), "metadata=all,lossless=true", "converted"),
        (images.p3_profile(), ORIGINAL, "kept"),
        (images.p3_profile(), "profile=keep,lossless=true", "kept"),
        (images.wide_profile(), LOSSLESS, "converted"),
        (images.unreadable_profile(), LOSSLESS, "dropped"),
        (images.unreadable_profile(), "profile=keep,lossless=true", "dropped"),
        (images.unreadable_profile(), ORIGINAL, "converted"),
        (images.p3_profile() + bytes(90_000), "profile=keep,lossless=true", "kept"),
        (None, "profile=p3,lossless=true", "converted"),
    ],
)
async def test_jpeg_is_recompressed_if_its_colors_are_not_converted(
    pool: RenderPool, tmp_path: Path, profile: bytes | None, spelling: str, outcome: str
) -> None:
    body = images.rgb_jpeg(WIDTH, HEIGHT, profile=profile)
    _, restored = await recompressed(pool, tmp_path, body, spelling)
    assert (restored is None) == (outcome == "converted")
    if restored is not None:
        assert images.decode(restored).info.get("icc_profile") == (profile if outcome == "kept" else None)


@pytest.mark.parametrize(
    "profile", [images.srgb_profile(), images.p3_profile(), images.wide_profile(), images.p3_profile() + bytes(90_000)]
)
async def test_chromium_shows_a_recompressed_jpeg_in_the_colors_of_its_profile(
    pool: RenderPool, painter: Painter, tmp_path: Path, profile: bytes
) -> None:
    body = images.rgb_jpeg(WIDTH, HEIGHT, profile=profile)
    made, restored = await recompressed(pool, tmp_path, body, ORIGINAL)
    assert restored == body
    shown, expected = painter.draw(made, "jxl"), painter.draw(body, "jpeg")
    assert shown is not None
    assert expected is not None
    assert visible_distance(shown, expected) < TOLERANCE


@pytest.mark.parametrize("spelling", [LOSSLESS, ORIGINAL, "profile=p3,lossless=true"])
async def test_gray_jpeg_with_a_profile_of_gray_is_recompressed_with_it(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    body = images.gray_jpeg(WIDTH, HEIGHT, profile=images.gray_profile())
    _, restored = await recompressed(pool, tmp_path, body, spelling)
    assert restored == (body if spelling == ORIGINAL else None)


@pytest.mark.parametrize(
    "spelling",
    [
        "frame=0",
        f"crop=0:0:{WIDTH}:{HEIGHT}",
        "width=500",
        f"width={WIDTH},height={HEIGHT},fit=cover",
        f"width={WIDTH},enlarge=true",
        "background=ff0000",
        "effort=0",
        "effort=6",
        "progressive=true",
    ],
)
async def test_options_without_effect_on_pixels_leave_a_jpeg_as_it_is(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    before, after = (
        ",".join(f"{key}={value}" for key, value in (pair.split("=") for pair in spelling.split(",")) if (key in LATER) == later)
        for later in (False, True)
    )
    spelling = ",".join(part for part in (before, LOSSLESS, after) if part)
    _, restored = await recompressed(pool, tmp_path, KINDS["4:2:0"], spelling)
    assert restored == KINDS["4:2:0"]


LATER = frozenset({"effort", "progressive"})


@pytest.mark.parametrize(
    "spelling",
    [
        "crop=0:0:80:60",
        "rotate=90",
        "rotate=180",
        "flip=horizontal",
        "width=95",
        "width=128,enlarge=true",
        f"width={WIDTH},height={WIDTH},fit=contain",
        "brightness=1.2",
        "contrast=0.9",
        "gamma=2",
        "saturation=0.5",
        "grayscale=true",
        "blur=1",
        "sharpen=1",
        "round=8",
        "pad=1",
    ],
)
async def test_options_that_change_pixels_are_applied_without_loss(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    path = written(tmp_path, KINDS["4:2:0"])
    made = (await rendered(pool, path, f"{spelling},{LOSSLESS}", "jxl")).body
    assert restored_jpeg(made) is None
    expected = images.decode((await rendered(pool, path, spelling, "png")).body)
    assert np.array_equal(np.asarray(images.decode(made).convert("RGBA")), np.asarray(expected.convert("RGBA")))


async def test_lossy_jpeg_xl_of_a_jpeg_restores_nothing(pool: RenderPool, tmp_path: Path) -> None:
    _, restored = await recompressed(pool, tmp_path, KINDS["4:2:0"], "full")
    assert restored is None


REFUSED: dict[str, bytes] = {
    "CMYK": images.cmyk_jpeg(WIDTH, HEIGHT),
    "other application segment 0": insert(photo(keep_rgb=True), segment(0xE0, b"AVI1" + bytes(10))),
    "long Adobe segment": insert(photo(), segment(0xEE, b"Adobe\0\x64" + bytes(4) + b"\1more")),
    "4 MB after its end": photo() + bytes(5_000_000),
    "profile in parts out of order": insert(
        photo(), *(segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 2]) + images.p3_profile()[(part - 1) * 500 :][:10_000]) for part in (2, 1))
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_jpeg_that_cannot_be_recompressed_is_encoded_from_its_pixels(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    made, restored = await recompressed(pool, tmp_path, REFUSED[kind], ORIGINAL)
    assert restored is None
    expected = images.decode((await rendered(pool, written(tmp_path, REFUSED[kind]), "profile=keep", "png")).body)
    assert np.array_equal(np.asarray(images.decode(made).convert("RGB")), np.asarray(expected.convert("RGB")))


async def test_jpeg_without_an_end_marker_comes_back_with_one(pool: RenderPool, tmp_path: Path) -> None:
    _, restored = await recompressed(pool, tmp_path, KINDS["4:4:4"][:-2], ORIGINAL)
    assert restored == KINDS["4:4:4"]


async def test_jpeg_that_takes_too_much_memory_is_encoded_from_its_pixels(pool: RenderPool, tmp_path: Path) -> None:
    """The header decides, not the memory that happens to be free, so that a rendition has the same bytes everywhere."""
    path = written(tmp_path, KINDS["4:2:0"])
    limits = msgspec.structs.replace(LIMITS, codec_bytes=WIDTH * HEIGHT * 60)
    assert restored_jpeg((await rendered(pool, path, LOSSLESS, "jxl", limits=limits)).body) is None


@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "restart markers"])
async def test_damaged_jpeg_is_refused_or_comes_back_as_it_is(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    for seed in range(12):
        body = images.mutated(KINDS[kind], seed, changes=2)
        try:
            _, restored = await recompressed(pool, tmp_path, body, ORIGINAL)
        except ServiceError as error:
            check_words(error)
        else:
            assert restored in (None, body, body + b"\xff\xd9")
    _, restored = await recompressed(pool, tmp_path, KINDS[kind])
    assert restored == KINDS[kind]


def scans_jpeg(side: int, scans: int) -> bytes:
    """Return a flat progressive JPEG with a scan for each coefficient, all of which are zero. side: in blocks of 8 pixels."""
    blocks = side * side
    runs, rest = divmod(blocks, -(-blocks // 32_767))[0], blocks % -(-blocks // 32_767)
    # A run of blocks without further coefficients is coded as its highest bit and 14 more (ITU-T T.81 §G.1.2.2).
    bits = "".join(f"0{runs + (number < rest) - 16_384:014b}" for number in range(-(-blocks // 32_767)))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, 8 * side, 8 * side, 3) + b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    tables = segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    body = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, frame) + tables
    body += segment(0xDA, b"\3\1\0\2\0\3\0\0\0\0") + bytes(blocks * 3 // 8)
    order = [(component, coefficient) for coefficient in range(1, 64) for component in (1, 2, 3)]
    for component, coefficient in order[:scans]:
        body += segment(0xDA, bytes([1, component, 0, coefficient, coefficient, 0])) + data
    return body + b"\xff\xd9"


async def test_jpeg_of_many_scans_comes_back_too(pool: RenderPool, tmp_path: Path) -> None:
    body = scans_jpeg(184, 60)
    _, restored = await recompressed(pool, tmp_path, body)
    assert restored == body


@given(st.binary(max_size=200))
def test_replacing_the_metadata_of_arbitrary_bytes_ends(tail: bytes) -> None:
    body = jpeg.replace_metadata(memoryview(b"\xff\xd8" + tail), lambda _: b"")
    assert body == b"" or (body[:2], body[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    assert len(body) <= len(tail) + 2


def test_replacing_metadata_by_itself_changes_nothing() -> None:
    body = images.camera_jpeg(WIDTH, HEIGHT)
    assert jpeg.replace_metadata(memoryview(body), lambda segment: bytes(segment.content)) == body
    assert images.decode(jpeg.replace_metadata(memoryview(body), lambda _: b"")).size == Image.open(io.BytesIO(body)).size


@pytest.mark.parametrize("place", ["xmp", "iptc"])
async def test_metadata_copyright_of_a_recompressed_jpeg_keeps_the_rights_in_xmp_and_iptc(
    pool: RenderPool, tmp_path: Path, place: str
) -> None:
    if place == "xmp":
        stated = '<d:creator xmlns:d="http://purl.org/dc/elements/1.1/">Ada</d:creator><secret xmlns="urn:x">place</secret>'
        body = photo(xmp=packet(f'<rdf:Description xmlns:rdf="{RDF}">{stated}</rdf:Description>'))
    else:
        data_set = b"\x1c\x02\x50\0\3Ada"
        body = insert(photo(), segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x08" + data_set))
    made, restored = await recompressed(pool, tmp_path, body, "metadata=copyright,lossless=true")
    assert restored is not None
    assert b">Ada<" in restored
    assert b"secret" not in restored + made
    assert b"Photoshop" not in restored + made

"""JPEGs that end early: refused exactly if a pixel is lost. A missing end marker, and data after it, are harmless."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from service.errors import BrokenImageError
from service.images.formats import Format
from service.rendering.pool import RenderPool
from service.worker.formats import jpeg
from tests.support import images
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

END = b"\xff\xd9"
SIZE = (120, 88)
SCENE = images.picture(*SIZE)


def encoded(picture: Image.Image = SCENE, **options: object) -> bytes:
    body = io.BytesIO()
    picture.save(body, "JPEG", quality=85, **options)
    return body.getvalue()


def segments(body: bytes) -> dict[int, bytes]:
    """Return the last segment of each kind in a JPEG of one scan, by its marker, without its length; 0 is the data of the scan."""
    found: dict[int, bytes] = {}
    position = 2
    while body[position + 1] != 0xDA:
        size = int.from_bytes(body[position + 2 : position + 4], "big")
        found[body[position + 1]] = body[position + 4 : position + 2 + size]
        position += 2 + size
    found[0] = body[position + 2 + int.from_bytes(body[position + 2 : position + 4], "big") : -2]
    return found


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def one_scan_per_component() -> bytes:
    """Return a sequential JPEG with a scan for each of its three components."""
    bands = [encoded(band) for band in SCENE.convert("YCbCr").split()]
    tables = segments(bands[0])
    frame = struct.pack(">BHHB", 8, SIZE[1], SIZE[0], 3) + b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    body = b"\xff\xd8" + segment(0xDB, tables[0xDB]) + segment(0xC0, frame)
    # Pillow writes each Huffman table as a segment of its own.
    body += b"".join(bands[0][at : at + 2 + int.from_bytes(bands[0][at + 2 : at + 4], "big")] for at in starts(bands[0], 0xC4))
    for number, band in enumerate(bands, 1):
        body += segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + segments(band)[0]
    return body + END


def starts(body: bytes, marker: int) -> Iterator[int]:
    return (found.start() for found in re.finditer(bytes((0xFF, marker)), body))


def turned() -> Image.Exif:
    """Return the orientation of a picture that is shown rotated by half a turn."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    return exif


KINDS: dict[str, bytes] = {
    "4:2:0": encoded(subsampling="4:2:0"),
    "4:4:4": encoded(subsampling="4:4:4"),
    "gray": encoded(SCENE.convert("L")),
    "CMYK": encoded(SCENE.convert("CMYK")),
    "turned, Display P3": encoded(icc_profile=images.p3_profile(), exif=turned()),
    "optimized": encoded(optimize=True),
    "progressive": encoded(progressive=True),
    "progressive gray": encoded(SCENE.convert("L"), progressive=True),
    "progressive with restarts": encoded(progressive=True, restart_marker_blocks=7),
    "restarts": encoded(restart_marker_blocks=4),
    "restarts by rows": encoded(restart_marker_rows=1),
    "a scan per component": one_scan_per_component(),
}


def decoded(body: bytes) -> np.ndarray:
    """Return what libjpeg makes of a file, gray where data is missing."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


async def is_refused(pool: RenderPool, folder: Path, body: bytes) -> bool:
    try:
        info = (await probed(pool, written(folder, body))).info
    except BrokenImageError:
        return True
    assert (info.width, info.height) == SIZE
    return False


@pytest.mark.parametrize("kind", KINDS)
async def test_jpeg_cut_anywhere_is_refused_exactly_if_a_pixel_is_lost(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    body = KINDS[kind]
    whole = decoded(body)
    data_start = next(starts(body, 0xDA)) + 16
    step = (len(body) - data_start) // 12
    for end in [*range(len(body) - 2, len(body) - 8, -1), *range(data_start, len(body) - 8, step)]:
        lost = not np.array_equal(decoded(body[:end] + END), whole)
        for cut in (body[:end], body[:end] + END):
            if lost and body[end : end + 2] not in {b"\xff\xc4", b"\xff\xda"}:
                assert await is_refused(pool, tmp_path, cut), (end, len(body))
            elif end >= len(body) - 2:
                assert not await is_refused(pool, tmp_path, cut)
            # Otherwise the bits that are lost show in no pixel, or the cut is between two scans: see below.


@pytest.mark.parametrize("kind", KINDS)
async def test_jpeg_without_an_end_marker_is_rendered_like_the_whole_one(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    whole = await rendered(pool, written(tmp_path, KINDS[kind], "whole"), "width=60", "png")
    for name, body in {"no marker": KINDS[kind][:-2], "half a marker": KINDS[kind][:-1]}.items():
        assert (await rendered(pool, written(tmp_path, body, name), "width=60", "png")).body == whole.body


@pytest.mark.parametrize("kind", ["4:2:0", "progressive"])
@pytest.mark.parametrize("image_format", ["png", "webp"])
async def test_rendition_of_half_a_jpeg_is_refused(pool: RenderPool, tmp_path: Path, kind: str, image_format: Format) -> None:
    """No such original can be uploaded; another server's store may have one."""
    half = KINDS[kind][: len(KINDS[kind]) // 2]
    for body in (half, half + bytes(100)):
        with pytest.raises(BrokenImageError):
            await rendered(pool, written(tmp_path, body), "width=60", image_format)


TAILS = {
    "zeros": bytes(1_000),
    "text": b"garbage" * 100,
    "a byte": b"\n",
    "a marker": END,
    "another picture": KINDS["gray"],
    "half of another picture": KINDS["gray"][:900],
    "a video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(range(256)) * 20,
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "restarts"])
async def test_jpeg_with_data_after_its_end_is_accepted(pool: RenderPool, tmp_path: Path, kind: str, tail: str) -> None:
    path = written(tmp_path, KINDS[kind] + TAILS[tail])
    assert (await probed(pool, path)).info.width == SIZE[0]
    whole = await rendered(pool, written(tmp_path, KINDS[kind], "whole"), "width=60", "png")
    assert (await rendered(pool, path, "width=60", "png")).body == whole.body


HARMLESS = {
    "bytes before the end marker": lambda body: body[:-2] + b"\x55" * 16 + END,
    "fill bytes before the end marker": lambda body: body[:-2] + b"\xff" * 16 + END,
    "bytes between segments": lambda body: body[:20] + b"\0\0\0" + body[20:],
    "unknown version of JFIF": lambda body: body.replace(b"JFIF\0\1\1", b"JFIF\0\7\1"),
    "range of coefficients in a sequential scan": lambda body: body.replace(b"\0\x3f\0", b"\0\x00\0", 1),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_jpeg_with_a_harmless_mistake_is_accepted(pool: RenderPool, tmp_path: Path, name: str) -> None:
    body = HARMLESS[name](KINDS["4:2:0"])
    assert body != KINDS["4:2:0"]
    assert np.array_equal(decoded(body), decoded(KINDS["4:2:0"]))
    assert not await is_refused(pool, tmp_path, body)


async def test_jpeg_with_a_restart_interval_lost_is_refused(pool: RenderPool, tmp_path: Path) -> None:
    body = KINDS["restarts"]
    third, fourth = next(starts(body, 0xD2)), next(starts(body, 0xD3))
    assert await is_refused(pool, tmp_path, body[:third] + body[fourth:])


async def test_progressive_jpeg_without_its_last_scan_is_accepted_only_with_an_end_marker(pool: RenderPool, tmp_path: Path) -> None:
    """With a marker it is a valid picture of less detail, as some programs write it; without one it was cut."""
    body = KINDS["progressive"]
    *_, last = starts(body, 0xDA)
    # The tables of the last scan are in front of it.
    last = next((at for at in starts(body, 0xC4) if body.find(b"\xff\xda", at) == last), last)
    assert not await is_refused(pool, tmp_path, body[:last] + END)
    assert await is_refused(pool, tmp_path, body[:last])


async def test_jpeg_without_any_scan_of_a_component_is_refused(pool: RenderPool, tmp_path: Path) -> None:
    body = KINDS["a scan per component"]
    *_, last = starts(body, 0xDA)
    assert await is_refused(pool, tmp_path, body[:last] + END)
    assert jpeg.lacks_scans(memoryview(body[:last] + END))
    assert not jpeg.lacks_scans(memoryview(body))

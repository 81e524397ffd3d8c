"""Files that cost far more than their pixels are refused cheaply, before decoding; similar but harmless files are accepted."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.errors import ServiceError
from service.rendering.pool import RenderPool
from service.rendering.protocol import ImageError
from service.worker import bounds
from service.worker.formats import gif, isobmff, jpeg, png, tiff, webp
from tests.support import images
from tests.support.renders import HEADER_BYTES, HEADER_CPU_SECONDS, LIMITS, Spent, check_words, probed, rendered, written

pytestmark = pytest.mark.anyio


# Files.


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def scanned_jpeg(width: int, height: int, scans: int, *, components: int = 1) -> bytes:
    """Return a valid gray progressive JPEG with many scans, each of which is an empty run of blocks without coefficients.

    The standard allows a first scan and thirteen refinements of each coefficient (ITU-T T.81 §G.1.1.1).
    """
    sampling = b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    body = (
        b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1]) * 64) + segment(0xC2, struct.pack(">BHHB", 8, height, width, components) + sampling)
    )
    # Two Huffman tables with one code of one bit each: a DC difference of zero; and an end-of-band run of 2^14 blocks with 14 extra bits.
    body += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\0") + segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    blocks = -(-width // 8) * -(-height // 8)
    selected = b"".join(bytes([number, 0]) for number in range(1, components + 1))
    body += segment(0xDA, bytes([components]) + selected + bytes(3)) + bytes(-(-blocks * components // 8))
    run = bytes(-(-blocks // 16_384) * 15 // 8 + 1)
    steps = [(band, high) for band in range(1, 64) for high in range(14)]
    for band, refined in steps[: scans - 1]:
        low = 13 - refined
        body += segment(0xDA, bytes([1, 1, 0, band, band, (low + 1 if refined else 0) << 4 | low])) + run
    return body + b"\xff\xd9"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced_png(side: int) -> bytes:
    """Return a black, interlaced PNG of 16 bits per sample, side × side."""
    row_bytes = 0
    for left, top, across, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        row_bytes += (1 + 8 * -(-(side - left) // across)) * -(-(side - top) // down)
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", images.compressed_zeros(row_bytes)) + chunk(b"IEND")


def with_chunks(chunks: bytes) -> bytes:
    body = images.flat_png(20, 10, (1, 2, 3))
    return body[:33] + chunks + body[33:]


PAGE = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 4), (277, 1), (278, 1), (279, 1))


def paged_tiff(pages: int, *, loop: bool = False) -> bytes:
    """Return a TIFF with pages of one pixel. With `loop` the last page links to the first."""
    directory = struct.pack("<H", len(PAGE)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in PAGE)
    size = len(directory) + 4
    starts = [8 + number * size for number in range(1, pages)] + [8 if loop else 0]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(directory + struct.pack("<I", start) for start in starts)


def striped_tiff(strips: int, entries: tuple[tuple[int, int, int, int], ...] = (), pad: int = 0) -> bytes:
    """Return a gray TIFF, one pixel wide, in which each row is a strip, with additional entries and data that they may refer to."""
    body = bytearray(b"II*\0\0\0\0\0" + bytes(8 + pad + pad % 2))
    offsets = len(body)
    body += struct.pack("<I", 8) * strips
    lengths = len(body)
    body += struct.pack("<I", 1) * strips
    listed = [(256, 4, 1, 1), (257, 4, 1, strips), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1), (278, 4, 1, 1)]
    listed += [(273, 4, strips, offsets), (279, 4, strips, lengths), *entries]
    struct.pack_into("<I", body, 4, len(body))
    return bytes(body) + struct.pack("<H", len(listed)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(listed)) + bytes(4)


def jpeg_tiff(width: int, height: int, scans: int) -> bytes:
    """Return a TIFF whose only strip is a progressive JPEG."""
    strip = scanned_jpeg(width, height, scans)
    strip += bytes(len(strip) % 2)
    listed = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 7), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, height)]
    listed.append((279, 4, len(strip)))
    directory = struct.pack("<H", len(listed)) + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in listed)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)


GIF_HEADER = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0x80, 0, 0) + bytes(6)
GIF_FRAME = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0"


def gif_of(side: int) -> bytes:
    body = io.BytesIO()
    Image.new("P", (side, side)).save(body, "GIF")
    return body.getvalue()


def webp_of(frames: int, others: int = 0) -> bytes:
    still = io.BytesIO()
    Image.new("RGB", (1, 1)).save(still, "WEBP", lossless=True)
    picture = still.getvalue()[12:]
    frame = bytes(16) + picture
    body = b"WEBPVP8X" + struct.pack("<IB9x", 10, 2) + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"abcd\0\0\0\0" * others
    body += (b"ANMF" + struct.pack("<I", len(frame)) + frame + bytes(len(frame) % 2)) * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def large_avif(side: int, *, bits: int = 8) -> bytes:
    image = pyvips.Image.black(side, side, bands=3)
    image = image.copy(interpretation="srgb") if bits == 8 else image.cast("ushort").copy(interpretation="rgb16")
    body: bytes = image.heifsave_buffer(compression="av1", effort=0, Q=20, bitdepth=bits)
    return body


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg of many scans": (lambda: scanned_jpeg(3_000, 3_000, 800), "too-complex"),
    "jpeg of many samples in all its scans": (lambda: scanned_jpeg(9_900, 9_900, 100), "too-complex"),
    "jpeg of many segments": (lambda: b"\xff\xd8" + b"\xff\xe3\0\2" * 5_000_000 + images.photo_jpeg(20, 10)[2:], "too-complex"),
    "jpeg of much metadata": (lambda: b"\xff\xd8" + segment(0xE1, b"x" * 65_000) * 800 + images.photo_jpeg(20, 10)[2:], "too-complex"),
    "jpeg that decodes whole": (lambda: scanned_jpeg(8_000, 8_000, 1, components=3), "too-many-pixels"),
    "png of 16 bits, interlaced": (lambda: interlaced_png(9_000), "too-many-pixels"),
    "png of many chunks": (lambda: with_chunks(chunk(b"tEXt", b"a\0b") * 2_000_000), "too-complex"),
    "png of many texts": (lambda: with_chunks(chunk(b"zTXt", b"x\0\0" + images.compressed_zeros(4 << 20)) * 1_000), "too-complex"),
    "tiff of many pages": (lambda: paged_tiff(400_000), "too-many-pixels"),
    "tiff of many strips": (lambda: striped_tiff(1_000_000), "too-complex"),
    "tiff of much metadata": (
        lambda: striped_tiff(10, tuple((tag, 1, 20_000_000, 8) for tag in range(60_000, 60_050)), 20_000_000),
        "too-complex",
    ),
    "tiff of a jpeg of many scans": (lambda: jpeg_tiff(8_000, 8_000, 90), "too-complex"),
    "gif of many frames": (lambda: GIF_HEADER + GIF_FRAME * 2_000_000 + b";", "too-many-pixels"),
    "gif of many blocks": (lambda: GIF_HEADER + b"\x21\xfe\1a\0" * 4_000_000 + GIF_FRAME + b";", "too-complex"),
    "gif that decodes whole": (lambda: gif_of(9_900), "too-many-pixels"),
    "webp of many frames": (lambda: webp_of(200_000), "too-many-pixels"),
    "webp of many chunks": (lambda: webp_of(1, 2_000_000), "too-complex"),
    "avif that decodes whole": (lambda: large_avif(6_500), "too-many-pixels"),
    "avif of 10 bits that decodes whole": (lambda: large_avif(4_600, bits=10), "too-many-pixels"),
    "avif of many boxes": (lambda: images.avif(64, 48) + b"\0\0\0\x08free" * 4_000_000, "too-complex"),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_file_that_costs_more_than_its_pixels_is_refused_before_decoding(pool: RenderPool, tmp_path: Path, name: str) -> None:
    make, kind = BOMBS[name]
    path = written(tmp_path, make())
    spent = Spent(pool)
    with pytest.raises(ServiceError) as caught:
        await probed(pool, path)
    assert (caught.value.status_code, caught.value.slug) == (422, kind), repr(caught.value)
    check_words(caught.value)
    assert caught.value.expected
    assert caught.value.received
    # Mapped pages of the file itself count too.
    spent.check(HEADER_CPU_SECONDS * 2, HEADER_BYTES + path.stat().st_size)


ACCEPTED: dict[str, Callable[[], bytes]] = {
    "jpeg, progressive": partial(images.photo_jpeg, 400, 300, progressive=True),
    "jpeg of 150 scans": partial(scanned_jpeg, 400, 300, 150),
    "png of 60 texts": lambda: with_chunks(chunk(b"zTXt", b"x\0\0" + zlib.compress(b"text" * 999)) * 60),
    "png of 16 bits, interlaced": partial(interlaced_png, 2_000),
    "tiff of 900 pages": partial(paged_tiff, 900),
    "tiff of 4,000 strips": partial(striped_tiff, 4_000),
    "tiff of a progressive jpeg": partial(jpeg_tiff, 400, 304, 20),
    "gif of 900 frames": lambda: GIF_HEADER + GIF_FRAME * 900 + b";",
    "webp of 300 frames": partial(webp_of, 300),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name == "gif of 900 frames" else name for name in ACCEPTED])
async def test_ordinary_large_file_is_accepted(pool: RenderPool, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, ACCEPTED[name]())
    assert (await probed(pool, path)).info.width
    assert (await rendered(pool, path, "width=10", "webp")).body


# Arbitrary bytes.

GOOD = [
    images.photo_jpeg(40, 30),
    images.photo_jpeg(40, 30, progressive=True),
    scanned_jpeg(40, 30, 20),
    with_chunks(chunk(b"tEXt", b"a\0b") * 9),
    images.palette_gif(40, 30),
    images.webp(40, 30),
    webp_of(3),
    images.avif(64, 48),
    paged_tiff(3),
    striped_tiff(30),
    jpeg_tiff(40, 32, 5),
]


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=8)), max_size=12), st.integers(0, 1 << 16))
def test_check_of_arbitrary_bytes_ends(source: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    body = bytearray(source)
    for at, piece in changes:
        body[at % len(body) : at % len(body) + len(piece)] = piece
    view = memoryview(bytes(body[: len(body) - cut % len(body)]))
    with suppress(ImageError):
        bounds.check(view, LIMITS)


@given(st.binary(max_size=200))
def test_surveys_of_arbitrary_bytes_stop_at_their_limits(body: bytes) -> None:
    view = memoryview(body)
    assert jpeg.survey(view, 9, 9).scans <= 10
    assert png.survey(view, 9).chunks <= 10
    assert gif.survey(view, 9, 9).blocks <= 11
    assert webp.survey(view, 9).chunks <= 10
    assert isobmff.count(view, 9) <= 10
    with suppress(ValueError):
        assert len(list(tiff.directories(view, 9))) <= len(body)


def test_tiff_directories_in_a_circle_end() -> None:
    assert len(list(tiff.directories(memoryview(paged_tiff(5, loop=True)), 0))) == 5

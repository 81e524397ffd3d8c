"""WebP and PNG files with mistakes in their containers: taken if a browser shows all of the picture, refused if pixels are missing."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.errors import BrokenImageError
from service.rendering.pool import RenderPool
from tests.support import images
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

SCENE = images.picture(64, 48)


def chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(body):
        size = int.from_bytes(body[position + 4 : position + 8], "little")
        yield body[position : position + 4], body[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def riff(*parts: tuple[bytes, bytes], too_large: int = 0, pads_last: bool = True) -> bytes:
    """Return a WebP of chunks, with a RIFF size that is `too_large` by so many bytes, with or without the last padding byte."""
    body = b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in parts)
    body = body if pads_last or len(parts[-1][1]) % 2 == 0 else body[:-1]
    return b"RIFF" + struct.pack("<I", 4 + len(body) + too_large) + b"WEBP" + body


def odd_webp(*, lossless: bool) -> bytes:
    """Return a WebP whose only chunk has an odd number of bytes."""
    for width in range(40, 90):
        body = io.BytesIO()
        images.picture(width, 48).save(body, "WEBP", lossless=lossless, quality=60)
        (chunk,) = chunks(body.getvalue())
        if len(chunk[1]) % 2:
            return body.getvalue()
    # libwebp pads the data of VP8 itself, so a byte is added behind it.
    return riff((chunk[0], chunk[1] + b"\0"))


LOSSY, LOSSLESS = odd_webp(lossless=False), odd_webp(lossless=True)
FILM = images.animated_webp()
EXTENDED = riff((b"VP8X", bytes((0, 0, 0, 0, 63, 0, 0, 47, 0, 0))), *chunks(riff(*chunks(images.webp(64, 48)))))


def webps(body: bytes) -> dict[str, bytes]:
    parts = list(chunks(body))
    return {
        "whole": body,
        "no padding, although the RIFF size counts it": riff(*parts, too_large=1, pads_last=False),
        "data after the end": body + b"more data",
        "unknown chunk at the end": riff(*parts, (b"ABCD", b"data")),
    }


GOOD_WEBPS = {f"{name}: {kind}": made for name, body in (("lossy", LOSSY), ("lossless", LOSSLESS)) for kind, made in webps(body).items()}
GOOD_WEBPS |= {"extended": EXTENDED, "animated": FILM, "animated, with data after the end": FILM + b"more data"}
GOOD_WEBPS |= {
    f"extended, flags {flags:#x}": riff((b"VP8X", bytes((flags,)) + next(chunks(EXTENDED))[1][1:]), *list(chunks(EXTENDED))[1:])
    for flags in (0x04, 0x08, 0x10, 0x20)
}


@pytest.mark.parametrize("name", GOOD_WEBPS)
async def test_webp_that_browsers_show_is_accepted(pool: RenderPool, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, GOOD_WEBPS[name])
    info = (await probed(pool, path)).info
    assert (info.format, info.height) == ("webp", 48 if "animated" not in name else 90)
    whole = {"lossy": LOSSY, "lossless": LOSSLESS, "extended": EXTENDED, "animated": FILM}[re.split("[:,]", name)[0]]
    expected, found = [
        images.decode((await rendered(pool, one, "full", "png")).body).convert("RGBA") for one in (written(tmp_path, whole, "whole"), path)
    ]
    assert found.tobytes() == expected.tobytes()


HALF = LOSSLESS[: len(LOSSLESS) // 2]
BAD_WEBPS = {f"{name} cut by {count}": body[:-count] for name, body in (("animated", FILM), ("lossless", LOSSLESS)) for count in (2, 3, 40)}
BAD_WEBPS |= {
    "animated cut by 1": FILM[:-1],
    "extended cut by 1": EXTENDED[:-1],
    "lossless, half, with a true RIFF size": HALF[:4] + struct.pack("<I", len(HALF) - 8) + HALF[8:],
    "RIFF size too large by 2": riff(*chunks(LOSSLESS), too_large=2),
    "RIFF size of 0": LOSSLESS[:4] + bytes(4) + LOSSLESS[8:],
    "animated without frames": riff((b"VP8X", b"\2" + bytes(3) + b"\x3f\0\0\x2f\0\0"), *chunks(LOSSLESS)),
}


@pytest.mark.parametrize("name", BAD_WEBPS)
async def test_webp_that_lacks_data_is_broken(pool: RenderPool, tmp_path: Path, name: str) -> None:
    with pytest.raises(BrokenImageError):
        await probed(pool, written(tmp_path, BAD_WEBPS[name]))


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


ROWS = b"".join(b"\0" + SCENE.tobytes()[row * 192 : row * 192 + 192] for row in range(48))
PIXELS = zlib.compress(ROWS)
HEADER = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0))
END = chunk(b"IEND", b"")
PNG = HEADER + chunk(b"IDAT", PIXELS) + END

GOOD_PNGS = {
    "whole": PNG,
    "no end chunk": PNG[: -len(END)],
    "half an end chunk": PNG[:-6],
    "wrong checksum of the end": PNG[:-4] + b"abcd",
    "data after the end": PNG + b"more data",
    "wrong checksum of a text": HEADER + chunk(b"tEXt", b"a\0b", 1) + PNG[len(HEADER) :],
    "wrong checksum of gamma": HEADER + chunk(b"gAMA", struct.pack(">I", 45_455), 1) + PNG[len(HEADER) :],
    "text behind the pixels": HEADER + chunk(b"IDAT", PIXELS) + chunk(b"tEXt", b"a\0b", 1) + END,
    "half a text behind the pixels": HEADER + chunk(b"IDAT", PIXELS) + chunk(b"tEXt", b"a\0" + b"b" * 99)[:50],
    "more rows than declared": HEADER + chunk(b"IDAT", zlib.compress(ROWS + bytes(5_000))) + END,
    "data behind the compressed pixels": HEADER + chunk(b"IDAT", PIXELS + b"more data") + END,
    "a palette that is only suggested": HEADER + chunk(b"PLTE", b"abc") + PNG[len(HEADER) :],
}
BAD_PNGS = {
    "half of the pixels": HEADER + chunk(b"IDAT", zlib.compress(ROWS[: len(ROWS) // 2])) + END,
    "cut in the pixels": PNG[:-200],
    "wrong checksum of the header": HEADER[:-4] + b"abcd" + PNG[len(HEADER) :],
    "wrong checksum of the pixels": HEADER + chunk(b"IDAT", PIXELS, 7) + END,
    "an unknown critical chunk": HEADER + chunk(b"ABCD", b"x") + PNG[len(HEADER) :],
}


@pytest.mark.parametrize("name", GOOD_PNGS)
async def test_png_that_browsers_show_is_accepted(pool: RenderPool, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, GOOD_PNGS[name])
    assert (await probed(pool, path)).info.format == "png"
    assert images.decode((await rendered(pool, path, "full", "png")).body).tobytes() == SCENE.tobytes()


@pytest.mark.parametrize("name", BAD_PNGS)
async def test_png_that_lacks_pixels_is_broken(pool: RenderPool, tmp_path: Path, name: str) -> None:
    with pytest.raises(BrokenImageError):
        await probed(pool, written(tmp_path, BAD_PNGS[name]))


@pytest.mark.parametrize(("mode", "color_type", "bits"), [("gray", 0, 8), ("gray", 0, 16), ("RGB", 2, 8), ("RGB", 2, 16)])
async def test_transparent_color_of_a_png_is_transparent(pool: RenderPool, tmp_path: Path, mode: str, color_type: int, bits: int) -> None:
    """PNG, third edition, §11.3.1.1: pixels of exactly this color, in all 16 bits."""
    bands = 3 if mode == "RGB" else 1
    levels = [0x1234, 0x1235, 0x80FF] if bits == 16 else [0x12, 0x13, 0x80]
    kind = ">H" if bits == 16 else ">B"
    rows = b"".join(b"\0" + b"".join(struct.pack(kind, level) * bands for level in levels) for _ in range(2))
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, bits, color_type, 0, 0, 0))
    body = header + chunk(b"tRNS", struct.pack(">H", levels[0]) * bands) + chunk(b"IDAT", zlib.compress(rows)) + END
    path = written(tmp_path, body)
    assert (await probed(pool, path)).info.alpha
    alpha = images.decode((await rendered(pool, path, "full", "png")).body).convert("RGBA").getchannel("A")
    assert [alpha.getpixel((column, 0)) for column in range(3)] == [0, 255, 255]


@pytest.mark.parametrize("name", ["whole", "no end chunk"])
def test_generated_png_is_what_pillow_reads(name: str) -> None:
    assert Image.open(io.BytesIO(GOOD_PNGS[name])).size == SCENE.size

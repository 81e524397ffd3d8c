"""Animated PNG: every kind of pixels, disposal, blending and delay, against Chromium; and files that break a rule."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import pyvips
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs
from PIL import Image

from service.errors import BrokenImageError, ServiceError, TooManyPixelsError
from service.rendering.pool import RenderPool
from service.worker.files import open_image
from service.worker.formats import apng
from tests.support import images
from tests.support.chromium import Painter
from tests.support.renders import LIMITS, check_words, probed, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 20, 16
SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = ["1", "L", "LA", "P", "P with tRNS", "RGB", "RGBA", "L16", "RGB16", "RGBA16", "RGB interlaced", "RGBA16 interlaced"]


class Part(NamedTuple):
    """A frame: a PNG, where it lies, its delay as a fraction of a second, and the numbers of its disposal and of its blending."""

    body: bytes
    left: int = 0
    top: int = 0
    numerator: int = 1
    denominator: int = 20
    disposal: int = 0
    blending: int = 0


def chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(SIGNATURE)
    while position < len(body):
        size = int.from_bytes(body[position : position + 4], "big")
        yield body[position + 4 : position + 8], body[position + 8 : position + 8 + size]
        position += 12 + size


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def animated_png(parts: Sequence[Part], *, plays: int = 0, default: bytes | None = None, declared: int | None = None) -> bytes:
    """Return an animation whose first frame, or otherwise `default`, is the default picture."""
    body = SIGNATURE + b"".join(chunk(kind, data) for kind, data in chunks(default or parts[0].body) if kind in {b"IHDR", b"PLTE", b"tRNS"})
    body += chunk(b"acTL", (len(parts) if declared is None else declared).to_bytes(4, "big") + plays.to_bytes(4, "big"))
    if default is not None:
        body += b"".join(chunk(kind, data) for kind, data in chunks(default) if kind == b"IDAT")
    sequence = 0
    for number, part in enumerate(parts):
        size = dict(chunks(part.body))[b"IHDR"][:8]
        place = part.left.to_bytes(4, "big") + part.top.to_bytes(4, "big")
        delay = part.numerator.to_bytes(2, "big") + part.denominator.to_bytes(2, "big")
        body += chunk(b"fcTL", sequence.to_bytes(4, "big") + size + place + delay + bytes([part.disposal, part.blending]))
        sequence += 1
        for kind, data in chunks(part.body):
            if kind == b"IDAT" and number == 0 and default is None:
                body += chunk(b"IDAT", data)
            elif kind == b"IDAT":
                body += chunk(b"fdAT", sequence.to_bytes(4, "big") + data)
                sequence += 1
    return body + chunk(b"IEND", b"")


def png(kind: str, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> bytes:
    """Return a still whose pixels are random; a palette and its transparency do not depend on `seed`."""
    mode, _, form = kind.partition(" ")
    random = np.random.default_rng(seed)
    if mode in {"L16", "RGB16", "RGBA16"} or form == "interlaced":
        bands, deep = {"L": 1, "RGB": 3, "RGBA": 4}[mode.removesuffix("16")], mode.endswith("16")
        pixels = random.integers(0, 65_536 if deep else 256, (height, width, bands))
        image = pyvips.Image.new_from_array(pixels.astype(np.uint16 if deep else np.uint8))
        image = image.copy(interpretation={1: "grey16", 3: "rgb16", 4: "rgb16"}[bands] if deep else "srgb")
        return bytes(image.pngsave_buffer(interlace=form == "interlaced"))
    pixels = random.integers(0, 256, (height, width, max(1, len(mode))), np.uint8)
    if mode == "P":
        image = Image.fromarray(pixels[..., 0] % 16, "P")
        image.putpalette(np.random.default_rng(9).integers(0, 256, 48, np.uint8).tobytes())
        return encoded(image, **({"transparency": bytes([0, 128] + [255] * 14)} if form else {}))
    if mode == "1":
        return encoded(Image.fromarray(pixels[..., 0]).convert("1"))
    return encoded(Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode))


def encoded(image: Image.Image, **options: object) -> bytes:
    body = io.BytesIO()
    image.save(body, "PNG", **options)
    return body.getvalue()


def frames_of(body: bytes) -> list[np.ndarray]:
    """Return the frames as the service decodes them, RGBA of 8 bits, with white behind them."""
    view = memoryview(body)
    found = apng.survey(view, 100)
    frames = []
    for frame in apng.decode(view, open_image(view), alpha=found.alpha):
        assert frame.hasalpha() == found.alpha
        deep = frame.format == "ushort"
        rgb = (frame >> 8).cast("uchar") if deep else frame
        rgb = rgb.copy(interpretation="srgb" if rgb.bands > 2 else "b-w").colourspace("srgb")
        frames.append(on_white((rgb if rgb.hasalpha() else rgb.addalpha()).numpy()))
    return frames


def on_white(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[..., 3:].astype(float) / 255
    return np.concatenate([pixels[..., :3] * alpha + 255 * (1 - alpha), pixels[..., 3:]], axis=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_every_kind_of_pixels_are_those_of_chromium(painter: Painter, kind: str) -> None:
    parts = [
        Part(png(kind)),
        Part(png(kind, 7, 5, 1), 3, 4, blending=1),
        Part(png(kind, 6, 9, 2), 14, 7),
        Part(png(kind, seed=3), blending=1),
    ]
    body = animated_png(parts, plays=3)
    played = painter.play(body, "png")
    frames = frames_of(body)
    assert len(frames) == len(played.frames) == 4
    for frame, shown in zip(frames, played.frames, strict=True):
        # Chromium blends premultiplied colors of 8 bits.
        assert np.abs(frame - on_white(np.asarray(shown))).max() <= 4
    assert apng.survey(memoryview(body), 9).timing.loops == played.plays == 3


part_strategy = st.tuples(
    st.booleans(), st.integers(0, 12), st.integers(0, 9), st.integers(1, 8), st.integers(1, 7), st.integers(0, 2), st.integers(0, 1)
)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P with tRNS"])
def test_any_disposal_and_blending_gives_the_frames_of_chromium(painter: Painter, kind: str) -> None:
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(part_strategy, min_size=1, max_size=5), st.booleans())
    # An area that was cleared is painted by a frame that goes again: it is transparent afterwards.
    @example([(True, 0, 0, 1, 1, 1, 0), (True, 0, 0, 1, 1, 2, 0), (False, 3, 3, 4, 4, 0, 0)], False)
    @example([(True, 0, 0, 1, 1, 0, 0), (False, 3, 3, 4, 4, 1, 0), (False, 3, 3, 4, 4, 2, 0), (False, 9, 9, 2, 2, 0, 0)], False)
    def check(drawn: list[tuple[bool, int, int, int, int, int, int]], separate: bool) -> None:
        parts = [Part(png(kind), disposal=drawn[0][5], blending=drawn[0][6])]
        for seed, (whole, left, top, width, height, disposal, blending) in enumerate(drawn[1:], 1):
            place = (0, 0, WIDTH, HEIGHT) if whole else (left, top, width, height)
            parts.append(Part(png(kind, place[2], place[3], seed), place[0], place[1], disposal=disposal, blending=blending))
        if separate:
            # The first frame of the animation may be smaller than the default picture.
            parts[0] = Part(png(kind, 9, 8), 2, 3, disposal=drawn[0][5], blending=drawn[0][6])
        body = animated_png(parts, default=png(kind, seed=77) if separate else None)
        if len(parts) < 2:
            return
        for frame, shown in zip(frames_of(body), painter.play(body, "png").frames, strict=True):
            assert np.abs(frame - on_white(np.asarray(shown))).max() <= 4

    check()


async def test_animation_becomes_webp_and_gif_with_its_delays_and_loops(pool: RenderPool, tmp_path: Path) -> None:
    pictures = images.film()
    delays = [(1, 25), (1, 30), (1, 30), (3, 0), (0, 100)]
    parts = [Part(encoded(picture), numerator=one, denominator=other) for picture, (one, other) in zip(pictures, delays, strict=True)]
    path = written(tmp_path, animated_png(parts, plays=4))
    info = (await probed(pool, path)).info
    assert (info.format, info.frames, info.animated, info.alpha) == ("png", 5, True, False)
    # libwebp's writer in libvips states the 100 ms that browsers show for a frame of 10 ms or less.
    for target, expected in (("webp", [40, 33, 34, 30, 100]), ("gif", [40, 30, 40, 30, 0])):
        body = (await rendered(pool, path, "full", target)).body  # type: ignore[arg-type]
        image = images.decode(body)
        found = []
        for number, picture in enumerate(pictures):
            image.seek(number)
            image.load()
            found.append(int(image.info["duration"]))
            assert images.distance(image.convert("RGB"), picture) < 3
        assert found == expected
        assert image.info["loop"] == (4 if target == "webp" else 3)
    still = images.decode((await rendered(pool, path, "frame=3", "png")).body)
    assert images.distance(still, pictures[3]) == 0


PARTS = [Part(png("RGB")), Part(png("RGB", 7, 5, 1), 3, 4), Part(png("RGB", 6, 9, 2), 14, 7)]


@pytest.mark.parametrize(("plays", "expected"), [(0, 0), (1, 1), (2, 2), (65_535, 65_535), (65_536, 0), (2**31 - 1, 0)])
async def test_loops_are_kept_as_far_as_webp_and_gif_count(
    pool: RenderPool, painter: Painter, tmp_path: Path, plays: int, expected: int
) -> None:
    path = written(tmp_path, animated_png(PARTS, plays=plays))
    for target in ("webp", "gif"):
        body = (await rendered(pool, path, "full", target)).body
        assert painter.play(body, target).plays == expected


@pytest.mark.parametrize(("declared", "frames"), [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3)])
async def test_animation_has_no_more_frames_than_it_declares(
    pool: RenderPool, painter: Painter, tmp_path: Path, declared: int, frames: int
) -> None:
    body = animated_png(PARTS, declared=declared)
    info = (await probed(pool, written(tmp_path, body))).info
    assert info.frames == len(painter.play(body, "png").frames) == frames


def without(body: bytes, kind: bytes, number: int) -> bytes:
    """Return a file without one of its chunks."""
    found = [index for index, (name, _) in enumerate(chunks(body)) if name == kind][number]
    return SIGNATURE + b"".join(chunk(name, data) for index, (name, data) in enumerate(chunks(body)) if index != found)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (animated_png([*PARTS, Part(png("RGB", 7, 5), 14, 4)]), "outside"),
        (animated_png([*PARTS, Part(png("RGB", 7, 5), 2**31, 4)]), "outside"),
        (without(animated_png(PARTS), b"fdAT", 0), "missing"),
        (without(animated_png(PARTS), b"fcTL", 1), "missing"),
        (animated_png(PARTS)[:-40], "ends early"),
    ],
)
async def test_broken_animation_is_refused_with_its_reason(pool: RenderPool, tmp_path: Path, body: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError) as caught:
        await probed(pool, written(tmp_path, body))
    assert reason in str(caught.value.detail)
    check_words(caught.value)


async def test_damaged_frame_is_refused(pool: RenderPool, tmp_path: Path) -> None:
    body = animated_png([*PARTS, Part(SIGNATURE + chunk(b"IHDR", dict(chunks(PARTS[0].body))[b"IHDR"]) + chunk(b"IDAT", b"not deflate"))])
    with pytest.raises(ServiceError) as caught:
        await probed(pool, written(tmp_path, body))
    assert caught.value.status_code == 422
    check_words(caught.value)


async def test_too_many_frames_or_pixels_are_refused_before_they_are_decoded(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, animated_png([Part(png("RGB"))] * 9))
    with pytest.raises(TooManyPixelsError):
        await probed(pool, path, limits=structs.replace(LIMITS, max_frames=8))
    with pytest.raises(TooManyPixelsError):
        await probed(pool, path, limits=structs.replace(LIMITS, max_pixels=WIDTH * HEIGHT * 2))
    assert (await probed(pool, path, limits=structs.replace(LIMITS, max_pixels=WIDTH * HEIGHT * 3, max_frames=9))).info.frames == 9

"""Animated AVIF: every kind of stream, delays, loops and alpha, against Chromium; and files that break a rule."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import pyvips
from msgspec import structs
from PIL import Image

from service.errors import BrokenImageError, ServiceError, TooManyPixelsError
from service.images.options import MAX_SIDE_PIXELS
from service.rendering.pool import RenderPool
from service.worker.formats import avif_sequence, isobmff
from tests.support import images
from tests.support.chromium import Painter, visible_distance
from tests.support.renders import LIMITS, check_words, probed, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 64, 48
INDEFINITE = 0xFFFF_FFFF
UNITY = b"".join(number.to_bytes(4, "big") for number in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """Return a box with a version of 0."""
    return box(kind, flags.to_bytes(4, "big"), *parts)


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def stream_of(still: bytes) -> tuple[bytes, bytes]:
    """Return the AV1 stream of a still AVIF, and its boxes `av1C` and `colr`."""
    meta = isobmff.first(still, b"meta")[4:]
    (extent,) = [extent for item, extent in isobmff.extents(still) if item == isobmff.primary_id(meta)]
    properties = isobmff.boxes(isobmff.first(isobmff.first(meta, b"iprp"), b"ipco"))
    kept = [box(kind, bytes(inside)) for kind, inside in properties if kind in {b"av1C", b"colr"}]
    return still[extent.start : extent.start + extent.length], b"".join(kept)


def track(stills: Sequence[bytes], delays: Sequence[int], offset: int, plays: int | None, *, alpha: bool = False) -> tuple[bytes, bytes]:
    """Return a track, and its samples, which begin at `offset`. delays: in 1/1000 s. plays: 0 for endlessly, `None` to state nothing."""
    samples = [stream_of(still)[0] for still in stills]
    number, total = 1 + alpha, sum(delays)
    duration = total if plays is None else total * plays or INDEFINITE
    size = (WIDTH << 16).to_bytes(4, "big") + (HEIGHT << 16).to_bytes(4, "big")
    header = full(b"tkhd", numbers(0, 0, number, 0, duration, 0, 0, 0, 0), UNITY, size, flags=1)
    edits = b"" if plays is None else box(b"edts", full(b"elst", numbers(1, total, 0, 1 << 16), flags=plays != 1))
    references = box(b"tref", box(b"auxl", numbers(1))) if alpha else b""
    auxiliary = full(b"auxi", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0") if alpha else b""
    size_of_sample = WIDTH.to_bytes(2, "big") + HEIGHT.to_bytes(2, "big")
    entry = bytes(6) + b"\0\1" + bytes(16) + size_of_sample + numbers(72 << 16, 72 << 16, 0) + b"\0\1" + bytes(32) + b"\0\x18\xff\xff"
    table = box(
        b"stbl",
        full(b"stsd", numbers(1), box(b"av01", entry, stream_of(stills[0])[1], auxiliary)),
        full(b"stts", numbers(len(delays)), *(numbers(1, delay) for delay in delays)),
        full(b"stsc", numbers(1, 1, len(samples), 1)),
        full(b"stsz", numbers(0, len(samples), *map(len, samples))),
        full(b"stco", numbers(1, offset)),
        full(b"stss", numbers(len(samples), *range(1, len(samples) + 1))),
    )
    handler = full(b"hdlr", numbers(0), b"auxv" if alpha else b"pict", bytes(12), b"\0")
    references_to_file = box(b"dinf", full(b"dref", numbers(1), full(b"url ", flags=1)))
    media = box(
        b"mdia",
        full(b"mdhd", numbers(0, 0, 1000, total, 0)),
        handler,
        box(b"minf", full(b"vmhd", bytes(8), flags=1), references_to_file, table),
    )
    return box(b"trak", header, edits, references, media), b"".join(samples)


def sequence(stills: Sequence[bytes], delays: Sequence[int], *, plays: int | None = 0, alphas: Sequence[bytes] = ()) -> bytes:
    """Return an image sequence of still AVIF files, each of which becomes one sample that depends on no other."""
    start = box(b"ftyp", b"avis", numbers(0), b"avismsf1iso8")

    def movie(first: int, second: int) -> tuple[bytes, bytes]:
        shown, samples = track(stills, delays, first, plays)
        beside, more = track(alphas, delays, second, plays, alpha=True) if alphas else (b"", b"")
        header = full(b"mvhd", numbers(0, 0, 1000, sum(delays), 1 << 16, 1 << 24, 0, 0), UNITY, bytes(24), numbers(3))
        return box(b"moov", header, shown, beside), samples + more

    length = len(start) + len(movie(0, 0)[0]) + 8
    body, data = movie(length, length + sum(len(stream_of(still)[0]) for still in stills))
    return start + body + box(b"mdat", data)


def still(picture: Image.Image, **options: object) -> bytes:
    pixels = np.asarray(picture)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb" if pixels.ndim == 3 else "b-w")
    if options.get("bitdepth", 8) != 8:
        image = (image.cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16" if pixels.ndim == 3 else "grey16")
    return bytes(image.heifsave_buffer(compression="av1", effort=0, **{"Q": 90, **options}))


def of_pillow(pictures: Sequence[Image.Image], delays: Sequence[int], value_range: str = "full") -> bytes:
    """Return a sequence that has a primary picture too, and whose frames depend on one another."""
    body = io.BytesIO()
    options = {"quality": 90, "subsampling": "4:4:4", "range": value_range}
    pictures[0].save(body, "AVIF", save_all=True, append_images=pictures[1:], duration=list(delays), **options)
    return body.getvalue()


def film() -> list[Image.Image]:
    return [images.picture(WIDTH, HEIGHT, seed=seed) for seed in range(4)]


DELAYS = [40, 120, 5, 500]
# In steps of 8-bit sRGB: Chromium converts to RGB, and scales chroma up, in its own way.
TOLERANCE = 2.5
KINDS: dict[str, dict[str, object]] = {
    "8 bits": {"subsample_mode": "on"},
    "4:4:4": {"subsample_mode": "off"},
    "10 bits": {"bitdepth": 10},
    "12 bits": {"bitdepth": 12},
    "lossless": {"lossless": True},
}


def taken_for_limited(frame: Image.Image) -> Image.Image:
    """Return a frame as Chromium 156 shows one of a sequence in the full range: it takes it for one in the limited range, 16 to 235.

    It shows a still with the same stream and the same boxes correctly, and so does libavif with the sequence.
    """
    colors = frame.convert("RGB").point([min(255, max(0, round((level - 16) * 255 / 219))) for level in range(256)] * 3)
    colors.putalpha(frame.getchannel("A"))
    return colors


async def check_frames(pool: RenderPool, painter: Painter, tmp_path: Path, body: bytes, *, full_range: bool = True) -> None:
    """Compare the frames of a file as Chromium shows them with those of its lossless WebP."""
    original = painter.play(body, "avif")
    made = painter.play((await rendered(pool, written(tmp_path, body), "lossless=true", "webp")).body, "webp")
    assert len(original.frames) == len(made.frames)
    for shown, frame in zip(original.frames, made.frames, strict=True):
        assert visible_distance(shown, taken_for_limited(frame) if full_range else frame) < TOLERANCE
    # WebP counts up to 65,535. Chromium takes a duration of 32 bits that is indefinite for one of many years.
    assert made.plays == (original.plays if original.plays < 65_536 else 0)
    # libvips writes the 100 ms that browsers show for a frame of 10 ms or less.
    assert [delay if delay > 10 else 100 for delay in original.delays] == made.delays


@pytest.mark.parametrize("kind", [*KINDS, "gray"])
async def test_frames_of_every_kind_of_stream_are_those_of_chromium(pool: RenderPool, painter: Painter, tmp_path: Path, kind: str) -> None:
    pictures = [picture.convert("L") for picture in film()] if kind == "gray" else film()
    body = sequence([still(picture, **KINDS.get(kind, {})) for picture in pictures], DELAYS)
    path = written(tmp_path, body)
    info = (await probed(pool, path)).info
    assert (info.format, info.width, info.height, info.frames, info.animated, info.alpha) == ("avif", WIDTH, HEIGHT, 4, True, False)
    await check_frames(pool, painter, tmp_path, body)
    for target in ("webp", "gif"):
        image = images.decode((await rendered(pool, path, "full", target)).body)
        assert image.n_frames == 4  # type: ignore[attr-defined]
    # The other frames are more than 25 away.
    assert images.distance(images.decode((await rendered(pool, path, "frame=2", "png")).body), pictures[2]) < 10


@pytest.mark.parametrize("plays", [None, 0, 1, 2, 7])
async def test_loops_are_those_of_the_edit_list(pool: RenderPool, painter: Painter, tmp_path: Path, plays: int | None) -> None:
    body = sequence([still(picture) for picture in film()], DELAYS, plays=plays)
    assert avif_sequence.survey(memoryview(body), 9).timing.loops == (plays or 0)
    await check_frames(pool, painter, tmp_path, body)


async def test_alpha_track_makes_frames_transparent(pool: RenderPool, painter: Painter, tmp_path: Path) -> None:
    masks = [Image.fromarray(np.full((HEIGHT, WIDTH), level, np.uint8)) for level in (0, 90, 180, 255)]
    body = sequence([still(picture) for picture in film()], DELAYS, alphas=[still(mask) for mask in masks])
    assert (await probed(pool, written(tmp_path, body))).info.alpha
    await check_frames(pool, painter, tmp_path, body)


@pytest.mark.parametrize("value_range", ["full", "limited"])
async def test_sequence_of_frames_that_depend_on_one_another_is_that_of_chromium(
    pool: RenderPool, painter: Painter, tmp_path: Path, value_range: str
) -> None:
    body = of_pillow(images.film(WIDTH, HEIGHT), [40, 120, 200, 80, 500], value_range)
    await check_frames(pool, painter, tmp_path, body, full_range=value_range == "full")


async def test_sequence_whose_major_brand_is_avif_is_its_primary_picture(pool: RenderPool, painter: Painter, tmp_path: Path) -> None:
    still_first = of_pillow(film(), [40] * 4).replace(b"ftypavis", b"ftypavif", 1)
    path = written(tmp_path, still_first)
    info = (await probed(pool, path)).info
    assert (info.frames, info.animated) == (1, False)
    shown = painter.draw(still_first, "avif")
    assert shown is not None
    assert visible_distance(shown, images.decode((await rendered(pool, path, "full", "png")).body)) < TOLERANCE


async def test_too_many_frames_or_pixels_are_refused_before_they_are_decoded(pool: RenderPool, tmp_path: Path) -> None:
    body = sequence([still(picture) for picture in film()], DELAYS)
    path = written(tmp_path, body)
    with pytest.raises(TooManyPixelsError):
        await probed(pool, path, limits=structs.replace(LIMITS, max_frames=3))
    with pytest.raises(TooManyPixelsError):
        await probed(pool, path, limits=structs.replace(LIMITS, max_pixels=WIDTH * HEIGHT * 3 // 4))
    huge = body.replace(WIDTH.to_bytes(2, "big") + HEIGHT.to_bytes(2, "big"), b"\xff\xff" * 2)
    with pytest.raises(TooManyPixelsError):
        await probed(pool, written(tmp_path, huge))
    many = body.replace(b"stsz" + numbers(0, 0, 4), b"stsz" + numbers(0, 0, 1 << 31)).replace(numbers(1, 500), numbers(1 << 31, 1))
    with pytest.raises(TooManyPixelsError):
        await probed(pool, written(tmp_path, many))
    assert MAX_SIDE_PIXELS < 0xFFFF


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"trak", b"free", "track"),
        (b"stsz", b"free", "pictures"),
        (numbers(1000, sum(DELAYS), 0) + b"\0\0\0", numbers(0, sum(DELAYS), 0) + b"\0\0\0", "time scale"),
        (b"stco", b"free", ""),
    ],
)
async def test_broken_sequence_is_refused_with_its_reason(pool: RenderPool, tmp_path: Path, old: bytes, new: bytes, reason: str) -> None:
    body = sequence([still(picture) for picture in film()], DELAYS)
    assert old in body
    path = written(tmp_path, body.replace(old, new))
    with pytest.raises(BrokenImageError) as caught:
        await probed(pool, path)
    assert reason in repr(caught.value.detail)
    check_words(caught.value)


@pytest.mark.parametrize("box", [b"stts", b"edts", b"stss", b"pitm", b"mvhd", b"ccst", b"colr"])
async def test_sequence_without_a_box_that_browsers_do_not_need_is_played(
    pool: RenderPool, painter: Painter, tmp_path: Path, box: bytes
) -> None:
    whole = of_pillow(film(), [40] * 4)
    body = whole.replace(box, b"free")
    assert body != whole
    made = images.decode((await rendered(pool, written(tmp_path, body), "full", "webp")).body)
    assert made.n_frames == len(painter.play(body, "avif").frames) == 4  # type: ignore[attr-defined]
    made.load()
    assert made.info["duration"] == (100 if box == b"stts" else 40)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
async def test_sequence_that_ends_early_is_refused(pool: RenderPool, tmp_path: Path, share: float) -> None:
    body = sequence([still(picture) for picture in film()], DELAYS)
    with pytest.raises(ServiceError) as caught:
        await probed(pool, written(tmp_path, body[: int(len(body) * share)]))
    assert caught.value.status_code == 422
    check_words(caught.value)

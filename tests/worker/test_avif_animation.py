"""Animated AVIF out: Chromium plays the frames, delays, loops and transparency of the original; bytes, bounds and metadata."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.errors import TooCostlyError
from service.rendering.pool import RenderPool
from service.worker.formats import isobmff
from tests.support import images
from tests.support.chromium import Painter, visible_distance
from tests.support.renders import MEBIBYTE, render_pool, rendered, written

pytestmark = pytest.mark.anyio

DELAYS = [40, 120, 11, 80, 500]

# In levels of 8 bits: flat colors of high saturation, whose edges the encoder blurs.
TOLERANCE = 3.0


def film(mode: str) -> list[Image.Image]:
    """Return frames, of which a part is half transparent if they have alpha."""
    pictures = [picture.convert(mode) for picture in images.film()]
    if "A" in mode:
        mask = np.full((90, 120), 255, np.uint8)
        mask[:30], mask[60:] = 0, 128
        for picture in pictures:
            picture.putalpha(Image.fromarray(mask))
    return pictures


def webp(mode: str, *, delays: list[int] | None = None, loops: int = 0, **options: object) -> bytes:
    """Return an animation without loss in frames of `film`."""
    pictures, out = film(mode), io.BytesIO()
    pictures[0].save(
        out,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=delays or DELAYS,
        loop=loops,
        lossless=True,
        exact=True,
        **options,
    )
    return out.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
async def test_chromium_plays_the_frames_of_the_original(pool: RenderPool, painter: Painter, tmp_path: Path, mode: str) -> None:
    made = await rendered(pool, written(tmp_path, webp(mode)), "grayscale=true" if "L" in mode else "full", "avif")
    played = painter.play(made.body, "avif")
    assert played.delays == DELAYS
    assert [frame.size for frame in played.frames] == [(120, 90)] * 5
    for frame, picture in zip(played.frames, film(mode), strict=True):
        assert visible_distance(frame, picture.convert("RGBA")) < TOLERANCE
        alpha, ideal = (np.asarray(shown.convert("RGBA").getchannel("A")).astype(int) for shown in (frame, picture))
        assert np.abs(alpha - ideal).max() <= 16
        assert np.abs(alpha - ideal).mean() < 1


@pytest.mark.parametrize("loops", [0, 1, 2, 7, 65_535])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
async def test_chromium_plays_an_animation_as_often_as_the_original(
    pool: RenderPool, painter: Painter, tmp_path: Path, mode: str, loops: int
) -> None:
    made = await rendered(pool, written(tmp_path, webp(mode, loops=loops)), "width=40", "avif")
    assert painter.play(made.body, "avif").plays == loops


async def test_frame_without_a_delay_is_shown_for_a_moment(pool: RenderPool, painter: Painter, tmp_path: Path) -> None:
    made = await rendered(pool, written(tmp_path, images.animation(images.film(), "GIF", delays=[0, 10, 20, 0, 40])), "width=40", "avif")
    # Browsers show a frame of 10 ms or less for 100 ms.
    assert [delay if delay > 10 else 100 for delay in painter.play(made.body, "avif").delays] == [100, 100, 20, 100, 40]


async def test_file_does_not_say_when_it_was_made(pool: RenderPool, tmp_path: Path) -> None:
    body = (await rendered(pool, written(tmp_path, webp("RGBA")), "width=40", "avif")).body
    movie = isobmff.first(body, b"moov")
    tracks = [inside for kind, inside in isobmff.boxes(movie) if kind == b"trak"]
    headers = [isobmff.first(movie, b"mvhd"), *(isobmff.first(track, b"tkhd") for track in tracks)]
    headers += [isobmff.first(isobmff.first(track, b"mdia"), b"mdhd") for track in tracks]
    assert len(headers) == 5
    assert {bytes(header[4:20]) for header in headers} == {bytes(16)}


async def test_effort_and_quality_make_the_file_smaller(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, webp("RGB"))
    default, thorough, low = [(await rendered(pool, path, spelling, "avif")).body for spelling in ("full", "effort=6", "quality=20")]
    assert len(thorough) != len(default)
    assert len(low) < len(default)
    assert (await rendered(pool, path, "quality=auto", "avif")).body == default
    limited = await rendered(pool, path, f"max_bytes={len(default) - 300}", "avif")
    assert len(limited.body) <= len(default) - 300
    assert images.decode(limited.body).n_frames == 5  # type: ignore[attr-defined]


async def test_profile_and_metadata_are_kept_on_request(pool: RenderPool, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x8298] = "by somebody"
    path = written(tmp_path, webp("RGB", icc_profile=profile, exif=exif))
    kept = images.decode((await rendered(pool, path, "profile=keep,metadata=copyright", "avif")).body)
    assert kept.n_frames == 5  # type: ignore[attr-defined]
    assert kept.info["icc_profile"] == profile
    assert kept.getexif()[0x8298] == "by somebody"
    plain = images.decode((await rendered(pool, path, "full", "avif")).body)
    assert not plain.info.get("icc_profile")
    assert not plain.getexif()


async def test_lossless_avif_of_an_animation_is_its_first_frame(pool: RenderPool, tmp_path: Path) -> None:
    picture = images.decode((await rendered(pool, written(tmp_path, webp("RGB")), "lossless=true", "avif")).body)
    assert getattr(picture, "n_frames", 1) == 1
    assert images.distance(picture, film("RGB")[0]) == 0


@pytest.mark.parametrize(("version", "frames"), [(1, 1), (2, 1), (3, 5)])
async def test_avif_is_animated_from_the_third_pipeline_version_on(pool: RenderPool, tmp_path: Path, version: int, frames: int) -> None:
    picture = images.decode((await rendered(pool, written(tmp_path, webp("RGB")), "width=40", "avif", version=version)).body)
    assert getattr(picture, "n_frames", 1) == frames


async def test_animation_whose_frames_are_too_large_for_the_encoder_is_too_costly_and_not_broken(tmp_path: Path) -> None:
    body = images.animated_gif(2_600, 2_000, frames=2)
    async with render_pool(memory_bytes=384 * MEBIBYTE) as pool:
        with pytest.raises(TooCostlyError):
            await rendered(pool, written(tmp_path, body), "full", "avif")

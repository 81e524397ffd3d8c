"""HDR and wide colors in files that state their color space without an ICC profile: PQ is tone-mapped, Display P3 is converted."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import pyvips
from PIL import Image

from service.images.transform import parse
from service.rendering.pool import RenderPool
from tests.support import images, reference
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

Levels = npt.NDArray[np.float64]

PQ, SRGB_CURVE = 16, 13
REC_2020, DISPLAY_P3 = 9, 12

# Levels of 8-bit sRGB: in dark regions 10 bits of PQ are coarser than 8 bits of sRGB.
TOLERANCE = 1.5

needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")


def pq(nits: Levels) -> Levels:
    """Return the PQ levels, 0 to 1, of luminances (SMPTE ST 2084)."""
    share = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * share) / (1 + 18.6875 * share)) ** 78.84375


def nits_of(level: Levels) -> Levels:
    root = level ** (1 / 78.84375)
    return 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def tone_mapped(nits: Levels) -> Levels:
    """Return luminances of a picture in Rec. 2020, graded for 1,000 nits, as sRGB, 0 to 255, by the curve of SMPTE ST 2094-50, annex C.

    Light up to white is halved; above it, light follows a quadratic Bézier curve to the peak.
    """
    light, peak, white = nits / 203, 1_000 / 203, 0.5
    t = np.linspace(0, 1, 10_001)
    middle = 0.35 + 0.65 / white, 0.35 * white + 0.65
    x, y = (
        (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end for start, bend, end in zip((1, white), middle, (peak, 1), strict=True)
    )
    strongest = light.max(axis=-1, keepdims=True)
    light = light * np.where(strongest <= 1, white, np.interp(strongest, x, y) / strongest)
    light = light @ np.linalg.inv(np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])).T
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255


@functools.cache
def scene() -> Levels:
    """Return luminances in nits, 96 × 128 × 3: rows of gray from 0 to 1,000, and of colors inside sRGB."""
    nits = np.geomspace(0.5, 1_000, 128)[None, :, None] * np.ones((96, 1, 3))
    for row, color in enumerate(((1, 0.7, 0.6), (0.6, 1, 0.8), (0.5, 0.6, 1))):
        nits[24 * (row + 1) : 24 * (row + 2)] *= color
    return nits


def image_of_16_bits(nits: Levels, *, alpha: bool = False) -> pyvips.Image:
    samples = np.round(pq(nits) * 65_535).astype(np.uint16)
    if alpha:
        samples = np.dstack([samples, np.full(samples.shape[:2], 65_535, np.uint16)])
    height, width, bands = samples.shape
    return pyvips.Image.new_from_memory(samples.tobytes(), width, height, bands, "ushort").copy(interpretation="rgb16")


def with_nclx(body: bytes, primaries: int, transfer: int) -> bytes:
    """Return an AVIF with other code points in its `nclx` box than its encoder wrote."""
    at = body.index(b"colrnclx") + 8
    return body[:at] + primaries.to_bytes(2, "big") + transfer.to_bytes(2, "big") + body[at + 4 :]


def pq_avif(nits: Levels, *, alpha: bool = False) -> bytes:
    return with_nclx(
        bytes(image_of_16_bits(nits, alpha=alpha).heifsave_buffer(compression="av1", bitdepth=10, lossless=True)), REC_2020, PQ
    )


def pq_heic(nits: Levels) -> bytes:
    samples = np.round(pq(nits) * 1_023).astype(np.uint16) << 6
    picture = pillow_heif.from_bytes("RGB;16", (nits.shape[1], nits.shape[0]), samples.tobytes())
    picture[0].info["bit_depth"] = 10
    body = io.BytesIO()
    picture.save(body, quality=-1, chroma=444, color_primaries=REC_2020, transfer_characteristics=PQ, matrix_coefficients=0)
    return body.getvalue()


async def pixels(pool: RenderPool, path: Path, spelling: str = "full") -> Levels:
    return np.asarray(images.decode((await rendered(pool, path, spelling, "png")).body)).astype(float)


@pytest.mark.parametrize("make", [pq_avif, pq_heic, functools.partial(pq_avif, alpha=True)], ids=["avif", "heic", "avif, alpha"])
async def test_pq_is_tone_mapped_to_sdr(pool: RenderPool, tmp_path: Path, make: Callable[[Levels], bytes]) -> None:
    found = await pixels(pool, written(tmp_path, make(scene())))
    away = np.abs(found[..., :3] - tone_mapped(scene()))
    assert away.mean() < TOLERANCE
    assert away.max() < 8
    # White is halved, which is 188 in sRGB.
    white = np.abs(scene()[0, :, 0] - 203).argmin()
    assert found[5, white, 0] == pytest.approx(188, abs=4)


async def test_pq_is_rotated_cropped_and_scaled_like_any_other_picture(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, pq_avif(scene()))
    whole = Image.fromarray((await pixels(pool, path)).astype(np.uint8))
    for spelling in ("width=64", "crop=30:10:60:50", "rotate=90", "width=40,height=40,fit=cover,gravity=east", "width=200,enlarge=true"):
        part = Image.fromarray((await pixels(pool, path, spelling)).astype(np.uint8))
        ideal = reference.reference(whole, parse(spelling))
        assert part.size == ideal.size
        assert images.distance(part, reference.flatten_on_white(ideal)) < 2.5, spelling
    image = images.decode((await rendered(pool, path, "profile=p3", "png")).body)
    assert images.distance(reference.to_srgb(image, image.info["icc_profile"]), whole) < TOLERANCE


async def test_avif_with_nclx_display_p3_looks_as_with_the_icc_profile(pool: RenderPool, tmp_path: Path) -> None:
    body = io.BytesIO()
    images.picture(120, 90).save(body, "AVIF", quality=95, subsampling="4:4:4")
    path = written(tmp_path, with_nclx(body.getvalue(), DISPLAY_P3, SRGB_CURVE))
    plain = images.decode(body.getvalue()).convert("RGB")
    ideal = reference.to_srgb(plain, images.p3_profile())
    assert images.distance(ideal, plain) > 3
    image = images.decode((await rendered(pool, path, "full", "png")).body)
    assert images.distance(image, ideal) < TOLERANCE
    kept = images.decode((await rendered(pool, path, "profile=keep", "png")).body)
    assert images.distance(kept, plain) < TOLERANCE
    assert kept.info["icc_profile"]


@needs_corpus
async def test_corpus_pq_is_not_pale(pool: RenderPool) -> None:
    (path,) = [path for path in images.corpus_files("avif") if "_pq_" in path.name]
    assert (await probed(pool, path)).info.format == "avif"
    image = Image.fromarray((await pixels(pool, path, "width=300")).astype(np.uint8))
    raw = pyvips.Image.new_from_file(str(path)).resize(300 / 2_048).numpy().astype(float) / 65_535
    ideal = tone_mapped(nits_of(raw))
    assert np.abs(np.asarray(image).astype(float) - ideal).mean() < 3

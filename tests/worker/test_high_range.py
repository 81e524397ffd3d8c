"""`dynamic_range=high` of PQ and HLG originals, and of gain maps in formats that hold PQ: the light stays what it was."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import pyvips
from PIL import Image
from PIL.Image import Resampling

from service.images.formats import Format
from service.images.options import DYNAMIC_RANGES
from service.rendering.pool import RenderPool
from service.worker import save
from service.worker.color_space import PRIMARIES, ColorSpace, Primaries, matrix_between
from service.worker.formats import hdr, jxl, jxl_encoder, jxl_library
from tests.support import images
from tests.support.chromium import Painter, visible_distance
from tests.support.gain_maps import STOPS, Floats, gain_map_jpeg, iso, levels, stops_field
from tests.support.jpeg_xl import named_colors
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

PQ, HLG, REC_2020, P3 = 16, 18, 9, 12
WIDTH, HEIGHT = 256, 160

# Mean differences in levels of 0 to 1: of AV1 at the default quality, and of PQ in which a stop is about 0.07.
TOLERANCE = 0.012


def pq(nits: Floats) -> Floats:
    """Return the PQ levels of luminances (SMPTE ST 2084)."""
    share = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * share) / (1 + 18.6875 * share)) ** 78.84375


def nits_of(level: Floats) -> Floats:
    root = level ** (1 / 78.84375)
    return 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


@functools.cache
def scene() -> Floats:
    """Return levels of 0.05 to 0.75, height × width × 3: a picture with a light in the upper right, in PQ up to some 1,000 nits."""
    picture = np.asarray(images.picture(WIDTH, HEIGHT), dtype=np.float64) / 255
    return np.clip(0.05 + 0.45 * picture + 0.08 * stops_field(WIDTH, HEIGHT)[..., None], 0, 0.75)


def png(levels: Floats, primaries: int, transfer: int) -> bytes:
    """Return a PNG of 16 bits with a `cICP` chunk."""
    samples = np.round(levels * 65_535).astype(">u2")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    colors = chunk(b"cICP", bytes([primaries, transfer, 0, 1]))
    return b"\x89PNG\r\n\x1a\n" + header + colors + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def heic(levels: Floats, primaries: int, transfer: int) -> bytes:
    """Return a HEIC of 10 bits with an `nclx` box."""
    samples = np.round(levels * 65_535).astype(np.uint16)
    file = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), samples.tobytes())
    out = io.BytesIO()
    nclx = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 9, "full_range_flag": 1}
    file.save(out, quality=95, save_nclx_profile=True, **nclx)
    return out.getvalue()


def code_points(body: bytes) -> tuple[int, ...]:
    """Return primaries, transfer, matrix and range of an AVIF's `nclx` box, which must be the only one."""
    assert body.count(b"colrnclx") == 1
    start = body.index(b"colrnclx") + 8
    return struct.unpack(">HHHB", body[start : start + 7])


def decoded(body: bytes) -> Floats:
    """Return the levels of a file, 0 to 1."""
    image = pyvips.Image.new_from_buffer(body, "")
    assert image.get("bits-per-sample") == 10
    found: Floats = image.numpy().astype(np.float64) / 65_535
    return found


def scaled(levels: Floats, width: int, height: int) -> Floats:
    bands = [np.asarray(Image.fromarray(levels[..., band]).resize((width, height), Resampling.LANCZOS)) for band in range(3)]
    return np.stack(bands, axis=-1).clip(0, 1)


@pytest.mark.parametrize("container", [png, heic])
@pytest.mark.parametrize(("primaries", "transfer"), [(REC_2020, PQ), (P3, PQ), (REC_2020, HLG)])
async def test_pq_and_hlg_come_out_as_avif_of_10_bits_with_their_code_points(
    pool: RenderPool, tmp_path: Path, container: object, primaries: int, transfer: int
) -> None:
    path = written(tmp_path, container(scene(), primaries, transfer))  # type: ignore[operator]
    assert (await probed(pool, path)).info.dynamic_range == "high"
    body = (await rendered(pool, path, "crop=56:30:200:130,width=100,dynamic_range=high", "avif")).body
    assert code_points(body) == (primaries, transfer, 6, 0x80)
    found = decoded(body)
    assert found.shape == (65, 100, 3)
    assert np.abs(found - scaled(scene()[30:160, 56:256], 100, 65)).mean() < TOLERANCE


# Code points of the primaries of H.273 that JPEG XL names, and its own numbers; others become Rec. 2020.
JXL_PRIMARIES = {1: 1, REC_2020: 9, P3: 11, 5: 9, 22: 9}


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("primaries", JXL_PRIMARIES)
async def test_pq_and_hlg_come_out_as_jpeg_xl_with_the_name_of_their_color_space(
    pool: RenderPool, tmp_path: Path, primaries: int, transfer: int
) -> None:
    path = written(tmp_path, png(scene(), primaries, transfer))
    body = (await rendered(pool, path, "crop=56:30:200:130,width=100,dynamic_range=high,quality=90", "jxl")).body
    found = named_colors(body)
    assert found is not None
    expected = JXL_PRIMARIES[primaries]
    # HLG in other primaries becomes PQ, in which light is absolute.
    assert found[:3] == (1, expected, transfer if primaries in {1, REC_2020, P3} else PQ)
    assert found.bits == 10
    shown = imagecodecs.jpegxl_decode(body).astype(np.float64) / 1_023
    assert shown.shape == (65, 100, 3)
    if found.transfer == transfer and expected == {P3: 11}.get(primaries, primaries):
        assert np.abs(shown - scaled(scene()[30:160, 56:256], 100, 65)).mean() < TOLERANCE


@pytest.mark.parametrize(("primaries", "transfer"), [(REC_2020, PQ), (P3, PQ), (1, PQ), (5, PQ), (REC_2020, HLG), (P3, HLG)])
async def test_chromium_shows_the_jpeg_xl_like_the_avif_and_like_the_original(
    pool: RenderPool, painter: Painter, tmp_path: Path, primaries: int, transfer: int
) -> None:
    original = png(scene(), primaries, transfer)
    path = written(tmp_path, original)
    whole = painter.draw((await rendered(pool, path, "dynamic_range=high,quality=95", "jxl")).body, "jxl")
    expected = painter.draw(original, "png")
    assert whole is not None
    assert expected is not None
    assert visible_distance(whole, expected) < 3
    formats: list[Format] = ["jxl", "avif"]
    small = [painter.draw((await rendered(pool, path, "width=160,dynamic_range=high", name)).body, name) for name in formats]
    assert small[0] is not None
    assert small[1] is not None
    assert visible_distance(small[0], small[1]) < 6


def test_avif_of_primaries_without_a_code_point_is_in_rec_2020() -> None:
    # Of Adobe RGB, which a JPEG XL describes by numbers.
    adobe = Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290))
    levels_of_16_bits = pyvips.Image.new_from_array(np.round(scene() * 65_535).astype(np.uint16))
    body = save.encode(hdr.mark(levels_of_16_bits, ColorSpace(adobe, PQ)), "avif", 90)
    assert code_points(body)[:2] == (REC_2020, PQ)
    to_rec_2020 = np.asarray(matrix_between(adobe, PRIMARIES[REC_2020]))
    expected = pq(np.clip(nits_of(scene()) @ to_rec_2020.T, 0, 10_000))
    assert np.abs(decoded(body) - expected).mean() < TOLERANCE


@pytest.mark.parametrize("peak", [203, 400, 10_000])
def test_peak_that_a_jpeg_xl_states_is_ignored_as_in_chromium(peak: float) -> None:
    image = pyvips.Image.black(64, 64, bands=3).cast("ushort").copy(interpretation="rgb16")
    colors = jxl_encoder.EnumeratedColor(jxl_library.Primaries.REC_2100, jxl_library.Transfer.PQ)
    body = jxl_encoder.encode(image, jxl_encoder.Settings(color_space=colors, bits=10, max_nits=peak))
    found = hdr.color_space(jxl.decode(memoryview(body)))
    assert found is not None
    assert found.max_nits == 1_000


async def test_avif_of_a_rendition_is_an_original_with_the_same_colors_again(pool: RenderPool, tmp_path: Path) -> None:
    first = written(tmp_path, png(scene(), REC_2020, PQ), "first")
    second = written(tmp_path, (await rendered(pool, first, "dynamic_range=high,quality=90", "avif")).body, "second")
    assert (await probed(pool, second)).info.dynamic_range == "high"
    found, expected = [images.decode((await rendered(pool, path, "width=128", "png")).body) for path in (second, first)]
    assert visible_distance(found.convert("RGBA"), expected.convert("RGBA")) < 3
    assert code_points((await rendered(pool, second, "width=128,rotate=90,dynamic_range=high", "avif")).body)[:2] == (REC_2020, PQ)


@pytest.mark.parametrize(("primaries", "transfer"), [(REC_2020, PQ), (P3, PQ), (REC_2020, HLG)])
async def test_chromium_shows_the_avif_like_its_original(
    pool: RenderPool, painter: Painter, tmp_path: Path, primaries: int, transfer: int
) -> None:
    original = png(scene(), primaries, transfer)
    body = (await rendered(pool, written(tmp_path, original), "dynamic_range=high,quality=95", "avif")).body
    shown, expected = painter.draw(body, "avif"), painter.draw(original, "png")
    assert shown is not None
    assert expected is not None
    assert visible_distance(shown, expected) < 3


async def test_gain_map_of_a_pq_original_leads_back_to_its_light(pool: RenderPool, tmp_path: Path) -> None:
    gray = np.repeat(scene().mean(axis=-1, keepdims=True), 3, axis=-1)
    path = written(tmp_path, png(gray, REC_2020, PQ))
    body = (await rendered(pool, path, "dynamic_range=high,quality=95", "jpeg")).body
    picture = pyvips.Image.uhdrload_buffer(body)
    # Of libvips' own reader; 1 is the white of a standard range.
    light = picture.uhdr2scRGB().numpy().mean(axis=-1) * 203
    assert picture.get("gainmap-hdr-capacity-max") == pytest.approx(1_000 / 203, rel=0.01)
    assert np.abs(pq(np.clip(light, 0, None)) - gray[..., 0]).mean() < TOLERANCE
    assert np.array_equal(
        np.asarray(images.decode(body)), np.asarray(images.decode((await rendered(pool, path, "quality=95", "jpeg")).body))
    )


async def test_picture_with_a_gain_map_comes_out_in_pq_with_the_gains_applied(pool: RenderPool, tmp_path: Path) -> None:
    gray = Image.fromarray(np.linspace(20, 250, WIDTH).astype(np.uint8)[None, :].repeat(HEIGHT, 0)).convert("RGB")
    original = gain_map_jpeg(gray, levels(stops_field(WIDTH, HEIGHT)), iso([STOPS[0]], [STOPS[1]]))
    body = (await rendered(pool, written(tmp_path, original), "dynamic_range=high,quality=95", "avif")).body
    assert code_points(body)[:2] == (REC_2020, PQ)
    level = np.asarray(gray, dtype=np.float64)[..., 0] / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    light = (linear + 1 / 64) * 2 ** stops_field(WIDTH, HEIGHT) - 1 / 64
    assert np.abs(decoded(body).mean(axis=-1) - pq(np.clip(light, 0, None) * 203)).mean() < TOLERANCE


async def test_brightest_light_is_stated_where_it_is_known(pool: RenderPool, tmp_path: Path) -> None:
    original = gain_map_jpeg(images.picture(WIDTH, HEIGHT), np.full((HEIGHT, WIDTH), 255, np.uint8), iso([0.0], [1.0]))
    body = (await rendered(pool, written(tmp_path, original, "gains"), "dynamic_range=high", "avif")).body
    start = body.index(b"clli") + 4
    assert struct.unpack(">HH", body[start : start + 4]) == (406, 0)
    body = (await rendered(pool, written(tmp_path, png(scene(), REC_2020, PQ), "png"), "dynamic_range=high", "avif")).body
    assert b"clli" not in body
    body = (await rendered(pool, tmp_path / "gains", "dynamic_range=high", "jxl")).body
    stated = named_colors(body)
    assert stated is not None
    assert stated.max_nits == pytest.approx(406)


@pytest.mark.parametrize("dynamic_range", DYNAMIC_RANGES)
@pytest.mark.parametrize("image_format", ["avif", "jpeg"])
async def test_crop_that_is_searched_is_the_same_in_both_ranges(
    pool: RenderPool, tmp_path: Path, dynamic_range: str, image_format: Format
) -> None:
    path = written(tmp_path, png(scene(), REC_2020, PQ))
    options = f"width=80,height=80,fit=cover,gravity=attention,quality=90,dynamic_range={dynamic_range}"
    body = (await rendered(pool, path, options, image_format)).body
    shown = (await rendered(pool, written(tmp_path, body, "again"), "quality=90", "png")).body
    expected = (await rendered(pool, path, options.replace("high", "standard"), "png")).body
    assert visible_distance(images.decode(shown).convert("RGBA"), images.decode(expected).convert("RGBA")) < 5


@pytest.mark.parametrize("image_format", ["avif", "jxl"])
async def test_quality_auto_is_the_default_quality_in_pq(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    path = written(tmp_path, png(scene(), REC_2020, PQ))
    plain, auto = [(await rendered(pool, path, f"dynamic_range=high{more}", image_format)).body for more in ("", ",quality=auto")]
    assert plain == auto


@pytest.mark.parametrize("image_format", ["avif", "jxl", "jpeg"])
async def test_limit_in_bytes_holds_with_a_high_dynamic_range(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    path = written(tmp_path, png(scene(), REC_2020, PQ))
    whole = (await rendered(pool, path, "dynamic_range=high", image_format)).body
    limit = len(whole) * 3 // 4
    assert len((await rendered(pool, path, f"dynamic_range=high,max_bytes={limit}", image_format)).body) <= limit

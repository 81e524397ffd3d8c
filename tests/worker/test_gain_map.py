"""Gain maps: they go through the geometry of the rendition with their picture, in every description of them that is in use."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import pyvips
from PIL import Image, ImageCms
from PIL.Image import Resampling, Transpose

from service.rendering.pool import RenderPool
from service.worker.formats import ultra_hdr
from tests.support import gain_maps, images
from tests.support.gain_maps import STOPS, Floats, gain_map_jpeg, hdrgm, iso, levels, stops_field
from tests.support.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")

WIDTH, HEIGHT = 480, 320
LOW, HIGH = [STOPS[0]], [STOPS[1]]

# Mean difference in stops that a rendition may have from the scene: the levels of its map are 1/73 of a stop apart, and they are resampled
# and encoded with loss.
TOLERANCE = 0.04


def photo(divisor: int = 2, *segments: bytes, **options: Any) -> bytes:
    """Return the scene with a gain map that is smaller by a divisor."""
    small = np.asarray(Image.fromarray(stops_field(WIDTH, HEIGHT)).resize((WIDTH // divisor, HEIGHT // divisor), Resampling.BOX))
    return gain_map_jpeg(images.picture(WIDTH, HEIGHT), levels(small), *(segments or (hdrgm(LOW, HIGH), iso(LOW, HIGH))), **options)


def read_back(body: bytes) -> tuple[pyvips.Image, Floats]:
    """Return the picture of a file, and how many stops brighter each of its pixels is, as libvips' reader and libultrahdr see them."""
    picture = pyvips.Image.uhdrload_buffer(body)
    gains = np.asarray(Image.open(io.BytesIO(picture.get("gainmap-data"))), dtype=np.float64) / 255
    low, high = (np.log2(picture.get(f"gainmap-{name}-content-boost")) for name in ("min", "max"))
    gamma = picture.get("gainmap-gamma")[0]
    stops = low[0] + (high[0] - low[0]) * gains ** (1 / gamma)
    return picture, np.asarray(Image.fromarray(stops).resize((picture.width, picture.height), Resampling.BILINEAR))


def scaled(field: Floats, width: int, height: int) -> Floats:
    return np.asarray(Image.fromarray(field).resize((width, height), Resampling.BOX if width < field.shape[1] else Resampling.BILINEAR))


GEOMETRIES: list[tuple[str, Callable[[Floats], Floats]]] = [
    ("full", lambda field: field),
    ("width=240", lambda field: scaled(field, 240, 160)),
    ("width=97", lambda field: scaled(field, 97, 65)),
    ("width=720,enlarge=true", lambda field: scaled(field, 720, 480)),
    ("crop=101:53:211:119", lambda field: field[53:172, 101:312]),
    ("crop=101:53:210:120,width=105", lambda field: scaled(field[53:173, 101:311], 105, 60)),
    ("width=160,height=160,fit=cover,gravity=east", lambda field: scaled(field[:, 160:], 160, 160)),
    ("width=160,height=160,fit=cover,gravity=focal:0.4:0.5", lambda field: scaled(field[:, 32:352], 160, 160)),
    ("rotate=90", lambda field: np.rot90(field, -1)),
    ("crop=40:30:200:100,rotate=270,flip=vertical", lambda field: np.flipud(np.rot90(field[30:130, 40:240], 1))),
    ("flip=horizontal,width=240", lambda field: scaled(np.fliplr(field), 240, 160)),
    ("width=200,height=200,fit=fill", lambda field: scaled(field, 200, 200)),
]


@pytest.mark.parametrize(("options", "change"), GEOMETRIES, ids=[options for options, _ in GEOMETRIES])
async def test_gain_map_goes_through_the_same_geometry_as_its_picture(
    pool: RenderPool, tmp_path: Path, options: str, change: Callable[[Floats], Floats]
) -> None:
    path = written(tmp_path, photo(), "photo.jpg")
    high = "dynamic_range=high" if options == "full" else f"{options},dynamic_range=high"
    body = (await rendered(pool, path, high, "jpeg")).body
    picture, stops = read_back(body)
    expected = change(stops_field(WIDTH, HEIGHT))
    assert stops.shape == expected.shape
    assert np.abs(stops - expected).mean() < TOLERANCE
    assert picture.get("gainmap-hdr-capacity-max") == pytest.approx(2 ** STOPS[1], rel=1e-3)
    standard = (await rendered(pool, path, options, "jpeg")).body
    assert np.array_equal(np.asarray(images.decode(body)), np.asarray(images.decode(standard)))


@pytest.mark.parametrize("divisor", [1, 2, 4])
async def test_gain_map_keeps_its_scale(pool: RenderPool, tmp_path: Path, divisor: int) -> None:
    body = (await rendered(pool, written(tmp_path, photo(divisor), "photo.jpg"), "width=240,dynamic_range=high", "jpeg")).body
    picture, stops = read_back(body)
    gains = Image.open(io.BytesIO(picture.get("gainmap-data")))
    assert gains.size == (240 // divisor, 160 // divisor)
    assert np.abs(stops - scaled(stops_field(WIDTH, HEIGHT), 240, 160)).mean() < TOLERANCE


@pytest.mark.parametrize("orientation", range(2, 9))
async def test_gain_map_is_turned_with_its_picture(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    # Stored so that the orientation makes both upright again.
    undo = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE}
    undo |= {6: Transpose.ROTATE_90, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    gains = Image.fromarray(levels(scaled(stops_field(WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2))).transpose(undo[orientation])
    stored = images.picture(WIDTH, HEIGHT).transpose(undo[orientation])
    body = gain_map_jpeg(stored, np.asarray(gains), iso(LOW, HIGH), exif=exif.tobytes())
    _, stops = read_back((await rendered(pool, written(tmp_path, body, "photo.jpg"), "width=240,dynamic_range=high", "jpeg")).body)
    assert np.abs(stops - scaled(stops_field(WIDTH, HEIGHT), 240, 160)).mean() < TOLERANCE


# Orientation by Exif → what a reader does to make the stored picture upright.
UPRIGHT: dict[int, Callable[[Floats], Floats]] = {
    1: lambda field: field,
    2: np.fliplr,
    3: lambda field: np.rot90(field, 2),
    4: np.flipud,
    5: lambda field: np.swapaxes(field, 0, 1),
    6: lambda field: np.rot90(field, -1),
    7: lambda field: np.rot90(np.swapaxes(field, 0, 1), 2),
    8: lambda field: np.rot90(field, 1),
}


def light(body: bytes) -> Floats:
    """Return how bright a file is on its brightest screen, in stops, as libvips' own reader shows it; upright only if it is stored so."""
    linear = pyvips.Image.uhdrload_buffer(body).uhdr2scRGB().numpy().mean(axis=-1)
    return np.asarray(np.log2(np.clip(linear, 0, None) + 1 / 64), dtype=np.float64)


async def check_geometry(pool: RenderPool, folder: Path, seed: int) -> None:
    """Check that a drawn geometry gives the light of the original, as a reader shows it, after the same geometry."""
    rng = Random(seed)
    orientation, divisor = rng.randint(1, 8), rng.choice([1, 2, 4])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(folder, photo(divisor, iso(LOW, HIGH), exif=exif.tobytes()), f"{seed}.jpg")
    before = UPRIGHT[orientation](light(path.read_bytes()))
    height, width = before.shape
    crop_width, crop_height = rng.randint(80, width), rng.randint(80, height)
    left, top = rng.randint(0, width - crop_width), rng.randint(0, height - crop_height)
    angle, flip = rng.choice([0, 90, 180, 270]), rng.choice(["", "horizontal", "vertical"])
    before = np.rot90(before[top : top + crop_height, left : left + crop_width], -angle // 90)
    before = {"": before, "horizontal": np.fliplr(before), "vertical": np.flipud(before)}[flip]
    options = [f"crop={left}:{top}:{crop_width}:{crop_height}", f"rotate={angle}" * (angle > 0), f"flip={flip}" * bool(flip)]
    options += [f"width={rng.randint(40, before.shape[1])}", "quality=95", "dynamic_range=high"]
    after = light((await rendered(pool, path, ",".join(filter(None, options)), "jpeg")).body)
    resized = Image.fromarray(before.astype(np.float32)).resize((after.shape[1], after.shape[0]), Resampling.LANCZOS)
    expected = np.asarray(resized, dtype=np.float64)
    # In the middle: at the edges, resamplers differ in what lies beyond.
    inside = (slice(3, -3), slice(3, -3))
    error = np.abs(after - expected)[inside].mean()
    assert error < 0.12, options
    for shift, axis in ((2, 0), (-2, 0), (2, 1), (-2, 1)):
        assert error < np.abs(np.roll(after, shift, axis) - expected)[inside].mean(), options


@pytest.mark.parametrize("seed", range(8))
async def test_light_of_a_rendition_is_that_of_the_original_in_any_geometry(pool: RenderPool, tmp_path: Path, seed: int) -> None:
    await check_geometry(pool, tmp_path, seed)


@pytest.mark.long
async def test_light_of_a_rendition_is_that_of_the_original_in_many_geometries(pool: RenderPool, tmp_path: Path) -> None:
    for seed in range(100, 250):
        await check_geometry(pool, tmp_path, seed)


DESCRIPTIONS: dict[str, tuple[bytes, ...]] = {
    "XMP": (hdrgm(LOW, HIGH),),
    "XMP with elements": (hdrgm(LOW, HIGH, elements=True),),
    "ISO 21496-1": (iso(LOW, HIGH),),
    "both, with other numbers in XMP": (hdrgm([0], [1]), iso(LOW, HIGH)),
}


@pytest.mark.parametrize("description", DESCRIPTIONS)
@pytest.mark.parametrize("order", [">", "<"], ids=["big-endian", "little-endian"])
async def test_gain_map_is_understood_in_every_description(pool: RenderPool, tmp_path: Path, description: str, order: str) -> None:
    gains = levels(scaled(stops_field(WIDTH, HEIGHT), WIDTH // 4, HEIGHT // 4))
    body = gain_map_jpeg(images.picture(WIDTH, HEIGHT), gains, *DESCRIPTIONS[description], order=order)
    path = written(tmp_path, body, "photo.jpg")
    assert (await probed(pool, path)).info.dynamic_range == "high"
    _, stops = read_back((await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body)
    assert np.abs(stops - scaled(stops_field(WIDTH, HEIGHT), 240, 160)).mean() < TOLERANCE


async def test_gain_map_with_a_gamma_and_three_colors_keeps_both(pool: RenderPool, tmp_path: Path) -> None:
    field = scaled(stops_field(WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2)
    lows, highs = [-0.5, -0.25, 0.0], [3.0, 2.0, 1.0]
    gains = np.stack([levels(field, 2.0, (low, high)) for low, high in zip(lows, highs, strict=True)], axis=-1)
    for description in (hdrgm(lows, highs, 2.0), iso(lows, highs, 2.0)):
        path = written(tmp_path, gain_map_jpeg(images.picture(WIDTH, HEIGHT), gains, description), "photo.jpg")
        picture = pyvips.Image.uhdrload_buffer((await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body)
        assert picture.get("gainmap-gamma") == pytest.approx([2.0] * 3)
        assert np.log2(picture.get("gainmap-max-content-boost")) == pytest.approx(highs, abs=1e-3)
        assert np.log2(picture.get("gainmap-min-content-boost")) == pytest.approx(lows, abs=1e-3)
        small = np.asarray(Image.open(io.BytesIO(picture.get("gainmap-data"))), dtype=np.float64)
        expected = np.asarray(Image.fromarray(gains).resize((120, 80), Resampling.BOX), dtype=np.float64)
        assert np.abs(small - expected).mean() < 4


async def test_gain_map_of_libvips_itself_survives(pool: RenderPool, tmp_path: Path) -> None:
    """libultrahdr computes the gain map of a picture in linear light, whose brightest part is four times as bright as white."""
    linear = (np.asarray(images.picture(WIDTH, HEIGHT), dtype=np.float32) / 255) ** 2.2 * 2 ** np.clip(stops_field(WIDTH, HEIGHT), 0, 2)[
        ..., None
    ]
    scene = pyvips.Image.new_from_array(linear.astype(np.float32)).copy(interpretation="scrgb")
    original = scene.uhdrsave_buffer(Q=95)
    before = pyvips.Image.uhdrload_buffer(original).uhdr2scRGB().resize(0.5)
    body = (
        await rendered(pool, written(tmp_path, original, "photo.jpg"), "width=240,profile=keep,dynamic_range=high,quality=95", "jpeg")
    ).body
    after = pyvips.Image.uhdrload_buffer(body).uhdr2scRGB()
    assert (after.width, after.height) == (240, 160)
    before, after = (np.log2(np.clip(image.numpy(), 0, None) + 0.02) for image in (before, after))
    assert np.abs(after - before).mean() < 0.1


@pytest.mark.parametrize(("maker33", "maker48", "stops"), [(0.5, 0.005, 1.7), (0.5, 1.0, 1.5), (1.2, 0.005, 2.65), (1.2, 1.0, 2.0)])
def test_apple_headroom_is_read_from_the_maker_note(maker33: float, maker48: float, stops: float) -> None:
    assert np.log2(ultra_hdr.apple_headroom(gain_maps.apple_exif(maker33, maker48))) == pytest.approx(stops, abs=1e-6)


@pytest.mark.parametrize("in_xmp", [True, False], ids=["headroom in XMP", "headroom in the maker note"])
async def test_gain_map_of_an_iphone_means_the_same_in_the_rendition(pool: RenderPool, tmp_path: Path, in_xmp: bool) -> None:
    headroom = 4.0
    share = np.tile(np.linspace(0, 1, WIDTH // 2), (HEIGHT // 2, 1))
    # Encoded as Rec. 709 does.
    encoded = np.where(share < 0.018, 4.5 * share, 1.099 * share**0.45 - 0.099)
    gains = np.round(encoded * 255).astype(np.uint8)
    exif = b"Exif\0\0" + gain_maps.apple_exif(1.2, 1.0)
    body = gain_map_jpeg(images.picture(WIDTH, HEIGHT), gains, gain_maps.apple(headroom if in_xmp else None), exif=exif)
    _, stops = read_back((await rendered(pool, written(tmp_path, body, "photo.jpg"), "dynamic_range=high", "jpeg")).body)
    expected = scaled(np.log2(1 + (headroom - 1) * share), WIDTH, HEIGHT)
    assert np.abs(stops - expected).mean() < TOLERANCE


BAD: dict[str, bytes] = {
    "no description": photo(2, gain_maps.segment(0xFE, b"a comment")),
    "a description in which the picture is the HDR one": photo(2, hdrgm(LOW, HIGH, base_is_hdr=True)),
    "a maximum that is no number": photo(2, hdrgm(LOW, ["bright"])),
    "a maximum below the minimum": photo(2, hdrgm([2], [1])),
    "a maximum beyond any screen": photo(2, hdrgm([0], [1e9])),
    "a gamma of 0": photo(2, iso(LOW, HIGH, 0)),
    "a description that is no XML": photo(2, gain_maps.segment(0xE1, gain_maps.XMP + b"<x:xmpmeta <hdrgm:GainMapMax>")),
    "a short binary description": photo(2, gain_maps.segment(0xE2, gain_maps.ISO + bytes(9))),
}


@pytest.mark.parametrize("fault", BAD)
async def test_gain_map_that_is_not_understood_is_left_out(pool: RenderPool, tmp_path: Path, fault: str) -> None:
    path = written(tmp_path, BAD[fault], "photo.jpg")
    assert (await probed(pool, path)).info.dynamic_range == "standard"
    body = (await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body
    assert body == (await rendered(pool, path, "width=240", "jpeg")).body


@pytest.mark.parametrize("length", [4_000, 300, 3])
async def test_gain_map_that_is_cut_off_is_left_out(pool: RenderPool, tmp_path: Path, length: int) -> None:
    body = photo(1)
    start = body.rindex(b"\xff\xd8\xff")
    path = written(tmp_path, body[: start + length], "photo.jpg")
    high = (await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body
    assert high.startswith(b"\xff\xd8\xff")
    assert np.array_equal(
        np.asarray(images.decode(high)), np.asarray(images.decode((await rendered(pool, path, "width=240", "jpeg")).body))
    )


async def test_original_without_hdr_gives_the_standard_rendition(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.photo_jpeg(320, 240), "photo.jpg")
    for image_format in ("jpeg", "avif"):
        high = (await rendered(pool, path, "width=160,dynamic_range=high", image_format)).body
        assert high == (await rendered(pool, path, "width=160", image_format)).body


async def test_rendition_with_a_gain_map_has_the_metadata_that_was_requested_and_no_other(pool: RenderPool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8298], exif[0x0112] = images.COPYRIGHT, 1
    exif.get_ifd(0x8825)[29] = images.PLACE
    packet = gain_maps.packet('<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="A lake"/>')
    path = written(tmp_path, photo(2, iso(LOW, HIGH), exif=exif.tobytes(), xmp=packet), "photo.jpg")
    found = {}
    for metadata in ("none", "copyright", "all"):
        body = (await rendered(pool, path, f"width=240,dynamic_range=high,metadata={metadata}", "jpeg")).body
        read_back(body)
        found[metadata] = [text in body for text in (images.PLACE.encode(), images.COPYRIGHT.encode(), b"A lake")]
        assert body.count(gain_maps.XMP) == 2
    assert found == {"none": [False] * 3, "copyright": [False, True, False], "all": [True] * 3}


async def test_limit_in_bytes_includes_the_gain_map(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, photo(), "photo.jpg")
    whole = (await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body
    limit = len(whole) - 2_000
    body = (await rendered(pool, path, f"width=240,dynamic_range=high,max_bytes={limit}", "jpeg")).body
    assert len(body) <= limit
    read_back(body)


async def test_gain_map_in_other_colors_keeps_its_profile(pool: RenderPool, tmp_path: Path) -> None:
    gains = levels(scaled(stops_field(WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2))
    colored = gain_maps.encode_jpeg(Image.fromarray(np.stack([gains] * 3, axis=-1)), 100, icc_profile=images.p3_profile())
    described = gain_maps.insert(colored, iso(LOW * 3, HIGH * 3, in_base_colors=False))
    body = gain_maps.multi_picture(gain_maps.encode_jpeg(images.picture(WIDTH, HEIGHT)), described)
    high = (await rendered(pool, written(tmp_path, body, "photo.jpg"), "width=240,dynamic_range=high", "jpeg")).body
    picture = pyvips.Image.uhdrload_buffer(high)
    assert picture.get("gainmap-use-base-cg") == 0
    profile = Image.open(io.BytesIO(picture.get("gainmap-data"))).info["icc_profile"]
    assert "P3" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))


@needs_corpus
@pytest.mark.parametrize("name", ["sharp__gain-map.jpg", "libultrahdr__apple_gainmap_new.jpg"])
async def test_gain_map_of_a_real_photo_survives(pool: RenderPool, name: str) -> None:
    corpus = images.corpus()
    assert corpus is not None
    path = corpus / "hdr" / name
    assert (await probed(pool, path)).info.dynamic_range == "high"
    _, whole = read_back((await rendered(pool, path, "dynamic_range=high", "jpeg")).body)
    _, stops = read_back((await rendered(pool, path, "crop=20p:20p:50p:50p,width=150,dynamic_range=high", "jpeg")).body)
    height, width = whole.shape
    part = whole[round(height * 0.2) : round(height * 0.7), round(width * 0.2) : round(width * 0.7)]
    assert np.abs(stops - scaled(part, stops.shape[1], stops.shape[0])).mean() < 0.1


# HEIC and AVIF.


@functools.cache
def scene_heic(gains: bytes, shape: tuple[int, ...], **options: Any) -> bytes:
    """Return the file of `heic`, which takes a second to encode."""
    file = pillow_heif.from_pillow(images.picture(WIDTH, HEIGHT))
    file.add_from_pillow(Image.fromarray(np.frombuffer(gains, np.uint8).reshape(shape)))
    out = io.BytesIO()
    file.save(out, quality=95, **options)
    return out.getvalue()


def heic(gains: npt.NDArray[np.uint8], **options: Any) -> bytes:
    """Return a HEIC with the scene as item 1 and a gray picture as item 2."""
    return scene_heic(gains.tobytes(), gains.shape, **options)


@pytest.mark.parametrize("kind", ["maker note", "XMP"])
async def test_gain_map_of_an_iphone_heic_goes_into_jpeg(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    # A headroom of four, in which the share of it is what Rec. 709 encodes.
    stops = np.clip(scaled(stops_field(WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2), 0, 2)
    share = (2**stops - 1) / 3
    gains = np.round(np.where(share < 0.018, 4.5 * share, 1.099 * share**0.45 - 0.099) * 255).astype(np.uint8)
    packet = gain_maps.apple(4.0)[4 + len(gain_maps.XMP) :]
    if kind == "XMP":
        body = gain_maps.with_apple_gain_map(heic(gains, xmp=packet), describes_map=True)
    else:
        body = gain_maps.with_apple_gain_map(heic(gains, exif=b"Exif\0\0" + gain_maps.apple_exif(1.2, 1.0)), describes_map=False)
    path = written(tmp_path, body, "photo.heic")
    assert (await probed(pool, path)).info.dynamic_range == "high"
    high = (await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body
    picture, found = read_back(high)
    assert picture.get("gainmap-max-content-boost")[0] == pytest.approx(4, rel=0.01)
    assert np.abs(found - scaled(np.clip(stops_field(WIDTH, HEIGHT), 0, 2), 240, 160)).mean() < TOLERANCE
    standard = (await rendered(pool, path, "width=240", "jpeg")).body
    assert np.array_equal(np.asarray(images.decode(high)), np.asarray(images.decode(standard)))


async def test_gain_map_of_a_tone_map_item_goes_into_jpeg(pool: RenderPool, tmp_path: Path) -> None:
    gains = levels(scaled(stops_field(WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2))
    path = written(tmp_path, gain_maps.with_tone_map_item(heic(gains), LOW, HIGH), "photo.heic")
    assert (await probed(pool, path)).info.dynamic_range == "high"
    _, stops = read_back((await rendered(pool, path, "crop=101:53:210:120,width=105,dynamic_range=high", "jpeg")).body)
    assert np.abs(stops - scaled(stops_field(WIDTH, HEIGHT)[53:173, 101:311], 105, 60)).mean() < TOLERANCE


async def test_gain_map_of_an_avif_goes_into_jpeg(pool: RenderPool, tmp_path: Path) -> None:
    gains = Image.fromarray(levels(stops_field(WIDTH, HEIGHT))).convert("RGB")
    pages = np.concatenate([np.asarray(images.picture(WIDTH, HEIGHT)), np.asarray(gains)])
    strip = pyvips.Image.new_from_array(pages).copy(interpretation="srgb")
    strip.set_type(pyvips.GValue.gint_type, "page-height", HEIGHT)
    body = gain_maps.with_tone_map_item(strip.heifsave_buffer(compression="av1", Q=90, effort=0, keep="none"), LOW, HIGH)
    path = written(tmp_path, body, "photo.avif")
    assert (await probed(pool, path)).info.dynamic_range == "high"
    picture = pyvips.Image.uhdrload_buffer((await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body)
    found = np.asarray(Image.open(io.BytesIO(picture.get("gainmap-data"))).convert("L"), dtype=np.float64)
    assert np.abs(found - np.asarray(gains.convert("L").resize((240, 160), Resampling.BOX), dtype=np.float64)).mean() < 4


@pytest.mark.parametrize("item", [0, 1, 3, 99, 65_535], ids=["none", "the picture", "the description", "an unknown one", "the last"])
async def test_description_of_another_item_than_the_gain_map_leaves_the_picture_as_it_is(
    pool: RenderPool, tmp_path: Path, item: int
) -> None:
    gains = levels(scaled(stops_field(WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2))
    path = written(tmp_path, gain_maps.with_tone_map_item(heic(gains), LOW, HIGH, gain_map=item), "photo.heic")
    await probed(pool, path)
    found, expected = [(await rendered(pool, path, f"width=60,{more}")).body for more in ("dynamic_range=high", "profile=srgb")]
    assert np.array_equal(np.asarray(images.decode(found)), np.asarray(images.decode(expected)))


async def test_white_behind_a_transparent_picture_does_not_light_up(pool: RenderPool, tmp_path: Path) -> None:
    picture = images.picture(WIDTH, HEIGHT).convert("RGBA")
    picture.putalpha(Image.fromarray(np.repeat([[0] * (WIDTH // 2) + [255] * (WIDTH // 2)], HEIGHT, 0).astype(np.uint8)))
    file = pillow_heif.from_pillow(picture)
    file.add_from_pillow(Image.fromarray(levels(stops_field(WIDTH, HEIGHT))))
    out = io.BytesIO()
    file.save(out, quality=95)
    path = written(tmp_path, gain_maps.with_tone_map_item(out.getvalue(), LOW, HIGH, gain_map=3), "photo.heic")
    picture_of, stops = read_back((await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body)
    assert np.abs(stops[:, :112]).max() < 0.1
    expected = scaled(stops_field(WIDTH, HEIGHT), 240, 160)[:, 128:]
    assert np.abs(stops[:, 128:] - expected).mean() < TOLERANCE
    assert picture_of(0, 0) == [255, 255, 255]


async def test_gain_map_of_a_heic_that_does_not_decode_is_left_out(pool: RenderPool, tmp_path: Path) -> None:
    gains = levels(scaled(stops_field(WIDTH, HEIGHT), WIDTH // 2, HEIGHT // 2))
    whole = gain_maps.with_tone_map_item(heic(gains), LOW, HIGH)
    # The second picture ends shortly before the item that describes it.
    end = whole.rindex(b"mdat") - 4
    body = bytearray(whole)
    body[end - 900 : end] = bytes(900)
    path = written(tmp_path, bytes(body), "photo.heic")
    high = (await rendered(pool, path, "width=240,dynamic_range=high", "jpeg")).body
    assert images.decode(high).size == (240, 160)

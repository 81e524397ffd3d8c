"""Color spaces that PNG and AVIF state without an ICC profile, against the arithmetic of the standards and against Chromium."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from service.images.geometry import Plan
from service.images.info import ImageInfo
from service.images.options import Profile
from service.rendering.pool import RenderPool
from service.worker import color, icc
from service.worker.color_space import ColorSpace, Primaries
from service.worker.files import ImageFile
from service.worker.formats import av1, isobmff
from service.worker.load import load_still, load_whole
from service.worker.probe import probe
from service.worker.save import encode_intermediate
from tests.support import boxes, code_points, images, reference
from tests.support.chromium import Painter, visible_distance
from tests.support.code_points import CURVES, DISPLAY_P3, HLG, PQ, REC_2020, SRGB, Chunk, Levels, chrm, cicp, gama, iccp, palette
from tests.support.renders import LIMITS, rendered, written

pytestmark = pytest.mark.anyio

# Mean and largest differences in levels of 8-bit sRGB. Dark levels are steep: near the border of sRGB a small difference of light is large.
MEAN, LARGEST = 1.0, 16
# The same in renditions that were lossy or converted twice.
LOSSY_MEAN = 2.0

# XYZ as primaries (10) are not real colors, and clipping decides most of what is seen.
PAIRS = [pair for pair in itertools.product(code_points.PRIMARIES, CURVES) if pair[0] != 10]
QUICK = set(itertools.product((SRGB, REC_2020, DISPLAY_P3), (1, 4, 8, 13, PQ, HLG)))
PARAMETERS = [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.long) for pair in PAIRS]


def opened(body: bytes) -> tuple[ImageFile, ImageInfo]:
    view = memoryview(body)
    return ImageFile(view, view, "", None), probe(view, LIMITS)


def shown(body: bytes, profile: Profile = "srgb") -> Image.Image:
    """Return the picture of a file as a render process decodes it for a profile, converted from this profile to sRGB."""
    file, info = opened(body)
    image = load_still(file, info, Plan.whole(info.width, info.height, info.width, info.height), profile=profile)
    return reference.to_srgb(Image.fromarray(image.numpy()), bytes(image.get("icc-profile-data")) if color.has_profile(image) else None)


def pixels(body: bytes, profile: Profile = "srgb") -> Levels:
    return np.asarray(shown(body, profile).convert("RGB")).astype(float)


def check(found: Levels, expected: Levels) -> None:
    away = np.abs(found - expected)
    assert away.mean() < MEAN
    assert away.max() < LARGEST


# Code points of ITU-T H.273.


@pytest.mark.parametrize(("primaries", "transfer"), PARAMETERS)
def test_avif_with_code_points_has_the_colors_of_h273(primaries: int, transfer: int) -> None:
    body = code_points.with_nclx(code_points.lossless_avif(palette()), primaries, transfer)
    check(pixels(body), code_points.in_srgb(palette(), primaries, transfer))


@pytest.mark.parametrize(("primaries", "transfer"), PARAMETERS)
def test_heic_with_code_points_has_the_colors_of_h273(primaries: int, transfer: int) -> None:
    body = code_points.with_nclx(code_points.lossless_heic(), primaries, transfer)
    check(pixels(body), code_points.in_srgb(palette(), primaries, transfer))


@pytest.mark.parametrize(("primaries", "transfer"), PARAMETERS)
def test_png_with_code_points_has_the_colors_of_h273(primaries: int, transfer: int) -> None:
    body = code_points.png(palette(), [cicp(primaries, transfer)], 16)
    check(pixels(body), code_points.in_srgb(palette(), primaries, transfer, png=True))


@pytest.mark.long
def test_code_points_look_as_in_chromium(painter: Painter) -> None:
    for primaries, transfer in PAIRS:
        for image_format, body in (
            ("avif", code_points.with_nclx(code_points.lossless_avif(palette()), primaries, transfer)),
            ("png", code_points.png(palette(), [cicp(primaries, transfer)])),
        ):
            picture = painter.draw(body, image_format)
            assert picture is not None
            assert visible_distance(shown(body), picture) < LOSSY_MEAN, (image_format, primaries, transfer)


@pytest.mark.parametrize("profile", ["keep", "p3"])
@pytest.mark.parametrize(("primaries", "transfer"), [(SRGB, 8), (SRGB, 4), (DISPLAY_P3, 13), (DISPLAY_P3, 8), (SRGB, PQ), (SRGB, HLG)])
def test_code_points_have_the_same_colors_in_every_profile(primaries: int, transfer: int, profile: Profile) -> None:
    """Colors inside sRGB, because others are clipped in one profile and not in the other."""
    levels = palette() * 0.4 + 0.3
    body = code_points.png(levels, [cicp(primaries, transfer)], 16)
    assert np.abs(pixels(body, profile) - pixels(body)).mean() < LOSSY_MEAN


@pytest.mark.parametrize(("primaries", "transfer"), [(2, 2), (0, 13), (2, 13), (3, 2), (23, 19), (SRGB, 13), (SRGB, 1)])
def test_avif_with_unspecified_or_unknown_code_points_is_srgb(primaries: int, transfer: int) -> None:
    body = code_points.lossless_avif(palette(), 8)
    assert (pixels(code_points.with_nclx(body, primaries, transfer)) == np.round(palette() * 255)).all()


def test_colors_of_srgb_are_left_untouched() -> None:
    """They go through no conversion, whose rounding would change renditions that have been right."""
    levels = np.round(palette() * 255)
    for chunks in ([], [cicp(SRGB, 13)], [code_points.SRGB_CHUNK], [gama(1 / 2.2)], [gama(1 / 2.2), chrm(SRGB)], [chrm(DISPLAY_P3)]):
        file, info = opened(code_points.png(palette(), chunks))
        image = load_still(file, info, Plan.whole(27, 27, 27, 27), profile="keep")
        assert not color.has_profile(image)
        assert (image.numpy() == levels).all()


# Precedence of the chunks of a PNG (third edition, §4.3).

LINEAR, LINEAR_P3, PLAIN, WIDE = (cicp(SRGB, 8), cicp(DISPLAY_P3, 8), None, images.wide_profile())
GAMMA = gama(1)
BROKEN = iccp(b"nonsense" * 40)


@pytest.mark.parametrize(
    ("chunks", "equivalent"),
    [
        ([GAMMA], LINEAR),
        ([GAMMA, chrm(SRGB)], LINEAR),
        ([GAMMA, chrm(DISPLAY_P3)], LINEAR_P3),
        ([chrm(DISPLAY_P3), GAMMA], LINEAR_P3),
        ([gama(1 / 2.2), chrm(DISPLAY_P3)], cicp(DISPLAY_P3, 4)),
        ([code_points.SRGB_CHUNK, GAMMA, chrm(DISPLAY_P3)], PLAIN),
        ([GAMMA, code_points.SRGB_CHUNK], PLAIN),
        ([gama(0)], PLAIN),
        ([GAMMA, (b"cHRM", bytes(32))], PLAIN),
        ([GAMMA, (b"cHRM", struct.pack(">8I", 31_270, 32_900, *[64_000, 33_000] * 3))], PLAIN),
        ([GAMMA, (b"cHRM", b"short")], LINEAR),
        ([(b"gAMA", b"")], PLAIN),
        ([LINEAR, gama(0.3)], LINEAR),
        ([LINEAR, iccp(WIDE)], LINEAR),
        ([iccp(WIDE), LINEAR], LINEAR),
        ([code_points.SRGB_CHUNK, LINEAR], LINEAR),
        ([iccp(WIDE), cicp(SRGB, 13)], PLAIN),
        ([iccp(WIDE), code_points.SRGB_CHUNK], iccp(WIDE)),
        ([code_points.SRGB_CHUNK, iccp(WIDE)], iccp(WIDE)),
        ([iccp(WIDE), GAMMA, chrm(DISPLAY_P3)], iccp(WIDE)),
        ([iccp(WIDE), cicp(2, 2)], iccp(WIDE)),
        ([BROKEN], PLAIN),
        ([BROKEN, GAMMA], LINEAR),
        ([BROKEN, code_points.SRGB_CHUNK, GAMMA], PLAIN),
        ([BROKEN, LINEAR], LINEAR),
        ([cicp(2, 2), GAMMA], LINEAR),
        ([cicp(SRGB, 3), GAMMA], LINEAR),
        # Chromium ignores the narrow range, and refuses a file with a matrix, which has no meaning for RGB.
        ([cicp(REC_2020, PQ, full=0)], PLAIN),
        ([cicp(REC_2020, 13, matrix=9), GAMMA], LINEAR),
        ([(b"cICP", b"\1\10\0"), GAMMA], LINEAR),
    ],
)
def test_png_color_chunk_that_takes_precedence_decides(chunks: Sequence[Chunk], equivalent: Chunk | None) -> None:
    expected = pixels(code_points.png(palette(), [] if equivalent is None else [equivalent]))
    assert np.abs(pixels(code_points.png(palette(), chunks)) - expected).max() <= 1


@pytest.mark.long
def test_png_color_chunks_look_as_in_chromium(painter: Painter) -> None:
    combinations = [[GAMMA], [gama(0.3)], [gama(1 / 1.8)], [GAMMA, chrm(DISPLAY_P3)], [gama(0.5), chrm(REC_2020)], [gama(0.4), chrm(SRGB)]]
    combinations += [[iccp(WIDE), GAMMA], [BROKEN, GAMMA], [cicp(2, 2), GAMMA], [code_points.SRGB_CHUNK, GAMMA], [gama(0.44)], [gama(0.48)]]
    for chunks, levels in itertools.product(combinations, (palette(), palette()[..., :1], np.dstack([palette(), palette()[..., 0]]))):
        body = code_points.png(levels, chunks)
        picture = painter.draw(body, "png")
        assert picture is not None
        assert visible_distance(shown(body), picture) < LOSSY_MEAN, (chunks, levels.shape)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_png_of_every_kind_follows_its_gamma_and_its_code_points(bands: int, bits: int) -> None:
    colors = palette() if bands >= 3 else palette().mean(axis=2, keepdims=True)
    levels = colors if bands in {1, 3} else np.dstack([colors, np.ones((27, 27))])
    for chunks, transfer in (([GAMMA], 8), ([cicp(SRGB, 4)], 4), ([cicp(SRGB, PQ)], PQ), ([cicp(SRGB, HLG)], HLG)):
        ideal = code_points.in_srgb(np.round(colors * 255) / 255 + np.zeros(3), SRGB, transfer, png=True)
        assert np.abs(pixels(code_points.png(levels, chunks, bits)) - ideal).mean() < LOSSY_MEAN


@pytest.mark.parametrize(
    ("chunks", "max_nits"),
    [
        ([], 1_000),
        ([code_points.clli(400)], 400),
        ([code_points.clli(100)], 203),
        ([code_points.clli(0)], 1_000),
        ([code_points.mdcv(4_000)], 4_000),
        ([code_points.mdcv(400), code_points.clli(4_000)], 4_000),
    ],
)
def test_peak_luminance_of_a_picture_decides_how_much_is_compressed(chunks: Sequence[Chunk], max_nits: float) -> None:
    levels = np.repeat(np.linspace(0, 1, 256)[None, :, None], 3, axis=2)
    check(
        pixels(code_points.png(levels, [cicp(REC_2020, PQ), *chunks], 16)),
        code_points.in_srgb(levels, REC_2020, PQ, max_nits=max_nits),
    )


# Properties of AVIF that libheif does not follow.


def avif_with(levels: Levels, *properties: bytes) -> bytes:
    """Return levels, 0 to 1, as an AVIF without loss that has these properties."""
    body = code_points.lossless_avif(levels)
    _, (start, length) = next(isobmff.extents(body))
    common = [boxes.ispe(levels.shape[1], levels.shape[0]), boxes.av1c(subsampled=False), *properties]
    return boxes.avif([boxes.Item(b"av01", body[start : start + length], range(1, len(common) + 1))], common)


@pytest.mark.parametrize(("stated", "max_nits"), [(0, 1_000), (400, 400), (4_000, 4_000)])
def test_brightest_pixel_of_an_avif_decides_how_much_is_compressed(stated: int, max_nits: float) -> None:
    levels = np.repeat(np.linspace(0, 1, 256)[None, :, None], 3, axis=2)
    body = avif_with(levels, boxes.nclx(REC_2020, PQ, 0), boxes.box(b"clli", struct.pack(">HH", stated, 0)))
    check(pixels(body), code_points.in_srgb(levels, REC_2020, PQ, max_nits=max_nits))


def test_profile_of_an_avif_takes_precedence_over_code_points_unless_it_is_damaged() -> None:
    expected = np.asarray(reference.to_srgb(Image.fromarray(code_points.image_of(palette(), 8).numpy()), WIDE)).astype(float)
    for profile, ideal in ((WIDE, expected), (WIDE[:200], code_points.in_srgb(palette(), SRGB, 8))):
        for boxes_of_color in itertools.permutations([boxes.nclx(SRGB, 8, 0), boxes.box(b"colr", b"prof", profile)]):
            assert np.abs(pixels(avif_with(palette(), *boxes_of_color)) - ideal).mean() < MEAN


def scene() -> Image.Image:
    return images.picture(96, 64)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("value_range", ["full", "limited"])
def test_gray_avif_of_either_range_has_the_levels_of_the_scene(value_range: str, stated: bool, alpha: bool) -> None:
    """`stated`: in the container, otherwise only in the stream."""
    gray = scene().convert("L")
    picture = gray if not alpha else Image.merge("LA", [gray, Image.new("L", gray.size, 255)])
    body = code_points.avif(picture, subsampling="4:0:0", range=value_range)
    body = body if stated else body.replace(b"colrnclx", b"freenclx")
    assert images.distance(shown(body).convert("L"), gray) < LOSSY_MEAN


def test_gray_avif_with_a_profile_of_gray_or_rgb_follows_it() -> None:
    gray = scene().convert("L")
    ideal = shown(images.gray_jpeg(96, 64, profile=images.gray_profile()))
    for profile in (images.gray_profile(), images.wide_profile()):
        found = shown(code_points.avif(gray, subsampling="4:0:0", icc_profile=profile))
        expected = ideal if profile == images.gray_profile() else reference.to_srgb(gray.convert("RGB"), profile)
        assert images.distance(found.convert("RGB"), expected.convert("RGB")) < LOSSY_MEAN


def test_premultiplied_avif_has_the_colors_of_the_scene() -> None:
    colors = np.asarray(scene().convert("RGB")).astype(float)
    alpha = np.full(colors.shape[:2], 160.0)
    premultiplied = np.dstack([colors * 160 / 255, alpha]).round().astype(np.uint8)
    body = code_points.avif(Image.fromarray(premultiplied), quality=100)
    body = with_reference(body, boxes.reference(b"prem", 1, 2))
    assert np.abs(np.asarray(shown(body))[..., :3] - colors).mean() < LOSSY_MEAN


def with_reference(body: bytes, added: bytes) -> bytes:
    """Return an AVIF of Pillow with one more reference between its items; its offsets are corrected."""
    at, table, content = body.index(b"iref"), body.index(b"iloc") + 12, bytearray(body)
    for start in (body.index(b"meta") - 4, at - 4, table + 6, table + 20):
        content[start : start + 4] = (int.from_bytes(content[start : start + 4], "big") + len(added)).to_bytes(4, "big")
    return bytes(content[: at + 8] + added + content[at + 8 :])


def test_colors_of_the_primary_picture_are_obeyed_and_not_those_of_another() -> None:
    stream = boxes.av1(scene())
    properties = [boxes.nclx(REC_2020, PQ), boxes.ispe(96, 64), boxes.PIXI, boxes.av1c(subsampled=False), boxes.nclx(SRGB, 8)]
    body = boxes.avif([boxes.Item(b"av01", stream, (2, 3, 4, 5)), boxes.Item(b"av01", stream, (1, 2, 3, 4), hidden=True)], properties)
    ideal = code_points.in_srgb(np.asarray(scene()) / 255, SRGB, 8)
    assert np.abs(pixels(body) - ideal).mean() < LOSSY_MEAN


def test_colors_of_the_stream_are_obeyed_where_the_container_states_none() -> None:
    stream = boxes.av1(scene())
    header = av1.sequence_header(stream)
    assert header is not None
    assert (header.primaries, header.transfer, header.full_range) == (SRGB, 13, True)
    # Primaries, transfer and matrix are three bytes in a row, at any bit.
    bits = f"{int.from_bytes(stream[:32], 'big'):0256b}"
    at = bits.index(f"{1:08b}{13:08b}{6:08b}")
    bits = bits[: at + 8] + f"{8:08b}" + bits[at + 16 :]
    stream = int(bits, 2).to_bytes(32, "big") + stream[32:]
    properties = [boxes.ispe(96, 64), boxes.PIXI, boxes.av1c(subsampled=False)]
    body = boxes.avif([boxes.Item(b"av01", stream, (1, 2, 3))], properties)
    ideal = code_points.in_srgb(np.asarray(scene()) / 255, SRGB, 8)
    assert np.abs(pixels(body) - ideal).mean() < LOSSY_MEAN


@pytest.mark.parametrize("encode", [code_points.avif, code_points.heic], ids=["avif", "heic"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("value_range", ["full", "limited"])
def test_picture_in_every_matrix_looks_as_its_colors(value_range: str, subsampling: str, encode: Callable[..., bytes]) -> None:
    """The same stream in another matrix has other colors, which arithmetic gives: only the matrix of its encoder gives the scene."""
    smooth = scene().resize((24, 16)).resize((96, 64), Image.Resampling.BICUBIC)
    body = encode(smooth, subsampling=subsampling, range=value_range)
    full = value_range == "full"
    luma_weights = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
    encoded = _to_ycbcr(np.asarray(smooth).astype(float), *luma_weights[6])
    for matrix, weights in luma_weights.items():
        found = pixels(code_points.with_nclx(body, SRGB, 13, matrix, full=full))
        assert np.abs(found - _to_rgb(encoded, *weights)).mean() < (LOSSY_MEAN if subsampling == "4:4:4" else 4), matrix


def _to_ycbcr(rgb: Levels, red: float, blue: float) -> Levels:
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    return np.stack([luma, (rgb[..., 2] - luma) / (2 * (1 - blue)), (rgb[..., 0] - luma) / (2 * (1 - red))], axis=-1)


def _to_rgb(ycbcr: Levels, red: float, blue: float) -> Levels:
    luma, cb, cr = np.moveaxis(ycbcr, -1, 0)
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    return np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], axis=-1).clip(0, 255)


# The whole way of a rendition.


async def test_intermediate_of_coded_colors_looks_as_its_original() -> None:
    levels = palette() * 0.4 + 0.3
    for chunks in ([GAMMA], [gama(1 / 2.2), chrm(DISPLAY_P3)], [cicp(SRGB, PQ)], [cicp(REC_2020, HLG)]):
        body = code_points.png(levels, chunks, 16)
        file, info = opened(body)
        intermediate = memoryview(encode_intermediate(load_whole(file, info), halved=False))
        plan = Plan.whole(27, 27, 27, 27)
        found = load_still(ImageFile(intermediate, intermediate, "", info), info, plan, profile="srgb").numpy().astype(float)
        assert np.abs(found - pixels(body)).mean() < 3, chunks


async def test_overlay_with_coded_colors_has_them_on_every_picture(pool: RenderPool, tmp_path: Path) -> None:
    gray = np.full((40, 60, 3), 128 / 255)
    overlay = written(tmp_path, code_points.png(gray, [GAMMA]), "overlay")
    expected = code_points.in_srgb(gray, SRGB, 8)[0, 0]
    for name, body in (
        ("plain", images.rgb_png(120, 80)),
        ("linear", code_points.png(np.full((80, 120, 3), 0.2), [GAMMA])),
        ("pq", code_points.png(np.full((80, 120, 3), 0.4), [cicp(REC_2020, PQ)])),
    ):
        path = written(tmp_path, body, name)
        for option in ("", ",profile=keep", ",profile=p3"):
            spelling = f"overlay={'a' * 32}:center:0.5{option}"
            image = images.decode((await rendered(pool, path, spelling, "png", overlay=overlay)).body)
            seen = reference.to_srgb(image, image.info.get("icc_profile")).convert("RGB").getpixel((60, 40))
            assert np.abs(np.array(seen) - expected).max() <= 3, (name, option)


@pytest.mark.parametrize("spelling", ["width=14", "rotate=90", "crop=5:5:12:12", "gamma=1.4", "grayscale=true", "width=54,enlarge=true"])
async def test_coded_colors_are_transformed_like_a_profile(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    levels = np.broadcast_to(palette()[13:14, 13:14], (27, 27, 3))
    profile = icc.make_profile(ColorSpace(_own(DISPLAY_P3), (1.0,)), gray=False)
    pictures = [
        images.decode((await rendered(pool, written(tmp_path, code_points.png(levels, chunks)), spelling, "png")).body).convert("RGB")
        for chunks in ([GAMMA, chrm(DISPLAY_P3)], [iccp(profile)])
    ]
    assert images.distance(*pictures) < 1


def _own(primaries: int) -> Primaries:
    return Primaries(*code_points.PRIMARIES[primaries])


# Profiles made for color spaces, and reading of broken files.


@given(
    st.sampled_from([number for number in code_points.PRIMARIES if number != 10]),
    st.sampled_from([(1.0,), (1.8,), (2.2,), (2.8,), (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)]),
    st.booleans(),
)
def test_profile_of_a_color_space_is_sound_and_maps_white_to_white(primaries: int, curve: tuple[float, ...], gray: bool) -> None:
    profile = icc.make_profile(ColorSpace(_own(primaries), curve), gray=gray)
    assert icc.trim(profile) == profile
    picture = Image.new("L" if gray else "RGB", (1, 1), "white")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    assert images.near(converted.getpixel((0, 0)), (255, 255, 255), 1)  # type: ignore[arg-type]


@given(st.binary(max_size=400), st.integers(0, 700), st.integers(1, 40))
def test_damaged_boxes_are_read_without_an_error(noise: bytes, start: int, length: int) -> None:
    body = bytearray(TILED)
    body[start : start + length] = noise[:length]
    isobmff.picture(bytes(body))
    isobmff.item_count(bytes(body))
    av1.sequence_header(noise)


TILED = boxes.tiled(2, 2, 64, [(200, 40, 40), (40, 160, 60)])


def test_tables_that_declare_more_than_they_hold_cost_nothing() -> None:
    """Reading stops at the end of the file, and after a number of entries that no picture has."""
    empty = boxes.box(b"meta", boxes.box(b"iref", *[boxes.reference(b"dimg", 1)[:-2] + b"\xff\xff"] * 5_000, version=0), version=0)
    full = boxes.box(b"meta", boxes.box(b"iref", *[boxes.reference(b"dimg", 1, *range(60_000))] * 50, version=0), version=0)
    for body in (empty, full):
        assert not isobmff.picture(body).premultiplied

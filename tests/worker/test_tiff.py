"""Every kind of TIFF comes out in the right colors, by arithmetic from TIFF 6.0, or is refused with the true reason."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pyvips
from PIL import Image

from service.errors import BrokenImageError, UnsupportedFormatError
from service.rendering.pool import RenderPool
from tests.support import code_points, images, tiffs
from tests.support.renders import check_words, probed, rendered, written
from tests.support.tiffs import (
    BLACK_IS_ZERO,
    CIELAB,
    ICCLAB,
    PALETTE,
    RATIONAL,
    RGB,
    SEPARATED,
    SHORT,
    WHITE_IS_ZERO,
    YCBCR,
    page,
    rgb_from_lab,
    tiff,
)

pytestmark = pytest.mark.anyio

Levels = npt.NDArray[np.float64]

WIDTH, HEIGHT = 32, 24
EXTRA_SAMPLES, COLOR_MAP, INK_SET, INKS = 338, 320, 332, 334
SUBSAMPLING, COEFFICIENTS, REFERENCE = 530, 529, 532
NO_MEANING, ASSOCIATED, UNASSOCIATED = 0, 1, 2


def more(*cases: object) -> list[object]:
    """Return further cases of a test for `make test-long`."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases]


def levels(bands: int) -> Levels:
    """Return smooth levels from 0 to 1, height × width × bands, different in every band."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([(x / WIDTH * (0.9 - 0.2 * band) + y / HEIGHT * (0.1 + 0.2 * band)) for band in range(bands)], axis=-1)


def whole(values: Levels, bits: int) -> npt.NDArray[np.unsignedinteger]:
    """Return levels as unsigned numbers of so many bits."""
    kinds: dict[int, type[np.unsignedinteger]] = {8: np.uint8, 16: np.uint16, 32: np.uint32}
    scaled: npt.NDArray[np.unsignedinteger] = np.rint(values * (2**bits - 1)).astype(kinds[max(8, bits)])
    return scaled


async def shown(pool: RenderPool, folder: Path, body: bytes, number: int = 0) -> Levels:
    """Return the pixels of a page of an original, 0 to 255, height × width × bands."""
    path = written(folder, body)
    info = (await probed(pool, path)).info
    picture = images.decode((await rendered(pool, path, f"frame={number}" if info.frames > 1 else "full", "png")).body)
    pixels = np.asarray(picture, float)
    assert info.alpha or picture.mode in {"L", "RGB"}
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def differ(one: Levels, other: Levels) -> float:
    """Return the mean difference of two pictures; gray is compared in each band."""
    bands = max(one.shape[2], other.shape[2])
    one, other = (np.repeat(pixels, bands, axis=2) if pixels.shape[2] == 1 else pixels for pixels in (one, other))
    assert one.shape == other.shape
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("layout", ["strips", "big-endian", *more("tiles", "BigTIFF", "Deflate", "PackBits")])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
async def test_gray_of_any_bits(pool: RenderPool, tmp_path: Path, photometric: int, bits: int, layout: str) -> None:
    samples = whole(levels(1), bits)
    order = ">" if layout == "big-endian" else "<"
    compression = {"Deflate": 8, "PackBits": 32_773}.get(layout, 1)
    body = tiff(
        page(samples, photometric, bits=bits, order=order, compression=compression, tiled=layout == "tiles"),
        order=order,
        big=layout == "BigTIFF",
    )
    expected = samples / (2**bits - 1) * 255
    assert differ(await shown(pool, tmp_path, body), 255 - expected if photometric == WHITE_IS_ZERO else expected) < 0.6


@pytest.mark.parametrize(("planar", "bits"), [(False, 8), *more((True, 8), (False, 16), (True, 16))])
@pytest.mark.parametrize("extra", [(), (NO_MEANING,), (UNASSOCIATED,), (ASSOCIATED,), (NO_MEANING, UNASSOCIATED), (ASSOCIATED, NO_MEANING)])
@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, WHITE_IS_ZERO, RGB])
async def test_additional_samples_are_alpha_only_if_they_say_so(
    pool: RenderPool, tmp_path: Path, photometric: int, extra: tuple[int, ...], *, planar: bool, bits: int
) -> None:
    count = 3 if photometric == RGB else 1
    colors, others = levels(count), 0.25 + 0.75 * levels(3)[:, :, 1 : 1 + len(extra)]
    alpha = next((others[:, :, index : index + 1] for index, meaning in enumerate(extra) if meaning != NO_MEANING), None)
    visible = 1 - colors if photometric == WHITE_IS_ZERO else colors
    multiplied = colors * alpha if ASSOCIATED in extra and alpha is not None else colors
    if photometric == WHITE_IS_ZERO and ASSOCIATED in extra:
        pytest.skip("what multiplied alpha means where zero is white is not specified")
    if photometric == BLACK_IS_ZERO and ASSOCIATED in extra and planar and bits == 16:
        pytest.skip("refused: see below")
    tags: Mapping[int, tuple[int, Sequence[int]]] = {EXTRA_SAMPLES: (SHORT, list(extra))} if extra else {}
    body = tiff(page(whole(np.concatenate([multiplied, others], axis=-1), bits), photometric, planar=planar, extra=tags))
    expected = 255 * (visible if alpha is None else np.concatenate([visible, alpha], axis=-1))
    assert differ(await shown(pool, tmp_path, body), expected) < 1


async def test_fourth_sample_of_rgb_without_a_label_is_alpha(pool: RenderPool, tmp_path: Path) -> None:
    samples = whole(levels(4), 8)
    assert differ(await shown(pool, tmp_path, tiff(page(samples, RGB))), samples.astype(float)) < 0.5


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alpha", [False, True])
async def test_palette(pool: RenderPool, tmp_path: Path, bits: int, alpha: bool) -> None:
    if alpha and bits < 8:
        pytest.skip("samples of a pixel would share a byte")
    colors = np.random.default_rng(1).integers(0, 65_536, (2**bits, 3))
    samples = whole(levels(2 if alpha else 1), bits)
    extra = {COLOR_MAP: (SHORT, colors.T.ravel().tolist())} | ({EXTRA_SAMPLES: (SHORT, [UNASSOCIATED])} if alpha else {})
    expected = colors[samples[:, :, 0]] / 257
    body = tiff(page(samples, PALETTE, bits=bits, extra=extra))
    assert differ(await shown(pool, tmp_path, body), np.concatenate([expected, samples[:, :, 1:]], axis=-1)) < 0.6


def ycbcr(rgb: Levels, red: float = 0.299, blue: float = 0.114) -> Levels:
    """Return Y, Cb and Cr, 0 to 255, of R, G and B, 0 to 255 (TIFF 6.0 §21)."""
    luma = red * rgb[:, :, 0] + (1 - red - blue) * rgb[:, :, 1] + blue * rgb[:, :, 2]
    chroma = ((rgb[:, :, 2] - luma) / (2 - 2 * blue), (rgb[:, :, 0] - luma) / (2 - 2 * red))
    return np.stack([luma, *(band + 128 for band in chroma)], axis=-1)


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("planar", [False, True])
async def test_ycbcr_with_color_in_every_pixel(pool: RenderPool, tmp_path: Path, planar: bool, compression: int) -> None:
    rgb = levels(3) * 255
    samples = np.rint(ycbcr(rgb)).astype(np.uint8)
    body = tiff(page(samples, YCBCR, planar=planar, compression=compression, extra={SUBSAMPLING: (SHORT, [1, 1])}))
    assert differ(await shown(pool, tmp_path, body), rgb) < 1


async def test_ycbcr_of_other_coefficients_and_of_the_range_of_video(pool: RenderPool, tmp_path: Path) -> None:
    """ITU-R BT.709: luma from 16 to 235, and chroma from 16 to 240."""
    rgb = levels(3) * 255
    full = ycbcr(rgb, 0.2126, 0.0722)
    video = np.stack([16 + full[:, :, 0] * 219 / 255, *(128 + (full[:, :, band] - 128) * 224 / 254 for band in (1, 2))], axis=-1)
    extra = {
        SUBSAMPLING: (SHORT, [1, 1]),
        COEFFICIENTS: (RATIONAL, [2126, 10_000, 7152, 10_000, 722, 10_000]),
        REFERENCE: (RATIONAL, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]),
    }
    body = tiff(page(np.rint(video).astype(np.uint8), YCBCR, extra=extra))
    assert differ(await shown(pool, tmp_path, body), rgb) < 1.5


def data_units(samples: npt.NDArray[np.uint8], across: int, down: int) -> bytes:
    """Return YCbCr in units of some samples of Y and one of Cb and Cr each (TIFF 6.0 §21)."""
    units = bytearray()
    for top in range(0, samples.shape[0], down):
        for left in range(0, samples.shape[1], across):
            block = samples[top : top + down, left : left + across]
            units += block[:, :, 0].tobytes() + bytes(int(block[:, :, band].mean()) for band in (1, 2))
    return bytes(units)


@pytest.mark.parametrize("factors", [(2, 2), (2, 1), (1, 2), (4, 1), (4, 2), (4, 4), None])
async def test_ycbcr_with_color_in_some_pixels(pool: RenderPool, tmp_path: Path, factors: tuple[int, int] | None) -> None:
    """Without the tag, the factors are 2 and 2."""
    rgb = levels(3) * 255
    samples = np.rint(ycbcr(rgb)).astype(np.uint8)
    tags, _ = page(samples, YCBCR, extra={SUBSAMPLING: (SHORT, list(factors))} if factors else {})
    units = data_units(samples, *(factors or (2, 2)))
    assert differ(await shown(pool, tmp_path, tiff((tags, [units]))), rgb) < 6
    with pytest.raises(BrokenImageError):
        await probed(pool, written(tmp_path, tiff((tags, [units[: len(units) // 2]]))))


def lab() -> Levels:
    """Return L* from 0 to 100, and a* and b* of moderate colors."""
    shares = levels(3)
    return np.stack([15 + 70 * shares[:, :, 0], 40 * shares[:, :, 1] - 20, 40 * shares[:, :, 2] - 25], axis=-1)


def cielab_8(values: Levels) -> npt.NDArray[np.uint8]:
    signed = np.rint(values[:, :, 1:]).astype(np.int8).view(np.uint8)
    return np.concatenate([np.rint(values[:, :, :1] * 2.55).astype(np.uint8), signed], axis=-1)


def cielab_16(values: Levels) -> npt.NDArray[np.uint16]:
    signed = np.rint(values[:, :, 1:] * 256).astype(np.int16).view(np.uint16)
    return np.concatenate([np.rint(values[:, :, :1] * 655.35).astype(np.uint16), signed], axis=-1)


LABS: dict[str, Callable[[Levels], tuple[npt.NDArray[np.generic], int]]] = {
    "CIELab, 8 bits": lambda values: (cielab_8(values), CIELAB),
    "CIELab, 16 bits": lambda values: (cielab_16(values), CIELAB),
    "ICCLab, 8 bits": lambda values: (np.rint(values * [2.55, 1, 1] + [0, 128, 128]).astype(np.uint8), ICCLAB),
    "ICCLab, 16 bits": lambda values: (np.rint(values * [652.8, 256, 256] + [0, 32_768, 32_768]).astype(np.uint16), ICCLAB),
}


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", LABS)
async def test_lab(pool: RenderPool, tmp_path: Path, kind: str, planar: bool) -> None:
    samples, photometric = LABS[kind](lab())
    body = tiff(page(samples, photometric, planar=planar))
    assert differ(await shown(pool, tmp_path, body), rgb_from_lab(lab())) < 1


@pytest.mark.parametrize("planar", [False, True])
async def test_lab_in_floating_point_is_relative_to_d65_as_libvips_writes_it(pool: RenderPool, tmp_path: Path, planar: bool) -> None:
    image = pyvips.Image.new_from_buffer(images.rgb_png(WIDTH, HEIGHT), "").colourspace("lab")
    body = tiff(page(image.numpy(), CIELAB, planar=planar))
    assert differ(await shown(pool, tmp_path, body), np.asarray(images.picture(WIDTH, HEIGHT), float)) < 1


@pytest.mark.parametrize("kind", ["CIELab, 8 bits", "CIELab, 16 bits", "ICCLab, 8 bits", "ICCLab, 16 bits"])
async def test_lab_with_alpha(pool: RenderPool, tmp_path: Path, kind: str) -> None:
    samples, photometric = LABS[kind](lab())
    alpha = whole(levels(1), samples.dtype.itemsize * 8)
    body = tiff(page(np.concatenate([samples, alpha], axis=-1), photometric, extra={EXTRA_SAMPLES: (SHORT, [UNASSOCIATED])}))
    expected = np.concatenate([rgb_from_lab(lab()), levels(1) * 255], axis=-1)
    assert differ(await shown(pool, tmp_path, body), expected) < 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("spots", [0, 2])
async def test_cmyk_with_or_without_other_inks(pool: RenderPool, tmp_path: Path, bits: int, planar: bool, spots: int) -> None:
    """The colors are those of a CMYK JPEG; spot inks are not shown."""
    samples = whole(levels(4 + spots), bits)
    extra = {INK_SET: (SHORT, [1])} | ({EXTRA_SAMPLES: (SHORT, [NO_MEANING] * spots)} if spots else {})
    plain = io.BytesIO()
    Image.fromarray(whole(levels(4), 8), "CMYK").save(plain, "TIFF")
    expected = await shown(pool, tmp_path, plain.getvalue())
    assert differ(await shown(pool, tmp_path, tiff(page(samples, SEPARATED, planar=planar, extra=extra))), expected) < 1
    assert differ(expected[:3, :3], np.full((3, 3, 3), 255.0)) < 30


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "tiff_lzw", "jpeg", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
async def test_compressions_of_pillow(pool: RenderPool, tmp_path: Path, mode: str, compression: str) -> None:
    picture = images.picture(64, 48).convert(mode)
    if (compression in {"group3", "group4", "tiff_ccitt"}) != (mode == "1"):
        pytest.skip("for pictures of one bit only")
    body, plain = io.BytesIO(), io.BytesIO()
    picture.save(body, "TIFF", compression=compression)
    picture.save(plain, "TIFF")
    assert differ(await shown(pool, tmp_path, body.getvalue()), await shown(pool, tmp_path, plain.getvalue())) < 6


# Files that cannot be shown are refused by name.

# Every photometric interpretation with every sample format (tag 339) and number of bits: shown in its colors, or refused with the reason.

UNSIGNED, SIGNED, FLOATING, UNDEFINED = 1, 2, 3, 4
TYPES: dict[tuple[int, int], type[np.generic]] = {
    (UNSIGNED, 8): np.uint8, (UNSIGNED, 16): np.uint16, (UNSIGNED, 32): np.uint32, (UNSIGNED, 64): np.uint64,
    (SIGNED, 8): np.int8, (SIGNED, 16): np.int16, (SIGNED, 32): np.int32, (SIGNED, 64): np.int64,
    (FLOATING, 16): np.float16, (FLOATING, 32): np.float32, (FLOATING, 64): np.float64,
    (UNDEFINED, 8): np.uint8, (UNDEFINED, 16): np.uint16, (UNDEFINED, 32): np.uint32,
}  # fmt: skip
BANDS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
SHOWN = {
    *itertools.product((WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATED, CIELAB, ICCLAB), (UNSIGNED, UNDEFINED), (8, 16)),
    *itertools.product((PALETTE, YCBCR), (UNSIGNED, UNDEFINED), (8,)),
    # a* and b* are signed, and the bits of an index are unambiguous.
    *itertools.product((CIELAB, ICCLAB), (SIGNED,), (8, 16)),
    (PALETTE, SIGNED, 8),
    # Linear light, and L*, a* and b* themselves.
    *itertools.product((RGB, CIELAB, ICCLAB), (FLOATING,), (32,)),
}


def of_sample_format(photometric: int, sample_format: int, bits: int, order: str) -> tuple[bytes, Levels]:
    """Return a TIFF, and the colors that it has if samples of its kind have a meaning."""
    kind, bands, values = TYPES[sample_format, bits], BANDS[photometric], levels(BANDS[photometric])
    extra: dict[int, tuple[int, Sequence[int]]] = {339: (SHORT, [sample_format] * bands)}
    most = 1 if sample_format == FLOATING else 2 ** (bits - (sample_format == SIGNED)) - 1
    samples = (values * most).astype(kind)
    expected = 255 * values
    if photometric == WHITE_IS_ZERO:
        expected = 255 * (1 - values)
    elif photometric == RGB and sample_format == FLOATING:
        expected = code_points.encoded_srgb(values)
    elif photometric == PALETTE:
        samples = (levels(1) * 15).astype(kind)
        table = np.linspace(0, 65_535, 2 ** min(bits, 8) * 3).astype(int)
        extra |= {COLOR_MAP: (SHORT, table.tolist())}
        expected = table.reshape(3, -1).T[samples[:, :, 0].astype(int)] / 257
    elif photometric == SEPARATED:
        expected = 255 * (1 - values[:, :, :3]) * (1 - values[:, :, 3:])
    elif photometric == YCBCR:
        samples = np.rint(ycbcr(values * 255)).astype(kind)
        extra |= {SUBSAMPLING: (SHORT, [1, 1])}
    elif photometric in {CIELAB, ICCLAB}:
        expected = rgb_from_lab(lab())
        if sample_format == FLOATING:
            # Only libvips writes such files; it takes the white of D65.
            image = pyvips.Image.new_from_buffer(images.rgb_png(WIDTH, HEIGHT), "").colourspace("lab")
            samples, expected = image.numpy().astype(kind), np.asarray(images.picture(WIDTH, HEIGHT), float)
        elif bits in {8, 16}:
            name = f"{'CIELab' if photometric == CIELAB else 'ICCLab'}, {bits} bits"
            samples = LABS[name](lab())[0].astype(kind)
    return tiff(page(samples, photometric, order=order, extra=extra), order=order), expected


@pytest.mark.parametrize("order", ["<", *more(">")])
@pytest.mark.parametrize("photometric", BANDS)
async def test_every_sample_format_is_shown_in_its_colors_or_refused(
    pool: RenderPool, tmp_path: Path, photometric: int, order: str
) -> None:
    for sample_format, bits in TYPES:
        body, expected = of_sample_format(photometric, sample_format, bits, order)
        if (photometric, sample_format, bits) in SHOWN:
            # Inks have no exact colors.
            tolerance = 40 if photometric == SEPARATED else 1.5
            assert differ(await shown(pool, tmp_path, body), expected) < tolerance, (sample_format, bits)
        else:
            with pytest.raises(UnsupportedFormatError) as caught:
                await shown(pool, tmp_path, body)
            check_words(caught.value)
            assert caught.value.received, (sample_format, bits)


SOME = whole(levels(3), 8)


def with_tags(tags: Mapping[int, tuple[int, Sequence[int]]], samples: npt.NDArray[np.generic] = SOME, photometric: int = RGB) -> bytes:
    return tiff(page(samples, photometric, extra=tags))


REFUSED = {
    "old-style JPEG compression (6)": with_tags({259: (SHORT, [6])}),
    "JBIG compression (9)": with_tags({259: (SHORT, [9])}),
    "JBIG compression (34661)": with_tags({259: (SHORT, [34_661])}),
    "JPEG 2000 compression (34712)": with_tags({259: (SHORT, [34_712])}),
    "LERC compression (34887)": with_tags({259: (SHORT, [34_887])}),
    "lossy JPEG compression (34892)": with_tags({259: (SHORT, [34_892])}),
    "JPEG XL compression (50002)": with_tags({259: (SHORT, [50_002])}),
    "an unknown compression (99)": with_tags({259: (SHORT, [99])}),
    "a transparency mask": tiff(page(whole(levels(1), 1), tiffs.MASK, bits=1)),
    "ITU Lab colors": tiff(page(SOME, tiffs.ITULAB)),
    "the unprocessed mosaic of a camera's sensor": tiff(page(whole(levels(1), 16), tiffs.FILTER_ARRAY)),
    "the unprocessed linear values of a camera's sensor": tiff(page(SOME, tiffs.LINEAR_RAW)),
    "the unknown photometric interpretation 99": tiff(page(SOME, 99)),
    "inks other than cyan, magenta, yellow and black": with_tags({INK_SET: (SHORT, [2]), INKS: (SHORT, [3])}, photometric=SEPARATED),
    "1 samples per pixel where 3 are needed": tiff(page(whole(levels(1), 8), CIELAB)),
    "samples of 4 bits": tiff(page(whole(levels(3), 4), RGB, bits=4)),
    "samples of 12 bits": with_tags({258: (SHORT, [12])}, whole(levels(1), 8), BLACK_IS_ZERO),
    "samples of 5 and 6 bits": with_tags({258: (SHORT, [5, 6, 5])}),
    "samples of 64 bits": tiff(page(levels(3), RGB)),
    "floating-point samples of 16 bits": tiff(page(levels(3).astype(np.float16), RGB)),
    "separate planes of tiles, of subsampled colors, or of a palette and alpha": tiff(page(SOME, RGB, planar=True, tiled=True)),
    "separate planes of 16 bits with associated alpha": tiff(
        page(whole(levels(2), 16), BLACK_IS_ZERO, planar=True, extra={EXTRA_SAMPLES: (SHORT, [ASSOCIATED])})
    ),
    "1 bands of uint, b-w": tiff(page(whole(levels(1), 32), BLACK_IS_ZERO)),
    "3 bands of char, srgb": tiff(page((levels(3) * 100).astype(np.int8), RGB)),
    "1 bands of float, b-w": tiff(page(levels(1).astype(np.float32), BLACK_IS_ZERO)),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_tiff_that_cannot_be_shown_is_refused_with_the_true_reason(pool: RenderPool, tmp_path: Path, reason: str) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        await probed(pool, written(tmp_path, REFUSED[reason]))
    check_words(caught.value)
    assert caught.value.received == reason


@pytest.mark.parametrize("compression", [5, 7, 8])
async def test_broken_data_of_a_supported_compression_is_broken(pool: RenderPool, tmp_path: Path, compression: int) -> None:
    tags, _ = page(SOME, RGB)
    with pytest.raises(BrokenImageError):
        await probed(pool, written(tmp_path, tiff(({**tags, 259: (SHORT, [compression])}, [b"no image data at all"]))))


# Pages.


async def test_pages_of_different_colors_and_one_size(pool: RenderPool, tmp_path: Path) -> None:
    gray, rgb, rgba = whole(levels(1), 8), whole(levels(3), 8), whole(levels(4), 8)
    body = tiff(
        page(gray, BLACK_IS_ZERO),
        page(rgba, RGB, extra={EXTRA_SAMPLES: (SHORT, [UNASSOCIATED])}),
        page(whole(levels(1), 1), WHITE_IS_ZERO, bits=1),
        page(cielab_8(lab()), CIELAB),
        page(whole(levels(3), 16), RGB),
        page(rgb, RGB, planar=True),
        page(np.rint(ycbcr(rgb.astype(float))).astype(np.uint8), YCBCR, planar=True, extra={SUBSAMPLING: (SHORT, [1, 1])}),
    )
    expected = [gray, rgba, 255 * (1 - whole(levels(1), 1)), rgb_from_lab(lab()), rgb, rgb, rgb]
    for number, pixels in enumerate(expected):
        assert differ(await shown(pool, tmp_path, body, number), np.asarray(pixels, float)) < 1.5, number
    info = (await probed(pool, written(tmp_path, body))).info
    assert (info.frames, info.alpha) == (len(expected), True)


async def test_gray_page_before_a_cmyk_page(pool: RenderPool, tmp_path: Path) -> None:
    gray, cmyk = whole(levels(1), 8), whole(levels(4), 8)
    path = written(tmp_path, tiff(page(gray, BLACK_IS_ZERO), page(cmyk, SEPARATED)))
    found = await probed(pool, path)
    assert (found.info.frames, found.info.alpha) == (2, False)
    assert found.placeholder.color == found.placeholder.color[:3] + 2 * found.placeholder.color[1:3]
    plain = io.BytesIO()
    Image.fromarray(cmyk, "CMYK").save(plain, "TIFF")
    assert differ(await shown(pool, tmp_path, path.read_bytes(), 1), await shown(pool, tmp_path, plain.getvalue())) < 0.5


async def test_page_of_an_unsupported_kind_is_named_wherever_it_is(pool: RenderPool, tmp_path: Path) -> None:
    body = tiff(page(SOME, RGB), page(SOME, RGB, extra={259: (SHORT, [34_712])}))
    with pytest.raises(UnsupportedFormatError, match="JPEG 2000 compression"):
        await probed(pool, written(tmp_path, body))


async def test_thumbnails_in_sub_directories_are_no_pages(pool: RenderPool, tmp_path: Path) -> None:
    tags, pieces = page(SOME, RGB)
    body = bytearray(tiff(({**tags, 330: (tiffs.LONG, [0])}, pieces), page(whole(levels(1), 8), BLACK_IS_ZERO)))
    # Let the second directory be a sub-directory of the first, and end the list of pages there.
    first = struct.unpack_from("<I", body, 4)[0]
    count = struct.unpack_from("<H", body, first)[0]
    second = struct.unpack_from("<I", body, first + 2 + 12 * count)[0]
    entry = next(at for at in range(first + 2, first + 2 + 12 * count, 12) if struct.unpack_from("<H", body, at)[0] == 330)
    struct.pack_into("<I", body, entry + 8, second)
    struct.pack_into("<I", body, first + 2 + 12 * count, 0)
    path = written(tmp_path, bytes(body))
    assert (await probed(pool, path)).info.frames == 1
    assert differ(await shown(pool, tmp_path, bytes(body)), SOME.astype(float)) < 0.5


@pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")
async def test_tiffs_of_the_corpus_of_faults(pool: RenderPool, tmp_path: Path) -> None:
    faults = {path.name: path.read_bytes() for path in images.corpus_files("faults")}
    body = faults["tiff-ycbcr-444.tif"]
    expected = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), float)
    assert differ(await shown(pool, tmp_path, body), expected) < 1
    body = faults["tiff-cielab.tif"]
    stored = np.asarray(Image.open(io.BytesIO(body)), float)
    values = np.concatenate([stored[:, :, :1] / 2.55, (stored[:, :, 1:3] + 128) % 256 - 128], axis=-1)
    assert differ(await shown(pool, tmp_path, body), rgb_from_lab(values)) < 1
    with pytest.raises(UnsupportedFormatError, match="old-style JPEG"):
        await probed(pool, written(tmp_path, faults["libvips__ojpeg-tile.tif"]))

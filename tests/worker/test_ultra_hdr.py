"""The description of a gain map: libvips' own reader finds the same numbers in a rendition, and a hostile one costs only the gain map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image

from service.rendering.pool import RenderPool
from tests.support import gain_maps, images
from tests.support.gain_maps import RDF, encode_jpeg, gain_map_jpeg, hdrgm, insert, iso, iso_fractions, levels, segment, stops_field
from tests.support.renders import HEADER_BYTES, HEADER_CPU_SECONDS, Spent, probed, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 240, 160
FIELDS = (
    "max-content-boost",
    "min-content-boost",
    "gamma",
    "offset-sdr",
    "offset-hdr",
    "hdr-capacity-min",
    "hdr-capacity-max",
    "use-base-cg",
)

PICTURE = encode_jpeg(images.picture(WIDTH, HEIGHT))
GAINS = levels(stops_field(WIDTH, HEIGHT))
LOW, HIGH = [-0.5], [3.0]


def gain_map(*segments: bytes, gains: Any = GAINS, **options: Any) -> bytes:
    """Return the JPEG of a gain map; options: of Pillow."""
    return insert(encode_jpeg(Image.fromarray(gains), 90, **options), *segments)


def photo(*segments: bytes, **options: Any) -> bytes:
    return gain_maps.multi_picture(PICTURE, gain_map(*segments, **options))


def fields(body: bytes) -> list[Any]:
    """Return the numbers that libvips, with libultrahdr, reads from a gain map."""
    picture = pyvips.Image.uhdrload_buffer(body)
    return [picture.get(f"gainmap-{name}") for name in FIELDS]


DESCRIPTIONS: dict[str, tuple[list[float], list[float], float, tuple[float, float], tuple[float, float]]] = {
    "a phone's": ([0.0], [2.25], 1.0, (1 / 64, 1 / 64), (0.0, 2.25)),
    "darker parts": ([-1.5], [3.0], 1.0, (1 / 64, 1 / 64), (0.0, 3.0)),
    "no offsets": ([0.0], [2.0], 1.0, (0.0, 0.0), (0.0, 2.0)),
    "two offsets": ([0.0], [2.0], 1.0, (0.25, 0.0625), (0.0, 2.0)),
    "a gamma below 1": ([0.0], [2.0], 0.5, (1 / 64, 1 / 64), (0.0, 2.0)),
    "a gamma above 1": ([0.0], [4.0], 2.25, (1 / 64, 1 / 64), (0.0, 4.0)),
    "headrooms of their own": ([0.0], [3.0], 1.0, (1 / 64, 1 / 64), (0.5, 1.75)),
    "three colors": ([-0.5, 0.0, 0.25], [1.0, 2.0, 3.5], 1.5, (1 / 64, 1 / 32), (0.25, 3.0)),
}


@pytest.mark.parametrize("standard", ["ISO 21496-1", "XMP"])
@pytest.mark.parametrize("description", DESCRIPTIONS)
async def test_meaning_of_the_levels_is_the_same_in_the_rendition(
    pool: RenderPool, tmp_path: Path, description: str, standard: str
) -> None:
    low, high, gamma, offsets, headrooms = DESCRIPTIONS[description]
    gains = GAINS if len(low) == 1 else np.stack([GAINS] * 3, axis=-1)
    original = reference = photo(iso(low, high, gamma, offsets=offsets, headrooms=headrooms), gains=gains)
    if standard == "XMP":
        # libultrahdr reads no lists in XMP.
        named = {"OffsetSDR": [offsets[0]], "OffsetHDR": [offsets[1]], "HDRCapacityMin": [headrooms[0]], "HDRCapacityMax": [headrooms[1]]}
        original = photo(hdrgm(low, high, gamma, fields=named), gains=gains)
    body = (await rendered(pool, written(tmp_path, original), "width=120,rotate=90,dynamic_range=high")).body
    for found, expected in zip(fields(body), fields(reference), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


# Broken and hostile files.


def _with_numbers(index: int, fraction: tuple[int, int]) -> bytes:
    """Return a photo whose description has another fraction in one place."""
    fractions = [(0, 1), (3, 1), (-1, 2), (3, 1), (1, 1), (1, 64), (1, 64)]
    return photo(iso_fractions([*fractions[:index], fraction, *fractions[index + 1 :]]))


# In the order of ISO 21496-1.
NUMBERS = ("the lower headroom", "the upper headroom", "the minimum", "the maximum", "the gamma", "the first offset", "the second offset")
BAD_FRACTIONS = {"n/0": (1, 0), "0/0": (0, 0), "the largest": (0x7FFFFFFF, 1), "the smallest": (-0x80000000, 1), "-1": (-1, 1)}
TEXTS = ("nan", "inf", "-inf", "1e999", "-1e300", "", "1,5", "0x1p4")
XMP_NUMBERS = ("GainMapMin", "GainMapMax", "Gamma", "OffsetSDR", "OffsetHDR", "HDRCapacityMin", "HDRCapacityMax")


def _sized(width: int, height: int) -> bytes:
    """Return a gain map whose header states another size."""
    body = gain_map(iso(LOW, HIGH))
    frame = body.index(b"\xff\xc0") + 5
    return body[:frame] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + body[frame + 4 :]


def _placed(*places: tuple[int, int]) -> bytes:
    return gain_maps.indexed(PICTURE, gain_map(iso(LOW, HIGH)), places)


def _index_of(numbers: bytes) -> bytes:
    """Return a photo whose index is other bytes."""
    return insert(PICTURE, segment(0xE2, b"MPF\0" + numbers)) + gain_map(iso(LOW, HIGH))


MAP = gain_map(iso(LOW, HIGH))
CMYK = insert(encode_jpeg(Image.fromarray(GAINS).convert("CMYK")), iso(LOW, HIGH))
NUMBER_FAULTS: Mapping[str, bytes] = {
    **{f"{name} is {text}": _with_numbers(at, number) for at, name in enumerate(NUMBERS) for text, number in BAD_FRACTIONS.items()},
    **{f"{name} in XMP is {text!r}": photo(hdrgm(LOW, HIGH, fields={name: [text]})) for name in XMP_NUMBERS for text in TEXTS},
}
FAULTS: Mapping[str, bytes] = {
    **{name: NUMBER_FAULTS[name] for name in list(NUMBER_FAULTS)[::9]},
    "a list of ten numbers": photo(hdrgm(LOW, HIGH, fields={"GainMapMax": [1] * 10})),
    "a map larger than its picture": gain_map_jpeg(images.picture(WIDTH, HEIGHT), np.repeat(GAINS, 2, axis=0), iso(LOW, HIGH)),
    "a map of one pixel": photo(iso(LOW, HIGH), gains=GAINS[:1, :1]),
    "a map of one row": photo(iso(LOW, HIGH), gains=GAINS[:1]),
    "a map of another shape": photo(iso(LOW, HIGH), gains=GAINS[:, :40]),
    "a map of CMYK": gain_maps.multi_picture(PICTURE, CMYK),
    "a progressive map": photo(iso(LOW, HIGH), progressive=True),
    "a map that states 65,500 × 65,500": gain_maps.multi_picture(PICTURE, _sized(65_500, 65_500)),
    "a map that states no height": gain_maps.multi_picture(PICTURE, _sized(WIDTH, 0)),
    "a map that states more rows": gain_maps.multi_picture(PICTURE, _sized(120, HEIGHT)),
    "a map that is no JPEG": gain_maps.multi_picture(PICTURE, b"\xff\xd8" + iso(LOW, HIGH) + b"GIF89a" + bytes(100)),
    "half a map": gain_maps.multi_picture(PICTURE, MAP[: len(MAP) // 2]),
    "a map without pixels": gain_maps.multi_picture(PICTURE, MAP[: MAP.index(b"\xff\xda")]),
    "a map of noise": gain_maps.multi_picture(PICTURE, MAP[: MAP.index(b"\xff\xda") + 14] + bytes(range(256)) * 8),
    "the picture as its own map": _placed((1 << 20, -len(insert(PICTURE)))),
    "an offset beyond the end": _placed((len(MAP), len(MAP) + 1)),
    "the largest offset": _placed((len(MAP), 0xFFFFFFFF)),
    "the largest size": _placed((0xFFFFFFFF, 0)),
    "no size": _placed((0, 0)),
    "an index without a directory": _index_of(b"MM\0*"),
    "an index whose directory is outside": _index_of(b"MM\0*\xff\xff\xff\xff"),
    "an index of 65,535 entries": _index_of(b"II*\0\x08\0\0\0\xff\xff" + bytes(60_000)),
    "an index of unknown order": _index_of(b"XX\0*\0\0\0\x08"),
    "four billion pictures": _index_of(
        b"MM\0*\0\0\0\x08\0\2" + b"\xb0\1\0\4\0\0\0\1\xff\xff\xff\xff" + b"\xb0\2\0\7\0\0\0\x20\0\0\0\x2a" + bytes(64)
    ),
    "3,900 pictures": _placed(*[(len(MAP), 0)] * 3_900),
}


async def check_picture(pool: RenderPool, path: Path) -> None:
    """Check that the picture of a file is shown with and without its gain map, and that what is written of that is sound."""
    await probed(pool, path)
    found, expected = [(await rendered(pool, path, f"width=60,{more}")).body for more in ("dynamic_range=high", "profile=srgb")]
    assert np.array_equal(np.asarray(images.decode(found)), np.asarray(images.decode(expected)))
    if b"hdrgm:Version" in found:
        assert np.isfinite([number for numbers in fields(found) for number in np.ravel(numbers)]).all()
    assert images.decode((await rendered(pool, path, "width=60,dynamic_range=high", "avif")).body).size == (60, 40)


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_in_a_gain_map_leaves_the_picture_as_it_is(pool: RenderPool, tmp_path: Path, fault: str) -> None:
    await check_picture(pool, written(tmp_path, FAULTS[fault]))


@pytest.mark.long
@pytest.mark.parametrize("fault", NUMBER_FAULTS)
async def test_impossible_number_in_a_gain_map_leaves_the_picture_as_it_is(pool: RenderPool, tmp_path: Path, fault: str) -> None:
    await check_picture(pool, written(tmp_path, NUMBER_FAULTS[fault]))


_NESTED = f'<r:a xmlns:r="{RDF}">'.encode() + b"<r:a>" * 5_000 + b"x</r:a>" * 5_000 + b"</r:a>"
_ENTITIES = b"<!DOCTYPE x [<!ENTITY a0 'x'>%s]><x>&a7;</x>" % b"".join(
    b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 9)
)
COSTLY: Mapping[str, bytes] = {
    "a million segments": b"\xff\xd8" + b"\xff\xe5\0\2" * 1_000_000,
    "five thousand nested elements": b"\xff\xd8" + segment(0xE1, gain_maps.XMP + _NESTED) + gain_map()[2:],
    "entities": b"\xff\xd8" + segment(0xE1, gain_maps.XMP + _ENTITIES) + gain_map()[2:],
    "no marker for ten megabytes": b"\xff\xd8\xff\xe5\0\2" + bytes(10_000_000),
}


@pytest.mark.parametrize("cost", COSTLY)
async def test_search_for_a_gain_map_takes_little_time(pool: RenderPool, tmp_path: Path, cost: str) -> None:
    # The same bytes are listed as many pictures.
    second = COSTLY[cost]
    path = written(tmp_path, gain_maps.indexed(PICTURE, second, [(len(second), 0)] * 100))
    spent = Spent(pool)
    assert (await probed(pool, path)).info.dynamic_range == "standard"
    spent.check(2 * HEADER_CPU_SECONDS, HEADER_BYTES)

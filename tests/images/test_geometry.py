"""Geometry: tables of plans, and properties of the plan of any original and any transform."""

import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.errors import BadTransformError, TooManyPixelsError
from service.images.formats import Format
from service.images.geometry import Box, Plan, feasible_plan, make_plan
from service.images.info import ImageInfo, Limits
from service.images.options import COMPASS, MAX_PAD_PIXELS, MAX_SIDE_PIXELS, STRATEGIES, FocalPoint, Ratio, Region, Sides
from service.images.transform import Transform, parse
from tests.support import reference

originals = st.tuples(st.integers(1, 70_000), st.integers(1, 70_000))


def reduced(width: int, height: int) -> Ratio:
    shape = Fraction(width, height)
    return Ratio(shape.numerator, shape.denominator)


boxes = st.tuples(st.integers(1, MAX_SIDE_PIXELS), st.integers(1, MAX_SIDE_PIXELS))
parts_of_one = st.integers(0, 10_000).map(lambda number: number / 10_000)
gravities = st.sampled_from((*COMPASS, *STRATEGIES)) | st.builds(FocalPoint, parts_of_one, parts_of_one)
transforms: st.SearchStrategy[Transform] = st.one_of(
    st.builds(Transform, width=st.none() | st.integers(1, MAX_SIDE_PIXELS), height=st.none() | st.integers(1, MAX_SIDE_PIXELS)),
    st.builds(
        Transform,
        width=st.integers(1, MAX_SIDE_PIXELS),
        height=st.integers(1, MAX_SIDE_PIXELS),
        fit=st.sampled_from(("outside", "fill")),
    ),
    st.builds(
        Transform,
        width=st.integers(1, MAX_SIDE_PIXELS),
        height=st.integers(1, MAX_SIDE_PIXELS),
        fit=st.just("contain"),
        gravity=st.sampled_from(COMPASS),
    ),
    st.builds(
        Transform,
        width=st.integers(1, MAX_SIDE_PIXELS),
        height=st.integers(1, MAX_SIDE_PIXELS),
        fit=st.just("cover"),
        gravity=gravities,
    ),
    st.builds(
        Transform,
        width=st.none() | st.integers(1, MAX_SIDE_PIXELS // 100),
        ratio=st.builds(reduced, st.integers(1, 100), st.integers(1, 100)),
        fit=st.sampled_from(("cover", "contain", "fill")),
    ),
    st.builds(
        Transform,
        height=st.integers(1, MAX_SIDE_PIXELS // 100),
        ratio=st.builds(reduced, st.integers(1, 100), st.integers(1, 100)),
        fit=st.just("cover"),
        gravity=gravities,
    ),
)


def whole(original_width: int, original_height: int, width: int, height: int, **plan: Any) -> Plan:
    """Return the plan that scales a whole original, with other fields of `Plan`."""
    return msgspec.structs.replace(Plan.whole(original_width, original_height, width, height), **plan)


TABLE: list[tuple[tuple[int, int], str, Plan]] = [
    # one side, or none
    ((4032, 3024), "full", whole(4032, 3024, 4032, 3024)),
    ((4032, 3024), "width=640", whole(4032, 3024, 640, 480)),
    ((4032, 3024), "height=480", whole(4032, 3024, 640, 480)),
    ((3024, 4032), "width=640", whole(3024, 4032, 640, 853)),
    ((3024, 4032), "height=640", whole(3024, 4032, 480, 640)),
    ((1000, 667), "width=500", whole(1000, 667, 500, 334)),  # 333.5 is rounded half up
    ((1000, 665), "width=500", whole(1000, 665, 500, 333)),  # 332.5 too, though 332 is even
    ((1001, 3), "width=100", whole(1001, 3, 100, 1)),  # 0.3 is no side
    ((320, 240), "width=640", whole(320, 240, 320, 240)),
    ((320, 240), "height=640", whole(320, 240, 320, 240)),
    ((320, 240), "width=320", whole(320, 240, 320, 240)),
    # inside: whole, no larger than the box
    ((4032, 3024), "width=640,height=640", whole(4032, 3024, 640, 480)),
    ((3024, 4032), "width=640,height=640", whole(3024, 4032, 480, 640)),
    ((4032, 3024), "width=8192,height=300", whole(4032, 3024, 400, 300)),
    ((320, 240), "width=640,height=480", whole(320, 240, 320, 240)),
    ((321, 241), "width=100,height=100", whole(321, 241, 100, 75)),
    # outside: whole, no smaller than the box
    ((4032, 3024), "width=640,height=640,fit=outside", whole(4032, 3024, 853, 640)),
    ((3024, 4032), "width=640,height=640,fit=outside", whole(3024, 4032, 640, 853)),
    ((320, 240), "width=300,height=300,fit=outside", whole(320, 240, 320, 240)),
    ((320, 240), "width=640,height=20,fit=outside", whole(320, 240, 320, 240)),
    # fill: stretched to the box
    ((4032, 3024), "width=640,height=640,fit=fill", whole(4032, 3024, 640, 640)),
    ((400, 300), "width=100,height=300,fit=fill", whole(400, 300, 100, 300)),
    ((320, 240), "width=640,height=640,fit=fill", whole(320, 240, 240, 240)),  # the box shrinks until no side is stretched longer
    ((320, 240), "width=640,height=120,fit=fill", whole(320, 240, 320, 60)),
    # contain: whole, on a canvas of the box
    ((4000, 3000), "width=640,height=640,fit=contain", whole(4000, 3000, 640, 480, canvas=Box(0, 80, 640, 640))),
    ((3000, 4000), "width=640,height=640,fit=contain", whole(3000, 4000, 480, 640, canvas=Box(80, 0, 640, 640))),
    ((4000, 3000), "width=640,height=640,fit=contain,gravity=north", whole(4000, 3000, 640, 480, canvas=Box(0, 0, 640, 640))),
    ((4000, 3000), "width=640,height=640,fit=contain,gravity=southeast", whole(4000, 3000, 640, 480, canvas=Box(0, 160, 640, 640))),
    ((3000, 4000), "width=640,height=640,fit=contain,gravity=west", whole(3000, 4000, 480, 640, canvas=Box(0, 0, 640, 640))),
    ((3000, 4000), "width=640,height=640,fit=contain,gravity=northeast", whole(3000, 4000, 480, 640, canvas=Box(160, 0, 640, 640))),
    ((4000, 3000), "width=640,height=480,fit=contain", whole(4000, 3000, 640, 480)),
    ((320, 240), "width=640,height=480,fit=contain", whole(320, 240, 320, 240, canvas=Box(160, 120, 640, 480))),
    ((320, 240), "width=640,height=480,fit=contain,gravity=southwest", whole(320, 240, 320, 240, canvas=Box(0, 240, 640, 480))),
    ((101, 50), "width=51,height=30,fit=contain", whole(101, 50, 51, 25, canvas=Box(0, 2, 51, 30))),
    # cover: fills the box, cropped
    ((4000, 3000), "width=640,height=480,fit=cover", whole(4000, 3000, 640, 480)),
    ((4000, 3000), "width=480,height=480,fit=cover", whole(4000, 3000, 640, 480, crop=Box(80, 0, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover", whole(3000, 4000, 480, 640, crop=Box(0, 80, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=west", whole(4000, 3000, 640, 480, crop=Box(0, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=northeast", whole(4000, 3000, 640, 480, crop=Box(160, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=north", whole(4000, 3000, 640, 480, crop=Box(80, 0, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=south", whole(3000, 4000, 480, 640, crop=Box(0, 160, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=northwest", whole(3000, 4000, 480, 640, crop=Box(0, 0, 480, 480))),
    (
        (4000, 3000),
        "width=480,height=480,fit=cover,gravity=attention",
        whole(4000, 3000, 640, 480, crop=Box(80, 0, 480, 480), searched=True),
    ),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=entropy", whole(3000, 4000, 480, 640, crop=Box(0, 80, 480, 480), searched=True)),
    ((4000, 3000), "width=640,height=480,fit=cover,gravity=attention", whole(4000, 3000, 640, 480)),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:0:0", whole(4000, 3000, 640, 480, crop=Box(0, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:1:1", whole(4000, 3000, 640, 480, crop=Box(160, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:0.5:0.5", whole(4000, 3000, 640, 480, crop=Box(80, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:0.4:0.9", whole(4000, 3000, 640, 480, crop=Box(16, 0, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=focal:0.9:0.6", whole(3000, 4000, 480, 640, crop=Box(0, 144, 480, 480))),
    ((320, 240), "width=640,height=640,fit=cover", whole(320, 240, 320, 240, crop=Box(40, 0, 240, 240))),
    ((320, 240), "width=640,height=480,fit=cover", whole(320, 240, 320, 240)),
    ((101, 50), "width=25,height=25,fit=cover", whole(101, 50, 51, 25, crop=Box(13, 0, 25, 25))),
    # enlarge: nothing shrinks the box
    ((320, 240), "width=640,enlarge=true", whole(320, 240, 640, 480)),
    ((320, 240), "width=160,enlarge=true", whole(320, 240, 160, 120)),
    ((320, 240), "width=640,height=640,enlarge=true", whole(320, 240, 640, 480)),
    ((320, 240), "width=640,height=640,fit=outside,enlarge=true", whole(320, 240, 853, 640)),
    ((320, 240), "width=640,height=120,fit=fill,enlarge=true", whole(320, 240, 640, 120)),
    ((320, 240), "width=640,height=640,fit=cover,enlarge=true", whole(320, 240, 853, 640, crop=Box(106, 0, 640, 640))),
    ((320, 240), "width=640,height=640,fit=contain,enlarge=true", whole(320, 240, 640, 480, canvas=Box(0, 80, 640, 640))),
    # ratio: with one side it gives the other, as if both were given
    ((4000, 3000), "width=640,ratio=16:9", whole(4000, 3000, 640, 480, crop=Box(0, 60, 640, 360))),
    ((4000, 3000), "height=360,ratio=16:9", whole(4000, 3000, 640, 480, crop=Box(0, 60, 640, 360))),
    ((4000, 3000), "width=640,ratio=4:3", whole(4000, 3000, 640, 480)),
    ((4000, 3000), "width=640,ratio=191:100", whole(4000, 3000, 640, 480, crop=Box(0, 72, 640, 335))),
    ((4000, 3000), "width=480,ratio=1:1,gravity=west", whole(4000, 3000, 640, 480, crop=Box(0, 0, 480, 480))),
    ((4000, 3000), "width=480,ratio=1:1,gravity=attention", whole(4000, 3000, 640, 480, crop=Box(80, 0, 480, 480), searched=True)),
    ((4000, 3000), "width=640,ratio=1:1,fit=contain", whole(4000, 3000, 640, 480, canvas=Box(0, 80, 640, 640))),
    ((4000, 3000), "width=640,ratio=1:1,fit=fill", whole(4000, 3000, 640, 640)),
    ((320, 240), "width=640,ratio=1:1", whole(320, 240, 320, 240, crop=Box(40, 0, 240, 240))),
    ((320, 240), "width=640,ratio=1:1,enlarge=true", whole(320, 240, 853, 640, crop=Box(106, 0, 640, 640))),
    ((1000, 1000), "width=1280,ratio=191:100", whole(1000, 1000, 1000, 1000, crop=Box(0, 238, 1000, 524))),
    ((4000, 3000), "width=1,ratio=100:1", whole(4000, 3000, 1, 1)),
    # and without a side, the largest box of that shape in the picture, or around it
    ((4000, 3000), "ratio=16:9", whole(4000, 3000, 4000, 3000, crop=Box(0, 375, 4000, 2250))),
    ((4000, 3000), "ratio=1:1,gravity=focal:1:0", whole(4000, 3000, 4000, 3000, crop=Box(1000, 0, 3000, 3000))),
    ((4000, 3000), "ratio=4:3", whole(4000, 3000, 4000, 3000)),
    ((4000, 3000), "ratio=1:1,fit=contain", whole(4000, 3000, 4000, 3000, canvas=Box(0, 500, 4000, 4000))),
    ((4000, 3000), "ratio=2:1,fit=contain,gravity=west", whole(4000, 3000, 4000, 3000, canvas=Box(0, 0, 6000, 3000))),
    ((4000, 3000), "ratio=1:1,fit=fill", whole(4000, 3000, 3000, 3000)),
    ((3, 3), "ratio=100:1", whole(3, 3, 3, 3, crop=Box(0, 1, 3, 1))),
    ((400, 300), "rotate=90,ratio=1:1", Plan(region=Box(0, 0, 400, 300), width=300, height=400, angle=90.0, crop=Box(0, 50, 300, 300))),
    # crop: pixels unchanged, percent rounded at both edges
    ((400, 300), "crop=10:20:200:100", Plan(region=Box(10, 20, 200, 100), width=200, height=100)),
    ((400, 300), "crop=10:20:200:100,width=50", Plan(region=Box(10, 20, 200, 100), width=50, height=25)),
    ((400, 300), "crop=0:0:400:300", whole(400, 300, 400, 300)),
    ((400, 300), "crop=0p:0p:100p:100p", whole(400, 300, 400, 300)),
    ((400, 300), "crop=25p:50p:50p:50p", Plan(region=Box(100, 150, 200, 150), width=200, height=150)),
    ((101, 99), "crop=50p:50p:50p:50p", Plan(region=Box(51, 50, 50, 49), width=50, height=49)),
    ((3, 3), "crop=33.3p:0p:33.4p:100p", Plan(region=Box(1, 0, 1, 3), width=1, height=3)),
    ((3, 3), "crop=99.9p:99.9p:0.1p:0.1p", Plan(region=Box(2, 2, 1, 1), width=1, height=1)),
    (
        (400, 300),
        "crop=100:0:100:300,width=200,height=200,fit=cover",
        Plan(region=Box(100, 0, 100, 300), width=100, height=300, crop=Box(0, 100, 100, 100)),
    ),
    # rotate, flip: the box is that of the rotated picture
    ((400, 300), "rotate=90", Plan(region=Box(0, 0, 400, 300), width=300, height=400, angle=90.0)),
    ((400, 300), "rotate=-90", Plan(region=Box(0, 0, 400, 300), width=300, height=400, angle=270.0)),
    ((400, 300), "rotate=180,width=200", Plan(region=Box(0, 0, 400, 300), width=200, height=150, angle=180.0)),
    ((400, 300), "rotate=90,width=150", Plan(region=Box(0, 0, 400, 300), width=150, height=200, angle=90.0)),
    ((400, 300), "rotate=360", whole(400, 300, 400, 300)),
    ((400, 300), "rotate=30", Plan(region=Box(0, 0, 400, 300), width=496, height=460, angle=30.0)),
    ((100, 100), "rotate=45", Plan(region=Box(0, 0, 100, 100), width=141, height=141, angle=45.0)),
    ((100, 100), "rotate=45,width=282", Plan(region=Box(0, 0, 100, 100), width=141, height=141, angle=45.0)),
    ((400, 300), "flip=horizontal", Plan(region=Box(0, 0, 400, 300), width=400, height=300, flip="horizontal")),
    # a focal point moves with the picture: through crop, rotate and flip, and no further than the edge of the crop
    (
        (400, 300),
        "crop=200:0:200:300,width=100,height=100,fit=cover,gravity=focal:1:0.5",
        Plan(region=Box(200, 0, 200, 300), width=100, height=150, crop=Box(0, 25, 100, 100)),
    ),
    (
        (400, 300),
        "crop=0:0:400:150,width=100,height=100,fit=cover,gravity=focal:0.5:1",
        Plan(region=Box(0, 0, 400, 150), width=267, height=100, crop=Box(84, 0, 100, 100)),
    ),
    (
        (400, 300),
        "rotate=90,width=100,height=100,fit=cover,gravity=focal:0.1:0.5",
        Plan(region=Box(0, 0, 400, 300), width=100, height=133, angle=90.0, crop=Box(0, 0, 100, 100)),
    ),
    (
        (400, 300),
        "rotate=270,width=100,height=100,fit=cover,gravity=focal:0.1:0.5",
        Plan(region=Box(0, 0, 400, 300), width=100, height=133, angle=270.0, crop=Box(0, 33, 100, 100)),
    ),
    (
        (400, 300),
        "flip=horizontal,width=100,height=100,fit=cover,gravity=focal:0:0.5",
        Plan(region=Box(0, 0, 400, 300), width=133, height=100, flip="horizontal", crop=Box(33, 0, 100, 100)),
    ),
    (
        (300, 400),
        "flip=vertical,width=100,height=100,fit=cover,gravity=focal:0.5:0.1",
        Plan(region=Box(0, 0, 300, 400), width=100, height=133, flip="vertical", crop=Box(0, 33, 100, 100)),
    ),
    # pad: around the box, as in CSS
    ((400, 300), "pad=10", whole(400, 300, 400, 300, padded=Box(10, 10, 420, 320))),
    ((400, 300), "width=200,pad=1:2:3:4", whole(400, 300, 200, 150, padded=Box(4, 1, 206, 154))),
    (
        (400, 300),
        "width=100,height=100,fit=cover,pad=0:5",
        whole(400, 300, 133, 100, crop=Box(16, 0, 100, 100), padded=Box(5, 0, 110, 100)),
    ),
    (
        (400, 300),
        "width=100,height=100,fit=contain,pad=5",
        whole(400, 300, 100, 75, canvas=Box(0, 12, 100, 100), padded=Box(5, 5, 110, 110)),
    ),
    # the limits of options and of originals
    ((1, 1), "full", whole(1, 1, 1, 1)),
    ((1, 1), "width=8192,height=8192,fit=cover,gravity=focal:1:1", whole(1, 1, 1, 1)),
    ((1, 1), "width=8192,height=8192,fit=fill", whole(1, 1, 1, 1)),
    ((1, 1), "width=8192,height=8192,fit=contain", whole(1, 1, 1, 1, canvas=Box(4095, 4095, 8192, 8192))),
    ((1, 8000), "width=640,height=480,fit=cover,gravity=south", whole(1, 8000, 1, 8000, crop=Box(0, 7999, 1, 1))),
    ((65_500, 1), "width=1,height=8192", whole(65_500, 1, 1, 1)),
    ((65_500, 65_500), "width=8192,height=8192", whole(65_500, 65_500, 8192, 8192)),
    ((65_500, 32_750), "width=8192,height=8192,fit=outside", whole(65_500, 32_750, 16_384, 8192)),
    ((65_500, 100), "width=100,height=100,fit=cover,gravity=east", whole(65_500, 100, 65_500, 100, crop=Box(65_400, 0, 100, 100))),
]


@pytest.mark.parametrize(("original", "text", "expected"), TABLE, ids=[f"{row[0][0]}x{row[0][1]}-{row[1]}" for row in TABLE])
def test_plan_of_each_transform_in_the_table_is_the_expected_one(original: tuple[int, int], text: str, expected: Plan) -> None:
    assert make_plan(*original, parse(text)) == expected


@pytest.mark.parametrize(
    ("plan", "output"),
    [
        (whole(1, 1, 640, 480), (640, 480)),
        (whole(1, 1, 640, 480, crop=Box(80, 0, 470, 460)), (470, 460)),
        (whole(1, 1, 640, 480, canvas=Box(0, 80, 650, 660)), (650, 660)),
        (whole(1, 1, 640, 480, crop=Box(80, 0, 470, 460), padded=Box(1, 2, 480, 470)), (480, 470)),
    ],
)
def test_output_size_of_a_plan_is_that_of_its_crop_or_canvas(plan: Plan, output: tuple[int, int]) -> None:
    assert plan.output_size == output


def test_vector_original_grows_to_the_box_without_enlarge() -> None:
    assert make_plan(20, 10, parse("width=640"), vector=True).output_size == (640, 320)
    assert make_plan(20, 10, parse("full"), vector=True).output_size == (20, 10)
    assert make_plan(20, 10, parse("crop=0:0:10:10,width=500,height=500,fit=cover"), vector=True).output_size == (500, 500)


def test_plan_of_a_trimmed_original_uses_the_trimmed_part() -> None:
    left = Box(30, 40, 200, 100)
    assert make_plan(400, 300, parse("trim=10,width=100"), trimmed=left) == Plan(region=left, width=100, height=50)
    assert make_plan(400, 300, parse("trim=10,width=100")).region == Box(0, 0, 400, 300)


@pytest.mark.parametrize("crop", ["0:0:401:300", "0:0:400:301", "400:0:1:1", "0:300:1:1", "399:299:2:2", "500:500:10:10"])
def test_crop_outside_the_picture_is_a_bad_transform(crop: str) -> None:
    with pytest.raises(BadTransformError) as caught:
        make_plan(400, 300, parse(f"crop={crop}"))
    assert "400 x 300" in str(caught.value.expected)
    assert caught.value.remedy


@given(originals, transforms)
def test_plan_of_any_transform_enlarges_nothing_and_has_no_empty_side(original: tuple[int, int], transform: Transform) -> None:
    plan = make_plan(*original, transform)
    assert 1 <= plan.width <= original[0]
    assert 1 <= plan.height <= original[1]
    assert min(plan.output_size) >= 1


@given(originals, transforms)
def test_plan_of_any_transform_has_its_crop_and_its_picture_within_bounds(original: tuple[int, int], transform: Transform) -> None:
    plan = make_plan(*original, transform)
    if plan.crop is not None:
        assert transform.fit == "cover"
        assert plan.canvas is None
        assert 0 <= plan.crop.left <= plan.width - plan.crop.width
        assert 0 <= plan.crop.top <= plan.height - plan.crop.height
        assert plan.crop.width < plan.width or plan.crop.height < plan.height
    if plan.canvas is not None:
        assert transform.fit == "contain"
        assert 0 <= plan.canvas.left <= plan.canvas.width - plan.width
        assert 0 <= plan.canvas.top <= plan.canvas.height - plan.height
    assert plan.searched == (plan.crop is not None and transform.gravity in STRATEGIES)


@given(originals, transforms)
def test_plan_of_any_transform_but_fill_keeps_the_shape_within_half_a_pixel(original: tuple[int, int], transform: Transform) -> None:
    assume(transform.fit != "fill")
    plan = make_plan(*original, transform)
    # There is a scale at which both sides are exact within rounding, or have the minimum of one pixel.
    within = [
        (Fraction(2 * side - 1, 2 * whole), Fraction(2 * side + 1, 2 * whole))
        for side, whole in zip((plan.width, plan.height), original, strict=True)
    ]
    lowest = max(low if side > 1 else Fraction(0) for (low, _), side in zip(within, (plan.width, plan.height), strict=True))
    assert lowest <= min(high for _, high in within)


@given(originals, st.builds(reduced, st.integers(1, 100), st.integers(1, 100)))
def test_ratio_without_a_size_is_the_largest_crop_of_that_shape(original: tuple[int, int], ratio: Ratio) -> None:
    plan = make_plan(*original, Transform(ratio=ratio, fit="cover"))
    width, height = plan.output_size
    assert (plan.width, plan.height) == original
    assert width == original[0] or height == original[1]
    # Half a pixel of rounding.
    assert abs(width - height * ratio.value) <= max(ratio.value, Fraction(1)) / 2 or min(width, height) == 1


@given(originals, boxes, st.sampled_from(("cover", "contain", "fill")))
def test_ratio_with_a_side_is_the_same_as_the_box_that_it_gives(original: tuple[int, int], box: tuple[int, int], fit: Any) -> None:
    plan = make_plan(*original, Transform(width=box[0], height=box[1], fit=fit))
    for transform in (Transform(width=box[0], ratio=reduced(*box), fit=fit), Transform(height=box[1], ratio=reduced(*box), fit=fit)):
        assert make_plan(*original, transform) == plan


@given(originals, st.builds(reduced, st.integers(1, 100), st.integers(1, 100)))
def test_contain_with_a_ratio_and_no_size_is_the_smallest_box_around_the_picture(original: tuple[int, int], ratio: Ratio) -> None:
    plan = make_plan(*original, Transform(ratio=ratio, fit="contain"))
    width, height = plan.output_size
    assert (plan.width, plan.height) == original
    assert width == original[0] or height == original[1]
    assert width >= original[0]
    assert height >= original[1]
    assert abs(width - height * ratio.value) <= max(ratio.value, Fraction(1)) / 2


@given(originals, boxes)
def test_inside_of_any_original_is_within_the_box_and_touches_it_unless_it_was_smaller(
    original: tuple[int, int], box: tuple[int, int]
) -> None:
    width, height = make_plan(*original, Transform(width=box[0], height=box[1])).output_size
    assert width <= box[0]
    assert height <= box[1]
    assert width == box[0] or height == box[1] or (width, height) == original


@given(originals, boxes)
def test_outside_of_any_original_covers_the_box_and_touches_it_unless_it_was_smaller(
    original: tuple[int, int], box: tuple[int, int]
) -> None:
    width, height = make_plan(*original, Transform(width=box[0], height=box[1], fit="outside")).output_size
    if (width, height) != original:
        assert width >= box[0]
        assert height >= box[1]
        assert width == box[0] or height == box[1]


@given(originals, boxes, st.sampled_from(COMPASS))
def test_contain_of_any_original_is_exactly_the_box(original: tuple[int, int], box: tuple[int, int], gravity: str) -> None:
    plan = make_plan(*original, Transform(width=box[0], height=box[1], fit="contain", gravity=gravity))
    assert plan.output_size == box
    assert (plan.width, plan.height) == make_plan(*original, Transform(width=box[0], height=box[1])).output_size


@given(originals, boxes, st.sampled_from(("cover", "fill")), gravities)
def test_cover_and_fill_of_an_original_that_is_large_enough_are_exactly_the_box(
    original: tuple[int, int], box: tuple[int, int], fit: str, gravity: str | FocalPoint
) -> None:
    assume(original[0] >= box[0] and original[1] >= box[1])
    plan = make_plan(*original, parse(f"width={box[0]},height={box[1]},fit={fit}"))
    assert plan.output_size == box


@given(originals, boxes, st.sampled_from(("cover", "fill")))
@example((101, 50), (640, 480), "cover")
def test_cover_and_fill_of_a_small_original_keep_the_shape_of_the_box_within_half_a_pixel(
    original: tuple[int, int], box: tuple[int, int], fit: str
) -> None:
    width, height = make_plan(*original, parse(f"width={box[0]},height={box[1]},fit={fit}")).output_size
    shrink = min(Fraction(1), Fraction(original[0], box[0]), Fraction(original[1], box[1]))
    for side, wanted in ((width, box[0] * shrink), (height, box[1] * shrink)):
        assert abs(side - wanted) <= Fraction(1, 2) or (side == 1 and wanted < 1)


@given(originals, boxes, parts_of_one, parts_of_one)
def test_cover_focal_point_is_in_the_crop_and_as_near_to_its_middle_as_the_edges_allow(
    original: tuple[int, int], box: tuple[int, int], x: float, y: float
) -> None:
    plan = make_plan(*original, Transform(width=box[0], height=box[1], fit="cover", gravity=FocalPoint(x, y)))
    if plan.crop is None:
        return
    for start, length, whole, part in (
        (plan.crop.left, plan.crop.width, plan.width, Fraction(str(x))),
        (plan.crop.top, plan.crop.height, plan.height, Fraction(str(y))),
    ):
        point = part * whole
        # A crop of an odd side has no middle pixel edge: half a pixel may be lost to rounding.
        assert start - Fraction(1, 2) <= point <= start + length + Fraction(1, 2)
        off = start + Fraction(length, 2) - point
        assert abs(off) <= Fraction(1, 2) or (off > 0 and start == 0) or (off < 0 and start == whole - length)


@given(originals, boxes)
def test_cover_with_gravity_in_opposite_corners_is_flush_with_opposite_edges(original: tuple[int, int], box: tuple[int, int]) -> None:
    first = make_plan(*original, Transform(width=box[0], height=box[1], fit="cover", gravity="northwest"))
    last = make_plan(*original, Transform(width=box[0], height=box[1], fit="cover", gravity="southeast"))
    if first.crop is None or last.crop is None:
        assert first == last
        return
    assert (first.crop.left, first.crop.top) == (0, 0)
    assert (last.crop.left + last.crop.width, last.crop.top + last.crop.height) == (last.width, last.height)


turns = st.sampled_from((0.0, 90.0, 180.0, 270.0)) | st.integers(0, 3_599).map(lambda tenths: tenths / 10)
flips = st.sampled_from(("none", "horizontal", "vertical"))
sides = st.builds(Sides, *[st.integers(0, MAX_PAD_PIXELS)] * 4)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """Draw a part of a picture in percent."""
    left, top = draw(st.integers(0, 99_999)), draw(st.integers(0, 99_999))
    width, height = draw(st.integers(1, 100_000 - left)), draw(st.integers(1, 100_000 - top))
    return Region(left / 1_000, top / 1_000, width / 1_000, height / 1_000, percent=True)


@given(originals, regions())
def test_crop_in_percent_of_any_original_is_within_it_and_exact_to_a_pixel(original: tuple[int, int], crop: Region) -> None:
    region = make_plan(*original, Transform(crop=crop)).region
    for start, length, whole_side, percent_start, percent_length in (
        (region.left, region.width, original[0], crop.left, crop.width),
        (region.top, region.height, original[1], crop.top, crop.height),
    ):
        assert start >= 0
        assert length >= 1
        assert start + length <= whole_side
        assert abs(start - percent_start * whole_side / 100) <= 1
        assert abs(length - percent_length * whole_side / 100) <= 1


@given(originals, regions())
def test_adjacent_crops_in_percent_have_no_gap_and_no_overlap(original: tuple[int, int], crop: Region) -> None:
    right = crop.left + crop.width
    if right >= 100:
        return
    first = make_plan(*original, Transform(crop=crop)).region
    second = make_plan(*original, Transform(crop=Region(round(right, 3), 0, round(100 - right, 3), 100, percent=True))).region
    narrow = min(crop.width, 100 - right) * original[0] / 100 < 1
    assert first.left + first.width == second.left or narrow


@given(st.tuples(st.integers(1, 8_000), st.integers(1, 8_000)), turns, flips)
def test_rotated_picture_has_the_size_of_the_box_around_it(original: tuple[int, int], turn: float, flip: Any) -> None:
    plan = make_plan(*original, Transform(rotate=turn, flip=flip))
    width, height = reference.rotated_size(*original, turn)
    assert abs(plan.width - max(1, width)) <= (0 if turn % 90 == 0 else 1)
    assert abs(plan.height - max(1, height)) <= (0 if turn % 90 == 0 else 1)
    # No smaller than the region requires.
    assert plan.unrotated_size[0] >= 1
    assert plan.unrotated_size[1] >= 1
    assert (plan.angle, plan.flip) == (turn, flip)


@st.composite
def turned_transforms(draw: st.DrawFn) -> Transform:
    """Draw a transform with every option that changes a size, rotated by right angles."""
    base = draw(transforms)
    return msgspec.structs.replace(
        base,
        crop=draw(st.none() | regions()),
        rotate=draw(st.sampled_from((0.0, 90.0, 180.0, 270.0))),
        flip=draw(flips),
        pad=draw(sides),
        enlarge=draw(st.booleans()) and (base.width is not None or base.height is not None),
    )


@given(originals, turned_transforms())
def test_plan_with_every_option_has_the_output_size_of_the_reference(original: tuple[int, int], transform: Transform) -> None:
    pad = transform.pad
    plan = make_plan(*original, transform)
    left, top, right, bottom = reference.crop_box(*original, transform)
    assert plan.region == Box(left, top, right - left, bottom - top)
    turned = reference.rotated_size(right - left, bottom - top, transform.rotate)
    scaled, cut = reference.scaled_size(*turned, transform, may_enlarge=transform.enlarge)
    box = cut or scaled
    if transform.fit == "contain":
        box_width, box_height = (max(1, math.floor((side or 0) + Fraction(1, 2))) for side in reference.box_of(*turned, transform))
        box = (box_width, box_height)
    assert (plan.width, plan.height) == scaled
    assert plan.picture_size == box
    assert plan.output_size == (box[0] + pad.left + pad.right, box[1] + pad.top + pad.bottom)
    if plan.padded is not None:
        assert (plan.padded.left, plan.padded.top) == (pad.left, pad.top)


@given(originals, boxes, st.builds(FocalPoint, parts_of_one, parts_of_one), regions(), st.tuples(turns, flips))
def test_focal_point_of_a_cropped_rotated_and_flipped_picture_is_in_the_crop(
    original: tuple[int, int], box: tuple[int, int], focal: FocalPoint, crop: Region, turning: tuple[float, Any]
) -> None:
    turn, flip = turning
    transform = Transform(crop=crop, rotate=turn, flip=flip, width=box[0], height=box[1], fit="cover", gravity=focal)
    plan = make_plan(*original, transform)
    if plan.crop is None:
        return
    region = plan.region
    corners = (region.left, region.top, region.left + region.width, region.top + region.height)
    place = reference.locate_focal_point(focal, corners, original, transform)
    for start, length, side, part in (
        (plan.crop.left, plan.crop.width, plan.width, place[0]),
        (plan.crop.top, plan.crop.height, plan.height, place[1]),
    ):
        assert 0 <= start <= side - length
        # Half a pixel of rounding, and one more for the box around a rotated picture, whose sides are whole.
        assert start - 2 <= part * side <= start + length + 2
        off = start + length / 2 - part * side
        assert abs(off) <= 2 or (off > 0 and start == 0) or (off < 0 and start == side - length)


# Refused before a pixel is decoded.

LIMITS = Limits(max_pixels=10**9, max_whole_pixels=10**9, max_output_pixels=40_000_000, max_frames=100, codec_bytes=335_544_320)


def info(width: int, height: int, *, frames: int = 1, image_format: str = "png") -> ImageInfo:
    return ImageInfo(image_format, width, height, frames, alpha=False, needs_full_decode=False)


@pytest.mark.parametrize(
    ("original", "text", "image_format", "error"),
    [
        (info(400, 300), "full", "png", None),
        (info(400, 300), "crop=0:0:401:300", "png", BadTransformError),
        (info(400, 300), "frame=1", "png", BadTransformError),
        (info(400, 300, frames=2), "frame=1", "png", None),
        (info(7_000, 7_000), "full", "png", TooManyPixelsError),
        (info(7_000, 7_000), "width=6000", "png", None),
        (info(400, 300), "width=8000,height=8000,fit=contain", "png", TooManyPixelsError),
        (info(400, 300), "width=8000,height=8000,fit=cover,enlarge=true", "png", TooManyPixelsError),
        (info(400, 300), "pad=4000", "png", TooManyPixelsError),
        (info(17_000, 100), "full", "webp", TooManyPixelsError),
        (info(17_000, 100), "full", "avif", TooManyPixelsError),
        (info(17_000, 100), "full", "gif", None),
        (info(17_000, 100), "full", "jpeg", None),
        (info(16_383, 100), "full", "webp", None),
        (info(16_383, 100), "pad=1", "webp", TooManyPixelsError),
        (info(20, 10, image_format="svg"), "width=8192", "png", None),
        (info(20, 10, image_format="svg"), "height=8192", "png", TooManyPixelsError),
        # A line that covers the box is as wide as the box: the parts that are cropped away are scaled too.
        (info(4_000, 1), "width=4000,height=4000,fit=cover,enlarge=true", "png", TooManyPixelsError),
        (info(1, 4_000), "width=8192,enlarge=true", "png", TooManyPixelsError),
    ],
)
def test_infeasible_transform_is_refused_by_the_header(
    original: ImageInfo, text: str, image_format: Format, error: type[Exception] | None
) -> None:
    if error is None:
        feasible_plan(original, parse(text), image_format, LIMITS, frames=1)
        return
    with pytest.raises(error) as caught:
        feasible_plan(original, parse(text), image_format, LIMITS, frames=1)
    assert all(getattr(caught.value, member) for member in ("detail", "expected", "received", "remedy"))


def test_frames_of_an_animation_count_together() -> None:
    film = info(1_000, 1_000, frames=50, image_format="gif")
    feasible_plan(film, parse("full"), "webp", LIMITS, frames=40)
    with pytest.raises(TooManyPixelsError) as caught:
        feasible_plan(film, parse("full"), "webp", LIMITS, frames=41)
    assert "one frame" in str(caught.value.remedy)
    feasible_plan(film, parse("width=500"), "webp", LIMITS, frames=50)

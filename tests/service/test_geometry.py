from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.render.geometry import Box, Plan, plan
from service.transform import COMPASS, MAX_SIDE_PIXELS, STRATEGIES, FocalPoint, Transform, parse

originals = st.tuples(st.integers(1, 70_000), st.integers(1, 70_000))
boxes = st.tuples(st.integers(1, MAX_SIDE_PIXELS), st.integers(1, MAX_SIDE_PIXELS))
parts_of_one = st.integers(0, 10_000).map(lambda number: number / 10_000)
gravities = st.sampled_from((*COMPASS, *STRATEGIES)) | st.builds(FocalPoint, parts_of_one, parts_of_one)
transforms = st.one_of(
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
)

TABLE: list[tuple[tuple[int, int], str, Plan]] = [
    # one side, or none
    ((4032, 3024), "full", Plan(4032, 3024)),
    ((4032, 3024), "width=640", Plan(640, 480)),
    ((4032, 3024), "height=480", Plan(640, 480)),
    ((3024, 4032), "width=640", Plan(640, 853)),
    ((3024, 4032), "height=640", Plan(480, 640)),
    ((1000, 667), "width=500", Plan(500, 334)),  # 333.5 is rounded half up
    ((1000, 665), "width=500", Plan(500, 333)),  # 332.5 too, though 332 is even
    ((1001, 3), "width=100", Plan(100, 1)),  # 0.3 is no side
    ((320, 240), "width=640", Plan(320, 240)),
    ((320, 240), "height=640", Plan(320, 240)),
    ((320, 240), "width=320", Plan(320, 240)),
    # inside: whole, at most the box
    ((4032, 3024), "width=640,height=640", Plan(640, 480)),
    ((3024, 4032), "width=640,height=640", Plan(480, 640)),
    ((4032, 3024), "width=8192,height=300", Plan(400, 300)),
    ((320, 240), "width=640,height=480", Plan(320, 240)),
    ((321, 241), "width=100,height=100", Plan(100, 75)),
    # outside: whole, at least the box
    ((4032, 3024), "width=640,height=640,fit=outside", Plan(853, 640)),
    ((3024, 4032), "width=640,height=640,fit=outside", Plan(640, 853)),
    ((320, 240), "width=300,height=300,fit=outside", Plan(320, 240)),
    ((320, 240), "width=640,height=20,fit=outside", Plan(320, 240)),
    # fill: stretched to the box
    ((4032, 3024), "width=640,height=640,fit=fill", Plan(640, 640)),
    ((400, 300), "width=100,height=300,fit=fill", Plan(100, 300)),
    ((320, 240), "width=640,height=640,fit=fill", Plan(240, 240)),  # the box shrinks until no side is stretched longer
    ((320, 240), "width=640,height=120,fit=fill", Plan(320, 60)),
    # contain: whole, on a canvas of the box
    ((4000, 3000), "width=640,height=640,fit=contain", Plan(640, 480, canvas=Box(0, 80, 640, 640))),
    ((3000, 4000), "width=640,height=640,fit=contain", Plan(480, 640, canvas=Box(80, 0, 640, 640))),
    ((4000, 3000), "width=640,height=640,fit=contain,gravity=north", Plan(640, 480, canvas=Box(0, 0, 640, 640))),
    ((4000, 3000), "width=640,height=640,fit=contain,gravity=southeast", Plan(640, 480, canvas=Box(0, 160, 640, 640))),
    ((3000, 4000), "width=640,height=640,fit=contain,gravity=west", Plan(480, 640, canvas=Box(0, 0, 640, 640))),
    ((3000, 4000), "width=640,height=640,fit=contain,gravity=northeast", Plan(480, 640, canvas=Box(160, 0, 640, 640))),
    ((4000, 3000), "width=640,height=480,fit=contain", Plan(640, 480)),
    ((320, 240), "width=640,height=480,fit=contain", Plan(320, 240, canvas=Box(160, 120, 640, 480))),
    ((320, 240), "width=640,height=480,fit=contain,gravity=southwest", Plan(320, 240, canvas=Box(0, 240, 640, 480))),
    ((101, 50), "width=51,height=30,fit=contain", Plan(51, 25, canvas=Box(0, 2, 51, 30))),
    # cover: fills the box, cut
    ((4000, 3000), "width=640,height=480,fit=cover", Plan(640, 480)),
    ((4000, 3000), "width=480,height=480,fit=cover", Plan(640, 480, crop=Box(80, 0, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover", Plan(480, 640, crop=Box(0, 80, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=west", Plan(640, 480, crop=Box(0, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=northeast", Plan(640, 480, crop=Box(160, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=north", Plan(640, 480, crop=Box(80, 0, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=south", Plan(480, 640, crop=Box(0, 160, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=northwest", Plan(480, 640, crop=Box(0, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=attention", Plan(640, 480, crop=Box(80, 0, 480, 480), searched=True)),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=entropy", Plan(480, 640, crop=Box(0, 80, 480, 480), searched=True)),
    ((4000, 3000), "width=640,height=480,fit=cover,gravity=attention", Plan(640, 480)),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:0:0", Plan(640, 480, crop=Box(0, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:1:1", Plan(640, 480, crop=Box(160, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:0.5:0.5", Plan(640, 480, crop=Box(80, 0, 480, 480))),
    ((4000, 3000), "width=480,height=480,fit=cover,gravity=focal:0.4:0.9", Plan(640, 480, crop=Box(16, 0, 480, 480))),
    ((3000, 4000), "width=480,height=480,fit=cover,gravity=focal:0.9:0.6", Plan(480, 640, crop=Box(0, 144, 480, 480))),
    ((320, 240), "width=640,height=640,fit=cover", Plan(320, 240, crop=Box(40, 0, 240, 240))),
    ((320, 240), "width=640,height=480,fit=cover", Plan(320, 240)),
    ((101, 50), "width=25,height=25,fit=cover", Plan(51, 25, crop=Box(13, 0, 25, 25))),
    # the ends of what can be asked, and of what can come
    ((1, 1), "full", Plan(1, 1)),
    ((1, 1), "width=8192,height=8192,fit=cover,gravity=focal:1:1", Plan(1, 1)),
    ((1, 1), "width=8192,height=8192,fit=fill", Plan(1, 1)),
    ((1, 1), "width=8192,height=8192,fit=contain", Plan(1, 1, canvas=Box(4095, 4095, 8192, 8192))),
    ((1, 8000), "width=640,height=480,fit=cover,gravity=south", Plan(1, 8000, crop=Box(0, 7999, 1, 1))),
    ((65_500, 1), "width=1,height=8192", Plan(1, 1)),
    ((65_500, 65_500), "width=8192,height=8192", Plan(8192, 8192)),
    ((65_500, 32_750), "width=8192,height=8192,fit=outside", Plan(16_384, 8192)),
    ((65_500, 100), "width=100,height=100,fit=cover,gravity=east", Plan(65_500, 100, crop=Box(65_400, 0, 100, 100))),
]


@pytest.mark.parametrize(("original", "spelling", "expected"), TABLE, ids=[f"{row[0][0]}x{row[0][1]}-{row[1]}" for row in TABLE])
def test_plan_of_an_original_and_a_transform_is_what_the_table_says(original: tuple[int, int], spelling: str, expected: Plan) -> None:
    assert plan(*original, parse(spelling)) == expected


@pytest.mark.parametrize(
    ("steps", "output"),
    [
        (Plan(640, 480), (640, 480)),
        (Plan(640, 480, crop=Box(80, 0, 470, 460)), (470, 460)),
        (Plan(640, 480, canvas=Box(0, 80, 650, 660)), (650, 660)),
    ],
)
def test_output_of_a_plan_is_the_size_of_what_is_cut_or_laid_out(steps: Plan, output: tuple[int, int]) -> None:
    assert steps.output == output


@given(originals, transforms)
def test_plan_of_any_transform_enlarges_nothing_and_leaves_no_side_out(original: tuple[int, int], transform: Transform) -> None:
    steps = plan(*original, transform)
    assert 1 <= steps.width <= original[0]
    assert 1 <= steps.height <= original[1]
    assert min(steps.output) >= 1


@given(originals, transforms)
def test_plan_of_any_transform_cuts_and_lays_within_what_is_there(original: tuple[int, int], transform: Transform) -> None:
    steps = plan(*original, transform)
    if steps.crop is not None:
        assert transform.fit == "cover"
        assert steps.canvas is None
        assert 0 <= steps.crop.left <= steps.width - steps.crop.width
        assert 0 <= steps.crop.top <= steps.height - steps.crop.height
        assert steps.crop.width < steps.width or steps.crop.height < steps.height
    if steps.canvas is not None:
        assert transform.fit == "contain"
        assert 0 <= steps.canvas.left <= steps.canvas.width - steps.width
        assert 0 <= steps.canvas.top <= steps.canvas.height - steps.height
    assert steps.searched == (steps.crop is not None and transform.gravity in STRATEGIES)


@given(originals, transforms)
def test_plan_of_any_transform_but_fill_keeps_the_shape_within_half_a_pixel(original: tuple[int, int], transform: Transform) -> None:
    assume(transform.fit != "fill")
    steps = plan(*original, transform)
    # A scale exists under which both sides are right within rounding, or are the one pixel that a side has at least.
    within = [
        (Fraction(2 * side - 1, 2 * whole), Fraction(2 * side + 1, 2 * whole))
        for side, whole in zip((steps.width, steps.height), original, strict=True)
    ]
    lowest = max(low if side > 1 else Fraction(0) for (low, _), side in zip(within, (steps.width, steps.height), strict=True))
    assert lowest <= min(high for _, high in within)


@given(originals, boxes)
def test_inside_of_any_original_is_within_the_box_and_touches_it_unless_it_was_smaller(
    original: tuple[int, int], box: tuple[int, int]
) -> None:
    width, height = plan(*original, Transform(width=box[0], height=box[1])).output
    assert width <= box[0]
    assert height <= box[1]
    assert width == box[0] or height == box[1] or (width, height) == original


@given(originals, boxes)
def test_outside_of_any_original_covers_the_box_and_touches_it_unless_it_was_smaller(
    original: tuple[int, int], box: tuple[int, int]
) -> None:
    width, height = plan(*original, Transform(width=box[0], height=box[1], fit="outside")).output
    if (width, height) != original:
        assert width >= box[0]
        assert height >= box[1]
        assert width == box[0] or height == box[1]


@given(originals, boxes, st.sampled_from(COMPASS))
def test_contain_of_any_original_is_exactly_the_box(original: tuple[int, int], box: tuple[int, int], gravity: str) -> None:
    steps = plan(*original, Transform(width=box[0], height=box[1], fit="contain", gravity=gravity))
    assert steps.output == box
    assert (steps.width, steps.height) == plan(*original, Transform(width=box[0], height=box[1])).output


@given(originals, boxes, st.sampled_from(("cover", "fill")), gravities)
def test_cover_and_fill_of_an_original_that_is_large_enough_are_exactly_the_box(
    original: tuple[int, int], box: tuple[int, int], fit: str, gravity: str | FocalPoint
) -> None:
    assume(original[0] >= box[0] and original[1] >= box[1])
    steps = plan(*original, parse(f"width={box[0]},height={box[1]},fit={fit}"))
    assert steps.output == box


@given(originals, boxes, st.sampled_from(("cover", "fill")))
@example((101, 50), (640, 480), "cover")
def test_cover_and_fill_of_a_small_original_keep_the_shape_of_the_box_within_half_a_pixel(
    original: tuple[int, int], box: tuple[int, int], fit: str
) -> None:
    width, height = plan(*original, parse(f"width={box[0]},height={box[1]},fit={fit}")).output
    shrink = min(Fraction(1), Fraction(original[0], box[0]), Fraction(original[1], box[1]))
    for side, wanted in ((width, box[0] * shrink), (height, box[1] * shrink)):
        assert abs(side - wanted) <= Fraction(1, 2) or (side == 1 and wanted < 1)


@given(originals, boxes, parts_of_one, parts_of_one)
def test_cover_focal_point_is_in_the_crop_and_as_near_to_its_middle_as_the_edges_allow(
    original: tuple[int, int], box: tuple[int, int], x: float, y: float
) -> None:
    steps = plan(*original, Transform(width=box[0], height=box[1], fit="cover", gravity=FocalPoint(x, y)))
    if steps.crop is None:
        return
    for start, length, whole, part in (
        (steps.crop.left, steps.crop.width, steps.width, Fraction(str(x))),
        (steps.crop.top, steps.crop.height, steps.height, Fraction(str(y))),
    ):
        point = part * whole
        # A crop of an odd side has no middle pixel edge: half a pixel may be lost to rounding.
        assert start - Fraction(1, 2) <= point <= start + length + Fraction(1, 2)
        off = start + Fraction(length, 2) - point
        assert abs(off) <= Fraction(1, 2) or (off > 0 and start == 0) or (off < 0 and start == whole - length)


@given(originals, boxes)
def test_cover_gravity_of_opposite_corners_is_flush_with_opposite_edges(original: tuple[int, int], box: tuple[int, int]) -> None:
    first = plan(*original, Transform(width=box[0], height=box[1], fit="cover", gravity="northwest"))
    last = plan(*original, Transform(width=box[0], height=box[1], fit="cover", gravity="southeast"))
    if first.crop is None or last.crop is None:
        assert first == last
        return
    assert (first.crop.left, first.crop.top) == (0, 0)
    assert (last.crop.left + last.crop.width, last.crop.top + last.crop.height) == (last.width, last.height)

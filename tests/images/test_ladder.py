"""Ladders: for any image, every step can be rendered, and there is at least one."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadTransformError, TooComplexError, TooManyPixelsError
from service.images.formats import FORMAT_OF_EXTENSION as BY_EXTENSION
from service.images.formats import FORMATS, Format
from service.images.geometry import feasible_plan, make_plan
from service.images.info import ImageInfo, Limits, codec_bytes
from service.images.ladder import LADDER_WIDTHS, Ladder, ladders, possible_formats
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Transform, from_options, parse, parse_canonical
from service.settings.sections import Settings
from service.urls.rendition_url import parse_rendition_url as parse_address
from service.urls.signing import Signer, UrlBuilder

SETTINGS = Settings()
LIMITS = Limits(
    SETTINGS.limits.max_pixels,
    SETTINGS.limits.max_whole_pixels,
    SETTINGS.limits.max_output_pixels,
    SETTINGS.limits.max_frames,
    codec_bytes(SETTINGS.rendering.memory_bytes),
)
DIGEST = "a" * 32
ANIMATED = DEFAULTS[PIPELINE_VERSION].animated

infos = st.builds(
    ImageInfo,
    format=st.sampled_from(["jpeg", "png", "webp", "gif", "avif", "heic", "tiff", "svg"]),
    width=st.integers(1, 100_000) | st.integers(1, 9),
    height=st.integers(1, 100_000) | st.integers(1, 9),
    frames=st.integers(1, 512) | st.just(1),
    alpha=st.booleans(),
    needs_full_decode=st.booleans(),
)
heavy_drawings = st.builds(
    lambda width, height, more: heavy(width, height, max_width=width + more),
    st.integers(1, 9_000) | st.integers(1, 90),
    st.integers(1, 9_000) | st.integers(1, 90),
    st.integers(0, 9_000) | st.integers(0, 900),
)
limits = st.just(LIMITS) | st.builds(
    Limits,
    max_pixels=st.just(10**9),
    max_whole_pixels=st.just(10**9),
    max_output_pixels=st.integers(1, 10**8) | st.integers(1, 2_000),
    max_frames=st.just(512),
    codec_bytes=st.integers(0, 10**9),
)


def still(width: int, height: int, *, image_format: str = "png", frames: int = 1) -> ImageInfo:
    return ImageInfo(image_format, width, height, frames, alpha=False, needs_full_decode=False)


def heavy(width: int, height: int, *, max_width: int) -> ImageInfo:
    """Return a drawing that takes too long to draw at a larger width."""
    return ImageInfo("svg", width, height, 1, alpha=True, needs_full_decode=True, max_width=max_width)


def widths(found: list[Ladder]) -> dict[str, list[int]]:
    return {ladder.format: [step.width for step in ladder.steps] for ladder in found}


@given(infos | heavy_drawings, limits)
def test_document_of_any_image_links_only_to_feasible_renditions_and_to_at_least_one(info: ImageInfo, limit: Limits) -> None:
    made = UrlBuilder(Signer([bytes(32)]), "", limit).markup(DIGEST, info, Transform())
    assert made.sources
    assert made.src in {link.url for link in made.sources[-1].renditions}
    assert len({source.type for source in made.sources}) == len(made.sources)
    for source in made.sources:
        assert source.renditions
        steps = [link.width for link in source.renditions]
        assert steps == sorted(set(steps))
        assert steps[-1] * 2 >= made.sources[-1].renditions[-1].width
        for link in source.renditions:
            address, _ = parse_address(link.url.encode("ascii"))
            image_format = BY_EXTENSION[address.extension]
            transform = parse_canonical(address.transform)
            frames = info.frames if info.animates(transform, image_format, by_default=image_format in ANIMATED) else 1
            feasible_plan(info, transform, image_format, limit, frames=frames, linked=True)
            assert info.max_width is None or link.width <= info.max_width
            assert f"image/{image_format}" == source.type
            assert image_format != "avif" or link.width * link.height * (48 if info.alpha else 30) <= limit.codec_bytes


@given(
    infos | heavy_drawings,
    limits,
    st.sampled_from(
        ["width=4000,height=3000,fit=cover", "width=800,enlarge=true", "crop=10p:10p:50p:50p,rotate=30,pad=20", "round=40", "width=100",
         "width=100,height=8000,fit=fill,enlarge=true", "lossless=true", "rotate=90,height=900,width=20",
         "ratio=16:9", "height=900,ratio=1:3,fit=contain",
         "width=900,ratio=100:1,enlarge=true", "ratio=2:3,round=9"]
    ),
)  # fmt: skip
def test_ladder_of_any_transform_has_only_feasible_steps_or_is_refused(info: ImageInfo, limit: Limits, text: str) -> None:
    transform = parse(text)
    try:
        found = ladders(info, transform, limit)
    except TooComplexError:
        assert info.max_width is not None
        return
    except TooManyPixelsError:
        return
    assert found
    for ladder in found:
        for step in ladder.steps:
            frames = info.frames if info.animates(step.transform, ladder.format, by_default=ladder.format in ANIMATED) else 1
            feasible_plan(info, step.transform, ladder.format, limit, frames=frames, linked=True)


def test_ladder_of_an_ordinary_image_is_complete() -> None:
    steps = [320, 640, 960, 1_280, 1_920, 2_560]
    assert widths(ladders(still(4_000, 3_000), Transform(), LIMITS)) == {"jxl": steps, "avif": steps, "webp": steps, "jpeg": steps}


@pytest.mark.parametrize(
    ("width", "steps"),
    [
        (320, [320]),
        # 357 × 1.25 would be the area of 399 pixels.
        (357, [357]),
        (358, [320, 358]),
        (700, [320, 700]),
        (716, [320, 640, 716]),
        (1_000, [320, 640, 1_000]),
        (1_073, [320, 640, 1_073]),
        (1_074, [320, 640, 960, 1_074]),
        (2_100, [320, 640, 960, 1_280, 2_100]),
    ],
)
def test_ladder_leaves_out_a_step_with_nearly_the_bytes_of_the_next_one(width: int, steps: list[int]) -> None:
    assert widths(ladders(still(width, width), Transform(), LIMITS)) == dict.fromkeys(("jxl", "avif", "webp", "jpeg"), steps)


def test_ladder_of_narrow_steps_keeps_those_that_save_bytes_and_the_widest() -> None:
    dense = (300, 310, 320, 340, 360, 400, 420, 450)
    assert widths(ladders(still(4_000, 3_000), Transform(), LIMITS, default_widths=dense))["webp"] == [300, 340, 400, 450]
    # Widths of a request are made as they are.
    named = widths(ladders(still(4_000, 3_000), Transform(), LIMITS, widths=dense, default_widths=dense))
    assert named["webp"] == list(dense)


@given(infos | heavy_drawings, st.lists(st.integers(1, 3_840), min_size=1, max_size=16, unique=True).map(sorted))
def test_steps_of_any_default_ladder_have_a_quarter_more_pixels_than_the_one_before(info: ImageInfo, steps: list[int]) -> None:
    for ladder in ladders(info, Transform(), LIMITS, default_widths=steps):
        for step, wider in pairwise(ladder.steps):
            assert 4 * wider.width * wider.height >= 5 * step.width * step.height


def test_ladder_of_a_long_screenshot_ends_with_the_widest_step_of_each_format() -> None:
    found = widths(ladders(still(1_200, 18_000), Transform(), LIMITS))
    # 16,383 × 1,200 / 18,000 = 1,092.2; an AVIF of 747 × 11,205 has 8 million pixels, close to the limit of memory.
    assert found["webp"] == [320, 640, 960, 1_092]
    assert found["jpeg"] == [320, 640, 960, 1_200]
    assert found["avif"] == [320, 640, 747]


def test_ladder_of_a_long_drawing_ends_with_the_widest_feasible_step() -> None:
    drawing = ImageInfo("svg", 400, 10_000, 1, alpha=True, needs_full_decode=True)
    found = widths(ladders(drawing, Transform(), LIMITS))
    assert found["png"] == [320, 640, 960, 1_264]
    # 640 would have nearly the bytes of the last step.
    assert found["webp"] == [320, 655]
    # With alpha an AVIF may have 5 million pixels, at 444 wide: too far from the fallback's 1,264.
    assert "avif" not in found


def test_ladder_of_a_drawing_that_is_slow_to_draw_ends_with_the_widest_step_that_is_drawn_in_time() -> None:
    for max_width, steps in ((2_559, [320, 640, 960, 1_280, 1_920, 2_559]), (961, [320, 640, 961]), (40, [40])):
        found = widths(ladders(heavy(40, 30, max_width=max_width), Transform(), LIMITS))
        # With alpha a JPEG XL may have 3.2 million pixels.
        jxl = [step for step in steps if step != 1_920 or max_width < 2_073] if max_width > 2_073 else steps
        assert found == {"jxl": [min(step, 2_073) for step in jxl], "avif": steps, "webp": steps, "png": steps}
    assert widths(ladders(heavy(40, 30, max_width=2_560), Transform(), LIMITS))["png"][-1] == 2_560


def test_named_width_at_which_a_drawing_takes_too_long_is_refused() -> None:
    drawing = heavy(40, 30, max_width=1_000)
    assert widths(ladders(drawing, Transform(), LIMITS, widths=[1_000, 500]))["png"] == [500, 1_000]
    with pytest.raises(TooComplexError) as refused:
        ladders(drawing, Transform(), LIMITS, widths=[1_001])
    assert (refused.value.expected, refused.value.received) == ("at most 1000 pixels of width for the whole drawing", "1001 x 751")
    assert refused.value.remedy


def test_part_of_a_drawing_that_is_slow_to_draw_is_left_to_the_render_unless_a_ladder_links_to_it() -> None:
    # A few pixels of a large drawing: only the render can estimate the time that they take.
    drawing, part = heavy(40, 30, max_width=1_000), parse("crop=0:0:4:3,width=400")
    feasible_plan(drawing, part, "png", LIMITS, frames=1)
    with pytest.raises(TooComplexError):
        feasible_plan(drawing, part, "png", LIMITS, frames=1, linked=True)
    assert widths(ladders(drawing, parse("crop=0:0:4:3"), LIMITS))["png"] == [100]
    with pytest.raises(TooComplexError):
        feasible_plan(drawing, parse("crop=0:0:39:29,width=1200"), "png", LIMITS, frames=1)


def test_ladder_of_a_long_animation_has_smaller_frames_but_all_of_them() -> None:
    found = ladders(still(800, 600, image_format="gif", frames=140), Transform(), LIMITS)
    assert widths(found) == {"avif": [320, 617], "webp": [320, 617], "gif": [320, 617]}
    assert {step.transform.frame for ladder in found for step in ladder.steps} == {None}


def test_ladder_of_an_animation_that_is_too_large_at_any_width_is_that_of_its_first_frame() -> None:
    few = msgspec.structs.replace(LIMITS, max_output_pixels=100)
    film = still(40, 40, image_format="gif", frames=101)
    found = ladders(film, Transform(), few)
    assert widths(found) == {"jxl": [10], "avif": [10], "webp": [10], "jpeg": [10]}
    assert {step.transform.frame for ladder in found for step in ladder.steps} == {0}
    with pytest.raises(TooManyPixelsError):
        ladders(film, Transform(animate=True), few)


def test_ladder_of_a_line_has_the_formats_with_long_sides_and_of_a_longer_line_one_lower_step() -> None:
    assert widths(ladders(still(2, 70_000), Transform(), LIMITS)) == {"jxl": [1], "jpeg": [1]}
    for ladder in ladders(still(1, 70_000), Transform(), LIMITS):
        assert [(step.transform.canonical_form, step.width, step.height) for step in ladder.steps] == [("height=8192", 1, 8_192)]
    assert widths(ladders(still(70_000, 1), Transform(), LIMITS))["webp"][-1] == 2_560


def test_ladder_leaves_out_a_format_that_ends_below_half_of_the_fallback_unless_it_is_named() -> None:
    scroll = still(1_200, 40_000)
    assert widths(ladders(scroll, Transform(), LIMITS)) == {"jpeg": [320, 640, 960, 1_095]}
    assert widths(ladders(scroll, Transform(), LIMITS, formats=["webp", "jpeg"]))["webp"] == [320, 491]


def test_ladder_of_named_widths_needs_them_only_in_the_fallback_and_with_named_formats_in_each() -> None:
    page = still(1_200, 18_000)
    assert widths(ladders(page, Transform(), LIMITS, widths=[1_200, 600])) == {
        "jxl": [600],
        "avif": [600],
        "webp": [600],
        "jpeg": [600, 1_200],
    }
    with pytest.raises(TooManyPixelsError) as refused:
        ladders(page, Transform(), LIMITS, widths=[1_200, 600], formats=["webp", "jpeg"])
    assert refused.value.received == "1200 x 18000"
    with pytest.raises(TooManyPixelsError):
        ladders(still(1, 70_000), Transform(), LIMITS, widths=[1])
    with pytest.raises(TooManyPixelsError):
        ladders(still(2, 70_000), Transform(), LIMITS, formats=["webp"])


def test_ladder_of_a_box_that_becomes_too_high_has_only_the_smaller_steps() -> None:
    tall = parse("width=100,height=8000,fit=cover,enlarge=true")
    assert widths(ladders(still(900, 900), tall, msgspec.structs.replace(LIMITS, max_output_pixels=10**9)))["jpeg"] == [102]
    assert widths(ladders(still(900, 900), tall, LIMITS))["jpeg"] == [79]


def test_ladder_of_a_ratio_has_its_shape_at_every_width_that_the_image_has() -> None:
    steps = ladders(still(4_000, 3_000), parse("ratio=16:9"), LIMITS)[-1].steps
    assert [(step.transform.canonical_form, step.width, step.height) for step in steps[:2]] == [
        ("width=320,ratio=16:9", 320, 180),
        ("width=640,ratio=16:9", 640, 360),
    ]
    assert steps[-1].transform.canonical_form == "width=2560,ratio=16:9"
    # The crop is 900 pixels wide, and ends the ladder at the next width.
    steps = ladders(still(1_600, 900), parse("ratio=1:1"), LIMITS)[-1].steps
    assert [(step.transform.canonical_form, step.width, step.height) for step in steps[1:]] == [
        ("width=640,ratio=1:1", 640, 640),
        ("width=960,ratio=1:1", 900, 900),
    ]


def test_ladder_of_a_ratio_scales_its_other_lengths_with_the_width_of_the_crop() -> None:
    steps = ladders(still(1_600, 800), parse("ratio=1:1,round=80"), LIMITS, widths=[400])[-1].steps
    assert [step.transform.canonical_form for step in steps] == ["width=400,ratio=1:1,round=40"]
    steps = ladders(still(1_600, 800), parse("height=200,ratio=2:1,round=80"), LIMITS, widths=[400, 200])[-1].steps
    assert [step.transform.canonical_form for step in steps] == ["width=200,ratio=2:1,round=40", "width=400,ratio=2:1,round=80"]


@given(infos.filter(lambda info: info.format != "svg"), st.tuples(st.integers(34, 100), st.integers(1, 100)))
def test_ladder_of_a_ratio_has_only_widths_that_a_client_can_spell(info: ImageInfo, ratio: tuple[int, int]) -> None:
    transform = from_options({"ratio": list(ratio)})
    for ladder in ladders(info, transform, LIMITS):
        for step in ladder.steps[:-1]:
            assert step.transform.width in LADDER_WIDTHS
        # A limit of the format or of memory may end the ladder in between.
        last = ladder.steps[-1]
        own_width = make_plan(info.width, info.height, transform).picture_size[0]
        assert last.transform.width in LADDER_WIDTHS or last.width < own_width


def test_ladder_of_a_missing_frame_is_refused() -> None:
    with pytest.raises(BadTransformError):
        ladders(still(100, 100), Transform(frame=1), LIMITS)


@pytest.mark.parametrize(
    ("info", "text", "formats"),
    [
        (still(4_000, 3_000), "width=640", ["jxl", "avif", "webp", "jpeg"]),
        (still(4_000, 4_000), "full", ["webp", "jpeg"]),
        (still(1_200, 18_000), "full", ["jpeg"]),
        (still(1_200, 40_000), "full", ["jpeg"]),
        (still(400, 300, image_format="gif", frames=9), "full", ["avif", "webp", "gif"]),
        (still(800, 600, image_format="gif", frames=140), "full", ["jxl", "jpeg"]),
    ],
)
def test_possible_formats_of_one_rendition_are_those_that_it_can_be_made_in(info: ImageInfo, text: str, formats: list[Format]) -> None:
    assert list(possible_formats(info, parse(text), LIMITS, FORMATS)) == formats


@pytest.mark.parametrize(
    ("memory_bytes", "alpha", "widest"),
    [(256 << 20, False, 1_495), (288 << 20, True, 1_404), (512 << 20, True, 2_560), (512 << 20, False, 2_560)],
)
def test_avif_is_linked_up_to_the_memory_of_a_render_process(memory_bytes: int, alpha: bool, widest: int) -> None:
    limits = msgspec.structs.replace(LIMITS, codec_bytes=codec_bytes(memory_bytes))
    photo = ImageInfo("png", 4_000, 3_000, 1, alpha=alpha, needs_full_decode=False)
    found = widths(ladders(photo, Transform(), limits))
    assert found["avif"][-1] == widest
    assert found["webp"][-1] == 2_560


def test_formats_that_libvips_cannot_write_are_in_no_ladder() -> None:
    assert list(widths(ladders(still(400, 300), Transform(), LIMITS, supported=["webp", "jpeg"]))) == ["webp", "jpeg"]
    assert list(possible_formats(still(400, 300), Transform(), LIMITS, ["jpeg"])) == ["jpeg"]

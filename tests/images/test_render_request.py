"""Requests: resolved once from the header of the original."""

from __future__ import annotations

import pytest

from service.errors import BadTransformError, TooManyPixelsError
from service.images.geometry import Box, make_plan
from service.images.info import ImageInfo
from service.images.render_request import resolve
from service.images.transform import parse
from tests.support.renders import LIMITS

FILM = ImageInfo("gif", 100, 80, 7, alpha=False, needs_full_decode=True)
LARGE = ImageInfo("png", 4_000, 3_000, 1, alpha=False, needs_full_decode=False)
CAMERA = ImageInfo("jpeg", 4_032, 3_024, 1, alpha=False, needs_full_decode=False)


def test_request_has_the_plan_of_its_transform() -> None:
    transform = parse("width=640,height=640,fit=cover")
    request = resolve(LARGE, transform, "webp", LIMITS)
    assert (request.transform, request.plan) == (transform, make_plan(4_000, 3_000, transform))


def test_request_leaves_out_options_without_effect_in_the_format() -> None:
    assert resolve(LARGE, parse("width=64,quality=50,progressive=true"), "gif", LIMITS).transform == parse("width=64")


@pytest.mark.parametrize(("version", "transform", "frames"), [(1, "full", 1), (1, "animate=true", 7), (2, "full", 7), (2, "frame=0", 1)])
def test_request_of_an_animation_has_the_frames_of_its_version(version: int, transform: str, frames: int) -> None:
    assert resolve(FILM, parse(transform), "webp", LIMITS, version=version).frames == frames


def test_request_for_a_trimmed_part_has_its_region() -> None:
    part = Box(10, 10, 40, 20)
    assert resolve(FILM, parse("frame=0,trim=10"), "webp", LIMITS, trimmed=part).plan.region == part


def test_request_is_made_from_the_intermediate_only_where_that_is_large_enough() -> None:
    assert resolve(LARGE, parse("width=640"), "webp", LIMITS).from_intermediate
    assert not resolve(LARGE, parse("width=3000"), "webp", LIMITS).from_intermediate
    assert not resolve(LARGE, parse("width=640,gamma=2"), "webp", LIMITS).from_intermediate


def test_request_of_a_baseline_jpeg_is_made_from_an_intermediate_of_twice_its_size() -> None:
    assert CAMERA.intermediate == (2_016, 1_512)
    for transform, suffices in (
        ("width=1008", True),
        ("width=1009", False),
        ("height=756", True),
        ("crop=25p:25p:50p:50p,width=505", False),
    ):
        assert resolve(CAMERA, parse(transform), "webp", LIMITS).from_intermediate == suffices, transform
    assert not resolve(CAMERA, parse("width=640,metadata=all"), "webp", LIMITS).from_intermediate


@pytest.mark.parametrize("version", [1, 2])
def test_request_of_a_baseline_jpeg_is_made_from_the_original_in_earlier_versions(version: int) -> None:
    assert not resolve(CAMERA, parse("width=640"), "webp", LIMITS, version=version).from_intermediate
    assert resolve(LARGE, parse("width=640"), "webp", LIMITS, version=version).from_intermediate


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (4_000, 2_000, None),
        (4_000, 2_001, (2_000, 1_000)),
        (3_456, 5_184, (1_728, 2_592)),
        (6_001, 4_003, (1_500, 1_000)),
        (12_000, 9_000, (1_500, 1_125)),
        (20_000, 20_000, (2_500, 2_500)),
    ],
)
def test_intermediate_of_a_baseline_jpeg_is_what_its_decoder_can_make(width: int, height: int, size: tuple[int, int] | None) -> None:
    assert ImageInfo("jpeg", width, height, 1, alpha=False, needs_full_decode=False).intermediate == size


def test_request_that_the_header_rules_out_is_refused() -> None:
    with pytest.raises(BadTransformError):
        resolve(FILM, parse("crop=0:0:101:10"), "webp", LIMITS)
    with pytest.raises(BadTransformError):
        resolve(FILM, parse("lossless=true"), "jpeg", LIMITS)
    with pytest.raises(TooManyPixelsError):
        resolve(LARGE, parse("width=8192,enlarge=true,height=8192,fit=fill"), "webp", LIMITS)

"""Estimates of jobs: they rise with the pixels, converge to measurements, and no single measurement or file can distort them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.images.formats import FORMATS, Format
from service.images.info import ImageInfo
from service.images.render_request import resolve
from service.images.transform import parse
from service.rendering.cost import CostModel, Work, render_work, work_of
from service.rendering.protocol import Probe
from tests.support.renders import LIMITS

KINDS = ("render jpeg webp", "render png avif")
priors = st.floats(0.005, 400)
measurements = st.lists(st.tuples(st.sampled_from(KINDS), priors, st.floats(0.001, 500)), max_size=60)


def learned(measured: list[tuple[str, float, float]]) -> CostModel:
    model = CostModel()
    for kind, prior_seconds, seconds in measured:
        model.learn(Work(kind, prior_seconds), seconds)
    return model


def request_work(width: int, image_format: Format, *, original: tuple[int, int] = (4_000, 3_000), options: str = "") -> Work:
    info = ImageInfo("jpeg", *original, 1, alpha=False, needs_full_decode=False)
    return render_work(resolve(info, parse(f"width={width}{options}"), image_format, LIMITS))


@pytest.mark.parametrize("image_format", FORMATS)
def test_prior_of_a_render_rises_with_the_pixels_of_rendition_and_original(image_format: Format) -> None:
    priors_of_widths = [request_work(width, image_format).prior_seconds for width in (100, 400, 1_600, 3_200)]
    assert priors_of_widths == sorted(set(priors_of_widths))
    small = request_work(400, image_format, original=(1_000, 750))
    assert small.prior_seconds < request_work(400, image_format).prior_seconds


def test_options_that_make_an_encoder_slower_raise_the_prior_and_are_another_kind() -> None:
    plain = request_work(1_000, "webp")
    for options in (",effort=6", ",lossless=true", ",quality=auto", ",max_bytes=50000"):
        slow = request_work(1_000, "webp", options=options)
        assert slow.prior_seconds > plain.prior_seconds
        assert slow.kind != plain.kind


def test_work_of_a_probe_rises_with_the_bytes_of_its_file_and_a_missing_file_is_no_error(tmp_path: Path) -> None:
    sizes = (0, 100_000, 5_000_000)
    for size in sizes:
        (tmp_path / str(size)).write_bytes(bytes(size))
    found = [work_of(Probe(str(tmp_path / str(size)), LIMITS)).prior_seconds for size in sizes]
    assert found == sorted(set(found))
    assert work_of(Probe(str(tmp_path / "missing"), LIMITS)).prior_seconds == found[0]


@given(measurements, st.sampled_from((*KINDS, "render gif gif")), priors, priors)
def test_estimates_of_a_kind_never_fall_as_the_prior_rises(
    measured: list[tuple[str, float, float]], kind: str, one: float, other: float
) -> None:
    model = learned(measured)
    smaller, larger = (model.estimate(Work(kind, prior_seconds)) for prior_seconds in sorted((one, other)))
    assert 0 < smaller <= larger * (1 + 1e-12)


@given(measurements, priors, st.floats(0.02, 50))
def test_estimate_converges_to_what_is_measured_whatever_was_measured_before(
    measured: list[tuple[str, float, float]], prior_seconds: float, ratio: float
) -> None:
    model = learned([one for one in measured if one[1] > prior_seconds])
    work = Work(KINDS[0], prior_seconds)
    for _ in range(200):
        model.learn(work, ratio * prior_seconds)
    assert model.estimate(work) == pytest.approx(ratio * prior_seconds, rel=0.05)


def test_first_measurements_of_a_kind_count_for_sizes_and_kinds_that_were_never_measured() -> None:
    model = CostModel()
    for _ in range(20):
        model.learn(Work(KINDS[0], 0.1), 0.3)
    assert model.estimate(Work(KINDS[0], 1.0)) == pytest.approx(3.0, rel=0.1)
    assert model.estimate(Work(KINDS[1], 1.0)) == pytest.approx(3.0, rel=0.1)


def test_kind_whose_prior_is_a_guess_says_nothing_of_the_machine() -> None:
    model = CostModel()
    for _ in range(20):
        model.learn(Work("probe", 0.1, rates_machine=False), 10.0)
    assert model.estimate(Work(KINDS[0], 1.0)) == 1.0


@given(measurements, priors, st.floats(0, 1e9))
def test_one_measurement_at_most_multiplies_an_estimate_by_two_and_a_half(
    measured: list[tuple[str, float, float]], prior_seconds: float, seconds: float
) -> None:
    model = learned(measured)
    work = Work(KINDS[0], prior_seconds)
    before = model.estimate(work)
    model.learn(work, seconds)
    assert before / 4 <= model.estimate(work) <= 2.5 * before * (1 + 1e-9)


def test_number_of_kinds_is_bounded_and_the_one_measured_longest_ago_is_dropped() -> None:
    model = CostModel()
    for number in range(1_000):
        model.learn(Work("often", 1.0), 2.0)
        model.learn(Work(f"once {number}", 1.0), 2.0)
    assert len(model._kinds) <= 256
    assert "often" in model._kinds
    assert len(model.encode()) < 200_000


@given(measurements, priors)
def test_restored_model_estimates_the_same(measured: list[tuple[str, float, float]], prior_seconds: float) -> None:
    model, restored = learned(measured), CostModel()
    assert restored.restore(model.encode())
    for kind in KINDS:
        assert math.isclose(restored.estimate(Work(kind, prior_seconds)), model.estimate(Work(kind, prior_seconds)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":0,"machine":{"value":2.0,"count":1},"kinds":{}}',
        b'{"version":1,"machine":{"value":0.0,"count":1},"kinds":{}}',
        b'{"version":1,"machine":{"value":-1,"count":1},"kinds":{}}',
        b'{"version":1,"machine":{"value":1e999,"count":1},"kinds":{}}',
        b'{"version":1,"machine":{"value":2.0,"count":1},"kinds":{"a":{}}}',
        b'{"version":1,"machine":{"value":2.0,"count":1},"kinds":{"a":{"factor":{"value":1,"count":-1}}}}',
    ],
)
def test_damaged_or_older_file_changes_nothing(body: bytes) -> None:
    model = learned([(KINDS[0], 1.0, 3.0)])
    before = model.encode()
    assert not model.restore(body)
    assert model.encode() == before

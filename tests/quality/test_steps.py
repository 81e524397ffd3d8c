"""The rule by which ladders leave out steps, against the bytes of real renditions; a part of what `make quality` measures."""

from __future__ import annotations

import pytest

from service.images.ladder import MIN_STEP_RATIO
from tests.quality.steps import FORMATS, WORTHWHILE, Growth, measure_steps, summary

# The largest differences that were measured: a step of a photo, and one of a text, whose next one has so many times its bytes.
_MAX_LEFT_OUT_OF_PHOTOS, _MAX_LEFT_OUT_OF_DRAWINGS = 1.3, 1.45


def test_growth_of_bytes_as_a_power_of_pixels_has_its_exponent() -> None:
    row = Growth("", photo=True, format="webp", sizes=[(pixels, round(pixels**0.8)) for pixels in (10**6, 2 * 10**6, 3 * 10**6)])
    assert row.exponent == pytest.approx(0.8, abs=0.001)
    assert [pixels for pixels, _ in row.pairs] == [1.5]


@pytest.mark.long
def test_steps_that_ladders_leave_out_have_nearly_the_bytes_of_the_next_ones() -> None:
    rows = measure_steps(widths=(320, 350, 640, 700, 960, 1_050, 1_280), formats=("avif", "webp", "jpeg"))
    for row in rows:
        most = _MAX_LEFT_OUT_OF_PHOTOS if row.photo else _MAX_LEFT_OUT_OF_DRAWINGS
        left_out = [size for pixels, size in row.pairs if pixels < MIN_STEP_RATIO]
        assert len(left_out) == 3, row
        assert max(left_out) < most, row
    photos = [pair for row in rows if row.photo for pair in row.pairs]
    if photos:
        right = sum((pixels < MIN_STEP_RATIO) == (size < WORTHWHILE) for pixels, size in photos)
        assert right >= 0.8 * len(photos)
    assert {row.format for row in rows} < set(FORMATS)
    assert len(summary(rows)) == 3 * len({row.photo for row in rows})

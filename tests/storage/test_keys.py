"""Names of entries in the list of images."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from service.storage.keys import recent_name

DIGEST = "k5x7q2" + "a" * 26


@given(st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), min_size=2, max_size=2))  # noqa: DTZ001 - UTC is said below
def test_recent_names_of_later_images_sort_first(times: list[datetime]) -> None:
    created = [time.isoformat(timespec="milliseconds") + "Z" for time in sorted(times)]
    older, newer = (recent_name(DIGEST, text) for text in created)
    assert newer <= older
    assert (newer == older) == (created[0] == created[1])


def test_recent_name_of_whole_seconds_equals_that_of_zero_milliseconds() -> None:
    assert recent_name(DIGEST, "2026-11-01T12:00:00Z") == recent_name(DIGEST, "2026-11-01T12:00:00.000Z")

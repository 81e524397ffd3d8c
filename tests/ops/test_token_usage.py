"""The use of tokens: bytes of a day in UTC, and figures that outlive the process."""

from __future__ import annotations

from pathlib import Path

from service.ops.token_usage import DAY_SECONDS, FILE_NAME, TokenUsage

NOON = 20_000 * DAY_SECONDS + DAY_SECONDS / 2


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def test_bytes_of_a_day_begin_at_zero_at_midnight_utc(tmp_path: Path) -> None:
    clock = Clock()
    usage = TokenUsage(tmp_path, wall_clock=clock)
    usage.add_bytes("bot", 5)
    usage.add_bytes("bot", 7)
    assert (usage.bytes_today("bot"), usage.bytes_today("other")) == (12, 0)
    clock.now += usage.seconds_left_today() - 1
    assert usage.bytes_today("bot") == 12
    assert usage.seconds_left_today() == 1
    clock.now += 1
    assert (usage.bytes_today("bot"), usage.seconds_left_today()) == (0, DAY_SECONDS)
    usage.add_bytes("bot", 1)
    assert usage.bytes_today("bot") == 1


def test_figures_outlive_the_process(tmp_path: Path) -> None:
    clock = Clock()
    usage = TokenUsage(tmp_path, wall_clock=clock)
    usage.keep_only(["bot", "idle"])
    usage.record("bot")
    usage.add_bytes("bot", 12)
    usage.save()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
    later = TokenUsage(tmp_path, wall_clock=clock)
    later.keep_only(["bot", "new"])
    assert later.bytes_today("bot") == 12
    assert (later.by_name["bot"].last_used, later.by_name["bot"].requests) == (NOON, 1)
    assert set(later.by_name) == {"bot", "new"}
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_damaged_record_begins_at_zero(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b'{"bot": {"bytes": "many"}}')
    usage = TokenUsage(tmp_path, wall_clock=Clock())
    assert usage.bytes_today("bot") == 0


def test_figures_that_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.write_bytes(b"not a folder")
    usage = TokenUsage(tmp_path / "none", wall_clock=Clock())
    usage = TokenUsage(folder / "below", wall_clock=Clock())
    usage.record("bot")
    usage.save()
    folder.unlink()
    usage.save()
    assert (folder / "below" / FILE_NAME).exists()

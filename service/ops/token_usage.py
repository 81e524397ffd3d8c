"""The use of each token: when it was used last, how often, and how many bytes were taken in with it today.

Days begin at midnight UTC. The figures are those of this process: several servers that have the same tokens count each for itself, so
together they take in as many times the bytes of a day. They are written to the data folder every few seconds, and outlive a restart there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

import anyio
import msgspec
import structlog

from service.concurrency.polling import poll
from service.files import replace_file

log = structlog.get_logger(__name__)

SAVE_INTERVAL_SECONDS = 10.0
DAY_SECONDS = 86_400

FILE_NAME = "token-usage.json"


class Usage(msgspec.Struct):
    """The use of one token. Unix times in seconds; `day` is the number of the day, since 1970, that `bytes` belong to."""

    last_used: float = 0.0
    requests: int = 0
    day: int = 0
    bytes: int = 0


class TokenUsage:
    """The use of every token by its name."""

    def __init__(self, folder: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Continue with the figures of the process before, if they are in `folder`.

        wall_clock: returns the Unix time in seconds.
        """
        self._path = folder / FILE_NAME
        self._wall_clock = wall_clock
        self._changed = False
        self.by_name: dict[str, Usage] = {}
        try:
            self.by_name = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Usage])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the use of tokens begins at zero: its record cannot be read", problem=str(error))

    def __repr__(self) -> str:
        return f"<TokenUsage of {len(self.by_name)} tokens>"

    def keep_only(self, names: Collection[str]) -> None:
        """Forget tokens that do not exist any more, and have figures for the others."""
        self.by_name = {name: self.by_name.get(name) or Usage() for name in names}

    def record(self, name: str) -> None:
        """Record that a token was used now."""
        usage = self._usage(name)
        usage.last_used = self._wall_clock()
        usage.requests += 1

    def bytes_today(self, name: str) -> int:
        """Return how many bytes were taken in with a token since midnight UTC."""
        usage = self.by_name.get(name)
        return usage.bytes if usage is not None and usage.day == self._today() else 0

    def add_bytes(self, name: str, count: int) -> None:
        """Count bytes that were taken in with a token."""
        total = self.bytes_today(name) + count
        usage = self._usage(name)
        usage.day, usage.bytes = self._today(), total

    def seconds_left_today(self) -> int:
        """Return the time until the next midnight UTC, at least one second."""
        return max(1, DAY_SECONDS - int(self._wall_clock()) % DAY_SECONDS)

    async def watch(self) -> None:
        """Write the figures regularly, for as long as this process serves."""
        await poll(self._save_in_thread, every=SAVE_INTERVAL_SECONDS)

    def save(self) -> None:
        """Write the figures if they have changed."""
        if not self._changed:
            return
        self._changed = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(self.by_name))
        except OSError as error:
            self._changed = True
            log.warning("the use of tokens was not written", problem=str(error))

    def _today(self) -> int:
        return int(self._wall_clock() // DAY_SECONDS)

    async def _save_in_thread(self) -> None:
        await anyio.to_thread.run_sync(self.save)

    def _usage(self, name: str) -> Usage:
        self._changed = True
        return self.by_name.setdefault(name, Usage())

"""How far a push is: a bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.cli.client.sending import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Silent:
    """Progress that nobody looks at."""

    def expect(self, files: int, size: int) -> None:
        """See `Progress`."""

    def sent(self, size: int) -> None:
        """See `Progress`."""

    def spared(self, size: int) -> None:
        """See `Progress`."""

    def done(self) -> None:
        """See `Progress`."""


class _Bar:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars = bars
        self._task = task
        self._size = 0
        self._done = 0

    def expect(self, files: int, size: int) -> None:
        self._size = size
        self._bars.update(self._task, total=size, files=files)

    def sent(self, size: int) -> None:
        self._bars.update(self._task, advance=size)

    def spared(self, size: int) -> None:
        # What is not sent is no progress: the rate and the time left are those of sending.
        self._size -= size
        self._bars.update(self._task, total=self._size)

    def done(self) -> None:
        self._done += 1
        self._bars.update(self._task, done=self._done)


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """Give progress that is shown on standard error while it lasts, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    # Imported where it is seen alone: it takes a while.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as RichProgress  # noqa: PLC0415

    columns = (
        TextColumn("{task.fields[done]}/{task.fields[files]} files"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars, bars.add_task("push", total=None, done=0, files=0))

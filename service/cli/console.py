"""What every command shares on the terminal: exit codes, errors, and progress bars on standard error."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import click

from service.errors import Problem, SettingsError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, TaskID

    # With them come the settings of a server, which take longer to import than everything else here.
    from service.ops.maintenance.progress import Progress as ObjectProgress
    from service.ops.regions import RegionWarning

# Part of what was asked for was refused, or a check found something.
EXIT_PARTIAL = 1
# Nothing could be done, or not to the end.
EXIT_FAILED = 2
# As shells report Ctrl-C.
EXIT_INTERRUPTED = 130

# Of an error. Its remedy is at its end.
_MAX_ERROR_CHARACTERS = 4_000

T = TypeVar("T")


def fail(message: str, exit_code: int = EXIT_FAILED) -> NoReturn:
    """Print an error message and end the process."""
    click.echo(f"darkroom: {message}", err=True)
    sys.exit(exit_code)


def fail_with(error: SettingsError) -> NoReturn:
    """Print an error of the settings in one line and end the process."""
    click.echo(format_error(error), err=True)
    sys.exit(EXIT_FAILED)


def format_error(error: SettingsError) -> str:
    """Return the one line of an error, which may contain a part of a file or a value, with anything in it, and of any length."""
    text = escape(str(error))
    half = _MAX_ERROR_CHARACTERS // 2
    return f"darkroom: {text if len(text) <= _MAX_ERROR_CHARACTERS else f'{text[:half]}…{text[-half:]}'}"


def run(function: Callable[[], Awaitable[T]], *, interrupted: str | None = None) -> T:
    """Return what an asynchronous function returns. Ctrl-C prints the message `interrupted`, if there is one, and ends the process."""
    # The commands without a network should start at once.
    import anyio  # noqa: PLC0415

    try:
        return anyio.run(function)
    except KeyboardInterrupt:
        if interrupted is not None:
            click.echo(interrupted, err=True)
        sys.exit(EXIT_INTERRUPTED)


def format_problem(problem: Problem | RegionWarning, indent: str = "") -> str:
    """Return a problem as lines of text: what happened, what was expected, what was received, and what to do."""
    parts = (("expected", problem.expected), ("received", problem.received), ("remedy", problem.remedy))
    lines = [f"  {name:<8}  {escape(text)}" for name, text in parts if text]
    return "\n".join(indent + line for line in (escape(problem.detail), *lines))


def escape(text: str) -> str:
    """Return `text` with everything escaped that is not printable and could control the terminal. Names in any script stay readable."""
    return re.sub(r"[^ -~]", lambda match: match[0] if match[0].isprintable() else match[0].encode("unicode_escape").decode("ascii"), text)


def echo_warnings(named: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Print what the server removed from drawings. `named`: names of images, and their documents."""
    for name, document in named:
        for warning in document.get("warnings", ()):
            click.echo(f"{escape(name)}: {escape(warning)}", err=True)


def count(number: int, singular: str, plural: str) -> str:
    """Return a number with its noun: `1 file`, `1,200 files`."""
    return f"{number:,} {singular if number == 1 else plural}"


class UploadProgress(Protocol):
    """Receives the progress of a push."""

    def start(self, files: int, size: int) -> None:
        """Start with a number of files and the most bytes that may have to be sent for them."""

    def sent(self, size: int) -> None:
        """Count bytes that were sent; negative for bytes that were sent in vain."""

    def skipped(self, size: int) -> None:
        """Count bytes that do not have to be sent."""

    def file_done(self) -> None:
        """Count one more file as uploaded or rejected."""


class NullProgress:
    """Progress that nobody watches."""

    def start(self, files: int, size: int) -> None:
        """See `UploadProgress`."""

    def sent(self, size: int) -> None:
        """See `UploadProgress`."""

    def skipped(self, size: int) -> None:
        """See `UploadProgress`."""

    def file_done(self) -> None:
        """See `UploadProgress`."""


@contextmanager
def upload_progress(*, quiet: bool) -> Iterator[UploadProgress]:
    """Show the progress of a push, if standard error is a terminal and `quiet` is not set."""
    if quiet or not sys.stderr.isatty():
        yield NullProgress()
        return
    # Imported only if it is shown: it takes a while.
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    with _bars(
        TextColumn("{task.fields[done]}/{task.fields[files]} files"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    ) as bars:
        yield _UploadBar(bars)


@contextmanager
def count_progress(number: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show how many of `number` images are done, if standard error is a terminal and `quiet` is not set; yield what counts one more."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    with _bars(MofNCompleteColumn(), TextColumn("images"), BarColumn(), TimeRemainingColumn(compact=True)) as bars:
        task = bars.add_task("import", total=number)
        yield lambda: bars.advance(task)


@contextmanager
def object_progress() -> Iterator[ObjectProgress]:
    """Show the progress of a command that works through a store, if standard error is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    with _bars(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[objects]}"), DownloadColumn(), TimeRemainingColumn()
    ) as bars:
        yield _ObjectBar(bars)


@contextmanager
def _bars(*columns: ProgressColumn) -> Iterator[Bars]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield bars


class _UploadBar:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("push", total=None, done=0, files=0)
        self._size = 0
        self._done = 0

    def start(self, files: int, size: int) -> None:
        self._size = size
        self._bars.update(self._task, total=size, files=files)

    def sent(self, size: int) -> None:
        self._bars.update(self._task, advance=size)

    def skipped(self, size: int) -> None:
        # Skipped bytes reduce the total, so that the rate and the time left describe the upload.
        self._size -= size
        self._bars.update(self._task, total=self._size)

    def file_done(self) -> None:
        self._done += 1
        self._bars.update(self._task, done=self._done)


class _ObjectBar:
    """One bar at a time, for the current step."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._done = self._objects = 0

    def begin(self, step: str, objects: int, size: int) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._done, self._objects = 0, objects
        self._task = self._bars.add_task(step, total=size, objects=f"0/{objects}")

    def advance(self, size: int) -> None:
        self._done += 1
        if self._task is not None:
            self._bars.update(self._task, advance=size, objects=f"{self._done}/{self._objects}")

"""`darkroom store check | sweep | copy`: a store looked after from outside, beside a server that runs or without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import anyio
import click
import msgspec
import structlog
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from service.errors import ServiceError, SettingsError
from service.ops.maintenance.copy import Copier, CopyReport, Failure
from service.ops.maintenance.gc import GarbageCollector, remove_abandoned_uploads
from service.ops.maintenance.verify import Verifier, VerifyReport
from service.settings.environment import load
from service.settings.sections import Settings
from service.storage.object_store import Storage, open_storage

T = TypeVar("T")

# What scripts can go by.
ALL_RIGHT, SOMETHING_FOUND, NOT_DONE = 0, 1, 2

_LEFT: Mapping[Failure, str] = {
    "damaged": "It is not what its name says. Upload the file again to the source or to the destination.",
    "no-original": "The original of this document is not there to be copied. Upload the file again to the destination.",
}

_AT_A_TIME = click.option(
    "--at-a-time", type=click.IntRange(1, 256), default=8, show_default=True, help="Objects under way at a time, each in memory whole."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON object in place of sentences.")


@click.group()
def store() -> None:
    """Check a store, sweep leftovers from it, or copy it to another.

    A store is file:///folder or s3://bucket; without one it is that of DARKROOM_STORE. A bucket is reached by AWS_ENDPOINT_URL_S3,
    AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


@store.command()
@click.argument("url", required=False)
@_AT_A_TIME
@_JSON
def check(url: str | None, at_a_time: int, as_json: bool) -> None:
    """Verify every digest, seal and document. Nothing is changed; a server may run meanwhile.

    The exit code is 0 where all is right, 1 where something was found, 2 where the store could not be checked.
    """
    storage = _opened(url or _settings().storage.url)
    with _shown() as progress:
        found = _run(lambda: Verifier(storage, progress, concurrency=at_a_time).run())
    if as_json:
        _write_json(found)
    else:
        _tell_checked(found)
    sys.exit(SOMETHING_FOUND if found.findings else ALL_RIGHT)


@store.command()
@click.argument("url", required=False)
@click.option(
    "--older-than",
    type=click.IntRange(60),
    default=3_600,
    show_default=True,
    metavar="SECONDS",
    help="What is younger may be somebody's work under way.",
)
@_AT_A_TIME
@_JSON
def sweep(url: str | None, older_than: int, at_a_time: int, as_json: bool) -> None:
    """Remove what killed writes, takedowns that did not end, and servers that are gone have left; a server may run meanwhile.

    No original and no document goes, unless the image was taken down. The exit code is 0, or 2 where the store could not be swept.
    """
    storage = _opened(url or _settings().storage.url)
    with _shown() as progress:
        removed = _run(lambda: GarbageCollector(storage, progress, older_than_seconds=older_than, concurrency=at_a_time).run())
    if not url and (uploads := remove_abandoned_uploads(_settings().storage.data / "spool", older_than)):
        removed["uploads"] = uploads
    if as_json:
        _write_json({"removed": removed})
    else:
        click.echo("Removed: " + (", ".join(f"{number} {what}" for what, number in sorted(removed.items())) or "nothing") + ".")


@store.command()
@click.argument("source")
@click.argument("destination")
@click.option("--renditions", is_flag=True, help="Bring renditions and intermediates too; without it they are made again when asked for.")
@_AT_A_TIME
@_JSON
def copy(source: str, destination: str, renditions: bool, at_a_time: int, as_json: bool) -> None:
    """Bring what SOURCE has to DESTINATION, verified by digest on the way. Nothing is removed from SOURCE.

    Killed and run again, it goes on where it was. What is taken in meanwhile is brought by the next run: copy, let the servers use
    DESTINATION, copy again.

    Where SOURCE is a bucket that is reached by other variables than DESTINATION, set them as SOURCE_AWS_ENDPOINT_URL_S3,
    SOURCE_AWS_REGION, SOURCE_AWS_ACCESS_KEY_ID and SOURCE_AWS_SECRET_ACCESS_KEY.

    The exit code is 0 where all is there now, 1 where something was left because it is damaged, 2 where the copy has not ended.
    """
    apart = any(name.startswith("SOURCE_AWS_") for name in os.environ)
    if source.rstrip("/") == destination.rstrip("/") and not apart:
        _fail("SOURCE and DESTINATION are the same store.")
    taken_from, brought_to = _opened(source, "SOURCE_" if apart else ""), _opened(destination, make=True)
    with _shown() as progress:
        done = _run(lambda: Copier(taken_from, brought_to, progress, renditions=renditions, concurrency=at_a_time).run())
    if as_json:
        _write_json(done)
    else:
        _tell_copied(done)
    sys.exit(SOMETHING_FOUND if done.not_copied else ALL_RIGHT)


class _Bars:
    """How far a command has come, as a person sees it."""

    def __init__(self, bars: Progress) -> None:
        """Take the bars: one for each folder of the store, as it is come to."""
        self._bars = bars
        self._task: TaskID | None = None
        self._objects = self._of = 0

    def begin(self, what: str, objects: int, size: int) -> None:
        """Show what comes next."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._objects, self._of = 0, objects
        self._task = self._bars.add_task(what, total=size, objects=f"0/{objects}")

    def advance(self, size: int) -> None:
        """Show that one more object is done."""
        self._objects += 1
        if self._task is not None:
            self._bars.update(self._task, advance=size, objects=f"{self._objects}/{self._of}")


@contextmanager
def _shown() -> Iterator[_Bars]:
    """Give what shows progress, on standard error and only to people."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[objects]}"),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield _Bars(bars)


def _run(work: Callable[[], Awaitable[T]]) -> T:
    try:
        return anyio.run(work)
    except ServiceError as error:
        _fail(" ".join(filter(None, (error.detail, error.remedy))))
    except KeyboardInterrupt:
        click.echo("darkroom: interrupted; what is done stays done, and the next run goes on from there.", err=True)
        sys.exit(130)


def _settings() -> Settings:
    try:
        return load(os.environ)
    except SettingsError as error:
        _fail(str(error))


def _opened(url: str, prefix: str = "", *, make: bool = False) -> Storage:
    if url == "memory://":
        _fail("memory:// is in the memory of a server that runs, and gone with it. Expected file:///folder or s3://bucket.")
    try:
        return open_storage(url, os.environ, prefix=prefix, create=make)
    except SettingsError as error:
        _fail(str(error))


def _tell_checked(found: VerifyReport) -> None:
    for finding in found.findings:
        click.echo(f"{finding.kind}  {finding.key}\n  {finding.detail}\n  {finding.remedy}")
    looked_at = ", ".join(f"{number} {folder}" for folder, number in found.objects.items()) or "nothing is there"
    verdict = f"{len(found.findings)} found" if found.findings else "all right"
    click.echo(f"Checked: {looked_at}; {found.bytes} bytes; {verdict}.")


def _tell_copied(done: CopyReport) -> None:
    for left in done.not_copied:
        click.echo(f"{left.key}\n  {_LEFT[left.reason]}")
    copied = ", ".join(f"{number} {folder}" for folder, number in done.copied.items()) or "nothing"
    click.echo(f"Copied: {copied}; {done.bytes} bytes. There already: {done.there_already}. Removed: {done.removed}.")


def _write_json(value: object) -> None:
    click.echo(msgspec.json.encode(value).decode())


def _fail(message: str) -> NoReturn:
    click.echo(f"darkroom: {message}", err=True)
    sys.exit(NOT_DONE)

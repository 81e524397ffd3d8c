"""`darkroom push`: folders of images to a Darkroom, only what is new."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
import click
import msgspec

from service.cli.client import bar
from service.cli.client import manifest as manifests
from service.cli.client.command import INTERRUPTED, NOTHING_DONE, SOME_REFUSED, server_option, token
from service.cli.client.files import File, Gathered, check_names, gather
from service.cli.client.manifest import Manifest
from service.cli.client.problems import ClientError, NotTaken, UnreachableError, told, told_together
from service.cli.client.sending import Outcome
from service.cli.client.sending import push as push_files
from service.cli.client.server import Server, opened

# How often the folders are looked at with --watch, and how long after the server went away, in seconds.
LOOK_EVERY_SECONDS = 0.5
LOOK_AGAIN_SECONDS = 2.0


class Asked(msgspec.Struct, frozen=True):
    """What was asked for on the command line."""

    paths: Sequence[str]
    server: str
    relative: bool
    prune: bool
    parallel: int
    quiet: bool
    json: bool


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True))
@server_option
@click.option("--manifest", metavar="FILE", help="Write all of every image, by name, to this JSON file; entries that it has already stay.")
@click.option("--prune", is_flag=True, help="Keep no entry in the manifest of a file that is not found any more.")
@click.option("--relative", is_flag=True, help="Leave URLs without a host as they are; else the server's URL is put before them.")
@click.option("--parallel", type=click.IntRange(1, 16), default=4, show_default=True, help="Uploads at a time.")
@click.option("--watch", is_flag=True, help="Go on: push what is new or changed until Ctrl-C.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but what went wrong.")
@click.option("--json", "as_json", is_flag=True, help="Tell the outcome as JSON on standard output, one line for each push.")
def push(
    paths: Sequence[str],
    server: str,
    manifest: str | None,
    *,
    prune: bool,
    relative: bool,
    parallel: int,
    watch: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Push images to a Darkroom, files and whole folders: only what is not there yet.

    Files are known by their content: the same bytes are sent once, whatever they are called, and never again. A push that was stopped
    goes on where it was when it is run again. Hidden files are passed over; what is no image is told, and left out.

    Exits with 0 when all images are there, 1 when some files were not taken, 2 when nothing could be done: a wrong token, a server that
    does not answer, a manifest of another version.
    """
    asked = Asked(paths, server, relative, prune, parallel, quiet, as_json)
    try:
        kept = None if manifest is None else manifests.opened(manifest)
        sys.exit(anyio.run(_watch if watch else _once, asked, kept))
    except ClientError as error:
        if as_json:
            click.echo(msgspec.json.encode({"error": error.problem}))
        click.echo(f"darkroom: {told(error.problem)}", err=True)
        if isinstance(error, UnreachableError):
            click.echo("Run it again: only what is not there yet is sent. The manifest is as it was.", err=True)
        sys.exit(NOTHING_DONE)
    except KeyboardInterrupt:
        if watch:
            sys.exit(0)
        click.echo("Stopped. Run it again: only what is not there yet is sent. The manifest is as it was.", err=True)
        sys.exit(INTERRUPTED)


async def _once(asked: Asked, manifest: Manifest | None) -> int:
    async with opened(asked.server, token(), uploads_at_once=asked.parallel) as server:
        pushing = _Pushing(asked, manifest, server)
        gathered = await pushing.look()
        not_taken = await pushing.push(gathered, gathered.files, gathered.not_taken)
    if gathered.hidden and not asked.quiet and not asked.json:
        click.echo(f"{_count(gathered.hidden, 'hidden file or folder', 'hidden files and folders')} passed over.")
    return SOME_REFUSED if not_taken else 0


async def _watch(asked: Asked, manifest: Manifest | None) -> int:
    """Push what is there, then what is new or changed since, for as long as nobody stops it."""
    pushed: dict[str, tuple[int, int, int]] = {}
    before: Gathered | None = None
    is_away = False
    async with opened(asked.server, token(), uploads_at_once=asked.parallel) as server:
        pushing = _Pushing(asked, manifest, server)
        while True:
            now = await pushing.look()
            changed = [file for file in now.files if pushed.get(file.path) != file.stamp and _is_settled(file, before)]
            refused = [one for one in now.not_taken if before is None or one not in before.not_taken]
            try:
                if changed or refused or before is None or (asked.prune and before.names != now.names):
                    await pushing.push(now, changed, refused)
            except UnreachableError as error:
                if not is_away:
                    click.echo(f"darkroom: {told(error.problem)}\nIt is asked again until it does.", err=True)
                is_away = True
                await anyio.sleep(LOOK_AGAIN_SECONDS)
                continue
            if before is None and not asked.quiet:
                click.echo("Watching for changes; Ctrl-C ends it.", err=True)
            is_away = False
            pushed.update((file.path, file.stamp) for file in changed)
            before = now
            await anyio.sleep(LOOK_EVERY_SECONDS)


def _is_settled(file: File, before: Gathered | None) -> bool:
    """Return whether a file is as it was at the look before: what is still being written is not."""
    return before is None or file in before.files


class _Pushing:
    """Looks and pushes, as often as need be."""

    def __init__(self, asked: Asked, manifest: Manifest | None, server: Server) -> None:
        self._asked = asked
        self._manifest = manifest
        self._server = server

    async def look(self) -> Gathered:
        """Return what lies at the paths; raises `UsageError` where a manifest would have two files of one name."""
        leave_out = None if self._manifest is None else str(self._manifest.path)
        gathered = await anyio.to_thread.run_sync(gather, self._asked.paths, leave_out, abandon_on_cancel=True)
        if self._manifest is not None or self._asked.json:
            check_names(gathered.files)
        return gathered

    async def push(self, gathered: Gathered, files: Sequence[File], refused: Sequence[NotTaken]) -> list[NotTaken]:
        """Push some of the files that were found, write the manifest, tell the outcome, and return what was not taken."""
        asked = self._asked
        started = time.monotonic()
        with bar.shown(quiet=asked.quiet) as progress:
            outcome = await push_files(self._server, files, progress, uploads_at_once=asked.parallel)
        seconds = time.monotonic() - started
        not_taken = [*refused, *outcome.not_taken]
        images: dict[str, Any] = {}
        if self._manifest is not None or asked.json:
            images = manifests.entries(outcome.taken, None if asked.relative else self._server.url)
        if self._manifest is not None:
            self._manifest.update(images, only=gathered.names if asked.prune else None)
        if asked.json:
            click.echo(msgspec.json.encode(_outcome(outcome, images, not_taken)))
        elif files and not asked.quiet:
            click.echo(_summary(outcome, self._server.url, seconds))
        if not_taken and not asked.json:
            click.echo(f"{_count(len(not_taken), 'file was', 'files were')} not taken:\n{told_together(not_taken)}", err=True)
        return not_taken


def _outcome(outcome: Outcome, images: dict[str, Any], not_taken: Sequence[NotTaken]) -> dict[str, object]:
    return {
        "sent": {"images": outcome.sent_images, "bytes": outcome.sent_bytes},
        "images": images,
        "not_taken": [{"path": _text(one.path), "problem": one.problem} for one in not_taken],
    }


def _summary(outcome: Outcome, url: str, seconds: float) -> str:
    distinct = len({taken.document["digest"] for taken in outcome.taken})
    there = f"{_count(len(outcome.taken), 'file is', 'files are')} on {url}, {_count(distinct, 'image', 'images')}"
    sent = f"{outcome.sent_images} sent, {outcome.sent_bytes / 1e6:.1f} MB in {seconds:.1f} s"
    return f"{there}: {sent if outcome.sent_images else 'nothing had to be sent'}."


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _text(path: str) -> str:
    # JSON has no place for what is not UTF-8.
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

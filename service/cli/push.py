"""`darkroom push`: uploads files and folders of images, only those that are not on the server yet."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import click
import msgspec

from service.cli import console
from service.cli.client.command import report_failures, server_option, token
from service.cli.client.errors import Rejected, UnreachableError, format_rejected
from service.cli.client.manifest import Manifest, manifest_entries, open_manifest
from service.cli.client.scan import File, ScanResult, check_names, scan
from service.cli.client.server import Server, connect
from service.cli.client.upload import UploadResult, upload_files

# With --watch: seconds between two scans, and until the next attempt if the server does not respond.
SCAN_EVERY_SECONDS = 0.5
RETRY_AFTER_SECONDS = 2.0

_CONTINUE = "Run the command again to continue: it uploads only what is missing. The manifest is unchanged."


class PushOptions(msgspec.Struct, frozen=True):
    """The arguments of the command, but for the manifest and `--watch`."""

    paths: Sequence[str]
    server: str
    relative: bool
    prune: bool
    parallel: int
    quiet: bool
    json: bool


@click.command(short_help="Upload images, files and whole folders.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True))
@server_option
@click.option("--manifest", metavar="FILE", help="Write the image document of every file to this JSON file. Existing entries stay.")
@click.option("--prune", is_flag=True, help="Remove manifest entries of files that no longer exist.")
@click.option("--relative", is_flag=True, help="Keep URLs without a host. Otherwise the server's URL is put before them.")
@click.option("--parallel", type=click.IntRange(1, 16), default=4, show_default=True, help="Number of simultaneous uploads.")
@click.option("--watch", is_flag=True, help="Keep running, and push new and changed files until Ctrl-C.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output, one line for each push.")
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
    """Upload images to a Darkroom server: files and whole folders, only what is not on the server yet.

    Files are identified by their content: the same bytes are sent only once, under however many names. A push that was stopped continues
    when you run it again. Hidden files are skipped. Files that are not images are listed and left out.

    The exit code is 0 if all images are on the server, 1 if some files were rejected, and 2 if the push failed: a wrong token, a server
    that does not respond, a manifest of another version.
    """
    options = PushOptions(paths, server, relative, prune, parallel, quiet, as_json)
    with report_failures(as_json=as_json, advice=_CONTINUE, interruptible=watch):
        opened = None if manifest is None else open_manifest(manifest)
        # It takes a tenth of the CPU time off the whole command.
        sys.exit(anyio.run(partial(_watch if watch else _push_once, options, opened), backend_options={"use_uvloop": True}))


async def _push_once(options: PushOptions, manifest: Manifest | None) -> int:
    async with connect(options.server, token(), max_uploads=options.parallel) as server:
        pusher = _Pusher(options, manifest, server)
        found = await pusher.scan()
        rejected = await pusher.push(found, found.files, found.rejected)
    if found.hidden and not options.quiet and not options.json:
        click.echo(f"{console.count(found.hidden, 'hidden file or folder', 'hidden files and folders')} skipped.")
    return console.EXIT_PARTIAL if rejected else 0


async def _watch(options: PushOptions, manifest: Manifest | None) -> int:
    """Push all files, then new and changed ones, until this task is canceled."""
    pushed: dict[str, tuple[int, int, int]] = {}
    previous: ScanResult | None = None
    is_unreachable = False
    async with connect(options.server, token(), max_uploads=options.parallel) as server:
        pusher = _Pusher(options, manifest, server)
        while True:
            found = await pusher.scan()
            changed = [file for file in found.files if pushed.get(file.path) != file.stamp and _is_complete(file, previous)]
            rejected = [one for one in found.rejected if previous is None or one not in previous.rejected]
            try:
                if changed or rejected or previous is None or (options.prune and previous.names != found.names):
                    await pusher.push(found, changed, rejected)
            except UnreachableError as error:
                if not is_unreachable:
                    click.echo(f"darkroom: {console.format_problem(error.problem)}\nRetrying until it responds.", err=True)
                is_unreachable = True
                await anyio.sleep(RETRY_AFTER_SECONDS)
                continue
            if previous is None and not options.quiet:
                click.echo("Watching for changes. Press Ctrl-C to stop.", err=True)
            is_unreachable = False
            pushed.update((file.path, file.stamp) for file in changed)
            previous = found
            await anyio.sleep(SCAN_EVERY_SECONDS)


def _is_complete(file: File, previous: ScanResult | None) -> bool:
    """Return whether a file is the same as in the previous scan. Otherwise, a program may still be writing it."""
    return previous is None or file in previous.files


class _Pusher:
    """Scans and pushes, once or repeatedly."""

    def __init__(self, options: PushOptions, manifest: Manifest | None, server: Server) -> None:
        self._options = options
        self._manifest = manifest
        self._server = server

    async def scan(self) -> ScanResult:
        """Return the files at the paths; raises `UsageError` if a manifest would contain two files of the same name."""
        exclude = None if self._manifest is None else str(self._manifest.path)
        found = await anyio.to_thread.run_sync(scan, self._options.paths, exclude, abandon_on_cancel=True)
        if self._manifest is not None or self._options.json:
            check_names(found.files)
        return found

    async def push(self, found: ScanResult, files: Sequence[File], rejected: Sequence[Rejected]) -> list[Rejected]:
        """Upload `files`, write the manifest, print the result, and return all rejected files.

        `files` and `rejected` are those of the scan that the user has not heard of yet.
        """
        options = self._options
        started = time.monotonic()
        with console.upload_progress(quiet=options.quiet) as progress:
            result = await upload_files(self._server, files, progress, max_uploads=options.parallel)
        seconds = time.monotonic() - started
        all_rejected = [*rejected, *result.rejected]
        images: dict[str, Any] = {}
        if self._manifest is not None or options.json:
            images = manifest_entries(result.named, None if options.relative else self._server.url)
        if self._manifest is not None:
            self._manifest.update(images, only=found.names if options.prune else None)
        if options.json:
            click.echo(msgspec.json.encode(_as_json(result, images, all_rejected)))
        elif files and not options.quiet:
            click.echo(_summary(result, self._server.url, seconds))
        if not options.json and not options.quiet:
            console.echo_warnings(result.named)
        if all_rejected and not options.json:
            title = f"{console.count(len(all_rejected), 'file was', 'files were')} not uploaded:"
            click.echo(f"{title}\n{format_rejected(all_rejected)}", err=True)
        return all_rejected


def _as_json(result: UploadResult, images: dict[str, Any], rejected: Sequence[Rejected]) -> dict[str, object]:
    return {
        "sent": {"images": result.sent_images, "bytes": result.sent_bytes},
        "images": images,
        "rejected": [{"path": _utf8(one.path), "problem": one.problem} for one in rejected],
    }


def _summary(result: UploadResult, url: str, seconds: float) -> str:
    distinct = len({one.document["digest"] for one in result.uploaded})
    files, images = console.count(len(result.uploaded), "file", "files"), console.count(distinct, "image", "images")
    if not result.sent_images:
        return f"{files} ({images}) on {url}. Nothing had to be uploaded."
    return f"{files} ({images}) on {url}: {result.sent_images} uploaded, {result.sent_bytes / 1e6:.1f} MB in {seconds:.1f} s."


def _utf8(path: str) -> str:
    # JSON cannot contain the bytes of a path that are not UTF-8.
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

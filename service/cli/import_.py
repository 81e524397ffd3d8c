"""`darkroom import`: lets the server take in images from where they already are, and writes a manifest of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TextIO

import anyio
import click
import msgspec

from service.cli import console
from service.cli.client.command import report_failures, server_option, token
from service.cli.client.errors import FatalError, RefusedError, Rejected, UnreachableError, UsageError, client_problem, format_rejected
from service.cli.client.manifest import Manifest, manifest_entries, open_manifest
from service.cli.client.server import Document, Server, connect
from service.errors import Problem, UnsupportedFormatError
from service.urls.source_url import SOURCE_NAME

_CONTINUE = "Run the command again to continue: the server fetches only what is missing or has changed. The manifest is unchanged."


class ImportOptions(msgspec.Struct, frozen=True):
    """The arguments of the command, but for the manifest.

    source: a source with the beginning of paths after a slash, "" for URLs. urls: URLs of images.
    """

    source: str
    urls: Sequence[str]
    server: str
    relative: bool
    prune: bool
    parallel: int
    quiet: bool
    json: bool


class ImportResult(msgspec.Struct, frozen=True):
    """The images that are on the server by name, in the order of their names; how many of them are new; and the others."""

    imported: list[tuple[str, Document]]
    new_images: int
    rejected: list[Rejected]


@click.command("import", short_help="Take images in from a bucket or from URLs.")
@click.argument("source", metavar="[SOURCE[/FOLDER]]", default="")
@click.option("--urls", metavar="FILE", type=click.File(encoding="utf-8"), help="Import the URLs in this file, one a line; - for stdin.")
@server_option
@click.option("--manifest", metavar="FILE", help="Write the image document of every image to this JSON file. Existing entries stay.")
@click.option("--prune", is_flag=True, help="Remove manifest entries of images that are not in the source, or not among the URLs.")
@click.option("--relative", is_flag=True, help="Keep URLs without a host. Otherwise the server's URL is put before them.")
@click.option("--parallel", type=click.IntRange(1, 16), default=4, show_default=True, help="Number of simultaneous imports.")
@click.option("--quiet", "-q", is_flag=True, help="Print only errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
def import_images(
    source: str,
    urls: TextIO | None,
    server: str,
    manifest: str | None,
    *,
    prune: bool,
    relative: bool,
    parallel: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Let a Darkroom server take in the images of a bucket, or those at a list of URLs.

    SOURCE is the name of a bucket in the server's DARKROOM_SOURCES; with a folder, only the objects below it are imported. URLs have to be
    below a source. Nothing passes through this computer. An image that has not changed since its last import is not fetched again. Objects
    that are not images are listed and left out.

    In the manifest, an image has its path below the source as its name, or its URL.

    The exit code is 0 if all images are on the server, 1 if some were rejected, and 2 if the import failed: a wrong token, a server that
    does not respond, a source that does not exist.
    """
    if bool(source) == (urls is not None):
        raise click.UsageError("Name a SOURCE, or a file of URLs with --urls.")
    if source and SOURCE_NAME.fullmatch(source.partition("/")[0]) is None:
        raise click.UsageError(f"{source} does not begin with the name of a source. Read URLs from a file with --urls; push files.")
    with report_failures(as_json=as_json, advice=_CONTINUE):
        opened = None if manifest is None else open_manifest(manifest)
        options = ImportOptions(source, list(_read_urls(urls)), server, relative, prune, parallel, quiet, as_json)
        sys.exit(anyio.run(partial(_import, options, opened)))


def _read_urls(file: TextIO | None) -> Iterator[str]:
    """Yield the URLs in a file, without blank lines and comments, each once."""
    try:
        lines = [] if file is None else [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise UsageError(
            client_problem("The file of URLs is not UTF-8.", expected="text with one URL a line", remedy="Correct it.")
        ) from error
    yield from dict.fromkeys(line for line in lines if line and not line.startswith("#"))


async def _import(options: ImportOptions, manifest: Manifest | None) -> int:
    started = time.monotonic()
    async with connect(options.server, token(), max_uploads=options.parallel) as server:
        wanted = await _wanted(options, server)
        with console.count_progress(len(wanted), quiet=options.quiet) as advance:
            importer = _Importer(server, wanted, advance)
            result = await importer.run(options.parallel)
        base_url = None if options.relative else server.url
    images: dict[str, Any] = {}
    if manifest is not None or options.json:
        images = manifest_entries(result.imported, base_url)
    if manifest is not None:
        manifest.update(images, only=wanted if options.prune else None)
    if options.json:
        rejected = [{"path": one.path, "problem": one.problem} for one in result.rejected]
        click.echo(msgspec.json.encode({"new": result.new_images, "images": images, "rejected": rejected}))
        return console.EXIT_PARTIAL if result.rejected else 0
    if not options.quiet:
        imported = console.count(len(result.imported), "image", "images")
        click.echo(f"{imported} on {options.server}: {result.new_images} new, in {time.monotonic() - started:.1f} s.")
        console.echo_warnings(result.imported)
    if result.rejected:
        title = f"{console.count(len(result.rejected), 'image was', 'images were')} not imported:"
        click.echo(f"{title}\n{format_rejected(result.rejected)}", err=True)
    return console.EXIT_PARTIAL if result.rejected else 0


async def _wanted(options: ImportOptions, server: Server) -> Mapping[str, Mapping[str, str]]:
    """Return for each name what the server is to take in; raises `FatalError` if there is nothing at all in a source."""
    if not options.source:
        return {url: {"url": url} for url in options.urls}
    source, _, folder = options.source.partition("/")
    prefix = f"{folder.rstrip('/')}/" if folder.strip("/") else ""
    try:
        objects = await server.list_objects(source, prefix)
    except RefusedError as error:
        raise FatalError(error.problem) from error
    if not objects:
        raise FatalError(
            client_problem(
                "There are no objects to import.",
                expected="a source with images",
                received=options.source,
                remedy="Check the folder. It is below the prefix that the source has in DARKROOM_SOURCES.",
            )
        )
    return {entry.path: {"source": source, "path": entry.path} for entry in objects}


def _about_a_source(problem: Problem) -> Problem:
    """Return a problem with a remedy for an object in a source, where the server's own is for an upload."""
    if problem.type != UnsupportedFormatError.type_uri():
        return problem
    return msgspec.structs.replace(problem, remedy="Leave it out, or convert it to one of these formats.")


class _Importer:
    """Lets the server take images in, some at a time."""

    def __init__(self, server: Server, wanted: Mapping[str, Mapping[str, str]], advance: Callable[[], None]) -> None:
        self._server = server
        self._left = iter(wanted.items())
        self._advance = advance
        self._imported: dict[str, Document] = {}
        self._rejected: list[Rejected] = []
        self._new_images = 0
        self._failure: FatalError | UnreachableError | None = None

    async def run(self, parallel: int) -> ImportResult:
        """Import every image; raises `FatalError` and `UnreachableError` if the rest cannot be imported."""
        async with anyio.create_task_group() as tasks:
            for _ in range(parallel):
                tasks.start_soon(self._import_all, tasks.cancel_scope)
        if self._failure is not None:
            raise self._failure
        return ImportResult(sorted(self._imported.items()), self._new_images, self._rejected)

    async def _import_all(self, all_tasks: anyio.CancelScope) -> None:
        for name, wanted in self._left:
            try:
                document, is_new = await self._server.ingest_from(wanted)
            except (FatalError, UnreachableError) as error:
                # Raised from here, it would arrive in a group.
                self._failure = self._failure or error
                all_tasks.cancel()
                return
            except RefusedError as error:
                self._rejected.append(Rejected(name, _about_a_source(error.problem)))
            else:
                self._imported[name] = document
                self._new_images += is_new
            self._advance()

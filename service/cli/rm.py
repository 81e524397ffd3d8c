"""`darkroom rm`: takes images down."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from service.cli import console
from service.cli.client.command import fail, run_with_server, server_option
from service.cli.client.errors import RefusedError, Rejected, UsageError, client_problem, format_rejected
from service.cli.client.server import Server
from service.images.digest import is_digest


@click.command(short_help="Take images down.")
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@server_option
def rm(digests: Sequence[str], server: str, *, yes: bool) -> None:
    """Take images down: delete the originals and everything that was made from them.

    From then on, their URLs and uploads of the same files get status 410. Copies in browser caches cannot be removed.
    """
    invalid = next((digest for digest in digests if not is_digest(digest)), None)
    if invalid is not None:
        fail(
            UsageError(
                client_problem(
                    "This is not a digest.",
                    expected="32 characters of a-z and 2-7",
                    received=invalid,
                    remedy="`darkroom info FILE` prints the digest of a file.",
                )
            )
        )
    digests = list(dict.fromkeys(digests))
    if not yes:
        images, whose = ("this image", "Its original") if len(digests) == 1 else (f"these {len(digests)} images", "Their originals")
        click.confirm(f"Take down {images} on {server}? {whose} and renditions are deleted.", abort=True, err=True)
    rejected: list[Rejected] = []

    async def take_down(connected: Server) -> None:
        for digest in digests:
            try:
                takedown = await connected.take_down(digest)
            except RefusedError as error:
                rejected.append(Rejected(digest, error.problem))
                continue
            cdn = "the CDN was purged" if takedown.cdn == "purged" else "the server has no CDN to purge"
            click.echo(f"{digest} is taken down, {console.count(takedown.renditions, 'rendition', 'renditions')} removed; {cdn}.")

    run_with_server(take_down, server)
    if len(rejected) < len(digests):
        click.echo("Other server processes follow within 20 seconds. Copies in browser caches cannot be removed.")
    if rejected:
        click.echo(f"Not taken down:\n{format_rejected(rejected)}", err=True)
        sys.exit(console.EXIT_PARTIAL)

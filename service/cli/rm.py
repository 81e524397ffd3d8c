"""`darkroom rm`: images taken down."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from service.cli.client.command import SOME_REFUSED, end, run, server_option
from service.cli.client.problems import NotTaken, RefusedError, UsageError, problem, told_together
from service.cli.client.server import Server
from service.images.digest import is_digest


@click.command()
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask whether it is meant.")
@server_option
def rm(digests: Sequence[str], server: str, *, yes: bool) -> None:
    """Take images down: the originals and all that was made of them.

    Their URLs answer 410 from then on, and so does an upload of the same bytes. What browsers have kept cannot be recalled.
    """
    wrong = next((digest for digest in digests if not is_digest(digest)), None)
    if wrong is not None:
        end(
            UsageError(
                problem(
                    "This is no digest.",
                    expected="32 characters of a-z and 2-7",
                    received=wrong,
                    remedy="`darkroom info FILE` tells that of a file.",
                )
            )
        )
    if not yes:
        images = "this image" if len(digests) == 1 else f"these {len(digests)} images"
        click.confirm(f"Take down {images} on {server}? They cannot be brought back but by uploading them again.", abort=True, err=True)
    not_taken: list[NotTaken] = []

    async def take_down(asked: Server) -> None:
        for digest in dict.fromkeys(digests):
            try:
                done = await asked.take_down(digest)
            except RefusedError as error:
                not_taken.append(NotTaken(digest, error.problem))
                continue
            cdn = "the CDN in front was purged" if done.cdn == "purged" else "no CDN is known to the server"
            click.echo(f"{digest} is taken down, {done.renditions} renditions removed; {cdn}.")

    run(take_down, server)
    if len(not_taken) < len(set(digests)):
        click.echo("Other processes of the server follow within 20 seconds. What browsers have kept cannot be recalled.")
    if not_taken:
        click.echo(f"Not taken down:\n{told_together(not_taken)}", err=True)
        sys.exit(SOME_REFUSED)

"""`darkroom open`: the playground in a browser."""

from __future__ import annotations

import webbrowser

import click

from service.cli.client.command import digest_of_image, run, server_option
from service.cli.client.server import Server


@click.command("open")
@click.argument("image", metavar="[DIGEST|FILE]", required=False)
@server_option
def open(image: str | None, server: str) -> None:  # noqa: A001 - the command's name
    """Open the playground in a browser, with an image on its bench if one is given."""
    digest = None if image is None else digest_of_image(image)

    async def ask(asked: Server) -> str:
        if digest is not None:
            await asked.document(digest)
        return f"{asked.url}/{'' if digest is None else '#' + digest}"

    page = run(ask, server)
    click.echo(page)
    if not webbrowser.open(page):
        click.echo("No browser could be started here: open the URL above in one.", err=True)

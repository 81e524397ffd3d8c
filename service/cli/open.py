"""`darkroom open`: opens the playground in a browser."""

from __future__ import annotations

import webbrowser

import click

from service.cli.client.command import digest_of_image, run_with_server, server_option
from service.cli.client.server import Server


@click.command("open", short_help="Open the playground in a browser.")
@click.argument("image", metavar="[DIGEST|FILE]", required=False)
@server_option
def open(image: str | None, server: str) -> None:  # noqa: A001 - the command's name
    """Open the playground in a browser, with an image that is already on the server if one is given."""
    digest = None if image is None else digest_of_image(image)

    async def page_url(connected: Server) -> str:
        if digest is None:
            return f"{connected.url}/"
        # Fails with a readable error if the server does not have the image.
        await connected.get_document(digest)
        return f"{connected.url}/#{digest}"

    url = run_with_server(page_url, server)
    click.echo(url)
    if not webbrowser.open(url):
        click.echo("No browser could be started. Open the URL above in a browser.", err=True)

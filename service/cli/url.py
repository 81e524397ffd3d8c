"""`darkroom url`: prints the URL of a rendition."""

from __future__ import annotations

import click

from service.cli.client.command import digest_of_image, fail, image_argument, run_with_server, server_option
from service.cli.client.errors import UsageError, client_problem
from service.cli.client.manifest import with_absolute_urls
from service.cli.client.server import Server
from service.images.formats import FORMATS
from service.images.transform import FULL


@click.command()
@image_argument()
@click.argument("transform", default=FULL)
@click.option("--format", "image_format", type=click.Choice(FORMATS), help="The image format. Default: the one that every browser shows.")
@click.option("--variant", metavar="NAME", help="A transform that the server has under this name. TRANSFORM overrides its options.")
@server_option
def url(image: str, transform: str, image_format: str | None, variant: str | None, server: str) -> None:
    """Print the URL of a rendition.

    Write TRANSFORM as in URLs, for example width=640,height=480,fit=cover. Without it, the rendition shows the whole picture.
    """
    digest = digest_of_image(image)
    wanted: dict[str, object] = {"transform": _parse_options(transform)}
    if variant is not None:
        wanted["variant"] = variant
    if image_format is not None:
        wanted["format"] = image_format

    async def make_url(connected: Server) -> str:
        found = await connected.make_urls(digest, wanted)
        if image_format is not None:
            made: str = found["url"]
            return connected.url + made if made.startswith("/") else made
        # The widest rendition of the ladder is the transform itself.
        widest: str = with_absolute_urls(found, connected.url)["sources"][-1]["renditions"][-1]["url"]
        return widest

    click.echo(run_with_server(make_url, server))


def _parse_options(transform: str) -> dict[str, str]:
    if transform == FULL:
        return {}
    options: dict[str, str] = {}
    for pair in transform.split(","):
        key, equals, value = pair.partition("=")
        if not equals or key in options:
            fail(
                UsageError(
                    client_problem(
                        "This is not a transform.",
                        expected="key=value pairs separated by commas, each key once",
                        received=pair,
                        remedy="Write, for example, width=640,height=480,fit=cover.",
                    )
                )
            )
        options[key] = value
    return options

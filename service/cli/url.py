"""`darkroom url`: the URL of a rendition."""

from __future__ import annotations

from typing import Any

import click

from service.cli.client.command import digest_of_image, end, image_argument, run, server_option
from service.cli.client.manifest import absolute
from service.cli.client.problems import UsageError, problem
from service.cli.client.server import Server
from service.images.formats import FORMATS
from service.images.transform import FULL


@click.command()
@image_argument()
@click.argument("transform", default=FULL)
@click.option("--format", "image_format", type=click.Choice(FORMATS), help="The format; without it the one that every browser shows.")
@click.option("--variant", metavar="NAME", help="A transform that the server has under this name; TRANSFORM goes over it.")
@server_option
def url(image: str, transform: str, image_format: str | None, variant: str | None, server: str) -> None:
    """Print the URL of a rendition.

    TRANSFORM is written as in addresses, such as width=640,height=480,fit=cover; without it the whole picture.
    """
    digest = digest_of_image(image)
    wanted: dict[str, object] = {"transform": _options(transform)}
    if variant is not None:
        wanted["variant"] = variant
    if image_format is not None:
        wanted["format"] = image_format

    async def ask(asked: Server) -> str:
        found: dict[str, Any] = await asked.urls(digest, wanted)
        if image_format is not None:
            made: str = found["url"]
            return asked.url + made if made.startswith("/") else made
        # The widest of the ladder is the transform itself.
        widest: str = absolute(found, asked.url)["sources"][-1]["renditions"][-1]["url"]
        return widest

    click.echo(run(ask, server))


def _options(transform: str) -> dict[str, str]:
    if transform == FULL:
        return {}
    options: dict[str, str] = {}
    for pair in transform.split(","):
        key, equals, value = pair.partition("=")
        if not equals or key in options:
            end(
                UsageError(
                    problem(
                        "This is no transform.",
                        expected="key=value pairs joined by commas, each key once",
                        received=pair,
                        remedy="Write for example width=640,height=480,fit=cover.",
                    )
                )
            )
        options[key] = value
    return options

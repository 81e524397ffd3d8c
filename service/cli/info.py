"""`darkroom info`: what a Darkroom knows of an image."""

from __future__ import annotations

import click
import msgspec

from service.cli.client.command import digest_of_image, image_argument, run, server_option
from service.cli.client.manifest import absolute
from service.cli.client.problems import shown
from service.cli.client.server import Document, Server


@click.command()
@image_argument()
@click.option("--json", "as_json", is_flag=True, help="Print the whole image document.")
@server_option
def info(image: str, server: str, *, as_json: bool) -> None:
    """Print what a Darkroom knows of an image."""
    digest = digest_of_image(image)

    async def ask(asked: Server) -> Document:
        return absolute(await asked.document(digest), asked.url)

    document = run(ask, server)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
        return
    frames = f", {document['frames']} frames" if document["frames"] > 1 else ""
    facts = {
        "digest": document["digest"],
        "image": f"{document['format']}, {document['width']} × {document['height']} pixels{frames}, {document['bytes']:,} bytes",
        "taken in": document["created"],
        "shows": document["alt"] or "not said",
        "focal point": "none" if document["focal"] is None else ", ".join(f"{part:g}" for part in document["focal"]),
        "colours": ", ".join(dict.fromkeys([document["placeholder"]["color"], *document["placeholder"]["palette"]])),
        "src": document["src"],
        "formats": ", ".join(
            f"{source['type'].removeprefix('image/')} up to {source['renditions'][-1]['width']} wide" for source in document["sources"]
        ),
    }
    for name, fact in facts.items():
        click.echo(f"{name:<12} {shown(str(fact))}")

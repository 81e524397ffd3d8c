"""`darkroom info`: prints what the server knows about an image."""

from __future__ import annotations

import click
import msgspec

from service.cli import console
from service.cli.client.command import digest_of_image, image_argument, run_with_server, server_option
from service.cli.client.manifest import with_absolute_urls
from service.cli.client.server import Document, Server


@click.command()
@image_argument()
@click.option("--json", "as_json", is_flag=True, help="Print the image document as JSON.")
@server_option
def info(image: str, server: str, *, as_json: bool) -> None:
    """Print what the server knows about an image."""
    digest = digest_of_image(image)

    async def get_document(connected: Server) -> Document:
        return with_absolute_urls(await connected.get_document(digest), connected.url)

    document = run_with_server(get_document, server)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
        return
    frames = f", {document['frames']} frames" if document["frames"] > 1 else ""
    facts = {
        "digest": document["digest"],
        "image": f"{document['format']}, {document['width']} × {document['height']} pixels{frames}, {document['bytes']:,} bytes",
        "uploaded": document["created"],
        "name": document["name"] or "none",
        "alt text": document["alt"] or "none",
        "focal point": "none" if document["focal"] is None else ", ".join(f"{part:g}" for part in document["focal"]),
        **({"warnings": " ".join(document["warnings"])} if document.get("warnings") else {}),
        "colors": ", ".join(dict.fromkeys([document["placeholder"]["color"], *document["placeholder"]["palette"]])),
        "src": document["src"],
        "formats": ", ".join(
            f"{source['type'].removeprefix('image/')} up to {source['renditions'][-1]['width']} wide" for source in document["sources"]
        ),
    }
    for name, fact in facts.items():
        click.echo(f"{name:<12} {console.escape(str(fact))}")

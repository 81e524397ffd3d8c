"""`/`: the playground, and the files that it is made of at content-hashed URLs."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from service import headers
from service.address import base32_text
from service.errors import NotFoundError

_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

# How a module of the page names another one.
_IMPORT = re.compile(r'(?<=from "\./)[a-z]+\.js(?=";)')


def page_handlers() -> list[HTTPRouteHandler]:
    """Return the handlers of the page and its files, read once; a file's URL holds the hash of its content, and the page names that URL."""
    folder = files("service") / "web"
    page = (folder / "index.html").read_text("utf-8")
    read = {file.name: file.read_bytes() for file in folder.iterdir() if _extension(file.name) in _MEDIA_TYPES}
    contents: dict[str, tuple[bytes, str]] = {}
    for name, (hashed, body) in hashed_files(read).items():
        contents[hashed] = (body, _MEDIA_TYPES[_extension(name)])
        page = page.replace(f'"/web/{name}"', f'"/web/{hashed}"')

    page_etag = f'"{_hash(page.encode())}"'

    @get("/", media_type="text/html", include_in_schema=False)
    async def playground() -> Response[str]:
        return Response(page, media_type="text/html", headers={**headers.page_headers(), "ETag": page_etag})

    @get("/web/{name:str}", include_in_schema=False)
    async def page_file(name: str) -> Response[bytes]:
        if name not in contents:
            raise NotFoundError("The page has no such file.", received=name, remedy="Load GET / again: it names the newest files.")
        body, media_type = contents[name]
        return Response(body, media_type=media_type, headers=headers.page_file_headers())

    return [playground, page_file]


def hashed_files(read: dict[str, bytes]) -> dict[str, tuple[str, bytes]]:
    """Return each file's name with the hash of its content in it, and that content.

    A module imports others by their hashed names, which are part of its content: what is imported is hashed first, so that a change
    reaches every name on the way to it. Raises `ValueError` for modules that import each other in a circle.
    """
    done: dict[str, tuple[str, bytes]] = {}

    def hashed(name: str, importers: tuple[str, ...]) -> str:
        if name in importers:
            raise ValueError(f"modules import each other: {' > '.join((*importers, name))}")
        if name not in done:
            body = read[name]
            if name.endswith(".js"):
                body = _IMPORT.sub(lambda found: hashed(found[0], (*importers, name)), body.decode("utf-8")).encode()
            stem, _, extension = name.rpartition(".")
            done[name] = (f"{stem}.{_hash(body)}.{extension}", body)
        return done[name][0]

    for name in read:
        hashed(name, ())
    return done


def _extension(name: str) -> str:
    return name[name.rfind(".") :]


def _hash(body: bytes) -> str:
    return base32_text(hashlib.sha256(body).digest()[:10])

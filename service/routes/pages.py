"""`/`: the playground, and the files that it is made of at content-hashed URLs."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from service import headers
from service.address import base32_text
from service.errors import NotFoundError

_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_handlers() -> list[HTTPRouteHandler]:
    """Return the handlers of the page and its files, read once; a file's URL holds the hash of its content, and the page names that URL."""
    folder = files("service") / "web"
    page = (folder / "index.html").read_text("utf-8")
    contents: dict[str, tuple[bytes, str]] = {}
    for file in folder.iterdir():
        stem, dot, extension = file.name.rpartition(".")
        if dot + extension not in _MEDIA_TYPES:
            continue
        body = file.read_bytes()
        hashed = f"{stem}.{_hash(body)}.{extension}"
        contents[hashed] = (body, _MEDIA_TYPES[dot + extension])
        page = page.replace(f'"/web/{file.name}"', f'"/web/{hashed}"')

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


def _hash(body: bytes) -> str:
    return base32_text(hashlib.sha256(body).digest()[:10])

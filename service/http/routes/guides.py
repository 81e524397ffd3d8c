"""Pages for coding assistants, and for people who read Markdown: `/llms.txt`, and the guides at `/docs/<name>.md`."""

from __future__ import annotations

import difflib
from functools import cache

import anyio
from litestar import Response, Router, get

from service.errors import NotFoundError
from service.http.guides import GUIDES, llms_text, read_guides
from service.http.routes.pages import page_response, redirect_to_canonical_url
from service.settings.sections import Settings
from service.urls.unsigned import UnsignedTransforms


def guide_router(settings: Settings, unsigned: UnsignedTransforms) -> Router:
    """Return the routes of the guides. They are read at the first request, because most servers never get one.

    settings, unsigned: those of this server, which `/llms.txt` describes.
    """
    guides = cache(read_guides)
    index = cache(lambda: llms_text(settings, unsigned))

    @get("/llms.txt", media_type="text/plain", include_in_schema=False)
    async def llms() -> Response[str]:
        return page_response(await anyio.to_thread.run_sync(index), "text/plain")

    @get("/docs/{name:str}", media_type="text/markdown", include_in_schema=False)
    async def guide(name: str) -> Response[str]:
        page = name.removesuffix(".md")
        if page not in GUIDES or not name.endswith(".md"):
            raise NotFoundError(
                "There is no such guide.", expected=_expected(page), received=name, remedy="GET /llms.txt lists all guides."
            )
        return page_response((await anyio.to_thread.run_sync(guides))[page], "text/markdown")

    return Router("/", route_handlers=[llms, guide], before_request=redirect_to_canonical_url)


def _expected(page: str) -> str:
    """Return the paths of the guides whose names are close to `page`, of all guides if none is."""
    near = difflib.get_close_matches(page.lower(), GUIDES, n=3)
    return ", ".join(f"/docs/{name}.md" for name in near or GUIDES)

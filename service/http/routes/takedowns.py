"""`DELETE /v1/images/…`: images taken down, and takedowns lifted."""

from __future__ import annotations

from litestar import Request, Response, delete
from litestar.datastructures import State

from service.errors import NotFoundError
from service.http import headers
from service.http.routes.images import Access
from service.images.digest import is_digest
from service.library.takedowns import Takedowns, TakenDown


@delete("/v1/images/{digest:str}", summary="Take an image down", tags=["images"], status_code=200)
async def take_down(request: Request[object, object, State], *, access: Access, takedowns: Takedowns, digest: str) -> Response[TakenDown]:
    """Remove an image and all that was made of it, and leave a tombstone: 410 from now on, for an upload of the same bytes too.

    This process stops at once, the others within 20 seconds, a CDN that is configured when it has been told. What browsers have kept
    cannot be recalled. Sent again, it does whatever was left undone.
    """
    access.require(request, "delete")
    return Response(await takedowns.take_down(_digest(digest)), headers=headers.document_headers())


@delete("/v1/images/{digest:str}/tombstone", summary="Let an image that was taken down be taken in again", tags=["images"], status_code=204)
async def lift(request: Request[object, object, State], *, access: Access, takedowns: Takedowns, digest: str) -> Response[None]:
    """Remove the tombstone. The image itself is gone: it has to be uploaded again."""
    access.require(request, "delete")
    await takedowns.delete_tombstone(_digest(digest))
    return Response(None, status_code=204, headers=headers.document_headers())


def _digest(text: str) -> str:
    if is_digest(text):
        return text
    raise NotFoundError(
        "No image has this digest.", expected="32 characters of a-z and 2-7", received=text, remedy="Use a digest from an image document."
    )

"""`GET /v1/images` and `POST /v1/images/known`: many images at a time."""

from __future__ import annotations

import re

import anyio.lowlevel
import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State

from service.errors import BadRequestError
from service.http import headers
from service.http.bodies import json_body
from service.http.routes.images import Access, ImageDocument, image_document
from service.images.digest import is_digest
from service.images.document import Document
from service.images.formats import FORMATS
from service.library.listing import Listing
from service.library.renditions import Renditions
from service.ops.regions import require_primary
from service.settings.sections import Settings
from service.urls.signing import UrlBuilder

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_DIGESTS = 1_000

_CURSOR = re.compile(r"[0-9]{13}-[a-z2-7]{32}")
_NUMBER = re.compile(r"[0-9]{1,6}")


class ImagesPage(msgspec.Struct, frozen=True):
    """Some images, newest first."""

    images: list[ImageDocument]


class KnownRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which images are asked after."""

    digests: list[str]


class KnownImages(msgspec.Struct, frozen=True):
    """The documents of the images that are here, the digests of those that were taken down, and how large an upload may be, in bytes."""

    images: list[ImageDocument]
    gone: list[str]
    max_upload_bytes: int


_KNOWN_EXPECTED = f'{{"digests": ["…"]}}, at most {MAX_DIGESTS:,} of 32 characters of a-z and 2-7'


@get("/v1/images", summary="Images, newest first", tags=["images"])
async def recent(
    request: Request[object, object, State],
    *,
    access: Access,
    listing: Listing,
    renditions: Renditions,
    url_builder: UrlBuilder,
    settings: Settings,
) -> Response[ImagesPage]:
    """Return a page of image documents, newest first.

    `Link` with `rel="next"` names the page that follows, and is missing on the last one. A page may have fewer images than `limit`
    asks for, because some have been taken down; that alone does not end the list.
    """
    access.require(request, "read")
    require_primary(settings)
    asked = _query(request)
    limit = _limit(asked.get("limit", str(DEFAULT_LIMIT)))
    page = await listing.page(_cursor(asked.get("cursor")), limit)
    fields = headers.document_headers()
    if page.next is not None:
        fields["Link"] = f'</v1/images?limit={limit}&cursor={page.next}>; rel="next"'
    return Response(ImagesPage(await _minted(page.documents, renditions, url_builder)), headers=fields)


@post("/v1/images/known", summary="Which of some images are here", tags=["images"], status_code=200)
async def known(
    request: Request[object, object, State],
    *,
    access: Access,
    listing: Listing,
    renditions: Renditions,
    url_builder: UrlBuilder,
    settings: Settings,
) -> Response[KnownImages]:
    """Return the documents of those images that are here, in the order asked for; whoever uploads many sends only the others.

    The name of an image is the first 160 bits of the SHA-256 of its bytes, in base32. Who may take images in may ask this too.
    """
    access.require(request, "read", "ingest")
    asked = (await json_body(request, KnownRequest, _KNOWN_EXPECTED)).digests
    wrong = next((digest for digest in asked if not is_digest(digest)), None)
    if wrong is not None or len(asked) > MAX_DIGESTS:
        raise BadRequestError(
            "The digests cannot be used.",
            expected=_KNOWN_EXPECTED,
            received=f"{len(asked):,} digests" if wrong is None else wrong,
            remedy="Ask for fewer at a time." if wrong is None else "Take the first 160 bits of the SHA-256, in lower-case base32.",
        )
    found = await listing.lookup(asked)
    documents = await _minted(found.documents, renditions, url_builder)
    return Response(KnownImages(documents, found.gone, settings.limits.max_upload_bytes), headers=headers.document_headers())


async def _minted(documents: list[Document], renditions: Renditions, url_builder: UrlBuilder) -> list[ImageDocument]:
    offered = await renditions.supported_formats(FORMATS)
    minted = []
    for document in documents:
        minted.append(image_document(document, url_builder, offered))
        # Signing the URLs of a thousand takes a while: others get their turn.
        await anyio.lowlevel.checkpoint()
    return minted


def _query(request: Request[object, object, State]) -> dict[str, str]:
    pairs = [(name, value) for name, value in request.query_params.multi_items() if isinstance(value, str)]
    asked = dict(pairs)
    if len(asked) != len(pairs) or set(asked) - {"limit", "cursor"}:
        raise BadRequestError(
            "The query cannot be used.",
            expected="limit and cursor, each once at most",
            received=request.scope["query_string"].decode("latin-1"),
            remedy='Follow the Link with rel="next" from page to page.',
        )
    return asked


def _limit(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= MAX_LIMIT:
        raise BadRequestError(
            "`limit` is out of range.",
            expected=f"a whole number from 1 to {MAX_LIMIT}",
            received=text,
            remedy=f"Change it, or leave it out for {DEFAULT_LIMIT}.",
        )
    return int(text)


def _cursor(text: str | None) -> str:
    if text is not None and _CURSOR.fullmatch(text) is None:
        raise BadRequestError(
            "`cursor` names no place in the list.",
            expected='the cursor of a Link with rel="next"',
            received=text,
            remedy="Leave it out for the first page, and follow Link from there.",
        )
    return text or ""

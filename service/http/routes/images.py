"""`/v1/images`: images are uploaded, listed, described, changed and taken down."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Collection

import anyio.lowlevel
import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.datastructures import State
from multipart import MultipartError, MultipartSegment, parse_options_header

from service.errors import (
    BadRequestError,
    PreconditionFailedError,
    PreconditionRequiredError,
    ServiceError,
    UnknownImageError,
)
from service.http import headers
from service.http.auth import BearerAuth, require_pull
from service.http.bodies import MultipartEvent, body_pieces, multipart_events
from service.http.schemas import (
    MAX_URLS,
    ImageDocument,
    ImageDocuments,
    ImagePatch,
    ImagesPage,
    IngestFromUrl,
    LookupRequest,
    LookupResponse,
    PageQuery,
    UrlResponse,
    UrlsRequest,
)
from service.http.transforms import resolve_transform, resolve_variant
from service.http.validation import convert_query, decode_json, read_json
from service.images.digest import base32, is_digest
from service.images.document import Document
from service.images.formats import Format
from service.images.options import FocalPoint
from service.images.picture import Markup
from service.images.transform import Transform, from_options
from service.library.documents import Documents
from service.library.ingest import Ingester, IngestResult
from service.library.listing import Listing
from service.library.renditions import Renditions
from service.library.takedowns import Takedowns, TakenDown
from service.library.uploads import Upload
from service.ops.regions import require_primary
from service.pull.sources import Sources
from service.settings.sections import Settings
from service.urls.signing import UrlBuilder

_NUMBER = re.compile(r"[0-9]{1,6}")


@post("/v1/images", summary="Upload an image", tags=["images"], status_code=201)
async def ingest_image(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    ingester: Ingester,
    renditions: Renditions,
    url_builder: UrlBuilder,
    sources: Sources | None,
    settings: Settings,
) -> Response[ImageDocument] | Response[ImageDocuments]:
    """Store an image and return its document: 201, or 200 if the same bytes are already stored.

    The body is one of these:

    - The image's bytes, whatever their declared type.
    - `multipart/form-data` with one or more parts called `file`. For several files the response is a list in the order sent, with status
      207 if their outcomes differ.
    - JSON, `{"url": …}`: the server fetches the image, if `DARKROOM_PULL_HOSTS` allows the host.
    """
    auth.require(request, "ingest")
    supported = await renditions.supported_formats()
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data":
        result = await _ingest_body(request, ingester, sources, settings, is_json=content_type == "application/json")
        return document_response(image_document(result.document, url_builder, supported), 201 if result.created else 200)
    outcomes = await _ingest_parts(request, ingester, options.get("boundary", ""), settings)
    if len(outcomes) == 1 and isinstance(outcomes[0], ServiceError):
        raise outcomes[0]
    documents = [
        outcome.problem() if isinstance(outcome, ServiceError) else image_document(outcome.document, url_builder, supported)
        for outcome in outcomes
    ]
    codes = {outcome.status_code if isinstance(outcome, ServiceError) else 201 if outcome.created else 200 for outcome in outcomes}
    status_code = codes.pop() if len(codes) == 1 else 207
    first = documents[0]
    if len(documents) == 1 and isinstance(first, ImageDocument):
        return document_response(first, status_code)
    return Response(ImageDocuments(documents), status_code=status_code, headers=headers.document_headers())


@get("/v1/images", summary="List images, newest first", tags=["images"])
async def list_images(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    listing: Listing,
    renditions: Renditions,
    url_builder: UrlBuilder,
    settings: Settings,
) -> Response[ImagesPage]:
    """Return a page of image documents, newest first.

    The `Link` header with `rel="next"` has the URL of the next page; the last page has none. A page may have fewer images than `limit`
    because some have been taken down; that does not mean that it is the last one.
    """
    auth.require(request, "read")
    require_primary(settings)
    query = _page_query(request)
    page = await listing.page("" if query.cursor is msgspec.UNSET else query.cursor, query.limit)
    fields = headers.document_headers()
    if page.next is not None:
        fields["Link"] = f'</v1/images?limit={query.limit}&cursor={page.next}>; rel="next"'
    return Response(ImagesPage(await _image_documents(page.documents, renditions, url_builder)), headers=fields)


@post("/v1/images/known", summary="Look up images by digest", tags=["images"], status_code=200)
async def lookup_images(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    listing: Listing,
    renditions: Renditions,
    url_builder: UrlBuilder,
    settings: Settings,
) -> Response[LookupResponse]:
    """Return the documents of those images that are stored, in the order of the request.

    A client that uploads many files uses this to send only the missing ones. The digest of an image is the first 160 bits of the SHA-256
    of its bytes, in lower-case base32. The scope `ingest` permits this request too.
    """
    auth.require(request, "read", "ingest")
    wanted = await read_json(request, LookupRequest)
    found = await listing.lookup(wanted.digests)
    documents = await _image_documents(found.documents, renditions, url_builder)
    return Response(LookupResponse(documents, found.gone, settings.limits.max_upload_bytes), headers=headers.document_headers())


@get("/v1/images/{digest:str}", summary="Get an image document", tags=["images"])
async def get_image(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    documents: Documents,
    renditions: Renditions,
    url_builder: UrlBuilder,
    digest: str,
) -> Response[ImageDocument] | Response[None]:
    """Return the image document, or 304 if its `ETag` is one of `If-None-Match`."""
    auth.require(request, "read")
    document = await documents.get(digest)
    response = document_response(image_document(document, url_builder, await renditions.supported_formats()), 200)
    # A weak comparison, as this condition requires (RFC 9110 §13.1.2).
    tags = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if tags & {"*", response.headers["ETag"]}:
        return Response(None, status_code=304, headers=dict(response.headers))
    return response


@patch("/v1/images/{digest:str}", summary="Change the focal point or the alternative text", tags=["images"], status_code=200)
async def update_image(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    documents: Documents,
    renditions: Renditions,
    url_builder: UrlBuilder,
    digest: str,
) -> Response[ImageDocument]:
    """Change what people say about an image, if `If-Match` has its `ETag`, and return the document.

    New URLs follow a new focal point; existing URLs keep their picture.
    """
    auth.require(request, "ingest")
    wanted = await read_json(request, ImagePatch)
    expected_tag = request.headers.get("if-match", "")
    if not expected_tag:
        raise PreconditionRequiredError(
            "A change must name the version of the document that it changes.",
            expected="If-Match: the ETag of the document that was read",
            received="no If-Match",
            remedy="Read the document, and send its ETag in If-Match.",
        )
    supported = await renditions.supported_formats()

    def change(document: Document) -> Document:
        current_tag = _etag(image_document(document, url_builder, supported))
        if expected_tag.strip() != "*" and current_tag not in [tag.strip() for tag in expected_tag.split(",")]:
            raise PreconditionFailedError(
                "The image has been changed since it was read.",
                expected=current_tag,
                received=expected_tag,
                remedy="Read the document again, and apply the change to its current version.",
            )
        focal = document.focal
        if wanted.focal is not msgspec.UNSET:
            # A URL has four decimals.
            focal = None if wanted.focal is None else FocalPoint(*(round(coordinate, 4) for coordinate in wanted.focal))
        return msgspec.structs.replace(document, focal=focal, alt=document.alt if wanted.alt is msgspec.UNSET else wanted.alt)

    return document_response(image_document(await documents.update(digest, change), url_builder, supported), 200)


@post("/v1/images/{digest:str}/urls", summary="Make URLs of an image's renditions", tags=["images"], status_code=200)
async def create_urls(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    documents: Documents,
    renditions: Renditions,
    url_builder: UrlBuilder,
    settings: Settings,
    digest: str,
) -> Response[Markup] | Response[UrlResponse]:
    """Return a ladder of URLs as in the document, or one URL if there is a `format`.

    What a URL cannot spell is resolved now: the variant, `dpr`, `focal` or the stored focal point, and `trim`.
    """
    auth.require(request, "read")
    wanted = await read_json(request, UrlsRequest)
    transform = from_options(wanted.transform, resolve_variant(wanted.variant, settings))
    document = await documents.get(digest)
    transform = await resolve_transform(document, transform, renditions)
    if wanted.format is not None:
        if wanted.widths or wanted.formats or wanted.priority:
            raise BadRequestError(
                "`format` requests one URL; `widths`, `formats` and `priority` request a ladder.",
                expected="one or the other",
                received="both",
                remedy="Leave out `format`, or the others.",
            )
        await renditions.resolve(document.info, transform, wanted.format)
        return Response(UrlResponse(url_builder.url(digest, document.info, transform, wanted.format)), headers=headers.document_headers())
    _check_ladder(wanted)
    await renditions.check_supported(transform, wanted.formats)
    markup = url_builder.markup(
        digest,
        document.info,
        transform,
        widths=wanted.widths,
        formats=wanted.formats,
        supported=await renditions.supported_formats(),
        sizes=wanted.sizes,
        alt=document.alt if wanted.alt is None else wanted.alt,
        priority=wanted.priority,
    )
    return Response(markup, headers=headers.document_headers())


@delete("/v1/images/{digest:str}", summary="Take an image down", tags=["images"], status_code=200)
async def delete_image(
    request: Request[object, object, State], *, auth: BearerAuth, takedowns: Takedowns, digest: str
) -> Response[TakenDown]:
    """Remove an image with all of its renditions, and leave a tombstone: from now on it is 410, and so is an upload of the same bytes.

    This process stops serving it at once, the others within 20 seconds, and a configured CDN as soon as it has purged it. Copies in
    browsers cannot be recalled. Sent again, the request completes what was left undone.
    """
    auth.require(request, "delete")
    return Response(await takedowns.take_down(_require_digest(digest)), headers=headers.document_headers())


@delete("/v1/images/{digest:str}/tombstone", summary="Permit uploads of an image that was taken down", tags=["images"], status_code=204)
async def delete_tombstone(
    request: Request[object, object, State], *, auth: BearerAuth, takedowns: Takedowns, digest: str
) -> Response[None]:
    """Remove the tombstone. The image itself is gone: it has to be uploaded again."""
    auth.require(request, "delete")
    await takedowns.delete_tombstone(_require_digest(digest))
    return Response(None, status_code=204, headers=headers.document_headers())


def image_document(document: Document, url_builder: UrlBuilder, supported: Collection[Format]) -> ImageDocument:
    """Return the public form of a stored document, with new URLs of renditions in the formats `supported`."""
    markup = url_builder.markup(document.digest, document.info, Transform(), supported=supported, alt=document.alt)
    return ImageDocument(
        digest=document.digest,
        format=document.info.format,
        width=document.info.width,
        height=document.info.height,
        frames=document.info.frames,
        bytes=document.bytes,
        alpha=document.info.alpha,
        dynamic_range=document.info.dynamic_range,
        created=document.created,
        alt=document.alt,
        focal=None if document.focal is None else (document.focal.x, document.focal.y),
        warnings=document.warnings,
        placeholder=document.placeholder,
        src=markup.src,
        sources=markup.sources,
        picture=markup.picture,
    )


async def _image_documents(documents: list[Document], renditions: Renditions, url_builder: UrlBuilder) -> list[ImageDocument]:
    supported = await renditions.supported_formats()
    converted = []
    for document in documents:
        converted.append(image_document(document, url_builder, supported))
        # Signing the URLs of a thousand images takes a while: let other requests run in between.
        await anyio.lowlevel.checkpoint()
    return converted


def document_response(document: ImageDocument, status_code: int) -> Response[ImageDocument]:
    """Return the response that consists of a document, with its `ETag`, and after an upload (201) its `Location`."""
    fields = {**headers.document_headers(), "ETag": _etag(document)}
    if status_code == 201:
        fields["Location"] = f"/v1/images/{document.digest}"
    return Response(document, status_code=status_code, headers=fields)


def _etag(document: ImageDocument) -> str:
    return f'"{base32(hashlib.sha256(msgspec.json.encode(document)).digest()[:20])}"'


async def _ingest_body(
    request: Request[object, object, State], ingester: Ingester, sources: Sources | None, settings: Settings, *, is_json: bool
) -> IngestResult:
    """Store the image that is the body, or the one whose URL it has: no image begins with white space or a brace."""
    pieces = body_pieces(request, settings.limits.max_upload_bytes)
    first = await anext(pieces, b"") if is_json else b""
    if first and (first.isspace() or first.lstrip().startswith(b"{")):
        # The first piece is the whole body, or too large to be JSON.
        wanted = decode_json(first, IngestFromUrl)
        return await require_pull(sources).ingest(wanted.url)
    async with ingester.spool.open() as upload:
        await upload.write(first)
        async for piece in pieces:
            await upload.write(piece)
        return await ingester.ingest(upload)


async def _ingest_parts(
    request: Request[object, object, State], ingester: Ingester, boundary: str, settings: Settings
) -> list[IngestResult | ServiceError]:
    """Store the image of each `file` part, and return the outcomes in the order sent; raises if the body as a whole is not valid."""
    expected = f"multipart/form-data (RFC 7578) with 1 to {settings.limits.max_parts} parts called `file`"
    remedy = "Let the HTTP client make the body and its Content-Type; with curl: -F file=@photo.jpg."
    outcomes: list[IngestResult | ServiceError] = []
    try:
        events = multipart_events(body_pieces(request, settings.limits.max_upload_bytes), boundary, settings.limits.max_parts)
        async for event in events:
            if isinstance(event, MultipartSegment) and event.name == "file":
                async with ingester.spool.open() as upload:
                    outcomes.append(await _ingest_part(events, ingester, upload))
    except MultipartError as error:
        raise BadRequestError("The multipart body is not valid.", expected=expected, received=str(error), remedy=remedy) from error
    if not outcomes:
        raise BadRequestError("The multipart body has no file.", expected=expected, received="none", remedy=remedy)
    return outcomes


async def _ingest_part(events: AsyncIterator[MultipartEvent], ingester: Ingester, upload: Upload) -> IngestResult | ServiceError:
    async for data in events:
        if not isinstance(data, (bytes, bytearray)):
            break
        await upload.write(bytes(data))
    try:
        return await ingester.ingest(upload)
    except ServiceError as error:
        return error


def _page_query(request: Request[object, object, State]) -> PageQuery:
    pairs = [(name, value) for name, value in request.query_params.multi_items() if isinstance(value, str)]
    query: dict[str, object] = dict(pairs)
    if len(query) != len(pairs) or set(query) - set(PageQuery.__struct_fields__):
        raise BadRequestError(
            "The query has a parameter that is unknown or repeated.",
            expected=f"{' and '.join(PageQuery.__struct_fields__)}, each at most once",
            received=request.scope["query_string"].decode("latin-1"),
            remedy='Follow the Link with rel="next" from page to page.',
        )
    limit = query.get("limit")
    if isinstance(limit, str) and _NUMBER.fullmatch(limit):
        query["limit"] = int(limit)
    return convert_query(query, PageQuery)


def _check_ladder(wanted: UrlsRequest) -> None:
    """Check what the Struct cannot say; raises `BadRequestError` for a repeated format, and for more than `MAX_URLS` URLs."""
    if len(set(wanted.formats)) < len(wanted.formats):
        raise BadRequestError(
            "`formats` names a format twice.",
            expected="each format once",
            received=", ".join(wanted.formats),
            remedy="Leave one of them out.",
        )
    count = len(set(wanted.widths)) * len(wanted.formats)
    if count > MAX_URLS:
        raise BadRequestError(
            "The ladder has too many URLs.",
            expected=f"at most {MAX_URLS}: the number of widths times the number of formats",
            received=str(count),
            remedy="Request fewer widths or formats at a time.",
        )


def _require_digest(text: str) -> str:
    if is_digest(text):
        return text
    raise UnknownImageError.for_digest(text)

"""`/v1/images`: images are uploaded, listed, described, changed and taken down."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection

import anyio.lowlevel
import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.datastructures import State
from multipart import MultipartError, MultipartSegment, parse_options_header

from service.concurrency.spans import stage
from service.errors import (
    BadRequestError,
    PreconditionFailedError,
    PreconditionRequiredError,
    ServiceError,
    UnknownImageError,
)
from service.http import headers
from service.http.auth import BearerAuth, Grant
from service.http.bodies import MultipartEvent, body_pieces, file_name_of_query, multipart_events, require_declared_size
from service.http.schemas import (
    MAX_URLS,
    CropRequest,
    ImageDocument,
    ImageDocuments,
    ImagePatch,
    ImagesPage,
    IngestFromSource,
    LookupRequest,
    LookupResponse,
    PageQuery,
    UrlResponse,
    UrlsRequest,
)
from service.http.transforms import resolve_transform, resolve_variant
from service.http.validation import decode_json, read_json, read_query, require_distinct_formats
from service.images.digest import base32, is_digest
from service.images.document import Document
from service.images.formats import Format
from service.images.media_condition import parse_media_condition
from service.images.name import IMAGE_NAME_GRAMMAR, image_name, is_image_name
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
from service.settings.sections import Settings
from service.sources.sources import Sources
from service.urls.signing import Crop, UrlBuilder, UrlName
from service.urls.source_url import check_object_path


@post("/v1/images", summary="Upload an image", tags=["images"], status_code=201)
async def ingest_image(
    request: Request[object, object, State],
    *,
    auth: BearerAuth,
    ingester: Ingester,
    renditions: Renditions,
    url_builder: UrlBuilder,
    sources: Sources,
    settings: Settings,
) -> Response[ImageDocument] | Response[ImageDocuments]:
    """Store an image and return its document: 201, or 200 if the same bytes are already stored.

    The body is one of these:

    - The image's bytes, whatever their declared type; `?name=panda.jpg` has the file name.
    - `multipart/form-data` with one or more parts called `file`, each with its file name. For several files the response is a list in the
      order sent, with status 207 if their outcomes differ.
    - JSON, `{"source": …, "path": …}` or `{"url": …}`: the server fetches the image from one of the sources in `DARKROOM_SOURCES`.
    """
    grant = auth.require_for_source(request, "ingest")
    # First, because it does not help to send such a body again later.
    require_declared_size(request, settings.limits.max_upload_bytes)
    ingester.raise_if_full()
    supported = await renditions.supported_formats()
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data":
        result = await _ingest_body(request, grant, ingester, sources, settings, is_json=content_type == "application/json")
        return document_response(image_document(result.document, url_builder, supported), 201 if result.created else 200)
    grant.require_unbound()
    outcomes = await _ingest_parts(request, grant, ingester, options.get("boundary", ""), settings)
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
    query = read_query(request, PageQuery, 'Follow the Link with rel="next" from page to page.')
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


@patch("/v1/images/{digest:str}", summary="Change the focal point, the alternative text or the name", tags=["images"], status_code=200)
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

    New URLs follow a new focal point; existing URLs keep their picture. Unsigned URLs with the name before are redirected to the new one.
    """
    auth.require(request, "ingest")
    wanted = await read_json(request, ImagePatch)
    if wanted.name:
        _require_name(wanted.name)
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
        return msgspec.structs.replace(
            document,
            focal=focal,
            alt=document.alt if wanted.alt is msgspec.UNSET else wanted.alt,
            name=document.name if wanted.name is msgspec.UNSET else wanted.name,
        )

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
    name = _url_name(wanted.name, document, url_builder)
    transform = await resolve_transform(document, transform, renditions)
    if wanted.format is not None:
        if wanted.widths or wanted.formats or wanted.priority or wanted.art_direction:
            raise BadRequestError(
                "`format` requests one URL; `widths`, `formats`, `priority` and `art_direction` request a ladder.",
                expected="one or the other",
                received="both",
                remedy="Leave out `format`, or the others.",
            )
        await renditions.resolve(document.info, transform, wanted.format)
        url = url_builder.url(digest, document.info, transform, wanted.format, name)
        return Response(UrlResponse(url), headers=headers.document_headers())
    _check_ladder(wanted)
    await renditions.check_supported(transform, wanted.formats)
    crops = [
        await _crop(crop, document, wanted.name, documents=documents, renditions=renditions, settings=settings, url_builder=url_builder)
        for crop in wanted.art_direction
    ]
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
        name=name,
        art_direction=crops,
    )
    if crops:
        _check_count(sum(len(source.renditions) for source in markup.sources))
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
    name = _url_name(None, document, url_builder)
    markup = url_builder.markup(document.digest, document.info, Transform(), supported=supported, alt=document.alt, name=name)
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
        name=document.name,
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
    request: Request[object, object, State], grant: Grant, ingester: Ingester, sources: Sources, settings: Settings, *, is_json: bool
) -> IngestResult:
    """Store the image that is the body, or the one in a source that it names: no image begins with white space or a brace."""
    if not is_json:
        grant.require_unbound()
    pieces = _counted_pieces(request, grant, settings)
    first = await anext(pieces, b"") if is_json else b""
    if first and (first.isspace() or first.lstrip().startswith(b"{")):
        # The first piece is the whole body, or too large to be JSON.
        source, path = _locate(decode_json(first, IngestFromSource), sources)
        grant.require_source(source)
        return await sources.ingest(source, path, grant.spend)
    grant.require_unbound()
    async with ingester.spool.open() as upload:
        with stage("receive body"):
            await upload.write(first)
            async for piece in pieces:
                await upload.write(piece)
        return await ingester.ingest(upload, file_name=file_name_of_query(request))


def _locate(wanted: IngestFromSource, sources: Sources) -> tuple[str, str]:
    """Return the name of a source and the path of an object in it."""
    if isinstance(wanted.url, str) and wanted.source is wanted.path is msgspec.UNSET:
        return sources.locate(wanted.url)
    if wanted.url is msgspec.UNSET and isinstance(wanted.source, str) and isinstance(wanted.path, str):
        sources.require(wanted.source)
        check_object_path(wanted.path)
        return wanted.source, wanted.path
    raise BadRequestError(
        "The body does not name one image.",
        expected="`source` and `path`, or `url`",
        received=", ".join(name for name in wanted.__struct_fields__ if getattr(wanted, name) is not msgspec.UNSET) or "none of them",
        remedy="Send the name of a source and the path of the image in it, or the image's URL below a source.",
    )


def _counted_pieces(request: Request[object, object, State], grant: Grant, settings: Settings) -> AsyncIterator[bytes]:
    """Return the body of an upload in pieces, which the token pays for; they raise the errors of `body_pieces` and `Grant.count`."""
    return grant.count(body_pieces(request, settings.limits.max_upload_bytes), request.headers.get("content-length", ""))


async def _ingest_parts(
    request: Request[object, object, State], grant: Grant, ingester: Ingester, boundary: str, settings: Settings
) -> list[IngestResult | ServiceError]:
    """Store the image of each `file` part, and return the outcomes in the order sent; raises if the body as a whole is not valid."""
    expected = f"multipart/form-data (RFC 7578) with 1 to {settings.limits.max_parts} parts called `file`"
    remedy = "Let the HTTP client make the body and its Content-Type; with curl: -F file=@photo.jpg."
    outcomes: list[IngestResult | ServiceError] = []
    try:
        events = multipart_events(_counted_pieces(request, grant, settings), boundary, settings.limits.max_parts)
        async for event in events:
            if isinstance(event, MultipartSegment) and event.name == "file":
                async with ingester.spool.open() as upload:
                    outcomes.append(await _ingest_part(events, ingester, upload, event.filename or ""))
    except MultipartError as error:
        raise BadRequestError("The multipart body is not valid.", expected=expected, received=str(error), remedy=remedy) from error
    if not outcomes:
        raise BadRequestError("The multipart body has no file.", expected=expected, received="none", remedy=remedy)
    return outcomes


async def _ingest_part(
    events: AsyncIterator[MultipartEvent], ingester: Ingester, upload: Upload, file_name: str
) -> IngestResult | ServiceError:
    async for data in events:
        if not isinstance(data, (bytes, bytearray)):
            break
        await upload.write(bytes(data))
    try:
        return await ingester.ingest(upload, file_name=file_name)
    except ServiceError as error:
        return error


def _check_ladder(wanted: UrlsRequest) -> None:
    """Check what the Struct cannot say; raises `BadRequestError` for a repeated format, and for more than `MAX_URLS` URLs."""
    require_distinct_formats(wanted.formats)
    _check_count(len(set(wanted.widths)) * len(wanted.formats) * (1 + len(wanted.art_direction)))


def _check_count(urls: int) -> None:
    if urls > MAX_URLS:
        raise BadRequestError(
            "The ladders have too many URLs.",
            expected=f"at most {MAX_URLS}: the number of widths times the number of formats, for each crop",
            received=str(urls),
            remedy="Request fewer widths, formats or crops at a time.",
        )


async def _crop(
    crop: CropRequest,
    document: Document,
    wanted_name: bool | str | None,
    *,
    documents: Documents,
    renditions: Renditions,
    settings: Settings,
    url_builder: UrlBuilder,
) -> Crop:
    """Return a crop for some screens, with everything resolved that a URL cannot spell, of `document` unless it names another image."""
    media = parse_media_condition(crop.media)
    transform = from_options(crop.transform, resolve_variant(crop.variant, settings))
    shown = document if crop.digest is None else await documents.get(crop.digest)
    transform = await resolve_transform(shown, transform, renditions)
    return Crop(media, shown.digest, shown.info, transform, crop.sizes, _url_name(wanted_name, shown, url_builder))


def _url_name(wanted: bool | str | None, document: Document, url_builder: UrlBuilder) -> UrlName:
    """Return the name in the URLs of an image: its own for `True`, none for `False`; the setting decides if `wanted` is `None`."""
    if isinstance(wanted, str):
        return UrlName(_require_name(wanted), may_be_unsigned=wanted == document.name)
    return UrlName(document.name if wanted or (wanted is None and url_builder.use_names) else "")


def _require_name(text: str) -> str:
    """Return a text if it is a name that a URL can have; raises `BadRequestError`."""
    if is_image_name(text):
        return text
    closest = image_name(text)
    raise BadRequestError(
        "`name` is invalid.",
        expected=IMAGE_NAME_GRAMMAR,
        received=text,
        remedy=f"Use {closest}." if closest else "Use letters, digits, - and _.",
    )


def _require_digest(text: str) -> str:
    if is_digest(text):
        return text
    raise UnknownImageError.for_digest(text)

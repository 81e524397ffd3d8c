"""`/v1/images`: images in, documents out."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from service import headers
from service.errors import BadRequestError, ForbiddenError, Problem, ServiceError, UnauthorizedError
from service.markup import DEFAULT_SIZES, Markup, Minter, Source
from service.originals import Document, Ingested, Originals, Spooled, upload_chunks
from service.render.messages import Placeholder
from service.settings import Scope, Settings
from service.transform import FORMATS, MAX_SIDE_PIXELS, Format, Transform, from_options

PartEvent: TypeAlias = MultipartSegment | bytes | bytearray | None

_MAX_URLS_BODY_BYTES = 64 << 10


class ImageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """All that a frontend needs of an image. Sizes are pixels of the upright original, `bytes` its size as uploaded."""

    digest: str
    format: str
    width: int
    height: int
    frames: int
    bytes: int
    alpha: bool
    created: str
    alt: str
    focal: tuple[float, float] | None
    placeholder: Placeholder
    src: str
    sources: list[Source]
    picture: str


class ImageDocuments(msgspec.Struct, frozen=True):
    """One entry for each file of a multipart upload, in the order sent."""

    images: list[ImageDocument | Problem]


class UrlsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What URLs are wanted: a ladder, or with `format` one URL."""

    transform: dict[str, object] = {}
    widths: list[int] = []
    formats: list[str] = []
    sizes: str = DEFAULT_SIZES
    alt: str | None = None
    format: str | None = None


class OneUrl(msgspec.Struct, frozen=True):
    """The URL of one rendition."""

    url: str


class Access:
    """Who may do what: bearer tokens, compared in constant time (RFC 6750). Without any, everybody may."""

    def __init__(self, token_scopes: Mapping[str, frozenset[Scope]]) -> None:
        """Take each token's scopes."""
        self._token_scopes = token_scopes

    def require(self, request: Request[object, object, State], scope: Scope) -> None:
        """Return if the request's token carries `scope`; raises `UnauthorizedError` and `ForbiddenError`."""
        if not self._token_scopes:
            return
        kind, _, received = request.headers.get("authorization", "").partition(" ")
        scopes: frozenset[Scope] | None = None
        for token, granted in self._token_scopes.items():
            if hmac.compare_digest(token.encode(), received.strip().encode("utf-8", "surrogateescape")) and kind.lower() == "bearer":
                scopes = granted
        if scopes is None:
            raise UnauthorizedError(
                "This needs a token.",
                expected="Authorization: Bearer <one of DARKROOM_TOKENS>",
                received="no known token",
                remedy="Send a token that has been configured on the server.",
                extra_headers=(("WWW-Authenticate", 'Bearer realm="darkroom"'),),
            )
        if scope not in scopes:
            raise ForbiddenError(
                "This token may not do that.",
                expected=f"a token with the scope `{scope}`",
                received=f"one with {', '.join(sorted(scopes)) or 'no scope'}",
                remedy="Use another token, or give this one the scope in DARKROOM_TOKENS.",
                extra_headers=(("WWW-Authenticate", f'Bearer realm="darkroom", error="insufficient_scope", scope="{scope}"'),),
            )


@post("/v1/images", summary="Take an image in", tags=["images"], status_code=201)
async def ingest(
    request: Request[object, object, State], access: Access, originals: Originals, minter: Minter, settings: Settings
) -> Response[ImageDocument] | Response[ImageDocuments]:
    """Store an image and return its document: 201, or 200 when the same bytes are here already.

    The body is the image's bytes, whatever type is declared, or `multipart/form-data` with one or more parts called `file`:
    several are answered with a list in the order sent, 207 where their outcomes differ.
    """
    access.require(request, "ingest")
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data":
        async with originals.spooled() as upload:
            async for chunk in _body(request, originals.max_upload_bytes):
                await upload.write(chunk)
            ingested = await originals.ingest(upload)
        return _document_answer(image_document(ingested.document, minter), 201 if ingested.created else 200)
    outcomes = await _ingest_parts(request, originals, options.get("boundary", ""), settings.max_parts)
    if len(outcomes) == 1 and isinstance(outcomes[0], ServiceError):
        raise outcomes[0]
    documents = [
        outcome.problem() if isinstance(outcome, ServiceError) else image_document(outcome.document, minter) for outcome in outcomes
    ]
    codes = {outcome.status_code if isinstance(outcome, ServiceError) else 201 if outcome.created else 200 for outcome in outcomes}
    status_code = codes.pop() if len(codes) == 1 else 207
    first = documents[0]
    if len(documents) == 1 and isinstance(first, ImageDocument):
        return _document_answer(first, status_code)
    return Response(ImageDocuments(documents), status_code=status_code, headers=headers.document_headers())


@get("/v1/images/{digest:str}", summary="All that a frontend needs of an image", tags=["images"])
async def document(
    request: Request[object, object, State], access: Access, originals: Originals, minter: Minter, digest: str
) -> Response[ImageDocument]:
    """Return the image document."""
    access.require(request, "read")
    return _document_answer(image_document(await originals.document(digest), minter), 200)


@post("/v1/images/{digest:str}/urls", summary="URLs of an image for a transform", tags=["images"], status_code=200)
async def urls(
    request: Request[object, object, State], access: Access, originals: Originals, minter: Minter, digest: str
) -> Response[Markup] | Response[OneUrl]:
    """Return a ladder of URLs as in the document, or with `format` one URL."""
    access.require(request, "read")
    wanted = _urls_request(b"".join([chunk async for chunk in _body(request, _MAX_URLS_BODY_BYTES)]))
    transform = from_options(wanted.transform)
    known = await originals.document(digest)
    if wanted.format is not None:
        if wanted.widths or wanted.formats:
            raise BadRequestError(
                "`format` asks for one URL, `widths` and `formats` for a ladder.",
                expected="one or the other",
                received="both",
                remedy="Leave `format` out, or the other two.",
            )
        return Response(OneUrl(minter.url(digest, transform, _format(wanted.format))), headers=headers.document_headers())
    markup = minter.markup(
        digest,
        known.info,
        transform,
        widths=[_width(width) for width in wanted.widths],
        formats=[_format(name) for name in wanted.formats],
        sizes=wanted.sizes,
        alt=known.alt if wanted.alt is None else wanted.alt,
    )
    return Response(markup, headers=headers.document_headers())


def image_document(known: Document, minter: Minter) -> ImageDocument:
    """Return the public document of stored facts, its URLs minted now."""
    markup = minter.markup(known.digest, known.info, Transform(), alt=known.alt)
    return ImageDocument(
        digest=known.digest,
        format=known.info.format,
        width=known.info.width,
        height=known.info.height,
        frames=known.info.frames,
        bytes=known.bytes,
        alpha=known.info.alpha,
        created=known.created,
        alt=known.alt,
        focal=None,
        placeholder=known.placeholder,
        src=markup.src,
        sources=markup.sources,
        picture=markup.picture,
    )


def _document_answer(document: ImageDocument, status_code: int) -> Response[ImageDocument]:
    fields = headers.document_headers()
    if status_code == 201:
        fields["Location"] = f"/v1/images/{document.digest}"
    return Response(document, status_code=status_code, headers=fields)


def _body(request: Request[object, object, State], max_bytes: int) -> AsyncIterator[bytes]:
    declared = request.headers.get("content-length")
    return upload_chunks(request.stream(), int(declared) if declared and declared.isdigit() else None, max_bytes)


async def _ingest_parts(
    request: Request[object, object, State], originals: Originals, boundary: str, max_parts: int
) -> list[Ingested | ServiceError]:
    """Return what became of each `file` part, in the order sent; raises where the body as a whole cannot be read."""
    expected = f"multipart/form-data (RFC 7578) with 1 to {max_parts} parts called `file`"
    remedy = "Let the HTTP client make the body and its Content-Type; with curl: -F file=@photo.jpg."
    outcomes: list[Ingested | ServiceError] = []
    try:
        events = _multipart_events(_body(request, originals.max_upload_bytes), boundary, max_parts)
        async for event in events:
            if isinstance(event, MultipartSegment) and event.name == "file":
                async with originals.spooled() as upload:
                    outcomes.append(await _ingest_part(events, originals, upload))
    except MultipartError as error:
        raise BadRequestError("The multipart body cannot be read.", expected=expected, received=str(error), remedy=remedy) from error
    if not outcomes:
        raise BadRequestError("The multipart body has no file.", expected=expected, received="none", remedy=remedy)
    return outcomes


async def _ingest_part(events: AsyncIterator[PartEvent], originals: Originals, upload: Spooled) -> Ingested | ServiceError:
    async for data in events:
        if not isinstance(data, (bytes, bytearray)):
            break
        await upload.write(bytes(data))
    try:
        return await originals.ingest(upload)
    except ServiceError as error:
        return error


async def _multipart_events(body: AsyncIterator[bytes], boundary: str, max_parts: int) -> AsyncIterator[PartEvent]:
    """Give each part's header, then its data, then `None`."""
    with PushMultipartParser(boundary, max_segment_count=max_parts, strict=True) as parser:
        async for chunk in body:
            for event in parser.parse(chunk) if chunk else ():
                yield event


def _urls_request(body: bytes) -> UrlsRequest:
    try:
        return msgspec.json.decode(body or b"{}", type=UrlsRequest)
    except msgspec.DecodeError as error:
        raise BadRequestError(
            "The request's JSON cannot be used.",
            expected='{"transform": {…}, "widths": […], "formats": […], "sizes": "…", "alt": "…"}, all optional, '
            'or "format" in place of the two lists',
            received=str(error),
            remedy="See GET /docs.",
        ) from error


def _format(name: str) -> Format:
    for known in FORMATS:
        if name == known:
            return known
    raise BadRequestError("There is no such format.", expected=", ".join(FORMATS), received=name, remedy="Ask for one of these.")


def _width(width: int) -> int:
    if not 1 <= width <= MAX_SIDE_PIXELS:
        raise BadRequestError(
            "A width is out of range.", expected=f"1 to {MAX_SIDE_PIXELS} pixels", received=str(width), remedy="Leave it out, or change it."
        )
    return width

"""`/v1/images`: images in, documents out."""

from __future__ import annotations

import difflib
import hashlib
import hmac
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Annotated, TypeAlias

import msgspec
from litestar import Request, Response, get, patch, post
from litestar.datastructures import State
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from service.errors import (
    BadRequestError,
    BadTransformError,
    ForbiddenError,
    PreconditionFailedError,
    PreconditionRequiredError,
    Problem,
    ServiceError,
    SourceRefusedError,
    UnauthorizedError,
)
from service.http import headers
from service.http.bodies import body_pieces, decode_json, json_body
from service.images.digest import base32
from service.images.document import Document
from service.images.formats import FORMATS, Format
from service.images.info import Placeholder
from service.images.options import API_OPTIONS, MAX_SIDE_PIXELS, STRATEGIES, FocalPoint, Region
from service.images.picture import DEFAULT_SIZES, Markup, PictureSource
from service.images.transform import Transform, from_options
from service.library.documents import Documents
from service.library.ingest import Ingester, IngestResult
from service.library.renditions import Renditions
from service.library.uploads import Upload
from service.pull.sources import Sources
from service.settings.sections import SCOPES, Scope, Settings
from service.urls.signing import UrlBuilder

PartEvent: TypeAlias = MultipartSegment | bytes | bytearray | None

# A ladder is a step for each width of a screen that matters; 32 of them in the three formats of a page are signed in about 10 ms.
MAX_WIDTHS = 32
MAX_URLS = 96
MAX_SIZES_CHARACTERS = 1_000
MAX_ALT_CHARACTERS = 2_000
MAX_NAME_CHARACTERS = 64

# RFC 9110 §4.1: at least 8,000 octets should be supported.
MAX_URL_CHARACTERS = 8_192

# The name of a variant or of a format, and the members of a transform: none has more.
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]
Alt: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_ALT_CHARACTERS)]
Options: TypeAlias = Annotated[dict[Name, object], msgspec.Meta(max_length=len(API_OPTIONS))]

# A part of a side, to the four decimals that an address has.
Part: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]

# Where something is cut away and the anchor is nobody's choice, the focal point stored with the image is the better one.
_GIVES_WAY_TO_FOCAL = frozenset({"center", *STRATEGIES})


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
    sources: list[PictureSource]
    picture: str


class ImageDocuments(msgspec.Struct, frozen=True):
    """One entry for each file of a multipart upload, in the order sent."""

    images: list[ImageDocument | Problem]


class UrlsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What URLs are wanted: a ladder, or with `format` one URL; `transform` over that of the `variant`."""

    transform: Options = {}
    variant: Name | None = None
    widths: Annotated[list[int], msgspec.Meta(max_length=MAX_WIDTHS)] = []
    formats: Annotated[list[Name], msgspec.Meta(max_length=len(FORMATS))] = []
    sizes: Annotated[str, msgspec.Meta(max_length=MAX_SIZES_CHARACTERS)] = DEFAULT_SIZES
    alt: Alt | None = None
    format: Name | None = None


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed of an image: its focal point (x, y from the top left, each 0 to 1, or null) and what it shows, in words."""

    focal: tuple[Part, Part] | msgspec.UnsetType | None = msgspec.UNSET
    alt: Alt | msgspec.UnsetType = msgspec.UNSET


class FromUrl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an image is to be fetched."""

    url: Annotated[str, msgspec.Meta(max_length=MAX_URL_CHARACTERS)]


class PullRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wanted of a remote source: its URL, `transform` over that of the `variant`, a format or `auto` for the browser's best."""

    url: Annotated[str, msgspec.Meta(max_length=MAX_URL_CHARACTERS)]
    transform: Options = {}
    variant: Name | None = None
    format: Name = "auto"


class OneUrl(msgspec.Struct, frozen=True):
    """The URL of one rendition."""

    url: str


_URLS_EXPECTED = (
    '{"transform": {…}, "variant": "…", "widths": […], "formats": […], "sizes": "…", "alt": "…"}, all optional, '
    f'or "format" in place of the two lists; at most {MAX_WIDTHS} widths, each format once, at most {MAX_URLS} URLs'
)
_FROM_URL_EXPECTED = '{"url": "https://…"}, a host that DARKROOM_PULL_HOSTS allows'
_CHANGE_EXPECTED = '{"focal": [x, y] or null, "alt": "…"}, both optional; x and y from the top left, 0 to 1; at most 2,000 characters'


class Access:
    """Who may do what: bearer tokens, compared in constant time (RFC 6750). Without any, everybody may."""

    def __init__(self, token_scopes: Mapping[str, frozenset[Scope]]) -> None:
        """Take each token's scopes."""
        self._token_scopes = token_scopes

    def scopes(self, authorization: str) -> frozenset[Scope]:
        """Return what a value of `Authorization` may do; raises `UnauthorizedError` where it has no configured token."""
        if not self._token_scopes:
            return frozenset(SCOPES)
        kind, _, received = authorization.partition(" ")
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
        return scopes

    def require(self, request: Request[object, object, State], *any_of: Scope) -> None:
        """Return if the request's token carries one of some scopes; raises `UnauthorizedError` and `ForbiddenError`."""
        scopes = self.scopes(request.headers.get("authorization", ""))
        if scopes.isdisjoint(any_of):
            raise ForbiddenError(
                "This token may not do that.",
                expected=f"a token with the scope {' or '.join(f'`{scope}`' for scope in any_of)}",
                received=f"one with {', '.join(sorted(scopes)) or 'no scope'}",
                remedy="Use another token, or give this one the scope in DARKROOM_TOKENS.",
                extra_headers=(("WWW-Authenticate", f'Bearer realm="darkroom", error="insufficient_scope", scope="{any_of[0]}"'),),
            )


@post("/v1/images", summary="Take an image in", tags=["images"], status_code=201)
async def ingest(
    request: Request[object, object, State],
    *,
    access: Access,
    ingester: Ingester,
    renditions: Renditions,
    url_builder: UrlBuilder,
    sources: Sources | None,
    settings: Settings,
) -> Response[ImageDocument] | Response[ImageDocuments]:
    """Store an image and return its document: 201, or 200 when the same bytes are here already.

    The body is the image's bytes, whatever type is declared, or `multipart/form-data` with one or more parts called `file`:
    several are answered with a list in the order sent, 207 where their outcomes differ. Or it is JSON, `{"url": …}`: the image
    is fetched from there, if `DARKROOM_PULL_HOSTS` allows it.
    """
    access.require(request, "ingest")
    offered = await renditions.supported_formats(FORMATS)
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data":
        ingested = await _ingest_body(
            request, ingester, sources, settings.limits.max_upload_bytes, is_json=content_type == "application/json"
        )
        return _document_answer(image_document(ingested.document, url_builder, offered), 201 if ingested.created else 200)
    outcomes = await _ingest_parts(request, ingester, options.get("boundary", ""), settings)
    if len(outcomes) == 1 and isinstance(outcomes[0], ServiceError):
        raise outcomes[0]
    documents = [
        outcome.problem() if isinstance(outcome, ServiceError) else image_document(outcome.document, url_builder, offered)
        for outcome in outcomes
    ]
    codes = {outcome.status_code if isinstance(outcome, ServiceError) else 201 if outcome.created else 200 for outcome in outcomes}
    status_code = codes.pop() if len(codes) == 1 else 207
    first = documents[0]
    if len(documents) == 1 and isinstance(first, ImageDocument):
        return _document_answer(first, status_code)
    return Response(ImageDocuments(documents), status_code=status_code, headers=headers.document_headers())


@get("/v1/images/{digest:str}", summary="All that a frontend needs of an image", tags=["images"])
async def document(
    request: Request[object, object, State],
    *,
    access: Access,
    documents: Documents,
    renditions: Renditions,
    url_builder: UrlBuilder,
    digest: str,
) -> Response[ImageDocument] | Response[None]:
    """Return the image document, or 304 while it is what `If-None-Match` names."""
    access.require(request, "read")
    known = await documents.get(digest)
    answer = _document_answer(image_document(known, url_builder, await renditions.supported_formats(FORMATS)), 200)
    # Compared weakly, as this condition always is (RFC 9110 §13.1.2).
    seen = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if seen & {"*", answer.headers["ETag"]}:
        return Response(None, status_code=304, headers=dict(answer.headers))
    return answer


@post("/v1/images/{digest:str}/urls", summary="URLs of an image for a transform", tags=["images"], status_code=200)
async def urls(
    request: Request[object, object, State],
    *,
    access: Access,
    documents: Documents,
    renditions: Renditions,
    url_builder: UrlBuilder,
    settings: Settings,
    digest: str,
) -> Response[Markup] | Response[OneUrl]:
    """Return a ladder of URLs as in the document, or with `format` one URL.

    What is not in an address is resolved now: the variant, `dpr`, `focal` or the focal point stored with the image, and `trim`.
    """
    access.require(request, "read")
    wanted = await json_body(request, UrlsRequest, _URLS_EXPECTED)
    transform = from_options(wanted.transform, preset(wanted.variant, settings))
    known = await documents.get(digest)
    transform = await resolved(known, transform, renditions)
    if wanted.format is not None:
        if wanted.widths or wanted.formats:
            raise BadRequestError(
                "`format` asks for one URL, `widths` and `formats` for a ladder.",
                expected="one or the other",
                received="both",
                remedy="Leave `format` out, or the other two.",
            )
        image_format = _format(wanted.format)
        await renditions.check(known.info, transform, image_format)
        return Response(OneUrl(url_builder.url(digest, transform, image_format)), headers=headers.document_headers())
    formats = _formats(wanted)
    await renditions.check_supported(transform, formats)
    markup = url_builder.markup(
        digest,
        known.info,
        transform,
        widths=[_width(width) for width in wanted.widths],
        formats=formats,
        supported=await renditions.supported_formats(FORMATS),
        sizes=wanted.sizes,
        alt=known.alt if wanted.alt is None else wanted.alt,
    )
    return Response(markup, headers=headers.document_headers())


@patch("/v1/images/{digest:str}", summary="Change the focal point or the alternative text", tags=["images"], status_code=200)
async def change(
    request: Request[object, object, State],
    *,
    access: Access,
    documents: Documents,
    renditions: Renditions,
    url_builder: UrlBuilder,
    digest: str,
) -> Response[ImageDocument]:
    """Change what people say of an image, if it is what `If-Match` names, and return the document.

    New URLs follow a new focal point; those that were handed out keep their picture.
    """
    access.require(request, "ingest")
    asked = await json_body(request, Change, _CHANGE_EXPECTED)
    expected_tag = request.headers.get("if-match", "")
    if not expected_tag:
        raise PreconditionRequiredError(
            "A change needs to say of what.",
            expected="If-Match: the ETag of the document that was read",
            received="none",
            remedy="Read the document, and send its ETag in If-Match.",
        )
    offered = await renditions.supported_formats(FORMATS)

    def changed(known: Document) -> Document:
        current_tag = _etag(image_document(known, url_builder, offered))
        if expected_tag.strip() != "*" and current_tag not in [tag.strip() for tag in expected_tag.split(",")]:
            raise PreconditionFailedError(
                "The image has been changed since it was read.",
                expected=current_tag,
                received=expected_tag,
                remedy="Read the document again, and make the change to that.",
            )
        focal = known.focal if asked.focal is msgspec.UNSET else asked.focal and FocalPoint(*(round(part, 4) for part in asked.focal))
        return msgspec.structs.replace(known, focal=focal or None, alt=known.alt if asked.alt is msgspec.UNSET else asked.alt)

    return _document_answer(image_document(await documents.update(digest, changed), url_builder, offered), 200)


def allowed(sources: Sources | None) -> Sources:
    """Return what fetches remote sources; raises `SourceRefusedError` where none is allowed."""
    if sources is None:
        raise SourceRefusedError(
            "This server fetches from nowhere.",
            expected="a host that DARKROOM_PULL_HOSTS allows",
            received="no host is allowed",
            remedy="List the hosts in DARKROOM_PULL_HOSTS on the server, or upload the image's bytes.",
        )
    return sources


def preset(name: str | None, settings: Settings) -> Transform | None:
    """Return the transform of a variant, none for no name; raises `BadTransformError`."""
    if name is None:
        return None
    variants = settings.rendering.variants
    if name not in variants:
        near = difflib.get_close_matches(name, variants, 1)
        raise BadTransformError(
            "There is no such variant.",
            expected=", ".join(variants) or "no variant: DARKROOM_VARIANTS names none",
            received=name,
            remedy=f"Did you mean `{near[0]}`?" if near else "Use one of the names above, or add it to DARKROOM_VARIANTS.",
        )
    return variants[name]


async def resolved(known: Document, transform: Transform, renditions: Renditions) -> Transform:
    """Return a transform with what no address says: the stored focal point in place of a guess, the trimmed part in place of `trim`."""
    if known.focal is not None and transform.fit == "cover" and transform.gravity in _GIVES_WAY_TO_FOCAL:
        transform = msgspec.structs.replace(transform, gravity=known.focal)
    if transform.trim is None:
        return transform
    kept = await renditions.find_trim(known.digest, transform)
    page = known.info.of_page(transform.frame)
    whole = (kept.left, kept.top, kept.width, kept.height) == (0, 0, page.width, page.height)
    region = None if whole else Region(float(kept.left), float(kept.top), float(kept.width), float(kept.height))
    return msgspec.structs.replace(transform, trim=None, crop=region)


def image_document(known: Document, url_builder: UrlBuilder, offered: Collection[Format]) -> ImageDocument:
    """Return the public document of stored facts, its URLs minted now, in those formats that are `offered`."""
    markup = url_builder.markup(known.digest, known.info, Transform(), supported=offered, alt=known.alt)
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
        focal=None if known.focal is None else (known.focal.x, known.focal.y),
        placeholder=known.placeholder,
        src=markup.src,
        sources=markup.sources,
        picture=markup.picture,
    )


def _document_answer(document: ImageDocument, status_code: int) -> Response[ImageDocument]:
    fields = {**headers.document_headers(), "ETag": _etag(document)}
    if status_code == 201:
        fields["Location"] = f"/v1/images/{document.digest}"
    return Response(document, status_code=status_code, headers=fields)


def _etag(document: ImageDocument) -> str:
    return f'"{base32(hashlib.sha256(msgspec.json.encode(document)).digest()[:20])}"'


async def _ingest_body(
    request: Request[object, object, State], ingester: Ingester, sources: Sources | None, max_bytes: int, *, is_json: bool
) -> IngestResult:
    """Return what became of an image, or of the URL of one: no image begins with white space or a brace."""
    pieces = body_pieces(request, max_bytes)
    first = await anext(pieces, b"") if is_json else b""
    if first and (first.isspace() or first.lstrip().startswith(b"{")):
        # The first piece is the whole body, or longer than JSON may be.
        wanted = decode_json(first, FromUrl, _FROM_URL_EXPECTED)
        return await allowed(sources).ingest(wanted.url)
    async with ingester.spool.open() as upload:
        await upload.write(first)
        async for piece in pieces:
            await upload.write(piece)
        return await ingester.ingest(upload)


async def _ingest_parts(
    request: Request[object, object, State], ingester: Ingester, boundary: str, settings: Settings
) -> list[IngestResult | ServiceError]:
    """Return what became of each `file` part, in the order sent; raises where the body as a whole cannot be read."""
    expected = f"multipart/form-data (RFC 7578) with 1 to {settings.limits.max_parts} parts called `file`"
    remedy = "Let the HTTP client make the body and its Content-Type; with curl: -F file=@photo.jpg."
    outcomes: list[IngestResult | ServiceError] = []
    try:
        events = _multipart_events(body_pieces(request, settings.limits.max_upload_bytes), boundary, settings.limits.max_parts)
        async for event in events:
            if isinstance(event, MultipartSegment) and event.name == "file":
                async with ingester.spool.open() as upload:
                    outcomes.append(await _ingest_part(events, ingester, upload))
    except MultipartError as error:
        raise BadRequestError("The multipart body cannot be read.", expected=expected, received=str(error), remedy=remedy) from error
    if not outcomes:
        raise BadRequestError("The multipart body has no file.", expected=expected, received="none", remedy=remedy)
    return outcomes


async def _ingest_part(events: AsyncIterator[PartEvent], ingester: Ingester, upload: Upload) -> IngestResult | ServiceError:
    async for data in events:
        if not isinstance(data, (bytes, bytearray)):
            break
        await upload.write(bytes(data))
    try:
        return await ingester.ingest(upload)
    except ServiceError as error:
        return error


async def _multipart_events(body: AsyncIterator[bytes], boundary: str, max_parts: int) -> AsyncIterator[PartEvent]:
    """Give each part's header, then its data, then `None`."""
    with PushMultipartParser(boundary, max_segment_count=max_parts, strict=True) as parser:
        async for piece in body:
            for event in parser.parse(piece):
                yield event


def _formats(wanted: UrlsRequest) -> list[Format]:
    """Return the formats that a ladder is wanted in; raises `BadRequestError` for one that is there twice, and for too many URLs."""
    formats = [_format(name) for name in wanted.formats]
    if len(set(formats)) < len(formats):
        raise BadRequestError(
            "A format is in the list twice.", expected="each format once", received=", ".join(formats), remedy="Leave one of them out."
        )
    count = len(set(wanted.widths)) * len(formats)
    if count > MAX_URLS:
        raise BadRequestError(
            "The ladder has too many URLs.",
            expected=f"at most {MAX_URLS}: widths times formats",
            received=str(count),
            remedy="Use fewer widths or formats at a time.",
        )
    return formats


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

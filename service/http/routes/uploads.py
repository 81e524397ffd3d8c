"""`/v1/uploads`: URLs that take one upload each without a token, so that a browser can send an image by itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from litestar import Request, Response, post, route
from litestar.datastructures import State
from multipart import MultipartError, MultipartSegment, parse_options_header

from service.errors import BadRequestError, UnsupportedFormatError
from service.http import headers
from service.http.auth import BearerAuth
from service.http.bodies import body_pieces, body_too_large, file_name_of_query, multipart_events, require_declared_size
from service.http.routes.images import document_response, image_document
from service.http.schemas import ImageDocument, UploadUrl, UploadUrlRequest
from service.http.validation import read_json, require_distinct_formats
from service.images.info import ImageInfo
from service.library.ingest import Ingester
from service.library.renditions import Renditions
from service.library.upload_tickets import UploadTickets
from service.library.uploads import Upload
from service.settings.sections import Settings
from service.urls.signing import Signer, UrlBuilder
from service.urls.upload_ticket import UploadTicket, new_ticket, parse_upload_path

# What a form may have beside the bytes of its file: boundaries, headers of parts and a few short fields.
_FORM_BYTES = 16 << 10
_FORM_PARTS = 32

_SEND_SMALLER = "Send a smaller file, or request an upload URL with a larger `max_bytes`."


@post("/v1/uploads", summary="Make a URL that takes one upload", tags=["images"], status_code=201)
async def create_upload_url(
    request: Request[object, object, State], *, auth: BearerAuth, url_builder: UrlBuilder, settings: Settings
) -> Response[UploadUrl]:
    """Return a URL to which anyone who knows it may upload one image, without a token, until it expires.

    A server requests it with its token and gives it to a browser. Nothing is stored for it until it is used. If the token has a number of
    bytes per day, `max_bytes` of the URL count now.
    """
    grant = auth.require(request, "ingest")
    wanted = await read_json(request, UploadUrlRequest)
    most = settings.limits.max_upload_bytes
    if wanted.max_bytes is not None and wanted.max_bytes > most:
        raise BadRequestError(
            "`max_bytes` is more than this server accepts.",
            expected=f"a whole number from 1 to {most}",
            received=str(wanted.max_bytes),
            remedy="Change it, or raise DARKROOM_MAX_UPLOAD_BYTES on the server.",
        )
    require_distinct_formats(wanted.formats)
    grant.require_bytes(wanted.max_bytes or most)
    grant.spend(wanted.max_bytes or most)
    ticket = new_ticket(expires=int(time.time()) + wanted.seconds, max_bytes=wanted.max_bytes or most, formats=wanted.formats)
    expires = datetime.fromtimestamp(ticket.expires, UTC).isoformat().replace("+00:00", "Z")
    return Response(UploadUrl(url_builder.sign(ticket), expires), status_code=201, headers=headers.document_headers())


@route(
    "/v1/uploads/{ticket:str}", http_method=["POST", "PUT"], summary="Upload an image to an upload URL", tags=["images"], status_code=201
)
async def take_upload(
    request: Request[object, object, State],
    *,
    signer: Signer,
    upload_tickets: UploadTickets,
    ingester: Ingester,
    renditions: Renditions,
    url_builder: UrlBuilder,
    settings: Settings,
    ticket: str,  # noqa: ARG001 - Litestar requires it; the raw path is parsed instead
) -> Response[ImageDocument]:
    """Store one image, and return its document: 201, or 200 if the same bytes are already stored. No token is needed.

    The body is the image's bytes, or `multipart/form-data` with one part called `file`. The image gets its name from the file name of the
    part, or from `?name=`. The upload must be complete before the URL expires. A failed upload stores nothing and leaves the URL usable; a
    successful one uses it up.
    """
    found, signature = parse_upload_path(request.scope["raw_path"])
    signer.verify_ticket(found, signature)
    await upload_tickets.require_usable(found)
    max_bytes = min(found.max_bytes, settings.limits.max_upload_bytes)
    # First, because it does not help to send such a body again later. A form has more bytes than its file.
    require_declared_size(request, max_bytes + _FORM_BYTES, _SEND_SMALLER)
    ingester.raise_if_full()
    async with ingester.spool.open() as upload:
        file_name = await _receive(request, upload, max_bytes)
        result = await ingester.ingest(upload, lambda info: _admit(upload_tickets, found, info), file_name=file_name)
    document = image_document(result.document, url_builder, await renditions.supported_formats())
    return document_response(document, 201 if result.created else 200)


@asynccontextmanager
async def _admit(upload_tickets: UploadTickets, ticket: UploadTicket, info: ImageInfo) -> AsyncIterator[None]:
    if ticket.formats and info.format not in ticket.formats:
        raise UnsupportedFormatError(
            "This upload URL does not take images of this format.",
            expected=", ".join(ticket.formats),
            received=info.format,
            remedy="Send an image in one of the expected formats, or request an upload URL with this one in `formats`.",
        )
    async with upload_tickets.use(ticket):
        yield


async def _receive(request: Request[object, object, State], upload: Upload, max_bytes: int) -> str:
    """Write the file of a request to `upload`, and return its name.

    Raises `TooLargeError` for more than `max_bytes`, `SlowUploadError`, and `BadRequestError` for an invalid body.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type == "multipart/form-data":
        return await _receive_form(request, upload, options.get("boundary", ""), max_bytes)
    async for piece in body_pieces(request, max_bytes, _SEND_SMALLER):
        await upload.write(piece)
    return file_name_of_query(request)


async def _receive_form(request: Request[object, object, State], upload: Upload, boundary: str, max_bytes: int) -> str:
    files = 0
    is_file = False
    file_name = ""
    try:
        events = multipart_events(body_pieces(request, max_bytes + _FORM_BYTES, _SEND_SMALLER), boundary, _FORM_PARTS)
        async for event in events:
            if isinstance(event, MultipartSegment):
                is_file = event.name == "file"
                files += is_file
                file_name = event.filename or "" if is_file else file_name
            elif event is not None and is_file and files == 1:
                await upload.write(bytes(event))
                if upload.bytes > max_bytes:
                    raise body_too_large(max_bytes, f"more than {max_bytes} bytes", _SEND_SMALLER)
    except MultipartError as error:
        raise _invalid_form("The multipart body is not valid.", str(error)) from error
    if files != 1:
        raise _invalid_form("An upload URL takes one file.", f"{files} parts called `file`")
    return file_name


def _invalid_form(detail: str, received: str) -> BadRequestError:
    return BadRequestError(
        detail,
        expected="multipart/form-data (RFC 7578) with one part called `file`",
        received=received,
        remedy="Let the browser make the body and its Content-Type: a form with one <input type=file name=file>, or FormData.",
    )

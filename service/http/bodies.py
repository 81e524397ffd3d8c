"""Request bodies: read in few pieces, within bounds of bytes, of time and of messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeVar

import anyio
import msgspec

from service.errors import RAISE_UPLOAD_LIMIT, BadRequestError, SlowUploadError, body_too_large

if TYPE_CHECKING:
    # Commands that serve nothing import this too, and should be there at once.
    from litestar import Request
    from litestar.datastructures import State

# A client may keep the server waiting this long for a body, and as much longer as its bytes so far are worth at the slowest rate.
GRACE_SECONDS = 25.0
SLOWEST_BYTES_PER_SECOND = 8_192

# More than this is handed on at a time: hashing, parsing and writing cost as much for one byte as for thousands.
PIECE_BYTES = 64 << 10

# Each message of the server, one for each chunk of the client, costs about 35 µs of CPU whatever its size. TCP segments are at least
# 536 bytes (RFC 9293 §3.7.1) and clients write more than that at once: whoever sends less on average wants to be a burden.
FREE_MESSAGES = 1_024
LEAST_MESSAGE_BYTES = 512

# No more than `PIECE_BYTES`: the first piece of a body shows whether it is JSON and too large.
MAX_JSON_BYTES = 64 << 10

_CLOSE = (("Connection", "close"),)
_SEND_LESS = "Send fewer entries at a time, or shorter ones."

BodyT = TypeVar("BodyT", bound=msgspec.Struct)


async def body_pieces(request: Request[object, object, State], max_bytes: int, remedy: str = RAISE_UPLOAD_LIMIT) -> AsyncIterator[bytes]:
    """Yield a request's body in pieces of more than `PIECE_BYTES` bytes, the last one aside, none of them empty.

    Only the time that the client keeps the server waiting counts against it: what the caller does between two pieces does not.
    Raises `TooLargeError` for more than `max_bytes`, before anything is read where Content-Length says so, with `remedy` for the client;
    `SlowUploadError`, and `BadRequestError` for a body that breaks off, is not valid in chunked encoding (RFC 9112 §7.1), or comes in
    very many very small chunks.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise body_too_large(max_bytes, f"{declared} bytes", remedy)
    body = _Body(request, max_bytes, remedy)
    while piece := await body.piece():
        yield piece


async def json_body(request: Request[object, object, State], kind: type[BodyT], expected: str) -> BodyT:
    """Return a request's JSON body, the defaults of `kind` where it is empty.

    Raises `BadRequestError`, which says what was `expected`, and what `body_pieces` raises for more than `MAX_JSON_BYTES`.
    """
    return decode_json(b"".join([piece async for piece in body_pieces(request, MAX_JSON_BYTES, _SEND_LESS)]), kind, expected)


def decode_json(body: bytes, kind: type[BodyT], expected: str) -> BodyT:
    """Return a body of JSON, the defaults of `kind` where it is empty.

    Raises `BadRequestError`, which says what was `expected`, and `TooLargeError` for more than `MAX_JSON_BYTES`.
    """
    if len(body) > MAX_JSON_BYTES:
        raise body_too_large(MAX_JSON_BYTES, f"more than {MAX_JSON_BYTES} bytes of JSON", _SEND_LESS)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    # msgspec checks the UTF-8 of strings as Python does, and the depth of lists and objects too.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            "The request's JSON cannot be used.", expected=expected, received=str(error), remedy="See GET /docs."
        ) from error


class _Body:
    """A body on its way in: the bytes and messages so far, and how long the client has kept the server waiting for them."""

    def __init__(self, request: Request[object, object, State], max_bytes: int, remedy: str) -> None:
        self._receive = request.receive
        self._max_bytes = max_bytes
        self._remedy = remedy
        self._bytes = 0
        self._messages = 0
        self._waited_seconds = 0.0
        self._ended = False

    async def piece(self) -> bytes:
        """Return the next piece, empty at the end of the body."""
        gathered: list[bytes] = []
        gathered_bytes = 0
        started = anyio.current_time()
        try:
            with anyio.fail_after(self._seconds_left()) as scope:
                while gathered_bytes <= PIECE_BYTES and not self._ended:
                    gathered.append(await self._message())
                    gathered_bytes += len(gathered[-1])
                    scope.deadline = started + self._seconds_left()
        except TimeoutError:
            waited = self._waited_seconds + anyio.current_time() - started
            raise SlowUploadError(
                "The upload is too slow.",
                expected=f"at least {SLOWEST_BYTES_PER_SECOND} bytes a second after the first {GRACE_SECONDS:g} seconds",
                received=f"{self._bytes} bytes in {waited:.0f} seconds",
                remedy="Try again over a faster connection.",
                extra_headers=_CLOSE,
            ) from None
        self._waited_seconds += anyio.current_time() - started
        return gathered[0] if len(gathered) == 1 else b"".join(gathered)

    def _seconds_left(self) -> float:
        """Return how long the client may still keep the server waiting, counted from the beginning of this piece."""
        return GRACE_SECONDS + self._bytes / SLOWEST_BYTES_PER_SECOND - self._waited_seconds

    async def _message(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            # Granian says the same of a client that has gone, who reads nothing of this, and of chunks that are not valid.
            raise BadRequestError(
                "The body breaks off or is not valid.",
                expected="as many bytes as Content-Length says, or valid chunks to the last one (RFC 9112 §7.1)",
                received=f"{self._bytes} bytes, then something else",
                remedy="Let an HTTP client make the request, and send the body to its end.",
                extra_headers=_CLOSE,
            )
        chunk = message["body"]
        self._ended = not message["more_body"]
        self._bytes += len(chunk)
        self._messages += 1
        if self._bytes > self._max_bytes:
            raise body_too_large(self._max_bytes, f"more than {self._max_bytes} bytes", self._remedy)
        if self._messages > FREE_MESSAGES + self._bytes // LEAST_MESSAGE_BYTES:
            raise BadRequestError(
                "The body comes in too many too small chunks.",
                expected=f"chunks of {LEAST_MESSAGE_BYTES} bytes or more on average, after the first {FREE_MESSAGES}",
                received=f"{self._bytes} bytes in {self._messages} chunks",
                remedy="Send larger chunks, or the body in one piece with its Content-Length.",
                extra_headers=_CLOSE,
            )
        return chunk

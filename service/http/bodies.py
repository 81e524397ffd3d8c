"""Request bodies: read in large pieces, with limits on their bytes, on the time that they take, and on the number of their chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeAlias

import anyio
from multipart import MultipartSegment, PushMultipartParser

from service.errors import BadRequestError, SlowUploadError, TooLargeError

if TYPE_CHECKING:
    # `connections` imports this module for commands that serve nothing, and they should start quickly.
    from litestar import Request
    from litestar.datastructures import State

# A client may keep the server waiting this long for a body, and longer by the time that its bytes so far take at the minimum rate.
GRACE_SECONDS = 25.0
MIN_BYTES_PER_SECOND = 8_192

# Pieces have more bytes than this, because hashing, parsing and writing one byte costs as much as thousands.
PIECE_BYTES = 64 << 10

# Granian sends one ASGI message for each chunk of the client, at about 35 µs of CPU whatever its size. TCP segments have at least
# 536 bytes (RFC 9293 §3.7.1), and clients write more than that at once: only an attacker sends less on average.
FREE_MESSAGES = 1_024
MIN_MESSAGE_BYTES = 512

MultipartEvent: TypeAlias = MultipartSegment | bytes | bytearray | None

_CLOSE = (("Connection", "close"),)
_RAISE_LIMIT = "Send a smaller file, or raise DARKROOM_MAX_UPLOAD_BYTES on the server."


async def body_pieces(request: Request[object, object, State], max_bytes: int, remedy: str = _RAISE_LIMIT) -> AsyncIterator[bytes]:
    """Yield a request's body in pieces of more than `PIECE_BYTES` bytes; the last one may be smaller, none is empty.

    Only the time that the client keeps the server waiting counts, not what the caller does between two pieces.

    Raises `TooLargeError`, with `remedy`, for more than `max_bytes`, before anything is read if Content-Length says so;
    `SlowUploadError`; and `BadRequestError` for a body that breaks off, is not valid in chunked encoding (RFC 9112 §7.1), or consists of
    very many very small chunks.
    """
    require_declared_size(request, max_bytes, remedy)
    reader = _BodyReader(request, max_bytes, remedy)
    while piece := await reader.read_piece():
        yield piece


def require_declared_size(request: Request[object, object, State], max_bytes: int, remedy: str = _RAISE_LIMIT) -> None:
    """Raise `TooLargeError`, with `remedy`, if Content-Length declares a body of more than `max_bytes`."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise body_too_large(max_bytes, f"{declared} bytes", remedy)


def body_too_large(max_bytes: int, received: str, remedy: str) -> TooLargeError:
    """Return the error for a request body of more than `max_bytes` bytes. It closes the connection, because the rest is not read."""
    return TooLargeError(
        "The request's body is too large.",
        expected=f"at most {max_bytes} bytes",
        received=received,
        remedy=remedy,
        extra_headers=_CLOSE,
    )


def file_name_of_query(request: Request[object, object, State]) -> str:
    """Return the file name of a body that is the bytes of an image: the last parameter `name` of the query, empty without one."""
    names = request.query_params.getall("name", [])
    return str(names[-1]) if names else ""


async def multipart_events(body: AsyncIterator[bytes], boundary: str, max_parts: int) -> AsyncIterator[MultipartEvent]:
    """Yield for each part of a multipart body its header, then its data, then `None`; raises `MultipartError`."""
    with PushMultipartParser(boundary, max_segment_count=max_parts, strict=True) as parser:
        async for piece in body:
            for event in parser.parse(piece):
                yield event


class _BodyReader:
    """Reads a body, and counts its bytes, its messages, and the time that the server has waited for the client."""

    def __init__(self, request: Request[object, object, State], max_bytes: int, remedy: str) -> None:
        self._receive = request.receive
        self._max_bytes = max_bytes
        self._remedy = remedy
        self._bytes = 0
        self._messages = 0
        self._waited_seconds = 0.0
        self._ended = False

    async def read_piece(self) -> bytes:
        """Return the next piece, empty at the end of the body."""
        chunks: list[bytes] = []
        piece_bytes = 0
        started = anyio.current_time()
        try:
            with anyio.fail_after(self._seconds_left()) as scope:
                while piece_bytes <= PIECE_BYTES and not self._ended:
                    chunks.append(await self._read_chunk())
                    piece_bytes += len(chunks[-1])
                    scope.deadline = started + self._seconds_left()
        except TimeoutError:
            waited = self._waited_seconds + anyio.current_time() - started
            raise SlowUploadError(
                "The upload is too slow.",
                expected=f"at least {MIN_BYTES_PER_SECOND} bytes a second after the first {GRACE_SECONDS:g} seconds",
                received=f"{self._bytes} bytes in {waited:.0f} seconds",
                remedy="Try again over a faster connection.",
                extra_headers=_CLOSE,
            ) from None
        self._waited_seconds += anyio.current_time() - started
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _seconds_left(self) -> float:
        """Return how long the client may still keep the server waiting, from the beginning of this piece."""
        return GRACE_SECONDS + self._bytes / MIN_BYTES_PER_SECOND - self._waited_seconds

    async def _read_chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            # Granian sends the same message for invalid chunks and for a client that has disconnected, which will not read this.
            raise BadRequestError(
                "The body is incomplete or invalid.",
                expected="as many bytes as Content-Length says, or valid chunks to the last one (RFC 9112 §7.1)",
                received=f"{self._bytes} bytes, then something else",
                remedy="Use an HTTP client, and send the whole body.",
                extra_headers=_CLOSE,
            )
        chunk = message["body"]
        self._ended = not message["more_body"]
        self._bytes += len(chunk)
        self._messages += 1
        if self._bytes > self._max_bytes:
            raise body_too_large(self._max_bytes, f"more than {self._max_bytes} bytes", self._remedy)
        if self._messages > FREE_MESSAGES + self._bytes // MIN_MESSAGE_BYTES:
            raise BadRequestError(
                "The body consists of too many small chunks.",
                expected=f"chunks of {MIN_MESSAGE_BYTES} bytes or more on average, after the first {FREE_MESSAGES}",
                received=f"{self._bytes} bytes in {self._messages} chunks",
                remedy="Send larger chunks, or the body in one piece with its Content-Length.",
                extra_headers=_CLOSE,
            )
        return chunk

"""One request to the origin, which belongs to no client: its whole answer, or the stream of one too large or not to be shared."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from edge.asgi import Answer, ASGIApp, Headers, Message, Scope, field_values

log = logging.getLogger(__name__)

# RFC 9110 §8.6: answers that have no body, and whose length is not theirs.
_WITHOUT_BODY = frozenset({204, 304})


class OriginFailedError(Exception):
    """The origin raised, or returned without a whole answer: half an answer must not pass for a whole one (RFC 9111 §3.3)."""


class BodyStream:
    """The body of an answer on its way from the origin to one client, a message at a time: neither runs ahead of the other."""

    def __init__(self, first: bytes) -> None:
        """Take what the origin has sent already."""
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(1)
        self._messages.put_nowait({"type": "http.response.body", "body": first, "more_body": True})
        self.abandoned = False

    async def put(self, message: Message | None) -> None:
        """Hand on a message once the one before has been taken; `None` is a failure. Nothing happens when the client has gone."""
        if not self.abandoned:
            await self._messages.put(message)

    async def take(self) -> Message:
        """Return the next message; raises `OriginFailedError` where the origin failed midway."""
        message = await self._messages.get()
        if message is None:
            raise OriginFailedError("the origin failed in the middle of its answer")
        return message

    def abandon(self) -> None:
        """Take no more: the client has gone."""
        self.abandoned = True
        while not self._messages.empty():
            self._messages.get_nowait()


class Streamed(NamedTuple):
    """An answer that is handed on as it comes: its status and fields, and the rest."""

    status: int
    headers: Headers
    body: BodyStream


class Exchange:
    """The ASGI ends of a request to the origin: no body goes in; what comes out is collected, as far as it should be."""

    def __init__(self, streams: Callable[[int, Headers], bool], largest_bytes: int) -> None:
        """Take whether an answer that comes in pieces is handed on rather than collected, and the most bytes that are collected."""
        self._streams = streams
        self._largest_bytes = largest_bytes
        self._status = 0
        self._headers: Headers | None = None
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._stream: BodyStream | None = None
        self._asked = False
        self._whole = False
        self._done = asyncio.Event()
        self.answered: asyncio.Future[Answer | Streamed] = asyncio.get_running_loop().create_future()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have `app` answer. `answered` is done when this returns, with `OriginFailedError` if the application failed."""
        failure: BaseException | None = None
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            failure = error
            log.exception("the origin failed")
        except BaseException as error:
            # The process is ending: those that wait are told, and the end goes on.
            failure = error
            raise
        finally:
            if not self.answered.done():
                told = OriginFailedError("the application failed" if failure else "the application returned without a whole answer")
                told.__cause__ = failure
                if failure is None:
                    log.error(str(told))
                self._fail(told)
            if self._stream is not None and not self._whole:
                await self._stream.put(None)

    def abandon(self) -> None:
        """Tell the origin that nobody is left to take a stream; an answer that is collected goes on for those to come."""
        if self._stream is not None:
            self._stream.abandon()
            self._done.set()

    def _fail(self, error: OriginFailedError) -> None:
        self.answered.set_exception(error)
        # Every client may have left: then nobody else retrieves the error, and asyncio would report it as forgotten.
        self.answered.exception()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._done.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        elif message["type"] == "http.response.body" and self._headers is not None and not self._whole:
            more = bool(message.get("more_body"))
            self._whole = not more
            if self._stream is not None:
                await self._stream.put(message)
            else:
                self._collect(self._headers, message.get("body", b""), more=more)
            if self._whole:
                self._done.set()

    def _collect(self, headers: Headers, piece: bytes, *, more: bool) -> None:
        self._pieces.append(piece)
        self._bytes += len(piece)
        if not more:
            self._answer(Answer(self._status, headers, b"".join(self._pieces)))
        elif self._bytes > self._largest_bytes or (len(self._pieces) == 1 and self._streams(self._status, headers)):
            self._stream = BodyStream(b"".join(self._pieces))
            self._pieces.clear()
            self.answered.set_result(Streamed(self._status, headers, self._stream))

    def _answer(self, answer: Answer) -> None:
        lengths = field_values(answer.headers, b"content-length")
        if answer.status in _WITHOUT_BODY:
            self.answered.set_result(answer)
        elif not lengths:
            headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
            self.answered.set_result(answer._replace(headers=headers))
        elif all(length == b"%d" % len(answer.body) for length in lengths):
            self.answered.set_result(answer)
        else:
            log.error("the origin sent %d bytes and called them %s", len(answer.body), lengths)
            self._fail(OriginFailedError("the body is not as long as the application said"))

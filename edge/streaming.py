"""A response that is forwarded to one client while the origin is still sending it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from edge.asgi import Headers, Message


class OriginFailedError(Exception):
    """The origin raised an exception or sent an incomplete response, which must not be mistaken for a complete one (RFC 9111 §3.3)."""


class BodyStream:
    """The body of a response between the origin and one client, one message at a time: neither side runs ahead of the other."""

    def __init__(self, first: bytes) -> None:
        """Begin with the bytes that the origin has already sent.

        Parameters:
            first: The beginning of the body.
        """
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(1)
        self._messages.put_nowait({"type": "http.response.body", "body": first, "more_body": True})
        self._canceled = False

    async def put(self, message: Message | None) -> None:
        """Pass a message on once the client has taken the one before; `None` means that the origin failed.

        After `cancel`, messages are discarded.
        """
        if not self._canceled:
            await self._messages.put(message)

    async def next_message(self) -> Message:
        """Return the next message.

        Raises:
            OriginFailedError: The origin failed in the middle of the response.
        """
        message = await self._messages.get()
        if message is None:
            raise OriginFailedError("the origin failed in the middle of its response")
        return message

    def cancel(self) -> None:
        """Discard the rest: the client has disconnected or does not need it."""
        self._canceled = True
        while not self._messages.empty():
            self._messages.get_nowait()


class StreamingResponse(NamedTuple):
    """The status and headers of a response whose body is still arriving."""

    status: int
    headers: Headers
    body: BodyStream

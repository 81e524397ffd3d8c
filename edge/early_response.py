"""Responses that are sent before the request's body has been read."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from edge.asgi import Message, Receive, Send

# The rest of a body is read for so long after the response, with a pause before each message: the client cannot send faster than that, so
# it comes to reading the response, and a hostile one cannot make the server busy with tiny chunks.
LINGER_SECONDS = 2.0
PAUSE_SECONDS = 0.002


class EarlyResponse:
    """Lets a client read a response that it gets while it still sends its request's body (RFC 9112 §9.6).

    A server that closes the connection then resets it, because there is unread data. The client, or a proxy in front such as nginx, may
    lose the response by that, and see a broken connection where it should see the reason for a refusal. So the last message of such a
    response is held back, with nothing left to send, until the rest of the body has been read, but for at most `LINGER_SECONDS`.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        """Wrap the channels of a request that has a body."""
        self._receive = receive
        self._send = send
        self._is_read = False

    async def receive(self) -> Message:
        """Return the next message of the request."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._is_read = True
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the response."""
        if self._is_read or message["type"] != "http.response.body" or message.get("more_body", False):
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._is_read:
                    await asyncio.sleep(PAUSE_SECONDS)
                    await self.receive()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

"""Remote sources in tests: a server on loopback whose responses the test writes byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Source:
    """A running source: its port, its response for each path, and the requests that it received, as text."""

    port: int = 0
    replies: dict[str, bytes | Reply] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def url(self, path: str = "/a.jpg", *, host: str = "source.test", scheme: str = "http") -> str:
        """Return the URL of a path."""
        return f"{scheme}://{host}:{self.port}{path}"

    async def respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one request and close the connection."""
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(request)
            reply = self.replies.get(request.split(" ")[1], http_response(404))
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                await reply(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


def http_response(status: int, *fields: str, body: bytes = b"", length: int | None = None) -> bytes:
    """Return an HTTP/1.1 response. `length` replaces the body's length in `Content-Length`; below 0 there is no such field."""
    counted = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} Reason", *fields, *([f"Content-Length: {counted}"] if counted >= 0 else []), "Connection: close"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@asynccontextmanager
async def source(tls: SSLContext | None = None) -> AsyncIterator[Source]:
    """Yield a source. Connections that are still open at the end are closed."""
    running = Source()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await running.respond(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

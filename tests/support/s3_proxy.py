"""An HTTP proxy between a server and its S3 store (moto). It fails, delays, hides objects, stops responding and closes connections."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

from tests.support.s3 import Bucket
from tests.support.server import HOST, free_port
from tests.support.waiting import PATIENCE_SECONDS


class Request(NamedTuple):
    """A request to the store: its method, its path with the query, its header fields by lower-case name."""

    method: str
    path: str
    fields: dict[str, str]

    @property
    def consistent(self) -> bool:
        """Whether it is a consistent read."""
        return self.fields.get("x-tigris-consistent") == "true"


class S3Proxy:
    """A proxy on a port of loopback. The thread of the test controls how it treats requests."""

    def __init__(self, upstream: Bucket) -> None:
        self.port = free_port()
        self.environment = {**upstream.environment, "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{self.port}"}
        self.seen: list[Request] = []
        # How many requests have come over connections that do not respond any more.
        self.stunned_requests = 0
        # How requests are treated from now on.
        # The share of requests that fail: each time the same ones, in whatever order they come.
        self.error_share = 0.0
        self.delay_seconds = 0.0
        self.hides: Callable[[Request], bool] = lambda _: False
        self.error_for: Callable[[Request], tuple[int, str] | None] = lambda _: None
        # Whether all or half of the response is lost, after the store has done its work.
        self.loses: Callable[[Request], Literal["all", "half"] | None] = lambda _: None
        self.silent = False
        # How many objects a page of a listing has; `None` is the default of S3, 1000.
        self.page_objects: int | None = None
        self._upstream_port = int(upstream.endpoint.rpartition(":")[2])
        self._repeated: Counter[tuple[str, str]] = Counter()
        self._stunned: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listen for connections."""
        if not self._thread.is_alive():
            self._thread.start()
        self._call(self._listen())

    def refuse(self) -> None:
        """Stop listening and close every connection: the store is down."""
        self._call(self._close())

    def cut(self) -> int:
        """Reset every connection, as a peer that has forgotten them does; return how many there were."""
        return int(self._call(self._cut()))

    def stun(self) -> int:
        """Stop responding on the current connections without closing them; return how many there are."""
        return int(self._call(self._stun()))

    def end(self) -> None:
        """Stop the proxy."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(PATIENCE_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self) -> int:
        clients = list(self._clients)
        for writer in clients:
            # With a linger time of zero, closing sends a reset (socket(7)).
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return len(clients)

    async def _stun(self) -> int:
        self._stunned |= self._clients
        return len(self._clients)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await self._exchange(reader, writer)
        finally:
            self._clients.discard(writer)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, path, _ = line.split(" ")
        fields = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        request = Request(method, path, fields)
        self.seen.append(request)
        self.stunned_requests += writer in self._stunned
        if self.silent or writer in self._stunned:
            await asyncio.Event().wait()
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self._draw(request) < self.error_share:
            await _send(writer, request, 500, "<Error><Code>InternalError</Code></Error>")
        elif (error := self.error_for(request)) is not None:
            await _send(writer, request, *error)
        elif self.hides(request) and not request.consistent:
            await _send(writer, request, 404, "<Error><Code>NoSuchKey</Code></Error>")
        else:
            if self.page_objects is not None and "list-type=2" in path:
                head = head.replace(b"list-type=2", b"list-type=2&max-keys=%d" % self.page_objects, 1)
            response = await self._forward(head, body)
            lost = self.loses(request)
            writer.write(b"" if lost == "all" else response[: len(response) - 9] if lost == "half" else response)
            await writer.drain()
            if lost is not None:
                raise ConnectionResetError

    def _draw(self, request: Request) -> float:
        """Return a random number from 0 to 1 for a request, another one each time that it is repeated."""
        self._repeated[request.method, request.path] += 1
        return random.Random(f"{request.method} {request.path} {self._repeated[request.method, request.path]}").random()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(HOST, self._upstream_port)
        try:
            writer.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
            response = await reader.read()
        finally:
            writer.close()
        # The connection to the client stays open after the one to the store has closed.
        return response.replace(b"Connection: close\r\n", b"", 1)


async def _send(writer: asyncio.StreamWriter, request: Request, status: int, text: str) -> None:
    body = text.encode()
    head = f"HTTP/1.1 {status} Reason\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n".encode()
    head += b'ETag: "fake"\r\nLast-Modified: Mon, 23 Nov 2026 15:00:00 GMT\r\n\r\n'
    writer.write(head if request.method == "HEAD" else head + body)
    await writer.drain()


@contextmanager
def s3_proxy_of(bucket: Bucket) -> Iterator[S3Proxy]:
    """Yield a proxy in front of the server of a bucket."""
    s3_proxy = S3Proxy(bucket)
    s3_proxy.start()
    try:
        yield s3_proxy
    finally:
        s3_proxy.end()

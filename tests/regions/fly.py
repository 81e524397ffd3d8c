"""A stand-in for Fly's proxy: an edge in each region, which finds a Machine for every request and replays it if the response says so.

As Fly documents it (networking/dynamic-request-routing): `fly-replay` with region, timeout and fallback, nothing above 1 MB repeated,
`fly-replay-src` and `fly-replay-failed` added, `fly-prefer-region` of a request obeyed as far as can be. Where the documentation is
silent it is strict: a second replay of a request is an error.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import h11

from tests.regions.background import Accept, listening
from tests.support.server import HOST

Fields: TypeAlias = list[tuple[bytes, bytes]]
Reply: TypeAlias = tuple[int, Fields, bytes]

# The largest request that the proxy replays, including its header: Fly calls it 1 MB.
REPLAY_BYTES = 1_000_000

# Round-trip time between two regions, in seconds.
ROUND_TRIPS = {frozenset({"arn", "lhr"}): 0.060, frozenset({"lhr", "iad"}): 0.080, frozenset({"arn", "iad"}): 0.110}

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"proxy-connection", b"fly-replay"})
_READ_BYTES = 1 << 16


class UnreachableError(Exception):
    """No Machine of a region accepts a connection."""


@dataclass
class Machine:
    """The address of a Machine, and whether the network reaches it."""

    id: str
    port: int
    reachable: bool = True


@dataclass
class Exchange:
    """The result of one request: the region in which it arrived, the regions that responded in turn, and the last status."""

    method: str
    path: str
    edge: str
    regions: list[str] = field(default_factory=list)
    status: int = 0

    @property
    def replays(self) -> int:
        """The number of replays."""
        return len(self.regions) - 1


@dataclass
class Call:
    """A request in flight: its header, the part of its body that can be replayed, the rest of it, and its result."""

    request: h11.Request
    body: bytes
    rest: AsyncIterator[bytes] | None
    exchange: Exchange

    @property
    def request_bytes(self) -> int:
        """The size in bytes, including the header."""
        return len(self.body) + sum(len(name) + len(value) + 4 for name, value in self.request.headers)


class FlyProxy:
    """The edges of all regions, in one thread."""

    def __init__(self, regions: Sequence[str]) -> None:
        self.ports: dict[str, int] = {}
        self.machines: dict[str, Machine] = {}
        self.exchanges: list[Exchange] = []
        self.names_source = True
        """Whether a replayed request names its origin; requests from Fly's replay cache do not."""
        self._regions = regions

    def url(self, region: str) -> str:
        """Return the address that clients near a region connect to."""
        return f"http://{HOST}:{self.ports[region]}"

    def replays(self, path: str) -> list[int]:
        """Return how often each request for a path was replayed, in the order of the responses."""
        return [one.replays for one in self.exchanges if one.path == path]

    def accepting(self, edge: str) -> Accept:
        """Return the function that serves clients which connect to a region's edge."""

        async def accept(connection: socket.socket) -> None:
            with suppress(h11.RemoteProtocolError):
                await self._talk(_Wire(h11.SERVER, connection), edge)

        return accept

    async def _talk(self, client: _Wire, edge: str) -> None:
        while isinstance(request := await client.event(), h11.Request):
            if client.http.they_are_waiting_for_100_continue:
                await client.send(h11.InformationalResponse(status_code=100, headers=[]))
            body, whole = await _read_replayable_body(client)
            exchange = Exchange(request.method.decode(), request.target.decode(), edge)
            status, headers, content = await self._route(Call(request, body, None if whole else _rest(client), exchange))
            exchange.status = status
            self.exchanges.append(exchange)
            length = [] if status == 304 or request.method == b"HEAD" else [(b"content-length", b"%d" % len(content))]
            forwarded = [
                pair for pair in headers if pair[0] not in _HOP_BY_HOP or (request.method == b"HEAD" and pair[0] == b"content-length")
            ]
            await client.send(h11.Response(status_code=status, headers=[*forwarded, *length, (b"via", b"1.1 fly.io")]))
            if request.method != b"HEAD" and content:
                await client.send(h11.Data(data=content))
            await client.send(h11.EndOfMessage())
            # Read what the Machine did not read, so that the client can receive the response.
            while client.http.their_state is h11.SEND_BODY:
                await client.event()
            if client.http.our_state is h11.MUST_CLOSE or client.http.their_state is not h11.DONE:
                return
            client.http.start_next_cycle()

    async def _route(self, call: Call) -> Reply:
        """Return the response to a request, after all replays."""
        preferred = dict(call.request.headers).get(b"fly-prefer-region", b"").decode()
        nearest = sorted(self._regions, key=lambda region: (region != preferred, _round_trip(call.exchange.edge, region)))
        try:
            response = await self._first(nearest, call)
        except UnreachableError:
            return 503, [], b"no Machine accepts a connection"
        order = dict(response[1]).get(b"fly-replay")
        if order is None:
            return response
        if call.rest is not None or call.request_bytes > REPLAY_BYTES:
            return 500, [], b"a request of more than 1 MB cannot be replayed"
        response = await self._replay(call, dict(word.split("=", 1) for word in order.decode().split(";")))
        return (508, [], b"the replayed request asks for another replay") if b"fly-replay" in dict(response[1]) else response

    async def _replay(self, call: Call, words: dict[str, str]) -> Reply:
        """Replay a request as a `fly-replay` field says, and return the response."""
        region = call.exchange.regions[-1]
        source = f"instance={self.machines[region].id};region={region};t={time.time_ns() // 1000}".encode()
        try:
            return await self._first([words["region"]], call, *([(b"fly-replay-src", source)] if self.names_source else []))
        except UnreachableError:
            if words.get("fallback") != "prefer_self":
                return 502, [], b"the region that the request should be replayed in has no Machine"
            return await self._first([region], call, (b"fly-replay-failed", b"reason=unreachable"))

    async def _first(self, regions: Sequence[str], call: Call, *extra: tuple[bytes, bytes]) -> Reply:
        """Return the response of the first region whose Machine accepts the request."""
        for region in regions:
            machine = self.machines.get(region)
            if machine is None or not machine.reachable:
                continue
            round_trip = _round_trip(call.exchange.edge, region)
            await asyncio.sleep(round_trip / 2)
            try:
                connection = await _connect(machine.port)
            except ConnectionError:
                continue
            call.exchange.regions.append(region)
            try:
                response = await _forward(_Wire(h11.CLIENT, connection), call, extra)
            except (ConnectionError, h11.RemoteProtocolError):
                response = 502, [], b"the Machine closed the connection"
            finally:
                connection.close()
            await asyncio.sleep(round_trip / 2)
            return response
        raise UnreachableError


class _Wire:
    """One end of an HTTP/1.1 connection over a socket that does not block.

    asyncio's streams do not fit: when they cannot send any more, they also drop the response that they have received.
    """

    def __init__(self, role: Any, connection: socket.socket) -> None:
        self.http = h11.Connection(role)
        self._socket = connection

    async def event(self) -> Any:
        """Return the next bytes."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            # Not sock_recv(): the bytes that it has read are lost if it is canceled before its caller goes on.
            await _readable(self._socket)
            with suppress(BlockingIOError):
                self.http.receive_data(self._socket.recv(_READ_BYTES))
        return event

    async def send(self, event: h11.Event) -> None:
        """Send the next bytes."""
        if data := self.http.send(event):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)


async def _readable(connection: socket.socket) -> None:
    """Wait until bytes have arrived, and leave them where they are."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(connection, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(connection)


async def _connect(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (HOST, port))
    except OSError:
        connection.close()
        raise
    return connection


async def _read_replayable_body(client: _Wire) -> tuple[bytes, bool]:
    """Return the part of a request's body that can be replayed, and whether it is complete."""
    body = bytearray()
    while len(body) <= REPLAY_BYTES:
        event = await client.event()
        if not isinstance(event, h11.Data):
            return bytes(body), True
        body += event.data
    return bytes(body), False


async def _rest(client: _Wire) -> AsyncIterator[bytes]:
    while isinstance(event := await client.event(), h11.Data):
        yield bytes(event.data)


async def _forward(machine: _Wire, call: Call, extra: Sequence[tuple[bytes, bytes]]) -> Reply:
    """Return the response of a Machine, which may come before it has read the whole request."""
    headers = [
        *(pair for pair in call.request.headers if pair[0] not in {b"connection", b"expect"}),
        (b"fly-region", call.exchange.edge.encode()),
        (b"fly-client-ip", b"192.0.2.1"),
        (b"via", b"1.1 fly.io"),
        (b"connection", b"close"),
        *extra,
    ]
    await machine.send(h11.Request(method=call.request.method, target=call.request.target, headers=headers))

    async def send_body() -> None:
        # The Machine stopped reading; its response says why.
        with suppress(ConnectionError):
            if call.body:
                await machine.send(h11.Data(data=call.body))
            if call.rest is not None:
                async for chunk in call.rest:
                    await machine.send(h11.Data(data=chunk))
            await machine.send(h11.EndOfMessage())

    sending = asyncio.create_task(send_body())
    try:
        while not isinstance(response := await machine.event(), h11.Response):
            if not isinstance(response, h11.InformationalResponse):
                raise ConnectionError("the Machine sent no response")
        content = bytearray()
        while isinstance(event := await machine.event(), h11.Data):
            content += event.data
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return response.status_code, list(response.headers), bytes(content)


def _round_trip(one: str, other: str) -> float:
    return ROUND_TRIPS.get(frozenset({one, other}), 0.0)


@contextmanager
def fly_proxy(regions: Sequence[str]) -> Iterator[FlyProxy]:
    """Yield a proxy that listens in every region and has no Machines yet."""
    proxy = FlyProxy(regions)
    with listening(*map(proxy.accepting, regions)) as ports:
        proxy.ports = dict(zip(regions, ports, strict=True))
        yield proxy

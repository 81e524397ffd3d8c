"""Connections of clients that do not read, or do nothing: how long they may last, and how much memory they may hold.

Granian 2.8 has no write time-out: a client that sends a GET and reads nothing holds a connection forever, and with it a copy of the
response's body. `Connections` examines the TCP connections of this process once a second, with `TCP_INFO` of each descriptor (tcp(7)):

- A connection with unacknowledged or unsent bytes must acknowledge `WINDOW_BYTES` in each `WINDOW_SECONDS`, or all of its bytes; otherwise
  it is closed. That is the minimum rate of request bodies (`service.http.bodies`), without credit for earlier bytes.
- When more than a quarter of all connections have bytes to acknowledge, those that have made the least progress for longest are closed
  at once, so that the others are still accepted. When three quarters of all connections are open, idle ones, and those that have never
  sent a byte, are closed in the same way, down to a quarter; Granian itself closes them at its header time-out.
- If connections per client address are limited, the newest ones beyond the limit are closed.
- `piece_bytes` returns how much of a body may be passed to Granian at a time. Granian copies what it gets and holds the copy until it is
  sent. All clients together may hold `_WHOLE_BYTES` of bodies that were passed whole, which is fastest; the other clients get pieces, as
  fast as they read.

A connection is closed with a reset, so that the kernel drops the bytes that it had still to send. Some connections only the kernel knows
(closed by Granian, never read by the client): the listening socket passes `TCP_USER_TIMEOUT` to the connections that it accepts, and
`TCP_NOTSENT_LOWAT`, which limits how much of an unread response the kernel buffers.
"""

from __future__ import annotations

import ipaddress
import os
import resource
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import structlog

from service.http.bodies import MIN_BYTES_PER_SECOND

log = structlog.get_logger(__name__)

# Connections at a time: more than the connection pools of proxies. Fewer if the process may not open so many descriptors.
MAX_CONNECTIONS = 4_096

# Descriptors for everything else: files, pipes of render processes, connections to the store and to remote sources.
RESERVED_DESCRIPTORS = 512

WINDOW_SECONDS = 25.0
WINDOW_BYTES = int(WINDOW_SECONDS * MIN_BYTES_PER_SECOND)

# The interval between two scans while there is room. With very many connections it is longer, because a scan takes about 5 µs for each.
_SCAN_SECONDS = 1.0
_CONNECTIONS_PER_SCAN_SECOND = 1_024

# Descriptors examined before the event loop may run: about half a millisecond.
_DESCRIPTORS_AT_A_TIME = 128

# How long the kernel tries to send to a client that does not read or has vanished.
_USER_TIMEOUT_MILLISECONDS = 30_000

# Bytes of a connection in the kernel that are not sent yet. Without this limit, the kernel buffers 2 MB of a response for each client that
# does not read; large responses take no more CPU with it.
_NOTSENT_BYTES = 65_536

# The largest body that may be passed whole, and the most bytes of such bodies that may be unsent.
_MAX_WHOLE_BYTES = 2 << 20
_WHOLE_BYTES = 128 << 20

# The size of the pieces of other bodies; Granian holds up to six of them for each client.
_PIECE_BYTES = 16_384

# How long a connection must have been idle before it may be closed to make room.
_IDLE_MILLISECONDS = 1_000

# From linux/tcp.h and asm-generic/socket.h; Python 3.11 has no names for them.
_TCP_NOTSENT_LOWAT = 25
_TCP_LISTEN = 10
_SO_COOKIE = 57

# Seven fields of struct tcp_info: tcpi_state, tcpi_unacked, tcpi_last_data_sent, tcpi_last_data_recv, tcpi_bytes_acked,
# tcpi_bytes_received and tcpi_notsent_bytes.
_INFO = struct.Struct("=B23xI16xI4xI64xQQ8xI")

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def max_connections() -> int:
    """Return how many connections this process may have at a time, at least one, so that `RESERVED_DESCRIPTORS` stay free.

    Without a free descriptor Granian's accept loop spins, and nothing can be rendered or stored. The result depends on the soft limit
    (RLIMIT_NOFILE), which Granian raises to the hard limit when it is imported.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - RESERVED_DESCRIPTORS))


# The address and port of a client.
Peer: TypeAlias = tuple[str, int]


class ConnectionState(NamedTuple):
    """The state of a connection in one scan."""

    descriptor: int
    cookie: bytes
    """The kernel's number of the socket, which is never reused (SO_COOKIE)."""
    peer: Peer
    is_unread: bool
    """Whether there are bytes that the client has not acknowledged, sent or not."""
    acked: int
    """How many bytes the client has acknowledged so far."""
    is_idle: bool
    """Whether nothing was received since the last response, or nothing at all."""
    silent_milliseconds: int
    """The time since the last byte from the client, or since it connected."""


class _Window(NamedTuple):
    """The current window of a connection with bytes to acknowledge: when it began, and how many were acknowledged then."""

    since: float
    acked: int


class ConnectionPolicy:
    """Decides which connections to close, given the state of all of them in one scan after another."""

    def __init__(self, *, max_connections: int, max_per_address: int = 0) -> None:
        """Start before the first scan.

        `max_connections`: the most connections at a time. `max_per_address`: the most connections of one IPv4 address or one IPv6
        network of 64 bits, 0 for no limit.
        """
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._windows: dict[bytes, _Window] = {}
        self._order: dict[Peer, int] = {}
        self._scans = 0

    @property
    def unread(self) -> int:
        """How many connections had bytes to acknowledge in the last scan."""
        return len(self._windows)

    def select(self, connections: Sequence[ConnectionState], now: float) -> dict[str, list[ConnectionState]]:
        """Return the connections to close, by reason; `now`: the time in seconds of a monotonic clock."""
        self._scans += 1
        unread = [one for one in connections if one.is_unread]
        self._windows = {one.cookie: self._window(one, now) for one in unread}
        unread.sort(key=lambda one: self._windows[one.cookie].since)
        stalled = sum(now - self._windows[one.cookie].since > WINDOW_SECONDS for one in unread)
        # Windows that begin with this scan say nothing yet.
        older = sum(self._windows[one.cookie].since < now for one in unread)
        crowding = min(older, max(stalled, len(unread) - self._max_connections // 4))
        idle: list[ConnectionState] = []
        left = len(connections) - crowding
        if left > self._max_connections * 3 // 4:
            idle = [one for one in connections if one.is_idle and one.silent_milliseconds >= _IDLE_MILLISECONDS]
            idle.sort(key=lambda one: -one.silent_milliseconds)
            del idle[left - self._max_connections // 4 :]
        return {"stalled": unread[:stalled], "crowded": [*unread[stalled:crowding], *idle], "excess": self._excess(connections)}

    def _window(self, one: ConnectionState, now: float) -> _Window:
        before = self._windows.get(one.cookie)
        return before if before is not None and one.acked - before.acked < WINDOW_BYTES else _Window(now, one.acked)

    def _excess(self, connections: Sequence[ConnectionState]) -> list[ConnectionState]:
        """Return the newest connections beyond the limit of their address; those that are new in one scan have no order."""
        if not self._max_per_address:
            return []
        self._order = {one.peer: self._order.get(one.peer, self._scans) for one in connections}
        by_network: defaultdict[str, list[ConnectionState]] = defaultdict(list)
        for one in connections:
            by_network[network_of(one.peer[0])].append(one)
        excess: list[ConnectionState] = []
        for ones in by_network.values():
            ones.sort(key=lambda one: self._order[one.peer])
            excess += ones[self._max_per_address :]
        return excess


class WholeBodies:
    """Counts the bodies that were passed to Granian whole and may still be unsent: for each client the largest one."""

    def __init__(self) -> None:
        """Start without bodies."""
        self._bytes: dict[Peer, int] = {}
        self._lock = threading.Lock()
        self.total_bytes = 0

    def admit(self, client: Peer, size: int) -> bool:
        """Return whether a body of `size` bytes may be passed whole; if so, it counts until the client is released."""
        if size > _MAX_WHOLE_BYTES:
            return False
        with self._lock:
            # Granian handles one request of a connection at a time: the body before this one has been sent.
            held = self._bytes.get(client, 0)
            if size <= held:
                return True
            if self.total_bytes + size - held > _WHOLE_BYTES:
                return False
            self.total_bytes += size - held
            self._bytes[client] = size
        return True

    def clients(self) -> set[Peer]:
        """Return the clients whose bodies count."""
        with self._lock:
            return set(self._bytes)

    def release(self, clients: Iterable[Peer]) -> None:
        """Count the bodies of these clients as sent."""
        with self._lock:
            for client in clients:
                self.total_bytes -= self._bytes.pop(client, 0)


class Connections:
    """Limits the connections of all clients to one port of this process."""

    def __init__(self, port: int, *, max_connections: int, max_per_address: int = 0) -> None:
        """Limit the connections to `port`; the other parameters are those of `ConnectionPolicy`."""
        self._port = port
        self._max_connections = max_connections
        self._policy = ConnectionPolicy(max_connections=max_connections, max_per_address=max_per_address)
        self._listener_is_prepared = False
        self._whole = WholeBodies()

    def __repr__(self) -> str:
        return f"<Connections port={self._port} unread={self._policy.unread} whole_bytes={self._whole.total_bytes}>"

    def piece_bytes(self, scope: Mapping[str, Any], size: int) -> int:
        """Return how many of the `size` bytes of a response's body may be passed to Granian at a time; `scope`: that of the request."""
        client = scope.get("client")
        return size if client is not None and self._whole.admit(client, size) else _PIECE_BYTES

    def start(self) -> None:
        """Start to scan the connections every few seconds until the process ends.

        The scans have a thread of their own, because the event loop is busiest when connections have to be closed.
        """
        threading.Thread(target=self._run, name="connections", daemon=True).start()

    def _run(self) -> None:
        while True:
            connections = 0
            try:
                connections = self._scan()
            except Exception:
                log.exception("connections could not be scanned")
            if not self._listener_is_prepared:
                # Granian listens as soon as the application has started.
                time.sleep(_SCAN_SECONDS / 50)
            elif connections > self._max_connections * 3 // 4 or self._policy.unread > self._max_connections // 4:
                time.sleep(_SCAN_SECONDS)
            else:
                time.sleep(_SCAN_SECONDS * max(1, connections // _CONNECTIONS_PER_SCAN_SECOND))

    def _scan(self) -> int:
        """Scan once, and return how many connections there are."""
        clients = self._whole.clients()
        states = []
        for position, name in enumerate(os.listdir("/proc/self/fd"), 1):  # noqa: PTH208 - thousands of names, and nothing but names
            if position % _DESCRIPTORS_AT_A_TIME == 0:
                # Release the interpreter to the event loop.
                time.sleep(0)
            if (one := self._examine(int(name))) is not None:
                states.append(one)
        for reason, connections in self._policy.select(states, time.monotonic()).items():
            closed = sum(map(_reset, connections))
            if closed:
                log.warning("closed connections", reason=reason, connections=closed)
        # The port of a client is text in Granian's scopes, and a number in the ASGI specification.
        unread = {(one.peer[0], str(one.peer[1])) for one in states if one.is_unread}
        self._whole.release(client for client in clients if (client[0], str(client[1])) not in unread)
        return len(states)

    def _examine(self, descriptor: int) -> ConnectionState | None:
        """Return the state of a descriptor if it is a connection to this port."""
        try:
            # Detached below, so that the descriptor stays open. A duplicate would cost twice as much.
            borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor)
        except OSError:
            return None
        try:
            if borrowed.getsockname()[1] != self._port:
                return None
            info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            state, unacked, sent_ago, received_ago, acked, received, unsent = _INFO.unpack(info)
            if state == _TCP_LISTEN:
                self._prepare(borrowed)
                return None
            peer = borrowed.getpeername()[:2]
            cookie = borrowed.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
        except (OSError, IndexError, struct.error):
            # Closed since it was listed, or not a TCP connection.
            return None
        finally:
            borrowed.detach()
        is_unread = bool(unacked or unsent)
        # The handshake counts as one byte.
        is_idle = not is_unread and (received == 0 or (acked > 1 and sent_ago <= received_ago))
        return ConnectionState(descriptor, cookie, peer, is_unread, acked, is_idle, received_ago)

    def _prepare(self, listener: socket.socket) -> None:
        """Set the options that connections inherit from the listening socket."""
        if not self._listener_is_prepared:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MILLISECONDS)
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
            self._listener_is_prepared = True


def _reset(one: ConnectionState) -> bool:
    """Close a connection with a reset, and return whether it still existed; Granian closes the descriptor as soon as it notices."""
    with suppress(OSError), socket.socket(fileno=os.dup(one.descriptor)) as connection:
        # The descriptor may belong to another connection by now.
        if connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) == one.cookie:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


@lru_cache(10_000)
def network_of(address: str) -> str:
    """Return the IPv4 address, or the network of 64 bits of the IPv6 address (RFC 6177), by which connections are counted."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else str(ipaddress.IPv6Network((parsed, 64), strict=False))

"""Connections of clients that do not read, or do nothing: how long they last, and how much memory they hold.

Granian 2.8 has no write time-out: a client that sends a GET and reads nothing holds a connection for ever, and with it a copy of the
response's body. `Connections` looks at the TCP connections of this process once a second, by `TCP_INFO` of each descriptor (tcp(7)):

- A connection with unacknowledged or unsent bytes must acknowledge `WINDOW_BYTES` in each `WINDOW_SECONDS`, or have nothing more to
  acknowledge; otherwise it is closed. That is the minimum rate of request bodies (`service.http.bodies`), without credit for earlier bytes.
- When more than a quarter of all connections have bytes to acknowledge, those that have made the least progress for longest are closed
  at once, so that the others are still accepted. Connections that are idle, or have never sent a byte, make room in the same way, down to
  a quarter, when three quarters of all connections are open; Granian itself closes them at its header time-out.
- With a bound on connections per client address, the newest beyond it are closed.
- `piece_bytes` says how much of a body may be handed to Granian at a time. Granian copies what it is handed and holds the copy until it
  is sent. All clients together may hold `_WHOLE_BYTES` of bodies that were handed over whole, which is fastest; the others get pieces, as
  they read.

A closed connection is reset, so that the kernel drops what it had still to send. For connections that only the kernel knows any more
(closed by Granian, never read by the client) the listening socket passes `TCP_USER_TIMEOUT` on to the connections that it accepts, and
`TCP_NOTSENT_LOWAT`, which bounds what the kernel buffers of a response that nobody reads.
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

from service.http.bodies import SLOWEST_BYTES_PER_SECOND

log = structlog.get_logger(__name__)

# Connections served at a time: above the pools that proxies keep. Fewer where the process may not open so many descriptors.
MAX_CONNECTIONS = 4_096

# Descriptors for everything else: files, pipes of render processes, connections to stores and sources.
RESERVED_DESCRIPTORS = 512

WINDOW_SECONDS = 25.0
WINDOW_BYTES = int(WINDOW_SECONDS * SLOWEST_BYTES_PER_SECOND)

# Between two looks, while there is room; with very many connections fewer looks, as each costs some 5 µs for a connection.
_LOOK_SECONDS = 1.0
_CONNECTIONS_PER_LOOK_SECOND = 1_024

# Descriptors looked at without letting the event loop run: about half a millisecond.
_DESCRIPTORS_AT_A_TIME = 128

# How long the kernel tries to send to a client that does not read or has vanished.
_USER_TIMEOUT_MILLISECONDS = 30_000

# Unsent bytes of a connection in the kernel, beside those on their way. Without it, 2 MB of a response lie there for each client that
# does not read; with it, large responses cost no more CPU than without.
_NOTSENT_BYTES = 65_536

# Bodies up to the first size may be handed over whole, as long as those that have not been sent come to less than the second.
_MAX_WHOLE_BYTES = 2 << 20
_WHOLE_BYTES = 128 << 20

# Pieces of everything else, of which Granian holds up to six for each client.
_PIECE_BYTES = 16_384

# How long a connection has been idle at least before it makes room for others.
_IDLE_MILLISECONDS = 1_000

# linux/tcp.h and asm-generic/socket.h; Python 3.11 does not name these.
_TCP_NOTSENT_LOWAT = 25
_TCP_LISTEN = 10
_SO_COOKIE = 57

# Of struct tcp_info: tcpi_state, tcpi_unacked, tcpi_last_data_sent, tcpi_last_data_recv, tcpi_bytes_acked, tcpi_bytes_received and
# tcpi_notsent_bytes.
_INFO = struct.Struct("=B23xI16xI4xI64xQQ8xI")

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def max_connections() -> int:
    """Return how many connections this process may serve at a time, at least one, so that `RESERVED_DESCRIPTORS` stay free.

    Without a free descriptor Granian's accept loop spins, and nothing can be rendered or stored. The limit is the soft one
    (RLIMIT_NOFILE), which Granian raises to the hard one when it is imported.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - RESERVED_DESCRIPTORS))


# A client's address and port.
Peer: TypeAlias = tuple[str, int]


class Seen(NamedTuple):
    """What one look sees of a connection."""

    descriptor: int
    cookie: bytes
    """The kernel's number of the socket, which is never used again (SO_COOKIE)."""
    peer: Peer
    is_unread: bool
    """Whether the client has bytes to acknowledge, sent or not."""
    acked: int
    """Bytes that the client has acknowledged so far."""
    is_idle: bool
    """Whether nothing has been received since the last response, or nothing at all."""
    silent_milliseconds: int
    """Since the last byte from the client, or since it connected."""


class _Unread(NamedTuple):
    """A connection with bytes to acknowledge: when its window began, and how many it had acknowledged then."""

    since: float
    acked: int


class Watch:
    """Decides which connections are to be closed, from one look at all of them to the next."""

    def __init__(self, *, max_connections: int, max_per_address: int = 0) -> None:
        """Watch up to `max_connections`; at most `max_per_address` of one client address, or IPv6 network of 64 bits (0: no bound)."""
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._windows: dict[bytes, _Unread] = {}
        self._order: dict[Peer, int] = {}
        self._looks = 0

    @property
    def unread(self) -> int:
        """How many connections had bytes to acknowledge at the last look."""
        return len(self._windows)

    def look(self, connections: Sequence[Seen], now: float) -> dict[str, list[Seen]]:
        """Return the connections to close, by reason; `now` in seconds of a clock that never goes back."""
        self._looks += 1
        unread = [one for one in connections if one.is_unread]
        self._windows = {one.cookie: self._window(one, now) for one in unread}
        unread.sort(key=lambda one: self._windows[one.cookie].since)
        stalled = sum(now - self._windows[one.cookie].since > WINDOW_SECONDS for one in unread)
        # Windows of this very look say nothing yet.
        older = sum(self._windows[one.cookie].since < now for one in unread)
        crowding = min(older, max(stalled, len(unread) - self._max_connections // 4))
        idle: list[Seen] = []
        left = len(connections) - crowding
        if left > self._max_connections * 3 // 4:
            idle = [one for one in connections if one.is_idle and one.silent_milliseconds >= _IDLE_MILLISECONDS]
            idle.sort(key=lambda one: -one.silent_milliseconds)
            del idle[left - self._max_connections // 4 :]
        return {"stalled": unread[:stalled], "crowded": [*unread[stalled:crowding], *idle], "excess": self._excess(connections)}

    def _window(self, one: Seen, now: float) -> _Unread:
        before = self._windows.get(one.cookie)
        return before if before is not None and one.acked - before.acked < WINDOW_BYTES else _Unread(now, one.acked)

    def _excess(self, connections: Sequence[Seen]) -> list[Seen]:
        """Return the newest connections beyond the bound of their address; the order of those of one look is not known."""
        if not self._max_per_address:
            return []
        self._order = {one.peer: self._order.get(one.peer, self._looks) for one in connections}
        by_network: defaultdict[str, list[Seen]] = defaultdict(list)
        for one in connections:
            by_network[network_of(one.peer[0])].append(one)
        excess: list[Seen] = []
        for ones in by_network.values():
            ones.sort(key=lambda one: self._order[one.peer])
            excess += ones[self._max_per_address :]
        return excess


class WholeBodies:
    """The bodies that have been handed over whole and may not have been sent yet: the largest of each client."""

    def __init__(self) -> None:
        """Start with none."""
        self._bytes: dict[Peer, int] = {}
        self._lock = threading.Lock()
        self.total_bytes = 0

    def admit(self, client: Peer, size: int) -> bool:
        """Return whether a body of `size` bytes may be handed over whole to a client, which then counts until it is released."""
        if size > _MAX_WHOLE_BYTES:
            return False
        with self._lock:
            # Granian handles one request of a connection at a time: what it was handed before has been sent.
            held = self._bytes.get(client, 0)
            if size <= held:
                return True
            if self.total_bytes + size - held > _WHOLE_BYTES:
                return False
            self.total_bytes += size - held
            self._bytes[client] = size
        return True

    def clients(self) -> set[Peer]:
        """Return the clients that have been handed something."""
        with self._lock:
            return set(self._bytes)

    def release(self, clients: Iterable[Peer]) -> None:
        """Count what these clients were handed as sent."""
        with self._lock:
            for client in clients:
                self.total_bytes -= self._bytes.pop(client, 0)


class Connections:
    """The connections of this process to one port, from all clients."""

    def __init__(self, port: int, *, max_connections: int, max_per_address: int = 0) -> None:
        """Watch the connections to `port`; the bounds are those of `Watch`."""
        self._port = port
        self._max_connections = max_connections
        self._watch = Watch(max_connections=max_connections, max_per_address=max_per_address)
        self._listener_is_prepared = False
        self._whole = WholeBodies()

    def __repr__(self) -> str:
        """Name the live counts."""
        return f"<Connections port={self._port} unread={self._watch.unread} whole_bytes={self._whole.total_bytes}>"

    def piece_bytes(self, scope: Mapping[str, Any], size: int) -> int:
        """Return how many of the `size` bytes of a response's body may be handed to the server at a time, `scope` being the request's."""
        client = scope.get("client")
        return size if client is not None and self._whole.admit(client, size) else _PIECE_BYTES

    def start(self) -> None:
        """Look at the connections every second or few until the process ends.

        In a thread of its own, because the event loop is busiest when connections have to be closed.
        """
        threading.Thread(target=self._run, name="connections", daemon=True).start()

    def _run(self) -> None:
        while True:
            connections = 0
            try:
                connections = self._look()
            except Exception:
                log.exception("connections could not be looked at")
            if not self._listener_is_prepared:
                # Granian listens as soon as the application has started.
                time.sleep(_LOOK_SECONDS / 50)
            elif connections > self._max_connections * 3 // 4 or self._watch.unread > self._max_connections // 4:
                time.sleep(_LOOK_SECONDS)
            else:
                time.sleep(_LOOK_SECONDS * max(1, connections // _CONNECTIONS_PER_LOOK_SECOND))

    def _look(self) -> int:
        """Look once, and return how many connections there are."""
        handed_over = self._whole.clients()
        seen = []
        for position, name in enumerate(os.listdir("/proc/self/fd"), 1):  # noqa: PTH208 - thousands of names, and nothing but names
            if position % _DESCRIPTORS_AT_A_TIME == 0:
                # Let the event loop have the interpreter.
                time.sleep(0)
            if (one := self._examine(int(name))) is not None:
                seen.append(one)
        for reason, connections in self._watch.look(seen, time.monotonic()).items():
            closed = sum(map(_reset, connections))
            if closed:
                log.warning("closed connections", reason=reason, connections=closed)
        self._whole.release(handed_over.difference(one.peer for one in seen if one.is_unread))
        return len(seen)

    def _examine(self, descriptor: int) -> Seen | None:
        """Return what is to be seen of a descriptor if it is a connection to this port."""
        try:
            # Borrowed: the socket is detached below and stays open. A duplicate would cost twice as much.
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
            # Closed meanwhile, or no TCP connection.
            return None
        finally:
            borrowed.detach()
        is_unread = bool(unacked or unsent)
        # The handshake counts as one byte.
        is_idle = not is_unread and (received == 0 or (acked > 1 and sent_ago <= received_ago))
        return Seen(descriptor, cookie, peer, is_unread, acked, is_idle, received_ago)

    def _prepare(self, listener: socket.socket) -> None:
        """Set what connections inherit from the socket that accepts them."""
        if not self._listener_is_prepared:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MILLISECONDS)
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
            self._listener_is_prepared = True


def _reset(one: Seen) -> bool:
    """Close a connection with a reset, and return whether it was still there: the server closes its descriptor as soon as it notices."""
    with suppress(OSError), socket.socket(fileno=os.dup(one.descriptor)) as connection:
        # The descriptor may be another connection's by now.
        if connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) == one.cookie:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


@lru_cache(10_000)
def network_of(address: str) -> str:
    """Return what stands for the client at an address: the address of IPv4, the network of 64 bits of IPv6 (RFC 6177)."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else str(ipaddress.IPv6Network((parsed, 64), strict=False))

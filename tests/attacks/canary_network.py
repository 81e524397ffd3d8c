"""A network namespace in which every address in the world is a canary, but for the few that a test opens.

The kernel treats every IPv4 and IPv6 address as one of this machine (a local route for all of them), so a connection to any of them
arrives, whatever its port. A packet socket sees each packet that opens a connection, and each UDP datagram. On some ports a server
responds with a picture, so that a connection that should not be made also has a result that should not be.

Names are resolved by a name server of the test, whose answers it chooses, also differently from one query to the next.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, NamedTuple, TypeAlias

import pytest

from tests.support.network import PUBLIC_ADDRESS, Run, own_network
from tests.support.source_server import http_response
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# The hosts that the server may connect to.
HOST_ADDRESS = PUBLIC_ADDRESS
HOST_ADDRESS_IPV6 = "2a00:1450:4000::1"
BUCKET_ADDRESS = "11.0.0.4"
# The name server; and the client of Darkroom, whose own packets do not count.
RESOLVER_ADDRESS = "11.0.0.53"
CLIENT_ADDRESS = "11.0.0.9"
_OPEN = frozenset({HOST_ADDRESS, HOST_ADDRESS_IPV6, BUCKET_ADDRESS, RESOLVER_ADDRESS})

# Where a server responds: HTTP and HTTPS, SSH, Docker, Redis, an unprivileged HTTP server, metrics, and a proxy.
PORTS = (80, 443, 22, 2375, 3128, 6379, 8080, 9091)

_SOURCE_ADDRESS = "11.0.0.2"
_MARK = ("192.0.2.255", 9)

_CLONE_NEWNS = 0x00020000
# The constants of the manual pages packet and socket that Python does not have.
_ETH_P_ALL = 0x0003
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_TCP, _UDP = 6, 17
_SYN, _ACK = 0x02, 0x10

# RFC 1035 §3.2.2, and RFC 3596 for AAAA.
_A, _CNAME, _AAAA = 1, 5, 28

# The addresses that a name has, and the names that it is an alias of; or what returns them at each query for a type of record.
Records: TypeAlias = Sequence[str] | Callable[[int], Sequence[str]]


class Contact(NamedTuple):
    """A packet that opens a TCP connection to a canary, or a UDP datagram to one."""

    protocol: str
    address: str
    port: int


class CanaryNetwork:
    """The network: what its canaries have seen, and how its hosts respond.

    replies: the whole responses of hosts, by host and path. requests: the header of every request to a host, as text.
    """

    def __init__(self, run: Run, records: Mapping[str, Records], picture: bytes) -> None:
        """Begin to record. To be called in the network.

        run: runs a function in the network, with every process and thread that it starts.
        records: the records of each name; other names do not exist.
        picture: the body of the response of hosts to every path without a reply, and of canaries.
        """
        self.run = run
        self.records = records
        self.picture = picture
        self.replies: dict[str, bytes] = {}
        self.requests: list[str] = []
        self._contacts: list[Contact] = []
        self._marks = 0
        self._is_closed = False
        self._watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._watch.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)

    def contacts(self) -> list[Contact]:
        """Return what has reached a canary since the last call. To be called in the network."""
        marks = self._marks
        self._mark()
        # The packets that were sent before are seen before.
        wait_until(lambda: self._marks > marks)
        dropped = struct.unpack("II", self._watch.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        assert dropped == 0, f"{dropped} packets were not seen"
        seen, self._contacts = self._contacts, []
        return seen

    def close(self) -> None:
        """Stop watching. To be called in the network."""
        self._is_closed = True
        self._mark()

    def watch(self) -> None:
        """Record contacts until the network is closed."""
        with self._watch:
            while not self._is_closed:
                packet, (_, _, direction, *_) = self._watch.recvfrom(128)
                # Every packet on loopback is seen once more as it arrives.
                contact = _contact(packet) if direction == socket.PACKET_OUTGOING else None
                if contact == Contact("udp", *_MARK):
                    self._marks += 1
                elif contact is not None:
                    self._contacts.append(contact)

    def respond(self, request: str, address: str) -> bytes:
        """Return the response of the server at an address: that of a host, or the picture of a canary."""
        if address not in _OPEN:
            return self._picture()
        self.requests.append(request)
        path, host = request.split(" ", 2)[1], re.search(r"(?im)^host: *([^\r\n]*)", request)
        return self.replies.get(f"{host[1] if host else ''}{path}", self._picture())

    def _picture(self) -> bytes:
        fields = ("Content-Type: image/jpeg", 'ETag: "1"', "Last-Modified: Tue, 24 Nov 2026 00:00:00 GMT")
        return http_response(200, *fields, body=self.picture)

    def _mark(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
            marker.sendto(b"", _MARK)


def _contact(packet: bytes) -> Contact | None:
    version = packet[0] >> 4
    if version == 4:
        protocol, start = packet[9], (packet[0] & 0x0F) * 4
        source, target = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    else:
        protocol, start = packet[6], 40
        source, target = (str(ipaddress.IPv6Address(packet[at : at + 16])) for at in (8, 24))
    if protocol not in {_TCP, _UDP} or {source, target} & {CLIENT_ADDRESS} or target in _OPEN or source == RESOLVER_ADDRESS:
        return None
    if protocol == _TCP and packet[start + 13] & (_SYN | _ACK) != _SYN:
        return None
    return Contact("tcp" if protocol == _TCP else "udp", target, int.from_bytes(packet[start + 2 : start + 4], "big"))


@contextmanager
def canary_network(folder: Path, records: Mapping[str, Records], picture: bytes) -> Iterator[CanaryNetwork]:
    """Yield a network; the parameters are those of `CanaryNetwork`, and `folder` is where its configuration of the resolver is written.

    It needs iproute2 and the capability SYS_ADMIN. Without it the test fails for root, who runs CI, and is skipped for others.
    """
    with own_network(_missing) as run, ExitStack() as stack:
        network: list[CanaryNetwork] = []

        def enter() -> None:
            _make_every_address_local()
            _use_own_resolver(folder)
            network.append(CanaryNetwork(run, records, picture))
            stack.enter_context(_running(network[0].watch, network[0].close))
            resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            resolver.bind((RESOLVER_ADDRESS, 53))
            stack.enter_context(_running(lambda: _resolve(resolver, records), lambda: _end(resolver)))
            for port in PORTS:
                server = _server(network[0], port)
                stack.enter_context(_running(lambda server=server: server.serve_forever(0.05), server.shutdown))  # type: ignore[misc]
                stack.callback(server.server_close)

        run(enter)
        try:
            yield network[0]
        finally:
            run(stack.close)


def _missing(reason: str) -> None:
    if os.geteuid() == 0:
        pytest.fail(f"{reason} Give the container the capability SYS_ADMIN: this test proves a promise, so it must run.")
    pytest.skip(reason)


def _make_every_address_local() -> None:
    for command in (
        f"address add {_SOURCE_ADDRESS}/32 dev lo",
        "-6 address add fe80::1/64 dev lo",
        # Without it, the source address of a connection would be its target.
        f"route add local 0.0.0.0/0 dev lo src {_SOURCE_ADDRESS}",
        "-6 route add local ::/0 dev lo",
        "route add multicast 224.0.0.0/4 dev lo",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def _use_own_resolver(folder: Path) -> None:
    """Replace the files that say how this thread, and the processes that it starts, resolve names."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Only the calling thread moves.
    if libc.unshare(_CLONE_NEWNS) != 0:
        _missing(f"A mount namespace cannot be made here: {os.strerror(ctypes.get_errno())}.")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for name, text in {
        "resolv.conf": f"nameserver {RESOLVER_ADDRESS}\n",
        "hosts": "127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback\n",
        "nsswitch.conf": "hosts: files dns\n",
    }.items():
        (folder / name).write_text(text)
        subprocess.run(["mount", "--bind", folder / name, Path("/etc", name).resolve()], check=True)


@contextmanager
def _running(body: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    address_family = socket.AF_INET6
    request_queue_size = 256

    def server_bind(self) -> None:
        # The addresses of IPv4 too.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, *words: Any) -> None:
        pass


def _server(network: CanaryNetwork, port: int) -> _Server:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(PATIENCE_SECONDS)
            received = b""
            with suppress(OSError):
                while b"\r\n\r\n" not in received and (more := self.request.recv(1 << 16)):
                    received += more
                address = self.request.getsockname()[0].removeprefix("::ffff:")
                if b"\r\n\r\n" in received:
                    self.request.sendall(network.respond(received.decode("latin-1"), address))

    return _Server(("::", port), Handler)


def _end(resolver: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"", (RESOLVER_ADDRESS, 53))


def _resolve(resolver: socket.socket, records: Mapping[str, Records]) -> None:
    """Answer queries until an empty one."""
    with resolver:
        while True:
            query, client = resolver.recvfrom(512)
            if not query:
                return
            resolver.sendto(_answer(query, records), client)


def _answer(query: bytes, records: Mapping[str, Records]) -> bytes:
    """Return the response to a query (RFC 1035 §4.1)."""
    end = query.index(0, 12) + 1
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    name, (kind, _) = ".".join(labels), struct.unpack("!HH", query[end : end + 4])
    answers = list(_records(name, kind, records))
    code = 0 if name in records else 3
    return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(answers), 0, 0) + query[12 : end + 4] + b"".join(answers)


def _records(name: str, kind: int, records: Mapping[str, Records]) -> Iterator[bytes]:
    found = records.get(name, ())
    for value in found(kind) if callable(found) else found:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            yield _record(name, _CNAME, _encoded(value))
            yield from _records(value, kind, records)
            continue
        if kind == (_A if address.version == 4 else _AAAA):
            yield _record(name, kind, address.packed)


def _record(name: str, kind: int, data: bytes) -> bytes:
    # The time to live is 0: nobody may cache it.
    return _encoded(name) + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"

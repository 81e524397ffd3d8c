"""Load on a server over loopback, the same for both sides of a comparison, bounded in time or count."""

from __future__ import annotations

import asyncio
import os
import random
import re
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tests.bench.bare import entry_path

HOST = "127.0.0.1"
CONNECTIONS = 32
_TIMEOUT_SECONDS = 30.0

WRK = shutil.which("wrk")
LOADER = f"wrk, 1 thread, {CONNECTIONS} connections" if WRK else f"a Python loop over {CONNECTIONS} connections (wrk is not installed)"

_ENTRY_SCRIPT = """
local last = tonumber(os.getenv("BENCH_ENTRIES")) - 1
request = function()
  return wrk.format("GET", "/n/" .. math.random(0, last))
end
"""


class Requests(msgspec.Struct, frozen=True):
    """What is asked for again and again: one path, or with `entries` a random one of so many entries."""

    path: str = "/"
    headers: Mapping[str, str] = {}
    entries: int = 0


def hammer(port: int, requests: Requests, seconds: float, folder: Path) -> int:
    """Return how many requests were answered within `seconds`; raises `RuntimeError` if one was not."""
    return _wrk(port, requests, seconds, folder) if WRK else _loop(port, requests, seconds)


def at_constant_rate(port: int, path: str, per_second: float, seconds: float) -> list[float]:
    """Return the latency of each request in seconds, one connection, one request at a time.

    A request that could not be sent when it was due, because the one before was slow, counts from when it was due.
    """
    request = _request(path, {})
    latencies: list[float] = []
    with socket.create_connection((HOST, port), timeout=_TIMEOUT_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = ended = time.perf_counter()
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            sent = due if ended > due else time.perf_counter()
            connection.sendall(request)
            _receive_answer(connection)
            ended = time.perf_counter()
            latencies.append(ended - sent)
    return latencies


def all_at_once(port: int, path: str, clients: int) -> list[bytes]:
    """Return the raw answers to so many clients, all connected before the first one asks."""
    return asyncio.run(_all_at_once(port, path, clients))


async def _all_at_once(port: int, path: str, clients: int) -> list[bytes]:
    streams = [await asyncio.open_connection(HOST, port) for _ in range(clients)]
    request = _request(path, {"Connection": "close"})
    for _, writer in streams:
        writer.write(request)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS * 2):
            return await asyncio.gather(*(reader.read() for reader, _ in streams))
    finally:
        for _, writer in streams:
            writer.close()


def _wrk(port: int, requests: Requests, seconds: float, folder: Path) -> int:
    command = [WRK or "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    for name, value in requests.headers.items():
        command += ["-H", f"{name}: {value}"]
    if requests.entries:
        script = folder / "entries.lua"
        script.write_text(_ENTRY_SCRIPT, "ascii")
        command += ["-s", str(script)]
    command.append(f"http://{HOST}:{port}{requests.path}")
    environ = {**os.environ, "BENCH_ENTRIES": str(requests.entries)}
    told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=seconds + _TIMEOUT_SECONDS, check=True).stdout
    count = re.search(r"(\d+) requests in", told)
    if count is None or "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"not every request was answered: {told}")
    return int(count[1])


def _loop(port: int, requests: Requests, seconds: float) -> int:
    draw = random.Random(1).randrange
    if requests.entries:
        made = [_request(entry_path(draw(requests.entries)), requests.headers) for _ in range(10_000)]
    else:
        made = [_request(requests.path, requests.headers)]
    served = 0
    with selectors.DefaultSelector() as selector:
        connections = [socket.create_connection((HOST, port), timeout=_TIMEOUT_SECONDS) for _ in range(CONNECTIONS)]
        try:
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ)
                connection.sendall(made[0])
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                for key, _ in selector.select(_TIMEOUT_SECONDS):
                    connection = _socket(key.fileobj)
                    _receive_answer(connection)
                    served += 1
                    connection.sendall(made[served % len(made)])
        finally:
            for connection in connections:
                connection.close()
    return served


def _socket(file: object) -> socket.socket:
    if not isinstance(file, socket.socket):
        raise TypeError("only sockets are registered")
    return file


def _request(path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _receive_answer(connection: socket.socket) -> None:
    """Read one answer to its end; raises `RuntimeError` if it is an error."""
    data = _received(connection, lambda data: b"\r\n\r\n" in data)
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    status = head[9:12]
    if status not in {b"200", b"304"}:
        raise RuntimeError(f"an error instead of a hit: {head!r}")
    if status == b"200":
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length is None:
            raise RuntimeError(f"an answer without a length: {head!r}")
        missing = int(length[1]) - len(body)
        _received(connection, lambda data: len(data) >= missing)


def _received(connection: socket.socket, enough: Callable[[bytearray], bool]) -> bytearray:
    data = bytearray()
    while not enough(data):
        chunk = connection.recv(1 << 18)
        if not chunk:
            raise RuntimeError("the connection was closed in the middle of an answer")
        data += chunk
    return data

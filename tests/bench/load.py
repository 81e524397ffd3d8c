"""Requests that put a load on a server over loopback, the same for both sides of a comparison, for a bounded time or count."""

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
from typing import NamedTuple

import msgspec

from tests.bench.bare import entry_path

HOST = "127.0.0.1"
CONNECTIONS = 32
_TIMEOUT_SECONDS = 30.0

WRK = shutil.which("wrk")
LOAD_GENERATOR = (
    f"wrk, 1 thread, {CONNECTIONS} connections" if WRK else f"a Python loop over {CONNECTIONS} connections (wrk is not installed)"
)

# As wrk prints times.
_UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}

_ENTRY_SCRIPT = """
local last = tonumber(os.getenv("BENCH_ENTRIES")) - 1
request = function()
  return wrk.format("GET", "/n/" .. math.random(0, last))
end
"""


class RequestPattern(msgspec.Struct, frozen=True):
    """The request that is repeated. With `entries` above 0 each request is for a random one of that many entries in place of `path`.

    connections: how many clients request it, each as soon as it has the response before.
    """

    path: str = "/"
    headers: Mapping[str, str] = {}
    entries: int = 0
    connections: int = CONNECTIONS


class Load(NamedTuple):
    """The outcome of a load: the number of responses, and the p99 of their latencies in seconds."""

    served: int
    p99: float


def hammer(port: int, requests: RequestPattern, seconds: float, folder: Path) -> int:
    """Return how many requests the server completed within `seconds`; raises `RuntimeError` if one failed."""
    return measure_load(port, requests, seconds, folder).served if WRK else _loop(port, requests, seconds)


def measure_load(port: int, requests: RequestPattern, seconds: float, folder: Path) -> Load:
    """Return how many requests the server completed within `seconds`, and how fast; raises `RuntimeError` if one failed. It needs wrk."""
    output = _wrk(port, requests, seconds, folder)
    count = re.search(r"(\d+) requests in", output)
    p99 = re.search(r"99% +([\d.]+)(us|ms|s|m)\b", output)
    if count is None or p99 is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"some requests failed: {output}")
    return Load(int(count[1]), float(p99[1]) * _UNIT_SECONDS[p99[2]])


def at_constant_rate(port: int, path: str, per_second: float, seconds: float) -> list[float]:
    """Return the latency of each request in seconds, over one connection and one request at a time.

    The latency counts from the time at which a request was due if the previous, slow one delayed it.
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
            _receive_response(connection)
            ended = time.perf_counter()
            latencies.append(ended - sent)
    return latencies


def request_at_once(port: int, requests: RequestPattern, clients: int) -> list[bytes]:
    """Return the raw responses to `clients` clients, which are all connected before the first one sends its request."""
    return asyncio.run(_request_at_once(port, requests, clients))


async def _request_at_once(port: int, requests: RequestPattern, clients: int) -> list[bytes]:
    streams = [await asyncio.open_connection(HOST, port) for _ in range(clients)]
    request = _request(requests.path, {**requests.headers, "Connection": "close"})
    for _, writer in streams:
        writer.write(request)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS * 2):
            return await asyncio.gather(*(reader.read() for reader, _ in streams))
    except TimeoutError as error:
        raise TimeoutError(f"not all of {clients} clients received a response within {_TIMEOUT_SECONDS * 2:g} seconds") from error
    finally:
        for _, writer in streams:
            writer.close()


def _wrk(port: int, requests: RequestPattern, seconds: float, folder: Path) -> str:
    command = [WRK or "wrk", "-t1", "--latency", f"-c{requests.connections}", f"-d{max(1, round(seconds))}s"]
    for name, value in requests.headers.items():
        command += ["-H", f"{name}: {value}"]
    if requests.entries:
        script = folder / "entries.lua"
        script.write_text(_ENTRY_SCRIPT, "ascii")
        command += ["-s", str(script)]
    command.append(f"http://{HOST}:{port}{requests.path}")
    environ = {**os.environ, "BENCH_ENTRIES": str(requests.entries)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=seconds + _TIMEOUT_SECONDS, check=True).stdout


def _loop(port: int, requests: RequestPattern, seconds: float) -> int:
    draw = random.Random(1).randrange
    if requests.entries:
        prepared = [_request(entry_path(draw(requests.entries)), requests.headers) for _ in range(10_000)]
    else:
        prepared = [_request(requests.path, requests.headers)]
    served = 0
    with selectors.DefaultSelector() as selector:
        connections = [socket.create_connection((HOST, port), timeout=_TIMEOUT_SECONDS) for _ in range(requests.connections)]
        try:
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ)
                connection.sendall(prepared[0])
            deadline = time.perf_counter() + seconds
            while time.perf_counter() < deadline:
                for key, _ in selector.select(_TIMEOUT_SECONDS):
                    connection = _socket(key.fileobj)
                    _receive_response(connection)
                    served += 1
                    connection.sendall(prepared[served % len(prepared)])
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


def _receive_response(connection: socket.socket) -> None:
    """Read one response to its end; raises `RuntimeError` if it is an error."""
    data = _receive_until(connection, lambda data: b"\r\n\r\n" in data)
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    status = head[9:12]
    if status not in {b"200", b"304"}:
        raise RuntimeError(f"expected 200 or 304, received {head!r}")
    if status == b"200":
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length is None:
            raise RuntimeError(f"expected a response with Content-Length, received {head!r}")
        missing = int(length[1]) - len(body)
        _receive_until(connection, lambda data: len(data) >= missing)


def _receive_until(connection: socket.socket, enough: Callable[[bytearray], bool]) -> bytearray:
    data = bytearray()
    while not enough(data):
        chunk = connection.recv(1 << 18)
        if not chunk:
            raise RuntimeError("the server closed the connection in the middle of a response")
        data += chunk
    return data

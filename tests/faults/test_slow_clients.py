"""Hundreds of clients that send or read next to nothing: they are disconnected, take little memory, and delay nobody (promises 6 and 7)."""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import quantiles

import pytest

from tests.promises.figures import RecordFigure
from tests.support.connections import connected, is_closed, large_hit, many_descriptors
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import CHECKS_SECONDS, PATIENCE_SECONDS, compares_milliseconds, limit

pytestmark = pytest.mark.long

# The server's time-out of request headers, and what it may take to notice.
CLOSED_SECONDS = 10.0 + 1.0
HEALTH_SECONDS = 0.1

UPLOAD_SECONDS = 30.0
UPLOAD_BYTES = 50_000_000

READER_SECONDS = 60.0
# docs/architecture.md, budgets: whole bodies, and as much for each connection.
READER_BYTES = (128 << 20) + 200 * (200 << 10)


@pytest.fixture(scope="module", autouse=True)
def _descriptors() -> Iterator[None]:
    with many_descriptors(2_000):
        yield


@compares_milliseconds
def test_500_silent_connections_are_closed_at_the_header_time_out_and_health_responds_meanwhile(
    data: Path, record_figure: RecordFigure
) -> None:
    with darkroom(data) as server, ExitStack() as stack:
        opened: dict[socket.socket, float] = {}
        for _ in range(500):
            opened[stack.enter_context(connected(server))] = time.monotonic()
        dripping = list(opened)[::2]
        slowest, taken, dripped = 0.0, [], 0.0
        started = time.monotonic()
        while opened:
            assert time.monotonic() < started + PATIENCE_SECONDS
            for connection in [one for one in opened if is_closed(one)]:
                slowest = max(slowest, time.monotonic() - opened.pop(connection))
            if time.monotonic() > dripped + 0.5:
                dripped = time.monotonic()
                for connection in dripping:
                    if connection in opened and not is_closed(connection):
                        connection.send(b"G", socket.MSG_NOSIGNAL)
            taken.append(seconds_of_health(server))
            time.sleep(0.02)
        p99 = quantiles(taken, n=100)[98]
        record_figure("closed after {:.1f} s", slowest)
        record_figure("`/health` p99 {:.0f} ms", 1_000 * p99)
        assert slowest < limit(CLOSED_SECONDS)
        assert max(taken) < limit(5)
        if CHECKS_SECONDS:
            assert p99 < HEALTH_SECONDS


def seconds_of_health(server: Server) -> float:
    """Return how long a new connection and the response to GET /health take."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection(HOST, server.port, timeout=PATIENCE_SECONDS)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    return time.perf_counter() - started


def test_200_uploads_at_a_byte_a_second_are_408_within_30_seconds_and_take_less_than_50_megabytes(
    data: Path, record_figure: RecordFigure
) -> None:
    request = f"POST /v1/images HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n\xff\xd8".encode("latin-1")
    with darkroom(data) as server, ExitStack() as stack:
        worker = server.worker()
        before = most = worker.memory_info().rss
        uploads: dict[socket.socket, float] = {}
        for _ in range(200):
            upload = stack.enter_context(connected(server))
            upload.sendall(request)
            uploads[upload] = time.monotonic()
        statuses, slowest = [], 0.0
        while uploads:
            for upload in select.select(uploads, [], [], 1)[0]:
                statuses.append(upload.recv(4_096).split(b"\r\n")[0])
                slowest = max(slowest, time.monotonic() - uploads.pop(upload))
            most = max(most, worker.memory_info().rss)
            for upload in uploads:
                with suppress(ConnectionError):
                    upload.send(b"x", socket.MSG_NOSIGNAL)
        assert set(statuses) == {b"HTTP/1.1 408 Request Timeout"}
        assert slowest < limit(UPLOAD_SECONDS)
        assert most - before < UPLOAD_BYTES
        assert list((data / "spool").iterdir()) == []
        record_figure("uploads are 408 after {:.0f} s", slowest)
        record_figure("{:.0f} MB for all uploads", (most - before) / 1e6)


def test_200_slow_readers_are_closed_within_60_seconds_in_bounded_memory(data: Path, record_figure: RecordFigure) -> None:
    with darkroom(data) as server, ExitStack() as stack:
        path = large_hit(server)
        worker = server.worker()
        before = most = worker.memory_info().rss
        readers = {stack.enter_context(connected(server, path)): time.monotonic() for _ in range(200)}
        slowest = 0.0
        while readers:
            time.sleep(1)
            most = max(most, worker.memory_info().rss)
            for reader in list(readers):
                if is_closed(reader):
                    slowest = max(slowest, time.monotonic() - readers.pop(reader))
                else:
                    reader.recv(1)
        assert slowest < limit(READER_SECONDS)
        assert most - before < READER_BYTES
        record_figure("readers are closed after {:.0f} s", slowest)
        record_figure("{:.0f} MB for all readers, of 1.5 MB each", (most - before) / 1e6)

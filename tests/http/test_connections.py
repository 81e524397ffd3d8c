"""Connections of a real server: clients that read slowly or not at all, and that open many connections."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from service.http.connections import MAX_CONNECTIONS, WINDOW_SECONDS
from tests.support import images
from tests.support.connections import LARGE_BYTES, connected, is_closed, large_hit, many_descriptors
from tests.support.server import HOST, Server, darkroom, darkroom_with_descriptors
from tests.support.waiting import PATIENCE_SECONDS, limit, wait_until

MEBIBYTE = 1 << 20

# The descriptors that tests need at most, for both sides of each connection, with room for others.
DESCRIPTORS = 6_000


@pytest.fixture(scope="module", autouse=True)
def _descriptors() -> Iterator[None]:
    with many_descriptors(DESCRIPTORS):
        yield


def is_alive(server: Server, *, seconds: float) -> bool:
    """Return whether a new connection gets a 200 from /livez within that many seconds."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=seconds)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except TimeoutError:
        return False
    finally:
        connection.close()


def sockets_of_port(port: int) -> int:
    """Return how many connections of a port the kernel has on the server's side, with or without a process."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    listening, time_wait = "0A", "06"
    return sum(row[1].endswith(f":{port:04X}") and row[3] not in {listening, time_wait} for row in rows)


@contextmanager
def crowd(server: Server, path: str, size: int) -> Iterator[list[socket.socket]]:
    """Give `size` connections that have sent a GET and read nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(connected(server, path)) for _ in range(size)]


def test_clients_that_do_not_read_are_cut_to_a_quarter_of_all_connections_in_bounded_memory(data: Path) -> None:
    size = MAX_CONNECTIONS // 4 + 400
    with darkroom(data) as server:
        path = large_hit(server)
        worker = server.worker()
        before = worker.memory_info().rss
        most = 0

        def is_cut() -> bool:
            nonlocal most
            most = max(most, worker.memory_info().rss)
            return sum(map(is_closed, readers)) >= 400

        with crowd(server, path, size) as readers:
            wait_until(is_cut)
            assert is_alive(server, seconds=PATIENCE_SECONDS)
            # One body is 1.5 MB: this would be 2 GB.
            assert most - before < 600 * MEBIBYTE
            assert sum(map(is_closed, readers)) == 400, "those that came last may still read"
        with server.client() as client:
            assert len(client.get(path).content) > LARGE_BYTES


@pytest.mark.long
def test_more_clients_that_do_not_read_than_connections_leave_the_server_responsive(data: Path) -> None:
    with darkroom(data) as server:
        path = large_hit(server)
        worker = server.worker()
        with crowd(server, path, MAX_CONNECTIONS + 204) as readers:
            assert is_alive(server, seconds=limit(20))
            assert worker.memory_info().rss < 1_200 * MEBIBYTE
            wait_until(lambda: all(map(is_closed, readers)), seconds=limit(60))
        with server.client() as client:
            assert len(client.get(path).content) > LARGE_BYTES


@pytest.mark.long
def test_slow_readers_are_closed_by_their_progress(data: Path) -> None:
    """One reads nothing, one a byte per second, one 20 kB per second; a fourth leaves a response that fits into the kernel's buffer."""
    with darkroom(data) as server, ExitStack() as stack:
        path = large_hit(server)
        stalled, dripping = (stack.enter_context(connected(server, path)) for _ in range(2))
        # With a smaller buffer, the kernel's timers would be slow.
        slow = stack.enter_context(connected(server, path, buffer_bytes=65_536))
        small = stack.enter_context(connected(server, "/docs/openapi.json"))
        started = time.monotonic()
        received = 0
        ended: dict[str, float] = {}
        while (second := time.monotonic() - started) < WINDOW_SECONDS + 15:
            for name, connection in {"stalled": stalled, "dripping": dripping}.items():
                if name not in ended and is_closed(connection):
                    ended[name] = second
            if "dripping" not in ended:
                dripping.recv(1)
            assert not is_closed(slow), f"it was closed after {second:.0f} s"
            while received < 20_000 * second:
                piece = slow.recv(4_096)
                assert piece
                received += len(piece)
            time.sleep(1)
        assert set(ended) == {"stalled", "dripping"}
        assert all(WINDOW_SECONDS - 2 < second < WINDOW_SECONDS + 12 for second in ended.values())
        # The connection is not closed before the end of its window, even if its rate is too low until then.
        while b"IEND" not in (piece := slow.recv(65_536)):
            assert piece
        slow.close()
        wait_until(lambda: sockets_of_port(server.port) == 0, seconds=limit(60))
        small.close()


def test_connections_of_an_address_beyond_the_bound_are_closed_newest_first(data: Path) -> None:
    with darkroom(data, max_connections_per_address=20) as server, ExitStack() as stack:
        first = [stack.enter_context(connected(server, source="127.0.0.2")) for _ in range(20)]
        # The server looks once a second. The look that closes one of these has found the ones above.
        others = [stack.enter_context(connected(server, source="127.0.0.4")) for _ in range(21)]
        wait_until(lambda: any(map(is_closed, others)))
        more = [stack.enter_context(connected(server, source="127.0.0.2")) for _ in range(10)]
        other = [stack.enter_context(connected(server, source="127.0.0.3")) for _ in range(10)]
        wait_until(lambda: all(map(is_closed, more)))
        assert not any(map(is_closed, [*first, *other]))
        assert is_alive(server, seconds=PATIENCE_SECONDS)


def test_server_with_few_descriptors_reserves_some_for_uploads_and_renders(data: Path) -> None:
    with darkroom_with_descriptors(data, 700) as server, ExitStack() as stack:
        silent = [stack.enter_context(connected(server)) for _ in range(800)]
        # With all 700 descriptors in use, nothing could be spooled, and no process could be started.
        wait_until(lambda: any(map(is_closed, silent)))
        with server.client() as client:
            document = client.post("/v1/images", content=images.photo_jpeg(640, 480)).json()
            assert client.get(document["src"]).status_code == 200

"""No hostile source makes the server connect to an address that is not public (promise 22).

The server runs in a network in which every other address is a canary (`tests.attacks.canary_network`).
"""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from service.urls.signing import Signer
from tests.attacks.canary_network import CLIENT_ADDRESS, PORTS, CanaryNetwork, Contact, canary_network
from tests.attacks.hostile_sources import (
    BUCKET_HOST,
    FORBIDDEN_IPV4,
    FORBIDDEN_IPV6,
    Case,
    Hostility,
    misleading_environment,
)
from tests.promises.figures import RecordFigure
from tests.support import images
from tests.support.server import Server, darkroom, free_port, refused_start
from tests.support.waiting import PATIENCE_SECONDS

KEY = "ab" * 32

# Each host without a public address is refused after a second, so they are requested at once.
_CLIENTS = 64
# TCP knows neither broadcast nor multicast.
_NO_TCP = ("224.", "239.", "255.255.255.255", "ff")


class Attacked:
    """A server in a network of canaries, with hostile sources."""

    def __init__(self, network: CanaryNetwork, hostility: Hostility, server: Server) -> None:
        self.network = network
        self.hostility = hostility
        self._server = server

    def status(self, case: Case) -> int:
        """Send a request, and return the status of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, PATIENCE_SECONDS, (CLIENT_ADDRESS, 0))
        try:
            headers = {"Content-Type": "application/json"} if case.body else {}
            connection.request(case.method, case.path, case.body or None, headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def require_good_source(self) -> None:
        """Check that a picture of the good source, which is not stored yet, is served."""
        assert self.status(Case("good", "GET", self.hostility.good_path())) == 200

    def attack(self, cases: Sequence[Case]) -> None:
        """Send hostile requests, and requests for good pictures in between; check the responses, and that no canary has seen anything."""
        self.require_good_source()
        with ThreadPoolExecutor(_CLIENTS) as clients:
            pending = [(case, clients.submit(self.status, case)) for case in cases]
            good = [clients.submit(self.require_good_source) for _ in range(1 + len(cases) // 50)]
            statuses = [(case, future.result()) for case, future in pending]
            for future in good:
                future.result()
        self.require_good_source()
        # A request that is refused because there are too many proves nothing.
        assert [(case, status) for case, status in statuses if status in {429, 503}] == []
        assert [(case, status) for case, status in statuses if case.is_refused and status < 400] == []
        assert [(case, status) for case, status in statuses if status == 500] == []
        assert self.network.contacts() == []


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Callable[[Attacked], None]], None]]:
    """Give a function that runs a test in the network of a server with hostile sources."""
    folder = tmp_path_factory.mktemp("canaries")
    (folder / "home").mkdir()
    (folder / "home/.netrc").write_text("default login somebody password netrc-secret\n")
    picture = images.photo_jpeg(64, 48)
    hostility = Hostility(Signer([bytes.fromhex(KEY)]), picture)
    with canary_network(folder, hostility.records, picture) as network, ExitStack() as stack:
        network.replies = hostility.replies
        bucket = {"ENDPOINT_URL_S3": f"http://{BUCKET_HOST}", "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
        settings: dict[str, object] = {"sources": hostility.sources, "keys": KEY, "HOME": folder / "home"}
        settings |= {f"DARKROOM_SOURCE_BUCKET_AWS_{name}": value for name, value in bucket.items()}
        running: list[Attacked] = []

        def start() -> None:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in misleading_environment().items():
                    patch.setenv(name, value)
                server = stack.enter_context(darkroom(folder / "data", **settings))
            running.append(Attacked(network, hostility, server))
            # The test's own requests until the server was healthy.
            network.contacts()

        network.run(start)
        try:
            yield lambda test: network.run(lambda: test(running[0]))
        finally:
            network.run(stack.close)


def test_canary_at_every_forbidden_address_sees_each_connection_and_datagram(
    attacked: Callable[[Callable[[Attacked], None]], None],
) -> None:
    """The other tests prove something only if this one succeeds."""

    def test(attacked: Attacked) -> None:
        expected: set[Contact] = set()
        for address in (*FORBIDDEN_IPV4, *FORBIDDEN_IPV6):
            # The kernel connects to itself in place of no address.
            seen = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address).removeprefix("::ffff:")
            ports = (*PORTS, 12_345)
            if not address.startswith(_NO_TCP):
                expected |= {Contact("tcp", seen, port) for port in ports}
            expected |= {Contact("udp", seen, port) for port in ports}
            for port in ports:
                _touch(address, port)
        assert set(attacked.network.contacts()) == expected
        # And a canary responds.
        with socket.create_connection(("10.0.0.1", 80)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert attacked.network.contacts() == [Contact("tcp", "10.0.0.1", 80)]

    attacked(test)


def _touch(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    target: tuple[object, ...] = (address, port, 0, 1) if address.startswith(("fe80", "ff")) else (address, port)
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        if family == socket.AF_INET:
            datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        datagrams.sendto(b"", target)
    with socket.socket(family) as connection, suppress(OSError):
        connection.connect(target)


def test_some_hostile_sources_of_each_kind_reach_no_forbidden_address(attacked: Callable[[Callable[[Attacked], None]], None]) -> None:
    def test(attacked: Attacked) -> None:
        cases = list(attacked.hostility.cases())
        random.Random(7).shuffle(cases)
        one_of_each = {case.kind: case for case in cases}
        attacked.attack([*one_of_each.values(), *cases[:30]])

    attacked(test)


@pytest.mark.long
def test_no_hostile_source_reaches_a_forbidden_address(
    attacked: Callable[[Callable[[Attacked], None]], None], record_figure: RecordFigure
) -> None:
    def test(attacked: Attacked) -> None:
        cases = list(attacked.hostility.cases())
        assert len({(case.path, case.body) for case in cases}) >= 1_000
        attacked.attack(cases)
        record_figure("no connection by {:,.0f} hostile requests", len(cases))
        # No host was sent the credentials in .netrc.
        assert not any("netrc" in request or "Authorization: Basic" in request for request in attacked.network.requests)

    attacked(test)


def test_name_that_is_rebound_to_an_internal_address_is_refused(attacked: Callable[[Callable[[Attacked], None]], None]) -> None:
    def test(attacked: Attacked) -> None:
        statuses = [attacked.status(Case("rebinding", "GET", path)) for path in attacked.hostility.rebinding_paths()]
        # The name is looked up once for each request, and the connection goes to the address that was checked.
        assert statuses == [200, 502, 502, 502, 502]
        assert attacked.network.contacts() == []

    attacked(test)


def test_start_with_buckets_without_credentials_connects_to_no_metadata_service(
    attacked: Callable[[Callable[[Attacked], None]], None], tmp_path: Path
) -> None:
    def test(attacked: Attacked) -> None:
        assert "DARKROOM_MACHINE_ROLE=true" in refused_start(tmp_path, "--port", str(free_port()), DARKROOM_SOURCES="shop=s3://pictures")
        assert attacked.network.contacts() == []

    attacked(test)

"""The checks of a request's header, given its ASGI scope."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import BadRequestError, HeaderTooLargeError, UnauthorizedError
from service.http.guard import Guard

HOST = (b"host", b"img.example.com")


def scope(*headers: tuple[bytes, bytes], method: str = "GET", path: bytes = b"/i/x", query: bytes = b"", version: str = "1.1") -> Any:
    return {"method": method, "raw_path": path, "query_string": query, "headers": list(headers), "http_version": version}


def size_of(headers: list[tuple[bytes, bytes]]) -> int:
    return len(b"/i/x" + b"".join(b"%b: %b\r\n" % pair for pair in headers))


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("where", ["value", "name", "many", "path", "query"])
def test_header_is_measured_with_its_target_names_and_values(where: str, spare: int) -> None:
    most = 8_192
    left = most - size_of([HOST]) + spare
    requests = {
        "value": lambda: scope(HOST, (b"x", bytes(left - 5))),
        "name": lambda: scope(HOST, (b"x" * (left - 4), b"")),
        "many": lambda: scope(HOST, *[(b"x", b"y")] * 10, (b"z", bytes(left - 65))),
        "path": lambda: scope(HOST, path=b"/i/x" + bytes(left)),
        "query": lambda: scope(HOST, query=bytes(left)),
    }
    guard = Guard(most, None)
    if not spare:
        guard.check(requests[where]())
        return
    with pytest.raises(HeaderTooLargeError) as raised:
        guard.check(requests[where]())
    assert (raised.value.received or "").startswith("8193 bytes in ")


@pytest.mark.parametrize("headers", [[], [(b"host", b"")], [HOST, HOST], [(b"host", b""), HOST], [HOST, (b"x", b"y"), HOST]])
def test_request_without_exactly_one_host_is_400(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequestError) as raised:
        Guard(8_192, None).check(scope(*headers))
    assert raised.value.expected == "one Host field (RFC 9112 §3.2)"


@pytest.mark.parametrize("headers", [[], [(b"host", b"")], [HOST]])
def test_request_of_http_1_0_needs_no_host(headers: list[tuple[bytes, bytes]]) -> None:
    Guard(8_192, None).check(scope(*headers, version="1"))


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT", "BREW", "get"])
def test_unsafe_request_is_authenticated_if_no_route_does(method: str) -> None:
    received = []

    def authenticate(raw_path: bytes, authorization: str) -> None:
        received.append((raw_path, authorization))
        if not authorization:
            raise UnauthorizedError("This request needs a token.")

    guard = Guard(8_192, authenticate)
    with pytest.raises(UnauthorizedError):
        guard.check(scope(HOST, method=method))
    guard.check(scope(HOST, (b"authorization", b"Bearer \xff"), method=method))
    guard.check(scope(HOST))
    assert received == [(b"/i/x", ""), (b"/i/x", "Bearer ÿ")]

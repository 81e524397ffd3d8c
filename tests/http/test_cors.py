"""The fields of CORS that `UploadCors` adds to the responses of an application, for every method and origin."""

from __future__ import annotations

from typing import Any

import pytest

from service.http.cors import UploadCors

pytestmark = pytest.mark.anyio

ORIGIN = b"https://www.example.com"
EXPOSED = {b"access-control-expose-headers": b"ETag, Location, Retry-After, X-Request-Id"}
PREFLIGHT = {
    b"access-control-allow-methods": b"POST, PUT",
    b"access-control-allow-headers": b"Content-Type, Fly-Prefer-Region",
    b"access-control-max-age": b"7200",
}
VARY = {b"vary": b"Origin"}


async def respond(origins: tuple[str, ...], *headers: tuple[bytes, bytes], method: str = "POST", path: str = "/v1/uploads/x") -> Any:
    """Return the fields that are added to the response to a request."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418, "headers": [(b"allow", b"PUT")]})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    await UploadCors(app, origins)(scope, None, send)  # type: ignore[arg-type]
    assert (sent[0]["status"], sent[1]["body"]) == (418, b"x")
    allow, *added = sent[0]["headers"]
    assert allow == (b"allow", b"PUT")
    assert len(dict(added)) == len(added)
    return dict(added)


ASKED = (b"access-control-request-method", b"PUT")


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("https://a.test", ORIGIN.decode()), ORIGIN, {b"access-control-allow-origin": ORIGIN}),
        (("*",), ORIGIN, {b"access-control-allow-origin": b"*"}),
        (("*",), b"null", {b"access-control-allow-origin": b"*"}),
        ((ORIGIN.decode(),), b"https://www.example.com.evil.test", {}),
        ((ORIGIN.decode(),), b"null", {}),
        ((ORIGIN.decode(),), b"*", {}),
        ((ORIGIN.decode(),), b"\xff", {}),
    ],
)
async def test_fields_depend_on_origin_and_method(origins: tuple[str, ...], origin: bytes, allowed: dict[bytes, bytes]) -> None:
    vary = {} if origins == ("*",) else VARY
    exposed, preflight = (EXPOSED, PREFLIGHT) if allowed else ({}, {})
    assert await respond(origins, (b"origin", origin)) == allowed | exposed | vary
    assert await respond(origins, (b"origin", origin), method="OPTIONS") == allowed | exposed | vary
    assert await respond(origins, (b"origin", origin), ASKED, method="OPTIONS") == allowed | preflight | vary


async def test_request_without_an_origin_gets_no_more_than_vary() -> None:
    assert await respond((ORIGIN.decode(),)) == VARY


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/images", "/i/v3/x", "/", "/v1/uploadsx/y"])
async def test_other_paths_get_no_fields(path: str) -> None:
    assert await respond((ORIGIN.decode(), "*"), (b"origin", ORIGIN), ASKED, method="OPTIONS", path=path) == {}

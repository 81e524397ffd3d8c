"""The proxy that a client uses."""

from __future__ import annotations

import pytest

from service.cli.client.server import _proxy

SERVER = "https://img.example.com"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (SERVER, {}, None),
        (SERVER, {"https_proxy": "http://proxy.example.com:3128"}, (b"http", b"proxy.example.com", 3128, None)),
        (SERVER, {"HTTPS_PROXY": "proxy.example.com:3128"}, (b"http", b"proxy.example.com", 3128, None)),
        (SERVER, {"http_proxy": "http://proxy.example.com:3128"}, None),
        ("http://img.example.com", {"http_proxy": "http://proxy.example.com:3128"}, (b"http", b"proxy.example.com", 3128, None)),
        (SERVER, {"https_proxy": "http://me:p%40ss@proxy.example.com:3128"}, (b"http", b"proxy.example.com", 3128, (b"me", b"p@ss"))),
        (SERVER, {"https_proxy": "http://proxy.example.com:3128", "no_proxy": "example.com"}, None),
        ("http://127.0.0.1:8080", {"http_proxy": "http://proxy.example.com:3128"}, None),
        ("http://localhost:8080", {"http_proxy": "http://proxy.example.com:3128"}, None),
        ("http://[::1]:8080", {"http_proxy": "http://proxy.example.com:3128"}, None),
    ],
)
def test_proxy_is_read_from_the_environment_but_not_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    environ: dict[str, str],
    expected: tuple[bytes, bytes, int, tuple[bytes, bytes] | None] | None,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    proxy = _proxy(url)
    assert (proxy and (proxy.url.scheme, proxy.url.host, proxy.url.port, proxy.auth)) == expected

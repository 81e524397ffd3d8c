"""Fetching from remote sources: requests, refusals, and limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import structlog
import trustme

from service.errors import Problem, ServiceError, SourceFailedError, SourceNotListableError, SourceSlowError, TooLargeError
from service.settings.source_locations import SourceLocation, parse_sources
from service.sources import fetcher as fetcher_module
from service.sources.fetcher import MAX_REDIRECTS, HttpSource, Resolve, SourceFetcher, resolve_host
from service.sources.source import Validators
from tests.support.source_server import Reply, Source, http_response, source

pytestmark = pytest.mark.anyio

BODY = b"bytes of an image" * 100


@pytest.fixture
async def running() -> AsyncIterator[Source]:
    async with source() as one:
        yield one


async def loopback(host: str, port: int) -> Sequence[str]:
    """Resolve every name to loopback, where the source listens."""
    return ["127.0.0.1"]


def anywhere(address: str) -> bool:
    """Allow every address."""
    return True


def locations(*urls: str) -> list[SourceLocation]:
    """Return sources below these URLs."""
    return [next(iter(parse_sources(f"one={url}").values())) for url in urls]


def fetcher_for(running: Source, *urls: str, max_bytes: int = 1 << 20) -> SourceFetcher:
    """Return a fetcher that may connect to loopback, which no setting allows."""
    below = locations(*(url.format(port=running.port) for url in urls or ("http://source.test:{port}",)))
    return SourceFetcher(below, max_bytes=max_bytes, is_allowed_address=anywhere, resolve=loopback)


async def fetched(fetcher: SourceFetcher, url: str, validators: Validators | None = None) -> tuple[Validators | None, bytes]:
    chunks: list[bytes] = []

    async def write(chunk: bytes) -> None:
        chunks.append(chunk)

    return await fetcher.fetch(url, validators or Validators(), write), b"".join(chunks)


# Fetching


async def test_fetch_returns_the_bytes_and_their_validators(running: Source) -> None:
    running.replies["/a.jpg"] = http_response(200, 'ETag: "v1"', "Last-Modified: Tue, 24 Nov 2026 00:00:00 GMT", body=BODY)
    assert await fetched(fetcher_for(running), running.url()) == (Validators('"v1"', "Tue, 24 Nov 2026 00:00:00 GMT"), BODY)
    (request,) = running.requests
    lines = request.split("\r\n")
    assert lines[0] == "GET /a.jpg HTTP/1.1"
    assert f"Host: source.test:{running.port}" in lines
    assert "Accept-Encoding: identity" in lines
    assert not [line for line in lines if line.lower().startswith(("if-", "cookie", "authorization"))]


async def test_fetch_with_validators_is_a_conditional_request(running: Source) -> None:
    running.replies["/a.jpg"] = http_response(304)
    held = Validators('"v1"', "Tue, 24 Nov 2026 00:00:00 GMT")
    assert await fetched(fetcher_for(running), running.url(), held) == (None, b"")
    assert 'If-None-Match: "v1"' in running.requests[0]
    assert "If-Modified-Since: Tue, 24 Nov 2026 00:00:00 GMT" in running.requests[0]


async def test_fetch_over_tls_verifies_the_name_and_connects_to_the_checked_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("source.test").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("httpcore.default_ssl_context", lambda: trusting)
    async with source(context) as running:
        running.replies["/a.jpg"] = http_response(200, body=BODY)
        fetcher = fetcher_for(running, "https://source.test:{port}", "https://other.test:{port}")
        assert await fetched(fetcher, running.url(scheme="https")) == (Validators(), BODY)
        with pytest.raises(SourceFailedError):
            await fetched(fetcher, running.url(host="other.test", scheme="https"))


async def test_fetch_ignores_proxies_of_the_environment(running: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    running.replies["/a.jpg"] = http_response(200, body=BODY)
    assert await fetched(fetcher_for(running), running.url()) == (Validators(), BODY)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_fetch_follows_three_redirects_and_no_more(running: Source, status: int) -> None:
    for step in range(MAX_REDIRECTS):
        running.replies[f"/{step}"] = http_response(status, f"Location: /{step + 1}")
    running.replies[f"/{MAX_REDIRECTS}"] = http_response(200, body=BODY)
    assert await fetched(fetcher_for(running), running.url("/0")) == (Validators(), BODY)
    running.replies[f"/{MAX_REDIRECTS}"] = http_response(status, "Location: /0")
    with pytest.raises(SourceFailedError, match="redirects too often"):
        await fetched(fetcher_for(running), running.url("/0"))


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "http://other.test/", "file:///etc/passwd", "gopher://source.test/", "http://source.test:1/up/a.jpg"),
        *("https://source.test:{port}/up/a.jpg", "http://user@source.test:{port}/up/a.jpg", "//evil.test/up/a.jpg", "http://[::1/up/a.jpg"),
        *("http://source.test:{port}@evil.test/up/a.jpg", "http://source.test.:{port}/up/a.jpg", "http://söurce.test:{port}/up/a.jpg"),
        *("http://source.test:99999/up/a.jpg", "http://source.test:{port}\\\\@evil.test/up/", "http://source.test:0/up/a.jpg"),
        *("/", "/up", "/u/a.jpg", "/uploads/a.jpg", "/up%2Fa.jpg", "../a.jpg", "/up/../a.jpg", "/up/%2e%2e/a.jpg", "/up/%252e%252e/a.jpg"),
        *("/up/..%2fa.jpg", "/up/x/..;/a.jpg", "/up/..%5Ca.jpg", "/up/%2525252e%2525252e/a.jpg", "/up/ä.jpg", "/up/a b.jpg"),
    ],
)
async def test_fetch_follows_no_redirect_out_of_the_sources(running: Source, location: str) -> None:
    running.replies["/up/a.jpg"] = http_response(302, f"Location: {location.format(port=running.port)}")
    with pytest.raises(SourceFailedError, match=r"redirects to a place that is not below a source\.") as failed:
        await fetched(fetcher_for(running, "http://source.test:{port}/up"), running.url("/up/a.jpg"))
    assert len(running.requests) == 1
    assert failed.value.source_status is None
    assert "DARKROOM_SOURCES" in str(failed.value.expected)


@pytest.mark.parametrize(
    "location",
    ["b.jpg", "/up/b.jpg", "./x/../b.jpg", "HTTP://Source.Test:{port}/up/b.jpg#part", "http://other.test:{port}/up/b.jpg", "/%75p/b.jpg"],
)
async def test_fetch_follows_redirects_below_a_source(running: Source, location: str) -> None:
    running.replies["/up/a.jpg"] = http_response(302, f"Location: {location.format(port=running.port)}")
    running.replies["/up/b.jpg"] = running.replies["/%75p/b.jpg"] = http_response(200, body=BODY)
    fetcher = fetcher_for(running, "http://source.test:{port}/up", "http://other.test:{port}/")
    assert (await fetched(fetcher, running.url("/up/a.jpg")))[1] == BODY
    assert f"Host: {'other' if 'other' in location else 'source'}.test:{running.port}" in running.requests[1].split("\r\n")


async def test_source_below_a_prefix_fetches_by_path(running: Source) -> None:
    running.replies["/up/%C3%B6/a+1.jpg?v=2"] = http_response(200, 'ETag: "1"', body=BODY)
    (location,) = locations(running.url("/up"))
    chunks: list[bytes] = []

    async def write(chunk: bytes) -> None:
        chunks.append(chunk)

    own = HttpSource(location, fetcher_for(running, "http://source.test:{port}/up"))
    assert await own.fetch("ö/a+1.jpg?v=2", Validators(), write) == Validators('"1"')
    assert b"".join(chunks) == BODY
    with pytest.raises(SourceNotListableError) as refused:
        await own.list("", 10)
    assert refused.value.status_code == 400


# Limits and failures


async def test_fetch_of_too_many_bytes_stops_before_reading_them(running: Source) -> None:
    running.replies["/declared"] = http_response(200, body=b"x", length=1 << 40)
    running.replies["/endless"] = endless
    for path in ("/declared", "/endless"):
        with pytest.raises(TooLargeError):
            await fetched(fetcher_for(running, max_bytes=100_000), running.url(path))


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(http_response(200, length=-1))
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
    ids=["nothing", "garbage", "cut", "no number", "no chunk", "huge header", "another protocol"],
)
async def test_fetch_of_an_incomplete_or_invalid_response_fails(running: Source, reply: bytes) -> None:
    running.replies["/a.jpg"] = reply
    with pytest.raises(SourceFailedError) as failed:
        await fetched(fetcher_for(running), running.url())
    assert failed.value.source_status is None


def flooding(beginning: bytes, unit: bytes) -> Reply:
    """Return a source that sends a beginning, and then the same bytes over and over."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            writer.write(unit * (1 + 20_000 // len(unit)))
            await writer.drain()

    return reply


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        flooding(b"", b"HTTP/1.1 103 \r\n\r\n"),
        flooding(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"),
        flooding(b"HTTP/1.1 200 OK\r\n", b"a:\r\n"),
        flooding(_CHUNKED, b"1\r\nx\r\n"),
        flooding(_CHUNKED, b"1;" + b"e" * 60_000 + b"\r\nx\r\n"),
        flooding(_CHUNKED + b"0\r\n", b"a: b\r\n"),
    ],
    ids=["interim responses", "early hints", "fields", "chunks", "chunk extensions", "trailers"],
)
async def test_fetch_from_a_flooding_source_fails_long_before_the_timeout(running: Source, reply: Reply) -> None:
    running.replies["/flood"] = reply
    running.replies["/a.jpg"] = http_response(200, body=BODY)
    fetcher = fetcher_for(running)
    with pytest.raises(SourceFailedError):
        await fetched(fetcher, running.url("/flood"))
    assert (await fetched(fetcher, running.url()))[1] == BODY


async def test_fetch_of_many_small_chunks_lets_other_tasks_run(running: Source) -> None:
    running.replies["/a.jpg"] = flooding(_CHUNKED, b"1\r\nx\r\n")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    pieces: Counter[int] = Counter()

    async def write(chunk: bytes) -> None:
        pieces[turns] += 1

    waiting = asyncio.create_task(others())
    with pytest.raises(SourceFailedError, match="too many pieces"):
        await fetcher_for(running).fetch(running.url(), Validators(), write)
    waiting.cancel()
    assert pieces.total() == fetcher_module.MAX_SMALL_PIECES
    assert max(pieces.values()) <= 100


async def test_fetch_accepts_interim_responses_and_small_chunks_within_limits(running: Source) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" * 20
    header = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"
    lines = [b"%d" % number for number in range(20_000)]
    chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (len(line), line) for line in lines)
    running.replies["/a.jpg"] = interim + header + chunks + b"0\r\n\r\n"
    assert (await fetched(fetcher_for(running), running.url()))[1] == b"".join(lines)


@pytest.mark.parametrize("status", [204, 304, 400, 401, 404, 410, 500, 503])
async def test_fetch_of_another_status_fails_and_reports_it(running: Source, status: int) -> None:
    running.replies["/a.jpg"] = http_response(status)
    with pytest.raises(SourceFailedError) as failed:
        await fetched(fetcher_for(running), running.url())
    assert failed.value.source_status == status


async def test_fetch_of_compressed_bytes_fails(running: Source) -> None:
    running.replies["/a.jpg"] = http_response(200, "Content-Encoding: gzip", body=BODY)
    with pytest.raises(SourceFailedError, match="compressed"):
        await fetched(fetcher_for(running), running.url())


async def test_fetch_from_a_closed_port_fails(running: Source) -> None:
    fetcher = SourceFetcher(locations("http://source.test:1"), max_bytes=1, is_allowed_address=anywhere, resolve=loopback)
    with pytest.raises(SourceFailedError):
        await fetched(fetcher, "http://source.test:1/")


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3_600)


async def test_fetch_from_a_silent_source_times_out(running: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "SILENCE_SECONDS", 0.2)
    running.replies["/a.jpg"] = silent
    with pytest.raises(SourceSlowError):
        await fetched(fetcher_for(running), running.url())


# Internal hosts


def resolving(found: Sequence[str] | OSError, seconds: float = 0) -> Resolve:
    """Return a resolver that always returns, or raises, the same after some seconds."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(seconds)
        if isinstance(found, OSError):
            raise found
        return found

    return resolve


async def unreachable(resolve: Resolve, url: str = "https://db.source.test/") -> tuple[tuple[Problem, int | None], float]:
    """Return the problem of a host that cannot be reached, and the seconds until it was raised."""
    below = locations("https://db.source.test", "https://no.source.test", "http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1")
    fetcher = SourceFetcher(below, max_bytes=1, resolve=resolve)
    started = time.monotonic()
    with pytest.raises(ServiceError) as failed:
        await fetched(fetcher, url)
    return (failed.value.problem(), failed.value.retry_after_seconds), time.monotonic() - started


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["fdaa::3"], [], TimeoutError()], ids=repr)
async def test_internal_host_fails_exactly_like_one_that_does_not_exist(
    found: Sequence[str] | OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "UNREACHABLE_STEP_SECONDS", 0.2)
    expected, _ = await unreachable(resolving(UNKNOWN))
    told, _ = await unreachable(resolving(found))
    assert told == expected
    assert told[0].status == 502
    assert "source.test" not in str(told)


async def test_host_that_resolves_faster_fails_no_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "UNREACHABLE_STEP_SECONDS", 0.5)
    for resolve in (resolving(["10.0.0.1"]), resolving(UNKNOWN, 0.1), resolving(["10.0.0.1"], 0.2)):
        _, seconds = await unreachable(resolve)
        assert seconds >= 0.49
    _, seconds = await unreachable(resolving(UNKNOWN, 0.6))
    assert seconds >= 0.99


async def test_redirect_to_an_internal_host_fails_like_one_to_a_host_that_does_not_exist(
    running: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "UNREACHABLE_STEP_SECONDS", 0.01)
    told = []
    for addresses in (["10.0.0.1"], []):

        async def resolve(host: str, port: int, addresses: Sequence[str] = addresses) -> Sequence[str]:
            return ["127.0.0.1"] if host == "source.test" else addresses

        hosts = locations(f"http://source.test:{running.port}", "https://db.source.test")
        fetcher = SourceFetcher(hosts, max_bytes=1 << 20, is_allowed_address=lambda address: address == "127.0.0.1", resolve=resolve)
        running.replies["/a.jpg"] = http_response(302, "Location: https://db.source.test/")
        with pytest.raises(SourceFailedError) as failed:
            await fetched(fetcher, running.url())
        told.append(failed.value.problem())
    assert told[0] == told[1]


async def test_host_that_is_not_reached_has_its_reason_in_the_log(
    monkeypatch: pytest.MonkeyPatch, logged: list[structlog.typing.EventDict]
) -> None:
    monkeypatch.setattr(fetcher_module, "UNREACHABLE_STEP_SECONDS", 0.01)
    await unreachable(resolving(["10.0.0.1"]))
    await unreachable(resolving(UNKNOWN))
    told = [(event["event"], event["host"]) for event in logged if "host" in event]
    assert told == [("a source was refused by its address", "db.source.test"), ("the host of a source was not resolved", "db.source.test")]
    assert logged[0]["addresses"] == ["10.0.0.1"]


async def test_name_is_resolved_once_so_that_rebinding_has_no_effect(running: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    running.replies["/a.jpg"] = http_response(200, body=BODY)
    hosts = locations(f"http://source.test:{running.port}")
    fetcher = SourceFetcher(hosts, max_bytes=1 << 20, is_allowed_address=lambda address: address == "127.0.0.1", resolve=rebinding)
    assert (await fetched(fetcher, running.url()))[1] == BODY
    assert asked == ["source.test"]
    monkeypatch.setattr(fetcher_module, "UNREACHABLE_STEP_SECONDS", 0.01)
    with pytest.raises(SourceFailedError):
        await fetched(fetcher, running.url())
    assert len(running.requests) == 1


async def test_names_of_loopback_are_refused_with_the_real_resolver(
    monkeypatch: pytest.MonkeyPatch, logged: list[structlog.typing.EventDict]
) -> None:
    monkeypatch.setattr(fetcher_module, "UNREACHABLE_STEP_SECONDS", 0.01)
    for url in ("http://localhost:1/", "http://127.0.0.1:1/", "http://[::1]:1/"):
        await unreachable(resolve_host, url)
    assert [event["event"] for event in logged if "host" in event] == ["a source was refused by its address"] * 3


async def test_every_failure_has_expected_and_remedy(running: Source) -> None:
    running.replies["/500"] = http_response(500)
    running.replies["/garbage"] = b"garbage\r\n\r\n"
    running.replies["/large"] = http_response(200, body=b"x" * 2_000)
    for path in ("/500", "/garbage", "/large"):
        with pytest.raises(ServiceError) as failed:
            await fetched(fetcher_for(running, max_bytes=1_000), running.url(path))
        problem = failed.value.problem()
        assert problem.expected
        assert problem.received
        assert problem.remedy

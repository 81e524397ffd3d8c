"""Regions on Fly: which requests a replica replays in the primary region, and how responses name region and Machine."""

from __future__ import annotations

import asyncio
import json
from math import inf
from typing import Any

import pytest

from edge import Edge
from edge.asgi import ASGIApp, Headers, Message, Response, Scope
from edge.fly import REPLAY_BYTES, FlyRegion
from tests.edge.asgi import (
    RENDITION,
    ClientResponse,
    ManualClock,
    Origin,
    full_response,
    hit,
    http_scope,
    not_stored,
    open_request,
    send_request,
    shared_edge,
    stored,
    wait_for_all,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"
TIMING = (b"server-timing", b"region;desc=lhr, machine;desc=148e21ea246389")
MEMORY_TIMING = (b"server-timing", b"tier;desc=memory, region;desc=lhr, machine;desc=148e21ea246389")
REPLAY = (b"fly-replay", b"region=arn;timeout=5s;fallback=prefer_self")
REPLAY_FIELD = (b"darkroom-replay", b"primary")
CLOSE = (b"connection", b"close")

REPLICA = FlyRegion(region="lhr", machine="148e21ea246389", primary="arn")
PRIMARY = FlyRegion(region="arn", machine="148e21ea246389", primary="arn")
SHARED = FlyRegion(region="lhr", machine="148e21ea246389")

WANTS_REPLAY = Response(
    404,
    [(b"content-length", b"4"), (b"cache-control", b"no-store"), (b"darkroom-cdn-cache-control", b"max-age=1"), REPLAY_FIELD],
    b"none",
)
REPLAYED_HEADERS = [(b"fly-replay-src", b"instance=abc;region=lhr;t=1"), (b"fly-replay-failed", b"error=timeout")]


def replica(app: ASGIApp, clock: ManualClock | None = None, **options: Any) -> Edge:
    return shared_edge(app, clock, region=REPLICA, **options)


def problem(status: int, title: str, detail: str, cache_status: bytes, *extra: tuple[bytes, bytes], **members: str) -> ClientResponse:
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}
    body = json.dumps(content, separators=(",", ":")).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *extra,
        (STATUS, cache_status),
        TIMING,
    ]
    return ClientResponse(status, headers, body)


def replayed(cache_status: bytes) -> ClientResponse:
    detail = "This request must be handled in the region arn. Fly's proxy replays the request there."
    return problem(421, "Belongs to another region", detail, cache_status, REPLAY, prefer_region="arn")


def refused_as_large() -> ClientResponse:
    detail = (
        f"This request must be handled in the region arn. The body is larger than {REPLAY_BYTES} bytes, the most that can be replayed. "
        "Send it again with the header fly-prefer-region: arn."
    )
    return problem(421, "Belongs to another region", detail, WRITE, (b"fly-prefer-region", b"arn"), CLOSE, prefer_region="arn")


def primary_out_of_reach(cache_status: bytes, *extra: tuple[bytes, bytes]) -> ClientResponse:
    detail = "This request must be handled in the region arn, which does not respond. Try again in a few seconds."
    return problem(503, "Primary region out of reach", detail, cache_status, (b"retry-after", b"5"), *extra)


READ = not_stored(word="detail=elsewhere")
WRITE = b"darkroom; fwd=method; detail=elsewhere"
BYPASS = b"darkroom; fwd=bypass"


# Server-Timing


async def test_responses_from_the_origin_and_from_memory_name_region_and_machine() -> None:
    edge = replica(Origin())
    assert await send_request(edge) == ClientResponse(200, [*RENDITION.headers, (STATUS, stored()), TIMING], b"picture")
    assert await send_request(edge) == ClientResponse(
        200, [*RENDITION.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIMING], b"picture"
    )
    etag: Headers = [(b"if-none-match", b'"k5x7q2"')]
    response = await send_request(edge, headers=etag)
    assert (response.status, response.field(b"server-timing")) == (304, MEMORY_TIMING[1])
    part = await send_request(edge, headers=[(b"range", b"bytes=0-2")])
    assert (part.status, part.body, part.field(b"server-timing")) == (206, b"pic", MEMORY_TIMING[1])


async def test_response_with_its_own_server_timing_keeps_it() -> None:
    timing = (b"server-timing", b"tier;desc=render;dur=4.0")
    edge = replica(Origin(full_response(b"max-age=60", timing)))
    response = await send_request(edge)
    assert [value for name, value in response.headers if name == b"server-timing"] == [timing[1], TIMING[1]]
    assert (await send_request(edge)).field(b"server-timing") == MEMORY_TIMING[1]


@pytest.mark.parametrize(("path", "method"), [("/health", "GET"), ("/v1/images", "OPTIONS"), ("/i/picture", "TRACE")])
async def test_bypassed_response_names_region_and_machine(path: str, method: str) -> None:
    response = await send_request(replica(Origin()), path, method=method)
    assert response.headers[-1] == TIMING


async def test_responses_of_the_edge_itself_name_region_and_machine() -> None:
    origin = Origin(held=True)
    edge = replica(origin, max_concurrent_misses=1)
    first = open_request(edge)
    await first.until_waiting()
    busy = await send_request(edge)
    assert (busy.status, busy.headers[-1]) == (503, TIMING)
    unwanted = await send_request(edge, headers=[(b"cache-control", b"only-if-cached")])
    assert (unwanted.status, unwanted.headers[-1]) == (504, TIMING)
    await origin.release()
    await first.response()


async def test_stale_response_names_region_and_machine() -> None:
    clock = ManualClock()
    edge = replica(Origin(full_response(b"max-age=60, stale-if-error=600")), clock)
    await send_request(edge)
    clock.now += 61
    edge._origin._app = Origin(Response(503, [], b""))
    response = await send_request(edge)
    assert (response.status, response.headers[-1]) == (200, TIMING)
    within = replica(Origin(full_response(b"max-age=60, stale-while-revalidate=600")), clock)
    await send_request(within)
    clock.now += 61
    assert (await send_request(within)).headers[-1] == MEMORY_TIMING


async def test_edge_without_a_region_adds_no_server_timing() -> None:
    response = await send_request(shared_edge(Origin()))
    assert response.field(b"server-timing") is None


async def test_region_without_a_machine_is_named_by_itself() -> None:
    assert list(FlyRegion(region="arn").server_timing) == [(b"server-timing", b"region;desc=arn")]
    assert FlyRegion(region="arn").memory_server_timing == (b"server-timing", b"tier;desc=memory, region;desc=arn")


@pytest.mark.parametrize("bad", ["a\r\nx: y", "a b", "a;b", 'a"', "ä", "a" * 65, "a,b", "a=b"])
@pytest.mark.parametrize("which", ["region", "machine", "primary"])
async def test_region_with_an_invalid_name_is_refused(which: str, bad: str) -> None:
    with pytest.raises(ValueError, match="Expected the name of a region or a Machine, 1 to 64"):
        FlyRegion(**{which: bad})


# Reads


async def test_replica_read_with_the_replay_field_is_replayed_and_never_stored() -> None:
    origin = Origin(WANTS_REPLAY)
    edge = replica(origin)
    for _ in range(2):
        assert await send_request(edge) == replayed(READ)
    assert len(origin.requests) == 2
    assert (edge.stored_entries, edge.counters["any", 421].replayed) == (0, 2)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"cache-control", b"public, max-age=60")],
        [(b"cache-control", b"no-store")],
        [(b"cache-control", b"private")],
        [(b"cache-control", b"max-age=60"), (b"vary", b"accept")],
        [(b"cache-control", b"max-age=60"), (b"vary", b"*")],
        [],
    ],
)
async def test_replica_read_with_the_replay_field_is_replayed_for_every_waiter_whatever_its_other_headers(headers: Headers) -> None:
    origin = Origin(Response(404, [*headers, REPLAY_FIELD], b"none"), held=True)
    edge = replica(origin)
    requests = [open_request(edge, headers=[(b"accept", b"image/%d" % number)]) for number in range(50)]
    await wait_for_all(requests)
    await origin.release()
    assert [await each.response() for each in requests] == [replayed(READ)] * 50
    assert (len(origin.requests), edge.stored_entries) == (1, 0)


@pytest.mark.parametrize("replayed_header", REPLAYED_HEADERS)
async def test_replica_read_that_was_replayed_before_is_not_replayed_again(replayed_header: tuple[bytes, bytes]) -> None:
    assert await send_request(replica(Origin(WANTS_REPLAY)), headers=[replayed_header]) == primary_out_of_reach(READ)


async def test_replica_read_shared_by_waiters_is_decided_by_each_ones_headers() -> None:
    origin = Origin(WANTS_REPLAY, held=True)
    edge = replica(origin)
    sent, fresh = open_request(edge, headers=[REPLAYED_HEADERS[0]]), open_request(edge)
    await wait_for_all([sent, fresh])
    await origin.release()
    assert [await sent.response(), await fresh.response()] == [primary_out_of_reach(READ), replayed(READ)]
    assert len(origin.requests) == 1


@pytest.mark.parametrize("region", [PRIMARY, SHARED, FlyRegion(), FlyRegion(primary="arn")])
async def test_primary_read_with_the_replay_field_gets_the_origins_response_without_it(region: FlyRegion) -> None:
    response = await send_request(shared_edge(Origin(WANTS_REPLAY), region=region))
    assert (response.status, response.body) == (404, b"none")
    assert response.headers[:2] == WANTS_REPLAY.headers[:2]
    assert not {b"darkroom-replay", b"darkroom-cdn-cache-control", b"fly-replay"} & {name for name, _ in response.headers}


@pytest.mark.parametrize("headers", [[(b"authorization", b"Bearer x")], [(b"cache-control", b"no-store")], [(b"range", b"bytes=0-1")]])
async def test_replica_read_for_one_client_only_is_replayed(headers: Headers) -> None:
    assert await send_request(replica(Origin(WANTS_REPLAY)), headers=headers) in [
        replayed(READ),
        replayed(not_stored(reason="request", word="detail=elsewhere")),
    ]


async def test_replica_head_with_the_replay_field_is_replayed_without_a_body() -> None:
    expected = replayed(READ)
    assert await send_request(replica(Origin(WANTS_REPLAY)), method="HEAD") == ClientResponse(421, expected.headers, b"")
    bypassed = replayed(BYPASS)
    assert await send_request(replica(Origin(WANTS_REPLAY)), "/v1/images/abc", method="HEAD") == ClientResponse(421, bypassed.headers, b"")


async def test_replica_read_that_bypasses_the_cache_is_replayed() -> None:
    edge = replica(Origin(WANTS_REPLAY))
    assert await send_request(edge, "/v1/images/abc") == replayed(BYPASS)
    assert await send_request(edge, "/v1/images/abc", headers=[REPLAYED_HEADERS[1]]) == primary_out_of_reach(BYPASS)
    plain = await send_request(shared_edge(Origin(WANTS_REPLAY), region=PRIMARY), "/v1/images/abc")
    assert (plain.status, plain.body, plain.field(b"darkroom-replay")) == (404, b"none", None)


async def test_replay_field_of_a_response_in_several_messages_is_obeyed() -> None:
    async def in_chunks(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"cache-control", b"private"), (b"Darkroom-Replay", b"primary")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"no", "more_body": True})
        await send({"type": "http.response.body", "body": b"ne"})

    assert await send_request(replica(in_chunks)) == replayed(READ)
    assert await send_request(replica(in_chunks), "/v1/images/abc") == replayed(BYPASS)


async def test_replica_read_of_a_stored_response_while_the_primary_is_unreachable_gets_it_stale() -> None:
    clock = ManualClock()
    origin = Origin(full_response(b"max-age=60, stale-if-error=600"))
    edge = replica(origin, clock)
    await send_request(edge)
    clock.now += 61
    origin.response = WANTS_REPLAY
    assert await send_request(edge) == replayed(not_stored(reason="stale", word="detail=elsewhere"))
    response = await send_request(edge, headers=[REPLAYED_HEADERS[1]])
    assert (response.status, response.body) == (200, b"picture")
    assert response.field(STATUS) == b'darkroom; fwd=stale; fwd-status=503; ttl=-1; detail=stale-if-error; key="/i/picture"'


# Writes


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
async def test_replica_write_is_replayed_without_an_origin_request(method: str) -> None:
    origin = Origin()
    edge = replica(origin)
    chunks = [b"x" * 1_000, b"y" * 500, b""]
    assert await send_request(edge, "/v1/images", method=method, chunks=chunks) == replayed(WRITE)
    assert await send_request(edge, "/v1/images", method=method, headers=[(b"content-length", b"1500")], chunks=chunks) == replayed(WRITE)
    assert origin.requests == []
    assert edge.counters["any", 421].replayed == 2


@pytest.mark.parametrize("replayed_header", REPLAYED_HEADERS)
async def test_replica_write_that_was_replayed_before_is_neither_replayed_nor_made(replayed_header: tuple[bytes, bytes]) -> None:
    origin = Origin()
    assert await send_request(replica(origin), "/v1/images", method="POST", headers=[replayed_header]) == primary_out_of_reach(WRITE)
    assert origin.requests == []


@pytest.mark.parametrize("region", [PRIMARY, SHARED, FlyRegion(), FlyRegion(primary="arn")])
async def test_primary_write_is_made(region: FlyRegion) -> None:
    origin = Origin()
    body = bytes(REPLAY_BYTES + 1)
    response = await send_request(shared_edge(origin, region=region), "/v1/images", method="POST", chunks=[body])
    assert (response.status, response.body) == (200, b"picture")
    assert origin.bodies == [[body]]


async def test_replica_write_declared_too_large_says_what_to_send_and_is_not_read() -> None:
    origin = Origin()
    sent = open_request(
        replica(origin), "/v1/images", method="POST", headers=[(b"content-length", b"%d" % (REPLAY_BYTES + 1))], chunks=[b"x"] * 9
    )
    assert await sent.response() == refused_as_large()
    assert (sent.unread_chunks, origin.requests) == (9, [])


async def test_replica_write_found_too_large_says_what_to_send_at_once() -> None:
    origin = Origin()
    chunks = [bytes(REPLAY_BYTES // 4)] * 8
    sent = open_request(replica(origin), "/v1/images", method="POST", headers=[(b"transfer-encoding", b"chunked")], chunks=chunks)
    assert await sent.response() == refused_as_large()
    assert (sent.unread_chunks, origin.requests) == (3, [])


@pytest.mark.parametrize("declared", [True, False])
async def test_replica_write_of_the_largest_size_is_replayed(declared: bool) -> None:
    headers = [(b"content-length", b"%d" % REPLAY_BYTES)] if declared else []
    assert await send_request(replica(Origin()), "/v1/images", method="POST", headers=headers, chunks=[bytes(REPLAY_BYTES)]) == replayed(
        WRITE
    )


async def test_replica_write_too_large_that_prefers_the_primary_is_503() -> None:
    headers = [(b"content-length", b"%d" % (REPLAY_BYTES + 1)), (b"fly-prefer-region", b"arn")]
    assert await send_request(replica(Origin()), "/v1/images", method="POST", headers=headers) == primary_out_of_reach(WRITE, CLOSE)
    other = [headers[0], (b"fly-prefer-region", b"iad")]
    assert await send_request(replica(Origin()), "/v1/images", method="POST", headers=other) == refused_as_large()


@pytest.mark.parametrize("length", [b"-1", b"many", b"1" * 19, b""])
async def test_replica_write_with_an_invalid_length_is_measured(length: bytes) -> None:
    response = await send_request(replica(Origin()), "/v1/images", method="POST", headers=[(b"content-length", length)], chunks=[b"x"])
    assert response == replayed(WRITE)


async def test_replica_write_whose_client_disconnects_gets_no_response() -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/images", "raw_path": b"/v1/images", "query_string": b"", "headers": []}
    await replica(Origin())(scope, receive, send)
    assert sent == []


async def test_replica_write_that_is_rejected_is_not_read() -> None:
    def check_request(scope: Scope) -> Response | None:
        return None if (b"authorization", b"Bearer x") in scope["headers"] else Response(401, [(b"content-length", b"0")], b"")

    edge = replica(Origin(), check_request=check_request)
    refused = open_request(edge, "/v1/images", method="POST", headers=[(b"transfer-encoding", b"chunked")], chunks=[b"x"] * 9)
    assert (await refused.response()).status == 401
    assert refused.unread_chunks == 9
    authorized = [(b"authorization", b"Bearer x")]
    assert await send_request(edge, "/v1/images", method="POST", headers=authorized, chunks=[b"x"] * 9) == replayed(WRITE)


async def test_replica_write_in_very_many_small_chunks_is_not_read_to_its_end() -> None:
    sent = open_request(replica(Origin()), "/v1/images", method="POST", chunks=[b"x"] * 10_000)
    response = await sent.response()
    assert (response.status, CLOSE in response.headers) == (400, True)
    assert json.loads(response.body)["detail"].startswith("The chunks of the body are too small.")
    assert 8_900 < (sent.unread_chunks or 0) < 9_000


async def test_replica_write_in_chunks_of_one_segment_is_replayed() -> None:
    assert await send_request(replica(Origin()), "/v1/images", method="POST", chunks=[bytes(536)] * 1_500) == replayed(WRITE)


async def test_replica_write_with_an_invalid_body_is_400() -> None:
    sent = open_request(replica(Origin()), "/v1/images", method="POST", headers=[(b"transfer-encoding", b"chunked")], chunks=[b"x", b"x"])
    sent._chunks = []
    sent.disconnect()
    response = await sent.response()
    assert (response.status, CLOSE in response.headers) == (400, True)
    assert json.loads(response.body)["detail"].startswith("The request's body is incomplete or not valid")


class SlowBody:
    """A `receive` whose messages arrive at intervals of the event loop's time, which is set by hand meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, chunk_bytes: int, seconds_between: float, chunks: float = inf) -> None:
        self.now = 1_000.0
        self._chunk_bytes = chunk_bytes
        self._seconds_between = seconds_between
        self._remaining = chunks
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def __call__(self) -> Message:
        self.now += self._seconds_between
        # The loop runs the timers that are due in the first iteration, and cancels this in the second.
        for _ in range(2):
            await asyncio.sleep(0)
        self._remaining -= 1
        return {"type": "http.request", "body": bytes(self._chunk_bytes), "more_body": self._remaining > 0}


async def test_replica_write_slower_than_the_minimum_rate_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half of the required 8,192 bytes a second: after 50 seconds, the body is 25 seconds late.
    body = SlowBody(monkeypatch, chunk_bytes=4_096, seconds_between=1)
    response = await REPLICA.replay_request([], body)
    assert response is not None
    assert (response.status, CLOSE in response.headers) == (408, True)
    assert json.loads(response.body)["title"] == "Upload too slow"
    assert 49 <= body.now - 1_000 <= 51


async def test_replica_write_that_drips_is_408_after_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    body = SlowBody(monkeypatch, chunk_bytes=1, seconds_between=0.5)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await replica(Origin())(http_scope("/v1/images", method="POST"), body, send)
    assert sent[0]["status"] == 408
    assert CLOSE in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["title"] == "Upload too slow"
    assert 25 <= body.now - 1_000 <= 26


async def test_replica_write_at_the_minimum_rate_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    body = SlowBody(monkeypatch, chunk_bytes=8_192, seconds_between=1, chunks=100)
    response = await REPLICA.replay_request([], body)
    assert response is not None
    assert (response.status, REPLAY in response.headers) == (421, True)
    assert body.now - 1_000 == 100

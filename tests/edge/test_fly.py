"""Where the edge stands among Fly's regions: what it says of that, what it hands on to the primary, and what it never does twice."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from edge import Edge, fly
from edge.asgi import ASGIApp, Headers, Message, Response, Scope
from edge.fly import REPLAY_BYTES, FlyRegion
from tests.edge.asgi import RENDITION, Clock, Origin, Reply, all_wait, ask, hit, shared_edge, stored, unkept, visit, whole

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"
TIMING = (b"server-timing", b"region;desc=lhr, machine;desc=148e21ea246389")
MEMORY_TIMING = (b"server-timing", b"tier;desc=memory, region;desc=lhr, machine;desc=148e21ea246389")
REPLAY = (b"fly-replay", b"region=arn;timeout=5s;fallback=prefer_self")
FIELD = (b"darkroom-replay", b"primary")
CLOSE = (b"connection", b"close")

READER = FlyRegion(region="lhr", machine="148e21ea246389", primary="arn")
PRIMARY = FlyRegion(region="arn", machine="148e21ea246389", primary="arn")
SHARED = FlyRegion(region="lhr", machine="148e21ea246389")

NOT_HERE = Response(
    404,
    [(b"content-length", b"4"), (b"cache-control", b"no-store"), (b"darkroom-cdn-cache-control", b"max-age=1"), FIELD],
    b"none",
)
SENT_HERE = [(b"fly-replay-src", b"instance=abc;region=lhr;t=1"), (b"fly-replay-failed", b"error=timeout")]


def reader(app: ASGIApp, clock: Clock | None = None, **options: Any) -> Edge:
    return shared_edge(app, clock, region=READER, **options)


def problem(status: int, title: str, detail: str, cache_status: bytes, *extra: tuple[bytes, bytes], **members: str) -> Reply:
    told = {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}
    body = json.dumps(told, separators=(",", ":")).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *extra,
        (STATUS, cache_status),
        TIMING,
    ]
    return Reply(status, headers, body)


def replayed(cache_status: bytes) -> Reply:
    detail = "This request must be handled in the region arn. Fly's proxy replays the request there."
    return problem(421, "Belongs to another region", detail, cache_status, REPLAY, prefer_region="arn")


def refused_as_large() -> Reply:
    detail = (
        f"This request must be handled in the region arn. The body is larger than {REPLAY_BYTES} bytes, the most that can be replayed. "
        "Send it again with the header fly-prefer-region: arn."
    )
    return problem(421, "Belongs to another region", detail, WRITE, (b"fly-prefer-region", b"arn"), CLOSE, prefer_region="arn")


def out_of_reach(cache_status: bytes, *extra: tuple[bytes, bytes]) -> Reply:
    detail = "This request must be handled in the region arn, which does not respond. Try again in a few seconds."
    return problem(503, "Primary region out of reach", detail, cache_status, (b"retry-after", b"5"), *extra)


READ = unkept(word="detail=elsewhere")
WRITE = b"darkroom; fwd=method; detail=elsewhere"
BYPASS = b"darkroom; fwd=bypass"


# What every answer says of where it was made


async def test_answer_from_the_origin_and_from_memory_name_region_and_machine() -> None:
    edge = reader(Origin())
    assert await ask(edge) == Reply(200, [*RENDITION.headers, (STATUS, stored()), TIMING], b"picture")
    assert await ask(edge) == Reply(200, [*RENDITION.headers, (b"age", b"0"), (STATUS, hit(60)), MEMORY_TIMING], b"picture")
    etag: Headers = [(b"if-none-match", b'"k5x7q2"')]
    reply = await ask(edge, headers=etag)
    assert (reply.status, reply.field(b"server-timing")) == (304, MEMORY_TIMING[1])
    part = await ask(edge, headers=[(b"range", b"bytes=0-2")])
    assert (part.status, part.body, part.field(b"server-timing")) == (206, b"pic", MEMORY_TIMING[1])


async def test_answer_that_says_where_its_time_went_keeps_that_line() -> None:
    timing = (b"server-timing", b"tier;desc=render;dur=4.0")
    edge = reader(Origin(whole(b"max-age=60", timing)))
    reply = await ask(edge)
    assert [value for name, value in reply.headers if name == b"server-timing"] == [timing[1], TIMING[1]]
    assert (await ask(edge)).field(b"server-timing") == MEMORY_TIMING[1]


@pytest.mark.parametrize(("path", "method"), [("/health", "GET"), ("/v1/images", "OPTIONS"), ("/i/picture", "TRACE")])
async def test_answer_that_is_passed_on_names_region_and_machine(path: str, method: str) -> None:
    reply = await ask(reader(Origin()), path, method=method)
    assert reply.headers[-1] == TIMING


async def test_answers_of_the_edge_itself_name_region_and_machine() -> None:
    origin = Origin(held=True)
    edge = reader(origin, max_concurrent_misses=1)
    first = visit(edge)
    await first.waits()
    busy = await ask(edge)
    assert (busy.status, busy.headers[-1]) == (503, TIMING)
    unwanted = await ask(edge, headers=[(b"cache-control", b"only-if-cached")])
    assert (unwanted.status, unwanted.headers[-1]) == (504, TIMING)
    await origin.release()
    await first.reply()


async def test_stale_answer_names_region_and_machine() -> None:
    clock = Clock()
    edge = reader(Origin(whole(b"max-age=60, stale-if-error=600")), clock)
    await ask(edge)
    clock.now += 61
    edge._origin._app = Origin(Response(503, [], b""))
    reply = await ask(edge)
    assert (reply.status, reply.headers[-1]) == (200, TIMING)
    within = reader(Origin(whole(b"max-age=60, stale-while-revalidate=600")), clock)
    await ask(within)
    clock.now += 61
    assert (await ask(within)).headers[-1] == MEMORY_TIMING


async def test_edge_without_a_place_says_nothing_of_it() -> None:
    reply = await ask(shared_edge(Origin()))
    assert reply.field(b"server-timing") is None


async def test_place_that_knows_its_region_alone_names_that() -> None:
    assert list(FlyRegion(region="arn").server_timing) == [(b"server-timing", b"region;desc=arn")]
    assert FlyRegion(region="arn").memory_server_timing == (b"server-timing", b"tier;desc=memory, region;desc=arn")


@pytest.mark.parametrize("bad", ["a\r\nx: y", "a b", "a;b", 'a"', "ä", "a" * 65, "a,b", "a=b"])
@pytest.mark.parametrize("which", ["region", "machine", "primary"])
async def test_place_with_a_name_that_is_none_is_refused(which: str, bad: str) -> None:
    with pytest.raises(ValueError, match="Expected the name of a region or a Machine, 1 to 64"):
        FlyRegion(**{which: bad})


# Reads of what is not here


async def test_read_that_is_elsewhere_is_replayed_and_never_kept() -> None:
    origin = Origin(NOT_HERE)
    edge = reader(origin)
    for _ in range(2):
        assert await ask(edge) == replayed(READ)
    assert len(origin.requests) == 2
    assert (edge.stored_entries, edge.counters["any"].replayed) == (0, 2)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"cache-control", b"public, max-age=60")],
        [(b"cache-control", b"no-store")],
        [(b"cache-control", b"private")],
        [(b"cache-control", b"max-age=60"), (b"vary", b"accept")],
        [(b"cache-control", b"max-age=60"), (b"vary", b"*")],
        [],
    ],
)
async def test_read_that_is_elsewhere_is_replayed_for_every_waiter_and_never_kept_whatever_the_origin_says(fields: Headers) -> None:
    origin = Origin(Response(404, [*fields, FIELD], b"none"), held=True)
    edge = reader(origin)
    visits = [visit(edge, headers=[(b"accept", b"image/%d" % number)]) for number in range(50)]
    await all_wait(visits)
    await origin.release()
    assert [await each.reply() for each in visits] == [replayed(READ)] * 50
    assert (len(origin.requests), edge.stored_entries) == (1, 0)


@pytest.mark.parametrize("sent_here", SENT_HERE)
async def test_read_that_was_replayed_before_is_not_sent_on_again(sent_here: tuple[bytes, bytes]) -> None:
    assert await ask(reader(Origin(NOT_HERE)), headers=[sent_here]) == out_of_reach(READ)


async def test_waiters_of_one_read_are_each_judged_by_what_they_are() -> None:
    origin = Origin(NOT_HERE, held=True)
    edge = reader(origin)
    sent, fresh = visit(edge, headers=[SENT_HERE[0]]), visit(edge)
    await all_wait([sent, fresh])
    await origin.release()
    assert [await sent.reply(), await fresh.reply()] == [out_of_reach(READ), replayed(READ)]
    assert len(origin.requests) == 1


@pytest.mark.parametrize("region", [PRIMARY, SHARED, FlyRegion(), FlyRegion(primary="arn")])
async def test_read_where_there_is_no_other_region_gets_the_origins_own_answer_without_the_field(region: FlyRegion) -> None:
    reply = await ask(shared_edge(Origin(NOT_HERE), region=region))
    assert (reply.status, reply.body) == (404, b"none")
    assert reply.headers[:2] == NOT_HERE.headers[:2]
    assert not {b"darkroom-replay", b"darkroom-cdn-cache-control", b"fly-replay"} & {name for name, _ in reply.headers}


@pytest.mark.parametrize("headers", [[(b"authorization", b"Bearer x")], [(b"cache-control", b"no-store")], [(b"range", b"bytes=0-1")]])
async def test_read_that_is_for_one_client_alone_is_replayed_too(headers: Headers) -> None:
    assert await ask(reader(Origin(NOT_HERE)), headers=headers) in [
        replayed(READ),
        replayed(unkept(reason="request", word="detail=elsewhere")),
    ]


async def test_head_that_is_elsewhere_is_replayed_without_a_body() -> None:
    expected = replayed(READ)
    assert await ask(reader(Origin(NOT_HERE)), method="HEAD") == Reply(421, expected.headers, b"")
    passed = replayed(BYPASS)
    assert await ask(reader(Origin(NOT_HERE)), "/v1/images/abc", method="HEAD") == Reply(421, passed.headers, b"")


async def test_read_that_is_passed_on_and_is_elsewhere_is_replayed() -> None:
    edge = reader(Origin(NOT_HERE))
    assert await ask(edge, "/v1/images/abc") == replayed(BYPASS)
    assert await ask(edge, "/v1/images/abc", headers=[SENT_HERE[1]]) == out_of_reach(BYPASS)
    plain = await ask(shared_edge(Origin(NOT_HERE), region=PRIMARY), "/v1/images/abc")
    assert (plain.status, plain.body, plain.field(b"darkroom-replay")) == (404, b"none", None)


async def test_field_of_an_answer_in_pieces_is_obeyed_too() -> None:
    async def in_pieces(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"cache-control", b"private"), (b"Darkroom-Replay", b"primary")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"no", "more_body": True})
        await send({"type": "http.response.body", "body": b"ne"})

    assert await ask(reader(in_pieces)) == replayed(READ)
    assert await ask(reader(in_pieces), "/v1/images/abc") == replayed(BYPASS)


async def test_what_is_kept_and_turns_out_to_be_elsewhere_stands_in_while_that_is_out_of_reach() -> None:
    clock = Clock()
    origin = Origin(whole(b"max-age=60, stale-if-error=600"))
    edge = reader(origin, clock)
    await ask(edge)
    clock.now += 61
    origin.answer = NOT_HERE
    assert await ask(edge) == replayed(unkept(reason="stale", word="detail=elsewhere"))
    reply = await ask(edge, headers=[SENT_HERE[1]])
    assert (reply.status, reply.body) == (200, b"picture")
    assert reply.field(STATUS) == b'darkroom; fwd=stale; fwd-status=503; ttl=-1; detail=stale-if-error; key="/i/picture"'


# Requests that change something


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
async def test_change_in_a_reader_is_replayed_and_its_origin_not_asked(method: str) -> None:
    origin = Origin()
    edge = reader(origin)
    chunks = [b"x" * 1_000, b"y" * 500, b""]
    assert await ask(edge, "/v1/images", method=method, chunks=chunks) == replayed(WRITE)
    assert await ask(edge, "/v1/images", method=method, headers=[(b"content-length", b"1500")], chunks=chunks) == replayed(WRITE)
    assert origin.requests == []
    assert edge.counters["any"].replayed == 2


@pytest.mark.parametrize("sent_here", SENT_HERE)
async def test_change_that_was_replayed_before_is_neither_sent_on_nor_made_here(sent_here: tuple[bytes, bytes]) -> None:
    origin = Origin()
    assert await ask(reader(origin), "/v1/images", method="POST", headers=[sent_here]) == out_of_reach(WRITE)
    assert origin.requests == []


@pytest.mark.parametrize("region", [PRIMARY, SHARED, FlyRegion(), FlyRegion(primary="arn")])
async def test_change_where_there_is_no_other_region_is_made_here(region: FlyRegion) -> None:
    origin = Origin()
    body = bytes(REPLAY_BYTES + 1)
    reply = await ask(shared_edge(origin, region=region), "/v1/images", method="POST", chunks=[body])
    assert (reply.status, reply.body) == (200, b"picture")
    assert origin.bodies == [[body]]


async def test_change_declared_larger_than_can_be_replayed_says_what_to_send_and_is_not_read() -> None:
    origin = Origin()
    sent = visit(reader(origin), "/v1/images", method="POST", headers=[(b"content-length", b"%d" % (REPLAY_BYTES + 1))], chunks=[b"x"] * 9)
    assert await sent.reply() == refused_as_large()
    assert (len(sent._chunks), origin.requests) == (9, [])


async def test_change_found_out_to_be_larger_than_can_be_replayed_says_what_to_send_as_soon_as_it_is() -> None:
    origin = Origin()
    chunks = [bytes(REPLAY_BYTES // 4)] * 8
    sent = visit(reader(origin), "/v1/images", method="POST", headers=[(b"transfer-encoding", b"chunked")], chunks=chunks)
    assert await sent.reply() == refused_as_large()
    assert (len(sent._chunks), origin.requests) == (3, [])


@pytest.mark.parametrize("declared", [True, False])
async def test_change_of_the_largest_size_that_can_be_replayed_is(declared: bool) -> None:
    headers = [(b"content-length", b"%d" % REPLAY_BYTES)] if declared else []
    assert await ask(reader(Origin()), "/v1/images", method="POST", headers=headers, chunks=[bytes(REPLAY_BYTES)]) == replayed(WRITE)


async def test_large_change_that_prefers_the_primary_and_comes_here_is_told_that_it_is_out_of_reach() -> None:
    headers = [(b"content-length", b"%d" % (REPLAY_BYTES + 1)), (b"fly-prefer-region", b"arn")]
    assert await ask(reader(Origin()), "/v1/images", method="POST", headers=headers) == out_of_reach(WRITE, CLOSE)
    elsewhere = [headers[0], (b"fly-prefer-region", b"iad")]
    assert await ask(reader(Origin()), "/v1/images", method="POST", headers=elsewhere) == refused_as_large()


@pytest.mark.parametrize("length", [b"-1", b"many", b"1" * 19, b""])
async def test_change_with_a_length_that_is_none_is_counted(length: bytes) -> None:
    reply = await ask(reader(Origin()), "/v1/images", method="POST", headers=[(b"content-length", length)], chunks=[b"x"])
    assert reply == replayed(WRITE)


async def test_client_that_leaves_in_the_middle_of_its_change_is_answered_nothing() -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/images", "raw_path": b"/v1/images", "query_string": b"", "headers": []}
    await reader(Origin())(scope, receive, send)
    assert sent == []


async def test_change_in_a_reader_that_may_not_be_made_is_refused_before_its_body_is_read() -> None:
    def check(scope: Scope) -> Response | None:
        return None if (b"authorization", b"Bearer x") in scope["headers"] else Response(401, [(b"content-length", b"0")], b"")

    edge = reader(Origin(), check_request=check)
    refused = visit(edge, "/v1/images", method="POST", headers=[(b"transfer-encoding", b"chunked")], chunks=[b"x"] * 9)
    assert (await refused.reply()).status == 401
    assert len(refused._chunks) == 9
    known = [(b"authorization", b"Bearer x")]
    assert await ask(edge, "/v1/images", method="POST", headers=known, chunks=[b"x"] * 9) == replayed(WRITE)


async def test_change_in_very_many_small_chunks_is_read_no_further() -> None:
    sent = visit(reader(Origin()), "/v1/images", method="POST", chunks=[b"x"] * 10_000)
    reply = await sent.reply()
    assert (reply.status, CLOSE in reply.headers) == (400, True)
    assert json.loads(reply.body)["detail"].startswith("The chunks of the body are too small.")
    assert 8_900 < len(sent._chunks) < 9_000


async def test_change_in_as_many_chunks_as_segments_is_replayed() -> None:
    assert await ask(reader(Origin()), "/v1/images", method="POST", chunks=[bytes(536)] * 1_500) == replayed(WRITE)


async def test_change_whose_body_is_not_valid_is_400() -> None:
    sent = visit(reader(Origin()), "/v1/images", method="POST", headers=[(b"transfer-encoding", b"chunked")], chunks=[b"x", b"x"])
    sent._chunks = []
    sent.leave()
    reply = await sent.reply()
    assert (reply.status, CLOSE in reply.headers) == (400, True)
    assert json.loads(reply.body)["detail"].startswith("The request's body is incomplete or not valid")


async def test_change_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fly, "_BODY_GRACE_SECONDS", 0.05)

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/images", "raw_path": b"/v1/images", "query_string": b"", "headers": []}
    await asyncio.wait_for(reader(Origin())(scope, receive, send), 5)
    assert sent[0]["status"] == 408
    assert CLOSE in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["title"] == "Upload too slow"


async def test_change_that_comes_fast_enough_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fly, "_BODY_GRACE_SECONDS", 0.05)
    # Each chunk is worth a tenth of a second, of which it takes a fifth.
    left = 10

    async def receive() -> Message:
        nonlocal left
        await asyncio.sleep(0.02)
        left -= 1
        return {"type": "http.request", "body": bytes(820), "more_body": left > 0}

    answer = await READER.replay_request([], receive)
    assert answer is not None
    assert (answer.status, REPLAY in answer.headers) == (421, True)

"""Answers that depend on more than the address: which one a request gets, who shares it, what a purge drops (RFC 9111 §4.1)."""

from __future__ import annotations

import asyncio

import pytest

from edge.asgi import Headers, Response, Scope, get_header_values
from edge.store import MEMORY_TIER
from tests.edge.asgi import Clock, Origin, Reply, all_wait, ask, settled, shared_edge, unkept, visit, whole

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left_behind")]

STATUS = b"cache-status"
ACCEPT, LANGUAGE = b"accept", b"accept-language"
AVIF, WEBP = [(ACCEPT, b"image/avif")], [(ACCEPT, b"image/webp")]


class Varying:
    """What an origin answers whose body is the request's values of some fields; it says so in `Vary`."""

    def __init__(self, *names: bytes, vary: bytes | None = None, directives: bytes = b"max-age=60", tag: bytes = b"") -> None:
        self.names = names
        self.vary = b", ".join(names) if vary is None else vary
        self.directives = directives
        self.tag = tag

    def __call__(self, scope: Scope) -> Response:
        body = b"; ".join(b", ".join(get_header_values(scope["headers"], name)) for name in self.names)
        more = [(b"cache-tag", self.tag)] if self.tag else []
        return whole(self.directives, (b"vary", self.vary), *more, body=body)


def words(reply: Reply) -> bytes:
    """Return what `Cache-Status` says, without the key."""
    value = reply.field(STATUS)
    assert value is not None
    return value.partition(b"; key=")[0].removeprefix(b"darkroom; ")


STORED, HIT = b"stored; ttl=60", b"hit; ttl=60"
FIRST, LATER, SHARED = b"fwd=uri-miss; " + STORED, b"fwd=vary-miss; " + STORED, b"fwd=uri-miss; collapsed; ttl=60"


async def test_varying_answers_are_kept_one_for_each_value() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    for expected in ((FIRST, LATER, LATER), (HIT, HIT, HIT)):
        replies = [await ask(edge, headers=headers) for headers in (AVIF, WEBP, [])]
        assert [reply.body for reply in replies] == [b"image/avif", b"image/webp", b""]
        assert tuple(words(reply) for reply in replies) == expected
    assert len(origin.requests) == 3


async def test_varying_answer_has_exact_headers_on_miss_and_hit(clock: Clock) -> None:
    answer = Varying(ACCEPT)
    edge = shared_edge(Origin(answer), clock)
    headers = whole(b"max-age=60", (b"vary", b"accept"), body=b"image/avif").headers
    # The first one leads before anyone knows that answers vary.
    assert await ask(edge, headers=AVIF) == Reply(200, [*headers, (STATUS, b"darkroom; " + FIRST + b'; key="/i/picture"')], b"image/avif")
    key = b'key="/i/picture%001%00image/avif"'
    clock.now += 5
    told = [(b"age", b"5"), (STATUS, b"darkroom; hit; ttl=55; " + key), MEMORY_TIER]
    assert await ask(edge, headers=AVIF) == Reply(200, [*headers, *told], b"image/avif")
    other = whole(b"max-age=60", (b"vary", b"accept"), body=b"image/webp").headers
    key = b'key="/i/picture%001%00image/webp"'
    assert await ask(edge, headers=WEBP) == Reply(200, [*other, (STATUS, b"darkroom; " + LATER + b"; " + key)], b"image/webp")


async def test_varying_answer_is_304_206_or_bodiless_as_asked() -> None:
    edge = shared_edge(Origin(whole(b"max-age=60", (b"vary", b"accept"), (b"etag", b'"one"'))))
    await ask(edge, headers=AVIF)
    reply = await ask(edge, headers=[*AVIF, (b"if-none-match", b'"one"')])
    assert (reply.status, reply.field(b"vary"), words(reply)) == (304, b"accept", HIT)
    reply = await ask(edge, headers=[*AVIF, (b"range", b"bytes=0-1")])
    assert (reply.status, reply.body, words(reply)) == (206, b"pi", HIT)
    reply = await ask(edge, headers=AVIF, method="HEAD")
    assert (reply.status, reply.body, words(reply)) == (200, b"", HIT)


@pytest.mark.parametrize(
    "vary", [b"accept, accept-language", b"Accept-Language,ACCEPT", b" accept-language ,, accept ,", b"accept, accept-language, Accept"]
)
async def test_vary_is_the_same_in_any_order_case_and_spacing(vary: bytes) -> None:
    origin = Origin(Varying(ACCEPT, LANGUAGE))
    edge = shared_edge(origin)
    asked = [*AVIF, (LANGUAGE, b"en")]
    await ask(edge, headers=asked)
    origin.answer = Varying(ACCEPT, LANGUAGE, vary=vary)
    assert words(await ask(edge, headers=[*AVIF, (LANGUAGE, b"de")])) == LATER
    # What came first is still found: the second `Vary` names the same fields.
    assert words(await ask(edge, headers=asked)) == HIT
    assert words(await ask(edge, headers=list(reversed(asked)))) == HIT


async def test_vary_on_two_lines_is_one_list() -> None:
    origin = Origin(whole(b"max-age=60", (b"vary", b"accept"), (b"vary", b"accept-language")))
    edge = shared_edge(origin)
    await ask(edge, headers=[*AVIF, (LANGUAGE, b"en")])
    assert words(await ask(edge, headers=[*AVIF, (LANGUAGE, b"de")])) == LATER
    assert words(await ask(edge, headers=[*AVIF, (LANGUAGE, b"en")])) == HIT


@pytest.mark.parametrize("vary", [b"", b" , ,"])
async def test_vary_that_names_nothing_is_none(vary: bytes) -> None:
    edge = shared_edge(Origin(whole(b"max-age=60", (b"vary", vary))))
    await ask(edge, headers=AVIF)
    assert words(await ask(edge, headers=WEBP)) == HIT


@pytest.mark.parametrize("vary", [[b"*"], [b"accept, *"], [b"accept", b"*"], [b" * "]])
async def test_answer_that_varies_by_everything_is_neither_kept_nor_shared(vary: list[bytes]) -> None:
    answer = whole(b"max-age=60", *((b"vary", value) for value in vary))
    origin = Origin(answer, held=True)
    edge = shared_edge(origin)
    visits = [visit(edge) for _ in range(3)]
    await all_wait(visits)
    await origin.release()
    assert [await each.reply() for each in visits] == [Reply(200, [*answer.headers, (STATUS, unkept())], b"picture")] * 3
    assert len(origin.requests) == 3
    assert edge.stored_entries == 0


async def test_absent_field_and_empty_field_are_two() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    await ask(edge)
    assert words(await ask(edge, headers=[(ACCEPT, b"")])) == LATER
    assert words(await ask(edge)) == HIT
    assert words(await ask(edge, headers=[(ACCEPT, b"")])) == HIT
    assert len(origin.requests) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([(ACCEPT, b"a, b")], [(ACCEPT, b"a,b")]),
        ([(ACCEPT, b"a, b")], [(ACCEPT, b"a"), (ACCEPT, b"b")]),
        ([(ACCEPT, b"a , b")], [(ACCEPT, b" a"), (b"host", b"other"), (ACCEPT, b"b\t")]),
    ],
)
async def test_field_that_is_spelled_on_other_lines_or_with_other_spaces_is_the_same(first: Headers, second: Headers) -> None:
    edge = shared_edge(Origin(Varying(ACCEPT)))
    await ask(edge, headers=first)
    assert words(await ask(edge, headers=second)) == HIT


@pytest.mark.parametrize(("first", "second"), [(b"a, b", b"b, a"), (b"a", b"A"), (b"a", b"a, a"), (b"a b", b"ab")])
async def test_field_that_says_something_else_is_another(first: bytes, second: bytes) -> None:
    edge = shared_edge(Origin(Varying(ACCEPT)))
    await ask(edge, headers=[(ACCEPT, first)])
    assert words(await ask(edge, headers=[(ACCEPT, second)])) == LATER


async def test_value_of_one_field_never_passes_for_that_of_another() -> None:
    edge = shared_edge(Origin(Varying(ACCEPT, LANGUAGE)))
    await ask(edge, headers=[(ACCEPT, b"a"), (LANGUAGE, b"b")])
    for other in (
        [(ACCEPT, b"b"), (LANGUAGE, b"a")],
        [(ACCEPT, b"a,b")],
        [(LANGUAGE, b"a,b")],
        [(ACCEPT, b"a"), (LANGUAGE, b"b"), (ACCEPT, b"")],
    ):
        assert words(await ask(edge, headers=other)) == LATER


async def test_normaliser_makes_many_values_one() -> None:
    origin = Origin(whole(b"max-age=60", (b"vary", b"accept, accept-language")))
    edge = shared_edge(origin, vary_normalizers={ACCEPT: lambda value: b"avif" if b"image/avif" in value else b"any"})
    await ask(edge, headers=[(ACCEPT, b"image/avif,image/webp")])
    assert words(await ask(edge, headers=[(ACCEPT, b"*/*"), (ACCEPT, b"image/avif;q=0.5")])) == HIT
    assert words(await ask(edge, headers=WEBP)) == LATER
    # The normaliser has the empty value of a field that is absent.
    assert words(await ask(edge)) == HIT
    # The other field has none, and is compared as it stands.
    assert words(await ask(edge, headers=[*AVIF, (LANGUAGE, b"en")])) == LATER
    # The origin sees what the client sent.
    assert [get_header_values(scope["headers"], ACCEPT) for scope in origin.requests][:2] == [[b"image/avif,image/webp"], [b"image/webp"]]


# Who waits with whom


async def test_waiters_that_asked_differently_lead_one_request_for_each_value() -> None:
    origin = Origin(Varying(ACCEPT), held=True)
    edge = shared_edge(origin)
    visits = [visit(edge, headers=headers) for headers in (AVIF, WEBP, [], AVIF, WEBP, [], WEBP)]
    await all_wait(visits)
    assert len(origin.requests) == 1
    await origin.release(first=1)
    await origin.asked(3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert origin.at_once == 2
    await origin.release()
    replies = [await each.reply() for each in visits]
    bodies = [b"image/avif", b"image/webp", b""]
    assert [reply.body for reply in replies] == [*bodies, *bodies, b"image/webp"]
    later = b"fwd=vary-miss; collapsed; ttl=60"
    assert [words(reply) for reply in replies] == [FIRST, LATER, LATER, SHARED, later, later, later]
    assert len(origin.requests) == 3
    assert edge._concurrent_misses == 0


async def test_waiters_that_asked_differently_never_share_what_is_not_kept() -> None:
    momentary = Varying(ACCEPT, directives=b"max-age=1")
    origin = Origin(momentary, held=True)
    edge = shared_edge(origin)
    visits = [visit(edge, headers=headers) for headers in (AVIF, AVIF, WEBP, WEBP)]
    await all_wait(visits)
    await origin.release()
    assert [(await each.reply()).body for each in visits] == [b"image/avif", b"image/avif", b"image/webp", b"image/webp"]
    assert edge.stored_entries == 0


async def test_requests_for_two_known_variants_at_once_are_two_flights() -> None:
    origin = Origin(Varying(ACCEPT), held=True)
    await origin.release(first=1)
    edge = shared_edge(origin)
    await ask(edge, headers=AVIF)
    visits = [visit(edge, headers=headers) for headers in (WEBP, [], WEBP, [])]
    await all_wait(visits)
    await origin.asked(3)
    await origin.release()
    assert [(await each.reply()).body for each in visits] == [b"image/webp", b"", b"image/webp", b""]
    assert len(origin.requests) == 3


# What goes, and what becomes of the rest


async def test_purge_of_an_address_drops_every_variant() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    for headers in (AVIF, WEBP):
        await ask(edge, headers=headers)
    edge.purge(b"/i/picture")
    assert [words(await ask(edge, headers=headers)) for headers in (AVIF, WEBP)] == [FIRST, LATER]
    assert [words(await ask(edge, headers=headers)) for headers in (AVIF, WEBP)] == [HIT, HIT]
    assert len(origin.requests) == 4


async def test_purge_of_an_address_keeps_no_variant_that_is_on_its_way() -> None:
    origin = Origin(Varying(ACCEPT), held=True)
    await origin.release(first=1)
    edge = shared_edge(origin)
    await ask(edge, headers=AVIF)
    coming = visit(edge, headers=WEBP)
    await coming.waits()
    await origin.asked(2)
    edge.purge(b"/i/picture")
    await origin.release()
    assert words(await coming.reply()) == b"fwd=vary-miss"
    assert words(await ask(edge, headers=WEBP)) == FIRST


async def test_purge_of_a_tag_drops_the_variants_that_carry_it_alone() -> None:
    origin = Origin(Varying(ACCEPT, tag=b"old"))
    edge = shared_edge(origin)
    await ask(edge, headers=AVIF)
    origin.answer = Varying(ACCEPT, tag=b"new")
    await ask(edge, headers=WEBP)
    assert edge.purge_tags(["old"]) == 1
    assert words(await ask(edge, headers=WEBP)) == HIT
    assert words(await ask(edge, headers=AVIF)) == LATER


async def test_answer_that_stops_varying_is_for_all() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    await ask(edge, headers=AVIF)
    origin.answer = whole(b"max-age=60")
    assert words(await ask(edge, headers=WEBP)) == LATER
    assert [(await ask(edge, headers=headers)).body for headers in (AVIF, WEBP, [])] == [b"picture"] * 3
    assert len(origin.requests) == 2


async def test_answer_that_starts_to_vary_is_no_longer_for_all(clock: Clock) -> None:
    origin = Origin(whole(b"max-age=60"))
    edge = shared_edge(origin, clock)
    await ask(edge, headers=AVIF)
    clock.now += 60
    origin.answer = Varying(ACCEPT)
    assert words(await ask(edge, headers=AVIF)) == b"fwd=stale; " + STORED
    assert words(await ask(edge, headers=WEBP)) == LATER
    assert words(await ask(edge, headers=AVIF)) == HIT


async def test_answer_that_varies_by_other_fields_makes_the_ones_before_forgotten() -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin)
    await ask(edge, headers=AVIF)
    origin.answer = Varying(ACCEPT, LANGUAGE)
    await ask(edge, headers=WEBP)
    # It may differ by language, too, and nobody knows in which language it is.
    assert words(await ask(edge, headers=AVIF)) == LATER
    assert words(await ask(edge, headers=[*AVIF, (LANGUAGE, b"de")])) == LATER
    assert words(await ask(edge, headers=AVIF)) == HIT


async def test_stale_variant_is_renewed_by_itself(clock: Clock) -> None:
    origin = Origin(Varying(ACCEPT, directives=b"max-age=60, stale-while-revalidate=30"))
    edge = shared_edge(origin, clock)
    for headers in (AVIF, WEBP):
        await ask(edge, headers=headers)
    clock.now += 65
    assert words(await ask(edge, headers=WEBP)) == b"hit; ttl=-5"
    await settled(edge)
    assert words(await ask(edge, headers=WEBP)) == HIT
    assert words(await ask(edge, headers=AVIF)) == b"hit; ttl=-5"
    await settled(edge)
    assert [get_header_values(scope["headers"], ACCEPT) for scope in origin.requests] == [
        [b"image/avif"], [b"image/webp"], [b"image/webp"], [b"image/avif"],
    ]  # fmt: skip


async def test_error_that_does_not_vary_leaves_the_variants_alone(clock: Clock) -> None:
    origin = Origin(Varying(ACCEPT))
    edge = shared_edge(origin, clock)
    for headers in (AVIF, WEBP):
        await ask(edge, headers=headers)
    origin.answer = whole(b"no-store", status=503)
    assert words(await ask(edge)) == b"fwd=vary-miss"
    assert [words(await ask(edge, headers=headers)) for headers in (AVIF, WEBP)] == [HIT, HIT]

"""What the edge keeps, and what it costs."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge import Edge
from edge.answer import Answer, Headers, Message, Receive, Scope, Send
from edge.memory import ENTRY_OVERHEAD_BYTES, LARGEST_SHARE, Kept, Memory
from tests.edge.asgi import Clock, ask

HEADERS: Headers = [(b"content-type", b"image/webp"), (b"etag", b'"k5x7q2"')]


def kept(
    body: bytes = b"picture", *, headers: Headers = HEADERS, status: int = 200, now: float = 0.0, age: int = 0, lifetime: int = 60
) -> Kept:
    return Kept(Answer(status, headers, body), cache_name=b"darkroom", now=now, age=age, lifetime=lifetime)


def told(message: Message) -> tuple[bytes, bytes]:
    """Return the two fields that change with time: `Age` and `Cache-Status`."""
    (age_name, age), (status_name, status) = message["headers"][-2:]
    assert (age_name, status_name) == (b"age", b"cache-status")
    return age, status


# One entry and its time


def test_kept_messages_are_the_answer_with_age_and_cache_status() -> None:
    entry = kept(now=5.0)
    assert entry.start_message == {
        "type": "http.response.start",
        "status": 200,
        "headers": [*HEADERS, (b"age", b"0"), (b"cache-status", b"darkroom; hit; ttl=60")],
    }
    assert entry.body_message == {"type": "http.response.body", "body": b"picture"}
    assert entry.not_modified_message == {
        "type": "http.response.start",
        "status": 304,
        "headers": [(b"etag", b'"k5x7q2"'), (b"age", b"0"), (b"cache-status", b"darkroom; hit; ttl=60")],
    }


def test_kept_within_a_second_gives_the_same_messages() -> None:
    entry = kept(now=5.0)
    start, not_modified, body = entry.start_message, entry.not_modified_message, entry.body_message
    for now in (5.0, 5.5, 5.999):
        entry.at(now)
        assert entry.start_message is start
        assert entry.not_modified_message is not_modified
    entry.at(6.0)
    later = entry.start_message
    assert later is not start
    assert entry.not_modified_message is not not_modified
    assert entry.body_message is body
    entry.at(6.999)
    assert entry.start_message is later


def test_kept_renewed_leaves_the_messages_already_sent_as_they_were() -> None:
    entry = kept()
    start = entry.start_message
    entry.at(10.0)
    assert told(start) == (b"0", b"darkroom; hit; ttl=60")
    assert told(entry.start_message) == (b"10", b"darkroom; hit; ttl=50")
    assert told(entry.not_modified_message) == (b"10", b"darkroom; hit; ttl=50")


def test_kept_age_counts_up_and_ttl_down_to_the_last_second() -> None:
    entry = kept(now=5.25, lifetime=3)
    said = [told(entry.at(now).start_message) for now in (5.25, 6.0, 6.25, 7.25, 8.2)]
    assert said == [
        (b"0", b"darkroom; hit; ttl=3"),
        (b"0", b"darkroom; hit; ttl=3"),
        (b"1", b"darkroom; hit; ttl=2"),
        (b"2", b"darkroom; hit; ttl=1"),
        (b"2", b"darkroom; hit; ttl=1"),
    ]
    assert entry.expires == 8.25


def test_kept_age_starts_from_the_age_on_arrival() -> None:
    entry = kept(now=5.0, age=40, lifetime=20)
    assert told(entry.start_message) == (b"40", b"darkroom; hit; ttl=20")
    assert told(entry.at(15.0).start_message) == (b"50", b"darkroom; hit; ttl=10")


@settings(deadline=None)
@given(st.floats(0, 2**31), st.integers(0, 2**31), st.integers(2, 2**31), st.floats(0, 2**20))
def test_kept_age_and_ttl_add_up_to_what_was_said(now: float, age: int, lifetime: int, passed: float) -> None:
    entry = kept(now=now, age=age, lifetime=lifetime)
    assert told(entry.start_message) == (b"%d" % age, b"darkroom; hit; ttl=%d" % lifetime)
    then = now + passed
    if then < entry.expires:
        said_age, said = told(entry.at(then).start_message)
        ttl = int(said.removeprefix(b"darkroom; hit; ttl="))
        assert int(said_age) + ttl == age + lifetime
        assert age <= int(said_age) <= age + passed + 1
        assert ttl >= 0


@pytest.mark.parametrize(("status", "etag"), [(200, b'"k5x7q2"'), (302, None), (404, None), (410, None)])
def test_kept_entity_tag_is_compared_for_a_200_alone(status: int, etag: bytes | None) -> None:
    assert kept(status=status).etag == etag


def test_kept_without_entity_tag_has_none() -> None:
    assert kept(headers=[(b"content-type", b"image/webp")]).etag is None


# The budget


def test_memory_counts_body_headers_key_and_overhead() -> None:
    memory = Memory(1_000_000)
    memory.keep(b"/i/picture", kept(b"x" * 1_000))
    headers = len(b"content-type") + len(b"image/webp") + len(b"etag") + len(b'"k5x7q2"')
    assert memory.used_bytes == 1_000 + headers + len(b"/i/picture") + ENTRY_OVERHEAD_BYTES
    assert len(memory) == 1


def test_memory_without_the_key_has_nothing() -> None:
    memory = Memory(1_000_000)
    memory.keep(b"/a", kept())
    assert memory.get(b"/b") is None


def entry_of(size_bytes: int, key: bytes) -> Kept:
    """Return an entry that counts for exactly `size_bytes` under `key`."""
    return kept(b"x" * (size_bytes - ENTRY_OVERHEAD_BYTES - len(key)), headers=[])


def test_memory_full_lets_the_least_recently_used_go() -> None:
    memory = Memory(80_000)
    for key in (b"/a", b"/b", b"/c", b"/d", b"/e", b"/f", b"/g", b"/h"):
        assert memory.keep(key, entry_of(10_000, key))
    assert memory.used_bytes == 80_000
    assert memory.get(b"/a")
    memory.keep(b"/i", entry_of(10_000, b"/i"))
    assert memory.get(b"/b") is None
    assert memory.get(b"/a")
    memory.keep(b"/c", entry_of(9_000, b"/c"))
    memory.keep(b"/j", entry_of(10_000, b"/j"))
    assert memory.get(b"/d") is None
    assert memory.get(b"/c")
    assert memory.used_bytes == 79_000


def test_memory_entry_of_the_largest_share_is_kept_and_one_byte_more_is_not() -> None:
    memory = Memory(80_000)
    assert LARGEST_SHARE == 1 / 8
    assert memory.keep(b"/a", entry_of(10_000, b"/a"))
    assert not memory.keep(b"/b", entry_of(10_001, b"/b"))
    assert memory.get(b"/b") is None
    assert memory.get(b"/a")
    assert memory.used_bytes == 10_000


def test_memory_entry_that_is_too_large_removes_the_one_it_would_replace() -> None:
    memory = Memory(80_000)
    memory.keep(b"/a", entry_of(5_000, b"/a"))
    assert not memory.keep(b"/a", entry_of(10_001, b"/a"))
    assert memory.get(b"/a") is None
    assert memory.used_bytes == 0


def test_memory_of_no_bytes_keeps_nothing() -> None:
    memory = Memory(0)
    assert not memory.keep(b"/a", kept())
    assert memory.used_bytes == len(memory) == 0


KEYS = [b"/%d" % number for number in range(30)]


class MemoryMachine(RuleBasedStateMachine):
    """Any sequence of keeping and getting, beside a plain ordered dict that does the same by definition."""

    MAX_BYTES = 40_000 + 8 * ENTRY_OVERHEAD_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(self.MAX_BYTES)
        self.model: OrderedDict[bytes, tuple[Kept, int]] = OrderedDict()

    @rule(key=st.sampled_from(KEYS), body_bytes=st.integers(0, 6_000))
    def keep(self, key: bytes, body_bytes: int) -> None:
        entry = kept(bytes(body_bytes), headers=[])
        size_bytes = body_bytes + len(key) + ENTRY_OVERHEAD_BYTES
        small_enough = size_bytes <= self.MAX_BYTES // 8
        assert self.memory.keep(key, entry) is small_enough
        self.model.pop(key, None)
        if small_enough:
            self.model[key] = (entry, size_bytes)
            while sum(size for _, size in self.model.values()) > self.MAX_BYTES:
                self.model.popitem(last=False)

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: bytes) -> None:
        found = self.model.get(key)
        assert self.memory.get(key) is (found[0] if found else None)
        if found:
            self.model.move_to_end(key)

    @invariant()
    def never_exceeds_its_bytes(self) -> None:
        assert self.memory.used_bytes <= self.MAX_BYTES
        assert self.memory.used_bytes == sum(size for _, size in self.model.values())
        assert len(self.memory) == len(self.model)


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def rendition_headers(number: int) -> Headers:
    """Return the 14 fields of a rendition, each line its own objects as an application makes them."""
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    fields = {
        "content-type": "image/webp",
        "content-length": "2000",
        "date": "Mon, 23 Nov 2026 12:00:00 GMT",
        "cache-control": "public, max-age=31536000, immutable",
        "cdn-cache-control": "max-age=31536000",
        "etag": f'"{digest}"',
        "repr-digest": f"sha-256=:{digest[:44]}:",
        "cache-tag": digest[:32],
        "timing-allow-origin": "*",
        "access-control-allow-origin": "*",
        "cross-origin-resource-policy": "cross-origin",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "accept-ranges": "bytes",
    }
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in fields.items()]


@pytest.mark.anyio
async def test_memory_of_14_header_answers_costs_what_it_counts_within_5_percent_of_the_overhead() -> None:
    async def origin(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": rendition_headers(int(scope["query_string"]))})
        await send({"type": "http.response.body", "body": bytes(2_000)})

    clock = Clock()
    edge = Edge(origin, name="darkroom", max_bytes=2**30, max_cold_requests=1, clock=clock)

    async def fill(numbers: range) -> None:
        # Asked twice, a second and more apart: an entry that was hit holds messages of its own.
        for _ in range(2):
            for number in numbers:
                await ask(edge, query=b"%d" % number)
            clock.now += 1_000

    # The first ones pay for what is there once, whatever the number.
    await fill(range(50))
    entries = 2_000
    memory = edge._memory
    counted_before = memory.used_bytes
    gc.collect()
    tracemalloc.start()
    try:
        await fill(range(100, 100 + entries))
        gc.collect()
        traced_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(memory) == 50 + entries
    counted_bytes = memory.used_bytes - counted_before
    overhead_bytes = ENTRY_OVERHEAD_BYTES + (traced_bytes - counted_bytes) / entries
    assert overhead_bytes == pytest.approx(ENTRY_OVERHEAD_BYTES, rel=0.05)

"""The store: entries, eviction, purges, and the memory that entries take."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import tracemalloc
from collections.abc import Callable
from functools import partial
from string import ascii_lowercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.asgi import Headers, Receive, Response, Scope, Send
from edge.counters import CacheCounters
from edge.fields import parse_cache_tags, parse_vary
from edge.policy import CachePolicy
from edge.store import (
    ENTRY_OVERHEAD_BYTES,
    HEADER_OVERHEAD_BYTES,
    MAX_ENTRY_FRACTION,
    MEMORY_TIER,
    TAG_OVERHEAD_BYTES,
    VARY_MARKER_BYTES,
    MemoryStore,
    StoredResponse,
    hit_status_format,
)
from tests.edge.asgi import ManualClock, Origin, date, full_response, hit, send_request, shared_edge, stored

HEADERS: Headers = [(b"content-type", b"image/webp"), (b"etag", b'"k5x7q2"'), (b"cache-control", b"max-age=60")]

HIT_FORMAT = hit_status_format(b"darkroom")


def stored_response(
    body: bytes = b"picture",
    *,
    headers: Headers = HEADERS,
    status: int = 200,
    lifetime: int = 60,
    key: bytes = b"/i/picture",
    counters: CacheCounters | None = None,
) -> StoredResponse:
    policy = CachePolicy(storable=True, shareable=True, lifetime=lifetime)
    return StoredResponse(
        Response(status, headers, body), policy, key=key, generated_at=5.0, received_at=0.0, counters=counters or CacheCounters()
    )


# Entries and their age


def test_start_message_is_the_response_with_age_cache_status_and_tier() -> None:
    assert stored_response().start_message(0, HIT_FORMAT) == {
        "type": "http.response.start",
        "status": 200,
        "headers": [*HEADERS, (b"age", b"0"), (b"cache-status", hit(60)), MEMORY_TIER],
    }


def test_not_modified_message_is_a_304_with_its_headers_and_those_of_a_hit() -> None:
    assert stored_response().not_modified_message(7, HIT_FORMAT) == {
        "type": "http.response.start",
        "status": 304,
        "headers": [(b"etag", b'"k5x7q2"'), (b"cache-control", b"max-age=60"), (b"age", b"7"), (b"cache-status", hit(53)), MEMORY_TIER],
    }


def test_start_message_later_leaves_earlier_messages_unchanged() -> None:
    entry = stored_response()
    start, not_modified = entry.start_message(0, HIT_FORMAT), entry.not_modified_message(0, HIT_FORMAT)
    later, later_not_modified = entry.start_message(10, HIT_FORMAT), entry.not_modified_message(10, HIT_FORMAT)
    sent = [message["headers"][-3:] for message in (start, not_modified, later, later_not_modified)]
    assert sent == [
        [(b"age", b"0"), (b"cache-status", hit(60)), MEMORY_TIER],
        [(b"age", b"0"), (b"cache-status", hit(60)), MEMORY_TIER],
        [(b"age", b"10"), (b"cache-status", hit(50)), MEMORY_TIER],
        [(b"age", b"10"), (b"cache-status", hit(50)), MEMORY_TIER],
    ]


def test_start_message_changed_by_a_server_leaves_the_next_one_unchanged() -> None:
    # A layer between the edge and the server may append to a message's list of headers.
    entry = stored_response()
    for message in (entry.start_message(0, HIT_FORMAT), entry.not_modified_message(0, HIT_FORMAT)):
        message["headers"].append((b"x-added", b"1"))
    assert entry.start_message(0, HIT_FORMAT)["headers"] == [*HEADERS, *entry.hit_headers(0, HIT_FORMAT)]
    assert entry.not_modified_message(0, HIT_FORMAT)["headers"] == [*HEADERS[1:], *entry.hit_headers(0, HIT_FORMAT)]


def test_hit_status_format_of_any_name_has_the_name_unchanged() -> None:
    assert hit_status_format(b"50%d") % (60, b"/i/picture") == b'50%d; hit; ttl=60; key="/i/picture"'


def test_hit_headers_of_a_stale_response_have_a_negative_ttl() -> None:
    assert stored_response(lifetime=60).hit_headers(75, HIT_FORMAT) == ((b"age", b"75"), (b"cache-status", hit(-15)), MEMORY_TIER)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(-(2**31), 2**31))
def test_hit_headers_age_and_ttl_add_up_to_the_lifetime(lifetime: int, left: int) -> None:
    second = max(0, lifetime - left)
    (_, age), (_, status), _ = stored_response(lifetime=lifetime).hit_headers(second, HIT_FORMAT)
    assert int(age) == second
    assert status == hit(lifetime - second)


async def ages_and_statuses(age: int, lifetime: int, pauses: list[float]) -> list[tuple[int, bytes | None]]:
    """Return `Age` and `Cache-Status` of requests so many seconds apart, for a response that arrives with an `Age`."""
    clock = ManualClock()
    edge = shared_edge(Origin(full_response(b"max-age=%d" % lifetime, (b"age", b"%d" % age))), clock)
    sent = []
    for seconds in (0.0, *pauses):
        clock.now += seconds
        response = await send_request(edge)
        sent.append((int(response.field(b"age") or 0), response.field(b"cache-status")))
    return sent


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**20), st.integers(2, 2**20), st.lists(st.floats(0, 2**18, allow_subnormal=False), max_size=4))
def test_age_counts_up_from_the_age_on_arrival_and_ttl_down(age: int, left: int, pauses: list[float]) -> None:
    lifetime = age + left
    sent = asyncio.run(ages_and_statuses(age, lifetime, pauses))
    assert sent[0] == (age, stored(left))
    clock = ManualClock()
    born = clock.now - age
    for seconds, (seen, status) in zip(pauses, sent[1:], strict=True):
        clock.now += seconds
        if clock.now - born >= lifetime:
            # It is fetched again, and arrives with the same age.
            born = clock.now - age
            assert (seen, status) == (age, stored(left, reason="stale"))
        else:
            assert seen == int(clock.now - born)
            assert status == hit(lifetime - seen)


@pytest.mark.parametrize(("status", "etag"), [(200, b'"k5x7q2"'), (302, None), (404, None), (410, None)])
def test_entity_tag_is_compared_only_for_a_200(status: int, etag: bytes | None) -> None:
    assert stored_response(status=status).etag == etag


def test_entity_tag_is_none_without_the_header() -> None:
    assert stored_response(headers=[(b"content-type", b"image/webp")]).etag is None


# The budget


def test_store_counts_body_headers_key_and_overhead() -> None:
    memory = MemoryStore(1_000_000)
    memory.store(b"/i/picture", stored_response(b"x" * 1_000))
    assert memory.used_bytes == 1_000 + size_of(b"/i/picture", HEADERS)
    assert len(memory) == 1


def size_of(key: bytes, headers: Headers, tags: int = 0) -> int:
    """Return the size that is counted for an entry without its body."""
    header_bytes = sum(HEADER_OVERHEAD_BYTES + len(name) + len(value) for name, value in headers)
    return ENTRY_OVERHEAD_BYTES + len(key) + header_bytes + tags * TAG_OVERHEAD_BYTES


def test_store_counts_each_tag_and_an_escaped_key() -> None:
    memory = MemoryStore(1_000_000)
    headers = tagged(b"one", b"two", b"two")
    memory.store(b"/a\x00", stored_response(b"", headers=headers, key=b"/a\x00"))
    assert memory.used_bytes == size_of(b"/a\x00", headers, 2) + len(b"/a%00")


def test_store_counts_a_vary_marker() -> None:
    memory = MemoryStore(1_000_000)
    memory.mark_varying(b"/i/picture", (b"accept",))
    assert memory.used_bytes == VARY_MARKER_BYTES + len(b"/i/picture") + len(b"accept")


def test_store_without_the_key_has_nothing() -> None:
    memory = MemoryStore(1_000_000)
    memory.store(b"/a", stored_response())
    assert memory.entries.get(b"/b") is None


def entry_of(size_bytes: int, key: bytes, *, counters: CacheCounters | None = None, headers: Headers = ()) -> StoredResponse:
    """Return an entry whose counted size under `key` is exactly `size_bytes`."""
    body_bytes = size_bytes - size_of(key, headers, len(parse_cache_tags(headers)))
    return stored_response(bytes(body_bytes), headers=headers, key=key, counters=counters)


def use(memory: MemoryStore, key: bytes) -> None:
    """Use an entry like a hit does: mark it, without moving it."""
    entry = memory.entries.get(key)
    assert entry is not None
    entry.used = True


def test_store_that_is_full_evicts_the_oldest_unused_entry() -> None:
    memory = MemoryStore(80_000)
    for key in (b"/a", b"/b", b"/c", b"/d", b"/e", b"/f", b"/g", b"/h"):
        assert memory.store(key, entry_of(10_000, key))
    assert memory.used_bytes == 80_000
    use(memory, b"/a")
    memory.store(b"/i", entry_of(10_000, b"/i"))
    assert memory.entries.get(b"/b") is None
    assert memory.entries.get(b"/a")
    memory.store(b"/c", entry_of(9_000, b"/c"))
    memory.store(b"/j", entry_of(10_000, b"/j"))
    assert memory.entries.get(b"/d") is None
    assert memory.entries.get(b"/c")
    assert memory.used_bytes == 79_000


def test_used_entry_is_spared_once_for_each_use() -> None:
    memory = MemoryStore(80_000)
    keys = [b"/%d" % number for number in range(8)]
    for key in keys:
        memory.store(key, entry_of(10_000, key))
    use(memory, b"/0")
    for number in range(8, 15):
        memory.store(b"/%d" % number, entry_of(10_000, b"/%d" % number))
    # The other seven of the first eight were evicted. /0 was spared, and would be the next.
    assert all(memory.entries.get(key) is None for key in keys[1:])
    assert memory.entries.get(b"/0")
    memory.store(b"/15", entry_of(10_000, b"/15"))
    assert memory.entries.get(b"/0") is None


def test_store_of_used_entries_only_evicts_the_oldest() -> None:
    memory = MemoryStore(80_000)
    keys = [b"/%d" % number for number in range(8)]
    for key in keys:
        memory.store(key, entry_of(10_000, key))
        use(memory, key)
    memory.store(b"/8", entry_of(10_000, b"/8"))
    assert [key for key in keys if memory.entries.get(key) is None] == [b"/0"]
    # All have been spared once: now they are evicted in order.
    memory.store(b"/9", entry_of(10_000, b"/9"))
    assert [key for key in keys if memory.entries.get(key) is None] == [b"/0", b"/1"]


def test_evicted_entry_is_counted_once_and_a_purged_or_replaced_one_is_not() -> None:
    memory, counters = MemoryStore(80_000), CacheCounters()
    for number in range(8):
        memory.store(b"/%d" % number, entry_of(10_000, b"/%d" % number, counters=counters))
    memory.store(b"/7", entry_of(10_000, b"/7", counters=counters))
    memory.purge(b"/6")
    memory.store(b"/8", entry_of(10_000, b"/8", counters=counters))
    assert counters.evicted == 0
    use(memory, b"/0")
    memory.store(b"/9", entry_of(10_000, b"/9", counters=counters))
    assert counters.evicted == 1
    assert memory.entries.get(b"/1") is None


def test_entry_of_the_largest_size_is_stored_and_one_byte_more_is_not() -> None:
    memory = MemoryStore(80_000)
    assert MAX_ENTRY_FRACTION == 1 / 8
    assert memory.store(b"/a", entry_of(10_000, b"/a"))
    assert not memory.store(b"/b", entry_of(10_001, b"/b"))
    assert memory.entries.get(b"/b") is None
    assert memory.entries.get(b"/a")
    assert memory.used_bytes == 10_000


def test_entry_that_is_too_large_removes_the_one_it_would_replace() -> None:
    memory = MemoryStore(80_000)
    memory.store(b"/a", entry_of(5_000, b"/a"))
    assert not memory.store(b"/a", entry_of(10_001, b"/a"))
    assert memory.entries.get(b"/a") is None
    assert memory.used_bytes == 0


steps = st.lists(
    st.tuples(
        st.sampled_from(["page", "file", "picture", "pointer"]),
        st.sampled_from(ascii_lowercase),
        st.sampled_from(["use", "purge", "vary"]) | st.integers(0, 12_000),
    ),
    max_size=60,
)


@given(steps)
def test_store_with_fractions_exceeds_neither_them_nor_the_budget(steps: list[tuple[str, str, str | int]]) -> None:
    fractions = {"page": 1 / 16, "file": 1 / 4}
    memory = MemoryStore(80_000, fractions)
    model: dict[bytes, tuple[str, int]] = {}
    for label, name, step in steps:
        key = f"/{label}/{name}".encode()
        found = memory.entries.get(key)
        if step == "use":
            if found is not None:
                found.used = True
        elif step == "purge":
            assert memory.purge(key) == (found is not None)
            model.pop(key, None)
        elif step == "vary":
            model[key] = label, memory.mark_varying(key, (b"accept",), label).size_bytes
        else:
            new = stored_response(bytes(int(step)), headers=(), key=key)
            fits = new.size_bytes <= min(80_000 / 8, 80_000 * fractions.get(label, 1))
            assert memory.store(key, new, label) == fits
            # The new entry is there if it fits, and the one before it is not.
            assert memory.entries.get(key) is (new if fits else None)
            model[key] = label, new.size_bytes
        left = {key: value for key, value in model.items() if memory.entries.get(key) is not None}
        assert len(memory) == len(left)
        assert memory.used_bytes == sum(size for _, size in left.values()) <= 80_000
        for limited, fraction in fractions.items():
            assert sum(size for label, size in left.values() if label == limited) <= 80_000 * fraction


def test_entry_of_a_limited_label_evicts_its_own_label_first() -> None:
    memory = MemoryStore(80_000, {"page": 1 / 16})
    for number in range(20):
        memory.store(b"/i/%d" % number, stored_response(bytes(1_000), headers=(), key=b"/i/%d" % number), "picture")
    for number in range(50):
        memory.store(b"/page/%d" % number, stored_response(bytes(1_000), headers=(), key=b"/page/%d" % number), "page")
    assert all(memory.entries.get(b"/i/%d" % number) for number in range(20))
    assert [number for number in range(50) if memory.entries.get(b"/page/%d" % number)] == [47, 48, 49]


def test_store_of_no_bytes_stores_nothing() -> None:
    memory = MemoryStore(0)
    assert not memory.store(b"/a", stored_response())
    memory.mark_varying(b"/b", (b"accept",))
    assert memory.used_bytes == len(memory) == 0


def test_common_headers_and_policies_of_entries_are_one_object() -> None:
    memory = MemoryStore(1_000_000)
    entries = [stored_response(headers=[(b"content-type", b"image/%b" % b"webp"), (b"etag", b'"%d"' % number)]) for number in range(3)]
    for number, entry in enumerate(entries):
        memory.store(b"/%d" % number, entry)
    first, *others = entries
    assert all(entry.headers[0] is first.headers[0] and entry.policy is first.policy for entry in others)
    assert [entry.headers[1] for entry in entries] == [(b"etag", b'"0"'), (b"etag", b'"1"'), (b"etag", b'"2"')]


def test_store_given_ever_new_headers_remembers_few_of_them_for_sharing() -> None:
    memory = MemoryStore(1_000_000)
    for number in range(1_000):
        memory.store(b"/", stored_response(headers=[(b"x-%d" % number, b"1"), (b"etag", b'"%d"' % number)], lifetime=number))
    assert len(memory) == 1
    assert len(memory._shared_headers) == 64
    assert {len(values) for values in memory._shared_headers.values()} == {1, 8}
    assert len(memory._shared_policies) == 64


# Purges


def tagged(*tags: bytes) -> Headers:
    return [(b"cache-tag", b", ".join(tags))]


def test_purge_by_key_removes_only_that_entry() -> None:
    memory = MemoryStore(1_000_000)
    for key in (b"/a", b"/b"):
        memory.store(key, stored_response(key=key))
    assert memory.purge(b"/a")
    assert not memory.purge(b"/a")
    assert memory.entries.get(b"/a") is None
    assert memory.entries.get(b"/b")


def test_purge_by_tags_removes_entries_with_any_of_them_and_counts_each_once() -> None:
    memory = MemoryStore(1_000_000)
    memory.store(b"/a", stored_response(headers=tagged(b"one", b"two")))
    memory.store(b"/b", stored_response(headers=tagged(b"two")))
    memory.store(b"/c", stored_response(headers=tagged(b"three")))
    memory.store(b"/d", stored_response())
    assert memory.purge_tags([b"one", b"two", b"unknown"]) == 2
    assert [key for key in (b"/a", b"/b", b"/c", b"/d") if memory.entries.get(key)] == [b"/c", b"/d"]
    assert memory.purge_tags([b"one", b"two"]) == 0


def test_replaced_entry_is_purged_only_by_its_newer_tags() -> None:
    memory = MemoryStore(1_000_000)
    memory.store(b"/a", stored_response(headers=tagged(b"old", b"both")))
    memory.store(b"/a", stored_response(headers=tagged(b"new", b"both")))
    assert memory.purge_tags([b"old"]) == 0
    assert memory.entries.get(b"/a")
    assert memory.purge_tags([b"new"]) == 1


def test_store_without_entries_has_no_tags_left() -> None:
    memory = MemoryStore(80_000)
    for number in range(20):
        key = b"/%d" % number
        memory.store(key, entry_of(10_000, key, headers=tagged(b"all", key)))
    assert len(memory) == 8
    assert len(memory._index.keys_by_tag) == 9
    memory.purge_tags([b"all"])
    assert memory._index.keys_by_tag == {}
    assert memory.used_bytes == len(memory) == 0


def test_cache_tags_are_the_members_of_every_line_without_surrounding_space() -> None:
    headers = [(b"cache-tag", b" one,two ,, "), (b"etag", b'"x"'), (b"cache-tag", b"three")]
    assert parse_cache_tags(headers) == {b"one", b"two", b"three"}


# Vary markers


def test_vary_marker_of_the_same_names_stays_and_of_others_is_replaced() -> None:
    memory = MemoryStore(1_000_000)
    mark = memory.mark_varying(b"/a", (b"accept",))
    assert memory.entries.get(b"/a") is mark
    assert memory.mark_varying(b"/a", (b"accept",)) is mark
    other = memory.mark_varying(b"/a", (b"accept", b"origin"))
    assert memory.entries.get(b"/a") is other
    assert other.generation != mark.generation
    # The earlier names do not bring the earlier responses back: those were hidden when the URL varied otherwise.
    assert memory.mark_varying(b"/a", (b"accept",)).generation not in {mark.generation, other.generation}


def test_vary_marker_after_a_purge_is_a_new_one() -> None:
    memory = MemoryStore(1_000_000)
    mark = memory.mark_varying(b"/a", (b"accept",))
    assert memory.purge(b"/a")
    assert memory.mark_varying(b"/a", (b"accept",)).generation != mark.generation


# Arbitrary sequences

KEYS = [b"/%d" % number for number in range(30)]
TAGS = [b"one", b"two", b"three"]


class ModelEntry:
    """What the model knows about one entry."""

    def __init__(self, entry: object, size_bytes: int, tags: frozenset[bytes] = frozenset(), names: tuple[bytes, ...] = ()) -> None:
        self.entry = entry
        self.size_bytes = size_bytes
        self.tags = tags
        self.names = names
        self.used = False


class MemoryMachine(RuleBasedStateMachine):
    """Arbitrary sequences of storing, using and purging, compared with a plain list that evicts the oldest entry first.

    A used entry is spared once: when its turn has come, it becomes the newest instead.
    """

    MAX_BYTES = 56_000

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore(self.MAX_BYTES)
        self.order: list[bytes] = []
        self.model: dict[bytes, ModelEntry] = {}
        self.evicted = 0
        self.counters = CacheCounters()
        self.generations: set[int] = set()

    def drop(self, key: bytes) -> None:
        if key in self.model:
            self.order.remove(key)
            del self.model[key]

    def put(self, key: bytes, modeled: ModelEntry) -> None:
        self.drop(key)
        while sum(each.size_bytes for each in self.model.values()) + modeled.size_bytes > self.MAX_BYTES:
            oldest = self.order.pop(0)
            if self.model[oldest].used:
                self.model[oldest].used = False
                self.order.append(oldest)
            else:
                self.evicted += isinstance(self.model.pop(oldest).entry, StoredResponse)
        self.order.append(key)
        self.model[key] = modeled

    @rule(key=st.sampled_from(KEYS), body_bytes=st.integers(0, 6_000), tags=st.frozensets(st.sampled_from(TAGS), max_size=2))
    def store(self, key: bytes, body_bytes: int, tags: frozenset[bytes]) -> None:
        headers = tagged(*sorted(tags)) if tags else []
        entry = stored_response(bytes(body_bytes), headers=headers, key=key, counters=self.counters)
        size_bytes = body_bytes + size_of(key, headers, len(tags))
        small_enough = size_bytes <= self.MAX_BYTES // 8
        assert self.memory.store(key, entry) is small_enough
        if small_enough:
            self.put(key, ModelEntry(entry, size_bytes, tags))
        else:
            self.drop(key)

    @rule(key=st.sampled_from(KEYS), names=st.sampled_from([(b"accept",), (b"accept", b"origin")]))
    def vary(self, key: bytes, names: tuple[bytes, ...]) -> None:
        mark = self.memory.mark_varying(key, names)
        assert mark.names == names
        modeled = self.model.get(key)
        if modeled is not None and modeled.names == names:
            assert mark is modeled.entry
            modeled.used = True
        else:
            assert mark.generation not in self.generations
            self.generations.add(mark.generation)
            self.put(key, ModelEntry(mark, VARY_MARKER_BYTES + len(key) + sum(map(len, names)), names=names))

    @rule(key=st.sampled_from(KEYS))
    def use(self, key: bytes) -> None:
        entry = self.memory.entries.get(key)
        if entry is not None:
            entry.used = True
            self.model[key].used = True

    @rule(key=st.sampled_from(KEYS))
    def purge(self, key: bytes) -> None:
        assert self.memory.purge(key) is (key in self.model)
        self.drop(key)

    @rule(tags=st.frozensets(st.sampled_from(TAGS)))
    def purge_tags(self, tags: frozenset[bytes]) -> None:
        carrying = [key for key, modeled in self.model.items() if modeled.tags & tags]
        assert self.memory.purge_tags(tags) == len(carrying)
        for key in carrying:
            self.drop(key)

    @invariant()
    def has_the_entries_of_the_model(self) -> None:
        for key in KEYS:
            modeled = self.model.get(key)
            assert self.memory.entries.get(key) is (modeled.entry if modeled else None)
        assert len(self.memory) == len(self.model)
        assert self.counters.evicted == self.evicted

    @invariant()
    def never_exceeds_its_budget(self) -> None:
        assert self.memory.used_bytes <= self.MAX_BYTES
        assert self.memory.used_bytes == sum(modeled.size_bytes for modeled in self.model.values())

    @invariant()
    def has_the_tags_of_its_entries(self) -> None:
        expected = {tag: {key for key, modeled in self.model.items() if tag in modeled.tags} for tag in TAGS}
        assert self.memory._index.keys_by_tag == {tag: keys for tag, keys in expected.items() if keys}


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# Memory


def rendition_headers(number: int) -> Headers:
    """Return the 14 headers of a rendition, made of new objects each time, as an application does."""
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    headers = {
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
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]


def distinct_headers(number: int, count: int, tags: int) -> Headers:
    """Return so many headers that no other response has, except for two that the edge would add: they cannot be shared."""
    own = [
        (b"cache-control", b"max-age=600, x=%d" % number),
        (b"date", date(number)),
        (b"content-length", b"2000"),
        (b"accept-ranges", b"bytes"),
        (b"cache-tag", b",".join(b"%d-%d" % (number, tag) for tag in range(tags))),
    ]
    return [*own, *((f"x-{index}".encode("ascii"), b"value %d" % number) for index in range(count - len(own)))]


async def measured_and_counted(headers_of: Callable[[int], Headers], entries: int) -> tuple[float, float]:
    """Return the measured and the counted size in bytes of a stored response with such headers, without its body."""

    async def origin(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers_of(int(scope["query_string"]))})
        await send({"type": "http.response.body", "body": bytes(2_000)})

    async def fill(numbers: range) -> None:
        # Requested twice, the second time with a condition: after such a hit, an entry also holds the headers of its 304.
        for conditions in ([], [(b"if-none-match", b"*")]):
            for number in numbers:
                await send_request(edge, query=b"%d" % number, headers=conditions)

    edge = shared_edge(origin, max_bytes=2**30)
    # The first entries are not measured, because they include what all entries share.
    await fill(range(50))
    counted_before = edge.stored_bytes
    gc.collect()
    tracemalloc.start()
    try:
        await fill(range(100, 100 + entries))
        gc.collect()
        traced_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert edge.stored_entries == 50 + entries
    return traced_bytes / entries - 2_000, (edge.stored_bytes - counted_before) / entries - 2_000


@pytest.mark.anyio
@pytest.mark.parametrize(("count", "tags"), [(14, 1), (14, 4), (40, 1)])
async def test_distinct_headers_take_the_counted_memory_within_5_percent(count: int, tags: int) -> None:
    measured, counted = await measured_and_counted(partial(distinct_headers, count=count, tags=tags), 500)
    assert measured == pytest.approx(counted, rel=0.05)


@pytest.mark.anyio
async def test_renditions_take_half_to_all_of_the_counted_memory_because_they_share_headers() -> None:
    measured, counted = await measured_and_counted(rendition_headers, 500)
    assert 0.45 * counted < measured < counted


def test_vary_marker_takes_the_counted_memory_within_15_percent() -> None:
    memory = MemoryStore(2**30)
    for number in range(50):
        memory.mark_varying(b"/i/%032d" % number, (b"accept",))
    counted_before = memory.used_bytes
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(100, 2_100):
            memory.mark_varying(b"/i/%032d" % number, parse_vary([(b"vary", b"accept")]))
        gc.collect()
        traced_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    counted_bytes = memory.used_bytes - counted_before
    assert 0.85 * counted_bytes < traced_bytes <= counted_bytes

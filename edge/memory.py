"""What the edge keeps: whole answers, least recently used first to go, under a budget of bytes; purged by key and by tag.

Entries of some kinds may have a share of the budget, which they cannot exceed: they evict one another and few of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from cachetools import LRUCache

from edge.asgi import Answer, Headers, Message, field_values
from edge.conditional import not_modified_headers
from edge.counters import CacheCounters
from edge.freshness import Terms
from edge.keys import key_text

# What an entry costs beside the bytes of its body, key and fields: the entry itself with its places in the order and the index, then
# each of its fields and each of its tags. Measured with tracemalloc where no two entries have a field alike, which is the dearest
# case: fields that many have are held once for all (below), and a rendition costs half of what it counts for.
ENTRY_OVERHEAD_BYTES = 320
FIELD_OVERHEAD_BYTES = 130
TAG_OVERHEAD_BYTES = 300

# What a mark costs that the answers to an address vary, beside its key.
VARIES_BYTES = 500

# One entry may take this share of the budget: a larger one would push out too many others for a single answer.
LARGEST_SHARE = 1 / 8

# The first so many values of a field are held once for all entries, and the fields of so many names.
_SHARED_VALUES = 8
_SHARED_NAMES = 64

# Which tier answered, for whoever measures in the browser (W3C Server Timing).
TIER = (b"server-timing", b"tier;desc=memory")


class Kept:
    """One kept answer: few objects, because with very many entries each one touched costs a hit more than all arithmetic.

    Its age counts from `born`, the moment of the clock at which it was made or last validated.
    """

    __slots__ = (
        "_not_modified", "body", "born", "count", "etag", "headers", "key_text", "received", "size_bytes",
        "status", "terms", "used",
    )  # fmt: skip

    def __init__(
        self,
        answer: Answer,
        terms: Terms,
        *,
        key: bytes,
        born: float,
        received: float,
        count: CacheCounters,
    ) -> None:
        """Take an answer without the fields that belong to one request, to be kept on `terms` under `key`.

        `received` is the Unix time at which it came, `count` counts how it is used.
        """
        self.status = answer.status
        self.headers: Headers = tuple(answer.headers)
        self.body = answer.body
        self.used = False
        self.terms = terms
        self.born = born
        self.received = received
        self.count = count
        self.key_text = key_text(key)
        # Conditions are for what would be a success without them (RFC 9110 §13.2.1): a kept 404 is never "not modified".
        self.etag = next((value for name, value in answer.headers if name == b"etag"), None) if answer.status == 200 else None
        self.size_bytes = (
            ENTRY_OVERHEAD_BYTES
            + len(key)
            + (0 if self.key_text is key else len(self.key_text))
            + len(answer.body)
            + sum(FIELD_OVERHEAD_BYTES + len(name) + len(value) for name, value in answer.headers)
            + TAG_OVERHEAD_BYTES * len(cache_tags(answer.headers))
        )
        self._not_modified: Headers | None = None

    def start(self, second: int, name: bytes, tier: tuple[bytes, bytes] = TIER) -> Message:
        """Return the start of the whole answer at an age in whole seconds, from the cache called `name`; `tier` says who answered.

        It is put together for each hit: to remember it would cost more among many entries than it saves among few.
        """
        age = (b"age", b"%d" % second)
        status = (b"cache-status", b'%b; hit; ttl=%d; key="%b"' % (name, self.terms.lifetime - second, self.key_text))
        return {"type": "http.response.start", "status": self.status, "headers": [*self.headers, age, status, tier]}

    def not_modified(self, second: int, name: bytes, tier: tuple[bytes, bytes] = TIER) -> Message:
        """Return the start of the 304 that stands for it."""
        if self._not_modified is None:
            self._not_modified = not_modified_headers(self.headers)
        age = (b"age", b"%d" % second)
        status = (b"cache-status", b'%b; hit; ttl=%d; key="%b"' % (name, self.terms.lifetime - second, self.key_text))
        return {"type": "http.response.start", "status": 304, "headers": [*self._not_modified, age, status, tier]}

    def told(self, second: int, name: bytes, tier: tuple[bytes, bytes] = TIER) -> Headers:
        """Return what is said of a hit: its age, and how long it stays fresh, negative once it is stale (RFC 9211 §2.2)."""
        return (
            (b"age", b"%d" % second),
            (b"cache-status", b'%b; hit; ttl=%d; key="%b"' % (name, self.terms.lifetime - second, self.key_text)),
            tier,
        )

    def count_evicted(self) -> None:
        """CacheCounters that this had to go to make room."""
        self.count.evicted += 1


class Varies:
    """That the answers to an address differ by these fields of the request; they lie under keys of their own (RFC 9111 §4.1)."""

    __slots__ = ("fields", "generation", "size_bytes", "used")

    def __init__(self, fields: tuple[bytes, ...], generation: int, key: bytes) -> None:
        """Take lower-case names in order, and a number that no other mark has: what lies under another's keys is never found again."""
        self.fields = fields
        self.generation = generation
        self.size_bytes = VARIES_BYTES + len(key) + sum(map(len, fields))
        self.used = False

    def count_evicted(self) -> None:
        """Nothing is counted: it is no answer."""


Entry: TypeAlias = Kept | Varies


class _Index:
    """Every entry by its key, what all count for, and the keys by the tags with which their entries would be purged."""

    def __init__(self) -> None:
        self.used_bytes = 0
        self.by_key: dict[bytes, Entry] = {}
        self.keys_by_tag: dict[bytes, set[bytes]] = {}

    def add(self, key: bytes, entry: Entry) -> None:
        self.by_key[key] = entry
        self.used_bytes += entry.size_bytes
        for tag in _tags(entry):
            self.keys_by_tag.setdefault(tag, set()).add(key)

    def remove(self, key: bytes) -> None:
        entry = self.by_key.pop(key)
        self.used_bytes -= entry.size_bytes
        for tag in _tags(entry):
            keys = self.keys_by_tag[tag]
            keys.discard(key)
            if not keys:
                del self.keys_by_tag[tag]


class _Entries(LRUCache[bytes, Entry]):
    """The entries of one share in the order in which they go, and their sizes.

    A hit does not move its entry in the order, it marks it: among very many entries that is the cheaper by half of what a look-up
    costs. What is marked when its turn to go has come is put back as the most recently used.
    """

    def __init__(self, max_bytes: int, index: _Index) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.size_bytes)
        self._index = index

    def __setitem__(self, key: bytes, entry: Entry) -> None:
        self.pop(key, None)
        super().__setitem__(key, entry)
        self._index.add(key, entry)

    def __delitem__(self, key: bytes) -> None:
        super().__delitem__(key)
        self._index.remove(key)

    def popitem(self) -> tuple[bytes, Entry]:
        while True:
            key, entry = super().popitem()
            if not entry.used:
                entry.count_evicted()
                return key, entry
            entry.used = False
            self[key] = entry


class Memory:
    """A byte-bounded LRU of entries by key. For the event loop's thread alone: cachetools takes no locks."""

    def __init__(self, max_bytes: int, shares: Mapping[str, float] | None = None) -> None:
        """Create an empty memory.

        `max_bytes`: the most bytes that all entries count for. `shares`: for some kinds of entries, the fraction of it, from 0 to 1,
        that those of the kind take at most; the kinds that it does not name have what the others leave.
        """
        self._max_bytes = max_bytes
        self.largest_bytes = int(max_bytes * LARGEST_SHARE)
        self._index = _Index()
        self._rest = _Entries(max_bytes, self._index)
        self._by_kind = {kind: _Entries(int(max_bytes * share), self._index) for kind, share in (shares or {}).items()}
        self._all = (self._rest, *self._by_kind.values())
        # Straight to the dict: who uses what this returns marks it as `used`.
        self.get: Callable[[bytes], Entry | None] = self._index.by_key.get
        self._generation = 0
        self._names: dict[bytes, dict[bytes, tuple[bytes, bytes]]] = {}
        self._terms: dict[Terms, Terms] = {}

    def __len__(self) -> int:
        return len(self._index.by_key)

    @property
    def used_bytes(self) -> int:
        """What the entries count for, their overhead included."""
        return self._index.used_bytes

    def max_entry_bytes(self, kind: str) -> int:
        """Return how large an entry of this kind may be, bookkeeping included."""
        return int(min(self.largest_bytes, self._share_of(kind).maxsize))

    def keep(self, key: bytes, kept: Kept, kind: str = "") -> bool:
        """Keep an answer, pushing out the least recently used; return whether it was small enough to be kept at all."""
        if kept.size_bytes > self.max_entry_bytes(kind):
            self.purge(key)
            return False
        kept.headers = tuple(self._shared(pair) for pair in kept.headers)
        kept.terms = self._shared_terms(kept.terms)
        self._put(key, kept, kind)
        return True

    def varies(self, key: bytes, fields: tuple[bytes, ...], kind: str = "") -> Varies:
        """Return the mark that the answers to `key` vary by `fields`; one that differs takes the place of what was there."""
        known = self.get(key)
        if isinstance(known, Varies) and known.fields == fields:
            known.used = True
            return known
        self._generation += 1
        mark = Varies(fields, self._generation, key)
        if mark.size_bytes <= self.max_entry_bytes(kind):
            self._put(key, mark, kind)
        return mark

    def purge(self, key: bytes) -> bool:
        """Drop what is kept for an address, all that varies included; return whether there was anything."""
        return any(entries.pop(key, None) is not None for entries in self._all)

    def purge_tags(self, tags: Iterable[bytes]) -> int:
        """Drop what carries any of `tags`; return how many entries that were."""
        keys = [key for tag in tags for key in self._index.keys_by_tag.get(tag, ())]
        return sum(self.purge(key) for key in keys)

    def _share_of(self, kind: str) -> _Entries:
        return self._by_kind.get(kind, self._rest)

    def _put(self, key: bytes, entry: Entry, kind: str) -> None:
        """Store an entry that fits; what goes first is of the same share, then of the rest, then of other shares."""
        if self.get(key) is not None:
            self.purge(key)
        entries = self._share_of(kind)
        while entries.currsize + entry.size_bytes > entries.maxsize:
            entries.popitem()
        while self._index.used_bytes + entry.size_bytes > self._max_bytes:
            next(each for each in self._all if each).popitem()
        entries[key] = entry

    def _shared_terms(self, terms: Terms) -> Terms:
        shared = self._terms.get(terms)
        if shared is None:
            shared = terms
            if len(self._terms) < _SHARED_NAMES:
                self._terms[terms] = terms
        return shared

    def _shared(self, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """Return an equal pair that other entries have too, where values are few: most fields of most answers are the same."""
        name, value = pair
        values = self._names.get(name)
        if values is None:
            if len(self._names) == _SHARED_NAMES:
                return pair
            values = self._names[name] = {}
        shared = values.get(value)
        if shared is not None:
            return shared
        if len(values) < _SHARED_VALUES:
            values[value] = pair
        return pair


def _tags(entry: Entry) -> frozenset[bytes]:
    return cache_tags(entry.headers) if isinstance(entry, Kept) else frozenset()


def cache_tags(headers: Headers) -> frozenset[bytes]:
    """Return the tags that an answer carries: the members of `Cache-Tag`, separated by commas."""
    tags = (tag.strip() for value in field_values(headers, b"cache-tag") for tag in value.split(b","))
    return frozenset(tag for tag in tags if tag)

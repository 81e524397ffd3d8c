"""Stored responses in memory: the least recently used are evicted first, under a budget of bytes; purged by key and by tag.

Responses with some metric labels have a partition of the budget, which they cannot exceed: they evict one another first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from cachetools import LRUCache

from edge.asgi import Headers, Message, Response
from edge.cache_key import cache_status_key
from edge.conditional import not_modified_headers
from edge.counters import CacheCounters
from edge.fields import parse_cache_tags
from edge.policy import CachePolicy

# Memory that an entry takes in addition to the bytes of its body, key and headers: for the entry with its places in the LRU order and
# the index, for each header, and for each tag. Measured with tracemalloc for entries that have no header in common, which is the worst
# case: common headers are shared between entries (below), and a rendition takes half of what is counted for it.
ENTRY_OVERHEAD_BYTES = 320
HEADER_OVERHEAD_BYTES = 130
TAG_OVERHEAD_BYTES = 300

# Memory that a `VaryMarker` takes in addition to its key and names.
VARY_MARKER_BYTES = 500

# The largest entry as a fraction of the budget: a larger one would evict too many others for a single response.
MAX_ENTRY_FRACTION = 1 / 8

# Equal headers and policies of different entries are one object: up to so many values of each header, and so many names and policies.
_MAX_SHARED_VALUES = 8
_MAX_SHARED_NAMES = 64

# The tier that responded, for measurements in the browser (W3C Server Timing).
MEMORY_TIER = (b"server-timing", b"tier;desc=memory")


def hit_status_format(name: bytes) -> bytes:
    """Return the format of a hit's `Cache-Status` from the cache called `name`, which takes the `ttl` and the key."""
    return name.replace(b"%", b"%%") + b'; hit; ttl=%d; key="%b"'


class StoredResponse:
    """A stored response and its policy.

    It consists of few objects: with very many entries, each object that a hit touches costs more than all of its arithmetic.
    """

    __slots__ = (
        "_not_modified_headers", "body", "cache_status_key", "counters", "etag", "generated_at", "headers", "lifetime", "policy",
        "received_at", "size_bytes", "status", "used",
    )  # fmt: skip

    def __init__(
        self, response: Response, policy: CachePolicy, *, key: bytes, generated_at: float, received_at: float, counters: CacheCounters
    ) -> None:
        """Make an entry.

        Parameters:
            response: The response without the headers that are for one request only.
            policy: How it may be reused.
            key: The key under which it is to be stored.
            generated_at: When it was generated or last validated, in seconds of the edge's clock. Its age is counted from then.
            received_at: When it arrived, as Unix time in seconds.
            counters: The counters to update when it is served or evicted.
        """
        self.status = response.status
        self.headers: Headers = tuple(response.headers)
        self.body = response.body
        self.used = False
        self.policy = policy
        # Every hit needs it, and a named field of a tuple takes longer to read.
        self.lifetime = policy.lifetime
        self.generated_at = generated_at
        self.received_at = received_at
        self.counters = counters
        self.cache_status_key = cache_status_key(key)
        # Conditions apply to what would be a success without them (RFC 9110 §13.2.1): a stored 404 is never "not modified".
        self.etag = next((value for name, value in response.headers if name == b"etag"), None) if response.status == 200 else None
        self.size_bytes = (
            ENTRY_OVERHEAD_BYTES
            + len(key)
            + (0 if self.cache_status_key is key else len(self.cache_status_key))
            + len(response.body)
            + sum(HEADER_OVERHEAD_BYTES + len(name) + len(value) for name, value in response.headers)
            + TAG_OVERHEAD_BYTES * len(parse_cache_tags(response.headers))
        )
        self._not_modified_headers: Headers | None = None

    def start_message(self, age: int, hit_format: bytes, server_timing: tuple[bytes, bytes] = MEMORY_TIER) -> Message:
        """Return the start of the whole response at an `age` in whole seconds. `hit_format` is `hit_status_format` of this cache's name.

        It is put together for each hit: with many entries, remembering it would cost more than it saves.
        """
        age_header = (b"age", b"%d" % age)
        status = (b"cache-status", hit_format % (self.lifetime - age, self.cache_status_key))
        return {"type": "http.response.start", "status": self.status, "headers": [*self.headers, age_header, status, server_timing]}

    def not_modified_message(self, age: int, hit_format: bytes, server_timing: tuple[bytes, bytes] = MEMORY_TIER) -> Message:
        """Return the start of the 304 in place of the whole response."""
        if self._not_modified_headers is None:
            self._not_modified_headers = not_modified_headers(self.headers)
        age_header = (b"age", b"%d" % age)
        status = (b"cache-status", hit_format % (self.lifetime - age, self.cache_status_key))
        return {"type": "http.response.start", "status": 304, "headers": [*self._not_modified_headers, age_header, status, server_timing]}

    def hit_headers(self, age: int, hit_format: bytes, server_timing: tuple[bytes, bytes] = MEMORY_TIER) -> Headers:
        """Return the headers that a hit adds. In `Cache-Status`, the `ttl` of a stale response is negative (RFC 9211 §2.2)."""
        return (
            (b"age", b"%d" % age),
            (b"cache-status", hit_format % (self.lifetime - age, self.cache_status_key)),
            server_timing,
        )

    def count_eviction(self) -> None:
        """Count that this response was evicted to make room."""
        self.counters.evicted += 1


class VaryMarker:
    """Says that the responses to a URL vary by some request headers, and so are stored under secondary keys (RFC 9111 §4.1)."""

    __slots__ = ("generation", "names", "size_bytes", "used")

    def __init__(self, names: tuple[bytes, ...], generation: int, key: bytes) -> None:
        """Make a marker.

        Parameters:
            names: The names of the request headers, in lower case and sorted.
            generation: A number that no other marker has. It is part of the secondary keys, so that the responses of an earlier marker
                are never found again.
            key: The primary key under which it is to be stored.
        """
        self.names = names
        self.generation = generation
        self.size_bytes = VARY_MARKER_BYTES + len(key) + sum(map(len, names))
        self.used = False

    def count_eviction(self) -> None:
        """Count nothing: a marker is not a response."""


Entry: TypeAlias = StoredResponse | VaryMarker


class _Index:
    """All entries by key, their total size, and their keys by the tags with which they can be purged."""

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

    def clear(self) -> None:
        self.used_bytes = 0
        self.by_key.clear()
        self.keys_by_tag.clear()


class _Partition(LRUCache[bytes, Entry]):
    """The entries of one partition of the budget, in the order in which they will be evicted.

    A hit does not move its entry to the end of the order, it marks it as used: with very many entries, that halves the cost of a
    look-up. A used entry whose turn has come is moved to the end, and its mark is removed, in place of being evicted.
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
                entry.count_eviction()
                return key, entry
            entry.used = False
            self[key] = entry


class MemoryStore:
    """Entries by key, within a budget of bytes. Not thread-safe: only the event loop's thread may use it."""

    def __init__(self, max_bytes: int, max_fraction_by_label: Mapping[str, float] | None = None) -> None:
        """Create an empty store.

        Parameters:
            max_bytes: Maximum size of all entries in bytes, including bookkeeping; 0 stores nothing.
            max_fraction_by_label: By metric label, the maximum fraction of `max_bytes`, 0 to 1, that its responses may take. Responses
                with other labels may take all that is left.
        """
        self._max_bytes = max_bytes
        self._index = _Index()
        self._default_partition = _Partition(max_bytes, self._index)
        self._partition_by_label = {
            label: _Partition(int(max_bytes * fraction), self._index) for label, fraction in (max_fraction_by_label or {}).items()
        }
        self._partitions = (self._default_partition, *self._partition_by_label.values())
        self.entries: Mapping[bytes, Entry] = self._index.by_key
        """All entries by key. Callers set `used` on the entry that they serve."""
        self._last_generation = 0
        self._shared_headers: dict[bytes, dict[bytes, tuple[bytes, bytes]]] = {}
        self._shared_policies: dict[CachePolicy, CachePolicy] = {}

    def __len__(self) -> int:
        return len(self._index.by_key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} entries, {self.used_bytes} of {self._max_bytes} bytes>"

    @property
    def used_bytes(self) -> int:
        """The size of all entries in bytes, including bookkeeping."""
        return self._index.used_bytes

    def max_entry_bytes(self, label: str = "") -> int:
        """Return the maximum size in bytes of an entry with this metric label, including bookkeeping."""
        return int(min(int(self._max_bytes * MAX_ENTRY_FRACTION), self._partition(label).maxsize))

    def store(self, key: bytes, response: StoredResponse, label: str = "") -> bool:
        """Store a response and evict others to make room for it; return False if it is too large to be stored."""
        if response.size_bytes > self.max_entry_bytes(label):
            self.purge(key)
            return False
        response.headers = tuple(self._share_header(pair) for pair in response.headers)
        response.policy = self._share_policy(response.policy)
        # The number of the shared policy, so that there is one of it too.
        response.lifetime = response.policy.lifetime
        self._put(key, response, label)
        return True

    def mark_varying(self, key: bytes, names: tuple[bytes, ...], label: str = "") -> VaryMarker:
        """Return the marker that responses under the primary key `key` vary by the headers `names`.

        A new marker replaces any other entry under the key. One that is too large to be stored is returned all the same.
        """
        entry = self.entries.get(key)
        if isinstance(entry, VaryMarker) and entry.names == names:
            entry.used = True
            return entry
        self._last_generation += 1
        marker = VaryMarker(names, self._last_generation, key)
        if marker.size_bytes <= self.max_entry_bytes(label):
            self._put(key, marker, label)
        return marker

    def purge(self, key: bytes) -> bool:
        """Remove the entry under a key; return whether there was one. Without its marker, no varying response is found again."""
        return any(partition.pop(key, None) is not None for partition in self._partitions)

    def purge_tags(self, tags: Iterable[bytes]) -> int:
        """Remove the responses with any of `tags`; return their number."""
        keys = [key for tag in tags for key in self._index.keys_by_tag.get(tag, ())]
        return sum(self.purge(key) for key in keys)

    def purge_all(self) -> None:
        """Remove every entry."""
        for partition in self._partitions:
            partition.clear()
        self._index.clear()

    def _partition(self, label: str) -> _Partition:
        return self._partition_by_label.get(label, self._default_partition)

    def _put(self, key: bytes, entry: Entry, label: str) -> None:
        """Store an entry that fits, and evict first from its own partition, then from the default one, then from others."""
        if key in self.entries:
            self.purge(key)
        partition = self._partition(label)
        while partition.currsize + entry.size_bytes > partition.maxsize:
            partition.popitem()
        while self._index.used_bytes + entry.size_bytes > self._max_bytes:
            next(each for each in self._partitions if each).popitem()
        partition[key] = entry

    def _share_policy(self, policy: CachePolicy) -> CachePolicy:
        """Return an equal policy that other entries share, if there are few."""
        shared = self._shared_policies.get(policy)
        if shared is None:
            shared = policy
            if len(self._shared_policies) < _MAX_SHARED_NAMES:
                self._shared_policies[policy] = policy
        return shared

    def _share_header(self, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """Return an equal header that other entries share, if it has few values: most headers of most responses are the same."""
        name, value = pair
        values = self._shared_headers.get(name)
        if values is None:
            if len(self._shared_headers) == _MAX_SHARED_NAMES:
                return pair
            values = self._shared_headers[name] = {}
        shared = values.get(value)
        if shared is not None:
            return shared
        if len(values) < _MAX_SHARED_VALUES:
            values[value] = pair
        return pair


def _tags(entry: Entry) -> frozenset[bytes]:
    return parse_cache_tags(entry.headers) if isinstance(entry, StoredResponse) else frozenset()

"""What the edge keeps: answers ready to be sent, least recently used first to go, under a budget of bytes."""

from __future__ import annotations

from cachetools import LRUCache

from edge.answer import Answer, Headers, Message
from edge.conditional import not_modified_headers

# What an entry costs beside the bytes of its body, path and headers: two message dicts, three lists of header pairs,
# the tuples and bytes objects in them and its place in the LRU. Measured with tracemalloc over 10,000 entries of 14 headers.
ENTRY_OVERHEAD_BYTES = 3_500

# One entry may take this share of the budget: a larger one would push out too many others for a single answer.
LARGEST_SHARE = 1 / 8


class Kept:
    """One kept answer with its ASGI messages built ahead; what changes with time is renewed at most once a second."""

    __slots__ = (
        "_age", "_cache_name", "_kept_at", "_lifetime", "_not_modified_headers", "_second", "body_message", "etag", "expires", "headers",
        "not_modified_message", "size_bytes", "start_message", "status",
    )  # fmt: skip

    def __init__(self, answer: Answer, *, cache_name: bytes, now: float, age: int, lifetime: int) -> None:
        """Take `answer`, `age` seconds old at the monotonic time `now`, fresh for another `lifetime` seconds."""
        self.status = answer.status
        self.headers: Headers = answer.headers
        self.body_message: Message = {"type": "http.response.body", "body": answer.body}
        # Conditions are for what would be a success without them (RFC 9110 §13.2.1): a kept 404 is never "not modified".
        self.etag = next((value for name, value in answer.headers if name == b"etag"), None) if answer.status == 200 else None
        self.expires = now + lifetime
        self.size_bytes = len(answer.body) + ENTRY_OVERHEAD_BYTES + sum(len(name) + len(value) for name, value in answer.headers)
        self._cache_name = cache_name
        self._not_modified_headers = not_modified_headers(answer.headers)
        self._age = age
        self._lifetime = lifetime
        self._kept_at = now
        self._renew(0)

    def at(self, now: float) -> Kept:
        """Return this entry with `Age` and `ttl` right for the monotonic time `now`, to the second."""
        second = int(now - self._kept_at)
        if second != self._second:
            self._renew(second)
        return self

    def _renew(self, second: int) -> None:
        # Whole numbers from the start: a difference of clock readings may fall a hair short of the second.
        self._second = second
        told = [
            (b"age", b"%d" % (self._age + second)),
            (b"cache-status", b"%b; hit; ttl=%d" % (self._cache_name, self._lifetime - second)),
        ]
        self.start_message: Message = {"type": "http.response.start", "status": self.status, "headers": self.headers + told}
        self.not_modified_message: Message = {
            "type": "http.response.start",
            "status": 304,
            "headers": self._not_modified_headers + told,
        }


class Memory:
    """A byte-bounded LRU of kept answers by key. For the event loop's thread alone: cachetools takes no locks."""

    def __init__(self, max_bytes: int) -> None:
        self._largest_bytes = int(max_bytes * LARGEST_SHARE)
        self._entries: LRUCache[bytes, Kept] = LRUCache(max_bytes, getsizeof=lambda kept: kept.size_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """What the entries count for, their overhead included."""
        return int(self._entries.currsize)

    def get(self, key: bytes) -> Kept | None:
        """Return the entry of `key` and mark it as just used."""
        try:
            return self._entries[key]
        except KeyError:
            return None

    def keep(self, key: bytes, kept: Kept) -> bool:
        """Keep an entry, pushing out the least recently used; return whether it was small enough to be kept at all."""
        kept.size_bytes += len(key)
        if kept.size_bytes > self._largest_bytes:
            self._entries.pop(key, None)
            return False
        self._entries[key] = kept
        return True

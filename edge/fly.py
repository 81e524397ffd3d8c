"""Where this process stands among the regions on Fly, and what becomes of a request that belongs to another one."""

from __future__ import annotations

import asyncio
import re

from edge.asgi import Answer, Headers, Receive, field_values, problem

# The largest body that Fly's proxy is asked to repeat. Its limit is 1 MB; which megabyte, and whether the head counts, is not said.
REPLAY_BYTES = 960_000

# How long the proxy tries to reach the other region before it comes back here, to be told that there is none.
REPLAY_TIMEOUT = b"5s"

# A body that is on its way may take this long, and as much longer as its bytes so far are worth at the slowest rate that is served.
_BODY_GRACE_SECONDS = 25.0
_SLOWEST_BYTES_PER_SECOND = 8_192

# Each message of a body costs about 35 µs of CPU whatever its size: after the first ones they have this many bytes on average, or more.
_FREE_MESSAGES = 1_024
_LEAST_MESSAGE_BYTES = 512

# What says that the proxy has repeated a request once, or tried to: nobody may be sent in a circle. Anybody can send them, so they
# authorise nothing.
_SENT_HERE = frozenset({b"fly-replay-src", b"fly-replay-failed"})

_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")

# A body that nobody reads to its end must not pass for the next request.
_CLOSE = (b"connection", b"close")

_SLOW = problem(
    408,
    "Upload too slow",
    f"Expected at least {_SLOWEST_BYTES_PER_SECOND} bytes a second after the first {_BODY_GRACE_SECONDS:g} seconds. "
    "Try again over a faster connection.",
    _CLOSE,
)

_TOO_MANY_CHUNKS = problem(
    400,
    "Bad request",
    f"The body comes in too many too small chunks. Expected {_LEAST_MESSAGE_BYTES} bytes or more on average, after the first "
    f"{_FREE_MESSAGES} chunks. Send larger chunks, or the body in one piece with its Content-Length.",
    _CLOSE,
)


class FlyRegion:
    """A region, a Machine in it, and the region to which belongs whatever is not here."""

    def __init__(self, *, region: str = "", machine: str = "", primary: str = "") -> None:
        """Take the names that Fly gives, each empty where there is none; without `primary`, every region does everything.

        Raises `ValueError` for what is no name: it would stand in a field of every answer.
        """
        for name in (region, machine, primary):
            if name and _WORD.fullmatch(name) is None:
                raise ValueError(f"{name!r} is no name of a region or a Machine: expected 1 to 64 of A-Z a-z 0-9 _ -")
        self._primary = primary.encode("ascii")
        self.is_replica = bool(region and primary and region != primary)
        """Whether some requests belong to another region."""
        words = [f"{name};desc={value}" for name, value in (("region", region), ("machine", machine)) if value]
        self.timing: Headers = [(b"server-timing", ", ".join(words).encode("ascii"))] if words else []
        """What every answer made here says of where that was (W3C Server Timing), except those from memory."""
        self.memory_timing = (b"server-timing", ", ".join(["tier;desc=memory", *words]).encode("ascii"))
        """The same with the tier, for answers from memory."""

    def elsewhere(self, asked: Headers) -> Answer | None:
        """Return what is answered to a request for what is not here but may be in the primary; nothing where this is the primary.

        Fly's proxy takes it for an order to repeat the request there. What it has repeated before is never sent on again.
        """
        if not self.is_replica:
            return None
        if _was_sent_here(asked):
            return self._out_of_reach()
        # `prefer_self`: where the primary is not to be reached, the request comes back, and is told so in our own words.
        order = b"region=%b;timeout=%b;fallback=prefer_self" % (self._primary, REPLAY_TIMEOUT)
        return self._misdirected("Fly's proxy repeats the request there.", (b"fly-replay", order))

    async def hand_on(self, asked: Headers, receive: Receive) -> Answer | None:
        """Return what is answered to a request that changes something, which belongs to the primary; nothing where the client left.

        Its body goes nowhere: the proxy has it, and repeats it unless it is larger than `REPLAY_BYTES`.
        """
        try:
            received = await _body_bytes(asked, receive)
        except TimeoutError:
            return _SLOW
        except _TooManyChunksError:
            return _TOO_MANY_CHUNKS
        if received is None:
            return None
        if received <= REPLAY_BYTES:
            return self.elsewhere(asked)
        if _was_sent_here(asked) or self._primary in field_values(asked, b"fly-prefer-region"):
            return self._out_of_reach(_CLOSE)
        return self._misdirected(
            f"The request is larger than the {REPLAY_BYTES} bytes that can be handed on. "
            f"Send it again with the header fly-prefer-region: {self._primary.decode('ascii')}.",
            (b"fly-prefer-region", self._primary),
            _CLOSE,
        )

    def _misdirected(self, detail: str, *extra: tuple[bytes, bytes]) -> Answer:
        region = self._primary.decode("ascii")
        return problem(
            421,
            "Belongs to another region",
            f"What is asked for is in the region {region}. {detail}",
            *extra,
            members={"prefer_region": region},
        )

    def _out_of_reach(self, *extra: tuple[bytes, bytes]) -> Answer:
        return problem(
            503,
            "Primary region out of reach",
            f"What is asked for is in the region {self._primary.decode('ascii')}, which does not answer. Try again in a few seconds.",
            (b"retry-after", b"5"),
            *extra,
        )


class _TooManyChunksError(Exception):
    """A body in so many chunks that it is read no further."""


def _was_sent_here(asked: Headers) -> bool:
    return any(name in _SENT_HERE for name, _ in asked)


async def _body_bytes(asked: Headers, receive: Receive) -> int | None:
    """Return how large a request's body is, or that it is larger than can be replayed; nothing where the client left before its end.

    Raises `TimeoutError` for one that drips, `_TooManyChunksError` for one in very many very small chunks.
    """
    declared = [value for value in field_values(asked, b"content-length") if value.isdigit() and len(value) < 19]
    if any(int(value) > REPLAY_BYTES for value in declared):
        return max(int(value) for value in declared)
    received = messages = 0
    async with asyncio.timeout(_BODY_GRACE_SECONDS) as patience:
        while received <= REPLAY_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = len(message.get("body", b""))
            received += chunk
            messages += 1
            if messages > _FREE_MESSAGES + received // _LEAST_MESSAGE_BYTES:
                raise _TooManyChunksError
            patience.reschedule((patience.when() or 0.0) + chunk / _SLOWEST_BYTES_PER_SECOND)
            if not message.get("more_body"):
                break
    return received

"""Regions on Fly: where this process runs, and how its proxy replays a request in the primary region.

A replica region does not have everything. It responds to a request that belongs to the primary with a `Fly-Replay` header, which Fly's
proxy takes as an instruction to send the request there (https://fly.io/docs/networking/dynamic-request-routing/).

This is not a middleware of its own around `Edge`, because it would have to look at the start of every response, which makes a hit half as
slow again. `Edge` would also still have to know that a response that asks for a replay is shared by all waiters, never stored, and replaced
by a stale response while the primary is unreachable. So `Edge` asks a `FlyRegion` what to send, off the path of a hit.
"""

from __future__ import annotations

import asyncio
import re

from edge.asgi import Headers, Receive, Response, get_header_values, problem_response

# The largest body that Fly's proxy replays. Its limit is 1 MB; whether that is 10^6 or 2^20 bytes, and includes the headers, is not
# documented.
REPLAY_BYTES = 960_000

# How long the proxy tries to reach the primary region before it returns to this one.
REPLAY_TIMEOUT = b"5s"

# A body may take this long, and additionally the time that its bytes so far take at the minimum rate.
_BODY_GRACE_SECONDS = 25.0
_MIN_BYTES_PER_SECOND = 8_192

# Each message of a body costs about 35 µs of CPU, small or large. After the first ones, the messages must have this size on average.
_FREE_MESSAGES = 1_024
_MIN_MESSAGE_BYTES = 512

# The proxy adds these to a request that it has replayed, or could not replay. Such a request must not be replayed again, or it could go
# in circles. Clients can forge them, so they authorize nothing.
_REPLAYED_HEADERS = frozenset({b"fly-replay-src", b"fly-replay-failed"})

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

# The rest of a body that was not read must not be mistaken for the next request.
_CLOSE = (b"connection", b"close")

_UPLOAD_TOO_SLOW = problem_response(
    408,
    "Upload too slow",
    f"Expected at least {_MIN_BYTES_PER_SECOND} bytes a second after the first {_BODY_GRACE_SECONDS:g} seconds. "
    "Try again over a faster connection.",
    _CLOSE,
)

_CHUNKS_TOO_SMALL = problem_response(
    400,
    "Bad request",
    f"The chunks of the body are too small. After the first {_FREE_MESSAGES} chunks, expected an average of {_MIN_MESSAGE_BYTES} bytes "
    "or more. Send larger chunks, or the body in one piece with its Content-Length.",
    _CLOSE,
)


class FlyRegion:
    """The region and Machine of this process, and the primary region, to which belongs everything that this one does not have."""

    def __init__(self, *, region: str = "", machine: str = "", primary: str = "") -> None:
        """Describe where this process runs. All names have 1 to 64 characters of A-Z a-z 0-9 _ - or are empty.

        Parameters:
            region: The region of this process, as in `FLY_REGION`.
            machine: The Machine of this process, as in `FLY_MACHINE_ID`.
            primary: The primary region. Without it, no region is a replica.

        Raises:
            ValueError: A name has other characters, which could break the headers that it is part of.
        """
        for name in (region, machine, primary):
            if name and _NAME.fullmatch(name) is None:
                raise ValueError(f"Expected the name of a region or a Machine, 1 to 64 characters of A-Z a-z 0-9 _ -, got {name!r}.")
        self._primary = primary.encode("ascii")
        self.is_replica = bool(region and primary and region != primary)
        """Whether some requests belong to another region."""
        metrics = [f"{name};desc={value}" for name, value in (("region", region), ("machine", machine)) if value]
        self.server_timing: Headers = [(b"server-timing", ", ".join(metrics).encode("ascii"))] if metrics else []
        """Names region and Machine in every response that was not served from memory (W3C Server Timing). Empty if there are none."""
        self.memory_server_timing = (b"server-timing", ", ".join(["tier;desc=memory", *metrics]).encode("ascii"))
        """Names the memory tier, region and Machine in every response from memory."""

    def replay_response(self, request_headers: Headers) -> Response | None:
        """Return the response that makes Fly's proxy replay a request in the primary region; `None` in the primary itself.

        If the proxy has replayed the request before, the response is 503: the primary could not be reached.
        """
        if not self.is_replica:
            return None
        if _was_replayed(request_headers):
            return self._primary_out_of_reach()
        # `prefer_self`: if the primary cannot be reached, the request comes back, and the client gets an error of ours, not the proxy's.
        replay = b"region=%b;timeout=%b;fallback=prefer_self" % (self._primary, REPLAY_TIMEOUT)
        return self._misdirected("Fly's proxy replays the request there.", (b"fly-replay", replay))

    async def replay_request(self, request_headers: Headers, receive: Receive) -> Response | None:
        """Return the response that makes Fly's proxy replay a request with a body; `None` if the client disconnected.

        The body is read only to measure it: the proxy has a copy, and replays it unless it is larger than `REPLAY_BYTES`.
        """
        try:
            body_bytes = await _measure_body(request_headers, receive)
        except TimeoutError:
            return _UPLOAD_TOO_SLOW
        except _ChunksTooSmallError:
            return _CHUNKS_TOO_SMALL
        if body_bytes is None:
            return None
        if body_bytes <= REPLAY_BYTES:
            return self.replay_response(request_headers)
        if _was_replayed(request_headers) or self._primary in get_header_values(request_headers, b"fly-prefer-region"):
            return self._primary_out_of_reach(_CLOSE)
        return self._misdirected(
            f"The body is larger than {REPLAY_BYTES} bytes, the most that can be replayed. "
            f"Send it again with the header fly-prefer-region: {self._primary.decode('ascii')}.",
            (b"fly-prefer-region", self._primary),
            _CLOSE,
        )

    def _misdirected(self, remedy: str, *headers: tuple[bytes, bytes]) -> Response:
        primary = self._primary.decode("ascii")
        detail = f"This request must be handled in the region {primary}. {remedy}"
        return problem_response(421, "Belongs to another region", detail, *headers, members={"prefer_region": primary})

    def _primary_out_of_reach(self, *headers: tuple[bytes, bytes]) -> Response:
        detail = f"This request must be handled in the region {self._primary.decode('ascii')}, which does not respond. "
        detail += "Try again in a few seconds."
        return problem_response(503, "Primary region out of reach", detail, (b"retry-after", b"5"), *headers)


class _ChunksTooSmallError(Exception):
    """A body consists of so many small chunks that the rest is not read."""


def _was_replayed(request_headers: Headers) -> bool:
    return any(name in _REPLAYED_HEADERS for name, _ in request_headers)


async def _measure_body(request_headers: Headers, receive: Receive) -> int | None:
    """Return the size of a request's body in bytes, or any number above `REPLAY_BYTES`; `None` if the client disconnected before its end.

    Raises:
        TimeoutError: The body arrives too slowly.
        _ChunksTooSmallError: It consists of too many small chunks.
    """
    declared = [value for value in get_header_values(request_headers, b"content-length") if value.isdigit() and len(value) < 19]
    if any(int(value) > REPLAY_BYTES for value in declared):
        return max(int(value) for value in declared)
    received = messages = 0
    async with asyncio.timeout(_BODY_GRACE_SECONDS) as timeout:
        while received <= REPLAY_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = len(message.get("body", b""))
            received += chunk
            messages += 1
            if messages > _FREE_MESSAGES + received // _MIN_MESSAGE_BYTES:
                raise _ChunksTooSmallError
            timeout.reschedule((timeout.when() or 0.0) + chunk / _MIN_BYTES_PER_SECOND)
            if not message.get("more_body"):
                break
    return received

"""The circuit: images that ended their render process repeatedly are not rendered for a while.

Without it an image that kills or occupies a process costs one process for each client that requests it.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from service.errors import RenderGaveUpError
from service.images.options import AUTO
from service.rendering.protocol import FindTrim, Job, MakeIntermediate, Probe, Render, RenderLadder

# How a job ended its process: it computed until the deadline, the process crashed or was killed, or an exception that nobody foresaw made
# it unusable.
FailureMode: TypeAlias = Literal["timed-out", "crashed", "failed"]

TRIPS_AFTER_FAILURES = 2
EXPIRES_AFTER_SECONDS = 3_600.0

# Failures that are remembered at most: whoever makes up a new image for each attempt must not fill the memory, nor the store's folder.
_MOST_REMEMBERED = 1_000

# A rendition whose longer side may exceed this, in pixels, is expensive by the client's choice, whatever it is made of.
_MODEST_SIDE = 2_560

_REASONS: dict[FailureMode, str] = {
    "timed-out": "took longer than a render may take",
    "crashed": "ended the render process",
    "failed": "failed in a way that nobody foresaw",
}


class RenderFailure(NamedTuple):
    """One failure: what ended its process, how, and when (Unix time in seconds)."""

    subject: str
    mode: FailureMode
    at: float


class CircuitBreaker:
    """The failures of the last hour, by subject: an image, an image with another laid over it, or one expensive rendition."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Create a circuit without failures.

        clock: returns the Unix time in seconds; failures are compared with those of other servers.
        """
        self._clock = clock
        self._failures: dict[str, list[RenderFailure]] = {}
        self._count = 0
        # Failures of this process that other servers do not know of yet.
        self.unshared: deque[RenderFailure] = deque(maxlen=_MOST_REMEMBERED)

    def raise_if_open(self, job: Job) -> None:
        """Return if `job` may be tried; raises `RenderGaveUpError` for one that ended its process twice within the last hour."""
        for subject in subjects(job):
            failures = self._recent(subject)
            if len(failures) >= TRIPS_AFTER_FAILURES:
                raise _gave_up(failures)

    def record(self, job: Job, mode: FailureMode) -> None:
        """Record that a job ended its process."""
        failure = RenderFailure(_blamed(job, mode), mode, self._clock())
        if failure.subject and self._add(failure):
            self.unshared.append(failure)

    def synchronize(self, failures: Iterable[RenderFailure]) -> None:
        """Replace all that is remembered by what the servers of the store have noted, and what they have not been told yet."""
        self._failures, self._count = {}, 0
        for failure in [*failures, *self.unshared]:
            self._add(failure)

    def has_expired(self, failure: RenderFailure) -> bool:
        """Return whether a failure is too old to count."""
        return failure.at <= self._clock() - EXPIRES_AFTER_SECONDS

    def _add(self, failure: RenderFailure) -> bool:
        """Remember a failure; return whether there was room and need for it."""
        if self._count >= _MOST_REMEMBERED:
            self._failures = {subject: recent for subject in self._failures if (recent := self._recent(subject))}
            self._count = sum(map(len, self._failures.values()))
        if self._count >= _MOST_REMEMBERED:
            return False
        self._failures.setdefault(failure.subject, []).append(failure)
        self._count += 1
        return True

    def _recent(self, subject: str) -> list[RenderFailure]:
        return [failure for failure in self._failures.get(subject, ()) if not self.has_expired(failure)]


def subjects(job: Job) -> list[str]:
    """Return the names of what a job may be refused for; none where its image has no digest."""
    match job:
        case Probe(digest=digest):
            return [digest] if digest else []
        case Render(input_file=input_file, overlay=overlay):
            together = [] if overlay is None else [f"{input_file.digest}-{overlay.digest}"]
            return [input_file.digest, *together, _rendition(job)]
        case RenderLadder() | MakeIntermediate() | FindTrim():
            return [job.input_file.digest]
        case _:
            return []


def _blamed(job: Job, mode: FailureMode) -> str:
    """Return the name of what is held responsible for a failure.

    Never the original alone where an overlay was decoded beside it, and never the image where the client chose what took so long.
    """
    if isinstance(job, Render):
        if mode == "timed-out" and _is_expensive(job):
            return _rendition(job)
        if job.overlay is not None:
            return f"{job.input_file.digest}-{job.overlay.digest}"
    return next(iter(subjects(job)), "")


def _is_expensive(job: Render) -> bool:
    transform = job.transform
    sides = [side for side in (transform.width, transform.height) if side is not None]
    searches = transform.quality == AUTO or transform.max_bytes is not None
    return searches or transform.effort is not None or transform.lossless or not sides or max(sides) > _MODEST_SIDE


def _rendition(job: Render) -> str:
    name = msgspec.json.encode((job.input_file.digest, job.transform, job.format, job.version))
    return hashlib.sha256(name).hexdigest()


def _gave_up(failures: list[RenderFailure]) -> RenderGaveUpError:
    latest = max(failures, key=lambda failure: failure.at)
    again = datetime.fromtimestamp(sorted(failure.at for failure in failures)[-TRIPS_AFTER_FAILURES] + EXPIRES_AFTER_SECONDS, UTC)
    return RenderGaveUpError(
        f"Rendering this image {_REASONS[latest.mode]} each time it was tried.",
        expected="an image that can be rendered within the limits of this server",
        received=f"{len(failures)} failed attempts within the last hour",
        remedy=f"Export the image again, simpler or in another format, and send that. It is not tried again before {again:%H:%M} UTC.",
    )

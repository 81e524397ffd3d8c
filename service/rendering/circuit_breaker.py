"""The circuit breaker: an image that has repeatedly ended its render process is not rendered for a while.

Without it an image that crashes or occupies a process costs one process for each request. Failures are counted by subject: an image, an
image with another one laid over it, or one rendition that is expensive by the client's choice. Two within an hour open the circuit of
that subject; it closes when the older one expires.
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

# How a job ended its process: it computed until the deadline, the process crashed or was killed, or an unforeseen exception made the
# process unusable.
FailureMode: TypeAlias = Literal["timed-out", "crashed", "failed"]

TRIPS_AFTER_FAILURES = 2
EXPIRES_AFTER_SECONDS = 3_600.0

# An attacker who invents a new image for each attempt must not fill the memory or the store.
_MAX_FAILURES = 1_000

# A rendition whose longer side may exceed this, in pixels, is expensive by the client's choice, whatever the original.
_MODEST_SIDE_PIXELS = 2_560

_REASONS: dict[FailureMode, str] = {
    "timed-out": "took longer than a render may take",
    "crashed": "ended the render process",
    "failed": "failed unexpectedly",
}


class RenderFailure(NamedTuple):
    """One failure: the subject that ended its process, how, and when (Unix time in seconds)."""

    subject: str
    mode: FailureMode
    at: float


class CircuitBreaker:
    """The failures of the last hour, by subject."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Create a circuit breaker without failures.

        clock: returns the Unix time in seconds, because failures are shared with other servers.
        """
        self._clock = clock
        self._failures: dict[str, list[RenderFailure]] = {}
        self._count = 0
        # Failures of this process that are not in the store yet.
        self.unshared: deque[RenderFailure] = deque(maxlen=_MAX_FAILURES)

    def __repr__(self) -> str:
        return f"<CircuitBreaker subjects={len(self._failures)} failures={self._count} unshared={len(self.unshared)}>"

    def raise_if_open(self, job: Job) -> None:
        """Return if `job` may be tried; raises `RenderGaveUpError` if one of its subjects has ended its process twice within the hour."""
        for subject in subjects(job):
            failures = self._recent(subject)
            if len(failures) >= TRIPS_AFTER_FAILURES:
                raise _gave_up_error(failures)

    def record(self, job: Job, mode: FailureMode) -> None:
        """Record that a job ended its process."""
        failure = RenderFailure(_blamed_subject(job, mode), mode, self._clock())
        if failure.subject and self._add(failure):
            self.unshared.append(failure)

    def synchronize(self, failures: Iterable[RenderFailure]) -> None:
        """Replace all failures with those in the store and those of this process that are not there yet."""
        self._failures, self._count = {}, 0
        for failure in [*failures, *self.unshared]:
            self._add(failure)

    def has_expired(self, failure: RenderFailure) -> bool:
        """Return whether a failure is too old to count."""
        return failure.at <= self._clock() - EXPIRES_AFTER_SECONDS

    def _add(self, failure: RenderFailure) -> bool:
        """Add a failure; return whether there was room for it."""
        if self._count >= _MAX_FAILURES:
            self._failures = {subject: recent for subject in self._failures if (recent := self._recent(subject))}
            self._count = sum(map(len, self._failures.values()))
        if self._count >= _MAX_FAILURES:
            return False
        self._failures.setdefault(failure.subject, []).append(failure)
        self._count += 1
        return True

    def _recent(self, subject: str) -> list[RenderFailure]:
        return [failure for failure in self._failures.get(subject, ()) if not self.has_expired(failure)]


def subjects(job: Job) -> list[str]:
    """Return the subjects that a job may be refused for; none if its image has no digest."""
    match job:
        case Probe(digest=digest):
            return [digest] if digest else []
        case Render(input_file=input_file, overlay=overlay):
            together = [] if overlay is None else [f"{input_file.digest}-{overlay.digest}"]
            return [input_file.digest, *together, _rendition_subject(job)]
        case RenderLadder() | MakeIntermediate() | FindTrim():
            return [job.input_file.digest]
        case _:
            return []


def _blamed_subject(job: Job, mode: FailureMode) -> str:
    """Return the subject to which a failure is attributed.

    It is the original together with the overlay if there was one, since either may be to blame, and only the rendition if it timed out and
    is expensive by the client's choice.
    """
    if isinstance(job, Render):
        if mode == "timed-out" and _is_expensive(job):
            return _rendition_subject(job)
        if job.overlay is not None:
            return f"{job.input_file.digest}-{job.overlay.digest}"
    return next(iter(subjects(job)), "")


def _is_expensive(job: Render) -> bool:
    transform = job.request.transform
    sides = [side for side in transform.box if side is not None]
    searches = transform.quality == AUTO or transform.max_bytes is not None
    return searches or transform.effort is not None or transform.lossless or not sides or max(sides) > _MODEST_SIDE_PIXELS


def _rendition_subject(job: Render) -> str:
    request = job.request
    name = msgspec.json.encode((job.input_file.digest, request.transform, request.format, request.version))
    return hashlib.sha256(name).hexdigest()


def _gave_up_error(failures: list[RenderFailure]) -> RenderGaveUpError:
    latest = max(failures, key=lambda failure: failure.at)
    again = datetime.fromtimestamp(sorted(failure.at for failure in failures)[-TRIPS_AFTER_FAILURES] + EXPIRES_AFTER_SECONDS, UTC)
    return RenderGaveUpError(
        f"Rendering this image {_REASONS[latest.mode]} each time it was tried.",
        expected="an image that can be rendered within the limits of this server",
        received=f"{len(failures)} failed attempts within the last hour",
        remedy=f"Export the image again, simpler or in another format, and upload that. It is not tried again before {again:%H:%M} UTC.",
    )

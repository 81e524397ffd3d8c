"""A fuzz target, and the budget of time and memory for one input."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from service.errors import ServiceError
from service.http.problem_details import plain_response
from service.rendering.protocol import ImageError
from tests.fuzz.mutate import ANY, Mutator

# CPU time for one input: far more than any parser needs, and far less than one takes whose work grows with the square of the input.
# Coverage makes Python code several times as slow.
_SECONDS, _SECONDS_PER_BYTE = 1.0, 30e-6
_MAX_GROWN_BYTES = 256 << 20

# Larger inputs add no structures and cost time. Work that grows with the square of the input still exceeds the budget.
MAX_INPUT_BYTES = 32_768


class OverBudgetError(Exception):
    """An input took more time or memory than its size permits."""


class Target(NamedTuple):
    """A parser, or several that read the same bytes.

    check: calls them with one input, and raises whatever a caller would not expect.
    seeds: returns good inputs. words: parts of inputs that a mutation inserts. mutators: those that know the format, and others.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()
    mutators: Sequence[Mutator] = ANY

    def mutate(self, data: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
        """Return a changed input of at most `MAX_INPUT_BYTES`. seeds: those of this target."""
        if self.words and rng.random() < 0.4:
            at = rng.randrange(len(data) + 1)
            changed = data[:at] + rng.choice(self.words) * rng.choice((1, 1, 1, 2, 100)) + data[at + rng.choice((0, 0, 1, 4)) :]
        else:
            changed = rng.choice(self.mutators)(data, rng, seeds)
        return changed[:MAX_INPUT_BYTES]

    def run(self, data: bytes) -> None:
        """Check one input within its budget. Raises `OverBudgetError`, and what `check` raises."""
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.thread_time()
        self.check(data)
        seconds = time.thread_time() - started
        grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) * 1_024
        if seconds > _SECONDS + _SECONDS_PER_BYTE * len(data):
            raise OverBudgetError(f"{seconds:.1f} s of CPU for {len(data)} bytes")
        if grown_bytes > _MAX_GROWN_BYTES:
            raise OverBudgetError(f"{grown_bytes >> 20} MiB for {len(data)} bytes")


def check_client_error(error: ServiceError) -> None:
    """Check that a client gets this error as a response of 400 to 499 that explains it, in a few kilobytes."""
    status, headers, body = plain_response(error)
    assert 400 <= status < 500, status
    assert not any(set(b"\r\n\0") & set(name + value) for name, value in headers)
    assert 0 < len(body) < 8_192, len(body)
    assert error.expected, error.detail
    assert error.remedy, error.detail


def check_failure(error: ImageError) -> None:
    """Check that the failure of an image names its reason, and is not one of the server."""
    failure = error.failure
    assert failure.kind in {"broken", "unsupported", "too-many-pixels", "too-complex"}, failure.kind
    assert failure.detail
    assert failure.expected or failure.received
    assert failure.remedy

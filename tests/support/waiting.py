"""Waiting for another process or thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

# Bounds a hang; a busy machine may take a good part of it.
PATIENCE_SECONDS = 120.0

# Set by `make test-faults` and `make promises`, which need a machine that has nothing else to do.
CHECKS_SECONDS = bool(os.environ.get("CHECK_SECONDS"))

Test = TypeVar("Test", bound=Callable[..., Any])


def compares_milliseconds(test: Test) -> Test:
    """Mark a test as `exclusive` where seconds are checked; elsewhere other tests may run beside it."""
    return pytest.mark.exclusive(test) if CHECKS_SECONDS else test


def limit(seconds: float) -> float:
    """Return the time that something may take: `seconds` where they are checked, and elsewhere, on a machine that may be busy, 120."""
    return seconds if CHECKS_SECONDS else PATIENCE_SECONDS


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Return soon after `condition()` has become true; raises `TimeoutError` if it is not within `seconds`."""
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        if waited > seconds:
            raise TimeoutError(f"the condition did not become true within {seconds:g} seconds")
        time.sleep(pause_seconds(waited))


def pause_seconds(waited_seconds: float) -> float:
    """Return the pause before a condition is evaluated again: a tenth of the time waited so far, between 10 and 100 milliseconds.

    Many conditions are a request to a server or read its whole log, so that at short intervals a long wait would take much CPU time.
    """
    return min(max(waited_seconds / 10, 0.01), 0.1)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Check that the block takes less than `limit(seconds)`."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < limit(seconds)

"""Waiting for another process or thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Bounds a hang; a busy machine may take a good part of it.
PATIENCE_SECONDS = 120.0

# Set by `make test-faults`, which needs a machine that has nothing else to do.
_CHECKS_SECONDS = bool(os.environ.get("CHECK_SECONDS"))


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as `condition()` is true; raises `TimeoutError` if it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition did not become true within {seconds:g} seconds")
        time.sleep(0.01)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Check that the block takes less than `seconds` in `make test-faults`, and elsewhere, where the machine may be busy, that it ends."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < (seconds if _CHECKS_SECONDS else PATIENCE_SECONDS)

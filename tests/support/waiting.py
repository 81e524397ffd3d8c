"""Waiting for another process or thread."""

from __future__ import annotations

import time
from collections.abc import Callable

# Bounds a hang; a busy machine may take a good part of it.
PATIENCE_SECONDS = 120.0


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as `condition()` is true; raises `TimeoutError` if it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition did not become true within {seconds:g} seconds")
        time.sleep(0.01)

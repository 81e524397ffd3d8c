"""How a maintenance command reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a command, step by step: a progress bar, for example."""

    def begin(self, step: str, objects: int, size: int) -> None:
        """Begin a step that processes `objects` objects with `size` bytes in total."""

    def advance(self, size: int) -> None:
        """Count one more object of the current step as done, with its `size` in bytes."""

"""Files that are written completely, and that survive a power failure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temp_file(directory: Path, body: bytes, *, prefix: str) -> Iterator[Path]:
    """Give the path of a new file that contains `body`, synced to disk, and readable by its owner only.

    Rename it, or link it, to publish it as a whole; then `fsync_path(directory)` makes the new name durable. Under its own name it is
    removed at the end.
    """
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=prefix)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Make the contents of a file, or the entries of a directory, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

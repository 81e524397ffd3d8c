"""Files that are written completely, and that survive a power failure, and files that are read without waiting."""

from __future__ import annotations

import errno
import os
import stat
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


def replace_file(path: Path, body: bytes) -> None:
    """Write `body` to a file that exists as a whole at any moment, with its old contents or the new ones; only its owner may read it."""
    with temp_file(path.parent, body, prefix=path.name) as draft:
        draft.replace(path)


def fsync_path(path: Path) -> None:
    """Make the contents of a file, or the entries of a directory, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the contents of a regular file, at most `max_bytes` of them.

    Raises `OSError` if it cannot be read, and for anything else under that name: a named pipe would wait for a writer for ever.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return file.read(max_bytes)

"""Uploads: the bytes of an image on their way in, in a file of the spool until they are stored."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread

from service.errors import StorageFullError
from service.images.digest import digest_from_sha256
from service.storage.disk import FULL_DISK

# Bytes are collected and written in blocks of this size, in a thread: starting the thread costs as much as writing a block.
_WRITE_BYTES = 1 << 20


class Upload:
    """One upload: its file, the number of bytes so far, and their digest. The caller bounds its size."""

    def __init__(self, path: Path) -> None:
        """Open the file for writing.

        path: where the upload is written; `close` removes it.
        """
        self.path = path
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        self._pending = bytearray()

    def __repr__(self) -> str:
        return f"<Upload: {self.bytes} bytes in {self.path}>"

    @property
    def digest(self) -> str:
        """The digest of the bytes so far."""
        return digest_from_sha256(self._sha256.digest())

    async def write(self, chunk: bytes) -> None:
        """Append bytes; raises `StorageFullError` if the spool's file system is full."""
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        self._pending += chunk
        if len(self._pending) >= _WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write all bytes so far to the file; raises `StorageFullError`."""
        pending, self._pending = self._pending, bytearray()
        try:
            await anyio.to_thread.run_sync(_write_all, self._file.fileno(), pending)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise StorageFullError(
                    "The spool has no room for this upload.", remedy="Free room on the server, then send it again."
                ) from error
            raise

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class UploadSpool:
    """The folder for uploads on this machine's disk. It has no use across restarts."""

    def __init__(self, folder: Path) -> None:
        """Use a folder.

        folder: where the files lie. `clear` creates it.
        """
        self._folder = folder

    def clear(self) -> None:
        """Create the folder, and remove the files that an ended process has left in it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            path.unlink()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Upload]:
        """Give an empty upload, whose file is removed afterwards."""
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        os.close(descriptor)
        upload = Upload(Path(name))
        try:
            yield upload
        finally:
            upload.close()


def _write_all(descriptor: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

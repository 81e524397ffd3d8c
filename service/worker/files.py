"""The files of a job in a render process: they come as open descriptors, and are mapped into memory to be read."""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any, NamedTuple

import pyvips

from service.images.info import ImageInfo
from service.rendering.protocol import InputFile


class Input(NamedTuple):
    """An image to be decoded: `body` is all of its file.

    With `intermediate_of` it is the intermediate of an original with that header, else the original named `digest`.
    """

    body: memoryview
    digest: str
    intermediate_of: ImageInfo | None

    @classmethod
    def of(cls, source: InputFile, descriptor: int) -> Input:
        """Return the image that a message describes, in the file behind `descriptor`; raises as `mapped` does."""
        return cls(mapped(descriptor), source.digest, source.intermediate_of)


def mapped(descriptor: int) -> memoryview:
    """Return what the file behind `descriptor` holds; raises `OSError` for what is no regular file, `MemoryError` for want of room.

    Read-only pages of the page cache, for as long as anything refers to them. They count as address space, not as memory. Two decoders of
    one file read it independently, as they could not from one descriptor, whose offset they would share. Whoever truncates the file
    meanwhile ends the process by SIGBUS (mmap(2)): the store and the spool never do.
    """
    size = os.fstat(descriptor).st_size
    try:
        # No bytes cannot be mapped.
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b"")
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"no address space for a file of {size} bytes") from error
        raise


def load(body: memoryview, **options: Any) -> pyvips.Image:
    """Return the image in `body`, lazily decoded by libvips with the options of its loader; raises `pyvips.Error`.

    The image refers to `body`, and libvips reads it in place: no copy is made.
    """
    return pyvips.Image.new_from_source(pyvips.Source.new_from_memory(body), "", **options)

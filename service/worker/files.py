"""The image files of a job: the server hands them over as open descriptors, and they are mapped into memory to be read."""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any, NamedTuple

import pyvips

from service.images.info import ImageInfo
from service.rendering.protocol import InputFile
from service.worker.formats import isobmff
from service.worker.repair import repaired

# libvips lets libheif read this many items, which a photo of 48 megapixels in tiles exceeds (see `bounds.MAX_ITEMS`).
_LIBVIPS_MAX_ITEMS = 256


class ImageFile(NamedTuple):
    """An image file to decode.

    body: the whole file, repaired (see `service.worker.repair`).
    stored: the whole file as it is stored; the same object as `body` if nothing had to be repaired.
    digest: of the original, empty for a new upload.
    intermediate_of: if the file is an intermediate, the header of its original; `None` if it is the original itself.
    """

    body: memoryview
    stored: memoryview
    digest: str
    intermediate_of: ImageInfo | None

    @classmethod
    def open(cls, input_file: InputFile, descriptor: int) -> ImageFile:
        """Return an image file of a job, which is open as `descriptor`. Raises `OSError` and `MemoryError` as `map_file`."""
        stored = map_file(descriptor)[input_file.start :]
        return cls(repaired(stored), stored, input_file.digest, input_file.intermediate_of)

    @classmethod
    def uploaded(cls, descriptor: int) -> ImageFile:
        """Return a new upload, which is open as `descriptor`. Raises `OSError` and `MemoryError` as `map_file`."""
        stored = map_file(descriptor)
        return cls(repaired(stored), stored, "", None)


def map_file(descriptor: int) -> memoryview:
    """Return the content of an open file, as read-only pages of the page cache.

    The mapping lasts as long as anything refers to it. It takes address space, but no memory of its own. Two decoders of one file read it
    independently; from one descriptor they could not, because they would share its offset. If the file were truncated meanwhile, SIGBUS
    would end the process (mmap(2)): the store and the upload spool never truncate a file.

    Raises `OSError` if it is not a regular file, and `MemoryError` if there is no address space for it.
    """
    size = os.fstat(descriptor).st_size
    try:
        # An empty file cannot be mapped.
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b"")
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"no address space for a file of {size} bytes") from error
        raise


def open_image(body: memoryview, **options: Any) -> pyvips.Image:
    """Return the image in `body`, which libvips decodes lazily and in place. Raises `pyvips.Error`.

    options: of the file's loader (https://www.libvips.org/API/current/ctor.Image.new_from_source.html).
    """
    if bytes(body[4:8]) == b"ftyp" and isobmff.item_count(body) > _LIBVIPS_MAX_ITEMS:
        options["unlimited"] = True
    return pyvips.Image.new_from_source(pyvips.Source.new_from_memory(body), "", **options)

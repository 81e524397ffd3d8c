"""Memory of this process: how much is resident, and whether the limit of its address space (RLIMIT_AS) caused a failure."""

from __future__ import annotations

import mmap
import os

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# Messages of libvips, its codecs, pillow-heif, Python and ld.so when an allocation, a thread or a library finds no address space. The last
# ones are of AVIF encoders, which seldom give a reason: their input is valid and of a size that they accept, so only memory can be short.
_OUT_OF_MEMORY = (
    "out of memory",
    "insufficient memory",
    "memory allocation",
    "memoryerror",
    "memory error",
    "cannot allocate",
    "failed to allocate",
    "unable to allocate",
    "error creating thread",
    "can't start new thread",
    "failed to map segment",
    "encoder plugin generated an error",
    "encoding of color planes failed",
    "encoding of alpha plane failed",
)
# Messages that mention memory when a broken file declares more than any limit allows: of libheif for a header beyond its limits, of libvips
# for GIF frames beyond 65,536 pixels, and of libtiff beyond the limit that libvips sets, or for more values in an entry than there is room.
_INVALID_SIZE = (
    "security limit exceeded",
    "memory allocation error: invalid",
    "gifload: bad image dimensions",
    "byte limit defined in open options",
    "out of memory reading of",
)
# Messages that concern no allocation: of Little CMS for a profile in memory that ends before one of its tags does, and of libtiff for a
# directory without entries.
_UNRELATED = ("read from memory error", "failed to allocate memory for to read tiff directory (0 elements")


def resident_bytes(statm: bytes) -> int:
    """Return how much of a process's memory is in RAM, given its `/proc/pid/statm` (proc_pid_statm(5))."""
    return int(statm.split()[1]) * _PAGE_BYTES


def has_space_for(size: int) -> bool:
    """Return whether `size` more bytes could be mapped now. Nothing is written to them, so they cost no memory."""
    try:
        mmap.mmap(-1, size).close()
    except (MemoryError, OSError):
        return False
    return True


def is_out_of_memory(message: str) -> bool:
    """Return whether an error message says that an allocation failed under the limit of address space."""
    text = message.lower()
    for phrase in _UNRELATED:
        text = text.replace(phrase, "")
    return any(phrase in text for phrase in _OUT_OF_MEMORY) and not any(phrase in text for phrase in _INVALID_SIZE)

"""How much memory a process has, and how near it came to the cap on its address space (RLIMIT_AS, getrlimit(2))."""

from __future__ import annotations

import os

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# Words of libvips, its codecs, pillow-heif, Python and ld.so for an allocation, a thread or a library that found no address space. AVIF's
# encoder seldom gives the reason, but the pixels that it gets are whole and of a size that it takes: only memory is left.
_SIGNS = (
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
)
# libheif calls it a memory allocation error when a header declares more than libheif ever takes, and libvips calls it out of memory when
# the frames of a GIF reach beyond 65,536 pixels; libtiff says so when it refuses more than libvips lets it have, or when an entry of a
# directory declares more values than there is room for.
_ABSURD_SIGNS = (
    "security limit exceeded",
    "gifload: bad image dimensions",
    "byte limit defined in open options",
    "out of memory reading of",
)
# Words that are about no allocation of any size: of Little CMS for a profile in memory that ends before a tag of it does, and of libtiff
# for a directory without entries.
_MISLEADING = ("read from memory error", "failed to allocate memory for to read tiff directory (0 elements")


def resident_bytes(statm: bytes) -> int:
    """Return how much of a process's memory is in RAM by its `statm` (proc_pid_statm(5))."""
    return int(statm.split()[1]) * _PAGE_BYTES


def ran_out(words: str) -> bool:
    """Return whether the words of a failure say that an allocation failed under the cap."""
    said = words.lower()
    for phrase in _MISLEADING:
        said = said.replace(phrase, "")
    return any(sign in said for sign in _SIGNS) and not any(sign in said for sign in _ABSURD_SIGNS)

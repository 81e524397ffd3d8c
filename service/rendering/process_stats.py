"""The memory and the CPU time of a render process, read from /proc (proc(5))."""

from __future__ import annotations

import os
from typing import NamedTuple

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# More than any of the files has.
_MAX_BYTES = 8_192

# A process that had less address space left than this at its tightest may have failed for want of it, even if its codecs report something
# else: the stack of a thread takes 8 MiB, and libde265 and libheif report a failed allocation as a broken file.
NARROW_BYTES = 16 << 20


class MemoryUsage(NamedTuple):
    """In bytes: the address space that is mapped now, and how much of it is in RAM."""

    mapped_bytes: int
    resident_bytes: int


def memory_usage(process_id: int) -> MemoryUsage:
    """Return the memory that a process uses, zeros if it has ended (proc_pid_statm(5): size, resident).

    It is read after every job. The kernel takes several times as long for `status`, which says the same.
    """
    mapped, resident = (_read(process_id, "statm").split() or (0, 0))[:2]
    return MemoryUsage(int(mapped) * _PAGE_BYTES, int(resident) * _PAGE_BYTES)


def most_mapped_bytes(process_id: int) -> int:
    """Return the largest address space that a process has had so far, 0 if it has ended (proc_pid_status(5): VmPeak)."""
    lines = _read(process_id, "status").splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(b"VmPeak:")), 0)


def cpu_seconds(process_id: int) -> float:
    """Return the CPU time of a process in user and kernel mode, 0 if it has ended (proc_pid_stat(5): utime, stime)."""
    try:
        # The name of the program, in parentheses, may contain spaces.
        fields = _read(process_id, "stat").rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS
    except IndexError:
        return 0.0


def _read(process_id: int, name: str) -> bytes:
    """Return a file of a process in /proc, empty if the process has ended. A `Path` would take longer than the kernel."""
    try:
        descriptor = os.open(f"/proc/{process_id}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _MAX_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)

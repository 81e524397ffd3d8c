"""The memory and the CPU time of a render process, read from /proc (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# A process that had less address space left than this at its tightest may have failed for want of it, even if its codecs report something
# else: the stack of a thread takes 8 MiB, and libde265 and libheif report a failed allocation as a broken file.
NARROW_BYTES = 16 << 20


class MemoryUsage(NamedTuple):
    """In bytes: the address space that is mapped now, the most that has been mapped so far, and how much of it is in RAM."""

    mapped_bytes: int
    most_mapped_bytes: int
    resident_bytes: int


def memory_usage(process_id: int) -> MemoryUsage:
    """Return the memory that a process uses, zeros if it has ended (proc_pid_status(5): VmSize, VmPeak, VmRSS)."""
    try:
        status = Path(f"/proc/{process_id}/status").read_bytes()
    except OSError:
        status = b""
    fields = dict(line.split(b":", 1) for line in status.splitlines() if line.startswith(b"Vm"))
    return MemoryUsage(*(int(fields.get(name, b"0 kB").split()[0]) << 10 for name in (b"VmSize", b"VmPeak", b"VmRSS")))


def cpu_seconds(process_id: int) -> float:
    """Return the CPU time of a process in user and kernel mode, 0 if it has ended (proc_pid_stat(5): utime, stime)."""
    try:
        # The name of the program, in parentheses, may contain spaces.
        fields = Path(f"/proc/{process_id}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS
    except (OSError, IndexError):
        return 0.0

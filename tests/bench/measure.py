"""CPU time, memory and priority of running processes, and comparisons of figures that are measured alternately."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

import msgspec

from service.rendering.protocol import PROCESS_NAME

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# proc(5), /proc/<pid>/stat after the name in parentheses: ppid; utime, stime, cutime, cstime in clock ticks.
_PARENT_FIELD = 1
_CHILDREN_CPU_FIELDS = slice(13, 15)

# CPUCLOCK_SCHED of Linux: user and system time by the scheduler, at the resolution of its clock.
_SCHEDULED = 2

_ROUNDS_WITH_QUARTILES = 4

Figure = TypeVar("Figure")


class Comparison(msgspec.Struct, frozen=True):
    """Figures of Darkroom (`ours`) and of the bare limit, one of each per round, in the same unit."""

    ours: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios, on which changes of the machine between rounds have no effect."""
        return median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """Ours divided by bare, for each round."""
        return [ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)]


def alternate(ours: Callable[[], float], bare: Callable[[], float], rounds: int) -> Comparison:
    """Return the figures of both functions over `rounds` rounds. They run one after the other, and every round swaps which one is first."""
    figures = alternate_all({"ours": ours, "bare": bare}, rounds)
    return Comparison(figures["ours"], figures["bare"])


def alternate_all(functions: Mapping[str, Callable[[], Figure]], rounds: int) -> dict[str, list[Figure]]:
    """Return the figures of all functions over `rounds` rounds, by their names. Every round begins with another function."""
    names = list(functions)
    figures: dict[str, list[Figure]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            figures[name].append(functions[name]())
    return figures


def spread(figures: Sequence[float]) -> float:
    """Return the interquartile range of the figures of several rounds; of fewer than four, the difference between highest and lowest."""
    if len(figures) < _ROUNDS_WITH_QUARTILES:
        return max(figures) - min(figures)
    lower, _, upper = quantiles(figures, n=4, method="inclusive")
    return upper - lower


class Priority(msgspec.Struct, frozen=True):
    """The niceness of a process, and that of its session's group if the kernel has autogroups (sched(7))."""

    nice: int
    group_nice: int | None

    def apply(self) -> None:
        """Set the priority of the calling process, which has to be its session's leader."""
        os.nice(self.nice - os.getpriority(os.PRIO_PROCESS, 0))
        if self.group_nice:
            Path("/proc/self/autogroup").write_text(str(self.group_nice), "ascii")


def priority(process_id: int) -> Priority:
    """Return the priority of a running process."""
    group = _text(process_id, "autogroup").split()
    return Priority(os.getpriority(os.PRIO_PROCESS, process_id), int(group[-1]) if group else None)


def percentile(figures: Iterable[float], share: float) -> float:
    """Return the smallest figure that at least the fraction `share` (0 to 1) of all figures do not exceed."""
    ordered = sorted(figures)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def process_tree(root: int) -> list[int]:
    """Return `root` and all processes that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT_FIELD]), []).append(int(entry.name))
    tree = [root]
    for process_id in tree:
        tree.extend(children.get(process_id, ()))
    return tree


def render_processes(root: int) -> list[int]:
    """Return the render processes among the descendants of `root`."""
    return [process_id for process_id in process_tree(root) if _text(process_id, "comm").rstrip() == PROCESS_NAME.encode()]


def rendering_processes(root: int) -> list[int]:
    """Return the fork server among the descendants of `root`, and the render processes that it has forked."""
    return [process_id for process_id in process_tree(root) if b"service.worker" in _text(process_id, "cmdline").split(b"\0")]


def cpu_seconds(process_ids: Collection[int]) -> float:
    """Return the user and system time of these processes so far in seconds, with that of their children that were waited for."""
    return sum(map(_own_cpu_seconds, process_ids)) + sum(_children_cpu_seconds(process_id) for process_id in process_ids)


def busy_cores(seconds: float) -> float:
    """Return how many cores of the machine are busy on average over `seconds`; call it while nothing of the benchmark works."""

    def ticks() -> int:
        # proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
        fields = [int(field) for field in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4]

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / _TICKS_PER_SECOND / seconds


def pss_bytes(process_ids: Sequence[int]) -> int:
    """Return the proportional set size of these processes: a page that several processes share counts as a fraction for each."""
    return sum(_number(process_id, "smaps_rollup", b"Pss:") for process_id in process_ids) << 10


def peak_bytes(process_id: int) -> int:
    """Return the highest resident memory of a process so far, or 0 if it has ended."""
    return _number(process_id, "status", b"VmHWM:") << 10


def read_bytes(process_ids: Sequence[int]) -> int:
    """Return how many bytes these processes have read so far, from the page cache or from disk (`rchar` of proc(5))."""
    return sum(_number(process_id, "io", b"rchar:") for process_id in process_ids)


def _number(process_id: int, file: str, field: bytes) -> int:
    return next((int(line.split()[1]) for line in _text(process_id, file).splitlines() if line.startswith(field)), 0)


def _own_cpu_seconds(process_id: int) -> float:
    try:
        # The CPU-time clock of the process (clock_getcpuclockid(3)), in nanoseconds: the ticks of proc(5) are 10 ms long.
        return time.clock_gettime(~process_id << 3 | _SCHEDULED)
    except OSError:
        # The process has ended.
        return 0.0


def _children_cpu_seconds(process_id: int) -> float:
    return sum(int(ticks) for ticks in _stat(process_id)[_CHILDREN_CPU_FIELDS]) / _TICKS_PER_SECOND


def _stat(process_id: int) -> list[bytes]:
    return _text(process_id, "stat").rpartition(b")")[2].split()


def _text(process_id: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{process_id}/{file}").read_bytes()
    except OSError:
        # The process has ended.
        return b""

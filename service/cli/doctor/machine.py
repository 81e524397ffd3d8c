"""What this machine grants a server: memory, descriptors, cores, and the port to listen on."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from service.cli.doctor.finding import Finding, ok
from service.http.connections import MAX_CONNECTIONS, RESERVED_DESCRIPTORS
from service.settings.environment import Configuration

_MEBIBYTE = 1 << 20

_CGROUPS = Path("/sys/fs/cgroup")


def check_machine(configuration: Configuration) -> Iterator[Finding]:
    """Compare the budgets in the settings with the limits of memory, descriptors and cores."""
    yield _check_memory(configuration)
    yield _check_descriptors()
    yield _check_cores(configuration)


def _check_memory(configuration: Configuration) -> Finding:
    server, rendering = configuration.settings.server, configuration.settings.rendering
    # The cap is on address space, of which the mapped libraries are a part: about as much as the server itself needs.
    budget = server.cache_bytes + rendering.processes * rendering.memory_bytes
    limit, source = _memory_limit()
    parts = (
        f"{server.cache_bytes // _MEBIBYTE} MiB of stored responses and {rendering.processes} × {rendering.memory_bytes // _MEBIBYTE} MiB"
    )
    if budget <= limit:
        return ok("memory", f"{limit // _MEBIBYTE:,} MiB ({source}) are enough for {parts} of render processes.")
    smallest = server.cache_bytes + rendering.memory_bytes
    return Finding(
        "memory",
        "error" if smallest > limit else "warning",
        "The budgets of memory are larger than the memory.",
        f"at most {limit // _MEBIBYTE:,} MiB ({source})",
        f"{budget // _MEBIBYTE:,} MiB: {parts} of render processes",
        "Lower DARKROOM_CACHE_BYTES or DARKROOM_RENDER_PROCESSES, or give it more memory: the kernel kills a process when it runs out.",
    )


def _check_descriptors() -> Finding:
    # Granian raises the soft limit to the hard one.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return ok("descriptors", f"Enough descriptors for {MAX_CONNECTIONS:,} connections.")
    connections = max(1, hard - RESERVED_DESCRIPTORS)
    return Finding(
        "descriptors",
        "error" if connections < 128 else "warning",
        f"The limit of open files leaves room for {connections:,} {'connection' if connections == 1 else 'connections'}.",
        f"at least {wanted:,}",
        f"{hard:,}",
        f"Raise it: ulimit -Hn {wanted}, LimitNOFILE={wanted} in a systemd unit, or docker run --ulimit nofile={wanted}.",
    )


def _check_cores(configuration: Configuration) -> Finding:
    processes, cores = configuration.settings.rendering.processes, _granted_cores()
    if cores is None or processes <= cores + 0.5:
        return ok("cores", f"{processes} render {'process' if processes == 1 else 'processes'}.")
    return Finding(
        "cores",
        "warning",
        "There are more render processes than the control group grants cores.",
        f"at most {max(1, round(cores))}",
        str(processes),
        "Set DARKROOM_RENDER_PROCESSES: renders would be throttled in the middle, and their time is estimated wrongly.",
    )


def _memory_limit() -> tuple[int, str]:
    """Return how many bytes this process may use, and what limits it: the machine, or a control group (cgroups(7))."""
    # /proc/meminfo is missing in a unit of systemd with ProcSubset=pid.
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [(total, "the machine's memory")]
    for group in _own_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [(int(text), "the limit of the control group")] if (text := _read(group / name)).isdigit() else []
    return min(limits)


def _granted_cores() -> float | None:
    """Return how many cores' time the control group grants, `None` if it does not limit that."""
    granted = []
    for group in _own_groups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            granted.append(int(quota) / int(period))
    return min(granted, default=None)


def _own_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those above it, of version 2 and 1."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        number, controllers, path = line.split(":", 2)
        root = _CGROUPS if number == "0" else _CGROUPS / controllers
        if number == "0" or controller in controllers.split(","):
            group = root / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""

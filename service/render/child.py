"""A render process: takes one job at a time from its standard input and answers on its standard output."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import traceback
from typing import BinaryIO

import pyvips

from service.parent_death import end_with_parent
from service.render import messages
from service.render.job import HeavyError, run_probe, run_render, too_costly
from service.render.messages import LENGTH_BYTES, Failure, Heavy, Job, Probe, Ready, Reply
from service.render.probe import ImageError, allow_only_offered_loaders

# The lowest priority there is: with two AVIF renders running, a hit's p99 was 7 to 12 times its idle value at 0, and equal at 19.
NICENESS = 19

# Above this the heap's free pages go back to the system after a job.
_TRIM_ABOVE_BYTES = 96 << 20

_libc = ctypes.CDLL(None)


def main() -> None:
    """Serve jobs until standard input ends. Arguments: the server's process id, and this process's address space in bytes."""
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    # A process group of its own: Ctrl-C in a terminal reaches the server alone, which lets renders finish. Not a session: the kernel
    # schedules each session as a group (sched(7), autogroup), and niceness counts within one only.
    os.setpgid(0, 0)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Whatever a codec prints must not land between two messages.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pyvips.cache_set_max(0)
    allow_only_offered_loaders()
    version = ".".join(str(pyvips.version(part)) for part in range(3))
    _send(replies, Ready(version))
    jobs = sys.stdin.buffer
    while length := jobs.read(LENGTH_BYTES):
        job = messages.decode_job(jobs.read(int.from_bytes(length, "big")))
        reply = _done(job)
        if messages.resident_bytes(os.getpid()) > _TRIM_ABOVE_BYTES:
            _libc.malloc_trim(0)
        _send(replies, reply)


def _done(job: Job) -> Reply:
    try:
        return run_probe(job) if isinstance(job, Probe) else run_render(job)
    except HeavyError:
        return Heavy()
    except ImageError as error:
        return error.failure
    except MemoryError as error:
        return too_costly(repr(error))
    except Exception:
        return Failure("failed", "The image could not be rendered.", remedy="Check the file.", cause=traceback.format_exc())


def _send(replies: BinaryIO, message: Reply) -> None:
    replies.write(messages.framed(message))
    replies.flush()


def _die_with(parent: int) -> None:
    """Have this process killed when the server ends, in whatever way."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        # It ended between the spawn and the line above.
        sys.exit(1)


if __name__ == "__main__":
    main()

"""A render process: receives one job at a time with its open files on standard input, and replies on standard output.

The server starts a fork server (see `fork_server`), which becomes a render process with every fork.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyvips

from service.errors import BadTransformError, TooManyPixelsError
from service.process import end_with_parent, name_process
from service.rendering import protocol
from service.rendering.protocol import (
    LENGTH_BYTES,
    PROCESS_NAME,
    CodecSupport,
    Failure,
    FailureKind,
    FindTrim,
    ImageError,
    Job,
    Library,
    MakeIntermediate,
    NeedsExclusive,
    NextRendition,
    Probe,
    Ready,
    Render,
    RenderLadder,
    Reply,
    Sandbox,
    SelfTest,
    Tested,
)
from service.worker import memory, probe, sandbox, vips_errors, warm_up
from service.worker.failures import out_of_memory
from service.worker.fork_server import fork_on_request, leave_process_group
from service.worker.jobs import NeedsExclusiveError, run_find_trim, run_ladder, run_make_intermediate, run_probe, run_render

# The lowest priority. With two AVIF renders running, the p99 of cache hits was 7 to 12 times its idle value at niceness 0, and equal at 19.
NICENESS = 19

# If more than this is resident after a job, free pages of the heap are returned to the system.
_TRIM_HEAP_ABOVE_BYTES = 96 << 20

# So are they when no job has come for so long. Not sooner: the next job gets each of these pages back with a page fault, which makes
# 12 to 17 ms of CPU for the rendition of a camera's photo, and where few renditions are missing, every job comes after a pause.
_IDLE_SECONDS = 30.0

# More than the seven numbers of /proc/self/statm (proc_pid_statm(5)) need.
_STATM_BYTES = 256

# An original and its overlay.
_MAX_FILES = 2

_libc = ctypes.CDLL(None)


def main() -> None:
    """Fork render processes, and in each of them do jobs until standard input is closed, in a sandbox (see `sandbox`).

    Command line arguments: the process id of the server, and the limit of a render process's address space in bytes.
    """
    server, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    _end_with(server)
    # The server may block signals while it starts, and a process inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    leave_process_group()
    os.nice(NICENESS)
    pyvips.cache_set_max(0)
    vips_errors.decode_leniently()
    probe.block_unused_loaders()
    warm_up.load_libraries()
    fork_on_request()
    _end_with(server)
    name_process(PROCESS_NAME)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Opened now, because the sandbox will forbid it; it is read after each job.
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    # Must come before libvips starts a thread (see `restrict_files`).
    landlock = sandbox.restrict_files(sandbox.readable_paths(Path(__file__).parents[1], Path(pyvips.__file__).parents[1]))
    # Standard output becomes standard error, so that codecs that print something do not corrupt the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    writes = warm_up.load_codecs()
    version = ".".join(str(pyvips.version(part)) for part in range(3))
    confinement = Sandbox(landlock, seccomp=sandbox.filter_system_calls(), no_new_privs=sandbox.has_no_new_privs())
    # Loading all codecs has needed more memory than most jobs do.
    _libc.malloc_trim(0)
    _send(replies, Ready(CodecSupport(version, probe.readable_formats(), writes), confinement))
    ladder: Iterator[Reply] = iter(())
    jobs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sys.stdin.fileno())
    while (received := _receive(jobs)) is not None:
        job, descriptors = received
        if not isinstance(job, NextRendition):
            # Any other job ends the previous ladder, which releases its decoded picture.
            ladder = run_ladder(job, *descriptors) if isinstance(job, RenderLadder) else iter(())
        reply = _reply_to(job, descriptors, ladder)
        for descriptor in descriptors:
            os.close(descriptor)
        if memory.resident_bytes(os.pread(statm, _STATM_BYTES, 0)) > _TRIM_HEAP_ABOVE_BYTES:
            _libc.malloc_trim(0)
        _send(replies, reply)


def _receive(jobs: socket.socket) -> tuple[Job, list[int]] | None:
    """Return the next job and the descriptors of its files (unix(7), SCM_RIGHTS), or `None` if the server has closed the socket."""
    if not select.select([jobs], [], [], _IDLE_SECONDS)[0]:
        _libc.malloc_trim(0)
    length, descriptors, _, _ = socket.recv_fds(jobs, LENGTH_BYTES, _MAX_FILES, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL)
    if not length:
        return None
    return protocol.decode_job(jobs.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)), descriptors


def _reply_to(job: Job, descriptors: list[int], ladder: Iterator[Reply]) -> Reply:
    """Return the reply to a job. Failures of any kind are replies too."""
    vips_errors.clear()
    try:
        return _run(job, descriptors, ladder)
    except NeedsExclusiveError:
        return NeedsExclusive()
    except ImageError as error:
        return error.failure
    except (BadTransformError, TooManyPixelsError) as error:
        return _failure(error)
    except Exception as error:
        cause = traceback.format_exc()
        if memory.is_out_of_memory(repr(error)):
            return out_of_memory(cause)
        return Failure("failed", "The image could not be rendered.", remedy="Check the file.", cause=cause)
    finally:
        vips_errors.clear()


def _run(job: Job, descriptors: list[int], ladder: Iterator[Reply]) -> Reply:
    match job:
        case Probe():
            return run_probe(job, *descriptors)
        case Render():
            return run_render(job, *descriptors)
        case MakeIntermediate():
            return run_make_intermediate(job, *descriptors)
        case FindTrim():
            return run_find_trim(job, *descriptors)
        case SelfTest():
            warm_up.load_codecs()
            return Tested(_libraries() if job.list_libraries else ())
        case RenderLadder() | NextRendition():
            return next(ladder, Failure("failed", "The ladder has no more renditions."))


def _libraries() -> tuple[Library, ...]:
    # Needed once, by a diagnosis.
    from service.worker.libraries import installed  # noqa: PLC0415

    return tuple(installed())


def _failure(error: BadTransformError | TooManyPixelsError) -> Failure:
    kind: FailureKind = "bad-transform" if isinstance(error, BadTransformError) else "too-many-pixels"
    return Failure(kind, error.detail, error.expected, error.received, error.remedy)


def _send(replies: BinaryIO, message: Reply) -> None:
    replies.write(protocol.framed(message))
    replies.flush()


def _end_with(parent: int) -> None:
    """Have this process killed when the server ends, even if the server is killed."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        # The server ended after it started this process and before the line above.
        sys.exit(1)


if __name__ == "__main__":
    main()

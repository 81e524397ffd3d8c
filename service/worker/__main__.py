"""A render process: takes one job at a time from its standard input, with its open files, and answers on its standard output."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyvips

from service.errors import BadTransformError, TooManyPixelsError
from service.process import end_with_parent
from service.rendering import protocol
from service.rendering.protocol import (
    LENGTH_BYTES,
    Failure,
    FailureKind,
    FindTrim,
    ImageError,
    Job,
    MakeIntermediate,
    NeedsExclusive,
    NextRendition,
    Probe,
    Ready,
    Render,
    Rendered,
    RenderLadder,
    Reply,
    Sandbox,
    SelfTest,
)
from service.worker import memory, probe, sandbox, save, vips_errors, warm_up
from service.worker.jobs import NeedsExclusiveError, run_find_trim, run_ladder, run_make_intermediate, run_probe, run_render, too_costly
from service.worker.probe import allow_only_offered_loaders

# The lowest priority there is: with two AVIF renders running, a hit's p99 was 7 to 12 times its idle value at 0, and equal at 19.
NICENESS = 19

# Above this the heap's free pages go back to the system after a job.
_TRIM_ABOVE_BYTES = 96 << 20

# Seven numbers (proc(5), statm).
_STATM_BYTES = 256

# An original, and the image that is laid over it.
_MAX_FILES = 2

_libc = ctypes.CDLL(None)


def main() -> None:
    """Serve jobs until standard input ends, confined (see `sandbox`).

    Arguments: the server's process id, and this process's address space in bytes.
    """
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    # A process group of its own: Ctrl-C in a terminal reaches the server alone, which lets renders finish. Not a session: the kernel
    # schedules each session as a group (sched(7), autogroup), and niceness counts within one only.
    os.setpgid(0, 0)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Its own memory is looked at after each job, when it could no longer open this.
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    # Before libvips starts a thread.
    landlock = sandbox.restrict_files(sandbox.readable_paths(Path(__file__).parents[1], Path(pyvips.__file__).parents[1]))
    # Whatever a codec prints must not land between two messages.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pyvips.cache_set_max(0)
    vips_errors.decode_leniently()
    allow_only_offered_loaders()
    warm_up.load_codecs()
    version = ".".join(str(pyvips.version(part)) for part in range(3))
    reads, writes = probe.offered(), save.offered()
    confined = Sandbox(landlock, seccomp=sandbox.filter_system_calls(), no_new_privs=sandbox.has_no_new_privs())
    _send(replies, Ready(version, reads, writes, confined))
    ladder: Iterator[Reply] = iter(())
    jobs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sys.stdin.fileno())
    while (received := _receive(jobs)) is not None:
        job, descriptors = received
        if not isinstance(job, NextRendition):
            # A ladder that is not gone on with lets its picture go.
            ladder = run_ladder(job, *descriptors) if isinstance(job, RenderLadder) else iter(())
        reply = _answer(job, descriptors, ladder)
        for descriptor in descriptors:
            os.close(descriptor)
        if memory.resident_bytes(os.pread(statm, _STATM_BYTES, 0)) > _TRIM_ABOVE_BYTES:
            _libc.malloc_trim(0)
        _send(replies, reply)


def _receive(jobs: socket.socket) -> tuple[Job, list[int]] | None:
    """Return the next job and the descriptors of its files (unix(7), SCM_RIGHTS), `None` once the server has closed the socket."""
    length, descriptors, _, _ = socket.recv_fds(jobs, LENGTH_BYTES, _MAX_FILES, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL)
    if not length:
        return None
    return protocol.decode_job(jobs.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)), descriptors


def _answer(job: Job, descriptors: list[int], ladder: Iterator[Reply]) -> Reply:
    """Return the reply to a job; whatever goes wrong is a reply too."""
    vips_errors.clear()
    try:
        return _done(job, descriptors, ladder)
    except NeedsExclusiveError:
        return NeedsExclusive()
    except ImageError as error:
        return error.failure
    except (BadTransformError, TooManyPixelsError) as error:
        return _failure(error)
    except Exception as error:
        cause = traceback.format_exc()
        if memory.ran_out(repr(error)):
            return too_costly(cause)
        return Failure("failed", "The image could not be rendered.", remedy="Check the file.", cause=cause)
    finally:
        vips_errors.clear()


def _done(job: Job, descriptors: list[int], ladder: Iterator[Reply]) -> Reply:
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
            return Rendered(b"", 1, 1)
        case RenderLadder() | NextRendition():
            return next(ladder, Failure("failed", "The ladder has no more renditions."))


def _failure(error: BadTransformError | TooManyPixelsError) -> Failure:
    kind: FailureKind = "bad-transform" if isinstance(error, BadTransformError) else "too-many-pixels"
    return Failure(kind, error.detail, error.expected, error.received, error.remedy)


def _send(replies: BinaryIO, message: Reply) -> None:
    replies.write(protocol.framed(message))
    replies.flush()


def _die_with(parent: int) -> None:
    """Have this process killed when the server ends, in whatever way."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        # It ended between the spawn and the line above.
        sys.exit(1)


if __name__ == "__main__":
    main()

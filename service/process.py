"""How processes end: a child with its parent, however that ends, and a fork that has no signal handlers of its own yet."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# prctl(2).
_PR_SET_PDEATHSIG = 1

# Service managers and container runtimes end a server with the first, Ctrl-C in a terminal with the second.
_ENDING = (signal.SIGTERM, signal.SIGINT)


def end_with_parent(kind: signal.Signals) -> None:
    """Have the kernel send `kind` to this process when its parent's starting thread is gone, even by SIGKILL.

    A parent that ended before this call is not noticed: compare `os.getppid()` afterwards where that matters.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, kind)


def end_with_supervisor(kind: signal.Signals) -> None:
    """Do the same in a process that `multiprocessing` has started, and exit with status 1 if its parent has ended already.

    Between the start of the process and this call modules are imported, which takes a good part of a second.
    Raises `SystemExit`; does nothing more than `end_with_parent` in a process that `multiprocessing` has not started.
    """
    end_with_parent(kind)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and os.getppid() != supervisor.pid:
        sys.exit(1)


def reset_signals_in_forks() -> None:
    """Have every process that this one forks end at once on SIGTERM, and ignore SIGINT, until it sets handlers of its own.

    A fork inherits the handlers of its parent. Granian's only set a flag, which the supervisor reads but a worker that still starts does
    not: the signal would be lost. Ctrl-C sends SIGINT to all processes at the same time, and the supervisor then sends SIGTERM to its
    worker. A signal that arrives during the fork is delivered after it, in the child as in the parent.
    """
    masks: list[set[int]] = []

    def block() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING))

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def reset() -> None:
        _end_at_once()
        restore()

    os.register_at_fork(before=block, after_in_parent=restore, after_in_child=reset)


def hold_signals() -> None:
    """Delay SIGTERM and SIGINT until `end_at_once`: Granian sets handlers before an application starts that can take only one signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


@contextmanager
def end_at_once() -> Iterator[None]:
    """Let SIGTERM end this process at once while the application starts; afterwards it ends Granian's worker gracefully.

    SIGINT is ignored from here on, as the supervisor sends SIGTERM after it. So is every SIGTERM but the first: a second one, as when a
    service manager signals all processes, blocks Granian for good if it arrives before the worker serves.
    """
    _end_at_once()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    yield
    # The event loop learns of signals by its wake-up descriptor, whichever handler is set (signal.set_wakeup_fd).
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_IGN))


def _end_at_once() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

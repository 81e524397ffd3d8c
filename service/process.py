"""Signals, and how processes end: a child with its parent, however that ends, and a fork that has no signal handlers of its own yet."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

# prctl(2).
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36

# Service managers and container runtimes end a server with the first, Ctrl-C in a terminal with the second.
_ENDING = (signal.SIGTERM, signal.SIGINT)

# The exit code of a server that refuses to start because of a setting or of its surroundings: the same again would have the same result.
EXIT_REFUSED = 2

# The signals for which Granian's supervisor has handlers.
_HANDLED = (*_ENDING, signal.SIGHUP)


def refuse_start(message: str) -> NoReturn:
    """Print in one line why this server does not start, and end its process with `EXIT_REFUSED`.

    At once, because an exception that passes through Granian would add a traceback. Nothing was started that has to be ended.
    """
    sys.stderr.write(f"darkroom: {message}\n")
    sys.stderr.flush()
    os._exit(EXIT_REFUSED)


def end_with_parent(kind: signal.Signals) -> None:
    """Have the kernel send `kind` to this process when its parent's starting thread is gone, even by SIGKILL.

    A parent that ended before this call is not noticed: compare `os.getppid()` afterwards where that matters.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, kind)


def adopt_orphans() -> None:
    """Make this process the parent of all its descendants whose parents end from now on, in place of the init process."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Give this process the name, of up to 15 bytes, that `ps` and `top` show."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode("ascii"))


def end_with_supervisor(kind: signal.Signals) -> None:
    """Do the same in a process that `multiprocessing` has started, and exit with status 1 if its parent has ended already.

    It may have ended between the start of the process and this call, in which modules may be imported.
    Raises `SystemExit`; does nothing more than `end_with_parent` in a process that `multiprocessing` has not started.
    """
    import multiprocessing  # noqa: PLC0415 - render processes do not need it

    end_with_parent(kind)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and os.getppid() != supervisor.pid:
        sys.exit(1)


def exit_on_signals() -> None:
    """Have SIGTERM and SIGINT end this process at once with status 0 until Granian sets its handlers: there is nothing to finish."""
    for kind in _ENDING:
        signal.signal(kind, lambda *_: os._exit(0))


def reset_signals_in_forks() -> None:
    """Have every process that this one forks end at once on SIGTERM, and ignore SIGINT and SIGHUP, until it sets handlers of its own.

    A fork inherits the handlers of its parent. Granian's only set a flag, which the supervisor reads but a worker that still starts does
    not: the signal would be lost. Ctrl-C sends SIGINT to all processes at the same time, and the supervisor then sends SIGTERM to its
    worker. A signal that arrives during the fork is delivered after it, in the child as in the parent.
    """
    masks: list[set[int]] = []

    def block() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED))

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def reset() -> None:
        _end_at_once()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        restore()

    os.register_at_fork(before=block, after_in_parent=restore, after_in_child=reset)


def pass_on_hangups(processes: Callable[[], Iterable[int | None]]) -> None:
    """Pass every SIGHUP that this process gets on to others; `processes` returns their ids, `None` for one that has not started yet.

    Service managers and container runtimes signal the first process (`systemctl reload`, `docker kill --signal HUP`), and the one that
    serves reads the files of tokens and keys again. Granian's own handler would replace that process, and lose all stored responses.
    """

    def pass_on(*_: object) -> None:
        for process in processes():
            if process is not None:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGHUP)

    signal.signal(signal.SIGHUP, pass_on)


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

"""Signals, and how processes end: a child with its parent, however that ends, and a server that has no signal handlers of its own yet."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# prctl(2).
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36

# Service managers and container runtimes end a server with the first, Ctrl-C in a terminal with the second.
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# The exit code of a server that refuses to start because of a setting or of its surroundings: the same again would have the same result.
EXIT_REFUSED = 2


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


def end_at_once_on_signals() -> None:
    """Have SIGTERM end this process at once, and let it ignore SIGINT and SIGHUP, until it sets handlers of its own.

    Ctrl-C sends SIGINT to all processes of a server at the same time, and its supervisor then sends SIGTERM.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def hold_signals() -> None:
    """Delay SIGTERM and SIGINT until `end_at_once`: Granian sets handlers before an application starts that can take only one signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)


@contextmanager
def end_at_once() -> Iterator[None]:
    """Let SIGTERM end this process at once while the application starts; afterwards it ends Granian's worker gracefully.

    SIGINT is ignored from here on, as the supervisor sends SIGTERM after it. So is every SIGTERM but the first: a second one, as when a
    service manager signals all processes, blocks Granian for good if it arrives before the worker serves.
    """
    end_at_once_on_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    yield
    # The event loop learns of signals by its wake-up descriptor, whichever handler is set (signal.set_wakeup_fd).
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_IGN))

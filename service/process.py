"""A process that ends when its parent ends, however that ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

# prctl(2).
_PR_SET_PDEATHSIG = 1


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

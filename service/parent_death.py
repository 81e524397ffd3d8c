"""A process that ends when the one that started it ends, however that ends."""

from __future__ import annotations

import ctypes
import signal

# prctl(2).
_PR_SET_PDEATHSIG = 1


def end_with_parent(kind: signal.Signals) -> None:
    """Have the kernel send `kind` to this process when its parent's starting thread is gone, even by SIGKILL.

    A parent that ended before this call is not noticed: compare `os.getppid()` afterwards where that matters.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, kind)

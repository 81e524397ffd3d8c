"""A network namespace for a test. Its loopback interface has a public address, and there is no route out of it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

import pytest

# An address that every resolver and every filter of private addresses takes for a public one.
PUBLIC_ADDRESS = "11.0.0.1"

Run: TypeAlias = Callable[[Callable[[], None]], None]

_CLONE_NEWNET = 0x40000000
_SIOCSIFADDR = 0x8916
_SIOCSIFFLAGS = 0x8914
_UP = 0x1


@contextmanager
def own_network(on_missing: Callable[[str], object] = pytest.skip) -> Iterator[Run]:
    """Give a function that runs another one, and every process and thread that it starts, in a new network namespace.

    on_missing: called with the reason if a namespace cannot be made.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(_enter, on_missing).result()
        yield lambda body: executor.submit(body).result()


def _enter(on_missing: Callable[[str], object]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # Only the calling thread moves: netdevice(7), unshare(2).
    if libc.unshare(_CLONE_NEWNET) != 0:
        on_missing(f"A network namespace cannot be made here: {os.strerror(ctypes.get_errno())}.")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))
        address = struct.pack("16sH2s4s8x", b"lo:1", socket.AF_INET, b"\0\0", socket.inet_aton(PUBLIC_ADDRESS))
        fcntl.ioctl(control, _SIOCSIFADDR, address)

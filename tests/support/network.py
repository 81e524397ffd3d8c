"""A network namespace for a test. Its loopback interface has a public address, and there is no route out of it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable

import pytest

# An address that every resolver and every filter of private addresses takes for a public one.
PUBLIC_ADDRESS = "11.0.0.1"

_CLONE_NEWNET = 0x40000000
_SIOCSIFADDR = 0x8916
_SIOCSIFFLAGS = 0x8914
_UP = 0x1


def in_own_network(body: Callable[[], None]) -> None:
    """Run `body`, and every process and thread that it starts, in a new network namespace; raises what `body` raises."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _enter()
            body()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _enter() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # Only the calling thread moves: netdevice(7), unshare(2).
    if libc.unshare(_CLONE_NEWNET) != 0:
        pytest.skip(f"a network namespace cannot be made here: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))
        address = struct.pack("16sH2s4s8x", b"lo:1", socket.AF_INET, b"\0\0", socket.inet_aton(PUBLIC_ADDRESS))
        fcntl.ioctl(control, _SIOCSIFADDR, address)

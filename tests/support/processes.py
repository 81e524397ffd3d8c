"""Processes that tests and measurements start and end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

_END_SECONDS = 15.0


@contextmanager
def running(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that is started with the options of `subprocess.Popen`.

    On leaving it gets SIGTERM. If it has not ended after 15 seconds, it and its descendants are killed.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    top = psutil.Process(process.pid)
    descendants = top.children(recursive=True)
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        for one in (top, *descendants):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()

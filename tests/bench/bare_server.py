"""`python -m tests.bench.bare_server <factory> <port>`: a bare application under Granian with the real server's options."""

from __future__ import annotations

import sys

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from service.cli import BACKLOG, BACKPRESSURE, DRAIN_SECONDS, HEADER_SECONDS


def main() -> None:
    """Serve until SIGTERM."""
    factory, port = sys.argv[1:]
    Granian(
        f"tests.bench.bare:{factory}",
        factory=True,
        address="127.0.0.1",
        port=int(port),
        interface=Interfaces.ASGI,
        workers=1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1_000),
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        respawn_failed_workers=True,
        workers_kill_timeout=DRAIN_SECONDS,
        log_level="warning",  # type: ignore[arg-type]
    ).serve()


if __name__ == "__main__":
    main()

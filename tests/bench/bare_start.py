"""`python -m tests.bench.bare_start <port>` is the smallest server that starts Litestar, Granian and pyvips."""

from __future__ import annotations

import sys

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops


def build() -> object:
    """Return an application that has only `/health`, in a process that has loaded pyvips."""
    import pyvips  # noqa: PLC0415 - loaded in the process that serves, not in its supervisor
    from litestar import Litestar, get  # noqa: PLC0415

    pyvips.cache_set_max(0)

    @get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return Litestar([health])


def main() -> None:
    """Serve until SIGTERM."""
    Granian(
        "tests.bench.bare_start:build",
        factory=True,
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        workers=1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        log_level="warning",  # type: ignore[arg-type]
    ).serve()


if __name__ == "__main__":
    main()

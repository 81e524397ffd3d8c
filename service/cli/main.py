"""The entry point of the `darkroom` command. It imports the commands only after the supervisor of `darkroom serve` has forked."""

from __future__ import annotations

import sys
from typing import Any


def main() -> Any:
    """Run the command of the command line. With `serve`, this returns in no process but that of the server."""
    crash = None
    if sys.argv[1:2] == ["serve"]:
        from service.cli.supervisor import supervise  # noqa: PLC0415 - the other commands do not need it

        crash = supervise()
    # The supervisor does not need them.
    from service.imports import quick_imports  # noqa: PLC0415

    with quick_imports():
        from service.cli import commands  # noqa: PLC0415

    return commands.main(obj=crash)

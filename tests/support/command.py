"""The `darkroom` command in tests, in this process or in another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from click.testing import CliRunner, Result

from service.cli.commands import main
from tests.support.processes import running
from tests.support.server import DARKROOM, environment


def run(*arguments: object, server: str = "", token: str = "", given: str | None = None) -> Result:
    """Run a command and return its result, with standard output and standard error apart; `given` is its standard input."""
    cleared = {name: None for name in os.environ if name.startswith("DARKROOM_")}
    configured = {"DARKROOM_SERVER": server or None, "DARKROOM_TOKEN": token or None}
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=given, env={**cleared, **configured})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@contextmanager
def started(
    *arguments: object, server: str, stdout: int | IO[bytes] = subprocess.PIPE, stderr: int | IO[bytes] = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a command that runs in another process. It is ended on leaving if it still runs."""
    command: Sequence[str | Path] = [DARKROOM, *(str(argument) for argument in arguments)]
    with running(command, env=environment(server=server), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr) as process:
        yield process

"""A fixture that calls the functions of darkroom.js in a Node.js process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import find_program
from tests.support.waiting import PATIENCE_SECONDS

WEB = Path(__file__).parents[2] / "service" / "web"


class DarkroomJsError(Exception):
    """darkroom.js threw an error; the text is its message."""


class DarkroomJs:
    """Calls functions of darkroom.js by name in one Node.js process, which runs `calls.mjs`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Return the result of a function, or the value of a constant; raises `DarkroomJsError` if it throws."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # The JSON is pure ASCII, so that every string arrives unchanged, even unpaired surrogates.
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        response = json.loads(self._process.stdout.readline())
        if "error" in response:
            raise DarkroomJsError(response["error"])
        return response["value"]


@pytest.fixture(scope="session")
def js() -> Iterator[DarkroomJs]:
    command = [find_program("node"), str(Path(__file__).with_name("calls.mjs")), (WEB / "darkroom.js").as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        yield DarkroomJs(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_SECONDS) == 0

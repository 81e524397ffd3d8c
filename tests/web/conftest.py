"""darkroom.js in a real Node, asked from Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import program

WEB = Path(__file__).parents[2] / "service" / "web"


class DarkroomJsError(Exception):
    """What darkroom.js threw, in its words."""


class DarkroomJs:
    """The module's functions, called by their names in a Node that stays."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Return what the function gives, or the constant is; raises `DarkroomJsError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Escapes alone, so that every string arrives as it is, halves of surrogate pairs included.
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise DarkroomJsError(answer["error"])
        return answer["value"]


@pytest.fixture(scope="session")
def js() -> Iterator[DarkroomJs]:
    command = [program("node"), str(Path(__file__).with_name("answering.mjs")), (WEB / "darkroom.js").as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        yield DarkroomJs(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0

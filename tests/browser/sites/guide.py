"""The code blocks of docs/frameworks.md, by section: files of the sites, and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "frameworks.md").read_text("utf-8")

# A heading, or a block of code with the file that the comment above it names, if there is one.
_PART = re.compile(
    r"^## (?P<heading>[^\n]+)$|^(?:<!-- (?P<file>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block of code: the section that it is in, the file that it shows or "", its language, and its text."""

    section: str
    file: str
    language: str
    text: str


def _blocks() -> Iterator[Block]:
    section = ""
    for part in _PART.finditer(GUIDE):
        if part["heading"]:
            section = part["heading"]
        else:
            yield Block(section, part["file"] or "", part["language"], part["text"])


BLOCKS = tuple(_blocks())


def commands(section: str) -> list[str]:
    """Return the lines of the shell commands of a section."""
    return [line for block in BLOCKS if block.section == section and block.language == "sh" for line in block.text.splitlines()]


def code(section: str) -> list[str]:
    """Return the lines of the files of a section, without empty ones."""
    return [line for block in BLOCKS if block.section == section and block.file for line in block.text.splitlines() if line.strip()]

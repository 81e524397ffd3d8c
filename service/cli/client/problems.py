"""What goes wrong on the client's side, and how it is told: what was expected, what came, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from service.errors import Problem


class ClientError(Exception):
    """Why something cannot be had."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class UsageError(ClientError):
    """What was asked for cannot be done, whatever the server says."""


class RefusedError(ClientError):
    """This one thing was refused, or cannot be read; others may go on."""


class HopelessError(ClientError):
    """The server refuses all that could be asked: a wrong token, a full store, or it is no Darkroom."""


class UnreachableError(ClientError):
    """The server does not answer, though it was asked several times."""


class NotTaken(msgspec.Struct, frozen=True):
    """A file that was not taken, by its path as given, and why."""

    path: str
    problem: Problem


def problem(detail: str, *, expected: str | None = None, received: str | None = None, remedy: str | None = None) -> Problem:
    """Return a problem that was found here, not by a server."""
    return Problem("about:blank", "Not done", 0, detail, expected=expected, received=received, remedy=remedy)


def told(found: Problem, indent: str = "") -> str:
    """Return a problem as lines of text: what happened, then what was expected, what came and what to do."""
    parts = (("expected", found.expected), ("received", found.received), ("remedy", found.remedy))
    return "\n".join([f"{indent}{shown(found.detail)}", *(f"{indent}  {name:<8}  {shown(text)}" for name, text in parts if text)])


def told_together(not_taken: Iterable[NotTaken]) -> str:
    """Return the files that were not taken, those with the same reason together, each with what came of it."""
    return "\n".join(_groups(not_taken))


def _groups(not_taken: Iterable[NotTaken]) -> Iterator[str]:
    def reason(one: NotTaken) -> tuple[str, str, str]:
        return one.problem.detail, one.problem.expected or "", one.problem.remedy or ""

    for _, group in groupby(sorted(not_taken, key=lambda one: (reason(one), one.path)), key=reason):
        members = list(group)
        yield told(msgspec.structs.replace(members[0].problem, received=None), "  ")
        for one in members:
            received = f": {shown(one.problem.received)}" if one.problem.received else ""
            yield f"    {shown(one.path)}{received}"


def shown(text: str) -> str:
    """Return a text fit for a terminal: whatever would act on it, or is no character, is escaped; names in any script are not."""
    return re.sub(r"[^ -~]", lambda match: match[0] if match[0].isprintable() else match[0].encode("unicode_escape").decode("ascii"), text)

"""The errors of the client. Each carries a problem document: the server's own, or one made here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from service.cli.console import escape, format_problem
from service.errors import Problem


class ClientError(Exception):
    """A request, or the work on a file, failed.

    `problem`: what happened, what was expected, and what to do.
    `retry_after`: how many seconds to wait at least before another attempt, `None` if it would fail too.
    """

    def __init__(self, problem: Problem, *, retry_after: float | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.retry_after = retry_after


class UsageError(ClientError):
    """The arguments or the environment ask for something impossible. No request was sent."""


class RefusedError(ClientError):
    """The server refused one request, or one file cannot be read. Others may succeed."""


class FatalError(ClientError):
    """Every other request would fail too: the token is wrong, the store is full, or this is not a Darkroom server."""


class UnreachableError(ClientError):
    """The server does not respond."""


class Rejected(msgspec.Struct, frozen=True):
    """A file, or a digest, that was not uploaded or not taken down, and the reason. `path` is the path as given."""

    path: str
    problem: Problem


def client_problem(detail: str, *, expected: str | None = None, received: str | None = None, remedy: str | None = None) -> Problem:
    """Return the problem document of an error that the client found; its status is 0."""
    return Problem("about:blank", "Not done", 0, detail, expected=expected, received=received, remedy=remedy)


def format_rejected(rejected: Iterable[Rejected]) -> str:
    """Return the rejected files as text, grouped by reason, each with what was received from it."""
    return "\n".join(_groups(rejected))


def _groups(rejected: Iterable[Rejected]) -> Iterator[str]:
    def reason(one: Rejected) -> tuple[str, str, str]:
        return one.problem.detail, one.problem.expected or "", one.problem.remedy or ""

    for _, group in groupby(sorted(rejected, key=lambda one: (reason(one), one.path)), key=reason):
        members = list(group)
        yield format_problem(msgspec.structs.replace(members[0].problem, received=None), "  ")
        for one in members:
            received = f": {escape(one.problem.received)}" if one.problem.received else ""
            yield f"    {escape(one.path)}{received}"

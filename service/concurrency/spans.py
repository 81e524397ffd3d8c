"""Spans of a trace: the request that the current task works for, and the stages of that work.

Without tracing, and in requests that are not sampled, there is no current span, and a stage costs a look at a context variable. What
records spans, and where they go, is in `service.ops.tracing`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeAlias

Attribute: TypeAlias = str | int | float | bool


class Span(Protocol):
    """A request, or a stage of the work for it, that is being recorded."""

    @property
    def trace_id(self) -> str:
        """The id of the trace: 32 hexadecimal digits in lower case."""

    def child(self, name: str, attributes: dict[str, Attribute], *, calls: str = "") -> AbstractContextManager[Span]:
        """Return a context that is recorded as a stage of this one, and is the current span within. `calls` is as in `stage`."""

    def record(self, name: str, start: float, end: float, attributes: dict[str, Attribute]) -> None:
        """Record a stage that has ended. start, end: in seconds of `time.perf_counter`, which all processes of a machine share."""


# Tasks inherit it from the task that starts them: work that several requests share belongs to the one that came first.
current_span: ContextVar[Span | None] = ContextVar("current_span", default=None)

_NOT_RECORDED: AbstractContextManager[None] = nullcontext()


def stage(name: str, *, calls: str = "", **attributes: Attribute) -> AbstractContextManager[Span | None]:
    """Return a context that is recorded as a stage of the current span, if there is one.

    calls: the name of the host that the stage waits for, if it is a request to another server.
    attributes: their names with `_` for `.`, without the `darkroom.` that they get.
    """
    span = current_span.get()
    return _NOT_RECORDED if span is None else span.child(name, attributes, calls=calls)

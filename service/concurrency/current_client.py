"""The client that the current task works for, so that a queue far below the request can take turns between clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# A network address, as `http.clients` returns it; `None` if it is not known, or if no client waits. Tasks inherit it from the task that
# starts them: work that several clients share belongs to the one that came first.
current_client: ContextVar[str | None] = ContextVar("current_client", default=None)


@contextmanager
def working_for(client: str | None) -> Iterator[None]:
    """Work for a client within the block."""
    token = current_client.set(client)
    try:
        yield
    finally:
        current_client.reset(token)

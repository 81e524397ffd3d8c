"""Servers that run in a background thread beside the tests of regions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TypeAlias

from tests.support.server import HOST

Accept: TypeAlias = Callable[[socket.socket], Awaitable[None]]


@contextmanager
def listening(*accept: Accept) -> Iterator[list[int]]:
    """Serve each function of `accept` on its own port, in a background thread, and yield the ports.

    A connection is closed when `accept` is done with it, and in the end all are.
    """
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    listeners = [socket.create_server((HOST, 0), backlog=512) for _ in accept]
    for listener in listeners:
        listener.setblocking(False)

    async def run() -> None:
        # The event loop holds only weak references to tasks.
        tasks = {asyncio.create_task(_take(listener, one)) for listener, one in zip(listeners, accept, strict=True)}
        await ended.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        yield [listener.getsockname()[1] for listener in listeners]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
        for listener in listeners:
            listener.close()


async def _take(listener: socket.socket, accept: Accept) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(_talk(connection, accept))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _talk(connection: socket.socket, accept: Accept) -> None:
    with connection:
        connection.setblocking(False)
        # As asyncio's own servers do: without it, every second piece of a response waits for the client's acknowledgement of the first.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The peer closed the connection.
        with suppress(ConnectionError):
            await accept(connection)

"""The memory for inputs of renders: bounded, and shared fairly."""

from __future__ import annotations

import anyio
import anyio.abc
import pytest

from service.concurrency.current_client import working_for
from service.library.input_memory import InputMemory

pytestmark = pytest.mark.anyio


class Renders:
    """Renders that hold their bytes until they are ended, by name."""

    def __init__(self, memory: InputMemory, tasks: anyio.abc.TaskGroup) -> None:
        self.memory = memory
        self.running: list[str] = []
        self._tasks = tasks
        self._scopes: dict[str, anyio.CancelScope] = {}

    async def start(self, name: str, size: int, client: str | None = None) -> None:
        """Start a render, and return when it runs or waits."""

        async def render() -> None:
            with anyio.CancelScope() as self._scopes[name], working_for(client):
                async with self.memory.reserve(size):
                    self.running.append(name)
                    await anyio.sleep_forever()

        self._tasks.start_soon(render)
        await anyio.wait_all_tasks_blocked()

    async def end(self, name: str) -> None:
        """End a render, whether it runs or waits, and return when others run in its place."""
        self._scopes[name].cancel()
        await anyio.wait_all_tasks_blocked()


async def test_memory_that_is_used_up_makes_renders_wait_in_their_order() -> None:
    async with anyio.create_task_group() as tasks:
        renders = Renders(InputMemory(100), tasks)
        for name, size in (("a", 60), ("b", 40), ("c", 50), ("d", 10), ("free", 0)):
            await renders.start(name, size)
        # What needs no memory does not wait, and a small one does not pass a large one.
        assert renders.running == ["a", "b", "free"]
        assert renders.memory.reserved_bytes == 100
        await renders.end("b")
        assert renders.running == ["a", "b", "free"]
        await renders.end("a")
        assert renders.running == ["a", "b", "free", "c", "d"]
        tasks.cancel_scope.cancel()
    assert renders.memory.reserved_bytes == 0


async def test_render_that_needs_more_than_all_memory_gets_it_alone() -> None:
    async with anyio.create_task_group() as tasks:
        renders = Renders(InputMemory(100), tasks)
        await renders.start("a", 10)
        await renders.start("huge", 500)
        await renders.start("b", 10)
        assert renders.running == ["a"]
        await renders.end("a")
        assert renders.running == ["a", "huge"]
        await renders.end("huge")
        assert renders.running == ["a", "huge", "b"]
        tasks.cancel_scope.cancel()


async def test_render_that_gives_up_waiting_lets_the_others_pass() -> None:
    async with anyio.create_task_group() as tasks:
        renders = Renders(InputMemory(100), tasks)
        await renders.start("a", 60)
        await renders.start("b", 60)
        await renders.start("c", 20)
        await renders.end("b")
        assert renders.running == ["a", "c"]
        assert renders.memory.reserved_bytes == 80
        tasks.cancel_scope.cancel()


async def test_memory_that_is_released_goes_to_the_client_that_holds_least() -> None:
    async with anyio.create_task_group() as tasks:
        renders = Renders(InputMemory(100), tasks)
        for number in range(5):
            await renders.start(f"greedy {number}", 40, "192.0.2.1")
        await renders.start("other", 40, "192.0.2.2")
        assert renders.running == ["greedy 0", "greedy 1"]
        await renders.end("greedy 0")
        assert renders.running[2:] == ["other"]
        await renders.end("greedy 1")
        assert renders.running[3:] == ["greedy 2"]
        tasks.cancel_scope.cancel()

"""The edge and the takedowns, wired as in `service/asgi.py`, on a machine that is suspended and with a store that becomes unavailable."""

from __future__ import annotations

from collections.abc import AsyncIterator

import obstore
import pytest
from obstore.store import MemoryStore

from edge import Edge
from edge.clock import SuspendAwareClock
from service.errors import StorageUnavailableError
from service.library.image_store import ImageStore
from service.library.takedowns import Takedowns
from service.storage.keys import document_key
from service.storage.object_store import Storage
from tests.edge.asgi import NOON, Origin, full_response, send_request

pytestmark = pytest.mark.anyio

DIGEST = "a" * 32
LONG = full_response(b"public, max-age=31536000, immutable", (b"cache-tag", DIGEST.encode("ascii")))


class Machine:
    """One process with an edge, an origin and clocks that the test controls."""

    def __init__(self, storage: Storage) -> None:
        self.steady, self.wall = 1_000.0, float(NOON)
        self.origin = Origin(LONG)
        self.takedowns = Takedowns(ImageStore(storage), self._purge, None)
        self.edge = Edge(
            self.origin,
            name="darkroom",
            max_bytes=1_000_000,
            max_concurrent_misses=10,
            key_includes_host=False,
            sync_purges=self.takedowns.refresh,
            clock=SuspendAwareClock(lambda: self.steady, lambda: self.wall).now,
            wall_clock=lambda: self.wall,
        )

    def _purge(self, digests: object) -> None:
        assert isinstance(digests, (frozenset, list, tuple))
        self.edge.purge_tags(digests)

    def suspend(self, seconds: float) -> None:
        """Suspend the machine: the wall clock advances, the steady clock does not."""
        self.wall += seconds

    async def is_hit(self) -> bool:
        before = len(self.origin.requests)
        await send_request(self.edge)
        return len(self.origin.requests) == before


@pytest.fixture
def storage() -> Storage:
    storage = Storage(MemoryStore())
    obstore.put(storage._store, document_key(DIGEST), b"{}")
    return storage


async def take_down_on_another_machine(storage: Storage) -> None:
    await Takedowns(ImageStore(storage), lambda _: None, None).take_down(DIGEST)


async def test_suspended_machine_polls_for_takedowns_before_its_next_hit(storage: Storage) -> None:
    machine = Machine(storage)
    await send_request(machine.edge)
    await take_down_on_another_machine(storage)
    assert await machine.is_hit(), "the next poll is only due after a minute"
    machine.suspend(61)
    assert not await machine.is_hit()
    assert await machine.is_hit(), "the response to the second request is stored"


async def test_suspended_machine_serves_hits_while_the_store_is_unavailable_and_polls_again_a_minute_later(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(storage)
    await send_request(machine.edge)
    await take_down_on_another_machine(storage)
    all_names = storage.list_names

    def unreachable(folder: str) -> AsyncIterator[str]:
        raise StorageUnavailableError("unavailable")

    monkeypatch.setattr(storage, "list_names", unreachable)
    for _ in range(3):
        machine.suspend(61)
        assert await machine.is_hit()
    monkeypatch.setattr(storage, "list_names", all_names)
    assert await machine.is_hit(), "the minute counts from the last poll"
    machine.suspend(61)
    assert not await machine.is_hit()

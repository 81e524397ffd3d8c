"""Upload tickets: each is accepted once, in its time, and given back if its upload fails."""

from __future__ import annotations

import time

import anyio
import pytest
from obstore.store import MemoryStore

from service.errors import StorageFullError, UploadExpiredError, UploadUsedError
from service.library.upload_tickets import KEEP_SECONDS, UploadTickets
from service.storage.keys import USED_UPLOADS_PREFIX, used_upload_key
from service.storage.object_store import Storage
from service.urls.upload_ticket import UploadTicket, new_ticket

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage() -> Storage:
    return Storage(MemoryStore())


def ticket(seconds: int = 900) -> UploadTicket:
    return new_ticket(expires=int(time.time()) + seconds, max_bytes=1, formats=())


async def test_ticket_is_used_once(storage: Storage) -> None:
    tickets, one = UploadTickets(storage), ticket()
    await tickets.require_usable(one)
    async with tickets.use(one):
        with pytest.raises(UploadUsedError):
            await tickets.require_usable(one)
    with pytest.raises(UploadUsedError):
        await tickets.require_usable(one)
    with pytest.raises(UploadUsedError):
        async with UploadTickets(storage).use(one):
            raise AssertionError
    await tickets.require_usable(ticket())


async def test_ticket_of_a_failed_upload_can_be_used_again(storage: Storage) -> None:
    tickets, one = UploadTickets(storage), ticket()
    with pytest.raises(StorageFullError):
        async with tickets.use(one):
            raise StorageFullError("The store is full.")
    await tickets.require_usable(one)
    async with tickets.use(one):
        pass


async def test_ticket_of_a_canceled_upload_can_be_used_again(storage: Storage) -> None:
    tickets, one = UploadTickets(storage), ticket()
    with anyio.CancelScope() as scope:
        async with tickets.use(one):
            scope.cancel()
            await anyio.sleep_forever()
    await tickets.require_usable(one)


async def test_ticket_after_its_time_is_expired_even_if_it_was_used(storage: Storage) -> None:
    tickets, late = UploadTickets(storage), ticket(0)
    await storage.put(used_upload_key(late.expires, late.id), b"", durable=False)
    with pytest.raises(UploadExpiredError):
        await tickets.require_usable(late)
    with pytest.raises(UploadExpiredError):
        async with tickets.use(late):
            raise AssertionError


async def test_records_are_removed_an_hour_after_their_tickets_have_expired(storage: Storage) -> None:
    old, new = ticket(-KEEP_SECONDS - 60), ticket(-KEEP_SECONDS + 60)
    for one in (old, new):
        await storage.put(used_upload_key(one.expires, one.id), b"", durable=False)
    await UploadTickets(storage).remove_expired()
    assert [name async for name in storage.list_names(USED_UPLOADS_PREFIX)] == [f"0{new.expires}-{new.id}"]


async def test_records_that_are_more_than_one_listing_has_are_all_removed(storage: Storage) -> None:
    for number in range(2_010):
        await storage.put(used_upload_key(number, "a" * 16), b"", durable=False)
    await UploadTickets(storage).remove_expired()
    assert await storage.list_names_after(USED_UPLOADS_PREFIX, "", 9) == []

"""Upload tickets: each is accepted once, in its time, and given back if its upload fails."""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
import pytest
from obstore.store import MemoryStore

from service.errors import StorageFullError, StorageUnavailableError, UploadExpiredError, UploadUsedError
from service.library import upload_tickets
from service.library.upload_tickets import KEEP_SECONDS, UploadTickets
from service.storage.keys import USED_UPLOADS_PREFIX, used_upload_key
from service.storage.object_store import Storage, open_storage
from service.urls.upload_ticket import UploadTicket, new_ticket
from tests.support.s3 import Bucket
from tests.support.s3_proxy import S3Proxy
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage() -> Storage:
    return Storage(MemoryStore())


def ticket(seconds: int = 900) -> UploadTicket:
    return new_ticket(expires=int(time.time()) + seconds, max_bytes=1, formats=())


async def until_usable(tickets: UploadTickets, one: UploadTicket) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while True:
            with suppress(UploadUsedError):
                return await tickets.require_usable(one)
            await anyio.sleep(0.05)


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


async def test_ticket_of_an_upload_that_failed_with_the_store_can_be_used_again_once_the_store_is_back(
    s3: Bucket, s3_proxy: S3Proxy
) -> None:
    tickets, one = UploadTickets(open_storage(f"s3://{s3.name}", s3_proxy.environment)), ticket()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tickets.watch)

        async def fail() -> None:
            async with tickets.use(one):
                s3_proxy.error_share = 1.0
                raise StorageUnavailableError("The store cannot be reached.")

        with pytest.raises(StorageUnavailableError):
            await fail()
        with pytest.raises(StorageUnavailableError):
            await tickets.require_usable(one)
        s3_proxy.error_share = 0.0
        await until_usable(tickets, one)
        tasks.cancel_scope.cancel()


async def test_ticket_whose_record_was_put_without_a_response_can_be_used_again(s3: Bucket, s3_proxy: S3Proxy) -> None:
    tickets, one = UploadTickets(open_storage(f"s3://{s3.name}", s3_proxy.environment)), ticket()
    s3_proxy.loses = lambda request: "all" if request.method == "PUT" else None
    with pytest.raises(StorageUnavailableError):
        async with tickets.use(one):
            raise AssertionError
    assert any(USED_UPLOADS_PREFIX in request.path for request in s3_proxy.seen if request.method == "PUT")
    await tickets.require_usable(one)


async def test_upload_whose_ticket_cannot_be_given_back_in_time_fails_with_its_own_error(
    s3: Bucket, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_tickets, "_RELEASE_SECONDS", 0.5)
    tickets, one = UploadTickets(open_storage(f"s3://{s3.name}", s3_proxy.environment)), ticket()

    async def fail() -> None:
        async with tickets.use(one):
            s3_proxy.delay_seconds = 1.0
            raise StorageUnavailableError("The store cannot be reached.")

    with pytest.raises(StorageUnavailableError):
        await fail()


async def test_failed_upload_leaves_the_record_of_another_one(storage: Storage) -> None:
    tickets, one = UploadTickets(storage), ticket()
    key = used_upload_key(one.expires, one.id)

    async def fail() -> None:
        async with tickets.use(one):
            await storage.put(key, b"of another upload", durable=False)
            raise StorageFullError("The store is full.")

    with pytest.raises(StorageFullError):
        await fail()
    assert await storage.get(key) == b"of another upload"


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

"""A bucket that fails, closes connections, is silent, lags behind or refuses: calls end in the time that a request has."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from msgspec.structs import replace

from service import instruments
from service.errors import NotFoundError, StorageFullError, StorageUnavailableError
from service.images.options import FocalPoint
from service.rendering.pool import RenderPool
from service.storage import s3 as s3_module
from service.storage.keys import RECENT_PREFIX, document_key, original_key, rendition_key, tombstone_key
from service.storage.object_store import Storage, open_storage
from tests.support import images
from tests.support.library import Library, open_library
from tests.support.s3 import Bucket
from tests.support.s3_proxy import Request, S3Proxy
from tests.support.waiting import PATIENCE_SECONDS, within

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("without_foreign_variables")]

DIGEST = "k5x7q2" + "a" * 26
OTHER = "b" * 32

numbers = count()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat no request because a busy machine is slow."""
    for name in ("HEDGE_AFTER_SECONDS", "READ_TIMEOUT_SECONDS", "RETRY_BUDGET_SECONDS"):
        monkeypatch.setattr(s3_module, name, PATIENCE_SECONDS)


@pytest.fixture
def storage(s3: Bucket, s3_proxy: S3Proxy) -> Storage:
    """Give the store of an empty bucket behind the proxy."""
    name = f"bucket-{next(numbers)}"
    s3.add_bucket(name)
    return open_storage(f"s3://{name}", s3_proxy.environment)


Operation = Callable[[Storage], Awaitable[object]]


async def listed(storage: Storage) -> list[str]:
    return [entry.key async for entry in storage.list_objects("originals")]


# Each with its result on a bucket that has one original.
OPERATIONS: dict[str, tuple[Operation, object]] = {
    "get": (lambda storage: storage.get(original_key(DIGEST)), b"bytes"),
    "get_from_any_region": (lambda storage: storage.get_from_any_region(original_key(DIGEST)), b"bytes"),
    "exists": (lambda storage: storage.exists(original_key(DIGEST), consistent=True), True),
    "put_if_absent": (lambda storage: storage.put_if_absent(original_key(OTHER), b"others", durable=True), True),
    "put": (lambda storage: storage.put(original_key(OTHER), b"others", durable=True), None),
    "delete": (lambda storage: storage.delete(original_key(OTHER)), None),
    "list": (listed, [original_key(DIGEST)]),
    "ping": (lambda storage: storage.ping(), None),
}


async def pooled(storage: Storage, connections: int) -> None:
    """Fill the connection pools of the store with so many connections."""
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=True)
    for consistent in (False, True):
        await asyncio.gather(*(storage.get(original_key(DIGEST), consistent=consistent) for _ in range(connections)))


# Metrics.


async def test_retries_hedged_requests_errors_and_times_are_counted_by_operation(
    storage: Storage, s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[tuple[str, ...]] = Counter()
    for name in ("STORE_RETRIES", "STORE_HEDGES", "STORE_ERRORS"):
        monkeypatch.setattr(getattr(instruments, name), "add", lambda *labels, name=name: counted.update([(name, *labels)]))
    monkeypatch.setattr(instruments.STORE_SECONDS, "observe", lambda _, operation: counted.update([("STORE_SECONDS", operation)]))
    await pooled(storage, 4)
    counted.clear()
    s3_proxy.stun()
    assert await storage.get(original_key(DIGEST)) == b"bytes"
    assert counted == {("STORE_HEDGES", "get"): 1, ("STORE_SECONDS", "get"): 1}
    counted.clear()
    errors = iter([(500, "<Error><Code>InternalError</Code></Error>")] * 2)
    s3_proxy.error_for = lambda _: next(errors, None)
    await storage.put(original_key(OTHER), b"others", durable=True)
    assert counted == {("STORE_RETRIES", "put"): 2, ("STORE_SECONDS", "put"): 1}
    counted.clear()
    s3_proxy.error_for = lambda _: (403, "<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(StorageUnavailableError):
        await listed(storage)
    assert counted == {("STORE_ERRORS", "list", "unavailable"): 1, ("STORE_SECONDS", "list"): 1}


# Dead connections.


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_after_connections_were_closed_uses_new_ones(storage: Storage, s3_proxy: S3Proxy, name: str) -> None:
    operation, given = OPERATIONS[name]
    await pooled(storage, 12)
    assert s3_proxy.cut() >= 12
    assert await operation(storage) == given


@pytest.mark.parametrize("name", ["get", "list"])
async def test_read_over_silently_dead_connections_succeeds_within_two_seconds(storage: Storage, s3_proxy: S3Proxy, name: str) -> None:
    operation, given = OPERATIONS[name]
    await pooled(storage, 12)
    assert s3_proxy.stun() >= 12
    with within(2):
        assert await operation(storage) == given
    over_dead = s3_proxy.stunned_requests
    with within(0.5):
        assert await asyncio.gather(*(operation(storage) for _ in range(12))) == [given] * 12
    assert s3_proxy.stunned_requests == over_dead, "the whole pool was dropped with its first dead connection"


@pytest.mark.usefixtures("unhurried")
async def test_put_if_absent_whose_first_response_is_lost_returns_true(storage: Storage, s3_proxy: S3Proxy) -> None:
    lost = iter([True])
    s3_proxy.loses = lambda request: "all" if request.method == "PUT" and next(lost, False) else None
    assert await storage.put_if_absent(document_key(DIGEST), b"ours", durable=True)
    assert not await storage.put_if_absent(document_key(DIGEST), b"others", durable=True)
    assert await storage.get(document_key(DIGEST)) == b"ours"
    assert [request.method for request in s3_proxy.seen].count("PUT") == 3


async def test_download_that_breaks_off_is_repeated(storage: Storage, s3_proxy: S3Proxy) -> None:
    body = os.urandom(300_000)
    await storage.put_if_absent(original_key(DIGEST), body, durable=True)
    halves: Iterator[Literal["half"]] = iter(["half", "half"])
    s3_proxy.loses = lambda request: next(halves, None) if request.method == "GET" else None
    assert await storage.get(original_key(DIGEST)) == body


# Errors.


@pytest.mark.usefixtures("unhurried")
async def test_99_of_100_calls_succeed_when_one_response_in_five_is_an_error(
    storage: Storage, s3_proxy: S3Proxy, logged: list[object]
) -> None:
    """All of five attempts fail once in three thousand calls."""
    s3_proxy.error_share = 0.2
    keys = [rendition_key(DIGEST, f"{number:064}") for number in range(150)]
    put = await asyncio.gather(*(storage.put_if_absent(key, key.encode(), durable=False) for key in keys), return_exceptions=True)
    found = await asyncio.gather(*(storage.get(key) for key in keys), return_exceptions=True)
    done = [isinstance(created, bool) for created in put] + [body == key.encode() for key, body in zip(keys, found, strict=True)]
    assert sum(done) >= 0.99 * len(done)
    assert {type(outcome) for outcome in (*put, *found)} <= {bool, bytes, type(None), StorageUnavailableError}
    assert len(s3_proxy.seen) > 1.1 * len(done), "errors were met"


@pytest.mark.usefixtures("unhurried")
async def test_page_of_the_list_of_images_is_one_request(storage: Storage, s3_proxy: S3Proxy) -> None:
    names = [f"{number:03}" for number in range(120)]
    await asyncio.gather(*(storage.put_if_absent(f"{RECENT_PREFIX}/{name}", b"", durable=True) for name in names))
    s3_proxy.page_objects = 50
    for after, page in (("", names[:40]), (names[20], names[21:61])):
        s3_proxy.seen.clear()
        assert await storage.list_names_after(RECENT_PREFIX, after, 40) == page
        assert len(s3_proxy.seen) == 1


@pytest.mark.usefixtures("unhurried")
async def test_listing_continues_after_an_error_where_it_was(storage: Storage, s3_proxy: S3Proxy) -> None:
    keys = [rendition_key(DIGEST, f"{number:064}") for number in range(45)]
    await asyncio.gather(*(storage.put_if_absent(key, b"", durable=False) for key in keys))
    s3_proxy.page_objects = 10
    errs = iter([False, True, True, False, True])
    s3_proxy.error_for = lambda request: (500, "<Error/>") if "list-type=2" in request.path and next(errs, False) else None
    assert [entry.key async for entry in storage.list_objects(f"renditions/{DIGEST}")] == keys
    assert next(errs, None) is None, "the errors were met"


async def failed(operation: Operation, storage: Storage, within_seconds: float) -> StorageUnavailableError:
    with within(within_seconds), pytest.raises(StorageUnavailableError) as caught:
        await operation(storage)
    return caught.value


@pytest.mark.usefixtures("unhurried")
async def test_permanent_error_ends_a_call_after_five_attempts(storage: Storage, s3_proxy: S3Proxy, logged: list[object]) -> None:
    s3_proxy.error_share = 1.0
    error = await failed(OPERATIONS["get"][0], storage, 3)
    assert len(s3_proxy.seen) == 5
    assert error.detail == "The store responds with errors."
    assert error.retry_after_seconds == 5


async def test_silent_store_fails_every_call_within_five_seconds(storage: Storage, s3_proxy: S3Proxy, logged: list[object]) -> None:
    s3_proxy.silent = True
    errors = await asyncio.gather(*(failed(operation, storage, 5) for name, (operation, _) in OPERATIONS.items()))
    assert {error.detail for error in errors} == {"The store cannot be reached."}


CAUSES = {
    (404, "NoSuchBucket"): ("does not exist", "BUCKET_NAME"),
    (403, "RequestTimeTooSkewed"): ("clocks", "NTP"),
    (403, "InvalidAccessKeyId"): ("credentials", "AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch"): ("credentials", "AWS_SECRET_ACCESS_KEY"),
    (401, "Unauthorized"): ("credentials", "AWS_ACCESS_KEY_ID"),
    (403, "AccessDenied"): ("denies this server access", "s3:ListBucket"),
    (301, "PermanentRedirect"): ("another region", "AWS_REGION"),
    (400, "AuthorizationHeaderMalformed"): ("another region", "AWS_REGION"),
}


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("status", "code"), CAUSES)
async def test_refusal_has_a_cause_and_a_remedy_and_is_not_retried(
    storage: Storage, s3_proxy: S3Proxy, logged: list[object], status: int, code: str
) -> None:
    s3_proxy.error_for = lambda _: (status, f"<Error><Code>{code}</Code><Message>private</Message></Error>")
    for name in ("get", "put_if_absent", "put", "delete", "list", "ping"):
        s3_proxy.seen.clear()
        error = await failed(OPERATIONS[name][0], storage, 1)
        assert CAUSES[status, code][0] in error.detail
        assert CAUSES[status, code][1] in (error.remedy or "")
        assert "private" not in repr(error.problem())
        assert len(s3_proxy.seen) == 1


async def test_507_of_the_store_is_a_full_store(storage: Storage, s3_proxy: S3Proxy, logged: list[object]) -> None:
    s3_proxy.error_for = lambda _: (507, "<Error><Code>InsufficientStorage</Code></Error>")
    with pytest.raises(StorageFullError):
        await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=True)


async def test_missing_bucket_is_not_a_missing_object(s3: Bucket, logged: list[object]) -> None:
    """Images must not seem missing because a variable is wrong."""
    storage = open_storage("s3://no-such-bucket", s3.environment)
    for operation, _ in OPERATIONS.values():
        if operation is not OPERATIONS["exists"][0]:
            assert "does not exist" in (await failed(operation, storage, 3)).detail


# Regions that lag behind.


@pytest.mark.usefixtures("unhurried")
async def test_get_from_any_region_confirms_a_miss_by_a_consistent_read(storage: Storage, s3_proxy: S3Proxy) -> None:
    await storage.put_if_absent(original_key(DIGEST), b"bytes", durable=True)
    s3_proxy.hides = lambda request: request.method in {"GET", "HEAD"}
    assert await storage.get(original_key(DIGEST)) is None
    s3_proxy.seen.clear()
    assert await storage.get_from_any_region(original_key(DIGEST)) == b"bytes"
    assert [request.consistent for request in s3_proxy.seen] == [False, True]
    s3_proxy.seen.clear()
    assert await storage.get_from_any_region(original_key(OTHER)) is None
    assert [request.consistent for request in s3_proxy.seen] == [False, True]
    s3_proxy.hides = lambda _: False
    s3_proxy.seen.clear()
    assert await storage.get_from_any_region(original_key(DIGEST)) == b"bytes"
    assert [request.consistent for request in s3_proxy.seen] == [False], "a hit is not confirmed"


@pytest.fixture
async def origin(tmp_path: Path, pool: RenderPool, storage: Storage) -> AsyncIterator[Library]:
    async with open_library(tmp_path, pool, storage=storage) as built:
        yield built


async def test_image_just_uploaded_in_another_region_is_served_and_rendered_once(origin: Library, s3_proxy: S3Proxy) -> None:
    digest = await origin.ingest(images.photo_jpeg(400, 300))
    s3_proxy.hides = lambda request: request.method in {"GET", "HEAD"}
    assert (await origin.documents.get(digest)).digest == digest
    first = await origin.rendition(digest, "width=100")
    assert (first.tier, first.stored) == ("render", True)
    again = await origin.rendition(digest, "width=100")
    assert (again.body, again.etag, again.stored) == (first.body, first.etag, True), "the bytes that another region has stored are served"


async def test_image_just_taken_down_in_another_region_is_gone(origin: Library, s3_proxy: S3Proxy, storage: Storage) -> None:
    digest = await origin.ingest(images.photo_jpeg(400, 300))
    s3_proxy.hides = lambda request: request.method in {"GET", "HEAD"}
    taken_down = await origin.takedowns.take_down(digest)
    assert taken_down.digest == digest
    assert await storage.exists(tombstone_key(digest), consistent=True)
    with pytest.raises(NotFoundError):
        await origin.takedowns.take_down(OTHER)


async def test_change_of_a_document_starts_from_the_latest_version_of_any_region(
    origin: Library, s3_proxy: S3Proxy, storage: Storage
) -> None:
    digest = await origin.ingest(images.photo_jpeg(400, 300))
    before = (await storage.get(document_key(digest)) or b"").decode()
    await origin.documents.update(digest, lambda document: replace(document, alt="A panda."))

    def lags(request: Request) -> tuple[int, str] | None:
        return (200, before) if request.method == "GET" and "/documents/" in request.path and not request.consistent else None

    s3_proxy.error_for = lags
    assert (await origin.documents.get(digest)).alt == "", "the region lags"
    changed = await origin.documents.update(digest, lambda document: replace(document, focal=FocalPoint(0.3, 0.6)))
    assert (changed.alt, changed.focal) == ("A panda.", FocalPoint(0.3, 0.6))

"""The list of images in the store: one entry per image, even after concurrent or interrupted writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from service.library import ingest as ingest_module
from service.library.listing import SETTLED_AFTER, Listing
from service.rendering.pool import RenderPool
from service.storage.keys import RECENT_BACKFILLED_KEY, document_key, recent_key
from tests.support import images
from tests.support.library import Library, open_library

pytestmark = pytest.mark.anyio


@pytest.fixture
async def library(tmp_path: Path, pool: RenderPool) -> AsyncIterator[Library]:
    async with open_library(tmp_path, pool) as library:
        yield library


@pytest.fixture
def listing(library: Library) -> Listing:
    return Listing(library.storage, library.images, library.takedowns)


async def entries(library: Library) -> list[str]:
    return [name async for name in library.storage.list_names("recent")]


async def shown(listing: Listing) -> list[str]:
    return [document.digest for document in (await listing.page("", 10)).documents]


async def test_image_in_several_uploads_at_once_has_one_entry(library: Library, listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=number) for number in range(10))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # noqa: ARG003 - as `datetime` has it
            return next(times)

    monkeypatch.setattr(ingest_module, "datetime", Clock)
    body = images.photo_jpeg(300, 200)
    taken = await asyncio.gather(*(library.ingest(body) for _ in range(4)))
    assert len(set(taken)) == 1
    assert len(await entries(library)) == 1
    assert await shown(listing) == taken[:1]


async def test_entry_without_a_document_is_not_shown_and_does_not_end_the_list(library: Library, listing: Listing) -> None:
    digest = await library.ingest(images.photo_jpeg(300, 200))
    for day in range(1, 4):
        await library.storage.put_if_absent(recent_key("b" * 32, f"2100-01-0{day}T00:00:00Z"), b"", durable=False)
    assert await shown(listing) == [digest]
    first = await listing.page("", 2)
    assert first.documents == []
    assert first.next is not None
    assert [document.digest for document in (await listing.page(first.next, 2)).documents] == [digest]


async def test_entry_with_another_time_than_its_document_is_not_shown(library: Library, listing: Listing) -> None:
    digest = await library.ingest(images.photo_jpeg(300, 200))
    await library.storage.put_if_absent(recent_key(digest, "2020-01-01T00:00:00Z"), b"", durable=False)
    assert await shown(listing) == [digest]


async def test_backfill_runs_for_a_day_after_the_first_time_and_then_no_more(library: Library, listing: Listing) -> None:
    digest = await library.ingest(images.photo_jpeg(300, 200))
    name = (await entries(library))[0]
    for age, completed in ((None, True), (timedelta(hours=1), True), (SETTLED_AFTER + timedelta(minutes=1), False)):
        await library.storage.delete(f"recent/{name}")
        if age is not None:
            noted = (datetime.now(UTC) - age).isoformat().encode("ascii")
            await library.storage.put(RECENT_BACKFILLED_KEY, noted, durable=False)
        await listing.backfill()
        assert await shown(listing) == ([digest] if completed else [])


async def test_backfill_lists_images_of_an_earlier_version(library: Library, listing: Listing) -> None:
    digest = await library.ingest(images.photo_jpeg(300, 200))
    document = (await library.storage.get(document_key(digest)) or b"").replace(
        (await library.documents.get(digest)).created.encode(), b"2026-11-01T12:00:00Z"
    )
    await library.storage.put(document_key(digest), document, durable=False)
    await library.storage.delete(f"recent/{(await entries(library))[0]}")
    assert repr(listing) == "<Listing: backfill in progress>"
    await listing.backfill()
    assert repr(listing) == "<Listing: complete>"
    assert await entries(library) == [recent_key(digest, "2026-11-01T12:00:00Z").removeprefix("recent/")]


async def test_lookup_reports_taken_down_images_separately(library: Library, listing: Listing) -> None:
    digest, other = await library.ingest(images.photo_jpeg(300, 200)), await library.ingest(images.rgba_png(40, 40))
    await library.takedowns.take_down(other)
    known = await listing.lookup([other, "a" * 32, digest])
    assert ([document.digest for document in known.documents], known.gone) == ([digest], [other])


async def test_backfill_that_fails_is_logged_and_stops_nothing(
    library: Library, listing: Listing, logged: list[structlog.typing.EventDict]
) -> None:
    digest = await library.ingest(images.photo_jpeg(300, 200))
    await library.storage.put(RECENT_BACKFILLED_KEY, b"no time", durable=False)
    await listing.backfill()
    assert [event["event"] for event in logged if event["log_level"] == "error"] == ["images could not be listed"]
    assert await shown(listing) == [digest]

"""The list of images in the store: one entry an image, whatever happened while it was written."""

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
from tests.support.library import House, house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def home(tmp_path: Path, pool: RenderPool) -> AsyncIterator[House]:
    async with house(tmp_path, pool) as built:
        yield built


@pytest.fixture
def listing(home: House) -> Listing:
    return Listing(home.storage, home.images, home.takedowns)


async def entries(home: House) -> list[str]:
    return [name async for name in home.storage.list_names("recent")]


async def shown(listing: Listing) -> list[str]:
    return [document.digest for document in (await listing.page("", 10)).documents]


async def test_image_that_is_taken_in_by_several_at_once_has_one_entry(
    home: House, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=number) for number in range(10))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # noqa: ARG003 - as `datetime` has it
            return next(times)

    monkeypatch.setattr(ingest_module, "datetime", Clock)
    body = images.photo_jpeg(300, 200)
    taken = await asyncio.gather(*(home.ingest(body) for _ in range(4)))
    assert len(set(taken)) == 1
    assert len(await entries(home)) == 1
    assert await shown(listing) == taken[:1]


async def test_entry_whose_image_never_came_is_not_shown_and_does_not_end_the_list(home: House, listing: Listing) -> None:
    digest = await home.ingest(images.photo_jpeg(300, 200))
    for day in range(1, 4):
        await home.storage.put_if_absent(recent_key("b" * 32, f"2100-01-0{day}T00:00:00Z"), b"", durable=False)
    assert await shown(listing) == [digest]
    first = await listing.page("", 2)
    assert first.documents == []
    assert first.next is not None
    assert [document.digest for document in (await listing.page(first.next, 2)).documents] == [digest]


async def test_entry_of_an_earlier_time_of_the_same_image_is_not_shown(home: House, listing: Listing) -> None:
    digest = await home.ingest(images.photo_jpeg(300, 200))
    await home.storage.put_if_absent(recent_key(digest, "2020-01-01T00:00:00Z"), b"", durable=False)
    assert await shown(listing) == [digest]


async def test_list_is_completed_once_and_again_for_a_day(home: House, listing: Listing) -> None:
    digest = await home.ingest(images.photo_jpeg(300, 200))
    name = (await entries(home))[0]
    for age, completed in ((None, True), (timedelta(hours=1), True), (SETTLED_AFTER + timedelta(minutes=1), False)):
        await home.storage.delete(f"recent/{name}")
        if age is not None:
            noted = (datetime.now(UTC) - age).isoformat().encode("ascii")
            await home.storage.put(RECENT_BACKFILLED_KEY, noted, durable=False)
        await listing.backfill()
        assert await shown(listing) == ([digest] if completed else [])


async def test_list_is_completed_with_what_an_earlier_version_wrote(home: House, listing: Listing) -> None:
    digest = await home.ingest(images.photo_jpeg(300, 200))
    document = (await home.storage.get(document_key(digest)) or b"").replace(
        (await home.documents.get(digest)).created.encode(), b"2026-11-01T12:00:00Z"
    )
    await home.storage.put(document_key(digest), document, durable=False)
    await home.storage.delete(f"recent/{(await entries(home))[0]}")
    await listing.backfill()
    assert await entries(home) == [recent_key(digest, "2026-11-01T12:00:00Z").removeprefix("recent/")]


async def test_known_leaves_out_what_is_taken_down_and_says_so(home: House, listing: Listing) -> None:
    digest, other = await home.ingest(images.photo_jpeg(300, 200)), await home.ingest(images.rgba_png(40, 40))
    await home.takedowns.take_down(other)
    known = await listing.lookup([other, "a" * 32, digest])
    assert ([document.digest for document in known.documents], known.gone) == ([digest], [other])


async def test_list_that_cannot_be_completed_is_logged_and_ends_nothing(
    home: House, listing: Listing, logged: list[structlog.typing.EventDict]
) -> None:
    digest = await home.ingest(images.photo_jpeg(300, 200))
    await home.storage.put(RECENT_BACKFILLED_KEY, b"no time", durable=False)
    await listing.backfill()
    assert [event["event"] for event in logged if event["log_level"] == "error"] == ["images could not be listed"]
    assert await shown(listing) == [digest]

"""Which image an object of a source is: freshness, validators, refusals, failures and limits, with a source that the test controls."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.concurrency.recent import Recent
from service.errors import (
    BadAddressError,
    DeadlineExceededError,
    GoneError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
    RenderFailedError,
    RenderGaveUpError,
    ServiceError,
    SourceFailedError,
    SourceRefusedError,
    SourceSlowError,
    StorageFullError,
    UnknownImageError,
    UnsupportedFormatError,
)
from service.images.document import Document
from service.images.info import ImageInfo, Placeholder
from service.library.documents import Documents
from service.library.ingest import Ingester, IngestResult
from service.library.uploads import Upload, UploadSpool
from service.settings.source_locations import parse_sources
from service.sources import sources as sources_module
from service.sources.source import SourceObject, Validators, Write
from service.sources.sources import MAX_CONCURRENT_FETCHES, MAX_REFUSALS, REFUSAL_SECONDS, STALE_SECONDS, SourceMapping, Sources
from service.storage.keys import SOURCE_MAPPINGS_PREFIX, source_mapping_key
from service.storage.object_store import Storage, open_storage
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

MAX_PENDING = 3 * MAX_CONCURRENT_FETCHES

TEXTS = st.text(max_size=30) | st.lists(st.sampled_from(["a", "/", "?", "%3F", "%2F", "ö", "%25"]), min_size=4, max_size=8).map("".join)

LOCATIONS = parse_sources("shop=s3://bucket/up; cms=https://cms.test/uploads; all=https://cms.test; port=http://old.test:8080/a%20b")


class OneSource:
    """A source with one body at every path. `fail`, if set, is raised by each fetch; `wait`, if set, is waited for."""

    def __init__(self) -> None:
        self.body = b"first"
        self.tag = '"1"'
        self.fail: ServiceError | None = None
        self.wait: asyncio.Event | None = None
        self.fetches: list[tuple[str, Validators]] = []
        self.most_at_once = self._at_once = 0

    async def fetch(self, path: str, validators: Validators, write: Write) -> Validators | None:
        self.fetches.append((path, validators))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await (self.wait.wait() if self.wait is not None else asyncio.sleep(0))
            if self.fail is not None:
                raise self.fail
            if validators.etag == self.tag:
                return None
            await write(self.body)
            return Validators(self.tag)
        finally:
            self._at_once -= 1

    async def list(self, after: str, limit: int) -> Sequence[SourceObject]:
        assert after == ""
        await (self.wait.wait() if self.wait is not None else asyncio.sleep(0))
        return [SourceObject("a.jpg", 5)][:limit]


class Library:
    """Takes the place of `Documents` and `Ingester`: any bytes that do not begin with `no` are an image.

    `fail`, if set, is raised by each ingest, and `full`, if set, before anything is taken in.
    """

    def __init__(self, folder: Path) -> None:
        self.full: ServiceError | None = None
        self.spool = UploadSpool(folder)
        self._folder = folder
        self.documents: dict[str, Document] = {}
        self.taken_down: set[str] = set()
        self.fail: ServiceError | None = None

    def spooled_files(self) -> list[Path]:
        """Return the files of uploads that are not finished."""
        return list(self._folder.iterdir())

    async def get(self, digest: str) -> Document:
        if digest in self.taken_down:
            raise GoneError("taken down")
        if digest not in self.documents:
            raise UnknownImageError.for_digest(digest)
        return self.documents[digest]

    def raise_if_full(self) -> None:
        if self.full is not None:
            raise self.full

    async def ingest(self, upload: Upload, *, file_name: str) -> IngestResult:
        await upload.flush()
        if self.fail is not None:
            raise self.fail
        if upload.path.read_bytes().startswith(b"no"):
            raise UnsupportedFormatError("no image")
        if upload.digest in self.taken_down:
            raise GoneError("taken down")
        info = ImageInfo("jpeg", 4, 3, 1, alpha=False, needs_full_decode=False)
        document = Document(upload.digest, info, upload.bytes, "2026-11-29T00:00:00.000Z", Placeholder("", "", "", []), name=file_name)
        self.documents[upload.digest] = document
        return IngestResult(document, created=True)


class World:
    """Sources over one store, with a clock that the test moves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(sources_module, "_now", lambda: self.now)
        # However slow the machine is, only the tests of these limits may reach them.
        monkeypatch.setattr(sources_module, "TURN_SECONDS", 600.0)
        monkeypatch.setattr(sources_module, "FETCH_SECONDS", 600.0)
        self.source = OneSource()
        folder.mkdir()
        self.library = Library(folder)
        self.storage: Storage = open_storage("memory://", {})
        self.sources = self.restarted()

    def restarted(self) -> Sources:
        """Return the sources of another process with the same store."""
        documents, ingester = cast(Documents, self.library), cast(Ingester, self.library)
        opened = dict.fromkeys(LOCATIONS, self.source)
        self.sources = Sources(opened, LOCATIONS, self.storage, documents, ingester, fresh_seconds=300, max_pending=MAX_PENDING)
        self.sources._refusals = Recent(REFUSAL_SECONDS, MAX_REFUSALS, lambda: self.now)
        return self.sources

    async def find(self, path: str = "a.jpg") -> tuple[int, int]:
        """Return the size of the image of an object, and for how long it is fresh."""
        found = await self.sources.find("shop", path)
        return found.document.bytes, found.fresh_seconds

    async def until_fetches(self, number: int) -> None:
        """Return when the source has received so many requests."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.source.fetches) < number:  # noqa: ASYNC110 - the store's threads are in between
                await asyncio.sleep(0.001)

    @property
    def conditions(self) -> list[str]:
        """The entity tags that the source was asked about."""
        return [validators.etag for _, validators in self.source.fetches]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "spool", monkeypatch)


async def test_image_is_fetched_once_while_it_is_fresh(world: World) -> None:
    assert await world.find() == (5, 300)
    world.now += 100
    assert await world.find() == (5, 200)
    world.restarted()
    assert await world.find() == (5, 200)
    assert world.conditions == [""]


async def test_new_image_is_not_fetched_while_too_many_uploads_wait_and_a_known_one_is_shown(world: World) -> None:
    assert await world.find() == (5, 300)
    world.library.full = OverloadedError("busy")
    with pytest.raises(OverloadedError):
        await world.find("b.jpg")
    world.now += 301
    assert await world.find() == (5, 300)
    assert [path for path, _ in world.source.fetches] == ["a.jpg", "a.jpg"]


async def test_image_that_is_not_fresh_is_revalidated(world: World) -> None:
    await world.find()
    world.now += 300
    assert await world.find() == (5, 300)
    world.source.body, world.source.tag = b"second one", '"2"'
    world.now += 300
    assert await world.find() == (10, 300)
    world.now += 1
    assert await world.find() == (10, 299)
    assert world.conditions == ["", '"1"', '"1"']


async def test_clock_that_was_set_back_makes_an_image_stale(world: World) -> None:
    await world.find()
    world.now -= 10
    assert await world.find() == (5, 300)
    assert world.conditions == ["", '"1"']


async def test_image_is_named_after_its_path(world: World) -> None:
    assert (await world.sources.find("shop", "2026/Größe 1.jpg?v=1.png")).document.name == "Größe 1.jpg"
    world.source.body = b"second one"
    assert (await world.sources.ingest("shop", "b.jpg")).document.name == "b.jpg"


async def test_bytes_of_an_import_are_counted_and_too_many_end_it(world: World) -> None:
    counted: list[int] = []
    await world.sources.ingest("shop", "a.jpg", counted.append)
    # Nothing is fetched.
    await world.sources.ingest("shop", "a.jpg", counted.append)
    assert counted == [5]

    def refuse(_: int) -> None:
        raise QuotaExceededError("used up")

    with pytest.raises(QuotaExceededError):
        await world.sources.ingest("shop", "b.jpg", refuse)
    # That was no fault of the object.
    assert (await world.sources.ingest("shop", "b.jpg")).document.bytes == 5


async def test_same_path_in_another_source_is_another_object(world: World) -> None:
    await world.find()
    await world.sources.find("cms", "a.jpg")
    keys = {source_mapping_key("shop", "s3://bucket/up/a.jpg"), source_mapping_key("cms", "https://cms.test/uploads/a.jpg")}
    assert {f"{SOURCE_MAPPINGS_PREFIX}/{name}" async for name in world.storage.list_names(SOURCE_MAPPINGS_PREFIX)} == keys
    assert len(world.source.fetches) == 2


@pytest.mark.parametrize("failure", [SourceFailedError("broken", source_status=503), SourceSlowError("slow")])
async def test_last_image_is_shown_while_the_source_fails(world: World, failure: ServiceError) -> None:
    await world.find()
    world.now += 300
    world.source.fail = failure
    assert await world.find() == (5, 30)
    # The failure is remembered, so that other requests do not wait for it.
    assert await world.find() == (5, 30)
    assert len(world.source.fetches) == 2
    world.now += REFUSAL_SECONDS
    world.source.fail = None
    assert await world.find() == (5, 300)


async def test_last_image_is_shown_for_a_week_after_it_was_last_there(world: World) -> None:
    await world.find()
    world.source.fail = SourceFailedError("denied", source_status=403)
    world.now += STALE_SECONDS - 1
    # CDNs that store it get the rest of the week.
    found = await world.sources.find("shop", "a.jpg")
    assert (found.fresh_seconds, found.stale_seconds) == (30, 1)
    world.now += REFUSAL_SECONDS
    with pytest.raises(SourceFailedError):
        await world.find()
    # The image is no longer shown, but still known.
    world.source.fail = None
    world.now += REFUSAL_SECONDS
    assert await world.find() == (5, 300)
    assert world.conditions[-1] == '"1"'


@pytest.mark.parametrize(
    ("error", "fetches"),
    [
        (RenderGaveUpError("crashed twice"), 1),
        (RenderFailedError("crashed"), 1),
        (DeadlineExceededError("too slow"), 1),
        (OverloadedError("busy"), 3),
        (StorageFullError("full"), 3),
    ],
    ids=repr,
)
async def test_error_of_an_object_is_remembered_and_one_of_this_server_is_not(world: World, error: ServiceError, fetches: int) -> None:
    world.library.fail = error
    for _ in range(3):
        with pytest.raises(type(error)):
            await world.find()
    assert len(world.source.fetches) == fetches


async def test_failure_without_a_last_image_is_an_error_that_is_remembered(world: World) -> None:
    world.source.fail = SourceFailedError("broken", source_status=503)
    for _ in range(3):
        with pytest.raises(SourceFailedError):
            await world.find()
    assert len(world.source.fetches) == 1
    world.source.fail = None
    world.now += REFUSAL_SECONDS
    assert await world.find() == (5, 300)


@pytest.mark.parametrize("status", [404, 410])
async def test_object_that_is_gone_is_not_found_even_if_it_was_an_image(world: World, status: int) -> None:
    await world.find()
    world.now += 300
    world.source.fail = SourceFailedError("gone", source_status=status)
    for _ in range(3):
        with pytest.raises(NotFoundError, match="no such image"):
            await world.find()
    assert len(world.source.fetches) == 2


async def test_ingest_of_an_unchanged_object_fetches_no_bytes(world: World) -> None:
    first = await world.sources.ingest("shop", "a.jpg")
    again = await world.restarted().ingest("shop", "a.jpg")
    assert (first.created, again.created, again.document) == (True, False, first.document)
    assert world.source.fetches == [("a.jpg", Validators()), ("a.jpg", Validators('"1"'))]
    # It is recorded which image the object is.
    assert await world.find() == (5, 300)
    assert len(world.source.fetches) == 2
    world.source.body, world.source.tag = b"second image", '"2"'
    assert (await world.sources.ingest("shop", "a.jpg")).document.bytes == 12
    assert await world.find() == (12, 300)


async def test_ingest_of_an_unchanged_object_that_was_taken_down_is_gone(world: World) -> None:
    found = await world.sources.ingest("shop", "a.jpg")
    world.library.taken_down.add(found.document.digest)
    with pytest.raises(GoneError):
        await world.sources.ingest("shop", "a.jpg")
    world.source.body, world.source.tag = b"another", '"2"'
    assert (await world.sources.ingest("shop", "a.jpg")).created


@pytest.mark.parametrize(("body", "detail"), [(b"no image", "no image"), (b"", "The object in the source is empty")])
async def test_object_that_is_no_image_is_an_error_that_is_remembered(world: World, body: bytes, detail: str) -> None:
    world.source.body = body
    for _ in range(3):
        with pytest.raises(UnsupportedFormatError, match=detail):
            await world.find()
    assert len(world.source.fetches) == 1
    assert world.library.spooled_files() == []
    # Whoever ingests it wants to know now.
    with pytest.raises(UnsupportedFormatError):
        await world.sources.ingest("shop", "a.jpg")
    world.source.body = b"an image"
    assert (await world.sources.ingest("shop", "a.jpg")).document.bytes == 8
    assert await world.find() == (8, 300)


def service_frames() -> set[int]:
    """Return the identities of all frames of the service that something still refers to."""
    gc.collect()
    return {id(frame) for frame in gc.get_objects() if isinstance(frame, FrameType) and "/service/" in frame.f_code.co_filename}


async def test_error_that_is_remembered_keeps_nothing_of_the_request_in_memory(world: World) -> None:
    world.source.body = b"no image"
    before = service_frames()
    for _ in range(3):
        with pytest.raises(UnsupportedFormatError):
            await world.find()
    assert len(world.sources._refusals) == 1
    assert service_frames() <= before


async def test_image_that_was_taken_down_is_gone_until_the_object_changes(world: World) -> None:
    await world.find()
    world.library.taken_down = set(world.library.documents)
    for seconds in (0, 300, 1):
        world.now += seconds
        with pytest.raises(GoneError):
            await world.find()
    # Nothing is downloaded in order to be refused, and the source is asked no more often than for a picture.
    assert world.conditions == ["", '"1"']
    world.source.body, world.source.tag = b"second one", '"2"'
    world.now += 300
    assert await world.find() == (10, 300)


async def test_object_that_becomes_an_image_that_was_taken_down_is_fetched_once_while_it_is_fresh(world: World) -> None:
    await world.find()
    world.library.taken_down = set(world.library.documents)
    # Another object with the same bytes.
    world.source.tag = '"2"'
    for _ in range(3):
        with pytest.raises(GoneError):
            await world.find("copy.jpg")
    assert [path for path, _ in world.source.fetches] == ["a.jpg", "copy.jpg"]
    world.library.taken_down.clear()
    world.library.documents.clear()
    assert await world.find("copy.jpg") == (5, 300)


async def test_image_that_is_no_longer_stored_is_fetched_without_a_condition(world: World) -> None:
    await world.find()
    world.library.documents.clear()
    assert await world.find() == (5, 300)
    assert world.conditions == ["", ""]


async def test_damaged_mapping_is_replaced(world: World) -> None:
    key = source_mapping_key("shop", "s3://bucket/up/a.jpg")
    await world.storage.put(key, b"{", durable=False)
    assert await world.find() == (5, 300)
    stored = await world.storage.get(key)
    assert stored is not None
    assert msgspec.json.decode(stored, type=SourceMapping).url == "s3://bucket/up/a.jpg"


async def test_not_modified_without_a_condition_is_a_failure_of_the_source(world: World) -> None:
    world.source.tag = ""
    with pytest.raises(SourceFailedError, match="304 Not Modified to an unconditional"):
        await world.find()


async def test_requests_for_one_object_share_its_fetch(world: World) -> None:
    assert await asyncio.gather(*(world.find() for _ in range(20))) == [(5, 300)] * 20
    assert len(world.source.fetches) == 1


async def test_fetches_from_one_source_at_a_time_are_limited(world: World) -> None:
    await asyncio.gather(*(world.find(f"{number}.jpg") for number in range(3 * MAX_CONCURRENT_FETCHES)))
    assert world.source.most_at_once == MAX_CONCURRENT_FETCHES


async def test_source_with_too_many_requests_refuses_more_at_once_and_leaves_room_for_others(world: World) -> None:
    await world.find("known.jpg")
    world.now += 300
    world.source.wait = asyncio.Event()
    waiting = [asyncio.ensure_future(world.find(f"{number}.jpg")) for number in range(MAX_PENDING)]
    await world.until_fetches(1 + MAX_CONCURRENT_FETCHES)
    # Those that wait for their turn have no file.
    assert len(world.library.spooled_files()) == MAX_CONCURRENT_FETCHES
    with pytest.raises(OverloadedError, match="of this source"):
        await world.find("one more.jpg")
    assert await world.find("known.jpg") == (5, 30)
    other = asyncio.ensure_future(world.sources.find("cms", "a.jpg"))
    world.source.wait.set()
    assert await asyncio.gather(*waiting) == [(5, 300)] * MAX_PENDING
    assert (await other).fresh_seconds == 300
    # The refusal is not remembered.
    assert await world.find("one more.jpg") == (5, 300)


async def test_fetch_that_takes_too_long_is_given_up_and_frees_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "FETCH_SECONDS", 0.05)
    world.source.wait = asyncio.Event()
    found = await asyncio.gather(*(world.find(f"{number}.jpg") for number in range(2 * MAX_CONCURRENT_FETCHES)), return_exceptions=True)
    assert [type(one) for one in found] == [SourceSlowError] * len(found)
    with pytest.raises(SourceSlowError, match="too long"):
        await world.sources.list("shop", "", 1)
    world.source.wait.set()
    monkeypatch.undo()
    assert [one.path for one in await world.sources.list("shop", "", 1)] == ["a.jpg"]
    assert (await world.sources.ingest("shop", "0.jpg")).document.bytes == 5
    assert world.library.spooled_files() == []


async def test_fetch_that_waits_too_long_for_its_turn_is_refused_without_blame_of_the_object(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "TURN_SECONDS", 0.01)
    world.source.wait = asyncio.Event()
    first = [asyncio.ensure_future(world.find(f"{number}.jpg")) for number in range(MAX_CONCURRENT_FETCHES)]
    await world.until_fetches(MAX_CONCURRENT_FETCHES)
    for _ in range(2):
        with pytest.raises(OverloadedError):
            await world.find()
    world.source.wait.set()
    assert await asyncio.gather(*first) == [(5, 300)] * MAX_CONCURRENT_FETCHES
    assert await world.find() == (5, 300)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://cms.test/uploads/2026/a%20b.jpg", ("cms", "2026/a b.jpg")),
        ("HTTPS://CMS.test:443/uploads/a.jpg?v=1&x=%2F#part", ("cms", "a.jpg?v=1&x=%2F")),
        ("https://cms.test/%75ploads/a+b.jpg", ("cms", "a+b.jpg")),
        ("https://cms.test/upload/a.jpg", ("all", "upload/a.jpg")),
        ("https://cms.test/a.jpg?", ("all", "a.jpg")),
        ("http://old.test:8080/a%20b/%C3%B6.jpg", ("port", "ö.jpg")),
        ("http://old.test:8080/a%20b/ö 漢.jpg?v=漢", ("port", "ö 漢.jpg?v=漢")),
        ("https://cms.test/a.jpg?from=/b/c.jpg", ("all", "a.jpg?from=%2Fb%2Fc.jpg")),
        ("https://cms.test/100%25/%E6%BC%A2.jpg", ("all", "100%/漢.jpg")),
    ],
)
async def test_url_below_a_source_is_located_in_the_one_with_the_longest_prefix(world: World, url: str, expected: tuple[str, str]) -> None:
    assert world.sources.locate(url) == expected


REFUSED = [
    "", "a.jpg", "//cms.test/", "ftp://cms.test/", "file:///etc/passwd", "javascript:alert(1)", "https:///a", "https://",
    "https://user@cms.test/a", "https://user:pass@cms.test/a", "https://cms.test@evil.test/a", "https://cms.test:99999/a",
    "https://cms.test:x/a", "https://cms.test:8443/a", "https://cms.test./a", "https://sub.cms.test/a", "https://evil-cms.test/a",
    "https://cms.test.evil.test/a", "https://127.0.0.1/a", "https://[::1", "http://cms.test/a", "http://old.test/a%20b/a",
    "http://old.test:8080/", "http://old.test:8080/a%20bc/a", "http://old.test:8080/b/a", "s3://bucket/up/a.jpg",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
async def test_url_that_is_below_no_source_is_refused(world: World, url: str) -> None:
    with pytest.raises(SourceRefusedError) as refused:
        world.sources.locate(url)
    assert "https://cms.test/uploads/" in str(refused.value.expected)
    assert refused.value.remedy


@pytest.mark.parametrize(
    "url",
    [
        *("https://cms.test/", "https://cms.test/uploads/", "https://cms.test/uploads/../a.jpg", "https://cms.test/uploads/%2e%2e/a.jpg"),
        *("https://cms.test/uploads/..%2fa.jpg", "https://cms.test/uploads//a.jpg", "https://cms.test/uploads/a%00.jpg"),
        *("https://cms.test/uploads/a\\b.jpg", "https://cms.test/uploads/%ff.jpg", "https://cms.test/uploads/a%2Fb.jpg"),
        # In the path of an object, this would begin a query.
        "https://cms.test/uploads/a%3Fb.jpg",
    ],
)
async def test_url_that_could_lead_out_of_its_source_is_refused(world: World, url: str) -> None:
    with pytest.raises(BadAddressError):
        world.sources.locate(url)


def parts_of(url: str) -> tuple[list[str], str]:
    """Return the path and the query of a URL, decoded, so that two spellings of one URL are equal."""
    parts = urlsplit(url)
    return [unquote(segment, errors="surrogateescape") for segment in parts.path.split("/")], unquote(parts.query)


@given(st.sampled_from(["", "https://cms.test/", "https://cms.test/uploads/", "http://old.test:8080/a%20b/"]), TEXTS)
def test_any_text_is_located_at_the_object_that_it_names_or_refused(prefix: str, text: str) -> None:
    sources = Sources({}, LOCATIONS, *cast(tuple[Any, Any, Any], (None, None, None)), fresh_seconds=300, max_pending=1)
    try:
        name, path = sources.locate(prefix + text)
    except (BadAddressError, SourceRefusedError):
        return
    assert parts_of(LOCATIONS[name].url(path)) == parts_of(prefix + text)


async def test_name_that_is_not_configured_is_not_found(world: World) -> None:
    assert world.sources.require("shop") == LOCATIONS["shop"]
    with pytest.raises(NotFoundError) as refused:
        world.sources.require("sohp")
    assert refused.value.expected == "shop, cms, all, port"

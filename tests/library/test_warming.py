import os
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import anyio
import msgspec
import pytest
import structlog

from service.errors import StorageFullError, StorageUnavailableError
from service.images.formats import FORMATS, Format
from service.images.info import ImageInfo
from service.images.ladder import default_formats
from service.images.transform import Transform
from service.images.transform import parse as parse_transform
from service.library import warming, warming_queue
from service.library.image_store import ImageStore
from service.library.renditions import Rendition
from service.library.warming import ladder_steps, steps_of_one_decode
from service.library.warming_queue import WaitingImage, WarmingQueue
from service.rendering import process as process_module
from service.rendering.pool import RenderPool
from service.rendering.protocol import Rendered
from service.settings.sections import WarmFormat
from service.storage.keys import WARMING_PREFIX, original_key, warming_key
from service.storage.object_store import open_storage
from service.urls.rendition_url import RenditionUrl, parse_rendition_url
from service.urls.signing import Signer, UrlBuilder
from tests.support import images
from tests.support.library import Library, open_library, rendition_url
from tests.support.renders import LIMITS, halted, render_pool, until, watched_jobs
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

Logged = list[structlog.typing.EventDict]

PHOTO = ImageInfo("jpeg", 3_000, 2_000, 1, alpha=False, needs_full_decode=False)
CUTOUT = ImageInfo("png", 700, 500, 1, alpha=True, needs_full_decode=False)
TOWER = ImageInfo("png", 2_600, 9_000, 1, alpha=False, needs_full_decode=False)
MOVING = ImageInfo("gif", 400, 300, 5, alpha=True, needs_full_decode=True)
DRAWING = ImageInfo("svg", 300, 200, 1, alpha=True, needs_full_decode=True)


@pytest.fixture(scope="module")
async def lone(anyio_backend: object) -> AsyncIterator[RenderPool]:
    async with render_pool() as running:
        yield running


@pytest.fixture
async def library(tmp_path: Path, lone: RenderPool) -> AsyncIterator[Library]:
    async with open_library(tmp_path, lone) as library:
        yield library


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the jobs that render processes have received so far, by the names of their types."""
    return watched_jobs(monkeypatch)


@asynccontextmanager
async def warming_of(library: Library) -> AsyncIterator[None]:
    """Run the warmer during the block."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(library.warmer.run)
        yield
        tasks.cancel_scope.cancel()


async def warmed(library: Library) -> None:
    """Wait until the store has no warming note."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while await library.storage.list_names_after(WARMING_PREFIX, "", 1):  # noqa: ASYNC110 - what is in a store sets no event
            await anyio.sleep(0.01)


def document_links(info: ImageInfo, digest: str, types: list[str], quality: Mapping[Format, int] = MappingProxyType({})) -> dict[str, int]:
    """Return the signing payloads and widths of the URLs in an image's document."""
    markup = UrlBuilder(Signer([b"k"]), "", LIMITS, quality=quality).markup(digest, info, Transform())
    return {
        parse_rendition_url(link.url.encode())[0].signing_payload: link.width
        for source in markup.sources
        if source.type in types
        for link in source.renditions
    }


# The steps of a ladder


@pytest.mark.parametrize("info", [PHOTO, CUTOUT, TOWER, MOVING, DRAWING], ids=["photo", "cutout", "tower", "moving", "drawing"])
def test_ladder_steps_have_exactly_the_urls_of_the_document(info: ImageInfo) -> None:
    ladder = ladder_steps("a" * 32, info, ["webp", "fallback"], FORMATS, LIMITS)
    types = [f"image/{name}" for name in ("webp", default_formats(info)[-1])]
    assert {step.url.signing_payload: step.width for step in ladder} == document_links(info, "a" * 32, types)
    assert [step.width for step in ladder] == sorted((step.width for step in ladder), reverse=True)


@pytest.mark.parametrize("info", [PHOTO, CUTOUT, TOWER, MOVING, DRAWING], ids=["photo", "cutout", "tower", "moving", "drawing"])
def test_ladder_steps_with_the_servers_quality_have_the_urls_of_the_document(info: ImageInfo) -> None:
    quality: dict[Format, int] = {"webp": 78, "jpeg": 60}
    ladder = ladder_steps("a" * 32, info, ["webp", "fallback"], FORMATS, LIMITS, quality=quality)
    types = [f"image/{name}" for name in ("webp", default_formats(info)[-1])]
    assert {step.url.signing_payload: step.width for step in ladder} == document_links(info, "a" * 32, types, quality)
    assert all(step.transform.quality == quality.get(step.format) for step in ladder)


def test_ladder_steps_beyond_the_limits_of_format_or_server_are_left_out() -> None:
    scroll = ImageInfo("png", 1_000, 20_000, 1, alpha=False, needs_full_decode=False)
    ladder = [(step.width, step.format) for step in ladder_steps("a" * 32, scroll, ["webp", "fallback"], FORMATS, LIMITS)]
    # 20,000 × 819 / 1,000 = 16,380 is the largest height that a WebP can have.
    assert ladder == [(1_000, "jpeg"), (819, "webp")] + [(width, name) for width in (640, 320) for name in ("webp", "jpeg")]
    few = msgspec.structs.replace(LIMITS, max_output_pixels=700_000)
    assert {step.width for step in ladder_steps("a" * 32, PHOTO, ["webp"], FORMATS, few)} == {1_024, 640, 320}


def test_ladder_steps_have_the_wanted_formats_that_libvips_and_the_document_have() -> None:
    def formats(info: ImageInfo, wanted: list[WarmFormat], supported: Collection[Format] = FORMATS) -> set[str]:
        return {step.format for step in ladder_steps("a" * 32, info, wanted, supported, LIMITS)}

    assert formats(PHOTO, ["webp", "fallback"]) == {"webp", "jpeg"}
    assert formats(CUTOUT, ["avif", "fallback", "webp"]) == {"avif", "png", "webp"}
    assert formats(PHOTO, ["avif", "webp", "fallback"], ["jpeg", "webp"]) == {"webp", "jpeg"}
    assert formats(PHOTO, []) == set()
    assert formats(MOVING, ["jxl", "avif", "fallback"]) == {"avif", "gif"}
    # The document has no WebP, which would be too narrow: nothing is rendered that no document links to.
    assert formats(ImageInfo("png", 100, 60_000, 1, alpha=False, needs_full_decode=False), ["webp", "fallback"]) == {"jpeg"}


def test_ladder_step_with_a_height_is_rendered_alone() -> None:
    (line,) = ladder_steps("a" * 32, ImageInfo("png", 1, 70_000, 1, alpha=False, needs_full_decode=False), ["fallback"], FORMATS, LIMITS)
    assert (line.transform.canonical_form, line.width, line.separate) == ("height=8192", 1, True)


def test_steps_of_one_decode_have_the_same_input_and_miss_the_same_formats() -> None:
    ladder = ladder_steps("a" * 32, PHOTO, ["webp", "fallback"], FORMATS, LIMITS)
    assert steps_of_one_decode(ladder) == ladder
    rest = ladder[1:]
    assert [(step.width, step.format) for step in steps_of_one_decode(rest)] == [
        (width, "jpeg") for width in (2_560, 1_920, 1_280, 960, 640, 320)
    ]
    lacking_one = [step for step in ladder if (step.width, step.format) != (960, "webp")]
    assert [step.width for step in steps_of_one_decode(lacking_one)[::2]] == [2_560, 1_920, 1_280, 640, 320]


def test_steps_of_one_decode_never_mix_original_and_intermediate() -> None:
    ladder = ladder_steps("a" * 32, TOWER, ["webp"], FORMATS, LIMITS)
    assert TOWER.intermediate is not None
    assert [(step.width, step.from_intermediate) for step in ladder] == [
        (2_560, False), (1_920, False), (1_280, True), (960, True), (640, True), (320, True),
    ]  # fmt: skip
    assert steps_of_one_decode(ladder) == ladder[:2]
    assert steps_of_one_decode(ladder[2:]) == ladder[2:]


def test_ladder_step_of_an_animation_is_rendered_alone() -> None:
    ladder = ladder_steps("a" * 32, MOVING, ["webp", "fallback"], FORMATS, LIMITS)
    assert [(step.width, step.format, step.separate) for step in ladder] == [
        (400, "webp", True), (400, "gif", True), (320, "webp", True), (320, "gif", True),
    ]  # fmt: skip


# Warming


async def test_warming_renders_the_default_ladder_from_one_decode_and_acknowledges_the_image(
    library: Library, jobs: list[str], logged: Logged
) -> None:
    digest = await library.ingest(images.photo_jpeg(1_100, 825))
    assert await library.storage.list_names_after(WARMING_PREFIX, "", 9) == [digest]
    async with warming_of(library):
        await warmed(library)
    assert jobs == ["Probe", "RenderLadder"] + ["NextRendition"] * 7
    for image_format, name in (("webp", "WEBP"), ("jpeg", "JPEG")):
        # The last step has the width of the photo, and the URL of the next width of the ladder.
        for width, shown in ((320, 320), (640, 640), (960, 960), (1_280, 1_100)):
            found = await library.rendition(digest, f"width={width}", image_format)  # type: ignore[arg-type]
            picture = images.decode(found.body)
            assert (found.tier, picture.format, picture.size) == ("store", name, (shown, round(shown * 0.75)))
    assert not any(event["event"] == "rendered" for event in logged)
    assert [(event["digest"], event["made"]) for event in logged if event["event"] == "warmed"] == [(digest, 8)]


async def test_warming_skips_stored_renditions(library: Library, jobs: list[str]) -> None:
    digest = await library.ingest(images.photo_jpeg(720, 540))
    stored = {
        canonical_form: await library.rendition(digest, canonical_form, "jpeg")
        for canonical_form in ("width=960", "width=640", "width=320")
    }
    async with warming_of(library):
        await warmed(library)
        # The queue still has to find out that the store has no further note.
        await until(lambda: repr(library.warmer) == "<Warmer: 1 images warmed, <WarmingQueue: 0 in memory>>")
    assert jobs == ["Probe"] + ["Render"] * 3 + ["RenderLadder", "NextRendition", "NextRendition"]
    for canonical_form, before in stored.items():
        assert (await library.rendition(digest, canonical_form, "jpeg")).body == before.body


async def test_warming_of_an_original_with_an_intermediate_reads_only_that(library: Library, jobs: list[str]) -> None:
    digest = await library.ingest(images.large_jpeg(3_600, 2_400, progressive=True))
    path = library.storage.local_path(original_key(digest))
    assert path is not None
    path.unlink()
    async with warming_of(library):
        await warmed(library)
    assert jobs == ["Probe", "RenderLadder"] + ["NextRendition"] * 11
    assert (await library.rendition(digest, "width=2560")).tier == "store"


async def test_warming_of_an_animation_renders_each_step_alone_with_all_frames(library: Library, jobs: list[str]) -> None:
    digest = await library.ingest(images.animated_gif(400, 300))
    async with warming_of(library):
        await warmed(library)
    found = await library.rendition(digest, "width=320", "webp")
    assert found.tier == "store"
    assert getattr(images.decode(found.body), "n_frames", 1) == 3
    assert jobs.count("Render") >= 2


async def test_warming_takes_the_newest_image_first(library: Library, logged: Logged) -> None:
    digests = [await library.ingest(images.photo_jpeg(64 + number, 48)) for number in range(3)]
    async with warming_of(library):
        await warmed(library)
    assert [event["digest"] for event in logged if event["event"] == "warmed"] == digests[::-1]


async def test_warming_pauses_while_a_request_waits_and_continues_afterwards(
    library: Library, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await library.ingest(images.photo_jpeg(1_100, 825))
    store = library.renditions.store
    found: list[Rendition] = []
    kept = 0

    async def ask() -> None:
        found.append(await library.rendition(digest, "width=111", "jpeg"))

    async def watched(where: object, rendered: Rendered, *more: object) -> Rendition:
        nonlocal kept
        kept += 1
        if kept == 2:
            # The ladder occupies the slot until this returns.
            tasks.start_soon(ask)
            await until(lambda: waiting_jobs(library) == 1)
            assert found == []
        return await store(where, rendered, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(library.renditions, "store", watched)
    async with anyio.create_task_group() as tasks, warming_of(library):
        await warmed(library)
    assert [rendition.tier for rendition in found] == ["render"]
    assert jobs == ["Probe", "RenderLadder", "NextRendition", "Render", "RenderLadder"] + ["NextRendition"] * 5


def waiting_jobs(library: Library) -> int:
    """Return how many jobs are waiting for a slot."""
    return len(library.warmer._pool._queue._without_slot)


async def test_request_for_an_announced_rendition_waits_for_it_and_renders_nothing(
    library: Library, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await library.ingest(images.photo_jpeg(1_100, 825))
    wanted = rendition_url(digest, "width=640", "webp")
    store = library.renditions.store
    found: list[Rendition] = []

    async def ask() -> None:
        found.append(await library.renditions.get_or_render(wanted, parse_transform(wanted.transform)))

    async def watched(where: object, rendered: Rendered, *more: object) -> Rendition:
        if where == wanted:
            tasks.start_soon(ask)
            await until(lambda: bool(library.renditions._rendering._tasks))
            await anyio.wait_all_tasks_blocked()
            assert found == []
        return await store(where, rendered, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(library.renditions, "store", watched)
    async with anyio.create_task_group() as tasks, warming_of(library):
        await warmed(library)
        await until(lambda: len(found) == 1)
    assert (found[0].tier, found[0].stored, images.decode(found[0].body).width) == ("render", True, 640)
    assert jobs == ["Probe", "RenderLadder"] + ["NextRendition"] * 7


async def test_request_for_an_announced_rendition_that_fails_renders_it(
    library: Library, jobs: list[str], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    digest = await library.ingest(images.photo_jpeg(1_100, 825))
    wanted = rendition_url(digest, "width=640", "webp")
    store = library.renditions.store
    found: list[Rendition] = []
    failed = False

    async def ask() -> None:
        found.append(await library.renditions.get_or_render(wanted, parse_transform(wanted.transform)))

    async def watched(where: object, rendered: Rendered, *more: object) -> Rendition:
        nonlocal failed
        if where == wanted and not failed:
            failed = True
            tasks.start_soon(ask)
            await until(lambda: bool(library.renditions._rendering._tasks))
            await anyio.wait_all_tasks_blocked()
            raise StorageFullError("no room")
        return await store(where, rendered, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(library.renditions, "store", watched)
    monkeypatch.setattr(warming, "_RETRY_SECONDS", 0.01)
    async with anyio.create_task_group() as tasks, warming_of(library):
        await warmed(library)
        await until(lambda: len(found) == 1)
    assert (found[0].tier, found[0].stored, images.decode(found[0].body).width) == ("render", True, 640)
    assert jobs.count("Render") == 1


async def test_look_for_missing_renditions_waits_for_one_in_progress(library: Library, lone: RenderPool, jobs: list[str]) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))
    made, missing = (rendition_url(digest, "width=320", image_format) for image_format in ("webp", "jpeg"))
    result: list[list[RenditionUrl]] = []

    async def look() -> None:
        result.append(await library.renditions.not_stored(digest, [missing, made]))

    async with anyio.create_task_group() as tasks:
        with halted(lone):
            tasks.start_soon(library.rendition, digest, "width=320")
            await until(lambda: jobs == ["Probe", "Render"])
            tasks.start_soon(look)
            await anyio.wait_all_tasks_blocked()
            assert result == []
            assert repr(library.renditions) == "<Renditions: <SingleFlight: 1 in flight>, 0 announced>"
    assert result == [[missing]]


# Shutdowns and failures


async def test_warming_that_is_stopped_midway_is_finished_by_the_next_process_without_rendering_twice(
    tmp_path: Path, lone: RenderPool, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path, lone) as first:
        digest = await first.ingest(images.photo_jpeg(1_100, 825))
        kept: list[object] = []
        store = first.renditions.store

        async def watched(where: object, rendered: Rendered, *more: object) -> Rendition:
            done = await store(where, rendered, *more)  # type: ignore[arg-type]
            kept.append(where)
            if len(kept) == 4:
                await anyio.sleep_forever()
            return done

        monkeypatch.setattr(first.renditions, "store", watched)
        async with warming_of(first):
            await until(lambda: len(kept) == 4)
    assert jobs == ["Probe", "RenderLadder", "NextRendition", "NextRendition", "NextRendition"]
    jobs.clear()
    async with open_library(tmp_path, lone) as second:
        assert await second.storage.list_names_after(WARMING_PREFIX, "", 9) == [digest]
        async with warming_of(second):
            await warmed(second)
        assert jobs == ["RenderLadder", "NextRendition", "NextRendition", "NextRendition"]
        ladder = ladder_steps(digest, (await second.documents.get(digest)).info, ["webp", "fallback"], FORMATS, LIMITS)
        assert await second.renditions.not_stored(digest, [step.url for step in ladder]) == []


async def test_image_that_cannot_be_rendered_is_logged_and_dropped_and_the_others_are_warmed(library: Library, logged: Logged) -> None:
    good = await library.ingest(images.photo_jpeg(320, 240))
    bad = await library.ingest(images.photo_jpeg(321, 240))
    path = library.storage.local_path(original_key(bad))
    assert path is not None
    path.write_bytes(images.photo_jpeg(322, 240))
    gone = "a" * 32
    await library.storage.put(warming_key(gone), b"", durable=False)
    async with warming_of(library):
        await warmed(library)
    result = {event["digest"]: event["problem"] for event in logged if event["event"] == "an image was not warmed"}
    assert result == {bad: "damaged-original", gone: "not-found"}
    assert (await library.rendition(good, "width=320")).tier == "store"


async def test_image_that_is_taken_down_while_it_is_warmed_is_no_error(
    library: Library, lone: RenderPool, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))

    async def takes_down() -> None:
        await library.takedowns.take_down(digest)

    def events() -> list[tuple[str, str]]:
        return [(event["log_level"], event["event"]) for event in logged if event.get("digest") == digest and "warmed" in event["event"]]

    # The last moment before the original is opened.
    monkeypatch.setattr(lone, "wait_until_idle", takes_down)
    async with warming_of(library):
        await until(lambda: bool(events()))
    assert events() == [("info", "a taken-down image is not warmed")]


async def test_warming_whose_render_process_is_killed_is_finished_by_another_one(
    library: Library, lone: RenderPool, jobs: list[str], logged: Logged
) -> None:
    digest = await library.ingest(images.photo_jpeg(1_000, 700))
    async with warming_of(library):
        with halted(lone):
            await until(lambda: "RenderLadder" in jobs)
            os.kill(lone.process_ids[0], signal.SIGKILL)
        await warmed(library)
    assert jobs.count("RenderLadder") == 2
    assert [event["event"] for event in logged if event.get("digest") == digest and "warmed" in event["event"]] == ["warmed"]


@pytest.mark.parametrize("failure", [StorageUnavailableError, StorageFullError])
async def test_image_whose_warming_the_store_failed_is_warmed_when_the_store_is_back(
    library: Library, failure: type[StorageFullError | StorageUnavailableError], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(warming, "_RETRY_SECONDS", 0.01)
    digest = await library.ingest(images.photo_jpeg(400, 300))
    attempts = 0

    async def broken(key: str, body: bytes, *, durable: bool) -> bool:
        nonlocal attempts
        attempts += 1
        raise failure("out of order")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.storage, "put_if_absent", broken)
        async with warming_of(library):
            await until(lambda: attempts >= 3)
            assert await library.storage.list_names_after(WARMING_PREFIX, "", 9) == [digest]
            patch.undo()
            await warmed(library)
    assert (await library.rendition(digest, "width=320")).tier == "store"
    assert not any(event["event"] == "an image was not warmed" for event in logged)


async def test_notes_that_cannot_be_listed_at_the_start_are_listed_later(
    library: Library, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(warming, "_RETRY_SECONDS", 0.01)
    digest = "a" * 32
    await enqueue(library.images, library.queue, digest)
    folder = library.storage.local_path(WARMING_PREFIX)
    assert folder is not None
    names = library.storage.list_names_after
    attempts = 0

    async def broken(prefix: str, after: str, limit: int) -> list[str]:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise StorageUnavailableError("out of order")
        return await names(prefix, after, limit)

    monkeypatch.setattr(library.storage, "list_names_after", broken)
    async with warming_of(library):
        await until(lambda: not list(folder.iterdir()))
    assert attempts >= 3


async def test_ingest_whose_warming_note_fails_succeeds_and_is_warmed(
    library: Library, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    folder = library.storage.local_path(WARMING_PREFIX)
    assert folder is not None
    folder.write_bytes(b"a file where the folder would be")
    digest = await library.ingest(images.photo_jpeg(320, 240))
    assert [event["event"] for event in logged].count("an image was not noted for warming") == 1
    folder.unlink()
    async with warming_of(library):
        await until(lambda: any(event["event"] == "warmed" for event in logged))
    assert (await library.rendition(digest, "width=320")).tier == "store"


async def test_pool_that_cannot_start_a_process_loses_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    monkeypatch.setattr(warming, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(process_module, "_RETRY_START_SECONDS", 0.05)
    async with render_pool() as whole, open_library(tmp_path, whole) as library:
        digest = await library.ingest(images.photo_jpeg(320, 240))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/no/python/here")
        pool = RenderPool(slots=1, queue_limit=9, memory_bytes=512 << 20, render_seconds=PATIENCE_SECONDS, wait_seconds=PATIENCE_SECONDS)
        async with pool.running(), open_library(tmp_path, pool) as library, warming_of(library):
            await until(lambda: sum(event["event"] == "warming pauses" for event in logged) >= 2)
            assert await library.storage.list_names_after(WARMING_PREFIX, "", 9) == [digest]
            patch.undo()
            await warmed(library)
            assert (await library.rendition(digest, "width=320")).tier == "store"


# The queue


async def enqueue(image_store: ImageStore, queue: WarmingQueue, digest: str) -> None:
    """Note an image in the store, as ingest does."""
    async with image_store.writing(digest) as writer:
        await queue.enqueue(writer)


async def test_queue_returns_the_newest_first_and_noted_images_last() -> None:
    image_store = ImageStore(open_storage("memory://", {}))
    await enqueue(image_store, WarmingQueue(image_store), "a" * 32)
    queue = WarmingQueue(image_store)
    for letter in "bcd":
        queue.add(WaitingImage(letter * 32))
    assert [(await queue.next()).digest for _ in range(4)] == [letter * 32 for letter in "dcba"]


async def test_queue_lets_clients_take_turns_by_the_seconds_that_were_spent_for_them() -> None:
    queue = WarmingQueue(ImageStore(open_storage("memory://", {})))
    for number in range(100):
        queue.add(WaitingImage(f"{number:a>32}", "192.0.2.1"))
    given = []
    for _ in range(3):
        given.append(await queue.next())
        queue.charge(given[-1].client, 1.0)
    # A client that comes later has no credit for the time before, and need not wait for more than one image.
    for letter in "bcd":
        queue.add(WaitingImage(letter * 32, "192.0.2.2"))
    for _ in range(6):
        given.append(await queue.next())
        queue.charge(given[-1].client, 3.0 if given[-1].client == "192.0.2.2" else 1.5)
    assert [image.client[-1] for image in given if image.client] == list("111121121")
    assert [image.digest[0] for image in given if image.client == "192.0.2.2"] == ["d", "c"]


async def test_queue_that_is_too_long_forgets_images_of_the_client_with_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming_queue, "_MAX_IN_MEMORY", 3)
    image_store = ImageStore(open_storage("memory://", {}))
    queue = WarmingQueue(image_store)
    await enqueue(image_store, queue, "z" * 32)
    queue.add(WaitingImage("z" * 32, "192.0.2.2"))
    for letter in "abcde":
        await enqueue(image_store, queue, letter * 32)
        queue.add(WaitingImage(letter * 32, "192.0.2.1"))
    first = [await queue.next() for _ in range(3)]
    assert sorted(first) == [WaitingImage("d" * 32, "192.0.2.1"), WaitingImage("e" * 32, "192.0.2.1"), WaitingImage("z" * 32, "192.0.2.2")]
    for image in first:
        await queue.acknowledge(image.digest)
    assert sorted([await queue.next() for _ in range(3)]) == [WaitingImage(letter * 32) for letter in "abc"]


async def test_queue_waits_for_an_image() -> None:
    queue = WarmingQueue(ImageStore(open_storage("memory://", {})))
    given: list[str] = []

    async def take() -> None:
        for _ in range(2):
            given.append((await queue.next()).digest)  # noqa: PERF401 - one is looked at before the next comes

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        for count, letter in enumerate("ab", 1):
            await anyio.wait_all_tasks_blocked()
            queue.add(WaitingImage(letter * 32))
            await until(lambda count=count: len(given) == count)  # type: ignore[misc]
    assert given == ["a" * 32, "b" * 32]


async def test_queue_longer_than_its_memory_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming_queue, "_MAX_IN_MEMORY", 3)
    storage = open_storage("memory://", {})
    image_store = ImageStore(storage)
    queue = WarmingQueue(image_store)
    await enqueue(image_store, queue, "b" * 32)
    assert await queue.next() == WaitingImage("b" * 32)
    await queue.acknowledge("b" * 32)
    digests = [f"{number:a>32}" for number in range(10)]
    for digest in digests:
        await enqueue(image_store, queue, digest)
        queue.add(WaitingImage(digest))
    given = []
    with anyio.fail_after(PATIENCE_SECONDS):
        for _ in digests:
            digest = (await queue.next()).digest
            await queue.acknowledge(digest)
            given.append(digest)
    assert given[:3] == digests[:-4:-1]
    assert sorted(given) == digests
    assert await storage.list_names_after(WARMING_PREFIX, "", 99) == []

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
import structlog
from PIL import Image

from service.errors import (
    BadTransformError,
    DamagedOriginalError,
    FormatNotOfferedError,
    NotFoundError,
    StorageFullError,
    TooManyPixelsError,
    UnknownImageError,
)
from service.images.digest import digest_from_sha256
from service.images.render_request import resolve
from service.images.transform import parse
from service.rendering.pool import RenderPool
from service.rendering.protocol import CodecSupport
from service.storage import checksum
from service.storage.keys import document_key, intermediate_key, original_key
from service.storage.object_store import open_storage
from tests.support import images
from tests.support.library import Library, open_library
from tests.support.renders import LIMITS, halted, render_pool, until, watched_jobs

pytestmark = pytest.mark.anyio

Logged = list[structlog.typing.EventDict]


@pytest.fixture(scope="module")
def large() -> bytes:
    """Return an original that needs a full decode and is large enough to have an intermediate."""
    return images.large_jpeg(3_600, 2_400, progressive=True)


@pytest.fixture
async def library(tmp_path: Path, pool: RenderPool) -> AsyncIterator[Library]:
    async with open_library(tmp_path, pool) as library:
        yield library


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the jobs that render processes have received so far, by the names of their types."""
    return watched_jobs(monkeypatch)


def middle_of(body: bytes) -> tuple[int, int, int]:
    """Return the color in the middle of a picture."""
    picture = images.decode(body).convert("RGB")
    across, down = picture.width // 2, picture.height // 2
    red, green, blue = picture.crop((across, down, across + 1, down + 1)).tobytes()
    return red, green, blue


def file_of(library: Library, key: str) -> Path:
    path = library.storage.local_path(key)
    assert path is not None
    return path


def intermediate_size(library: Library, digest: str) -> tuple[int, int]:
    body = checksum.verify(file_of(library, intermediate_key(digest)).read_bytes())
    assert body is not None
    return images.decode(body).size


async def test_ingest_makes_an_intermediate_only_of_a_large_original(library: Library, large: bytes) -> None:
    digest = await library.ingest(large)
    camera = await library.ingest(images.large_jpeg(3_600, 2_400))
    assert intermediate_size(library, digest) == (2_560, 1_707)
    assert intermediate_size(library, camera) == (1_800, 1_200)
    for smaller in (images.photo_jpeg(800, 600, progressive=True), images.large_jpeg(3_600, 2_200)):
        assert not file_of(library, intermediate_key(await library.ingest(smaller))).exists()


async def test_rendition_reads_only_the_intermediate_if_that_is_large_enough(library: Library, large: bytes, jobs: list[str]) -> None:
    digest = await library.ingest(large)
    file_of(library, original_key(digest)).unlink()
    found = await library.rendition(digest, "width=1280")
    assert images.decode(found.body).size == (1_280, 853)
    assert images.decode((await library.rendition(digest, "width=2560")).body).size == (2_560, 1_707)
    assert jobs == ["Probe", "Render", "Render"]


async def test_small_rendition_of_a_baseline_jpeg_reads_the_intermediate_and_a_larger_one_the_original(library: Library) -> None:
    digest = await library.ingest(images.large_jpeg(3_600, 2_400))
    file_of(library, original_key(digest)).unlink()
    assert images.decode((await library.rendition(digest, "width=900")).body).size == (900, 600)
    with pytest.raises(UnknownImageError):
        await library.rendition(digest, "width=901")


async def test_intermediate_on_disk_is_read_where_it_is_and_behind_its_checksum(library: Library, large: bytes) -> None:
    digest = await library.ingest(large)
    path = file_of(library, intermediate_key(digest))
    request = resolve((await library.documents.get(digest)).info, parse("width=64"), "webp", LIMITS)
    async with library.intermediates.open_input(digest, request) as source:
        assert source.path == str(path)
        assert path.read_bytes()[source.start :] == checksum.verify(path.read_bytes())


async def test_image_of_an_older_server_gets_its_intermediate_when_it_is_needed(library: Library, large: bytes, jobs: list[str]) -> None:
    digest = digest_from_sha256(hashlib.sha256(large).digest())
    info = {"format": "jpeg", "width": 3600, "height": 2400, "frames": 1, "alpha": False, "decodes_whole": True, "profile": False}
    placeholder = {"thumbhash": "", "data_url": "", "color": "#000000", "palette": []}
    document = {"digest": digest, "info": info, "bytes": len(large), "created": "2026-11-01T12:00:00Z", "placeholder": placeholder}
    await library.storage.put_if_absent(original_key(digest), large, durable=False)
    await library.storage.put_if_absent(document_key(digest), json.dumps({**document, "alt": ""}).encode(), durable=False)
    assert (await library.rendition(digest, "width=640")).stored
    assert (await library.rendition(digest, "width=320")).stored
    assert jobs == ["MakeIntermediate", "Render", "Render"]


@pytest.mark.parametrize(
    "canonical_form",
    [
        "width=3000",
        "full",
        "width=640,metadata=all",
        "width=640,metadata=copyright",
        "crop=0:0:1800:1200,width=1400",
        "trim=10,width=640",
        "width=640,contrast=2",
    ],
)
async def test_intermediate_that_is_too_small_or_lacks_metadata_is_not_read(
    library: Library, large: bytes, canonical_form: str, logged: Logged
) -> None:
    digest = await library.ingest(large)
    file_of(library, intermediate_key(digest)).write_bytes(b"not even looked at")
    assert (await library.rendition(digest, canonical_form, "jpeg")).tier == "render"
    assert file_of(library, intermediate_key(digest)).read_bytes() == b"not even looked at"
    file_of(library, original_key(digest)).unlink()
    with pytest.raises(NotFoundError):
        await library.rendition(digest, f"{canonical_form},quality=70" if canonical_form != "full" else "quality=70", "jpeg")


@pytest.mark.parametrize("harm", ["missing", "flipped", "cut", "empty", "of another image"])
async def test_intermediate_that_is_missing_or_damaged_is_made_again_with_the_same_bytes(
    library: Library, large: bytes, jobs: list[str], harm: str, logged: Logged
) -> None:
    digest = await library.ingest(large)
    path = file_of(library, intermediate_key(digest))
    whole = path.read_bytes()
    there = await library.rendition(digest, "width=640")
    match harm:
        case "missing":
            path.unlink()
        case "flipped":
            path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        case "cut":
            path.write_bytes(whole[:-1])
        case "empty":
            path.write_bytes(b"")
        case _:
            path.write_bytes(whole.replace(b"DRR1", b"DRR2", 1))
    for rendition in file_of(library, f"renditions/{digest}").iterdir():
        rendition.unlink()
    again = await library.rendition(digest, "width=640")
    assert again.tier == "render"
    assert again.body == there.body
    assert path.read_bytes() == whole
    assert jobs == ["Probe", "Render", "MakeIntermediate", "Render"]


async def test_intermediate_that_many_renditions_need_at_once_is_made_once(library: Library, large: bytes, jobs: list[str]) -> None:
    digest = await library.ingest(large)
    file_of(library, intermediate_key(digest)).unlink()
    await asyncio.gather(*(library.rendition(digest, f"width={width}") for width in (100, 200, 300, 400)))
    assert jobs.count("MakeIntermediate") == 1
    assert jobs.count("Render") == 4


async def test_intermediate_of_a_damaged_original_is_not_made(library: Library, large: bytes, logged: Logged) -> None:
    digest = await library.ingest(large)
    file_of(library, intermediate_key(digest)).unlink()
    file_of(library, original_key(digest)).write_bytes(large[:-1_000])
    with pytest.raises(DamagedOriginalError):
        await library.rendition(digest, "width=640")
    assert not file_of(library, intermediate_key(digest)).exists()


async def test_intermediate_that_cannot_be_stored_fails_neither_ingest_nor_renders(
    library: Library, large: bytes, jobs: list[str], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    replace = library.storage.put

    async def full(key: str, body: bytes | Path, *, durable: bool) -> None:
        if key.startswith("intermediates/"):
            raise StorageFullError("no room")
        await replace(key, body, durable=durable)

    monkeypatch.setattr(library.storage, "put", full)
    digest = await library.ingest(large)
    for width in (640, 320):
        rendition = await library.rendition(digest, f"width={width}")
        assert rendition.stored
        assert images.decode(rendition.body).width == width
    assert jobs == ["Probe", "MakeIntermediate", "Render", "MakeIntermediate", "Render"]
    assert sum(event["event"] == "an intermediate was not stored" for event in logged) == 3


async def test_intermediate_in_a_store_without_files_is_used(tmp_path: Path, pool: RenderPool, large: bytes, jobs: list[str]) -> None:
    library = Library(open_storage("memory://", {}), pool, tmp_path, ())
    digest = await library.ingest(large)
    await library.storage.delete(original_key(digest))
    assert images.decode((await library.rendition(digest, "width=640")).body).size == (640, 427)
    await library.storage.delete(intermediate_key(digest))
    with pytest.raises(NotFoundError):
        await library.rendition(digest, "width=641")
    assert jobs == ["Probe", "Render"]


async def test_intermediate_of_a_very_large_original_is_made_in_the_background(tmp_path: Path, pool: RenderPool) -> None:
    async with open_library(tmp_path, pool) as library:
        digest = await library.ingest(images.gray_tiff(6_400, 6_400))
        file_of(library, intermediate_key(digest)).unlink()
        info = (await library.documents.get(digest)).info
        request = resolve(info, parse("width=64"), "webp", LIMITS)
        async with library.intermediates.open_input(digest, request, background=True) as source:
            assert source.intermediate_of == info
            assert await anyio.Path(source.path).read_bytes() == checksum.verify(file_of(library, intermediate_key(digest)).read_bytes())


async def test_intermediate_for_background_work_is_made_after_waiting_requests(tmp_path: Path, large: bytes, jobs: list[str]) -> None:
    async with render_pool() as lone, open_library(tmp_path, lone) as library, anyio.create_task_group() as tasks:
        digest = await library.ingest(large)
        file_of(library, intermediate_key(digest)).unlink()
        info = (await library.documents.get(digest)).info

        async def in_background() -> None:
            async with library.intermediates.open_input(
                digest, resolve(info, parse("width=64"), "webp", LIMITS), background=True
            ) as source:
                assert source.intermediate_of == info

        with halted(lone):
            tasks.start_soon(library.rendition, digest, "width=3000")
            await until(lambda: jobs == ["Probe", "Render"])
            tasks.start_soon(in_background)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(library.rendition, digest, "width=3001")
            await until(lambda: lone._queue.has_waiters)
    assert jobs == ["Probe", "Render", "Render", "MakeIntermediate"]


# Renditions


async def test_rendition_that_the_document_rules_out_is_refused_before_any_render(
    library: Library, jobs: list[str], logged: Logged
) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))
    overlay = "b" * 32
    for canonical_form, image_format, kind in (
        ("crop=300:0:200:100", "webp", BadTransformError),
        ("lossless=true", "jpeg", BadTransformError),
        ("frame=3", "webp", BadTransformError),
        ("width=8000,height=8000,fit=contain,enlarge=true", "png", TooManyPixelsError),
        (f"overlay={overlay}", "webp", NotFoundError),
    ):
        with pytest.raises(kind) as caught:
            await library.rendition(digest, canonical_form, image_format)  # type: ignore[arg-type]
        assert caught.value.expected
        assert caught.value.remedy
    assert "overlay" in caught.value.detail
    assert caught.value.received == overlay
    with pytest.raises(NotFoundError):
        await library.rendition("c" * 32, "width=10")
    assert jobs == ["Probe"]


async def test_rendition_in_a_format_that_libvips_lacks_is_refused_unless_it_is_stored(
    library: Library, pool: RenderPool, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await library.ingest(images.photo_jpeg(400, 300))
    await library.rendition(digest, "width=64", "avif")

    async def codec_support() -> CodecSupport:
        return CodecSupport("8.0.0", ["jpeg"], ["jpeg"])

    monkeypatch.setattr(pool, "codec_support", codec_support)
    assert (await library.rendition(digest, "width=64", "avif")).tier == "store"
    with pytest.raises(FormatNotOfferedError):
        await library.rendition(digest, "width=65", "avif")
    assert jobs == ["Probe", "Render"]


async def test_rendition_with_an_overlay_shows_both_images(library: Library) -> None:
    digest = await library.ingest(images.flat_png(400, 300, (255, 0, 0)))
    overlay = await library.ingest(images.flat_png(100, 100, (0, 0, 255)))
    plain = await library.rendition(digest, "width=200", "png")
    laid = await library.rendition(digest, f"width=200,overlay={overlay}", "png")
    assert images.near(middle_of(laid.body), (0, 0, 255))
    assert images.near(middle_of(plain.body), (255, 0, 0))


async def test_rendition_of_an_older_pipeline_version_has_its_defaults(library: Library) -> None:
    digest = await library.ingest(images.animated_gif(60, 40))
    frames = {}
    for version in (1, 2):
        found = await library.rendition(digest, "width=30", "webp", version=version)
        frames[version] = getattr(images.decode(found.body), "n_frames", 1)
    assert frames == {1: 1, 2: 3}


async def test_find_trim_returns_the_remaining_part_of_the_original(library: Library, jobs: list[str]) -> None:
    bordered = Image.new("RGB", (200, 150), "white")
    bordered.paste("navy", (20, 20, 180, 130))
    file = io.BytesIO()
    bordered.save(file, "PNG")
    digest = await library.ingest(file.getvalue())
    found = await library.renditions.find_trim(digest, parse("trim=10"))
    assert (found.left, found.top, found.width, found.height) == (20, 20, 160, 110)
    with pytest.raises(BadTransformError):
        await library.renditions.find_trim(digest, parse("crop=150:0:100:100,trim=10"))
    with pytest.raises(NotFoundError):
        await library.renditions.find_trim("a" * 32, parse("trim=10"))
    assert jobs == ["Probe", "FindTrim"]

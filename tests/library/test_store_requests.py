"""How many requests to the store each kind of request takes, and which of them are sent at the same time, as docs/store.md says."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry

from service.images.digest import digest_from_sha256
from service.rendering.pool import RenderPool
from service.storage import s3 as s3_module
from service.storage.object_store import Storage, open_storage
from tests.support import images
from tests.support.library import Library, open_library
from tests.support.s3 import Bucket
from tests.support.s3_proxy import Request, S3Proxy
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("without_foreign_variables")]

STORE_PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text("utf-8")

# The requests to a bucket by method and prefix, in rounds that are sent at the same time.
Requests = Sequence[Sequence[str]]

RENDER: Requests = (["GET renditions"], ["GET originals"], ["PUT renditions"], ["HEAD tombstones"])

# A render process opens an original on disk itself.
OPENED_ON_DISK = "GET originals"

OPERATION_OF_METHOD = {"HEAD": "exists", "GET": "get", "LIST": "list", "PUT": "put", "DELETE": "delete"}


class Case(NamedTuple):
    """Something to do with a library after `given` has been done, and the requests that it takes."""

    given: Callable[[Library], Awaitable[object]]
    action: Callable[[Library], Awaitable[object]]
    rounds: Requests


@cache
def photo() -> bytes:
    return images.photo_jpeg(400, 300)


def digest() -> str:
    return digest_from_sha256(hashlib.sha256(photo()).digest())


async def start(library: Library) -> None:
    assert library.queue.images_in_memory == 0


async def upload(library: Library) -> None:
    await library.ingest(photo())


async def upload_to_another_server(library: Library) -> None:
    await upload(library)
    library.documents._facts.discard(digest())


async def warm(library: Library) -> None:
    await library.warmer._warm_next()


async def upload_and_warm(library: Library) -> None:
    await upload(library)
    await warm(library)


async def view(library: Library) -> None:
    assert (await library.rendition(digest(), "width=320")).tier == "store"


async def render(library: Library) -> None:
    assert (await library.rendition(digest(), "width=100")).tier == "render"


# By the rows of the table in docs/store.md.
CASES = {
    "Upload of a new image": Case(
        start,
        upload,
        (
            ["HEAD tombstones", "GET documents"],
            ["PUT originals", "PUT recent", "PUT warming"],
            ["PUT documents"],
            ["HEAD tombstones"],
        ),
    ),
    "Upload of a known image": Case(upload, upload, (["HEAD tombstones", "GET documents"], ["GET originals"])),
    "Warming of a ladder of four": Case(
        upload,
        warm,
        (["LIST renditions"], ["GET originals"], *(["PUT renditions"], ["HEAD tombstones"]) * 4, ["DELETE warming"]),
    ),
    "View of a stored rendition": Case(upload_and_warm, view, (["GET renditions"],)),
    "Render": Case(upload, render, RENDER),
    "Render, the first of an image by this server": Case(upload_to_another_server, render, (RENDER[0], ["GET documents"], *RENDER[1:])),
}


@pytest.fixture(params=CASES)
def row(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(row: str) -> Case:
    return CASES[row]


@pytest.fixture
def bucket(s3: Bucket, s3_proxy: S3Proxy, row: str, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Give the store of an empty bucket behind the proxy. However busy the machine, no request to it is repeated."""
    monkeypatch.setattr(s3_module, "HEDGE_AFTER_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(s3_module, "READ_TIMEOUT_SECONDS", PATIENCE_SECONDS)
    name = re.sub("[^a-z]+", "-", row.lower())
    httpx.put(f"{s3.endpoint}/{name}", trust_env=False, verify=False).raise_for_status()
    return open_storage(f"s3://{name}", s3_proxy.environment)


def label(request: Request) -> str:
    """Return the method and the prefix of a request to a bucket."""
    url = urlsplit(request.path)
    query = parse_qs(url.query, keep_blank_values=True)
    if "list-type" in query:
        return f"LIST {query['prefix'][0].partition('/')[0]}"
    # obstore deletes by DeleteObjects, whose keys are in the body.
    return "DELETE warming" if "delete" in query else f"{request.method} {url.path.split('/')[2]}"


def flat(rounds: Requests) -> list[str]:
    return [request for together in rounds for request in together]


async def test_bucket_gets_exactly_the_documented_requests(
    tmp_path: Path, pool: RenderPool, bucket: Storage, s3_proxy: S3Proxy, case: Case
) -> None:
    async with open_library(tmp_path, pool, storage=bucket) as library:
        await case.given(library)
        s3_proxy.seen.clear()
        await case.action(library)
        assert Counter(map(label, s3_proxy.seen)) == Counter(flat(case.rounds))


async def test_disk_gets_exactly_the_documented_operations(
    tmp_path: Path, pool: RenderPool, registry: CollectorRegistry, row: str, case: Case
) -> None:
    def counts() -> Counter[str]:
        metrics = (sample for family in registry.collect() for sample in family.samples)
        return Counter(
            {sample.labels["operation"]: int(sample.value) for sample in metrics if sample.name == "darkroom_store_seconds_count"}
        )

    opened = [OPENED_ON_DISK] if case.action in {render, warm} else []
    expected = Counter(OPERATION_OF_METHOD[request.split()[0]] for request in (Counter(flat(case.rounds)) - Counter(opened)).elements())
    async with open_library(tmp_path, pool) as library:
        await case.given(library)
        before = counts()
        await case.action(library)
        found = counts() - before
    # Each page of a listing is counted, and that there is no other.
    found["list"] = min(found["list"], expected["list"])
    assert found == expected


class Rounds:
    """Lets the requests of a round go on once all of them have been sent."""

    def __init__(self, rounds: Requests) -> None:
        self._rounds = [(Counter(requests), anyio.Event()) for requests in rounds]

    async def send(self, request: str) -> None:
        """Wait until all other requests of this one's round have been sent."""
        missing, complete = next((missing, complete) for missing, complete in self._rounds if not complete.is_set())
        assert missing[request], f"{request} was sent before {sorted(missing.elements())}"
        missing[request] -= 1
        if not missing.total():
            complete.set()
        await complete.wait()

    @property
    def are_complete(self) -> bool:
        return all(complete.is_set() for _, complete in self._rounds)


def hold(storage: Storage, rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every operation of a store wait for the others of its round."""

    def held(method: str, operation: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def wait(key: str, *words: object, **options: object) -> object:
            await rounds.send(f"{method} {key.partition('/')[0]}")
            return await operation(key, *words, **options)

        return wait

    async def list_names(prefix: str) -> AsyncGenerator[str]:
        await rounds.send(f"LIST {prefix.partition('/')[0]}")
        async for name in Storage.list_names(storage, prefix):
            yield name

    for name, method in (("get", "GET"), ("exists", "HEAD"), ("put", "PUT"), ("put_if_absent", "PUT"), ("delete", "DELETE")):
        monkeypatch.setattr(storage, name, held(method, getattr(storage, name)))
    monkeypatch.setattr(storage, "list_names", list_names)


async def test_requests_of_a_round_do_not_wait_for_each_other(
    tmp_path: Path, pool: RenderPool, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds(case.rounds)
    storage = open_storage("memory://", {})
    async with open_library(tmp_path, pool, storage=storage) as library:
        await case.given(library)
        hold(storage, rounds, monkeypatch)
        with anyio.fail_after(PATIENCE_SECONDS):
            await case.action(library)
    assert rounds.are_complete


def test_page_about_the_store_has_these_numbers(row: str, case: Case) -> None:
    numbers = re.search(rf"^\| {row} \| (\d+) \| (\d+) \|", STORE_PAGE, re.MULTILINE)
    assert numbers is not None
    assert numbers.groups() == (str(len(flat(case.rounds))), str(len(case.rounds)))

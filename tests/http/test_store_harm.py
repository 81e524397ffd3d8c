"""A store that somebody else has damaged or misconfigured: errors have a remedy, and derived objects are made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from obstore.store import LocalStore, S3Store

from service.ops.signing_keys import fingerprint
from service.storage.keys import signing_key_record_key
from tests.support import images
from tests.support.s3 import Bucket
from tests.support.s3_proxy import S3Proxy
from tests.support.server import Server, darkroom, started
from tests.support.waiting import wait_until

KEYS = "0" * 64

Store = LocalStore | S3Store


@pytest.fixture(scope="module", params=["disk", "s3"])
def over(request: pytest.FixtureRequest, s3: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Store]]:
    """Give a server with next to no cache, over each kind of store that others can change, and that store."""
    data = tmp_path_factory.mktemp(request.param)
    if request.param == "disk":
        with darkroom(data, cache_bytes=1) as server:
            yield server, LocalStore(data / "store")
    else:
        with darkroom(data, cache_bytes=1, store=f"s3://{s3.name}", keys=KEYS, **s3.environment) as server:
            yield server, s3.client()


def uploaded(server: Server, width: int) -> dict[str, Any]:
    with server.client() as client:
        document: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(width, 300)).raise_for_status().json()
        return document


def key_of(store: Store, folder: str) -> str:
    """Return the key of the only object under a prefix."""
    (key,) = [entry["path"] for page in obstore.list(store, f"{folder}/") for entry in page]
    return str(key)


HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "cut short": lambda body: body[: len(body) // 2],
    "flipped": lambda body: body[:-9] + bytes([body[-9] ^ 1]) + body[-8:],
    "another's": lambda _: b"<html>not found</html>",
}


def harm(store: Store, key: str, kind: str) -> None:
    harmed = HARMS[kind](bytes(obstore.get(store, key).bytes()))
    obstore.delete(store, key)
    if harmed is not None:
        obstore.put(store, key, harmed)


@pytest.mark.parametrize("kind", HARMS)
def test_damaged_rendition_is_rendered_again_with_the_same_bytes(over: tuple[Server, Store], kind: str) -> None:
    server, store = over
    document = uploaded(server, 300 + list(HARMS).index(kind))
    with server.client() as client:
        first = client.get(document["src"])
        key = key_of(store, f"renditions/{document['digest']}")
        whole = bytes(obstore.get(store, key).bytes())
        harm(store, key, kind)
        again = client.get(document["src"])
        assert (again.status_code, again.content, again.headers["etag"]) == (200, first.content, first.headers["etag"])
        assert again.headers["server-timing"].startswith("tier;desc=render;")
        assert bytes(obstore.get(store, key).bytes()) == whole
        assert client.get(document["src"]).headers["server-timing"].startswith("tier;desc=store;")


@pytest.mark.parametrize("kind", ["cut short", "flipped"])
def test_damaged_original_is_an_error_until_it_is_uploaded_again(over: tuple[Server, Store], kind: str) -> None:
    server, store = over
    width = 350 + list(HARMS).index(kind)
    document = uploaded(server, width)
    harm(store, f"originals/{document['digest']}", kind)
    with server.client() as client:
        response = client.get(document["src"])
        assert (response.status_code, response.json()["type"]) == (500, "/problems/damaged-original")
        assert response.json()["remedy"]
        assert response.headers["cache-control"] == "no-store"
        assert uploaded(server, width) == document
        assert client.get(document["src"]).status_code == 200


@pytest.mark.parametrize("kind", ["empty", "cut short", "another's"])
def test_damaged_document_is_an_error_until_the_image_is_uploaded_again(over: tuple[Server, Store], kind: str) -> None:
    server, store = over
    width = 370 + list(HARMS).index(kind)
    document = uploaded(server, width)
    harm(store, f"documents/{document['digest']}", kind)
    with server.client() as client:
        for response in (client.get(f"/v1/images/{document['digest']}"), client.get(document["src"])):
            assert (response.status_code, response.json()["type"]) == (500, "/problems/damaged-document")
            assert "Upload the file again" in response.json()["remedy"]
        healed = uploaded(server, width)
        assert {**healed, "created": ""} == {**document, "created": ""}
        assert client.get(document["src"]).status_code == 200


# Starting over a broken store.


def report_of(data: Path, status: int, **settings: object) -> dict[str, Any]:
    """Return the report of a server that has just started, once it has a reason."""
    with started(data, **settings) as server, server.client() as client:

        def says_why() -> bool:
            with suppress(httpx.TransportError):
                return "not been reached yet" not in client.get("/health").text
            return False

        wait_until(says_why)
        response = client.get("/health")
        assert response.status_code == status
        assert client.get("/livez").status_code == 200
        report: dict[str, Any] = response.json()
        assert report["reason"] in server.log()
        return report


def test_health_over_a_missing_bucket_is_503_with_a_reason_and_a_remedy(tmp_path: Path, s3: Bucket) -> None:
    missing = report_of(tmp_path / "missing", 503, store="s3://no-such-bucket", **s3.environment)
    assert (missing["status"], missing["reason"]) == ("unavailable", "The bucket of the store does not exist.")
    assert "BUCKET_NAME" in missing["remedy"]


@pytest.mark.long
def test_refused_credentials_and_clock_are_reported_until_they_are_accepted(data: Path, s3: Bucket, s3_proxy: S3Proxy) -> None:
    with darkroom(data, store=f"s3://{s3.name}", keys=KEYS, **s3_proxy.environment) as server, server.client() as client:
        for code, reason in (("RequestTimeTooSkewed", "their clocks differ"), ("InvalidAccessKeyId", "credentials")):
            s3_proxy.error_for = lambda _, code=code: (403, f"<Error><Code>{code}</Code></Error>")  # type: ignore[misc]
            report = when(client, lambda report, reason=reason: reason in report.get("reason", ""))  # type: ignore[misc]
            assert (report["status"], bool(report["remedy"])) == ("degraded", True)
            response = client.post("/v1/images", content=images.photo_jpeg(64, 48))
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert reason in response.json()["detail"]
        s3_proxy.error_for = lambda _: None
        when(client, lambda report: report["status"] == "ok")


def when(client: httpx.Client, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the report of /health as soon as `holds` accepts it."""
    reports: list[dict[str, Any]] = []

    def is_reported() -> bool:
        reports.append(client.get("/health").json())
        return holds(reports[-1])

    wait_until(is_reported)
    return reports[-1]


def test_health_is_degraded_when_another_server_signs_with_a_key_that_is_not_accepted(data: Path, s3: Bucket) -> None:
    other, ours = b"\x22" * 16, b"\x11" * 16
    obstore.put(s3.client(), signing_key_record_key(fingerprint(other)), b"iad 1857")
    with darkroom(data, store=f"s3://{s3.name}", keys=f"{ours.hex()},{KEYS}", **s3.environment) as server, server.client() as client:
        report = when(client, lambda report: report["status"] == "degraded")
        assert "(iad 1857) signs URLs with a key that this server does not accept" in report["reason"]
        assert "DARKROOM_KEYS" in report["remedy"]
        assert client.get("/health").status_code == 200
        assert bytes(obstore.get(s3.client(), signing_key_record_key(fingerprint(ours))).bytes()) == b"", "this server has a record too"


@pytest.mark.long
def test_renditions_on_disk_stay_within_their_quota_and_originals_stay(data: Path) -> None:
    quota = 16 << 20
    with darkroom(data, renditions_bytes=quota, cache_bytes=1) as server, server.client() as client:
        document = client.post("/v1/images", content=images.noise_png(1_000, 1_000)).raise_for_status().json()
        body = {"widths": list(range(900, 912)), "formats": ["png"]}
        links = client.post(f"/v1/images/{document['digest']}/urls", json=body).json()["sources"][0]["renditions"]
        bodies = [client.get(link["url"]).raise_for_status().content for link in links]
        assert sum(map(len, bodies)) > 1.5 * quota
        wait_until(lambda: sum(path.stat().st_size for path in server.stored("renditions")) <= quota)
        assert 0 < len(server.stored("renditions")) < len(links)
        assert [client.get(link["url"]).content for link in links] == bodies, "removed ones are rendered again"
        assert len(server.stored("originals")) == len(server.stored("documents")) == 1

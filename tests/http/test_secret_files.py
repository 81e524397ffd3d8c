"""Tokens and keys in files, of a real server: replaced without a restart, bound to sources, limited to a number of bytes per day."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.images.transform import PIPELINE_VERSION
from service.ops.signing_keys import fingerprint
from service.settings.secret_files import Token, hash_token
from service.settings.sections import Scope
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.support import images
from tests.support.prometheus import families
from tests.support.server import Server, darkroom, free_port, refused_start
from tests.support.waiting import PATIENCE_SECONDS, wait_until

OLD, NEW = "ab" * 32, "cd" * 32
OWNER, BOUND, SMALL = "token-of-the-owner", "token-bound-to-a-source", "token-of-few-bytes"
DAILY = 45_000
DAY_SECONDS = 86_400


def line(name: str, token: str, *scopes: Scope, sources: str = "", bytes_per_day: int = 0) -> str:
    names = frozenset([sources]) if sources else None
    return Token(name, hash_token(token.encode()), frozenset(scopes or ("ingest", "read", "delete")), names, bytes_per_day).line()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def replace(path: Path, text: str) -> None:
    """Replace a file as a whole."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, "utf-8")
    draft.replace(path)


class Running:
    """A server with files of tokens and keys."""

    def __init__(self, server: Server, client: httpx.Client, tokens: Path, keys: Path, metrics_port: int) -> None:
        self.server, self.client, self.tokens, self.keys, self._metrics_port = server, client, tokens, keys, metrics_port

    def metrics(self) -> dict[tuple[str, ...], float]:
        return {(sample.name, *sample.labels.values()): sample.value for one in families(self._metrics_port) for sample in one.samples}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("secrets")
    tokens, keys, port = folder / "tokens", folder / "keys", free_port()
    tokens.write_text(
        "\n".join(
            [
                line("owner", OWNER),
                line("cms", BOUND, "ingest", "read", sources="cms"),
                line("small", SMALL, "ingest", bytes_per_day=DAILY),
            ]
        ),
        "utf-8",
    )
    keys.write_text(OLD, "utf-8")
    with (
        darkroom(
            folder / "data",
            tokens_file=tokens,
            keys_file=keys,
            metrics_port=port,
            sources="cms=http://cms.invalid/up; shop=http://shop.invalid/up",
        ) as server,
        server.client() as client,
    ):
        yield Running(server, client, tokens, keys, port)


def check(response: httpx.Response, status: int, kind: str) -> None:
    assert (response.status_code, response.json().get("type")) == (status, f"/problems/{kind}"), response.text


def test_token_whose_hash_is_in_the_file_is_accepted_and_the_hash_itself_is_not(running: Running) -> None:
    assert running.client.get("/v1/images", headers=bearer(OWNER)).status_code == 200
    for other in (hash_token(OWNER.encode()).hex(), f"sha256:{hash_token(OWNER.encode()).hex()}", "owner", f"{OWNER}x"):
        check(running.client.get("/v1/images", headers=bearer(other)), 401, "unauthorized")


BOUND_TO_NOTHING: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "upload": lambda client: client.post("/v1/images", content=images.photo_jpeg(64, 48), headers=bearer(BOUND)),
    "form": lambda client: client.post("/v1/images", files=[("file", images.photo_jpeg(64, 48))], headers=bearer(BOUND)),
    "upload that claims to be JSON": lambda client: client.post(
        "/v1/images", content=images.photo_jpeg(64, 48), headers=bearer(BOUND) | {"content-type": "application/json"}
    ),
    "list": lambda client: client.get("/v1/images", headers=bearer(BOUND)),
    "document": lambda client: client.get(f"/v1/images/{'a' * 32}", headers=bearer(BOUND)),
    "urls": lambda client: client.post(f"/v1/images/{'a' * 32}/urls", json={}, headers=bearer(BOUND)),
    "known": lambda client: client.post("/v1/images/known", json={"digests": []}, headers=bearer(BOUND)),
    "upload URL": lambda client: client.post("/v1/uploads", json={}, headers=bearer(BOUND)),
    "another source": lambda client: client.post("/v1/images", json={"source": "shop", "path": "a.jpg"}, headers=bearer(BOUND)),
    "URL below another source": lambda client: client.post(
        "/v1/images", json={"url": "http://shop.invalid/up/a.jpg"}, headers=bearer(BOUND)
    ),
    "objects of another source": lambda client: client.get("/v1/sources/shop/objects", headers=bearer(BOUND)),
    "URLs of another source": lambda client: client.post("/v1/sources/shop/urls", json={"path": "a.jpg"}, headers=bearer(BOUND)),
}


@pytest.mark.parametrize("request_of", BOUND_TO_NOTHING)
def test_token_bound_to_a_source_is_refused_for_anything_else(running: Running, request_of: str) -> None:
    check(BOUND_TO_NOTHING[request_of](running.client), 403, "forbidden")


def test_token_bound_to_a_source_is_accepted_for_it(running: Running) -> None:
    headers = bearer(BOUND)
    assert [source["name"] for source in running.client.get("/v1/sources", headers=headers).json()["sources"]] == ["cms"]
    assert running.client.post("/v1/sources/cms/urls", json={"path": "a.jpg"}, headers=headers).status_code == 200
    check(running.client.get("/v1/sources/cms/objects", headers=headers), 400, "source-not-listable")
    for wanted in ({"source": "cms", "path": "a.jpg"}, {"url": "http://cms.invalid/up/a.jpg"}):
        # The host does not exist.
        assert running.client.post("/v1/images", json=wanted, headers=headers).status_code in {403, 502, 504}
        assert "bound" not in running.client.post("/v1/images", json=wanted, headers=headers).text


def test_token_with_bytes_per_day_is_429_until_midnight_utc_when_they_are_used_up(running: Running) -> None:
    # The day does not end before the test does.
    wait_until(lambda: time.time() % DAY_SECONDS < DAY_SECONDS - PATIENCE_SECONDS / 2)
    photo = images.photo_jpeg(300, 200)
    assert DAILY / 3 < len(photo) < DAILY / 2
    headers = bearer(SMALL)
    assert running.client.post("/v1/images", content=photo, headers=headers).status_code == 201
    too_large = running.client.post("/v1/images", content=bytes(DAILY + 1), headers=headers)
    check(too_large, 413, "too-large")
    # An upload URL counts with the most that it takes.
    check(running.client.post("/v1/uploads", json={"max_bytes": DAILY}, headers=headers), 429, "quota-exceeded")
    assert running.client.post("/v1/uploads", json={"max_bytes": len(photo)}, headers=headers).status_code == 201
    before = time.time()
    refused = running.client.post("/v1/images", content=photo, headers=headers)
    check(refused, 429, "quota-exceeded")
    after = time.time()
    assert DAY_SECONDS - after % DAY_SECONDS - 1 <= int(refused.headers["retry-after"]) <= DAY_SECONDS - before % DAY_SECONDS + 1
    # Without a Content-Length, the bytes are counted as they come.
    check(running.client.post("/v1/images", content=iter([photo]), headers=headers), 429, "quota-exceeded")
    check(running.client.post("/v1/images", files=[("file", photo)], headers=headers), 429, "quota-exceeded")
    assert running.client.post("/v1/images", content=photo, headers=bearer(OWNER)).status_code == 200
    assert running.metrics()["darkroom_token_bytes_today", "small"] >= 2 * len(photo)


def test_metrics_have_the_last_use_of_each_token_and_key(running: Running) -> None:
    before = time.time() - 1
    assert running.client.get("/v1/images", headers=bearer(OWNER)).status_code == 200
    digest = running.client.post("/v1/images", content=images.photo_jpeg(80, 60), headers=bearer(OWNER)).json()["digest"]
    url = Signer([bytes.fromhex(OLD)]).sign(RenditionUrl(PIPELINE_VERSION, digest, "width=33", "png"))
    assert running.client.get(url).status_code == 200
    metrics = running.metrics()
    assert metrics["darkroom_token_last_used_timestamp_seconds", "owner"] >= before
    assert metrics["darkroom_token_requests_total", "owner"] >= 2
    assert metrics["darkroom_signing_key_last_used_timestamp_seconds", fingerprint(bytes.fromhex(OLD))] >= before


def test_files_that_change_are_adopted_by_the_same_process(running: Running) -> None:
    worker = running.server.worker().pid
    client, server = running.client, running.server
    digest = client.post("/v1/images", content=images.photo_jpeg(90, 60), headers=bearer(OWNER)).json()["digest"]
    first = RenditionUrl(PIPELINE_VERSION, digest, "width=31", "png")
    old_url = Signer([bytes.fromhex(OLD)]).sign(first)
    assert client.get(old_url).status_code == 200
    assert "darkroom; hit" in client.get(old_url).headers["cache-status"]

    def sign(width: int) -> str:
        made = client.post(f"/v1/images/{digest}/urls", json={"transform": {"width": width}, "format": "png"}, headers=bearer(OWNER))
        return str(made.json()["url"])

    replace(running.keys, f"# new\n{NEW}\n{OLD}\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: sign(32) == Signer([bytes.fromhex(NEW)]).sign(RenditionUrl(PIPELINE_VERSION, digest, "width=32", "png")))
    assert client.get(sign(32)).status_code == 200
    assert "darkroom; hit" in client.get(old_url).headers["cache-status"], "the old key is still accepted"

    replace(running.keys, "not a key")
    # Without a signal, the file is read within seconds.
    wait_until(lambda: client.get("/health").json()["status"] == "degraded")
    report = client.get("/health")
    assert (report.status_code, "DARKROOM_KEYS_FILE" in report.json()["reason"]) == (200, True)
    assert client.get(old_url).status_code == 200

    replace(running.keys, NEW)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: client.get(old_url).status_code == 403)
    assert client.get("/health").json()["status"] == "ok"
    assert client.get(sign(32)).status_code == 200

    other = "another-token-of-the-owner"
    replace(running.tokens, line("other", other))
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: client.get("/v1/images", headers=bearer(other)).status_code == 200)
    check(client.get("/v1/images", headers=bearer(OWNER)), 401, "unauthorized")
    assert {sample[1] for sample in running.metrics() if sample[0] == "darkroom_token_requests_total"} == {"other"}
    assert server.worker().pid == worker
    assert OWNER not in server.log()
    assert NEW not in server.log()


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("tokens_file", "", "a file without tokens"),
        ("tokens_file", "bot secret", "DARKROOM_TOKENS_FILE, line 1,"),
        ("keys_file", "abc", "DARKROOM_KEYS_FILE, line 1,"),
        ("keys_file", None, "cannot be read: No such file"),
    ],
)
def test_start_with_a_file_that_cannot_be_used_is_refused(data: Path, tmp_path: Path, variable: str, text: str | None, said: str) -> None:
    path = tmp_path / "secrets"
    if text is not None:
        path.write_text(text, "utf-8")
    assert said in refused_start(data, **{variable: str(path)})

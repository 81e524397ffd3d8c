"""Bearer tokens and their scopes, and the settings that a server beyond loopback must have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import images
from tests.support.server import darkroom, refused_start

INGEST, READ = "ingest-token-0123456789", "read-token-0123456789"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with darkroom(tmp_path_factory.mktemp("tokens"), tokens=f"{INGEST}:ingest,{READ}:read") as server, server.client() as open_client:
        yield open_client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer wrong", f"Basic {INGEST}", f"Bearer {INGEST}x", "Bearer \u00e9"])
def test_upload_without_a_known_token_is_401_and_stores_nothing(client: httpx.Client, authorization: str | None) -> None:
    fields = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    response = client.post("/v1/images", content=images.photo_jpeg(64, 48), headers=fields)
    assert (response.status_code, response.json()["type"]) == (401, "/problems/unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer realm="darkroom"'
    assert response.headers["cache-control"] == "no-store"
    assert INGEST not in response.text


def test_token_without_the_scope_is_403(client: httpx.Client) -> None:
    response = client.post("/v1/images", content=images.photo_jpeg(64, 48), headers=bearer(READ))
    assert (response.status_code, response.json()["type"]) == (403, "/problems/forbidden")
    assert response.headers["www-authenticate"] == 'Bearer realm="darkroom", error="insufficient_scope", scope="ingest"'


def test_token_permits_what_its_scope_says_and_renditions_need_no_token(client: httpx.Client) -> None:
    document = client.post("/v1/images", content=images.photo_jpeg(66, 48), headers=bearer(INGEST)).json()
    path = f"/v1/images/{document['digest']}"
    assert client.get(path).status_code == 401
    assert client.get(path, headers=bearer(INGEST)).status_code == 403
    assert client.get(path, headers=bearer(READ)).json() == document
    assert client.get(document["src"]).status_code == 200


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "missing: DARKROOM_KEYS and DARKROOM_TOKENS"),
        ({"keys": "0" * 64}, "missing: DARKROOM_TOKENS"),
        ({"tokens": INGEST}, "missing: DARKROOM_KEYS"),
    ],
)
def test_start_beyond_loopback_without_keys_or_tokens_fails_and_names_the_setting(data: Path, settings: dict[str, str], said: str) -> None:
    assert said in refused_start(data, "--host", "0.0.0.0", **settings)

"""`/v1/uploads`: URLs that take one upload each, and CORS for them, against real servers."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from service.images.formats import OriginalFormat
from service.urls.signing import Signer
from service.urls.upload_ticket import UploadTicket, new_ticket
from tests.support import images
from tests.support.server import Server, darkroom, refused_start
from tests.support.waiting import wait_until

KEY = secrets.token_bytes(32)
INGEST, READ = "token-that-may-ingest", "token-that-may-only-read"
ORIGIN = "https://www.example.com"
LIMIT = 400_000

ALLOWED = {
    "access-control-allow-origin": ORIGIN,
    "access-control-expose-headers": "ETag, Location, Retry-After, X-Request-Id",
    "vary": "Origin",
}
PREFLIGHT = {
    "access-control-allow-origin": ORIGIN,
    "access-control-allow-methods": "POST, PUT",
    "access-control-allow-headers": "Content-Type, Fly-Prefer-Region",
    "access-control-max-age": "7200",
    "vary": "Origin",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "keys": KEY.hex(),
        "tokens": f"{INGEST}:ingest+delete,{READ}:read",
        "cors_origins": f"{ORIGIN}, http://localhost:3000",
        "max_upload_bytes": LIMIT,
    }
    with darkroom(tmp_path_factory.mktemp("uploads"), **settings) as running:
        yield running


def request_url(client: httpx.Client, **wanted: object) -> str:
    response = client.post("/v1/uploads", json=wanted, headers={"authorization": f"Bearer {INGEST}"})
    assert response.status_code == 201
    url: str = response.json()["url"]
    return url


def cors_fields(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-") or name == "vary"}


def stored(server: Server) -> list[str]:
    """Return the keys of all objects except the records that a server writes by itself."""
    keys = (str(path.relative_to(server.data / "store")) for path in server.stored(""))
    return [key for key in keys if not key.startswith(("keys/", "recent-complete"))]


def photo(*, quality: int = 80) -> bytes:
    """Return a photo that no other test has uploaded."""
    return images.photo_jpeg(64 + next(_SIZES), 48, quality=quality)


_SIZES = iter(range(1_000))


def signed(*, seconds: int, max_bytes: int = 1_000_000, formats: tuple[OriginalFormat, ...] = (), key: bytes = KEY) -> str:
    return Signer([key]).sign(new_ticket(expires=int(time.time()) + seconds, max_bytes=max_bytes, formats=formats))


def test_upload_url_is_201_with_its_time_of_expiry(client: httpx.Client) -> None:
    before = time.time()
    response = client.post("/v1/uploads", headers={"authorization": f"Bearer {INGEST}"})
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert cors_fields(response) == {}
    assert list(response.json()) == ["url", "expires"]
    assert response.json()["url"].startswith("/v1/uploads/")
    assert int(before) + 900 <= datetime.fromisoformat(response.json()["expires"]).timestamp() <= time.time() + 900


@pytest.mark.parametrize(("token", "status", "slug"), [("", 401, "unauthorized"), (READ, 403, "forbidden")])
def test_upload_url_needs_a_token_that_may_ingest(client: httpx.Client, token: str, status: int, slug: str) -> None:
    response = client.post("/v1/uploads", headers={"authorization": f"Bearer {token}"} if token else {})
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"max_bytes": 0}, "a whole number from 1 to 9007199254740991"),
        ({"max_bytes": LIMIT + 1}, f"a whole number from 1 to {LIMIT}"),
        ({"max_bytes": "many"}, "a whole number from 1 to 9007199254740991"),
        ({"seconds": 0}, "a whole number from 1 to 86400"),
        ({"seconds": 86_401}, "a whole number from 1 to 86400"),
        ({"formats": ["bmp"]}, "one of avif, gif, heic, jpeg, jxl, png, svg, tiff, webp"),
        ({"formats": ["jpeg"] * 10}, None),
        ({"bytes": 1}, "an object with optionally `max_bytes`, `formats`, `seconds`"),
    ],
)
def test_upload_url_with_invalid_limits_is_400(client: httpx.Client, wanted: dict[str, Any], expected: str | None) -> None:
    response = client.post("/v1/uploads", json=wanted, headers={"authorization": f"Bearer {INGEST}"})
    assert (response.status_code, response.json()["type"]) == (400, "/problems/bad-request")
    assert expected is None or response.json()["expected"] == expected


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("form", [False, True])
def test_upload_is_201_with_document_and_without_a_token(server: Server, client: httpx.Client, method: str, *, form: bool) -> None:
    body = photo()
    sent: dict[str, Any] = {"files": {"file": ("a.jpg", body)}, "data": {"note": "ignored"}} if form else {"content": body}
    response = client.request(method, request_url(client), headers={"origin": ORIGIN}, **sent)
    document = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/images/{document['digest']}"
    assert response.headers["cache-control"] == "no-store"
    assert cors_fields(response) == ALLOWED
    assert (document["format"], document["bytes"]) == ("jpeg", len(body))
    assert (server.data / "store" / "originals" / document["digest"]).read_bytes() == body
    assert client.get(document["src"]).status_code == 200


def test_upload_of_bytes_that_are_stored_is_200_and_uses_up_the_url(client: httpx.Client) -> None:
    body = photo()
    first, second = request_url(client), request_url(client)
    assert client.post(first, content=body).status_code == 201
    assert client.post(second, content=body).status_code == 200
    assert client.post(second, content=body).status_code == 409


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_used_url_is_409_and_stores_nothing(server: Server, client: httpx.Client, method: str) -> None:
    url = request_url(client)
    assert client.post(url, content=photo()).status_code == 201
    before = stored(server)
    response = client.request(method, url, content=photo(), headers={"origin": ORIGIN})
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["type"] == "/problems/upload-used"
    assert client.get("/problems/upload-used").status_code == 200
    assert cors_fields(response) == ALLOWED
    assert stored(server) == before


def test_expired_url_is_410_and_stores_nothing(server: Server, client: httpx.Client) -> None:
    before = stored(server)
    response = client.post(signed(seconds=-1), content=photo(), headers={"origin": ORIGIN})
    assert (response.status_code, response.json()["type"]) == (410, "/problems/upload-expired")
    assert response.headers["cache-control"] == "no-store"
    assert client.get("/problems/upload-expired").status_code == 200
    assert cors_fields(response) == ALLOWED
    assert stored(server) == before


def test_upload_that_is_complete_after_the_time_is_410_and_stores_nothing(server: Server, client: httpx.Client) -> None:
    before = stored(server)
    url = signed(seconds=2)
    expires = int(url.removeprefix("/v1/uploads/").split(".")[0])
    body = photo()

    def slow_body() -> Iterator[bytes]:
        yield body[:1_000]
        wait_until(lambda: time.time() > expires)
        yield body[1_000:]

    response = client.post(url, content=slow_body())
    assert (response.status_code, response.json()["type"]) == (410, "/problems/upload-expired")
    assert stored(server) == before


def forgeries() -> dict[str, str]:
    url = signed(seconds=900, max_bytes=1_000, formats=("png",))
    head, signature = url.rsplit(".", 1)
    expires, size, formats, ticket_id = head.removeprefix("/v1/uploads/").split(".")
    other = UploadTicket(int(expires), int(size), ("png",), "a" * 16)
    return {
        "another key": signed(seconds=900, key=secrets.token_bytes(32)),
        "later": f"/v1/uploads/{int(expires) + 1}.{size}.{formats}.{ticket_id}.{signature}",
        "larger": f"/v1/uploads/{expires}.{size}0.{formats}.{ticket_id}.{signature}",
        "another format": f"/v1/uploads/{expires}.{size}.any.{ticket_id}.{signature}",
        "another ID": other.path(signature),
        "bit": f"{head}.{'b' if signature[0] == 'a' else 'a'}{signature[1:]}",
        "truncated": url[:-1],
        "longer": f"{url}a",
        "upper case": f"{head}.{signature.upper()}",
        "encoded": url.replace(".", "%2E"),
        "unsigned": f"{head}.-",
        "number with a zero": f"/v1/uploads/0{expires}.{size}.{formats}.{ticket_id}.{signature}",
        "no ticket": "/v1/uploads/photo.jpg",
        "not ASCII": "/v1/uploads/%F0%9F%90%BC",
    }


@pytest.mark.parametrize("name", forgeries())
def test_forged_url_is_403_and_stores_nothing(server: Server, client: httpx.Client, name: str) -> None:
    before = stored(server)
    response = client.post(forgeries()[name], content=images.rgba_png(20, 20), headers={"origin": ORIGIN})
    assert (response.status_code, response.json()["type"]) == (403, "/problems/bad-signature")
    assert cors_fields(response) == ALLOWED
    assert stored(server) == before


def test_signature_of_a_rendition_is_none_of_an_upload(client: httpx.Client) -> None:
    url = request_url(client)
    document = client.post(url, content=photo()).json()
    made = client.post(
        f"/v1/images/{document['digest']}/urls",
        json={"transform": {"width": 33}, "format": "webp"},
        headers={"authorization": f"Bearer {READ}"},
    )
    signature = made.json()["url"].rsplit("/", 1)[1].removesuffix(".webp")
    assert client.post(f"{request_url(client).rsplit('.', 1)[0]}.{signature}", content=photo()).status_code == 403


@pytest.mark.parametrize("kind", ["declared", "chunked", "form", "form with a long field"])
def test_upload_that_is_too_large_is_413_stores_nothing_and_leaves_the_url(server: Server, client: httpx.Client, kind: str) -> None:
    before = stored(server)
    url = request_url(client, max_bytes=5_000)
    body = photo() + bytes(5_000)
    ways: dict[str, dict[str, Any]] = {
        "declared": {"content": body},
        "chunked": {"content": iter([body])},
        "form": {"files": {"file": ("a.jpg", body)}},
        "form with a long field": {"files": {"file": ("a.jpg", photo())}, "data": {"note": "x" * 40_000}},
    }
    response = client.post(url, headers={"origin": ORIGIN}, **ways[kind])
    assert (response.status_code, response.json()["type"]) == (413, "/problems/too-large")
    assert "max_bytes" in response.json()["remedy"]
    assert cors_fields(response) == ALLOWED
    assert stored(server) == before
    small = images.photo_jpeg(24, 16)
    assert client.post(url, content=small).status_code in {200, 201}


def test_form_may_have_a_file_of_exactly_max_bytes(client: httpx.Client) -> None:
    body = photo()
    assert client.post(request_url(client, max_bytes=len(body) - 1), files={"file": ("a.jpg", body)}).status_code == 413
    assert client.post(request_url(client, max_bytes=len(body)), files={"file": ("a.jpg", body)}).status_code == 201


def test_ticket_of_more_than_the_server_accepts_is_bounded_by_the_server(client: httpx.Client) -> None:
    response = client.post(signed(seconds=900, max_bytes=10 * LIMIT), content=bytes(LIMIT + 1))
    assert (response.status_code, response.json()["expected"]) == (413, f"at most {LIMIT} bytes")


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (images.rgba_png(40, 30), 415, "unsupported-format"),
        (b"no image", 415, "unsupported-format"),
        (b'{"url": "https://images.example.com/panda.jpg"}', 415, "unsupported-format"),
        (images.photo_jpeg(300, 200)[:3_000], 422, "broken-image"),
        (b"", 400, "empty-body"),
    ],
)
@pytest.mark.parametrize("declared", ["image/jpeg", "application/json"])
def test_upload_of_something_else_stores_nothing_and_leaves_the_url(
    server: Server, client: httpx.Client, body: bytes, status: int, slug: str, *, declared: str
) -> None:
    before = stored(server)
    url = request_url(client, formats=["jpeg", "webp"])
    response = client.put(url, content=body, headers={"origin": ORIGIN, "content-type": declared})
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}")
    assert cors_fields(response) == ALLOWED
    assert stored(server) == before
    assert client.put(url, content=photo()).status_code == 201


def test_format_that_the_url_does_not_take_is_named_even_if_the_image_is_stored(server: Server, client: httpx.Client) -> None:
    png = images.rgba_png(41, 31)
    assert client.post(request_url(client), content=png).status_code == 201
    before = stored(server)
    response = client.post(request_url(client, formats=["webp", "jpeg"]), content=png)
    assert response.status_code == 415
    assert (response.json()["expected"], response.json()["received"]) == ("jpeg, webp", "png")
    assert stored(server) == before


@pytest.mark.parametrize(
    ("parts", "received"),
    [
        ([], "0 parts called `file`"),
        ([("photo", ("a.jpg", b"\xff"))], "0 parts called `file`"),
        ([("file", ("a.jpg", images.photo_jpeg(31, 21))), ("file", ("b.jpg", images.photo_jpeg(32, 21)))], "2 parts called `file`"),
    ],
)
def test_form_without_exactly_one_file_is_400_stores_nothing_and_leaves_the_url(
    server: Server, client: httpx.Client, parts: list[tuple[str, Any]], received: str
) -> None:
    before = stored(server)
    url = request_url(client)
    response = client.post(url, files=[*parts, ("note", (None, "ignored"))])
    assert (response.status_code, response.json()["received"]) == (400, received)
    assert stored(server) == before
    assert client.post(url, content=photo()).status_code == 201


def test_form_that_is_not_valid_is_400(client: httpx.Client) -> None:
    response = client.post(request_url(client), content=b"--x\r\n", headers={"content-type": "multipart/form-data; boundary=y"})
    assert (response.status_code, response.json()["detail"]) == (400, "The multipart body is not valid.")


def test_upload_that_breaks_off_stores_nothing_and_leaves_the_url(server: Server, client: httpx.Client) -> None:
    before = stored(server)
    url, body = request_url(client), photo()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:-1])
        wait_until(lambda: any((server.data / "spool").iterdir()))
    wait_until(lambda: not any((server.data / "spool").iterdir()))
    assert stored(server) == before
    assert client.post(url, content=body).status_code == 201


def test_upload_of_a_taken_down_image_is_410_and_leaves_the_url(client: httpx.Client) -> None:
    body = photo()
    digest = client.post(request_url(client), content=body).json()["digest"]
    client.delete(f"/v1/images/{digest}", headers={"authorization": f"Bearer {INGEST}"}).raise_for_status()
    url = request_url(client)
    response = client.post(url, content=body)
    assert (response.status_code, response.json()["type"]) == (410, "/problems/gone")
    assert client.post(url, content=photo()).status_code == 201


@pytest.mark.parametrize("same", [True, False])
def test_ten_uploads_at_once_store_one_image_and_answer_one_success(server: Server, client: httpx.Client, *, same: bool) -> None:
    before = set(stored(server))
    url = request_url(client)
    one = photo()
    bodies = [one if same else photo() for _ in range(10)]
    with ThreadPoolExecutor(10) as threads:
        statuses = sorted(threads.map(lambda body: client.post(url, content=body).status_code, bodies))
    assert statuses == [201, *[409] * 9]
    added = sorted(key.split("/")[0] for key in set(stored(server)) - before)
    assert added == ["documents", "originals", "recent", "uploads"]


def test_used_url_is_used_for_every_server_of_the_store_and_without_origins_no_response_has_cors(
    server: Server, client: httpx.Client, tmp_path: Path
) -> None:
    used, unused = request_url(client), request_url(client)
    assert client.post(used, content=photo()).status_code == 201
    with darkroom(tmp_path, store=(server.data / "store").as_uri(), keys=KEY.hex()) as other, other.client() as other_client:
        preflight = other_client.options(unused, headers={"origin": ORIGIN, "access-control-request-method": "POST"})
        assert (preflight.status_code, cors_fields(preflight)) == (204, {})
        for url, status in ((used, 409), (unused, 201), (unused, 409)):
            response = other_client.post(url, content=photo(), headers={"origin": ORIGIN})
            assert (response.status_code, cors_fields(response)) == (status, {})


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_preflight_from_a_listed_origin_allows_post_and_put(client: httpx.Client, origin: str) -> None:
    fields = {"origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "content-type"}
    response = client.options(request_url(client), headers=fields)
    assert (response.status_code, response.content) == (204, b"")
    assert cors_fields(response) == PREFLIGHT | {"access-control-allow-origin": origin}
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "origin",
    ["https://example.com", "http://www.example.com", "https://www.example.com:8443", "https://www.example.com.evil.test", "null", ""],
)
def test_preflight_and_upload_from_another_origin_allow_nothing(client: httpx.Client, origin: str) -> None:
    url = request_url(client)
    response = client.options(url, headers={"origin": origin, "access-control-request-method": "POST"})
    assert response.status_code == 204
    assert cors_fields(response) == {"vary": "Origin"}
    # The URL is the permission: the page only cannot read the response.
    response = client.post(url, content=photo(), headers={"origin": origin})
    assert response.status_code == 201
    assert cors_fields(response) == {"vary": "Origin"}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/uploads"), ("OPTIONS", "/v1/uploads"), ("OPTIONS", "/v1/images"), ("GET", "/v1/images")]
)
def test_rest_of_the_api_has_no_cors(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path, headers={"origin": ORIGIN, "access-control-request-method": "POST"})
    assert cors_fields(response) == {}


def test_errors_of_every_layer_can_be_read_by_a_page(client: httpx.Client) -> None:
    url = request_url(client)
    for method, fields, status in [("GET", {}, 405), ("DELETE", {}, 405), ("POST", {"x": "y" * 17_000}, 431)]:
        response = client.request(method, url, headers={"origin": ORIGIN, **fields})
        assert (response.status_code, cors_fields(response)) == (status, ALLOWED)


@pytest.mark.long
def test_every_origin_is_allowed_by_an_asterisk_at_the_public_url(tmp_path: Path) -> None:
    with darkroom(tmp_path, cors_origins="*", public_url="https://img.example.com/photos") as server, server.client() as client:
        url = client.post("/v1/uploads").json()["url"]
        assert url.startswith("https://img.example.com/photos/v1/uploads/")
        url = url.removeprefix("https://img.example.com/photos")
        response = client.options(url, headers={"origin": "null", "access-control-request-method": "POST"})
        assert cors_fields(response) == {name: value for name, value in PREFLIGHT.items() if name != "vary"} | {
            "access-control-allow-origin": "*"
        }
        response = client.post(url, content=photo(), headers={"origin": "null"})
        assert response.status_code == 201
        assert cors_fields(response) == {
            "access-control-allow-origin": "*",
            "access-control-expose-headers": "ETag, Location, Retry-After, X-Request-Id",
        }


def test_replica_replays_uploads_without_a_token_and_refuses_forged_ones(tmp_path: Path) -> None:
    settings = {"keys": KEY.hex(), "tokens": f"{INGEST}:ingest", "cors_origins": ORIGIN, "FLY_REGION": "iad", "PRIMARY_REGION": "ams"}
    with darkroom(tmp_path, **settings) as server, server.client() as client:
        url = signed(seconds=900)
        response = client.post(url, content=photo(), headers={"origin": ORIGIN})
        assert response.status_code == 421
        assert response.headers["fly-replay"].startswith("region=ams;")
        assert cors_fields(response) == ALLOWED
        large = client.post(url, content=bytes(1_000_000), headers={"origin": ORIGIN})
        assert (large.status_code, large.json()["prefer_region"], cors_fields(large)) == (421, "ams", ALLOWED)
        forged = client.post(signed(seconds=900, key=b"x" * 32), content=photo(), headers={"origin": ORIGIN})
        assert (forged.status_code, cors_fields(forged)) == (403, ALLOWED)
        assert client.post("/v1/uploads").status_code == 401
        preflight = client.options(url, headers={"origin": ORIGIN, "access-control-request-method": "POST"})
        assert (preflight.status_code, cors_fields(preflight)) == (204, PREFLIGHT)
        assert stored(server) == []


def test_formats_of_tickets_are_those_that_images_have(client: httpx.Client) -> None:
    for body, image_format in [
        (images.photo_jpeg(51, 40), "jpeg"),
        (images.rgba_png(51, 40), "png"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="8"/>', "svg"),
    ]:
        assert image_format in get_args(OriginalFormat)
        response = client.post(request_url(client, formats=[image_format]), content=body)
        assert response.status_code in {200, 201}
        assert response.json()["format"] == image_format


def test_server_with_an_invalid_origin_does_not_start(tmp_path: Path) -> None:
    message = refused_start(tmp_path, DARKROOM_CORS_ORIGINS="https://www.example.com/")
    assert "DARKROOM_CORS_ORIGINS is invalid: expected * without other entries, or origins as browsers write them" in message
    assert "'https://www.example.com/'" in message


def test_format_that_is_requested_twice_is_400(client: httpx.Client) -> None:
    response = client.post("/v1/uploads", json={"formats": ["gif", "png", "gif"]}, headers={"authorization": f"Bearer {INGEST}"})
    assert response.status_code == 400
    assert (response.json()["expected"], response.json()["received"]) == ("each format at most once", "gif, png, gif")

"""`/i/…`: renditions at their URLs, with the exact headers of successes and of errors."""

from __future__ import annotations

import base64
import hashlib
import hmac
import inspect
import io
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from service.http.routes.from_source import get_from_source
from service.http.routes.renditions import get_rendition
from service.images.transform import PIPELINE_VERSION
from tests.support import images
from tests.support.server import Server, darkroom, was_stored

KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
OLD_KEY = "f" * 64
UNSIGNED = "width=100,height=100,fit=cover"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server with known signing keys and one unsigned transform."""
    with darkroom(tmp_path_factory.mktemp("keyed"), keys=f"{KEY},{OLD_KEY}", unsigned=UNSIGNED) as running:
        yield running


@pytest.fixture(scope="module")
def client(keyed: Server) -> Iterator[httpx.Client]:
    with keyed.client() as open_client:
        yield open_client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    response: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(1600, 1200)).json()
    return response


def test_handler_has_one_dependency_because_litestar_starts_a_task_for_each_of_several() -> None:
    for handler in (get_rendition, get_from_source):
        assert list(inspect.signature(handler.fn).parameters) == ["request", "rendition_serving", "rest"]


def base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def signed(digest: str, transform: str, extension: str, *, key: str = KEY, version: str = f"v{PIPELINE_VERSION}") -> str:
    """Return a path with a signature that the test computes itself."""
    mac = hmac.new(bytes.fromhex(key), f"/i/{version}/{digest}/{transform}.{extension}".encode(), hashlib.sha256).digest()
    return f"/i/{version}/{digest}/{transform}/{base32(mac[:16])}.{extension}"


def without_date(response: httpx.Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers.multi_items() if name not in {"date", "server"}]


def rendition_headers(response: httpx.Response, digest: str, media_type: str) -> list[tuple[str, str]]:
    sha256 = hashlib.sha256(response.content).digest()
    return [
        ("cache-control", "public, max-age=31536000, immutable"),
        ("cdn-cache-control", "max-age=31536000"),
        ("etag", f'"{base32(sha256[:20])}"'),
        ("repr-digest", f"sha-256=:{base64.b64encode(sha256).decode()}:"),
        ("cache-tag", digest),
        ("timing-allow-origin", "*"),
        ("access-control-allow-origin", "*"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("content-type", media_type),
        ("content-length", str(len(response.content))),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
    ]


@pytest.mark.parametrize(
    ("extension", "media_type", "format_name"),
    [
        ("jxl", "image/jxl", "JXL"),
        ("avif", "image/avif", "AVIF"),
        ("webp", "image/webp", "WEBP"),
        ("jpg", "image/jpeg", "JPEG"),
        ("png", "image/png", "PNG"),
    ],
)
def test_rendition_miss_then_hit_have_exactly_these_headers(
    client: httpx.Client, document: dict[str, Any], extension: str, media_type: str, format_name: str
) -> None:
    path = signed(document["digest"], "width=333", extension)
    began = time.monotonic()
    miss, hit = client.get(path), client.get(path)
    seconds = math.ceil(time.monotonic() - began)
    expected = rendition_headers(miss, document["digest"], media_type)
    fields = without_date(miss)
    assert [pair for pair in fields if pair[0] not in {"server-timing", "cache-status", "x-request-id"}] == expected
    assert re.fullmatch("[0-9a-f]{32}", miss.headers["x-request-id"])
    names = ("tier;desc=render", "queue", "fetch", "decode", "encode")
    assert re.fullmatch(", ".join(rf"{name};dur=\d+\.\d" for name in names), miss.headers["server-timing"])
    total, *parts = [float(text) for text in re.findall(r"dur=([\d.]+)", miss.headers["server-timing"])]
    assert sum(parts) <= total + 1
    assert parts[2] > 0
    assert parts[3] > 0
    assert was_stored(miss, path)
    assert [pair for pair in without_date(hit) if pair[0] not in {"age", "cache-status", "server-timing"}] == expected
    assert [name for name, _ in without_date(hit)][-3:] == ["age", "cache-status", "server-timing"]
    assert 0 <= (age := int(hit.headers["age"])) <= seconds
    assert hit.headers["cache-status"] == f'darkroom; hit; ttl={31_536_000 - age}; key="{path}"'
    assert hit.headers["server-timing"] == "tier;desc=memory"
    assert hit.content == miss.content
    picture = Image.open(io.BytesIO(hit.content))
    assert (picture.size, picture.format) == ((333, 250), format_name)


def test_every_url_of_a_document_is_a_picture_of_its_size_and_type(client: httpx.Client, document: dict[str, Any]) -> None:
    formats = {"image/jxl": "JXL", "image/avif": "AVIF", "image/webp": "WEBP", "image/jpeg": "JPEG"}
    for source in document["sources"]:
        for link in source["renditions"]:
            response = client.get(link["url"])
            picture = Image.open(io.BytesIO(response.content))
            assert (response.status_code, response.headers["content-type"]) == (200, source["type"])
            assert (picture.size, picture.format) == ((link["width"], link["height"]), formats[source["type"]])


def test_rendition_matching_etag_is_304_without_a_body(client: httpx.Client, document: dict[str, Any]) -> None:
    path = signed(document["digest"], "width=111", "webp")
    etag = client.get(path).headers["etag"]
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = client.get(path, headers={"if-none-match": condition})
        assert response.status_code == 304
        assert response.content == b""
        assert [name for name, _ in without_date(response)] == [
            "cache-control", "cdn-cache-control", "etag", "access-control-allow-origin", "age", "cache-status", "server-timing",
        ]  # fmt: skip
    assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_head_cold_and_stored_has_the_headers_of_get_and_no_body(client: httpx.Client, document: dict[str, Any]) -> None:
    path = signed(document["digest"], "width=112", "webp")
    cold, stored, full = client.head(path), client.head(path), client.get(path)
    assert cold.content == stored.content == b""
    assert cold.headers["content-length"] == stored.headers["content-length"] == str(len(full.content))
    assert cold.headers["etag"] == stored.headers["etag"] == full.headers["etag"]
    assert without_date(stored)[:-2] == without_date(full)[:-2]


def test_query_string_is_308_to_the_url_without_it(client: httpx.Client, document: dict[str, Any]) -> None:
    path = signed(document["digest"], "width=113", "webp")
    response = client.get(f"{path}?utm_source=mail&x=%0d%0a")
    assert response.status_code == 308
    assert response.headers["location"] == path
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["access-control-allow-origin"] == "*"
    assert client.get(f"{path[:-6]}.webp?x=1").status_code in {400, 403}


def test_signature_of_an_older_key_is_still_valid(client: httpx.Client, document: dict[str, Any]) -> None:
    assert client.get(signed(document["digest"], "width=114", "webp", key=OLD_KEY)).status_code == 200


def check_error(response: httpx.Response, status: int, kind: str) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{kind}")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert not {"cdn-cache-control", "darkroom-cdn-cache-control", "etag", "age"} & set(response.headers)
    assert all(response.json()[member] for member in ("detail", "expected", "received", "remedy"))


def test_wrong_signature_is_403_and_reads_nothing(keyed: Server, client: httpx.Client, document: dict[str, Any]) -> None:
    path = signed(document["digest"], "width=115", "webp")
    head, signature, tail = path.rpartition("/")[0], path.rpartition("/")[2][:26], ".webp"
    flipped = ("b" if signature[0] == "a" else "a") + signature[1:]
    check_error(client.get(f"{head}/{flipped}{tail}"), 403, "bad-signature")
    check_error(client.get(f"{head}/-{tail}"), 403, "bad-signature")
    check_error(client.get(signed(document["digest"], "width=115", "webp", key="a" * 64)), 403, "bad-signature")
    assert not any(b"width=115" in path.name.encode() for path in keyed.stored("renditions"))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.replace("/i/v3/", "/i/v3//"),
        lambda path: path.replace("/i/v3/", "/i//v3/"),
        lambda path: path + "/",
        lambda path: path.replace("=", "%3D"),
        lambda path: path.replace("/v3/", "/%76%33/"),
        lambda path: path.replace("/width", "%2Fwidth"),
        lambda path: path.replace("/v3/", "/V3/"),
        lambda path: path.replace("/v3/", "/v03/"),
        lambda path: path.replace(".webp", ".WEBP"),
        lambda path: path.replace(".webp", ".gifv"),
        lambda path: path.replace(".webp", ""),
        lambda path: path.upper().replace("/I/", "/i/"),
    ],
)
def test_other_spelling_of_a_rendition_url_is_400(client: httpx.Client, document: dict[str, Any], change: Any) -> None:
    path = change(signed(document["digest"], "width=116", "webp"))
    request = client.build_request("GET", path)
    request.url = request.url.copy_with(raw_path=path.encode())
    response = client.send(request)
    check_error(response, 400, "bad-address")


def test_unsigned_transform_needs_no_signature_but_its_canonical_spelling(client: httpx.Client, document: dict[str, Any]) -> None:
    path = f"/i/v3/{document['digest']}/{UNSIGNED}/-.webp"
    response = client.get(path)
    assert response.status_code == 200
    assert was_stored(response, path)
    other = client.get(f"/i/v3/{document['digest']}/height=100,width=100,fit=cover/-.webp")
    check_error(other, 400, "bad-transform")
    assert other.json()["expected"] == UNSIGNED
    check_error(client.get(f"/i/v3/{document['digest']}/width=101,height=100,fit=cover/-.webp"), 403, "bad-signature")


@pytest.mark.parametrize("transform", ["wdith=3", "width=0", "width=1e3", "width=3,width=3", "gravity=focal:2:0", "width", "width=9000"])
def test_signed_text_that_is_not_a_transform_is_400(client: httpx.Client, document: dict[str, Any], transform: str) -> None:
    check_error(client.get(signed(document["digest"], transform, "webp")), 400, "bad-transform")


def test_signed_transform_in_another_spelling_is_the_same_picture(client: httpx.Client, document: dict[str, Any]) -> None:
    one = client.get(signed(document["digest"], "width=120,height=90,fit=cover", "webp"))
    other = client.get(signed(document["digest"], "fit=cover,height=090,width=120.0", "webp"))
    assert (one.status_code, other.status_code) == (200, 200)
    assert one.content == other.content


def test_unknown_digest_is_404(client: httpx.Client) -> None:
    response = client.get(signed("a" * 32, "width=10", "webp"))
    check_error(response, 404, "not-found")


def test_newer_pipeline_version_is_503_with_retry_after(client: httpx.Client, document: dict[str, Any]) -> None:
    response = client.get(signed(document["digest"], "width=10", "webp", version=f"v{PIPELINE_VERSION + 1}"))
    check_error(response, 503, "newer-version")
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("image/jxl,image/avif,image/webp,*/*", "image/jxl"),
        ("image/avif,image/webp,*/*", "image/avif"),
        ("image/webp,*/*;q=0.8", "image/webp"),
        ("image/avif;q=0, image/webp", "image/webp"),
        ("image/webp,image/avif;q=0.9", "image/webp"),
        ("*/*", "image/jpeg"),
        ("", "image/jpeg"),
        # Longer than that of any browser.
        ("image/webp" + "," * 2_000, "image/jpeg"),
    ],
)
def test_auto_gives_the_accepted_format_only_to_this_client(
    client: httpx.Client, document: dict[str, Any], accept: str, media_type: str
) -> None:
    response = client.get(signed(document["digest"], "width=117", "auto"), headers={"accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    assert response.headers["cache-control"] == "private, max-age=86400"
    assert response.headers["cdn-cache-control"] == "no-store"
    assert response.headers["vary"] == "Accept"
    assert "darkroom-cdn-cache-control" not in response.headers


def test_rendition_of_too_many_pixels_is_422(tmp_path_factory: pytest.TempPathFactory) -> None:
    with darkroom(tmp_path_factory.mktemp("limits"), keys=KEY, max_output_pixels=100_000) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()
        response = client.get(signed(document["digest"], "width=640", "jpg"))
        check_error(response, 422, "too-many-pixels")
        assert client.get(document["sources"][2]["renditions"][-1]["url"]).status_code == 200


def test_damaged_stored_rendition_is_noticed_and_rendered_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("flipped")
    with darkroom(data) as server, server.client() as client:
        urls = [client.post("/v1/images", content=images.photo_jpeg(320, 240, seed=seed)).json()["src"] for seed in range(3)]
        bodies = [client.get(url).content for url in urls]
    stored = [next(path for path in server.stored("renditions") if path.read_bytes().endswith(body)) for body in bodies]
    flipped, cut, _ = (bytearray(path.read_bytes()) for path in stored)
    flipped[-10] ^= 1
    for path, harm in zip(stored, (flipped, cut[:-1], b""), strict=True):
        path.write_bytes(bytes(harm))
    with darkroom(data) as server, server.client() as client:
        for url, body in zip(urls, bodies, strict=True):
            response = client.get(url)
            assert response.content == body
            assert response.headers["server-timing"].startswith("tier;desc=render;")
    assert [path.read_bytes()[-len(body) :] for path, body in zip(stored, bodies, strict=True)] == bodies

"""`POST /v1/images` and the image document, against a real server."""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode
from pathlib import Path

import httpx
import pytest

from tests.support import images
from tests.support.server import Server, darkroom

DOCUMENT_MEMBERS = [
    "digest", "format", "width", "height", "frames", "bytes", "alpha", "dynamic_range",
    "created", "alt", "name", "focal", "warnings", "placeholder", "src", "sources", "picture",
]  # fmt: skip


def digest_of(body: bytes) -> str:
    return b32encode(hashlib.sha256(body).digest()[:20]).decode().lower()


def test_ingest_of_a_new_photo_is_201_with_document_and_location(client: httpx.Client) -> None:
    photo = images.photo_jpeg(1600, 1200, quality=91)
    response = client.post("/v1/images", content=photo)
    document = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/images/{digest_of(photo)}"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert list(document) == DOCUMENT_MEMBERS
    assert document["digest"] == digest_of(photo)
    assert (document["format"], document["width"], document["height"]) == ("jpeg", 1600, 1200)
    assert (document["frames"], document["bytes"], document["alpha"]) == (1, len(photo), False)
    assert (document["alt"], document["focal"]) == ("", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["created"])
    assert [source["type"] for source in document["sources"]] == ["image/jxl", "image/avif", "image/webp", "image/jpeg"]
    assert [link["width"] for link in document["sources"][0]["renditions"]] == [320, 640, 960, 1280, 1600]
    assert document["src"] == document["sources"][3]["renditions"][3]["url"]
    assert document["src"] in document["picture"]
    assert len(document["placeholder"]["data_url"]) <= 400


def test_ingest_of_a_drawing_lists_what_was_removed_from_it(client: httpx.Client) -> None:
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="alert(1)"><rect width="5" height="5"/></svg>'
    document = client.post("/v1/images", content=drawing).json()
    assert document["warnings"] == ["Removed an event handler."]
    assert client.get(f"/v1/images/{digest_of(drawing)}").json()["warnings"] == document["warnings"]
    assert client.post("/v1/images", content=images.photo_jpeg(64, 48, quality=71)).json()["warnings"] == []


def test_ingest_of_the_same_bytes_again_is_200_with_the_same_document(client: httpx.Client) -> None:
    photo = images.photo_jpeg(640, 480, quality=83)
    first, second = client.post("/v1/images", content=photo), client.post("/v1/images", content=photo)
    assert (first.status_code, second.status_code) == (201, 200)
    assert "location" not in second.headers
    assert second.json() == first.json()
    assert client.get(f"/v1/images/{digest_of(photo)}").json() == first.json()


@pytest.mark.parametrize("declared", ["application/x-www-form-urlencoded", "text/plain", "application/json", "image/png", ""])
def test_ingest_of_raw_bytes_ignores_the_declared_type(client: httpx.Client, declared: str) -> None:
    photo = images.photo_jpeg(200, 100, quality=70)
    response = client.post("/v1/images", content=photo, headers={"content-type": declared} if declared else {})
    assert response.status_code in {200, 201}
    assert response.json()["format"] == "jpeg"


def test_ingest_of_a_png_named_jpg_is_a_png(client: httpx.Client) -> None:
    response = client.post("/v1/images", files={"file": ("photo.jpg", images.rgba_png(64, 48), "image/jpeg")})
    assert response.status_code in {200, 201}
    assert (response.json()["format"], response.json()["alpha"]) == ("png", True)
    assert [source["type"] for source in response.json()["sources"]] == ["image/jxl", "image/avif", "image/webp", "image/png"]


def test_ingest_of_multipart_with_one_file_returns_the_document_itself(client: httpx.Client) -> None:
    photo = images.photo_jpeg(210, 100)
    response = client.post("/v1/images", files={"file": ("a.jpg", photo)})
    assert response.status_code == 201
    assert response.json()["digest"] == digest_of(photo)


def test_ingest_of_multipart_with_several_files_is_207_in_the_order_sent(client: httpx.Client) -> None:
    known, new = images.photo_jpeg(220, 100), images.photo_jpeg(230, 100)
    client.post("/v1/images", content=known)
    parts: list[tuple[str, tuple[str | None, bytes | str]]] = [
        ("file", ("1.jpg", known)),
        ("note", (None, "ignored")),
        ("file", ("2.txt", b"no image")),
        ("file", ("3.jpg", new)),
    ]
    response = client.post("/v1/images", files=parts)
    listed = response.json()["images"]
    assert response.status_code == 207
    assert [entry.get("digest") for entry in listed] == [digest_of(known), None, digest_of(new)]
    assert (listed[1]["status"], listed[1]["type"]) == (415, "/problems/unsupported-format")


def test_ingest_of_multipart_with_several_new_files_is_201(client: httpx.Client) -> None:
    files = [("file", (f"{width}.jpg", images.photo_jpeg(width, 100))) for width in (240, 250)]
    response = client.post("/v1/images", files=files)
    assert response.status_code == 201
    assert [entry["width"] for entry in response.json()["images"]] == [240, 250]


def test_document_of_unknown_digest_is_404(client: httpx.Client) -> None:
    response = client.get(f"/v1/images/{'a' * 32}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["remedy"] == "Check the digest. If it is right, upload the image with POST /v1/images."


@pytest.mark.parametrize("digest", ["..%2f..%2fetc%2fpasswd", "%00", "A" * 32, "a" * 31, "a" * 200])
def test_document_of_an_invalid_digest_is_404_and_reads_nothing(client: httpx.Client, digest: str) -> None:
    assert client.get(f"/v1/images/{digest}").status_code == 404


def test_urls_with_a_format_is_one_signed_url_that_works(client: httpx.Client) -> None:
    digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
    wanted = {"transform": {"width": 64, "height": 64, "fit": "cover", "gravity": "focal:0.1:0.9", "quality": 60}, "format": "webp"}
    response = client.post(f"/v1/images/{digest}/urls", json=wanted)
    assert response.status_code == 200
    assert re.fullmatch(
        rf"/i/v3/{digest}/width=64,height=64,fit=cover,gravity=focal:0.1:0.9,quality=60/[a-z2-7]{{26}}\.webp", response.json()["url"]
    )
    rendition = client.get(response.json()["url"])
    assert (rendition.status_code, rendition.headers["content-type"]) == (200, "image/webp")


def test_urls_with_widths_and_formats_is_a_ladder_of_those(client: httpx.Client) -> None:
    digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
    wanted = {
        "transform": {"width": 400, "height": 100, "fit": "cover"},
        "widths": [400, 200],
        "formats": ["webp", "jpeg"],
        "sizes": "50vw",
        "alt": 'a "quoted" <alt>',
    }
    markup = client.post(f"/v1/images/{digest}/urls", json=wanted).json()
    assert list(markup) == ["src", "sources", "picture"]
    assert [source["type"] for source in markup["sources"]] == ["image/webp", "image/jpeg"]
    assert [(link["width"], link["height"]) for link in markup["sources"][1]["renditions"]] == [(200, 50), (400, 100)]
    assert 'sizes="50vw"' in markup["picture"]
    assert 'alt="a &quot;quoted&quot; &lt;alt&gt;"' in markup["picture"]


def test_urls_with_priority_have_the_header_that_preloads_the_first_source(client: httpx.Client) -> None:
    digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
    markup = client.post(f"/v1/images/{digest}/urls", json={"widths": [320, 640], "sizes": "50vw", "priority": True}).json()
    assert list(markup) == ["src", "sources", "picture", "preload"]
    assert 'sizes="50vw"' in markup["picture"]
    assert 'loading="eager" fetchpriority="high"' in markup["picture"]
    # The example of docs/api.md.
    narrow, wide = f"/i/v3/{digest}/width=320/-.jxl", f"/i/v3/{digest}/width=640/-.jxl"
    assert markup["preload"] == (
        f'<{narrow}>; rel=preload; as=image; imagesrcset="{narrow} 320w, {wide} 640w"; imagesizes="50vw"; type="image/jxl"; '
        "fetchpriority=high"
    )


def test_urls_without_a_body_are_those_of_the_document(client: httpx.Client) -> None:
    document = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()
    markup = client.post(f"/v1/images/{document['digest']}/urls").json()
    assert markup == {name: document[name] for name in ("src", "sources", "picture")}


@pytest.mark.parametrize(
    ("wanted", "kind", "expected"),
    [
        (
            {"transform": {"widht": 3}},
            "bad-transform",
            "frame, animate, crop, trim, rotate, flip, width, height, ratio, fit, gravity, enlarge",
        ),
        ({"transform": {"width": 0}}, "bad-transform", "a whole number of pixels from 1 to 8192"),
        ({"transform": {"width": 8193}}, "bad-transform", "a whole number of pixels from 1 to 8192"),
        ({"transform": {"quality": 101}}, "bad-transform", "a whole number from 1 to 100"),
        ({"transform": {"width": [1]}}, "bad-transform", "a number, a string, or true or false"),
        ({"transform": {"fit": "cover"}}, "bad-transform", "width and height"),
        ({"format": "tiff"}, "bad-request", "one of avif, gif, jpeg, jxl, png, webp"),
        ({"format": "webp", "widths": [3]}, "bad-request", "one or the other"),
        ({"format": "webp", "priority": True}, "bad-request", "one or the other"),
        ({"priority": "high"}, "bad-request", "true or false"),
        ({"widths": [0]}, "bad-request", "a whole number from 1 to 8192"),
        ({"width": 3}, "bad-request", "an object with optionally `transform`"),
        ([], "bad-request", "an object with optionally `transform`"),
    ],
)
def test_urls_with_a_bad_request_is_400_with_expected(client: httpx.Client, wanted: object, kind: str, expected: str) -> None:
    digest = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()["digest"]
    response = client.post(f"/v1/images/{digest}/urls", json=wanted)
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert problem["type"] == f"/problems/{kind}"
    assert problem["expected"].startswith(expected)
    assert problem["received"]
    assert problem["remedy"]


def test_public_url_is_the_start_of_every_url_of_a_document(tmp_path_factory: pytest.TempPathFactory) -> None:
    with darkroom(tmp_path_factory.mktemp("public"), public_url="https://img.example.com") as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(64, 48)).json()
        urls = [link["url"] for source in document["sources"] for link in source["renditions"]]
        assert all(url.startswith("https://img.example.com/i/v3/") for url in [document["src"], *urls])
        assert client.get(document["src"].removeprefix("https://img.example.com")).status_code == 200


def test_store_after_ingest_has_the_original_and_its_document(server: Server, client: httpx.Client) -> None:
    photo = images.photo_jpeg(66, 48)
    before = stored_files(server)
    client.post("/v1/images", content=photo)
    original, document = sorted(stored_files(server) - before, key=lambda path: path.stat().st_size, reverse=True)
    assert (original.name, document.name) == (digest_of(photo), digest_of(photo))
    assert original.read_bytes() == photo
    assert b"/i/v3/" not in document.read_bytes()
    assert list((server.data / "spool").iterdir()) == []


def stored_files(server: Server) -> set[Path]:
    return {*server.stored("originals"), *server.stored("documents")}


def test_damaged_original_is_reported_and_repaired_by_the_same_upload(server: Server, client: httpx.Client) -> None:
    photo = images.photo_jpeg(322, 240)
    document = client.post("/v1/images", content=photo).json()
    (original,) = (path for path in server.stored("originals") if path.name == document["digest"])
    original.write_bytes(photo[:-200] + bytes(200))
    before = server.stored("renditions")
    broken = client.get(document["src"])
    assert (broken.status_code, broken.json()["type"]) == (500, "/problems/damaged-original")
    assert broken.json()["expected"] == digest_of(photo)
    assert server.stored("renditions") == before
    assert client.post("/v1/images", content=photo).status_code == 200
    assert original.read_bytes() == photo
    assert client.get(document["src"]).status_code == 200

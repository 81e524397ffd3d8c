"""Invalid requests: which problem each one gets, and that nothing of it stays in the store, in the spool or in a process."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import images
from tests.support.lazy import LazyMapping
from tests.support.server import HOST, Server, darkroom
from tests.support.waiting import PATIENCE_SECONDS

MAX_UPLOAD_BYTES = 2_000_000

# A crop that is inside some originals only, in a URL that needs no signature.
OUTSIDE = "crop=5000:0:10:10"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server with low limits."""
    settings = {"max_upload_bytes": MAX_UPLOAD_BYTES, "max_parts": 3, "unsigned": OUTSIDE, "render_processes": 1}
    with darkroom(tmp_path_factory.mktemp("small"), **settings) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def silent_upload(small: Server) -> Iterator[socket.socket]:
    """Give an upload that stalls after one byte from the start of this module: the server ends it after its 25 seconds of grace."""
    with socket.create_connection((HOST, small.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        while not any((small.data / "spool").iterdir()):
            time.sleep(0.01)
        yield connection


@pytest.fixture
def spool(small: Server, silent_upload: socket.socket) -> Callable[[], list[Path]]:
    """Give the spool files of uploads that begin after this fixture, without the one that stalls."""
    before = set((small.data / "spool").iterdir())
    return lambda: [path for path in (small.data / "spool").iterdir() if path not in before]


def check_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "cdn-cache-control" not in response.headers
    assert "darkroom-cdn-cache-control" not in response.headers
    assert problem["type"] == f"/problems/{kind}"
    assert problem["status"] == status
    assert all(problem[member] for member in ("title", "detail", "expected", "received", "remedy"))
    assert "Traceback" not in response.text
    assert "/" + "home" not in response.text
    return problem


def broken_jpeg() -> bytes:
    return images.truncated(images.photo_jpeg(800, 600))


BAD_UPLOADS = LazyMapping[tuple[bytes, int, str]](
    {
        "text": lambda: (b"Dear Sir or Madam,\r\n", 415, "unsupported-format"),
        "html": lambda: (b"<!DOCTYPE html><title>x</title>", 415, "unsupported-format"),
        "pdf": lambda: (b"%PDF-1.7 ...", 415, "unsupported-format"),
        "svg that is not well-formed": lambda: (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">', 422, "broken-image"),
        "zeros": lambda: (bytes(5_000), 415, "unsupported-format"),
        "empty": lambda: (b"", 400, "empty-body"),
        "truncated jpeg": lambda: (broken_jpeg(), 422, "broken-image"),
        "truncated png": lambda: (images.truncated(images.rgba_png(300, 200)), 422, "broken-image"),
        "png with a wrong check sum": lambda: (images.rgba_png(300, 200).replace(b"IDAT", b"IDAT\x00", 1), 422, "broken-image"),
        "too many pixels": lambda: (images.png_bomb(60_000, 60_000), 422, "too-many-pixels"),
        "too many pixels, jpeg": lambda: (images.jpeg_bomb(), 422, "too-many-pixels"),
        "too many pixels, gif": lambda: (images.gif_bomb(), 422, "too-many-pixels"),
        "too many frames": lambda: (images.animated_gif(4, 4, frames=1_001), 422, "too-many-pixels"),
        "too large": lambda: (images.photo_jpeg(640, 480) + bytes(MAX_UPLOAD_BYTES), 413, "too-large"),
    }
)


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_bad_upload_is_a_problem_and_leaves_nothing(small: Server, spool: Callable[[], list[Path]], name: str) -> None:
    body, status, kind = BAD_UPLOADS[name]
    with small.client() as client:
        check_problem(client.post("/v1/images", content=body), status, kind)
    assert small.stored("originals") == small.stored("documents") == small.stored("renditions") == []
    assert spool() == []


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_bad_upload_in_multipart_is_the_same_problem(small: Server, spool: Callable[[], list[Path]], name: str) -> None:
    body, status, kind = BAD_UPLOADS[name]
    with small.client() as client:
        check_problem(client.post("/v1/images", files={"file": ("photo.jpg", body)}), status, kind)
    assert spool() == []


CORPUS = [path for folder in ("broken", "bomb", "svg-hostile") for path in images.corpus_files(folder)]


@pytest.mark.skipif(images.corpus() is None, reason="the corpus of real images is not beside the repository")
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus_file_that_is_broken_or_hostile_is_a_problem_or_harmless(small: Server, spool: Callable[[], list[Path]], path: Path) -> None:
    before = small.render_processes()
    with small.client() as client:
        response = client.post("/v1/images", content=path.read_bytes())
        if path.parent.name == "svg-hostile" and response.status_code in {200, 201}:
            # It is served as a picture that was rendered, never as its own markup.
            rendition = client.get(response.json()["src"])
            assert rendition.headers["content-type"] in {"image/png", "image/webp", "image/jpeg"}
            assert b"<script" not in rendition.content
        else:
            problem = check_problem(response, response.status_code, response.json()["type"].rpartition("/")[2])
            assert 400 <= problem["status"] < 500
    assert spool() == []
    assert small.render_processes() == before


@pytest.fixture(scope="module")
def photo(small: Server) -> dict[str, Any]:
    """Give the document of a photo of 640 × 480 pixels."""
    with small.client() as client:
        document: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(640, 480)).json()
    return document


UNKNOWN = "a" * 32
CONTRADICTIONS: dict[str, tuple[dict[str, object], str, int, str]] = {
    "crop outside": ({"crop": [600, 0, 100, 100]}, "webp", 400, "bad-transform"),
    "crop beyond a hundred percent": ({"crop": "60%,0%,50%,50%"}, "webp", 400, "bad-transform"),
    "lossless jpeg": ({"lossless": True}, "jpeg", 400, "bad-transform"),
    "lossless gif": ({"lossless": True}, "gif", 400, "bad-transform"),
    "animated jpeg": ({"animate": True}, "jpeg", 400, "bad-transform"),
    "animated jxl": ({"animate": True}, "jxl", 400, "bad-transform"),
    "animated frame": ({"animate": True, "frame": 1}, "webp", 400, "bad-transform"),
    "lossless quality": ({"lossless": True, "quality": 80}, "webp", 400, "bad-transform"),
    "lossless bytes": ({"lossless": True, "max_bytes": 9_000}, "webp", 400, "bad-transform"),
    "gray saturation": ({"grayscale": True, "saturation": 2}, "webp", 400, "bad-transform"),
    "gray p3": ({"grayscale": True, "profile": "p3"}, "webp", 400, "bad-transform"),
    "fit without a box": ({"width": 100, "fit": "cover"}, "webp", 400, "bad-transform"),
    "gravity without a cut": ({"width": 100, "gravity": "north"}, "webp", 400, "bad-transform"),
    "enlarge without a size": ({"enlarge": True}, "webp", 400, "bad-transform"),
    "focal and gravity": (
        {"width": 100, "height": 100, "fit": "cover", "gravity": "north", "focal": [0.5, 0.5]},
        "webp",
        400,
        "bad-transform",
    ),
    "frame of a still": ({"frame": 1}, "webp", 400, "bad-transform"),
    "overlay of nothing": ({"overlay": {"digest": UNKNOWN}}, "webp", 404, "not-found"),
    "overlay of no digest": ({"overlay": {"digest": "logo.png"}}, "webp", 400, "bad-transform"),
    "more pixels than are made": ({"width": 8_192, "height": 8_192, "fit": "contain"}, "webp", 422, "too-many-pixels"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_transform_that_contradicts_itself_or_the_image_gets_no_url(small: Server, photo: dict[str, Any], name: str) -> None:
    transform, image_format, status, kind = CONTRADICTIONS[name]
    with small.client() as client:
        response = client.post(f"/v1/images/{photo['digest']}/urls", json={"transform": transform, "format": image_format})
    check_problem(response, status, kind)


def test_rendition_url_of_a_crop_outside_its_image_is_400_and_not_stored(small: Server, photo: dict[str, Any]) -> None:
    version, before = photo["src"].split("/")[2], small.stored("renditions")
    with small.client() as client:
        for extension in ("webp", "jpg", "png", "gif", "avif"):
            response = client.get(f"/i/{version}/{photo['digest']}/{OUTSIDE}/-.{extension}")
            assert response.status_code == 400
            problem = response.json()
            assert (problem["type"], problem["expected"]) == ("/problems/bad-transform", "a part of 640 x 480 pixels")
            assert problem["remedy"]
            assert response.headers["cache-control"] == "no-store"
    assert small.stored("renditions") == before


def test_chunked_upload_without_length_is_413_once_it_is_too_large(small: Server, spool: Callable[[], list[Path]]) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(100_000)

    before = small.stored("originals")
    # The server may respond and close while the client still sends.
    with small.client() as client, suppress(httpx.WriteError):
        check_problem(client.post("/v1/images", content=body()), 413, "too-large")
    assert spool() == []
    assert small.stored("originals") == before


def test_declared_length_too_large_is_413_before_a_byte_is_read(small: Server) -> None:
    with socket.create_connection((HOST, small.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("content_type", "body", "received"),
    [
        ("multipart/form-data", b"x", "Empty boundary"),
        ("multipart/form-data; boundary=x", b"", "Unexpected end"),
        ("multipart/form-data; boundary=x", b"no boundary in it", "Boundary not found"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', "Unexpected end"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\nabc\r\n--x--', "none"),
        (
            "multipart/form-data; boundary=x",
            b"".join(b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\nabc\r\n' for _ in range(9)) + b"--x--",
            "Maximum segment count exceeded",
        ),
    ],
)
def test_bad_multipart_is_400(small: Server, content_type: str, body: bytes, received: str) -> None:
    with small.client() as client:
        problem = check_problem(client.post("/v1/images", content=body, headers={"content-type": content_type}), 400, "bad-request")
    assert received in problem["received"]


def test_options_of_a_path_allow_every_method_that_405_names(server: Server) -> None:
    with server.client() as client:
        for path in ("/v1/images", f"/v1/images/{'a' * 32}", "/v1/uploads/a", "/health", f"/i/v1/{'a' * 32}/full/-.jpg"):
            options, refused = client.options(path), client.request("TRACE", path)
            assert options.status_code == 204
            assert refused.status_code == 405
            assert options.headers["allow"] == refused.headers["allow"]
        assert client.options("/v1/images").headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_unsupported_method_is_405_with_the_supported_methods(server: Server) -> None:
    with server.client() as client:
        digest, signature = "a" * 32, "b" * 26
        for path, allow in [
            (f"/i/v1/{digest}/full/{signature}.jpg", "GET, HEAD, OPTIONS"),
            ("/health", "GET, HEAD, OPTIONS"),
            ("/v1/images", "GET, HEAD, OPTIONS, POST"),
        ]:
            response = client.request("PUT", path)
            assert response.status_code == 405
            assert response.headers["allow"] == allow
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.json()["remedy"] == f"Use one of: {allow}."


def test_unknown_path_is_404_that_says_where_to_look(server: Server) -> None:
    with server.client() as client:
        response = client.get("/no/such/page")
    assert response.status_code == 404
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "This server has no such path.",
        "received": "GET /no/such/page",
        "remedy": "GET /docs lists all paths.",
    }


def test_control_characters_of_a_path_are_escaped_in_the_response(server: Server) -> None:
    with server.client() as client:
        response = client.get("/no%0d%0aSet-Cookie:%20x=1%00%e2%80%ae")
    assert response.status_code == 404
    assert "set-cookie" not in response.headers
    assert "\r" not in response.text
    assert "\\r\\n" in response.json()["received"]


# The time-out itself is tested without waiting in test_bodies.py.
@pytest.mark.long
def test_slow_upload_is_408_and_its_spool_file_is_gone(small: Server, silent_upload: socket.socket) -> None:
    response = b""
    while b"remedy" not in response and (chunk := silent_upload.recv(4_096)):
        response += chunk
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"at least 8192 bytes a second" in response
    assert list((small.data / "spool").iterdir()) == []

"""`/from/…` over HTTP: mutable pictures of a source, immutable renditions; with a real host in a network namespace of its own."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from service.urls.signing import Signer
from service.urls.source_url import SourceUrl
from tests.support import images
from tests.support.network import PUBLIC_ADDRESS, own_network
from tests.support.server import Server, darkroom, was_stored
from tests.support.threads import serving
from tests.support.waiting import wait_until

KEY = "ab" * 32
SIGNER = Signer([bytes.fromhex(KEY)])


@dataclass
class Host:
    """A host with one image at every path below `/up/`: its bytes and entity tag, and the requests so far, each a path and its fields.

    `status` is that of all responses. `replies` has those of single paths: status, fields and body.
    """

    body: bytes
    tag: str = '"v1"'
    status: int = 200
    replies: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    def reset(self, body: bytes) -> None:
        """Begin anew with another image."""
        self.body, self.tag, self.status, self.replies, self.requests = body, '"v1"', 200, {}, []

    def url(self, path: str = "", host: str = PUBLIC_ADDRESS) -> str:
        """Return the URL of a path below the prefix of the source."""
        return f"http://{host}:{self.port}/up/{path}"

    def reply(self, path: str, condition: str | None) -> tuple[int, dict[str, str], bytes]:
        """Return the response for a path."""
        if path in self.replies:
            return self.replies[path]
        if condition == self.tag and self.status == 200:
            return 304, {"ETag": self.tag}, b""
        return self.status, {"ETag": self.tag}, self.body if self.status == 200 else b"no"


@contextmanager
def listening(running: Host) -> Iterator[None]:
    """Make a host listen on the public address and on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            running.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            status, fields, body = running.reply(self.path, self.headers.get("If-None-Match"))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | fields).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            # The body may be shorter than declared.
            self.close_connection = True

        def log_message(self, *words: Any) -> None:
            pass

    with serving(Handler, "0.0.0.0") as running.port:
        yield


Test: TypeAlias = Callable[[Server, httpx.Client, Host], None]


@contextmanager
def world(data: Path, **settings: object) -> Iterator[Callable[[Test], None]]:
    """Give a function that runs a test with a host and a server of its own, which has the source `cms`, in a network of their own.

    Each test gets another photo, so that tests on the same server share no image. They must not share a path either.
    """
    numbers = itertools.count()
    with own_network() as run, ExitStack() as stack:
        running = Host(b"")

        def start() -> None:
            stack.enter_context(listening(running))
            sources = f"cms={running.url()}; inside=http://localhost:{running.port}/up; gone=http://no-such-host.test:7; "
            server = stack.enter_context(darkroom(data, sources=sources, keys=KEY, **settings))
            servers.append((server, stack.enter_context(server.client())))

        servers: list[tuple[Server, httpx.Client]] = []
        run(start)

        def run_test(test: Test) -> None:
            photo = images.photo_jpeg(800, 600)
            comment = f"\xff\xfe\0\x06{next(numbers):04}".encode("latin-1")
            running.reset(photo[:2] + comment + photo[2:])
            run(lambda: test(*servers[0], running))

        try:
            yield run_test
        finally:
            run(stack.close)


@pytest.fixture(scope="module")
def with_source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Test], None]]:
    variants = "card: width=77,height=50,fit=cover"
    with world(tmp_path_factory.mktemp("source"), max_upload_bytes=1_000_000, variants=variants) as run:
        yield run


@pytest.fixture(scope="module")
def with_stale_source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Test], None]]:
    with world(tmp_path_factory.mktemp("stale"), source_seconds=1) as run:
        yield run


def path_of(path: str, transform: str = "width=640", extension: str = "webp", *, source: str = "cms", signed: bool = False) -> str:
    """Return the path of a rendition of an object."""
    url = SourceUrl(source, path, transform, extension)
    return SIGNER.sign(url) if signed else url.path("-")


def check_problem(response: httpx.Response, status: int, kind: str) -> dict[str, str]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.headers["cache-control"] == "no-store"
    assert "cdn-cache-control" not in response.headers
    problem: dict[str, str] = response.json()
    assert problem["type"] == f"/problems/{kind}"
    assert problem["expected"]
    assert problem["remedy"]
    return problem


def test_source_url_has_the_picture_and_names_the_immutable_url_of_it(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        path = path_of("2026/Größe 1.jpg")
        assert path == "/from/cms/2026/Gr%C3%B6%C3%9Fe%201.jpg/width=640/-.webp"
        response = client.get(path)
        assert images.decode(response.content).size == (640, 480)
        location = response.headers["content-location"]
        digest = location.split("/")[3]
        assert location == f"/i/v3/{digest}/width=640/-.webp"
        fields = {
            "content-type": "image/webp",
            "cache-control": "public, max-age=60",
            "cdn-cache-control": "max-age=300, stale-while-revalidate=86400, stale-if-error=604800",
            "cache-tag": digest,
            "link": f'<{location}>; rel="canonical"',
            "access-control-allow-origin": "*",
            "cross-origin-resource-policy": "cross-origin",
            "timing-allow-origin": "*",
            "content-security-policy": "default-src 'none'; sandbox",
            "x-content-type-options": "nosniff",
        }
        assert {name: response.headers[name] for name in fields} == fields
        assert (response.status_code, "vary" in response.headers, "content-disposition" in response.headers) == (200, False, False)
        assert was_stored(response, path, 300)
        assert re.fullmatch(r"tier;desc=render;dur=[0-9.]+, .*, source;dur=[0-9.]+", response.headers["server-timing"])

        immutable = client.get(location)
        assert (immutable.content, immutable.headers["etag"]) == (response.content, response.headers["etag"])
        assert immutable.headers["repr-digest"] == response.headers["repr-digest"]
        assert immutable.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert immutable.headers["server-timing"].startswith("tier;desc=store")

        again = client.get(path)
        assert ("; hit; " in again.headers["cache-status"], again.content) == (True, response.content)
        unchanged = client.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        kept = {"cache-control", "cdn-cache-control", "content-location", "access-control-allow-origin"}
        assert {name: unchanged.headers[name] for name in kept} == {name: response.headers[name] for name in kept}
        head = client.head(path)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(response.content)))
        part = client.get(path, headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, response.content[:4])

        # Another width, and an image of the same bytes elsewhere, are the same original.
        assert images.decode(client.get(path_of("2026/Größe 1.jpg", "width=320", "jpg")).content).size == (320, 240)
        assert client.get(path_of("other.jpg")).headers["content-location"] == location
        assert [path for path, _ in running.requests] == ["/up/2026/Gr%C3%B6%C3%9Fe%201.jpg", "/up/other.jpg"]
        assert client.get(f"/v1/images/{digest}").json()["name"] == "Größe-1"

    with_source(test)


def test_source_url_that_negotiates_is_private_and_names_the_format_that_was_chosen(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        path = path_of("auto.jpg", "width=320", "auto")
        for accept, media_type, extension in (
            ("image/avif,image/webp,*/*", "image/avif", "avif"),
            ("image/webp,*/*", "image/webp", "webp"),
            ("*/*", "image/jpeg", "jpg"),
        ):
            response = client.get(path, headers={"Accept": accept})
            fields = {
                "content-type": media_type,
                "cache-control": "private, max-age=60",
                "vary": "Accept",
                "cdn-cache-control": "no-store",
            }
            assert {name: response.headers[name] for name in fields} == fields
            assert "darkroom-cdn-cache-control" not in response.headers
            location = response.headers["content-location"]
            assert location.endswith(f"/width=320/-.{extension}")
            assert response.headers["link"] == f'<{location}>; rel="canonical"'
            again = client.get(path, headers={"Accept": accept})
            assert ("; hit; " in again.headers["cache-status"], again.content) == (True, response.content)
        assert len(running.requests) == 1

    with_source(test)


def test_source_url_redirects_to_the_immutable_rendition_if_it_is_configured_so(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        path = path_of("Größe 1.jpg")
        response = client.get(path)
        assert (response.status_code, response.content) == (302, b"")
        location = response.headers["location"]
        digest = location.split("/")[3]
        # As documents have it on this server.
        assert location == f"/i/v3/{digest}/width=640/-/Gr%C3%B6%C3%9Fe-1.webp"
        fields = {
            "cache-control": "public, max-age=60",
            "cdn-cache-control": "max-age=300, stale-while-revalidate=86400, stale-if-error=604800",
            "cache-tag": digest,
            "access-control-allow-origin": "*",
            "timing-allow-origin": "*",
        }
        assert {name: response.headers[name] for name in fields} == fields
        assert was_stored(response, path, 300)
        rendition = client.get(location)
        assert (rendition.status_code, images.decode(rendition.content).size) == (200, (640, 480))
        assert "; hit; " in client.get(path).headers["cache-status"]
        assert (
            client.get(path_of("Größe 1.jpg", "width=320", "auto")).headers["location"]
            == f"/i/v3/{digest}/width=320/-/Gr%C3%B6%C3%9Fe-1.auto"
        )
        signed = client.get(path_of("Größe 1.jpg", "width=77,height=50,fit=cover", signed=True)).headers["location"]
        assert client.get(signed).status_code == 200
        check_problem(client.get(path_of("Größe 1.jpg", "animate=1", "jpg", signed=True)), 400, "bad-transform")
        assert len(running.requests) == 1

    with world(data, source_response="redirect", url_names="true") as run:
        run(test)


@pytest.mark.parametrize("response", ["picture", "redirect"])
def test_immutable_url_of_a_source_image_has_the_servers_quality_as_documents_have_it(data: Path, response: str) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        def location(extension: str) -> str:
            got = client.get(path_of("a.jpg", extension=extension), headers={"Accept": "image/webp"})
            return "/".join(got.headers["location" if response == "redirect" else "content-location"].split("/")[4:])

        assert location("webp") == "width=640,quality=30/-.webp"
        assert location("jpg") == "width=640/-.jpg"
        # A redirect does not know the format yet.
        assert location("auto") == ("width=640/-.auto" if response == "redirect" else "width=640,quality=30/-.webp")
        wanted = {"path": "a.jpg", "transform": {"width": 640}, "format": "webp"}
        made = client.post("/v1/sources/cms/urls", json=wanted).json()["url"]
        assert made == path_of("a.jpg", "width=640,quality=30")
        assert client.get(made).status_code in {200, 302}

    with world(data, source_response=response, quality="webp=30") as run:
        run(test)


def test_source_is_revalidated_in_the_background_and_followed(with_stale_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        path = path_of("changes.jpg", extension="jpg")
        first = client.get(path)
        time.sleep(1.1)
        stale = client.get(path)
        assert stale.content == first.content
        assert "; hit; ttl=-" in stale.headers["cache-status"] or "; hit; ttl=0;" in stale.headers["cache-status"]
        wait_until(lambda: len(running.requests) == 2)
        assert running.requests[1][1]["if-none-match"] == '"v1"'
        running.body, running.tag = images.photo_jpeg(700, 350), '"v2"'
        time.sleep(1.1)
        wait_until(lambda: bool(client.get(path).headers["etag"] != first.headers["etag"]))
        assert images.decode(client.get(path).content).size == (640, 320)
        assert client.get(first.headers["content-location"]).content == first.content

    with_stale_source(test)


def test_source_that_fails_shows_its_last_image_even_after_a_restart(data: Path) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        path = path_of("a.jpg", extension="jpg")
        first = client.get(path)
        running.status = 503
        time.sleep(1.1)
        server.stop()
        with darkroom(server.data, sources=f"cms={running.url()}", keys=KEY, source_seconds=1) as again, again.client() as anew:
            response = anew.get(path)
            assert (response.status_code, response.content) == (200, first.content)
            assert response.headers["cdn-cache-control"].startswith("max-age=30, ")
            assert "if-none-match" in running.requests[-1][1]
            assert '"event": "a source failed; the image it had is shown"' in again.log()
            # The failure is remembered for a while.
            assert anew.get(path_of("a.jpg", "width=320", "jpg")).status_code == 200
            assert len(running.requests) == 2

    with world(data, source_seconds=1) as run:
        run(test)


def test_source_without_the_image_or_with_another_problem_is_an_error_that_names_it(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        photo = running.body
        stored = len(client.get("/v1/images").json()["images"])
        running.replies = {
            "/up/missing.jpg": (404, {}, b""),
            "/up/denied.jpg": (403, {}, b"no"),
            "/up/failing.jpg": (500, {}, b""),
            "/up/text.jpg": (200, {}, b"no image at all"),
            "/up/empty.jpg": (200, {}, b""),
            "/up/broken.jpg": (200, {}, photo[:600]),
            "/up/cut.jpg": (200, {"Content-Length": str(len(photo) + 1)}, photo),
            "/up/large.jpg": (200, {"Content-Length": "10000000"}, b""),
            "/up/elsewhere.jpg": (302, {"Location": running.url("a.jpg", "127.0.0.1")}, b""),
            "/up/outside.jpg": (302, {"Location": "/upper/a.jpg"}, b""),
            "/up/here.jpg": (302, {"Location": "a.jpg"}, b""),
        }
        for name, status, kind, detail in (
            ("missing.jpg", 404, "not-found", "The source has no such image."),
            ("denied.jpg", 502, "source-failed", "The source does not give this server access to the image."),
            ("failing.jpg", 502, "source-failed", "The source has no image at this URL."),
            ("text.jpg", 415, "unsupported-format", ""),
            ("empty.jpg", 415, "unsupported-format", "The object in the source is empty."),
            ("cut.jpg", 502, "source-failed", "The source cannot be reached, or its response is not valid HTTP."),
            ("large.jpg", 413, "too-large", "The source's image is too large."),
            ("elsewhere.jpg", 502, "source-failed", "The source redirects to a place that is not below a source."),
            ("outside.jpg", 502, "source-failed", "The source redirects to a place that is not below a source."),
        ):
            before = len(running.requests)
            response = client.get(path_of(name))
            problem = check_problem(response, status, kind)
            assert problem["detail"].startswith(detail), name
            assert [path for path, _ in running.requests[before:]] == [f"/up/{name}"]
            # For a while the source is not requested again, with any transform.
            assert client.get(path_of(name, "width=320")).json() == response.json()
            assert client.get(path_of(name, "width=320", "auto")).json() == response.json()
            assert len(running.requests) == before + 1
        assert client.get(path_of("broken.jpg")).status_code == 422
        assert client.get(path_of("here.jpg")).status_code == 200
        # Nothing of the others was kept.
        assert len(client.get("/v1/images").json()["images"]) == stored + 1
        assert list((server.data / "spool").iterdir()) == []

    with_source(test)


def test_source_whose_image_is_taken_down_is_410_until_it_has_another(with_stale_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        path = path_of("taken-down.jpg", extension="jpg")
        location = client.get(path).headers["content-location"]
        assert client.get(location).status_code == 200
        assert client.delete(f"/v1/images/{location.split('/')[3]}").status_code == 200
        check_problem(client.get(path), 410, "gone")
        check_problem(client.get(location), 410, "gone")
        time.sleep(1.1)
        check_problem(client.get(path), 410, "gone")
        assert {fields["if-none-match"] for _, fields in running.requests[1:]} == {'"v1"'}
        running.body, running.tag = images.photo_jpeg(300, 200), '"v2"'
        time.sleep(1.1)
        assert client.get(path).status_code == 200

    with_stale_source(test)


def test_image_of_a_source_is_ingested_by_its_path_or_url(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        response = client.post("/v1/images", json={"source": "cms", "path": "2027/Größe 1.jpg"})
        assert (response.status_code, response.json()["width"], response.json()["height"]) == (201, 800, 600)
        assert client.post("/v1/images", json={"url": running.url("2027/Gr%C3%B6%C3%9Fe%201.jpg?v=1#x")}).status_code == 200
        assert client.post("/v1/images", content=running.body).status_code == 200
        assert [path for path, _ in running.requests] == ["/up/2027/Gr%C3%B6%C3%9Fe%201.jpg", "/up/2027/Gr%C3%B6%C3%9Fe%201.jpg?v=1"]
        for body in ({}, {"url": 7}, {"url": running.url("a.jpg"), "more": 1}, {"source": "cms"}, {"path": "a.jpg"}):
            check_problem(client.post("/v1/images", json=body), 400, "bad-request")
        for body in ({"source": "cms", "path": "a.jpg", "url": running.url("a.jpg")}, {"source": "cms", "url": running.url("a.jpg")}):
            assert check_problem(client.post("/v1/images", json=body), 400, "bad-request")["received"].startswith("source, ")
        for path in ("", "../a.jpg", "a//b.jpg", "a%2Fb.jpg", "a\\b.jpg", "a\0.jpg"):
            check_problem(client.post("/v1/images", json={"source": "cms", "path": path}), 400, "bad-address")
        for path in ("..%2fa.jpg", "%2e%2e/a.jpg", "a%00.jpg"):
            check_problem(client.post("/v1/images", json={"url": running.url(path)}), 400, "bad-address")
        check_problem(client.post("/v1/images", json={"source": "csm", "path": "a.jpg"}), 404, "not-found")
        for url in (
            f"http://{PUBLIC_ADDRESS}:{running.port}/upper/a.jpg",
            f"http://{PUBLIC_ADDRESS}:1/up/a.jpg",
            f"https://{PUBLIC_ADDRESS}:{running.port}/up/a.jpg",
            f"http://user@{PUBLIC_ADDRESS}:{running.port}/up/a.jpg",
            *("http://other.test/", "ftp://localhost/", "nonsense", "http://[::1/", "", "http://x:y/"),
        ):
            problem = check_problem(client.post("/v1/images", json={"url": url}), 403, "source-refused")
            assert running.url() in problem["expected"]
        running.status = 404
        check_problem(client.post("/v1/images", json={"source": "cms", "path": "missing.jpg"}), 404, "not-found")
        assert len(running.requests) == 3

    with_source(test)


def test_private_address_is_refused_like_a_host_that_does_not_exist(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        posts = [client.post("/v1/images", json={"source": name, "path": "a.jpg"}) for name in ("inside", "gone")]
        pictures = [client.get(path_of("a.jpg", source=name)) for name in ("inside", "gone")]
        for inside, nowhere in (posts, pictures):
            check_problem(inside, 502, "source-failed")
            assert inside.content == nowhere.content
            assert inside.headers["retry-after"] == nowhere.headers["retry-after"] == "30"
            assert (inside.status_code, list(inside.headers)) == (nowhere.status_code, list(nowhere.headers))
        assert "a source was refused by its address" in server.log()
        assert running.requests == []

    with_source(test)


def test_source_url_needs_a_signature_unless_its_transform_is_open(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        for transform in ("full", "width=641", "width=640,quality=10", "width=640,height=480,fit=cover"):
            problem = check_problem(client.get(path_of("open.jpg", transform)), 403, "bad-signature")
            assert problem["received"] == transform
            assert "width=320 width=640" in problem["expected"]
            assert "POST /v1/sources/{name}/urls" in problem["remedy"]
        check_problem(client.get(path_of("open.jpg", "width=0640")), 400, "bad-transform")
        signed = path_of("open.jpg", "width=123", signed=True)
        for wrong in (
            signed.replace(".webp", ".png"),
            signed.replace("width=123", "width=124"),
            signed.replace("open.jpg", "b.jpg"),
            signed.replace("/cms/", "/inside/"),
            signed.replace("/cms/", "/cms/a/"),
        ):
            check_problem(client.get(wrong), 403, "bad-signature")
        assert running.requests == []
        assert images.decode(client.get(signed).content).size == (123, 92)
        # PNG is not open for a photo.
        assert check_problem(client.get(path_of("open.jpg", extension="png")), 403, "bad-signature")["received"] == "png"
        assert client.get(path_of("open.jpg", extension="png", signed=True)).status_code == 200
        assert len(running.requests) == 1

    with_source(test)


def test_source_url_with_a_query_of_the_object_needs_a_signature(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        problem = check_problem(client.get(path_of("a.jpg?v=1")), 403, "bad-signature")
        assert problem["received"] == "a.jpg?v=1"
        # Its other spellings are not redirected to it either.
        check_problem(client.get("/from/cms/a.jpg%3fv%3d1/width=640/-.webp"), 403, "bad-signature")
        check_problem(client.get(path_of("a.jpg?")), 403, "bad-signature")
        assert running.requests == []
        made = client.post("/v1/sources/cms/urls", json={"path": "a.jpg?v=1", "transform": {"width": 640}, "format": "webp"}).json()["url"]
        assert made == path_of("a.jpg?v=1", signed=True)
        assert client.get(made).status_code == 200
        # In a folder, and in a bucket, a question mark is a character like any other.
        assert client.get(path_of("what?/a.jpg")).status_code == 200
        assert [path for path, _ in running.requests] == ["/up/a.jpg?v=1", "/up/what%3F/a.jpg"]

    with_source(test)


def test_source_url_in_another_spelling_is_redirected_and_not_stored(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        canonical = path_of("a b+ö.jpg")
        encoded = "a%20b%2B%C3%B6.jpg"
        assert f"/{encoded}/" in canonical
        signed = path_of("a b+ö.jpg", "width=123", signed=True)
        for spelling in ("a%20b+%C3%B6.jpg", "a%20b%2b%c3%b6.jpg", "%61%20b%2B%C3%B6%2Ejpg"):
            for path in (canonical, signed):
                response = client.get(path.replace(encoded, spelling))
                assert (response.status_code, response.headers["location"]) == (308, path)
                assert response.headers["cache-control"] == "no-store"
                assert "; stored" not in response.headers["cache-status"]
        response = client.get(f"{canonical}?x=1")
        assert (response.status_code, response.headers["location"]) == (308, canonical)
        assert running.requests == []
        assert client.get(canonical).status_code == 200
        assert running.requests[0][0] == "/up/a%20b+%C3%B6.jpg"

    with_source(test)


def test_source_url_that_climbs_out_of_its_prefix_is_refused_before_anything_is_fetched(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        climbing = (
            *("%2e%2e/a.jpg", "x/%2E%2e/%2e%2e/a.jpg", "..%2fa.jpg", "..%5Ca.jpg", "%252e%252e/a.jpg", "%252e%252e%252fa.jpg"),
            *("%25252e%25252e/a.jpg", "..;/a.jpg", "%c0%ae%c0%ae/a.jpg", "a%00.jpg", "a%0d%0ax.jpg", "%2e/a.jpg", "/a.jpg", "a//b.jpg"),
        )
        for path in climbing:
            raw = f"/from/cms/{path}/width=640/-.webp"
            response = client.get(httpx.URL(str(client.base_url), raw_path=raw.encode()))
            problem = check_problem(response, 400, "bad-address")
            assert problem["detail"].startswith("The path of the object "), path
        assert running.requests == []

    with_source(test)


def test_source_that_is_not_configured_is_404_that_names_the_others(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        problem = check_problem(client.get(path_of("a.jpg", source="csm")), 404, "not-found")
        assert (problem["detail"], problem["expected"]) == ("There is no source with this name.", "cms, inside, gone")
        for method, path in (("GET", "/v1/sources/csm/objects"), ("POST", "/v1/sources/csm/urls")):
            assert check_problem(client.request(method, path), 404, "not-found")["expected"] == "cms, inside, gone"

    with_source(test)


def test_api_lists_sources_and_makes_signed_urls(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        response = client.get("/v1/sources")
        assert response.headers["cache-control"] == "no-store"
        assert response.json() == {"sources": [{"name": name, "kind": "http", "listable": False} for name in ("cms", "inside", "gone")]}
        check_problem(client.get("/v1/sources/cms/objects"), 400, "source-not-listable")
        for query in ("limit=0", "limit=1001", "limit=x", "before=a", "limit=1&limit=2"):
            check_problem(client.get(f"/v1/sources/cms/objects?{query}"), 400, "bad-request")

        def made(**wanted: object) -> str:
            made = client.post("/v1/sources/cms/urls", json={"path": "a b.jpg", **wanted})
            assert made.status_code == 200, made.text
            url: str = made.json()["url"]
            return url

        assert made(transform={"width": 640}, format="webp") == "/from/cms/a%20b.jpg/width=640/-.webp"
        assert made(transform={"width": 640}) == "/from/cms/a%20b.jpg/width=640/-.auto"
        # Open only for images that need it.
        assert made(transform={"width": 640}, format="png") == path_of("a b.jpg", "width=640", "png", signed=True)
        assert made(variant="card", format="jpeg") == path_of("a b.jpg", "width=77,height=50,fit=cover", "jpg")
        smaller = {"variant": "card", "transform": {"quality": 60}, "format": "jpeg"}
        assert made(**smaller) == path_of("a b.jpg", "width=77,height=50,fit=cover,quality=60", "jpg", signed=True)
        assert running.requests == []
        assert images.decode(client.get(made(**smaller)).content).size == (77, 50)
        check_problem(client.post("/v1/sources/cms/urls", json={"path": "../a.jpg"}), 400, "bad-address")
        check_problem(client.post("/v1/sources/cms/urls", json={"path": "a" * 3_073}), 400, "bad-request")
        check_problem(client.post("/v1/sources/cms/urls", json={"path": "ö" * 1_000}), 400, "bad-address")
        check_problem(
            client.post("/v1/sources/cms/urls", json={"path": "a.jpg", "transform": {"animate": True}, "format": "jpeg"}),
            400,
            "bad-transform",
        )

    with_source(test)


def test_image_of_many_requests_at_once_is_fetched_once(with_source: Callable[[Test], None]) -> None:
    def test(server: Server, client: httpx.Client, running: Host) -> None:
        paths = [path_of("many.jpg", f"width={width}", signed=True) for width in range(100, 120)]
        statuses: list[int] = []

        def request(path: str) -> None:
            with server.client() as own:
                statuses.append(own.get(path).status_code)

        threads = [threading.Thread(target=request, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * len(paths)
        assert len(running.requests) == 1

    with_source(test)


def test_server_without_sources_fetches_nothing(client: httpx.Client) -> None:
    problem = check_problem(client.post("/v1/images", json={"url": "https://a.test/"}), 403, "source-refused")
    assert "DARKROOM_SOURCES" in problem["remedy"]
    for response in (client.get(path_of("a.jpg")), client.post("/v1/images", json={"source": "cms", "path": "a.jpg"})):
        assert "DARKROOM_SOURCES" in check_problem(response, 404, "not-found")["expected"]
    assert client.get("/v1/sources").json() == {"sources": []}
    for path in ("/pull/v1/aHR0cHM6Ly9hLnRlc3Qv/full/-.jpg", "/v1/pull"):
        assert client.get(path).status_code == 404


def test_server_with_an_invalid_source_does_not_start(data: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"DARKROOM_SOURCES is invalid: expected one of s3://bucket/prefix"),
        darkroom(data, sources="a=ftp://a.test"),
    ):
        pass

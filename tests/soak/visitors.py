"""The visitors of a soak: what they request, and which responses are right."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import httpx
import msgspec

from service.images.digest import base32
from service.images.formats import FORMATS, Format
from service.images.transform import PIPELINE_VERSION
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from service.urls.source_url import SourceUrl
from tests.soak.phases import Need, Schedule
from tests.soak.system import BROKEN, INSIDE, MAX_UPLOAD_BYTES, SHOP, System
from tests.support import images
from tests.support.renditions import distinct_transform
from tests.support.server import HOST
from tests.support.waiting import PATIENCE_SECONDS

# Less than the ten seconds after which the server closes an idle connection.
_IDLE_SECONDS = 3.0

# How many uploaded photos there are at a time, and how many taken-down ones are still requested.
_MAX_PHOTOS = 30
_MAX_GONE = 300
_SOURCE_PHOTOS = 12

# Renditions that are requested when nothing is overloaded, as formats, widths and frequencies; and those of an overload.
_MIX: tuple[tuple[Format, int, int], ...] = (("webp", 320, 5), ("webp", 640, 3), ("jpeg", 480, 3), ("png", 200, 1), ("avif", 240, 1))
_CROWD: tuple[tuple[Format, int, int], ...] = (("avif", 640, 1), ("webp", 960, 1))

# Statuses that need a Retry-After.
_RETRIES = {"429", "503"}

_STORE: tuple[Need, ...] = ("store",)
_RENDERS: tuple[Need, ...] = ("store", "renders")


class Measured(msgspec.Struct, frozen=True):
    """A request: its kind, when it was sent in seconds since the beginning, and how long the response took.

    outcome: the status, and the slug of the problem if there is one. wanted: whether the outcome is what the request deserves.
    expected: whether it is that, or what a disturbance permits. detail: of an unexpected outcome.
    """

    kind: str
    at: float
    seconds: float
    outcome: str
    wanted: bool
    expected: bool
    bytes: int
    detail: str = ""


class Photo(msgspec.Struct):
    """An uploaded image: its bytes, its digest, the paths of renditions that were served, and when it was uploaded."""

    body: bytes
    digest: str
    src: str
    uploaded: float
    paths: list[str]
    gone: bool = False


class Visitors:
    """Everybody who uses one server. Each method named `visit_…` is one visit."""

    def __init__(self, system: System, schedule: Schedule) -> None:
        self.measured: list[Measured] = []
        self.began = time.perf_counter()
        self._system = system
        self._schedule = schedule
        self._signer = Signer([bytes.fromhex(system.key)])
        self._owner = {"authorization": f"Bearer {system.token}"}
        self._dice = random.Random(3)
        self._numbers = itertools.count(1)
        self._renditions = itertools.count()
        # A slow client may use a connection just when the server has closed it as idle.
        kept = 0 if schedule.is_busy else 64
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=_IDLE_SECONDS)
        self._client = httpx.AsyncClient(base_url=system.server.url, timeout=PATIENCE_SECONDS, trust_env=False, verify=False, limits=limits)
        self._hot: dict[str, str] = {}
        self._photos: list[Photo] = []
        self._gone: deque[Photo] = deque(maxlen=_MAX_GONE)

    @property
    def now(self) -> float:
        """The seconds since the beginning of the load."""
        return time.perf_counter() - self.began

    async def prepare(self, cache_bytes: int) -> None:
        """Upload what is requested later, and fill the server's memory for responses; nothing fails meanwhile."""
        for number in range(_SOURCE_PHOTOS):
            self._system.shop.put(f"{number}.jpg", _unique(_photos()[number % 3], next(self._numbers)))
        for _ in range(_MAX_PHOTOS // 2):
            await self.visit_upload()
        filled = 0
        while filled < cache_bytes:
            path = self._cold_path(self._dice.choice(self._photos), (("png", 480, 1),))
            filled += len((await self._client.get(path)).raise_for_status().content)
        for body in _lasting():
            document = (await self._client.post("/v1/images", content=body, headers=self._owner)).raise_for_status().json()
            for source in document["sources"]:
                for rendition in source["renditions"][:2]:
                    self._hot[rendition["url"]] = await self._stored(rendition["url"])
        for photo in self._photos:
            photo.uploaded = 0.0
        self.measured.clear()
        self.began = time.perf_counter()

    async def wait_until_recovered(self) -> None:
        """Return when the server is healthy, takes an upload and renders it."""
        body = _unique(_photos()[0], next(self._numbers))
        while not await self._has_recovered(body):  # noqa: ASYNC110 - nothing but the server's responses says so
            await asyncio.sleep(0.2)

    async def _has_recovered(self, body: bytes) -> bool:
        health = await self._client.get("/health")
        stored = await self._client.post("/v1/images", headers=self._owner, content=body)
        if health.json()["status"] != "ok" or not stored.is_success:
            return False
        return (await self._client.get(stored.json()["src"])).status_code == 200

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # Visits that the server's memory or nothing at all responds to.

    async def visit_hit(self) -> None:
        """Request a rendition that is stored in memory, as browsers and CDNs do: whole, with a condition, in part, or its header."""
        path = self._dice.choice(list(self._hot))
        tag = self._hot[path]
        number = self._dice.random()
        if number < 0.7:
            response = await self._call("hit", "GET", path, wanted={"200"})
        elif number < 0.8:
            response = await self._call("hit, conditional", "GET", path, wanted={"304"}, headers={"if-none-match": tag})
        elif number < 0.9:
            response = await self._call("hit, range", "GET", path, wanted={"206"}, headers={"range": "bytes=0-99"})
        else:
            response = await self._call("hit, HEAD", "HEAD", path, wanted={"200"})
        if response is not None and response.headers.get("etag") != tag:
            self._complain("hit", f"{path} has the ETag {response.headers.get('etag')}, and had {tag}")

    async def visit_health(self) -> None:
        await self._call("health", "GET", self._dice.choice(("/health", "/livez")), wanted={"200"})

    async def visit_page(self) -> None:
        await self._call("page", "GET", self._dice.choice(("/", "/docs", "/problems/gone", "/llms.txt")), wanted={"200"})

    # Visits that render.

    async def visit_miss(self) -> None:
        """Request a rendition that nobody has requested before."""
        photo = self._photo()
        path = self._cold_path(photo, _MIX)
        response = await self._rendition("miss", photo, path)
        if response is not None and response.status_code == 200 and len(photo.paths) < 4:
            photo.paths.append(path)

    async def visit_crowd(self) -> None:
        """Request one of many more renditions than can be rendered."""
        photo = self._photo()
        await self._rendition("miss in a crowd", photo, self._cold_path(photo, _CROWD))

    async def visit_page_of_a_photo(self) -> None:
        """Request the renditions of a new photo that are being warmed, as a browser does that shows it."""
        photo = self._photo()
        await self._rendition("warmed rendition", photo, photo.src)

    # Visits of editors.

    async def visit_upload(self) -> None:
        """Upload a new photo with a token."""
        await self._upload("upload", "/v1/images", self._owner)

    async def visit_ticket(self) -> None:
        """Request an upload URL, use it, and use it again."""
        response = await self._call("upload URL", "POST", "/v1/uploads", wanted={"201"}, headers=self._owner)
        if response is None or response.status_code != 201:
            return
        path = response.json()["url"]
        if await self._upload("upload with a URL", path, {}):
            body = _unique(_photos()[0], next(self._numbers))
            await self._call("upload URL, used", "PUT", path, wanted={"409 upload-used"}, needs=_RENDERS, content=body)

    async def visit_document(self) -> None:
        photo = self._photo()
        path = f"/v1/images/{photo.digest}"
        await self._call("document", "GET", path, wanted={"200"}, needs=_STORE, headers=self._owner, photo=photo)

    async def visit_listing(self) -> None:
        path = f"/v1/images?limit={self._dice.choice((5, 20, 100))}"
        await self._call("listing", "GET", path, wanted={"200"}, needs=_STORE, headers=self._owner)

    async def visit_change(self) -> None:
        """Change the alternative text of a photo, and make URLs of it."""
        photo = self._photo()
        path = f"/v1/images/{photo.digest}"
        await self._call(
            "change", "PATCH", path, wanted={"200"}, needs=_STORE, photo=photo,
            headers=self._owner | {"if-match": "*"}, json={"alt": f"Photo {next(self._numbers)}"},
        )  # fmt: skip
        await self._call(
            "URLs", "POST", f"{path}/urls", wanted={"200"}, needs=_STORE, photo=photo, headers=self._owner, json={"widths": [120, 240]}
        )

    async def visit_takedown(self) -> None:
        """Take the oldest photo down if there are enough. From then on it is never served again."""
        if len(self._photos) < _MAX_PHOTOS:
            return
        photo = self._photos.pop(0)
        photo.gone = True
        response = None
        while response is None or response.status_code != 200:
            response = await self._call(
                "takedown", "DELETE", f"/v1/images/{photo.digest}", wanted={"200"}, needs=_STORE, headers=self._owner
            )
            await asyncio.sleep(0 if response is not None and response.status_code == 200 else 1)
        self._gone.append(photo)

    async def visit_gone(self) -> None:
        """Request a photo that was taken down: renditions that were served before, one that never was, its document, or upload it again."""
        if not self._gone:
            return
        photo, owner = self._dice.choice(self._gone), self._owner
        number = self._dice.random()
        if number < 0.8:
            path = self._dice.choice([photo.src, *photo.paths, self._cold_path(photo, _MIX)])
            await self._call("taken down", "GET", path, wanted={"410 gone"}, needs=_RENDERS)
        elif number < 0.9:
            path = f"/v1/images/{photo.digest}"
            await self._call("taken down", "GET", path, wanted={"410 gone"}, needs=_STORE, headers=owner)
        else:
            await self._call(
                "taken down", "POST", "/v1/images", wanted={"410 gone"}, needs=_RENDERS, headers=self._owner, content=photo.body
            )

    # Sources.

    async def visit_source(self) -> None:
        path = self._source_path(SHOP, f"{self._dice.randrange(_SOURCE_PHOTOS)}.jpg", self._dice.choice((160, 320)))
        wanted = {"200", "422 render-gave-up"} if self._schedule.was_in_danger(0, self.now) else {"200"}
        await self._call("source", "GET", path, wanted=wanted, needs=_RENDERS)

    async def visit_failing_source(self) -> None:
        """Request objects of a source that fails, objects that do not exist, and those of a host that is not public."""
        number = next(self._numbers)
        path, wanted = self._dice.choice((
            (self._source_path(SHOP, f"{BROKEN}/{number}.jpg", 160), {"502 source-failed"}),
            (self._source_path(SHOP, f"missing/{number}.jpg", 160), {"404 not-found"}),
            (self._source_path(INSIDE, f"{number}.jpg", 160), {"502 source-failed"}),
        ))  # fmt: skip
        await self._call("failing source", "GET", path, wanted=wanted, needs=_RENDERS)

    # Visitors who do something wrong.

    async def visit_bad_request(self) -> None:
        """Send one bad request."""
        photo = self._photo()
        digest = base32(self._dice.randbytes(20))
        signature = base32(self._dice.randbytes(16))[:26]
        signed = self._signer.sign(RenditionUrl(PIPELINE_VERSION, photo.digest, "width=0", "webp"))
        forged = f"/i/v{PIPELINE_VERSION}/{photo.digest}/width={self._dice.randrange(9_000)},height=7/{signature}.webp"
        unknown = self._signer.sign(RenditionUrl(PIPELINE_VERSION, digest, "width=9,height=9", "webp"))
        api = f"/v1/images/{digest}"
        wrong = {"authorization": f"Bearer {signature}"}
        failures = {"429 too-many-failures"}
        await self._dice.choice((
            lambda: self._call("bad: transform", "GET", signed, wanted={"400 bad-transform"}),
            lambda: self._call("bad: path", "GET", f"/i/v1/{photo.digest}/x", wanted={"400 bad-address"}),
            lambda: self._call("bad: signature", "GET", forged, wanted={"403 bad-signature"} | failures),
            lambda: self._call("bad: digest", "GET", unknown, wanted={"404 not-found"}, needs=_RENDERS),
            lambda: self._call("bad: digest", "GET", api, wanted={"404 not-found"}, needs=_STORE, headers=self._owner),
            lambda: self._call("bad: no token", "POST", "/v1/images", wanted={"401 unauthorized"} | failures, content=b"x"),
            lambda: self._call("bad: token", "GET", "/v1/images", wanted={"401 unauthorized"} | failures, headers=wrong),
            lambda: self._call("bad: method", "DELETE", photo.src, wanted={"405"}, headers=self._owner),
            lambda: self._call("bad: JSON", "POST", f"{api}/urls", wanted={"400 bad-request"}, headers=self._owner, content=b"{"),
            lambda: self._call("bad: header", "GET", api, wanted={"431 header-too-large"}, headers={"cookie": "a" * 20_000}),
            lambda: self._call("bad: condition", "PATCH", api, wanted={"428 precondition-required"}, headers=self._owner, json={}),
        ))()  # fmt: skip

    async def visit_large_upload(self) -> None:
        """Announce an upload that is larger than permitted, which is refused before its body is sent."""
        await self._send_raw("bad: size", f"{self._raw_upload(MAX_UPLOAD_BYTES + 1)}\r\n".encode(), {"413"})

    async def visit_malformed(self) -> None:
        """Send bytes that are not HTTP, or leave in the middle of a request or of a response."""
        photo = self._photo()
        head = f"GET {photo.src} HTTP/1.1\r\nHost: {HOST}\r\n"
        raw, wanted = self._dice.choice((
            ("GET / HTTP/1.1\r\n\r\n", {"400"}),
            ("\0\xff\r\n\r\n", {"400"}),
            (f"GET {photo.src} HTTP/9.9\r\n\r\n", {"400"}),
            (f"{self._raw_upload(-5)}\r\n", {"400"}),
            (f"{self._raw_upload(900)}\r\nGIF", {"left"}),
            (f"{head}\r\n{head}\r\n", {"left"}),
            (head, {"left"}),
        ))  # fmt: skip
        await self._send_raw("malformed", raw.encode("latin-1"), wanted)

    async def visit_poison(self) -> None:
        """Upload bombs, damaged images and what is no image at all; some damaged ones can be rendered nevertheless."""
        wanted = {"415 unsupported-format", "422 broken-image", "422 too-many-pixels", "422 too-complex"}
        if self._dice.random() < 0.4:
            body = images.mutated(self._dice.choice(_lasting()), next(self._numbers))
            wanted |= {"200", "201"}
        else:
            body = self._dice.choice(_poison())
        response = await self._call("poison", "POST", "/v1/images", wanted=wanted, needs=_RENDERS, headers=self._owner, content=body)
        if response is not None and response.is_success:
            await self._call("poison, rendered", "GET", response.json()["src"], wanted={"200", "422 broken-image"}, needs=_RENDERS)

    # How requests are sent and judged.

    async def _call(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        wanted: Collection[str],
        needs: Iterable[Need] = (),
        photo: Photo | None = None,
        headers: Mapping[str, str] = {},
        **options: Any,
    ) -> httpx.Response | None:
        """Send a request, judge the response, and return it; `None` if there is none.

        wanted: the outcomes that the request deserves, each a status and the slug of a problem. needs: what has to work for them.
        photo: the image that it is for, which may be taken down meanwhile.
        """
        headers = {"x-forwarded-for": f"203.0.112.{self._dice.randrange(1, 100)}", **headers}
        sent = self.now
        response = None
        try:
            response = await self._client.request(method, path, headers=headers, **options)
            outcome = _outcome(response)
        except httpx.HTTPError as error:
            outcome = f"no response: {error!r}"
        received = self.now
        permitted = set(self._schedule.permitted(needs, sent, received))
        if photo is not None:
            permitted |= {"410 gone"} if photo.gone else set()
        if "renders" in needs and self._schedule.was_in_danger(0 if photo is None else photo.uploaded, received):
            # An image whose render process was killed twice is refused for an hour.
            permitted.add("422 render-gave-up")
        is_wanted = outcome in wanted
        expected = is_wanted or outcome in permitted
        size = 0 if response is None else len(response.content)
        detail = "" if expected else f"{method} {path}: {'' if response is None else response.text[:300]}"
        self.measured.append(Measured(kind, sent, received - sent, outcome, is_wanted, expected, size, detail))
        return response

    async def _send_raw(self, kind: str, raw: bytes, wanted: Collection[str]) -> None:
        """Send bytes over a connection of their own; unless a status is wanted, leave without reading the response."""
        sent = self.now
        writer = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, self._system.server.port)
                writer.write(raw)
                await writer.drain()
                outcome = "left" if "left" in wanted else (await reader.read(64))[9:12].decode("latin-1") or "closed"
        except (OSError, TimeoutError) as error:
            outcome = f"no response: {error!r}"
        finally:
            if writer is not None:
                writer.close()
        ok = outcome in wanted
        self.measured.append(Measured(kind, sent, self.now - sent, outcome, ok, ok, 0, "" if ok else f"sent {raw[:120]!r}"))

    def _raw_upload(self, length: int) -> str:
        """Return the header of an upload, to which an empty line is still missing."""
        token = self._system.token
        return f"POST /v1/images HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n"

    def _complain(self, kind: str, detail: str) -> None:
        self.measured.append(Measured(kind, self.now, 0.0, "wrong", wanted=False, expected=False, bytes=0, detail=detail))

    async def _rendition(self, kind: str, photo: Photo, path: str) -> httpx.Response | None:
        return await self._call(kind, "GET", path, wanted={"200"}, needs=_RENDERS, photo=photo)

    async def _stored(self, path: str) -> str:
        """Have a rendition stored in memory, where it stays because it has been requested often, and return its ETag."""
        for _ in range(3):
            response = (await self._client.get(path)).raise_for_status()
        return str(response.headers["etag"])

    async def _upload(self, kind: str, path: str, headers: Mapping[str, str]) -> bool:
        """Upload a new photo, again if it fails; return whether it was stored at last."""
        body = _unique(self._dice.choice(_photos()), next(self._numbers))
        # An attempt that failed may have stored the image nevertheless, and then the next one finds it: 200.
        wanted = {"201", "200"}
        gives_up = self.now + PATIENCE_SECONDS
        while self.now < gives_up:
            response = await self._call(kind, "POST", path, wanted=wanted, needs=_RENDERS, headers=headers, content=body)
            if response is not None and response.is_success:
                document = response.json()
                self._photos.append(Photo(body, document["digest"], document["src"], self.now, []))
                return True
            if response is not None and response.status_code == 422:
                # Its render process was killed twice.
                return False
            if path != "/v1/images":
                # The URL of a failed upload is given back within seconds after the store is back.
                wanted.add("409 upload-used")
            await asyncio.sleep(1)
        self._complain(kind, f"{path} has not taken an image for {PATIENCE_SECONDS:.0f} s")
        return False

    def _photo(self) -> Photo:
        return self._dice.choice(self._photos)

    def _cold_path(self, photo: Photo, mix: tuple[tuple[Format, int, int], ...]) -> str:
        image_format, width, _ = self._dice.choices(mix, [frequency for *_, frequency in mix])[0]
        transform = distinct_transform(width, next(self._renditions))
        return self._signer.sign(RenditionUrl(PIPELINE_VERSION, photo.digest, transform, FORMATS[image_format].extension))

    def _source_path(self, source: str, path: str, width: int) -> str:
        return self._signer.sign(SourceUrl(source, path, f"width={width}", "webp"))


def _outcome(response: httpx.Response) -> str:
    """Return the status and the slug of the problem; an error without what every error has is another outcome."""
    status = str(response.status_code)
    if response.status_code < 400:
        return status
    is_problem = response.headers.get("content-type") == "application/problem+json"
    slug = ""
    with suppress(ValueError, KeyError):
        # `about:blank` says no more than the status (RFC 9457 §4.2.1).
        slug = response.json()["type"].removeprefix("about:blank").rpartition("/")[2]
    outcome = f"{status} {slug}".rstrip()
    if not is_problem and response.request.method != "HEAD":
        outcome += " that is no problem document"
    if status in _RETRIES and not re.fullmatch(r"\d+", response.headers.get("retry-after", "")):
        outcome += " without Retry-After"
    return outcome


def _unique(jpeg: bytes, number: int) -> bytes:
    """Return a JPEG with a number in a comment, so that its digest is new."""
    return jpeg[:2] + b"\xff\xfe\0\x0a" + b"%08d" % number + jpeg[2:]


@cache
def _photos() -> tuple[bytes, ...]:
    """Return the photos that are uploaded again and again with other comments."""
    return (
        images.photo_jpeg(1600, 1200),
        images.photo_jpeg(900, 1200, orientation=6, seed=1),
        images.photo_jpeg(1280, 720, progressive=True),
    )


@cache
def _lasting() -> tuple[bytes, ...]:
    """Return the images that stay, one of many formats; their renditions are the hits."""
    return (
        images.camera_jpeg(660, 500),
        images.rgba_png(500, 400),
        images.animation(images.film(120, 90), "GIF"),
        images.webp(660, 500),
        images.avif(660, 500),
        images.pages_tiff([images.picture(300, 200)]),
        b'<svg xmlns="http://www.w3.org/2000/svg" width="500" height="900"><circle cx="250" cy="450" r="200" fill="#08f"/></svg>',
    )


@cache
def _poison() -> tuple[bytes, ...]:
    """Return what is refused whole: bombs, a photo that is cut short, and no image."""
    return (
        images.png_bomb(),
        images.jpeg_bomb(),
        images.jpeg_bomb(progressive=True),
        images.gif_bomb(),
        images.webp_bomb(),
        images.truncated(images.photo_jpeg(640, 480)),
        b"not an image",
    )

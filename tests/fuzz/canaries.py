"""Good images whose documents and renditions must stay the same, no matter what the server has received meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.fuzz.cases import RenditionRequest
from tests.fuzz.client import Client
from tests.fuzz.seeds import DRAWING
from tests.support import images

_RENDITIONS = (
    RenditionRequest("width=64", "webp"),
    RenditionRequest("width=48", "avif"),
    RenditionRequest("width=80", "jpg"),
    RenditionRequest("rotate=9,width=40,blur=2", "png"),
)


def good_images() -> dict[str, bytes]:
    """Return one good image of every format; none of them is a seed for mutations."""
    return {
        "jpeg": images.camera_jpeg(330, 250),
        "jpeg with a profile of four inks": images.cmyk_jpeg(110, 80, profile=images.cmyk_profile()),
        "png": images.rgba_png(110, 80),
        "webp": images.webp(330, 250, alpha=True),
        "gif": images.animation(images.film(110, 80), "GIF"),
        "avif": images.avif(330, 250),
        "heic": images.heic(330, 250),
        "tiff": images.tiff(110, 80),
        "svg": DRAWING.replace(b"rotate(20", b"rotate(21"),
    }


class _Result(msgspec.Struct, frozen=True):
    """The properties of a response that must not change; `digest` is the SHA-256 of its body, or the body itself if it is an error."""

    status: int
    etag: str
    digest: str


class Canaries:
    """Repeatedly deletes and uploads good images, and compares their documents and renditions with the first ones."""

    def __init__(self, client: Client) -> None:
        """Use a client whose owner token may delete."""
        self._client = client
        self._images = good_images()
        self._documents: dict[str, dict[str, Any]] = {}
        self._results: dict[tuple[str, int | str], _Result] = {}
        self._turn = 0
        self._refused: set[str] = set()

    def record(self) -> None:
        """Upload every image and record the responses for later comparisons; raises `RuntimeError` if the server refuses any."""
        for name, body in self._images.items():
            status, document = self._client.upload(body)
            if status != 201:
                raise RuntimeError(f"the server refused a good image, {name}: {status} {document}")
            self._documents[name] = _without_creation_time(document)
            for key, path in self._paths(name, range(len(_RENDITIONS))):
                self._results[name, key] = result = self._result(path)
                if result.status != 200:
                    raise RuntimeError(f"the server did not render a good image, {name}: {result.status} for {path}")

    def check_next(self) -> list[str]:
        """Check the next image in turn; return a complaint for each difference."""
        name = list(self._images)[self._turn % len(self._images)]
        self._turn += 1
        return [f"a good image, {name}: {complaint}" for complaint in self._complaints(name)]

    def check_all(self) -> list[str]:
        """Check every image; return a complaint for each difference."""
        return [complaint for _ in self._images for complaint in self.check_next()]

    def _complaints(self, name: str) -> Iterator[str]:
        """Take an image down, upload it again, and request some of its renditions, which are rendered again."""
        before = self._documents[name]
        if name not in self._refused:
            yield from self._client.remove(before["digest"])
        status, document = self._client.upload(self._images[name])
        if status != 201:
            self._refused.add(name)
            yield f"{status}, {document.get('type')}: {document.get('detail')}"
            return
        self._refused.discard(name)
        if _without_creation_time(document) != before:
            yield f"{_without_creation_time(document)} was {before}"
        for key, path in self._paths(name, [self._turn // len(self._images) % len(_RENDITIONS)]):
            now, then = self._result(path), self._results[name, key]
            if now != then:
                yield f"{path} was {then} and is {now}"

    def _paths(self, name: str, renditions: range | list[int]) -> Iterator[tuple[int | str, str]]:
        document = self._documents[name]
        yield "src", document["src"]
        for number in renditions:
            yield number, _RENDITIONS[number].path(document["digest"], self._client.signer)

    def _result(self, path: str) -> _Result:
        status, headers, body = self._client.get(path)
        return _Result(
            status, headers.get("etag", ""), hashlib.sha256(body).hexdigest() if status == 200 else body[:300].decode("utf-8", "replace")
        )


def _without_creation_time(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without its time of creation, the only part that differs between uploads of the same image."""
    return {key: value for key, value in document.items() if key != "created"}

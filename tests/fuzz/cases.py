"""Inputs by number. The run's seed and the number determine an input completely, so that each one can be made again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TypeAlias

import msgspec

from service.images.transform import PIPELINE_VERSION
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from service.urls.source_url import SourceUrl
from tests.fuzz.seeds import Kind, Seed
from tests.fuzz.structures import mutators, name_of
from tests.fuzz.transforms import EXTENSIONS, random_api_body, random_transform
from tests.fuzz.wire import RawRequest, change_path, encode_json, random_request

# The parts of a request target that do not change its path: scheme and authority (RFC 9112 §3.2.2), an empty query, and a fragment.
_AROUND_THE_PATH = re.compile(rb"^https?://[^/]*|\??(#.*)?$", re.DOTALL)

# The percentage of each kind of input: image, rendition URL, changed URL, api, wire.
_SHARES = (60, 12, 6, 7, 15)

_API_ROUTES = (
    ("POST", "/v1/images/{}/urls"),
    ("POST", "/v1/images/{}/urls"),
    ("PATCH", "/v1/images/{}"),
    ("POST", "/v1/images/known"),
    ("POST", "/v1/sources/cms/urls"),
    ("POST", "/v1/images"),
    ("GET", "/v1/images?{}"),
)


class RenditionRequest(msgspec.Struct, frozen=True):
    """A rendition to request: a transform and an extension."""

    transform: str
    extension: str

    def path(self, digest: str, signer: Signer) -> str:
        """Return the signed path of this rendition of an image."""
        return signer.sign(RenditionUrl(PIPELINE_VERSION, digest, self.transform, self.extension))


class ImageCase(msgspec.Struct, frozen=True):
    """A mutated image to upload.

    If the server accepts it, `renditions` of it are requested, and the URLs of its document that `picks`, positions from 0 to 1, select.
    """

    label: str
    kind: Kind
    body: bytes
    is_multipart: bool
    picks: tuple[float, ...]
    renditions: tuple[RenditionRequest, ...]


class UrlCase(msgspec.Struct, frozen=True):
    """A signed path of a rendition, or a path that has no rendition, mostly because it was changed after it was signed."""

    label: str
    path: bytes
    is_changed: bool


class ApiCase(msgspec.Struct, frozen=True):
    """A request to a route that takes JSON."""

    label: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class WireCase(msgspec.Struct, frozen=True):
    """Bytes for a socket."""

    label: str
    request: RawRequest


Case: TypeAlias = ImageCase | UrlCase | ApiCase | WireCase


class Cases:
    """Makes inputs."""

    def __init__(self, seed: int, seeds: Sequence[Seed], digests: Sequence[str], signer: Signer, token: bytes) -> None:
        """Create the inputs of one run.

        seed: determines them. seeds: good images to mutate. digests: of good images that the server has. signer: has the server's key.
        token: one that the server accepts.
        """
        self._seed = seed
        self._seeds = {seed.kind: [other for other in seeds if other.kind == seed.kind] for seed in seeds}
        self._digests = digests
        self._signer = signer
        self._token = token

    def make(self, number: int) -> Case:
        """Return input `number`, from 1."""
        rng = Random(f"{self._seed}:{number}")
        match rng.choices(range(len(_SHARES)), _SHARES)[0]:
            case 0:
                return self._image(rng)
            case 1:
                wanted = self._rendition(rng)
                return UrlCase(
                    f"{wanted.transform} .{wanted.extension}",
                    wanted.path(rng.choice(self._digests), self._signer).encode(),
                    is_changed=False,
                )
            case 2 if rng.random() < 0.4:
                # The server has no source, so that nothing is fetched, and no path has a picture.
                return UrlCase("a changed path of a source", change_path(self._source_path(rng), rng), is_changed=True)
            case 2:
                path = self._rendition(rng).path(rng.choice(self._digests), self._signer)
                changed = change_path(path, rng)
                return UrlCase("a changed path", changed, is_changed=_AROUND_THE_PATH.sub(b"", changed) != path.encode())
            case 3:
                return self._api(rng)
            case _:
                request = random_request(rng, self._targets(rng), self._token)
                return WireCase(f"{request.delivery}: {request.body[:60]!r}", request)

    def _image(self, rng: Random) -> ImageCase:
        kind = rng.choice(list(self._seeds))
        # Prefers smaller files: larger ones take longer and have few additional structures.
        seed = min(rng.choices(self._seeds[kind], k=2), key=lambda seed: len(seed.body))
        others = [other.body for other in self._seeds[kind]]
        body, applied = seed.body, []
        for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 6))):
            mutator = rng.choice(mutators(kind))
            applied.append(name_of(mutator))
            # A mutation may remove all bytes, but an upload needs at least one.
            body = mutator(body, rng, others) or body[:1]
        renditions = tuple(self._rendition(rng) for _ in range(rng.choice((0, 0, 1, 2))))
        picks = tuple(rng.random() for _ in range(rng.choice((1, 1, 2, 4))))
        return ImageCase(f"{seed.name}: {', '.join(applied)}", kind, body, rng.random() < 0.1, picks, renditions)

    def _source_path(self, rng: Random) -> str:
        """Return the path of a rendition of an object in a source, as open or signed URLs have it."""
        object_path = rng.choice(("a.jpg", "2026/Größe 1.jpg", "a/b/c.png?v=1&x=%2F", "%2e%2e/a.jpg", "…", "a" * 300))
        if rng.random() < 0.5:
            return SourceUrl("cms", object_path, "width=640", rng.choice(EXTENSIONS)).path("-")
        wanted = self._rendition(rng)
        return self._signer.sign(SourceUrl("cms", object_path, wanted.transform, wanted.extension))

    def _rendition(self, rng: Random) -> RenditionRequest:
        return RenditionRequest(random_transform(rng, self._digests), rng.choice(EXTENSIONS))

    def _api(self, rng: Random) -> ApiCase:
        method, path = rng.choice(_API_ROUTES)
        digest = rng.choice((*self._digests, "a" * 32)) if rng.random() < 0.9 else rng.choice(("x", "A" * 32, "%00", "a" * 500))
        if method == "GET":
            query = rng.choice(
                (
                    "limit=0",
                    "limit=5",
                    "limit=x",
                    "cursor=x",
                    "limit=5&limit=6",
                    "cursor=9999999999999-" + "a" * 32,
                    "q=%ff",
                    "limit=" + "9" * 300,
                )
            )
            return ApiCase("a query", method, path.format(query), {}, b"")
        body = encode_json(random_api_body(rng, self._digests))
        if rng.random() < 0.1:
            seed = rng.choice(self._seeds["svg"])
            body = rng.choice(mutators("svg")[-10:])(body, rng, [seed.body])
        headers = {"content-type": rng.choice(("application/json",) * 8 + ("text/plain", "application/json; charset=utf-16"))}
        if method == "PATCH":
            headers |= rng.choice(({}, {"if-match": "*"}, {"if-match": "*"}, {"if-match": '"x"'}, {"if-match": '", ,'}))
        return ApiCase(f"{method} {path} {body[:60]!r}", method, path.format(digest), headers, body)

    def _targets(self, rng: Random) -> list[bytes]:
        digest = rng.choice(self._digests)
        paths = (
            "/", "/livez", "/health", "/v1/images", "/v1/images", "/v1/images/known", "/v1/sources", f"/v1/images/{digest}",
            f"/v1/images/{digest}/urls", "/docs", "/docs/openapi.json", "/problems", "/problems/too-large", "/darkroom.js", "/nothing",
            "*", "/metrics", "/i/", "/from/cms/a.jpg/width=640/-.webp", f"/i/v3/{digest}/width=320/-/panda.webp",
            RenditionRequest("width=64", "webp").path(digest, self._signer),
            RenditionRequest("width=64", "auto").path(digest, self._signer),
        )  # fmt: skip
        return [path.encode() for path in paths]

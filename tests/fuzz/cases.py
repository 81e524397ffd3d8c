"""Inputs by number: the seed of the run and the number decide everything about an input, so that each can be made again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TypeAlias

import msgspec

from service.images.transform import PIPELINE_VERSION
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from tests.fuzz.seeds import Kind, Seed
from tests.fuzz.structures import mutators, name_of
from tests.fuzz.transforms import EXTENSIONS, api_body, spelling
from tests.fuzz.wire import RawRequest, changed_path, json_text, raw_request

# What changes nothing in a target: scheme and authority (RFC 9112 §3.2.2), an empty query, and a fragment, which none should have.
_BESIDE_THE_PATH = re.compile(rb"^https?://[^/]*|\??(#.*)?$", re.DOTALL)

# What share of the inputs each kind is: image, address, changed address, api, wire.
_SHARES = (60, 12, 6, 7, 15)

_API_ROUTES = (
    ("POST", "/v1/images/{}/urls"),
    ("POST", "/v1/images/{}/urls"),
    ("PATCH", "/v1/images/{}"),
    ("POST", "/v1/images/known"),
    ("POST", "/v1/pull"),
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
    """A mutated image to upload; if it is taken, `picks` (0 to 1) of its document's URLs are fetched, and `renditions`."""

    label: str
    kind: Kind
    body: bytes
    is_multipart: bool
    picks: tuple[float, ...]
    renditions: tuple[RenditionRequest, ...]


class AddressCase(msgspec.Struct, frozen=True):
    """A signed path, or one that is no longer what was signed."""

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


Case: TypeAlias = ImageCase | AddressCase | ApiCase | WireCase


class Cases:
    """Makes inputs."""

    def __init__(self, seed: int, seeds: Sequence[Seed], exhibits: Sequence[str], signer: Signer, token: bytes) -> None:
        """Make inputs of one run.

        seeds: good images to mutate. exhibits: digests of good images that the server has. token: one that the server accepts.
        """
        self._seed = seed
        self._seeds = {seed.kind: [other for other in seeds if other.kind == seed.kind] for seed in seeds}
        self._exhibits = exhibits
        self._signer = signer
        self._token = token

    def make(self, number: int) -> Case:
        """Return input `number`, from 1."""
        chance = Random(f"{self._seed}:{number}")
        match chance.choices(range(len(_SHARES)), _SHARES)[0]:
            case 0:
                return self._image(chance)
            case 1:
                wanted = self._rendition(chance)
                return AddressCase(
                    f"{wanted.transform} .{wanted.extension}",
                    wanted.path(chance.choice(self._exhibits), self._signer).encode(),
                    is_changed=False,
                )
            case 2:
                path = self._rendition(chance).path(chance.choice(self._exhibits), self._signer)
                changed = changed_path(path, chance)
                return AddressCase("a changed path", changed, is_changed=_BESIDE_THE_PATH.sub(b"", changed) != path.encode())
            case 3:
                return self._api(chance)
            case _:
                request = raw_request(chance, self._targets(chance), self._token)
                return WireCase(f"{request.delivery}: {request.body[:60]!r}", request)

    def _image(self, chance: Random) -> ImageCase:
        kind = chance.choice(list(self._seeds))
        # The smaller of two: a large file costs more and has hardly more places to go wrong.
        seed = min(chance.choices(self._seeds[kind], k=2), key=lambda seed: len(seed.body))
        others = [other.body for other in self._seeds[kind]]
        body, applied = seed.body, []
        for _ in range(chance.choice((1, 1, 1, 1, 2, 2, 3, 6))):
            mutator = chance.choice(mutators(kind))
            applied.append(name_of(mutator))
            # Of nothing, nothing can be made.
            body = mutator(body, chance, others) or body[:1]
        renditions = tuple(self._rendition(chance) for _ in range(chance.choice((0, 0, 1, 2))))
        picks = tuple(chance.random() for _ in range(chance.choice((1, 1, 2, 4))))
        return ImageCase(f"{seed.name}: {', '.join(applied)}", kind, body, chance.random() < 0.1, picks, renditions)

    def _rendition(self, chance: Random) -> RenditionRequest:
        return RenditionRequest(spelling(chance, self._exhibits), chance.choice(EXTENSIONS))

    def _api(self, chance: Random) -> ApiCase:
        method, path = chance.choice(_API_ROUTES)
        digest = chance.choice((*self._exhibits, "a" * 32)) if chance.random() < 0.9 else chance.choice(("x", "A" * 32, "%00", "a" * 500))
        if method == "GET":
            query = chance.choice(
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
        body = json_text(api_body(chance, self._exhibits))
        if chance.random() < 0.1:
            seed = chance.choice(self._seeds["svg"])
            body = chance.choice(mutators("svg")[-10:])(body, chance, [seed.body])
        headers = {"content-type": chance.choice(("application/json",) * 8 + ("text/plain", "application/json; charset=utf-16"))}
        if method == "PATCH":
            headers |= chance.choice(({}, {"if-match": "*"}, {"if-match": "*"}, {"if-match": '"x"'}, {"if-match": '", ,'}))
        return ApiCase(f"{method} {path} {body[:60]!r}", method, path.format(digest), headers, body)

    def _targets(self, chance: Random) -> list[bytes]:
        digest = chance.choice(self._exhibits)
        paths = (
            "/", "/livez", "/health", "/v1/images", "/v1/images", "/v1/images/known", "/v1/pull", f"/v1/images/{digest}",
            f"/v1/images/{digest}/urls", "/docs", "/docs/openapi.json", "/problems", "/problems/too-large", "/darkroom.js", "/nothing",
            "*", "/metrics", "/i/", "/pull/v1/", RenditionRequest("width=64", "webp").path(digest, self._signer),
            RenditionRequest("width=64", "auto").path(digest, self._signer),
        )  # fmt: skip
        return [path.encode() for path in paths]

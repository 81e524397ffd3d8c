"""A Darkroom, near or far: what is asked of it, asked again where that helps, and in what words it is in vain."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import anyio
import httpx
import msgspec

from service.client.files import unreadable
from service.client.problems import ClientError, HopelessError, RefusedError, UnreachableError, UsageError, problem
from service.errors import Problem
from service.settings import is_loopback

# Between the attempts at one thing, in seconds; longer where the server asks for it, within reason.
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
LONGEST_PAUSE_SECONDS = 30.0

# A Machine that sleeps has to wake up, and an upload may wait in a queue before it is looked at.
_TIMEOUT = httpx.Timeout(connect=15.0, read=120.0, write=60.0, pool=None)
_CHUNK_BYTES = 256 << 10

# What may be different in a moment, for this request alone.
_PASSING = frozenset({408, 429, 502, 503, 504})

_TOKEN = re.compile(r"[!-~]+")
_SECONDS = re.compile(r"[0-9]{1,6}")

# An image document, as the server tells it: what a newer one adds is handed on.
Document: TypeAlias = dict[str, Any]
Body: TypeAlias = Callable[[], bytes | AsyncIterator[bytes]]
AnswerT = TypeVar("AnswerT")


class Known(msgspec.Struct, frozen=True):
    """Of some digests: the images that are there, those that were taken down, and how large an upload may be, in bytes."""

    images: list[Document]
    gone: list[str]
    max_upload_bytes: int


class TakenDown(msgspec.Struct, frozen=True):
    """What a takedown did: how many renditions it removed, and whether there is a CDN that was purged."""

    renditions: int
    cdn: str


class _TryAgainError(Exception):
    """What may go well at the next attempt; `final` is what it comes to where there is none."""

    def __init__(self, final: ClientError, after_seconds: float = 0.0) -> None:
        super().__init__(str(final))
        self.final = final
        self.after_seconds = after_seconds


class Server:
    """One server, its connections, and what it has said of where uploads go."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        """Take a client whose every request carries the token, and the URL before every path, without a slash at its end."""
        self.url = url
        self._http = http
        self._region: str | None = None

    async def known(self, digests: Sequence[str]) -> Known:
        """Return what the server has of some digests, a thousand at most."""
        return await _patiently(lambda: self._known(digests))

    async def upload(self, path: str, digest: str, size: int, sent: Callable[[int], None]) -> Document:
        """Return the document of a file that is stored by then; `sent` is told of bytes as they go, and of those that went in vain.

        `digest` and `size` are what the file had when it was looked at. Raises `RefusedError` where it has fewer bytes now.
        """
        is_first = True

        async def attempt() -> Document:
            nonlocal is_first
            if not is_first and (found := (await self._known([digest])).images):
                # The connection broke, but not before all had arrived.
                return found[0]
            is_first = False
            return await self._upload(path, size, sent)

        return await _patiently(attempt)

    async def document(self, digest: str) -> Document:
        """Return the document of an image."""
        return await _patiently(lambda: self._asked("GET", f"/v1/images/{digest}", Document))

    async def urls(self, digest: str, wanted: Mapping[str, object]) -> Document:
        """Return the URLs of an image for a transform, as `POST /v1/images/{digest}/urls` takes and gives them."""
        body = msgspec.json.encode(wanted)
        return await _patiently(lambda: self._asked("POST", f"/v1/images/{digest}/urls", Document, lambda: body))

    async def take_down(self, digest: str) -> TakenDown:
        """Take an image down."""
        return await _patiently(lambda: self._asked("DELETE", f"/v1/images/{digest}", TakenDown))

    async def _known(self, digests: Sequence[str]) -> Known:
        body = msgspec.json.encode({"digests": digests})
        try:
            return await self._asked("POST", "/v1/images/known", Known, lambda: body)
        except RefusedError as error:
            if error.problem.status in {404, 405}:
                raise self._no_darkroom(f"status {error.problem.status}") from error
            raise

    async def _upload(self, path: str, size: int, sent: Callable[[int], None]) -> Document:
        in_vain = 0

        def count(more: int) -> None:
            nonlocal in_vain
            in_vain += more
            sent(more)

        try:
            document = await self._asked("POST", "/v1/images", Document, lambda: _chunks(path, size, count), {"Content-Length": str(size)})
            in_vain = 0
            return document
        finally:
            sent(-in_vain)

    async def _asked(
        self, method: str, path: str, kind: type[AnswerT], body: Body = bytes, fields: Mapping[str, str] | None = None
    ) -> AnswerT:
        """Return what one request is answered with; raises `_TryAgainError` for what another may be answered better."""
        response = await self._sent(method, path, body, fields or {})
        if response.status_code in {301, 302, 303, 307, 308}:
            raise self._moved(response.headers.get("location", ""))
        if response.status_code >= 300:
            raise self._failure(response)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise self._no_darkroom(f"status {response.status_code} with {response.headers.get('content-type', 'no type')}") from error

    async def _sent(self, method: str, path: str, body: Body, fields: Mapping[str, str]) -> httpx.Response:
        while True:
            region = {} if self._region is None else {"fly-prefer-region": self._region}
            try:
                response = await self._http.request(method, self.url + path, content=body(), headers={**fields, **region})
            except (httpx.RequestError, OSError) as error:
                raise _TryAgainError(self._unreachable(error)) from error
            named = response.headers.get("fly-prefer-region")
            if response.status_code != 421 or not named or named == self._region:
                return response
            # Where originals live in one region, it alone takes them in, and Fly's proxy does not hand on large requests by itself.
            self._region = named

    def _failure(self, response: httpx.Response) -> Exception:
        status = response.status_code
        found = _problem(response)
        if status in {401, 403}:
            remedy = "Set DARKROOM_TOKEN to one of the tokens that the server has in DARKROOM_TOKENS." if status == 401 else found.remedy
            return HopelessError(msgspec.structs.replace(found, remedy=remedy))
        if status == HTTPStatus.INSUFFICIENT_STORAGE:
            return HopelessError(found)
        if status in _PASSING:
            after = response.headers.get("retry-after", "")
            return _TryAgainError(RefusedError(found), float(after) if _SECONDS.fullmatch(after) else 0.0)
        return RefusedError(found)

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            problem(
                "The server does not answer.",
                expected=f"a Darkroom at {self.url}",
                received=str(error) or type(error).__name__,
                remedy="Start it (`darkroom serve`), or say where one is with --server or DARKROOM_SERVER.",
            )
        )

    def _no_darkroom(self, received: str) -> HopelessError:
        return HopelessError(
            problem(
                "What answers there is no Darkroom, or one older than 0.3.",
                expected=f"a Darkroom at {self.url}",
                received=received,
                remedy="Check --server or DARKROOM_SERVER, or upgrade the server.",
            )
        )

    def _moved(self, location: str) -> HopelessError:
        parts = urlsplit(location)
        target = f"{parts.scheme}://{parts.netloc}" if parts.netloc else "the URL that it redirects to"
        return HopelessError(
            problem(
                "The server is to be reached under another URL.",
                expected="an answer",
                received=f"a redirect to {location or 'nowhere'}",
                remedy=f"Use --server {target}.",
            )
        )


@asynccontextmanager
async def opened(url: str, token: str | None, *, uploads_at_once: int = 1) -> AsyncIterator[Server]:
    """Give the server at a URL; raises `UsageError` for a URL or token that cannot be used, before anything is sent."""
    base = _checked_url(url)
    if token is not None and _TOKEN.fullmatch(token) is None:
        raise UsageError(
            problem(
                "DARKROOM_TOKEN is no token.",
                expected="printable ASCII without spaces",
                received=f"{len(token)} characters, some of them others",
                remedy="Set it to one of the tokens that the server has in DARKROOM_TOKENS.",
            )
        )
    fields = {"Accept": "application/json", "User-Agent": f"darkroom/{version('darkroom')}"}
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    async with httpx.AsyncClient(
        headers=fields,
        timeout=_TIMEOUT,
        limits=httpx.Limits(max_connections=uploads_at_once + 1),
        # A proxy of the environment is for other machines.
        trust_env=not is_loopback(urlsplit(base).hostname or ""),
    ) as http:
        yield Server(http, base)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable or parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        raise UsageError(
            problem(
                "This is no URL of a server.",
                expected="http:// or https:// and a host, such as https://img.example.com; tokens go into DARKROOM_TOKEN",
                received="a URL with a user or password in it" if parts.username or parts.password else url,
                remedy="Correct --server or DARKROOM_SERVER.",
            )
        )
    return url.rstrip("/")


async def _patiently(attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    """Return what one of several attempts gives; raises what the last one comes to."""
    for pause in PAUSES_SECONDS:
        try:
            return await attempt()
        except _TryAgainError as error:
            await anyio.sleep(max(pause, min(error.after_seconds, LONGEST_PAUSE_SECONDS)))
    try:
        return await attempt()
    except _TryAgainError as error:
        raise error.final from error


async def _chunks(path: str, size: int, sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    """Give the first `size` bytes of a file."""
    left = size
    try:
        file = await anyio.open_file(path, "rb")
    except OSError as error:
        raise unreadable(error) from error
    async with file:
        while left:
            try:
                chunk = await file.read(min(_CHUNK_BYTES, left))
            except OSError as error:
                raise unreadable(error) from error
            if not chunk:
                raise RefusedError(
                    problem(
                        "The file was changed while it was sent.",
                        expected=f"{size} bytes",
                        received=f"{size - left}",
                        remedy="Push it again once it is written.",
                    )
                )
            left -= len(chunk)
            yield chunk
            sent(len(chunk))


def _problem(response: httpx.Response) -> Problem:
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            return msgspec.json.decode(response.content, type=Problem)
        except msgspec.DecodeError:
            pass
    phrase = response.reason_phrase or "no reason given"
    return Problem("about:blank", phrase, response.status_code, f"The server answered {response.status_code} ({phrase}).")

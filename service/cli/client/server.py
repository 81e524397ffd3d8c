"""A Darkroom, near or far: what is asked of it, asked again where that helps, and in what words it is in vain."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, BinaryIO, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import httpcore
import msgspec

from service.cli.client.files import unreadable
from service.cli.client.problems import ClientError, HopelessError, RefusedError, UnreachableError, UsageError, problem
from service.errors import Problem
from service.settings.environment import is_loopback

# Between the attempts at one thing, in seconds; longer where the server asks for it, within reason.
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
LONGEST_PAUSE_SECONDS = 30.0

# A Machine that sleeps has to wake up, and an upload may wait in a queue before it is looked at.
_TIMEOUTS = {"connect": 15.0, "read": 120.0, "write": 60.0, "pool": None}

# A server lets a silent connection go after ten seconds.
_KEPT_SECONDS = 5.0

_CHUNK_BYTES = 512 << 10

# What may be different in a moment, for this request alone.
_PASSING = frozenset({408, 429, 502, 503, 504})

# However a connection ends that should not.
_BROKEN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ProxyError, OSError)

_STATUSES = frozenset(HTTPStatus)
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


class _Answer(msgspec.Struct, frozen=True):
    """What came back: the fields' names in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes


class _TryAgainError(Exception):
    """What may go well at the next attempt; `final` is what it comes to where there is none."""

    def __init__(self, final: ClientError, after_seconds: float = 0.0) -> None:
        super().__init__(str(final))
        self.final = final
        self.after_seconds = after_seconds


class Server:
    """One server, its connections, and what it has said of where uploads go."""

    def __init__(self, http: httpcore.AsyncConnectionPool, url: str, fields: Mapping[str, str]) -> None:
        """Take the connections, the URL before every path, without a slash at its end, and the fields that every request carries."""
        self.url = url
        self._http = http
        self._fields = fields
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
        answer = await self._sent(method, path, body, fields or {})
        if answer.status in {301, 302, 303, 307, 308}:
            raise self._moved(answer.fields.get("location", ""))
        if answer.status >= 300:
            raise _failure(answer)
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.DecodeError as error:
            raise self._no_darkroom(f"status {answer.status} with {answer.fields.get('content-type', 'no type')}") from error

    async def _sent(self, method: str, path: str, body: Body, fields: Mapping[str, str]) -> _Answer:
        while True:
            asked = self._region
            region = {} if asked is None else {"fly-prefer-region": asked}
            headers = list({**self._fields, **fields, **region}.items())
            try:
                response = await self._http.request(
                    method, self.url + path, headers=headers, content=body(), extensions={"timeout": _TIMEOUTS}
                )
            except _BROKEN as error:
                raise _TryAgainError(self._unreachable(error)) from error
            answer = _Answer(
                response.status,
                {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers},
                response.content,
            )
            named = answer.fields.get("fly-prefer-region")
            if answer.status != 421 or not named or named == asked:
                return answer
            # Where originals live in one region, it alone takes them in, and Fly's proxy does not hand on large requests by itself.
            self._region = named

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
                "What answers there is no Darkroom, or one older than 0.2.",
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
    fields = {"Accept": "application/json", "User-Agent": "darkroom"}
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    async with httpcore.AsyncConnectionPool(
        ssl_context=httpcore.default_ssl_context() if base.startswith("https:") else None,
        proxy=_proxy(base),
        max_connections=uploads_at_once + 1,
        keepalive_expiry=_KEPT_SECONDS,
        network_backend=httpcore.AnyIOBackend(),
    ) as http:
        yield Server(http, base, fields)


def _proxy(url: str) -> httpcore.Proxy | None:
    """Return the proxy that the environment has for a URL; none for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    # It brings much, and is for other machines alone.
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    found = None if proxy_bypass(host) else getproxies().get(parts.scheme)
    if not found:
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    auth = None if proxy.username is None else (unquote(proxy.username), unquote(proxy.password or ""))
    return httpcore.Proxy(f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}", auth=auth)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = url.isascii() and parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
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
        file, chunk = await anyio.to_thread.run_sync(_begun, path, min(_CHUNK_BYTES, left))
        with file:
            while chunk:
                yield chunk
                sent(len(chunk))
                left -= len(chunk)
                chunk = await anyio.to_thread.run_sync(file.read, min(_CHUNK_BYTES, left)) if left else b""
    except OSError as error:
        raise unreadable(error) from error
    if left:
        raise RefusedError(
            problem(
                "The file was changed while it was sent.",
                expected=f"{size} bytes",
                received=f"{size - left}",
                remedy="Push it again once it is written.",
            )
        )


def _begun(path: str, size: int) -> tuple[BinaryIO, bytes]:
    file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115 - a name need not be UTF-8; whoever gets it closes it
    try:
        return file, file.read(size)
    except BaseException:
        file.close()
        raise


def _failure(answer: _Answer) -> Exception:
    found = _problem(answer)
    if answer.status in {401, 403}:
        remedy = "Set DARKROOM_TOKEN to one of the tokens that the server has in DARKROOM_TOKENS." if answer.status == 401 else found.remedy
        return HopelessError(msgspec.structs.replace(found, remedy=remedy))
    if answer.status == HTTPStatus.INSUFFICIENT_STORAGE:
        return HopelessError(found)
    if answer.status in _PASSING:
        after = answer.fields.get("retry-after", "")
        return _TryAgainError(RefusedError(found), float(after) if _SECONDS.fullmatch(after) else 0.0)
    return RefusedError(found)


def _problem(answer: _Answer) -> Problem:
    if answer.fields.get("content-type", "").startswith("application/problem+json"):
        try:
            return msgspec.json.decode(answer.body, type=Problem)
        except msgspec.DecodeError:
            pass
    phrase = HTTPStatus(answer.status).phrase if answer.status in _STATUSES else "no status of HTTP"
    return Problem("about:blank", phrase, answer.status, f"The server answered {answer.status} ({phrase}).")

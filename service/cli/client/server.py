"""The requests to a Darkroom server, retried if that may help, with errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, BinaryIO, TypeAlias, TypeVar
from urllib.parse import quote, unquote, urlsplit

import anyio
import anyio.to_thread
import httpcore
import msgspec

from service.cli.client.errors import ClientError, FatalError, RefusedError, UnreachableError, UsageError, client_problem
from service.cli.client.scan import unreadable
from service.concurrency.retrying import retry
from service.errors import Problem, SourceFailedError, SourceRefusedError, SourceSlowError
from service.settings.loopback import is_loopback

# Seconds between two attempts. The server may ask for a longer pause in Retry-After, up to a maximum.
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
MAX_PAUSE_SECONDS = 30.0

# A suspended Machine needs time to resume, and an upload may wait in a queue before it is probed.
_TIMEOUTS = {"connect": 15.0, "read": 120.0, "write": 60.0, "pool": None}

# A server closes an idle connection after ten seconds.
_KEEPALIVE_SECONDS = 5.0

_CHUNK_BYTES = 512 << 10

# Another attempt may succeed.
_TRANSIENT_STATUSES = frozenset({408, 429, 502, 503, 504})

# How many objects a page of a source's list has.
_PAGE_OBJECTS = 1_000
_NEXT = re.compile(r'<(/v1/sources/[!-=?-~]*)>; rel="next"')

# The types of problems that belong to one image in a source. Their status can also mean that the server fails.
_OF_ONE_SOURCE = frozenset(error.type_uri() for error in (SourceRefusedError, SourceFailedError, SourceSlowError))

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# A connection that cannot be made, or that breaks.
_CONNECTION_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ProxyError, OSError)

_STATUSES = frozenset(HTTPStatus)
_TOKEN = re.compile(r"[!-~]+")
_SECONDS = re.compile(r"[0-9]{1,6}")

# A decoded image document. Fields that a newer server adds are passed on.
Document: TypeAlias = dict[str, Any]
Body: TypeAlias = Callable[[], bytes | AsyncIterator[bytes]]
T = TypeVar("T")


class LookupResult(msgspec.Struct, frozen=True):
    """The response to a lookup of digests.

    `images`: the documents of the images that are on the server.
    `gone`: the digests of images that were taken down.
    `max_upload_bytes`: the largest upload that the server accepts.
    """

    images: list[Document]
    gone: list[str]
    max_upload_bytes: int


class Takedown(msgspec.Struct, frozen=True):
    """The result of a takedown: how many renditions it removed, and `purged` in `cdn` if there is a CDN."""

    renditions: int
    cdn: str


class SourceObject(msgspec.Struct, frozen=True):
    """An object in a source: its path there, and its size in bytes."""

    path: str
    bytes: int


class _Objects(msgspec.Struct, frozen=True):
    objects: list[SourceObject]


class _Response(msgspec.Struct, frozen=True):
    """A response; names of header fields are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Server:
    """One server, as its client sees it.

    All methods raise `RefusedError` if the server refuses the request, `FatalError` if it would refuse every request, and
    `UnreachableError` if it does not respond even after retries.
    """

    def __init__(self, http: httpcore.AsyncConnectionPool, url: str, headers: Mapping[str, str]) -> None:
        """Create a client.

        `http`: the connections.
        `url`: the server's URL, without a slash at the end.
        `headers`: header fields of every request.
        """
        self.url = url
        self._http = http
        self._headers = headers
        # The region that takes uploads, if the server has named one.
        self._region: str | None = None

    def __repr__(self) -> str:
        return f"<Server {self.url}: {len(self._http.connections)} connections>"

    async def lookup(self, digests: Sequence[str]) -> LookupResult:
        """Return what the server knows about up to a thousand digests."""
        return await _with_retries(lambda: self._lookup(digests))

    async def upload(self, path: str, digest: str, size: int, on_sent: Callable[[int], None]) -> Document:
        """Upload a file and return its image document.

        `digest`, `size`: of the file when it was hashed. Raises `RefusedError` if it has become shorter since.
        `on_sent`: called with the number of bytes after each chunk, and with a negative number for bytes that were sent in vain.
        """
        is_first = True

        async def attempt() -> Document:
            nonlocal is_first
            # If the connection broke after the last byte, the image may be stored already.
            if not is_first and (found := (await self._lookup([digest])).images):
                return found[0]
            is_first = False
            return await self._upload(path, size, on_sent)

        return await _with_retries(attempt)

    async def list_objects(self, source: str, prefix: str) -> list[SourceObject]:
        """Return the objects of a source whose paths begin with `prefix`, in the order of their paths."""
        found: list[SourceObject] = []
        # In that order, all paths that begin with a prefix follow it without a gap.
        target = f"/v1/sources/{quote(source, safe='')}/objects?limit={_PAGE_OBJECTS}&after={quote(prefix, safe='')}"
        while target:
            response = await _with_retries(partial(self._respond, "GET", target))
            page = self._decode(response, _Objects).objects
            found += [entry for entry in page if entry.path.startswith(prefix)]
            link = _NEXT.fullmatch(response.headers.get("link", ""))
            target = link[1] if link and (not page or page[-1].path.startswith(prefix)) else ""
        return found

    async def ingest_from(self, wanted: Mapping[str, str]) -> tuple[Document, bool]:
        """Let the server take an image in, and return its document and whether it is new.

        `wanted`: its `source` and `path`, or its `url`.
        """
        body = msgspec.json.encode(wanted)
        headers = {"Content-Type": "application/json"}
        response = await _with_retries(lambda: self._respond("POST", "/v1/images", lambda: body, headers))
        return self._decode(response, Document), response.status == HTTPStatus.CREATED

    async def get_document(self, digest: str) -> Document:
        """Return the document of an image."""
        return await _with_retries(lambda: self._request("GET", f"/v1/images/{digest}", Document))

    async def make_urls(self, digest: str, wanted: Mapping[str, object]) -> Document:
        """Return the URLs of an image's renditions. `wanted` and the result are the bodies of `POST /v1/images/{digest}/urls`."""
        body = msgspec.json.encode(wanted)
        return await _with_retries(lambda: self._request("POST", f"/v1/images/{digest}/urls", Document, lambda: body))

    async def take_down(self, digest: str) -> Takedown:
        """Take an image down."""
        return await _with_retries(lambda: self._request("DELETE", f"/v1/images/{digest}", Takedown))

    async def _lookup(self, digests: Sequence[str]) -> LookupResult:
        body = msgspec.json.encode({"digests": digests})
        try:
            return await self._request("POST", "/v1/images/known", LookupResult, lambda: body)
        except RefusedError as error:
            if error.problem.status in {404, 405}:
                raise self._not_darkroom(f"status {error.problem.status}") from error
            raise

    async def _upload(self, path: str, size: int, on_sent: Callable[[int], None]) -> Document:
        wasted_bytes = 0

        def count(more: int) -> None:
            nonlocal wasted_bytes
            wasted_bytes += more
            on_sent(more)

        try:
            headers = {"Content-Length": str(size)}
            document = await self._request("POST", _upload_path(path), Document, lambda: _read_chunks(path, size, count), headers)
            wasted_bytes = 0
            return document
        finally:
            on_sent(-wasted_bytes)

    async def _request(
        self, method: str, path: str, response_type: type[T], body: Body = bytes, headers: Mapping[str, str] | None = None
    ) -> T:
        """Return the decoded body of the response to one request."""
        return self._decode(await self._respond(method, path, body, headers), response_type)

    async def _respond(self, method: str, path: str, body: Body = bytes, headers: Mapping[str, str] | None = None) -> _Response:
        """Return the response to one request, which is successful."""
        response = await self._send(method, path, body, headers or {})
        if response.status in _REDIRECTS:
            raise self._redirected(response.headers.get("location", ""))
        if response.status >= 300:
            raise _error(response)
        return response

    def _decode(self, response: _Response, response_type: type[T]) -> T:
        try:
            return msgspec.json.decode(response.body, type=response_type)
        except msgspec.DecodeError as error:
            raise self._not_darkroom(f"status {response.status} with {response.headers.get('content-type', 'no type')}") from error

    async def _send(self, method: str, path: str, body: Body, headers: Mapping[str, str]) -> _Response:
        while True:
            requested = self._region
            region = {} if requested is None else {"fly-prefer-region": requested}
            try:
                answered = await self._http.request(
                    method,
                    self.url + path,
                    headers=list({**self._headers, **headers, **region}.items()),
                    content=body(),
                    extensions={"timeout": _TIMEOUTS},
                )
            except _CONNECTION_ERRORS as error:
                raise self._unreachable(error) from error
            response = _Response(
                answered.status,
                {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answered.headers},
                answered.content,
            )
            named = response.headers.get("fly-prefer-region")
            if response.status != 421 or not named or named == requested:
                return response
            # If one region has all originals, only that region accepts uploads, and Fly's proxy cannot replay large requests to it.
            self._region = named

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            client_problem(
                "The server does not respond.",
                expected=f"a Darkroom server at {self.url}",
                received=str(error) or type(error).__name__,
                remedy="Start it (`darkroom serve`), or set its URL with --server or DARKROOM_SERVER.",
            ),
            retry_after=0,
        )

    def _not_darkroom(self, received: str) -> FatalError:
        return FatalError(
            client_problem(
                "This is not a Darkroom server, or one older than 0.2.",
                expected=f"a Darkroom server at {self.url}",
                received=received,
                remedy="Check --server or DARKROOM_SERVER, or upgrade the server.",
            )
        )

    def _redirected(self, location: str) -> FatalError:
        parts = urlsplit(location)
        target = f"{parts.scheme}://{parts.netloc}" if parts.netloc else "with the URL that it redirects to"
        return FatalError(
            client_problem(
                "The server has another URL.",
                expected="a response without a redirect",
                received=f"a redirect to {location or 'nowhere'}",
                remedy=f"Use --server {target}.",
            )
        )


@asynccontextmanager
async def connect(url: str, token: str | None, *, max_uploads: int = 1) -> AsyncIterator[Server]:
    """Yield the server at a URL.

    `token`: the bearer token, if any.
    `max_uploads`: the number of simultaneous uploads.
    Raises `UsageError` for a URL or token that is not valid. No request is sent yet.
    """
    base = _checked_url(url)
    if token is not None and _TOKEN.fullmatch(token) is None:
        raise UsageError(
            client_problem(
                "DARKROOM_TOKEN is not a valid token.",
                expected="printable ASCII characters without spaces",
                received=f"{len(token)} characters, some of them not allowed",
                remedy="Set it to one of the tokens in the server's DARKROOM_TOKENS.",
            )
        )
    headers = {"Accept": "application/json", "User-Agent": "darkroom"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with httpcore.AsyncConnectionPool(
        ssl_context=httpcore.default_ssl_context() if base.startswith("https:") else None,
        proxy=_proxy(base),
        max_connections=max_uploads + 1,
        keepalive_expiry=_KEEPALIVE_SECONDS,
        network_backend=httpcore.AnyIOBackend(),
    ) as http:
        yield Server(http, base, headers)


def _proxy(url: str) -> httpcore.Proxy | None:
    """Return the proxy that the environment sets for a URL, none for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    # A large import, needed only for other machines.
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
            client_problem(
                "This is not the URL of a server.",
                expected="http:// or https:// and a host, such as https://img.example.com; a token belongs in DARKROOM_TOKEN",
                received="a URL that contains a user or a password" if parts.username or parts.password else url,
                remedy="Correct --server or DARKROOM_SERVER.",
            )
        )
    return url.rstrip("/")


async def _with_retries(attempt: Callable[[], Awaitable[T]]) -> T:
    return await retry(attempt, pauses=PAUSES_SECONDS, retry_after=_retry_after)


def _retry_after(error: Exception) -> float | None:
    if not isinstance(error, ClientError) or error.retry_after is None:
        return None
    return min(error.retry_after, MAX_PAUSE_SECONDS)


def _upload_path(path: str) -> str:
    """Return the path to which a file is uploaded, with the file's name, which gives the image its own."""
    return f"/v1/images?name={quote(path.rpartition('/')[2], safe='')}"


async def _read_chunks(path: str, size: int, on_read: Callable[[int], None]) -> AsyncIterator[bytes]:
    """Yield the first `size` bytes of a file."""
    left = size
    try:
        file, chunk = await anyio.to_thread.run_sync(_open_and_read, path, min(_CHUNK_BYTES, left))
        with file:
            while chunk:
                yield chunk
                on_read(len(chunk))
                left -= len(chunk)
                chunk = await anyio.to_thread.run_sync(file.read, min(_CHUNK_BYTES, left)) if left else b""
    except OSError as error:
        raise unreadable(error) from error
    if left:
        raise RefusedError(
            client_problem(
                "The file became shorter during the upload.",
                expected=f"{size} bytes",
                received=f"{size - left} bytes",
                remedy="Push it again when it is complete.",
            )
        )


def _open_and_read(path: str, size: int) -> tuple[BinaryIO, bytes]:
    file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115 - a name need not be UTF-8; the caller closes the file
    try:
        return file, file.read(size)
    except BaseException:
        file.close()
        raise


def _error(response: _Response) -> ClientError:
    problem = _problem(response)
    if response.status == HTTPStatus.UNAUTHORIZED:
        remedy = "Set DARKROOM_TOKEN to one of the tokens in the server's DARKROOM_TOKENS."
        return FatalError(msgspec.structs.replace(problem, remedy=remedy))
    if problem.type in _OF_ONE_SOURCE:
        # The server has tried again, and other images may be elsewhere.
        return RefusedError(problem)
    if response.status in {HTTPStatus.FORBIDDEN, HTTPStatus.INSUFFICIENT_STORAGE}:
        return FatalError(problem)
    if response.status in _TRANSIENT_STATUSES:
        seconds = response.headers.get("retry-after", "")
        return RefusedError(problem, retry_after=float(seconds) if _SECONDS.fullmatch(seconds) else 0)
    return RefusedError(problem)


def _problem(response: _Response) -> Problem:
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            return msgspec.json.decode(response.body, type=Problem)
        except msgspec.DecodeError:
            pass
    phrase = HTTPStatus(response.status).phrase if response.status in _STATUSES else "not an HTTP status"
    return Problem("about:blank", phrase, response.status, f"The server responded with {response.status} ({phrase}).")

"""Sources below the prefix of a host: images are fetched over HTTP, only from public addresses, within bounds of bytes.

Clients choose the paths that this server requests, and hosts choose where they redirect to. The checks in this module keep such a request
below the prefixes of sources and away from the server's own network (server-side request forgery), and keep a malicious host from tying
up memory, CPU or connections.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import anyio
import anyio.lowlevel
import httpcore
import structlog

from service.concurrency.spans import stage
from service.errors import SourceFailedError, SourceNotListableError, SourceSlowError, TooLargeError, sanitize
from service.settings.source_locations import SourceLocation, authority
from service.sources.public_addresses import is_public
from service.sources.source import SourceObject, Validators, Write
from service.urls.source_url import climbs

log = structlog.get_logger(__name__)

MAX_REDIRECTS = 3

# How long a host may take to accept a connection, and how long it may be silent, in seconds.
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 10.0

# The maximum size of a response's header, including interim responses before it (RFC 9110 §15.2; the smallest one has 17 bytes) and the
# start of the body that comes in the same read. It is read in small parts, so that parsing one never blocks others for long.
MAX_HEADER_BYTES = 32 << 10
_HEADER_READ_BYTES = 4 << 10
_BODY_READ_BYTES = 64 << 10

# The maximum number of pieces of less than a kilobyte in a body; each costs about 10 µs of CPU. A server that sends a file of 25 MB line by
# line stays below it. And how many bytes the chunked coding (RFC 9112 §7.1) may add to the body.
MAX_SMALL_PIECES = 100_000
_SMALL_PIECE_BYTES = 1 << 10
_MAX_FRAMING_BYTES = 1 << 20

# After how many pieces other tasks get their turn.
_PIECES_PER_TURN = 64

# A host without a public address fails after a multiple of this many seconds: how fast a resolver responds would tell which names exist.
UNREACHABLE_STEP_SECONDS = 1.0

_DENIED = frozenset({401, 402, 403, 407})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# RFC 3986 §2: the characters that a URL may have.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of a host, in the order in which to try them; raises `OSError`."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpSource:
    """A source below the prefix of a host."""

    def __init__(self, location: SourceLocation, fetcher: SourceFetcher) -> None:
        """Create a source.

        location: the host and the prefix.
        fetcher: sends the requests.
        """
        self._location = location
        self._fetcher = fetcher

    def __repr__(self) -> str:
        return f"<HttpSource {self._location.url('')}>"

    async def fetch(self, path: str, validators: Validators, write: Write) -> Validators | None:
        """Fetch an object as `Source.fetch` describes it."""
        return await self._fetcher.fetch(self._location.url(path), validators, write)

    async def list(self, after: str, limit: int) -> Sequence[SourceObject]:  # noqa: ARG002 - the parameters of every source
        """Raise `SourceNotListableError`: HTTP has no listings."""
        raise SourceNotListableError(
            "This source is a host, which has no list of its images.",
            expected="a source that is a bucket",
            received=self._location.url(""),
            remedy="Name the images by their paths or URLs.",
        )


class SourceFetcher:
    """Fetches over HTTP from the sources that are below prefixes of hosts.

    No connection is reused, and no proxy and no credentials of the environment are used.
    """

    def __init__(
        self,
        locations: Iterable[SourceLocation],
        *,
        max_bytes: int,
        is_allowed_address: Callable[[str], bool] = is_public,
        resolve: Resolve = resolve_host,
    ) -> None:
        """Set up the connection pool.

        locations: the sources that may be fetched from. A redirect has to lead below one of them.
        max_bytes: the maximum size of an image in bytes.
        is_allowed_address: returns whether a connection to an IP address may be made.
        resolve: returns the IP addresses of a host and port.
        """
        self._locations = tuple(locations)
        self._max_bytes = max_bytes
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(),
            # The caller limits how many fetches there are.
            max_connections=None,
            # After a suspend of this machine an idle connection is dead; one more handshake costs little next to an image.
            max_keepalive_connections=0,
            network_backend=_PublicAddressBackend(is_allowed_address, resolve),
        )

    def __repr__(self) -> str:
        return f"<SourceFetcher: {len(self._pool.connections)} connections>"

    async def fetch(self, url: str, validators: Validators, write: Write) -> Validators | None:
        """Fetch an image, pass its bytes to `write`, and return its validators; return `None` if the source responds 304 Not Modified.

        validators: those of the last response; with any, the request is conditional.

        Raises `SourceFailedError`, `SourceSlowError`, `TooLargeError`, and the errors of `write`.
        """
        async with _translate_errors(url):
            return await self._fetch(url, validators, write)

    async def _fetch(self, url: str, validators: Validators, write: Write) -> Validators | None:
        fields = [("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "darkroom")]
        fields += [("If-None-Match", validators.etag)] if validators.etag else []
        fields += [("If-Modified-Since", validators.last_modified)] if validators.last_modified else []
        for _ in range(1 + MAX_REDIRECTS):
            url = self._allowed(url)
            timeouts = {"connect": CONNECT_SECONDS, "read": SILENCE_SECONDS, "write": SILENCE_SECONDS, "pool": None}
            headers = [("Host", urlsplit(url).netloc), *fields]
            # The trace ends here: its id is nothing that a stranger's server should get.
            with stage("source request", calls=urlsplit(url).hostname or ""):
                async with self._pool.stream("GET", url, headers=headers, extensions={"timeout": timeouts}) as response:
                    location = _field(response, b"location")
                    if response.status not in _REDIRECTS or not location:
                        return await self._read(response, validators, write)
            url = _join(url, location)
        raise SourceFailedError(
            "The source redirects too often.",
            expected=f"an image after at most {MAX_REDIRECTS} redirects",
            received=f"{MAX_REDIRECTS + 1} redirects",
            remedy="Use the URL that the redirects end at.",
        )

    async def _read(self, response: httpcore.Response, sent: Validators, write: Write) -> Validators | None:
        if response.status == 304 and sent != Validators():
            return None
        if response.status in _DENIED:
            raise SourceFailedError(
                "The source does not give this server access to the image.",
                expected="status 200",
                received=f"status {response.status}",
                remedy="Permit requests without credentials for everything below the prefix of the source.",
                source_status=response.status,
            )
        if response.status != 200:
            raise SourceFailedError(
                "The source has no image at this URL.",
                expected="status 200",
                received=f"status {response.status}",
                remedy="Open the URL in a private browser window: the server sees the same, without cookies or a login.",
                source_status=response.status,
            )
        encoding = _field(response, b"content-encoding")
        if encoding.lower() not in {"", "identity"}:
            raise SourceFailedError(
                "The source sends the image compressed a second time.",
                expected="no Content-Encoding",
                received=encoding,
                remedy="Configure the source to send images without compression.",
            )
        length = _field(response, b"content-length")
        if length.isdigit() and (len(length) > 18 or int(length) > self._max_bytes):
            raise self._too_large(f"{length} bytes")
        stream: _BoundedStream = response.extensions["network_stream"]
        stream.expect_body(self._max_bytes)
        received = pieces = small_pieces = 0
        async for chunk in response.aiter_stream():
            received += len(chunk)
            if received > self._max_bytes:
                raise self._too_large(f"more than {self._max_bytes} bytes")
            pieces += 1
            small_pieces += len(chunk) < _SMALL_PIECE_BYTES
            if small_pieces > MAX_SMALL_PIECES:
                raise SourceFailedError(
                    "The source sends the image in too many pieces.",
                    expected=f"at most {MAX_SMALL_PIECES} pieces below {_SMALL_PIECE_BYTES} bytes",
                    received=f"{received} bytes in {pieces} pieces",
                    remedy="Configure the source to send larger chunks, or a Content-Length.",
                )
            if pieces % _PIECES_PER_TURN == 0:
                # One read from the network may hold many pieces, and none of them waits.
                await anyio.lowlevel.checkpoint()
            await write(chunk)
        return Validators(_validator(response, b"etag"), _validator(response, b"last-modified"))

    def _too_large(self, received: str) -> TooLargeError:
        return TooLargeError(
            "The source's image is too large.",
            expected=f"at most {self._max_bytes} bytes",
            received=received,
            remedy="Use a smaller image, or raise DARKROOM_MAX_UPLOAD_BYTES on the server.",
        )

    def _allowed(self, url: str) -> str:
        """Return a URL in its normal form; raises `SourceFailedError` if it is not below a source, or ambiguous."""
        host = "a place that is no URL"
        try:
            parts = urlsplit(url)
            host = parts.hostname or host
            # The port may be no number.
            is_url = _URL.fullmatch(url) is not None and parts.port != 0 and "@" not in parts.netloc
        except ValueError:
            is_url = False
        if not is_url or climbs(parts.path) or all(location.below_prefix(parts) is None for location in self._locations):
            log.info("a source redirects to a place that is not below a source", location=sanitize(url.partition("?")[0]))
            raise SourceFailedError(
                "The source redirects to a place that is not below a source.",
                expected="a URL below the prefix of one of DARKROOM_SOURCES",
                received=f"a redirect to {host}",
                remedy="Let the source respond itself, or add the place that it redirects to to DARKROOM_SOURCES.",
            )
        return _normal(parts)


class _PublicAddressBackend(httpcore.AsyncNetworkBackend):
    """Connects only to allowed addresses. A name is resolved once, and the connection made to the address that was checked.

    A name that does not exist and one with an internal address fail with the same error after the same time: a difference would reveal
    the hosts of the internal network. Only the log says which it was.
    """

    def __init__(self, is_allowed_address: Callable[[str], bool], resolve: Resolve) -> None:
        self._is_allowed_address = is_allowed_address
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        started = anyio.current_time()
        addresses = await self._public_addresses(host, port, timeout)
        if not addresses:
            elapsed = anyio.current_time() - started
            await anyio.sleep(UNREACHABLE_STEP_SECONDS - elapsed % UNREACHABLE_STEP_SECONDS)
            raise httpcore.ConnectError("no public address")
        failure: Exception | None = None
        for address in addresses:
            try:
                return _BoundedStream(await self._backend.connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise httpcore.ConnectError(str(failure)) from failure

    async def _public_addresses(self, host: str, port: int, seconds: float | None) -> Sequence[str]:
        """Return the addresses of a host; none if it does not exist, or if one of its addresses is not allowed."""
        try:
            with anyio.fail_after(seconds):
                addresses = await self._resolve(host, port)
        except OSError as error:
            # TimeoutError is one.
            log.info("the host of a source was not resolved", host=host, cause=repr(error))
            return []
        if not all(self._is_allowed_address(address) for address in addresses):
            log.warning("a source was refused by its address", host=host, addresses=list(addresses))
            return []
        return addresses


class _BoundedStream(httpcore.AsyncNetworkStream):
    """A connection for one response, which limits the bytes that are read.

    httpcore has no limit of its own: it skips 1xx responses for as long as they come, and parses all bytes of one read before anything
    else runs.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        """Allow a header.

        stream: the connection to read from.
        """
        self._stream = stream
        self._remaining = MAX_HEADER_BYTES
        self._max_read_bytes = _HEADER_READ_BYTES

    def expect_body(self, max_bytes: int) -> None:
        """Allow a body of up to `max_bytes` bytes, and its chunk framing. To be called when the header is complete."""
        self._remaining = max_bytes + _MAX_FRAMING_BYTES
        self._max_read_bytes = _BODY_READ_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's own
        if self._remaining <= 0:
            raise httpcore.RemoteProtocolError("the response has more bytes than allowed")
        data = await self._stream.read(min(max_bytes, self._max_read_bytes, self._remaining), timeout)
        self._remaining -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's own
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own
    ) -> httpcore.AsyncNetworkStream:
        return _BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@asynccontextmanager
async def _translate_errors(url: str) -> AsyncIterator[None]:
    try:
        yield
    except (httpcore.ConnectTimeout, httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
        raise SourceSlowError(
            "The source does not respond.",
            expected=f"a connection within {CONNECT_SECONDS:g} seconds, and no silence longer than {SILENCE_SECONDS:g}",
            received=type(error).__name__,
            remedy="Try again later.",
            retry_after_seconds=30,
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        log.info("a source failed", url=url, cause=str(error))
        raise SourceFailedError(
            "The source cannot be reached, or its response is not valid HTTP.",
            expected="a server with only public addresses, a valid certificate, and HTTP/1.1",
            received=type(error).__name__,
            remedy="Check the URL and its server. If the server is not on the public internet, upload the image's bytes.",
            retry_after_seconds=30,
        ) from error


def _normal(url: SplitResult) -> str:
    """Return a URL with a lower-case host, no default port and no fragment (RFC 3986 §6.2.2, §6.2.3)."""
    query = f"?{url.query}" if url.query else ""
    return f"{url.scheme}://{authority(url)}{url.path or '/'}{query}"


def _join(url: str, location: str) -> str:
    """Return the target of a redirect (RFC 9110 §10.2.2)."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def _field(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1").strip() for field, value in response.headers if field.lower() == name), "")


def _validator(response: httpcore.Response, name: bytes) -> str:
    # It will be sent back unchanged: one that is very long, or not printable ASCII, is ignored.
    value = _field(response, name)
    return value if len(value) <= 1_000 and value.isascii() and value.isprintable() else ""

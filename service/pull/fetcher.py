"""Fetch an image from a remote source over HTTP: only from allowed hosts and public addresses, within bounds of bytes and time.

Clients choose the URLs that this server requests. The checks in this module keep such a request away from the server's own
network (server-side request forgery), and keep a malicious source from tying up memory, CPU or connections.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import anyio
import anyio.lowlevel
import httpcore
import structlog

from service.errors import SourceFailedError, SourceRefusedError, SourceSlowError, TooLargeError
from service.pull.public_addresses import is_public
from service.pull.sources import Validators

log = structlog.get_logger(__name__)

MAX_REDIRECTS = 3

# How long a source may take to accept a connection, how long it may be silent, and how long a fetch may take in total, in seconds.
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 10.0
FETCH_SECONDS = 20.0

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

# The maximum number of fetches at a time: each has a spool file and a socket.
MAX_CONCURRENT_FETCHES = 16

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"https": 443, "http": 80}

# RFC 1123 §2.1: letters, digits, hyphens. A name whose last label is a number is a notation of an IPv4 address.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_ENTRY = re.compile(r"(?:(https?)://)?(\*\.)?([^/:*\[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)

# RFC 3986 §2: the characters that a URL may have.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Write = Callable[[bytes], Awaitable[None]]


class AllowedHost(NamedTuple):
    """A host that images may be fetched from, or with `subdomains` every host below it.

    `schemes`: `https`, or both. `port`: `None` stands for the default port of the scheme.
    """

    schemes: frozenset[str]
    name: str
    subdomains: bool
    port: int | None

    def allows(self, parts: SplitResult) -> bool:
        """Return whether a URL has this host, and an allowed scheme and port."""
        host = parts.hostname or ""
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        named = host.endswith(f".{self.name}") if self.subdomains else host == self.name
        return named and parts.scheme in self.schemes and port == (self.port or _DEFAULT_PORTS[parts.scheme])


class AllowedHosts:
    """The hosts that images may be fetched from."""

    def __init__(self, hosts: Iterable[AllowedHost]) -> None:
        """Allow these hosts.

        hosts: in any order.
        """
        self._hosts = tuple(hosts)

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedHosts:
        """Return the hosts of entries such as `images.example.com`, `*.example.com`, `http://old.example.com:8080`; raises `ValueError`.

        An entry without a scheme allows only https, one with `http://` both. An entry without a port allows only the scheme's default.
        """
        return cls(_parse_entry(entry) for entry in entries)

    def allow(self, parts: SplitResult) -> bool:
        """Return whether a URL may be fetched."""
        return any(host.allows(parts) for host in self._hosts)


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of a host, in the order in which to try them; raises `OSError`."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class SourceFetcher:
    """Fetches from remote sources. No connection is reused, and no proxy and no credentials of the environment are used."""

    def __init__(
        self,
        allowed: AllowedHosts,
        *,
        max_bytes: int,
        is_allowed_address: Callable[[str], bool] = is_public,
        resolve: Resolve = resolve_host,
    ) -> None:
        """Set up the connection pool.

        allowed: the hosts that may be fetched from, redirects included.
        max_bytes: the maximum size of an image in bytes.
        is_allowed_address: returns whether a connection to an IP address may be made.
        resolve: returns the IP addresses of a host and port.
        """
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._fetches = anyio.Semaphore(MAX_CONCURRENT_FETCHES)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(),
            max_connections=MAX_CONCURRENT_FETCHES,
            # After a suspend of this machine an idle connection is dead; one more handshake costs little next to an image.
            max_keepalive_connections=0,
            network_backend=_PublicAddressBackend(is_allowed_address, resolve),
        )

    def __repr__(self) -> str:
        return f"<SourceFetcher: {MAX_CONCURRENT_FETCHES - self._fetches.value} fetches>"

    def normalize(self, url: str) -> str:
        """Return a URL in its normal form (RFC 3986 §6.2); raises `SourceRefusedError` if it may not be fetched."""
        return _normal(self._split_allowed(url))

    async def fetch(self, url: str, validators: Validators, write: Write) -> Validators | None:
        """Fetch an image, pass its bytes to `write`, and return its validators; return `None` if the source responds 304 Not Modified.

        validators: those of the last response; with any, the request is conditional.

        Raises `SourceRefusedError`, `SourceFailedError`, `SourceSlowError`, `TooLargeError`, and the errors of `write`.
        """
        try:
            with anyio.fail_after(FETCH_SECONDS):
                async with self._fetches, _translate_errors(url):
                    return await self._fetch(url, validators, write)
        except TimeoutError:
            raise SourceSlowError(
                "The source took too long.",
                expected=f"an image within {FETCH_SECONDS:g} seconds",
                received="none yet",
                remedy="Try again later, or upload the image's bytes.",
                retry_after_seconds=30,
            ) from None

    async def _fetch(self, url: str, validators: Validators, write: Write) -> Validators | None:
        fields = [("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "darkroom")]
        fields += [("If-None-Match", validators.etag)] if validators.etag else []
        fields += [("If-Modified-Since", validators.last_modified)] if validators.last_modified else []
        for _ in range(1 + MAX_REDIRECTS):
            parts = self._split_allowed(url)
            timeouts = {"connect": CONNECT_SECONDS, "read": SILENCE_SECONDS, "write": SILENCE_SECONDS, "pool": None}
            normal_url = _normal(parts)
            headers = [("Host", urlsplit(normal_url).netloc), *fields]
            async with self._pool.stream("GET", normal_url, headers=headers, extensions={"timeout": timeouts}) as response:
                location = _field(response, b"location")
                if response.status not in _REDIRECTS or not location:
                    return await self._read(response, validators, write)
            url = urljoin(normal_url, location)
        raise SourceFailedError(
            "The source redirects too often.",
            expected=f"an image after at most {MAX_REDIRECTS} redirects",
            received=f"{MAX_REDIRECTS + 1} redirects",
            remedy="Use the URL that the redirects end at.",
        )

    async def _read(self, response: httpcore.Response, sent: Validators, write: Write) -> Validators | None:
        if response.status == 304 and sent != Validators():
            return None
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

    def _split_allowed(self, url: str) -> SplitResult:
        """Return the parts of a URL that may be fetched; raises `SourceRefusedError` for any other, and for ambiguous ones."""
        if not url.isascii() or _URL.fullmatch(url) is None:
            raise _refused(
                "This is not a URL.",
                url,
                "letters, digits and -._~:/?#[]@!$&'()*+,;=%",
                "Percent-encode all other characters; write the host in Punycode.",
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _refused("This is not a URL.", url, "https://host/path", "Correct the URL.") from None
        host = parts.hostname or ""
        if parts.scheme not in _DEFAULT_PORTS or not host or port == 0:
            raise _refused("This URL cannot be fetched.", url, "https://host/path", "Use a URL with https.")
        if "@" in parts.netloc:
            raise _refused("A URL with a user name is not fetched.", url, "no user name and no password", "Remove them from the URL.")
        if not self._allowed.allow(parts):
            raise _refused(
                "This host is not allowed.",
                f"{parts.scheme}://{parts.netloc}",
                "a host that DARKROOM_PULL_HOSTS allows",
                "Add the host to DARKROOM_PULL_HOSTS on the server, or upload the image's bytes.",
            )
        return parts


class _PublicAddressBackend(httpcore.AsyncNetworkBackend):
    """Connects only to allowed addresses. A name is resolved once, and the connection made to the address that was checked.

    A name that does not exist and one with an internal address fail with the same error after the same time: with a wildcard in
    `DARKROOM_PULL_HOSTS` a difference would reveal the hosts of the internal network. Only the log says which it was.
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


def _parse_entry(text: str) -> AllowedHost:
    match = _ENTRY.fullmatch(text)
    scheme, wildcard, host, digits = match.groups() if match else (None, None, "", None)
    name = host.strip("[]").lower()
    port = int(digits) if digits else None
    is_address = host.startswith("[") or _NUMERIC.fullmatch(name) is not None
    if (
        not name
        or (not host.startswith("[") and _NAME.fullmatch(name) is None)
        or (is_address and wildcard)
        or port == 0
        or (port or 0) > 65_535
    ):
        raise ValueError(f"{text!r} is not a host. Expected images.example.com, *.example.com, or http://images.example.com:8080.")
    return AllowedHost(frozenset({"https", "http"} if scheme == "http" else {"https"}), name, bool(wildcard), port)


def _normal(parts: SplitResult) -> str:
    """Return a URL with a lower-case host, no default port and no fragment (RFC 3986 §6.2.2, §6.2.3)."""
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}{query}"


def _field(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1").strip() for field, value in response.headers if field.lower() == name), "")


def _validator(response: httpcore.Response, name: bytes) -> str:
    # It will be sent back unchanged: one that is very long, or not printable ASCII, is ignored.
    value = _field(response, name)
    return value if len(value) <= 1_000 and value.isascii() and value.isprintable() else ""


def _refused(detail: str, received: str, expected: str, remedy: str) -> SourceRefusedError:
    return SourceRefusedError(detail, expected=expected, received=received, remedy=remedy)

"""Fetch a source over HTTP, safely: allowed hosts, public addresses, bounded bytes and time."""

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
from service.pull.validators import Validators

log = structlog.get_logger(__name__)

MAX_REDIRECTS = 3

# A source may take so long to be connected to, be silent so long, and take so long in all, in seconds.
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 10.0
FETCH_SECONDS = 20.0

# The header of a response may have so many bytes, with interim responses (RFC 9110 §15.2) before it and the beginning of the body: the
# smallest interim response has 17. It is read a page at a time, so that parsing never holds up others for more than milliseconds.
MAX_HEADER_BYTES = 32 << 10
_HEADER_READ_BYTES = 4 << 10
_BODY_READ_BYTES = 64 << 10

# A body may come in so many pieces of less than a kilobyte, at about 10 µs of CPU each: a server that sends a file of 25 MB line by line
# stays below it. The framing of chunks (RFC 9112 §7.1) may have so many bytes beside those of the body.
MAX_SMALL_PIECES = 100_000
_SMALL_PIECE_BYTES = 1 << 10
_MAX_FRAMING_BYTES = 1 << 20

# After so many pieces others have their turn.
_PIECES_AT_A_TIME = 64

# A host that leads nowhere fails at the end of a step of so many seconds: how soon a resolver knows a name says which names there are.
UNREACHABLE_STEP_SECONDS = 1.0

# As many fetches at a time: each has a spool file and a socket.
MAX_CONCURRENT_FETCHES = 16

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"https": 443, "http": 80}

# RFC 1123 §2.1: letters, digits, hyphens. What ends in a number is an IPv4 address in one of its spellings.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_ENTRY = re.compile(r"(?:(https?)://)?(\*\.)?([^/:*\[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)

# RFC 3986 §2: all that a URL may consist of.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Write = Callable[[bytes], Awaitable[None]]


class AllowedHost(NamedTuple):
    """A host that may be asked, or with `subdomains` every host below it, by these schemes, at this port."""

    schemes: frozenset[str]
    name: str
    subdomains: bool
    port: int | None

    def allows(self, parts: SplitResult) -> bool:
        """Return whether a URL is of this host."""
        host = parts.hostname or ""
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        named = host.endswith(f".{self.name}") if self.subdomains else host == self.name
        return named and parts.scheme in self.schemes and port == (self.port or _DEFAULT_PORTS[parts.scheme])


class AllowedHosts:
    """The hosts that may be asked."""

    def __init__(self, hosts: Iterable[AllowedHost]) -> None:
        """Take each."""
        self._hosts = tuple(hosts)

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedHosts:
        """Return the hosts of entries such as `images.example.com`, `*.example.com`, `http://old.example.com:8080`; raises `ValueError`.

        Without a scheme, https alone; with `http://`, both; without a port, that of the scheme alone.
        """
        return cls(_entry(entry) for entry in entries)

    def allow(self, parts: SplitResult) -> bool:
        """Return whether a URL may be asked for."""
        return any(host.allows(parts) for host in self._hosts)


async def resolved(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, in the order in which to try them; raises `OSError`."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class SourceFetcher:
    """Remote sources. No connection is kept, no proxy or credential of the environment is used."""

    def __init__(
        self, allowed: AllowedHosts, *, max_bytes: int, is_allowed_address: Callable[[str], bool] = is_public, resolve: Resolve = resolved
    ) -> None:
        """Take what may be asked, the most bytes of an image, and how names and addresses are looked at."""
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._fetches = anyio.Semaphore(MAX_CONCURRENT_FETCHES)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(),
            max_connections=MAX_CONCURRENT_FETCHES,
            # After a suspend a kept connection is dead; one more handshake is nothing against an image.
            max_keepalive_connections=0,
            network_backend=_PublicAddressBackend(is_allowed_address, resolve),
        )

    def check(self, url: str) -> str:
        """Return a URL in its normal spelling if it may be asked for; raises `SourceRefusedError`."""
        return _normal(self._checked(url))

    async def fetch(self, url: str, validators: Validators, write: Write) -> Validators | None:
        """Give `write` the bytes that a URL leads to, and return their validators; `None` where those given still hold.

        Raises `SourceRefusedError`, `SourceFailedError`, `SourceSlowError`, `TooLargeError`, and what `write` raises.
        """
        try:
            with anyio.fail_after(FETCH_SECONDS):
                async with self._fetches, _failures(url):
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
            parts = self._checked(url)
            timeouts = {"connect": CONNECT_SECONDS, "read": SILENCE_SECONDS, "write": SILENCE_SECONDS, "pool": None}
            asked = _normal(parts)
            headers = [("Host", urlsplit(asked).netloc), *fields]
            async with self._pool.stream("GET", asked, headers=headers, extensions={"timeout": timeouts}) as response:
                location = _field(response, b"location")
                if response.status not in _REDIRECTS or not location:
                    return await self._taken(response, validators, write)
            url = urljoin(asked, location)
        raise SourceFailedError(
            "The source redirects too often.",
            expected=f"an image after at most {MAX_REDIRECTS} redirects",
            received=f"{MAX_REDIRECTS + 1} redirects",
            remedy="Use the URL that the redirects end at.",
        )

    async def _taken(self, response: httpcore.Response, held: Validators, write: Write) -> Validators | None:
        if response.status == 304 and held != Validators():
            return None
        if response.status != 200:
            raise SourceFailedError(
                "The source has no image at this URL.",
                expected="status 200",
                received=f"status {response.status}",
                remedy="Open the URL in a browser without being logged in anywhere: that is what is fetched.",
                source_status=response.status,
            )
        encoding = _field(response, b"content-encoding")
        if encoding.lower() not in {"", "identity"}:
            raise SourceFailedError(
                "The source sends the image compressed once more.",
                expected="no Content-Encoding",
                received=encoding,
                remedy="Have the source send images as they are.",
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
                    remedy="Have the source send larger chunks, or a Content-Length.",
                )
            if pieces % _PIECES_AT_A_TIME == 0:
                # Many pieces come from one read, after which nothing is waited for.
                await anyio.lowlevel.checkpoint()
            await write(chunk)
        return Validators(_validator(response, b"etag"), _validator(response, b"last-modified"))

    def _too_large(self, received: str) -> TooLargeError:
        return TooLargeError(
            "The source's image is larger than is taken.",
            expected=f"at most {self._max_bytes} bytes",
            received=received,
            remedy="Use a smaller image, or raise DARKROOM_MAX_UPLOAD_BYTES on the server.",
        )

    def _checked(self, url: str) -> SplitResult:
        """Return the parts of a URL that may be asked for: of http or https, of an allowed host, and nothing in it that hides another."""
        if not url.isascii() or _URL.fullmatch(url) is None:
            raise _refused(
                "This is no URL.", url, "letters, digits and -._~:/?#[]@!$&'()*+,;=%", "Encode other characters; hosts in punycode."
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _refused("This is no URL.", url, "https://host/path", "Correct it.") from None
        host = parts.hostname or ""
        if parts.scheme not in _DEFAULT_PORTS or not host or port == 0:
            raise _refused("This URL is not fetched.", url, "https://host/path", "Use one with https.")
        if "@" in parts.netloc:
            raise _refused("A URL with a user name is not fetched.", url, "no user name and no password", "Leave them out.")
        if not self._allowed.allow(parts):
            raise _refused(
                "This host is not asked.",
                f"{parts.scheme}://{parts.netloc}",
                "a host that DARKROOM_PULL_HOSTS allows",
                "Add the host to DARKROOM_PULL_HOSTS on the server, or upload the image's bytes.",
            )
        return parts


class _PublicAddressBackend(httpcore.AsyncNetworkBackend):
    """Connects to an address that has been looked at: the name is resolved once, so that it cannot lead elsewhere a moment later.

    A name that does not exist fails as one of the network inside does, in words and in time: under an allowed wildcard the difference
    would list the hosts inside. The log has the truth.
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
        """Return the addresses of a host; none where it has none, or one that is not public."""
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
    """A connection for one response whose bytes are counted: httpcore bounds neither interim responses nor the framing of chunks.

    It drops 1xx responses for as long as they come, and parses all that one read gave before anything else runs.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_HEADER_BYTES
        self._most_at_once = _HEADER_READ_BYTES

    def expect_body(self, max_bytes: int) -> None:
        """Allow a body of `max_bytes` bytes, and what frames it: the header is complete."""
        self._left = max_bytes + _MAX_FRAMING_BYTES
        self._most_at_once = _BODY_READ_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's own
        if self._left <= 0:
            raise httpcore.RemoteProtocolError("more bytes than a response may have")
        data = await self._stream.read(min(max_bytes, self._most_at_once, self._left), timeout)
        self._left -= len(data)
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
async def _failures(url: str) -> AsyncIterator[None]:
    try:
        yield
    except (httpcore.ConnectTimeout, httpcore.ReadTimeout, httpcore.WriteTimeout) as error:
        raise SourceSlowError(
            "The source does not answer.",
            expected=f"a connection within {CONNECT_SECONDS:g} seconds, and no silence longer than {SILENCE_SECONDS:g}",
            received=type(error).__name__,
            remedy="Try again later.",
            retry_after_seconds=30,
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        log.info("a source failed", url=url, cause=str(error))
        raise SourceFailedError(
            "The source cannot be reached, or does not respond with valid HTTP.",
            expected="a server with public addresses only, that can be connected to and verified, and that speaks HTTP/1.1",
            received=type(error).__name__,
            remedy="Check the URL and the server that it names; upload the image's bytes if it is not on the public internet.",
            retry_after_seconds=30,
        ) from error


def _entry(text: str) -> AllowedHost:
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
        raise ValueError(f"{text!r} is no host. Expected images.example.com, *.example.com, or http://images.example.com:8080.")
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
    # It is sent back as it came: what is very long, or is no text, is not worth the trouble.
    value = _field(response, name)
    return value if len(value) <= 1_000 and value.isascii() and value.isprintable() else ""


def _refused(detail: str, received: str, expected: str, remedy: str) -> SourceRefusedError:
    return SourceRefusedError(detail, expected=expected, received=received, remedy=remedy)

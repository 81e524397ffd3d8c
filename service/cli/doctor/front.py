"""The server that runs here, and what stands in front of it: it fetches a rendition through `DARKROOM_PUBLIC_URL`.

The response is compared with that of the server itself if it runs on this machine, and otherwise with what a server sends.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.streams.tls
import httpcore
import msgspec

from service.cli.doctor.configuration import is_public_url, signing_keys
from service.cli.doctor.finding import Finding, Severity, from_error, ok, skipped
from service.cli.doctor.store import clock_finding
from service.cli.serve import check_port_is_free
from service.errors import ServiceError, SettingsError
from service.http.headers import IMMUTABLE
from service.images.transform import PIPELINE_VERSION
from service.settings.environment import Configuration
from service.settings.sections import Settings
from service.storage.keys import RECENT_PREFIX
from service.storage.object_store import open_storage
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from service.version import VERSION

# How a request can fail without a response.
FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol)

_CONNECT_SECONDS = 5.0
# A rendition may have to be made first.
_READ_SECONDS = 60.0

_RANGE_BYTES = 100

# Fields that a page of another origin, or a browser's security, needs.
_FIELDS = (
    "access-control-allow-origin",
    "cross-origin-resource-policy",
    "timing-allow-origin",
    "x-content-type-options",
    "content-security-policy",
)

# Fields by which CDNs say what they did.
_VERDICTS = ("cf-cache-status", "x-cache", "x-cache-status", "x-vercel-cache", "x-nginx-cache", "cache-status")


class Fetched(msgspec.Struct, frozen=True):
    """A response. status: its code. body: as it was received, not decompressed. at: the Unix time in the middle of the exchange."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float
    seconds: float

    def get(self, name: str) -> str:
        """Return the value of a header field by its name in lower case, "" without one."""
        return self.headers.get(name, "")


async def check_server(configuration: Configuration) -> AsyncIterator[Finding]:
    """Find out whether the server runs here and is healthy, or whether it could listen on its port."""
    server = configuration.settings.server
    base = _own_url(configuration.settings)
    async with _client() as client:
        try:
            health = await _fetch(client, f"{base}/health")
        except httpcore.ConnectError:
            try:
                check_port_is_free("DARKROOM_PORT", server.host, server.port, "choose another port")
            except SettingsError as error:
                yield from_error("port", error)
            else:
                yield skipped("server", f"No server runs at {base}.", "Start it, and run this command again: more can be checked then.")
            return
        except FAILURES as error:
            yield _port_in_use(base, f"{type(error).__name__}: {error}")
            return
    report = _report_of(health)
    if report is None:
        yield _port_in_use(base, _describe(health))
        return
    for finding in _check_report(base, report):
        yield finding


async def check_front(configuration: Configuration) -> AsyncIterator[Finding]:
    """Fetch a rendition through the public URL, and say what the CDN or the proxy in front did with it."""
    settings = configuration.settings
    url = settings.server.public_url
    if not url:
        yield skipped("front", "DARKROOM_PUBLIC_URL is not set.", "Set it to the URL that clients use.")
        return
    if url.startswith("http://") and is_public_url(url):
        yield Finding(
            "plain-http", "warning", "Clients use plain HTTP.", "https://", url, "Set up TLS in front, and change DARKROOM_PUBLIC_URL."
        )
    async with _client() as client:
        try:
            found = [finding async for finding in _check_public(client, configuration)]
        except FAILURES as error:
            yield _unreachable(url, error)
            return
    for finding in found:
        yield finding


async def _check_public(client: httpcore.AsyncConnectionPool, configuration: Configuration) -> AsyncIterator[Finding]:
    settings = configuration.settings
    url = settings.server.public_url
    health = await _fetch(client, f"{url}/health")
    if date := _date_of(health):
        yield clock_finding(url, date, health.at, health.seconds + float(health.get("age") or 0))
    if _report_of(health) is None:
        yield Finding(
            "another-server",
            "error",
            f"{url}/health is not the health of a Darkroom server.",
            "its JSON",
            _describe(health),
            "Check DARKROOM_PUBLIC_URL, and that everything in front passes all paths on unchanged.",
        )
        return
    again = await _fetch(client, f"{url}/health")
    # The server gives each of these responses an id of its own.
    ids = [response.get("x-request-id") for response in (health, again)]
    if ids[0] == ids[1] if all(ids) else again.get("age") not in {"", "0"}:
        yield Finding(
            "stores-no-store",
            "error",
            "A cache in front stores responses with Cache-Control: no-store.",
            "a new response to each request for /health",
            "the same one twice",
            "Let it obey Cache-Control and CDN-Cache-Control, without a minimum lifetime of its own: errors and documents would get stuck.",
        )
    if url.startswith("https://") and (protocol := await _best_protocol(url)) != "h2":
        yield Finding(
            "http-version",
            "note",
            "Clients use HTTP/1.1.",
            "HTTP/2 or later, with which a page fetches many pictures at once",
            protocol or "no ALPN",
            "Enable it: `http2 on;` in nginx, or `listen … ssl http2;` before version 1.25.",
        )
    try:
        path = await _rendition_path(configuration)
    except (ServiceError, SettingsError) as error:
        yield skipped("rendition", f"No image can be read from the store: {error}")
        return
    if path is None:
        yield skipped("rendition", "The store has no image yet.", "Upload one, and run this command again: it fetches a rendition of it.")
        return
    for finding in await _check_rendition(client, settings, path):
        yield finding


async def _check_rendition(client: httpcore.AsyncConnectionPool, settings: Settings, path: str) -> list[Finding]:
    url = f"{settings.server.public_url}{path}"
    first = await _fetch(client, url)
    if first.status != 200:
        return [_refused(url, first)]
    await _until_changed(first)
    second = await _fetch(client, url)
    try:
        direct = await _fetch(client, f"{_own_url(settings)}{path}")
    except FAILURES:
        direct = None
    reference = direct if direct is not None and direct.status == 200 else None
    is_stored = _is_stored_in_front(first, second)
    found = [
        *_check_caching(settings, second, is_stored=is_stored),
        *_check_representation(second, reference),
        *_check_fields(second, reference),
        *await _check_requests(client, url, second),
    ]
    return found or [ok("rendition", f"{url} arrives as this server sent it.")]


def _check_caching(settings: Settings, response: Fetched, *, is_stored: bool) -> Iterator[Finding]:
    is_cloudflare = "cf-ray" in response.headers
    verdict = next((f"{name}: {response.get(name)}" for name in _VERDICTS if name in response.headers), "no field that says so")
    if is_stored:
        yield ok("cache", f"A cache in front stores renditions (Age: {response.get('age') or 'not stated'}; {verdict}).")
    else:
        yield Finding(
            "no-cache",
            "warning" if is_cloudflare else "note",
            "Nothing in front stores renditions.",
            "the second request answered from a cache near the client",
            verdict,
            "Add a cache rule for this host: docs/deployments.md has one."
            if is_cloudflare
            else "Put a CDN in front, if clients are far away or many.",
        )
    if response.get("cache-control") != IMMUTABLE:
        yield _changed(
            "cache-control",
            "Cache-Control of a rendition is not what this server sends.",
            IMMUTABLE,
            response.get("cache-control"),
            "Let it through unchanged: browsers load a picture again that they could keep. In nginx, remove `expires` and "
            "`add_header Cache-Control`; at a CDN, let the browser TTL respect the origin.",
        )
    if "cdn-cache-control" not in response.headers and not is_stored:
        yield Finding(
            "cdn-cache-control",
            "warning",
            "CDN-Cache-Control is removed in front, by something that stores nothing.",
            "the field, for CDNs further out (RFC 9213)",
            "none",
            "Remove `proxy_hide_header CDN-Cache-Control` or its like.",
        )
    if is_cloudflare and not settings.cloudflare.zone:
        yield Finding(
            "cloudflare-not-purged",
            "warning",
            "Cloudflare is in front, and takedowns do not purge it.",
            "DARKROOM_CLOUDFLARE_ZONE and DARKROOM_CLOUDFLARE_TOKEN",
            "neither",
            "Set both: otherwise an image that was taken down is served there for up to a year.",
        )


def _check_representation(response: Fetched, direct: Fetched | None) -> Iterator[Finding]:
    if encoding := response.get("content-encoding"):
        yield _changed(
            "compressed",
            "Pictures are compressed once more.",
            "no Content-Encoding",
            encoding,
            "Leave image/* out of what is compressed (`gzip_types` in nginx): it costs time and makes the ETag weak.",
            severity="warning",
        )
    elif not _has_right_bytes(response, direct):
        yield _changed(
            "bytes",
            "Something in front changes the bytes of pictures.",
            "the bytes that this server sent",
            f"{len(response.body)} other bytes",
            "Switch off what optimizes pictures or rewrites content there, such as Polish, Mirage, Image Optimization or sub_filter.",
        )
    expected_type = "image/webp" if direct is None else direct.get("content-type")
    if response.get("content-type") != expected_type:
        yield _changed(
            "content-type",
            "The media type of a picture is changed.",
            expected_type,
            response.get("content-type"),
            "Let Content-Type through unchanged.",
        )
    etag = response.get("etag")
    if etag.startswith("W/"):
        yield _changed(
            "etag-weak",
            "The ETag is made weak.",
            "a strong one" if direct is None else direct.get("etag"),
            etag,
            "Switch off compression and rewriting of pictures in front: a download that broke off cannot continue with a weak ETag.",
            severity="warning",
        )
    elif not etag or (direct is not None and etag != direct.get("etag")):
        yield _changed(
            "etag",
            "The ETag is removed or replaced.",
            "an ETag" if direct is None else direct.get("etag"),
            etag,
            "Let it through: without it, nothing can be revalidated. In nginx, remove `etag off` and `proxy_hide_header ETag`.",
            severity="warning",
        )


def _check_fields(response: Fetched, direct: Fetched | None) -> Iterator[Finding]:
    if vary := response.get("vary"):
        yield _changed(
            "vary",
            "Vary is added to a rendition, whose bytes depend on nothing but its URL.",
            "no Vary",
            vary,
            "Remove it (`gzip_vary` in nginx, rules for Accept or Origin at a CDN): caches store each picture many times.",
            severity="warning",
        )
    if "set-cookie" in response.headers:
        yield _changed(
            "cookie",
            "A cookie is set with a picture.",
            "no Set-Cookie",
            "Set-Cookie",
            "Switch it off for this host: many caches do not store such responses.",
            severity="warning",
        )
    lost = [name for name in _FIELDS if name not in response.headers and (direct is None or name in direct.headers)]
    if lost:
        yield _changed(
            "fields",
            "Header fields of renditions are removed.",
            ", ".join(lost),
            "",
            "Let them through: pages of other origins need them to use a picture, and browsers to refuse what is none.",
            severity="warning",
        )


async def _check_requests(client: httpcore.AsyncConnectionPool, url: str, response: Fetched) -> list[Finding]:
    found = []
    if etag := response.get("etag"):
        revalidated = await _fetch(client, url, {"If-None-Match": etag})
        if revalidated.status != 304:
            found.append(
                _changed(
                    "revalidation",
                    "A request with If-None-Match gets the whole picture.",
                    "304",
                    str(revalidated.status),
                    "Let If-None-Match and ETag through.",
                    severity="warning",
                )
            )
    part = await _fetch(client, url, {"Range": f"bytes=0-{_RANGE_BYTES - 1}"})
    if part.status != 206 or len(part.body) != min(_RANGE_BYTES, len(response.body)):
        found.append(
            _changed(
                "range",
                "A request for a range does not get it.",
                f"206 with {_RANGE_BYTES} bytes",
                f"{part.status} with {len(part.body)} bytes",
                "Let Range and Content-Range through (`max_ranges` in nginx): a download that broke off begins again.",
                severity="warning",
            )
        )
    return found


async def _rendition_path(configuration: Configuration) -> str | None:
    """Return the signed path of the narrowest step of the newest image, `None` if there is no image or no key."""
    settings = configuration.settings
    storage = open_storage(settings.storage.url, configuration.variables.texts, create=False)
    names = await storage.list_names_after(RECENT_PREFIX, "", 1)
    keys = signing_keys(settings)
    if not names or not keys:
        return None
    url = RenditionUrl(PIPELINE_VERSION, names[0].partition("-")[2], f"width={settings.rendering.widths[0]}", "webp")
    return Signer(keys).sign(url)


def _check_report(base: str, report: dict[str, Any]) -> Iterator[Finding]:
    """Yield what the server itself reports."""
    status, reason, remedy = (report.get(name) for name in ("status", "reason", "remedy"))
    if status == "ok":
        yield ok("server", f"The server at {base} is healthy.")
    else:
        severity: Severity = "warning" if status == "degraded" else "error"
        yield Finding("unhealthy-server", severity, f"The server at {base} is {status}: {reason}", "ok", status, remedy)
    if report["version"] != VERSION:
        yield Finding(
            "other-version",
            "warning",
            f"The server at {base} runs another version than this command.",
            VERSION,
            str(report["version"]),
            "Restart the server after an upgrade.",
        )


def _port_in_use(base: str, found: str) -> Finding:
    return Finding(
        "port-in-use",
        "error",
        f"Another program listens at {base}.",
        "a Darkroom server, or nothing",
        found,
        "Stop it, or choose another DARKROOM_PORT.",
    )


def _refused(url: str, response: Fetched) -> Finding:
    if response.status == 403:
        return Finding(
            "signature-refused",
            "error",
            f"{url} is refused.",
            "200",
            _describe(response),
            "Set the same DARKROOM_KEYS here and on the servers behind DARKROOM_PUBLIC_URL, and let proxies pass paths on as they are.",
        )
    return Finding(
        "rendition-fails",
        "error",
        f"{url} cannot be fetched.",
        "200",
        _describe(response),
        "Let everything in front pass paths on unchanged, and read the log of the server with the X-Request-Id of the response.",
    )


def _unreachable(url: str, error: Exception) -> Finding:
    text = str(error) or type(error).__name__
    remedy = (
        "Renew or correct the certificate of what stands in front."
        if "certificate" in text.lower()
        else "Check the name in the DNS, the firewall, and that what stands in front runs and reaches this server."
    )
    return Finding("unreachable", "error", f"{url} cannot be reached.", "a response", text, remedy)


def _changed(name: str, detail: str, expected: str, found: str, remedy: str, *, severity: Severity = "error") -> Finding:
    return Finding(f"front-{name}", severity, detail, expected, found or "none", remedy)


def _has_right_bytes(response: Fetched, direct: Fetched | None) -> bool:
    """Return whether the body is the one that its digest (RFC 9530) or the direct response has; true if neither is known."""
    stated = (direct or response).get("repr-digest")
    if direct is None and not stated:
        return True
    digest = base64.b64encode(hashlib.sha256(response.body).digest()).decode("ascii")
    return stated == f"sha-256=:{digest}:" if stated else direct is not None and direct.body == response.body


def _is_stored_in_front(first: Fetched, second: Fetched) -> bool:
    """Return whether the second response to the same request did not come from the server; see `_until_changed`."""
    own = [_own_cache_status(response) for response in (first, second)]
    if all(own):
        return own[0] == own[1]
    # It is removed or replaced in front.
    return any(re.search(r"\bhit\b", second.get(name), re.IGNORECASE) for name in _VERDICTS)


async def _until_changed(first: Fetched) -> None:
    """Wait until the server's own `Cache-Status` has another lifetime, if it has a lifetime that goes on; a stored one stands still."""
    if "; hit" in _own_cache_status(first):
        await anyio.sleep(1.1)


def _own_cache_status(response: Fetched) -> str:
    """Return what the edge of the server says in `Cache-Status` (RFC 9211), "" if it does not arrive."""
    members = re.split(r",\s*(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", response.get("cache-status"))
    return next((member for member in members if member.startswith("darkroom")), "")


def _report_of(response: Fetched) -> dict[str, Any] | None:
    """Return the report of a Darkroom server in the response to /health, `None` if there is none."""
    try:
        report = msgspec.json.decode(response.body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return report if {"status", "version"} <= report.keys() else None


def _describe(response: Fetched) -> str:
    where = f" to {response.get('location')}" if "location" in response.headers else ""
    server = f" of {response.get('server')}" if "server" in response.headers else ""
    return f"{response.status}{where} ({response.get('content-type') or 'no media type'}){server}"


def _date_of(response: Fetched) -> float | None:
    try:
        return parsedate_to_datetime(response.get("date")).timestamp()
    except ValueError:
        return None


async def _best_protocol(url: str) -> str | None:
    """Return the protocol that a server chooses by ALPN (RFC 7301), `None` if it chooses none."""
    parts = urlsplit(url)
    context = httpcore.default_ssl_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            stream = await anyio.connect_tcp(parts.hostname or "", parts.port or 443, ssl_context=context, tls_standard_compatible=False)
            async with stream:
                return stream.extra(anyio.streams.tls.TLSAttribute.alpn_protocol)  # noqa: S610 - not Django's
    except (OSError, TimeoutError):
        return None


def _own_url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(settings.server.host, settings.server.host)  # noqa: S104 - not to listen on
    return f"http://[{host.strip('[]')}]:{settings.server.port}" if ":" in host else f"http://{host}:{settings.server.port}"


def _client() -> httpcore.AsyncConnectionPool:
    # The certificates of this machine, and those in SSL_CERT_FILE.
    return httpcore.AsyncConnectionPool(ssl_context=httpcore.default_ssl_context(), network_backend=httpcore.AnyIOBackend())


async def _fetch(client: httpcore.AsyncConnectionPool, url: str, fields: Mapping[str, str] = MappingProxyType({})) -> Fetched:
    """Return a response as it was received; raises one of `FAILURES`."""
    started, started_at = time.monotonic(), time.time()
    timeout = {"connect": _CONNECT_SECONDS, "read": _READ_SECONDS, "write": _READ_SECONDS, "pool": _READ_SECONDS}
    headers: list[tuple[bytes | str, bytes | str]] = [("Accept-Encoding", "gzip, br"), ("Accept", "*/*"), *fields.items()]
    response = await client.request("GET", url, headers=headers, extensions={"timeout": timeout})
    seconds = time.monotonic() - started
    received: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        received[name] = f"{received[name]}, {value}" if name in received else value
    return Fetched(response.status, received, response.content, started_at + seconds / 2, seconds)

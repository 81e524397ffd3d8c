"""Buckets of the three clouds for tests of sources: S3 is moto behind a proxy, the other two are small stand-ins written here.

The stand-ins speak as much of the XML API of Google Cloud Storage and of the REST API of Azure Blob Storage as obstore's clients use to
read: objects with `ETag`, conditions and ranges, listings in pages, and errors in the stores' own format. fake-gcs-server (Go) and Azurite
(npm) know more, but take minutes to build or 180 MB to install. The stand-ins respond as these two do wherever the tests look; they accept
any signature of the right account.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import httpx

from tests.support.s3 import Bucket, moto_bucket
from tests.support.s3_proxy import Request, S3Proxy, s3_proxy_of
from tests.support.server import HOST, free_port
from tests.support.waiting import PATIENCE_SECONDS

Kind: TypeAlias = Literal["s3", "gs", "az"]
KINDS: tuple[Kind, ...] = ("s3", "gs", "az")

ACCOUNT = "account"
BUCKET = "pictures"

# A key in the format of Azure's.
AZURE_KEY = "c2VjcmV0LWtleS1vZi10aGUtdGVzdHM="
AWS_SECRET = "secret-key-of-the-tests"

# How many objects a page of a listing has.
PAGE_OBJECTS = 1_000

_CODES = {
    "gs": {404: "NoSuchKey", 403: "AccessDenied", 401: "AuthenticationRequired", 500: "InternalError", "bucket": "NoSuchBucket"},
    "az": {
        404: "BlobNotFound",
        403: "AuthorizationFailure",
        401: "NoAuthenticationInformation",
        500: "InternalError",
        "bucket": "ContainerNotFound",
    },
}


class Failure(NamedTuple):
    """What the server does in place of its work: respond with a status and an error code, or send only the first part of a body."""

    status: int = 0
    code: str = ""
    breaks_off: bool = False


class BucketServer:
    """A bucket of one cloud, as the tests and as Darkroom see it.

    location: its URL in `DARKROOM_SOURCES`. environment: the variables that Darkroom needs, without a prefix.
    failure_for: returns how a request for a key fails, `None` if it does not. requests: the keys that were requested, "" for a listing.
    is_public: whether requests without credentials succeed; objects on moto are always public, and the stand-in of Google's asks for none.
    """

    def __init__(self, kind: Kind, location: str, environment: dict[str, str]) -> None:
        self.kind = kind
        self.location = location
        self.environment = environment
        self.failure_for: Callable[[str], Failure | None] = lambda _: None
        self.requests: list[str] = []
        self.is_public = False
        # Of the stand-ins only: the keys of objects whose bytes were sent, in order, and the last request's credentials.
        self.bodies: list[str] = []
        self.authorization = ""

    def put(self, key: str, body: bytes, *, coding: str = "") -> None:
        """Create or replace an object."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Remove an object."""
        raise NotImplementedError

    def stop(self) -> None:
        """Refuse connections from now on."""
        raise NotImplementedError

    def start(self) -> None:
        """Accept connections again."""
        raise NotImplementedError


class _Moto(BucketServer):
    def __init__(self, bucket: Bucket, proxy: S3Proxy) -> None:
        environment = {**proxy.environment, "AWS_SECRET_ACCESS_KEY": AWS_SECRET}
        super().__init__("s3", f"s3://{bucket.name}", environment)
        self._bucket = bucket
        self._proxy = proxy
        # moto reads who sends a request, but does not check the signature.
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20261129/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"}
        base_url = f"{bucket.endpoint}/{bucket.name}/"
        self._client = httpx.Client(base_url=base_url, headers=signed, trust_env=False, verify=False, timeout=PATIENCE_SECONDS)
        proxy.error_for = self._error_for
        proxy.loses = self._loses

    def _key_of(self, path: str) -> str:
        return unquote(urlsplit(path).path).removeprefix(f"/{self._bucket.name}").removeprefix("/")

    def _error_for(self, request: Request) -> tuple[int, str] | None:
        key = self._key_of(request.path)
        self.requests.append(key)
        failure = self.failure_for(key)
        return (failure.status, f"<Error><Code>{failure.code}</Code></Error>") if failure and failure.status else None

    def _loses(self, request: Request) -> Literal["half"] | None:
        failure = self.failure_for(self._key_of(request.path))
        return "half" if failure is not None and failure.breaks_off else None

    def put(self, key: str, body: bytes, *, coding: str = "") -> None:
        headers = {"x-amz-acl": "public-read"} | ({"Content-Encoding": coding} if coding else {})
        self._client.put(quote(key), content=body, headers=headers).raise_for_status()

    def delete(self, key: str) -> None:
        self._client.delete(quote(key)).raise_for_status()

    def stop(self) -> None:
        self._proxy.refuse()

    def start(self) -> None:
        self._proxy.start()


class _StandIn(BucketServer):
    def __init__(self, kind: Literal["gs", "az"]) -> None:
        self._port = free_port()
        endpoint = f"http://{HOST}:{self._port}"
        if kind == "gs":
            super().__init__("gs", f"gs://{BUCKET}", {"GOOGLE_BASE_URL": endpoint, "GOOGLE_SKIP_SIGNATURE": "true"})
        else:
            super().__init__(
                "az",
                f"az://{ACCOUNT}/{BUCKET}",
                {"AZURE_STORAGE_ENDPOINT": f"{endpoint}/{ACCOUNT}", "AZURE_STORAGE_KEY": AZURE_KEY},
            )
        self.objects: dict[str, tuple[bytes, str, str]] = {}
        self._server: ThreadingHTTPServer | None = None
        self.start()

    def put(self, key: str, body: bytes, *, coding: str = "") -> None:
        self.objects[key] = (body, f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"', coding)

    def delete(self, key: str) -> None:
        del self.objects[key]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def start(self) -> None:
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                bucket.respond(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
                pass

        self._server = ThreadingHTTPServer((HOST, self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        """Respond to one request."""
        target = urlsplit(request.path)
        root = f"/{BUCKET}" if self.kind == "gs" else f"/{ACCOUNT}/{BUCKET}"
        path = unquote(target.path, errors="strict")
        key = path.removeprefix(root).removeprefix("/")
        self.requests.append(key)
        self.authorization = request.headers.get("Authorization", "")
        if path != root and not path.startswith(f"{root}/"):
            return self._error(request, 404, _CODES[self.kind]["bucket"])
        failure = self.failure_for(key)
        if failure is not None and failure.status:
            return self._error(request, failure.status, failure.code)
        if self.kind == "az" and not self.is_public and not self.authorization.startswith(f"SharedKey {ACCOUNT}:"):
            return self._error(request, 401)
        if key:
            return self._send_object(request, key, failure)
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        return self._send(request, 200, self._listing(query).encode(), {"Content-Type": "application/xml"})

    def _send_object(self, request: BaseHTTPRequestHandler, key: str, failure: Failure | None) -> None:
        if key not in self.objects:
            return self._error(request, 404)
        body, etag, coding = self.objects[key]
        fields = {"ETag": etag, "Last-Modified": _http_date()} | ({"Content-Encoding": coding} if coding else {})
        if request.headers.get("If-None-Match") == etag:
            return self._send(request, 304, b"", fields)
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2]), len(body) - 1)
            fields["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            return self._send(request, 206, body[first : last + 1], fields)
        self.bodies.append(key)
        return self._send(request, 200, body, fields, breaks_off=failure is not None and failure.breaks_off)

    def _listing(self, query: dict[str, str]) -> str:
        after = query.get("start-after") or query.get("continuation-token") or query.get("marker") or ""
        first = query.get("startFrom", "")
        keys = sorted(key for key in self.objects if key.startswith(query.get("prefix", "")) and key > after and key >= first)
        page, rest = keys[:PAGE_OBJECTS], keys[PAGE_OBJECTS:]
        token = page[-1] if rest else ""
        if self.kind == "gs":
            entries = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key][0])}</Size><ETag>{escape(self.objects[key][1])}</ETag>"
                f"<LastModified>{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
                for key in page
            )
            next_page = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
            return f"<ListBucketResult>{entries}<IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{next_page}</ListBucketResult>"
        entries = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{_http_date()}</Last-Modified>"
            f"<Etag>{escape(self.objects[key][1])}</Etag><Content-Length>{len(self.objects[key][0])}</Content-Length>"
            "<Content-Type>image/png</Content-Type></Properties></Blob>"
            for key in page
        )
        return f"<EnumerationResults><Blobs>{entries}</Blobs><NextMarker>{escape(token)}</NextMarker></EnumerationResults>"

    def _error(self, request: BaseHTTPRequestHandler, status: int, code: object = "") -> None:
        text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code or _CODES[self.kind].get(status, '')}</Code></Error>"
        self._send(request, status, text.encode(), {"Content-Type": "application/xml"})

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, fields: dict[str, str], *, breaks_off: bool = False) -> None:
        request.send_response(status)
        for name, value in fields.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if breaks_off else body)
        request.close_connection = breaks_off


def _http_date() -> str:
    return format_datetime(datetime.now(UTC), usegmt=True)


@contextmanager
def bucket_server(kind: Kind) -> Iterator[BucketServer]:
    """Yield a bucket of one cloud on a new server."""
    if kind == "s3":
        with moto_bucket() as bucket, s3_proxy_of(bucket) as proxy:
            yield _Moto(bucket, proxy)
        return
    server = _StandIn(kind)
    try:
        yield server
    finally:
        server.stop()

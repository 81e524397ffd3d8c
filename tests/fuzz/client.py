"""Sends one input to the server and the requests that follow from it, and judges each response."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

import httpx
import msgspec
from PIL import Image

from service.errors import sanitize
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS
from service.urls.signing import Signer
from tests.fuzz import declared
from tests.fuzz.cases import ApiCase, Case, ImageCase, UrlCase, WireCase
from tests.fuzz.judge import BUSY_PROBLEMS, Input, judge
from tests.fuzz.wire import RawRequest, UnreadConnections, send, statuses
from tests.support.server import Server

Received: TypeAlias = tuple[int, Mapping[str, str], bytes]

# Longer than any request takes (`DARKROOM_RENDER_SECONDS`), even on a busy machine.
_TIMEOUT_SECONDS = 120

_SMALL_PIXELS = 1_000_000
_SMALL_FILE_BYTES = 600_000
# How many mutated images stay on the server. Older ones are deleted, which limits the disk space and tests deletion.
_MAX_IMAGES = 100
_MAX_OPENED_PIXELS = 4_000_000


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of a request.

    kind: of the input. status: of the response, 0 for none. problem: the type of its problem document. reason: why it is a finding,
    `None` if it is not.
    """

    kind: Input
    status: int
    problem: str = ""
    reason: str | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the server responded that it is overloaded."""
        return self.status == 503 and self.problem in BUSY_PROBLEMS


class NoResponseError(Exception):
    """A valid request received no response."""


class Client:
    """A client of one server that sends valid and malformed requests."""

    def __init__(self, server: Server, signer: Signer, *, owner_token: str, token: str, secrets: Collection[bytes]) -> None:
        """Create a client of `server`.

        signer: has the server's key. owner_token: has every scope. token: must not have the scope to delete.
        secrets: byte strings that no response may contain.
        """
        self.signer = signer
        self._server = server
        self._owner = {"authorization": f"Bearer {owner_token}"}
        self._stranger = {"authorization": f"Bearer {token}"}
        self._secrets = secrets
        self._client = httpx.Client(base_url=server.url, timeout=_TIMEOUT_SECONDS, trust_env=False)
        self._unread = UnreadConnections(server.port)
        self._images: deque[str] = deque()

    def close(self) -> None:
        """Close the connections."""
        self._unread.close()
        self._client.close()

    def upload(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Upload an image and return the status and the document, or the problem document."""
        status, _, text = self._request("POST", "/v1/images", self._owner, body)
        return status, msgspec.json.decode(text) if text else {}

    def remove(self, digest: str) -> list[str]:
        """Take an image down and delete its tombstone; return a complaint for each request that failed."""
        complaints = []
        for path, expected in ((f"/v1/images/{digest}", 200), (f"/v1/images/{digest}/tombstone", 204)):
            status, _, body = self._request("DELETE", path, self._owner)
            if status != expected:
                complaints.append(f"DELETE {path} is {status}: {body[:300]!r}")
        return complaints

    def get(self, path: str | bytes) -> Received:
        """Return the response to a GET; the path is sent without normalization."""
        return self._request("GET", path, {})

    def run(self, case: Case) -> Iterator[Outcome]:
        """Send an input and yield the outcome of each request that it led to."""
        try:
            match case:
                case ImageCase():
                    yield from self._run_image(case)
                case UrlCase():
                    yield from self._run_url(case)
                case ApiCase():
                    yield self._judge("api", self._request(case.method, case.path, self._stranger | case.headers, case.body), is_small=True)
                case WireCase():
                    yield from self._run_wire(case.request)
        except NoResponseError as error:
            yield Outcome(_KINDS[type(case)], 0, reason=f"no response: {error}")

    def _run_image(self, case: ImageCase) -> Iterator[Outcome]:
        is_small = len(case.body) <= _SMALL_FILE_BYTES and declared.pixels(case.kind, case.body) <= _SMALL_PIXELS
        if case.is_multipart:
            body = b'--fuzz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + case.body + b"\r\n--fuzz--\r\n"
            headers = {"content-type": "multipart/form-data; boundary=fuzz"}
        else:
            body, headers = case.body, {}
        received = self._request("POST", "/v1/images", self._stranger | headers, body)
        yield self._judge("image", received, is_small=is_small)
        if received[0] not in {200, 201}:
            return
        document = msgspec.json.decode(received[2])
        urls = [rendition["url"] for source in document["sources"] for rendition in source["renditions"]]
        if not urls:
            yield Outcome("image", received[0], reason="a document without a URL")
        for pick in case.picks if urls else ():
            yield self._judge("document url", self.get(urls[int(pick * len(urls))]), is_small=is_small)
        for wanted in case.renditions:
            yield self._judge_rendition(wanted.path(document["digest"], self.signer), is_small=is_small)
        self._images.append(document["digest"])
        while len(self._images) > _MAX_IMAGES:
            digest = self._images.popleft()
            if digest not in self._images:
                for complaint in self.remove(digest):
                    yield Outcome("good", 0, reason=complaint)

    def _run_url(self, case: UrlCase) -> Iterator[Outcome]:
        if not case.is_changed:
            yield self._judge_rendition(case.path.decode(), is_small=True)
            return
        request = RawRequest(b"GET " + case.path.replace(b" ", b"%20") + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "whole")
        for status in statuses(send(self._server.port, request)):
            wrong = status == 200 or (status >= 500 and status != 503)
            yield Outcome("changed url", status, reason=f"{status} for a path that was not signed" if wrong else None)

    def _run_wire(self, request: RawRequest) -> Iterator[Outcome]:
        if request.delivery == "unread":
            self._unread.send(request.body)
            yield Outcome("wire", 0)
            return
        received = send(self._server.port, request)
        found = statuses(received)
        if not found:
            yield Outcome("wire", 0)
        for status in found:
            # 501 and 505 are right for an unknown transfer coding or version (RFC 9110 §15.6.2, §15.6.6), and 504 is right for
            # `only-if-cached` if nothing is cached (RFC 9111 §5.2.1.7).
            wrong = status >= 500 and status not in {501, 505} and not (status == 504 and b"detail=only-if-cached" in received)
            yield Outcome("wire", status, reason=f"{status}: {received[:300]!r}" if wrong and not _is_busy(received) else None)
        if any(secret in received for secret in self._secrets):
            yield Outcome("wire", 0, reason="a response that contains a secret or a path of the server")

    def _judge_rendition(self, path: str, *, is_small: bool) -> Outcome:
        received = self.get(path)
        outcome = self._judge("rendition url", received, is_small=is_small)
        if received[0] != 200 or outcome.reason is not None:
            return outcome
        reason = _rendition_error(path, received)
        return msgspec.structs.replace(outcome, reason=reason and f"{reason}: {path}")

    def _judge(self, kind: Input, received: Received, *, is_small: bool) -> Outcome:
        status, headers, body = received
        verdict = judge(kind, status, headers, body, is_small=is_small, secrets=self._secrets)
        reason = verdict.reason and f"{verdict.reason}: {sanitize(body[:400].decode('utf-8', 'replace'), 600)}"
        return Outcome(kind, status, verdict.problem, reason)

    def _request(self, method: str, path: str | bytes, headers: Mapping[str, str], body: bytes | None = None) -> Received:
        raw = path if isinstance(path, bytes) else path.encode()
        request = self._client.build_request(method, "/", headers=dict(headers), content=body)
        # This extension sends the path unchanged; httpx would normalize it.
        request.extensions["target"] = raw
        for attempt in (1, 2):
            try:
                response = self._client.send(request)
            except httpx.TimeoutException as error:
                raise NoResponseError(f"nothing in {_TIMEOUT_SECONDS} s for {method} {sanitize(raw.decode('latin-1'))}") from error
            except httpx.TransportError as error:
                # The server may close an idle connection just when the client uses it again; the second attempt is on a new one.
                if attempt == 2:
                    raise NoResponseError(f"{error!r} for {method} {sanitize(raw.decode('latin-1'))}") from error
            else:
                return response.status_code, dict(response.headers), response.content
        raise AssertionError("unreachable")


_KINDS: Mapping[type[Case], Input] = {ImageCase: "image", UrlCase: "rendition url", ApiCase: "api", WireCase: "wire"}


def _is_busy(received: bytes) -> bool:
    return b" 503 " in received and any(problem.encode() in received for problem in BUSY_PROBLEMS)


def _rendition_error(path: str, received: Received) -> str | None:
    """Return why a rendition is wrong: its type differs from its URL's, it has no validator, or it is no image. `None` if it is right."""
    _, headers, body = received
    extension = path.rpartition(".")[2]
    wanted = FORMATS[FORMAT_OF_EXTENSION[extension]].media_type if extension in FORMAT_OF_EXTENSION else headers.get("content-type", "")
    if headers.get("content-type") != wanted or "etag" not in headers:
        return f"a rendition of type {headers.get('content-type')} with ETag {headers.get('etag')}"
    try:
        picture = Image.open(io.BytesIO(body))
        if picture.width * picture.height <= _MAX_OPENED_PIXELS:
            picture.load()
    except Exception as error:
        return f"a rendition that cannot be opened ({error!r})"
    return None

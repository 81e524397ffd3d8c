"""Arbitrary sequences of requests, changes, failures, purges and clock jumps never get a response that a small model of HTTP forbids."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from edge import Edge
from edge.asgi import Headers, Receive, Scope, Send, get_header_values
from edge.clock import SuspendAwareClock
from tests.edge.asgi import NOON, ClientRequest, ClientResponse, open_request, settle

PATHS = ("/i/a", "/i/b")
ACCEPTS = (b"image/avif", b"image/webp")
TAGS = (b"red", b"blue")
CC, CDN, OWN = b"cache-control", b"cdn-cache-control", b"darkroom-cdn-cache-control"


@dataclass(frozen=True)
class Policy:
    """Headers of a response, and their meaning for a shared cache, written by hand. Times are seconds of age."""

    headers: Headers
    lifetime: int = 0
    while_revalidate: int = 0
    if_error: int = 0
    for_all: bool = True
    """Whether other clients may have the response."""
    despite_authorization: bool = False
    """Whether that is also true if the request had `Authorization`."""
    never_stale: bool = False
    immutable: bool = False


POLICIES = (
    Policy([(CC, b"max-age=10")], 10),
    Policy([(CC, b"public, max-age=10")], 10, despite_authorization=True),
    Policy([(CC, b"s-maxage=10, max-age=99")], 10, despite_authorization=True, never_stale=True),
    Policy([(CC, b"max-age=10, must-revalidate")], 10, despite_authorization=True, never_stale=True),
    Policy([(CC, b"max-age=10, immutable")], 10, immutable=True),
    Policy([(CC, b"max-age=10, stale-while-revalidate=20")], 10, 20),
    Policy([(CC, b"max-age=10, stale-if-error=40")], 10, 0, 40),
    Policy([(CC, b"max-age=10, stale-while-revalidate=20, stale-if-error=40")], 10, 20, 40),
    Policy([(CC, b"max-age=0, stale-while-revalidate=20")], 0, 20),
    Policy([(CC, b"max-age=1")], 1),
    Policy([(CC, b"max-age=99"), (CDN, b"max-age=10, stale-while-revalidate=5")], 10, 5),
    Policy([(CC, b"private"), (CDN, b"no-store"), (OWN, b"max-age=10")], 10),
    Policy([(CC, b"max-age=99"), (CDN, b"max-age=,"), (OWN, b"@")], 99),
    Policy([(CC, b"no-cache, max-age=99")], never_stale=True),
    Policy([(CC, b"private, max-age=99")], for_all=False),
    Policy([(CC, b"no-store")], for_all=False),
    Policy([(CC, b"max-age=99"), (CDN, b"no-store")], for_all=False),
    Policy([(CC, b"max-age=99"), (b"set-cookie", b"a=b")], for_all=False),
    Policy([(CC, b"max-age=99"), (b"vary", b"*")], for_all=False),
    Policy([], for_all=False),
)


def _names(policy: Policy) -> set[bytes]:
    return {name for name, _ in policy.headers}


@dataclass
class Page:
    """The current content of a path."""

    version: int = 0
    policy: Policy = POLICIES[0]
    varies: bool = False
    tag: bytes = TAGS[0]


@dataclass(frozen=True)
class ModelResponse:
    """A response of the origin, including a 304 to a validation. Orders number events; times are those of the model."""

    number: int
    path: str
    accept: bytes | None
    version: int
    policy: Policy
    tag: bytes
    client: int
    for_all: bool
    requested: int
    order: int
    at: float

    @property
    def etag(self) -> bytes:
        return b'"%b %b %d"' % (self.path.encode("ascii"), self.accept or b"", self.version)

    @property
    def body(self) -> bytes:
        return b"the body of " + self.etag


@dataclass(frozen=True)
class ModelRequest:
    """A client's request."""

    path: str
    accept: bytes = ACCEPTS[0]
    directive: bytes = b""
    authorized: bool = False
    method: str = "GET"
    ranged: bool = False
    names: int | None = None
    """The version that its `If-None-Match` names."""
    number: int = 0
    started: int = 0

    @property
    def plain(self) -> bool:
        return not self.directive and not self.authorized


@dataclass
class Source:
    """The origin. While it is held, it reads requests and sends nothing."""

    machine: EdgeMachine
    pages: dict[str, Page] = field(default_factory=lambda: {path: Page() for path in PATHS})
    failing: str = ""
    requests: int = 0
    made: dict[int, ModelResponse] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        requested, at = self.machine.tick(), self.machine.now
        assert not (await receive()).get("body")
        await self.open.wait()
        order = self.machine.tick()
        status, headers, body = self._respond(scope, requested, at, order)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _respond(self, scope: Scope, requested: int, at: float, order: int) -> tuple[int, Headers, bytes]:
        if self.failing:
            self.failures.append(order)
            if self.failing == "raises":
                raise RuntimeError("the origin raises")
            return 503, [(CC, b"no-store"), (OWN, b"max-age=1")], b"failed"
        page = self.pages[scope["path"]]
        if scope["method"] == "POST":
            page.version += 1
            self.machine.purges.append((order, scope["path"]))
            return 204, [], b""
        request_headers = dict(scope["headers"])
        for_one = not page.policy.for_all or b"no-store" in request_headers.get(CC, b"")
        made = ModelResponse(
            number=order,
            path=scope["path"],
            accept=request_headers[b"accept"] if page.varies else None,
            version=page.version,
            policy=page.policy,
            tag=page.tag,
            client=int(request_headers[b"x-client"]),
            for_all=not for_one and (page.policy.despite_authorization or b"authorization" not in request_headers),
            requested=requested,
            order=order,
            # `Date` has whole seconds, so a response may seem up to a second older (RFC 9111 §4.2.3).
            at=min(at, self.machine.now - self.machine.wall % 1),
        )
        self.made[made.number] = made
        varies = [(b"vary", b"Accept")] if page.varies else []
        own = [(b"etag", made.etag), (b"cache-tag", made.tag), (b"x-number", b"%d" % made.number), (b"date", self.machine.date())]
        headers = [*own, *page.policy.headers, *varies]
        return (304, headers, b"") if request_headers.get(b"if-none-match") == made.etag else (200, headers, made.body)


# Numbers whose sums have no rounding error.
QUARTERS = st.integers(0, 120).map(lambda quarters: quarters / 4)
LEAPS = st.integers(8, 14_400).map(lambda quarters: quarters / 4)

DIRECTIVES = st.sampled_from([b""] * 6 + [b"no-cache", b"no-store", b"only-if-cached", b"max-stale"])
REQUESTS = st.builds(
    ModelRequest,
    path=st.sampled_from(PATHS),
    accept=st.sampled_from(ACCEPTS),
    directive=DIRECTIVES,
    authorized=st.sampled_from([False] * 5 + [True]),
    method=st.sampled_from(["GET"] * 4 + ["HEAD"]),
    ranged=st.sampled_from([False] * 4 + [True]),
    names=st.sampled_from([None] * 3 + [0, 1, 2]),
)
EVENTS = st.sampled_from(["nothing", "purge", "purge_tag", "change", "time", "suspend", "fail", "leave"])


class EdgeMachine(RuleBasedStateMachine):
    """The real edge with the real clock, which reads two clocks that are set by hand, and an origin whose pages change.

    The model's time goes on with the steady clock, and leaps ahead with the wall clock, which is what a suspended machine looks like.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.steady, self.wall, self.now = 1_000.0, float(NOON), 0.0
        self.order = 0
        self.purges: list[tuple[int, object]] = []
        self.certain: dict[tuple[str, bytes], ModelResponse] = {}
        self.clock = SuspendAwareClock(lambda: self.steady, lambda: self.wall)
        self.source = Source(self)
        self.source.open.set()
        self.edge = Edge(
            self.source,
            name="Darkroom",
            max_bytes=1_000_000,
            max_concurrent_misses=100,
            key_includes_host=False,
            clock=self.clock.now,
            wall_clock=lambda: self.wall,
        )

    def teardown(self) -> None:
        self.run(settle(self.edge))
        left = self.run(_other_tasks())
        self.runner.close()
        assert not left
        assert self.edge._miss_slots.in_use == 0

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def tick(self) -> int:
        self.order += 1
        return self.order

    def date(self) -> bytes:
        return formatdate(self.wall, usegmt=True).encode("ascii")

    # Rules

    @rule(path=st.sampled_from(PATHS), policy=st.sampled_from(POLICIES), varies=st.booleans(), tag=st.sampled_from(TAGS))
    def page_changes(self, path: str, policy: Policy, varies: bool, tag: bytes) -> None:
        version = self.source.pages[path].version
        self.source.pages[path] = Page(version + 1, policy, varies, tag)

    @rule(path=st.sampled_from(PATHS), policy=st.sampled_from(POLICIES))
    def policy_changes(self, path: str, policy: Policy) -> None:
        # A 304 does not remove headers (RFC 9111 §3.2), so the new policy must have all headers that the old one had.
        if _names(self.source.pages[path].policy) <= _names(policy):
            self.source.pages[path].policy = policy

    @rule(how=st.sampled_from(["", "", "503", "raises"]))
    def origin_fails(self, how: str) -> None:
        self.source.failing = how

    @rule(seconds=QUARTERS | st.sampled_from([1.0, 9.75, 10.0, 20.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds
        self.now += seconds
        self.clock.now()

    @rule(seconds=LEAPS)
    def machine_is_suspended(self, seconds: float) -> None:
        self.wall += seconds
        self.now += seconds
        self.clock.now()

    @rule(seconds=LEAPS)
    def wall_clock_is_set_back(self, seconds: float) -> None:
        self.wall -= seconds
        self.clock.now()

    @rule(path=st.sampled_from(PATHS))
    def path_is_purged(self, path: str) -> None:
        self.purges.append((self.tick(), path))
        self.edge.purge(path.encode("ascii"))
        self.forget(path)

    @rule(tag=st.sampled_from(TAGS))
    def tag_is_purged(self, tag: bytes) -> None:
        self.purges.append((self.tick(), tag))
        self.edge.purge_tags([tag.decode("ascii")])
        self.forget(*PATHS)

    @rule(path=st.sampled_from(PATHS))
    def page_is_changed_by_a_client(self, path: str) -> None:
        if self.source.failing != "raises":
            _, response = self.run(self.send_alone(ModelRequest(path, method="POST")))
            assert response.status == (503 if self.source.failing else 204)
            self.forget(path)

    @rule(request=REQUESTS)
    def client_sends_a_request(self, request: ModelRequest) -> None:
        certain = self.certain.get((request.path, request.accept))
        before = self.source.requests
        request, response = self.run(self.send_alone(request))
        self.check(request, response)
        if certain is not None and request.plain and self.now - certain.at < certain.policy.lifetime:
            assert self.source.requests == before, "a fresh response was fetched again"
            assert b"; hit; " in (response.field(b"cache-status") or b"")
            return
        if self.source.requests > before:
            self.forget(request.path)
            received = [made for made in self.source.made.values() if made.order > request.started]
            if len(received) == 1 and request.plain and received[0].for_all and received[0].policy.lifetime > 1:
                self.certain[request.path, request.accept] = received[0]

    @rule(
        first=st.lists(REQUESTS, min_size=1, max_size=5),
        disconnecting=st.sets(st.integers(0, 4)),
        event=EVENTS,
        late=st.lists(REQUESTS, max_size=3),
        alike=st.booleans(),
    )
    def clients_send_concurrent_requests(
        self, first: list[ModelRequest], disconnecting: set[int], event: str, late: list[ModelRequest], alike: bool
    ) -> None:
        if alike:
            first, late = [_with_url_of(request, first[0]) for request in first], [_with_url_of(request, first[0]) for request in late]
        self.forget(*PATHS)
        self.run(self.crowd(first, disconnecting, event, late))

    # Requests

    def forget(self, *paths: str) -> None:
        """Forget that responses for these paths are certainly stored."""
        self.certain = {key: made for key, made in self.certain.items() if key[0] not in paths}

    def numbered(self, request: ModelRequest) -> ModelRequest:
        order = self.tick()
        return ModelRequest(**{**request.__dict__, "number": order, "started": order})

    def start(self, request: ModelRequest) -> ClientRequest:
        headers = [(b"accept", request.accept), (b"x-client", b"%d" % request.number)]
        if request.directive:
            headers.append((CC, request.directive))
        if request.authorized:
            headers.append((b"authorization", b"somebody"))
        if request.ranged:
            headers.append((b"range", b"bytes=4-7"))
        if request.names is not None:
            headers += [
                (b"if-none-match", b'"%b %b %d"' % (request.path.encode("ascii"), accept, request.names))
                for accept in (b"", request.accept)
            ]
        return open_request(self.edge, request.path, method=request.method, headers=headers)

    async def send_alone(self, request: ModelRequest) -> tuple[ModelRequest, ClientResponse]:
        request = self.numbered(request)
        response = await self.start(request).response()
        await settle(self.edge)
        return request, response

    async def crowd(self, first: Iterable[ModelRequest], disconnecting: set[int], event: str, late: Iterable[ModelRequest]) -> None:
        self.source.open.clear()
        waiting: list[tuple[ModelRequest, ClientRequest]] = []
        try:
            for request in first:
                waiting += await self.send_one_more(request)
            self.meanwhile(event)
            for request in late:
                waiting += await self.send_one_more(request)
            for index, (_, each) in enumerate(waiting):
                if index in disconnecting:
                    each.disconnect()
        finally:
            self.source.open.set()
        for index, (request, each) in enumerate(waiting):
            if index in disconnecting:
                await each.sent_messages()
            else:
                self.check(request, await each.response())
        await settle(self.edge)

    async def send_one_more(self, request: ModelRequest) -> list[tuple[ModelRequest, ClientRequest]]:
        """Send one more request, and check its response if it is there at once."""
        request = self.numbered(request)
        each = self.start(request)
        if await each.is_done():
            self.check(request, await each.response())
            return []
        return [(request, each)]

    def meanwhile(self, event: str) -> None:
        if event == "purge":
            self.path_is_purged(PATHS[0])
        elif event == "purge_tag":
            self.tag_is_purged(TAGS[0])
        elif event == "change":
            self.page_changes(PATHS[0], POLICIES[self.order % len(POLICIES)], self.order % 2 == 0, TAGS[0])
        elif event == "time":
            self.time_goes_on(15.0)
        elif event == "suspend":
            self.machine_is_suspended(3_000.0)
        elif event == "fail":
            self.source.failing = "" if self.source.failing else "503"

    # The model

    def check(self, request: ModelRequest, response: ClientResponse) -> None:
        """Fail if HTTP forbids this response to this request."""
        if response.status in {500, 503}:
            assert self.has_failed_since(request), "an error that the origin did not have"
            return
        if response.status == 504:
            assert request.directive == b"only-if-cached"
            return
        assert response.status in {200, 206, 304}
        if response.status == 304:
            assert request.names is not None
            candidates = [made for made in self.source.made.values() if made.etag == response.field(b"etag")]
            assert response.body == b""
        else:
            made = self.source.made[int(response.field(b"x-number") or 0)]
            candidates = [made]
            full_response = made.body[4:8] if response.status == 206 else made.body
            assert response.body == (b"" if request.method == "HEAD" else full_response)
            assert response.field(b"content-length") == b"%d" % len(full_response)
            assert (response.status == 206) <= (request.ranged and request.method == "GET")
        assert get_header_values(response.headers, OWN) == []
        ages = {int(value) for value in get_header_values(response.headers, b"age")}
        allowed = [made for made in candidates if self.may_receive(request, made)]
        assert allowed, f"{request} must not have {candidates} at {self.now}"
        assert not ages or ages & {int(self.now - made.at) for made in allowed}, f"wrong age {ages}"

    def may_receive(self, request: ModelRequest, made: ModelResponse) -> bool:
        """Return whether HTTP allows this response of the origin now."""
        if made.path != request.path or made.accept not in {None, request.accept}:
            return False
        if not made.for_all:
            return made.client == request.number
        if any(made.requested < order < request.started and what in {made.path, made.tag} for order, what in self.purges):
            return False
        if made.order > request.started and (made.client == request.number or made.policy.lifetime > 0):
            return True
        return not self.is_superseded(made, request) and self.may_use(request, made)

    def may_use(self, request: ModelRequest, made: ModelResponse) -> bool:
        """Return whether a stored response may be reused for a request now (RFC 9111 §4.2, RFC 5861)."""
        policy = made.policy
        remaining = policy.lifetime - (self.now - made.at)
        if self.has_failed_since(request) and remaining > -policy.if_error:
            return not policy.never_stale or remaining > 0
        if request.directive == b"no-cache" and not (policy.immutable and remaining > 0):
            return False
        if remaining > 0 or -remaining < policy.while_revalidate:
            return True
        return request.directive == b"max-stale" and not policy.never_stale

    def is_superseded(self, made: ModelResponse, request: ModelRequest) -> bool:
        """Return whether the origin had sent a newer response before the request (RFC 9111 §4)."""
        return any(
            newer.path == made.path and made.order < newer.requested and newer.order < request.started and newer.for_all
            for newer in self.source.made.values()
            if newer.accept is None or made.accept in {None, newer.accept}
        )

    def has_failed_since(self, request: ModelRequest) -> bool:
        return any(order > request.started for order in self.source.failures)


def _with_url_of(request: ModelRequest, first: ModelRequest) -> ModelRequest:
    """Return `request` with the path and `Accept` of `other`."""
    return ModelRequest(**{**request.__dict__, "path": first.path, "accept": first.accept, "authorized": False, "directive": b""})


async def _other_tasks() -> list[asyncio.Task[Any]]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


TestEdgeMachine = EdgeMachine.TestCase
TestEdgeMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)

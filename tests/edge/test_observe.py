"""The middleware that observes requests sees everything except plain hits, and a sample of those; it changes no response."""

from __future__ import annotations

import pytest

from edge import Edge
from edge.asgi import ASGIApp, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio

BODY = b"x" * 1_000


async def origin(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    headers = [(b"cache-control", b"max-age=60" if scope["path"] != "/no" else b"no-store"), (b"etag", b'"one"')]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def observed_edge(fraction: float) -> tuple[Edge, list[str]]:
    """Return an edge, and the list of what its middleware sees, by path or type."""
    seen: list[str] = []

    def observe(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope.get("path", scope["type"]))
            await app(scope, receive, send)

        return middleware

    edge = Edge(
        origin,
        name="edge",
        max_bytes=10_000_000,
        max_concurrent_misses=10,
        observe=observe,
        observed_hits=fraction,
        # Two of them are compared, and a second may begin between them.
        wall_clock=lambda: 1_800_000_000.0,
    )
    return edge, seen


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _ignore(message: Message) -> None:
    pass


async def get(edge: Edge, path: str, *headers: tuple[bytes, bytes], method: str = "GET") -> tuple[Message, bytes]:
    """Return the start of a response and its body."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http"}
    await edge({**scope, "headers": [(b"host", b"a.example"), *headers]}, _receive, send)
    return sent[0], b"".join(message["body"] for message in sent[1:])


async def test_every_request_except_a_plain_hit_is_observed() -> None:
    edge, seen = observed_edge(0.0)
    await get(edge, "/one")
    assert seen == ["/one"]
    for _ in range(20):
        await get(edge, "/one")
        await get(edge, "/one", (b"if-none-match", b'"one"'))
    assert seen == ["/one"], "hits are not"
    await get(edge, "/one", (b"range", b"bytes=0-1"))
    await get(edge, "/no")
    await get(edge, "/no", method="POST")
    await edge({"type": "lifespan"}, _receive, _ignore)
    assert seen == ["/one", "/one", "/no", "/no", "lifespan"]


@pytest.mark.parametrize("headers", [[], [(b"if-none-match", b'"one"')], [(b"if-none-match", b'"other"')]])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_observed_hit_is_the_same_response_and_counts_the_same(headers: list[tuple[bytes, bytes]], method: str) -> None:
    responses, counters = [], []
    for fraction in (0.0, 1.0):
        edge, seen = observed_edge(fraction)
        await get(edge, "/one")
        start, body = await get(edge, "/one", *headers, method=method)
        assert len(seen) == 1 + (fraction == 1.0)
        responses.append((start["status"], sorted(set(start["headers"])), body))
        counters.append({status: (count.by_result(), count.sent_bytes) for (_, status), count in edge.counters.items()})
    assert responses[0] == responses[1]
    assert counters[0] == counters[1]


async def test_hits_are_observed_by_their_fraction() -> None:
    edge, seen = observed_edge(0.25)
    await get(edge, "/one")
    for _ in range(4_000):
        await get(edge, "/one")
    # Six standard deviations around a thousand.
    assert 830 < len(seen) < 1_170

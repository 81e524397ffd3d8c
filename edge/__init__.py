"""A small CDN node inside the process: an ASGI middleware that stores responses in memory and serves them as a CDN would.

It wraps any ASGI application, whose response headers say what may be stored:

    >>> import asyncio
    >>> from edge import Edge
    >>> calls = 0
    >>> async def application(scope, receive, send):
    ...     global calls
    ...     calls += 1
    ...     headers = [(b"cache-control", b"max-age=60, stale-while-revalidate=600"), (b"etag", b'"1"'), (b"vary", b"accept")]
    ...     await send({"type": "http.response.start", "status": 200, "headers": headers})
    ...     await send({"type": "http.response.body", "body": b"Hello from " + scope["path"].encode()})
    >>> app = Edge(application, name="example", max_bytes=1_000_000, max_concurrent_misses=100)

A server usually calls it. Without one, here are three requests, the last of them conditional:

    >>> async def get(*headers):
    ...     async def receive():
    ...         await asyncio.Event().wait()
    ...     async def send(message):
    ...         messages.append(message)
    ...     messages = []
    ...     scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b""}
    ...     await app({**scope, "headers": [(b"host", b"example.com"), *headers]}, receive, send)
    ...     start, body = messages
    ...     return start["status"], body["body"].decode(), dict(start["headers"])[b"cache-status"].decode()
    >>> async def three_requests():
    ...     return [await get(), await get(), await get((b"if-none-match", b'"1"'))]
    >>> for status, body, cache_status in asyncio.run(three_requests()):
    ...     print(status, body or "-", cache_status.split("; key")[0])
    200 Hello from / example; fwd=uri-miss; stored; ttl=60
    200 Hello from / example; hit; ttl=60
    304 - example; hit; ttl=60
    >>> calls
    1

Start reading at `middleware.py`, which follows a request: from the store (`store.py`), or from the application (`origin.py`), where clients
that request the same response wait for one call (`coalescing.py`). `policy.py` decides what may be stored and reused, and
`conditional.py` what a client gets of it.
"""

from edge.middleware import Edge

__all__ = ["Edge"]

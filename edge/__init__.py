"""A small CDN node inside the process: a pure ASGI layer that keeps answers in memory and serves them as a CDN would.

It wraps any ASGI application, which says in its headers what may be kept:

    >>> import asyncio
    >>> from edge import Edge
    >>> made = 0
    >>> async def application(scope, receive, send):
    ...     global made
    ...     made += 1
    ...     headers = [(b"cache-control", b"max-age=60, stale-while-revalidate=600"), (b"etag", b'"1"'), (b"vary", b"accept")]
    ...     await send({"type": "http.response.start", "status": 200, "headers": headers})
    ...     await send({"type": "http.response.body", "body": b"Hello from " + scope["path"].encode()})
    >>> app = Edge(application, name="example", max_bytes=1_000_000, max_concurrent_misses=100)

A server gives it requests; here is one by hand, asked three times, the last time with a condition:

    >>> async def ask(*fields):
    ...     async def receive():
    ...         await asyncio.Event().wait()
    ...     async def send(message):
    ...         sent.append(message)
    ...     sent = []
    ...     headers = [(b"host", b"example.com"), *fields]
    ...     asked = {"type": "http", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b""}
    ...     await app({**asked, "headers": headers}, receive, send)
    ...     start, body = sent
    ...     return start["status"], body["body"].decode(), dict(start["headers"])[b"cache-status"].decode()
    >>> async def three_visits():
    ...     return [await ask(), await ask(), await ask((b"if-none-match", b'"1"'))]
    >>> for status, body, cache_status in asyncio.run(three_visits()):
    ...     print(status, body or "-", cache_status.split("; key")[0])
    200 Hello from / example; fwd=uri-miss; stored; ttl=60
    200 Hello from / example; hit; ttl=60
    304 - example; hit; ttl=60
    >>> made
    1

The way of a request is `app.py`: memory, else `fetching.py`, where those that ask for the same wait for one answer of the application
(`collapse.py`). What may be kept and used is decided in `freshness.py`, what a client gets of it in `conditional.py`.
"""

from edge.app import Edge

__all__ = ["Edge"]

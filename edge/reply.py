"""What a client gets of an answer: the whole, a part, a 304, 412 or 416, or the stream of what is still coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from edge.asgi import Answer, Headers, Message, Scope, Send, problem
from edge.collapse import Client
from edge.conditional import CONDITIONS, WHOLE, not_modified_headers, part_headers, select
from edge.exchange import Streamed

_PRECONDITION_FAILED = problem(412, "Precondition failed", "What the request's If-Match or If-Unmodified-Since asks for does not hold.")


# Bodies up to this size are always sent as one message.
SMALL_BODY_BYTES = 32_768

# How many bytes may be sent in one message of a body of so many bytes, in response to the request of a scope.
MaxMessageBytes: TypeAlias = Callable[[Scope, int], int]


def whole(scope: Scope, size: int) -> int:  # noqa: ARG001 - a `MaxMessageBytes`
    """Return that all bytes of a body may be sent in one message."""
    return size


async def send_body(body: bytes, scope: Scope, send: Send, max_message_bytes: MaxMessageBytes, *, more: bool = False) -> None:
    """Send a body, or a part of one that has `more`, in as many messages as `max_message_bytes` asks for.

    The server awaits its client between messages, but copies and holds each of them.
    """
    size = len(body)
    step = size if size <= SMALL_BODY_BYTES else max_message_bytes(scope, size)
    start = 0
    while start + step < size:
        await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
        start += step
    last: Message = {"type": "http.response.body", "body": body[start:] if start else body}
    await send({**last, "more_body": True} if more else last)


async def send_answer(
    answer: Answer, told: Headers, scope: Scope, send: Send, max_message_bytes: MaxMessageBytes = whole, *, received: float = 0.0
) -> int:
    """Send what a request gets of a whole answer, with what is `told` of this cache; return how many bytes of body that were."""
    status, headers, body = answer
    # Any other status is the origin's own, a 206, 412 or 416 too: conditions and ranges never reached it.
    asked = _conditions(scope) if status == 200 else {}
    selected = select(asked, headers, len(body), received=received, method=scope["method"]) if asked else WHOLE
    own = [pair for pair in headers if pair[0] in {b"age", b"cache-status", b"server-timing"}]
    if selected.status == 304:
        status, headers, body = 304, [*not_modified_headers(headers), *own], b""
    elif selected.status == 206:
        status, headers = 206, part_headers(headers, selected, len(body))
        body = body[selected.first : selected.last + 1]
    elif selected.status == 412:
        status, headers, body = _PRECONDITION_FAILED
    elif selected.status == 416:
        status, headers, body = _unsatisfiable(len(body))
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *told]})
    await send_body(body, scope, send, max_message_bytes)
    return len(body)


async def send_stream(
    answer: Streamed, told: Headers, scope: Scope, send: Send, client: Client, *, max_message_bytes: MaxMessageBytes
) -> None:
    """Send an answer as it comes; what a range would cut from it is not waited for."""
    status, headers, stream = answer
    asked = {name: value for name, value in _conditions(scope).items() if name not in {b"range", b"if-range"}} if status == 200 else {}
    selected = select(asked, headers, 0, received=0.0, method=scope["method"])
    if scope["method"] == "HEAD" or (asked and selected.status in {304, 412}):
        stream.abandon()
        await send_answer(Answer(status, headers, b""), told, scope, send)
        return
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *told]})
    more = True
    while more:
        message = await client.take(stream)
        more = bool(message.get("more_body"))
        body = message.get("body", b"")
        await (send(message) if len(body) <= SMALL_BODY_BYTES else send_body(body, scope, send, max_message_bytes, more=more))


def _conditions(scope: Scope) -> dict[bytes, bytes]:
    """Return a request's conditions and its range, several lines of one field joined by commas (RFC 9110 §5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in CONDITIONS:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def _unsatisfiable(length: int) -> Answer:
    return problem(
        416,
        "Range not satisfiable",
        f"The answer has {length} bytes, from 0 on, and the range asked for none of them.",
        (b"content-range", b"bytes */%d" % length),
    )

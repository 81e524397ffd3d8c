"""A response that is sent before the request's body was read: the client gets the whole of it before the connection is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from edge import early_response
from edge.asgi import Message
from edge.early_response import EarlyResponse

START: Message = {"type": "http.response.start", "status": 413, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"refused"}
LAST: Message = {"type": "http.response.body", "body": b"", "more_body": False}


def chunk(more: bool = True) -> Message:
    return {"type": "http.request", "body": b"x", "more_body": more}


async def respond(received: Iterable[Message], read: int) -> tuple[list[Message], int]:
    """Respond after `read` messages of a request; return what was sent, and how many messages had been received by the end."""
    messages = iter(received)
    sent: list[Message] = []
    count = 0

    async def receive() -> Message:
        nonlocal count
        message = next(messages, None)
        if message is None:
            await asyncio.Event().wait()
            raise AssertionError
        count += 1
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    early = EarlyResponse(receive, send)
    for _ in range(read):
        await early.receive()
    await early.send(START)
    await early.send(BODY)
    return sent, count


def test_early_response_is_sent_whole_and_ends_when_the_rest_of_the_body_was_read() -> None:
    sent, count = asyncio.run(respond([chunk(), chunk(), chunk(more=False), chunk()], read=1))
    assert sent == [START, {**BODY, "more_body": True}, LAST]
    assert count == 3


def test_early_response_to_a_client_that_leaves_ends_at_once() -> None:
    sent, count = asyncio.run(respond([chunk(), {"type": "http.disconnect"}, chunk()], read=0))
    assert (sent[-1], count) == (LAST, 2)


def test_early_response_to_a_client_that_sends_nothing_more_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_response, "LINGER_SECONDS", 0.05)
    sent, _ = asyncio.run(respond([chunk()], read=0))
    assert sent == [START, {**BODY, "more_body": True}, LAST]


def test_response_after_the_whole_body_is_sent_unchanged() -> None:
    sent, count = asyncio.run(respond([chunk(), chunk(more=False)], read=2))
    assert (sent, count) == ([START, BODY], 2)

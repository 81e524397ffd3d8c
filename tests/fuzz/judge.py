"""Decides whether a response is right for its input; any other response is a finding."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import msgspec

# The types of problem documents with which an overloaded server may respond occasionally.
BUSY_PROBLEMS = frozenset({"/problems/overloaded", "/problems/deadline-exceeded", "/problems/too-costly"})

Input: TypeAlias = Literal["image", "document url", "rendition url", "changed url", "api", "wire", "good"]

ALLOWED: Mapping[Input, frozenset[int]] = {
    "image": frozenset({200, 201, 413, 415, 422}),
    "document url": frozenset({200}),
    "rendition url": frozenset({200, 400, 422}),
    "changed url": frozenset({308, 400, 403, 404}),
    "api": frozenset({200, 201, 204, 400, 403, 404, 412, 413, 415, 422, 428}),
    "good": frozenset({200, 201, 204}),
}


class _Problem(msgspec.Struct):
    type: str
    title: str
    status: int
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """The verdict on a response. `reason`: why it is a finding, `None` if it is not. `problem`: the type of its problem document, or ""."""

    reason: str | None
    problem: str = ""


def judge(kind: Input, status: int, headers: Mapping[str, str], body: bytes, *, is_small: bool, secrets: Collection[bytes]) -> Verdict:
    """Return the verdict on a response.

    `headers`: names in lower case. `is_small`: whether the image declares less than a megapixel. `secrets`: see `Client`.
    """
    if any(secret in body for secret in secrets):
        return Verdict("a response that contains a secret or a path of the server")
    problem = ""
    if headers.get("content-type") == "application/problem+json" and body:
        try:
            document = msgspec.json.decode(body, type=_Problem)
        except msgspec.DecodeError as error:
            return Verdict(f"{status} with a problem document that cannot be read: {error}")
        problem = document.type
        if document.status != status or not document.detail:
            return Verdict(f"{status} with a problem document that says {document.status}: {document.detail!r}", problem)
    if status == 503 and problem in BUSY_PROBLEMS:
        return Verdict(_busy(problem, headers, is_small=is_small), problem)
    return Verdict(_not_allowed(kind, status, problem), problem)


def _not_allowed(kind: Input, status: int, problem: str) -> str | None:
    if status not in ALLOWED[kind]:
        return f"{status} {problem}".strip()
    return f"{status} without a problem document" if status >= 400 and not problem else None


def _busy(problem: str, headers: Mapping[str, str], *, is_small: bool) -> str | None:
    if problem == "/problems/too-costly":
        return f"503 {problem} for a small image" if is_small else None
    return None if headers.get("retry-after", "").isdigit() else f"503 {problem} without Retry-After"

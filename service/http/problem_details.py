"""Exceptions of the service become responses with problem details (RFC 9457): the only place where that happens."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from service.errors import Problem, ServiceError, UnknownImageError, sanitize
from service.http import headers
from service.urls.signature_mask import mask_path

log = structlog.get_logger(__name__)


def service_error_response(request: Request[object, object, State], error: ServiceError) -> Response[Problem]:
    """Return the response for an error of the service; clients that wait for the same rendition share it."""
    if error.status_code >= 500:
        path, cause = sanitize(mask_path(request.scope["path"])), repr(error.__cause__)
        log.warning("request failed", problem=error.slug, detail=error.detail, path=path, cause=cause)
    fields = headers.error_headers(shared=request.scope["path"].startswith(("/i/", "/from/")) and error.status_code not in {400, 403})
    if error.retry_after_seconds is not None:
        fields["Retry-After"] = str(error.retry_after_seconds)
    fields.update(error.extra_headers)
    return _response(error.problem(), fields)


def plain_response(error: ServiceError, *, close: bool = True) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, header fields and body of the response for an error that is found before Litestar sees the request.

    close: whether the response closes the connection, which it has to if the request has a body that was not read.
    """
    body = msgspec.json.encode(error.problem())
    fields = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        **headers.error_headers(shared=False),
        **headers.SECURITY,
        **({} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}),
        **dict(error.extra_headers),
    }
    if error.retry_after_seconds is not None:
        fields["Retry-After"] = str(error.retry_after_seconds)
    if close:
        fields["Connection"] = "close"
    return error.status_code, [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in fields.items()], body


def replay_response(_: Request[object, object, State], error: UnknownImageError) -> Response[Problem]:
    """Return the response for an image that is not in this region, but may be in the primary region, which has every original."""
    return _response(error.problem(), headers.replay_headers())


def http_exception_response(request: Request[object, object, State], error: HTTPException) -> Response[Problem]:
    """Return the response for an error that Litestar found: an unknown path, or a method that is not allowed."""
    fields = headers.error_headers(shared=False)
    detail, remedy = error.detail, None
    if error.status_code == 404:
        detail, remedy = "This server has no such path.", "GET /docs lists all paths."
    elif error.status_code == 405:
        allowed = allowed_methods((error.headers or {}).get("allow", "").split(", "))
        fields["Allow"] = allowed
        detail, remedy = f"This path does not support {request.method}.", f"Use one of: {allowed}."
    return _response(
        Problem(
            type="about:blank",
            title=HTTPStatus(error.status_code).phrase,
            status=error.status_code,
            detail=detail,
            received=sanitize(f"{request.method} {request.scope['path']}"),
            remedy=remedy,
        ),
        fields,
    )


def allowed_methods(methods: Collection[str]) -> str:
    """Return the value of `Allow` for a path. The edge responds to HEAD for every path that has GET."""
    return ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))


def unexpected_error_response(request: Request[object, object, State], error: Exception) -> Response[Problem]:
    """Return the response for an unexpected exception, whose traceback goes to the log and never to the client."""
    log.error("unexpected error", path=sanitize(mask_path(request.scope["path"])), exc_info=error)
    return service_error_response(
        request, ServiceError("An unexpected error occurred.", remedy="Try again; the server's log has the reason.")
    )


def _response(problem: Problem, fields: dict[str, str]) -> Response[Problem]:
    return Response(problem, status_code=problem.status, media_type="application/problem+json", headers=fields)

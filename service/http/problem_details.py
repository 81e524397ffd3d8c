"""Exceptions of the service become responses with problem details (RFC 9457): the only place where that happens."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from service.errors import Problem, ServiceError, UnknownImageError, sanitize
from service.http import headers

log = structlog.get_logger(__name__)


def service_error_response(request: Request[object, object, State], error: ServiceError) -> Response[Problem]:
    """Return the response for an error of the service; clients that wait for the same rendition share it."""
    if error.status_code >= 500:
        path, cause = sanitize(request.scope["path"]), repr(error.__cause__)
        log.warning("request failed", problem=error.slug, detail=error.detail, path=path, cause=cause)
    fields = headers.error_headers(shared=request.scope["path"].startswith(("/i/", "/pull/")) and error.status_code not in {400, 403})
    if error.retry_after_seconds is not None:
        fields["Retry-After"] = str(error.retry_after_seconds)
    fields.update(error.extra_headers)
    return _response(error.problem(), fields)


def plain_response(error: ServiceError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, header fields and body of the response for an error that is found before Litestar sees the request.

    The response closes the connection, because the request's body has not been read.
    """
    body = msgspec.json.encode(error.problem())
    fields = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        **headers.error_headers(shared=False),
        **headers.SECURITY,
        **dict(error.extra_headers),
        "Connection": "close",
    }
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
        # The edge responds to HEAD for every path that has GET.
        allowed = ", ".join(sorted((error.headers or {}).get("allow", "").replace("GET", "GET, HEAD").split(", ")))
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


def unexpected_error_response(request: Request[object, object, State], error: Exception) -> Response[Problem]:
    """Return the response for an unexpected exception, whose traceback goes to the log and never to the client."""
    log.error("unexpected error", path=sanitize(request.scope["path"]), exc_info=error)
    return service_error_response(
        request, ServiceError("An unexpected error occurred.", remedy="Try again; the server's log has the reason.")
    )


def _response(problem: Problem, fields: dict[str, str]) -> Response[Problem]:
    return Response(problem, status_code=problem.status, media_type="application/problem+json", headers=fields)

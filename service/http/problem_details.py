"""The one place where a failure becomes an answer (RFC 9457)."""

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


def service_error_answer(request: Request[object, object, State], error: ServiceError) -> Response[Problem]:
    """Return the answer to a failure of ours; waiting clients share it where the work that failed was a rendition's."""
    if error.status_code >= 500:
        log.warning("failed", problem=error.slug, detail=error.detail, path=sanitize(request.scope["path"]), cause=repr(error.__cause__))
    fields = headers.error_headers(shared=request.scope["path"].startswith(("/i/", "/pull/")) and error.status_code not in {400, 403})
    if error.retry_after_seconds is not None:
        fields["Retry-After"] = str(error.retry_after_seconds)
    fields.update(error.extra_headers)
    return _answer(error.problem(), fields)


def plain_response(error: ServiceError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, header fields and body of the response to a failure that is found before Litestar sees the request.

    The connection is closed: the request's body has not been read.
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


def elsewhere_answer(_: Request[object, object, State], error: UnknownImageError) -> Response[Problem]:
    """Return the answer, in a region that has not every original, to a request for an image that is not here."""
    return _answer(error.problem(), headers.elsewhere_headers())


def http_exception_answer(request: Request[object, object, State], error: HTTPException) -> Response[Problem]:
    """Return the answer to a failure that Litestar found: no such route, method not allowed, a body that does not fit."""
    fields = headers.error_headers(shared=False)
    detail, remedy = error.detail, None
    if error.status_code == 404:
        detail, remedy = "No route answers this path.", "GET / shows what is here."
    elif error.status_code == 405:
        # The edge answers HEAD wherever GET is.
        allowed = ", ".join(sorted((error.headers or {}).get("allow", "").replace("GET", "GET, HEAD").split(", ")))
        fields["Allow"] = allowed
        detail, remedy = f"{request.method} is not answered here.", f"Use one of: {allowed}."
    return _answer(
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


def unexpected_answer(request: Request[object, object, State], error: Exception) -> Response[Problem]:
    """Return the answer to a failure that nobody foresaw: its trace goes to the log, never to the client."""
    log.error("unexpected failure", path=sanitize(request.scope["path"]), exc_info=error)
    return service_error_answer(
        request, ServiceError("Something failed that should not have.", remedy="Try again; the server's log has the reason.")
    )


def _answer(problem: Problem, fields: dict[str, str]) -> Response[Problem]:
    return Response(problem, status_code=problem.status, media_type="application/problem+json", headers=fields)

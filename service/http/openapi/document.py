"""The OpenAPI document: what Litestar finds in the route handlers, with the bodies, parameters and responses that it cannot find there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request
from litestar.datastructures import State
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import Method as HttpMethod

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

# What applies to every route: the text above them all.
CONVENTIONS = """You upload an image once, and its name is the digest of its content. You get URLs of renditions; what is at such a URL never changes.

- **Access**: `Authorization: Bearer <token>` with one of `DARKROOM_TOKENS` that has the required scope: `ingest`, `read` or `delete`. A server without any tokens requires none. Renditions never require a token: their URLs are signed, or [need no signature](/docs/api.md#urls-without-a-signature). Neither does an upload to [a URL of `POST /v1/uploads`](/docs/api.md#uploads-from-a-browser).
- **Errors** are `application/problem+json` (RFC 9457): `type` is the path of [a page about the error](/problems); `expected`, `received` and `remedy` say what was expected, what was received and what to do.
- **Idempotence**: an image is identified by the SHA-256 of its bytes, so an upload whose response was lost can be sent again: 201 the first time, 200 after that. There is no `Idempotency-Key`. A takedown that is sent again completes what was left undone.
- **Changes** must name the version of the document that they change: `If-Match` with its `ETag`. 412 if the document has changed since, 428 without `If-Match`. `If-None-Match` with that `ETag` is 304 while nothing has changed.
- **Lists** come in pages: the `Link` header with `rel="next"` has the URL of the next page; the last page has none.
"""  # noqa: E501 - Markdown, a paragraph a line


class OpenAPIJson(JsonRenderPlugin):
    """Serves the OpenAPI document as JSON."""

    def render(self, request: Request[Any, Any, State], openapi_schema: dict[str, Any]) -> bytes:
        """Return the document, completed with what the handlers' signatures do not say."""
        # Imported only for the document: the server should start quickly.
        from service.http.openapi.operations import complete  # noqa: PLC0415

        return super().render(request, complete(openapi_schema))


def operation_id(handler: HTTPRouteHandler, http_method: HttpMethod, path_components: object) -> str:  # noqa: ARG001 - Litestar's signature
    """Return the name of a handler in camel case, for example `getImage`; the method replaces the verb of a handler of several methods."""
    first, *others = handler.handler_name.split("_")
    return (first if len(handler.http_methods) == 1 else http_method.lower()) + "".join(map(str.capitalize, others))

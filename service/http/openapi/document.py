"""The OpenAPI description: what Litestar finds in the handlers, and the bodies that they read themselves."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.openapi.plugins import JsonRenderPlugin

from service.images.formats import FORMATS
from service.images.options import API_OPTIONS, OPTIONS
from service.images.transform import Transform

DIGEST_EXAMPLE = "ibxxblxna3ywub3vp54kkar5asszqvg2"
_CURSOR_EXAMPLE = f"8210987654321-{DIGEST_EXAMPLE}"

# Of what is in no example below; a test asks a server for each.
OPTION_EXAMPLES: dict[str, object] = {
    "frame": 0,
    "animate": False,
    "crop": ["10%", "10%", "80%", "80%"],
    "trim": 10,
    "rotate": 90,
    "flip": "horizontal",
    "width": 640,
    "height": 480,
    "fit": "cover",
    "gravity": "attention",
    "enlarge": True,
    "brightness": 1.2,
    "contrast": 1.1,
    "gamma": 1.5,
    "saturation": 0.8,
    "grayscale": True,
    "blur": 4,
    "sharpen": 1,
    "overlay": {"digest": DIGEST_EXAMPLE, "gravity": "southeast", "scale": 0.2, "opacity": 0.7, "x": 12, "y": 12},
    "round": "max",
    "pad": [10, 20],
    "background": "#ff8800",
    "profile": "p3",
    "metadata": "copyright",
    "quality": "auto",
    "max_bytes": 50_000,
    "lossless": True,
    "effort": 4,
    "progressive": True,
    "focal": [0.3, 0.6],
    "dpr": 2,
}

URLS_EXAMPLES: dict[str, dict[str, object]] = {
    "a ladder": {
        "transform": {"width": 640, "height": 480, "fit": "cover", "gravity": "attention"},
        "widths": [320, 640, 1280],
        "formats": ["avif", "webp", "jpeg"],
        "sizes": "(min-width: 60em) 40vw, 100vw",
        "alt": "A panda eats bamboo.",
    },
    "one URL": {"transform": {"width": 96, "height": 96, "fit": "cover", "round": "max", "dpr": 2}, "format": "webp"},
}

CHANGE_EXAMPLE: dict[str, object] = {"focal": [0.3, 0.6], "alt": "A panda eats bamboo."}

PULL_EXAMPLES: dict[str, dict[str, object]] = {
    "for any browser": {"url": "https://images.example.com/panda.jpg", "transform": {"width": 640}},
}

KNOWN_EXAMPLE: dict[str, object] = {"digests": [DIGEST_EXAMPLE, "k5x7q2abcdefghijklmnopqrstuvwxyz"]}


# What holds for every route, in the words that stand above them all.
CONVENTIONS = """An image goes in once and is named by its content; what comes out are URLs whose picture never changes.

- **Access**: `Authorization: Bearer <token>` with one of `DARKROOM_TOKENS` that has the scope: `ingest`, `read` or `delete`. A server without any tokens needs none. Renditions need none ever: their addresses are signed.
- **Errors** are `application/problem+json` (RFC 9457): `type` is the path of [a page about it](/problems), `expected`, `received` and `remedy` say what was wanted, what came and what to do.
- **Sent twice is sent once**: an image is the SHA-256 of its bytes, so that an upload whose answer was lost may be sent again: 201 the first time, 200 after that. There is no `Idempotency-Key`. A takedown that is sent again does what was left undone.
- **Changes** name the state that they change: `If-Match` with the `ETag` of the document. 412 where someone else was faster, 428 without it. `If-None-Match` with that `ETag` is 304 while nothing has changed.
- **Lists** come in pages: `Link` with `rel="next"` is the page that follows, and is missing on the last.
"""  # noqa: E501 - Markdown, a paragraph a line


class OpenAPIJson(JsonRenderPlugin):
    """Serves the description as JSON."""

    def render(self, request: Request[Any, Any, State], openapi_schema: dict[str, Any]) -> bytes:
        """Return the description with the bodies of requests in it."""
        return super().render(request, with_bodies(openapi_schema))


def with_bodies(description: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI 3.1 description with the request bodies and conditions that handlers read themselves, and what they answer."""
    # Imported by those alone who ask for the description: a start should be short.
    from service.http.openapi.responses import BY_ADDRESS, ROUTES, components, responses  # noqa: PLC0415

    paths = {path: dict(item) for path, item in description["paths"].items()}
    images, image, urls = paths["/v1/images"], paths["/v1/images/{digest}"], paths["/v1/images/{digest}/urls"]
    images["post"] = {**images["post"], "requestBody": _UPLOAD}
    images["get"] = {**images["get"], "parameters": _PAGE}
    known = paths["/v1/images/known"]
    known["post"] = {**known["post"], "requestBody": _json_body(_KNOWN_SCHEMA, {"two": KNOWN_EXAMPLE}, required=True)}
    paths["/v1/pull"]["post"] = {**paths["/v1/pull"]["post"], "requestBody": _json_body(_PULL_SCHEMA, PULL_EXAMPLES, required=True)}
    urls["post"] = {**urls["post"], "requestBody": _json_body(_URLS_SCHEMA, URLS_EXAMPLES, required=False)}
    image["patch"] = {
        **image["patch"],
        "parameters": [*image["patch"].get("parameters", []), _IF_MATCH],
        "requestBody": _json_body(_CHANGE_SCHEMA, {"both": CHANGE_EXAMPLE}, required=True),
    }
    for path, described in BY_ADDRESS.items():
        operation_id = "getPull" if path.startswith("/pull/") else "getRendition"
        paths[path] = {"get": {**described, "operationId": operation_id, "tags": ["renditions"], "deprecated": False}}
    for (path, method), route in ROUTES.items():
        paths[path][method] = {**paths[path][method], "responses": responses(route), "security": _security(path)}
    return {**description, "paths": paths, "components": components()}


def _security(path: str) -> list[dict[str, list[str]]]:
    # Either: a server without tokens needs none.
    return [{"token": []}, {}] if path.startswith("/v1/") else []


def _json_body(schema: dict[str, Any], examples: dict[str, dict[str, object]], *, required: bool) -> dict[str, Any]:
    content = {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}
    return {"required": required, "content": {"application/json": content}}


_IMAGE = {"type": "string", "contentMediaType": "application/octet-stream"}
_UPLOAD = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": _IMAGE},
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["url"],
                "properties": {"url": {"type": "string", "format": "uri", "maxLength": 8192}},
            },
            "examples": {"from elsewhere": {"value": {"url": "https://images.example.com/panda.jpg"}}},
        },
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": {"type": "array", "items": _IMAGE}}}},
    },
}


_LEFT_OUT = dict(zip(Transform.__struct_fields__, Transform.__struct_defaults__, strict=True))


def _default(key: str) -> dict[str, Any]:
    """Return what an option is when it is left out, where that is a value that can be asked for."""
    value = _LEFT_OUT.get(key)
    return {"default": value} if isinstance(value, (bool, float, str)) else {}


_TRANSFORM_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "description": (
        f"What is asked of the image. Whatever the order in which they are written, they act in this one: {', '.join(OPTIONS)}. "
        "`focal`, `dpr` and `trim` are resolved when the URL is made."
    ),
    "properties": {
        key: {**option.schema, **_default(key), "description": option.help, "examples": [OPTION_EXAMPLES[key]]}
        for key, option in API_OPTIONS.items()
    },
}
_URLS_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "transform": _TRANSFORM_SCHEMA,
        "variant": {"type": "string", "description": "a transform that DARKROOM_VARIANTS names; `transform` goes over it"},
        "widths": {
            "type": "array",
            "maxItems": 32,
            "items": {"type": "integer", "minimum": 1, "maximum": 8192},
            "description": "the steps of the ladder; widths times formats are at most 96",
        },
        "formats": {
            "type": "array",
            "uniqueItems": True,
            "items": {"enum": list(FORMATS)},
            "description": "in the order of preference, the fallback last",
        },
        "sizes": {"type": "string", "maxLength": 1000, "default": "100vw", "description": "the `sizes` of the `<picture>`"},
        "alt": {"type": "string", "maxLength": 2000, "description": "in place of the image's own alternative text"},
        "format": {"enum": list(FORMATS), "description": "one URL in this format, in place of `widths` and `formats`"},
    },
}

_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
    "description": "the ETag of the document that was read, or `*`: 428 without it, 412 where the image has been changed since",
}
_CHANGE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "focal": {
            "description": "x and y from the top left of the upright image; null for none",
            "oneOf": [
                {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 2, "maxItems": 2},
                {"type": "null"},
            ],
        },
        "alt": {"type": "string", "maxLength": 2000, "description": "what the image shows, for those who do not see it"},
    },
}

_PULL_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["url"],
    "properties": {
        "url": {"type": "string", "format": "uri", "description": "on a host that DARKROOM_PULL_HOSTS allows"},
        "transform": _TRANSFORM_SCHEMA,
        "variant": {"type": "string"},
        "format": {"enum": [*FORMATS, "auto"], "default": "auto", "description": "`auto`: the best that the browser names in Accept"},
    },
}

_PAGE = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
        "description": "the most images of a page",
        "example": 20,
    },
    {
        "name": "cursor",
        "in": "query",
        "schema": {"type": "string", "pattern": "^[0-9]{13}-[a-z2-7]{32}$"},
        "description": 'where the page begins: that of the `Link` with `rel="next"` of the page before; without it, at the newest image',
        "example": _CURSOR_EXAMPLE,
    },
]
_KNOWN_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["digests"],
    "properties": {
        "digests": {
            "type": "array",
            "maxItems": 1000,
            "items": {"type": "string", "pattern": "^[a-z2-7]{32}$"},
            "description": "the first 160 bits of the SHA-256 of each file, in lower-case base32",
        }
    },
}

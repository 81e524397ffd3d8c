"""What each route answers, with an example, and the problems that may come in its place: for the OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service import errors
from service.errors import Problem, ServiceError
from service.http.openapi.document import DIGEST_EXAMPLE
from service.http.routes.images import ImageDocument, OneUrl
from service.http.routes.listing import ImagesPage, KnownImages
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS
from service.images.picture import Markup
from service.library.takedowns import TakenDown
from service.ops.health import Report

SIGNATURE_EXAMPLE = "em2px3a6njtmrp2qwwi7fotkia"

_REF = "#/components/schemas/{name}"
# Of several files, some may have failed: a union of two structures, which msgspec does not describe.
_IMAGE_DOCUMENTS = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {"type": "array", "items": {"anyOf": [{"$ref": _REF.format(name=name)} for name in ("ImageDocument", "Problem")]}}
    },
}
_TYPES = (ImageDocument, ImagesPage, KnownImages, Markup, OneUrl, Problem, Report, TakenDown)


class Answer(msgspec.Struct, frozen=True):
    """One status of a route: what it means, the names of the types of its body, an example of each, its own header fields."""

    description: str
    examples: Mapping[str, object] = {}
    types: tuple[str, ...] = ()
    media_type: str = "application/json"
    fields: Mapping[str, str] = {}


class Route(msgspec.Struct, frozen=True):
    """What a route answers by status, and what may go wrong."""

    answers: Mapping[int, Answer]
    problems: tuple[type[ServiceError], ...] = ()


def components() -> dict[str, Any]:
    """Return the schemas that answers refer to, and how a token is sent."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    bearer = {"type": "http", "scheme": "bearer", "description": "One of DARKROOM_TOKENS; a server without any needs none."}
    return {"schemas": {**schemas, "ImageDocuments": _IMAGE_DOCUMENTS}, "securitySchemes": {"token": bearer}}


def responses(route: Route) -> dict[str, Any]:
    """Return the responses of a route as OpenAPI writes them, problems of one status together."""
    written: dict[str, Any] = {str(status): _answer(answer) for status, answer in route.answers.items()}
    for error in route.problems:
        entry = written.setdefault(
            str(error.status_code),
            {
                "description": HTTPStatus(error.status_code).phrase,
                "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}, "examples": {}}},
            },
        )
        entry["content"]["application/problem+json"]["examples"][error.slug] = {"summary": error.title, "value": problem_example(error)}
    return written


def problem_example(error: type[ServiceError]) -> object:
    """Return a problem of a kind as it may be answered."""
    meaning = (error.__doc__ or "").partition("\n")[0]
    return msgspec.to_builtins(Problem(error.type_uri(), error.title, error.status_code, meaning, remedy=error.help))


def _answer(answer: Answer) -> dict[str, Any]:
    written: dict[str, Any] = {"description": answer.description}
    if answer.fields:
        written["headers"] = {
            name: {"schema": {"type": "string"}, "description": description} for name, description in answer.fields.items()
        }
    if answer.media_type == "application/json" and answer.types:
        refs = [{"$ref": _REF.format(name=name)} for name in answer.types]
        schema: dict[str, Any] = refs[0] if len(refs) == 1 else {"oneOf": refs}
        examples = {name: {"value": value} for name, value in answer.examples.items()}
        written["content"] = {answer.media_type: {"schema": schema, "examples": examples}}
    elif answer.media_type == "text/plain":
        written["content"] = {answer.media_type: {"schema": {"type": "string"}, "examples": {"alive": {"value": "alive\n"}}}}
    elif answer.media_type == "image/*":
        image = {"schema": {"type": "string", "contentMediaType": "image/*"}}
        written["content"] = dict.fromkeys(sorted(traits.media_type for traits in FORMATS.values()), image)
    return written


def _url(transform: str, extension: str) -> str:
    return f"/i/v2/{DIGEST_EXAMPLE}/{transform}/{SIGNATURE_EXAMPLE}.{extension}"


def _source(media_type: str, extension: str) -> dict[str, object]:
    steps = [(320, 480), (640, 960)]
    renditions = [{"width": width, "height": height, "url": _url(f"width={width}", extension)} for width, height in steps]
    return {
        "type": media_type,
        "srcset": ", ".join(f"{step['url']} {step['width']}w" for step in renditions),
        "renditions": renditions,
    }


_SOURCES = [_source("image/avif", "avif"), _source("image/webp", "webp"), _source("image/jpeg", "jpg")]
MARKUP_EXAMPLE: dict[str, object] = {
    "src": _url("width=640", "jpg"),
    "sources": _SOURCES,
    "picture": '<picture>\n  <source type="image/avif" srcset="…" sizes="100vw">\n  …\n</picture>',
}
DOCUMENT_EXAMPLE: dict[str, object] = {
    "digest": DIGEST_EXAMPLE,
    "format": "jpeg",
    "width": 640,
    "height": 960,
    "frames": 1,
    "bytes": 209_540,
    "alpha": False,
    "created": "2026-11-25T12:00:00Z",
    "alt": "A panda eats bamboo.",
    "focal": [0.3, 0.6],
    "placeholder": {
        "thumbhash": "FtkFDQTPdjtlBol6qW1HVRQ/gvhm",
        "data_url": "data:image/webp;base64,UklGRg…",
        "color": "#0f350f",
        "palette": ["#0f350f", "#8a7f6d"],
    },
    **MARKUP_EXAMPLE,
}
_URL_EXAMPLE = {"url": _url("width=640,height=480,fit=cover,gravity=attention", "webp")}
_ETAG = {"ETag": "names this state of the document: what If-Match takes"}
_DOCUMENT = Answer("the image document", {"a photo": DOCUMENT_EXAMPLE}, ("ImageDocument",), fields=_ETAG)
_MANY: dict[str, object] = {
    "images": [DOCUMENT_EXAMPLE, problem_example(errors.UnsupportedFormatError)],
}
_RENDITION_FIELDS = {
    "Cache-Control": "a year, immutable: the bytes at this URL never change",
    "ETag": "the digest of the bytes",
    "Repr-Digest": "SHA-256 of the bytes (RFC 9530)",
    "Cache-Status": "whether the server's memory had it (RFC 9211)",
    "Server-Timing": "where the time went",
    "Cache-Tag": "the digests of the originals it was made from",
}

# What may be wrong with a body of JSON.
_JSON = (errors.BadRequestError, errors.SlowUploadError, errors.TooLargeError)
# What is found in the header of any request.
_HEADER = (errors.BadRequestError, errors.HeaderTooLargeError)
_ACCESS = (*_HEADER, errors.UnauthorizedError, errors.ForbiddenError)
_STORE = (errors.StorageUnavailableError,)
_KNOWN = (*_ACCESS, errors.NotFoundError, errors.GoneError, errors.DamagedDocumentError, *_STORE)
_INGEST = (
    errors.BadRequestError,
    errors.EmptyBodyError,
    *_ACCESS,
    errors.SourceRefusedError,
    errors.SlowUploadError,
    errors.GoneError,
    errors.TooLargeError,
    errors.UnsupportedFormatError,
    errors.BrokenImageError,
    errors.TooManyPixelsError,
    errors.TooComplexError,
    errors.RenderGaveUpError,
    errors.RenderFailedError,
    errors.SourceFailedError,
    errors.OverloadedError,
    errors.DeadlineExceededError,
    errors.TooCostlyError,
    *_STORE,
    errors.SourceSlowError,
    errors.StorageFullError,
)
_RENDER = (
    *_HEADER,
    errors.BadAddressError,
    errors.BadTransformError,
    errors.FormatNotOfferedError,
    errors.BadSignatureError,
    errors.NotFoundError,
    errors.GoneError,
    errors.TooManyPixelsError,
    errors.TooComplexError,
    errors.CannotFitError,
    errors.RenderGaveUpError,
    errors.DamagedOriginalError,
    errors.DamagedDocumentError,
    errors.RenderFailedError,
    errors.OverloadedError,
    errors.DeadlineExceededError,
    errors.TooCostlyError,
    errors.NewerVersionError,
    *_STORE,
)

ROUTES: Mapping[tuple[str, str], Route] = {
    ("/v1/images", "get"): Route(
        {
            200: Answer(
                "a page of documents, newest first",
                {"one image": {"images": [DOCUMENT_EXAMPLE]}},
                ("ImagesPage",),
                fields={"Link": 'with `rel="next"` the page that follows; missing on the last'},
            )
        },
        (errors.BadRequestError, *_ACCESS, *_STORE),
    ),
    ("/v1/images", "post"): Route(
        {
            200: Answer("these bytes are here already", {"a photo": DOCUMENT_EXAMPLE}, ("ImageDocument", "ImageDocuments"), fields=_ETAG),
            201: Answer(
                "stored: what a 201 says is on disk",
                {"a photo": DOCUMENT_EXAMPLE},
                ("ImageDocument", "ImageDocuments"),
                fields={**_ETAG, "Location": "the path of the document"},
            ),
            207: Answer("several files whose outcomes differ, in the order sent", {"one of two": _MANY}, ("ImageDocuments",)),
        },
        _INGEST,
    ),
    ("/v1/images/known", "post"): Route(
        {
            200: Answer(
                "those that are here, and those that were taken down",
                {"one of two": {"images": [DOCUMENT_EXAMPLE], "gone": [], "max_upload_bytes": 67_108_864}},
                ("KnownImages",),
            )
        },
        (*_JSON, *_ACCESS, *_STORE),
    ),
    ("/v1/images/{digest}", "get"): Route({200: _DOCUMENT, 304: Answer("what `If-None-Match` names is still it", fields=_ETAG)}, _KNOWN),
    ("/v1/images/{digest}", "patch"): Route(
        {200: _DOCUMENT},
        (*_JSON, *_KNOWN, errors.PreconditionFailedError, errors.PreconditionRequiredError),
    ),
    ("/v1/images/{digest}", "delete"): Route(
        {
            200: Answer(
                "taken down",
                {
                    "with a CDN": {
                        "digest": DIGEST_EXAMPLE,
                        "taken_down": "2026-11-25T12:00:00Z",
                        "renditions": 18,
                        "cdn": "purged",
                    }
                },
                ("TakenDown",),
            )
        },
        (*_ACCESS, errors.NotFoundError, errors.CdnError, *_STORE),
    ),
    ("/v1/images/{digest}/tombstone", "delete"): Route(
        {204: Answer("the same bytes may be uploaded again")}, (*_ACCESS, errors.NotFoundError, *_STORE)
    ),
    ("/v1/images/{digest}/urls", "post"): Route(
        {200: Answer("a ladder, or one URL", {"a ladder": MARKUP_EXAMPLE, "one URL": _URL_EXAMPLE}, ("Markup", "OneUrl"))},
        (*_JSON, errors.BadTransformError, errors.FormatNotOfferedError, *_KNOWN, errors.TooManyPixelsError, errors.TooComplexError),
    ),
    ("/v1/pull", "post"): Route(
        {
            200: Answer(
                "a URL that leads to the rendition of what the source has",
                {"one URL": {"url": f"/pull/v1/aHR0cHM6Ly9pbWFnZXMuZXhhbXBsZS5jb20vYS5qcGc/width=640/{SIGNATURE_EXAMPLE}.auto"}},
                ("OneUrl",),
            )
        },
        (*_JSON, errors.BadTransformError, *_ACCESS, errors.SourceRefusedError),
    ),
    ("/health", "get"): Route(
        {
            200: Answer(
                "should get requests",
                {
                    "ok": {
                        "status": "ok",
                        "version": "0.3.0",
                        "region": "ams",
                        "machine": "148ed193b12389",
                        "regions": ["ams", "iad"],
                        "sandbox": {"landlock": 7, "seccomp": True, "no_new_privs": True},
                    }
                },
                ("Report",),
            ),
            503: Answer(
                "should get none",
                {"draining": {"status": "unavailable", "version": "0.3.0", "reason": "the server is about to end"}},
                ("Report",),
            ),
        }
    ),
    ("/livez", "get"): Route({200: Answer("the process answers", media_type="text/plain")}),
    ("/i/{version}/{digest}/{transform}/{signature}.{extension}", "get"): Route(
        {
            200: Answer("the picture", media_type="image/*", fields=_RENDITION_FIELDS),
            206: Answer("a part of it, as `Range` asks", media_type="image/*", fields={"Content-Range": "which bytes"}),
            304: Answer("what `If-None-Match` names is still it"),
            308: Answer("the same without a query string", fields={"Location": "the address without it"}),
        },
        _RENDER,
    ),
    ("/pull/v1/{url}/{transform}/{signature}.{extension}", "get"): Route(
        {302: Answer("the rendition of what the source has now", fields={"Location": "the path of the rendition"})},
        (*_RENDER, errors.SourceRefusedError, errors.SourceFailedError, errors.SourceSlowError),
    ),
}

_EXTENSION = {"name": "extension", "in": "path", "required": True, "schema": {"enum": [*FORMAT_OF_EXTENSION, "auto"]}, "example": "avif"}
_TRANSFORM = {
    "name": "transform",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "`key=value` pairs in canonical spelling, or `full`",
    "example": "width=640",
}
_SIGNATURE = {
    "name": "signature",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^([a-z2-7]{26}|-)$"},
    "description": "made by the server; `-` for a transform that DARKROOM_UNSIGNED_TRANSFORMS lists",
    "example": SIGNATURE_EXAMPLE,
}

# Routes whose paths Litestar does not know in parts.
BY_ADDRESS: Mapping[str, dict[str, Any]] = {
    "/i/{version}/{digest}/{transform}/{signature}.{extension}": {
        "summary": "A rendition",
        "description": "Use these URLs as an image document or POST /v1/images/{digest}/urls gives them.",
        "parameters": [
            {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^v[0-9]+$"}, "example": "v2"},
            {"name": "digest", "in": "path", "required": True, "schema": {"type": "string"}, "example": DIGEST_EXAMPLE},
            _TRANSFORM,
            _SIGNATURE,
            _EXTENSION,
        ],
    },
    "/pull/v1/{url}/{transform}/{signature}.{extension}": {
        "summary": "The rendition of what a remote source has",
        "description": "Use these URLs as POST /v1/pull gives them. The redirect is good for minutes, the rendition behind it for ever.",
        "parameters": [
            {
                "name": "url",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": "the source's URL in unpadded base64url",
                "example": "aHR0cHM6Ly9pbWFnZXMuZXhhbXBsZS5jb20vYS5qcGc",
            },
            _TRANSFORM,
            _SIGNATURE,
            _EXTENSION,
        ],
    },
}

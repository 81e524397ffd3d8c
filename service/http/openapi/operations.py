"""Each operation of the API: its body and parameters, its responses with examples, and the problems that may come in their place.

The JSON Schemas are made from the Structs of `service.http.schemas`, and those of lower layers that are part of responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service import errors
from service.errors import Problem, ServiceError
from service.http.openapi.examples import (
    ART_DIRECTION_MARKUP,
    DOCUMENT,
    DOCUMENTS,
    DRAINING,
    HEALTHY,
    LOOKUP,
    MARKUP,
    MISDIRECTED,
    OBJECTS,
    PAGE,
    PRIORITY_MARKUP,
    RANGE_NOT_SATISFIABLE,
    SIGNATURE,
    SOURCE_URL,
    SOURCES,
    TAKEN_DOWN,
    UPLOAD_URL,
    URL,
    problem_example,
)
from service.http.schemas import (
    ImageDocument,
    ImageDocuments,
    ImagePatch,
    ImagesPage,
    IngestFromSource,
    LookupRequest,
    LookupResponse,
    ObjectsQuery,
    PageQuery,
    RequestBody,
    SourceObjects,
    SourcesResponse,
    SourceUrlRequest,
    UploadUrl,
    UploadUrlRequest,
    UrlResponse,
    UrlsRequest,
)
from service.http.validation import json_schema
from service.images.digest import DIGEST_EXAMPLE
from service.images.formats import FORMAT_OF_EXTENSION, FORMATS
from service.images.picture import Markup
from service.images.transform import PIPELINE_VERSION
from service.library.takedowns import TakenDown
from service.ops.health import Report

_REF = "#/components/schemas/{name}"
_SCHEMAS = (
    ImageDocument,
    ImagesPage,
    LookupResponse,
    Markup,
    UploadUrl,
    UrlResponse,
    Problem,
    Report,
    SourceObjects,
    SourcesResponse,
    TakenDown,
)
_PROBLEM = "application/problem+json"


class Reply(msgspec.Struct, frozen=True):
    """The response of an operation with one status: its meaning, the types of its body, examples of it, and its header fields."""

    description: str
    examples: Mapping[str, object] = {}
    types: tuple[type[msgspec.Struct], ...] = ()
    media_type: str = "application/json"
    fields: Mapping[str, str] = {}


class Operation(msgspec.Struct, frozen=True):
    """The responses of an operation by status, its problems, and the JSON body and other parameters of its requests."""

    replies: Mapping[int, Reply]
    problems: tuple[type[ServiceError], ...] = ()
    body: type[RequestBody] | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return Litestar's OpenAPI 3.1 document with everything that `OPERATIONS` and `UNROUTED` add."""
    paths = {path: dict(item) for path, item in document["paths"].items()} | {path: dict(item) for path, item in UNROUTED.items()}
    for (path, method), operation in OPERATIONS.items():
        described = {**paths[path][method], "responses": responses(operation), "security": _security(path)}
        if operation.parameters:
            described["parameters"] = [*described.get("parameters", []), *operation.parameters]
        if operation.body is not None:
            described["requestBody"] = {"required": bool(json_schema(operation.body)["required"]), "content": _json_body(operation.body)}
        paths[path][method] = described
    upload = paths["/v1/images"]["post"]
    upload["requestBody"] = {"required": True, "content": {**_FILES, **_json_body(IngestFromSource)}}
    # If all of several files fail with the same status, the response has that status, and the problem of each.
    for response in upload["responses"].values():
        if _PROBLEM in response.get("content", {}):
            problems = [example["value"] for example in response["content"][_PROBLEM]["examples"].values()]
            examples = {"two files": {"value": {"images": [problems[0], problems[0]]}}}
            response["content"]["application/json"] = {"schema": _ref(ImageDocuments), "examples": examples}
    for method in ("post", "put"):
        paths[_UPLOAD_PATH][method]["requestBody"] = {"required": True, "content": _ONE_FILE}
    return {**document, "paths": paths, "components": components()}


def components() -> dict[str, Any]:
    """Return the schemas that responses refer to, and how a token is sent."""
    _, schemas = msgspec.json.schema_components(_SCHEMAS, ref_template=_REF)
    # msgspec makes no schema of a union of two Structs.
    items = {"anyOf": [_ref(ImageDocument), _ref(Problem)]}
    schemas[ImageDocuments.__name__] = {
        "title": ImageDocuments.__name__,
        "description": ImageDocuments.__doc__,
        "type": "object",
        "required": list(ImageDocuments.__struct_fields__),
        "properties": {name: {"type": "array", "items": items} for name in ImageDocuments.__struct_fields__},
    }
    bearer = {"type": "http", "scheme": "bearer", "description": "One that the server knows; a server without any requires none."}
    return {"schemas": schemas, "securitySchemes": {"token": bearer}}


def responses(operation: Operation) -> dict[str, Any]:
    """Return the responses of an operation in OpenAPI's form; all problems of a status are examples of one response."""
    described: dict[str, Any] = {str(status): _reply(reply) for status, reply in operation.replies.items()}
    for error in operation.problems:
        described.setdefault(
            str(error.status_code),
            {
                "description": HTTPStatus(error.status_code).phrase,
                "content": {_PROBLEM: {"schema": _ref(Problem), "examples": {}}},
            },
        )["content"][_PROBLEM]["examples"][error.slug] = {"summary": error.title, "value": problem_example(error)}
    return described


def _reply(reply: Reply) -> dict[str, Any]:
    described: dict[str, Any] = {"description": reply.description}
    if reply.fields:
        described["headers"] = {name: {"schema": {"type": "string"}, "description": text} for name, text in reply.fields.items()}
    examples = {name: {"value": value} for name, value in reply.examples.items()}
    if reply.types:
        refs = [_ref(each) for each in reply.types]
        described["content"] = {reply.media_type: {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}, "examples": examples}}
    elif reply.media_type == "text/plain":
        described["content"] = {reply.media_type: {"schema": {"type": "string"}, "examples": examples}}
    elif reply.media_type == "image/*":
        image = {"schema": {"type": "string", "contentMediaType": "image/*"}}
        described["content"] = dict.fromkeys(sorted(traits.media_type for traits in FORMATS.values()), image)
    return described


def _ref(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}


def _json_body(kind: type[RequestBody]) -> dict[str, Any]:
    examples = {name: {"value": value} for name, value in kind.examples.items()}
    return {"application/json": {"schema": json_schema(kind), "examples": examples}}


def _security(path: str) -> list[dict[str, list[str]]]:
    # Either of the two: a server without tokens requires none.
    return [{"token": []}, {}] if path.startswith("/v1/") and path != _UPLOAD_PATH else []


def _query_parameters(kind: type[msgspec.Struct]) -> tuple[Mapping[str, Any], ...]:
    """Return the members of a Struct as query parameters."""
    schema = json_schema(kind)
    found = []
    for name, member in schema["properties"].items():
        rest = {key: value for key, value in member.items() if key not in {"description", "examples"}}
        found.append({"name": name, "in": "query", "schema": rest, "description": member["description"], "example": member["examples"][0]})
    return tuple(found)


_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
_FILES = {
    "application/octet-stream": {"schema": _FILE},
    "multipart/form-data": {"schema": {"type": "object", "properties": {"file": {"type": "array", "items": _FILE}}}},
}
_ONE_FILE = {
    "application/octet-stream": {"schema": _FILE},
    "multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}}},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
    "description": "The ETag of the document that was read, or `*`: 428 without it, 412 if the image has been changed since.",
}
_FILE_NAME = {
    "name": "name",
    "in": "query",
    "schema": {"type": "string"},
    "description": "The file name of a body that is the image's bytes; a part of a form has its own.",
    "example": "panda.jpg",
}
_ETAG = {"ETag": "The version of the document, for If-Match and If-None-Match."}
_DOCUMENT = Reply("The image document.", {"a photo": DOCUMENT}, (ImageDocument,), fields=_ETAG)
_NOT_MODIFIED = Reply("The version that `If-None-Match` names is the current one.", fields=_ETAG)
_RENDITION_FIELDS = {
    "Cache-Control": "A year, immutable: the bytes at this URL never change.",
    "ETag": "The digest of the bytes.",
    "Repr-Digest": "The SHA-256 of the bytes (RFC 9530).",
    "Cache-Status": "Whether the response was in the server's memory (RFC 9211).",
    "Server-Timing": "How long each step took.",
    "Cache-Tag": "The digests of the originals that the rendition was made from.",
}

_SOURCE_FIELDS = {
    **_RENDITION_FIELDS,
    "Cache-Control": "A minute at most: the object may become another picture.",
    "Content-Location": "The immutable URL of the same rendition.",
    "Link": 'The same URL, with `rel="canonical"`.',
}
_PARTIAL = Reply("The part of it that `Range` requests.", media_type="image/*", fields={"Content-Range": "The range of bytes."})
_NO_RANGE = Reply(
    "No byte of the picture is in the `Range` (from the edge).",
    {"too far": RANGE_NOT_SATISFIABLE},
    (Problem,),
    _PROBLEM,
    {"Content-Range": "The size of the picture in bytes."},
)

# Of the edge, in deployments whose regions do not share a store.
_MISDIRECTED = {
    421: Reply(
        "Only the primary region can respond. Fly's proxy replays the request there; if it is too large for that, the client has to "
        "send it again with `fly-prefer-region`.",
        {"a large upload": MISDIRECTED},
        (Problem,),
        _PROBLEM,
        {
            "fly-replay": "The region in which Fly's proxy replays the request.",
            "fly-prefer-region": "The region to name in the same header of a request that is sent again.",
        },
    )
}

# The problems of a JSON body.
_JSON = (errors.BadRequestError, errors.SlowUploadError, errors.TooLargeError)
# The problems of any request's header.
_HEADER = (errors.BadRequestError, errors.HeaderTooLargeError)
_AUTH = (*_HEADER, errors.UnauthorizedError, errors.ForbiddenError, errors.TooManyFailuresError)
_STORE = (errors.StorageUnavailableError,)
_IMAGE = (*_AUTH, errors.NotFoundError, errors.GoneError, errors.DamagedDocumentError, *_STORE)
_INGEST = (
    errors.BadRequestError,
    errors.BadAddressError,
    errors.EmptyBodyError,
    *_AUTH,
    errors.SourceRefusedError,
    errors.NotFoundError,
    errors.SlowUploadError,
    errors.GoneError,
    errors.TooLargeError,
    errors.UnsupportedFormatError,
    errors.BrokenImageError,
    errors.TooManyPixelsError,
    errors.TooComplexError,
    errors.RenderGaveUpError,
    errors.QuotaExceededError,
    errors.RenderFailedError,
    errors.SourceFailedError,
    errors.OverloadedError,
    errors.DeadlineExceededError,
    errors.TooCostlyError,
    *_STORE,
    errors.SourceSlowError,
    errors.StorageFullError,
)
# The problems of an object that is no image.
_OF_SOURCES = (
    errors.TooLargeError,
    errors.UnsupportedFormatError,
    errors.BrokenImageError,
    errors.SourceFailedError,
    errors.SourceSlowError,
    errors.StorageFullError,
)
# The problems of an image that is fetched from a source in place of being uploaded.
_FETCH = (
    errors.BadAddressError,
    errors.SourceRefusedError,
    errors.NotFoundError,
    errors.SourceFailedError,
    errors.SourceSlowError,
)
# A ticket takes the place of a token, and nothing is fetched.
_UPLOAD = (
    *(error for error in _INGEST if error not in {*_AUTH, *_FETCH, errors.QuotaExceededError}),
    *_HEADER,
    errors.BadSignatureError,
    errors.TooManyFailuresError,
    errors.UploadUsedError,
    errors.UploadExpiredError,
)
_RENDER = (
    *_HEADER,
    errors.BadAddressError,
    errors.BadTransformError,
    errors.FormatNotOfferedError,
    errors.BadSignatureError,
    errors.TooManyFailuresError,
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

_RENDITION_PATH = "/i/{version}/{digest}/{transform}/{signature}.{extension}"
_NAMED_RENDITION_PATH = "/i/{version}/{digest}/{transform}/{signature}/{name}.{extension}"
_UPLOAD_PATH = "/v1/uploads/{ticket}"
_SOURCE_PATH = "/from/{source}/{path}/{transform}/{signature}.{extension}"

_TAKE_UPLOAD = Operation(
    {
        200: Reply("The same bytes are already stored. The URL is used up.", {"a photo": DOCUMENT}, (ImageDocument,), fields=_ETAG),
        201: Reply(
            "Stored: the image is on disk before this response is sent. The URL is used up.",
            {"a photo": DOCUMENT},
            (ImageDocument,),
            fields={**_ETAG, "Location": "The path of the document, which needs a token."},
        ),
        **_MISDIRECTED,
    },
    _UPLOAD,
    parameters=(_FILE_NAME,),
)


def _rendition(redirected: str, location: str, fields: Mapping[str, str] = {}) -> Operation:
    """Return the operation of a rendition's path; `redirected` and `location` describe its 308."""
    return Operation(
        {
            200: Reply("The picture.", media_type="image/*", fields={**_RENDITION_FIELDS, **fields}),
            206: _PARTIAL,
            304: Reply("The `ETag` is the one that `If-None-Match` names."),
            308: Reply(redirected, fields={"Location": location}),
            416: _NO_RANGE,
            **_MISDIRECTED,
        },
        _RENDER,
    )


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("/v1/images", "get"): Operation(
        {
            200: Reply(
                "A page of documents, newest first.",
                {"one image": PAGE},
                (ImagesPage,),
                fields={"Link": 'The next page, with `rel="next"`; missing on the last page.'},
            ),
            **_MISDIRECTED,
        },
        (*_AUTH, *_STORE),
        parameters=_query_parameters(PageQuery),
    ),
    ("/v1/images", "post"): Operation(
        {
            200: Reply("The same bytes are already stored.", {"a photo": DOCUMENT}, (ImageDocument, ImageDocuments), fields=_ETAG),
            201: Reply(
                "Stored: the image is on disk before this response is sent.",
                {"a photo": DOCUMENT},
                (ImageDocument, ImageDocuments),
                fields={**_ETAG, "Location": "The path of the document."},
            ),
            207: Reply("Several files whose outcomes differ, in the order sent.", {"one of two": DOCUMENTS}, (ImageDocuments,)),
            **_MISDIRECTED,
        },
        _INGEST,
        parameters=(_FILE_NAME,),
    ),
    ("/v1/images/known", "post"): Operation(
        {
            200: Reply("The images that are stored, and those that were taken down.", {"one of two": LOOKUP}, (LookupResponse,)),
            **_MISDIRECTED,
        },
        (*_JSON, *_AUTH, *_STORE),
        LookupRequest,
    ),
    ("/v1/images/{digest}", "get"): Operation({200: _DOCUMENT, 304: _NOT_MODIFIED, **_MISDIRECTED}, _IMAGE),
    ("/v1/images/{digest}", "patch"): Operation(
        {200: _DOCUMENT, **_MISDIRECTED},
        (*_JSON, *_IMAGE, errors.PreconditionFailedError, errors.PreconditionRequiredError),
        ImagePatch,
        (_IF_MATCH,),
    ),
    ("/v1/images/{digest}", "delete"): Operation(
        {200: Reply("The image is taken down.", {"with a CDN": TAKEN_DOWN}, (TakenDown,)), **_MISDIRECTED},
        (*_AUTH, errors.NotFoundError, errors.CdnError, *_STORE),
    ),
    ("/v1/images/{digest}/tombstone", "delete"): Operation(
        {204: Reply("The same bytes may be uploaded again."), **_MISDIRECTED}, (*_AUTH, errors.NotFoundError, *_STORE)
    ),
    ("/v1/images/{digest}/urls", "post"): Operation(
        {
            200: Reply(
                "A ladder, or one URL.",
                {
                    "a ladder": MARKUP,
                    "the first image of a page": PRIORITY_MARKUP,
                    "another crop on narrow screens": ART_DIRECTION_MARKUP,
                    "one URL": URL,
                },
                (Markup, UrlResponse),
            ),
            **_MISDIRECTED,
        },
        (*_JSON, errors.BadTransformError, errors.FormatNotOfferedError, *_IMAGE, errors.TooManyPixelsError, errors.TooComplexError),
        UrlsRequest,
    ),
    ("/v1/uploads", "post"): Operation(
        {201: Reply("A URL that takes one upload.", {"one URL": UPLOAD_URL}, (UploadUrl,)), **_MISDIRECTED},
        (*_JSON, *_AUTH, errors.QuotaExceededError),
        UploadUrlRequest,
    ),
    (_UPLOAD_PATH, "post"): _TAKE_UPLOAD,
    (_UPLOAD_PATH, "put"): _TAKE_UPLOAD,
    ("/v1/sources", "get"): Operation(
        {200: Reply("The names and kinds of the sources.", {"two sources": SOURCES}, (SourcesResponse,))}, _AUTH
    ),
    ("/v1/sources/{name}/objects", "get"): Operation(
        {
            200: Reply(
                "A page of objects, in the order of their paths.",
                {"two images": OBJECTS},
                (SourceObjects,),
                fields={"Link": 'The next page, with `rel="next"`; missing on the last page.'},
            ),
        },
        (*_AUTH, errors.SourceNotListableError, errors.NotFoundError, errors.SourceFailedError, errors.SourceSlowError),
        parameters=_query_parameters(ObjectsQuery),
    ),
    ("/v1/sources/{name}/urls", "post"): Operation(
        {200: Reply("A URL of a rendition of the object.", {"one URL": SOURCE_URL}, (UrlResponse,)), **_MISDIRECTED},
        (*_JSON, errors.BadAddressError, errors.BadTransformError, *_AUTH, errors.NotFoundError),
        SourceUrlRequest,
    ),
    ("/health", "get"): Operation(
        {
            200: Reply("Should receive requests.", {"ok": HEALTHY}, (Report,)),
            503: Reply("Should receive none.", {"draining": DRAINING}, (Report,)),
        }
    ),
    ("/livez", "get"): Operation({200: Reply("The process responds.", {"alive": "alive\n"}, media_type="text/plain")}),
    (_RENDITION_PATH, "get"): _rendition("A request with a query string.", "The URL without the query string."),
    (_NAMED_RENDITION_PATH, "get"): _rendition(
        "A request with a query string, with another spelling of the name, or without a signature and with another name than the image's.",
        "The URL without the query string, and with the right name, if the image has one.",
        {"Content-Disposition": "The name under which browsers save the picture."},
    ),
    (_SOURCE_PATH, "get"): Operation(
        {
            200: Reply("The picture as it is now.", media_type="image/*", fields=_SOURCE_FIELDS),
            206: _PARTIAL,
            302: Reply(
                "With `DARKROOM_SOURCE_RESPONSE=redirect`: the current rendition is there.", fields={"Location": "The immutable URL."}
            ),
            304: Reply("The `ETag` is the one that `If-None-Match` names."),
            308: Reply(
                "A request with a query string, or with another spelling of the path.", fields={"Location": "The canonical spelling."}
            ),
            416: _NO_RANGE,
            **_MISDIRECTED,
        },
        (*_RENDER, *_OF_SOURCES),
    ),
}


def _path_parameter(name: str, schema: Mapping[str, object], example: str, description: str = "") -> dict[str, object]:
    described = {"description": description} if description else {}
    return {"name": name, "in": "path", "required": True, "schema": schema, **described, "example": example}


_END_OF_PATH = [
    _path_parameter("transform", {"type": "string"}, "width=640", "`key=value` pairs in canonical form, or `full`."),
    _path_parameter(
        "signature",
        {"type": "string", "pattern": "^([a-z2-7]{26}|-)$"},
        SIGNATURE,
        "Made by the server; `-` for a transform of the open ladder (DARKROOM_UNSIGNED).",
    ),
    _path_parameter("extension", {"enum": [*FORMAT_OF_EXTENSION, "auto"]}, "avif"),
]
_RENDITION_PARAMETERS = [
    _path_parameter("version", {"type": "string", "pattern": "^v[0-9]+$"}, f"v{PIPELINE_VERSION}"),
    _path_parameter("digest", {"type": "string"}, DIGEST_EXAMPLE),
    *_END_OF_PATH,
]

# Litestar's routes of these paths do not name their segments.
UNROUTED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    _RENDITION_PATH: {
        "get": {
            "operationId": "getRendition",
            "summary": "Get a rendition",
            "description": "These URLs are in image documents and in the responses of `POST /v1/images/{digest}/urls`.",
            "tags": ["renditions"],
            "deprecated": False,
            "parameters": _RENDITION_PARAMETERS,
        }
    },
    _NAMED_RENDITION_PATH: {
        "get": {
            "operationId": "getNamedRendition",
            "summary": "Get a rendition with a name",
            "description": "The same rendition, under a name for people who save it and for search engines.",
            "tags": ["renditions"],
            "deprecated": False,
            "parameters": [
                *_RENDITION_PARAMETERS,
                _path_parameter("name", {"type": "string"}, "panda-eats-bamboo", "Without a signature, the name of the image."),
            ],
        }
    },
    _SOURCE_PATH: {
        "get": {
            "operationId": "getFromSource",
            "summary": "Get a rendition of a source's image",
            "description": (
                "Anyone can build these URLs for transforms of the open ladder; `POST /v1/sources/{name}/urls` makes them for the others. "
                "The response is valid for minutes, and names the URL of the same rendition that is valid forever."
            ),
            "tags": ["renditions"],
            "deprecated": False,
            "parameters": [
                _path_parameter("source", {"type": "string"}, "shop", "A name in DARKROOM_SOURCES."),
                _path_parameter(
                    "path",
                    {"type": "string"},
                    "panda.jpg",
                    "The path of the object below the source's prefix, each segment as encodeURIComponent spells it, with slashes between "
                    "them.",
                ),
                *_END_OF_PATH,
            ],
        }
    },
}

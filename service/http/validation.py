"""JSON bodies and query parameters, decoded into the Structs of `service.http.schemas`; error messages are made from the Struct."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import State

from service.errors import BadRequestError, sanitize
from service.http.bodies import body_pieces, body_too_large

# No more than `PIECE_BYTES` of `service.http.bodies`: the first piece of an upload is the whole body, or too large to be JSON.
MAX_JSON_BYTES = 64 << 10

StructT = TypeVar("StructT", bound=msgspec.Struct)
Schema = Mapping[str, Any]

# How msgspec ends the message of a `ValidationError`: the path of the value, here of an item: "… - at `$.widths[1]`".
_AT_PATH = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`$")
_NUMBER = re.compile(r"[0-9]{1,6}")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")

_SEND_LESS = "Send fewer or shorter entries at a time."
_SEE_DOCS = "GET /docs describes every request, with examples."


async def read_json(request: Request[object, object, State], kind: type[StructT]) -> StructT:
    """Return a request's JSON body as an instance of `kind`, with its defaults if the body is empty.

    Raises `BadRequestError`, which names the first invalid member; `TooLargeError` for more than `MAX_JSON_BYTES`; `SlowUploadError`.
    """
    return decode_json(b"".join([piece async for piece in body_pieces(request, MAX_JSON_BYTES, _SEND_LESS)]), kind)


def require_distinct_formats(formats: Collection[str]) -> None:
    """Raise `BadRequestError` if the member `formats` of a body names a format more than once."""
    if len(set(formats)) < len(formats):
        raise BadRequestError(
            "`formats` names a format more than once.",
            expected="each format at most once",
            received=", ".join(formats),
            remedy="Leave the repetition out.",
        )


def decode_json(body: bytes, kind: type[StructT]) -> StructT:
    """Return JSON as an instance of `kind`, with its defaults if `body` is empty.

    Raises `BadRequestError`, which names the first invalid member, and `TooLargeError` for more than `MAX_JSON_BYTES`.
    """
    if len(body) > MAX_JSON_BYTES:
        raise body_too_large(MAX_JSON_BYTES, f"more than {MAX_JSON_BYTES} bytes of JSON", _SEND_LESS)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(kind, error, body) from error
    # msgspec checks the UTF-8 of strings as Python does, and limits the depth of lists and objects.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            "The body is not valid JSON.", expected=_expected(json_schema(kind)), received=str(error), remedy=_SEE_DOCS
        ) from error


def convert_query(query: Mapping[str, object], kind: type[StructT]) -> StructT:
    """Return query parameters as an instance of `kind`; raises `BadRequestError`, which names the first invalid one."""
    try:
        return msgspec.convert(query, kind)
    except msgspec.ValidationError as error:
        raise _invalid(kind, error, msgspec.json.encode(query)) from error


def read_query(request: Request[object, object, State], kind: type[StructT], remedy: str) -> StructT:
    """Return a request's query parameters as an instance of `kind`; raises `BadRequestError`, which names the first invalid one."""
    pairs = [(name, value) for name, value in request.query_params.multi_items() if isinstance(value, str)]
    query: dict[str, object] = dict(pairs)
    if len(query) != len(pairs) or set(query) - set(kind.__struct_fields__):
        raise BadRequestError(
            "The query has a parameter that is unknown or repeated.",
            expected=f"{' and '.join(kind.__struct_fields__)}, each at most once",
            received=request.scope["query_string"].decode("latin-1"),
            remedy=remedy,
        )
    limit = query.get("limit")
    if isinstance(limit, str) and _NUMBER.fullmatch(limit):
        query["limit"] = int(limit)
    return convert_query(query, kind)


@cache
def json_schema(kind: type[msgspec.Struct]) -> Schema:
    """Return the JSON Schema of a Struct, with those of the Structs in its members in place of references."""
    _, components = msgspec.json.schema_components([kind])
    schema: Schema = _inlined(components[kind.__name__], components)
    return schema


def _inlined(schema: Any, components: Mapping[str, Any]) -> Any:
    match schema:
        case {"$ref": str() as reference}:
            return _inlined(components[reference.rpartition("/")[2]], components)
        case dict():
            return {key: _inlined(value, components) for key, value in schema.items()}
        case list():
            return [_inlined(item, components) for item in schema]
        case _:
            return schema


def _invalid(kind: type[msgspec.Struct], error: msgspec.ValidationError, body: bytes) -> BadRequestError:
    reason = str(error)
    schema = json_schema(kind)
    at = _AT_PATH.search(reason)
    fault = reason[: at.start()] if at else reason
    name = at["path"].removeprefix(".") if at else ""
    remedy = _remedy(schema, name)
    schema, value = _find(schema, body, at["path"] if at else "")
    if unknown := _UNKNOWN.match(fault):
        member = sanitize(unknown["name"])
        near = difflib.get_close_matches(member, schema["properties"], 1)
        return BadRequestError(
            f"`{member}` is not a member of {f'`{name}`' if name else 'this request'}.",
            expected=_expected(schema),
            received=f"`{member}`",
            remedy=f"Did you mean `{near[0]}`?" if near else "Leave it out.",
        )
    if missing := _MISSING.match(fault):
        member = missing["name"]
        expected = _expected(schema["properties"][member])
        return BadRequestError(
            f"`{f'{name}.' if name else ''}{member}` is missing: expected {expected}.",
            expected=_expected(schema),
            received=f"no `{member}`",
            remedy=_SEE_DOCS,
        )
    subject = f"`{name}`" if name else "The body"
    if at and at["key"]:
        subject, schema = f"A name in {subject}", schema["propertyNames"]
        value = max(value, key=len) if isinstance(value, dict) else value
    expected, received = _expected(schema), _received(value, reason)
    return BadRequestError(
        f"{subject} is invalid: expected {expected}, got {received}.", expected=expected, received=received, remedy=remedy
    )


def _find(schema: Schema, body: bytes, path: str) -> tuple[Schema, object]:
    """Return the schema and the value at a path of msgspec's, without its `$`.

    The value is `UNSET` if it cannot be decoded without the Struct, or if a repeated member hides it.
    """
    value: Any = msgspec.UNSET
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        value = msgspec.json.decode(body)
    for step in _STEP.finditer(path):
        schema = next((each for each in schema.get("anyOf", ()) if each.get("type") != "null"), schema)
        if step["name"]:
            schema, key = schema["properties"][step["name"]], step["name"]
        else:
            key = int(step["index"])
            schema = schema["prefixItems"][key] if "prefixItems" in schema else schema["items"]
        try:
            value = value[key]
        except (LookupError, TypeError):
            value = msgspec.UNSET
    return schema, value


def _expected(schema: Schema) -> str:  # noqa: PLR0911 - one for each kind of schema
    """Return in words which values a schema allows."""
    if "anyOf" in schema:
        # A null that stands for the default is not worth a word.
        choices = [each for each in schema["anyOf"] if each.get("type") != "null" or "default" not in schema]
        return ", or ".join(map(_expected, choices))
    if "enum" in schema:
        return f"{'one of ' if len(schema['enum']) > 1 else ''}{', '.join(schema['enum'])}"
    match schema:
        case {"required": required, "properties": members}:
            optional = ", ".join(f"`{name}`" for name in members if name not in required)
            parts = [", ".join(f"`{name}`" for name in required), f"optionally {optional}" if optional else ""]
            return f"an object with {', and '.join(filter(None, parts))}"
        case {"title": title}:
            return str(title)
        case {"type": "integer", "minimum": minimum, "maximum": maximum}:
            return f"a whole number from {minimum} to {maximum}"
        case {"type": "number", "minimum": minimum, "maximum": maximum}:
            return f"a number from {minimum} to {maximum}"
        case {"type": "array", "prefixItems": [first, *_] as items}:
            return f"an array of {len(items)} items, each {_expected(first)}"
        case {"type": "array", "maxItems": count, "items": item}:
            return f"an array of at most {count:,} items, each {_expected(item)}"
        case {"type": "object", "maxProperties": count}:
            return f"an object of at most {count} members"
        case {"type": "boolean"}:
            return "true or false"
        case {"maxLength": count}:
            return f"a string of at most {count:,} characters"
    return str(schema.get("type"))


def _received(value: object, reason: str) -> str:
    """Return a value in a few words: its length if that is what msgspec found wrong, else its JSON."""
    if "of length" in reason and isinstance(value, (str, list, dict)):
        unit = "character" if isinstance(value, str) else "item" if isinstance(value, list) else "member"
        return f"{len(value):,} {unit}{'' if len(value) == 1 else 's'}"
    # `UNSET`, or deeper than Python recurses.
    with suppress(TypeError, RecursionError):
        return sanitize(json.dumps(value, ensure_ascii=False))
    return "a value that cannot be shown"


def _remedy(schema: Schema, path: str) -> str:
    """Return what to do about an invalid value at a path: a member that has a default may be left out."""
    member = re.split(r"[.\[]", path)[0]
    if not member or member in schema["required"]:
        return _SEE_DOCS
    default = schema["properties"][member].get("default")
    return f"Change it, or leave out `{member}`{f' for {default}' if default else ''}."

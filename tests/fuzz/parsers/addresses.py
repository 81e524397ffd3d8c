"""Targets for the parts of URLs: paths of renditions, sources and tickets, transforms, names and media conditions."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

import msgspec

from service.errors import BadAddressError, BadRequestError, BadSignatureError, BadTransformError
from service.images import transform as transforms
from service.images.formats import FORMATS
from service.images.media_condition import all_of, excluding, parse_media_condition
from service.images.name import ascii_name, is_image_name, name_of_file, normalized_image_name
from service.images.options import API_OPTIONS, OPTIONS
from service.images.transform import Transform
from service.urls.rendition_url import MAX_TRANSFORM_CHARACTERS, TRANSFORM_PATTERN, parse_rendition_url
from service.urls.source_url import check_object_path, climbs, encode_object_path, parse_source_url
from service.urls.upload_ticket import parse_upload_path
from tests.fuzz.parsers.target import Target, check_client_error
from tests.fuzz.transforms import random_transform

_DIGEST, _SIGNATURE = "a2" * 16, "b3" * 13


def _rendition_url(data: bytes) -> None:
    try:
        url, signature = parse_rendition_url(data)
    except BadAddressError as error:
        check_client_error(error)
        return
    path = url.path(signature)
    assert parse_rendition_url(path.encode("ascii")) == (url, signature)
    assert url.name or path.encode("ascii") == data, "a URL without a name has one spelling"
    assert signature not in url.signing_payload or signature == "-"


def _source_url(data: bytes) -> None:
    try:
        url, signature = parse_source_url(data)
    except BadAddressError as error:
        check_client_error(error)
        return
    assert parse_source_url(url.path(signature).encode("ascii")) == (url, signature)
    _check_contained(url.object_path)


def _object_path(data: bytes) -> None:
    path = _text(data)
    try:
        check_object_path(path)
    except BadAddressError as error:
        check_client_error(error)
        return
    _check_contained(path)
    raw_path = f"/from/cms/{encode_object_path(path)}/width=640/-.webp".encode("ascii")
    url, _ = parse_source_url(raw_path)
    assert url.object_path == path
    assert url.path("-").encode("ascii") == raw_path


def _check_contained(object_path: str) -> None:
    """Check that no server could leave the folder of the source with an accepted path, however often it decodes it."""
    path, _, _ = object_path.rpartition("/")[2].partition("?")
    folders = object_path.rpartition("/")[0]
    whole = f"{folders}/{path}" if folders else path
    assert not climbs(whole), object_path
    assert not climbs(encode_object_path(whole)), object_path
    assert not re.search(r"[\x00-\x1f\x7f\\]", whole), object_path
    assert "" not in whole.split("/"), object_path


def _upload_path(data: bytes) -> None:
    try:
        ticket, signature = parse_upload_path(data)
    except BadSignatureError as error:
        check_client_error(error)
        return
    assert ticket.path(signature).encode("ascii") == data


def _text(data: bytes) -> str:
    """Return text that may have lone surrogates, as the strings of JSON may."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def _transform(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        transform = transforms.parse(text)
    except BadTransformError as error:
        check_client_error(error)
        return
    _check_transform(transform)


def _transform_options(data: bytes) -> None:
    try:
        options = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    try:
        transform = transforms.from_options(options)
    except BadTransformError as error:
        check_client_error(error)
        return
    _check_transform(transform)


def _check_transform(transform: Transform) -> None:
    _check_canonical(transform)
    for factor in (Fraction(1, 3), Fraction(2)):
        try:
            _check_canonical(transforms.scaled(transform, factor))
        except BadTransformError as error:
            check_client_error(error)
    for image_format in FORMATS:
        try:
            used = transforms.for_format(transform, image_format)
        except BadTransformError as error:
            check_client_error(error)
            continue
        _check_canonical(used)
        assert transforms.for_format(used, image_format) == used


def _check_canonical(transform: Transform) -> None:
    spelled = transform.canonical_form
    assert re.fullmatch(TRANSFORM_PATTERN, spelled), spelled
    assert len(spelled) <= MAX_TRANSFORM_CHARACTERS
    assert transforms.parse_canonical(spelled) == transform, spelled


def _name(data: bytes) -> None:
    text = _text(data)
    name = name_of_file(text)
    if name:
        assert is_image_name(name), name
        assert name_of_file(name) == name, name
        assert normalized_image_name(name) == name, name
        raw_path = f"/i/v3/{_DIGEST}/full/{_SIGNATURE}/".encode()
        url, _ = parse_rendition_url(raw_path + name.encode() + b".webp")
        assert url.name == name
    assert re.fullmatch("[A-Za-z0-9_-]+", ascii_name(name))


def _media_condition(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        condition = parse_media_condition(text)
    except BadRequestError as error:
        check_client_error(error)
        return
    assert parse_media_condition(condition) == condition
    assert parse_media_condition(all_of(condition, "(width > 1px)"))
    assert not set(condition) & set("\"'&;{}\\")
    assert excluding("", [condition]).count("(") == excluding("", [condition]).count(")")


def _random_transforms() -> list[str]:
    rng = Random(1)
    return ["full", *(random_transform(rng, [_DIGEST]) for _ in range(60))]


def _rendition_seeds() -> list[bytes]:
    paths = [f"/i/v3/{_DIGEST}/{transform}/-.avif" for transform in _random_transforms()]
    names = ("photo", "%C3%A9t%C3%A9", "e%CC%81", "%e0%a4%95%e0%a5%8d", "a_b-c", "x" * 80)
    return [path.encode() for path in [*paths, *(f"/i/v3/{_DIGEST}/full/{_SIGNATURE}/{name}.jpg" for name in names)]]


_OBJECT_PATHS = (
    "a.jpg",
    "2026/a b.jpg",
    "a/b?w=1&h=2",
    "é/日本.png",
    "100%.jpg",
    "..a/b..",
    "a;v=1/b",
    "%2e%2e/a",
    "a?next=../b",
    "%252525252e",
    "..;/a",
    "a%5cb",
)
_TRANSFORM_OPTIONS = (
    b'{"width":640,"height":480,"fit":"cover","focal":{"x":0.2,"y":0.8}}',
    b'{"crop":{"left":0.1,"top":0.2,"width":0.5,"height":0.5},"dpr":2.5,"blur":3.5}',
    b'{"pad":{"top":1,"right":2,"bottom":3,"left":4},"background":"#fff8","overlay":null,"round":"max","ratio":"16:9","animate":false}',
    b'{"width":1e3,"quality":"auto","max_bytes":100000,"metadata":"copyright","grayscale":true,"rotate":-45.5,"trim":10}',
)
_WORDS = (b"..", b"%2e", b"%2F", b"%5c", b"%25", b"%00", b";", b"?", b"/-.webp", b"\xed\xa0\x80", b"\xcc\x81", b"e\xcc\x81", b"%C0%AE")
_TRANSFORM_WORDS = (
    *(f"{key}=".encode() for key in OPTIONS),
    *(b",", b"-0", b"0.0", b"1e3", b":", b"full", b"999999999999"),
)

_OPTION_WORDS = (*(f'"{key}":'.encode() for key in API_OPTIONS), b"null", b"1e400", b"-0.0")
_NAMES = (
    "photo.jpg",
    "C:\\a\\b c.png",
    "/x/.htaccess",
    "v1.2",
    "e\u0301te\u0301",
    "क्षेत्र.webp",
    "-_-",
    "\u0f73x",
    "가" * 90,
    "\u1100\u1161",
)

TARGETS = {
    "rendition_url": Target(_rendition_url, _rendition_seeds, _WORDS),
    "source_url": Target(
        _source_url,
        lambda: (
            [f"/from/cms/{encode_object_path(path)}/width=640/-.webp".encode() for path in _OBJECT_PATHS]
            + [f"/from/cms/{path}/full/{_SIGNATURE}.jpg".encode() for path in _OBJECT_PATHS]
        ),
        _WORDS,
    ),
    "object_path": Target(_object_path, lambda: [path.encode() for path in _OBJECT_PATHS], _WORDS),
    "upload_path": Target(
        _upload_path,
        lambda: [f"/v1/uploads/1900000000.1000.{formats}.{'a2' * 8}.{_SIGNATURE}".encode() for formats in ("any", "jpeg", "jpeg-png-heic")],
    ),
    "transform": Target(_transform, lambda: [text.encode() for text in _random_transforms()], _TRANSFORM_WORDS),
    "transform_options": Target(_transform_options, lambda: _TRANSFORM_OPTIONS, _OPTION_WORDS),
    "name": Target(
        _name,
        lambda: [text.encode() for text in _NAMES],
        _WORDS,
    ),
    "media_condition": Target(
        _media_condition,
        lambda: [
            b"(max-width: 40em)",
            b"not (hover)",
            b"(a) and (b) and (c)",
            b"(a) or ((b) and (not (c)))",
            b"(400px <= width <= 700px)",
            b"(min-width: calc(1px + 2 * (3em)))",
        ],
        (b" and ", b" or ", b"not ", b"(", b")", b"(a)"),
    ),
}

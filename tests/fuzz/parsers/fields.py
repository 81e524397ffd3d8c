"""Targets for header fields: those that `edge` reads, and `Accept`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from edge.asgi import Headers
from edge.cache_key import CacheKeys, cache_status_key
from edge.conditional import CONDITIONAL_HEADERS, evaluate_preconditions, not_modified_headers, partial_headers
from edge.fields import (
    MAX_DELTA_SECONDS,
    parse_age,
    parse_cache_control,
    parse_cache_tags,
    parse_delta_seconds,
    parse_http_date,
    parse_structured_dictionary,
    parse_vary,
)
from edge.policy import (
    PolicyDefaults,
    evaluate_policy,
    freshen_headers,
    initial_age,
    reuse_denied_reason,
    stale_if_error_until,
    validator_matches,
)
from service.http.negotiation import negotiated_extension, normalize_accept
from service.images.formats import FORMATS, Format
from tests.fuzz.parsers.structured import NotADictionaryError, dictionary
from tests.fuzz.parsers.target import Target

_NOW = 1_700_000_000.0
_LENGTH = 1_000
_STATUSES = (200, 203, 204, 206, 301, 302, 304, 404, 410, 412, 416, 500, 503)


def _structured_dictionary(data: bytes) -> None:
    found = parse_structured_dictionary(data)
    try:
        expected = dictionary(data.decode("ascii"))
    except (NotADictionaryError, UnicodeDecodeError):
        expected = None
    assert found == expected


def _values(data: bytes) -> None:
    text = data.decode("latin-1")
    directives = parse_cache_control(data)
    assert all(name == name.lower() and re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name) for name in directives)
    assert 0 <= parse_delta_seconds(text) <= MAX_DELTA_SECONDS
    assert 0 <= parse_age([(b"age", data)]) <= MAX_DELTA_SECONDS
    assert all(name and name == name.strip().lower() for name in parse_vary([(b"vary", data)]))
    assert all(tag and b"," not in tag for tag in parse_cache_tags([(b"cache-tag", data)]))
    date = parse_http_date(data)
    if date is not None:
        # IMF-fixdate of the same second. Not by `strftime`, which does not pad years before 1000 everywhere.
        moment = datetime.fromtimestamp(date, UTC) if date < 253_402_300_800 else None
        if moment is not None:
            again = f"Mon, {moment:%d %b} {moment.year:04} {moment:%H:%M:%S} GMT".encode()
            assert parse_http_date(again) == date


def _policy(data: bytes) -> None:
    """Read a status and a response's header lines, and after an empty line the directives of the request."""
    head, _, request = data.partition(b"\n\n")
    status = _STATUSES[head[0] % len(_STATUSES)] if head else 200
    headers = _header_lines(head[1:])
    for targeted in ((), (b"cdn-cache-control",)):
        _check_policy(status, headers, targeted, request)


def _check_policy(status: int, headers: Headers, targeted: tuple[bytes, ...], request: bytes) -> None:
    defaults = PolicyDefaults(heuristic_fraction=0.1, stale_if_error=60)
    policy = evaluate_policy(status, headers, targeted, now=_NOW, authorized=len(request) % 2 == 1, defaults=defaults)
    names = {name for name, _ in headers}
    control = parse_cache_control(b",".join(value for name, value in headers if name == b"cache-control"))
    # A cache that understands the status may ignore a `no-store` beside `must-understand` (RFC 9111 §5.2.2.3).
    forbids = "private" in control or ("no-store" in control and "must-understand" not in control)
    if forbids and not set(targeted) & names:
        assert not policy.storable
    assert not policy.storable or not names & {b"set-cookie"}
    assert policy.storable or not policy.shareable
    assert 0 <= policy.lifetime <= MAX_DELTA_SECONDS
    assert 0 <= policy.stale_if_error <= MAX_DELTA_SECONDS
    assert 0 <= policy.stale_while_revalidate <= MAX_DELTA_SECONDS
    directives = parse_cache_control(request)
    for age in (0.0, policy.lifetime - 0.5, policy.lifetime + 0.5, 1e12):
        reason = reuse_denied_reason(policy, age, directives)
        assert reason in {b"", b"stale", b"request"}
        # `s-maxage` beside `stale-while-revalidate` allows it (RFC 5861 §3): its origin asked for both.
        if age >= policy.lifetime + policy.stale_while_revalidate and policy.must_revalidate:
            assert reason, "a response that must be revalidated is never served stale"
    assert stale_if_error_until(policy, directives) >= 0
    assert initial_age(headers, now=_NOW, delay=-1.0) >= 0
    newer = [(b"etag", b'"2"'), (b"content-length", b"7")]
    fresh = freshen_headers(headers, newer)
    assert [pair for pair in fresh if pair[0] == b"content-length"] == [pair for pair in headers if pair[0] == b"content-length"]
    assert validator_matches(b'"2"', newer)


def _preconditions(data: bytes) -> None:
    """Read the conditional headers of a request."""
    conditions = {name: value for name, value in _header_lines(data) if name in CONDITIONAL_HEADERS}
    stored: Headers = [(b"etag", b'"1"'), (b"last-modified", b"Tue, 14 Nov 2023 22:13:19 GMT"), (b"content-length", b"1000")]
    for length in (0, 1, _LENGTH):
        found = evaluate_preconditions(conditions, stored, length, received_at=_NOW, method="GET")
        assert found.status in {200, 206, 304, 412, 416}
        if found.status == 206:
            assert 0 <= found.first <= found.last < length
            assert (b"content-length", b"%d" % (found.last - found.first + 1)) in partial_headers(stored, found, length)
            assert not conditions.keys() & {b"if-range"} or conditions[b"if-range"].strip() in {b'"1"', stored[1][1]}
        assert not conditions or found.status != 304 or len(not_modified_headers(stored)) == 1
        assert evaluate_preconditions(conditions, stored, length, received_at=_NOW, method="HEAD").status in {200, 304, 412}
    only_range = {name: value for name, value in conditions.items() if name == b"range"}
    _check_range(only_range, stored)


def _check_range(conditions: dict[bytes, bytes], stored: Headers) -> None:
    """Compare a simple range with the positions that RFC 9110 §14.1.2 gives to it."""
    simple = re.fullmatch(rb"bytes=(\d{1,9})-(\d{0,9})", conditions.get(b"range", b""))
    if simple is None:
        return
    first, last = int(simple[1]), min(int(simple[2] or _LENGTH), _LENGTH - 1)
    found = evaluate_preconditions(conditions, stored, _LENGTH, received_at=_NOW, method="GET")
    if simple[2] and int(simple[2]) < first:
        assert found.status == 200
    else:
        assert found == ((206, first, last) if first < _LENGTH else (416, 0, 0))


def _cache_keys(data: bytes) -> None:
    """Read a path, and after an end of line the locations that a response names."""
    path, *locations = data.split(b"\n")
    spelled = cache_status_key(path)
    assert parse_structured_dictionary(b'key="' + spelled + b'"') is not None, spelled
    scope = {"path": "/", "raw_path": b"/x", "query_string": b"", "scheme": "https", "headers": [(b"host", b"a.example")]}
    headers = [(b"location", location) for location in locations]
    for includes_host, start in ((False, b"/"), (True, b"https://a.example/")):
        targets = CacheKeys({}, key_includes_host=includes_host).invalidation_targets(scope, headers)
        assert all(target.startswith(start) for target in targets), targets


# The extension that a client got for each short text of `Accept`: the same text has to mean the same choice.
_chosen: dict[tuple[bytes, tuple[Format, ...]], str] = {}
_OFFERS: tuple[tuple[Format, ...], ...] = (
    ("jxl", "avif", "webp", "jpeg"),
    ("avif", "webp", "png"),
    ("webp", "gif"),
    ("avif", "webp", "jpeg"),
)


def _accept(data: bytes) -> None:
    short = normalize_accept(data)
    assert len(short) < 100
    for formats in _OFFERS:
        extension = negotiated_extension(data.decode("latin-1"), formats)
        assert extension in {FORMATS[image_format].extension for image_format in formats}
        assert _chosen.setdefault((short, formats), extension) == extension, "one response is stored for two choices"


def _header_lines(data: bytes) -> Headers:
    lines = (line.partition(b":") for line in data.split(b"\n"))
    return [(name.strip().lower(), value.strip()) for name, _, value in lines if name.strip()]


_DATES = (b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994")
_DICTIONARIES = (b"max-age=60, immutable", b'a=?1;b="c\\"";d, e=-1.5, f=:YQ==:, g=*t/x', b"max-age=31536000", b"a , b\t,c;x;y=1")
_CONTROLS = (
    b"public, max-age=60, stale-while-revalidate=30",
    b'private="a, b", no-cache="x\\"y"',
    b"s-maxage=5, must-revalidate",
    b"no-store, must-understand",
)
_WORDS = (
    b"max-age=",
    b"s-maxage=",
    b"no-cache",
    b"no-store",
    b"private",
    b"must-understand",
    b"stale-if-error=",
    b"max-stale",
    b"min-fresh=",
    b'"',
    b"\\",
    b"2147483648",
    b"99999999999",
    b"cdn-cache-control:",
    b"cache-control:",
    b"expires:",
    b"last-modified:",
    b"vary:",
    b"set-cookie:",
    b"date:",
    b"age:",
    b"etag:",
    b"range: bytes=",
    b"if-range:",
    b"if-none-match:",
    b"if-match:",
    b"if-modified-since:",
    b"W/",
    b"bytes=-5",
    b"GMT",
    b"q=0.5",
    b"image/avif",
    b"image/*",
    b"*/*",
    *_DATES,
)

TARGETS = {
    "structured_dictionary": Target(_structured_dictionary, lambda: _DICTIONARIES, _WORDS),
    "field_values": Target(_values, lambda: [*_DATES, *_CONTROLS, b"60", b"accept, origin", b"a,b , c"], _WORDS),
    "policy": Target(
        _policy,
        lambda: [
            *(b"\0cache-control: %b\ndate: %b\n\nmax-stale=5" % (control, _DATES[0]) for control in _CONTROLS),
            b"\0cdn-cache-control: max-age=60\ncache-control: no-store\nvary: accept\n\nno-cache",
            b'\4expires: Tue, 14 Nov 2023 23:13:20 GMT\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\nage: 5\netag: W/"1"\n\nmin-fresh=3',
        ],
        _WORDS,
    ),
    "preconditions": Target(
        _preconditions,
        lambda: [
            b"range: bytes=0-99",
            b'range: bytes=-5\nif-range: "1"',
            b"range: bytes=5-",
            b"range: bytes= , 1-2 ,",
            b'if-none-match: W/"1", "2"',
            b"if-match: *",
            b"if-modified-since: Tue, 14 Nov 2023 22:13:19 GMT",
            b"range: bytes=00000000000000000001-1\nif-range: " + _DATES[0],
        ],
        _WORDS,
    ),
    "cache_keys": Target(
        _cache_keys,
        lambda: [
            b'/a?b="c\\\n/x\nhttps://A.example/y?z\n//a.example/q',
            b"/%zz\xff\n../..\nhttps://a.example:443/\nhttps://[::1]/",
            b"/\nhttps://a.example@b/\n?x",
        ],
        (b"https://a.example", b"//", b"..", b"?", b"#", b"@", b"[", b"]", b"\xe2\x84\x80"),
    ),
    "accept": Target(
        _accept,
        lambda: [
            b"image/avif,image/webp,*/*;q=0.8",
            b"image/jxl;q=.5, image/*;q=0.9",
            b"image/webp;q=0,image/avif;v=1",
            b"*/*",
            b"",
        ],
        _WORDS,
    ),
}

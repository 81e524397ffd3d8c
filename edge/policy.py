"""Whether a response may be stored, reused, served stale or revalidated, and for how long.

RFC 9111 (HTTP caching), RFC 9213 (targeted fields), RFC 5861 (stale responses), RFC 8246 (immutable). Every function is pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge.asgi import Headers, get_header_values
from edge.fields import (
    MAX_DELTA_SECONDS,
    parse_age,
    parse_cache_control,
    parse_delta_seconds,
    parse_http_date,
    parse_structured_dictionary,
)

# A lifetime that is only estimated is never longer than a day.
MAX_HEURISTIC_SECONDS = 86_400

# RFC 5861 §4: the errors in whose place a stale response may be served.
ERROR_STATUSES = frozenset({500, 502, 503, 504})

# RFC 9110 §15 without 206 and 304: the statuses that this cache understands, as `must-understand` requires (RFC 9111 §5.2.2.3).
_UNDERSTOOD_STATUSES = frozenset({200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 421, 451, 500, 501, 502, 503, 504})

# RFC 9110 §15.1: the statuses whose responses may be given a heuristic lifetime, without 206.
_HEURISTICALLY_CACHEABLE_STATUSES = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})

# A 304 does not replace these: they describe the stored body (RFC 9111 §3.2).
_BODY_HEADERS = frozenset({b"content-encoding", b"content-length", b"content-range", b"content-type"})


class CachePolicy(NamedTuple):
    """How a shared cache may store and reuse a response. Times are whole seconds."""

    storable: bool
    """Whether the response may be stored at all."""
    shareable: bool
    """Whether clients that are waiting for the same response may share it."""
    lifetime: int = 0
    """The response is fresh while its age is less than this."""
    stale_while_revalidate: int = 0
    """How long after its lifetime it may be served while it is revalidated (RFC 5861 §3)."""
    stale_if_error: int = 0
    """How long after its lifetime it may be served in place of an error of the origin (RFC 5861 §4)."""
    must_revalidate: bool = False
    """Whether a client's `max-stale` and `stale-if-error` are ignored (RFC 9111 §5.2.2.2). The allowances above are the origin's own."""
    no_cache: bool = False
    """Whether it must be revalidated before each use (RFC 9111 §5.2.2.4)."""
    immutable: bool = False
    """Whether it never changes while it is fresh (RFC 8246)."""


NOT_STORABLE = CachePolicy(storable=False, shareable=False)


class PolicyDefaults(NamedTuple):
    """The policy where a response has no directive of its own. The defaults of the defaults add nothing to what the origin says."""

    heuristic_fraction: float = 0.0
    """The lifetime as a fraction, 0 to 1, of the time since `Last-Modified` (RFC 9111 §4.2.2); 0 turns this off."""
    stale_if_error: int = 0
    """How many seconds after its lifetime a stored response may be served in place of an error (RFC 5861 §4)."""


_NO_DEFAULTS = PolicyDefaults()


def evaluate_policy(
    status: int,
    headers: Headers,
    targeted: Sequence[bytes],
    *,
    now: float,
    authorized: bool = False,
    defaults: PolicyDefaults = _NO_DEFAULTS,
) -> CachePolicy:
    """Return how a shared cache may store and reuse a response to GET that arrived at the Unix time `now`.

    `targeted` names the targeted fields that this cache obeys, the most specific first (RFC 9213 §2.1): the first that is present and
    valid decides alone. Without one, `Cache-Control` decides, and `Expires` if that has no lifetime. `authorized`: the request had
    `Authorization` (RFC 9111 §3.5).

    Not stored: a response without an explicit lifetime, whatever its status (unless `defaults` has a heuristic fraction); one with
    `Set-Cookie` or `Vary: *`; a partial response, a 304, and the outcome of a condition or range (412, 416).
    """
    directives, is_targeted = _effective_directives(headers, targeted)
    lifetime = _explicit_lifetime(directives, [] if is_targeted else headers, now)
    if lifetime is None and (status in _HEURISTICALLY_CACHEABLE_STATUSES or "public" in directives):
        lifetime = _heuristic_lifetime(headers, now, defaults.heuristic_fraction)
    no_cache = "no-cache" in directives
    if (lifetime is None and not no_cache) or _must_not_store(status, headers, directives, authorized=authorized):
        return NOT_STORABLE
    # `s-maxage` implies `proxy-revalidate` (RFC 9111 §5.2.2.10), but not where the origin itself allows stale responses beside it.
    never_stale = no_cache or bool(directives.keys() & {"must-revalidate", "proxy-revalidate"})
    return CachePolicy(
        storable=True,
        shareable=not no_cache and bool(lifetime),
        lifetime=0 if no_cache else lifetime or 0,
        stale_while_revalidate=0 if never_stale else parse_delta_seconds(directives.get("stale-while-revalidate", "")),
        stale_if_error=_stale_if_error(directives, defaults, never_stale=never_stale),
        must_revalidate=never_stale or "s-maxage" in directives,
        no_cache=no_cache,
        immutable="immutable" in directives or _is_immutable(headers),
    )


def reuse_denied_reason(policy: CachePolicy, age: float, request_directives: Mapping[str, str]) -> bytes:
    """Return why a stored response must not be reused without revalidation, in the words of `Cache-Status`; empty if it may.

    `age` is in seconds. RFC 9111 §4.2.4 and §5.2.1.
    """
    remaining = policy.lifetime - age
    if remaining > 0:
        if policy.immutable:
            return b""
        too_old = "max-age" in request_directives and age > parse_delta_seconds(request_directives["max-age"])
        expires_too_soon = "min-fresh" in request_directives and remaining < parse_delta_seconds(request_directives["min-fresh"])
        return b"request" if "no-cache" in request_directives or too_old or expires_too_soon else b""
    if policy.no_cache or request_directives.keys() & {"no-cache", "max-age", "min-fresh"}:
        return b"stale"
    if -remaining < policy.stale_while_revalidate:
        return b""
    max_stale = request_directives.get("max-stale")
    if max_stale is None or policy.must_revalidate:
        return b"stale"
    return b"" if max_stale == "" or -remaining <= parse_delta_seconds(max_stale) else b"stale"


def stale_if_error_until(policy: CachePolicy, request_directives: Mapping[str, str]) -> float:
    """Return the age in seconds up to which a response may be served in place of an error (RFC 5861 §4). A client may extend it."""
    if policy.no_cache:
        return 0
    requested = 0 if policy.must_revalidate else parse_delta_seconds(request_directives.get("stale-if-error", ""))
    return policy.lifetime + max(policy.stale_if_error, requested)


def initial_age(headers: Headers, *, now: float, delay: float) -> float:
    """Return the age in seconds of a response that arrived at the Unix time `now`, `delay` seconds after it was requested.

    RFC 9111 §4.2.3: the larger of what its `Date` and its `Age` imply. Never negative, even if the clocks disagree.
    """
    dates = get_header_values(headers, b"date")
    date = parse_http_date(dates[0]) if dates else None
    apparent_age = 0.0 if date is None else now - date
    return max(0.0, apparent_age, parse_age(headers) + max(0.0, delay))


def is_for_one_client(headers: Headers) -> bool:
    """Return whether a response must not be shared whatever its directives: it has `Set-Cookie` or `Vary: *`."""
    return any(name == b"set-cookie" or (name == b"vary" and b"*" in value) for name, value in headers)


def has_validator(headers: Headers) -> bool:
    """Return whether a response can be revalidated later."""
    return any(name in {b"etag", b"last-modified"} for name, _ in headers)


def revalidation_headers(headers: Headers) -> Headers:
    """Return the request headers that revalidate a stored 200 with these `headers` (RFC 9111 §4.3.1)."""
    conditions = {b"etag": b"if-none-match", b"last-modified": b"if-modified-since"}
    return [(conditions[name], value) for name, value in headers if name in conditions]


def validator_matches(etag: bytes | None, headers: Headers) -> bool:
    """Return whether a 304 is about the response with `etag`: it has no entity tag, or the same, compared weakly (RFC 9111 §4.3.4)."""
    tags = get_header_values(headers, b"etag")
    return not tags or (etag is not None and tags[0].removeprefix(b"W/") == etag.removeprefix(b"W/"))


def freshen_headers(stored: Headers, newer: Headers) -> Headers:
    """Return the `stored` headers updated with those of a 304 (RFC 9111 §3.2, §4.3.4)."""
    replaced = {name for name, _ in newer} - _BODY_HEADERS
    return [*(pair for pair in stored if pair[0] not in replaced), *(pair for pair in newer if pair[0] in replaced)]


def _effective_directives(headers: Headers, targeted: Sequence[bytes]) -> tuple[Mapping[str, str], bool]:
    for name in targeted:
        values = get_header_values(headers, name)
        directives = parse_structured_dictionary(b", ".join(values)) if values else None
        if directives:
            return directives, True
    return parse_cache_control(b", ".join(get_header_values(headers, b"cache-control"))), False


def _must_not_store(status: int, headers: Headers, directives: Mapping[str, str], *, authorized: bool) -> bool:
    """Return whether a shared cache must not store a response, whatever its lifetime (RFC 9111 §3)."""
    # Conditions and ranges are not part of the cache key, so their outcome is for one request only.
    if status < 200 or status in {206, 304, 412, 416} or "private" in directives or is_for_one_client(headers):
        return True
    if authorized and not directives.keys() & {"public", "s-maxage", "must-revalidate"}:
        return True
    # RFC 9111 §5.2.2.3: a cache that understands the status may ignore a `no-store` beside `must-understand`.
    return status not in _UNDERSTOOD_STATUSES if "must-understand" in directives else "no-store" in directives


def _explicit_lifetime(directives: Mapping[str, str], headers: Headers, now: float) -> int | None:
    """Return `s-maxage`, `max-age`, or `Expires` minus `Date`; `None` without any of them (RFC 9111 §4.2.1)."""
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return parse_delta_seconds(directives[name])
    expires = get_header_values(headers, b"expires")
    if not expires:
        return None
    dates = get_header_values(headers, b"date")
    date = parse_http_date(dates[0]) if dates else None
    until = parse_http_date(expires[0])
    # RFC 9111 §5.3: an invalid date, especially "0", is in the past.
    return 0 if until is None else min(max(0, int(until - (now if date is None else date))), MAX_DELTA_SECONDS)


def _heuristic_lifetime(headers: Headers, now: float, fraction: float) -> int | None:
    """Return the lifetime estimated from `Last-Modified`, `None` without one. A response without `Date` is dated `now`."""
    modified, date = (next(map(parse_http_date, get_header_values(headers, name)), None) for name in (b"last-modified", b"date"))
    if not fraction or modified is None:
        return None
    return min(max(0, int(((now if date is None else date) - modified) * fraction)), MAX_HEURISTIC_SECONDS)


def _stale_if_error(directives: Mapping[str, str], defaults: PolicyDefaults, *, never_stale: bool) -> int:
    if never_stale:
        return 0
    if "stale-if-error" in directives:
        return parse_delta_seconds(directives["stale-if-error"])
    # `s-maxage` forbids stale responses (RFC 9111 §5.2.2.10): only the origin itself may allow them.
    return 0 if "s-maxage" in directives else defaults.stale_if_error


def _is_immutable(headers: Headers) -> bool:
    # `immutable` is for browsers and so is in `Cache-Control`; a targeted field beside it often has only the lifetime.
    return "immutable" in parse_cache_control(b", ".join(get_header_values(headers, b"cache-control")))

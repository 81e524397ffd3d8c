"""By what an answer is found: the address of a request, and its values of the fields by which answers vary (RFC 9111 §2, §4.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote, urljoin, urlsplit

from edge.asgi import Headers, Scope, field_values

# What a request without a field has in place of its value: no field can have it.
_ABSENT = b"\x01"


class Keys:
    """How requests are told apart."""

    def __init__(self, vary_normalizers: Mapping[bytes, Callable[[bytes], bytes]], *, key_includes_host: bool) -> None:
        """Take what returns one of few values in place of a field's (lower-case name), and whether the answers of two hosts may differ."""
        self._normalisers = dict(vary_normalizers)
        self._hosts_differ = key_includes_host
        self.address: Callable[[Scope], bytes] = _absolute if key_includes_host else _target
        """What a request asks for: the path as it was spelled and the query, after scheme and host where hosts differ."""

    def values(self, fields: Collection[bytes], scope: Scope) -> list[bytes]:
        """Return what a request has of the fields by which answers vary, in their normal form."""
        return [self._value(field, field_values(scope["headers"], field)) for field in fields]

    def changed(self, scope: Scope, headers: Headers) -> list[bytes]:
        """Return the addresses that a successful unsafe request has changed: its own, and those that its answer names of the same origin.

        RFC 9111 §4.4: `Location` and `Content-Location`. Scheme, host and port are compared as they are spelled, in lower case.
        """
        addresses = [self.address(scope)]
        base = (_origin(scope) + _path(scope)).decode("latin-1")
        for name, value in headers:
            if name in {b"location", b"content-location"}:
                try:
                    url = urlsplit(urljoin(base, value.decode("latin-1")))
                except ValueError:
                    continue
                origin = f"{url.scheme}://{url.netloc.lower()}".encode("latin-1", "replace")
                if origin == _origin(scope):
                    path = ((url.path or "/") + (f"?{url.query}" if url.query else "")).encode("latin-1", "replace")
                    addresses.append(origin + path if self._hosts_differ else path)
        return addresses

    def _value(self, field: bytes, lines: list[bytes]) -> bytes:
        value = b",".join(part.strip() for line in lines for part in line.split(b","))
        if field in self._normalisers:
            return self._normalisers[field](value)
        return value if lines else _ABSENT


def varies(headers: Headers) -> tuple[bytes, ...]:
    """Return the request's fields by which an answer was chosen, lower-case names in order."""
    names = {name.strip().lower() for value in field_values(headers, b"vary") for name in value.split(b",")}
    return tuple(sorted(names - {b""}))


def secondary_key(address: bytes, generation: int, values: Collection[bytes]) -> bytes:
    """Return the key of one of the answers that an address has, by the request's values of the fields by which they vary.

    No address contains a byte below the space, so that no client can name such a key.
    """
    return b"\x00".join((address, b"%d" % generation, *values))


def key_text(key: bytes) -> bytes:
    """Return a key as it may stand in a string of a structured field (RFC 9651 §3.3.3), the very object where it may stand as it is."""
    if key.isascii() and key.decode("ascii").isprintable() and b'"' not in key and b"\\" not in key:
        return key
    return b"".join(bytes((byte,)) if 0x20 < byte < 0x7F and byte not in b'"\\%' else b"%%%02X" % byte for byte in key)


def _target(scope: Scope) -> bytes:
    path: bytes = scope.get("raw_path") or _path(scope)
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


def _absolute(scope: Scope) -> bytes:
    return _origin(scope) + _target(scope)


def _path(scope: Scope) -> bytes:
    # `raw_path` is optional in ASGI; without it two spellings of one path are one key, which is safe.
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    return path


def _origin(scope: Scope) -> bytes:
    host = b",".join(field_values(scope["headers"], b"host")).lower()
    scheme: str = scope.get("scheme", "http")
    return b"%b://%b" % (scheme.encode("ascii"), host)

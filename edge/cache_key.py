"""Cache keys: the requested URL, and the request's values of the headers by which responses vary (RFC 9111 §2, §4.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote, urljoin, urlsplit

from edge.asgi import Headers, Scope, get_header_values

# Stands for a missing header in a key. No header can have this value.
_MISSING = b"\x01"


class CacheKeys:
    """Makes cache keys from requests."""

    def __init__(self, vary_normalizers: Mapping[bytes, Callable[[bytes], bytes]], *, key_includes_host: bool) -> None:
        """Configure the keys.

        Parameters:
            vary_normalizers: By lower-case header name, a function that maps values to a few equivalent ones.
            key_includes_host: Whether keys begin with the scheme and the host.
        """
        self._vary_normalizers = dict(vary_normalizers)
        self._key_includes_host = key_includes_host

    def primary_key(self, scope: Scope) -> bytes:
        """Return the path and query of a request as the client spelled them, after scheme and host if keys include them."""
        # Not divided into functions, because every hit calls it.
        key: bytes = scope.get("raw_path") or _path(scope)
        if query := scope["query_string"]:
            key = key + b"?" + query
        return _origin(scope) + key if self._key_includes_host else key

    def vary_values(self, names: Collection[bytes], scope: Scope) -> list[bytes]:
        """Return the normalized values of a request's headers called `names`, by which responses vary."""
        return [self._vary_value(name, get_header_values(scope["headers"], name)) for name in names]

    def invalidation_targets(self, scope: Scope, headers: Headers) -> list[bytes]:
        """Return the primary keys that a successful unsafe request invalidates: its own, and the ones that its response names.

        RFC 9111 §4.4: `Location` and `Content-Location` of the same origin. Scheme, host and port are compared as text in lower case.
        """
        targets = [self.primary_key(scope)]
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
                    targets.append(origin + path if self._key_includes_host else path)
        return targets

    def _vary_value(self, name: bytes, lines: list[bytes]) -> bytes:
        value = b",".join(part.strip() for line in lines for part in line.split(b","))
        if name in self._vary_normalizers:
            return self._vary_normalizers[name](value)
        return value if lines else _MISSING


def secondary_key(primary_key: bytes, generation: int, vary_values: Collection[bytes]) -> bytes:
    """Return the key of one of several responses to the same URL, for a request with these values of the headers that matter.

    It contains a NUL byte, which no primary key does: a client cannot spell such a key.
    """
    return b"\x00".join((primary_key, b"%d" % generation, *vary_values))


def cache_status_key(key: bytes) -> bytes:
    """Return a key as the content of a string in a structured field (RFC 9651 §3.3.3).

    Returns the same object if nothing has to be escaped, so that a stored response need not hold it twice.
    """
    if key.isascii() and key.decode("ascii").isprintable() and b'"' not in key and b"\\" not in key:
        return key
    return b"".join(bytes((byte,)) if 0x20 < byte < 0x7F and byte not in b'"\\%' else b"%%%02X" % byte for byte in key)


def _path(scope: Scope) -> bytes:
    # `raw_path` is optional in ASGI. Without it, two spellings of one path have the same key, which is safe.
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    return path


def _origin(scope: Scope) -> bytes:
    host = b",".join(get_header_values(scope["headers"], b"host")).lower()
    scheme: str = scope.get("scheme", "http")
    return b"%b://%b" % (scheme.encode("ascii"), host)

"""Authorization: bearer tokens (RFC 6750) with their scopes, and whether this server fetches remote sources."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from litestar import Request
from litestar.datastructures import State

from service.errors import ForbiddenError, SourceRefusedError, UnauthorizedError
from service.pull.sources import Sources
from service.settings.sections import SCOPES, Scope


class BearerAuth:
    """Checks the bearer token of a request, in constant time. A server without tokens grants every scope to everybody."""

    def __init__(self, token_scopes: Mapping[str, frozenset[Scope]]) -> None:
        """Check tokens against those of the settings.

        `token_scopes`: the scopes that each token grants; empty if no request needs a token.
        """
        self._token_scopes = token_scopes

    def __repr__(self) -> str:
        return f"<BearerAuth tokens={len(self._token_scopes)}>"

    def granted_scopes(self, authorization: str) -> frozenset[Scope]:
        """Return the scopes that the value of an `Authorization` field grants; raises `UnauthorizedError` for an unknown token."""
        if not self._token_scopes:
            return frozenset(SCOPES)
        scheme, _, received = authorization.partition(" ")
        scopes: frozenset[Scope] | None = None
        for token, granted in self._token_scopes.items():
            if hmac.compare_digest(token.encode(), received.strip().encode("utf-8", "surrogateescape")) and scheme.lower() == "bearer":
                scopes = granted
        if scopes is None:
            raise UnauthorizedError(
                "This request needs a token.",
                expected="Authorization: Bearer <one of DARKROOM_TOKENS>",
                received="no known token",
                remedy="Send a token that is configured on the server.",
                extra_headers=(("WWW-Authenticate", 'Bearer realm="darkroom"'),),
            )
        return scopes

    def require(self, request: Request[object, object, State], *any_of: Scope) -> None:
        """Check that the request's token grants at least one of the scopes `any_of`.

        Raises `UnauthorizedError` for an unknown token, and `ForbiddenError` for one that grants none of them.
        """
        scopes = self.granted_scopes(request.headers.get("authorization", ""))
        if scopes.isdisjoint(any_of):
            raise ForbiddenError(
                "This token does not permit the request.",
                expected=f"a token with the scope {' or '.join(f'`{scope}`' for scope in any_of)}",
                received=f"a token with {', '.join(sorted(scopes)) or 'no scope'}",
                remedy="Use another token, or give this one the scope in DARKROOM_TOKENS.",
                extra_headers=(("WWW-Authenticate", f'Bearer realm="darkroom", error="insufficient_scope", scope="{any_of[0]}"'),),
            )


def require_pull(sources: Sources | None) -> Sources:
    """Return the remote sources; raises `SourceRefusedError` if this server fetches from no host."""
    if sources is None:
        raise SourceRefusedError(
            "This server does not fetch images from other hosts.",
            expected="a host that DARKROOM_PULL_HOSTS allows",
            received="no host is allowed",
            remedy="List the hosts in DARKROOM_PULL_HOSTS on the server, or upload the image's bytes.",
        )
    return sources

"""Authorization: bearer tokens (RFC 6750) with their scopes, the sources that they are bound to, and the bytes that they may take in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from litestar import Request
from litestar.datastructures import State

from service.errors import ForbiddenError, QuotaExceededError, TooLargeError, UnauthorizedError
from service.ops.token_usage import TokenUsage
from service.settings.secret_files import Token, hash_token
from service.settings.sections import SCOPES, Scope

# The body has not been read.
_CLOSE = ("Connection", "close")


class Grant:
    """What the token of one request permits."""

    def __init__(self, token: Token | None, usage: TokenUsage) -> None:
        """Grant what `token` permits, or everything if the server has no tokens (`None`); `usage` counts its bytes."""
        self._token = token
        self._usage = usage

    def require_source(self, name: str) -> None:
        """Raise `ForbiddenError` if the token is bound to other sources."""
        if not self.permits_source(name):
            raise self._bound(f"the source {name}")

    def permits_source(self, name: str) -> bool:
        """Return whether the token may be used for a source."""
        return self._token is None or self._token.sources is None or name in self._token.sources

    def require_unbound(self) -> None:
        """Raise `ForbiddenError` if the token is bound to sources: no image, and no upload, belongs to a source."""
        if self._token is not None and self._token.sources is not None:
            raise self._bound("something that belongs to no source")

    async def count(self, body: AsyncIterator[bytes], declared: str = "") -> AsyncIterator[bytes]:
        """Yield the pieces of a body, and count them; `declared`: its Content-Length, if it has one.

        Raises the errors of `require_bytes` before anything is read if Content-Length says so, and those of `spend`.
        """
        if declared.isascii() and declared.isdigit():
            self.require_bytes(int(declared))
        async for piece in body:
            self.spend(len(piece))
            yield piece

    def require_bytes(self, count: int) -> None:
        """Return if so many more bytes may be taken in today; raises `QuotaExceededError`, and `TooLargeError` if no day has so many."""
        if self._token is not None and 0 < self._token.bytes_per_day < count:
            raise TooLargeError(
                "This is more than the token may send in a day.",
                expected=f"at most {self._token.bytes_per_day} bytes",
                received=f"{count} bytes",
                remedy="Send a smaller file, or raise `bytes_per_day` of the token on the server.",
                extra_headers=(_CLOSE,),
            )
        self._require_quota(count)

    def spend(self, count: int) -> None:
        """Count bytes that have arrived; raises `QuotaExceededError` if there are too many today, and counts them all the same."""
        if self._token is not None:
            try:
                self._require_quota(count)
            finally:
                self._usage.add_bytes(self._token.name, count)

    def _require_quota(self, count: int) -> None:
        if self._token is None or not self._token.bytes_per_day:
            return
        most, used = self._token.bytes_per_day, self._usage.bytes_today(self._token.name)
        if used + count > most:
            raise QuotaExceededError(
                "The bytes of this token for today are used up.",
                expected=f"at most {most} bytes from midnight to midnight UTC",
                received=f"{used} bytes before, and {count} more",
                remedy="Send the rest tomorrow, or raise `bytes_per_day` of the token on the server.",
                retry_after_seconds=self._usage.seconds_left_today(),
                extra_headers=(_CLOSE,),
            )

    def _bound(self, received: str) -> ForbiddenError:
        sources = self._token.sources if self._token is not None else None
        return ForbiddenError(
            "This token is bound to sources.",
            expected=f"a request for {' or '.join(sorted(sources or ()))}",
            received=received,
            remedy="Use another token, or change `sources=` of this one on the server.",
            extra_headers=(_CLOSE,),
        )


class BearerAuth:
    """Checks the bearer token of a request. A server without tokens grants everything to everybody.

    A token is looked up by its SHA-256. How long that takes says nothing about a token: whoever measures it does not choose the hash.
    """

    def __init__(self, tokens: Sequence[Token], usage: TokenUsage) -> None:
        """Check tokens.

        tokens: the known tokens, none if no request needs one. usage: records when each was used.
        """
        self._usage = usage
        self.replace_tokens(tokens)

    def __repr__(self) -> str:
        return f"<BearerAuth tokens={len(self._tokens)}>"

    def replace_tokens(self, tokens: Sequence[Token]) -> None:
        """Know these tokens from now on; the parameter is that of the constructor."""
        self._tokens: Mapping[bytes, Token] = {token.sha256: token for token in tokens}
        self._usage.keep_only([token.name for token in tokens])

    def find(self, authorization: str) -> Token | None:
        """Return the token in the value of an `Authorization` field, `None` if none is needed; raises `UnauthorizedError` for another."""
        if not self._tokens:
            return None
        scheme, _, received = authorization.partition(" ")
        token = self._tokens.get(hash_token(received.strip().encode("utf-8", "surrogateescape")))
        if token is None or scheme.lower() != "bearer":
            raise UnauthorizedError(
                "This request needs a token.",
                expected="Authorization: Bearer <a token of the server>",
                received="no known token",
                remedy="Send a token that is configured on the server.",
                extra_headers=(("WWW-Authenticate", 'Bearer realm="darkroom"'),),
            )
        return token

    def require(self, request: Request[object, object, State], *any_of: Scope) -> Grant:
        """Check that the request's token grants at least one of the scopes `any_of`, and is not bound to sources.

        Raises `UnauthorizedError` for an unknown token, and `ForbiddenError` otherwise.
        """
        grant = self.require_for_source(request, *any_of)
        grant.require_unbound()
        return grant

    def require_for_source(self, request: Request[object, object, State], *any_of: Scope) -> Grant:
        """Do the same for a request that a token may permit for some sources: the caller has to check which one it is for."""
        token = self.find(request.headers.get("authorization", ""))
        scopes = frozenset(SCOPES) if token is None else token.scopes
        if scopes.isdisjoint(any_of):
            raise ForbiddenError(
                "This token does not permit the request.",
                expected=f"a token with the scope {' or '.join(f'`{scope}`' for scope in any_of)}",
                received=f"a token with {', '.join(sorted(scopes)) or 'no scope'}",
                remedy="Use another token, or give this one the scope in DARKROOM_TOKENS or DARKROOM_TOKENS_FILE on the server.",
                extra_headers=(("WWW-Authenticate", f'Bearer realm="darkroom", error="insufficient_scope", scope="{any_of[0]}"'),),
            )
        if token is not None:
            self._usage.record(token.name)
        return Grant(token, self._usage)

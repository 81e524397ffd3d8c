"""Purging the CDN in front of the service, by cache tag."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import httpcore
import msgspec

from service.concurrency.retrying import retry
from service.concurrency.spans import stage
from service.errors import CdnError

# "Max operations per request" of every plan: https://developers.cloudflare.com/cache/how-to/purge-cache/#availability-and-limits
MAX_TAGS_PER_CALL = 100

# Between the three attempts at a call.
_PAUSES_SECONDS = (0.25, 1.0)

_MAX_RESPONSE_BYTES = 64 << 10

_ZONE = re.compile(r"[0-9a-fA-F]{32}")
_TOKEN = re.compile(r"[!-~]+")
_RETRY_AFTER = re.compile(r"[0-9]{1,6}")

# What Cloudflare's error codes blame: 6003 and 6111 the format of the Authorization field, 9103 to 9109 and 10000 its credentials.
_TOKEN_CODES = frozenset({6003, 6111, 9103, 9106, 9109, 10000})
_ZONE_CODES = frozenset({1001, 7000, 7003})
_PLAN_CODES = frozenset({1107})


class Cdn(Protocol):
    """A CDN that stores responses with the cache tags that they have."""

    async def purge_tags(self, tags: Sequence[str]) -> None:
        """Purge the responses that have any of `tags`; raises `CdnError`."""
        ...


class PurgeResponse(msgspec.Struct, frozen=True):
    """A response of Cloudflare's API to a purge.

    `retry_after_seconds` is 0 without a Retry-After field; `success` is `None` if the body is not one of the API.
    """

    status: int
    retry_after_seconds: int
    success: bool | None
    codes: tuple[int, ...]

    @property
    def is_purged(self) -> bool:
        """Whether the API confirms that everything is purged."""
        return self.status == 200 and self.success is True

    @property
    def is_transient(self) -> bool:
        """Whether another attempt may succeed."""
        return self.status == 429 or self.status >= 500


class Cloudflare:
    """Purges one Cloudflare zone. No error contains the zone's id, the token, or Cloudflare's own messages, which quote ids."""

    def __init__(self, zone: str, token: str, *, url: str = "https://api.cloudflare.com/client/v4", seconds: float = 10.0) -> None:
        """Make a client; it connects at each purge. Raises `ValueError` for a malformed zone or token.

        `zone`: the id of the zone, 32 hexadecimal digits.
        `token`: an API token with the permission Zone > Cache Purge.
        `url`: where the API is.
        `seconds`: how long a purge may take in all.
        """
        if not _ZONE.fullmatch(zone):
            raise ValueError("A Cloudflare zone id has 32 hexadecimal digits; the zone's overview page shows it.")
        if not _TOKEN.fullmatch(token):
            raise ValueError("A Cloudflare API token is printable ASCII without spaces; Cloudflare shows it once, when you create it.")
        self._url = f"{url.rstrip('/')}/zones/{zone}/purge_cache"
        self._headers: dict[bytes | str, bytes | str] = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "darkroom",
        }
        self._seconds = seconds
        # httpcore reads neither the environment's proxies nor .netrc. Purges are rare, so no connection is kept alive.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(), max_keepalive_connections=0, network_backend=httpcore.AnyIOBackend()
        )

    async def purge_tags(self, tags: Sequence[str]) -> None:
        """Purge the responses that have any of `tags`; raises `CdnError`.

        Tags are case-insensitive (https://developers.cloudflare.com/cache/how-to/purge-cache/purge-by-tags/). After an error some of them
        may be purged; purging them again does no harm.
        """
        distinct = list(dict.fromkeys(tag.lower() for tag in tags))
        with anyio.move_on_after(self._seconds) as scope:
            for start in range(0, len(distinct), MAX_TAGS_PER_CALL):
                body = msgspec.json.encode({"tags": distinct[start : start + MAX_TAGS_PER_CALL]})
                await retry(
                    lambda body=body: self._purge(body),  # type: ignore[misc]
                    pauses=_PAUSES_SECONDS,
                    retry_after=_retry_after,
                    deadline=scope.deadline,
                )
        if scope.cancelled_caught:
            raise CdnError(f"Cloudflare has not purged within {self._seconds:g} seconds.", remedy="Try again.")

    async def _purge(self, body: bytes) -> None:
        """Make one call; raises `CdnError`, and `_TransientError` if another attempt may succeed."""
        try:
            response = await self._call(body)
        except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
            raise _unreachable() from error
        except httpcore.ProtocolError:
            # Its message may quote the response, which may quote the request.
            raise _unreachable() from None
        if not response.is_purged:
            raise _failure(response)

    async def _call(self, body: bytes) -> PurgeResponse:
        with stage("cdn purge", calls=urlsplit(self._url).hostname or ""):
            return await self._exchange(body)

    async def _exchange(self, body: bytes) -> PurgeResponse:
        async with self._pool.stream("POST", self._url, headers=self._headers, content=body) as response:
            retry_after = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
            received = b""
            async for part in response.aiter_stream():
                received += part
                if len(received) > _MAX_RESPONSE_BYTES:
                    # No response of the API is as long, so its beginning does not count.
                    received = b""
                    break
        return parse_response(response.status, retry_after.decode("latin-1"), received)


class _TransientError(CdnError):
    """A purge failed, and another attempt may succeed."""


class _Error(msgspec.Struct, frozen=True):
    code: int


class _Body(msgspec.Struct, frozen=True):
    success: bool
    errors: tuple[_Error, ...] | None = ()


def parse_response(status: int, retry_after: str, body: bytes) -> PurgeResponse:
    """Parse a response: its Retry-After field, which Cloudflare sends in seconds, and its body, which may be anything.

    https://developers.cloudflare.com/fundamentals/api/reference/limits/ and https://developers.cloudflare.com/api/resources/cache/methods/purge/
    """
    seconds = int(retry_after) if _RETRY_AFTER.fullmatch(retry_after) else 0
    try:
        parsed = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return PurgeResponse(status, seconds, None, ())
    return PurgeResponse(status, seconds, parsed.success, tuple(error.code for error in parsed.errors or ()))


def _retry_after(error: Exception) -> float | None:
    return float(error.retry_after_seconds or 0) if isinstance(error, _TransientError) else None


def _unreachable() -> CdnError:
    return _TransientError(
        "Cloudflare cannot be reached.", remedy="Try again. If it lasts, check the network between this machine and Cloudflare."
    )


def _failure(response: PurgeResponse) -> CdnError:
    received = f"status {response.status}"
    if response.codes:
        received += f", code {', '.join(map(str, response.codes))}"
    elif response.success is None:
        received += ", a body that is not from Cloudflare's API"
    detail, remedy = _explain(response)
    error_type = _TransientError if response.is_transient else CdnError
    return error_type(
        detail,
        expected='status 200 and "success": true',
        received=received,
        remedy=remedy,
        retry_after_seconds=response.retry_after_seconds or None,
    )


def _explain(response: PurgeResponse) -> tuple[str, str]:
    """Return what failed and what to do about it: the first row whose condition holds."""
    status, codes = response.status, frozenset(response.codes)
    rows = (
        (status == 429, "Cloudflare limits the rate of purges.", "Try again later, or purge less often: the zone's plan sets the rate."),
        (status >= 500, "Cloudflare failed.", "Try again later."),
        (codes & _PLAN_CODES, "Cloudflare does not purge this zone by tag.", "Check the zone's plan: it must include purging by tag."),
        (
            codes & _ZONE_CODES or status == 404,
            "Cloudflare does not know the zone.",
            "Check DARKROOM_CLOUDFLARE_ZONE: the zone's overview page shows its id.",
        ),
        (
            codes & _TOKEN_CODES or status in {401, 403},
            "Cloudflare refuses the token.",
            "Check DARKROOM_CLOUDFLARE_TOKEN: it needs Zone > Cache Purge for the zone in DARKROOM_CLOUDFLARE_ZONE.",
        ),
        (
            response.success is None,
            "The response is not from Cloudflare's API.",
            "Check the network between this machine and Cloudflare: a proxy may have responded.",
        ),
        (True, "Cloudflare refuses to purge.", "Look up the code in Cloudflare's documentation."),
    )
    return next((detail, remedy) for holds, detail, remedy in rows if holds)

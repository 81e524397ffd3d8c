"""The CDN in front, purged by tag."""

from __future__ import annotations

import re
from collections.abc import Sequence

import anyio
import httpcore
import msgspec

from service.errors import CdnError

# "Max operations per request" of every plan: https://developers.cloudflare.com/cache/how-to/purge-cache/#availability-and-limits
MAX_TAGS_PER_CALL = 100

# Between the attempts at one call: three of them.
_PAUSES_SECONDS = (0.25, 1.0)

_MAX_ANSWER_BYTES = 64 << 10

_ZONE = re.compile(r"[0-9a-fA-F]{32}")
_TOKEN = re.compile(r"[!-~]+")
_RETRY_AFTER = re.compile(r"[0-9]{1,6}")

# What Cloudflare's error codes blame: 6003 and 6111 the form of the Authorization field, 9103 to 9109 and 10000 who it speaks for.
_TOKEN_CODES = frozenset({6003, 6111, 9103, 9106, 9109, 10000})
_ZONE_CODES = frozenset({1001, 7000, 7003})
_PLAN_CODES = frozenset({1107})


class Answer(msgspec.Struct, frozen=True):
    """What came back. `retry_after_seconds` is 0 where it is not said; `success` is `None` where the body says nothing of the kind."""

    status: int
    retry_after_seconds: int
    success: bool | None
    codes: tuple[int, ...]

    @property
    def purged(self) -> bool:
        """Whether this is Cloudflare's word that all is purged."""
        return self.status == 200 and self.success is True


class Cloudflare:
    """One zone of Cloudflare's. Neither its id nor the token is in any error: Cloudflare's own messages, which quote ids, are not told."""

    def __init__(self, zone: str, token: str, *, url: str = "https://api.cloudflare.com/client/v4", seconds: float = 10.0) -> None:
        """Take the zone's id, an API token that may purge it, and how many seconds a purge may take in all; raises ValueError."""
        if not _ZONE.fullmatch(zone):
            raise ValueError("A Cloudflare zone id is 32 hexadecimal digits; the zone's overview page shows it.")
        if not _TOKEN.fullmatch(token):
            raise ValueError("A Cloudflare API token is printable ASCII without spaces; it is shown once, when it is made.")
        self._url = f"{url.rstrip('/')}/zones/{zone}/purge_cache"
        self._headers: dict[bytes | str, bytes | str] = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "darkroom",
        }
        self._seconds = seconds
        # No proxy of the environment and no .netrc plays a part: httpcore reads neither. Purges are rare, so no connection is kept.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpcore.default_ssl_context(), max_keepalive_connections=0, network_backend=httpcore.AnyIOBackend()
        )

    async def purge_tags(self, tags: Sequence[str]) -> None:
        """Purge what carries any of `tags`; raises CdnError.

        Case does not matter in a tag (https://developers.cloudflare.com/cache/how-to/purge-cache/purge-by-tags/). After an error some of
        them may be purged: purging again does no harm.
        """
        distinct = list(dict.fromkeys(tag.lower() for tag in tags))
        with anyio.move_on_after(self._seconds) as scope:
            for start in range(0, len(distinct), MAX_TAGS_PER_CALL):
                await self._purge(distinct[start : start + MAX_TAGS_PER_CALL], scope.deadline)
        if scope.cancelled_caught:
            raise CdnError(f"Cloudflare has not purged within {self._seconds:g} seconds.", remedy="Try again.")

    async def _purge(self, tags: list[str], deadline: float) -> None:
        """Purge what one call can name, in several attempts if need be. A pause that would outlast `deadline` is not begun."""
        body = msgspec.json.encode({"tags": tags})
        pauses = iter(_PAUSES_SECONDS)
        while True:
            cause: Exception | None = None
            try:
                answer = await self._call(body)
            except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
                failure, least_seconds, cause = _unreachable(), 0, error
            except httpcore.ProtocolError:
                # Its words may quote what came, and that may quote what was sent.
                failure, least_seconds = _unreachable(), 0
            else:
                if answer.purged:
                    return
                failure = _failure(answer)
                if answer.status != 429 and answer.status < 500:
                    raise failure
                least_seconds = answer.retry_after_seconds
            pause = next(pauses, None)
            if pause is None or anyio.current_time() + max(pause, least_seconds) > deadline:
                raise failure from cause
            await anyio.sleep(max(pause, least_seconds))

    async def _call(self, body: bytes) -> Answer:
        async with self._pool.stream("POST", self._url, headers=self._headers, content=body) as response:
            retry_after = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
            received = b""
            async for part in response.aiter_stream():
                received += part
                if len(received) > _MAX_ANSWER_BYTES:
                    # What it begins with does not count: no answer of the API's is as long.
                    received = b""
                    break
        return read_answer(response.status, retry_after.decode("latin-1"), received)


class _Error(msgspec.Struct, frozen=True):
    code: int


class _Body(msgspec.Struct, frozen=True):
    success: bool
    errors: tuple[_Error, ...] | None = ()


def read_answer(status: int, retry_after: str, body: bytes) -> Answer:
    """Return what an answer says: `Retry-After` as Cloudflare sends it, in seconds, and a body of JSON or of anything else.

    https://developers.cloudflare.com/fundamentals/api/reference/limits/ and https://developers.cloudflare.com/api/resources/cache/methods/purge/
    """
    seconds = int(retry_after) if _RETRY_AFTER.fullmatch(retry_after) else 0
    try:
        said = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Answer(status, seconds, None, ())
    return Answer(status, seconds, said.success, tuple(error.code for error in said.errors or ()))


def _unreachable() -> CdnError:
    return CdnError("Cloudflare cannot be reached.", remedy="Try again; if it stays so, check the way from this machine to Cloudflare.")


def _failure(answer: Answer) -> CdnError:
    """Return what to tell of an answer that is no success."""
    expected = 'status 200 and "success": true'
    received = f"status {answer.status}"
    if answer.codes:
        received += f", code {', '.join(map(str, answer.codes))}"
    elif answer.success is None:
        received += ", no answer of Cloudflare's API"
    detail, remedy = _blame(answer)
    return CdnError(
        detail,
        expected=expected,
        received=received,
        remedy=remedy,
        retry_after_seconds=answer.retry_after_seconds or None,
    )


def _blame(answer: Answer) -> tuple[str, str]:
    """Return what failed, and what to do: the first row that holds."""
    status, codes = answer.status, frozenset(answer.codes)
    rows = (
        (status == 429, "Cloudflare is asked to purge too often.", "Try again later, or purge less often: the zone's plan sets the rate."),
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
        (answer.success is None, "What answered is not Cloudflare's API.", "Check the way from this machine to Cloudflare."),
        (True, "Cloudflare refuses to purge.", "Look the code up in Cloudflare's documentation."),
    )
    return next((detail, remedy) for holds, detail, remedy in rows if holds)

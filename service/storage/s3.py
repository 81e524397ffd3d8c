"""An S3 client for requests that cannot wait: time-outs, retries, hedged reads, consistent reads.

obstore signs and sends the requests. Its own retries are switched off, because they know neither of the two things that matter here:
how long the caller can wait, and that a pooled connection may be dead.

**Time-outs.** A client of Darkroom that needs the store is to get its response, or a 503, within five seconds. So a connection must be
established within `_CONNECT_TIMEOUT_SECONDS`, and a store that sends nothing for `READ_TIMEOUT_SECONDS` counts as unreachable. While a
large body is uploaded the store has nothing to send: those requests use the profile "long", whose read time-out is
`_TRANSFER_TIMEOUT_SECONDS`.

**Retries.** A store that responds with an error is reachable: then a call has `RETRY_BUDGET_SECONDS`, and up to `MAX_ATTEMPTS`
requests, with exponential backoff. Only errors that may pass are retried: status 429 and 5xx (but 507, a full disk), and no response at
all. Anything else is raised at once. Writes are retried too, so every operation has to be idempotent; `Storage.put_if_absent`
recognizes its own object if the response to its first attempt was lost.

**Hedged reads.** After a suspend (Fly stops idle Machines), every pooled connection is dead, but no packet says so: a request on one of
them is silent until its time-out. So a read without a response after `HEDGE_AFTER_SECONDS` is sent a second time on a new connection,
and the first response wins. Writes are never in flight twice. Listings are read page by page, so they are not hedged: a silent page is
abandoned after the same time and requested again. Attempts overlap here, which is why this module does not use `concurrency.retrying`.

**Reconnecting.** obstore cannot close its pooled connections; dropping its clients is the only way. `_reconnect` does that when a
connection breaks or is silent, once for all requests of one generation of clients: of fifty requests that find the pool dead, the first
one replaces it.

**Consistent reads.** Tigris replicates between regions and reads from the nearest one, so an object that was just written elsewhere may
seem missing, or old. The profile "consistent" sends a header that makes Tigris ask the region that has the latest version: it is
slower, and used only where a stale response would be wrong. Listings always use it. Other stores ignore the header.

**Beware.** A missing bucket and a missing object are both `FileNotFoundError` (see `errors.require_bucket`). The response to HEAD has
no body, so its 403 does not say why. obstore reports a body that breaks off only when the body is read, after the call has succeeded.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import anyio
import obstore
from obstore.exceptions import GenericError
from obstore.store import S3Store

from service import instruments
from service.concurrency.spans import stage
from service.errors import SettingsError
from service.instruments import StoreOperation

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")

# Which of obstore's clients sends a request: the usual one, one that sees what every region has written, or one for large uploads.
Profile: TypeAlias = Literal["default", "consistent", "long"]

READ_TIMEOUT_SECONDS = 4.5

HEDGE_AFTER_SECONDS = 0.8

# With one error in five responses, all of five attempts fail once in three thousand calls.
MAX_ATTEMPTS = 5
RETRY_BUDGET_SECONDS = 10.0

_TRANSFER_TIMEOUT_SECONDS = 60.0
_CONNECT_TIMEOUT_SECONDS = 1.5
_BACKOFF_SECONDS = 0.1

# The shortest time between two replacements of the clients: making them takes some milliseconds.
_RECONNECT_INTERVAL_SECONDS = 0.25

# https://www.tigrisdata.com/docs/objects/conditionals/
_CONSISTENT_HEADERS = {"X-Tigris-Consistent": "true"}

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?/?|https?://\[[0-9a-fA-F:.]+\](:[0-9]+)?/?")
_STATUS = re.compile(r"status code: (\d{3})")


class S3Client:
    """Calls operations on one bucket, as this module's docstring explains."""

    def __init__(self, bucket: str, *, endpoint: str, region: str, access_key_id: str, secret_access_key: str) -> None:
        """Make a client; it connects with its first call.

        `bucket`: the name of the bucket.
        `endpoint`: the URL of the S3 server, without the bucket.
        `region`: the region that requests are signed for.
        `access_key_id`, `secret_access_key`: the credentials that sign requests.
        """
        self._bucket = bucket
        self._endpoint = endpoint
        self._host = urlsplit(endpoint).hostname or ""
        self._region = region
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._stores: dict[Profile, S3Store] = {}
        self._generation = 0
        self._reconnected_at = float("-inf")
        self._calls = 0

    def __repr__(self) -> str:
        return f"<S3Client: bucket {self._bucket} at {self._endpoint}, {self._calls} calls in flight>"

    def store(self, profile: Profile) -> S3Store:
        """Return obstore's client of a profile; it is made when it is first needed."""
        if profile not in self._stores:
            self._stores[profile] = self._connect(profile)
        return self._stores[profile]

    async def read(self, operation: StoreOperation, request: Callable[[S3Store], Awaitable[T]], *, consistent: bool = False) -> T:
        """Return the result of a request that changes nothing, and that may be in flight twice; `operation` is for the metrics.

        Raises obstore's errors, and `TimeoutError` if there is no response within `READ_TIMEOUT_SECONDS`.
        """
        profile: Profile = "consistent" if consistent else "default"
        return await self._call_hedged(
            operation, request, profile, hedge_after_seconds=HEDGE_AFTER_SECONDS, timeout_seconds=READ_TIMEOUT_SECONDS
        )

    async def write(self, operation: StoreOperation, request: Callable[[S3Store], Awaitable[T]], *, large: bool = False) -> T:
        """Return the result of a request that may be repeated, but never in flight twice; raises as `read` does.

        `operation`: for the metrics.
        `large`: the request uploads a large body, during which the store sends nothing; then `_TRANSFER_TIMEOUT_SECONDS` apply.
        """
        timeout_seconds = _TRANSFER_TIMEOUT_SECONDS if large else READ_TIMEOUT_SECONDS
        profile: Profile = "long" if large else "default"
        return await self._call_hedged(operation, request, profile, hedge_after_seconds=None, timeout_seconds=timeout_seconds)

    async def list_pages(self, prefix: str, *, after: str | None = None, page_size: int = 1_000) -> AsyncIterator[Sequence[ObjectMeta]]:
        """Yield the objects under a prefix, page by page, consistently; a listing that breaks off continues after its last page.

        `after`: the key after which the listing begins. `page_size`: in objects. Raises as `read` does.
        """
        now = asyncio.get_running_loop().time
        last = after
        attempts, since = 0, now()
        # As in a read, but one request after the other: the retry of a silent page has the rest of the time.
        timeout_seconds = HEDGE_AFTER_SECONDS
        while True:
            generation = self._generation
            pages = aiter(obstore.list(self.store("consistent"), prefix, offset=last, chunk_size=page_size))
            try:
                while (page := await asyncio.wait_for(_next_page(pages), timeout_seconds)) is not None:
                    attempts, since = 0, now()
                    timeout_seconds = READ_TIMEOUT_SECONDS
                    last = page[-1]["path"] if page else last
                    yield page
            except (GenericError, TimeoutError) as error:
                attempts += 1
                if _has_no_status(error):
                    self._reconnect(generation)
                if isinstance(error, TimeoutError):
                    timeout_seconds = READ_TIMEOUT_SECONDS - (now() - since)
                    if timeout_seconds <= 0:
                        raise _no_response(READ_TIMEOUT_SECONDS) from error
                if attempts == MAX_ATTEMPTS or now() - since > RETRY_BUDGET_SECONDS or not _is_transient(error):
                    raise
                instruments.STORE_RETRIES.add("list")
                await asyncio.sleep(_backoff_seconds(attempts))
            else:
                return

    async def _call_hedged(
        self,
        operation: StoreOperation,
        request: Callable[[S3Store], Awaitable[T]],
        profile: Profile,
        *,
        hedge_after_seconds: float | None,
        timeout_seconds: float,
    ) -> T:
        """Return the result of the first attempt that succeeds.

        `hedge_after_seconds`: how long an attempt may be silent before another joins it; `None` for one attempt at a time.
        `timeout_seconds`: how long all attempts together may be silent.
        """
        now = asyncio.get_running_loop().time
        started = now()
        deadline = started + timeout_seconds
        attempts = 0
        # Each with the generation of the client that it uses.
        running: dict[asyncio.Task[T], int] = {}
        failure: BaseException = _no_response(timeout_seconds)
        self._calls += 1
        try:
            while True:
                attempts += 1
                running[asyncio.create_task(self._call(request, self.store(profile), attempts))] = self._generation
                hedge_at = deadline if hedge_after_seconds is None else now() + hedge_after_seconds
                while running:
                    may_hedge = len(running) == 1 and attempts < MAX_ATTEMPTS
                    until = min(deadline, hedge_at) if may_hedge else deadline
                    done, _ = await asyncio.wait(running, timeout=max(0.0, until - now()), return_when=asyncio.FIRST_COMPLETED)
                    if not done:
                        break
                    generation = running.pop(task := done.pop())
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, GenericError) or not _is_transient(error):
                        raise error
                    failure = error
                    if _has_no_status(error):
                        self._reconnect(generation)
                    else:
                        # The store is reachable.
                        deadline = max(deadline, started + RETRY_BUDGET_SECONDS)
                if now() >= deadline or (not running and attempts == MAX_ATTEMPTS):
                    raise failure
                if running:
                    # Its connection may be dead, and with it the rest of the pool.
                    self._reconnect(*running.values())
                    instruments.STORE_HEDGES.add(operation)
                else:
                    instruments.STORE_RETRIES.add(operation)
                    await asyncio.sleep(_backoff_seconds(attempts))
        finally:
            self._calls -= 1
            for task in running:
                task.cancel()
            # Canceled itself, it would raise another error than the one by which a cancel scope around the call knows its cancellation.
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*running, return_exceptions=True)

    async def _call(self, request: Callable[[S3Store], Awaitable[T]], store: S3Store, attempt: int) -> T:
        # obstore cannot add a header to one request, so the store does not learn of the trace.
        with stage("s3 request", calls=self._host, s3_attempt=attempt):
            return await request(store)

    def _reconnect(self, generation: int) -> None:
        """Drop the clients and their pooled connections, unless this was done since the clients of `generation` were made."""
        now = asyncio.get_running_loop().time()
        if generation == self._generation and now - self._reconnected_at > _RECONNECT_INTERVAL_SECONDS:
            self._generation += 1
            self._reconnected_at = now
            self._stores.clear()

    def _connect(self, profile: Profile) -> S3Store:
        return S3Store(
            self._bucket,
            # Not `endpoint`: the environment's AWS_ENDPOINT_URL_S3, which may belong to another store, goes before it.
            aws_endpoint_url_s3=self._endpoint,
            region=self._region,
            access_key_id=self._access_key_id,
            secret_access_key=self._secret_access_key,
            virtual_hosted_style_request=False,
            conditional_put="etag",
            client_options={
                "timeout": timedelta(seconds=_TRANSFER_TIMEOUT_SECONDS),
                "read_timeout": timedelta(seconds=_TRANSFER_TIMEOUT_SECONDS if profile == "long" else READ_TIMEOUT_SECONDS),
                "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_SECONDS),
                "allow_http": self._endpoint.startswith("http://"),
                "default_headers": _CONSISTENT_HEADERS if profile == "consistent" else {},
            },
            retry_config={"max_retries": 0},
        )


def open_s3_client(bucket: str, environ: Mapping[str, str], prefix: str = "") -> S3Client:
    """Return the client of a bucket, configured by environment variables; raises `SettingsError`.

    `prefix`: what the names of the variables begin with if this is not the main store, such as `SOURCE_`.
    """
    if not bucket:
        raise SettingsError("DARKROOM_STORE=s3://: no bucket. Expected s3://bucket, or BUCKET_NAME set, as `fly storage create` does.")
    if _BUCKET_NAME.fullmatch(bucket) is None:
        raise SettingsError(f"DARKROOM_STORE=s3://: {bucket!r} is not a valid bucket name. Expected 2 to 63 of A-Z a-z 0-9 . _ -.")
    keys = {prefix + variable: environ.get(prefix + variable, "") for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    if missing := [variable for variable, key in keys.items() if not key]:
        raise SettingsError(f"DARKROOM_STORE=s3://{bucket} needs {' and '.join(missing)}, as `fly storage create` sets them.")
    configured = environ.get(f"{prefix}AWS_ENDPOINT_URL_S3") or environ.get(f"{prefix}AWS_ENDPOINT_URL")
    if configured and _ENDPOINT.fullmatch(configured) is None:
        raise SettingsError(
            f"{prefix}AWS_ENDPOINT_URL_S3={configured!r}: expected http:// or https:// and a host, such as https://fly.storage.tigris.dev."
        )
    region = environ.get(f"{prefix}AWS_REGION") or environ.get(f"{prefix}AWS_DEFAULT_REGION") or ("auto" if configured else "us-east-1")
    access_key_id, secret_access_key = keys.values()
    client = S3Client(
        bucket,
        endpoint=configured or f"https://s3.{region}.amazonaws.com",
        region=region,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
    )
    # If obstore refuses the configuration, the server must not start.
    client.store("default")
    return client


async def _next_page(pages: AsyncIterator[Sequence[ObjectMeta]]) -> Sequence[ObjectMeta] | None:
    return await anext(pages, None)


def _is_transient(error: GenericError | TimeoutError) -> bool:
    """Return whether another attempt may succeed: the server failed, or there was no response."""
    found = _STATUS.search(str(error))
    if found is None:
        return "redirect" not in str(error)
    return found[1] == "429" or (found[1].startswith("5") and found[1] != "507")


def _has_no_status(error: GenericError | TimeoutError) -> bool:
    """Return whether the connection failed before there was a response."""
    return _STATUS.search(str(error)) is None


def _no_response(seconds: float) -> TimeoutError:
    return TimeoutError(f"no response within {seconds:g} seconds")


def _backoff_seconds(attempts: int) -> float:
    # Jitter keeps many clients from retrying at the same moment.
    return _BACKOFF_SECONDS * float(1 << (attempts - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - not for cryptography

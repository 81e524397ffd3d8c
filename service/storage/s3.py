"""An S3 bucket, asked in the time that a request has: again where it errs or breaks off, once more beside where it is silent."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import obstore
import structlog
from obstore.exceptions import GenericError
from obstore.store import S3Store

from service.errors import SettingsError

if TYPE_CHECKING:
    from obstore import ObjectMeta

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Which of the bucket's clients a question goes through: that of most, one that reads what any region has written, or one
# that bears the silence while a large body is sent.
Way: TypeAlias = Literal["usual", "consistent", "patient"]

# How long a store may say nothing at all, in seconds: misses are told within five that it is out of reach.
SILENT_SECONDS = 4.5

# A read that is silent this long, in seconds, is asked for once more on a new connection, and whichever answers first counts.
# After a suspend the pooled ones are dead without a word, and the first request has two seconds.
BESIDE_SECONDS = 0.8

# A store that answers with an error is there: it is asked this often, and until so many seconds have gone. At one error in
# five all of five attempts fail once in three thousand times.
MOST_ATTEMPTS = 5
ERRING_SECONDS = 10.0

_TRANSFER_SECONDS = 60.0
_CONNECT_SECONDS = 1.5
_BACKOFF_SECONDS = 0.1

# New clients are made no more often than this, in seconds: it takes some milliseconds.
_RENEW_SECONDS = 0.25

# Tigris reads from the nearest region unless it is asked not to; other stores ignore the field.
_CONSISTENT = {"X-Tigris-Consistent": "true"}

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?/?|https?://\[[0-9a-fA-F:.]+\](:[0-9]+)?/?")
_STATUS = re.compile(r"status code: (\d{3})")


class S3Client:
    """A bucket and the clients that ask it. obstore's own retries are off: they know neither a dead pool nor a request's time."""

    def __init__(self, name: str, *, endpoint: str, region: str, access_key_id: str, secret_access_key: str) -> None:
        """Take where the bucket is and what opens it."""
        self._name = name
        self._endpoint = endpoint
        self._region = region
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._clients: dict[Way, S3Store] = {}
        self._generation = 0
        self._renewed = float("-inf")

    def client(self, way: Way) -> S3Store:
        """Return the client of a way, made when it is first needed."""
        if way not in self._clients:
            self._clients[way] = self._connect(way)
        return self._clients[way]

    async def read(self, question: Callable[[S3Store], Awaitable[T]], way: Way = "usual") -> T:
        """Return the answer to a question that changes nothing; raises what obstore raises, and `TimeoutError` for silence."""
        return await self._ask(question, way, beside_seconds=BESIDE_SECONDS, silent_seconds=SILENT_SECONDS)

    async def write(self, question: Callable[[S3Store], Awaitable[T]], *, large: bool = False) -> T:
        """Return the answer to a question that may be asked again but not twice at a time; while a large body is sent, silence is borne."""
        silent_seconds = _TRANSFER_SECONDS if large else SILENT_SECONDS
        return await self._ask(question, "patient" if large else "usual", beside_seconds=None, silent_seconds=silent_seconds)

    async def pages(self, prefix: str, *, after: str | None = None, page_size: int = 1_000) -> AsyncIterator[Sequence[ObjectMeta]]:
        """Give what begins with a prefix, page by page, whichever region has written it; where it breaks off, it is gone on with."""
        now = asyncio.get_running_loop().time
        last = after
        attempts, since = 0, now()
        # As in a read, but one after the other: a silent page is soon given up for one on a new connection, and that has the time left.
        patience = BESIDE_SECONDS
        while True:
            generation = self._generation
            pages = aiter(obstore.list(self.client("consistent"), prefix, offset=last, chunk_size=page_size))
            try:
                while (page := await asyncio.wait_for(_next_page(pages), patience)) is not None:
                    attempts, since = 0, now()
                    patience = SILENT_SECONDS
                    last = page[-1]["path"] if page else last
                    yield page
            except (GenericError, TimeoutError) as error:
                attempts += 1
                if _broke_off(error):
                    self._renew(generation)
                if isinstance(error, TimeoutError):
                    patience = SILENT_SECONDS - (now() - since)
                    if patience <= 0:
                        raise _silence(SILENT_SECONDS) from error
                if attempts == MOST_ATTEMPTS or now() - since > ERRING_SECONDS or not _passes(error):
                    raise
                await asyncio.sleep(_backoff_seconds(attempts))
            else:
                return

    async def _ask(
        self, question: Callable[[S3Store], Awaitable[T]], way: Way, *, beside_seconds: float | None, silent_seconds: float
    ) -> T:
        now = asyncio.get_running_loop().time
        started = now()
        deadline = started + silent_seconds
        attempts = 0
        running: dict[asyncio.Task[T], int] = {}
        failure: BaseException = _silence(silent_seconds)
        try:
            while True:
                attempts += 1
                running[asyncio.create_task(_asked(question, self.client(way)))] = self._generation
                lonely_until = deadline if beside_seconds is None else now() + beside_seconds
                while running:
                    lonely = len(running) == 1 and attempts < MOST_ATTEMPTS
                    until = min(deadline, lonely_until) if lonely else deadline
                    done, _ = await asyncio.wait(running, timeout=max(0.0, until - now()), return_when=asyncio.FIRST_COMPLETED)
                    if not done:
                        break
                    generation = running.pop(task := done.pop())
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, GenericError) or not _passes(error):
                        raise error
                    failure = error
                    if _broke_off(error):
                        self._renew(generation)
                    else:
                        # What errs is there.
                        deadline = max(deadline, started + ERRING_SECONDS)
                if now() >= deadline or (not running and attempts == MOST_ATTEMPTS):
                    raise failure
                if running:
                    # Silent so far: its connection may be dead, and the others of the pool with it.
                    self._renew(*running.values())
                else:
                    await asyncio.sleep(_backoff_seconds(attempts))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _renew(self, generation: int) -> None:
        """Let the pooled connections go, unless that has been done since clients of `generation` were made."""
        now = asyncio.get_running_loop().time()
        if generation == self._generation and now - self._renewed > _RENEW_SECONDS:
            self._generation += 1
            self._renewed = now
            self._clients.clear()

    def _connect(self, way: Way) -> S3Store:
        return S3Store(
            self._name,
            # Not `endpoint`: before that obstore goes by the environment's AWS_ENDPOINT_URL_S3, which may be that of another store.
            aws_endpoint_url_s3=self._endpoint,
            region=self._region,
            access_key_id=self._access_key_id,
            secret_access_key=self._secret_access_key,
            virtual_hosted_style_request=False,
            conditional_put="etag",
            client_options={
                "timeout": timedelta(seconds=_TRANSFER_SECONDS),
                "read_timeout": timedelta(seconds=_TRANSFER_SECONDS if way == "patient" else SILENT_SECONDS),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "allow_http": self._endpoint.startswith("http://"),
                "default_headers": _CONSISTENT if way == "consistent" else {},
            },
            retry_config={"max_retries": 0},
        )


def open_s3_client(name: str, environ: Mapping[str, str], prefix: str = "") -> S3Client:
    """Return the bucket of a name, reached as the environment says; raises `SettingsError`.

    `prefix` stands before the variables of a second store, such as `SOURCE_`.
    """
    if not name:
        raise SettingsError("DARKROOM_STORE=s3://: no bucket. Expected s3://bucket, or BUCKET_NAME set, as `fly storage create` does.")
    if _BUCKET.fullmatch(name) is None:
        raise SettingsError(f"DARKROOM_STORE=s3://: {name!r} is no name of a bucket. Expected 2 to 63 of A-Z a-z 0-9 . _ -.")
    keys = {prefix + variable: environ.get(prefix + variable, "") for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    if missing := [variable for variable, key in keys.items() if not key]:
        raise SettingsError(f"DARKROOM_STORE=s3://{name} needs {' and '.join(missing)}, as `fly storage create` sets them.")
    configured = environ.get(f"{prefix}AWS_ENDPOINT_URL_S3") or environ.get(f"{prefix}AWS_ENDPOINT_URL")
    if configured and _ENDPOINT.fullmatch(configured) is None:
        raise SettingsError(
            f"{prefix}AWS_ENDPOINT_URL_S3={configured!r}: expected http:// or https:// and a host, such as https://fly.storage.tigris.dev."
        )
    region = environ.get(f"{prefix}AWS_REGION") or environ.get(f"{prefix}AWS_DEFAULT_REGION") or ("auto" if configured else "us-east-1")
    access_key_id, secret_access_key = keys.values()
    client = S3Client(
        name,
        endpoint=configured or f"https://s3.{region}.amazonaws.com",
        region=region,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
    )
    # What obstore refuses is told at start, not by the first request.
    client.client("usual")
    return client


async def _asked(question: Callable[[S3Store], Awaitable[T]], client: S3Store) -> T:
    return await question(client)


async def _next_page(pages: AsyncIterator[Sequence[ObjectMeta]]) -> Sequence[ObjectMeta] | None:
    return await anext(pages, None)


def _passes(error: GenericError | TimeoutError) -> bool:
    """Return whether an error may be another one the next time: the server's fault, or no answer at all."""
    found = _STATUS.search(str(error))
    if found is None:
        return "redirect" not in str(error)
    return found[1] == "429" or (found[1].startswith("5") and found[1] != "507")


def _silence(seconds: float) -> TimeoutError:
    return TimeoutError(f"nothing came in {seconds:g} seconds")


def _broke_off(error: GenericError | TimeoutError) -> bool:
    return _STATUS.search(str(error)) is None


def _backoff_seconds(attempts: int) -> float:
    return _BACKOFF_SECONDS * float(1 << (attempts - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - it keeps clients apart

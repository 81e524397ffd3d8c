"""Logs: one line per event on standard error, JSON unless that is a terminal.

Every line goes through the same steps, also those of the standard library's `logging`, which the edge, Granian and other libraries use:

1. `LineLimiter` counts lines of a kind that come too fast, in place of writing them: a flood of bad requests must neither fill the disk nor
   hide the other lines.
2. Known secrets, and anything that looks like a signature, are replaced by `***` (`Redactor`), before anything is cut: half a secret is
   one too.
3. Values are cut, so that a line has at most `MAX_LINE_CHARACTERS`, and control characters are escaped, so that no value can start another
   line or send commands to a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

import structlog

from service.concurrency.polling import poll
from service.concurrency.spans import current_span
from service.urls.signature_mask import MASK, mask_signatures

MAX_LINE_CHARACTERS = 8_192

# The longest text of a value. A traceback is longer, and its end says most.
_MAX_VALUE_CHARACTERS = 1_000
_MAX_TRACEBACK_CHARACTERS = 5_000
_MAX_ENTRIES = 50

# A line of a kind may be written if so many seconds' worth of lines were not written before.
_BURST_SECONDS = 10.0
# All kinds together may write so many times the lines of one; warnings and errors have as many of their own.
_KINDS_AT_FULL_RATE = 2
# Further kinds count as one, and such warnings and errors as another.
_MAX_KINDS = 256
_OTHERS = ("others", "other warnings")

REPORT_INTERVAL_SECONDS = 10.0

# Names of environment variables whose values are secrets, of this program or of any other. Shorter values are no secrets.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|_SAS|OTLP_.*HEADERS")
_NO_SECRET_NAME = re.compile(r"_FILE$|_KEY_ID$|_CERTIFICATE$|_CLIENT_KEY$")
_MIN_SECRET_CHARACTERS = 8

# The key under which a forwarded line of `logging` carries the kind that it counts for.
_KIND = "_kind"

_URGENT = ("critical", "error", "warning")

# What every line begins with.
_FIRST = ("timestamp", "level", "event")

# Valid ids of requests, some of which look like a signature.
_IDS = ("request_id", "fly_request_id")

EventDict = MutableMapping[str, Any]


class _Bucket:
    """A token bucket: how many lines may be written at once, filled at a constant rate."""

    __slots__ = ("_capacity", "_filled_at", "_lines", "_lines_per_second")

    def __init__(self, lines_per_second: float, now: float) -> None:
        self._lines_per_second = lines_per_second
        self._capacity = self._lines = lines_per_second * _BURST_SECONDS
        self._filled_at = now

    def take(self, now: float) -> bool:
        self._lines = min(self._capacity, self._lines + (now - self._filled_at) * self._lines_per_second)
        self._filled_at = now
        if self._lines < 1:
            return False
        self._lines -= 1
        return True


class LineLimiter:
    """Limits the lines per second: of each kind, and of all kinds together, warnings and errors apart from the rest."""

    def __init__(self, lines_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with full buckets.

        lines_per_second: of one kind, as an average over some ten seconds.
        clock: returns seconds that never go back.
        """
        self._lines_per_second = lines_per_second
        self._clock = clock
        self._kinds: dict[str, _Bucket] = {}
        self._all = {is_urgent: _Bucket(lines_per_second * _KINDS_AT_FULL_RATE, clock()) for is_urgent in (False, True)}
        self._omitted: dict[str, int] = {}
        self.omitted = 0
        """The number of lines that were not written."""

    def __repr__(self) -> str:
        return f"<LineLimiter: {self._lines_per_second:g} lines per second, {len(self._kinds)} kinds, {self.omitted} lines omitted>"

    def admit(self, kind: str, *, is_urgent: bool) -> bool:
        """Return whether a line of a kind may be written; count it if not."""
        now = self._clock()
        bucket = self._kinds.get(kind)
        if bucket is None:
            if len(self._kinds) >= _MAX_KINDS:
                kind = _OTHERS[is_urgent]
            bucket = self._kinds.setdefault(kind, _Bucket(self._lines_per_second, now))
        if bucket.take(now) and self._all[is_urgent].take(now):
            return True
        self.omitted += 1
        self._omitted[kind] = self._omitted.get(kind, 0) + 1
        return False

    def take_omitted(self) -> Mapping[str, int]:
        """Return by kind how many lines were not written since the last call."""
        omitted, self._omitted = self._omitted, {}
        return omitted


class Redactor:
    """Replaces secrets in text."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def __repr__(self) -> str:
        return f"<Redactor: {len(self._secrets)} secrets>"

    def add(self, secrets: Iterable[str]) -> None:
        """Replace these secrets too from now on, in any case of letters."""
        self._secrets.update(secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARACTERS)
        # The longest first: one secret may contain another.
        longest_first = sorted(self._secrets, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None

    def redact(self, text: str) -> str:
        """Return `text` with `***` in place of secrets."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)


limiter = LineLimiter(20.0)
_redactor = Redactor()


def configure_logs(*, lines_per_second: float = 20.0, is_terminal: bool | None = None) -> None:
    """Write all logs of this process to standard error, as this module's docstring explains.

    lines_per_second: how many lines of one kind may be written, as an average over some ten seconds.
    is_terminal: whether to write for people in place of JSON; by default, whether standard error is a terminal.
    """
    global limiter  # noqa: PLW0603 - structlog's configuration is one for the process too
    limiter = LineLimiter(lines_per_second)
    readable = sys.stderr.isatty() if is_terminal is None else is_terminal
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, pad_event_to=24, sort_keys=False)
    structlog.configure(
        processors=[
            _limit,
            structlog.contextvars.merge_contextvars,
            _add_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if not readable else "%H:%M:%S", utc=not readable),
            structlog.processors.format_exc_info,
            _clean,
            *([_escape, console] if readable else [_render_json]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Forwarder()]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    adopt_logger("_granian")


def adopt_logger(name: str) -> None:
    """Send the messages of a library's logger, which has handlers of its own, the way of all others."""
    logger = logging.getLogger(name)
    logger.handlers = []
    logger.propagate = True


def hide(secrets: Iterable[str]) -> None:
    """Replace these secrets wherever they occur in a line from now on."""
    _redactor.add(secrets)


def redact(text: str) -> str:
    """Return `text` with `***` in place of the secrets that are hidden from the log."""
    return _redactor.redact(text)


def secret_values(environ: Mapping[str, str]) -> Collection[str]:
    """Return the secrets in the values of environment variables.

    A list is divided into its entries, and an entry of `name=secret` or `secret:scopes` into its parts.
    """
    found: set[str] = set()
    for name, value in environ.items():
        if _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name) and not value.startswith("/"):
            entries = [entry.strip() for entry in value.split(",")]
            found.update([value, *entries])
            if name == "DARKROOM_TOKENS":
                found.update(entry.partition(":")[0] for entry in entries)
            elif name.endswith("HEADERS"):
                secrets = [entry.partition("=")[2].strip() for entry in entries]
                # Of `Bearer <token>`, the token is a secret by itself.
                found.update([*secrets, *(word for secret in secrets for word in unquote(secret).split())])
    return found


def omitted_lines() -> int:
    """Return how many lines were not written since the start of the process."""
    return limiter.omitted


async def report_omitted_lines() -> None:
    """Write how many lines were omitted every ten seconds in which some were, as long as this process serves."""
    try:
        await poll(_report_omitted, every=REPORT_INTERVAL_SECONDS)
    finally:
        await _report_omitted()


async def _report_omitted() -> None:
    if omitted := limiter.take_omitted():
        structlog.get_logger(__name__).warning("log lines omitted", lines=sum(omitted.values()), kinds=dict(omitted))


class _Forwarder(logging.Handler):
    """Sends the records of `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        # The kind is the place in the code, because the text may have anything in it.
        kind = f"{record.name}:{record.lineno}"
        try:
            message = record.getMessage()
        except Exception:
            # A library's mistake in a format must not end what it was doing.
            message = str(record.msg)
        structlog.get_logger(record.name).log(
            record.levelno, message, logger=record.name, exc_info=record.exc_info or None, **{_KIND: kind}
        )


def _limit(_: Any, method: str, event: EventDict) -> EventDict:
    kind = event.pop(_KIND, None) or event["event"]
    if kind == "request":
        kind = f"request {event.get('status')}"
    if kind != "log lines omitted" and not limiter.admit(str(kind), is_urgent=method in _URGENT):
        raise structlog.DropEvent
    return event


def _add_trace(_: Any, __: str, event: EventDict) -> EventDict:
    if (span := current_span.get()) is not None:
        event["trace_id"] = span.trace_id
    return event


def _clean(_: Any, __: str, event: EventDict) -> EventDict:
    in_order = {name: event.get(name) for name in _FIRST} | dict(event)
    return {
        name: _redactor.redact(str(value))
        if name in _IDS
        else _cleaned(value, _MAX_TRACEBACK_CHARACTERS if name == "exception" else _MAX_VALUE_CHARACTERS)
        for name, value in list(in_order.items())[:_MAX_ENTRIES]
    }


def _cleaned(value: Any, limit: int) -> Any:
    """Return a value of a line without secrets, bounded, and such as JSON has."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(_cleaned(str(key), 100)): _cleaned(one, limit // 4) for key, one in list(value.items())[:_MAX_ENTRIES]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(one, limit // 4) for one in list(value)[:_MAX_ENTRIES]]
    return _cut(mask_signatures(_redactor.redact(value if isinstance(value, str) else str(value))), limit)


def _cut(text: str, limit: int) -> str:
    """Return text of at most about `limit` characters: its beginning and, of more lines, mostly its end."""
    if len(text) <= limit:
        return text
    head = limit // 5 if "\n" in text else limit
    tail = limit - head
    return f"{text[:head]}…{text[-tail:] if tail else ''}"


def _escape(_: Any, __: str, event: EventDict) -> EventDict:
    """Escape what a terminal could obey, or show in another order than it is."""
    return {
        name: "".join(one if one.isprintable() or (one == "\n" and name == "exception") else _escaped(one) for one in value)
        if isinstance(value, str)
        else value
        for name, value in event.items()
    }


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def _render_json(_: Any, __: str, event: EventDict) -> str:
    line = _json(event)
    limit = _MAX_TRACEBACK_CHARACTERS
    while len(line) > MAX_LINE_CHARACTERS and limit > 1:
        # Escaped, a character may take up to twelve.
        limit //= 2
        line = _json({name: _cut(value if isinstance(value, str) else str(value), limit) for name, value in event.items()})
    return line


def _json(event: EventDict) -> str:
    # ASCII only, with escapes for everything else; `json` leaves DEL as it is.
    return json.dumps(event).replace("\x7f", "\\u007f")

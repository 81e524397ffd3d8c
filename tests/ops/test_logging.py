"""The log: every line is one JSON object that is bounded and has no secret, however hostile its values; floods are cut."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ops import logging as logs
from service.ops.logging import MAX_LINE_CHARACTERS, LineLimiter, Redactor, configure_logs, hide, report_omitted_lines, secret_values
from service.settings import bucket_variables
from service.settings.help import CLIENT_HELP, HELP

pytestmark = pytest.mark.anyio

# By the name of a variable, how a secret is written in it.
SECRET_VARIABLES: Mapping[str, str] = {
    "DARKROOM_KEYS": "00112233445566778899aabbccddeeff,{}",
    "DARKROOM_TOKENS": "a-token-of-22-letters_:read, {}:ingest+read",
    "DARKROOM_TOKEN": "{}",
    "DARKROOM_CLOUDFLARE_TOKEN": "{}",
    "AWS_SECRET_ACCESS_KEY": "{}",
    "AWS_SESSION_TOKEN": "{}",
    "AZURE_STORAGE_KEY": "{}",
    "AZURE_STORAGE_SAS_TOKEN": "{}",
    "AZURE_CLIENT_SECRET": "{}",
    "GOOGLE_SERVICE_ACCOUNT_KEY": "{}",
    "DARKROOM_SOURCE_SHOP_AWS_SECRET_ACCESS_KEY": "{}",
    "OTEL_EXPORTER_OTLP_HEADERS": "x-team=darkroom,authorization=Bearer%20{}",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-key={}",
    "FLY_API_TOKEN": "{}",
}
# Variables with such a word in their names whose values are no secrets.
NO_SECRETS = {"DARKROOM_KEYS_FILE", "DARKROOM_TOKENS_FILE", "AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS"}

secrets = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~/=-", min_size=16, max_size=64).filter(
    lambda text: not text.startswith("/") and text.strip("=-./~_")
)
anything = st.text(max_size=200)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logs of the process that runs the tests as they were."""
    root, redactor = logging.getLogger(), logs._redactor
    handlers, level = root.handlers[:], root.level
    logs._redactor = Redactor()
    yield
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    logs._redactor = redactor
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(event=anything, key=st.sampled_from(["path", "cause", "exception"]), value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3), max_leaves=6,
))  # fmt: skip
def test_line_with_any_values_is_one_json_object_of_printable_ascii(
    capsys: pytest.CaptureFixture[str], event: str, key: str, value: object
) -> None:
    configure_logs(is_terminal=False)
    structlog.get_logger("test").info(event, **{key: value})
    (line,) = written(capsys)
    assert isinstance(json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")), dict)
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("text", ["x" * 100_000, "\x00" * 100_000, "🐼" * 100_000, "line\n" * 50_000, '"' * 100_000])
def test_line_with_very_long_values_is_bounded_and_keeps_its_event(capsys: pytest.CaptureFixture[str], text: str) -> None:
    configure_logs(is_terminal=False)
    structlog.get_logger("test").info("an event", exception=text, **{f"value{number}": text for number in range(100)})
    (line,) = written(capsys)
    assert len(line) <= MAX_LINE_CHARACTERS
    assert json.loads(line)["event"] == "an event"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(variable=st.sampled_from(sorted(SECRET_VARIABLES)), secret=secrets, before=anything, place=st.integers(0, 5))
def test_secret_of_any_setting_is_in_no_line(
    capsys: pytest.CaptureFixture[str], variable: str, secret: str, before: str, place: int
) -> None:
    configure_logs(is_terminal=False)
    hide(secret_values({variable: SECRET_VARIABLES[variable].format(secret), "PATH": "/usr/bin", "HOME": "/root"}))
    log = structlog.get_logger("test")
    # At the place where a value is cut, half of it must not be left either.
    text = f"{before}{'x ' * 490}{secret} is wrong"
    values: list[dict[str, object]] = [{"cause": text}, {"causes": [text]}, {"by": {text: text}}, {"error": ValueError(text)}]
    if place < len(values):
        log.info("failed", **values[place])
    elif place == 4:
        log.info(text)
    else:
        log.error("failed", exc_info=ValueError(text))
    shown = "".join(written(capsys))
    assert secret not in shown
    assert not any(secret[:length] in shown for length in range(12, len(secret)))


def test_settings_whose_names_sound_like_secrets_are_known_to_be_ones_or_not() -> None:
    words = ("KEY", "TOKEN", "SECRET", "SAS", "CREDENTIAL", "PASSW")
    named = {*HELP, *CLIENT_HELP, *(one for names in bucket_variables.VARIABLES.values() for one in names)}
    suspicious = {name for name in named if any(word in name for word in words)}
    assert suspicious <= set(SECRET_VARIABLES) | NO_SECRETS
    # A path, which is no secret.
    assert secret_values(dict.fromkeys(NO_SECRETS, "/run/secrets/file")) == set()


async def test_flood_of_one_kind_is_cut_and_counted_and_hides_no_other_kind(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(is_terminal=False, lines_per_second=5)
    log = structlog.get_logger("test")
    for _ in range(1_000):
        log.info("request", status=400)
    log.info("request", status=200)
    log.error("a disk is full")
    await logs._report_omitted()
    lines = [json.loads(line) for line in written(capsys)]
    refused = sum(line.get("status") == 400 for line in lines)
    # Five for each of ten seconds, and those of the time that the test took.
    assert 50 <= refused < 500
    assert [line["event"] for line in lines[refused:]] == ["request", "a disk is full", "log lines omitted"]
    assert lines[-1]["kinds"] == {"request 400": 1_000 - refused}


def test_limiter_admits_a_rate_and_bounds_all_kinds_together() -> None:
    now = 0.0
    limiter = LineLimiter(10, clock=lambda: now)
    assert sum(limiter.admit("a", is_urgent=False) for _ in range(1_000)) == 100
    now += 60
    assert sum(limiter.admit("a", is_urgent=False) for _ in range(1_000)) == 100, "no more than ten seconds' worth at once"
    now += 60
    assert sum(limiter.admit(f"kind {number}", is_urgent=False) for number in range(5_000)) == 200
    assert limiter.admit("an error", is_urgent=True), "others leave room for warnings and errors"
    now += 1
    assert sum(limiter.admit("a", is_urgent=False) for _ in range(1_000)) == 20, "what all kinds together may write"
    now += 3
    assert sum(limiter.admit("a", is_urgent=False) for _ in range(1_000)) == 30
    assert len(limiter._kinds) <= logs._MAX_KINDS + 2
    assert limiter.omitted == sum(limiter.take_omitted().values())
    assert limiter.take_omitted() == {}


async def test_lines_omitted_are_reported_when_the_process_ends(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(is_terminal=False, lines_per_second=1)
    for _ in range(100):
        structlog.get_logger("test").info("many")
    reporting = report_omitted_lines()
    reporting.send(None)
    structlog.get_logger("test").info("many")
    reporting.close()
    reports = [json.loads(line) for line in written(capsys) if "omitted" in line]
    assert reports[0]["kinds"]["many"] >= 80


def test_lines_of_other_libraries_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(is_terminal=False)
    logging.getLogger("edge.middleware").error("%d failed", 3)
    logging.getLogger("library").warning("%d is no number", "three")
    logging.getLogger("library").info("of no interest")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an old way", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in written(capsys)]
    assert [(line["logger"], line["event"], line["level"]) for line in lines[:2]] == [
        ("edge.middleware", "3 failed", "error"),
        ("library", "%d is no number", "warning"),
    ]
    assert "an old way" in lines[2]["event"]
    assert len(lines) == 3


def test_console_line_is_readable_and_sends_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(is_terminal=True)
    structlog.get_logger("test").info("request", path="/a\x1b]0;title\x07\u202e\n/b", status=200)
    (line,) = written(capsys)
    plain = line.replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[2m", "")
    assert "\\x1b]0;title\\x07\\u202e\\n/b" in plain
    assert "\x07" not in line
    assert "\u202e" not in line


def test_console_shows_a_traceback_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(is_terminal=True)
    structlog.get_logger("test").error("failed", exc_info=ValueError("wrong"))
    assert "ValueError: wrong" in written(capsys)[-1]


def test_logs_go_to_json_if_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stderr.isatty()
    configure_logs()
    structlog.get_logger("test").warning("one")
    assert json.loads(written(capsys)[0])["level"] == "warning"

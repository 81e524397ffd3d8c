"""`darkroom token`: the line that it prints is one of a file of tokens, and has the hash of the token that it shows."""

from __future__ import annotations

import re

import pytest

from service.settings.secret_files import Token, hash_token, parse_tokens
from service.settings.sections import SCOPES
from tests.support.command import run


def test_token_is_shown_once_and_its_line_has_the_hash() -> None:
    made = run("token", "shop", "--scope", "ingest", "--scope", "read", "--source", "cms", "--bytes-per-day", "10GB")
    assert made.exit_code == 0
    shown = re.findall(r"^[0-9a-f]{64}$", made.stderr, re.MULTILINE)
    assert len(shown) == 1
    assert shown[0] not in made.stdout
    expected = Token("shop", hash_token(shown[0].encode()), frozenset({"ingest", "read"}), frozenset({"cms"}), 10**10)
    assert parse_tokens(made.stdout, ["cms"]) == (expected,)


def test_token_without_options_permits_everything_and_is_another_one_each_time() -> None:
    first, second = (run("token", "owner").stdout for _ in range(2))
    assert first != second
    (token,) = parse_tokens(first, ())
    assert (token.scopes, token.sources, token.bytes_per_day) == (frozenset(SCOPES), None, 0)


@pytest.mark.parametrize(
    "arguments", [("no/name",), ("",), ("n", "--scope", "write"), ("n", "--source", "Shop"), ("n", "--bytes-per-day", "10GiB")]
)
def test_token_with_arguments_that_a_file_would_not_take_is_refused(arguments: tuple[str, ...]) -> None:
    made = run("token", *arguments)
    assert (made.exit_code, made.stdout) == (2, "")

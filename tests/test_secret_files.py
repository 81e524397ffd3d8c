"""Files of tokens and keys: their grammar, and errors that name the line and never show a secret."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import SettingsError
from service.settings.environment import load
from service.settings.secret_files import (
    MAX_FILE_BYTES,
    MAX_TOKENS,
    Token,
    hash_token,
    load_keys,
    load_tokens,
    parse_keys,
    parse_size,
    parse_tokens,
    read_secret_file,
)
from service.settings.sections import SCOPES

HASH = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
SECRET = "0123456789abcdef0123456789abcdef"
SOURCES = ("cms", "shop")


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_tokens(text, SOURCES)
    return str(caught.value)


def test_tokens_are_read_with_all_that_binds_them() -> None:
    text = f"""# who made it, and when
    bot sha256:{HASH} scopes=ingest+read sources=shop+cms bytes_per_day=10GB

owner\tsha256:{HASH[::-1].upper()}\r
"""
    bot, owner = parse_tokens(text, SOURCES)
    assert bot == Token("bot", bytes.fromhex(HASH), frozenset({"ingest", "read"}), frozenset({"shop", "cms"}), 10_000_000_000)
    assert owner == Token("owner", bytes.fromhex(HASH[::-1]), frozenset(SCOPES), None, 0)


def test_hash_of_a_token_is_that_of_sha256sum() -> None:
    # printf %s password | sha256sum
    assert hash_token(b"password").hex() == HASH


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "a file without tokens"),
        ("# only a comment", "a file without tokens"),
        (SECRET, "line 1, is invalid: expected <name> sha256:"),
        (f"bot {SECRET}", "no hash after bot"),
        (f"bot sha256:{HASH[:-1]}", "no hash after bot"),
        (f"bot sha256:{HASH}0", "no hash after bot"),
        (f"b/t sha256:{HASH}", "a name of 1 to 64"),
        (f"{'n' * 65} sha256:{HASH}", "a name of 1 to 64"),
        (f"bot sha256:{HASH} scopes=ingest+write", "'ingest+write'"),
        (f"bot sha256:{HASH} scopes=", "scopes of ingest, delete, read"),
        (f"bot sha256:{HASH} sources=other", "names in DARKROOM_SOURCES (cms, shop)"),
        (f"bot sha256:{HASH} sources=", "names in DARKROOM_SOURCES (cms, shop)"),
        (f"bot sha256:{HASH} bytes_per_day=10GiB", "such as 10GB"),
        (f"bot sha256:{HASH} bytes_per_day=0", "such as 10GB"),
        (f"bot sha256:{HASH} until=2030", "scopes=, sources= or bytes_per_day="),
        (f"bot sha256:{HASH} scopes=read scopes=read", "expected scopes once"),
        (f"bot sha256:{HASH}\nbot sha256:{'0' * 64}", "line 2, is invalid: expected each name and each hash once"),
        (f"bot sha256:{HASH}\nbit sha256:{HASH}", "line 2, is invalid: expected each name and each hash once"),
    ],
)
def test_tokens_that_cannot_be_used_are_refused_with_their_line(line: str, said: str) -> None:
    refused = refusal(line)
    assert said in refused
    assert SECRET not in refused or line == SECRET


def test_line_that_is_a_token_itself_is_not_shown() -> None:
    assert "secret/" not in refusal("secret/of/many/characters")


def test_tokens_are_at_most_as_many_as_have_metrics() -> None:
    lines = [f"t{number} sha256:{number:064x}" for number in range(MAX_TOKENS + 1)]
    assert len(parse_tokens("\n".join(lines[:-1]), ())) == MAX_TOKENS
    assert "at most 256 tokens" in refusal("\n".join(lines))


@given(st.text(max_size=200))
def test_any_text_is_tokens_or_an_error_of_settings(text: str) -> None:
    for parse in (lambda: parse_tokens(text, SOURCES), lambda: parse_keys(text)):
        with suppress(SettingsError):
            assert parse()


@given(
    st.builds(
        Token,
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
        st.binary(min_size=32, max_size=32),
        st.frozensets(st.sampled_from(SCOPES), min_size=1),
        st.none() | st.frozensets(st.sampled_from(SOURCES), min_size=1),
        st.integers(0, 10**15 - 1),
    )
)
def test_line_of_any_token_is_read_as_the_same_token(token: Token) -> None:
    assert parse_tokens(token.line(), SOURCES) == (token,)


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("1B", 1), ("5kB", 5_000), ("3MB", 3_000_000), ("2TB", 2 * 10**12)])
def test_size_has_decimal_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5GB", "1 GB", "1gb", "1KB", "1GiB", "\u0661GB", "1" * 17])
def test_size_in_another_form_is_none(text: str) -> None:
    assert parse_size(text) is None


def test_keys_are_read_in_the_order_of_their_lines() -> None:
    assert parse_keys(f"# new\n{SECRET}\n\n {SECRET[::-1].upper()} ") == (bytes.fromhex(SECRET), bytes.fromhex(SECRET[::-1]))


@pytest.mark.parametrize("text", ["", "# none", SECRET[:-1], SECRET[:-2], f"{SECRET}\n{SECRET} {SECRET}", f"{SECRET},{SECRET}"])
def test_keys_that_cannot_be_used_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_KEYS_FILE") as caught:
        parse_keys(text)
    assert SECRET[:8] not in str(caught.value)


def test_files_take_the_place_of_the_variables(tmp_path: Path) -> None:
    tokens, keys = tmp_path / "tokens", tmp_path / "keys"
    tokens.write_text(f"\ufeffbot sha256:{HASH}\n", "utf-8")
    keys.write_text(SECRET, "utf-8")
    settings = load({"DARKROOM_HOST": "0.0.0.0", "DARKROOM_TOKENS_FILE": str(tokens), "DARKROOM_KEYS_FILE": str(keys)})
    assert [token.name for token in load_tokens(settings.auth, ())] == ["bot"]
    assert load_keys(settings.auth, tmp_path) == (bytes.fromhex(SECRET),)


def test_tokens_of_the_environment_are_named_by_their_position() -> None:
    first, second = load_tokens(load({"DARKROOM_TOKENS": "first-token-of-many:read,second-token-of-many"}).auth, ())
    assert (first.name, first.scopes, first.sha256) == ("environment-1", frozenset({"read"}), hash_token(b"first-token-of-many"))
    assert (second.name, second.scopes, second.bytes_per_day) == ("environment-2", frozenset(SCOPES), 0)


@pytest.mark.parametrize(("variable", "value"), [("DARKROOM_TOKENS", "a-token-of-16-characters"), ("DARKROOM_KEYS", SECRET)])
def test_variable_and_file_at_the_same_time_are_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} and {variable}_FILE are two places"):
        load({variable: value, f"{variable}_FILE": "/run/secrets/x"})


def test_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    large, binary = tmp_path / "large", tmp_path / "binary"
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    binary.write_bytes(b"\xff\xfe")
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), (large, "at most"), (binary, "UTF-8")):
        with pytest.raises(SettingsError, match=said):
            read_secret_file(path, "DARKROOM_TOKENS_FILE")

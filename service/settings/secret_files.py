"""Tokens and signing keys in files: `DARKROOM_TOKENS_FILE` and `DARKROOM_KEYS_FILE`, as Docker, Kubernetes and systemd hand secrets over.

Both are UTF-8 text with one entry in a line. Empty lines, and lines that begin with `#`, are ignored. A key is in hexadecimal, the newest
first. A token is written as

    <name> sha256:<hash in hexadecimal> scopes=ingest+read sources=shop+cms bytes_per_day=10GB

where everything after the hash may be left out. Its hash is a plain SHA-256 and not a slow password hash, because a token of `darkroom
token` has 256 random bits: nobody can guess it from its hash, however fast guesses are (NIST SP 800-63B §5.1.1.2 demands slow hashes of
memorized secrets, and §5.1.2.2 not of secrets with 112 bits or more).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from service.errors import SettingsError
from service.files import read_regular_file
from service.settings.sections import SCOPES, AuthSettings, Scope
from service.settings.signing_key import development_key, parse_key

TOKENS_FILE = "DARKROOM_TOKENS_FILE"
KEYS_FILE = "DARKROOM_KEYS_FILE"

# A larger file is not a list of secrets.
MAX_FILE_BYTES = 1 << 20

# Each token has metrics of its own.
MAX_TOKENS = 256

TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_GRAMMAR = "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or a digit"

_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_SIZE = re.compile(r"([1-9][0-9]{0,14})(B|kB|MB|GB|TB)?")
_UNITS = {None: 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE_GRAMMAR = "a whole number greater than 0, of bytes or with kB, MB, GB or TB, such as 10GB"
_LINE = "<name> sha256:<64 hexadecimal digits> [scopes=…] [sources=…] [bytes_per_day=…]"


class Token(msgspec.Struct, frozen=True):
    """A bearer token, of which only the hash is known.

    name: in metrics, logs and error messages. sha256: of the token. scopes: what it permits.
    sources: the only sources that it may be used for, `None` if it is for everything.
    bytes_per_day: how many bytes may be taken in with it from midnight to midnight UTC, 0 for no limit.
    """

    name: str
    sha256: bytes
    scopes: frozenset[Scope] = frozenset(SCOPES)
    sources: frozenset[str] | None = None
    bytes_per_day: int = 0

    def line(self) -> str:
        """Return the line of a file of tokens that `parse_tokens` reads."""
        parts = [self.name, f"sha256:{self.sha256.hex()}", f"scopes={'+'.join(sorted(self.scopes))}"]
        if self.sources is not None:
            parts.append(f"sources={'+'.join(sorted(self.sources))}")
        if self.bytes_per_day:
            parts.append(f"bytes_per_day={self.bytes_per_day}")
        return " ".join(parts)


def hash_token(token: bytes) -> bytes:
    """Return the hash under which a token is stored."""
    return hashlib.sha256(token).digest()


def load_tokens(auth: AuthSettings, sources: Collection[str]) -> tuple[Token, ...]:
    """Return the tokens of the settings, from the file if there is one; raises `SettingsError`.

    Tokens of the environment have no name: they are called `environment-1` and so on, in their order.
    """
    if auth.tokens_file is not None:
        return parse_tokens(read_secret_file(auth.tokens_file, TOKENS_FILE), sources)
    return tuple(
        Token(f"environment-{position}", hash_token(token.encode("ascii")), scopes)
        for position, (token, scopes) in enumerate(auth.tokens.items(), 1)
    )


def load_keys(auth: AuthSettings, data: Path) -> tuple[bytes, ...]:
    """Return the signing keys of the settings, newest first: from the file, the environment, or the data folder; raises `SettingsError`."""
    if auth.keys_file is not None:
        return parse_keys(read_secret_file(auth.keys_file, KEYS_FILE))
    return auth.signing_keys or (development_key(data),)


def read_secret_file(path: Path, variable: str) -> str:
    """Return the text of a file; `variable` names it. Raises `SettingsError` if it cannot be read, is not text, or is too large."""
    try:
        content = read_regular_file(path, MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError.invalid(variable, f"a file of at most {MAX_FILE_BYTES} bytes", f"a larger one: {path}")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}. Create it, readable by the server's user.") from error
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SettingsError.invalid(variable, "a file of UTF-8 text", f"other bytes in {path}")
    return text


def parse_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys in the text of a file, newest first, at least one; raises `SettingsError`, which contains nothing of a key."""
    keys = []
    for number, line in _lines(text):
        key = parse_key(line)
        if key is None:
            raise SettingsError.invalid(
                f"{KEYS_FILE}, line {number},",
                "an even number of hexadecimal digits, at least 32",
                f"{len(line)} characters",
                "Create a key with `openssl rand -hex 32`.",
            )
        keys.append(key)
    if not keys:
        raise SettingsError.invalid(KEYS_FILE, "a key in hexadecimal in each line, the newest first", "a file without keys")
    return tuple(keys)


def parse_tokens(text: str, sources: Collection[str]) -> tuple[Token, ...]:
    """Return the tokens in the text of a file, at least one: a server without tokens would permit everything.

    sources: the names that a token may be bound to.

    Raises `SettingsError`.
    """
    tokens: list[Token] = []
    for number, line in _lines(text):
        token = _parse_token(number, line, sources)
        if any(token.name == other.name or token.sha256 == other.sha256 for other in tokens):
            raise _invalid(number, "each name and each hash once", f"that of {token.name} again")
        tokens.append(token)
        if len(tokens) > MAX_TOKENS:
            raise SettingsError.invalid(TOKENS_FILE, f"at most {MAX_TOKENS} tokens", "more")
    if not tokens:
        raise SettingsError.invalid(
            TOKENS_FILE, f"{_LINE} in each line", "a file without tokens", "`darkroom token NAME` makes a token and its line."
        )
    return tuple(tokens)


def parse_scopes(text: str) -> frozenset[Scope] | None:
    """Return the scopes in `ingest+read`, `None` if one does not exist."""
    names = text.split("+")
    return frozenset(scope for scope in SCOPES if scope in names) if set(names) <= set(SCOPES) else None


def parse_size(text: str) -> int | None:
    """Return the number of bytes in `10GB`, in decimal units, `None` if it is not a size."""
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def _parse_token(number: int, line: str, known_sources: Collection[str]) -> Token:
    name, *words = line.split()
    if TOKEN_NAME.fullmatch(name) is None:
        # It may be a token that was pasted there.
        raise _invalid(number, f"a name of {NAME_GRAMMAR}", f"{len(name)} characters")
    match = _HASH.fullmatch(words[0]) if words else None
    if match is None:
        raise _invalid(number, _LINE, f"no hash after {name}", "`darkroom token NAME` makes a token and its line.")
    token = Token(name, bytes.fromhex(match[1]))
    seen: set[str] = set()
    for word in words[1:]:
        attribute, _, value = word.partition("=")
        if attribute in seen:
            raise _invalid(number, f"{attribute} once", "it twice")
        seen.add(attribute)
        token = _with_attribute(number, token, attribute, value, known_sources)
    return token


def _with_attribute(number: int, token: Token, attribute: str, value: str, known_sources: Collection[str]) -> Token:
    if attribute == "scopes":
        scopes = parse_scopes(value)
        if scopes is None:
            raise _invalid(number, f"scopes of {', '.join(SCOPES)}, joined by +", repr(value))
        return msgspec.structs.replace(token, scopes=scopes)
    if attribute == "sources":
        names = frozenset(value.split("+"))
        if not names <= set(known_sources):
            expected = f"names in DARKROOM_SOURCES ({', '.join(known_sources) or 'which names none'}), joined by +"
            raise _invalid(number, expected, repr(value))
        return msgspec.structs.replace(token, sources=names)
    if attribute == "bytes_per_day":
        size = parse_size(value)
        if size is None:
            raise _invalid(number, _SIZE_GRAMMAR, repr(value))
        return msgspec.structs.replace(token, bytes_per_day=size)
    raise _invalid(number, "scopes=, sources= or bytes_per_day=", repr(attribute[:32]))


def _lines(text: str) -> Sequence[tuple[int, str]]:
    """Return the lines that have an entry, with their numbers."""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _invalid(number: int, expected: str, received: str, remedy: str = "") -> SettingsError:
    return SettingsError.invalid(f"{TOKENS_FILE}, line {number},", expected, received, remedy)

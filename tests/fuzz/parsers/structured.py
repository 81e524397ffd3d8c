"""Structured dictionaries, parsed step by step as RFC 9651 §4.2 describes it: the reference for the regular expressions of `edge`."""

from __future__ import annotations

import string

_KEY_START, _KEY = frozenset(string.ascii_lowercase + "*"), frozenset(string.ascii_lowercase + string.digits + "_-.*")
_TOKEN_START = frozenset(string.ascii_letters + "*")
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~:/")
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=")


class NotADictionaryError(Exception):
    """The text is not a dictionary, or has an inner list, a date or a display string, which `edge` does not read."""


def dictionary(text: str) -> dict[str, str]:
    """Return the members of a dictionary, with the text of their values. Raises `NotADictionaryError`."""
    reader = _Reader(text)
    reader.skip(" ")
    members: dict[str, str] = {}
    while reader.peek():
        key = reader.key()
        members.pop(key, None)
        members[key] = reader.value_after_equals()
        reader.parameters()
        reader.skip(" \t")
        if not reader.peek():
            break
        reader.expect(",")
        reader.skip(" \t")
        if not reader.peek():
            raise NotADictionaryError("a comma at the end")
    return members


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._position = text, 0

    def peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def next(self) -> str:
        character = self.peek()
        self._position += 1
        return character

    def skip(self, characters: str) -> None:
        while self.peek() and self.peek() in characters:
            self._position += 1

    def expect(self, character: str) -> None:
        if self.next() != character:
            raise NotADictionaryError(f"no {character}")

    def key(self) -> str:
        if self.peek() not in _KEY_START:
            raise NotADictionaryError("no key")
        return self._take(_KEY)

    def value_after_equals(self) -> str:
        if self.peek() != "=":
            return ""
        self._position += 1
        start = self._position
        self._bare_item()
        return self._text[start : self._position]

    def parameters(self) -> None:
        while self.peek() == ";":
            self._position += 1
            self.skip(" ")
            self.key()
            self.value_after_equals()

    def _take(self, characters: frozenset[str]) -> str:
        start = self._position
        while self.peek() in characters:
            self._position += 1
        return self._text[start : self._position]

    def _bare_item(self) -> None:
        first = self.peek()
        if first and first in "-0123456789":
            self._number()
        elif first == '"':
            self._string()
        elif first in _TOKEN_START:
            self._take(_TOKEN)
        elif first == ":":
            self._position += 1
            self._take(_BASE64)
            self.expect(":")
        elif first == "?":
            self._position += 1
            if self.next() not in {"0", "1"}:
                raise NotADictionaryError("no Boolean")
        else:
            raise NotADictionaryError("no item")

    def _number(self) -> None:
        if self.peek() == "-":
            self._position += 1
        whole = self._take(frozenset(string.digits))
        if not whole or len(whole) > 15:
            raise NotADictionaryError("no number")
        if self.peek() == ".":
            self._position += 1
            fraction = self._take(frozenset(string.digits))
            if len(whole) > 12 or not 1 <= len(fraction) <= 3:
                raise NotADictionaryError("no decimal number")

    def _string(self) -> None:
        self._position += 1
        while (character := self.next()) != '"':
            if character == "\\":
                character = self.next()
                if character not in {'"', "\\"}:
                    raise NotADictionaryError("no escape")
            elif not "\x20" <= character <= "\x7e":
                raise NotADictionaryError("no string")

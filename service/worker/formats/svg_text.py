"""The characters of an SVG text that have positions of their own (SVG 2 §11.4.4).

librsvg places whole elements only, so such a character is written as a `tspan`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_POSITIONS = ("x", "y", "dx", "dy")
_SEPARATOR = re.compile(r"[\s,]+")
_SPACE = re.compile(r"\s+")


class Characters:
    """Finds the positions of the characters of one `text` element, while its content is read.

    count: how many characters there are so far.
    """

    def __init__(self, keeps_space: bool) -> None:
        self.count = 0
        self._keeps_space = keeps_space
        self._ends_with_space = True
        # For each open element: its lists of positions, and how many characters it has had.
        self._open: list[tuple[dict[str, list[str]], list[int]]] = []
        self._is_after_space = False

    @property
    def has_lists(self) -> bool:
        """Whether a position may apply to the next character."""
        return any(lists for lists, _ in self._open)

    def enter(self, attributes: Mapping[str, str]) -> None:
        """Begin an element with positions in its attributes."""
        lists = {name: values for name in _POSITIONS if len(values := position_list(attributes.get(name, ""))) > 1}
        self._open.append((lists, [0]))

    def leave(self) -> None:
        """End the element that was entered last."""
        self._open.pop()

    def split(self, text: str, word_spacing: float) -> Iterator[tuple[dict[str, str], str]]:
        """Yield the pieces of a text, each with the attributes of its first character's position.

        word_spacing: added after each space, in pixels.
        """
        if not word_spacing and not self.has_lists:
            yield {}, text
            return
        piece, position = "", dict[str, str]()
        for character in self._collapsed(text):
            own = self._next_position()
            if word_spacing and self._is_after_space and "x" not in own:
                own["dx"] = f"{float(_number(own.get('dx', '0'))) + word_spacing:g}"
            self._is_after_space = character in " \u00a0"
            if own:
                if piece:
                    yield position, piece
                # White space has been collapsed.
                piece, position = "", {**own, "xml:space": "preserve"}
            piece += character
        if piece:
            yield position, piece

    def _collapsed(self, text: str) -> str:
        """Return a text with white space collapsed as it is drawn, so that each character counts once."""
        if self._keeps_space:
            return re.sub(r"[\t\r\n]", " ", text)
        text = _SPACE.sub(" ", text)
        if self._ends_with_space:
            text = text.removeprefix(" ")
        if text:
            self._ends_with_space = text.endswith(" ")
        return text

    def _next_position(self) -> dict[str, str]:
        """Return the position of the next character: that of the innermost element which has one."""
        own: dict[str, str] = {}
        for lists, count in self._open:
            for name, values in lists.items():
                if count[0] < len(values):
                    own[name] = values[count[0]]
            count[0] += 1
        return own


def position_list(value: str) -> list[str]:
    """Return the lengths in a list."""
    return [part for part in _SEPARATOR.split(value.strip()) if part]


def _number(length: str) -> str:
    match = re.match(r"[+-]?[0-9]*\.?[0-9]+", length)
    return match[0] if match else "0"

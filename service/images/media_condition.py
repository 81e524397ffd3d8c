"""Media conditions (Media Queries 4 §3): which of several crops a page shows on which screens.

A condition, such as `(max-width: 40em)`, can be combined and negated; a list of media queries with commas and media types cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from service.errors import BadRequestError

MAX_MEDIA_CHARACTERS = 200

_CHARACTERS = re.compile(r"[A-Za-z0-9 .:/<>=%+*(),_-]+")
# A condition with every pair of parentheses emptied.
_OUTLINE = re.compile(r"(?:not )?\(\)|\(\)(?: and \(\))+|\(\)(?: or \(\))+", re.IGNORECASE)

_FEATURE = re.compile(r"\([^()]*\)")
# All browsers can read these in larger conditions. Nested parentheses are Media Queries 4, which browsers read since 2022 and 2023.
_FEATURES = re.compile(r"\([^()]*\)(?: and \([^()]*\))*", re.IGNORECASE)


def parse_media_condition(text: str) -> str:
    """Return a media condition with single spaces; raises `BadRequestError` for any other text."""
    condition = re.sub(r"[\t\n\f\r ]+", " ", text).strip()
    if _CHARACTERS.fullmatch(condition) is None or _OUTLINE.fullmatch(_outline(condition)) is None:
        raise BadRequestError(
            "`media` is not a media condition.",
            expected="features in parentheses, joined by `and` or by `or`, without media types such as `screen` and without commas",
            received=text,
            remedy="Use for example (max-width: 40em), or (orientation: portrait) and (max-width: 60em).",
        )
    return condition


def _outline(condition: str) -> str:
    """Return a condition with every outer pair of parentheses emptied, nothing if one is empty or has no partner."""
    outline, depth, begin = "", 0, 0
    for index, character in enumerate(condition):
        if character == "(":
            outline, begin = (outline + "(", index) if depth == 0 else (outline, begin)
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0 or (depth == 0 and not condition[begin + 1 : index].strip()):
                return ""
            outline += ")" if depth == 0 else ""
        elif depth == 0:
            outline += character
    return outline if depth == 0 else ""


def all_of(first: str, second: str) -> str:
    """Return the condition that holds where both do; an empty one always holds."""
    return f"{_operand(first)} and {_operand(second)}" if first and second else first or second


def _operand(condition: str) -> str:
    """Return a condition as it can stand beside `and`."""
    return condition if _FEATURES.fullmatch(condition) else f"({condition})"


def excluding(condition: str, others: Sequence[str]) -> str:
    """Return the condition, or media query, that holds where a condition does and none of the others; an empty one always holds."""
    if not others:
        return condition
    if not condition and len(others) == 1 and _FEATURES.fullmatch(others[0]):
        # A whole media query is negated, which all browsers can read.
        return f"not all and {others[0]}"
    negated = [f"(not {other})" if _FEATURE.fullmatch(other) else f"(not ({other}))" for other in others]
    return " and ".join([_operand(condition), *negated] if condition else negated)

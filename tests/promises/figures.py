"""Figures that tests measure, such as the milliseconds of a response, for the tables of promises."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """A measured figure.

    text: its sentence, with a place for the value, such as `hits: p99 {:.1f} ms`. value: the number. lowest: whether the lowest of
    several values is the worst.
    """

    text: str
    value: float
    lowest: bool = False

    def __str__(self) -> str:
        """The sentence with the value."""
        return self.text.format(self.value)


class RecordFigure(Protocol):
    """The fixture `record_figure` of tests/conftest.py."""

    def __call__(self, text: str, value: float, *, lowest: bool = False) -> None:
        """Record a figure of the test that uses the fixture; the parameters are those of `Figure`."""


def worst(figures: Iterable[Figure]) -> list[Figure]:
    """Return the worst of the figures that have the same sentence, in the order in which the sentences come."""
    found: dict[str, Figure] = {}
    for figure in figures:
        known = found.setdefault(figure.text, figure)
        if figure.value < known.value if figure.lowest else figure.value > known.value:
            found[figure.text] = figure
    return list(found.values())

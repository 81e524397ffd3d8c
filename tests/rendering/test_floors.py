"""Versions of bundled C libraries: how they are read, and that what is installed is not known to be vulnerable."""

from __future__ import annotations

import re

import pytest

from service.rendering.floors import FLOORS, Floor, OldLibrary, is_older, old_libraries, parse_version
from service.rendering.protocol import Library
from service.worker.libraries import installed, stated_versions

FLOOR = Floor("1.6.56", "CVE-2026-33416", "an example")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.5.3-0-gb546257", (1, 5, 3)), ("v3.15.1", (3, 15, 1)), ("2.14", (2, 14)), ("4.3+1-e9b8812", (4, 3)), ("8.18.7", (8, 18, 7))],
)
def test_version_is_the_numbers_at_its_beginning(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_version(text) == numbers


@pytest.mark.parametrize("text", ["", "unknown", "-1.2", "n/a"])
def test_text_without_a_number_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        parse_version(text)


@pytest.mark.parametrize(
    ("version", "floor", "older"),
    [("1.6.9", "1.6.56", True), ("1.6.56", "1.6.56", False), ("1.10", "1.9.9", False), ("1.6", "1.6.0", False), ("1.6", "1.6.1", True)],
)
def test_version_is_compared_by_its_numbers(version: str, floor: str, older: bool) -> None:
    assert is_older(version, floor) is older


def test_library_states_its_version_in_its_file() -> None:
    content = b"\0AOMedia Project AV1 Decoder v3.15.1\0\0libpng version 1.6.58\0"
    assert stated_versions(content) == {"libaom": "3.15.1", "libpng": "1.6.58"}
    assert stated_versions(b"nothing of the kind") == {}


def test_library_below_its_floor_is_a_certain_finding_only_if_it_states_its_version() -> None:
    stated, bound = Library("pillow", "libpng", "1.6.50"), Library("pyvips-binary", "libpng", "1.6.50", at_least=True)
    assert old_libraries([stated, bound], {"libpng": FLOOR}) == [
        OldLibrary(stated, FLOOR, certain=True),
        OldLibrary(bound, FLOOR, certain=False),
    ]
    assert old_libraries([Library("pillow", "libpng", "1.6.56"), Library("pillow", "unheard-of", "0.1")], {"libpng": FLOOR}) == []


def test_installed_libraries_are_found_in_every_wheel_and_none_is_below_its_floor() -> None:
    libraries = installed()
    names = {(library.wheel, library.name) for library in libraries}
    assert {
        ("pyvips-binary", "libvips"), ("pyvips-binary", "libaom"), ("pyvips-binary", "libpng"), ("pillow", "libavif"), ("pillow", "dav1d"),
        ("pillow", "libpng"), ("pillow-heif", "libheif"), ("pillow-heif", "libde265"), ("imagecodecs", "libjxl"),
    } <= names  # fmt: skip
    assert [finding for finding in old_libraries(libraries) if finding.certain] == []


@pytest.mark.parametrize("name", FLOORS)
def test_floor_has_a_version_and_a_cve(name: str) -> None:
    assert parse_version(FLOORS[name].version)
    assert re.fullmatch(r"CVE-\d{4}-\d{4,}", FLOORS[name].cve)

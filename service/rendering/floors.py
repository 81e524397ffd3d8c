"""The oldest versions of C libraries without a known vulnerability that matters here, and which of the installed ones are older.

A scanner of Python packages does not see these libraries: they are in the wheels of pyvips, Pillow and other packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from service.rendering.protocol import Library


class Floor(msgspec.Struct, frozen=True):
    """The oldest version of a library without a vulnerability that matters here, and the vulnerability that is fixed in it."""

    version: str
    cve: str
    about: str


FLOORS: Mapping[str, Floor] = {
    "dav1d": Floor("1.4.0", "CVE-2024-1580", "integer overflow with large frames"),
    "expat": Floor("2.8.2", "CVE-2026-56407", "integer overflow with long entity values"),
    "freetype": Floor("2.13.1", "CVE-2025-27363", "out-of-bounds write with variable fonts"),
    "libaom": Floor("3.7.1", "CVE-2023-6879", "out-of-bounds write when the resolution changes"),
    "libavif": Floor("1.3.0", "CVE-2025-48174", "integer overflow and buffer overflow in the output stream"),
    "libde265": Floor("1.0.9", "CVE-2022-1253", "heap overflow in the parameters of a sequence"),
    "libheif": Floor("1.22.1", "CVE-2026-49271", "out-of-bounds read of uncompressed images"),
    "libjxl": Floor("0.8.1", "CVE-2023-0645", "out-of-bounds read of Exif"),
    "libpng": Floor("1.6.56", "CVE-2026-33416", "use after free of palettes and transparency"),
    "librsvg": Floor("2.56.3", "CVE-2023-38633", "XInclude reads any file"),
    "libtiff": Floor("4.7.1", "CVE-2025-9900", "write to any address with a palette image"),
    "libwebp": Floor("1.3.2", "CVE-2023-4863", "heap overflow in lossless images"),
    "pillow-heif": Floor("1.3.0", "CVE-2026-28231", "integer overflow when encoding"),
    "pixman": Floor("0.42.2", "CVE-2022-44638", "out-of-bounds write in rasterizing"),
}


class OldLibrary(msgspec.Struct, frozen=True):
    """A library that is older than its floor, or of which that cannot be excluded (`certain` is false)."""

    library: Library
    floor: Floor
    certain: bool


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version: (1, 5, 3) of `v1.5.3-0-gb546257`; raises `ValueError` if there are none."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text)
    if found is None:
        raise ValueError(f"not a version: {text!r}")
    return tuple(int(number) for number in found[1].split("."))


def is_older(version: str, floor: str) -> bool:
    """Return whether a version is older than another one; missing numbers are 0."""
    first, second = parse_version(version), parse_version(floor)
    length = max(len(first), len(second))
    return first + (0,) * (length - len(first)) < second + (0,) * (length - len(second))


def old_libraries(libraries: Iterable[Library], floors: Mapping[str, Floor] = FLOORS) -> list[OldLibrary]:
    """Return the libraries that are not known to be at their floor or above."""
    known = [(library, floors[library.name]) for library in libraries if library.name in floors]
    return [OldLibrary(library, floor, not library.at_least) for library, floor in known if is_older(library.version, floor.version)]

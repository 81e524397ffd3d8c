"""The names of images, which URLs may end with: letters, digits and marks of every script, `-` and `_`.

A name is for people and search engines. It never identifies an image: two images may have the same one.
"""

from __future__ import annotations

import re
import unicodedata

MAX_IMAGE_NAME_CHARACTERS = 80
# With an extension, it is a file name on every file system: most of them permit 255 bytes.
MAX_IMAGE_NAME_BYTES = 240

IMAGE_NAME_GRAMMAR = (
    f"letters, digits, - and _ in Unicode's NFC, at most {MAX_IMAGE_NAME_CHARACTERS} characters and {MAX_IMAGE_NAME_BYTES} bytes of UTF-8"
)

# No character of NFC stands for more than four of another spelling (UAX #15), so no longer text is a name.
_MAX_SPELLED_CHARACTERS = 4 * MAX_IMAGE_NAME_CHARACTERS

# After at least one character, so that the whole name of a hidden file is no extension; "v1.2" has none either.
_EXTENSION = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{0,7}$", re.DOTALL)


def is_image_name(text: str) -> bool:
    """Return whether a text is a name: not empty, of the permitted characters, in NFC, and not too long."""
    if not 0 < len(text) <= MAX_IMAGE_NAME_CHARACTERS or "".join(_units(text)) != text:
        return False
    return len(text.encode()) <= MAX_IMAGE_NAME_BYTES and unicodedata.is_normalized("NFC", text)


def normalized_image_name(text: str) -> str | None:
    """Return a name that is spelled in any normalization form of Unicode in NFC; `None` if the text is no name."""
    if len(text) > _MAX_SPELLED_CHARACTERS:
        return None
    name = unicodedata.normalize("NFC", text)
    return name if is_image_name(name) else None


def image_name(text: str) -> str:
    """Return the name that is closest to a text: what a name cannot have becomes `-`. It is empty if nothing is left."""
    hyphenated = re.sub("-{2,}", "-", "".join(_units(unicodedata.normalize("NFC", text[:_MAX_SPELLED_CHARACTERS])))).strip("-")
    name, size = "", 0
    for unit in _units(hyphenated):
        size += len(unit.encode())
        if len(name) + len(unit) > MAX_IMAGE_NAME_CHARACTERS or size > MAX_IMAGE_NAME_BYTES:
            break
        name += unit
    return name.rstrip("-")


def name_of_file(path: str) -> str:
    """Return the name that an image gets from the name of its file, without folders and extension."""
    return image_name(_EXTENSION.sub("", path.replace("\\", "/").rpartition("/")[2]))


def ascii_name(name: str) -> str:
    """Return a name in ASCII for clients that read no other: letters without their accents, without what has no ASCII letter."""
    return re.sub("[^A-Za-z0-9_-]", "", unicodedata.normalize("NFKD", name)).strip("-") or "image"


def _units(text: str) -> list[str]:
    """Return the characters of a text, each with the marks that follow it; those that a name cannot have are replaced by `-`."""
    units: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if character in "-_" or category[0] == "L" or category == "Nd":
            units.append(character)
        elif category[0] == "M" and units and units[-1] not in {"-", "_"}:
            units[-1] += character
        else:
            units.append("-")
    return units

"""Where a store on disk has each object: at the path that is its key, except that the list of images is spread over folders.

A directory has no order: to find the names that follow a given one, all of its names have to be read. The names in the list of images begin
with a time, so their files are in folders by that time, `recent/8712/34/56/8712345678901-<digest>`: a page of the list reads only the
folders that its images are in. A folder has the images of 100 seconds. Keys are the same in every store; only the paths on disk differ.

Earlier versions wrote the list to a single folder. Their files are found where they are, and `spread_list` moves them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from heapq import merge, nsmallest
from itertools import chain, groupby, islice
from pathlib import Path

from service.storage.disk import is_temp_file
from service.storage.keys import RECENT_PREFIX

# The time in a name has 13 digits: the first four change every twelve days, six every three hours, eight every 100 seconds.
_LISTED = re.compile(rf"{RECENT_PREFIX}/((\d{{4}})(\d\d)(\d\d)\d{{5}}-[^/]+)")
_SPREAD = rf"{RECENT_PREFIX}/\2/\3/\4/\1"


def path_of(root: Path, key: str) -> str:
    """Return the path, relative to `root`, of the object under a key, whether it exists or not."""
    path = _spread(key)
    return key if path != key and not (root / path).exists() and (root / key).exists() else path


def key_of(path: str) -> str:
    """Return the key of the object at a path, which is relative to the root of the store."""
    return f"{RECENT_PREFIX}/{path.rpartition('/')[2]}" if path.startswith(f"{RECENT_PREFIX}/") else path


def names_after(directory: Path, after: str, limit: int) -> list[str]:
    """Return the first `limit` names of objects in a directory, and in the folders of the list, that sort after `after`, in order."""
    # While `spread_list` moves a file, it may be seen twice.
    return [name for name, _ in islice(groupby(_names_after(directory, after, limit, "")), limit)]


def spread_list(root: Path) -> int:
    """Move the files of a list in a single folder to the folders that they belong in, and return their number; raises `OSError`."""
    moved = 0
    for name in _files(root / RECENT_PREFIX):
        path = _spread(f"{RECENT_PREFIX}/{name}")
        if path == f"{RECENT_PREFIX}/{name}":
            continue
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Its image may be taken down in this moment.
        with suppress(FileNotFoundError):
            (root / RECENT_PREFIX / name).rename(target)
            moved += 1
    return moved


def _spread(key: str) -> str:
    return _LISTED.sub(_SPREAD, key) if key.startswith(f"{RECENT_PREFIX}/") else key


def _files(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if not entry.is_dir() and not is_temp_file(entry.name)]
    except FileNotFoundError:
        return []


def _names_after(directory: Path, after: str, limit: int, beginning: str) -> Iterator[str]:
    """Yield names in order, up to `limit` of each folder. A folder is read when the names before it have been taken.

    `beginning`: what all names in `directory` begin with. Names in one of its folders continue with the name of that folder.
    """
    names: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name > after and not is_temp_file(entry.name):
                    names.append(entry.name)
    except FileNotFoundError:
        return iter(())
    later = (folder for folder in sorted(folders) if beginning + folder >= after[: len(beginning + folder)])
    within = (_names_after(directory / folder, after, limit, beginning + folder) for folder in later)
    return merge(nsmallest(limit, names), chain.from_iterable(within))

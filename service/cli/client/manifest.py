"""The manifest: `images.json`, which has all of every pushed image for those who build a site."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from service.cli.client.problems import UsageError, problem
from service.cli.client.sending import Taken
from service.cli.client.server import Document
from service.files import temp_file

VERSION = 1

# A relative address of a rendition, where one begins in a `srcset` or a `<picture>`.
_RELATIVE = re.compile(r'(?<![^\s",])(?=/i/v[1-9][0-9]*/[a-z2-7]{32}/)')


def entries(taken: Iterable[Taken], base: str | None) -> dict[str, Document]:
    """Return the manifest's images by name: of each its document, and the `srcset` of its fallback format.

    URLs that the server tells without a host are made absolute against `base`, its URL; with `None` they stay as they are.
    """
    found = {}
    for one in taken:
        document = one.document if base is None else absolute(one.document, base)
        found[one.file.name] = {**document, "srcset": document["sources"][-1]["srcset"]}
    return found


def absolute(document: Mapping[str, Any], base: str) -> Document:
    """Return a document, or what a page needs of one, with every URL absolute."""

    def whole(text: str) -> str:
        return _RELATIVE.sub(base, text)

    sources = [
        {
            **source,
            "srcset": whole(source["srcset"]),
            "renditions": [{**link, "url": whole(link["url"])} for link in source["renditions"]],
        }
        for source in document["sources"]
    ]
    return {**document, "src": whole(document["src"]), "sources": sources, "picture": whole(document["picture"])}


class Manifest:
    """A manifest's file, and the images that it has."""

    def __init__(self, path: Path, images: dict[str, Document]) -> None:
        """Take where it is to be written, links followed, and what it has so far."""
        self.path = path
        self._images = images

    def update(self, images: Mapping[str, Document], *, only: Collection[str] | None) -> None:
        """Write the file whole or not at all, with `images` in place of their older entries; with `only`, no others than these names.

        Raises `UsageError` where it cannot be written.
        """
        kept = {**self._images, **images}
        kept = {name: kept[name] for name in sorted(kept) if only is None or name in only}
        if kept == self._images and self.path.exists():
            return
        self._images = kept
        body = msgspec.json.format(msgspec.json.encode({"version": VERSION, "images": self._images}), indent=2) + b"\n"
        try:
            _replace(self.path, body)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def opened(name: str) -> Manifest:
    """Return the manifest in a file, without images where there is none yet; raises `UsageError` for what is no manifest of ours."""
    path = Path(name).resolve()
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.is_dir():
        raise _unwritable(path, None)
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        return Manifest(path, {})
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        found = None
    version = found.get("version") if isinstance(found, dict) else None
    images = found.get("images") if isinstance(found, dict) else None
    if version != VERSION or not isinstance(images, dict):
        raise UsageError(
            problem(
                f"{name} is no manifest that this version writes; it was left as it is.",
                expected=f'a JSON object with "version": {VERSION} and "images", or no file',
                received="something else" if version is None else f"version {version}",
                remedy="Choose another --manifest, or remove the file: it is made anew from what is pushed, and nothing is sent twice.",
            )
        )
    return Manifest(path, images)


def _replace(path: Path, body: bytes) -> None:
    """Put `body` in a file's place, durably, with the mode that the file has or a new one would."""
    with temp_file(path.parent, body, prefix=f".{path.name}.") as draft:
        draft.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        draft.replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(path: Path, error: OSError | None) -> UsageError:
    return UsageError(
        problem(
            "The manifest cannot be written.",
            expected=f"a file that can be written: {path}",
            received=None if error is None else error.strerror,
            remedy="Make its folder, or choose another --manifest.",
        )
    )

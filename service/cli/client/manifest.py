"""The manifest: a JSON file with the image document of every pushed file, for the build of a site."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from service.cli.client.errors import UsageError, client_problem
from service.cli.client.server import Document
from service.files import temp_file

VERSION = 1

# The beginning of a relative URL of a rendition in a `srcset` or a `<picture>`. A pattern that starts with fixed text is found faster.
_RELATIVE = re.compile(r'/i/v(?<![^\s",]/i/v)[1-9][0-9]*/[a-z2-7]{32}/')


def manifest_entries(named: Iterable[tuple[str, Document]], base_url: str | None) -> dict[str, Document]:
    """Return the entries of a manifest by name: the image document and the `srcset` of the fallback format.

    `named`: names and documents. `base_url`: the server's URL, put before URLs without a host; `None` leaves these as they are.
    """
    entries = {}
    for name, given in named:
        document = given if base_url is None else with_absolute_urls(given, base_url)
        entries[name] = {**document, "srcset": document["sources"][-1]["srcset"]}
    return entries


def with_absolute_urls(document: Mapping[str, Any], base_url: str) -> Document:
    """Return a document, or its part for a page, with `base_url` before every URL that has no host."""

    def absolute(text: str) -> str:
        return _RELATIVE.sub(lambda found: base_url + found[0], text)

    sources = [
        {
            **source,
            "srcset": absolute(source["srcset"]),
            "renditions": [{**link, "url": absolute(link["url"])} for link in source["renditions"]],
        }
        for source in document["sources"]
    ]
    return {**document, "src": absolute(document["src"]), "sources": sources, "picture": absolute(document["picture"])}


class Manifest:
    """A manifest's file, and its entries."""

    def __init__(self, path: Path, images: dict[str, Document]) -> None:
        """Create a manifest for the file at `path`, a real path, which has the entries `images` by name."""
        self.path = path
        self._images = images

    def __repr__(self) -> str:
        return f"<Manifest {self.path}: {len(self._images)} images>"

    def update(self, images: Mapping[str, Document], *, only: Collection[str] | None) -> None:
        """Add or replace entries, and write the file completely or not at all.

        `only`: the names to keep; all other entries are removed. `None` keeps all.
        Raises `UsageError` if the file cannot be written.
        """
        merged = {**self._images, **images}
        merged = {name: merged[name] for name in sorted(merged) if only is None or name in only}
        if merged == self._images and self.path.exists():
            return
        self._images = merged
        body = msgspec.json.format(msgspec.json.encode({"version": VERSION, "images": self._images}), indent=2) + b"\n"
        try:
            _replace(self.path, body)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def open_manifest(name: str) -> Manifest:
    """Return the manifest in a file, empty if there is no file; raises `UsageError` for a file that is not a manifest of this version."""
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
            client_problem(
                f"{name} is not a manifest of this version; it was not changed.",
                expected=f'a JSON object with "version": {VERSION} and "images", or no file',
                received="something else" if version is None else f"version {version}",
                remedy="Choose another --manifest, or delete the file: the next push writes a new one and uploads nothing twice.",
            )
        )
    return Manifest(path, images)


def _replace(path: Path, body: bytes) -> None:
    """Replace a file durably. The new one has the mode of the old one, or that of any new file."""
    with temp_file(path.parent, body, prefix=f".{path.name}.") as draft:
        draft.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        draft.replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(path: Path, error: OSError | None) -> UsageError:
    return UsageError(
        client_problem(
            "The manifest cannot be written.",
            expected=f"a writable file: {path}",
            received=None if error is None else error.strerror,
            remedy="Create its folder, or choose another --manifest.",
        )
    )

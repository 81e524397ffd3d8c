"""darkroom.js as an npm package, so that `npm install` takes it from a file that any Darkroom serves."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from importlib.resources.abc import Traversable

# npm expects all files of a tarball below one folder, which it names `package` itself.
_ROOT = "package"
_MANIFEST = "package.json"


def npm_package(folder: Traversable) -> bytes:
    """Return the tarball that `npm pack` makes of `folder`: package.json, and the files and folders that it lists.

    Equal files make equal bytes, because a lock file has the hash of the tarball.
    """
    manifest = (folder / _MANIFEST).read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in (_MANIFEST, manifest), *_listed(folder, "", sorted(json.loads(manifest)["files"])):
            member = tarfile.TarInfo(f"{_ROOT}/{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return gzip.compress(packed.getvalue(), mtime=0)


def _listed(folder: Traversable, path: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each file of `names`, and of every file of the folders among them."""
    for name in names:
        entry = folder / name
        if entry.is_dir():
            yield from _listed(entry, f"{path}{name}/", sorted(inner.name for inner in entry.iterdir()))
        else:
            yield f"{path}{name}", entry.read_bytes()

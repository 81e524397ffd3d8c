"""The files of a push: found in folders, named, and known by their content."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from service.cli.client.problems import NotTaken, RefusedError, UsageError, problem
from service.errors import Problem, sanitize
from service.images.digest import digest_from_sha256

IMAGES = "JPEG, PNG, WebP, GIF, AVIF, HEIC, TIFF or SVG"

# Only to keep from sending what is surely none: what is taken is decided by the server.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# ISO/IEC 14496-12 §4.3: `ftyp`, then the brands; those of ISO/IEC 23008-12 annex B and of AV1 in HEIF.
_BRANDS = re.compile(rb"....ftyp(?:....)*?(?:heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|mif2|msf1|miaf|avif|avis|avio)", re.DOTALL)
_SVG = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?svg[\s/>]")
_BEGINNING_BYTES = 4_096
_RECEIVED_BYTES = 24


class File(msgspec.Struct, frozen=True):
    """A file to push: its name in a manifest, its path, its size in bytes, and by what a later look knows whether it was changed."""

    name: str
    path: str
    bytes: int
    stamp: tuple[int, int, int]


class Gathered(msgspec.Struct, frozen=True):
    """What lies at some paths: files that may be images, what is none, and how many hidden files and folders were passed over.

    `names` are those of all that was found, whether it can be taken or not.
    """

    files: list[File]
    not_taken: list[NotTaken]
    names: frozenset[str]
    hidden: int


class _Gathering:
    """One look at some paths."""

    def __init__(self, leave_out: str | None) -> None:
        self.files: dict[str, File] = {}
        self.not_taken: list[NotTaken] = []
        self.names: set[str] = set()
        self.hidden = 0
        self._leave_out = leave_out

    def folder(self, root: str) -> None:
        """Take all in a folder. Links are followed, but not back into a folder that leads to them."""
        waiting: list[tuple[str, str, str, frozenset[tuple[int, int]]]] = [(root, os.path.realpath(root), "", frozenset())]
        while waiting:
            path, real, prefix, above = waiting.pop()
            try:
                status = os.stat(path)  # noqa: PTH116 - names need not be UTF-8, and `Path` costs more than the look
                with os.scandir(path) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._refuse(path, _unreadable(error))
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                self._refuse(path, problem("This link leads back to a folder above it.", remedy="Remove the link."))
                continue
            for entry in found:
                # Where no link is, there is nothing to ask the disk for.
                entry_real = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
                if entry.name.startswith("."):
                    self.hidden += 1
                elif entry.is_dir():
                    waiting.append((entry.path, entry_real, f"{prefix}{entry.name}/", above | {identity}))
                else:
                    self.file(entry.path, entry_real, prefix + entry.name)

    def file(self, path: str, real: str, name: str) -> None:
        """Take one file, which lies at `real` once links are followed, under a name."""
        if real == self._leave_out:
            return
        self.names.add(name)
        try:
            name.encode()
            status = os.stat(path)  # noqa: PTH116 - as above
        except UnicodeEncodeError:
            self._refuse(path, problem("The name is not UTF-8.", expected="a name that JSON can hold", remedy="Rename the file."))
            return
        except OSError as error:
            self._refuse(path, _unreadable(error))
            return
        if not stat.S_ISREG(status.st_mode):
            self._refuse(path, problem("This is no file.", expected="a file with the bytes of an image", remedy="Leave it out."))
        elif status.st_size == 0:
            self._refuse(path, problem("The file is empty.", expected="the bytes of an image", remedy="Write it again, or remove it."))
        else:
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            # The same file by way of two paths that were given is one.
            self.files.setdefault(f"{name}\0{real}", File(name, path, status.st_size, stamp))

    def _refuse(self, path: str, why: Problem) -> None:
        self.not_taken.append(NotTaken(path, why))


def gather(paths: Sequence[str], leave_out: str | None = None) -> Gathered:
    """Return what lies at `paths`, files and folders; hidden files only where they are named themselves.

    A file's name is its path below the folder that was given, with `/` between the parts, or that of the file given. `leave_out` is the
    real path of a file that is none of the images: the manifest.
    """
    gathering = _Gathering(leave_out)
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - as above
            gathering.folder(path)
        else:
            gathering.file(path, os.path.realpath(path), os.path.basename(path))  # noqa: PTH119 - as above
    files = sorted(gathering.files.values(), key=lambda file: file.name)
    return Gathered(files, gathering.not_taken, frozenset(gathering.names), gathering.hidden)


def check_names(files: Sequence[File]) -> None:
    """Return if no two files have one name; raises `UsageError`."""
    for one, other in pairwise(files):
        if one.name == other.name:
            raise UsageError(
                problem(
                    "Two files would have one name in the manifest.",
                    expected="names that differ below the folders given",
                    received=f"{one.name} for {one.path} and for {other.path}",
                    remedy="Push the folder above them both, push them one after the other into two manifests, or rename one.",
                )
            )


def digest_of(path: str) -> tuple[str, int]:
    """Return the name that an image's bytes have on every Darkroom, and how many these are.

    Raises `RefusedError` for a file that cannot be read, or that is surely no image.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            beginning = file.read(_BEGINNING_BYTES)
            if not _may_be_image(beginning):
                raise RefusedError(
                    problem(
                        "This is no image.",
                        expected=IMAGES,
                        received=f"a file that begins with `{sanitize(beginning[:_RECEIVED_BYTES].decode('latin-1'))}`",
                        remedy="Leave it out, or convert it.",
                    )
                )
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256")
            return digest_from_sha256(sha256.digest()), file.tell()
    except OSError as error:
        raise RefusedError(_unreadable(error)) from error


def unreadable(error: OSError) -> RefusedError:
    """Return that a file cannot be read."""
    return RefusedError(_unreadable(error))


def _unreadable(error: OSError) -> Problem:
    return problem("It cannot be read.", received=error.strerror or type(error).__name__, remedy="Check the link, or who may read it.")


def _may_be_image(beginning: bytes) -> bool:
    return (
        beginning.startswith(_BEGINNINGS)
        or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP")
        or _BRANDS.match(beginning) is not None
        or _SVG.search(beginning) is not None
    )

"""Scanning: the files to push, found in folders, with their names in a manifest and the digests of their content."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from service.cli.client.errors import RefusedError, Rejected, UsageError, client_problem
from service.errors import Problem, sanitize
from service.images.digest import digest_from_sha256

IMAGES = "JPEG, PNG, WebP, GIF, AVIF, HEIC, JPEG XL, TIFF or SVG"

# Magic numbers, only to avoid uploads that are certain to be refused: the server decides what it accepts.
_MAGIC = (b"\xff\xd8\xff", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# ISO/IEC 14496-12 §4.3: `ftyp`, then the brands; those of ISO/IEC 23008-12 annex B and of AV1 in HEIF.
_BRANDS = re.compile(rb"....ftyp(?:....)*?(?:heic|heix|heim|heis|hevc|hevx|hevm|hevs|mif1|mif2|msf1|miaf|avif|avis|avio)", re.DOTALL)
_SVG = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?svg[\s/>]")
_HEAD_BYTES = 4_096
_SHOWN_BYTES = 24


class File(msgspec.Struct, frozen=True):
    """A file to push.

    `name`: its name in a manifest.
    `path`: where it is.
    `bytes`: its size.
    `stamp`: modification time, size and inode; it differs in a later scan if the file was changed.
    """

    name: str
    path: str
    bytes: int
    stamp: tuple[int, int, int]


class ScanResult(msgspec.Struct, frozen=True):
    """What a scan found.

    `files`: the files that may be images, sorted by name.
    `rejected`: files and folders that cannot be pushed.
    `names`: the names of all files that were found, rejected ones included.
    `hidden`: how many hidden files and folders were skipped.
    """

    files: list[File]
    rejected: list[Rejected]
    names: frozenset[str]
    hidden: int


class _Scan:
    def __init__(self, exclude: str | None) -> None:
        self.files: dict[str, File] = {}
        self.rejected: list[Rejected] = []
        self.names: set[str] = set()
        self.hidden = 0
        self._exclude = exclude

    def add_folder(self, root: str) -> None:
        """Add every file below a folder. Links are followed, unless they lead back to a folder that contains them."""
        pending: list[tuple[str, str, str, frozenset[tuple[int, int]]]] = [(root, os.path.realpath(root), "", frozenset())]
        while pending:
            path, real, prefix, ancestors = pending.pop()
            try:
                status = os.stat(path)  # noqa: PTH116 - names need not be UTF-8, and `Path` costs more than the call
                with os.scandir(path) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._reject(path, _unreadable(error))
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in ancestors:
                self._reject(path, client_problem("This link leads back to a folder that contains it.", remedy="Remove the link."))
                continue
            for entry in found:
                # Only links need a system call to resolve.
                entry_real = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
                if entry.name.startswith("."):
                    self.hidden += 1
                elif entry.is_dir():
                    pending.append((entry.path, entry_real, f"{prefix}{entry.name}/", ancestors | {identity}))
                else:
                    self.add_file(entry.path, entry_real, prefix + entry.name)

    def add_file(self, path: str, real: str, name: str) -> None:
        """Add one file under a name. `real` is its path with all links resolved."""
        if real == self._exclude:
            return
        self.names.add(name)
        try:
            name.encode()
            status = os.stat(path)  # noqa: PTH116 - as above
        except UnicodeEncodeError:
            self._reject(path, client_problem("The name is not UTF-8.", expected="a name that JSON can contain", remedy="Rename the file."))
            return
        except OSError as error:
            self._reject(path, _unreadable(error))
            return
        if not stat.S_ISREG(status.st_mode):
            self._reject(path, client_problem("This is not a regular file.", expected="a file with an image", remedy="Leave it out."))
        elif status.st_size == 0:
            self._reject(path, client_problem("The file is empty.", expected="an image", remedy="Write the file again, or remove it."))
        else:
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            # A file that is reached by two of the given paths counts once.
            self.files.setdefault(f"{name}\0{real}", File(name, path, status.st_size, stamp))

    def _reject(self, path: str, reason: Problem) -> None:
        self.rejected.append(Rejected(path, reason))


def scan(paths: Sequence[str], exclude: str | None = None) -> ScanResult:
    """Return the files at `paths`, which may be files and folders. Hidden files are skipped unless a path names them.

    A file's name is its path below the given folder, separated by `/`, or the name of the file if the path is a file. `exclude` is the
    real path of a file to leave out: the manifest.
    """
    found = _Scan(exclude)
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - as above
            found.add_folder(path)
        else:
            found.add_file(path, os.path.realpath(path), os.path.basename(path))  # noqa: PTH119 - as above
    files = sorted(found.files.values(), key=lambda file: file.name)
    return ScanResult(files, found.rejected, frozenset(found.names), found.hidden)


def check_names(files: Sequence[File]) -> None:
    """Raise `UsageError` if two files have the same name. `files` are sorted by name."""
    for one, other in pairwise(files):
        if one.name == other.name:
            raise UsageError(
                client_problem(
                    "Two files would have the same name in the manifest.",
                    expected="names that differ below the given folders",
                    received=f"{one.name} for {one.path} and for {other.path}",
                    remedy="Push the folder that contains both, push them one after the other into two manifests, or rename one of them.",
                )
            )


def digest_of(path: str) -> tuple[str, int]:
    """Return the digest of a file's content, and its size in bytes.

    Raises `RefusedError` for a file that cannot be read, or that is certainly not an image.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            head = file.read(_HEAD_BYTES)
            if not _may_be_image(head):
                raise RefusedError(
                    client_problem(
                        "This is not an image.",
                        expected=IMAGES,
                        received=f"a file that begins with `{sanitize(head[:_SHOWN_BYTES].decode('latin-1'))}`",
                        remedy="Leave it out, or convert it.",
                    )
                )
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256")
            return digest_from_sha256(sha256.digest()), file.tell()
    except OSError as error:
        raise unreadable(error) from error


def unreadable(error: OSError) -> RefusedError:
    """Return the error for a file that cannot be read."""
    return RefusedError(_unreadable(error))


def _unreadable(error: OSError) -> Problem:
    return client_problem(
        "The file or folder cannot be read.",
        received=error.strerror or type(error).__name__,
        remedy="Check its permissions; if it is a link, check where it leads.",
    )


def _may_be_image(head: bytes) -> bool:
    return (
        head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or _BRANDS.match(head) is not None
        or _SVG.search(head) is not None
    )

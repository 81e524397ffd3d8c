"""The directory of a store on disk: whether it can be written, what its files occupy, and what killed writes leave in it."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from service.errors import SettingsError
from service.files import fsync_path

# The file system, or the user's quota of it, is full.
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})

# With less room a disk counts as full: most uploads fail.
FULL_BELOW_BYTES = 4 << 20

# The allocation unit of most file systems.
_BLOCK_BYTES = 4_096


def size_on_disk(size: int) -> int:
    """Return how many bytes a file of `size` bytes occupies on disk: whole blocks."""
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def available_bytes(folder: Path) -> int:
    """Return how many bytes this process can still write to the file system of a folder (statvfs(3)); raises `OSError`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def require_writable(folder: Path, variable: str) -> None:
    """Create a folder if it does not exist; raises `SettingsError`, which names `variable`, if this process cannot create files in it.

    A volume that is mounted over a folder of the container image belongs to root, regardless of who owned the folder before.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable_folder(folder, variable, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{variable}: {folder} cannot be written{ownership_hint(folder)}")


def unusable_folder(folder: Path, variable: str, error: OSError) -> SettingsError:
    """Return the error that a folder, or a file in it, could not be created; `variable` names the setting."""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return SettingsError(f"{variable}: {folder} cannot be created{ownership_hint(folder)}")
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        return SettingsError.invalid(variable, "a folder", f"{folder}, which is a file or below one", "Name another folder.")
    remedy = "Free room on its disk." if error.errno in FULL_DISK else "Name another folder."
    verb = "written" if folder.is_dir() else "created"
    return SettingsError(f"{variable}: {folder} cannot be {verb}: {error.strerror}. {remedy}")


def ownership_hint(folder: Path) -> str:
    """Return why this process cannot write to a folder, or to the nearest one above it that exists, and how to change that."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    owner, user, group = existing.stat().st_uid, os.geteuid(), os.getegid()
    if owner == user:
        return f": {existing} is mounted read-only, or its mode denies it. Make it writable."
    return (
        f": {existing} belongs to user {owner}, and this process is user {user}. As root, run chown -R {user}:{group} {existing} "
        f"(on Fly: fly ssh console --command 'chown -R {user}:{group} {existing}'), or mount a volume that user {user} may write to."
    )


def makedirs_durable(path: Path) -> None:
    """Create a directory and its parents, and sync each new entry, so that a power failure cannot remove them with their contents."""
    if not path.is_dir():
        makedirs_durable(path.parent)
        path.mkdir(exist_ok=True)
        fsync_path(path.parent)


def link_if_absent(file: Path, path: Path) -> bool | None:
    """Give a file a second name unless that exists, and return whether it did not; `None` if only a copy of the file can have that name.

    The file gets the mode of any new file in the directory of `path`, which is created if it does not exist.
    """
    directory = path.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # New files and new directories have the modes 0666 and 0777, less the bits of the same umask.
        file.chmod(directory.stat().st_mode & 0o666)
        path.hardlink_to(file)
    except FileExistsError:
        return False
    except OSError:
        # The names are in different file systems, or theirs has no hard links.
        return None
    return True


def remove_empty_folders(path: Path, root: Path) -> list[Path]:
    """Remove the folders that a removed file leaves empty, and return them. The folders in the root of a store remain."""
    removed: list[Path] = []
    for folder in path.parents:
        if root in {folder, folder.parent}:
            break
        try:
            folder.rmdir()
        except OSError:
            # Another file is in it, or is being written to it.
            break
        removed.append(folder)
    return removed


def is_temp_file(name: str) -> bool:
    """Return whether a file in a store may be one that obstore is writing: `<key>#<number>`, linked to its key when it is complete."""
    return "#" in name


def orphaned_temp_files(root: Path | None, older_than_seconds: float) -> list[str]:
    """Return the temporary files that killed writes have left in a store, as paths relative to `root`; none if it is not on disk.

    `older_than_seconds`: the age from which a file is orphaned; beside a running server, longer than any write takes.
    """
    found: list[str] = []
    newest = time.time() - older_than_seconds
    for path in [] if root is None else root.rglob("*#*"):
        with suppress(FileNotFoundError):
            if path.name.rpartition("#")[2].isdigit() and path.is_file() and path.stat().st_mtime <= newest:
                found.append(str(path.relative_to(root or path)))
    return found


def remove_orphaned_temp_files(root: Path | None, older_than_seconds: float = 0.0) -> int:
    """Remove the temporary files that killed writes have left in a store, and return their number; raises `OSError`."""
    orphans = orphaned_temp_files(root, older_than_seconds)
    for orphan in orphans:
        (root or Path()).joinpath(orphan).unlink(missing_ok=True)
    return len(orphans)

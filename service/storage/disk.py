"""Folders and files on disk: made to stay, whose they are, what they take."""

from __future__ import annotations

import os
from pathlib import Path

from service.errors import SettingsError

# What most file systems hand out room by.
_BLOCK_BYTES = 4_096


def on_disk_bytes(size: int) -> int:
    """Return what a file of a size takes on disk: whole blocks."""
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def require_writable(folder: Path, variable: str) -> None:
    """Return if this process may put files into a folder, made if need be; raises `SettingsError` that says whose it is.

    A volume that is mounted over the folder of an image belongs to root, whoever owned the folder before.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise SettingsError(f"{variable}: {folder} cannot be made{whose(folder)}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{variable}: {folder} cannot be written{whose(folder)}")


def whose(folder: Path) -> str:
    """Return whose a folder is that this process may not write to, or the one above it that is there, and how that is changed."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    owner, user, group = there.stat().st_uid, os.geteuid(), os.getegid()
    if owner == user:
        return f": {there} is mounted read-only, or its mode denies it. Make it writable."
    return (
        f": {there} belongs to user {owner}, and this process is user {user}. As root, run chown -R {user}:{group} {there} "
        f"(on Fly: fly ssh console --command 'chown -R {user}:{group} {there}'), or mount a volume that user {user} may write to."
    )


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each synced where it is listed, so that what is stored in it cannot vanish with it."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_one(path.parent)


def sync_one(path: Path) -> None:
    """Have a file, or the entries of a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

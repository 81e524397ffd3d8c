"""Signing keys in hexadecimal, and the development key: the key of a server that has no `DARKROOM_KEYS`."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from service.errors import SettingsError
from service.files import fsync_path, temp_file

_HEX_KEY = re.compile(r"(?:[0-9a-fA-F]{2}){16,}")


def parse_key(text: str) -> bytes | None:
    """Return the bytes of a key in hexadecimal, `None` if `text` is not an even number of at least 32 hexadecimal digits."""
    return bytes.fromhex(text) if _HEX_KEY.fullmatch(text) else None


def development_key(data: Path) -> bytes:
    """Return the signing key in the data folder. If there is none, create it, readable only by its owner.

    Raises `SettingsError` for a file that does not contain a key.
    """
    path = data / "signing.key"
    try:
        data.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create_key(path)
        key = parse_key(path.read_text("latin-1").strip())
    except OSError as error:
        verb = "read" if path.exists() else "created"
        raise SettingsError(
            f"DARKROOM_KEYS is not set, and {path} cannot be {verb}: {error.strerror}. Set DARKROOM_KEYS, or make room for the file, and "
            "give it to this user."
        ) from error
    if key is None:
        raise SettingsError(
            f"{path} is not a signing key: expected at least 32 hexadecimal digits. Restore the file from a backup. If you delete it, "
            "a new key is created, and every URL that was signed with the old one stops working."
        )
    return key


def _create_key(path: Path) -> None:
    """Create the file of a key, complete and durable, unless another process creates it first."""
    key = secrets.token_hex(32) + "\n"
    with temp_file(path.parent, key.encode("ascii"), prefix=path.name) as draft, suppress(FileExistsError):
        path.hardlink_to(draft)
    fsync_path(path.parent)

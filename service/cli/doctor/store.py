"""The data folder, and the store: whether it can be reached and written, and whether it keeps what is written."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio.to_thread

from service.cli.doctor.configuration import DEVELOPMENT_KEY, signing_keys
from service.cli.doctor.finding import Finding, from_error, ok
from service.errors import ServiceError, SettingsError, StorageFullError
from service.files import temp_file
from service.ops.signing_keys import EXPIRES_AFTER, fingerprint
from service.settings.environment import Configuration
from service.settings.sections import Settings
from service.storage.disk import FULL_BELOW_BYTES, available_bytes, ownership_hint, unusable_folder
from service.storage.keys import DIAGNOSES_PREFIX, SIGNING_KEYS_PREFIX, signing_key_record_key
from service.storage.object_store import Storage, open_storage

# A request to the store that takes longer makes a miss slow.
_SLOW_SECONDS = 1.0

# The times of objects in S3 have seconds; and S3 refuses signatures that are more than 15 minutes off.
MAX_CLOCK_SECONDS = 5.0

# File systems in memory, and the layer of a container that is gone with it.
_VOLATILE = {"tmpfs": "in memory", "ramfs": "in memory", "overlay": "in the container's own layer"}

_MEBIBYTE = 1 << 20


def check_folders(configuration: Configuration) -> Iterator[Finding]:
    """Check the data folder: whether files can be written there, and whether there is room."""
    settings = configuration.settings
    yield from _check_folder(settings, settings.storage.data, "DARKROOM_DATA", is_lasting=_needs_lasting_data(settings))


async def check_store(configuration: Configuration) -> AsyncIterator[Finding]:
    """Check the store with an object of its own, which is deleted again; the clock against the store's; and the keys of other servers."""
    settings = configuration.settings
    if settings.storage.url == "memory://":
        yield Finding(
            "volatile-store",
            "warning",
            "The store is in the memory of the server, and lost when it ends.",
            "file:///folder or s3://bucket",
            "memory://",
            "Set DARKROOM_STORE.",
        )
        return
    try:
        storage = open_storage(settings.storage.url, configuration.variables.texts, create=False)
    except SettingsError as error:
        for finding in _check_missing_store(settings, error):
            yield finding
        return
    if storage.root is not None:
        found = list(_check_folder(settings, storage.root, "DARKROOM_STORE", is_lasting=True))
        for finding in found:
            yield finding
        if any(finding.severity == "error" for finding in found):
            return
    probe = _Probe(storage, settings)
    async for finding in probe.findings():
        yield finding


class _Probe:
    """Puts an object, reads, lists and deletes it."""

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self._storage = storage
        self._settings = settings
        self._key = f"{DIAGNOSES_PREFIX}/{secrets.token_hex(8)}"
        self._body = secrets.token_bytes(64)
        self._doing = "put an object"

    async def findings(self) -> AsyncIterator[Finding]:
        started = time.monotonic()
        try:
            async for finding in self._use():
                yield finding
        except StorageFullError as error:
            yield Finding("store-full", "error", error.detail, "room for an object", "none", "Free room in the store, or enlarge it.")
        except ServiceError as error:
            yield Finding("store-fails", "error", error.detail, f"a store that lets this server {self._doing}", "a refusal", error.remedy)
        else:
            seconds = time.monotonic() - started
            yield ok("store", f"{self._settings.storage.url}: written, read, listed and deleted an object in {seconds * 1_000:.0f} ms.")

    async def _use(self) -> AsyncIterator[Finding]:
        storage, key = self._storage, self._key
        put_at = time.time()
        put_started = time.monotonic()
        await storage.put_if_absent(key, self._body, durable=True)
        try:
            self._doing = "put an object only if there is none"
            if await storage.put_if_absent(key, self._body[::-1], durable=False):
                yield Finding(
                    "unconditional-store",
                    "error",
                    "The store replaces an object that is only to be put if there is none.",
                    "a store that knows If-None-Match: * (conditional writes of S3)",
                    "one that ignores it",
                    "Use a store with conditional writes: two servers that render the same picture would replace each other's bytes.",
                )
            put_seconds = time.monotonic() - put_started
            self._doing = "read an object"
            if await storage.get(key, consistent=True) not in {self._body, self._body[::-1]}:
                yield Finding(
                    "damaged-object",
                    "error",
                    "The store returns other bytes than were put.",
                    "64 bytes",
                    "others",
                    "Do not use this store.",
                )
            self._doing = "list objects"
            modified = [entry.modified async for entry in storage.list_objects(DIAGNOSES_PREFIX) if entry.key == key]
            for finding in self._check_times(modified, put_at, put_seconds):
                yield finding
            for finding in [found async for found in self._check_other_keys(max(modified, default=datetime.now(UTC)))]:
                yield finding
        finally:
            self._doing = "delete an object"
            await storage.delete(key)
            if (path := storage.local_path(DIAGNOSES_PREFIX)) is not None:
                with suppress(OSError):
                    await anyio.to_thread.run_sync(path.rmdir)

    def _check_times(self, modified: list[datetime], put_at: float, put_seconds: float) -> Iterator[Finding]:
        if not modified:
            yield Finding(
                "inconsistent-store",
                "error",
                "A listing does not have the object that was just put.",
                "a store whose listings are consistent",
                "an object that is missing",
                "Use a store with strong consistency, as S3, R2 and Tigris have: takedowns of other servers are found by listing.",
            )
            return
        if self._storage.root is None:
            yield clock_finding("the store", modified[0].timestamp(), put_at, put_seconds)
        if put_seconds > 2 * _SLOW_SECONDS:
            yield Finding(
                "slow-store",
                "warning",
                "The store is slow.",
                f"a put within {_SLOW_SECONDS:g} s",
                f"{put_seconds / 2:.1f} s",
                "Use a store in the region of this server: every upload and every first view waits for it.",
            )

    async def _check_other_keys(self, now: datetime) -> AsyncIterator[Finding]:
        try:
            accepted = {signing_key_record_key(fingerprint(key)) for key in signing_keys(self._settings)}
        except SettingsError:
            # Another check reports it.
            return
        others = [
            record.key
            async for record in self._storage.list_objects(SIGNING_KEYS_PREFIX)
            if record.key not in accepted and now - record.modified < EXPIRES_AFTER
        ]
        if others:
            yield Finding(
                "foreign-key",
                "error",
                "Another server that uses this store signs URLs with a key that this one would not accept.",
                "the same keys (DARKROOM_KEYS) on all servers",
                f"a key with the fingerprint {others[0].rpartition('/')[2]}",
                "Set the same keys everywhere. To change one, first add the new one at the end on all servers, then move it to the front.",
            )


def clock_finding(other: str, its_time: float, own_time: float, uncertainty_seconds: float) -> Finding:
    """Compare this machine's clock with another one, both as Unix times; `uncertainty_seconds`: how long asking for it took."""
    difference = own_time - its_time
    if abs(difference) <= MAX_CLOCK_SECONDS + uncertainty_seconds:
        return ok("clock", f"The clock agrees with that of {other}.")
    return Finding(
        "clock",
        "error" if abs(difference) > 60 else "warning",
        f"The clock of this machine differs from that of {other}.",
        f"less than {MAX_CLOCK_SECONDS:g} s",
        f"{abs(difference):.0f} s {'ahead' if difference > 0 else 'behind'}",
        "Set it by NTP (timedatectl set-ntp true): stores refuse signatures that are 15 minutes off, and upload URLs expire too early.",
    )


def _check_missing_store(settings: Settings, error: SettingsError) -> Iterator[Finding]:
    """Check a store that cannot be opened: a folder may only be missing because no server has started yet."""
    parts = urlsplit(settings.storage.url)
    folder = Path(unquote(parts.path))
    if parts.scheme == "file" and folder.is_absolute() and not folder.exists():
        yield from _check_folder(settings, folder, "DARKROOM_STORE", is_lasting=True)
    else:
        yield from_error("invalid-store", error)


def _needs_lasting_data(settings: Settings) -> bool:
    return not (settings.auth.keys_file or settings.auth.signing_keys)


def _check_folder(settings: Settings, folder: Path, variable: str, *, is_lasting: bool) -> Iterator[Finding]:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        yield from_error("unusable-folder", unusable_folder(folder, variable, FileExistsError(17, "File exists")))
        return
    try:
        with temp_file(existing, secrets.token_bytes(4_096), prefix="darkroom-doctor"):
            pass
    except OSError as error:
        if error.errno in {28, 122}:
            yield _full_disk(variable, folder, 0)
        else:
            yield Finding(
                "read-only-folder",
                "error",
                f"{variable}: {folder} cannot be written.",
                "a folder that this user may write to",
                str(error.strerror),
                ownership_hint(folder).removeprefix(": "),
            )
        return
    available = available_bytes(existing)
    kind = _file_system(existing)
    if available < FULL_BELOW_BYTES:
        yield _full_disk(variable, folder, available)
        return
    if available < 2 * settings.limits.max_upload_bytes:
        yield Finding(
            "little-room",
            "warning",
            f"{variable}: there is little room in {folder}.",
            f"room for two of the largest uploads, {2 * settings.limits.max_upload_bytes // _MEBIBYTE} MiB",
            f"{available // _MEBIBYTE} MiB",
            "Free room on the disk, enlarge it, or set DARKROOM_RENDITIONS_BYTES.",
        )
    if is_lasting and kind in _VOLATILE:
        yield Finding(
            "volatile-folder",
            "warning",
            f"{variable}: {folder} is {_VOLATILE[kind]}, and lost with it.",
            "a file system on a disk or a volume",
            kind,
            "Mount a volume there." + (f" It has {DEVELOPMENT_KEY} too." if variable == "DARKROOM_DATA" else ""),
        )
        return
    exists = "" if existing == folder else ", which the first start creates"
    yield ok("folder", f"{variable}: {folder}{exists}, {available // _MEBIBYTE:,} MiB free on {kind}.")


def _full_disk(variable: str, folder: Path, available: int) -> Finding:
    return Finding(
        "full-disk",
        "error",
        f"{variable}: the disk of {folder} is full.",
        f"at least {FULL_BELOW_BYTES // _MEBIBYTE} MiB",
        f"{available // 1_024} KiB",
        "Free room on it, or enlarge it: uploads fail, and new renditions are not stored.",
    )


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on (proc_pid_mountinfo(5))."""
    found, longest = "an unknown file system", 0
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields, _, source = line.partition(" - ")
        mounted = Path(fields.split()[4].encode("latin-1", "replace").decode("unicode_escape"))
        # Of several on one folder, the last one is on top.
        if folder.resolve().is_relative_to(mounted) and len(mounted.parts) >= longest:
            found, longest = source.split()[0], len(mounted.parts)
    return found

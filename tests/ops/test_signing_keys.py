"""Servers with different keys on one store: a conflict is reported, ends when the key is gone, and does not occur in a rotation."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import structlog

from service.ops.signing_keys import SigningKeyMonitor, fingerprint
from service.storage.keys import SIGNING_KEYS_PREFIX, signing_key_record_key
from service.storage.object_store import Storage, open_storage

pytestmark = pytest.mark.anyio

OLD, NEW, FOREIGN = (bytes([number]) * 16 for number in range(3))

Logged = list[structlog.typing.EventDict]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "store").as_uri(), {})


async def conflict(storage: Storage, *keys: bytes, location: str = "arn 1857") -> str:
    """Return the conflict that a server with these keys reports, "" for none."""
    monitor = SigningKeyMonitor(storage, keys, location)
    await monitor.refresh()
    return "" if monitor.conflict is None else f"{monitor.conflict.reason} {monitor.conflict.remedy}"


def age(storage: Storage, key: bytes, seconds: float) -> None:
    path = storage.local_path(signing_key_record_key(fingerprint(key)))
    assert path is not None
    os.utime(path, (time.time() - seconds, time.time() - seconds))


async def test_servers_with_the_same_key_have_no_conflict(storage: Storage) -> None:
    assert await conflict(storage, OLD) == ""
    assert await conflict(storage, OLD, location="iad 99") == ""
    assert await storage.list_names_after(SIGNING_KEYS_PREFIX, "", 9) == [fingerprint(OLD)]


async def test_conflict_names_the_other_server_and_a_remedy(storage: Storage, logged: Logged) -> None:
    assert await conflict(storage, OLD, location="iad 99\x07") == ""
    conflicting = await conflict(storage, NEW)
    assert "(iad 99\\x07) signs URLs with a key that this server does not accept" in conflicting
    assert "DARKROOM_KEYS" in conflicting
    assert "(arn 1857)" in await conflict(storage, OLD)
    assert [event["log_level"] for event in logged] == ["error", "error"]


async def test_rotation_that_adds_the_key_everywhere_first_never_conflicts(storage: Storage) -> None:
    for keys in ((OLD,), (OLD, NEW), (OLD, NEW), (NEW, OLD), (OLD, NEW), (NEW, OLD), (NEW, OLD)):
        assert await conflict(storage, *keys) == ""
    age(storage, OLD, 300)
    assert await conflict(storage, NEW) == "", "the old key is removed once nobody signs with it"


async def test_rotation_in_one_step_conflicts_on_servers_without_the_new_key(storage: Storage, logged: Logged) -> None:
    assert await conflict(storage, NEW, OLD) == ""
    assert "does not accept" in await conflict(storage, OLD)
    assert await conflict(storage, NEW, OLD) == ""


async def test_record_of_an_unused_key_expires_by_the_clock_of_the_store(storage: Storage, logged: Logged) -> None:
    await conflict(storage, FOREIGN)
    age(storage, FOREIGN, 60)
    assert await conflict(storage, OLD) != ""
    age(storage, FOREIGN, 300)
    assert await conflict(storage, OLD) == ""


async def test_record_reveals_nothing_about_the_key(storage: Storage) -> None:
    await conflict(storage, OLD)
    (entry,) = [entry async for entry in storage.list_objects(SIGNING_KEYS_PREFIX)]
    record = f"{entry.key} {await storage.get(entry.key)!r}"
    assert OLD.hex() not in record
    assert fingerprint(OLD) != fingerprint(NEW)
    assert len(fingerprint(OLD)) == 16

"""Files of tokens and keys that change while a server runs, in every way in which secrets are handed over."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
import structlog

from service.errors import SettingsError
from service.ops import rotation
from service.ops.rotation import Rotation, SecretFile
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

Logged = list[structlog.typing.EventDict]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "SETTLE_SECONDS", 0.0)


def write(path: Path, content: bytes | None) -> None:
    """Write a file in place, or remove it."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def replace_unnoticed(path: Path, text: str) -> None:
    """Replace a file by another one of the same modification time."""
    before = path.stat()
    draft = path.with_name("draft")
    draft.write_text(text, "utf-8")
    os.utime(draft, ns=(before.st_atime_ns, before.st_mtime_ns))
    draft.replace(path)


def reason(watched: Rotation) -> str:
    """Return the reason and the remedy of the health issue, empty if there is none."""
    return "" if watched.issue is None else f"{watched.issue.reason} {watched.issue.remedy}"


class Adopted:
    """Remembers the texts that were adopted, and refuses those that contain `bad`."""

    def __init__(self, path: Path) -> None:
        self.texts: list[str] = []
        self._changed = anyio.Event()
        self.file = SecretFile("DARKROOM_TOKENS_FILE", path, self)

    def __call__(self, text: str) -> None:
        if "bad" in text:
            raise SettingsError("it is bad")
        self.texts.append(text)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, count: int) -> None:
        """Return when so many texts were adopted."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while len(self.texts) < count:
                await self._changed.wait()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("one", "utf-8")
    return path


@pytest.fixture
def adopted(path: Path) -> Adopted:
    return Adopted(path)


async def test_file_that_is_unchanged_is_adopted_once(adopted: Adopted) -> None:
    for _ in range(3):
        await adopted.file.refresh()
    assert adopted.texts == ["one"]


async def test_file_that_is_replaced_is_adopted(adopted: Adopted, path: Path) -> None:
    await adopted.file.refresh()
    replace_unnoticed(path, "two")
    await adopted.file.refresh()
    assert adopted.texts == ["one", "two"], "the size and the modification time are the same"


async def test_link_that_kubernetes_points_to_another_folder_is_followed(tmp_path: Path) -> None:
    for name in ("..one", "..two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(name, "utf-8")
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    adopted = Adopted(tmp_path / "tokens")
    await adopted.file.refresh()
    (tmp_path / "..data_tmp").symlink_to("..two")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await adopted.file.refresh()
    assert adopted.texts == ["..one", "..two"]


@pytest.mark.parametrize("damage", [b"bad", None, b"\xff"])
async def test_damaged_file_is_an_issue_and_the_text_before_stays_in_force(
    adopted: Adopted, path: Path, damage: bytes | None, logged: Logged
) -> None:
    watched = Rotation([adopted.file])
    await watched.refresh()
    write(path, damage)
    for _ in range(3):
        await watched.refresh()
    assert "DARKROOM_TOKENS_FILE" in reason(watched)
    assert str(path) not in reason(watched)
    assert [event["log_level"] for event in logged] == ["error"], "the same error is logged once"
    write(path, b"one")
    await watched.refresh()
    assert reason(watched) == ""
    assert adopted.texts == ["one"]


async def test_file_that_is_still_being_written_is_not_adopted(adopted: Adopted, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await adopted.file.refresh()
    write(path, b"tw")
    sleep = anyio.sleep

    async def finish_writing(seconds: float) -> None:
        write(path, b"two")
        await sleep(seconds)

    monkeypatch.setattr(anyio, "sleep", finish_writing)
    await adopted.file.refresh()
    assert adopted.texts == ["one"]
    await adopted.file.refresh()
    assert adopted.texts == ["one", "two"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_hangup_reads_the_files_at_once(adopted: Adopted, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "POLL_INTERVAL_SECONDS", 3_600.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Rotation([adopted.file]).watch)
        await adopted.until(1)
        write(path, b"two")
        os.kill(os.getpid(), signal.SIGHUP)
        await adopted.until(2)
        tasks.cancel_scope.cancel()
    assert adopted.texts == ["one", "two"]

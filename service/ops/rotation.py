"""Rotation: tokens and keys are read again from their files, without a restart, when a file changes and on SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import anyio
import structlog

from service.concurrency.polling import poll
from service.errors import SettingsError
from service.ops.signing_keys import HealthIssue
from service.settings.secret_files import read_secret_file

log = structlog.get_logger(__name__)

# How often the files are read. They are small, so their text is compared, and not their modification times: that works with a file that is
# replaced (rename), one that is written in place, and a symbolic link that Kubernetes points to another folder.
POLL_INTERVAL_SECONDS = 5.0

# A file that has changed is read again after this time, and adopted if it is still the same: half a file that is written in place may look
# complete, and half a key would sign.
SETTLE_SECONDS = 0.25


class SecretFile:
    """A file, and what is done with its text when it has changed."""

    def __init__(self, variable: str, path: Path, adopt: Callable[[str], None]) -> None:
        """Describe a file that has been adopted already when the server started.

        variable: the setting that names it. path: where it is.
        adopt: called with the text; raises `SettingsError`, before it has changed anything, for one that cannot be used.
        """
        self.variable = variable
        self._path = path
        self._adopt = adopt
        self._text: str | None = None
        self.error: SettingsError | None = None

    def __repr__(self) -> str:
        return f"<SecretFile {self._path}: {'in use' if self.error is None else 'damaged'}>"

    async def refresh(self) -> None:
        """Read the file, and adopt it if it has changed. If it cannot be used, what it had before stays in force, and `error` is set."""
        try:
            text = await self._read()
            if text != self._text:
                await anyio.sleep(SETTLE_SECONDS)
                if await self._read() != text:
                    return
                self._adopt(text)
                if self._text is not None:
                    log.info("adopted changed tokens or keys", variable=self.variable)
        except SettingsError as error:
            if self.error is None or str(error) != str(self.error):
                log.error("a file of tokens or keys cannot be used; what it had before stays in force", problem=str(error))  # noqa: TRY400
            self.error = error
        else:
            self._text = text
            self.error = None

    async def _read(self) -> str:
        return await anyio.to_thread.run_sync(read_secret_file, self._path, self.variable)


class Rotation:
    """Reads files of tokens and keys again while the server runs."""

    def __init__(self, files: Sequence[SecretFile]) -> None:
        """Watch these files, maybe none."""
        self._files = files
        self._lock = anyio.Lock()

    def __repr__(self) -> str:
        return f"<Rotation of {', '.join(map(repr, self._files)) or 'no file'}>"

    @property
    def issue(self) -> HealthIssue | None:
        """The first file that cannot be used, if there is one."""
        for file in self._files:
            if file.error is not None:
                # Everybody can read this: it has no part of the file, nor its path.
                return HealthIssue(
                    f"The file that {file.variable} names has changed and cannot be used. What it had before stays in force.",
                    "Correct the file: the server's log says what is wrong. A server that starts now would refuse it.",
                )
        return None

    async def watch(self) -> NoReturn:
        """Read the files regularly, and whenever this process gets SIGHUP, for as long as it serves."""
        # Without files, the signal must not end the process either.
        with anyio.open_signal_receiver(signal.SIGHUP) as signals:
            async with anyio.create_task_group() as tasks:
                if self._files:
                    tasks.start_soon(self._poll)
                async for _ in signals:
                    log.info("SIGHUP: reading the files of tokens and keys")
                    await self.refresh()
        raise AssertionError("signals end with the process")

    async def refresh(self) -> None:
        """Read every file once."""
        async with self._lock:
            for file in self._files:
                await file.refresh()

    async def _poll(self) -> None:
        await poll(self.refresh, every=POLL_INTERVAL_SECONDS)

"""What the cost model has learned, in a file of the data folder: a restarted server need not learn it again while clients wait."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import anyio.to_thread
import structlog

from service.concurrency.polling import poll
from service.files import replace_file
from service.rendering.cost import CostModel

log = structlog.get_logger(__name__)

_SAVE_EVERY_SECONDS = 300.0

# More than a file that this program writes can have.
_MAX_FILE_BYTES = 1 << 20


class CostFile:
    """Reads a file at the start, and writes it now and then and at the end."""

    def __init__(self, path: Path, costs: CostModel) -> None:
        """Use a file.

        path: of the file, in a folder that exists.
        costs: what is restored and saved.
        """
        self._path = path
        self._costs = costs
        self._saved = 0

    def restore(self) -> None:
        """Read the file; one that is missing, damaged or of an older version is ignored."""
        try:
            with self._path.open("rb") as file:
                body = file.read(_MAX_FILE_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the costs of renders were not read", cause=str(error))
            return
        if not self._costs.restore(body):
            log.warning("the costs of renders are learned again, because their file is damaged or of another version")

    def save(self) -> None:
        """Replace the file, if anything was learned since. A failure is only logged: the costs can be learned again."""
        if self._costs.measurements == self._saved:
            return
        measurements = self._costs.measurements
        try:
            replace_file(self._path, self._costs.encode())
        except OSError as error:
            log.warning("the costs of renders were not saved", cause=str(error))
        else:
            self._saved = measurements

    async def watch(self) -> NoReturn:
        """Restore, and save now and then and at the end, for as long as this process serves."""
        self.restore()
        try:
            await poll(self._save_in_thread, every=_SAVE_EVERY_SECONDS)
        finally:
            self.save()

    async def _save_in_thread(self) -> None:
        await anyio.to_thread.run_sync(self.save)

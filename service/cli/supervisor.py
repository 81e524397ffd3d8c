"""Granian's supervisor, which starts a server again that crashed, but not one that refused to start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any, cast

from granian.server.mp import MPServer

from service.process import EXIT_REFUSED


class Supervisor(MPServer):
    """A supervisor that ends with `EXIT_REFUSED` as soon as its worker does: the worker has printed why, and would refuse again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of Granian's server."""
        super().__init__(*args, **kwargs)
        # Granian would report an unexpected exit.
        logging.getLogger("_granian").addFilter(lambda _: not self._refused())

    def processes(self) -> Sequence[BaseProcess]:
        """Return the processes of the workers."""
        return [cast(BaseProcess, worker.inner) for worker in self.wrks]

    def _refused(self) -> bool:
        return any(process.exitcode == EXIT_REFUSED for process in self.processes())

    def _respawn_workers(self, workers: Sequence[int], spawn_target: Any, target_loader: Any, delay: float = 0) -> None:
        if self._refused():
            self.shutdown(EXIT_REFUSED)  # type: ignore[no-untyped-call]
        super()._respawn_workers(workers, spawn_target, target_loader, delay)

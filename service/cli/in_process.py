"""Granian's server without Granian's supervisor: its only worker runs in this process."""

from __future__ import annotations

import os
from typing import Any

from granian.server.mp import MPServer


class InProcessServer(MPServer):
    """A server that runs its worker in this process. SIGTERM ends it gracefully while it serves, and at once before."""

    def signal_handler_interrupt(self, *_: Any, **__: Any) -> None:
        """End the process: a worker that serves has handlers of its own."""
        os._exit(0)

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        worker = self._spawn_worker(0, spawn_target, target_loader)
        # It is a `multiprocessing.Process`, of which this is what its fork would do.
        worker.inner.run()
        self.interrupt_signal = True
        self.main_loop_interrupt.set()

"""The supervisor: the first process of `darkroom serve`. It starts the server in a fork, and starts it again if it crashes.

It forks before anything is imported that only the server needs, so that it takes little memory. In return, a server that has crashed has to
import its modules again.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from service.process import ENDING_SIGNALS, EXIT_REFUSED, end_at_once_on_signals, end_with_parent

_RECEIVED = (*ENDING_SIGNALS, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD)

# Time for the requests in progress after SIGTERM: longer than a render may take, shorter than Fly's kill_timeout.
DRAIN_SECONDS = 65

# A server that crashes within so many seconds of a restart would do so again and again.
_CRASH_LOOP_SECONDS = 5.5


def supervise() -> str | None:
    """Return in a new process, which has to serve. Returns why the server before it ended, `None` if there was none.

    In this process, it raises `SystemExit` when the server has ended: with status 0 after SIGTERM or SIGINT, with that of the server if it
    is 0 or `EXIT_REFUSED`, and with 1 if the server crashed again right after a restart. Service managers and container runtimes signal
    this process (`systemctl reload`, `docker kill --signal HUP`): SIGHUP is passed on.
    """
    supervisor = os.getpid()
    # Signals are received in turn (sigwait(3)), so that none can arrive at a moment that no handler expects.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _RECEIVED)
    crash: str | None = None
    while True:
        started_at = time.monotonic()
        server = os.fork()
        if server == 0:
            # A killed supervisor must not leave a server behind that nobody watches. Until that serves, it has nothing to finish.
            end_with_parent(signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(1)
            end_at_once_on_signals()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return crash
        code = _wait(server)
        if code in {0, EXIT_REFUSED}:
            sys.exit(code)
        if crash is not None and time.monotonic() - started_at < _CRASH_LOOP_SECONDS:
            sys.stderr.write("darkroom: the server crashed again right after it was restarted\n")
            sys.exit(1)
        crash = f"exit code {code}" if code > 0 else f"signal {-code} ({signal.strsignal(-code)})"


def _wait(server: int) -> int:
    """Wait until the server has ended, and pass signals on to it until then.

    Returns its exit code, or the negative number of the signal that ended it; 0 if this process has received a signal to end.
    """
    is_ending = False
    while (code := _reap(server)) is None:
        received = signal.sigwait(_RECEIVED)
        if received == signal.SIGHUP:
            os.kill(server, signal.SIGHUP)
        elif received == signal.SIGALRM:
            os.kill(server, signal.SIGKILL)
        elif received in ENDING_SIGNALS and not is_ending:
            is_ending = True
            os.kill(server, signal.SIGTERM)
            signal.alarm(DRAIN_SECONDS)
    return 0 if is_ending else code


def _reap(server: int) -> int | None:
    """Return the exit code of the server, `None` while it runs. As process 1 of a container, this process has to reap all others too."""
    while True:
        process_id, status = os.waitpid(-1, os.WNOHANG)
        if process_id == server:
            return os.waitstatus_to_exitcode(status)
        if process_id == 0:
            return None

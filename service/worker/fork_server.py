"""The fork server: a process that has imported what render processes need, and forks them.

A render process that is forked starts in a fraction of the time that the imports take. It shares the memory of the imported modules with
all others, as long as none of them writes to it (fork(2), copy-on-write).

Forking is safe because this process has one thread, and never decodes an image. Nothing secret can be inherited from it, because nothing
secret is in its environment.

A request of the server is one byte with three sockets: the standard input, output and error of the new process. This process forks one in
between, which forks the new one and ends. Then the new one is an orphan, which the server adopts (`service.process.adopt_orphans`). As its
parent, the server gets its exit code, and can kill it without the danger that its process id belongs to another by then; and when the fork
server ends, it stays. Its id is the first message on its standard output.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Sequence

from service.rendering.protocol import PROCESS_ID_BYTES

# Standard input, output and error.
_STREAMS = 3


def fork_on_request() -> None:
    """Fork a process for each request on standard input. Returns in every new process, with its own standard input, output and error.

    Raises `SystemExit` in this process when the server has closed the socket.
    """
    # Collections would write to all objects, in pages that are shared.
    gc.freeze()
    requests = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sys.stdin.fileno())
    while True:
        request, sockets, _, _ = socket.recv_fds(requests, 1, _STREAMS, socket.MSG_CMSG_CLOEXEC)
        if not request:
            sys.exit()
        is_new = _fork(sockets)
        if is_new:
            requests.detach()
            for stream, one in enumerate(sockets):
                os.dup2(one, stream)
        for one in sockets:
            os.close(one)
        if is_new:
            return


def leave_process_group() -> None:
    """Be in a process group of its own, so that Ctrl-C in a terminal reaches only the server, which lets renders finish.

    Not in a session of its own: the kernel schedules each session as a group, and niceness has an effect within a session only (sched(7),
    autogroup).
    """
    os.setpgid(0, 0)


def _fork(sockets: Sequence[int]) -> bool:
    """Return whether this is the new process, once it is a child of the server."""
    read, write = os.pipe()
    in_between = os.fork()
    if in_between:
        os.waitpid(in_between, 0)
        os.close(read)
        os.close(write)
        return False
    process_id = os.fork()
    if process_id:
        try:
            os.write(sockets[1], process_id.to_bytes(PROCESS_ID_BYTES, "big"))
        finally:
            os._exit(0)
    # The server reaps every process that remains in the group of this fork server after that was killed.
    leave_process_group()
    os.close(write)
    # Until the fork server closes the other end: from then on the process in between does not exist any more.
    os.read(read, 1)
    os.close(read)
    return True

"""HTTP servers that run in a thread of the test process."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.server import HOST


class _Server(ThreadingHTTPServer):
    # The default backlog is too short for the number of clients that connect at once.
    request_queue_size = 256

    def handle_error(self, *words: Any) -> None:
        # A client that closes a connection is no error, and tests read standard error.
        pass


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler], host: str = HOST, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Yield the port on which `handler` serves, on every address of `host`; with `tls` it speaks TLS."""
    server = _Server((host, 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""HTTP servers that run in a thread of the test itself."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.server import HOST


class _Server(ThreadingHTTPServer):
    # More clients may come at once than the default has room for.
    request_queue_size = 256

    def handle_error(self, *words: Any) -> None:
        # A client that closes a connection is no error, and nothing is to be written into what a test reads of standard error.
        pass


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler], host: str = HOST, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Give the port on which `handler` answers, on every address that `host` names; with `tls` it speaks that."""
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

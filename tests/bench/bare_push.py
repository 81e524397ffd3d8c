"""`python -m tests.bench.bare_push <port> <concurrency>` only posts each file that is named on a line of standard input."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import local

_TIMEOUT_SECONDS = 120.0
_thread = local()


def _post(port: int, path: str) -> None:
    if not hasattr(_thread, "connection"):
        _thread.connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    _thread.connection.request("POST", "/v1/images", Path(path).read_bytes())
    response = _thread.connection.getresponse()
    body = response.read()
    if response.status != 201:
        raise RuntimeError(f"{path} was refused: {response.status} {body[:300]!r}")


def main() -> None:
    """Post every file."""
    port, concurrency = int(sys.argv[1]), int(sys.argv[2])
    with ThreadPoolExecutor(concurrency) as threads:
        list(threads.map(lambda path: _post(port, path), sys.stdin.read().splitlines()))


if __name__ == "__main__":
    main()

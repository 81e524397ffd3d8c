"""`python -m tests.bench.bare_push <port> <uploads at a time>`: a bare loop that posts the files named on standard input, each whole."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import local

_SECONDS = 120.0
_own = local()


def _post(port: int, path: str) -> None:
    if not hasattr(_own, "connection"):
        _own.connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    _own.connection.request("POST", "/v1/images", Path(path).read_bytes())
    response = _own.connection.getresponse()
    answer = response.read()
    if response.status != 201:
        raise RuntimeError(f"{path} was not taken: {response.status} {answer[:300]!r}")


def main() -> None:
    """Post every file."""
    port, at_a_time = int(sys.argv[1]), int(sys.argv[2])
    with ThreadPoolExecutor(at_a_time) as threads:
        list(threads.map(lambda path: _post(port, path), sys.stdin.read().splitlines()))


if __name__ == "__main__":
    main()

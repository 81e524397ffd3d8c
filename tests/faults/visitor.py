"""A client in another process that requests one URL again and again until its standard input ends, and then prints the results."""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from collections import Counter

_PAUSE_SECONDS = 0.01

# Bounds a hang. This file imports nothing of the tests, so that it starts at once.
_PATIENCE_SECONDS = 120.0


def main() -> None:
    host, port, path = sys.argv[1:]
    statuses: Counter[int] = Counter()
    slowest = latest = 0.0
    connection = http.client.HTTPConnection(host, int(port), timeout=_PATIENCE_SECONDS)
    paused = time.perf_counter()
    while not select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0]:
        started = time.perf_counter()
        latest = max(latest, started - paused - _PAUSE_SECONDS)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        slowest = max(slowest, time.perf_counter() - started)
        statuses[response.status] += 1
        paused = time.perf_counter()
    json.dump({"statuses": statuses, "slowest": slowest, "latest": latest}, sys.stdout)


if __name__ == "__main__":
    main()

"""A client in another process that requests one URL again and again until its standard input ends, and then prints the results."""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from collections import Counter


def main() -> None:
    host, port, path = sys.argv[1:]
    statuses: Counter[int] = Counter()
    slowest = 0.0
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        started = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        slowest = max(slowest, time.perf_counter() - started)
        statuses[response.status] += 1
    json.dump({"statuses": statuses, "slowest": slowest}, sys.stdout)


if __name__ == "__main__":
    main()

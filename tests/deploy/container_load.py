"""25 renditions of photos of 24 megapixels at once, from a container with a limit of memory; container.sh starts this.

Only the standard library, because it runs without the project's environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from typing import Self

CLIENTS = 25
TIMEOUT_SECONDS = 120
CGROUPS = Path("/sys/fs/cgroup")

# Their files in version 2 and in version 1 of control groups.
_PEAK = ("memory.peak", "memory.max_usage_in_bytes")
_EVENTS = ("memory.events", "memory.oom_control")


def main() -> int:
    """Upload, request, and report; the exit status is 1 if something did not hold."""
    parser = argparse.ArgumentParser()
    for name in ("url", "token", "photo"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--megabytes", type=int, required=True, help="the limit of memory")
    parser.add_argument("--limited", choices=("yes", "no"), required=True, help="whether the control group has that limit")
    parser.add_argument("--pid", type=int, required=True, help="of the container's first process")
    options = parser.parse_args()

    photo = Path(options.photo).read_bytes()
    group = memory_group(options.pid)
    killed_before = oom_kills(group)
    paths = [upload(options.url, options.token, numbered(photo, number), number) for number in range(CLIENTS)]
    with PeakOfProcesses(options.pid) as processes:
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            outcomes = Counter(clients.map(lambda path: outcome(options.url + path), paths))
        seconds = time.monotonic() - began
    peak = (read_first(group, _PEAK) or "").strip()
    megabytes = processes.peak_bytes / 1e6 if options.limited == "no" or not peak else int(peak) / 1e6
    killed = oom_kills(group) - killed_before
    say(f"{CLIENTS} renditions of {len(photo) / 1e6:.1f} MB at once: {dict(outcomes)} in {seconds:.0f} s, ", end="")
    say(f"at most {megabytes:.0f} MB of {options.megabytes * 1.048576:.0f}, ", end="")
    say(f"of that {processes.peak_bytes / 1e6:.0f} MB of processes, {killed} killed")
    honest = outcomes["200"] + outcomes["503 with Retry-After"] == CLIENTS
    return 0 if honest and outcomes["200"] and not killed and megabytes <= options.megabytes * 1.048577 else 1


def numbered(photo: bytes, number: int) -> bytes:
    """Return the JPEG with a comment, so that it is another image of equal pixels."""
    comment = f"{number:04}".encode()
    return photo[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + photo[2:]


def upload(url: str, token: str, body: bytes, number: int) -> str:
    """Return the path of the widest rendition of an uploaded photo, in one format of its document after the other."""
    request = urllib.request.Request(f"{url}/v1/images", body, {"Authorization": f"Bearer {token}"})
    with fetch(request) as response:
        sources = json.load(response)["sources"]
    return str(sources[number % len(sources)]["renditions"][-1]["url"])


def outcome(url: str) -> str:
    """Return the status of a response, and for a refusal whether it says when to come back."""
    try:
        with fetch(urllib.request.Request(url)) as response:
            response.read()
            return str(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return f"{error.code} with Retry-After" if error.headers.get("Retry-After", "").isdecimal() else f"{error.code}"
    except OSError as error:
        return type(error).__name__


def fetch(request: urllib.request.Request) -> HTTPResponse:
    """Return the response without any proxy in between."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    response: HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    return response


def memory_group(pid: int) -> Path:
    """Return the folder of the control group that counts the memory of a process."""
    for line in Path(f"/proc/{pid}/cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory" or (controllers == "" and (CGROUPS / "cgroup.controllers").exists()):
            return CGROUPS / controllers / path.lstrip("/")
    return CGROUPS / "none"


def read_first(folder: Path, names: tuple[str, ...]) -> str | None:
    """Return the text of the first of these files that exists."""
    return next(((folder / name).read_text("utf-8") for name in names if (folder / name).exists()), None)


def oom_kills(group: Path) -> int:
    """Return how many processes of the group the kernel has killed for want of memory."""
    lines = (read_first(group, _EVENTS) or "").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


class PeakOfProcesses:
    """Measures the largest sum of the memory of a process and its descendants, counting what they share once (PSS)."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        while not self._ended.wait(0.1):
            self.peak_bytes = max(self.peak_bytes, sum(map(_proportional_bytes, _descendants(self._pid))))


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _descendants(int(child)))]


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def say(text: str, end: str = "\n") -> None:
    """Write to standard output."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

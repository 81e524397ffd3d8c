"""Varnish, nginx and Apache Traffic Server in front of a port, and a proxy between them and the server that counts requests."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import running
from tests.support.server import HOST, free_port
from tests.support.threads import serving
from tests.support.waiting import PATIENCE_SECONDS, wait_until

_HERE = Path(__file__).parent

# Hop-by-hop fields (RFC 9110 §7.6.1).
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class Counted:
    """The requests that reached the server: their number by method and path."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.port = 0

    def fetches(self, path: str) -> int:
        """Return how often a path was requested from the server."""
        return self.requests["GET", path]


@contextmanager
def counting(origin_url: str) -> Iterator[Counted]:
    """Yield a proxy to a server that counts the requests that it forwards."""
    counted = Counted()
    lock = threading.Lock()
    client = httpx.Client(
        base_url=origin_url, trust_env=False, verify=False, timeout=PATIENCE_SECONDS, limits=httpx.Limits(max_connections=200)
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            with lock:
                counted.requests[self.command, self.path] += 1
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP]
            with client.stream(self.command, self.path, headers=headers, content=body or None) as response:
                received = b"".join(response.iter_raw())
            self.send_response_only(response.status_code)
            for name, value in response.headers.multi_items():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            length = response.headers.get("content-length", str(len(received))) if self.command == "HEAD" else str(len(received))
            if response.status_code not in {204, 304}:
                self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(received)

        def __getattr__(self, name: str) -> Any:
            # http.server looks for do_GET, do_POST and so on.
            if name.startswith("do_"):
                return self._forward
            raise AttributeError(name)

        def log_message(self, *words: Any) -> None:
            pass

    with client, serving(Handler) as counted.port:
        yield counted


@contextmanager
def varnish(folder: Path, origin_port: int) -> Iterator[int]:
    """Yield the port of a Varnish in front of a port."""
    port = free_port()
    vcl = folder / "varnish.vcl"
    vcl.write_text((_HERE / "varnish.vcl").read_text().replace("ORIGIN_PORT", str(origin_port)))
    options = ["-F", "-a", f"{HOST}:{port}", "-f", str(vcl), "-s", "malloc,64m", "-n", str(folder / "state"), "-T", "none", "-j", "none"]
    with _running(["varnishd", *options], folder, port):
        yield port


@contextmanager
def nginx(folder: Path, origin_port: int) -> Iterator[int]:
    """Yield the port of an nginx in front of a port."""
    port = free_port()
    values = {"ORIGIN_PORT": str(origin_port), "CACHE_PORT": str(port), "FOLDER": str(folder)}
    config = (_HERE / "nginx.conf").read_text()
    for word, value in values.items():
        config = config.replace(word, value)
    (folder / "nginx.conf").write_text(config)
    with _running(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], folder, port):
        yield port


@contextmanager
def traffic_server(folder: Path, origin_port: int) -> Iterator[int]:
    """Yield the port of an Apache Traffic Server in front of a port."""
    port = free_port()
    for name in ("etc", "run", "log", "cache"):
        (folder / name).mkdir()
    records = {
        "http.server_ports": f"STRING {port}:ip-in={HOST}",
        # Traffic Server keeps running as the user that runs the tests.
        "admin.user_id": "STRING #-1",
        "log.logging_enabled": "INT 0",
        "diags.output.diag": "STRING E",
        "dns.resolv_conf": "STRING /dev/null",
        "exec_thread.autoconfig": "INT 0",
        "exec_thread.limit": "INT 2",
    }
    files = {
        "records.config": "".join(f"CONFIG proxy.config.{name} {value}\n" for name, value in records.items()),
        "remap.config": f"map / http://{HOST}:{origin_port}/\n",
        "storage.config": f"{folder / 'cache'} 64M\n",
        "ip_allow.yaml": "ip_allow:\n  - apply: in\n    ip_addrs: 127.0.0.1\n    action: allow\n    methods: ALL\n",
        **dict.fromkeys(("plugin.config", "hosting.config", "cache.config", "parent.config", "volume.config", "splitdns.config"), ""),
        **dict.fromkeys(("ssl_multicert.config", "socks.config"), ""),
        "logging.yaml": "",
        "sni.yaml": "",
        "strategies.yaml": "",
    }
    for name, text in files.items():
        (folder / "etc" / name).write_text(text)
    places = {
        "prefix": folder, "exec_prefix": folder, "bindir": "/usr/bin", "sbindir": "/usr/sbin", "sysconfdir": folder / "etc",
        "datadir": folder, "includedir": folder, "libdir": "/usr/lib/trafficserver", "libexecdir": "/usr/lib/trafficserver/modules",
        "localstatedir": folder / "run", "runtimedir": folder / "run", "logdir": folder / "log", "cachedir": folder / "cache",
    }  # fmt: skip
    (folder / "runroot.yaml").write_text("".join(f"{name}: {place}\n" for name, place in places.items()))
    with _running(["traffic_server", f"--run-root={folder / 'runroot.yaml'}"], folder, port):
        yield port


CACHES: dict[str, tuple[str, Callable[[Path, int], Any]]] = {
    "Varnish": ("varnishd", varnish),
    "nginx": ("nginx", nginx),
    "Apache Traffic Server": ("traffic_server", traffic_server),
}


def is_installed(name: str) -> bool:
    """Return whether a cache is installed."""
    return shutil.which(CACHES[name][0]) is not None


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    output = folder / "output.txt"
    with output.open("wb") as file, running(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder) as process:
        wait_until(lambda: process.poll() is not None or _is_responding(port))
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended:\n{output.read_text()}")
        yield


def _is_responding(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/livez", trust_env=False, verify=False).status_code == 200
    except httpx.TransportError:
        return False

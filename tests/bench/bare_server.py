"""`python -m tests.bench.bare_server <factory> <port>` runs a bare application under Granian with the real server's options."""

from __future__ import annotations

import sys

from service.cli.serve import run_granian

# The applications for Granian's own protocol.
_RSGI = frozenset({"fixed_rsgi"})

if __name__ == "__main__":
    factory, port = sys.argv[1:]
    run_granian(f"tests.bench.bare:{factory}", "127.0.0.1", int(port), interface="rsgi" if factory in _RSGI else "asgi")

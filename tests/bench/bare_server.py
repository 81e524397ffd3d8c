"""`python -m tests.bench.bare_server <factory> <port>` runs a bare application under Granian with the real server's options."""

from __future__ import annotations

import sys

from service.cli.main import run_granian

if __name__ == "__main__":
    run_granian(f"tests.bench.bare:{sys.argv[1]}", "127.0.0.1", int(sys.argv[2]))

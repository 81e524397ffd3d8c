"""`python -m tests.bench.peers FOLDER` installs the other image servers into a folder, for `make bench PEERS=FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.peers.packages import Packages


def main() -> None:
    """Install everything that is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description="Installs other image servers for the bench.")
    parser.add_argument("folder", type=Path)
    Packages(parser.parse_args().folder.resolve()).install()


if __name__ == "__main__":
    main()

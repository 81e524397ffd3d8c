"""`python compose_flags.py SECRETS`: the service `darkroom` of deploy/compose.yaml as options of `podman run`, one in a line.

SECRETS: the folder of the files `keys` and `tokens`. The network, the volume and the log are left to the caller.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose.yaml"

# Keys that are no option, or that the caller replaces.
_LEFT_OUT = {"image", "build", "restart", "env_file", "networks", "volumes", "logging"}


def flags(service: dict[str, Any], secrets: Path) -> list[str]:
    """Return the options of a service; raises `KeyError` for a key that this does not know."""
    found: list[str] = []
    for key, value in service.items():
        if key not in _LEFT_OUT:
            found += _FLAGS[key](value, secrets)
    return found


_FLAGS: dict[str, Callable[[Any, Path], list[str]]] = {
    "environment": lambda value, _: [f"--env={name}={text}" for name, text in value.items()],
    "secrets": lambda value, folder: [f"--volume={folder / name}:/run/secrets/{name}:ro" for name in value],
    # Docker's --read-only leaves no writable tmpfs; podman's does.
    "read_only": lambda value, _: ["--read-only", "--read-only-tmpfs=false"] if value else [],
    "user": lambda value, _: [f"--user={value}"],
    "cap_drop": lambda value, _: [f"--cap-drop={name}" for name in value],
    "security_opt": lambda value, _: [f"--security-opt={option.removesuffix(':true')}" for option in value],
    "mem_limit": lambda value, _: [f"--memory={value}"],
    "memswap_limit": lambda value, _: [f"--memory-swap={value}"],
    "pids_limit": lambda value, _: [f"--pids-limit={value}"],
    "ulimits": lambda value, _: [f"--ulimit={name}={number}:{number}" for name, number in value.items()],
    "stop_grace_period": lambda value, _: [f"--stop-timeout={value.removesuffix('s')}"],
}


if __name__ == "__main__":
    sys.stdout.write("\n".join(flags(yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["darkroom"], Path(sys.argv[1]))) + "\n")

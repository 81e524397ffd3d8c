"""The commands of `darkroom`, each in a module of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import click

from service.imports import quick_imports
from service.version import VERSION

# The modules of the commands, with the names of their functions. Each is imported only when it is called, so that all start quickly.
_COMMANDS: Mapping[str, str] = {
    "config": "service.cli.config:config",
    "doctor": "service.cli.doctor.command:doctor",
    "import": "service.cli.import_:import_images",
    "info": "service.cli.info:info",
    "open": "service.cli.open:open",
    "push": "service.cli.push:push",
    "regions": "service.cli.regions:regions",
    "rm": "service.cli.rm:rm",
    "serve": "service.cli.serve:serve",
    "store": "service.cli.store:store",
    "token": "service.cli.token_:token",
    "url": "service.cli.url:url",
}

# The modules of the server, and of the commands that open a store themselves.
_OPENING_A_STORE = {"service.asgi", "service.cli.store", "service.cli.doctor.command"}


class _LazyGroup(click.Group):
    """The subcommands of `_COMMANDS`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except SystemExit as ended:
            # A thread of obstore may still need the interpreter's lock to release its objects. During finalization CPython would end this
            # thread, and the process would abort, as about one run in fifty did. So commands that open a store end without finalization.
            if _OPENING_A_STORE & sys.modules.keys() and isinstance(ended.code, int):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code)
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is of click
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, function = _COMMANDS[cmd_name].partition(":")
        with quick_imports():
            command = getattr(import_module(module), function)
        return cast(click.Command, command)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="darkroom")
def main() -> None:
    """Darkroom serves images: upload an original once, and get immutable renditions of it under signed URLs.

    The commands push, import, url, info, rm and open send requests to a server, --server or DARKROOM_SERVER.
    """

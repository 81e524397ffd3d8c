"""The `darkroom` command."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import cast

import click

from service.errors import SettingsError
from service.ops import regions
from service.settings.environment import load
from service.settings.help import HELP
from service.settings.sections import Settings
from service.settings.signing_key import development_key

# How long requests that are being answered may go on after SIGTERM: longer than a render may take, shorter than Fly's kill_timeout.
DRAIN_SECONDS = 65

# A client that sends no complete header within this time is let go.
HEADER_SECONDS = 10

# What Granian buffers of a request, and of a response that a client does not read: twice the largest header that is read, so that a
# larger one gets a problem document.
BUFFER_BYTES = 32_768

# Connections waiting to be accepted.
BACKLOG = 2_048


# The commands that have a module of their own, imported by those alone who call them: a start of the server should be short.
_COMMANDS: Mapping[str, str] = {
    "info": "service.cli.info",
    "open": "service.cli.open",
    "push": "service.cli.push",
    "regions": "service.cli.regions",
    "rm": "service.cli.rm",
    "store": "service.cli.store",
    "url": "service.cli.url",
}


class _Commands(click.Group):
    """The commands of this module, and those of `_COMMANDS`, each the function of its name in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name)
        return cast(click.Command, command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="darkroom", prog_name="darkroom")
def main() -> None:
    """Images in once, immutable renditions out."""


@main.command()
@click.option("--host", help=HELP["DARKROOM_HOST"].help)
@click.option("--port", type=click.IntRange(1, 65_535), help=HELP["DARKROOM_PORT"].help)
@click.option("--data", type=click.Path(file_okay=False), help=HELP["DARKROOM_DATA"].help)
def serve(host: str | None, port: int | None, data: str | None) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Options go before the environment's DARKROOM_HOST, DARKROOM_PORT and DARKROOM_DATA.
    """
    for variable, value in (("DARKROOM_HOST", host), ("DARKROOM_PORT", port), ("DARKROOM_DATA", data)):
        if value is not None:
            os.environ[variable] = str(value)
    try:
        settings = load(os.environ)
        _check_folders(settings)
        if not settings.auth.signing_keys:
            development_key(settings.storage.data)
        _check_port_is_free(settings)
    except (SettingsError, OSError) as error:
        click.echo(f"darkroom: {error}", err=True)
        sys.exit(2)
    _announce(settings)
    run_granian("service.asgi:build", settings.server.host, settings.server.port, buffer_bytes=2 * settings.server.max_header_bytes)


def run_granian(factory: str, host: str, port: int, *, buffer_bytes: int = BUFFER_BYTES) -> None:
    """Serve what `factory` (`module:function`) builds until SIGTERM or SIGINT; what we are measured against is served so too.

    `buffer_bytes`: what Granian buffers of a connection, at least 8192, before it gives an empty 431 to a header that is not complete. It
    reads as much as it has allocated, which may be twice as much.
    """
    # Imported by those alone who serve: the other commands should be there at once.
    from granian import Granian  # noqa: PLC0415
    from granian.constants import HTTPModes, Interfaces, Loops  # noqa: PLC0415
    from granian.http import HTTP1Settings  # noqa: PLC0415
    from granian.log import LogLevels  # noqa: PLC0415

    from service.http.connections import max_connections  # noqa: PLC0415
    from service.process import reset_signals_in_forks  # noqa: PLC0415

    reset_signals_in_forks()
    server = Granian(
        factory,
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        # One worker: one cache. Renders have processes of their own.
        workers=1,
        loop=Loops.uvloop,
        # Only plain HTTP/1 closes a silent connection at the header time-out; proxies in front speak HTTP/2 to clients.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1_000, max_buffer_size=buffer_bytes),
        websockets=False,
        backlog=BACKLOG,
        backpressure=max_connections(),
        respawn_failed_workers=True,
        workers_kill_timeout=DRAIN_SECONDS,
        log_level=LogLevels.warning,
    )
    try:
        server.serve()
    except SystemExit:
        # Granian reports a failure if the worker ended first, as it may when a signal goes to the whole process group.
        if not server.interrupt_signal:
            raise


def _announce(settings: Settings) -> None:
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    url = f"http://{host}:{settings.server.port}"
    token = ' -H "Authorization: Bearer $TOKEN"' if settings.auth.tokens else ""
    click.echo(f"Darkroom listens on {url}")
    click.echo(f"  data   {settings.storage.data}")
    click.echo(f"  store  {settings.storage.url}")
    for finding in regions.region_warnings(settings):
        click.echo(f"  note   {finding}")
    click.echo(f"  try    curl{token} --data-binary @photo.jpg {url}/v1/images   or open {url}/ in a browser")


def _check_folders(settings: Settings) -> None:
    # As in `run_granian`.
    from service.storage.disk import require_writable  # noqa: PLC0415
    from service.storage.object_store import open_storage  # noqa: PLC0415

    require_writable(settings.storage.data, "DARKROOM_DATA")
    root = open_storage(settings.storage.url, os.environ).root
    if root is not None:
        require_writable(root, "DARKROOM_STORE")


def _check_port_is_free(settings: Settings) -> None:
    # Granian sets SO_REUSEPORT: a second server would start silently and take half of the connections.
    family, kind, protocol, _, address = socket.getaddrinfo(settings.server.host, settings.server.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise SettingsError(
                f"{settings.server.host}:{settings.server.port} cannot be listened on: {error.strerror}. "
                "Stop what listens there, or choose another --port."
            ) from error

"""The `darkroom` command, and its subcommand `serve`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import click

from service.cli import console
from service.errors import SettingsError
from service.ops import regions
from service.settings.environment import load
from service.settings.help import HELP
from service.settings.sections import Settings
from service.settings.signing_key import development_key

# Time for the requests in progress after SIGTERM: longer than a render may take, shorter than Fly's kill_timeout.
DRAIN_SECONDS = 65

# Time for a client to send a complete header.
HEADER_SECONDS = 10

# Granian's buffer for a request, and for a response that a client does not read. It is twice the largest header that is accepted, so
# that a larger header gets a problem document.
BUFFER_BYTES = 32_768

# Connections that wait to be accepted.
BACKLOG = 2_048

# Subcommands in modules of their own. They are imported only when they are called, so that a server starts quickly.
_COMMANDS: Mapping[str, str] = {
    "info": "service.cli.info",
    "open": "service.cli.open",
    "push": "service.cli.push",
    "regions": "service.cli.regions",
    "rm": "service.cli.rm",
    "store": "service.cli.store",
    "url": "service.cli.url",
}


class _LazyGroup(click.Group):
    """The subcommands of this module and of `_COMMANDS`: there, each is the function of the same name in its module."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except SystemExit as ended:
            # A thread of obstore may still need the interpreter's lock to release its objects. During finalization CPython would end this
            # thread, and the process would abort, as about one run in fifty did. So the maintenance commands end without finalization.
            if "service.cli.store" in sys.modules and isinstance(ended.code, int):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code)
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name)
        return cast(click.Command, command)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="darkroom", prog_name="darkroom")
def main() -> None:
    """Darkroom serves images: upload an original once, and get immutable renditions of it under signed URLs.

    The commands push, url, info, rm and open send requests to a server, --server or DARKROOM_SERVER.
    """


@main.command(short_help="Run a server.")
@click.option("--host", help=HELP["DARKROOM_HOST"].help)
@click.option("--port", type=click.IntRange(1, 65_535), help=HELP["DARKROOM_PORT"].help)
@click.option("--data", type=click.Path(file_okay=False), help=HELP["DARKROOM_DATA"].help)
def serve(host: str | None, port: int | None, data: str | None) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    The options take precedence over the environment variables DARKROOM_HOST, DARKROOM_PORT and DARKROOM_DATA. All other settings are
    environment variables; docs/settings.md lists them.
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
        console.fail(str(error))
    _announce(settings)
    run_granian("service.asgi:build", settings.server.host, settings.server.port, buffer_bytes=2 * settings.server.max_header_bytes)


def run_granian(factory: str, host: str, port: int, *, buffer_bytes: int = BUFFER_BYTES) -> None:
    """Serve the application that `factory` (`module:function`) returns until SIGTERM or SIGINT. Benchmarks serve other applications so.

    `buffer_bytes`: Granian's buffer for one connection, at least 8192. A header that is still incomplete when the buffer is full gets an
    empty 431. Granian reads as much as it has allocated, which may be twice as much.
    """
    # Imported only here, so that the other commands start quickly.
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
        # With HTTP/2 enabled, an idle connection would not be closed at the header time-out. Proxies in front speak HTTP/2 to clients.
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
    for warning in regions.region_warnings(settings):
        click.echo(f"  note   {warning}")
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
    # Granian sets SO_REUSEPORT, so a second server would start without an error and take half of the connections.
    family, kind, protocol, _, address = socket.getaddrinfo(settings.server.host, settings.server.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise SettingsError(
                f"Cannot listen on {settings.server.host}:{settings.server.port}: {error.strerror}. "
                "Stop the process that listens there, or choose another --port."
            ) from error

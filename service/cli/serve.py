"""`darkroom serve`: runs a server."""

from __future__ import annotations

import errno
import os
import socket
import sys
from importlib import import_module

import click

from service.cli import console
from service.errors import SettingsError
from service.imports import quick_imports
from service.ops import regions
from service.settings.environment import Configuration, read
from service.settings.help import HELP
from service.settings.secret_files import load_keys, load_tokens
from service.settings.sections import Settings

# Time for a client to send a complete header.
HEADER_SECONDS = 10

# Granian's buffer for a request, and for a response that a client does not read. It is twice the largest header that is accepted, so
# that a larger header gets a problem document.
BUFFER_BYTES = 32_768

# Connections that wait to be accepted.
BACKLOG = 2_048


@click.command(short_help="Run a server.")
@click.option("--host", help=HELP["DARKROOM_HOST"].help)
@click.option("--port", type=click.IntRange(1, 65_535), help=HELP["DARKROOM_PORT"].help)
@click.option("--data", type=click.Path(file_okay=False), help=HELP["DARKROOM_DATA"].help)
@click.pass_obj
def serve(crash: str | None, host: str | None, port: int | None, data: str | None) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    The options take precedence over the environment variables DARKROOM_HOST, DARKROOM_PORT and DARKROOM_DATA. All other settings are
    environment variables, or in the file that DARKROOM_CONFIG names; docs/settings.md lists them, and `darkroom config` shows them.
    """
    for variable, value in (("DARKROOM_HOST", host), ("DARKROOM_PORT", port), ("DARKROOM_DATA", data)):
        if value is not None:
            os.environ[variable] = str(value)
    with quick_imports():
        try:
            configuration = read(os.environ)
            settings = configuration.settings
            _check_folders(configuration)
            load_keys(settings.auth, settings.storage.data)
            load_tokens(settings.auth, settings.sources.locations)
            _check_ports_are_free(settings)
        except SettingsError as error:
            console.fail_with(error)
        _start_logs(configuration)
        if crash is None:
            _announce(settings)
        else:
            _log_restart(crash)
    run_granian("service.asgi:build", settings.server.host, settings.server.port, buffer_bytes=2 * settings.server.max_header_bytes)


def run_granian(factory: str, host: str, port: int, *, buffer_bytes: int = BUFFER_BYTES, interface: str = "asgi") -> None:
    """Serve the application that `factory` (`module:function`) returns in this process until SIGTERM.

    Benchmarks serve other applications so.

    `interface`: the protocol of the application, `asgi` or `rsgi`.

    `buffer_bytes`: Granian's buffer for one connection, at least 8192. A header that is still incomplete when the buffer is full gets an
    empty 431. Granian reads as much as it has allocated, which may be twice as much.
    """
    # Imported only here, so that the other commands start quickly.
    with quick_imports():
        import_module(factory.partition(":")[0])
        from granian.constants import HTTPModes, Interfaces, Loops  # noqa: PLC0415
        from granian.http import HTTP1Settings  # noqa: PLC0415
        from granian.log import LogLevels  # noqa: PLC0415

        from service.cli.in_process import InProcessServer  # noqa: PLC0415
        from service.http.connections import max_connections  # noqa: PLC0415
        from service.ops.logging import adopt_logger  # noqa: PLC0415

    server = InProcessServer(
        factory,
        factory=True,
        address=host,
        port=port,
        interface=Interfaces(interface),
        # One worker: one cache. Renders have processes of their own.
        workers=1,
        loop=Loops.uvloop,
        # With HTTP/2 enabled, an idle connection would not be closed at the header time-out. Proxies in front speak HTTP/2 to clients.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1_000, max_buffer_size=buffer_bytes),
        websockets=False,
        backlog=BACKLOG,
        backpressure=max_connections(),
        log_level=LogLevels.warning,
    )
    # Granian has just given it handlers of its own.
    adopt_logger("_granian")
    server.serve()


def _start_logs(configuration: Configuration) -> None:
    # As in `run_granian`.
    from service.ops.logging import configure_logs, hide, secret_values  # noqa: PLC0415

    configure_logs(lines_per_second=configuration.settings.log.lines_per_second)
    hide(secret_values(configuration.variables.texts))


def _announce(settings: Settings) -> None:
    """Say where the server listens: to a person in a terminal, with a command to try, and otherwise in the log."""
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    url = f"http://{host}:{settings.server.port}"
    token = ' -H "Authorization: Bearer $TOKEN"' if settings.auth.tokens or settings.auth.tokens_file else ""
    message = f"Darkroom listens on {url}"
    if not sys.stdout.isatty():
        import structlog  # noqa: PLC0415 - it imports much, which the other commands do not need

        log = structlog.get_logger(__name__)
        log.info(message, data=str(settings.storage.data), store=settings.storage.url)
        for warning in regions.region_warnings(settings):
            log.warning(str(warning))
        return
    click.echo(message)
    click.echo(f"  data   {settings.storage.data}")
    click.echo(f"  store  {settings.storage.url}")
    for warning in regions.region_warnings(settings):
        click.echo(f"  note   {warning}")
    click.echo(f"  try    curl{token} --data-binary @photo.jpg {url}/v1/images   or open {url}/ in a browser")


def _log_restart(crash: str) -> None:
    import structlog  # noqa: PLC0415 - as in `_announce`

    structlog.get_logger(__name__).error("the server ended unexpectedly, and was started again", cause=crash)


def _check_folders(configuration: Configuration) -> None:
    # As in `run_granian`.
    from service.storage.disk import require_writable  # noqa: PLC0415
    from service.storage.object_store import open_storage  # noqa: PLC0415

    storage = configuration.settings.storage
    require_writable(storage.data, "DARKROOM_DATA")
    root = open_storage(storage.url, configuration.variables.texts).root
    if root is not None:
        require_writable(root, "DARKROOM_STORE")


def _check_ports_are_free(settings: Settings) -> None:
    server = settings.server
    check_port_is_free("DARKROOM_PORT", server.host, server.port, "choose another --port")
    if server.metrics_port:
        check_port_is_free("DARKROOM_METRICS_PORT", server.host, server.metrics_port, "choose another port")


def check_port_is_free(variable: str, host: str, port: int, choose_another: str) -> None:
    """Raise `SettingsError` if this process cannot listen on a port.

    variable: the setting of the port. choose_another: the second half of the remedy.

    Granian sets SO_REUSEPORT, so a second server would start without an error and take half of the connections.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise _invalid_host(host, error) from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise _invalid_host(host, error) from error
            if error.errno == errno.EACCES:
                expected, remedy = "a port that this user may listen on, from 1024", f"{choose_another.capitalize()}."
            else:
                expected, remedy = "a free port", f"Stop the process that listens there, or {choose_another}."
            raise SettingsError.invalid(
                variable, expected, str(port), f"Cannot listen on {host}:{port}: {error.strerror}. {remedy}"
            ) from error


def _invalid_host(host: str, error: OSError) -> SettingsError:
    remedy = f"{error.strerror}. Listen on 127.0.0.1, or on 0.0.0.0 for all addresses."
    return SettingsError.invalid("DARKROOM_HOST", "an address or a name of this machine", repr(host), remedy)

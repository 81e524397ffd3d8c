"""What the commands that send requests to a server share: the option `--server`, the image argument, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn, TypeVar

import click
import msgspec

from service.cli import console
from service.cli.client.errors import ClientError, RefusedError, UnreachableError, UsageError, client_problem
from service.cli.client.scan import digest_of
from service.cli.client.server import Server, connect
from service.errors import SettingsError
from service.images.digest import is_digest
from service.settings.help import CLIENT_HELP

DEFAULT_SERVER = "http://127.0.0.1:8080"

T = TypeVar("T")

server_option = click.option(
    "--server",
    metavar="URL",
    envvar="DARKROOM_SERVER",
    default=DEFAULT_SERVER,
    show_default=True,
    show_envvar=True,
    help=f"{CLIENT_HELP['DARKROOM_SERVER'].help.split(' that ')[0]}. The token is read from DARKROOM_TOKEN.",
)

image_argument = partial(click.argument, "image", metavar="DIGEST|FILE")


def token() -> str | None:
    """Return the token in the environment, or in the file that it names, if any."""
    if not {"DARKROOM_TOKEN_FILE", "CREDENTIALS_DIRECTORY"} & os.environ.keys():
        return os.environ.get("DARKROOM_TOKEN") or None
    # Imports the settings of a server, which takes longer than everything else before the first request.
    from service.settings.variables import read_secret  # noqa: PLC0415

    try:
        return read_secret(os.environ, "DARKROOM_TOKEN") or None
    except SettingsError as error:
        console.fail_with(error)


def run_with_server(function: Callable[[Server], Awaitable[T]], url: str) -> T:
    """Return what `function` returns for the server at `url`. An error is printed and ends the process."""

    async def connected() -> T:
        async with connect(url, token()) as server:
            return await function(server)

    try:
        return console.run(connected)
    except ClientError as error:
        fail(error)


@contextmanager
def report_failures(*, as_json: bool, advice: str, interruptible: bool = False) -> Iterator[None]:
    """Print why the block failed or that it was stopped, and end the process.

    `as_json`: print the error as JSON too. `advice`: how to continue a command that was stopped.
    `interruptible`: Ctrl-C is the usual end of the command.
    """
    try:
        yield
    except ClientError as error:
        if as_json:
            click.echo(msgspec.json.encode({"error": error.problem}))
        message = console.format_problem(error.problem)
        console.fail(f"{message}\n{advice}" if isinstance(error, UnreachableError) else message)
    except KeyboardInterrupt:
        if interruptible:
            sys.exit(0)
        click.echo(f"Stopped. {advice}", err=True)
        sys.exit(console.EXIT_INTERRUPTED)


def fail(error: ClientError) -> NoReturn:
    """Print why the command failed, and end the process."""
    console.fail(console.format_problem(error.problem), console.EXIT_PARTIAL if isinstance(error, RefusedError) else console.EXIT_FAILED)


def digest_of_image(image: str) -> str:
    """Return the digest that the argument `image` is, or that of the file at this path. Anything else ends the process."""
    try:
        if is_digest(image) and not os.path.exists(image):  # noqa: PTH110 - a name need not be UTF-8
            return image
        if not os.path.isfile(image):  # noqa: PTH113 - as above
            raise UsageError(
                client_problem(
                    "There is no such image.",
                    expected="a digest, 32 characters of a-z and 2-7, or a file",
                    received=image,
                    remedy="Use the digest in an image document or a manifest, or the path of an image file.",
                )
            )
        return digest_of(image)[0]
    except ClientError as error:
        fail(error)

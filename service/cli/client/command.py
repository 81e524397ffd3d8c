"""How a command speaks to a server: the option that says which, the images that it is given, and how it may end."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn, TypeVar

import anyio
import click

from service.cli.client.files import digest_of
from service.cli.client.problems import ClientError, RefusedError, UsageError, problem, told
from service.cli.client.server import Server, opened
from service.images.digest import is_digest
from service.settings.help import CLIENT_HELP

DEFAULT_SERVER = "http://127.0.0.1:8080"

# How a command may end: some of what was asked for was refused, or nothing could be done at all; Ctrl-C as shells count it.
SOME_REFUSED = 1
NOTHING_DONE = 2
INTERRUPTED = 130

ResultT = TypeVar("ResultT")

server_option = click.option(
    "--server",
    metavar="URL",
    envvar="DARKROOM_SERVER",
    default=DEFAULT_SERVER,
    show_default=True,
    show_envvar=True,
    help=f"{CLIENT_HELP['DARKROOM_SERVER'].help.split(' that ')[0]}. Its token is read from DARKROOM_TOKEN.",
)


def token() -> str | None:
    """Return the token that the environment has, if any."""
    return os.environ.get("DARKROOM_TOKEN") or None


def run(work: Callable[[Server], Awaitable[ResultT]], url: str) -> ResultT:
    """Return what `work` does with the server at a URL; a failure is told, and ends the process."""

    async def with_server() -> ResultT:
        async with opened(url, token()) as server:
            return await work(server)

    try:
        return anyio.run(with_server)
    except ClientError as error:
        end(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def end(error: ClientError) -> NoReturn:
    """Tell why something could not be done, and end the process."""
    click.echo(f"darkroom: {told(error.problem)}", err=True)
    sys.exit(SOME_REFUSED if isinstance(error, RefusedError) else NOTHING_DONE)


def digest_of_image(image: str) -> str:
    """Return the digest that a digest or a file stands for; ends the process for anything else."""
    try:
        if is_digest(image) and not os.path.exists(image):  # noqa: PTH110 - a name need not be UTF-8
            return image
        if not os.path.isfile(image):  # noqa: PTH113 - as above
            raise UsageError(
                problem(
                    "There is no such image.",
                    expected="a digest, 32 characters of a-z and 2-7, or a file",
                    received=image,
                    remedy="Use the digest of a document or manifest, or the path of a file that was pushed.",
                )
            )
        return digest_of(image)[0]
    except ClientError as error:
        end(error)


image_argument = partial(click.argument, "image", metavar="DIGEST|FILE")

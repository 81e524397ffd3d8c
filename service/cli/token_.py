"""`darkroom token`: makes a bearer token and its line for the file that `DARKROOM_TOKENS_FILE` names."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import click

from service.settings.secret_files import NAME_GRAMMAR, TOKEN_NAME, Token, hash_token, parse_size
from service.settings.sections import SCOPES, Scope
from service.urls.source_url import SOURCE_NAME

_TOKEN_BYTES = 32


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    if TOKEN_NAME.fullmatch(value) is None:
        raise click.BadParameter(f"expected {NAME_GRAMMAR}")
    return value


def _sources(_: click.Context, __: click.Parameter, value: Sequence[str]) -> frozenset[str] | None:
    if any(SOURCE_NAME.fullmatch(name) is None for name in value):
        raise click.BadParameter("expected the name of a source in DARKROOM_SOURCES: a-z 0-9 -, beginning with a letter")
    return frozenset(value) or None


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int:
    size = 0 if value is None else parse_size(value)
    if size is None:
        raise click.BadParameter("expected a whole number of bytes, or with kB, MB, GB or TB, such as 10GB")
    return size


@click.command(short_help="Make a token for a file of tokens.")
@click.argument("name", callback=_name)
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="What the token permits; repeat it.  [default: all]")
@click.option("--source", "sources", multiple=True, callback=_sources, help="The only source it may be used for; repeat it for several.")
@click.option("--bytes-per-day", metavar="SIZE", callback=_size, help="How much may be sent with it from midnight to midnight UTC: 10GB.")
def token(name: str, scopes: Sequence[Scope], sources: frozenset[str] | None, bytes_per_day: int) -> None:
    """Make a token called NAME, and its line for the file that DARKROOM_TOKENS_FILE names.

    The line goes to standard output and has only the token's hash: `darkroom token shop --scope ingest >> tokens`. The token itself is
    printed once, on standard error. Nothing is sent to a server.
    """
    created = secrets.token_hex(_TOKEN_BYTES)
    made = Token(name, hash_token(created.encode("ascii")), frozenset(scopes or SCOPES), sources, bytes_per_day)
    click.echo(made.line())
    click.echo(f"The token, which cannot be shown again:\n{created}", err=True)

"""The command itself: it runs the checks, prints what they found, and ends with an exit code for scripts."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import anyio.to_thread
import click
import msgspec
import structlog

from service.cli import console
from service.cli.doctor.codecs import check_codecs
from service.cli.doctor.configuration import check_configuration, check_keys, check_regions, invalid_settings
from service.cli.doctor.finding import Finding, Severity, skipped
from service.cli.doctor.front import check_front, check_server
from service.cli.doctor.machine import check_machine
from service.cli.doctor.store import check_folders, check_store
from service.settings.environment import Configuration, examine

Check: TypeAlias = Callable[[Configuration], Iterator[Finding]] | Callable[[Configuration], AsyncIterator[Finding]]

_CHECKS: Mapping[str, Check] = {
    "configuration": check_configuration,
    "keys": check_keys,
    "regions": check_regions,
    "folders": check_folders,
    "store": check_store,
    "machine": check_machine,
    "codecs": check_codecs,
    "server": check_server,
    "front": check_front,
}

_STYLES: Mapping[Severity, str] = {"ok": "green", "note": "cyan", "skipped": "dim", "warning": "yellow", "error": "bold red"}


class Results(msgspec.Struct, frozen=True):
    """All findings by check, and the worst severity among `ok`, `warning` and `error`."""

    result: Severity
    checks: dict[str, list[Finding]]


@click.command(short_help="Find what is wrong with a server and around it.")
@click.argument("checks", nargs=-1, type=click.Choice(list(_CHECKS)), metavar="[CHECK]...")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def doctor(checks: Sequence[str], *, as_json: bool) -> None:
    """Find what is wrong with a server's settings, and with everything around it.

    Run it where the server runs: as its user, with its environment. CHECK is any of configuration, keys, regions, folders, store, machine,
    codecs, server and front; without one, all of them run. `front` fetches a rendition through DARKROOM_PUBLIC_URL. Nothing is changed: an
    object is put into the store and deleted again.

    The exit code is 0 if nothing is wrong, 1 if there are warnings, and 2 if there are errors.
    """
    # Each failure becomes a finding.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    results = console.run(lambda: _examine(checks or list(_CHECKS)))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results), indent=2))
    else:
        _print(results)
    sys.exit({"warning": console.EXIT_PARTIAL, "error": console.EXIT_FAILED}.get(results.result, 0))


async def _examine(checks: Sequence[str]) -> Results:
    settings, variables, errors = examine(os.environ)
    found: dict[str, list[Finding]] = {}
    if settings is None:
        found["configuration"] = list(invalid_settings(errors))
        others = [name for name in checks if name != "configuration"]
        found |= {name: [skipped(name, "The settings are not valid.", "Correct them first.")] for name in others}
    else:
        configuration = Configuration(settings, variables)
        for name in (check for check in _CHECKS if check in checks):
            found[name] = await _run(name, configuration)
    severities = {finding.severity for findings in found.values() for finding in findings}
    return Results("error" if "error" in severities else "warning" if "warning" in severities else "ok", found)


async def _run(name: str, configuration: Configuration) -> list[Finding]:
    """Return the findings of a check. A fault of its own must not hide the others."""
    try:
        found = _CHECKS[name](configuration)
        if isinstance(found, Iterator):
            # Files of a disk that does not respond must not block the event loop.
            return await anyio.to_thread.run_sync(list, found)
        return [finding async for finding in found]
    except Exception as error:
        return [Finding("check-failed", "error", f"This check failed: {error!r}", remedy="Please report it: it is a bug in Darkroom.")]


def _print(results: Results) -> None:
    # Imported only if it is shown: it takes a while.
    from rich.console import Console  # noqa: PLC0415
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    terminal = Console(highlight=False)

    def show(indent: int, label: str, style: str, text: str) -> None:
        if not terminal.is_terminal:
            click.echo(f"{' ' * indent}{label:<9} {console.escape(text)}")
            return
        # Longer lines are wrapped below their beginning.
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(width=9)
        row.add_row(Text(label, style), Text(console.escape(text)))
        terminal.print(Padding(row, (0, 0, 0, indent)))

    for name, findings in results.checks.items():
        terminal.print(Text(name, style="bold"))
        for finding in findings:
            named = f" [{finding.name}]" if finding.severity in {"warning", "error"} else ""
            show(2, finding.severity, _STYLES[finding.severity], finding.detail + named)
            for label, text in (("expected", finding.expected), ("found", finding.found), ("remedy", finding.remedy)):
                if text:
                    show(12, label, "dim", text)
    severities = [finding.severity for findings in results.checks.values() for finding in findings]
    errors, warnings = severities.count("error"), severities.count("warning")
    summary = f"{console.count(errors, 'error', 'errors')}, {console.count(warnings, 'warning', 'warnings')}."
    terminal.print(Text(summary, style=_STYLES[results.result]))

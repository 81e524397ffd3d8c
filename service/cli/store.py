"""`darkroom store check | sweep | copy`: maintenance of a store, while a server uses it or without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import click
import msgspec
import structlog

from service.cli import console
from service.errors import ServiceError, SettingsError
from service.ops.maintenance.copy import Copier, CopyReport, Failure
from service.ops.maintenance.gc import GarbageCollector, remove_abandoned_uploads
from service.ops.maintenance.verify import Verifier, VerifyReport
from service.settings.environment import load
from service.settings.sections import Settings
from service.settings.variables import read_variables
from service.storage.object_store import Storage, open_storage

T = TypeVar("T")

_NOT_COPIED: Mapping[Failure, str] = {
    "damaged": "The object is damaged. Upload the file again, to the source or to the destination.",
    "no-original": "The source has no original for this document. Upload the file again, to the destination.",
}

_AT_A_TIME = click.option(
    "--at-a-time",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Number of objects that are processed at the same time. Each one is completely in memory.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


@click.group(short_help="Check, clean up or copy a store.")
def store() -> None:
    """Check a store, clean it up, or copy it to another store.

    A store is file:///folder or s3://bucket; by default, the store in DARKROOM_STORE. For buckets, set AWS_ENDPOINT_URL_S3, AWS_REGION,
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


@store.command(short_help="Verify every object.")
@click.argument("url", required=False)
@_AT_A_TIME
@_JSON
def check(url: str | None, at_a_time: int, as_json: bool) -> None:
    """Verify every digest, checksum and document. Nothing is changed, and a server may run meanwhile.

    The exit code is 0 if no problems were found, 1 if there are problems, and 2 if the store could not be checked.
    """
    storage = _open(url or _settings().storage.url)
    with console.object_progress() as progress:
        report = _run(lambda: Verifier(storage, progress, concurrency=at_a_time).run())
    if as_json:
        _print_json(report)
    else:
        _print_verify_report(report)
    if report.findings:
        sys.exit(console.EXIT_PARTIAL)


@store.command(short_help="Remove leftovers.")
@click.argument("url", required=False)
@click.option(
    "--older-than",
    type=click.IntRange(60),
    default=3_600,
    show_default=True,
    metavar="SECONDS",
    help="Leave younger objects alone: they may belong to a write in progress.",
)
@_AT_A_TIME
@_JSON
def sweep(url: str | None, older_than: int, at_a_time: int, as_json: bool) -> None:
    """Remove leftovers of interrupted writes, of interrupted takedowns, and of servers that are gone. A server may run meanwhile.

    An original or a document is removed only if the image was taken down. The exit code is 0, or 2 if the sweep failed.
    """
    storage = _open(url or _settings().storage.url)
    with console.object_progress() as progress:
        removed = _run(lambda: GarbageCollector(storage, progress, older_than_seconds=older_than, concurrency=at_a_time).run())
    if not url and (uploads := remove_abandoned_uploads(_settings().storage.data / "spool", older_than)):
        removed["uploads"] = uploads
    if as_json:
        _print_json({"removed": removed})
    else:
        click.echo("Removed: " + (", ".join(f"{number} {name}" for name, number in sorted(removed.items())) or "nothing") + ".")


@store.command(short_help="Copy a store to another store.")
@click.argument("source")
@click.argument("destination")
@click.option("--renditions", is_flag=True, help="Copy renditions and intermediates too. Otherwise they are made again on demand.")
@_AT_A_TIME
@_JSON
def copy(source: str, destination: str, renditions: bool, at_a_time: int, as_json: bool) -> None:
    """Copy the store SOURCE to DESTINATION, and verify every digest on the way. Nothing is removed from SOURCE.

    If the copy is interrupted, run it again: it continues. Images that are uploaded to SOURCE during the copy are copied by the next run.
    So to move a store: copy it, let the servers use DESTINATION, and copy it again.

    If SOURCE is a bucket with other credentials than DESTINATION, set them as SOURCE_AWS_ENDPOINT_URL_S3, SOURCE_AWS_REGION,
    SOURCE_AWS_ACCESS_KEY_ID and SOURCE_AWS_SECRET_ACCESS_KEY.

    The exit code is 0 if everything was copied, 1 if damaged objects were left out, and 2 if the copy failed.
    """
    has_own_credentials = any(name.startswith("SOURCE_AWS_") for name in os.environ)
    if source.rstrip("/") == destination.rstrip("/") and not has_own_credentials:
        console.fail("SOURCE and DESTINATION are the same store.")
    from_storage, to_storage = _open(source, "SOURCE_" if has_own_credentials else ""), _open(destination, create=True)
    with console.object_progress() as progress:
        report = _run(lambda: Copier(from_storage, to_storage, progress, renditions=renditions, concurrency=at_a_time).run())
    if as_json:
        _print_json(report)
    else:
        _print_copy_report(report)
    if report.not_copied:
        sys.exit(console.EXIT_PARTIAL)


def _run(function: Callable[[], Awaitable[T]]) -> T:
    try:
        return console.run(function, interrupted="darkroom: Interrupted. Finished work is not lost: run the command again to continue.")
    except ServiceError as error:
        console.fail(console.format_problem(error.problem()))


def _settings() -> Settings:
    try:
        return load(os.environ)
    except SettingsError as error:
        console.fail_with(error)


def _open(url: str, prefix: str = "", *, create: bool = False) -> Storage:
    if url == "memory://":
        console.fail("memory:// is in the memory of a running server, and lost when it ends. Expected file:///folder or s3://bucket.")
    try:
        return open_storage(url, read_variables(os.environ).texts, prefix=prefix, create=create)
    except SettingsError as error:
        console.fail_with(error)


def _print_verify_report(report: VerifyReport) -> None:
    for finding in report.findings:
        click.echo(f"{finding.kind}  {finding.key}\n  {finding.detail}\n  {finding.remedy}")
    checked = ", ".join(f"{number} {prefix}" for prefix, number in report.objects.items()) or "an empty store"
    problems = console.count(len(report.findings), "problem", "problems") if report.findings else "No problems"
    click.echo(f"Checked {checked}; {report.bytes} bytes. {problems} found.")


def _print_copy_report(report: CopyReport) -> None:
    for left in report.not_copied:
        click.echo(f"{left.key}\n  {_NOT_COPIED[left.reason]}")
    copied = ", ".join(f"{number} {prefix}" for prefix, number in report.copied.items()) or "nothing"
    click.echo(f"Copied: {copied}; {report.bytes} bytes. Already there: {report.there_already}. Removed: {report.removed}.")


def _print_json(value: object) -> None:
    click.echo(msgspec.json.encode(value).decode())

"""The files of a job: the server opens them, and passes them on as descriptors, so that a render process needs no access to the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec
import structlog

from service.errors import RenderFailedError
from service.rendering.protocol import InputFile, Job, NextRendition, Probe, Render, SelfTest

log = structlog.get_logger(__name__)


@contextmanager
def open_files(job: Job) -> Iterator[tuple[Job, Sequence[int]]]:
    """Give `job` without paths, and read-only descriptors: the original's, then the overlay's if there is one. They are closed on exit.

    Raises `RenderFailedError` if one of the files cannot be opened.
    """
    pathless, paths = _split_paths(job)
    with ExitStack() as closing:
        descriptors: list[int] = []
        for path in paths:
            descriptors.append(_open(path))
            closing.callback(os.close, descriptors[-1])
        yield pathless, descriptors


def _open(path: str) -> int:
    try:
        # O_NONBLOCK: opening a named pipe in the place of a file would wait for a writer (open(2)).
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        log.warning("a file could not be opened for a render", cause=repr(error))
        raise RenderFailedError("The image's file could not be opened.", remedy="Read the reason in the server's log.") from error


def _split_paths(job: Job) -> tuple[Job, list[str]]:
    match job:
        case NextRendition() | SelfTest():
            return job, []
        case Probe():
            return msgspec.structs.replace(job, path=""), [job.path]
        case Render(overlay=InputFile() as overlay):
            pathless = msgspec.structs.replace(job, input_file=_without_path(job.input_file), overlay=_without_path(overlay))
            return pathless, [job.input_file.path, overlay.path]
        case _:
            return msgspec.structs.replace(job, input_file=_without_path(job.input_file)), [job.input_file.path]


def _without_path(input_file: InputFile) -> InputFile:
    return msgspec.structs.replace(input_file, path="")

"""The hand-over of a job to a render process: its files go with it as open descriptors, so that the process needs no way to the store."""

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
def handed_over(job: Job) -> Iterator[tuple[Job, Sequence[int]]]:
    """Give `job` without paths, and descriptors of its files, read-only and open meanwhile: the original, then the overlay if there is one.

    Raises `RenderFailedError` if one of them cannot be opened.
    """
    nameless, paths = _without_paths(job)
    with ExitStack() as opened:
        descriptors: list[int] = []
        for path in paths:
            descriptors.append(_opened(path))
            opened.callback(os.close, descriptors[-1])
        yield nameless, descriptors


def _opened(path: str) -> int:
    try:
        # O_NONBLOCK: a named pipe in the place of a file would be waited for (open(2)).
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        log.warning("a file could not be opened for a render", cause=repr(error))
        raise RenderFailedError("The image's file could not be opened.", remedy="The server's log has the reason.") from error


def _without_paths(job: Job) -> tuple[Job, list[str]]:
    match job:
        case NextRendition() | SelfTest():
            return job, []
        case Probe():
            return msgspec.structs.replace(job, path=""), [job.path]
        case Render(overlay=InputFile() as overlay):
            nameless = msgspec.structs.replace(job, input_file=_without_path(job.input_file), overlay=_without_path(overlay))
            return nameless, [job.input_file.path, overlay.path]
        case _:
            return msgspec.structs.replace(job, input_file=_without_path(job.input_file)), [job.input_file.path]


def _without_path(source: InputFile) -> InputFile:
    return msgspec.structs.replace(source, path="")

"""Uploading files: hash them, look their digests up on the server, and send what is missing, all at the same time.

Three groups of tasks are connected by two queues of digests:

    hash files  →  to_look_up  →  look up in batches  →  to_upload  →  upload

Files with the same content are looked up and uploaded once. Each file ends in `uploaded` or in `rejected`; the first fatal error
cancels all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import anyio
import anyio.to_thread
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from service.cli.client.errors import FatalError, RefusedError, Rejected, UnreachableError, client_problem
from service.cli.client.scan import File, digest_of
from service.cli.client.server import Document, Server
from service.cli.console import UploadProgress
from service.errors import Problem

# Digests in one lookup, at most: the response with their documents has a few hundred kilobytes.
BATCH = 100

# Files that are hashed at the same time: more than one, so that the disk and a core are both busy.
_HASHING_TASKS = 2

Failure: TypeAlias = FatalError | UnreachableError


class Uploaded(msgspec.Struct, frozen=True):
    """A file whose image is on the server, uploaded now or earlier, and the image document."""

    file: File
    document: Document


class UploadResult(msgspec.Struct, frozen=True):
    """The result of an upload: the files that are on the server, how much had to be sent for them, and the rejected files."""

    uploaded: list[Uploaded]
    sent_images: int
    sent_bytes: int
    rejected: list[Rejected]

    @property
    def named(self) -> list[tuple[str, Document]]:
        """The names of the files that are on the server, and their documents."""
        return [(one.file.name, one.document) for one in self.uploaded]


class _Content(msgspec.Struct):
    """One content, by digest: its size, and the files that have it."""

    bytes: int
    files: list[File]


class _Uploader:
    def __init__(self, server: Server, files: Sequence[File], progress: UploadProgress) -> None:
        self.uploaded: list[Uploaded] = []
        self.rejected: list[Rejected] = []
        self.sent_images = 0
        self.sent_bytes = 0
        self.failure: Failure | None = None
        self._server = server
        self._progress = progress
        self._files: Iterator[File] = iter(files)
        # By digest: the contents, and the documents or problems of those that are finished.
        self._contents: dict[str, _Content] = {}
        self._documents: dict[str, Document] = {}
        self._problems: dict[str, Problem] = {}

    async def run(self, max_uploads: int) -> None:
        """Process every file. A fatal error is not raised, but stored in `failure`."""
        to_look_up, lookups = anyio.create_memory_object_stream[str](BATCH)
        to_upload, uploads = anyio.create_memory_object_stream[str](max_uploads)
        async with anyio.create_task_group() as tasks:

            def abort(failure: Failure) -> None:
                self.failure = self.failure or failure
                tasks.cancel_scope.cancel()

            with to_look_up, uploads:
                for _ in range(_HASHING_TASKS):
                    tasks.start_soon(self._hash_files, to_look_up.clone())
                tasks.start_soon(self._look_up, lookups, to_upload, abort)
                for _ in range(max_uploads):
                    tasks.start_soon(self._upload_all, uploads.clone(), abort)

    async def _hash_files(self, to_look_up: MemoryObjectSendStream[str]) -> None:
        with to_look_up:
            for file in self._files:
                try:
                    digest, size = await anyio.to_thread.run_sync(digest_of, file.path, abandon_on_cancel=True)
                except RefusedError as error:
                    self._progress.skipped(file.bytes)
                    self._add_rejected(file, error.problem)
                    continue
                # The file may have grown since the scan.
                self._progress.skipped(file.bytes - size)
                if (content := self._contents.get(digest)) is None:
                    self._contents[digest] = _Content(size, [file])
                    await to_look_up.send(digest)
                    continue
                # The same content under another name is not sent again.
                self._progress.skipped(size)
                content.files.append(file)
                if digest in self._documents:
                    self._add_uploaded(file, self._documents[digest])
                elif digest in self._problems:
                    self._add_rejected(file, self._problems[digest])

    async def _look_up(
        self, lookups: MemoryObjectReceiveStream[str], to_upload: MemoryObjectSendStream[str], abort: Callable[[Failure], None]
    ) -> None:
        with lookups, to_upload:
            async for first in lookups:
                batch = [first]
                while len(batch) < BATCH and lookups.statistics().current_buffer_used:
                    batch.append(lookups.receive_nowait())
                try:
                    result = await self._server.lookup(batch)
                except (FatalError, UnreachableError) as error:
                    abort(error)
                    return
                except RefusedError as error:
                    abort(FatalError(error.problem))
                    return
                documents = {document["digest"]: document for document in result.images}
                for digest in batch:
                    size = self._contents[digest].bytes
                    if digest in documents:
                        self._progress.skipped(size)
                        self._finish(digest, documents[digest])
                    elif digest in result.gone:
                        self._reject(digest, _taken_down())
                    elif size > result.max_upload_bytes:
                        self._reject(digest, _too_large(size, result.max_upload_bytes))
                    else:
                        await to_upload.send(digest)

    async def _upload_all(self, uploads: MemoryObjectReceiveStream[str], abort: Callable[[Failure], None]) -> None:
        with uploads:
            async for digest in uploads:
                try:
                    await self._upload(digest)
                except (FatalError, UnreachableError) as error:
                    abort(error)
                    return

    async def _upload(self, digest: str) -> None:
        """Upload one of the files with this digest. If the file changed after it was hashed, record it under its new digest."""
        content = self._contents[digest]
        while content.files:
            file = content.files[0]
            try:
                document = await self._server.upload(file.path, digest, content.bytes, self._count_sent)
            except RefusedError as error:
                if error.problem.status:
                    self._reject(digest, error.problem)
                    return
                # This file cannot be read any more. Another one with the same content may be readable.
                content.files.remove(file)
                self._add_rejected(file, error.problem)
                continue
            self.sent_images += 1
            if document["digest"] == digest:
                self._finish(digest, document)
                return
            content.files.remove(file)
            self._add_uploaded(file, document)
        # No file has this content any more. If it turns up again, it counts as new.
        self._progress.skipped(content.bytes)
        del self._contents[digest]

    def _count_sent(self, size: int) -> None:
        self.sent_bytes += size
        self._progress.sent(size)

    def _finish(self, digest: str, document: Document) -> None:
        self._documents[digest] = document
        for file in self._contents[digest].files:
            self._add_uploaded(file, document)

    def _reject(self, digest: str, problem: Problem) -> None:
        self._problems[digest] = problem
        self._progress.skipped(self._contents[digest].bytes)
        for file in self._contents[digest].files:
            self._add_rejected(file, problem)

    def _add_uploaded(self, file: File, document: Document) -> None:
        self.uploaded.append(Uploaded(file, document))
        self._progress.file_done()

    def _add_rejected(self, file: File, problem: Problem) -> None:
        self.rejected.append(Rejected(file.path, problem))
        self._progress.file_done()


async def upload_files(server: Server, files: Sequence[File], progress: UploadProgress, *, max_uploads: int) -> UploadResult:
    """Upload the files that the server does not have yet, at most `max_uploads` at a time.

    Raises `FatalError` and `UnreachableError` if the rest cannot be uploaded. What was uploaded until then stays on the server.
    """
    progress.start(len(files), sum(file.bytes for file in files))
    uploader = _Uploader(server, files, progress)
    await uploader.run(max_uploads)
    if uploader.failure is not None:
        raise uploader.failure
    uploaded = sorted(uploader.uploaded, key=lambda one: one.file.name)
    return UploadResult(uploaded, uploader.sent_images, uploader.sent_bytes, uploader.rejected)


def _taken_down() -> Problem:
    return client_problem(
        "This image was taken down from the server.",
        expected="an image that was not taken down",
        remedy="Leave it out. To allow it again, send DELETE /v1/images/{digest}/tombstone, then push it again.",
    )


def _too_large(size: int, max_bytes: int) -> Problem:
    return client_problem(
        "The file is larger than the server accepts.",
        expected=f"at most {max_bytes} bytes",
        received=f"{size} bytes",
        remedy="Make it smaller, or raise DARKROOM_MAX_UPLOAD_BYTES on the server.",
    )

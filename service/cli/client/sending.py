"""Files to a server: what has which digest, what is there already, and what is sent, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import anyio
import anyio.to_thread
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from service.cli.client.files import File, digest_of
from service.cli.client.problems import HopelessError, NotTaken, RefusedError, UnreachableError, problem
from service.cli.client.server import Document, Server
from service.errors import Problem

# Digests asked after at a time, at most: an answer with their documents is a few hundred kilobytes.
BATCH = 100

# Files read and hashed at a time: more than one, so that a disk and a core are both busy.
_READERS = 2


class Progress(Protocol):
    """What wants to know how far a push is."""

    def expect(self, files: int, size: int) -> None:
        """So many files are to be dealt with, so many bytes to be sent at most."""

    def sent(self, size: int) -> None:
        """So many bytes have gone out, or with a minus have gone in vain."""

    def spared(self, size: int) -> None:
        """So many bytes are not to be sent after all."""

    def done(self) -> None:
        """One more file has been dealt with."""


class Taken(msgspec.Struct, frozen=True):
    """A file whose image is on the server, and its document there."""

    file: File
    document: Document


class Outcome(msgspec.Struct, frozen=True):
    """What became of some files: those that are there now, how many of their images were sent and how many bytes, and the others."""

    taken: list[Taken]
    sent_images: int
    sent_bytes: int
    not_taken: list[NotTaken]


class _Found(msgspec.Struct):
    """The bytes of some files: their size, and all the files that have them."""

    bytes: int
    files: list[File]


class _Push:
    """One push."""

    def __init__(self, server: Server, files: Sequence[File], progress: Progress) -> None:
        self.taken: list[Taken] = []
        self.not_taken: list[NotTaken] = []
        self.sent_images = 0
        self.sent_bytes = 0
        self.failure: HopelessError | UnreachableError | None = None
        self._server = server
        self._progress = progress
        self._left: Iterator[File] = iter(files)
        self._found: dict[str, _Found] = {}
        self._documents: dict[str, Document] = {}
        self._refused: dict[str, Problem] = {}

    async def run(self, uploads_at_once: int) -> None:
        """Deal with every file; raises nothing: what ends a push before its time is `failure`."""
        to_ask, asked = anyio.create_memory_object_stream[str](BATCH)
        to_send, sending = anyio.create_memory_object_stream[str](uploads_at_once)
        async with anyio.create_task_group() as tasks:

            def ended(failure: HopelessError | UnreachableError) -> None:
                self.failure = self.failure or failure
                tasks.cancel_scope.cancel()

            with to_ask, sending:
                for _ in range(_READERS):
                    tasks.start_soon(self._read, to_ask.clone())
                tasks.start_soon(self._ask, asked, to_send, ended)
                for _ in range(uploads_at_once):
                    tasks.start_soon(self._send, sending.clone(), ended)

    async def _read(self, to_ask: MemoryObjectSendStream[str]) -> None:
        with to_ask:
            for file in self._left:
                try:
                    digest, size = await anyio.to_thread.run_sync(digest_of, file.path, abandon_on_cancel=True)
                except RefusedError as error:
                    self._progress.spared(file.bytes)
                    self._refuse(file, error.problem)
                    continue
                # A file that has grown since it was found counts as it is.
                self._progress.spared(file.bytes - size)
                if (found := self._found.get(digest)) is None:
                    self._found[digest] = _Found(size, [file])
                    await to_ask.send(digest)
                    continue
                # The same bytes under another name are not sent again.
                self._progress.spared(size)
                found.files.append(file)
                if digest in self._documents:
                    self._take(file, self._documents[digest])
                elif digest in self._refused:
                    self._refuse(file, self._refused[digest])

    async def _ask(
        self,
        asked: MemoryObjectReceiveStream[str],
        to_send: MemoryObjectSendStream[str],
        ended: Callable[[HopelessError | UnreachableError], None],
    ) -> None:
        with asked, to_send:
            async for first in asked:
                batch = [first]
                while len(batch) < BATCH and asked.statistics().current_buffer_used:
                    batch.append(asked.receive_nowait())
                try:
                    known = await self._server.known(batch)
                except (HopelessError, UnreachableError) as error:
                    ended(error)
                    return
                except RefusedError as error:
                    ended(HopelessError(error.problem))
                    return
                there = {document["digest"]: document for document in known.images}
                for digest in batch:
                    size = self._found[digest].bytes
                    if digest in there:
                        self._progress.spared(size)
                        self._settle(digest, there[digest])
                    elif digest in known.gone:
                        self._settle_refused(digest, _gone())
                    elif size > known.max_upload_bytes:
                        self._settle_refused(digest, _too_large(size, known.max_upload_bytes))
                    else:
                        await to_send.send(digest)

    async def _send(self, sending: MemoryObjectReceiveStream[str], ended: Callable[[HopelessError | UnreachableError], None]) -> None:
        with sending:
            async for digest in sending:
                try:
                    await self._send_one(digest)
                except (HopelessError, UnreachableError) as error:
                    ended(error)
                    return

    async def _send_one(self, digest: str) -> None:
        """Send one of the files with this digest; where it has others bytes by then, it is what it is, and the next one is sent."""
        found = self._found[digest]
        while found.files:
            file = found.files[0]
            try:
                document = await self._server.upload(file.path, digest, found.bytes, self._sent)
            except RefusedError as error:
                if error.problem.status:
                    self._settle_refused(digest, error.problem)
                    return
                # It cannot be read any more; another with the same bytes may be.
                found.files.remove(file)
                self._refuse(file, error.problem)
                continue
            self.sent_images += 1
            if document["digest"] == digest:
                self._settle(digest, document)
                return
            found.files.remove(file)
            self._take(file, document)
        # Nobody has these bytes any more; should they turn up again, they are new.
        self._progress.spared(found.bytes)
        del self._found[digest]

    def _sent(self, size: int) -> None:
        self.sent_bytes += size
        self._progress.sent(size)

    def _settle(self, digest: str, document: Document) -> None:
        self._documents[digest] = document
        for file in self._found[digest].files:
            self._take(file, document)

    def _settle_refused(self, digest: str, why: Problem) -> None:
        self._refused[digest] = why
        self._progress.spared(self._found[digest].bytes)
        for file in self._found[digest].files:
            self._refuse(file, why)

    def _take(self, file: File, document: Document) -> None:
        self.taken.append(Taken(file, document))
        self._progress.done()

    def _refuse(self, file: File, why: Problem) -> None:
        self.not_taken.append(NotTaken(file.path, why))
        self._progress.done()


async def push(server: Server, files: Sequence[File], progress: Progress, *, uploads_at_once: int) -> Outcome:
    """Return what became of some files once every one that can be is on the server, those sent alone that were not there.

    Raises `HopelessError` and `UnreachableError` where nothing more could be sent; what was, is there, and is not sent again.
    """
    progress.expect(len(files), sum(file.bytes for file in files))
    one = _Push(server, files, progress)
    await one.run(uploads_at_once)
    if one.failure is not None:
        raise one.failure
    return Outcome(sorted(one.taken, key=lambda taken: taken.file.name), one.sent_images, one.sent_bytes, one.not_taken)


def _gone() -> Problem:
    return problem(
        "This image was taken down from the server.",
        expected="an image that was not",
        remedy="Leave it out; or lift the takedown with DELETE /v1/images/{digest}/tombstone, and push it again.",
    )


def _too_large(size: int, max_bytes: int) -> Problem:
    return problem(
        "The file is larger than the server takes.",
        expected=f"at most {max_bytes} bytes",
        received=f"{size} bytes",
        remedy="Make it smaller, or raise DARKROOM_MAX_UPLOAD_BYTES on the server.",
    )

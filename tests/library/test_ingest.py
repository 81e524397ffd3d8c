"""Ingest without HTTP: what an upload that cannot be stored leaves in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import StorageFullError
from service.rendering.pool import RenderPool
from tests.support import images
from tests.support.library import open_library

pytestmark = pytest.mark.anyio


async def test_upload_whose_original_has_no_room_leaves_nothing_in_the_store(
    tmp_path: Path, pool: RenderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_library(tmp_path, pool) as library:
        put = library.storage.put_if_absent
        written: list[str] = []

        async def without_room(key: str, body: bytes | Path, *, durable: bool) -> bool:
            if isinstance(body, Path):
                raise StorageFullError("no room")
            written.append(key.partition("/")[0])
            return await put(key, body, durable=durable)

        monkeypatch.setattr(library.storage, "put_if_absent", without_room)
        with pytest.raises(StorageFullError):
            await library.ingest(images.photo_jpeg(400, 300))
        # The document was not even tried.
        assert written == ["recent"]
        assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
        assert library.queue.images_in_memory == 0
        monkeypatch.undo()
        await library.ingest(images.photo_jpeg(400, 300))
        assert library.queue.images_in_memory == 1

"""What a push finds in folders, and what it takes for an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli.client.files import check_names, digest_of, gather
from service.cli.client.problems import RefusedError, UsageError
from tests.http.test_ingest import digest_of as expected_digest
from tests.support import images

FORMATS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: images.photo_jpeg(60, 40),
    "png": lambda: images.rgb_png(60, 40),
    "webp": lambda: images.webp(60, 40),
    "gif": lambda: images.palette_gif(60, 40),
    "avif": lambda: images.avif(60, 40),
    "heic": lambda: images.heic(64, 64),
    "tiff": lambda: images.tiff(60, 40),
    "svg": lambda: b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
    "svg with a prefix": lambda: b'<s:svg xmlns:s="http://www.w3.org/2000/svg" width="8" height="8"/>',
}

OTHERS = {
    "text": b"plain text\n",
    "HTML": b"<!DOCTYPE html><html><body>text</body></html>",
    "JSON": b'{"svg": 1}',
    "PDF": b"%PDF-1.7\n",
    "ZIP": b"PK\x03\x04rest",
    "RIFF that is sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "MP4": b"\0\0\0\x18ftypisom\0\0\x02\0isommp42",
    "one byte": b"\xff",
}

CORPUS = images.REPOSITORY.parent / "shared" / "corpus"


@pytest.mark.parametrize("kind", FORMATS)
def test_file_of_every_format_that_is_taken_is_named_by_its_content(tmp_path: Path, kind: str) -> None:
    body = FORMATS[kind]()
    (tmp_path / "image").write_bytes(body)
    assert digest_of(str(tmp_path / "image")) == (expected_digest(body), len(body))


@pytest.mark.parametrize("kind", OTHERS)
def test_file_of_anything_else_is_refused_with_how_it_begins(tmp_path: Path, kind: str) -> None:
    (tmp_path / "image.jpg").write_bytes(OTHERS[kind])
    with pytest.raises(RefusedError) as refused:
        digest_of(str(tmp_path / "image.jpg"))
    problem = refused.value.problem
    assert problem.detail == "This is no image."
    assert problem.received is not None
    assert problem.received.startswith("a file that begins with `")
    assert problem.received.isascii()
    assert problem.received.isprintable()


def test_file_of_the_corpus_is_taken_for_an_image_wherever_the_server_takes_it() -> None:
    if not CORPUS.exists():
        pytest.skip("the shared corpus is not here")
    # The server refuses some files of `faults` too.
    kept_out = ("broken", "bomb", "faults", "svg-hostile")
    for path in CORPUS.rglob("*"):
        if path.is_file() and path.suffix not in {".json", ".md", ".txt"} and path.parent.name not in kept_out:
            assert len(digest_of(str(path))[0]) == 32, path


def test_gather_names_files_below_their_folder_and_a_file_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/deep.png", "a/top.png", "alone.png"):
        (tmp_path / name).write_bytes(b"x")
    found = gather([str(tmp_path / "a"), str(tmp_path / "alone.png")])
    assert [file.name for file in found.files] == ["alone.png", "b/deep.png", "top.png"]
    assert found.names == {"alone.png", "b/deep.png", "top.png"}
    assert (found.not_taken, found.hidden) == ([], 0)


def test_gather_takes_a_hidden_file_that_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / ".hidden.png").write_bytes(b"x")
    assert gather([str(tmp_path)]).hidden == 1
    assert [file.name for file in gather([str(tmp_path / ".hidden.png")]).files] == [".hidden.png"]


def test_gather_knows_a_file_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"x")
    before = gather([str(path)]).files
    assert gather([str(path)]).files == before
    path.write_bytes(b"y!")
    assert gather([str(path)]).files != before


def test_gather_goes_as_deep_as_folders_do(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1_100):
        deep = deep / "d"
        deep.mkdir()
    (deep / "one.png").write_bytes(b"x")
    try:
        found = gather([str(tmp_path)])
    finally:
        # No recursion of Python's goes that deep, that of whoever tidies up neither.
        (deep / "one.png").unlink()
        while deep != tmp_path:
            deep.rmdir()
            deep = deep.parent
    assert [file.name.count("/") for file in found.files] == [1_100]


def test_names_that_two_files_would_have_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.png").write_bytes(name.encode())
    found = gather([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(UsageError) as refused:
        check_names(found.files)
    assert refused.value.problem.received == f"same.png for {tmp_path}/a/same.png and for {tmp_path}/b/same.png"
    check_names(gather([str(tmp_path)]).files)

"""Scanning: which files a push finds in folders, and which it considers images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli.client.errors import RefusedError, UsageError
from service.cli.client.scan import check_names, digest_of, scan
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
def test_digest_of_a_file_of_every_supported_format_is_that_of_its_content(tmp_path: Path, kind: str) -> None:
    body = FORMATS[kind]()
    (tmp_path / "image").write_bytes(body)
    assert digest_of(str(tmp_path / "image")) == (expected_digest(body), len(body))


@pytest.mark.parametrize("kind", OTHERS)
def test_digest_of_a_file_that_is_not_an_image_is_refused_with_its_first_bytes(tmp_path: Path, kind: str) -> None:
    (tmp_path / "image.jpg").write_bytes(OTHERS[kind])
    with pytest.raises(RefusedError) as refused:
        digest_of(str(tmp_path / "image.jpg"))
    problem = refused.value.problem
    assert problem.detail == "This is not an image."
    assert problem.received is not None
    assert problem.received.startswith("a file that begins with `")
    assert problem.received.isascii()
    assert problem.received.isprintable()


def test_digest_of_every_good_file_of_the_corpus_is_returned() -> None:
    if not CORPUS.exists():
        pytest.skip("the shared corpus is not here")
    # The server refuses some files of `faults` too.
    kept_out = ("broken", "bomb", "faults", "svg-hostile")
    for path in CORPUS.rglob("*"):
        if path.is_file() and path.suffix not in {".json", ".md", ".txt"} and path.parent.name not in kept_out:
            assert len(digest_of(str(path))[0]) == 32, path


def test_scan_of_folders_and_files_names_files_below_their_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/deep.png", "a/top.png", "alone.png"):
        (tmp_path / name).write_bytes(b"x")
    found = scan([str(tmp_path / "a"), str(tmp_path / "alone.png")])
    assert [file.name for file in found.files] == ["alone.png", "b/deep.png", "top.png"]
    assert found.names == {"alone.png", "b/deep.png", "top.png"}
    assert (found.rejected, found.hidden) == ([], 0)


def test_scan_of_a_hidden_file_named_as_a_path_finds_it(tmp_path: Path) -> None:
    (tmp_path / ".hidden.png").write_bytes(b"x")
    assert scan([str(tmp_path)]).hidden == 1
    assert [file.name for file in scan([str(tmp_path / ".hidden.png")]).files] == [".hidden.png"]


def test_scan_after_a_change_differs(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"x")
    before = scan([str(path)]).files
    assert scan([str(path)]).files == before
    path.write_bytes(b"y!")
    assert scan([str(path)]).files != before


def test_scan_of_a_thousand_nested_folders_finds_the_file(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1_100):
        deep = deep / "d"
        deep.mkdir()
    (deep / "one.png").write_bytes(b"x")
    try:
        found = scan([str(tmp_path)])
    finally:
        # Recursive removal, such as pytest's, does not go that deep.
        (deep / "one.png").unlink()
        while deep != tmp_path:
            deep.rmdir()
            deep = deep.parent
    assert [file.name.count("/") for file in found.files] == [1_100]


def test_check_names_of_two_files_with_one_name_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.png").write_bytes(name.encode())
    found = scan([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(UsageError) as refused:
        check_names(found.files)
    assert refused.value.problem.received == f"same.png for {tmp_path}/a/same.png and for {tmp_path}/b/same.png"
    check_names(scan([str(tmp_path)]).files)

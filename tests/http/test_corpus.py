"""The main task with real photos: uploaded with curl as a person would, and every URL of the response fetched with curl."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.support import images
from tests.support.server import Server
from tests.support.waiting import PATIENCE_SECONDS

CORPUS = images.corpus()
PHOTOS = images.corpus_files("photo")
FORMATS = {"image/jxl": "JXL", "image/avif": "AVIF", "image/webp": "WEBP", "image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF"}
# `faults` has files that must be refused, with a list of its own of the right outcomes.
NO_GOOD = {"bomb", "broken", "faults", "svg-hostile", "photo"}

pytestmark = pytest.mark.skipif(CORPUS is None, reason="the corpus of real images is not beside the repository")


def curl(*arguments: str | Path) -> tuple[dict[str, str], bytes]:
    """Return the header fields (lower-case names, and the status code as `:status`) and the body that curl received."""
    command = [shutil.which("curl") or "curl", "--silent", "--show-error", "--noproxy", "*", "--include", *arguments]
    received = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_SECONDS).stdout
    head, _, body = received.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return dict(line.lower().split(": ", 1) for line in lines) | {":status": status.split()[1]}, body


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl")
@pytest.mark.long
@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_camera_photo_sent_with_curl_gives_urls_of_the_right_size_and_format(server: Server, path: Path) -> None:
    fields, body = curl("--data-binary", f"@{path}", f"{server.url}/v1/images")
    assert fields[":status"] == "201", body
    document = json.loads(body)
    with Image.open(path) as original:
        sideways = original.getexif().get(0x0112, 1) >= 5
        assert (document["width"], document["height"]) == (original.size[::-1] if sideways else original.size)
    for source in document["sources"]:
        # AVIF takes a second for a megapixel: fetch its whole ladder for one photo, the two narrowest steps for the others.
        steps = source["renditions"][:2] if source["type"] == "image/avif" and path != PHOTOS[0] else source["renditions"]
        for link in steps:
            fields, body = curl(server.url + link["url"])
            picture = Image.open(io.BytesIO(body))
            assert (picture.size, picture.format) == ((link["width"], link["height"]), FORMATS[source["type"]])
            assert fields["content-type"] == source["type"]
            assert fields["cache-control"] == "public, max-age=31536000, immutable"
            assert fields["cdn-cache-control"] == "max-age=31536000"
            assert not picture.getexif()
            again, same = curl(server.url + link["url"])
            assert again["cache-status"].startswith("darkroom; hit; ttl=")
            assert (same, again["etag"]) == (body, fields["etag"])


def one_of_each() -> list[Path]:
    """Return the first file of each folder of the corpus with valid files."""
    folders = sorted(path for path in CORPUS.iterdir() if path.is_dir() and path.name not in NO_GOOD) if CORPUS is not None else []
    return [images.corpus_files(folder.name)[0] for folder in folders]


@pytest.mark.parametrize("path", one_of_each(), ids=lambda path: path.parent.name)
def test_file_of_every_kind_gives_urls_of_pictures_of_the_right_size(server: Server, path: Path) -> None:
    with server.client() as client:
        response = client.post("/v1/images", content=path.read_bytes())
        if path.suffix == ".heic" and response.status_code == 415:
            pytest.skip("no decoder of HEVC: pillow-heif is not installed")
        assert response.status_code == 201, response.text
        document = response.json()
        assert document["width"] >= 1
        for source in document["sources"]:
            link = source["renditions"][0]
            rendition = client.get(link["url"])
            assert (rendition.status_code, rendition.headers["content-type"]) == (200, source["type"])
            picture = Image.open(io.BytesIO(rendition.content))
            assert (picture.size, picture.format) == ((link["width"], link["height"]), FORMATS[source["type"]])
            assert abs(picture.width * document["height"] - picture.height * document["width"]) <= max(
                document["width"], document["height"]
            )
            frames = getattr(picture, "n_frames", 1)
            assert (frames > 1) == (path.parent.name == "animated" and picture.format in {"AVIF", "GIF", "WEBP"})

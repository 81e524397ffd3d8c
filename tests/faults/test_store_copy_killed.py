"""Copies of many originals from a disk, to S3 and to another disk, that are killed twice."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import obstore
import pytest
from PIL import Image

from service.images.digest import digest_from_sha256
from service.images.document import Document
from tests.support.s3 import Bucket
from tests.support.s3_proxy import Request, S3Proxy
from tests.support.server import DARKROOM, darkroom, environment
from tests.support.waiting import wait_until

# More than S3 has on a page of a listing.
ORIGINALS = 1_200


def small_png(number: int) -> bytes:
    """Return a picture of noise that is different for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "PNG")
    return body.getvalue()


def filled(data: Path, count: int) -> dict[str, bytes]:
    """Return the originals of a store by digest: the first one was uploaded, and the others were written in the same form."""
    with darkroom(data) as server, server.client() as client:
        client.post("/v1/images", content=small_png(0)).raise_for_status()
    store = data / "store"
    (path,) = (store / "documents").iterdir()
    document = msgspec.json.decode(path.read_bytes(), type=Document)
    originals = {}
    for number in range(count):
        body = small_png(number)
        digest = digest_from_sha256(hashlib.sha256(body).digest())
        originals[digest] = body
        (store / "originals" / digest).write_bytes(body)
        changed = msgspec.structs.replace(document, digest=digest, bytes=len(body), alt=f"picture {number}")
        (store / "documents" / digest).write_bytes(msgspec.json.encode(changed))
    assert len(originals) == count
    return originals


@pytest.mark.long
def test_copy_to_s3_that_is_killed_twice_has_only_whole_objects_and_the_next_run_copies_the_rest(
    data: Path, s3: Bucket, s3_proxy: S3Proxy
) -> None:
    originals = filled(data, ORIGINALS)
    variables = environment(**s3.environment)
    command: list[str | Path] = [DARKROOM, "store", "copy", (data / "store").as_uri(), f"s3://{s3.name}", "--json"]
    for share in (0.3, 0.9):
        running = subprocess.Popen(command, env=variables | s3_proxy.environment, stdout=subprocess.DEVNULL)
        fall_silent_at(s3_proxy, s3, int(share * ORIGINALS))
        running.kill()
        assert running.wait() == -9
        s3_proxy.silent = False
        there = stored(s3, "originals")
        assert share * ORIGINALS <= len(there) < ORIGINALS, "it was killed on the way"
        assert all(digest_from_sha256(hashlib.sha256(body).digest()) == digest for digest, body in there.items())
        assert all(digest in there for digest in stored(s3, "documents"))
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    done = json.loads(ended.stdout)
    assert done["copied"]["originals"] <= 0.1 * ORIGINALS
    assert done["copied"]["documents"] == ORIGINALS
    assert (done["there_already"], done["not_copied"]) == (ORIGINALS - done["copied"]["originals"], [])
    assert stored(s3, "originals") == originals
    documents = {path.name: path.read_bytes() for path in (data / "store" / "documents").iterdir()}
    assert stored(s3, "documents") == documents
    checked = subprocess.run([DARKROOM, "store", "check", f"s3://{s3.name}", "--json"], env=variables, capture_output=True, check=True)
    found = json.loads(checked.stdout)
    assert (found["findings"], found["objects"]) == ([], {"originals": ORIGINALS, "documents": ORIGINALS})
    with darkroom(data, store=f"s3://{s3.name}", **s3.environment) as server, server.client() as client:
        response = client.get(client.get(f"/v1/images/{max(originals)}").json()["src"])
        assert (response.status_code, Image.open(io.BytesIO(response.content)).size) == (200, (24, 24))


@pytest.mark.long
def test_copy_to_disk_that_is_killed_leaves_no_partial_object(data: Path, tmp_path: Path) -> None:
    originals = filled(data, 1_000)
    there = tmp_path / "there"
    command: list[str | Path] = [DARKROOM, "store", "copy", (data / "store").as_uri(), there.as_uri()]
    for least in (1, 400):
        running = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        wait_until(lambda least=least: len(on_disk(there)) >= least)  # type: ignore[misc]
        running.kill()
        running.wait()
        assert on_disk(there).items() <= originals.items()
    subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, check=True)
    assert on_disk(there) == originals


def on_disk(store: Path) -> dict[str, bytes]:
    """Return the originals that a server sees in a store on disk, without the temporary files of killed writes."""
    folder = store / "originals"
    return {path.name: path.read_bytes() for path in folder.iterdir() if "#" not in path.name} if folder.is_dir() else {}


def stored(s3: Bucket, folder: str) -> dict[str, bytes]:
    """Return the objects in a folder of the bucket by name."""
    store = s3.client()
    keys = [entry["path"] for page in obstore.list(store, f"{folder}/") for entry in page]
    return {key.rpartition("/")[2]: bytes(obstore.get(store, key).bytes()) for key in keys}


def fall_silent_at(s3_proxy: S3Proxy, s3: Bucket, count: int) -> None:
    """Have the store stop responding while it is sent one original more than `count`, and wait until it has so many."""
    sent = {f"/{s3.name}/{key}" for key in s3.objects()}

    def look(request: Request) -> None:
        if request.method == "PUT" and "/originals/" in request.path:
            sent.add(request.path)
            s3_proxy.silent = s3_proxy.silent or sum("/originals/" in path for path in sent) > count

    s3_proxy.error_for = look
    # Requests that were forwarded before are still on their way to the store.
    wait_until(lambda: s3_proxy.silent and sum(key.startswith("originals/") for key in s3.objects()) >= count)

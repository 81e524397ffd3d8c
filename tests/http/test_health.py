"""`/health` and `/livez`."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from service.worker.sandbox import supported
from tests.support import images
from tests.support.server import Server, darkroom, reported_sandbox
from tests.support.waiting import wait_until


def test_health_is_200_and_names_the_region(data: Path) -> None:
    with (
        darkroom(data, store="memory://", FLY_REGION="arn", FLY_MACHINE_ID="1857", regions="arn, lhr,iad") as server,
        server.client() as client,
    ):
        sandbox = reported_sandbox(server)
        response = client.get("/health")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        report = response.json()
        assert report.pop("version")
        assert report.pop("sandbox") == sandbox == msgspec.to_builtins(supported())
        assert report == {"status": "ok", "region": "arn", "machine": "1857", "regions": ["arn", "lhr", "iad"], "prefer_region": "arn"}


def test_health_in_an_undeclared_region_warns_and_says_what_to_do(data: Path) -> None:
    with darkroom(data, store="memory://", FLY_REGION="fra", PRIMARY_REGION="lhr", regions="arn,lhr") as server, server.client() as client:
        response = client.get("/health")
        assert response.status_code == 200
        unlisted, unordered = response.json()["warnings"]
        assert unlisted == (
            "DARKROOM_REGIONS does not list the region fra, which has a Machine. Expected: arn,lhr. Received: fra. "
            "Add it to DARKROOM_REGIONS in fly.toml and deploy, or remove the Machine: fly scale count 0 --region fra"
        )
        assert unordered.startswith("The first of DARKROOM_REGIONS is not the primary region. Expected: lhr first")
        assert unlisted in server.log()


def test_health_outside_fly_names_no_region(server: Server) -> None:
    with server.client() as client:
        assert reported_sandbox(server)
        assert set(client.get("/health").json()) == {"status", "version", "sandbox"}
        assert client.head("/health").status_code == 200


def test_livez_is_200(server: Server) -> None:
    with server.client() as client:
        response = client.get("/livez")
        assert (response.status_code, response.text, response.headers["cache-control"]) == (200, "alive\n", "no-store")


def test_store_lost_after_the_start_is_200_degraded_until_it_is_back_and_hits_continue(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "store"
    with darkroom(data, store=folder.as_uri()) as server, server.client() as client:
        document = client.post("/v1/images", content=images.photo_jpeg(64, 48)).json()
        before = client.get(document["src"])
        moved = shutil.move(folder, tmp_path / "away")
        folder.write_bytes(b"a file in the way")
        assert wait_for_status(server, "degraded") == 200
        assert client.get(document["src"]).content == before.content
        miss = client.get(document["sources"][0]["renditions"][0]["url"])
        assert miss.status_code == 503
        assert miss.headers["retry-after"] == "5"
        upload = client.post("/v1/images", content=images.photo_jpeg(65, 48))
        assert upload.status_code == 503
        folder.unlink()
        shutil.move(moved, folder)
        assert wait_for_status(server, "ok") == 200
        assert client.get(document["sources"][0]["renditions"][0]["url"]).status_code == 200


def wait_for_status(server: Server, status: str) -> int:
    with server.client() as client:
        wait_until(lambda: client.get("/health").json()["status"] == status)
        return client.get("/health").status_code

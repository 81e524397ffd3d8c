"""Every code block of docs/frameworks.md is tested: it is a file of a site that the browser tests build, or a command."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.sites import EXAMPLE_URL, SITES
from tests.browser.sites.guide import BLOCKS, GUIDE, ROOT, code, commands
from tests.support.node import find_program
from tests.support.server import DARKROOM, Server, environment
from tests.web.conftest import WEB

# The sections that go from nothing to a page, whose commands tests/browser/test_sites.py runs.
FROM_NOTHING = ("Next.js", "Nuxt", "Astro")

PUSH, FETCH = (block.text for block in BLOCKS if block.language == "sh" and block.section not in FROM_NOTHING)


def shell(text: str, folder: Path, server: Server) -> None:
    """Run a block as a reader would, with the URL of `server` in place of that of the example."""
    settings = {"DARKROOM_SERVER": server.url, "PATH": f"{DARKROOM.parent}:{os.environ['PATH']}"}
    # npm must not send requests to a registry.
    settings |= {"npm_config_offline": "true", "npm_config_audit": "false", "npm_config_update_notifier": "false"}
    script = text.replace(EXAMPLE_URL, server.url)
    subprocess.run(["bash", "-euc", script], cwd=folder, env=environment() | settings, check=True, capture_output=True)


def test_guide_block_with_a_file_name_equals_that_file() -> None:
    shown = {block.file: block.text for block in BLOCKS if block.file}
    assert len(shown) >= 15
    for file, text in shown.items():
        assert text == (ROOT / file).read_text("utf-8"), file


def test_guide_block_without_a_file_name_is_one_of_the_tested_commands() -> None:
    assert GUIDE.count("\n```") == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS if not block.file} == {"sh"}


@pytest.mark.parametrize("section", FROM_NOTHING)
def test_guide_goes_from_nothing_to_a_page_in_ten_lines_of_commands_and_ten_of_code(section: str) -> None:
    lines = commands(section)
    assert re.match(r"npx create-|npm create ", lines[0])
    # Each of the first line's two commands counts.
    assert len(lines) + 1 <= 10
    assert 0 < len(code(section)) <= 10


def test_guide_names_the_versions_with_which_its_sites_are_built() -> None:
    versions: dict[str, str] = {}
    for file in SITES.glob("*/package.json"):
        package = json.loads(file.read_text("utf-8"))
        versions |= package.get("dependencies", {}) | package.get("devDependencies", {})
    named = {
        "Next.js": "next",
        "Nuxt": "nuxt",
        "Astro": "astro",
        "React": "react",
        "Vue": "vue",
        "Svelte": "svelte",
        "unpic": "@unpic/react",
        "Vite": "vite",
    }
    for name, package in named.items():
        found = re.search(rf"\b{re.escape(name)}\s([0-9.]*[0-9])", GUIDE)
        assert found is not None, name
        assert versions[package].startswith(f"{found[1]}."), name


def test_guide_push_command_writes_the_manifest(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.linear_gradient("L").save(tmp_path / "photos" / "lake.jpg")
    shell(PUSH, tmp_path, server)
    manifest = json.loads((tmp_path / "images.json").read_text("utf-8"))
    assert manifest["version"] == 1
    assert list(manifest["images"]) == ["lake.jpg"]


def test_guide_fetch_command_downloads_the_module_and_its_types(server: Server, tmp_path: Path) -> None:
    shell(FETCH, tmp_path, server)
    for name in ("darkroom.js", "darkroom.d.ts"):
        assert (tmp_path / name).read_bytes() == (WEB / name).read_bytes()


def test_guide_package_commands_install_a_package_that_can_be_imported(server: Server, tmp_path: Path) -> None:
    node = find_program("node")
    find_program("npm")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    _, *lines, _, _ = commands("Next.js")
    shell("\n".join(lines), tmp_path, server)
    installed = tmp_path / "node_modules" / "darkroom.js"
    assert {path.name for path in installed.iterdir()} == {"package.json", "darkroom.js", "darkroom.d.ts", "frameworks"}
    code = 'import * as darkroom from "darkroom.js"; console.log(JSON.stringify(Object.keys(darkroom)))'
    done = subprocess.run([node, "--input-type=module", "--eval", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    exported = json.loads(done.stdout)
    assert {"image", "loader", "picture", "signer", "srcset", "transformer"} < set(exported)
    declared = re.findall(r"^export (?:const|function) (\w+)", (installed / "darkroom.d.ts").read_text("utf-8"), re.MULTILINE)
    assert sorted(declared) == exported

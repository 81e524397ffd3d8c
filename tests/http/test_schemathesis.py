"""Requests that Schemathesis makes from the OpenAPI document, valid and invalid ones: the server does what the document says."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import images
from tests.support.server import darkroom

# Not among these: that every valid request is accepted. A schema cannot say which options contradict each other.
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "allow_header_conformance",
    "unsupported_method",
)
# So many requests for each operation, beside those for its examples and limits: every run has the same ones, however fast the machine is.
_EXAMPLES = 5
# Any error of the client rejects a request: its image may be gone by then (410), or its URL too long (431).
_REJECTED = '[checks]\nnegative_data_rejection.expected-statuses = ["4xx"]\n'


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="Schemathesis is not installed")
@pytest.mark.parametrize("names_images", [False, True], ids=["any image", "a stored image"])
def test_responses_to_generated_requests_are_documented(tmp_path: Path, *, names_images: bool) -> None:
    with darkroom(tmp_path / "data") as server, server.client() as client:
        digest = client.post("/v1/images", content=images.photo_jpeg(80, 60)).json()["digest"]
        parameters = {"path.digest": digest, "path.version": "v3", "path.signature": "-"} if names_images else {}
        settings = tmp_path / "schemathesis.toml"
        lines = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in parameters.items())
        settings.write_text(f"[parameters]\n{lines}{_REJECTED}")
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run", f"{client.base_url}/docs/openapi.json"),
            *("--max-examples", str(_EXAMPLES), "--checks", ",".join(_CHECKS), "--suppress-health-check", "all"),
            *("--continue-on-failure", "--generation-deterministic", "--no-color"),
        ]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "NO_PROXY": "*"}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr

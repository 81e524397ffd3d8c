"""deploy/compose.yaml: valid by the schema of the Compose specification, hardened, and consistent with the Dockerfile and nginx."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service.cli.supervisor import DRAIN_SECONDS
from service.settings.environment import load
from service.settings.help import HELP
from tests.deploy.compose_flags import flags

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
DARKROOM: dict[str, Any] = SERVICES["darkroom"]


def test_compose_file_is_valid_by_the_schema_of_the_specification() -> None:
    # The command of check-jsonschema does the same, but its start takes two seconds.
    path = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text("utf-8"))
    validator = jsonschema.validators.validator_for(schema)
    validator(schema, format_checker=validator.FORMAT_CHECKER).validate(yaml.safe_load(FILE.read_text("utf-8")))


@pytest.mark.parametrize("name", SERVICES)
def test_compose_service_is_confined_and_limited(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["pids_limit"] <= 512
    assert service["restart"] == "unless-stopped"
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()
    assert not service.get("privileged")


def test_compose_has_secrets_in_files_and_only_settings_that_exist() -> None:
    environment = DARKROOM["environment"]
    assert environment.keys() <= HELP.keys()
    assert not {"DARKROOM_KEYS", "DARKROOM_TOKENS"} & environment.keys()
    files = {environment["DARKROOM_KEYS_FILE"], environment["DARKROOM_TOKENS_FILE"]}
    assert files == {f"/run/secrets/{name}" for name in DARKROOM["secrets"]}
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {"./secrets/keys", "./secrets/tokens"}
    dockerfile = dict(re.findall(r"^\s+(DARKROOM_\w+)=(\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    settings = load({**dockerfile, **environment})
    assert settings.server.host == "0.0.0.0"
    # The only place that may be written to is a volume.
    assert DARKROOM["volumes"] == [f"images:{dockerfile['DARKROOM_DATA']}"]
    assert COMPOSE["volumes"].keys() == {"images", "cache"}


def test_compose_options_of_podman_have_every_restriction_of_the_service() -> None:
    options = flags(DARKROOM, Path("/folder"))
    assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=1536m", "--user=10001:10001"} <= set(options)
    assert {"--volume=/folder/keys:/run/secrets/keys:ro", "--volume=/folder/tokens:/run/secrets/tokens:ro"} <= set(options)
    # A key that has no option yet is not left out silently.
    with pytest.raises(KeyError):
        flags({"privileged": True}, Path("/folder"))


def test_container_test_without_permission_to_mount_is_skipped_by_name() -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.geteuid() != 0:
        pytest.skip("this takes the permission from root by setpriv of util-linux")
    script = ["bash", str(ROOT / "tests" / "deploy" / "container.sh")]
    done = subprocess.run([setpriv, "--bounding-set=-sys_admin", *script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:8]) == (0, "SKIPPED:")


def test_compose_only_nginx_is_reachable_and_darkroom_trusts_its_network() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"nginx"}
    (network,) = COMPOSE["networks"].values()
    subnet = network["ipam"]["config"][0]["subnet"]
    assert DARKROOM["environment"]["DARKROOM_TRUSTED_PROXIES"] == subnet
    assert ipaddress.ip_address(DARKROOM["networks"]["front"]["ipv4_address"]) in ipaddress.ip_network(subnet)
    (upstream,) = re.findall(r"^  server (\S+);", (ROOT / "deploy" / "nginx.conf").read_text("utf-8"), re.MULTILINE)
    assert upstream == "darkroom:8080"


def test_compose_waits_for_health_and_for_requests_in_progress() -> None:
    assert SERVICES["nginx"]["depends_on"] == {"darkroom": {"condition": "service_healthy"}}
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text("utf-8")
    assert SERVICES["nginx"]["healthcheck"]["test"][0] == "CMD"
    assert int(DARKROOM["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS

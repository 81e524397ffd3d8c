"""fly.toml has only known keys and meets the requirements of the service. Fly's own check misses most mistakes."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from service.cli.commands import main
from service.cli.supervisor import DRAIN_SECONDS
from service.http.routes.health import get_health
from service.settings.environment import load
from service.settings.help import HELP

ROOT = Path(__file__).parents[2]
FLY_TOML = (ROOT / "fly.toml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

ON_FLY = load({"FLY_MACHINE_ID": "148e21ea246389", "DARKROOM_STORE": "s3://bucket"})

DURATION = "a duration with its unit, such as '75s'"
MEMORY = "an amount of memory, such as '1536mb'"
STRINGS = "a table of strings"

# Every key of Fly's that this project uses, each with the type of its value: a dict for a table, a list for an array. They are
# from `internal/appconfig` in flyctl, which ignores unknown keys silently.
KEYS: dict[str, Any] = {
    "app": str,
    "primary_region": str,
    "kill_signal": str,
    "kill_timeout": DURATION,
    "build": {"dockerfile": str},
    "deploy": {"strategy": str, "max_unavailable": float, "wait_timeout": DURATION, "release_command": str},
    "env": STRINGS,
    "processes": STRINGS,
    "http_service": {
        "internal_port": int,
        "force_https": bool,
        "auto_stop_machines": str,
        "auto_start_machines": bool,
        "min_machines_running": int,
        "processes": [str],
        "concurrency": {"type": str, "soft_limit": int, "hard_limit": int},
        "http_options": {"h2_backend": bool, "idle_timeout": int, "response": {"headers": STRINGS}},
        "checks": [
            {
                "method": str,
                "path": str,
                "interval": DURATION,
                "timeout": DURATION,
                "grace_period": DURATION,
                "headers": STRINGS,
            }
        ],
    },
    "vm": [{"size": str, "memory": MEMORY, "cpu_kind": str, "cpus": int, "processes": [str]}],
    "metrics": [{"port": int, "path": str, "processes": [str]}],
    "mounts": [{"source": str, "destination": str, "initial_size": str, "processes": [str]}],
}

# Keys that must be present, because Fly's default is different.
REQUIRED = [
    "app",
    "primary_region",
    "kill_signal",
    "kill_timeout",
    "deploy.strategy",
    "env.DARKROOM_REGIONS",
    "env.DARKROOM_STORE",
    "http_service.internal_port",
    "http_service.force_https",
    "http_service.auto_stop_machines",
    "http_service.auto_start_machines",
    "http_service.min_machines_running",
    "http_service.concurrency.type",
    "http_service.concurrency.soft_limit",
    "http_service.concurrency.hard_limit",
    "http_service.http_options.idle_timeout",
    "http_service.checks.0.path",
    "http_service.checks.0.interval",
    "http_service.checks.0.timeout",
    "http_service.checks.0.grace_period",
    "vm.0.memory",
    "vm.0.cpu_kind",
    "vm.0.cpus",
]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MEGABYTES = {"mb": 1, "gb": 1024}


def problems(text: str) -> list[str]:
    """Return the problems of a fly.toml, one sentence each; an empty list if there are none."""
    config = tomllib.loads(text)
    found = list(_shape_problems(config, KEYS, "")) + [f"{path} is missing" for path in REQUIRED if not _has_path(config, path)]
    return found or [requirement for requirement, met in _requirements(config).items() if not met]


def _shape_problems(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Yield a sentence for each key that Fly does not know, and for each value of another type than Fly expects."""
    match shape:
        case dict() if isinstance(value, dict):
            for key, inner in value.items():
                name = f"{path}.{key}".lstrip(".")
                if key in shape:
                    yield from _shape_problems(inner, shape[key], name)
                else:
                    yield f"{name} is not a key of fly.toml"
        case [item] if isinstance(value, list):
            for index, inner in enumerate(value):
                yield from _shape_problems(inner, item, f"{path}.{index}")
        case dict():
            yield f"{path} must be a table"
        case [_]:
            yield f"{path} must be an array"
        case _ if not _has_type(value, shape):
            yield f"{path} must be {shape if isinstance(shape, str) else shape.__name__}, not {value!r}"


def _has_type(value: Any, shape: Any) -> bool:
    """Return whether a value has the type `shape`, one of the leaves of `KEYS`; `true` is no integer."""
    if shape is DURATION:
        return isinstance(value, str) and re.fullmatch(r"(\d+(ms|s|m|h))+", value) is not None
    if shape is MEMORY:
        return isinstance(value, str) and re.fullmatch(r"\d+(mb|gb)", value) is not None
    if shape is STRINGS:
        return isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values())
    return type(value) is shape or (shape is float and type(value) is int)


def _has_path(config: Any, path: str) -> bool:
    for step in path.split("."):
        try:
            config = config[int(step) if step.isdigit() else step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _requirements(config: dict[str, Any]) -> dict[str, bool]:
    """Return the requirements of a fly.toml whose keys and types are right, each with whether it is met."""
    env, http = config["env"], config["http_service"]
    concurrency, checks = http["concurrency"], http["checks"]
    regions = env["DARKROOM_REGIONS"].split(",")
    kill, idle = _seconds(config["kill_timeout"]), http["http_options"]["idle_timeout"]
    suspends = http["auto_stop_machines"] == "suspend"
    return {
        "a Machine that suspends has at most 2048 MB": not suspends or all(_megabytes(vm) <= 2048 for vm in config["vm"]),
        "a shared CPU has 256 to 2048 MB": all(
            256 <= _megabytes(vm) / vm["cpus"] <= 2048 for vm in config["vm"] if vm["cpu_kind"] == "shared"
        ),
        "auto_stop_machines is suspend": suspends,
        "a stopped Machine is started again": http["auto_start_machines"],
        "one Machine is always awake": http["min_machines_running"] >= 1,
        "plain HTTP is redirected": http["force_https"],
        "primary_region is in DARKROOM_REGIONS, and first": regions[0] == config["primary_region"],
        "regions are three letters, each once": all(re.fullmatch(r"[a-z]{3}", region) for region in regions)
        and len(set(regions)) == len(regions),
        "several regions share one store": len(regions) == 1 or env["DARKROOM_STORE"].startswith("s3://"),
        "no name in env begins with FLY_": not any(name.startswith("FLY_") for name in env),
        "every DARKROOM_ name in env is a setting": {name for name in env if name.startswith("DARKROOM_")} <= set(HELP),
        "there is no secret in env": not {"DARKROOM_KEYS", "DARKROOM_TOKENS"} & env.keys(),
        "concurrency counts requests": concurrency["type"] == "requests",
        "soft_limit is below hard_limit": concurrency["soft_limit"] < concurrency["hard_limit"],
        "soft_limit leaves room for hits beside all cold requests": concurrency["soft_limit"] > ON_FLY.server.max_cold_requests,
        "internal_port is the port of the Dockerfile": http["internal_port"] == _dockerfile_port(DOCKERFILE),
        "every check requests /health": all(check["path"] in get_health.paths for check in checks),
        "every check times out before the next one": all(_seconds(check["timeout"]) <= _seconds(check["interval"]) for check in checks),
        "SIGTERM begins the drain": config["kill_signal"] == "SIGTERM",
        "the drain outlasts a render": ON_FLY.rendering.render_seconds < DRAIN_SECONDS,
        "kill_timeout is longer than the drain": kill > DRAIN_SECONDS,
        "kill_timeout is at most the 300 s that Fly allows": kill <= 300,
        "idle_timeout is longer than the drain": idle > DRAIN_SECONDS,
        "the deploy strategy exists": config["deploy"]["strategy"] in {"rolling", "immediate", "canary", "bluegreen"},
    }


def _seconds(duration: str) -> float:
    return sum(int(amount) * _UNITS[unit] for amount, unit in re.findall(r"(\d+)(ms|s|m|h)", duration))


def _megabytes(vm: dict[str, Any]) -> int:
    return int(vm["memory"][:-2]) * _MEGABYTES[vm["memory"][-2:]]


def _dockerfile_port(dockerfile: str) -> int:
    found = re.findall(r"\bDARKROOM_PORT=(\d+)", dockerfile)
    assert len(found) == 1, f"expected the Dockerfile to set DARKROOM_PORT once, found {found}"
    return int(found[0])


def test_fly_toml_as_shipped_has_no_problem() -> None:
    assert problems(FLY_TOML) == []


def test_env_of_fly_toml_with_secrets_is_accepted_by_the_service() -> None:
    dockerfile = dict(re.findall(r"^\s+(DARKROOM_\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    secrets = {"DARKROOM_KEYS": "0123456789abcdef" * 4, "DARKROOM_TOKENS": "0123456789abcdef:ingest+delete+read"}
    fly = {"FLY_MACHINE_ID": "148e21ea246389", "FLY_REGION": "arn"}
    settings = load({**dockerfile, **tomllib.loads(FLY_TOML)["env"], **secrets, **fly})
    assert (settings.server.host, settings.server.port, settings.storage.url) == ("0.0.0.0", 8080, "s3://")


def deployments() -> dict[str, tuple[str, list[str]]]:
    """Return the deployments of docs/deployments.md by heading: their fly.toml, and their commands up to those that place Machines."""
    page = (ROOT / "docs" / "deployments.md").read_text("utf-8")
    found = {}
    for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        files, scripts = (re.findall(rf"^```{kind}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL) for kind in ("toml", "sh"))
        assert len(files) == 1
        found[part.splitlines()[0]] = (files[0], scripts[0].splitlines())
    return found


DEPLOYMENTS = deployments()


def test_documentation_has_three_deployments() -> None:
    assert [heading.split()[0] for heading in DEPLOYMENTS] == ["One", "Three", "Three"]


@pytest.mark.parametrize(("toml", "commands"), [(FLY_TOML, []), *DEPLOYMENTS.values()], ids=["fly.toml", *DEPLOYMENTS])
def test_fly_toml_of_a_deployment_has_no_problem_and_darkroom_regions_prints_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, commands: list[str]
) -> None:
    assert problems(toml) == []
    for name in ("FLY_APP_NAME", "FLY_REGION", "FLY_MACHINE_ID", "PRIMARY_REGION", "DARKROOM_REGIONS", "DARKROOM_STORE", "DARKROOM_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("fly.toml").write_text(toml, "utf-8")
    checked = CliRunner().invoke(main, ["regions", "--check"])
    assert (checked.exit_code, checked.stdout) == (0, "No problems found.\n")
    printed = CliRunner().invoke(main, ["regions"]).stdout.partition("so:\n\n")[2].split("\n")
    assert not commands or "\n".join(line.strip() for line in printed).strip() in "\n".join(commands)


@pytest.mark.parametrize("toml", [toml for toml, _ in DEPLOYMENTS.values()], ids=DEPLOYMENTS)
def test_env_of_a_deployment_is_accepted_by_the_service(monkeypatch: pytest.MonkeyPatch, toml: str) -> None:
    config = tomllib.loads(toml)
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in {mount["destination"] for mount in config.get("mounts", [])})
    secrets = {"DARKROOM_KEYS": "0123456789abcdef" * 4, "DARKROOM_TOKENS": "0123456789abcdef:ingest+delete+read"}
    if "DARKROOM_CLOUDFLARE_ZONE" in config["env"]:
        secrets["DARKROOM_CLOUDFLARE_TOKEN"] = "token"
    fly = {"FLY_MACHINE_ID": "148e21ea246389", "FLY_REGION": "arn", "PRIMARY_REGION": config["primary_region"]}
    settings = load({"DARKROOM_HOST": "0.0.0.0", **config["env"], **secrets, **fly})
    assert settings.primary_region == "arn"
    assert not settings.is_replica
    assert settings.server.metrics_port == config["metrics"][0]["port"]


MISTAKES = {
    # Keys that do not exist, or not in that table.
    "timeout under http_service": (
        "force_https = true",
        'force_https = true\n  timeout = "60s"',
        "http_service.timeout is not",
    ),
    "backup_regions": (
        'primary_region = "arn"',
        'primary_region = "arn"\nbackup_regions = ["lhr"]',
        "backup_regions is not",
    ),
    "services beside http_service": (
        "[[vm]]",
        '[[services.http_checks]]\n  path = "/health"\n\n[[vm]]',
        "services is not",
    ),
    "services as array": ("[[vm]]", "[[services]]\n  internal_port = 8080\n\n[[vm]]", "services is not"),
    "swap": ('app = "darkroom"', 'app = "darkroom"\nswap_size_mb = 512', "swap_size_mb is not"),
    "swap under vm": ("  cpus = 2", "  cpus = 2\n  swap_size_mb = 512", "vm.0.swap_size_mb is not"),
    "memory as memory_mb": ('memory = "1536mb"', "memory_mb = 1536", "vm.0.memory_mb is not"),
    "check timeout misspelt": ('timeout = "5s"', 'time_out = "5s"', "http_service.checks.0.time_out is not"),
    "suspend by its new name only": ("auto_stop_machines", "autostop", "http_service.autostop is not"),
    # Values of another type than Fly expects.
    "concurrency as array": (
        "[http_service.concurrency]",
        "[[http_service.concurrency]]",
        "concurrency must be a table",
    ),
    "checks as table": ("[[http_service.checks]]", "[http_service.checks]", "checks must be an array"),
    "vm as table": ("[[vm]]", "[vm]", "vm must be an array"),
    "check interval as bare integer": ('interval = "15s"', "interval = 15", "checks.0.interval must be a duration"),
    "check interval without unit": ('interval = "15s"', 'interval = "15"', "checks.0.interval must be a duration"),
    "check grace period as bare integer": (
        'grace_period = "10s"',
        "grace_period = 10",
        "grace_period must be a duration",
    ),
    "kill_timeout without unit": ('kill_timeout = "75s"', "kill_timeout = 75", "kill_timeout must be a duration"),
    "idle_timeout with unit": ("idle_timeout = 75", 'idle_timeout = "75s"', "idle_timeout must be int"),
    "env value as integer": ('MALLOC_ARENA_MAX = "2"', "MALLOC_ARENA_MAX = 2", "env must be a table of strings"),
    "port as string": ("internal_port = 8080", 'internal_port = "8080"', "internal_port must be int"),
    "port as boolean": ("internal_port = 8080", "internal_port = true", "internal_port must be int"),
    "memory without unit": ('memory = "1536mb"', 'memory = "1536"', "vm.0.memory must be an amount"),
    # Required keys that are missing.
    "no kill_signal": ('kill_signal = "SIGTERM"', "", "kill_signal is missing"),
    "no check": ("[[http_service.checks]]", "[[metrics]]", "http_service.checks.0.path is missing"),
    "no idle_timeout": ("idle_timeout = 75", "", "idle_timeout is missing"),
    "no store": ('DARKROOM_STORE = "s3://"', "", "env.DARKROOM_STORE is missing"),
    # Values that do not meet a requirement.
    "4096 MB with suspend": ('"1536mb"', '"4096mb"', "at most 2048 MB"),
    "4 GB with suspend": ('"1536mb"', '"4gb"', "at most 2048 MB"),
    "more memory than a shared CPU has": ("  cpus = 2", "  cpus = 8", "256 to 2048 MB"),
    "stop for suspend": ('"suspend"', '"stop"', "auto_stop_machines is suspend"),
    "no start": ("auto_start_machines = true", "auto_start_machines = false", "started again"),
    "no Machine awake": ("min_machines_running = 1", "min_machines_running = 0", "always awake"),
    "plain HTTP": ("force_https = true", "force_https = false", "plain HTTP is redirected"),
    "primary elsewhere": ('primary_region = "arn"', 'primary_region = "fra"', "primary_region is in DARKROOM_REGIONS"),
    "regions with spaces": ('"arn,lhr,iad"', '"arn, lhr, iad"', "three letters"),
    "a volume in three regions": ('"s3://"', '"file:///data/store"', "share one store"),
    "FLY_ in env": ('MALLOC_ARENA_MAX = "2"', 'FLY_REGION = "arn"', "begins with FLY_"),
    "a setting that is none": ("  MALLOC_ARENA_MAX", "  DARKROOM_MEMORY", "is a setting"),
    "a secret in env": ("MALLOC_ARENA_MAX", "DARKROOM_KEYS", "no secret"),
    "connections counted": ('type = "requests"', 'type = "connections"', "counts requests"),
    "soft as high as hard": ("soft_limit = 20", "soft_limit = 25", "soft_limit is below"),
    "no room for hits": ("soft_limit = 20", "soft_limit = 12", "leaves room for hits"),
    "another port": ("internal_port = 8080", "internal_port = 3000", "the port of the Dockerfile"),
    "a check of nothing": ('path = "/health"', 'path = "/healthz"', "requests /health"),
    "a check of life only": ('path = "/health"', 'path = "/livez"', "requests /health"),
    "checks that overlap": ('timeout = "5s"', 'timeout = "1m"', "times out before the next"),
    "SIGINT": ('"SIGTERM"', '"SIGINT"', "SIGTERM begins"),
    "killed while draining": ('kill_timeout = "75s"', 'kill_timeout = "1m5s"', "longer than the drain"),
    "killed in milliseconds": ('kill_timeout = "75s"', 'kill_timeout = "75ms"', "longer than the drain"),
    "more than Fly waits": ('kill_timeout = "75s"', 'kill_timeout = "10m"', "at most the 300 s"),
    "hung up while draining": ("idle_timeout = 75", "idle_timeout = 60", "idle_timeout is longer"),
    "no such strategy": ('"rolling"', '"gradual"', "strategy exists"),
}


@pytest.mark.parametrize(("right", "wrong", "report"), MISTAKES.values(), ids=MISTAKES.keys())
def test_fly_toml_with_a_mistake_is_reported(right: str, wrong: str, report: str) -> None:
    assert FLY_TOML.count(right) >= 1, f"fly.toml does not contain {right!r}, so the mistake cannot be made in it"
    assert any(report in problem for problem in problems(FLY_TOML.replace(right, wrong)))


def test_requirement_of_fly_toml_is_covered_by_a_mistake() -> None:
    reports = [report for _, _, report in MISTAKES.values()]
    # This one does not depend on fly.toml: both figures are the service's own.
    independent = {"the drain outlasts a render"}
    requirements = _requirements(tomllib.loads(FLY_TOML)).keys() - independent
    assert [requirement for requirement in requirements if not any(report in requirement for report in reports)] == []

"""`darkroom regions`: the regions, the commands that create them, and the checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.commands import main

SHARED = """
app = "pictures"
primary_region = "arn"

[env]
  DARKROOM_REGIONS = "arn,lhr,iad"
  DARKROOM_STORE = "s3://"

[http_service]
  internal_port = 8080
  min_machines_running = 2
"""

VOLUME = """
app = "pictures"
primary_region = "arn"

[deploy]
  strategy = "rolling"

[env]
  DARKROOM_REGIONS = "arn"

[http_service]
  min_machines_running = 1

[[mounts]]
  source = "darkroom"
  destination = "/data"
"""

FLY_VARIABLES = ("FLY_APP_NAME", "FLY_REGION", "FLY_MACHINE_ID", "PRIMARY_REGION", "DARKROOM_REGIONS", "DARKROOM_STORE", "DARKROOM_DATA")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty working folder, and an environment without settings of regions."""
    monkeypatch.chdir(tmp_path)
    for name in FLY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*options: str, toml: str | None = None, machines: str | None = None, **environ: str) -> Result:
    if toml is not None:
        Path("fly.toml").write_text(toml, "utf-8")
    return CliRunner().invoke(main, ["regions", *options], input=machines, env=environ, catch_exceptions=False)


def findings(*options: str, toml: str, machines: str | None = None, **environ: str) -> list[str]:
    """Return the problems that `--check` prints. Assert that each one is complete, and that summary and exit code agree with them."""
    done = run("--check", *options, toml=toml, machines=machines, **environ)
    *found, summary = done.stdout.strip().split("\n\n")
    assert summary == {0: "No problems found.", 1: "1 problem found."}.get(len(found), f"{len(found)} problems found.")
    assert done.exit_code == (1 if found else 0)
    for finding in found:
        assert [line.split()[0] for line in finding.split("\n")[1:]] == ["expected", "received", "remedy"]
    return found


def test_regions_of_a_shared_store_are_shown_with_the_commands_that_create_them() -> None:
    done = run(toml=SHARED)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        "regions  arn (primary), lhr, iad\n"
        "store    s3://, shared by all regions\n"
        "here     not on Fly: FLY_REGION is not set\n"
        "\n"
        "These commands create the regions:\n"
        "\n"
        "  fly deploy\n"
        "  fly scale count 2 --region arn\n"
        "  fly scale count 1 --region lhr\n"
        "  fly scale count 1 --region iad\n"
        "  fly regions list\n"
    )


def test_regions_of_a_store_on_a_volume_are_one_machine_in_the_primary_region() -> None:
    done = run(toml=VOLUME)
    assert "store    file:///data/store, only on one Machine\n" in done.stdout
    assert done.stdout.endswith("  fly deploy --ha=false\n  fly scale count 1 --region arn\n  fly regions list\n")


def test_regions_of_a_named_file_name_it_in_every_command(folder: Path) -> None:
    (folder / "staging.toml").write_text(SHARED)
    done = run("--config", "staging.toml")
    commands = done.stdout.partition("regions:\n\n")[2].splitlines()
    assert len(commands) == 5
    assert all(command.endswith(" --config staging.toml") for command in commands)


def test_regions_without_a_file_are_those_of_the_environment() -> None:
    done = run(DARKROOM_REGIONS="lhr, arn", DARKROOM_STORE="s3://bucket")
    assert "regions  lhr (primary), arn\n" in done.stdout
    assert "  fly scale count 1 --region lhr\n  fly scale count 1 --region arn\n" in done.stdout
    assert "regions  none: DARKROOM_REGIONS is not set\n" in run().stdout


@pytest.mark.parametrize(
    ("environ", "here"),
    [
        ({"FLY_REGION": "iad", "DARKROOM_STORE": "s3://"}, "region iad; the store is shared, so every region does everything"),
        ({"FLY_REGION": "arn", "PRIMARY_REGION": "arn", "DARKROOM_STORE": "memory://"}, "region arn; originals are here"),
        (
            {"FLY_REGION": "lhr", "FLY_MACHINE_ID": "148e", "PRIMARY_REGION": "arn", "DARKROOM_STORE": "memory://"},
            "region lhr, Machine 148e; originals are in arn: requests that change something or need an image from there are replayed there",
        ),
    ],
)
def test_regions_describe_this_machine(environ: dict[str, str], here: str) -> None:
    assert f"here     {here}\n" in run(toml=SHARED, **environ).stdout


@pytest.mark.parametrize("toml", [SHARED, VOLUME], ids=["shared", "volume"])
def test_check_of_consistent_regions_finds_nothing(toml: str) -> None:
    assert findings(toml=toml) == []


def test_check_on_a_machine_with_the_same_configuration_finds_nothing() -> None:
    environ = {"DARKROOM_REGIONS": "arn,lhr,iad", "DARKROOM_STORE": "s3://", "PRIMARY_REGION": "arn", "FLY_APP_NAME": "pictures"}
    assert findings(toml=SHARED, FLY_REGION="iad", FLY_MACHINE_ID="148e", **environ) == []


FILES = {
    "no primary_region": (SHARED, 'primary_region = "arn"', "", "fly.toml has no primary_region."),
    "no regions": (SHARED, 'DARKROOM_REGIONS = "arn,lhr,iad"', "", "does not declare the regions"),
    "primary not first": (SHARED, '"arn,lhr,iad"', '"lhr,arn,iad"', "The first of DARKROOM_REGIONS is not the primary region."),
    "primary not listed": (SHARED, '"arn,lhr,iad"', '"lhr,iad"', "DARKROOM_REGIONS does not list the region arn"),
    "nobody awake": (SHARED, "min_machines_running = 2", "min_machines_running = 0", "always run in the primary region"),
    "awake not set": (SHARED, "min_machines_running = 2", "", "always run in the primary region"),
    "volume beside a bucket": (SHARED, "[http", '[[mounts]]\ndestination = "/store"\n[http', "is mounted but not used"),
    "volume as a table": (SHARED, "[http", '[mounts]\ndestination = "/store"\n[http', "is mounted but not used"),
    "memory": (SHARED, "s3://", "memory://", "in the memory of one Machine"),
    "no volume": (VOLUME, VOLUME[VOLUME.index("[[mounts]]") :], "", "The store is not on a volume"),
    "volume elsewhere": (VOLUME, '"/data"', '"/database"', "The store is not on a volume"),
    "store beside the volume": (VOLUME, "[http", 'DARKROOM_STORE = "file:///srv/store"\n[http', "The store is not on a volume"),
    "two awake on a volume": (VOLUME, "min_machines_running = 1", "min_machines_running = 2", "always run in the primary region"),
    "none awake on a volume": (VOLUME, "min_machines_running = 1", "min_machines_running = 0", "always run in the primary region"),
    "bluegreen on a volume": (VOLUME, "rolling", "bluegreen", "This deploy strategy starts new Machines before the old ones end"),
    "canary on a volume": (VOLUME, "rolling", "canary", "This deploy strategy starts new Machines before the old ones end"),
}


@pytest.mark.parametrize(("toml", "right", "wrong", "found"), FILES.values(), ids=FILES)
def test_check_of_a_contradictory_file_reports_the_contradiction(toml: str, right: str, wrong: str, found: str) -> None:
    assert right in toml
    assert any(found in finding for finding in findings(toml=toml.replace(right, wrong)))


def test_check_of_a_volume_with_the_spool_beside_a_bucket_finds_nothing() -> None:
    assert findings(toml=SHARED + '[[mounts]]\nsource = "spool"\ndestination = "/data"\n') == []


def test_check_of_a_store_url_with_an_escaped_folder_finds_its_volume() -> None:
    toml = VOLUME.replace('"/data"', '"/my data"').replace("[http", 'DARKROOM_STORE = "file:///my%20data/store"\n[http')
    assert findings(toml=toml) == []


ENVIRONMENTS = {
    "another app": ({"FLY_APP_NAME": "others"}, "This machine has another app than fly.toml.", "pictures", "others"),
    "another primary": ({"PRIMARY_REGION": "lhr"}, "This machine has another primary_region than fly.toml.", "arn", "lhr"),
    "other regions": (
        {"DARKROOM_REGIONS": "arn,lhr"},
        "This machine has another DARKROOM_REGIONS than fly.toml.",
        "arn,lhr,iad",
        "arn,lhr",
    ),
    "another store": ({"DARKROOM_STORE": "s3://other"}, "This machine has another DARKROOM_STORE than fly.toml.", "s3://", "s3://other"),
    "an unlisted region": ({"FLY_REGION": "fra"}, "DARKROOM_REGIONS does not list the region fra", "arn,lhr,iad", "fra"),
}


@pytest.mark.parametrize(("environ", "found", "expected", "received"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_check_of_a_file_and_another_environment_reports_the_difference(
    environ: dict[str, str], found: str, expected: str, received: str
) -> None:
    (finding,) = findings(toml=SHARED, **environ)
    assert finding.startswith(found)
    assert f"\n  expected  {expected}\n  received  {received}\n" in finding


def test_check_without_a_file_checks_only_the_environment() -> None:
    done = run("--check", DARKROOM_REGIONS="arn,lhr", FLY_REGION="fra", DARKROOM_STORE="s3://")
    assert done.exit_code == 1
    assert done.stdout.startswith("DARKROOM_REGIONS does not list the region fra, which has a Machine.")
    assert done.stdout.endswith("\n1 problem found.\n")
    lost = run("--check", FLY_REGION="fra")
    assert lost.stdout.startswith("No setting says which region has every original.")


def listed(*regions: str, state: str = "started") -> str:
    """Return the output of `fly machine list --json`, with one field that is ignored."""
    return json.dumps([{"id": f"{number:014x}", "region": region, "state": state, "config": {}} for number, region in enumerate(regions)])


def test_check_of_machines_in_the_declared_regions_finds_nothing() -> None:
    assert findings("--machines", "-", toml=SHARED, machines=listed("arn", "arn", "lhr", "iad")) == []
    assert findings("--machines", "-", toml=VOLUME, machines=listed("arn", state="suspended")) == []


def test_check_of_machines_in_other_regions_names_the_regions() -> None:
    missing, unlisted = findings("--machines", "-", toml=SHARED, machines=listed("arn", "iad", "fra"))
    assert missing.startswith("The region lhr has no Machine.")
    assert missing.endswith("Run: fly scale count 1 --region lhr")
    assert unlisted.startswith("DARKROOM_REGIONS does not list the region fra")


def test_check_of_a_volume_with_two_machines_in_the_primary_region_reports_split_images() -> None:
    (finding,) = findings("--machines", "-", toml=VOLUME, machines=listed("arn", "arn"))
    assert finding.startswith("The primary region has several Machines, each with its own volume")
    assert finding.endswith("then run: fly scale count 1 --region arn")


def test_check_ignores_destroyed_machines() -> None:
    gone = json.loads(listed("arn", "fra", state="destroyed"))
    assert findings("--machines", "-", toml=VOLUME, machines=json.dumps([*gone, *json.loads(listed("arn"))])) == []


def test_machines_option_implies_check() -> None:
    assert run("--machines", "-", toml=VOLUME, machines=listed()).exit_code == 1


@pytest.mark.parametrize(
    ("options", "toml", "machines", "message"),
    [
        (["--config", "none.toml"], None, None, "none.toml cannot be read: No such file or directory. Name the fly.toml of the deployment"),
        ([], "app = ", None, "fly.toml is not valid TOML: Invalid value"),
        ([], "[env]\nDARKROOM_REGIONS = 3\n", None, "fly.toml is not a valid fly.toml: Expected `str`, got `int` - at `$.env[...]`"),
        ([], 'mounts = "x"\n', None, "fly.toml is not a valid fly.toml: Expected `object | array`, got `str` - at `$.mounts`"),
        ([], SHARED.replace("arn,lhr,iad", "arn,arn"), None, "DARKROOM_REGIONS is invalid: expected Fly regions, separated by commas"),
        (
            ["--machines", "-"],
            SHARED,
            "no machines",
            "--machines is invalid: expected the output of `fly machine list --json`: JSON is malformed",
        ),
        (
            ["--machines", "-"],
            SHARED,
            '[{"id": "1"}]',
            "--machines is invalid: expected the output of `fly machine list --json`: Object missing",
        ),
    ],
)
def test_regions_with_unreadable_input_are_refused_with_a_remedy(
    options: list[str], toml: str | None, machines: str | None, message: str
) -> None:
    done = run(*options, toml=toml, machines=machines)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"darkroom: {message}")

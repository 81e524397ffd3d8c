"""`darkroom regions`: shows the declared regions and the commands that create them, and checks fly.toml, this machine and the Machines."""

from __future__ import annotations

import os
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

import click
import msgspec

from service.cli import console
from service.errors import SettingsError
from service.ops.regions import RegionWarning, describe_region, region_warnings, unlisted_region
from service.settings.environment import load
from service.settings.sections import Settings
from service.settings.variables import read_variables

# The data folder in the image that the Dockerfile builds, unless fly.toml sets another one.
IMAGE_DATA = "/data"

# Deploy strategies that start new Machines before the old ones end. A volume belongs to one Machine.
_OVERLAPPING_STRATEGIES = frozenset({"bluegreen", "canary"})

# Fly lists Machines in these states for a while, although they are gone.
_GONE = frozenset({"destroying", "destroyed"})


class Mount(msgspec.Struct, frozen=True):
    """A volume, and the folder that it is mounted on."""

    source: str = ""
    destination: str = ""


class HttpService(msgspec.Struct, frozen=True):
    """The section `[http_service]` of fly.toml, only the number of Machines that always run in the primary region."""

    min_machines_running: int = 0


class Deploy(msgspec.Struct, frozen=True):
    """The section `[deploy]` of fly.toml, only the strategy."""

    strategy: str = "rolling"


class FlyToml(msgspec.Struct, frozen=True):
    """The parts of fly.toml that concern regions."""

    app: str = ""
    primary_region: str = ""
    env: dict[str, str] = {}
    http_service: HttpService = HttpService()
    deploy: Deploy = Deploy()
    mounts: list[Mount] | Mount = []

    @property
    def folders(self) -> list[PurePosixPath]:
        """The folders on volumes."""
        return [PurePosixPath(mount.destination) for mount in (self.mounts if isinstance(self.mounts, list) else [self.mounts])]

    def settings(self) -> Settings:
        """Return the settings of a Machine in the primary region, only those for regions and the store; raises `SettingsError`."""
        environ = {"DARKROOM_DATA": IMAGE_DATA, "PRIMARY_REGION": self.primary_region, "FLY_REGION": self.primary_region}
        names = ("DARKROOM_REGIONS", "DARKROOM_STORE", "DARKROOM_DATA")
        return load(environ | {name: value for name, value in self.env.items() if name in names})


class Machine(msgspec.Struct, frozen=True):
    """The parts of a Machine in `fly machine list --json` that concern regions."""

    region: str
    state: str = ""


@click.command(short_help="Show and check the regions of a deployment on Fly.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The fly.toml of the deployment.  [default: fly.toml, if it exists]",
)
@click.option("--check", is_flag=True, help="Exit with 1 if fly.toml, this machine's environment and the Machines disagree.")
@click.option("--machines", type=click.File("rb"), help="The output of `fly machine list --json`, - for standard input. Implies --check.")
def regions(config: Path | None, machines: IO[bytes] | None, *, check: bool) -> None:
    """Show the regions of a deployment on Fly, and the commands that create them.

    Fly does not store in which regions Machines should run, only where they do run. DARKROOM_REGIONS in fly.toml declares where they
    should. This command changes nothing and sends no requests.
    """
    try:
        toml = _read_config(config)
        running = None if machines is None else _read_machines(machines)
        here = load(_region_variables(read_variables(os.environ).texts))
        declared = here if toml is None else toml.settings()
    except SettingsError as error:
        console.fail_with(error)
    if check or running is not None:
        warnings = [*_check_config(toml, declared), *_check_environment(toml, declared, here)] if toml else region_warnings(here)
        warnings += _check_machines(declared, running) if running is not None else []
        for warning in warnings:
            click.echo(f"{console.format_problem(warning)}\n")
        click.echo(f"{console.count(len(warnings), 'problem', 'problems') if warnings else 'No problems'} found.")
        sys.exit(console.EXIT_PARTIAL if warnings else 0)
    click.echo(f"regions  {_describe_regions(declared)}")
    click.echo(f"store    {declared.storage.url}, {'shared by all regions' if declared.storage.is_shared else 'only on one Machine'}")
    click.echo(f"here     {describe_region(here)}")
    click.echo("\nThese commands create the regions:\n")
    for command in commands(declared, min_machines=toml.http_service.min_machines_running if toml else 1, config=config):
        click.echo(f"  {command}")


def commands(declared: Settings, *, min_machines: int = 1, config: Path | None = None) -> list[str]:
    """Return the commands that create the declared regions.

    `min_machines`: how many Machines always run in the primary region.
    `config`: the file to name in each command, `None` for fly.toml.
    """
    option = f" --config {config}" if config is not None else ""
    # Without this option, the first deployment starts a spare Machine, with a volume of its own.
    no_spare = "" if declared.storage.is_shared else " --ha=false"
    primary, *others = declared.fly.declared_regions or (declared.primary_region or "REGION",)
    counts = {primary: max(1, min_machines) if declared.storage.is_shared else 1, **dict.fromkeys(others, 1)}
    return [
        f"fly deploy{no_spare}{option}",
        # One command for each region: with several regions in one command, the count is their total.
        *(f"fly scale count {count} --region {region}{option}" for region, count in counts.items()),
        f"fly regions list{option}",
    ]


def _read_config(path: Path | None) -> FlyToml | None:
    """Return a fly.toml, `None` if none was named and there is none; raises `SettingsError` for a file that cannot be read."""
    name = path or Path("fly.toml")
    if path is None and not name.is_file():
        return None
    try:
        return msgspec.convert(tomllib.loads(name.read_text("utf-8")), FlyToml)
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror}. Name the fly.toml of the deployment with --config.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{name} is not valid TOML: {error}. Correct it, or name another file with --config.") from error
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name} is not a valid fly.toml: {error}. Correct it, or name another file with --config.") from error


def _read_machines(output: IO[bytes]) -> list[Machine]:
    try:
        return [machine for machine in msgspec.json.decode(output.read(), type=list[Machine]) if machine.state not in _GONE]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--machines is invalid: expected the output of `fly machine list --json`: {error}.") from error


def _region_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for regions and the store. Without the others, no keys and tokens are needed to load them."""
    names = ("DARKROOM_REGIONS", "DARKROOM_STORE", "DARKROOM_DATA", "PRIMARY_REGION", "FLY_REGION", "FLY_MACHINE_ID")
    return {name: environ[name] for name in names if name in environ}


def _describe_regions(declared: Settings) -> str:
    names = [f"{name} (primary)" if name == declared.primary_region else name for name in declared.fly.declared_regions]
    return ", ".join(names) or "none: DARKROOM_REGIONS is not set"


def _check_config(toml: FlyToml, declared: Settings) -> list[RegionWarning]:
    """Return the contradictions within a fly.toml."""
    warnings = []
    if not toml.primary_region:
        warnings.append(
            RegionWarning("fly.toml has no primary_region.", "the region whose Machines always run", "none", "Set primary_region.")
        )
    if not declared.fly.declared_regions:
        warnings.append(
            RegionWarning(
                "fly.toml does not declare the regions of the deployment.",
                "DARKROOM_REGIONS in [env], the primary region first",
                "none",
                f'Add DARKROOM_REGIONS = "{toml.primary_region or "arn"}" to [env].',
            )
        )
    # The warnings that a Machine in the primary region would have.
    warnings += region_warnings(declared)
    return warnings + (_check_shared_store(toml, declared) if declared.storage.is_shared else _check_local_store(toml, declared))


def _check_shared_store(toml: FlyToml, declared: Settings) -> list[RegionWarning]:
    warnings = []
    if toml.http_service.min_machines_running < 1:
        warnings.append(_wrong_min_machines(toml, "at least 1"))
    data = PurePosixPath(declared.storage.data)
    if unused := [str(folder) for folder in toml.folders if not data.is_relative_to(folder)]:
        warnings.append(
            RegionWarning(
                "A volume is mounted but not used: the store is a bucket.",
                "no [[mounts]]",
                ", ".join(unused),
                "Remove it, because a volume ties each Machine to one host. To move its images, run `darkroom store copy` first.",
            )
        )
    return warnings


def _check_local_store(toml: FlyToml, declared: Settings) -> list[RegionWarning]:
    """Return warnings about a store that belongs to one Machine: it must be on a volume, and the primary region has only one Machine."""
    warnings = []
    if declared.storage.url.startswith("memory:"):
        warnings.append(
            RegionWarning(
                "Images would be stored in the memory of one Machine, and lost when it stops.",
                "a bucket, or a folder on a volume",
                declared.storage.url,
                'Set DARKROOM_STORE = "s3://" after `fly storage create`, or mount a volume.',
            )
        )
    else:
        store = PurePosixPath(unquote(urlsplit(declared.storage.url).path))
        if not any(store.is_relative_to(folder) for folder in toml.folders):
            warnings.append(
                RegionWarning(
                    "The store is not on a volume, so the next deployment would lose it.",
                    f"[[mounts]] with a destination that contains {store}",
                    ", ".join(map(str, toml.folders)) or "no [[mounts]]",
                    f'Mount a volume at {store.parent}, or set DARKROOM_STORE = "s3://" after `fly storage create`.',
                )
            )
    if toml.http_service.min_machines_running != 1:
        warnings.append(_wrong_min_machines(toml, "1, because a volume belongs to one Machine, and one volume has every original"))
    if toml.deploy.strategy in _OVERLAPPING_STRATEGIES:
        warnings.append(
            RegionWarning(
                "This deploy strategy starts new Machines before the old ones end, which a volume does not allow.",
                "rolling or immediate",
                toml.deploy.strategy,
                'Set strategy = "rolling" under [deploy].',
            )
        )
    return warnings


def _wrong_min_machines(toml: FlyToml, expected: str) -> RegionWarning:
    return RegionWarning(
        "The number of Machines that always run in the primary region does not fit the store.",
        expected,
        str(toml.http_service.min_machines_running),
        "Set min_machines_running = 1 under [http_service].",
    )


def _check_environment(toml: FlyToml, declared: Settings, here: Settings) -> list[RegionWarning]:
    """Return the differences between this machine's environment and that of a Machine that is deployed with this fly.toml."""
    deploy = "Run `fly deploy` to apply fly.toml, or update fly.toml."
    # A variable that is not set here does not contradict fly.toml.
    pairs = [
        ("app", toml.app, os.environ.get("FLY_APP_NAME", ""), "Name the fly.toml of this app with --config."),
        ("primary_region", toml.primary_region, here.fly.primary_region, deploy),
        ("DARKROOM_REGIONS", ",".join(declared.fly.declared_regions), ",".join(here.fly.declared_regions), deploy),
        ("DARKROOM_STORE", declared.storage.url, os.environ.get("DARKROOM_STORE", ""), deploy),
    ]
    warnings = [
        RegionWarning(f"This machine has another {name} than fly.toml.", expected or "none", received, remedy)
        for name, expected, received, remedy in pairs
        if received and received != expected
    ]
    if here.fly.region and here.fly.region not in declared.fly.declared_regions:
        warnings.append(unlisted_region(here.fly.region, ",".join(declared.fly.declared_regions)))
    return warnings


def _check_machines(declared: Settings, running: list[Machine]) -> list[RegionWarning]:
    """Return the differences between the declared regions and the Machines, suspended ones included."""
    counts = Counter(machine.region for machine in running)
    names = declared.fly.declared_regions
    warnings = [
        RegionWarning(f"The region {region} has no Machine.", "at least 1", "0", f"Run: fly scale count 1 --region {region}")
        for region in names
        if not counts[region]
    ]
    warnings += [unlisted_region(region, ",".join(names)) for region in counts if region not in names]
    primary = declared.originals_region
    if primary and counts[primary] > 1:
        warnings.append(
            RegionWarning(
                "The primary region has several Machines, each with its own volume, so each image is on only one of them.",
                "1",
                str(counts[primary]),
                f"Find the volume with the images, copy the others to it with `darkroom store copy`, then run: "
                f"fly scale count 1 --region {primary}",
            )
        )
    return warnings

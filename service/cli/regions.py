"""`darkroom regions`: the declared regions, the commands that make them real, and whether fly.toml and this machine agree."""

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

from service.errors import SettingsError
from service.ops.regions import RegionWarning, describe_region, region_warnings, unlisted_region
from service.settings.environment import load
from service.settings.sections import Settings

# Where the image that the Dockerfile makes keeps its data, unless fly.toml says otherwise.
IMAGE_DATA = "/data"

# The strategies that start new Machines beside the old ones. A volume belongs to one Machine.
_TWO_AT_A_TIME = frozenset({"bluegreen", "canary"})

# What Fly lists for a while although it is gone.
_GONE = frozenset({"destroying", "destroyed"})


class Mount(msgspec.Struct, frozen=True):
    """A volume, and the folder that it is seen under."""

    source: str = ""
    destination: str = ""


class HttpService(msgspec.Struct, frozen=True):
    """What of `[http_service]` is about regions: the Machines of the primary region that never sleep."""

    min_machines_running: int = 0


class Deploy(msgspec.Struct, frozen=True):
    """What of `[deploy]` is about regions."""

    strategy: str = "rolling"


class FlyToml(msgspec.Struct, frozen=True):
    """What of fly.toml is about regions."""

    app: str = ""
    primary_region: str = ""
    env: dict[str, str] = {}
    http_service: HttpService = HttpService()
    deploy: Deploy = Deploy()
    mounts: list[Mount] | Mount = []

    @property
    def folders(self) -> list[PurePosixPath]:
        """The folders that lie on a volume."""
        return [PurePosixPath(mount.destination) for mount in (self.mounts if isinstance(self.mounts, list) else [self.mounts])]

    def settings(self) -> Settings:
        """Return what a Machine of the primary region reads about regions and the store; raises `SettingsError`."""
        said = {"DARKROOM_DATA": IMAGE_DATA, "PRIMARY_REGION": self.primary_region, "FLY_REGION": self.primary_region}
        names = ("DARKROOM_REGIONS", "DARKROOM_STORE", "DARKROOM_DATA")
        return load(said | {name: value for name, value in self.env.items() if name in names})


class Machine(msgspec.Struct, frozen=True):
    """What of `fly machine list --json` is about regions."""

    region: str
    state: str = ""


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The deployment's fly.toml.  [default: fly.toml, where there is one]",
)
@click.option("--check", is_flag=True, help="Exit with 1 where fly.toml, this machine's environment or the Machines disagree.")
@click.option("--machines", type=click.File("rb"), help="What `fly machine list --json` says, - from a pipe: checks that too.")
def regions(config: Path | None, machines: IO[bytes] | None, *, check: bool) -> None:
    """Show the regions of a deployment, and the commands that make them real.

    Where Machines run is not configuration at Fly but what was done last; DARKROOM_REGIONS in fly.toml says what is meant. Nothing is
    changed, and nobody is asked.
    """
    try:
        toml = _read_config(config)
        running = None if machines is None else _read_machines(machines)
        here = load(_about_regions(os.environ))
        meant = here if toml is None else toml.settings()
    except SettingsError as error:
        click.echo(f"darkroom: {error}", err=True)
        sys.exit(2)
    if check or running is not None:
        found = [*(_of_config(toml, meant) if toml else ()), *(_of_environment(toml, meant, here) if toml else region_warnings(here))]
        found += _of_machines(meant, running) if running is not None else []
        for finding in found:
            click.echo(_told(finding))
        click.echo("Nothing disagrees." if not found else f"{len(found)} finding{'s' if len(found) > 1 else ''}.")
        sys.exit(1 if found else 0)
    click.echo(f"regions  {_listed(meant)}")
    click.echo(f"store    {meant.storage.url}, {'shared by all regions' if meant.storage.is_shared else 'of one Machine alone'}")
    click.echo(f"here     {describe_region(here)}")
    click.echo("\nThese commands make it so:\n")
    for command in commands(meant, min_machines=toml.http_service.min_machines_running if toml else 1, config=config):
        click.echo(f"  {command}")


def commands(meant: Settings, *, min_machines: int = 1, config: Path | None = None) -> list[str]:
    """Return the commands that make the declared regions real; `min_machines` never sleep in the primary region.

    One region at a time: with several in one call, the count is that of all together.
    """
    option = f" --config {config}" if config is not None else ""
    # Without it, the first deploy starts a second Machine for the case that one fails. It would have a volume of its own.
    alone = "" if meant.storage.is_shared else " --ha=false"
    primary, *others = meant.fly.declared_regions or (meant.primary_region or "REGION",)
    counts = {primary: max(1, min_machines) if meant.storage.is_shared else 1, **dict.fromkeys(others, 1)}
    return [
        f"fly deploy{alone}{option}",
        *(f"fly scale count {count} --region {region}{option}" for region, count in counts.items()),
        f"fly regions list{option}",
    ]


def _read_config(path: Path | None) -> FlyToml | None:
    """Return a fly.toml; raises `SettingsError` for one that was asked for and is not there, and for one that cannot be read."""
    asked = path or Path("fly.toml")
    if path is None and not asked.is_file():
        return None
    try:
        return msgspec.convert(tomllib.loads(asked.read_text("utf-8")), FlyToml)
    except OSError as error:
        raise SettingsError(f"{asked} cannot be read: {error.strerror}. Name the deployment's fly.toml with --config.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{asked} is no TOML: {error}. Correct it, or name another file with --config.") from error
    except msgspec.ValidationError as error:
        raise SettingsError(f"{asked} is no fly.toml: {error}. Correct it, or name another file with --config.") from error


def _read_machines(listed: IO[bytes]) -> list[Machine]:
    try:
        return [machine for machine in msgspec.json.decode(listed.read(), type=list[Machine]) if machine.state not in _GONE]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--machines: expected what `fly machine list --json` prints: {error}.") from error


def _about_regions(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what says where this machine stands: to look at that, no key, token or address to listen on is needed."""
    names = ("DARKROOM_REGIONS", "DARKROOM_STORE", "DARKROOM_DATA", "PRIMARY_REGION", "FLY_REGION", "FLY_MACHINE_ID")
    return {name: environ[name] for name in names if name in environ}


def _listed(meant: Settings) -> str:
    declared = [f"{name} (primary)" if name == meant.primary_region else name for name in meant.fly.declared_regions]
    return ", ".join(declared) or "none: DARKROOM_REGIONS is not set"


def _told(finding: RegionWarning) -> str:
    return f"{finding.detail}\n  expected  {finding.expected}\n  received  {finding.received}\n  do        {finding.remedy}\n"


def _of_config(toml: FlyToml, meant: Settings) -> list[RegionWarning]:
    """Return what contradicts itself in a fly.toml."""
    found = []
    if not toml.primary_region:
        found.append(RegionWarning("fly.toml has no primary_region.", "the region that is always awake", "none", "Set primary_region."))
    if not meant.fly.declared_regions:
        found.append(
            RegionWarning(
                "fly.toml does not say in which regions the deployment runs.",
                "DARKROOM_REGIONS in [env], the primary first",
                "none",
                f'Add DARKROOM_REGIONS = "{toml.primary_region or "arn"}" to [env].',
            )
        )
    # As the primary's own Machine would say it.
    found += region_warnings(meant)
    return found + (_of_shared_store(toml, meant) if meant.storage.is_shared else _of_own_store(toml, meant))


def _of_shared_store(toml: FlyToml, meant: Settings) -> list[RegionWarning]:
    found = []
    if toml.http_service.min_machines_running < 1:
        found.append(_awake(toml, "at least 1"))
    data = PurePosixPath(meant.storage.data)
    if idle := [str(folder) for folder in toml.folders if not data.is_relative_to(folder)]:
        found.append(
            RegionWarning(
                "A volume is mounted on which nothing is kept: the store is a bucket.",
                "no [[mounts]]",
                ", ".join(idle),
                "Remove it: a volume ties each Machine to one host. To move what is on it, use `darkroom store copy` first.",
            )
        )
    return found


def _of_own_store(toml: FlyToml, meant: Settings) -> list[RegionWarning]:
    """Return what does not fit a store that one Machine has alone: it is on a volume, and the primary region has one Machine."""
    found = []
    if meant.storage.url.startswith("memory:"):
        found.append(
            RegionWarning(
                "Images would be kept in the memory of one Machine, and be lost with it.",
                "a bucket, or a folder on a volume",
                meant.storage.url,
                'Set DARKROOM_STORE = "s3://" after `fly storage create`, or mount a volume.',
            )
        )
    else:
        store = PurePosixPath(unquote(urlsplit(meant.storage.url).path))
        if not any(store.is_relative_to(folder) for folder in toml.folders):
            found.append(
                RegionWarning(
                    "The store is on no volume: the next deploy would lose it.",
                    f"[[mounts]] with a destination that holds {store}",
                    ", ".join(map(str, toml.folders)) or "no [[mounts]]",
                    f'Mount a volume at {store.parent}, or set DARKROOM_STORE = "s3://" after `fly storage create`.',
                )
            )
    if toml.http_service.min_machines_running != 1:
        found.append(_awake(toml, "1: a volume is one Machine's, and the primary region has every original on one"))
    if toml.deploy.strategy in _TWO_AT_A_TIME:
        found.append(
            RegionWarning(
                "This deploy strategy starts new Machines beside the old ones, which a volume does not allow.",
                "rolling or immediate",
                toml.deploy.strategy,
                'Set strategy = "rolling" under [deploy].',
            )
        )
    return found


def _awake(toml: FlyToml, expected: str) -> RegionWarning:
    return RegionWarning(
        "The number of Machines that are always awake in the primary region does not fit the store.",
        expected,
        str(toml.http_service.min_machines_running),
        "Set min_machines_running = 1 under [http_service].",
    )


def _of_environment(toml: FlyToml, meant: Settings, here: Settings) -> list[RegionWarning]:
    """Return where this machine's environment is not what a deploy of fly.toml gives a Machine."""
    deployed = "Run `fly deploy` for fly.toml to take effect, or bring fly.toml up to date."
    # By the settings that were set alone: what is not set disagrees with nothing.
    pairs = [
        ("app", toml.app, os.environ.get("FLY_APP_NAME", ""), "Name the fly.toml of this app with --config."),
        ("primary_region", toml.primary_region, here.fly.primary_region, deployed),
        ("DARKROOM_REGIONS", ",".join(meant.fly.declared_regions), ",".join(here.fly.declared_regions), deployed),
        ("DARKROOM_STORE", meant.storage.url, os.environ.get("DARKROOM_STORE", ""), deployed),
    ]
    found = [
        RegionWarning(f"{name} in fly.toml is not what this machine has.", expected or "none", received, remedy)
        for name, expected, received, remedy in pairs
        if received and received != expected
    ]
    if here.fly.region and here.fly.region not in meant.fly.declared_regions:
        found.append(unlisted_region(here.fly.region, ",".join(meant.fly.declared_regions)))
    return found


def _of_machines(meant: Settings, running: list[Machine]) -> list[RegionWarning]:
    """Return where the Machines that there are, awake or not, are not those that are meant."""
    counts = Counter(machine.region for machine in running)
    found = [
        RegionWarning(f"The region {region} has no Machine.", "at least 1", "0", f"Run: fly scale count 1 --region {region}")
        for region in meant.fly.declared_regions
        if not counts[region]
    ]
    declared = ",".join(meant.fly.declared_regions)
    found += [unlisted_region(region, declared) for region in counts if region not in meant.fly.declared_regions]
    primary = meant.originals_region
    if primary and counts[primary] > 1:
        found.append(
            RegionWarning(
                "The primary region has more than one Machine, each with a volume of its own: an image is on one of them alone.",
                "1",
                str(counts[primary]),
                f"See which volume has the images, copy the others' with `darkroom store copy`, then: fly scale count 1 --region {primary}",
            )
        )
    return found

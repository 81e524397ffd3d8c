"""The regions of a deployment on Fly: where this process runs, and settings that contradict that."""

from __future__ import annotations

import msgspec

from service.errors import UnknownImageError
from service.settings.sections import Settings


class RegionWarning(msgspec.Struct, frozen=True):
    """A contradiction between the settings and the deployment: what is wrong, the expected and the actual value, and what to do."""

    detail: str
    expected: str
    received: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.detail} Expected: {self.expected}. Received: {self.received}. {self.remedy}"


def describe_region(settings: Settings) -> str:
    """Return a sentence that says where this process runs, and what it does there."""
    if not settings.fly.region:
        return "not on Fly: FLY_REGION is not set"
    where = f"region {settings.fly.region}" + (f", Machine {settings.fly.machine_id}" if settings.fly.machine_id else "")
    if settings.storage.is_shared:
        return f"{where}; the store is shared, so every region does everything"
    if settings.is_replica:
        return (
            f"{where}; originals are in {settings.originals_region}: requests that change something or need an image from there are "
            "replayed there"
        )
    return f"{where}; originals are here"


def require_primary(settings: Settings) -> None:
    """Return if this region has every original; raises `UnknownImageError`, which names the region that does."""
    if settings.is_replica:
        raise UnknownImageError(
            "Only the region that has every original can respond to this.",
            expected=settings.originals_region,
            received=settings.fly.region,
            remedy=f"Send the request again with the header fly-prefer-region: {settings.originals_region}.",
        )


def region_warnings(settings: Settings) -> list[RegionWarning]:
    """Return the settings that contradict where this process runs. It serves nevertheless, but probably not as intended."""
    found = []
    declared = ",".join(settings.fly.declared_regions)
    if settings.fly.region and declared and settings.fly.region not in settings.fly.declared_regions:
        found.append(unlisted_region(settings.fly.region, declared))
    if settings.fly.primary_region and declared and settings.fly.primary_region != settings.fly.declared_regions[0]:
        found.append(
            RegionWarning(
                "The first of DARKROOM_REGIONS is not the primary region.",
                f"{settings.fly.primary_region} first, as primary_region in fly.toml says",
                declared,
                "Put the primary first, or change primary_region.",
            )
        )
    if settings.fly.region and not settings.storage.is_shared and not settings.originals_region:
        found.append(
            RegionWarning(
                "No setting says which region has every original.",
                "primary_region in fly.toml, or DARKROOM_REGIONS with the primary first",
                "neither",
                "Set one of them. Without it, an image that is uploaded to one Machine is unknown to all others.",
            )
        )
    return found


def unlisted_region(region: str, declared: str) -> RegionWarning:
    """Return the warning that there is a Machine in a region that is not declared."""
    return RegionWarning(
        f"DARKROOM_REGIONS does not list the region {region}, which has a Machine.",
        declared or "none",
        region,
        f"Add it to DARKROOM_REGIONS in fly.toml and deploy, or remove the Machine: fly scale count 0 --region {region}",
    )

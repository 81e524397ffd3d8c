"""`python -m tests.deploy.costs`: the table of costs in docs/operation.md, from list prices and from what a photo was measured to take."""

from __future__ import annotations

import sys
from typing import NamedTuple

PHOTOS = (1_000, 10_000, 100_000)

# Measured: the renditions of a photo of 10 megapixels in the store (docs/operation.md), and AVIF at 1,280 × 853 (docs/quality.md).
RENDITIONS_MB = 3.4
VIEW_KB = 0.619 * 1280 * 853 / 8 / 1000
# The ladder, in four formats; and the original, its document, the intermediate and the like.
WIDTHS = 6
RENDITIONS = 4 * WIDTHS
OBJECTS = RENDITIONS + 6

# Estimates.
ORIGINAL_MB = 4.0
VIEWS = 300
NEW = 0.1
STORE_READS = 0.05
CDN_MISSES = 0.1
VERCEL_FORMATS = 2
VERCEL_READS = 0.1

# Fly.io, in USD: shared-cpu-2x with 2 GB in iad is 13.39 a month, and memory 6.00 per GB.
MACHINE = 13.39 - 0.5 * 6.00
VOLUME_GB = 0.15
FLY_EGRESS_GB = 0.02
# Tigris.
TIGRIS_GB, TIGRIS_FREE_GB = 0.02, 5
TIGRIS_WRITES, TIGRIS_FREE_WRITES = 0.005 / 1000, 10_000
TIGRIS_READS, TIGRIS_FREE_READS = 0.0005 / 1000, 100_000
# Cloudflare Images and R2.
STORED_PER_100_000, DELIVERED_PER_100_000 = 5.0, 1.0
TRANSFORMED, FREE_TRANSFORMED = 0.50 / 1000, 5_000
R2_GB, R2_FREE_GB = 0.015, 10
# Vercel Pro, in its cheapest region.
VERCEL_SEAT = 20.0
VERCEL_TRANSFORMED, VERCEL_CACHE_READ, VERCEL_CACHE_WRITE = 0.05 / 1000, 0.40 / 1e6, 4.00 / 1e6
VERCEL_UNIT_KB = 8
VERCEL_GB, VERCEL_FREE_GB = 0.15, 1_000
VERCEL_REQUEST, VERCEL_FREE_REQUESTS = 2.00 / 1e6, 10_000_000


class Site(NamedTuple):
    """A site with so many photos, each of which is shown `VIEWS` times a month."""

    photos: int

    @property
    def views(self) -> float:
        """Pictures that browsers get in a month."""
        return self.photos * VIEWS

    @property
    def egress_gb(self) -> float:
        """Gigabytes that browsers get in a month."""
        return self.views * VIEW_KB / 1e6

    @property
    def stored_gb(self) -> float:
        """Gigabytes of originals and renditions."""
        return self.photos * (ORIGINAL_MB + RENDITIONS_MB) / 1e3


def one_machine(site: Site) -> float:
    """One Machine on Fly with a volume of the next ten gigabytes."""
    return MACHINE + VOLUME_GB * -(-site.stored_gb // 10) * 10 + site.egress_gb * FLY_EGRESS_GB


def three_regions(site: Site, misses: float = 1.0) -> float:
    """Three Machines on Fly that never sleep, with Tigris; `misses`: the part of the views that a CDN in front does not have."""
    writes = site.photos * NEW * OBJECTS
    reads = site.views * misses * STORE_READS
    store = max(0, site.stored_gb - TIGRIS_FREE_GB) * TIGRIS_GB
    requests = max(0, writes - TIGRIS_FREE_WRITES) * TIGRIS_WRITES + max(0, reads - TIGRIS_FREE_READS) * TIGRIS_READS
    return 3 * MACHINE + store + requests + site.egress_gb * misses * FLY_EGRESS_GB


def three_regions_behind_cloudflare(site: Site) -> float:
    """The same behind Cloudflare's free plan."""
    return three_regions(site, CDN_MISSES)


def cloudflare_stored(site: Site) -> float:
    """Cloudflare Images with the originals in it: stored images are sold by the 100,000."""
    return STORED_PER_100_000 * -(-site.photos // 100_000) + site.views / 100_000 * DELIVERED_PER_100_000


def cloudflare_transformed(site: Site) -> float:
    """Cloudflare's transformations of originals in R2, each width of each photo once a month."""
    transformed = max(0, site.photos * WIDTHS - FREE_TRANSFORMED) * TRANSFORMED
    return transformed + max(0, site.photos * ORIGINAL_MB / 1e3 - R2_FREE_GB) * R2_GB


def vercel(site: Site) -> float:
    """Vercel Pro: each width of each photo in two formats once a month, and the transfer."""
    transformed = site.photos * WIDTHS * VERCEL_FORMATS
    units = VIEW_KB / VERCEL_UNIT_KB
    cache = transformed * units * VERCEL_CACHE_WRITE + site.views * VERCEL_READS * units * VERCEL_CACHE_READ
    transfer = max(0, site.egress_gb - VERCEL_FREE_GB) * VERCEL_GB + max(0, site.views - VERCEL_FREE_REQUESTS) * VERCEL_REQUEST
    return VERCEL_SEAT + transformed * VERCEL_TRANSFORMED + cache + transfer


ROWS = {
    "Darkroom on one Machine with a volume": one_machine,
    "Darkroom in three regions with Tigris": three_regions,
    "the same behind Cloudflare's free plan": three_regions_behind_cloudflare,
    "Cloudflare Images, stored and delivered": cloudflare_stored,
    "Cloudflare Images, transformed from R2": cloudflare_transformed,
    "Vercel Pro with `next/image`, one seat": vercel,
}


def table() -> str:
    """Return the table in Markdown, in USD a month."""
    lines = ["| a month, in USD | " + " | ".join(f"{photos:,} photos" for photos in PHOTOS) + " |", "|---|" + "---:|" * len(PHOTOS)]
    traffic = [f"{Site(photos).views / 1e6:g} million views, {Site(photos).egress_gb:,.0f} GB" for photos in PHOTOS]
    lines.append("| traffic | " + " | ".join(traffic) + " |")
    lines += [f"| {name} | " + " | ".join(f"{cost(Site(photos)):,.0f}" for photos in PHOTOS) + " |" for name, cost in ROWS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())

"""Open the sources that are configured."""

from __future__ import annotations

from collections.abc import Mapping

from service.settings.source_locations import SourceLocation
from service.sources.source import Source


def open_sources(
    locations: Mapping[str, SourceLocation], environ: Mapping[str, str], *, max_bytes: int, use_machine_role: bool
) -> Mapping[str, Source]:
    """Return the sources by name; raises `SettingsError` for one that cannot be opened.

    locations: by name.
    environ: the environment variables, with the credentials of buckets.
    max_bytes: the maximum size of an image in bytes.
    use_machine_role: whether buckets without credentials are read with the role of this machine or container.
    """
    hosts = {name: location for name, location in locations.items() if not location.is_bucket}
    sources: dict[str, Source] = {}
    # The clients of hosts and of buckets are imported only if they are used, because the server should start quickly.
    if hosts:
        from service.sources.fetcher import HttpSource, SourceFetcher  # noqa: PLC0415

        fetcher = SourceFetcher(hosts.values(), max_bytes=max_bytes)
        sources = {name: HttpSource(location, fetcher) for name, location in hosts.items()}
    if len(hosts) < len(locations):
        from service.sources.buckets import open_bucket  # noqa: PLC0415

        buckets = {name: location for name, location in locations.items() if location.is_bucket}
        for name, location in buckets.items():
            sources[name] = open_bucket(name, location, environ, max_bytes=max_bytes, use_machine_role=use_machine_role)
    return sources

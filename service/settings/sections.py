"""The settings in sections, as the server uses them: read and checked once at the start by `environment.load`.

Each field names its environment variable: `limits.max_pixels` is `DARKROOM_MAX_PIXELS`. `help.HELP` describes them one by one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
from msgspec import field
from msgspec.structs import FieldInfo

from service.images.formats import Format
from service.images.ladder import LADDER_WIDTHS
from service.images.transform import Transform
from service.settings.source_locations import SourceLocation

PREFIX = "DARKROOM_"
MEBIBYTE = 1 << 20

Scope: TypeAlias = Literal["ingest", "delete", "read"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

# Formats by name, and `fallback`: the one that every browser shows, which depends on the image.
WarmFormat: TypeAlias = Literal["jxl", "avif", "webp", "fallback"]
WARM_FORMATS: tuple[WarmFormat, ...] = get_args(WarmFormat)

SourceResponse: TypeAlias = Literal["picture", "redirect"]
SOURCE_RESPONSES: tuple[SourceResponse, ...] = get_args(SourceResponse)

# Stands for the transforms of the open ladder in the list of unsigned transforms.
OPEN_LADDER = "ladder"

# Stands for every origin in the list of origins whose pages may upload.
ANY_ORIGIN = "*"

Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def store_in(data: Path) -> str:
    """Return the URL of the default store: a folder in the data folder."""
    return (data / "store").as_uri()


def _default_data() -> Path:
    return Path(".darkroom").absolute()


def _variable(name: str) -> str:
    return PREFIX + name.upper()


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """The file of settings, the listening sockets, and what the server does for a client before it renders anything.

    `public_url` precedes the URLs in image documents and is empty for relative ones. `url_names`: whether they end with the names of
    images. `cors_origins` are those whose pages may read the responses to uploads. `trusted_proxies` are the networks of proxies whose
    `X-Forwarded-For` names the client. 0 means for `metrics_port` that metrics are not served, and for `max_connections_per_address` that
    there is no limit.
    """

    config: Path | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 8_080
    public_url: str = ""
    url_names: bool = False
    cors_origins: tuple[str, ...] = ()
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    cache_bytes: Positive = 256 * MEBIBYTE
    max_cold_requests: Natural = 1_024
    max_connections_per_address: Natural = 0
    trusted_proxies: tuple[str, ...] = ()
    # Granian's buffer is twice as large, and must have at least 8 KiB.
    max_header_bytes: Annotated[int, msgspec.Meta(ge=4_096, le=MEBIBYTE)] = 16_384


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """Signing keys, newest first; tokens with their scopes; and the transforms, in canonical form or `ladder`, that need no signature.

    Without a key, the server uses the development key of the data folder. Without a token, every request is authorized. A file takes the
    place of the keys or the tokens, and may change while the server runs: see `secret_files`.
    """

    signing_keys: tuple[bytes, ...] = field(default=(), name="DARKROOM_KEYS")
    keys_file: Path | None = None
    tokens: Mapping[str, frozenset[Scope]] = {}
    tokens_file: Path | None = None
    unsigned: tuple[str, ...] = (OPEN_LADDER,)


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """The data folder, the URL of the store, and the maximum size of derived objects in bytes, 0 for no limit."""

    data: Path = field(default_factory=_default_data)
    url: str = field(default_factory=lambda: store_in(_default_data()), name="DARKROOM_STORE")
    renditions_bytes: Natural = 0

    @property
    def is_shared(self) -> bool:
        """Whether every region reaches the same store: a volume, or memory, belongs to one Machine."""
        return self.url.startswith("s3:")


class FlySettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """The regions of the deployment, and the Machine that this process runs on; its fields are empty on other hosts.

    `declared_regions` are those of `DARKROOM_REGIONS`, the primary region first.
    """

    region: str = field(default="", name="FLY_REGION")
    machine_id: str = field(default="", name="FLY_MACHINE_ID")
    primary_region: str = field(default="", name="PRIMARY_REGION")
    declared_regions: tuple[str, ...] = field(default=(), name="DARKROOM_REGIONS")


class CloudflareSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """The Cloudflare zone in front of the server, empty if there is none, and how its API is reached."""

    zone: str = field(default="", name="DARKROOM_CLOUDFLARE_ZONE")
    token: str = field(default="", name="DARKROOM_CLOUDFLARE_TOKEN")
    url: str = field(default="https://api.cloudflare.com/client/v4", name="DARKROOM_CLOUDFLARE_URL")


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """The largest uploads, originals and renditions. `max_whole_pixels` is for originals that must be decoded as a whole."""

    max_upload_bytes: Positive = 64 * MEBIBYTE
    max_parts: Positive = 32
    max_pixels: Positive = 128_000_000
    max_whole_pixels: Positive = 100_000_000
    max_output_pixels: Positive = 40_000_000
    max_frames: Positive = 512


class RenderingSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """The render processes, their time and memory; the named transforms; the widths and qualities of ladders; and the formats to warm.

    `wait_seconds` is how long a client waits for a rendition, at most `render_seconds`, after which a render is stopped.
    """

    processes: Natural = field(default_factory=available_cores, name="DARKROOM_RENDER_PROCESSES")
    memory_bytes: Annotated[int, msgspec.Meta(ge=256 * MEBIBYTE)] = field(default=512 * MEBIBYTE, name="DARKROOM_RENDER_MEMORY_BYTES")
    queue_limit: Positive = field(default=256, name="DARKROOM_RENDER_QUEUE")
    wait_seconds: Seconds = 30.0
    render_seconds: Seconds = 60.0
    variants: Mapping[str, Transform] = {}
    widths: tuple[int, ...] = LADDER_WIDTHS
    quality: Mapping[Format, int] = {}
    warm_formats: tuple[WarmFormat, ...] = field(default=("jxl", "avif", "webp", "fallback"), name="DARKROOM_WARM")


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """The sources by name; how many seconds the result of a fetch is fresh; and what a URL of a source's image responds with.

    `response`: `picture` for the rendition itself, `redirect` for a redirect to its immutable URL.
    `machine_role`: whether buckets without credentials are read with the role that the cloud gives this machine or container.
    """

    locations: Mapping[str, SourceLocation] = field(default={}, name="DARKROOM_SOURCES")
    fresh_seconds: Positive = field(default=300, name="DARKROOM_SOURCE_SECONDS")
    response: SourceResponse = field(default="picture", name="DARKROOM_SOURCE_RESPONSE")
    machine_role: bool = field(default=False, name="DARKROOM_MACHINE_ROLE")


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """Which requests are logged and how.

    `clients`: whether with the address of the client. `hits`: the fraction of hits that are logged, 0 to 1. `lines_per_second`: the limit
    of each kind of line.
    """

    clients: bool = field(default=False, name="DARKROOM_LOG_CLIENTS")
    hits: Annotated[float, msgspec.Meta(ge=0, le=1)] = field(default=0.001, name="DARKROOM_LOG_HITS")
    lines_per_second: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = field(default=20, name="DARKROOM_LOG_LINES_PER_SECOND")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a server."""

    server: ServerSettings = field(default_factory=ServerSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    fly: FlySettings = field(default_factory=FlySettings)
    cloudflare: CloudflareSettings = field(default_factory=CloudflareSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    rendering: RenderingSettings = field(default_factory=RenderingSettings)
    sources: SourceSettings = field(default_factory=SourceSettings)
    log: LogSettings = field(default_factory=LogSettings)

    @property
    def primary_region(self) -> str:
        """The region that has every original if regions do not share a store; empty if none is named. Fly's own variable goes first."""
        return self.fly.primary_region or next(iter(self.fly.declared_regions), "")

    @property
    def originals_region(self) -> str:
        """The only region that has every original; empty if originals are in a shared store, or if this server does not run on Fly."""
        return self.primary_region if self.fly.region and not self.storage.is_shared else ""

    @property
    def is_replica(self) -> bool:
        """Whether another region has the originals: changes, and requests for images that are missing here, belong there."""
        return self.originals_region not in {"", self.fly.region}


# The fields of each section, and each field by its environment variable.
SECTIONS: Mapping[str, tuple[FieldInfo, ...]] = {
    section.name: msgspec.structs.fields(section.type) for section in msgspec.structs.fields(Settings)
}
FIELDS: Mapping[str, FieldInfo] = {field.encode_name: field for fields in SECTIONS.values() for field in fields}

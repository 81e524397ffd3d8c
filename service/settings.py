"""Settings: every environment variable, with unit and default."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args
from urllib.parse import unquote

import msgspec

from service.errors import BadTransformError
from service.images import transform
from service.images.transform import Transform

PREFIX = "DARKROOM_"
MEBIBYTE = 1 << 20

# Below this a budget would hardly hold what one image is asked for.
LEAST_RENDITIONS_BYTES = 16 * MEBIBYTE

Scope: TypeAlias = Literal["ingest", "delete", "read"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

# What can be warmed: formats by name, or the one that every browser shows.
WarmFormat: TypeAlias = Literal["webp", "avif", "fallback"]
WARM_FORMATS: tuple[WarmFormat, ...] = get_args(WarmFormat)

_VARIANT = re.compile(r"\s*([a-z][a-z0-9_-]{0,63})\s*:\s*(\S+)\s*")
_HEX_KEY = re.compile(r"(?:[0-9a-fA-F]{2}){16,}")
_TOKEN = re.compile(r"[A-Za-z0-9._~/=-]{16,}")
_REGION = re.compile(r"[a-z][a-z0-9-]{2,31}")
_MACHINE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SettingsError(Exception):
    """A setting that cannot be used: which one, what was expected, what came, what to do."""


class Setting(msgspec.Struct, frozen=True):
    """What the documentation says of one variable."""

    help: str
    default: str | None = None


def cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set. A field `max_pixels` is read from `DARKROOM_MAX_PIXELS`; `HELP` says what each means."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 8080
    data: str = ".darkroom"
    store: str = ""
    keys: str = ""
    tokens: str = ""
    public_url: str = ""
    unsigned_transforms: str = ""
    regions: str = ""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    cache_bytes: Positive = 256 * MEBIBYTE
    max_cold_requests: Natural = 0
    max_connections_per_address: Natural = 0
    # Granian's buffer is twice as large, and has to be 8 KiB at least.
    max_header_bytes: Annotated[int, msgspec.Meta(ge=4_096, le=MEBIBYTE)] = 16_384
    max_upload_bytes: Positive = 64 * MEBIBYTE
    max_parts: Positive = 32
    max_pixels: Positive = 128_000_000
    max_whole_pixels: Positive = 100_000_000
    max_output_pixels: Positive = 40_000_000
    max_frames: Positive = 512
    variants: str = ""
    warm: str = "webp,fallback"
    renditions_bytes: Natural = 0
    pull_hosts: str = ""
    pull_seconds: Positive = 300
    cloudflare_zone: str = ""
    cloudflare_token: str = ""
    cloudflare_url: str = "https://api.cloudflare.com/client/v4"
    render_processes: Natural = 0
    render_memory_bytes: Annotated[int, msgspec.Meta(ge=256 * MEBIBYTE)] = 512 * MEBIBYTE
    render_queue: Positive = 256
    wait_seconds: Seconds = 30.0
    render_seconds: Seconds = 60.0
    # Fly's own variables: where this Machine stands, and which region fly.toml calls the primary.
    fly_region: str = ""
    fly_machine_id: str = ""
    fly_primary_region: str = ""

    @property
    def data_path(self) -> Path:
        """The data folder: key, spool, and the default store."""
        return Path(self.data).absolute()

    @property
    def store_url(self) -> str:
        """The store: the one that is set, or a folder in the data folder."""
        return self.store or (self.data_path / "store").as_uri()

    @property
    def slots(self) -> int:
        """How many render processes run at a time."""
        return self.render_processes or cores()

    @property
    def cold_requests(self) -> int:
        """How many clients may wait for the origin: on Fly few enough that the concurrency limit of 25 leaves room for hits."""
        return self.max_cold_requests or (12 if self.fly_machine_id else 1_024)

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        """The configured keys, newest first; empty when the development key is to be used."""
        return tuple(bytes.fromhex(key) for key in _listed(self.keys))

    @property
    def token_scopes(self) -> Mapping[str, frozenset[Scope]]:
        """The configured tokens, each with what it may do."""
        return dict(_token(entry) for entry in _listed(self.tokens))

    @property
    def warm_formats(self) -> tuple[WarmFormat, ...]:
        """The formats that a new image's ladder is rendered in before anybody asks."""
        return tuple(word for word in WARM_FORMATS if word in _listed(self.warm))

    @property
    def declared_regions(self) -> tuple[str, ...]:
        """The regions that this deployment says it runs in, the primary first."""
        return tuple(_listed(self.regions))

    @property
    def primary_region(self) -> str:
        """The region that has every original where regions share no store; empty where nobody has named it."""
        return self.fly_primary_region or next(iter(self.declared_regions), "")

    @property
    def shares_store(self) -> bool:
        """Whether every region reaches the same store: what lies on a volume, or in memory, is one Machine's own."""
        return self.store_url.startswith("s3:")

    @property
    def originals_region(self) -> str:
        """The one region in which every original is, empty where there is no such one: they are here, or in a store that all share."""
        return self.primary_region if self.fly_region and not self.shares_store else ""

    @property
    def is_reader(self) -> bool:
        """Whether originals are in another region: what is not here may be there, and whatever changes something belongs there."""
        return self.originals_region not in {"", self.fly_region}

    @property
    def named_transforms(self) -> Mapping[str, Transform]:
        """The variants: transforms by name."""
        return dict(_variant(entry) for entry in re.split(r"[;\n]", self.variants) if entry.strip())

    @property
    def open_spellings(self) -> tuple[str, ...]:
        """The transforms that need no signature."""
        return tuple(self.unsigned_transforms.split())


HELP: Mapping[str, Setting] = {
    "host": Setting("Address to listen on. Any address other than loopback requires `DARKROOM_KEYS` and `DARKROOM_TOKENS`."),
    "port": Setting("Port to listen on."),
    "data": Setting("Folder for the development signing key, the temporary files of uploads, and the default store."),
    "store": Setting(
        "Where images are stored: `file:///folder`, `memory://`, or `s3://bucket` (`s3://` alone uses the bucket in `BUCKET_NAME`). S3 "
        "reads `AWS_ENDPOINT_URL_S3`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.",
        "`store` in the data folder",
    ),
    "keys": Setting(
        "Signing keys, newest first, separated by commas. Each has at least 32 hexadecimal digits (`openssl rand -hex 32`). "
        "The first key signs; all of them are accepted.",
        "created once and stored in the data folder",
    ),
    "tokens": Setting(
        "Bearer tokens, separated by commas, each written as `token:scope+scope`. A token has at least 16 characters; scopes are `ingest`, "
        "`delete` and `read`. A token without scopes has all of them.",
        "none: anyone who reaches the server may upload",
    ),
    "public_url": Setting(
        "URL prefix of the URLs in image documents, for example `https://img.example.com`.", "none: the URLs are relative"
    ),
    "unsigned_transforms": Setting("Transforms in canonical form, separated by spaces, that need no signature (`-` in its place).", "none"),
    "regions": Setting(
        "The regions of this deployment, separated by commas, the primary region first. `/health` reports them, and `darkroom regions` "
        "reads them.",
        "none",
    ),
    "metrics_port": Setting("Port of `/metrics` for Prometheus, on the address to listen on. Keep it private.", "none"),
    "cache_bytes": Setting("Memory for stored responses, in bytes, including bookkeeping."),
    "max_cold_requests": Setting(
        "Maximum number of clients that wait for responses that are not in memory. Further ones get 503.", "12 on Fly, 1024 elsewhere"
    ),
    "max_connections_per_address": Setting(
        "Maximum number of connections of one client address, or of one IPv6 network of 64 bits. The newest connections beyond it are "
        "closed within seconds. Set it where clients connect directly: behind a proxy all connections have the proxy's address.",
        "none",
    ),
    "max_header_bytes": Setting(
        "Maximum size of a request's header in bytes, 4096 to 1048576: its target, field names and values. A larger header gets 431. The "
        "server stops reading a header of more than twice the size, and that 431 has no body; for hits only this second bound applies."
    ),
    "max_upload_bytes": Setting("Maximum size of an upload in bytes: the whole body, however many files it has."),
    "max_parts": Setting("Maximum number of files in one multipart upload."),
    "max_pixels": Setting("Maximum number of pixels of an original, all frames together."),
    "max_whole_pixels": Setting(
        "The same for originals that must be decoded as a whole: progressive JPEG, interlaced PNG, WebP, GIF, AVIF, HEIC, TIFF, SVG."
    ),
    "max_output_pixels": Setting("Maximum number of pixels of a rendition."),
    "max_frames": Setting("Maximum number of frames or pages of an original."),
    "variants": Setting(
        "Named transforms, separated by `;` or new lines: `card: width=640,height=480,fit=cover; badge: width=96,round=max`. "
        "Requests for URLs name them as `variant`; the URLs contain the transform itself.",
        "none",
    ),
    "warm": Setting(
        "Formats in which the ladder of a new image is rendered in the background: any of `webp`, `avif` and `fallback` "
        "(JPEG, PNG or GIF, depending on the image), separated by commas, or `none`."
    ),
    "renditions_bytes": Setting(
        "Maximum size of the renditions and intermediates in a store on disk, in bytes. Beyond it the least recently read ones are "
        "removed, and made again on demand. For a bucket, use a lifecycle rule instead.",
        "none: they are never removed",
    ),
    "pull_hosts": Setting(
        "Hosts that images may be fetched from, separated by commas or spaces: `images.example.com`, `*.example.com`, "
        "`http://legacy.example.com` for a host without TLS, each with `:port` if needed.",
        "none: nothing is fetched",
    ),
    "pull_seconds": Setting("How long the result of a fetch is fresh, in seconds. After that the source is revalidated."),
    "cloudflare_zone": Setting(
        "Zone ID of the Cloudflare zone in front of the server, which is purged after takedowns.", "none: no CDN is purged"
    ),
    "cloudflare_token": Setting("API token of Cloudflare with the permission Zone > Cache Purge for that zone.", "none"),
    "cloudflare_url": Setting("Base URL of Cloudflare's API, for servers that reach it through a proxy."),
    "render_processes": Setting("Number of render processes.", "as many as cores"),
    "render_memory_bytes": Setting("Address space of one render process in bytes, at least 268435456."),
    "render_queue": Setting("Maximum number of renders that wait for a render process. Further ones get 503."),
    "wait_seconds": Setting("How long a client waits for a rendition, including its time in the queue, in seconds."),
    "render_seconds": Setting("After this many seconds a render is stopped by killing its process."),
}

# What the commands that speak to a server read, and no server does.
CLIENT_HELP: Mapping[str, Setting] = {
    "server": Setting("URL of the Darkroom server that `push`, `url`, `info`, `rm` and `open` use.", "`http://127.0.0.1:8080`"),
    "token": Setting(
        "Bearer token that they send, one of the server's `DARKROOM_TOKENS`. It can only be set here, not on the command line.",
        "none",
    ),
}

_FLY = {"fly_region": "FLY_REGION", "fly_machine_id": "FLY_MACHINE_ID", "fly_primary_region": "PRIMARY_REGION"}


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return _FLY.get(field, PREFIX + field.upper())


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings that `environ` asks for, checked one by one and together.

    Raises `SettingsError` for a value that cannot be used and for a `DARKROOM_` variable that does not exist.
    """
    names = {variable(field.name): field.name for field in msgspec.structs.fields(Settings)}
    others = {variable(field) for field in CLIENT_HELP}
    for name in environ:
        if name.startswith(PREFIX) and name not in names and name not in others:
            near = difflib.get_close_matches(name.removeprefix(PREFIX), (field.upper() for field in HELP), 1)
            hint = f"Did you mean {PREFIX}{near[0]}?" if near else "Remove it."
            raise SettingsError(f"{name} is no setting of Darkroom. {hint}")
    values = {field: environ[name] for name, field in names.items() if environ.get(name)}
    for field, text in values.items():
        try:
            msgspec.convert({field: text}, Settings, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{variable(field)}={text!r}: {str(error).split(' - at ')[0]}. {HELP[field].help}") from error
    settings = msgspec.convert(values, Settings, strict=False)
    _check(settings)
    return settings


def is_loopback(host: str) -> bool:
    """Return whether `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def development_key(data: Path) -> bytes:
    """Return the signing key of the data folder, made once, readable by its owner only."""
    path = data / "signing.key"
    data.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _make_key(path)
    text = path.read_text("latin-1").strip()
    if _HEX_KEY.fullmatch(text) is None:
        raise SettingsError(
            f"{path} is not a signing key: expected at least 32 hexadecimal digits. Put the right key back; "
            "removing the file makes a new one, and every URL signed so far stops working."
        )
    return bytes.fromhex(text)


def _make_key(path: Path) -> None:
    """Make the key file, whole and durable, unless another process is faster."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        Path(draft).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(settings: Settings) -> None:
    missing = [variable(name) for name in ("keys", "tokens") if not _listed(getattr(settings, name))]
    if missing and not is_loopback(settings.host):
        raise SettingsError(
            f"Listening on {settings.host}, beyond loopback, needs DARKROOM_KEYS and DARKROOM_TOKENS; missing: {' and '.join(missing)}. "
            "Make a key with `openssl rand -hex 32` and a token with `openssl rand -hex 16`, or listen on 127.0.0.1."
        )
    for key in _listed(settings.keys):
        if _HEX_KEY.fullmatch(key) is None:
            raise SettingsError(
                f"DARKROOM_KEYS: a key of {len(key)} characters is not an even number, at least 32, of hexadecimal digits. "
                "Make one with `openssl rand -hex 32`."
            )
    for entry in _listed(settings.tokens):
        _token(entry)
    if (
        settings.public_url
        and re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?", settings.public_url) is None
    ):
        raise SettingsError(
            f"DARKROOM_PUBLIC_URL={settings.public_url!r}: expected http:// or https://, a host, and no slash at the end, such as https://img.example.com."
        )
    for spelling in settings.open_spellings:
        try:
            transform.parse_canonical(spelling)
        except BadTransformError as error:
            raise SettingsError(
                f"DARKROOM_UNSIGNED_TRANSFORMS: {error.detail} Expected: {error.expected}. Received: {error.received}."
            ) from error
    words = _listed(settings.warm)
    if words != ["none"] and (not words or set(words) - set(WARM_FORMATS)):
        raise SettingsError(f"DARKROOM_WARM={settings.warm!r}: expected some of {', '.join(WARM_FORMATS)}, comma-separated, or none.")
    _check_budget(settings)
    _check_variants(settings)
    _check_cloudflare(settings)
    _check_regions(settings)
    if settings.wait_seconds > settings.render_seconds:
        raise SettingsError("DARKROOM_WAIT_SECONDS must not be larger than DARKROOM_RENDER_SECONDS: nobody waits for what was killed.")
    if (
        settings.fly_machine_id
        and settings.store_url.startswith("file:")
        and not _on_a_mount(Path(unquote(settings.store_url.removeprefix("file://"))))
    ):
        raise SettingsError(
            f"DARKROOM_STORE={settings.store_url}: on Fly this folder is lost with the next deploy, because it is not on a volume. "
            "Mount a volume there, or set DARKROOM_STORE=s3:// after `fly storage create`."
        )


def _check_budget(settings: Settings) -> None:
    if settings.renditions_bytes and not settings.store_url.startswith("file:"):
        raise SettingsError(
            f"DARKROOM_RENDITIONS_BYTES is for a store on disk, not for {settings.store_url}. Remove it; a bucket has lifecycle rules."
        )
    if 0 < settings.renditions_bytes < LEAST_RENDITIONS_BYTES:
        raise SettingsError(
            f"DARKROOM_RENDITIONS_BYTES={settings.renditions_bytes}: expected 0, for no bound, or at least {LEAST_RENDITIONS_BYTES}."
        )


def _check_regions(settings: Settings) -> None:
    """Raise for a name that is none: they stand in a field of every answer, and in orders to Fly's proxy."""
    for field in ("fly_region", "fly_primary_region"):
        name = getattr(settings, field)
        if name and _REGION.fullmatch(name) is None:
            raise SettingsError(
                f"{variable(field)}={name!r}: expected the name of a region of Fly, such as arn. Fly sets it itself; unset it."
            )
    if settings.fly_machine_id and _MACHINE.fullmatch(settings.fly_machine_id) is None:
        raise SettingsError(
            f"FLY_MACHINE_ID={settings.fly_machine_id!r}: expected a Machine's id, such as 148e21ea246389. Fly sets it itself; unset it."
        )
    declared = settings.declared_regions
    if len(set(declared)) != len(declared) or any(_REGION.fullmatch(name) is None for name in declared):
        raise SettingsError(
            f"DARKROOM_REGIONS={settings.regions!r}: expected regions of Fly, comma-separated, each once, such as arn,lhr,iad. "
            "`fly platform regions` lists them all."
        )


def _check_cloudflare(settings: Settings) -> None:
    if bool(settings.cloudflare_zone) != bool(settings.cloudflare_token):
        raise SettingsError("DARKROOM_CLOUDFLARE_ZONE and DARKROOM_CLOUDFLARE_TOKEN belong together: set both, or none.")


def _check_variants(settings: Settings) -> None:
    names: set[str] = set()
    for entry in re.split(r"[;\n]", settings.variants):
        if entry.strip():
            name, _ = _variant(entry)
            if name in names:
                raise SettingsError(f"DARKROOM_VARIANTS: {name} stands twice. Give each variant a name of its own.")
            names.add(name)


def _variant(entry: str) -> tuple[str, Transform]:
    match = _VARIANT.fullmatch(entry)
    if match is None:
        raise SettingsError(
            f"DARKROOM_VARIANTS: {entry.strip()!r} is no name and transform. Expected for example card: width=640,height=480,fit=cover; "
            "names of a-z 0-9 _ -."
        )
    name, spelling = match.groups()
    try:
        return name, transform.parse(spelling)
    except BadTransformError as error:
        raise SettingsError(
            f"DARKROOM_VARIANTS: {name}: {error.detail} Expected: {error.expected}. Received: {error.received}. {error.remedy}"
        ) from error


def _on_a_mount(path: Path) -> bool:
    return any(os.path.ismount(folder) for folder in (path, *path.parents) if folder != Path("/"))


def _token(entry: str) -> tuple[str, frozenset[Scope]]:
    token, colon, named = entry.partition(":")
    scopes = frozenset(scope for scope in SCOPES if not colon or scope in named.split("+"))
    unknown = set(named.split("+")) - set(SCOPES) if colon else set()
    if _TOKEN.fullmatch(token) is None or unknown:
        what = f"unknown scope {', '.join(sorted(unknown))}" if unknown else f"a token of {len(token)} characters"
        raise SettingsError(
            f"DARKROOM_TOKENS: {what}. Expected token:scope+scope, the token at least 16 of A-Z a-z 0-9 . _ ~ / = -, "
            f"scopes {', '.join(SCOPES)}."
        )
    return token, scopes


def _listed(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]

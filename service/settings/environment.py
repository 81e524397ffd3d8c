"""`read` reads the settings from variables, each one parsed once, and checks them one by one and together.

The variables are those of the environment, of the file of settings, and of files of secrets; see `variables`.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import msgspec

from service.errors import BadTransformError, SettingsError
from service.images import transform
from service.images.formats import FORMATS, Format
from service.images.ladder import LADDER_WIDTHS
from service.images.options import MAX_QUALITY
from service.images.transform import Transform
from service.settings import bucket_variables
from service.settings.config_file import CLOUD_VARIABLES, accepted_numbers, advice
from service.settings.help import CLIENT_HELP, HELP
from service.settings.loopback import is_loopback
from service.settings.sections import (
    ANY_ORIGIN,
    FIELDS,
    MEBIBYTE,
    OPEN_LADDER,
    PREFIX,
    SCOPES,
    SECTIONS,
    SOURCE_RESPONSES,
    WARM_FORMATS,
    Scope,
    Settings,
    SourceResponse,
    WarmFormat,
    available_cores,
    store_in,
)
from service.settings.signing_key import parse_key
from service.settings.source_locations import parse_sources
from service.settings.variables import FILE_SUFFIX, Variables, is_secret, read_variables

# A smaller quota could hardly hold the renditions of a single image.
MIN_RENDITIONS_BYTES = 16 * MEBIBYTE

# The widths of a ladder, which bound the renditions that strangers can request of an image. No screen shows more pixels than 4K.
MAX_LADDER_WIDTHS = 16
MAX_LADDER_WIDTH = 3_840

# On Fly, clients that wait for a render must leave room for hits below the concurrency limit of 25 in fly.toml.
MAX_COLD_REQUESTS_ON_FLY = 12

_VARIANT = re.compile(r"\s*([a-z][a-z0-9_-]{0,63})\s*:\s*(\S+)\s*")
_FORMATS_WITH_QUALITY = [name for name, traits in FORMATS.items() if "quality" not in traits.ignored_options]
_QUALITY = re.compile(rf"({'|'.join(_FORMATS_WITH_QUALITY)})=([0-9]{{1,3}})")
_WIDTH = re.compile(r"[1-9][0-9]{0,3}")
_TOKEN = re.compile(r"[A-Za-z0-9._~/=-]{16,}")
_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?")
# An origin as browsers write it in `Origin` (RFC 6454 §6.2), for the schemes of pages.
_ORIGIN = re.compile(r"(https?)://([a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:([1-9][0-9]{0,4}))?")
_MAX_PORT = 65_535
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_REGION = re.compile(r"[a-z][a-z0-9-]{2,31}")
_MACHINE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Configuration(msgspec.Struct, frozen=True):
    """The settings, and the variables that they were read from, which also have the credentials of buckets."""

    settings: Settings
    variables: Variables


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings in `environ`, and in the files that it names; an empty variable is the same as one that is not set.

    Raises `SettingsError` for a value that cannot be used and for a `DARKROOM_` variable that does not exist.
    """
    return read(environ).settings


def read(environ: Mapping[str, str]) -> Configuration:
    """Return the settings as `load` does, and the variables that they were read from; raises `SettingsError`."""
    settings, variables, errors = examine(environ)
    if settings is None:
        raise errors[0]
    return Configuration(settings, variables)


def examine(environ: Mapping[str, str]) -> tuple[Settings | None, Variables, list[SettingsError]]:
    """Return the settings, `None` if they cannot be used; their variables; and every error that was found in them."""
    try:
        variables = read_variables(environ)
    except SettingsError as error:
        return None, Variables({}, {}), [error]
    values: dict[str, Any] = {}
    errors: list[SettingsError] = []
    for variable in FIELDS:
        if text := variables.texts.get(variable):
            try:
                values[variable] = _parse(variable, text)
            except SettingsError as error:
                errors.append(variables.locate(variable, error))
    errors += _unknown_variables(environ, variables, bucket_variables.own_names(values.get("DARKROOM_SOURCES", {})))
    if errors:
        return None, variables, errors
    _set_defaults(values)
    settings = msgspec.convert(
        {
            section: {field.encode_name: values[field.encode_name] for field in fields if field.encode_name in values}
            for section, fields in SECTIONS.items()
        },
        Settings,
        builtin_types=(bytes,),
    )
    try:
        _check(settings)
    except SettingsError as error:
        return None, variables, [error]
    return settings, variables, []


def _unknown_variables(environ: Mapping[str, str], variables: Variables, of_buckets: Collection[str]) -> list[SettingsError]:
    """Return an error for each `DARKROOM_` variable that does not exist, with the most similar one that does."""
    servers = {*HELP, *of_buckets}
    errors = []
    # Also an empty variable is misspelled.
    for name in dict.fromkeys([*environ, *variables.texts]):
        origin = variables.origins.get(name)
        in_file = origin is not None and origin.place == "file"
        known = servers if in_file else servers | CLIENT_HELP.keys()
        if not name.startswith(PREFIX) or name in known or (name.endswith(FILE_SUFFIX) and is_secret(name.removesuffix(FILE_SUFFIX))):
            continue
        candidates = (servers | CLOUD_VARIABLES) if in_file else servers
        similar = difflib.get_close_matches(
            name.removeprefix(PREFIX).removeprefix(PREFIX), sorted(one.removeprefix(PREFIX) for one in candidates), 1
        )
        spell = str.lower if in_file else PREFIX.__add__
        remedy = f"Did you mean {spell(similar[0])}?" if similar else "Remove it."
        where = f"{origin.path}: " if origin is not None and in_file else ""
        detail = f"{where}{spell(name.removeprefix(PREFIX))} is not a setting of Darkroom."
        expected = spell(similar[0]) if similar else "a name in docs/settings.md"
        errors.append(
            SettingsError(f"{detail} {remedy}", detail=detail, expected=expected, received=spell(name.removeprefix(PREFIX)), remedy=remedy)
        )
    return errors


def _parse(variable: str, text: str) -> Any:
    if variable in _PARSERS:
        return _PARSERS[variable](text)
    kind = FIELDS[variable].type
    try:
        value = msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError.invalid(variable, accepted_numbers(kind), repr(text), advice(variable, text)) from error
    if value == math.inf:
        # Some limits become whole numbers, such as those of the kernel.
        raise SettingsError.invalid(variable, accepted_numbers(kind), repr(text), advice(variable, text))
    return value


def _set_defaults(values: dict[str, Any]) -> None:
    """Set the defaults that depend on the machine or on another setting."""
    if "DARKROOM_DATA" in values and "DARKROOM_STORE" not in values:
        values["DARKROOM_STORE"] = store_in(values["DARKROOM_DATA"])
    if not values.get("DARKROOM_RENDER_PROCESSES"):
        values["DARKROOM_RENDER_PROCESSES"] = available_cores()
    if not values.get("DARKROOM_MAX_COLD_REQUESTS"):
        values.pop("DARKROOM_MAX_COLD_REQUESTS", None)
        if "FLY_MACHINE_ID" in values:
            values["DARKROOM_MAX_COLD_REQUESTS"] = MAX_COLD_REQUESTS_ON_FLY


def _public_url(text: str) -> str:
    if _PUBLIC_URL.fullmatch(text) is None:
        raise SettingsError.invalid(
            "DARKROOM_PUBLIC_URL", "http:// or https://, a host, and no slash at the end, such as https://img.example.com", repr(text)
        )
    return text


def _boolean(variable: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise SettingsError.invalid(variable, "true or false", repr(text))
    return text == "true"


def _cors_origins(text: str) -> tuple[str, ...]:
    origins = _words(text)
    if origins == (ANY_ORIGIN,):
        return origins
    for origin in origins:
        match = _ORIGIN.fullmatch(origin)
        if match is None or match[5] == _DEFAULT_PORTS[match[1]] or int(match[5] or 0) > _MAX_PORT:
            raise SettingsError.invalid(
                "DARKROOM_CORS_ORIGINS",
                "* without other entries, or origins as browsers write them: http:// or https://, the host in lower case, a port that is "
                "not the default one, and nothing after it, such as https://www.example.com or http://localhost:3000",
                repr(origin),
            )
    return origins


def _signing_keys(text: str) -> tuple[bytes, ...]:
    keys = []
    for entry in _entries(text):
        key = parse_key(entry)
        if key is None:
            raise SettingsError.invalid(
                "DARKROOM_KEYS",
                "an even number of hexadecimal digits, at least 32, for each key",
                f"a key of {len(entry)} characters",
                "Create one with `openssl rand -hex 32`.",
            )
        keys.append(key)
    return tuple(keys)


def _tokens(text: str) -> Mapping[str, frozenset[Scope]]:
    return dict(_token(entry) for entry in _entries(text))


def _token(entry: str) -> tuple[str, frozenset[Scope]]:
    token, colon, names = entry.partition(":")
    scopes = frozenset(scope for scope in SCOPES if not colon or scope in names.split("+"))
    unknown = set(names.split("+")) - set(SCOPES) if colon else set()
    if _TOKEN.fullmatch(token) is None or unknown:
        raise SettingsError.invalid(
            "DARKROOM_TOKENS",
            f"token:scope+scope, the token at least 16 of A-Z a-z 0-9 . _ ~ / = -, the scopes {', '.join(SCOPES)}",
            f"the unknown scope {', '.join(map(repr, sorted(unknown)))}" if unknown else f"a token of {len(token)} characters",
        )
    return token, scopes


def _unsigned(text: str) -> tuple[str, ...]:
    words = tuple(text.split())
    if words == ("none",):
        return ()
    for word in words:
        if word == OPEN_LADDER:
            continue
        try:
            transform.parse_canonical(word)
        except BadTransformError as error:
            raise _invalid_transform("DARKROOM_UNSIGNED", error) from error
    return words


def _widths(text: str) -> tuple[int, ...]:
    entries = _entries(text)
    widths = tuple(int(entry) for entry in entries if _WIDTH.fullmatch(entry))
    rising = list(widths) == sorted(set(widths))
    if len(widths) < len(entries) or not 1 <= len(widths) <= MAX_LADDER_WIDTHS or not rising or widths[-1] > MAX_LADDER_WIDTH:
        raise SettingsError.invalid(
            "DARKROOM_WIDTHS",
            f"1 to {MAX_LADDER_WIDTHS} whole numbers from 1 to {MAX_LADDER_WIDTH}, separated by commas, each larger than the one before",
            repr(text),
            f"The default is {','.join(map(str, LADDER_WIDTHS))}.",
        )
    return widths


def _quality(text: str) -> Mapping[Format, int]:
    entries = [_QUALITY.fullmatch(entry) for entry in _entries(text)]
    quality = {cast(Format, entry[1]): int(entry[2]) for entry in entries if entry}
    if not entries or len(quality) < len(entries) or not all(1 <= level <= MAX_QUALITY for level in quality.values()):
        raise SettingsError.invalid(
            "DARKROOM_QUALITY",
            f"some of {', '.join(_FORMATS_WITH_QUALITY)}, each once with a whole number from 1 to {MAX_QUALITY}, separated by commas",
            repr(text),
            "Write for example avif=55,webp=78.",
        )
    return quality


def _variants(text: str) -> Mapping[str, Transform]:
    variants: dict[str, Transform] = {}
    for entry in re.split(r"[;\n]", text):
        if not entry.strip():
            continue
        match = _VARIANT.fullmatch(entry)
        if match is None:
            raise SettingsError.invalid(
                "DARKROOM_VARIANTS",
                "a name (a-z 0-9 _ -) and a transform, such as card: width=640,height=480,fit=cover",
                repr(entry.strip()),
            )
        name, spelling = match.groups()
        if name in variants:
            raise SettingsError.invalid("DARKROOM_VARIANTS", "each name once", f"{name} twice", "Give each variant its own name.")
        try:
            variants[name] = transform.parse(spelling)
        except BadTransformError as error:
            raise _invalid_transform(f"DARKROOM_VARIANTS: {name}", error) from error
    return variants


def _invalid_transform(setting: str, error: BadTransformError) -> SettingsError:
    remedy = " ".join(filter(None, (error.detail, error.remedy)))
    return SettingsError.invalid(setting, error.expected or "a transform", error.received or "something else", remedy)


def _warm_formats(text: str) -> tuple[WarmFormat, ...]:
    words = _entries(text)
    if words == ["none"]:
        return ()
    if not words or set(words) - set(WARM_FORMATS):
        raise SettingsError.invalid("DARKROOM_WARM", f"some of {', '.join(WARM_FORMATS)}, separated by commas, or none", repr(text))
    return tuple(word for word in WARM_FORMATS if word in words)


def _source_response(text: str) -> SourceResponse:
    for response in SOURCE_RESPONSES:
        if text == response:
            return response
    raise SettingsError.invalid("DARKROOM_SOURCE_RESPONSE", " or ".join(SOURCE_RESPONSES), repr(text))


def _fly_region(variable: str, text: str) -> str:
    # The name becomes a header field of every response, and part of instructions to Fly's proxy.
    if _REGION.fullmatch(text) is None:
        raise SettingsError.invalid(variable, "the name of a Fly region, such as arn", repr(text), "Fly sets it itself; unset it.")
    return text


def _machine_id(text: str) -> str:
    if _MACHINE.fullmatch(text) is None:
        raise SettingsError.invalid(
            "FLY_MACHINE_ID", "the ID of a Machine, such as 148e21ea246389", repr(text), "Fly sets it itself; unset it."
        )
    return text


def _regions(text: str) -> tuple[str, ...]:
    names = _entries(text)
    if len(set(names)) != len(names) or any(_REGION.fullmatch(name) is None for name in names):
        raise SettingsError.invalid(
            "DARKROOM_REGIONS",
            "Fly regions, separated by commas, each once, such as arn,lhr,iad",
            repr(text),
            "`fly platform regions` lists all regions.",
        )
    return tuple(names)


def _trusted_proxies(text: str) -> tuple[str, ...]:
    networks = []
    for word in _words(text):
        try:
            networks.append(str(ipaddress.ip_network(word)))
        except ValueError:
            raise SettingsError.invalid(
                "DARKROOM_TRUSTED_PROXIES",
                "addresses and networks in CIDR notation without host bits, separated by commas, such as 10.0.0.0/8, 2001:db8::/32",
                repr(word),
            ) from None
    return tuple(networks)


def _words(text: str) -> tuple[str, ...]:
    """Return what commas or white space separate."""
    return tuple(text.replace(",", " ").split())


_PARSERS: Mapping[str, Callable[[str], object]] = {
    "DARKROOM_CONFIG": lambda text: Path(text).absolute(),
    "DARKROOM_PUBLIC_URL": _public_url,
    "DARKROOM_URL_NAMES": partial(_boolean, "DARKROOM_URL_NAMES"),
    "DARKROOM_LOG_CLIENTS": partial(_boolean, "DARKROOM_LOG_CLIENTS"),
    "DARKROOM_CORS_ORIGINS": _cors_origins,
    "DARKROOM_KEYS": _signing_keys,
    "DARKROOM_KEYS_FILE": lambda text: Path(text).absolute(),
    "DARKROOM_TOKENS": _tokens,
    "DARKROOM_TOKENS_FILE": lambda text: Path(text).absolute(),
    "DARKROOM_TRUSTED_PROXIES": _trusted_proxies,
    "DARKROOM_UNSIGNED": _unsigned,
    "DARKROOM_DATA": lambda text: Path(text).absolute(),
    "DARKROOM_REGIONS": _regions,
    "FLY_REGION": partial(_fly_region, "FLY_REGION"),
    "PRIMARY_REGION": partial(_fly_region, "PRIMARY_REGION"),
    "FLY_MACHINE_ID": _machine_id,
    "DARKROOM_VARIANTS": _variants,
    "DARKROOM_WARM": _warm_formats,
    "DARKROOM_WIDTHS": _widths,
    "DARKROOM_QUALITY": _quality,
    "DARKROOM_SOURCES": parse_sources,
    "DARKROOM_SOURCE_RESPONSE": _source_response,
    "DARKROOM_MACHINE_ROLE": partial(_boolean, "DARKROOM_MACHINE_ROLE"),
}


def _check(settings: Settings) -> None:
    """Raise `SettingsError` for settings that contradict each other."""
    server, rendering, cloudflare = settings.server, settings.rendering, settings.cloudflare
    _check_auth(settings)
    if bool(cloudflare.zone) != bool(cloudflare.token):
        raise SettingsError("DARKROOM_CLOUDFLARE_ZONE and DARKROOM_CLOUDFLARE_TOKEN belong together. Set both, or neither.")
    if server.metrics_port == server.port:
        raise SettingsError.invalid(
            "DARKROOM_METRICS_PORT", "another port than DARKROOM_PORT", str(server.metrics_port), "Clients must not reach the metrics."
        )
    if rendering.wait_seconds > rendering.render_seconds:
        raise SettingsError.invalid(
            "DARKROOM_WAIT_SECONDS",
            f"at most DARKROOM_RENDER_SECONDS, which is {rendering.render_seconds:g}",
            f"{rendering.wait_seconds:g}",
            "A render that was stopped has no result to wait for.",
        )
    _check_storage(settings)


def _check_auth(settings: Settings) -> None:
    auth, host = settings.auth, settings.server.host
    missing = []
    for variable, value, file in (
        ("DARKROOM_KEYS", auth.signing_keys, auth.keys_file),
        ("DARKROOM_TOKENS", auth.tokens, auth.tokens_file),
    ):
        if value and file is not None:
            raise SettingsError(f"{variable} and {variable}_FILE are two places for the same secrets. Set one of them.")
        if not value and file is None:
            missing.append(variable)
    if missing and not is_loopback(host):
        raise SettingsError(
            f"Listening on {host}, which other machines can reach, requires DARKROOM_KEYS and DARKROOM_TOKENS; "
            f"missing: {' and '.join(missing)}. Create a key with `openssl rand -hex 32` and a token with `openssl rand -hex 16`, or "
            "listen on 127.0.0.1."
        )


def _check_storage(settings: Settings) -> None:
    storage = settings.storage
    is_on_disk = storage.url.startswith("file:")
    if storage.renditions_bytes and not is_on_disk:
        raise SettingsError(
            f"DARKROOM_RENDITIONS_BYTES is for a store on disk, not for {storage.url}. Remove it; for a bucket, use lifecycle rules."
        )
    if 0 < storage.renditions_bytes < MIN_RENDITIONS_BYTES:
        raise SettingsError.invalid(
            "DARKROOM_RENDITIONS_BYTES", f"0 for no limit, or at least {MIN_RENDITIONS_BYTES}", str(storage.renditions_bytes)
        )
    if settings.fly.machine_id and is_on_disk and not _is_on_volume(Path(unquote(storage.url.removeprefix("file://")))):
        raise SettingsError(
            f"DARKROOM_STORE={storage.url}: this folder is not on a Fly volume, so the next deployment would lose it. "
            "Mount a volume there, or set DARKROOM_STORE=s3:// after `fly storage create`."
        )


def _is_on_volume(path: Path) -> bool:
    return any(os.path.ismount(folder) for folder in (path, *path.parents) if folder != Path("/"))


def _entries(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]

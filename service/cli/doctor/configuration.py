"""The settings, the signing keys, the tokens and the regions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from service.cli.doctor.finding import Finding, from_error, ok, skipped
from service.errors import SettingsError
from service.ops.regions import describe_region, region_warnings
from service.settings.environment import Configuration
from service.settings.loopback import is_loopback
from service.settings.secret_files import load_keys, load_tokens
from service.settings.sections import FIELDS, Settings

# In the data folder, the key of a server that has no other.
DEVELOPMENT_KEY = "signing.key"


def check_configuration(configuration: Configuration) -> Iterator[Finding]:
    """Say how many settings are set, and where."""
    origins = [origin.place for name, origin in configuration.variables.origins.items() if name in FIELDS]
    counts = ", ".join(f"{number} from the {place}" for place, number in sorted(Counter(origins).items())) or "none is set"
    yield ok("settings", f"The settings are valid: {counts}.")


def invalid_settings(errors: list[SettingsError]) -> Iterator[Finding]:
    """Yield each error in the settings, with which no server would start."""
    for error in errors:
        yield from_error("unknown-setting" if "is not a setting" in error.detail else "invalid-setting", error)


def signing_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys that a server would use; the development key only if it exists. Raises `SettingsError`."""
    auth = settings.auth
    has_key = auth.keys_file is not None or auth.signing_keys or (settings.storage.data / DEVELOPMENT_KEY).exists()
    return load_keys(auth, settings.storage.data) if has_key else ()


def check_keys(configuration: Configuration) -> Iterator[Finding]:
    """Check that signing keys and tokens can be used, and that a server with a public URL has some of its own."""
    settings = configuration.settings
    try:
        keys = signing_keys(settings)
        tokens = load_tokens(settings.auth, settings.sources.locations)
    except SettingsError as error:
        yield from_error("unusable-secret", error)
        return
    is_public = is_public_url(settings.server.public_url)
    if is_public and not (settings.auth.keys_file or settings.auth.signing_keys):
        yield Finding(
            "development-key",
            "warning",
            "URLs are signed with the development key of the data folder.",
            "DARKROOM_KEYS or DARKROOM_KEYS_FILE",
            "neither",
            "Set DARKROOM_KEYS to the content of signing.key: it is lost with the folder, and with it every signed URL stops working.",
        )
    else:
        yield ok(
            "keys", f"{len(keys)} signing {'key' if len(keys) == 1 else 'keys'}." if keys else "The first start creates a signing key."
        )
    if tokens:
        yield ok("tokens", f"{len(tokens)} {'token' if len(tokens) == 1 else 'tokens'}.")
    elif is_public:
        yield Finding(
            "no-token",
            "error",
            "Anyone who reaches DARKROOM_PUBLIC_URL may upload images and take them down.",
            "DARKROOM_TOKENS_FILE or DARKROOM_TOKENS",
            "neither",
            "`darkroom token NAME` makes a token and its line for the file.",
        )
    else:
        yield Finding("no-token", "note", "Without tokens, everyone who reaches the server may upload: only this machine does.")


def check_regions(configuration: Configuration) -> Iterator[Finding]:
    """Compare the regions in the settings with the one that this process runs in."""
    warnings = region_warnings(configuration.settings)
    for warning in warnings:
        yield Finding("region", "warning", warning.detail, warning.expected, warning.received, warning.remedy)
    if not warnings:
        yield (
            ok("regions", f"{describe_region(configuration.settings)}.")
            if configuration.settings.fly.region
            else skipped("regions", "Not on Fly: FLY_REGION is not set.")
        )


def is_public_url(url: str) -> bool:
    """Return whether a URL is set that other machines can reach."""
    return bool(url) and not is_loopback(urlsplit(url).hostname or "")

"""Clients of buckets, configured by environment variables (`service.settings.bucket_variables`).

obstore reads the variables of the environment in addition to its arguments. Everything that could come from there is passed explicitly,
because the environment's own belong to Darkroom's store or to other sources.

**Where requests go.** The host of the endpoint may be anywhere, also in the server's own network: the operator names it. No other host is
requested. obstore would use the proxies of the environment, and would follow a redirect to any address and return what is there; it has an
option for neither. But it sends nothing to a host that is excluded from its proxy, and everything else to the proxy. So its proxy is a host
that does not exist, and the hosts that it needs are excluded.

No connection is reused: after a suspend of this machine, pooled connections are dead, and no packet says so. One more handshake costs
little next to an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import msgspec
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from service.errors import SettingsError
from service.settings.bucket_variables import BucketVariables
from service.settings.source_locations import SourceKind, SourceLocation

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSCredential, RetryConfig, S3Credential

Store: TypeAlias = S3Store | GCSStore | AzureStore

# How long a store may take to accept a connection, and how long it may be silent, in seconds.
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 10.0
# Bounds a request whatever its caller does.
_REQUEST_SECONDS = 120.0

# Requests without a response, or with status 429 or 5xx, are repeated, and so is the rest of a body that breaks off.
RETRIES = 2
_RETRY_SECONDS = 10.0

# RFC 6761 §6.4: a name that no resolver finds.
_NO_PROXY = "http://requests-to-other-hosts.invalid"

# The hosts beside the endpoint that issue tokens: for credentials of a user in a file of Google Cloud, and for a client of Entra ID.
_GOOGLE_TOKENS = ("oauth2.googleapis.com", "accounts.google.com")
_AZURE_TOKENS = ("login.microsoftonline.com",)
# The metadata services and token services of the clouds differ by product. Only the clouds' own buckets take the role of a machine.
_EVERY_HOST = ("*", "0.0.0.0/0", "::/0")

_ENDPOINT = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?(?:/[A-Za-z0-9._~/-]*)?")

# What the remedies name: the variables of each kind, with the prefix of the source's own if it has some.
NAMES: Mapping[SourceKind, Mapping[str, str]] = {
    "s3": {
        "credentials": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "anonymous": "AWS_SKIP_SIGNATURE",
        "region": "AWS_REGION",
        "endpoint": "AWS_ENDPOINT_URL_S3",
    },
    "gs": {
        "credentials": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY",
        "anonymous": "GOOGLE_SKIP_SIGNATURE",
        "region": "GOOGLE_BASE_URL",
        "endpoint": "GOOGLE_BASE_URL",
    },
    "az": {
        "credentials": "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
        "anonymous": "AZURE_SKIP_SIGNATURE",
        "region": "AZURE_STORAGE_ENDPOINT",
        "endpoint": "AZURE_STORAGE_ENDPOINT",
    },
}
_VARIABLE = re.compile(r"\b(?:AWS|GOOGLE|AZURE)_[A-Z0-9_]+")


class _ServiceAccount(msgspec.Struct, frozen=True):
    """What obstore needs of a service account's key."""

    private_key: str
    private_key_id: str
    client_email: str


def open_store(location: SourceLocation, variables: BucketVariables, *, use_machine_role: bool) -> Store:
    """Return the client of the whole bucket that a source is in. It connects with its first request.

    use_machine_role: whether a source without credentials takes those that the cloud has for this machine or container.

    Raises `SettingsError` if the variables that apply to the source cannot be used.
    """
    try:
        if location.kind == "s3":
            return _open_s3(location, variables, use_machine_role=use_machine_role)
        if location.kind == "gs":
            return _open_gcs(location, variables, use_machine_role=use_machine_role)
        return _open_azure(location, variables, use_machine_role=use_machine_role)
    except (BaseError, ValueError) as error:
        # Its text may quote a part of the value.
        names = " and ".join(map(variables.name, variables.values)) or "the variables of its cloud"
        raise SettingsError(f"{location.url('')} in DARKROOM_SOURCES cannot be opened: {names} cannot be used. Correct them.") from error


def names_in(text: str, variables: BucketVariables) -> str:
    """Return a text of `NAMES` with the names that its variables have for a source."""
    return _VARIABLE.sub(lambda match: variables.name(match[0]), text)


def _open_s3(location: SourceLocation, variables: BucketVariables, *, use_machine_role: bool) -> S3Store:
    endpoint = _endpoint(variables, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    # Stores of other providers take any region, or only this one.
    region = variables.get("AWS_REGION", "AWS_DEFAULT_REGION") or ("auto" if endpoint else "us-east-1")
    endpoint = endpoint or f"https://s3.{region}.amazonaws.com"
    is_anonymous = variables.is_true("AWS_SKIP_SIGNATURE")
    credentials = _s3_credentials(variables, is_anonymous=is_anonymous)
    if credentials is None:
        _require_role(location, variables, use_machine_role=use_machine_role)
    return S3Store(
        location.bucket,
        aws_endpoint_url_s3=endpoint,
        region=region,
        virtual_hosted_style_request=False,
        skip_signature=is_anonymous,
        credential_provider=credentials,
        client_options=_client_options(endpoint, *(_EVERY_HOST if credentials is None else ())),
        retry_config=_retry_config(),
    )


def _s3_credentials(variables: BucketVariables, *, is_anonymous: bool) -> Callable[[], S3Credential] | None:
    """Return the provider of a key, or of none for a public bucket; `None` if there are no credentials."""
    key_id, secret = (variables.get(variable) for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if bool(key_id) != bool(secret):
        missing = "AWS_SECRET_ACCESS_KEY" if key_id else "AWS_ACCESS_KEY_ID"
        raise SettingsError(f"{variables.name('AWS_ACCESS_KEY_ID')} and the secret belong together: {variables.name(missing)} is missing.")
    if not key_id and not is_anonymous:
        return None

    def credentials() -> S3Credential:
        return {
            "access_key_id": key_id,
            "secret_access_key": secret,
            "token": variables.get("AWS_SESSION_TOKEN") or None,
            "expires_at": None,
        }

    return credentials


def _open_gcs(location: SourceLocation, variables: BucketVariables, *, use_machine_role: bool) -> GCSStore:
    endpoint = _endpoint(variables, "GOOGLE_BASE_URL") or "https://storage.googleapis.com"
    bucket, options, retries = location.bucket, _client_options(endpoint), _retry_config()
    if variables.is_true("GOOGLE_SKIP_SIGNATURE"):

        def no_token() -> GCSCredential:
            return {"token": "", "expires_at": None}

        # The provider keeps obstore from looking for credentials.
        return GCSStore(
            bucket, base_url=endpoint, skip_signature=True, credential_provider=no_token, client_options=options, retry_config=retries
        )
    key, path = variables.get("GOOGLE_SERVICE_ACCOUNT_KEY"), variables.get("GOOGLE_APPLICATION_CREDENTIALS")
    if key:
        _check_service_account(variables.name("GOOGLE_SERVICE_ACCOUNT_KEY"), key, "the JSON key of a service account")
    elif path and variables.are_own:
        # As a path, it would not go before a key of the environment.
        key = _read_service_account(variables.name("GOOGLE_APPLICATION_CREDENTIALS"), path)
    if key:
        return GCSStore(
            bucket, base_url=endpoint, skip_signature=False, service_account_key=key, client_options=options, retry_config=retries
        )
    if not path:
        _require_role(location, variables, use_machine_role=use_machine_role)
    # obstore reads the file that the variable of the environment names. Without one, it takes the role.
    options = _client_options(endpoint, *(_GOOGLE_TOKENS if path else _EVERY_HOST))
    return GCSStore(bucket, base_url=endpoint, skip_signature=False, client_options=options, retry_config=retries)


def _read_service_account(variable: str, path: str) -> str:
    expected = "the path of a file with the JSON key of a service account"
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError.invalid(variable, expected, f"{path!r}: {reason}") from error
    _check_service_account(variable, text, expected)
    return text


def _check_service_account(variable: str, text: str, expected: str) -> None:
    """Raise `SettingsError` for text that is no key; obstore's own message would quote a part of it."""
    try:
        msgspec.json.decode(text, type=_ServiceAccount)
    except msgspec.DecodeError as error:
        raise SettingsError.invalid(variable, expected, "JSON without one" if text.lstrip().startswith("{") else "other text") from error


def _open_azure(location: SourceLocation, variables: BucketVariables, *, use_machine_role: bool) -> AzureStore:
    endpoint = _endpoint(variables, "AZURE_STORAGE_ENDPOINT") or f"https://{location.account}.blob.core.windows.net"
    credentials = _azure_credentials(variables)
    if credentials is None:
        _require_role(location, variables, use_machine_role=use_machine_role)
    return AzureStore(
        location.bucket,
        account_name=location.account,
        endpoint=endpoint,
        use_emulator=False,
        skip_signature=variables.is_true("AZURE_SKIP_SIGNATURE"),
        config=credentials or {"credential_type": "auto"},
        client_options=_client_options(endpoint, *(_EVERY_HOST if credentials is None else _AZURE_TOKENS)),
        retry_config=_retry_config(),
    )


def _azure_credentials(variables: BucketVariables) -> AzureConfig | None:
    """Return the arguments for the credentials, `None` without any. Their type says which ones count, whatever else the environment has."""
    if variables.is_true("AZURE_SKIP_SIGNATURE"):
        return {"credential_type": "managed_identity"}
    if key := variables.get("AZURE_STORAGE_KEY"):
        return {"credential_type": "access_key", "account_key": key}
    if token := variables.get("AZURE_STORAGE_SAS_TOKEN"):
        return {"credential_type": "sas_token", "sas_key": token}
    tenant, client, secret = (variables.get(f"AZURE_{part}") for part in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"))
    if tenant and client and secret:
        return {"credential_type": "client_secret", "tenant_id": tenant, "client_id": client, "client_secret": secret}
    return None


def _require_role(location: SourceLocation, variables: BucketVariables, *, use_machine_role: bool) -> None:
    """Raise `SettingsError` for a source without credentials, unless it may take the role of this machine.

    The role is not the default: obstore requests it from a metadata service at an address of the local network, and where there is none,
    each fetch would fail only after some seconds. A source with variables of its own takes nothing from the environment.
    """
    names = NAMES[location.kind]
    remedy = f"Set {names_in(names['credentials'], variables)}, or {variables.name(names['anonymous'])}=true for a public bucket."
    if variables.are_own:
        own = " and ".join(map(variables.name, variables.values))
        raise SettingsError(f"{own} cannot be used without credentials for the same source. {remedy}")
    if not use_machine_role:
        raise SettingsError(
            f"{location.url('')} in DARKROOM_SOURCES has no credentials. {remedy} "
            "Or set DARKROOM_MACHINE_ROLE=true if this machine or container has a role in its cloud that permits reading."
        )


def _endpoint(variables: BucketVariables, *names: str) -> str:
    """Return the endpoint in the first of these variables that is set, "" if none is; raises `SettingsError`."""
    for name in names:
        endpoint = variables.get(name)
        if endpoint and _ENDPOINT.fullmatch(endpoint) is None:
            raise SettingsError.invalid(
                variables.name(name),
                "http:// or https:// and a host, such as https://fly.storage.tigris.dev",
                # It may be a password.
                "a URL with a user name" if "@" in endpoint else repr(endpoint),
            )
        if endpoint:
            return endpoint.rstrip("/")
    return ""


def _client_options(endpoint: str, *hosts: str) -> ClientConfig:
    """Return options with which obstore sends requests to the host of the endpoint and to `hosts`, and to no others."""
    return {
        "proxy_url": _NO_PROXY,
        "proxy_excludes": ",".join((urlsplit(endpoint).hostname or "", *hosts)),
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=SILENCE_SECONDS),
        "timeout": timedelta(seconds=_REQUEST_SECONDS),
        "pool_max_idle_per_host": "0",
    }


def _retry_config() -> RetryConfig:
    return {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
    }

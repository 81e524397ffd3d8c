"""The environment variables that say how a bucket is reached: the cloud's own, or with a prefix for one source only.

`AWS_ACCESS_KEY_ID` is for every bucket on S3, and `DARKROOM_SOURCE_SHOP_AWS_ACCESS_KEY_ID` for the source `shop`. A source with at least
one variable of its own uses none of the others: its bucket is in another account, and keys of one account do not go to the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from service.errors import SettingsError
from service.settings.source_locations import SourceKind, SourceLocation

PREFIX = "DARKROOM_SOURCE_"

# https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
# https://cloud.google.com/docs/authentication/application-default-credentials
# https://learn.microsoft.com/en-us/cli/azure/azure-cli-configuration, https://learn.microsoft.com/en-us/azure/developer/intro/azure-developer-create-resources
# Those without a standard name are spelled as obstore spells them.
VARIABLES: Mapping[SourceKind, tuple[str, ...]] = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_SKIP_SIGNATURE",
    ),
    "gs": (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_BASE_URL",
        "GOOGLE_SKIP_SIGNATURE",
    ),
    "az": (
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_SKIP_SIGNATURE",
    ),
}

# Those of them that are secrets, or name one.
SECRETS = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_CLIENT_SECRET",
    }
)

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class BucketVariables(msgspec.Struct, frozen=True):
    """The variables that apply to one source. They contain secrets, so only their names are shown.

    prefix: what their names begin with; "" if the source has none of its own.
    values: by the name without the prefix; never empty ones.
    """

    prefix: str
    values: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<BucketVariables: {', '.join(map(self.name, self.values)) or 'none'}>"

    @property
    def are_own(self) -> bool:
        """Whether the source has variables of its own."""
        return bool(self.prefix)

    def name(self, variable: str) -> str:
        """Return the full name of a variable, for messages."""
        return self.prefix + variable

    def get(self, *variables: str) -> str:
        """Return the value of the first of these variables that is set, "" if none is."""
        return next((self.values[variable] for variable in variables if variable in self.values), "")

    def is_true(self, variable: str) -> bool:
        """Return whether a variable is set to true; raises `SettingsError` for text that is neither true nor false."""
        text = self.get(variable) or "false"
        if text.lower() not in _TRUTH:
            raise SettingsError.invalid(self.name(variable), "true or false", repr(text))
        return _TRUTH[text.lower()]


def variables_of(source: str, location: SourceLocation, environ: Mapping[str, str]) -> BucketVariables:
    """Return the variables that apply to a bucket. `source` is its name in `DARKROOM_SOURCES`."""
    for prefix in (own_prefix(source), ""):
        values = {variable: value for variable in VARIABLES[location.kind] if (value := environ.get(prefix + variable))}
        if values:
            return BucketVariables(prefix, values)
    return BucketVariables("", {})


def own_prefix(source: str) -> str:
    """Return what the names of a source's own variables begin with."""
    return f"{PREFIX}{source.upper().replace('-', '_')}_"


def own_names(locations: Mapping[str, SourceLocation]) -> list[str]:
    """Return the names of all variables that buckets among these sources may have of their own."""
    return [own_prefix(source) + variable for source, at in locations.items() if at.is_bucket for variable in VARIABLES[at.kind]]

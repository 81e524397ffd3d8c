"""The variables of buckets in the settings: which exist, and what is said about others."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings.bucket_variables import VARIABLES, own_names
from service.settings.environment import load

SOURCES = "my-shop=s3://bucket; old=gs://bucket/x; az=az://account/container; cms=https://cms.example.com"
DOCS = Path(__file__).parents[1] / "docs" / "settings.md"


def test_variables_of_every_bucket_are_settings() -> None:
    locations = load({"DARKROOM_SOURCES": SOURCES}).sources.locations
    names = own_names(locations)
    assert len(names) == sum(map(len, VARIABLES.values()))
    assert {"DARKROOM_SOURCE_MY_SHOP_AWS_REGION", "DARKROOM_SOURCE_OLD_GOOGLE_BASE_URL", "DARKROOM_SOURCE_AZ_AZURE_CLIENT_ID"} < set(names)
    assert load({"DARKROOM_SOURCES": SOURCES} | dict.fromkeys(names, "anything")).sources.locations == locations


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("DARKROOM_SOURCE_SHOP_AWS_REGION", "Did you mean DARKROOM_SOURCE_MY_SHOP_AWS_REGION?"),
        ("DARKROOM_SOURCE_MY_SHOP_AWS_REGIONS", "Did you mean DARKROOM_SOURCE_MY_SHOP_AWS_REGION?"),
        ("DARKROOM_SOURCE_MY_SHOP_GOOGLE_BASE_URL", "Did you mean DARKROOM_SOURCE_OLD_GOOGLE_BASE_URL?"),
        ("DARKROOM_SOURCE", "Did you mean DARKROOM_SOURCES?"),
    ],
)
def test_variable_of_no_bucket_is_refused(name: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"DARKROOM_SOURCES": SOURCES, name: "value"})
    assert str(caught.value) == f"{name} is not a setting of Darkroom. {remedy}"


def test_variable_of_a_bucket_without_sources_is_refused() -> None:
    with pytest.raises(SettingsError, match="DARKROOM_SOURCE_SHOP_AWS_REGION is not a setting"):
        load({"DARKROOM_SOURCE_SHOP_AWS_REGION": "eu-north-1"})


@pytest.mark.parametrize("variable", [variable for variables in VARIABLES.values() for variable in variables])
def test_variable_is_documented(variable: str) -> None:
    assert f"`{variable}`" in DOCS.read_text("utf-8") or f"`{variable}=true`" in DOCS.read_text("utf-8")

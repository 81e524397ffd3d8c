"""The guides keep what they say: options and their order, transforms that are accepted, pictures and pages that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.images.options import OPTIONS
from service.images.transform import DEFAULTS, parse
from tests.gallery import GROUPS

DOCS = Path(__file__).parents[1] / "docs"
TRANSFORMS = (DOCS / "transforms.md").read_text("utf-8")
MIGRATING = (DOCS / "migrating.md").read_text("utf-8")

DIGEST = "k5x7q2abcdefghijklmnopqrstuvwxyz"


def ours() -> list[str]:
    """Return every transform that the table of other services' options says is ours."""
    rows = [line.split("|") for line in MIGRATING.splitlines() if line.startswith("| ")]
    return [spelling for row in rows for spelling in re.findall(r"`([a-z_]+=[^`]+)`", row[5])]


def test_transforms_lists_every_option_in_the_order_in_which_they_act() -> None:
    rows = [f"| `{key}` | {option.help} |" for key, option in OPTIONS.items()]
    assert "\n".join(["| option | values |", "|---|---|", *rows]) in TRANSFORMS


def test_transforms_tells_every_default_quality() -> None:
    newest = DEFAULTS[max(DEFAULTS)].quality
    assert f"{newest['avif']} AVIF, {newest['webp']} WebP, {newest['jpeg']} JPEG" in TRANSFORMS


def test_transforms_shows_every_group_of_the_gallery() -> None:
    assert re.findall(r"\]\(gallery/(\w+)\.webp\)", TRANSFORMS) == list(GROUPS)


@pytest.mark.parametrize("spelling", [spelling for spelling in ours() if not spelling.startswith("gravity")])
def test_transform_that_stands_for_another_services_option_is_accepted(spelling: str) -> None:
    asked = parse(spelling.replace("<digest>", DIGEST))
    assert asked.options()


@pytest.mark.parametrize("spelling", [spelling for spelling in ours() if spelling.startswith("gravity")])
def test_gravity_that_stands_for_another_services_option_is_accepted_in_a_box(spelling: str) -> None:
    assert "gravity" in parse(f"width=10,height=10,fit=cover,{spelling}").options()


def test_migrating_leaves_out_no_option_that_others_have_too() -> None:
    named = {key for spelling in ours() for key in parse_keys(spelling)}
    # Neither of the three has these.
    assert set(OPTIONS) - named == {"animate", "effort", "gamma", "lossless"}


def parse_keys(spelling: str) -> set[str]:
    return {pair.partition("=")[0] for pair in spelling.split(",")}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_of_a_guide_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target

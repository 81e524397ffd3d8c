"""The guides agree with the code: they list the options in their order, their transforms are accepted, and their links exist."""

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


def equivalents() -> list[str]:
    """Return the transforms that the table of docs/migrating.md gives as equivalents of other services' options."""
    rows = [line.split("|") for line in MIGRATING.splitlines() if line.startswith("| ")]
    return [transform for row in rows for transform in re.findall(r"`([a-z_]+=[^`]+)`", row[5])]


def test_transforms_page_lists_every_option_in_canonical_order() -> None:
    rows = [f"| `{key}` | {option.help} |" for key, option in OPTIONS.items()]
    assert "\n".join(["| option | values |", "|---|---|", *rows]) in TRANSFORMS


def test_transforms_page_states_every_default_quality() -> None:
    newest = DEFAULTS[max(DEFAULTS)].quality
    assert f"{newest['jxl']} JPEG XL, {newest['avif']} AVIF, {newest['webp']} WebP, {newest['jpeg']} JPEG" in TRANSFORMS


def test_transforms_page_shows_every_group_of_the_gallery() -> None:
    assert re.findall(r"\]\(gallery/(\w+)\.webp\)", TRANSFORMS) == list(GROUPS)


@pytest.mark.parametrize("transform", [transform for transform in equivalents() if not transform.startswith("gravity")])
def test_equivalent_of_another_services_option_is_accepted(transform: str) -> None:
    parsed = parse(transform.replace("<digest>", DIGEST))
    assert parsed.options()


@pytest.mark.parametrize("transform", [transform for transform in equivalents() if transform.startswith("gravity")])
def test_equivalent_of_another_services_gravity_is_accepted_in_a_box(transform: str) -> None:
    assert "gravity" in parse(f"width=10,height=10,fit=cover,{transform}").options()


def test_migrating_page_names_every_option_that_other_services_have() -> None:
    named = {key for transform in equivalents() for key in keys_of(transform)}
    # None of the three services has these.
    assert set(OPTIONS) - named == {"animate", "dynamic_range", "effort", "gamma", "lossless"}


def keys_of(transform: str) -> set[str]:
    return {pair.partition("=")[0] for pair in transform.split(",")}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_of_a_guide_have_existing_targets(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/install.md", "docs/deployments.md"])
def test_commands_of_a_deployment_make_the_token_that_they_use_and_keep_it(page: str) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS.parent / page).read_text("utf-8"), re.DOTALL)
    using = [block for block in blocks if "$TOKEN" in block]
    assert len(using) >= 2
    for block in using:
        assert "\nTOKEN=" in block[: block.index("$TOKEN")]
    assert not [block for block in blocks if "TOKENS=$(" in block]

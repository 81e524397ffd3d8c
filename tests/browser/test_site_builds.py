"""Sites of Next.js: what its scaffolding tool makes, and builds that fail."""

from __future__ import annotations

import json

import pytest

from tests.browser.sites import SITES, BuildError, run_in_site, site_folder
from tests.browser.sites.guide import commands

pytestmark = pytest.mark.long


def test_new_site_of_the_guide_is_the_one_that_the_browser_tests_build() -> None:
    scaffold = commands("Next.js")[0].partition(" && ")[0]
    tested = SITES / "next"
    with site_folder("next") as folder:
        # Installed with the site, because npx would ask the registry for the newest version, and without its packages, which are there.
        command = scaffold.replace("npx create-next-app@latest", "node_modules/.bin/create-next-app")
        # Without the answers that it remembers of earlier uses.
        run_in_site(f"{command} --skip-install --disable-git", folder, XDG_CONFIG_HOME=str(folder / "config"))
        made = folder / "photos"
        assert (made / "app" / "layout.js").read_text("utf-8") == (tested / "app" / "layout.js").read_text("utf-8")
        package, expected = (json.loads((root / "package.json").read_text("utf-8")) for root in (made, tested))
        assert package["scripts"] == expected["scripts"]
        assert package["dependencies"].keys() == expected["dependencies"].keys()
        # The guide replaces these two.
        assert {"next.config.mjs", "app/page.js"} <= {path.relative_to(made).as_posix() for path in made.rglob("*")}


def test_site_with_an_image_that_was_not_pushed_fails_to_build_with_similar_paths() -> None:
    manifest = {"version": 1, "images": {"photos/lake.jpg": {}, "photos/evening.png": {}}}
    with site_folder("next") as folder:
        (folder / "images.json").write_text(json.dumps(manifest), "utf-8")
        with pytest.raises(BuildError) as caught:
            run_in_site("npm run build", folder)
    assert 'The manifest has no image "lake.jpg". Near it of its 2 paths: "photos/lake.jpg".' in str(caught.value)

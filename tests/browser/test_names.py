"""The names under which a browser saves pictures."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Visit
from tests.support import images

DOWNLOAD = "url => { const link = document.createElement('a'); link.href = url; link.download = ''; link.click(); }"


@pytest.mark.parametrize(("name", "width"), [("evening-light", 331), ("写真_Größe-हिन्दी", 332), ("שלום-a", 333)])
def test_picture_is_saved_under_its_name(visit: Visit, playground_url: str, name: str, width: int) -> None:
    page = visit(playground_url)
    made = page.request.post(f"{playground_url}/v1/images?name={name}.jpg", data=images.photo_jpeg(width, 40)).json()
    assert made["name"] == name
    for spelled, extension in ((name, "webp"), ("another-name", "jpg")):
        with page.expect_download() as download:
            page.evaluate(DOWNLOAD, f"/i/v3/{made['digest']}/width=320/-/{spelled}.{extension}")
        # The redirect leads to the image's own name.
        assert download.value.suggested_filename == f"{name}.{extension}"

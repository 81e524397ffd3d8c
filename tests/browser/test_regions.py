"""The playground in a region that does not accept large uploads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import FilePayload, expect

from edge.fly import REPLAY_BYTES
from tests.browser.conftest import Visit, Watch
from tests.browser.test_playground import choose, part, wait_until_measured
from tests.regions.world import World, volume_world
from tests.support import images


@pytest.fixture
def world() -> Iterator[World]:
    with volume_world("arn", "lhr") as running:
        yield running


def test_large_photos_near_a_replica_are_sent_to_the_primary_after_a_refusal(visit: Visit, world: World, watches: list[Watch]) -> None:
    # Decoders ignore the bytes after the end marker of a JPEG.
    large = [images.photo_jpeg(330 + number, 240) + bytes(REPLAY_BYTES) for number in range(2)]
    page = visit(world.proxy.url("lhr"))
    watches[0].expect_refusal("/v1/images")
    choose(page, *(FilePayload(name=f"{number}.jpg", mimeType="image/jpeg", buffer=body) for number, body in enumerate(large)))
    expect(part(page, "entries").locator('button[data-state="ready"]')).to_have_count(2)
    wait_until_measured(page)
    uploads = [one for one in world.proxy.exchanges if (one.method, one.path.partition("?")[0]) == ("POST", "/v1/images")]
    # Chromium itself repeats a request once whose response is 421 (RFC 9110 §15.5.20).
    refused = [one for one in uploads if one.status == 421]
    assert 1 <= len(refused) <= 2
    assert [(one.status, one.regions) for one in uploads[len(refused) :]] == [(201, ["arn"])] * 2
    assert {one.replays for one in world.proxy.exchanges} == {0, 1}

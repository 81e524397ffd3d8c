"""How far the decoder of a JPEG shrinks, which the resampler then completes: fixed for each pipeline version."""

from __future__ import annotations

import pytest
import pyvips

from service.images.geometry import Plan
from service.images.info import Limits
from service.worker.files import ImageFile
from service.worker.load import SHRINK_RULES, load_still
from service.worker.probe import probe
from tests.support import images

LIMITS = Limits(10_000_000, 10_000_000, 10_000_000, 10, 1 << 30)

# Width and height of a JPEG, the width of the rendition, and the decoder's factor in versions 1 and 2 and in version 3.
CASES = [
    ((640, 480), 320, 1, 1),
    ((640, 480), 214, 1, 1),  # 2.99 in all
    ((640, 480), 213, 1, 2),
    ((640, 480), 161, 1, 2),
    ((640, 480), 160, 2, 2),
    ((640, 480), 107, 2, 2),  # 5.98 in all
    ((640, 480), 106, 2, 4),
    ((640, 480), 80, 4, 4),
    ((640, 480), 53, 4, 8),
    ((640, 480), 40, 8, 8),
    ((480, 640), 100, 2, 2),
    # Where the factor does not divide both sides, about a factor of two is left in all versions.
    ((641, 480), 200, 1, 1),
    ((640, 481), 200, 1, 1),
    ((642, 480), 106, 2, 2),
    ((642, 480), 80, 4, 4),
    # The height of the rendition is rounded: in all, 4 is left across, and 3.99 down.
    ((640, 427), 160, 1, 2),
]


@pytest.mark.parametrize(("size", "width", "before", "now"), CASES)
def test_load_still_lets_the_decoder_of_a_jpeg_shrink_as_its_version_says(size: tuple[int, int], width: int, before: int, now: int) -> None:
    body = images.photo_jpeg(*size)
    file = ImageFile(memoryview(body), memoryview(body), "", None)
    info = probe(file.body, LIMITS)
    height = max(1, round(size[1] * width / size[0]))
    plan = Plan.whole(*size, width, height)
    for version, shrink in ((1, before), (2, before), (3, now)):
        image = load_still(file, info, plan, shrink_rule=SHRINK_RULES[version])
        shrunk = pyvips.Image.new_from_buffer(body, "", access="sequential", **({"shrink": shrink} if shrink > 1 else {}))
        assert image.write_to_memory() == shrunk.thumbnail_image(width, height=height, size="force").write_to_memory(), version

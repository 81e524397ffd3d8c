"""The scores of the judge are plausible, and the service's own distance correlates with them."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise

import pytest
from PIL import Image, ImageFilter

from service.images.formats import Format
from service.worker.quality import PerceptualDistance
from service.worker.save import encode
from tests.quality.judge import score
from tests.quality.pictures import for_service, graphics, text
from tests.support import images


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def ranks(values: list[float]) -> list[int]:
    return [sorted(values).index(value) for value in values]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_score_of_equal_pictures_is_100(mode: str) -> None:
    image = images.picture(200, 150).convert(mode)
    assert score(image, png(image)) == pytest.approx(100)


def test_score_of_a_blurred_picture_falls_with_the_blur() -> None:
    image = images.picture(200, 150)
    scores = [score(image, png(image.filter(ImageFilter.GaussianBlur(radius)))) for radius in (0, 0.5, 1, 2, 4)]
    assert all(better > worse + 1 for better, worse in pairwise(scores)), scores


@pytest.mark.parametrize("image_format", ["avif", "webp", "jpeg"])
@pytest.mark.parametrize("draw", [images.picture, text, graphics])
def test_distance_orders_qualities_as_the_judge_does(draw: Callable[[int, int], Image.Image], image_format: Format) -> None:
    image = draw(320, 240)
    perceptual = PerceptualDistance(for_service(image))
    files = [encode(for_service(image), image_format, level) for level in (20, 40, 60, 75, 85, 95)]
    scores = [score(image, file) for file in files]
    distances = [perceptual.distance(file) for file in files]
    # Spearman's rank correlation: of six, one pair of neighbors may be swapped.
    squared_differences = sum(
        (one - other) ** 2 for one, other in zip(ranks(scores), ranks([-distance for distance in distances]), strict=True)
    )
    assert 1 - 6 * squared_differences / (6 * 35) >= 0.94

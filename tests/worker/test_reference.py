"""The reference implementation, tested where the right result is known without it."""

from __future__ import annotations

from math import erf, pi, sqrt

import numpy as np
import pytest
from PIL import Image

from service.images.options import FocalPoint
from service.images.transform import parse
from tests.support import images, reference

GRAY = Image.new("RGB", (40, 30), (100, 100, 100))
MARK = "a" * 32


def color_of(image: Image.Image, x: int = 20, y: int = 15) -> tuple[int, ...]:
    pixel: list[int] = np.asarray(image)[y, x].tolist()
    return tuple(pixel)


@pytest.mark.parametrize(
    ("spelling", "level"),
    [
        ("brightness=1.5", 150),
        ("brightness=4", 255),
        ("contrast=1.5", 86),
        ("contrast=0", 128),
        ("gamma=2", 160),
        ("brightness=2,contrast=0.5", 164),
        ("saturation=4", 100),
        ("grayscale=true", 100),
        ("blur=5", 100),
    ],
)
def test_reference_adjustment_of_gray_follows_the_formula(spelling: str, level: int) -> None:
    assert color_of(reference.reference(GRAY, parse(spelling))) == (level, level, level, 255)


def test_reference_saturation_of_zero_is_the_luminance() -> None:
    image = Image.new("RGB", (4, 4), (200, 50, 10))
    level = round(0.213 * 200 + 0.715 * 50 + 0.072 * 10)
    for spelling in ("saturation=0", "grayscale=true"):
        assert color_of(reference.reference(image, parse(spelling)), 1, 1) == (level, level, level, 255)


def test_reference_blur_of_an_edge_is_the_integral_of_a_gaussian() -> None:
    edge = images.decode(images.two_color_png(100, 20, (0, 0, 0), (255, 255, 255), 0.5))
    row = np.asarray(reference.reference(edge, parse("blur=4")))[10, :, 0].astype(float)
    ideal = [255 * (0.5 + 0.5 * erf((x + 0.5 - 50) / (4 * sqrt(2)))) for x in range(100)]
    assert np.abs(row - ideal).max() < 2


@pytest.mark.parametrize(
    ("turn", "corners"),
    [
        ("rotate=90", ("bottom left", "top left", "bottom right", "top right")),
        ("rotate=180", ("bottom right", "bottom left", "top right", "top left")),
        ("rotate=270", ("top right", "bottom right", "top left", "bottom left")),
        ("flip=horizontal", ("top right", "top left", "bottom right", "bottom left")),
        ("flip=vertical", ("bottom left", "bottom right", "top left", "top right")),
        ("rotate=90,flip=horizontal", ("top left", "bottom left", "top right", "bottom right")),
    ],
)
def test_reference_rotation_moves_the_corners(turn: str, corners: tuple[str, ...]) -> None:
    """Rotation is clockwise: the bottom left corner goes to the top left. The flip comes after it."""
    found = images.corner_colors(reference.reference(images.picture(60, 40), parse(turn)))
    assert [found[corner] for corner in images.CORNERS] == [images.CORNERS[corner] for corner in corners]


def test_reference_rotation_by_nearly_90_degrees_is_nearly_the_same_as_by_90() -> None:
    free, quarter = (reference.reference(images.picture(120, 90), parse(f"rotate={turn}")) for turn in ("90.01", "90"))
    assert images.distance(free.resize(quarter.size), quarter) < 2


def test_reference_rounded_corners_leave_the_area_of_a_circle() -> None:
    assert reference.rounded_corners(200, 200, "max").sum() == pytest.approx(pi * 100**2, rel=0.001)
    assert reference.rounded_corners(200, 100, 20).sum() == pytest.approx(200 * 100 - (4 - pi) * 20**2, rel=0.001)


def test_reference_overlay_pad_and_background_are_in_the_right_place() -> None:
    mark = Image.new("RGBA", (10, 10), (255, 0, 0, 128))
    spelling = f"overlay={MARK}:southeast:0.25:1:3:2,pad=1:2:3:4,background=0000ff"
    image = reference.reference(GRAY, parse(spelling), mark)
    assert image.size == (46, 34)
    assert color_of(image, 0, 0) == (0, 0, 255, 255)
    assert color_of(image, 4, 1) == (100, 100, 100, 255)
    # The overlay of 10 × 10 ends 3 pixels from the right and 2 from the bottom of the picture.
    left, top = 4 + 40 - 10 - 3, 1 + 30 - 10 - 2
    assert color_of(image, left, top) == color_of(image, left + 9, top + 9) == (178, 50, 50, 255)
    assert color_of(image, left - 1, top) == color_of(image, left + 10, top + 9) == (100, 100, 100, 255)


def test_reference_half_transparent_background_is_half_visible() -> None:
    image = reference.reference(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), parse("background=ff000080"))
    assert color_of(image, 3, 3) == (255, 0, 0, 128)


def test_reference_focal_point_moves_with_the_picture() -> None:
    whole = (0, 0, 400, 300)
    for turn, place in (("full", (0.1, 0.2)), ("rotate=90", (0.8, 0.1)), ("rotate=180", (0.9, 0.8)), ("flip=horizontal", (0.9, 0.2))):
        assert reference.locate_focal_point(FocalPoint(0.1, 0.2), whole, (400, 300), parse(turn)) == pytest.approx(place)
    assert reference.locate_focal_point(FocalPoint(0, 0), (100, 100, 300, 200), (400, 300), parse("full")) == pytest.approx((0, 0))


def test_reference_transparent_pixels_contribute_no_color() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:, ::2] = (255, 0, 0, 255)
    pixels[:, 1::2] = (0, 0, 255, 0)
    image = np.asarray(reference.reference(Image.fromarray(pixels, "RGBA"), parse("width=7")))
    assert (image[..., 0].min(), image[..., 2].max()) == (255, 0)
    assert np.abs(image[..., 3].astype(int) - 128).max() < 40

"""The perceptual distance, `quality=auto` and `max_bytes`, on generated pictures of kinds that are difficult in different ways."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageFilter

from service.images.formats import Format
from service.images.transform import DEFAULTS, PIPELINE_VERSION
from service.rendering.protocol import ImageError
from service.worker import quality
from service.worker.quality import CEILING, INVISIBLE, PerceptualDistance, encode_auto, fit_max_bytes
from service.worker.save import EncodeOptions, encode
from tests.quality.pictures import for_service, graphics, noise, sky, text
from tests.support import images

FORMATS: list[Format] = ["avif", "webp", "jpeg"]
DEFAULT_QUALITY = DEFAULTS[PIPELINE_VERSION].quality
ROOT = Path(__file__).parents[2]

KINDS: dict[str, Callable[[int, int], Image.Image]] = {
    "scene": images.picture,
    "text": text,
    "graphics": graphics,
    "sky": sky,
    "noise": noise,
}
QUICK_KINDS = ["scene", "text", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("graphics", "sky", "noise"))]


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def distance_between(image: Image.Image, other: Image.Image) -> float:
    return PerceptualDistance(for_service(image)).distance(png(other))


def shifted(image: Image.Image, by: int) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(np.int16) + by).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("size", [(240, 160), (33, 47), (5, 3), (1, 1), (160, 2)])
def test_distance_of_equal_pictures_is_zero(mode: str, size: tuple[int, int]) -> None:
    image = images.picture(240, 160).crop((0, 0, *size)).convert(mode)
    assert distance_between(image, image) == 0


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_distance_with_lower_quality_grows(image_format: Format, kind: str) -> None:
    image = for_service(KINDS[kind](320, 240))
    reference = PerceptualDistance(image)
    found = [reference.distance(encode(image, image_format, level)) for level in (92, 75, 55, 35, 15)]
    # A sky of few shades hardly improves at high qualities; SSIMULACRA2 fluctuates as much.
    assert all(worse >= better * 0.95 for better, worse in pairwise(found)), found
    assert found[-1] > 1.5 * found[0]


@pytest.mark.parametrize("kind", ["scene", "text", "graphics", "noise"])
def test_distance_of_a_blurred_picture_is_visible_and_grows_with_the_blur(kind: str) -> None:
    image = KINDS[kind](320, 240)
    little, much = (distance_between(image, image.filter(ImageFilter.GaussianBlur(radius))) for radius in (0.8, 2.5))
    assert INVISIBLE < little < much


def test_distance_of_a_banded_sky_is_visible() -> None:
    image = sky(480, 320)
    banded = Image.fromarray((np.asarray(image) // 8 * 8 + 4).astype(np.uint8))
    assert distance_between(image, banded) > 2 * INVISIBLE


def test_distance_of_one_bad_part_is_visible() -> None:
    image = images.picture(640, 480)
    part = (200, 200, 320, 320)
    spoilt = image.copy()
    spoilt.paste(image.crop(part).filter(ImageFilter.GaussianBlur(4)), part)
    assert distance_between(image, spoilt) > INVISIBLE


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_distance_of_a_shifted_shade_is_visible(mode: str) -> None:
    image = Image.new("RGB", (200, 150), (90, 120, 160)).convert(mode)
    assert distance_between(image, shifted(image, 1)) < INVISIBLE < distance_between(image, shifted(image, 6))


def test_distance_of_a_shifted_color_is_visible() -> None:
    assert distance_between(Image.new("RGB", (200, 150), (128, 128, 128)), Image.new("RGB", (200, 150), (140, 124, 126))) > INVISIBLE


def test_distance_of_lost_color_is_visible() -> None:
    image = graphics(320, 240)
    assert distance_between(image, image.convert("L").convert("RGB")) > 2 * INVISIBLE


@pytest.mark.parametrize("kind", ["scene", "text", "graphics"])
def test_distance_is_about_symmetric(kind: str) -> None:
    # Lost contrast weighs more than added contrast, so the distances are never equal.
    image = KINDS[kind](320, 240)
    other = image.filter(ImageFilter.GaussianBlur(1))
    there, back = distance_between(image, other), distance_between(other, image)
    assert there / 2 < back <= there


def test_distance_of_a_gray_picture_encoded_in_color_compares_lightness() -> None:
    gray = images.picture(320, 240).convert("L")
    assert distance_between(gray, gray.convert("RGB")) == 0
    body = encode(for_service(gray), "webp", 60)
    assert 0 < PerceptualDistance(for_service(gray)).distance(body) <= PerceptualDistance(for_service(gray.convert("RGB"))).distance(body)


def test_distance_of_transparent_pixels_ignores_their_color() -> None:
    image = images.picture(320, 240).convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.r_[np.zeros(160), np.full(160, 255)].astype(np.uint8), (240, 1))))
    other = np.asarray(image).copy()
    other[:, :160, :3] = 77
    assert distance_between(image, Image.fromarray(other, "RGBA")) == 0


def test_distance_of_white_made_transparent_is_visible_on_gray() -> None:
    # On white there is no difference.
    image = Image.new("RGBA", (160, 160), (255, 255, 255, 255))
    image.paste((0, 0, 0, 255), (40, 40, 80, 80))
    other = image.copy()
    other.paste((255, 255, 255, 0), (100, 100, 140, 140))
    assert distance_between(image, other) > INVISIBLE


@pytest.fixture
def encodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Format, int, EncodeOptions]]:
    """Give a list that records the encodes of `encode_auto`."""
    calls: list[tuple[Format, int, EncodeOptions]] = []

    def counted(image: pyvips.Image, image_format: Format, level: int, options: EncodeOptions) -> bytes:
        calls.append((image_format, level, options))
        return encode(image, image_format, level, options)

    monkeypatch.setattr(quality, "encode", counted)
    return calls


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_auto_is_no_larger_and_looks_no_worse_after_at_most_six_encodes(
    image_format: Format, kind: str, encodes: list[tuple[Format, int, EncodeOptions]]
) -> None:
    image = for_service(KINDS[kind](320, 240))
    reference = PerceptualDistance(image)
    default = encode(image, image_format, DEFAULT_QUALITY[image_format])
    seen = reference.distance(default)
    body = encode_auto(image, image_format, DEFAULT_QUALITY[image_format])
    assert 2 <= len(encodes) <= 6
    assert reference.distance(body) <= max(seen, INVISIBLE)
    assert len(body) <= len(default) or seen > CEILING


@pytest.mark.parametrize("image_format", FORMATS)
def test_auto_of_invisible_loss_is_smaller_than_the_default(image_format: Format) -> None:
    image = for_service(Image.new("RGB", (320, 240), (40, 90, 160)))
    body = encode_auto(image, image_format, 95)
    assert len(body) <= len(encode(image, image_format, 95))
    assert PerceptualDistance(image).distance(body) <= INVISIBLE


def test_auto_of_a_picture_far_above_the_goal_lowers_its_quality() -> None:
    image = for_service(images.picture(480, 320).convert("L"))
    fine = encode(image, "webp", 100)
    body = encode_auto(image, "webp", 100)
    assert PerceptualDistance(image).distance(fine) < 0.7 * INVISIBLE
    assert PerceptualDistance(image).distance(body) <= INVISIBLE
    assert len(body) < 0.9 * len(fine)


def test_auto_of_a_picture_below_the_ceiling_raises_its_quality() -> None:
    image = for_service(images.picture(480, 320))
    reference = PerceptualDistance(image)
    assert reference.distance(encode(image, "jpeg", 10)) > CEILING
    assert reference.distance(encode_auto(image, "jpeg", 10)) <= CEILING


# The output of aom depends on whether it has more than one thread.
@pytest.mark.long
@pytest.mark.parametrize(("image_format", "threads"), [("avif", ("1", "1")), ("webp", ("1", "3")), ("jpeg", ("1", "3"))])
def test_auto_in_other_processes_and_threads_gives_the_same_bytes(image_format: Format, threads: tuple[str, str]) -> None:
    code = (
        "import hashlib; from service.worker.quality import encode_auto; from tests.support import images; "
        "from tests.quality.pictures import for_service;"
        f"body = encode_auto(for_service(images.picture(400, 300)), {image_format!r}, {DEFAULT_QUALITY[image_format]}); "
        "print(hashlib.sha256(body).hexdigest())"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "VIPS_CONCURRENCY": count},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for count in threads
    )
    assert first == second


@pytest.mark.long
@pytest.mark.parametrize("image_format", FORMATS)
def test_auto_of_a_large_picture_searches_on_tiles(image_format: Format, encodes: list[tuple[Format, int, EncodeOptions]]) -> None:
    image = for_service(images.picture(2_100, 1_300))
    body = encode_auto(image, image_format, DEFAULT_QUALITY[image_format])
    assert len(encodes) <= 8
    assert images.decode(body).size == (2_100, 1_300)
    default = encode(image, image_format, DEFAULT_QUALITY[image_format])
    assert len(body) <= len(default)
    assert PerceptualDistance(image).distance(body) <= 1.05 * PerceptualDistance(image).distance(default)


def test_auto_of_an_animation_keeps_its_frames() -> None:
    # Without saturated colors, whose chroma WebP subsamples: they are far from the original at any quality.
    frames = [images.picture(160, 120, seed=seed).convert("L") for seed in range(4)]
    strip = Image.new("RGB", (160, 480))
    for at, frame in enumerate(frames):
        strip.paste(frame, (0, at * 120))
    image = for_service(strip).copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", 120)
    body = encode_auto(image, "webp", DEFAULT_QUALITY["webp"])
    opened = images.decode(body)
    assert opened.size == (160, 120)
    assert getattr(opened, "n_frames", 1) == 4
    assert len(body) <= len(encode(image, "webp", DEFAULT_QUALITY["webp"]))


def test_auto_with_an_effort_uses_only_that_effort(encodes: list[tuple[Format, int, EncodeOptions]]) -> None:
    encode_auto(for_service(images.picture(320, 240)), "webp", DEFAULT_QUALITY["webp"], EncodeOptions(effort=1))
    assert {options.effort for _, _, options in encodes} == {1}


def test_auto_of_transparency_as_jpeg_is_compared_on_white() -> None:
    image = images.picture(320, 240).convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.r_[np.zeros(160), np.full(160, 255)].astype(np.uint8), (240, 1))))
    body = encode_auto(for_service(image), "jpeg", DEFAULT_QUALITY["jpeg"])
    laid = Image.new("RGB", image.size, "white")
    laid.paste(image.convert("RGB"), mask=image.getchannel("A"))
    assert PerceptualDistance(for_service(laid)).distance(body) < CEILING
    assert len(body) <= len(encode(for_service(image), "jpeg", DEFAULT_QUALITY["jpeg"]))


@pytest.mark.parametrize("options", [EncodeOptions(lossless=True), EncodeOptions()])
def test_auto_without_a_quality_to_search_encodes_once(options: EncodeOptions, encodes: list[tuple[Format, int, EncodeOptions]]) -> None:
    image = for_service(images.picture(160, 120))
    image_format: Format = "webp" if options.lossless else "png"
    assert encode_auto(image, image_format, 100, options) == encode(image, image_format, 100, options)
    assert encodes == [(image_format, 100, options)]


class Sizes:
    """An encoder whose files have given sizes, and which counts its calls."""

    def __init__(self, size: Callable[[int], int]) -> None:
        self.size = size
        self.qualities: list[int] = []

    def __call__(self, level: int) -> bytes:
        self.qualities.append(level)
        return bytes(self.size(level))


@pytest.mark.parametrize("best", [1, 2, 3, 50, 81, 99, 100])
@pytest.mark.parametrize("wanted", [1, 2, 7, 49, 50, 80, 99, 100])
def test_fit_max_bytes_returns_the_best_quality_that_fits(best: int, wanted: int) -> None:
    sizes = Sizes(lambda level: level * 10)
    assert len(fit_max_bytes(wanted * 10, sizes, best)) == min(wanted, best) * 10
    assert len(sizes.qualities) <= 8
    assert len(set(sizes.qualities)) == len(sizes.qualities)


def test_fit_max_bytes_one_byte_short_takes_the_quality_below() -> None:
    assert len(fit_max_bytes(509, Sizes(lambda level: level * 10), 80)) == 500
    assert len(fit_max_bytes(510, Sizes(lambda level: level * 10), 80)) == 510


def test_fit_max_bytes_encodes_once_if_the_best_quality_fits() -> None:
    sizes = Sizes(lambda level: level * 10)
    assert len(fit_max_bytes(800, sizes, 80)) == 800
    assert sizes.qualities == [80]


@pytest.mark.parametrize("best", [1, 2, 80, 100])
def test_fit_max_bytes_reports_the_smallest_size_if_none_fits(best: int) -> None:
    sizes = Sizes(lambda level: 500 + level)
    with pytest.raises(ImageError) as caught:
        fit_max_bytes(500, sizes, best)
    assert caught.value.failure.kind == "cannot-fit"
    assert caught.value.failure.expected == "at most 500 bytes"
    assert caught.value.failure.received == "501 bytes at quality 1"
    assert len(sizes.qualities) <= 8
    assert sizes.qualities[-1] == 1


@pytest.mark.parametrize("image_format", FORMATS)
def test_fit_max_bytes_of_a_real_encoder_fits_and_the_next_quality_does_not(image_format: Format) -> None:
    image = for_service(images.picture(320, 240))
    limit = len(encode(image, image_format, 40))
    body = fit_max_bytes(limit, lambda level: encode(image, image_format, level), 80)
    assert len(body) <= limit
    assert len(body) >= limit * 0.97

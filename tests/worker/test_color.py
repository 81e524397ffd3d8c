"""Color: a rendition looks like its original in any color space, and has only the requested profile."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.images.formats import FORMATS, Format
from service.images.transform import parse
from service.rendering.pool import RenderPool
from tests.support import images, reference
from tests.support.renders import rendered, written

pytestmark = pytest.mark.anyio

# Largest mean differences in levels of 8-bit sRGB: for rounding and different tables of one profile; and in addition for resampling.
ROUNDING_TOLERANCE = 1.0
RESAMPLING_TOLERANCE = 1.5

WITH_PROFILES: tuple[Format, ...] = ("avif", "webp", "jpeg", "png")

needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")


async def picture(pool: RenderPool, path: Path, spelling: str = "full", image_format: Format = "png") -> Image.Image:
    return images.decode((await rendered(pool, path, spelling, image_format)).body)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def decoded(path: Path) -> Image.Image:
    return reference.decode_upright(path.read_bytes())


def converted(image: Image.Image, source: bytes, target: bytes) -> Image.Image:
    """Return colors converted from one profile to another by Little CMS."""
    source_profile, target_profile = [ImageCms.ImageCmsProfile(io.BytesIO(profile)) for profile in (source, target)]
    out = ImageCms.profileToProfile(
        image, source_profile, target_profile, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    assert out is not None
    return out


# Profiles.

PROFILES = {"p3": images.p3_profile(), "wide": images.wide_profile(), "srgb": images.srgb_profile()}
NEARLY_LOSSLESS: dict[str, dict[str, object]] = {
    "PNG": {},
    "TIFF": {},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 90, "speed": 9},
}
# How much the scene differs from its own values read as sRGB.
MIN_DIFFERENCE = {"p3": 4.0, "wide": 6.0, "srgb": 0.0}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("container", "loss"),
    [
        ("PNG", 0),
        pytest.param("TIFF", 0, marks=pytest.mark.long),
        ("JPEG", 1.5),
        pytest.param("WEBP", 0, marks=pytest.mark.long),
        ("AVIF", 2.5),
    ],
)
async def test_rendition_of_an_original_with_a_profile_looks_the_same_in_srgb(
    pool: RenderPool, tmp_path: Path, profile: str, container: str, loss: float
) -> None:
    body = saved(images.picture(400, 300), container, icc_profile=PROFILES[profile], **NEARLY_LOSSLESS[container])
    path, ideal = written(tmp_path, body), reference.decode_upright(body)
    assert images.distance(ideal, images.picture(400, 300)) >= MIN_DIFFERENCE[profile]
    assert images.distance(await picture(pool, path), ideal) < ROUNDING_TOLERANCE + loss
    for spelling in ("width=200", "crop=50:50:200:200,rotate=90,width=100,gamma=1.3", "rotate=30,width=200,background=204060"):
        image = await picture(pool, path, spelling)
        assert images.distance(image, reference.flatten_on_white(reference.reference(ideal, parse(spelling)))) < RESAMPLING_TOLERANCE + loss


@pytest.mark.parametrize(
    ("p3", "srgb"),
    [((200, 100, 100), (215, 93, 97)), ((128, 128, 128), (128, 128, 128)), ((0, 0, 0), (0, 0, 0)), ((255, 255, 255), (255, 255, 255))],
)
async def test_color_of_display_p3_is_converted_to_srgb(pool: RenderPool, tmp_path: Path, p3: images.Color, srgb: images.Color) -> None:
    image = await picture(pool, written(tmp_path, images.flat_png(16, 16, p3, profile=images.p3_profile())))
    assert images.near(images.corner_colors(image)["top left"], srgb, 2)


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_has_no_profile_unless_requested(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    bodies = [images.rgb_png(profile=profile) for profile in (None, *PROFILES.values())]
    bodies += [images.gray_jpeg(profile=images.gray_profile()), images.cmyk_jpeg(profile=images.cmyk_profile())]
    for body in bodies:
        assert not (await picture(pool, written(tmp_path, body), "width=100", image_format)).info.get("icc_profile")


@pytest.mark.parametrize("image_format", WITH_PROFILES)
async def test_rendition_in_p3_has_values_and_profile_of_p3(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    loss = 0 if image_format == "png" else 5
    for profile in (None, *PROFILES.values()):
        path = written(tmp_path, images.rgb_png(profile=profile))
        image = await picture(pool, path, "width=200,profile=p3", image_format)
        embedded = image.info["icc_profile"]
        assert "P3" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(embedded)))
        # With the profile applied it is the same picture, and its values are those of P3.
        numbers = images.picture(400, 300)
        ideal = converted(numbers, profile or images.srgb_profile(), images.p3_profile())
        ideal = reference.flatten_on_white(reference.reference(ideal, parse("width=200")))
        assert images.distance(image, ideal) < RESAMPLING_TOLERANCE + loss
        known = converted(Image.new("RGB", (1, 1), (255, 0, 0)), images.srgb_profile(), embedded).getpixel((0, 0))
        assert images.near(known, (234, 51, 35), 2)  # type: ignore[arg-type]


async def test_color_outside_srgb_stays_in_p3(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.flat_png(16, 16, (255, 0, 0), profile=images.p3_profile()))
    assert images.near(images.corner_colors(await picture(pool, path, "profile=p3"))["top left"], (255, 0, 0), 2)
    assert images.near(images.corner_colors(await picture(pool, path))["top left"], (255, 0, 0), 2)
    grass = written(tmp_path, images.flat_png(16, 16, (0, 255, 0), profile=images.p3_profile()))
    assert images.near(images.corner_colors(await picture(pool, grass, "profile=p3"))["top left"], (0, 255, 0), 2)


async def test_background_color_is_srgb_in_every_profile(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.clear_png(40, 30))
    for spelling, seen in (("background=ff0000", (255, 0, 0)), ("background=ff0000,profile=p3", (234, 51, 35))):
        assert images.near(images.corner_colors(await picture(pool, path, spelling))["top left"], seen, 2)


@pytest.mark.parametrize("image_format", WITH_PROFILES)
async def test_rendition_with_profile_keep_has_the_same_profile_and_values(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    loss = 0 if image_format == "png" else 5
    for profile in PROFILES.values():
        image = await picture(pool, written(tmp_path, images.rgb_png(profile=profile)), "width=200,profile=keep", image_format)
        assert image.info["icc_profile"] == profile
        ideal = reference.flatten_on_white(reference.reference(images.picture(400, 300), parse("width=200")))
        assert images.distance(image, ideal) < RESAMPLING_TOLERANCE + loss
    plain = await picture(pool, written(tmp_path, images.rgb_png()), "width=200,profile=keep", image_format)
    assert not plain.info.get("icc_profile")
    # CMYK is always converted, even with profile=keep.
    inks = await picture(pool, written(tmp_path, images.cmyk_jpeg(profile=images.cmyk_profile())), "width=200,profile=keep", image_format)
    assert (inks.mode, inks.info.get("icc_profile")) == ("RGB", None)


# CMYK and Lab.


@pytest.mark.parametrize("only_perceptual", [False, True])
@pytest.mark.parametrize("container", ["JPEG", "TIFF"])
async def test_rendition_of_cmyk_follows_its_profile(pool: RenderPool, tmp_path: Path, container: str, only_perceptual: bool) -> None:
    """If a profile has only one table, that serves every intent (ICC.1:2001-04 §6.3.1.1)."""
    profile = images.cmyk_profile(only_perceptual=only_perceptual)
    inks = images.picture(400, 300).convert("CMYK")
    body = saved(inks, container, icc_profile=profile, **({"quality": 95, "subsampling": 0} if container == "JPEG" else {}))
    path, ideal = written(tmp_path, body), reference.decode_upright(body)
    assert images.distance(await picture(pool, path), ideal) < ROUNDING_TOLERANCE
    for spelling in ("width=200", "rotate=90,width=100"):
        image = await picture(pool, path, spelling)
        assert images.distance(image, reference.flatten_on_white(reference.reference(ideal, parse(spelling)))) < RESAMPLING_TOLERANCE


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_of_cmyk_without_a_profile_has_similar_colors_in_rgb(
    pool: RenderPool, tmp_path: Path, image_format: Format
) -> None:
    image = (await picture(pool, written(tmp_path, images.cmyk_jpeg()), "width=200", image_format)).convert("RGB")
    # CMYK colors are duller than RGB ones: red is, blue and green even more.
    corners = images.corner_colors(image)
    assert images.near(corners["bottom right"], (255, 255, 255), 6)
    for corner, strongest in (("top left", 0), ("top right", 1), ("bottom left", 2)):
        assert corners[corner].index(max(corners[corner])) == strongest
    ideal = reference.reference(images.picture(400, 300), parse("width=200"))
    assert images.distance(image, ideal) < 40


@pytest.mark.parametrize("spelling", ["full", "width=100", "rotate=90,width=60,brightness=1.1"])
async def test_rendition_of_lab_has_the_same_colors(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    image = await picture(pool, written(tmp_path, images.lab_tiff()), spelling)
    assert image.mode == "RGB"
    ideal = reference.flatten_on_white(reference.reference(images.picture(400, 300), parse(spelling)))
    # The file's white point is D50 and libvips assumes D65, which changes saturated colors slightly and grays not at all.
    assert images.distance(image, ideal) < 5
    assert images.near(images.corner_colors(image)["bottom left" if "rotate" in spelling else "bottom right"], (255, 255, 255), 2)


# 16 bits.


def gradient(*, bands: int = 1, profile: bytes | None = None) -> bytes:
    """Return a 16-bit PNG with a gradient from 0 to 65,535 over 4,096 columns."""
    levels = np.linspace(0, 65_535, 4_096).round().astype(np.uint16)
    samples = np.broadcast_to(levels[None, :, None], (8, 4_096, bands)).copy()
    if bands in {2, 4}:
        samples[..., -1] = 65_535
    return images.png(samples, 16, profile=profile)


STEEP_CURVES = [
    "full",
    "width=1024",
    "gamma=3",
    "contrast=3",
    "brightness=4",
    "gamma=0.4",
    "width=2000,gamma=2.5",
    "rotate=90,gamma=2.5",
    "brightness=3,contrast=0.5,gamma=2",
    "width=2048,height=4,fit=fill,contrast=2.5",
]


@pytest.mark.parametrize("spelling", STEEP_CURVES)
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
async def test_gradient_of_16_bits_has_no_banding(pool: RenderPool, tmp_path: Path, bands: int, spelling: str) -> None:
    """It has every 8-bit level that the reference has, so it was not made from an 8-bit picture."""
    image = await picture(pool, written(tmp_path, gradient(bands=bands)), spelling)
    seen = np.unique(np.asarray(image.convert("RGB"))[..., 1])
    transform = parse(spelling)
    levels = (np.arange(transform.width or 4_096) + 0.5) / (transform.width or 4_096)
    levels = np.clip(levels * transform.brightness, 0, 1)
    levels = np.clip((levels - 0.5) * transform.contrast + 0.5, 0, 1) ** (1 / transform.gamma)
    there = np.unique((levels * 255).round())
    assert len(seen) >= len(there) * 0.97
    assert seen.min() <= there.min() + 2
    assert seen.max() >= there.max() - 2


@pytest.mark.parametrize("bands", [1, 3])
async def test_gradient_of_16_bits_with_a_profile_has_no_banding(pool: RenderPool, tmp_path: Path, bands: int) -> None:
    profile = images.gray_profile() if bands == 1 else images.wide_profile()
    for spelling in ("full", "width=1024", "gamma=2.5"):
        image = await picture(pool, written(tmp_path, gradient(bands=bands, profile=profile)), spelling)
        assert image.mode == ("L" if bands == 1 else "RGB")
        # Near black some levels are missing, because the profile has a gamma curve and sRGB a linear segment.
        assert len(np.unique(np.asarray(image.convert("RGB"))[..., 1])) > 235


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("gray", [False, True])
async def test_rendition_of_16_bits_has_8_bits_and_the_same_colors(
    pool: RenderPool, tmp_path: Path, image_format: Format, gray: bool
) -> None:
    image = await picture(pool, written(tmp_path, images.png16(400, 300, gray=gray)), "width=200", image_format)
    ideal = reference.flatten_on_white(reference.reference(images.picture(400, 300).convert("L" if gray else "RGB"), parse("width=200")))
    if image_format != "gif":
        assert image.mode == ("L" if gray and image_format in {"jxl", "png", "jpeg"} else "RGB")
    assert images.distance(image, ideal) < {"png": 0.7, "gif": 8.0}.get(image_format, 5.0)


# Gray.

GRAYS = {
    "png": images.gray_png(),
    "png, 16 bit": images.png16(gray=True),
    "png, 1 bit": images.png((np.asarray(images.picture(400, 300).convert("L")) > 120).astype(np.uint16), 1),
    "png, profile": images.png(np.asarray(images.picture(400, 300).convert("L")).astype(np.uint16), 8, profile=images.gray_profile()),
    "png, 16 bit, profile": images.png(
        np.asarray(images.picture(400, 300).convert("L")).astype(np.uint16) * np.uint16(257), 16, profile=images.gray_profile()
    ),
    "png, alpha": images.gray_png(alpha=True),
    "jpeg": images.gray_jpeg(),
    "jpeg, profile": images.gray_jpeg(profile=images.gray_profile()),
    "tiff": images.gray_tiff(400, 300),
}
GRAY_TRANSFORMS = [
    "full",
    "width=200",
    "rotate=90,width=100,brightness=1.2,contrast=1.1,gamma=1.2",
    "blur=3",
    "crop=50:50:200:100,flip=horizontal",
    "saturation=2,width=100",
    "profile=p3,width=100",
]


# Every transform with one kind, and every kind with some transforms; all of them in the long tests.
QUICK_GRAY_TRANSFORMS = {"full", "rotate=90,width=100,brightness=1.2,contrast=1.1,gamma=1.2", "profile=p3,width=100"}


@pytest.mark.parametrize(
    ("kind", "spelling"),
    [
        pytest.param(kind, spelling, marks=() if spelling in QUICK_GRAY_TRANSFORMS or kind == "png, profile" else pytest.mark.long)
        for kind in GRAYS
        for spelling in GRAY_TRANSFORMS
    ],
)
async def test_rendition_of_gray_is_one_band_of_the_right_gray(pool: RenderPool, tmp_path: Path, kind: str, spelling: str) -> None:
    body = GRAYS[kind]
    alpha = "alpha" in kind
    # Pillow cannot convert 16-bit gray with a profile.
    deep = "16 bit, profile" in kind
    ideal = reference.decode_upright(GRAYS["png, profile"] if deep else body)
    for image_format in ("png", "jpeg"):
        image = await picture(pool, written(tmp_path, body), spelling, image_format)
        if spelling.startswith("profile=p3"):
            assert image.mode in {"L", "LA", "RGB", "RGBA"}
        else:
            assert image.mode == ("LA" if alpha and image_format == "png" else "L")
        pixels = np.asarray(reference.flatten_on_white(image)).astype(int)
        assert (pixels.max(axis=2) - pixels.min(axis=2)).max() <= 2
        if not spelling.startswith("profile=p3"):
            expected = reference.flatten_on_white(reference.reference(ideal, parse(spelling)))
            assert images.distance(reference.flatten_on_white(image), expected) < (RESAMPLING_TOLERANCE if image_format == "png" else 3.5)


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_of_gray_is_gray(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    image = await picture(pool, written(tmp_path, images.gray_png()), "width=200", image_format)
    pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).max() <= 3


# Alpha.


@pytest.mark.parametrize("image_format", ["png", "webp", "avif"])
@pytest.mark.parametrize("name", ["rgba.png", "gray.png", "rgba.webp"])
async def test_rendition_of_a_transparent_original_is_transparent_in_the_same_places(
    pool: RenderPool, tmp_path: Path, name: str, image_format: Format
) -> None:
    body = {"rgba.png": images.rgba_png(), "gray.png": images.gray_png(alpha=True), "rgba.webp": images.webp(alpha=True)}[name]
    image = await picture(pool, written(tmp_path, body, name), "width=200", image_format)
    assert image.mode == ("LA" if name == "gray.png" and image_format == "png" else "RGBA")
    alpha = np.asarray(image.getchannel("A"))
    assert alpha[:, :96].min() >= 250
    assert alpha[40:110, 104:].max() <= 5


HIDDEN, SEEN = (0, 0, 255), (230, 200, 20)


def png_with_hidden_color() -> bytes:
    """Return a PNG with stripes of one color, and fully transparent pixels of another color between them."""
    pixels = np.zeros((300, 400, 4), np.uint8)
    pixels[..., :3] = HIDDEN
    pixels[40:260:1, 57:343] = (*SEEN, 255)
    pixels[::7, :, 3] = 0
    pixels[::7, :, :3] = HIDDEN
    return saved(Image.fromarray(pixels, "RGBA"), "PNG")


async def test_overlay_and_background_with_profile_keep_have_the_right_colors(pool: RenderPool, tmp_path: Path) -> None:
    """Compared in sRGB, with the rendition's own profile applied; a gray profile, or none, changes nothing."""
    mark = images.rgb_png(80, 60)
    overlay = written(tmp_path, mark, "overlay")
    spelling = f"overlay={'a' * 32}:center:1,pad=20,background=d03010"
    for profile in (images.wide_profile(), images.p3_profile(), None):
        path = written(tmp_path, images.rgb_png(80, 60, profile=profile))
        for option in ("profile=keep", "profile=p3"):
            image = images.decode((await rendered(pool, path, f"{spelling},{option}", "png", overlay=overlay)).body)
            seen = reference.to_srgb(image, image.info.get("icc_profile")).convert("RGB")
            assert images.distance(seen.crop((20, 20, 100, 80)), images.decode(mark)) < ROUNDING_TOLERANCE
            assert images.near(seen.getpixel((5, 5)), (0xD0, 0x30, 0x10), 3)  # type: ignore[arg-type]
    gray = written(tmp_path, images.gray_jpeg(80, 60, profile=images.gray_profile()))
    for option in ("profile=keep", "profile=p3"):
        image = images.decode((await rendered(pool, gray, f"{spelling},{option}", "png", overlay=overlay)).body)
        assert images.near(image.convert("RGB").getpixel((5, 5)), (0xD0, 0x30, 0x10), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("image_format", ["png", "webp", "avif", "gif"])
@pytest.mark.parametrize(
    "spelling",
    [
        "width=100",
        "width=133,height=50,fit=fill",
        "rotate=33",
        "blur=4",
        "width=700,enlarge=true",
        "width=150,height=200,fit=cover",
        "sharpen=2,width=100",
        "round=50",
        "width=90,rotate=200,pad=4",
    ],
)
async def test_transparent_pixels_contribute_no_color_to_visible_ones(
    pool: RenderPool, tmp_path: Path, spelling: str, image_format: Format
) -> None:
    lossless = {"webp": ",lossless=true", "avif": ",quality=95"}.get(image_format, "")
    image = (await picture(pool, written(tmp_path, png_with_hidden_color()), spelling + lossless, image_format)).convert("RGBA")
    pixels = np.asarray(image).astype(int)
    seen = pixels[pixels[..., 3] > 60][:, :3]
    assert len(seen) > 500
    # A sharpened edge may overshoot, but nowhere is there more blue than was visible.
    assert seen[:, 2].max() < 90
    assert np.abs(seen - SEEN).mean() < (25 if "sharpen" in spelling else 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
async def test_sharpen_makes_no_edge_at_the_border_of_a_cutout(pool: RenderPool, tmp_path: Path, mode: str) -> None:
    """A flat disc on a transparent background has no edge in lightness, so none of its pixels becomes lighter or darker."""
    down, across = np.mgrid[0:100, 0:100]
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[(across - 50) ** 2 + (down - 50) ** 2 < 1_600] = (150, 150, 150, 255)
    body = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(body, "PNG")
    for spelling in ("sharpen=0.5", "sharpen=2", "sharpen=10"):
        image = np.asarray((await picture(pool, written(tmp_path, body.getvalue()), spelling)).convert("RGBA")).astype(int)
        assert (image[..., 3] == pixels[..., 3]).all()
        assert np.abs(image[pixels[..., 3] > 0][:, :3] - 150).max() <= 1, spelling


@pytest.mark.parametrize("spelling", ["full", "width=100", "rotate=15,width=120"])
async def test_transparent_pixels_are_white_in_a_format_without_alpha(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    image = await picture(pool, written(tmp_path, png_with_hidden_color()), spelling, "jpeg")
    assert image.mode == "RGB"
    ideal = reference.flatten_on_white(reference.reference(images.decode(png_with_hidden_color()), parse(spelling)))
    assert images.distance(image, ideal) < reference.encoder_loss(ideal, "jpeg") * 1.2 + ROUNDING_TOLERANCE


async def test_transparent_pixels_of_an_overlay_contribute_no_color(pool: RenderPool, tmp_path: Path) -> None:
    path, overlay = written(tmp_path, images.flat_png(300, 200, (255, 255, 255))), written(tmp_path, png_with_hidden_color(), "overlay")
    for opacity in (1, 0.5):
        spelling = f"overlay={'a' * 32}:center:0.5:{opacity}"
        image = images.decode((await rendered(pool, path, spelling, "png", overlay=overlay)).body)
        ideal = reference.reference(Image.new("RGB", (300, 200), (255, 255, 255)), parse(spelling), images.decode(png_with_hidden_color()))
        assert images.distance(image, reference.flatten_on_white(ideal)) < 1
        # Between white and the visible color, red is never low.
        assert np.asarray(image)[..., 0].min() > 215


# Files of the corpus.


@needs_corpus
@pytest.mark.parametrize("path", [*images.corpus_files("icc"), *images.corpus_files("jpeg")], ids=lambda path: path.name)
async def test_corpus_file_with_a_profile_matches_littlecms(pool: RenderPool, path: Path) -> None:
    image = await picture(pool, path)
    assert images.distance(image, decoded(path)) < ROUNDING_TOLERANCE


@needs_corpus
@pytest.mark.parametrize("name", ["sharp__Channel_digital_image_CMYK_color.jpg", "sharp__fogra-0-100-100-0.tif"])
async def test_corpus_cmyk_with_a_profile_follows_it(pool: RenderPool, name: str) -> None:
    (path,) = [path for path in images.corpus_files("cmyk") if path.name == name]
    ideal = decoded(path)
    spelling = "width=300"
    image = await picture(pool, path, spelling)
    assert images.distance(image, reference.flatten_on_white(reference.reference(ideal, parse(spelling)))) < 2.5


@needs_corpus
async def test_corpus_lab_is_rgb_of_its_size(pool: RenderPool) -> None:
    (path,) = [path for path in images.corpus_files("tiff") if "cielab" in path.name]
    image = await picture(pool, path, "width=200")
    assert (image.mode, image.size) == ("RGB", (200, 133))
    assert np.asarray(image).std() > 20


@pytest.mark.long
@needs_corpus
@pytest.mark.parametrize("path", images.corpus_files("hdr"), ids=lambda path: path.name)
@pytest.mark.parametrize("image_format", FORMATS)
async def test_corpus_file_with_a_gain_map_is_rendered_as_its_sdr_picture(pool: RenderPool, path: Path, image_format: Format) -> None:
    ideal = decoded(path)
    image = await picture(pool, path, "width=300", image_format)
    expected = reference.flatten_on_white(reference.reference(ideal, parse("width=300")))
    assert image.size == expected.size
    assert images.distance(image, expected) < {"png": 2.5, "gif": 9.0}.get(image_format, 6.0)
    # No gain map is left: no second picture, and no metadata of it except the name of its namespace.
    for spelling in ("width=300", "width=300,metadata=all"):
        rendition = (await rendered(pool, path, spelling, image_format)).body
        assert b"hdrgm:" not in rendition
        assert b"GainMap" not in rendition
        assert b"MPF\0" not in rendition

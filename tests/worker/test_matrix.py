"""Every format of originals × every format of renditions × transforms: size, mode, content, and the distance to a reference.

The reference is made without the code under test (`reference.py`). How far a rendition may be from it is measured for each transform
and format, by Pillow: what another resampler makes of it, and what another encoder loses at the same quality.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from PIL import ExifTags, Image
from PIL.Image import Resampling

from service.errors import CannotFitError
from service.images.formats import FORMATS, Format
from service.images.options import COMPASS, FITS, FocalPoint, Overlay, Ratio, Region, Sides
from service.images.transform import Transform, parse
from service.rendering.pool import RenderPool
from service.rendering.protocol import Rendered
from tests.support import images, reference
from tests.support.renders import render_job, rendered, written

pytestmark = pytest.mark.anyio

WIDTH, HEIGHT = 200, 150

# Levels of 8-bit sRGB by which two correct implementations may differ: by rounding once, and by rounding after several steps.
ROUNDED_ONCE = 0.5
ROUNDED_REPEATEDLY = 1.0

# The strength of background=blur is documented only in words, so the tolerance is larger.
BACKDROP_TOLERANCE = 1.0

# The losses of two encoders of a format at one quality differ by at most this factor on the scene.
ENCODER_FACTOR = 1.2

MARK = "a" * 32

TRANSFORMS = [
    "full",
    "width=120",
    "height=61",
    "width=100,height=100",
    "width=90,height=90,fit=outside",
    "width=80,height=100,fit=fill",
    "width=100,height=100,fit=cover,gravity=southeast",
    "width=90,height=120,fit=cover,gravity=focal:0.25:0.9",
    "width=120,height=120,fit=contain,gravity=north",
    "width=300,enlarge=true",
    "width=100,ratio=5:4",
    "ratio=2:3,gravity=east",
    "height=120,ratio=3:1,fit=contain,gravity=east",
    "crop=20:30:150:110",
    "crop=25p:0p:50p:50p,width=60",
    "rotate=90,width=90",
    "rotate=30",
    "width=100,rotate=314.5,background=336699",
    "width=100,height=220,fit=fill,enlarge=true",
    "width=120,height=240,fit=cover,gravity=northwest,enlarge=true",
    "rotate=270,flip=horizontal",
    "flip=vertical,width=200,height=100,fit=fill",
    "brightness=1.3",
    "contrast=0.6",
    "gamma=1.6",
    "saturation=0.3",
    "saturation=1.8,width=120",
    "grayscale=true,width=120",
    "blur=3",
    f"overlay={MARK}:southeast:0.4:0.7:6:4",
    f"width=120,overlay={MARK}",
    f"overlay={MARK}:center:1:1:-15:20",
    "round=40",
    "width=120,height=120,fit=cover,round=max",
    "pad=10:20:0,background=336699",
    "background=ff8800c0",
    "width=100,height=150,fit=contain,background=blur",
    (
        "crop=10p:10p:80p:80p,rotate=90,flip=vertical,width=100,height=100,fit=contain,brightness=1.2,contrast=1.1,gamma=1.2,"
        f"saturation=1.4,blur=1,overlay={MARK}:northwest:0.3:1:8:8,round=12,pad=5,background=eeeeee"
    ),
]


@functools.cache
def mark() -> bytes:
    """Return the overlay: a disc in two colors on a transparent background."""
    down, across = np.mgrid[0:60, 0:80]
    disc = (across - 40) ** 2 + (down - 30) ** 2 < 28**2
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[disc] = (250, 140, 20, 255)
    pixels[disc & (across > 40)] = (40, 20, 120, 200)
    out = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "PNG")
    return out.getvalue()


def svg() -> bytes:
    """Return an SVG with the scene's corners, a disc and a bar on a transparent background."""
    side = images.patch_side(WIDTH, HEIGHT)
    patches = "".join(
        f'<rect x="{0 if "left" in corner else WIDTH - side}" y="{0 if "top" in corner else HEIGHT - side}" width="{side}" height="{side}" '
        f'fill="rgb{color}"/>'
        for corner, color in images.CORNERS.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
        f'<circle cx="100" cy="60" r="30" fill="rgb{SUN}"/><rect x="50" y="105" width="100" height="15" fill="rgb{BAR}"/>{patches}</svg>'
    ).encode()


def drawn(scale: int) -> Image.Image:
    """Return that SVG, rasterized at `scale` times its size."""
    down, across = (np.mgrid[0 : HEIGHT * scale, 0 : WIDTH * scale] + 0.5) / scale
    pixels = np.zeros((HEIGHT * scale, WIDTH * scale, 4), np.uint8)
    pixels[(across - 100) ** 2 + (down - 60) ** 2 < 30**2] = (*SUN, 255)
    pixels[(across > 50) & (across < 150) & (down > 105) & (down < 120)] = (*BAR, 255)
    side = images.patch_side(WIDTH, HEIGHT)
    for corner, color in images.CORNERS.items():
        columns = across < side if "left" in corner else across > WIDTH - side
        rows = down < side if "top" in corner else down > HEIGHT - side
        pixels[rows & columns] = (*color, 255)
    return Image.fromarray(pixels, "RGBA")


SUN, BAR = (200, 170, 60), (60, 90, 50)
VECTOR_SCALE = 4


def interlaced(image: Image.Image, bits: int) -> bytes:
    pixels = np.asarray(image).astype(np.uint16)
    return images.png(pixels * 257 if bits == 16 else pixels, bits, interlaced=True)


def scene() -> Image.Image:
    return images.picture(WIDTH, HEIGHT)


def stored(image_format: str, **options: object) -> Callable[[], bytes]:
    def body() -> bytes:
        out = io.BytesIO()
        scene().save(out, image_format, **options)
        return out.getvalue()

    return body


# Kind of original → its bytes. Pillow decodes them for the reference, except 16 bits and SVG, which it cannot.
ORIGINALS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: images.photo_jpeg(WIDTH, HEIGHT),
    "jpeg, progressive": lambda: images.photo_jpeg(WIDTH, HEIGHT, progressive=True),
    "jpeg, turned": lambda: images.photo_jpeg(WIDTH, HEIGHT, orientation=6),
    "jpeg, gray": lambda: images.gray_jpeg(WIDTH, HEIGHT),
    "jpeg, cmyk": lambda: images.cmyk_jpeg(WIDTH, HEIGHT, profile=images.cmyk_profile()),
    "png": lambda: images.rgb_png(WIDTH, HEIGHT),
    "png, alpha": lambda: images.rgba_png(WIDTH, HEIGHT),
    "png, 16 bit": lambda: images.png16(WIDTH, HEIGHT),
    "png, palette": lambda: images.palette_png(WIDTH, HEIGHT),
    "png, gray": lambda: images.gray_png(WIDTH, HEIGHT),
    "png, gray alpha": lambda: images.gray_png(WIDTH, HEIGHT, alpha=True),
    "png, interlaced": lambda: interlaced(scene(), 8),
    "png, p3": lambda: images.rgb_png(WIDTH, HEIGHT, profile=images.p3_profile()),
    "webp": lambda: images.webp(WIDTH, HEIGHT),
    "webp, alpha": lambda: images.webp(WIDTH, HEIGHT, alpha=True),
    "webp, lossless": stored("WEBP", lossless=True),
    "gif": lambda: images.palette_gif(WIDTH, HEIGHT),
    # Decoders differ in how they upsample chroma.
    "avif": lambda: images.avif(WIDTH, HEIGHT, subsampling="4:4:4"),
    "heic": lambda: images.heic(WIDTH, HEIGHT),
    "tiff": lambda: images.tiff(WIDTH, HEIGHT),
    "svg": svg,
}

# Kinds whose pixels differ from those of the other kinds: dithered, with more saturated colors, or drawn at any scale.
OTHER_SCENES = {"png, palette", "gif", "png, p3", "svg"}

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def decoded(kind: str, body: bytes) -> Image.Image:
    """Return the picture that the reference is made from."""
    if kind == "svg":
        return drawn(VECTOR_SCALE)
    if kind == "heic":
        return pillow_heif.open_heif(io.BytesIO(body))[0].to_pillow()
    return scene() if kind == "png, 16 bit" else reference.decode_upright(body)


def mode_of(original: Image.Image, transform: Transform, ideal: Image.Image, image_format: Format) -> str | None:
    """Return the mode that Pillow must report for a rendition; `None` if any is right."""
    if image_format == "gif" or transform.background == "blur":
        return None
    opened = transform.rotate % 90 != 0 or transform.round is not None or transform.pad != Transform().pad
    laid = transform.fit == "contain" and min(ideal.getchannel("A").get_flattened_data()) == 0
    clear = original.mode in {"LA", "RGBA"} or opened or laid
    opaque = transform.background is not None and len(transform.background) == 6
    # libwebp leaves out alpha that is opaque everywhere.
    dropped = image_format == "webp" and min(ideal.getchannel("A").get_flattened_data()) == 255
    alpha = clear and not opaque and not dropped and image_format != "jpeg"
    colored = transform.overlay is not None or (transform.background is not None and clear)
    gray = (original.mode in {"L", "LA"} or transform.grayscale) and not colored and image_format in {"jxl", "jpeg", "png"}
    return MODES[(1 if gray else 3) + alpha]


def allowed(spelling: str, image_format: Format, kind: str = "png") -> float:
    """Return the largest distance of a rendition from the reference: that of another resampler and another encoder, plus rounding."""
    own = kind if kind in OTHER_SCENES else "png"
    _, resampling_loss = ideal_of(spelling, own)
    return resampling_loss + encoder_loss(spelling, image_format, own) * ENCODER_FACTOR + ROUNDED_ONCE


@functools.cache
def original_of(kind: str) -> Image.Image:
    return decoded(kind, ORIGINALS[kind]())


@functools.cache
def ideal_of(spelling: str, kind: str) -> tuple[Image.Image, float]:
    """Return the reference, and its distance from the one of another resampler."""
    original = original_of(kind)
    ideal, other = (
        reference.reference(original, parse(spelling), images.decode(mark()), resampling=resampling, vector_scale=vector_scale(kind))
        for resampling in (Resampling.LANCZOS, Resampling.BICUBIC)
    )
    return ideal, distance(ideal, other)


# Enough for one kind, whose parts are tested one after another.
@functools.lru_cache(maxsize=len(TRANSFORMS))
def reference_of(spelling: str, kind: str) -> Image.Image:
    """Return the reference of a kind, also of one whose allowed distance is that of another kind."""
    if kind in OTHER_SCENES:
        return ideal_of(spelling, kind)[0]
    return reference.reference(original_of(kind), parse(spelling), images.decode(mark()), vector_scale=vector_scale(kind))


@functools.cache
def encoder_loss(spelling: str, image_format: Format, kind: str) -> float:
    return reference.encoder_loss(reference.flatten_on_white(ideal_of(spelling, kind)[0]), image_format)


def vector_scale(kind: str) -> int:
    return VECTOR_SCALE if kind == "svg" else 0


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference in levels of 8-bit sRGB, on white or on black, whichever is larger, so that alpha counts too."""
    return max(
        images.distance(reference.flatten_on_color(one, ground), reference.flatten_on_color(other, ground)) for ground in BACKGROUNDS
    )


BACKGROUNDS = ((255, 255, 255), (0, 0, 0))


def as_gif(picture: Image.Image) -> Image.Image:
    """Return a picture whose pixels are either opaque or transparent."""
    picture.putalpha(picture.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)))
    return picture


# The transforms are divided into this many parts. In every part each kind of original meets all of them, and so does each format.
PARTS = 6


def transforms_for(kind: str, image_format: Format, part: int) -> list[str]:
    turn = list(ORIGINALS).index(kind) + list(FORMATS).index(image_format) + part
    return TRANSFORMS[turn % PARTS :: PARTS]


# Kinds that differ from another one only in how they are decoded, or in colors that `test_color.py` checks with fewer transforms. Some
# transforms in every format show that; the others have every transform in every format.
SIMILAR_PARTS = 2
SIMILAR_KINDS = {
    *("jpeg, cmyk", "png, p3"),
    *("jpeg, progressive", "jpeg, turned", "jpeg, gray"),
    *("png, palette", "png, gray", "png, interlaced"),
    *("webp, alpha", "webp, lossless", "tiff"),
}


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        pytest.param(kind, part, marks=pytest.mark.long if part or kind in SIMILAR_KINDS else ())
        for kind in ORIGINALS
        for part in range(SIMILAR_PARTS if kind in SIMILAR_KINDS else PARTS)
    ],
)
async def test_rendition_in_every_format_matches_the_reference(pool: RenderPool, tmp_path: Path, kind: str, part: int) -> None:
    body = ORIGINALS[kind]()
    path, overlay = written(tmp_path, body), written(tmp_path, mark(), "overlay")
    original = original_of(kind)
    disagreements: list[str] = []

    async def compare(spelling: str, image_format: Format) -> None:
        job = render_job(path, spelling, image_format, overlay=overlay if "overlay" in spelling else None)
        result = await pool.run(job, Rendered)
        image, ideal = images.decode(result.body), reference_of(spelling, kind)
        mode = mode_of(original, job.request.transform, ideal, image_format)
        if not image.size == (result.width, result.height) == ideal.size:
            disagreements.append(f"{spelling} {image_format}: {image.size}, not {ideal.size}")
            return
        if mode is not None and image.mode != mode:
            disagreements.append(f"{spelling} {image_format}: {image.mode}, not {mode}")
        if image_format == "jpeg":
            ideal = reference.flatten_on_white(ideal)
        away = distance(image, as_gif(ideal.copy()) if image_format == "gif" else ideal)
        most = allowed(spelling, image_format, kind) + (BACKDROP_TOLERANCE if "=blur" in spelling else 0)
        if away > most:
            disagreements.append(f"{spelling} {image_format}: {away:.2f} away, {most:.2f} allowed")

    async with anyio.create_task_group() as tasks:
        for image_format in FORMATS:
            for spelling in transforms_for(kind, image_format, part):
                tasks.start_soon(compare, spelling, image_format)
    assert not disagreements, "\n".join(disagreements)


# Options that the reference does not have.


async def made(pool: RenderPool, path: Path, spelling: str, image_format: Format = "png") -> Image.Image:
    return images.decode((await rendered(pool, path, spelling, image_format)).body)


def framed(picture: Image.Image, border: int | tuple[int, ...], sides: tuple[int, int, int, int]) -> bytes:
    """Return a PNG of a picture with a border, whose widths are those at the left, top, right and bottom."""
    left, top, right, bottom = sides
    canvas = Image.new(picture.mode, (picture.width + left + right, picture.height + top + bottom), border)
    canvas.paste(picture, (left, top))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()


def noisy(body: bytes, steps: int) -> bytes:
    """Return a picture with noise of up to `steps` levels in every band."""
    pixels = np.asarray(images.decode(body)).astype(int)
    pixels += np.random.default_rng(1).integers(-steps, steps + 1, pixels.shape)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


BORDER = (40, 60, 200)
SIDES = (11, 7, 23, 30)
# A picture in which every pixel differs from the border.
INNER = images.picture(80, 60).point(lambda level: level // 2 + 120)


@pytest.mark.parametrize(
    ("body", "spelling", "region"),
    [
        (framed(INNER, BORDER, SIDES), "trim=10", (11, 7, 91, 67)),
        (framed(INNER, BORDER, SIDES), "trim=0", (11, 7, 91, 67)),
        (noisy(framed(INNER, BORDER, SIDES), 4), "trim=10", (11, 7, 91, 67)),
        (noisy(framed(INNER, BORDER, SIDES), 4), "trim=0", (0, 0, 114, 97)),
        (framed(INNER.convert("L"), 30, SIDES), "trim=10", (11, 7, 91, 67)),
        (framed(INNER.convert("RGBA"), (0, 0, 0, 0), SIDES), "trim=10", (11, 7, 91, 67)),
        (framed(INNER, BORDER, SIDES), "crop=5:2:60:40,trim=10", (11, 7, 65, 42)),
        (framed(INNER, BORDER, SIDES), "crop=20:20:50:30,trim=255", (20, 20, 70, 50)),
        (framed(INNER, BORDER, (0, 0, 0, 0)), "trim=0", None),
        (images.flat_png(50, 40, BORDER), "trim=10", (0, 0, 50, 40)),
        (images.clear_png(50, 40), "trim=10", (0, 0, 50, 40)),
    ],
)
async def test_trim_keeps_the_part_inside_the_border(
    pool: RenderPool, tmp_path: Path, body: bytes, spelling: str, region: tuple[int, int, int, int] | None
) -> None:
    path, original = written(tmp_path, body), images.decode(body)
    expected = reference.trim_box(original, parse(spelling))
    assert region in {None, expected}
    image = await made(pool, path, spelling)
    assert image.size == (expected[2] - expected[0], expected[3] - expected[1])
    assert distance(image, original.crop(expected)) == 0
    turned = await made(pool, path, f"{spelling},rotate=90,width=20")
    ideal = reference.reference(original, parse(f"{spelling},rotate=90,width=20"))
    assert turned.size == ideal.size
    assert distance(turned, ideal) < 1.5


async def test_sharpen_steepens_edges_and_preserves_the_mean_and_flat_parts(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.rgb_png(WIDTH, HEIGHT))
    plain, soft, strong = [await made(pool, path, spelling) for spelling in ("full", "sharpen=1", "sharpen=3")]
    steepness = [float(np.abs(np.diff(np.asarray(image.convert("L")).astype(int), axis=1)).mean()) for image in (plain, soft, strong)]
    assert steepness[0] * 1.1 < steepness[1] < steepness[2]
    side = images.patch_side(WIDTH, HEIGHT)
    for image in (soft, strong):
        assert abs(np.asarray(image).mean() - np.asarray(plain).mean()) < 2
        assert images.distance(image.crop((0, 0, side // 3, side // 3)), plain.crop((0, 0, side // 3, side // 3))) < 1


async def test_flat_picture_is_unchanged_by_blur_and_sharpen(pool: RenderPool, tmp_path: Path) -> None:
    for color in ((0, 0, 0), (255, 255, 255), (13, 130, 240)):
        path = written(tmp_path, images.flat_png(60, 40, color))
        for spelling in ("blur=0.3", "blur=5", "blur=250", "sharpen=0.3", "sharpen=10", "rotate=180,blur=2"):
            image = await made(pool, path, spelling)
            assert image.size == (60, 40)
            assert images.distance(image, Image.new("RGB", (60, 40), color)) == 0, (spelling, color)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1, 2.5, 6, 12, 40])
async def test_blur_is_a_gaussian_of_its_sigma(pool: RenderPool, tmp_path: Path, sigma: float) -> None:
    path = written(tmp_path, images.rgb_png(WIDTH, HEIGHT))
    image = await made(pool, path, f"blur={sigma:g}")
    away = images.distance(image, reference.flatten_on_white(reference.reference(scene(), parse(f"blur={sigma:g}"))))
    # A sigma that is 10% larger would already exceed this.
    other = reference.flatten_on_white(reference.reference(scene(), parse(f"blur={sigma * 1.1:.4f}")))
    assert away < ROUNDED_ONCE + images.distance(other, reference.flatten_on_white(reference.reference(scene(), parse(f"blur={sigma:g}"))))


@pytest.mark.parametrize("image_format", ["webp", "avif", "png"])
async def test_lossless_rendition_is_the_picture_itself(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    for body in (images.rgb_png(WIDTH, HEIGHT), images.rgba_png(WIDTH, HEIGHT), images.gray_png(WIDTH, HEIGHT)):
        image = await made(pool, written(tmp_path, body), "lossless=true", image_format)
        assert distance(image, images.decode(body)) == 0


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "avif", "png", "gif"])
async def test_rendition_within_max_bytes_fits_and_is_the_best_that_does(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    path = written(tmp_path, images.rgb_png(WIDTH, HEIGHT))
    whole = await rendered(pool, path, "full", image_format)
    roomy = await rendered(pool, path, f"max_bytes={len(whole.body)}", image_format)
    assert roomy.body == whole.body
    away = []
    for share in (0.9, 0.7):
        small = await rendered(pool, path, f"max_bytes={int(len(whole.body) * share)}", image_format)
        assert len(small.body) <= len(whole.body) * share
        # The next quality below lossless PNG has 256 colors.
        assert len(small.body) > len(whole.body) * share * 0.6 or image_format == "png"
        assert (small.width, small.height) == (WIDTH, HEIGHT)
        away.append(images.distance(images.decode(small.body), scene()))
    assert images.distance(images.decode(whole.body), scene()) < away[0] <= away[1]
    with pytest.raises(CannotFitError) as caught:
        await rendered(pool, path, "max_bytes=128", image_format)
    assert caught.value.remedy


async def test_progressive_rendition_has_the_same_pixels(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, images.rgb_png(WIDTH, HEIGHT))
    in_passes_by_format: dict[Format, str] = {"jpeg": "progressive", "png": "interlace"}
    for image_format, in_passes in in_passes_by_format.items():
        plain, passes = [await made(pool, path, spelling, image_format) for spelling in ("full", "progressive=true")]
        assert bool(passes.info.get(in_passes)) is True
        assert images.distance(plain, passes) < ROUNDED_ONCE


@pytest.mark.parametrize("image_format", FORMATS)
async def test_more_effort_gives_no_more_bytes_and_the_same_size(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    path = written(tmp_path, images.rgb_png(WIDTH, HEIGHT))
    least, most = [await rendered(pool, path, f"effort={effort}", image_format) for effort in (0, 6)]
    assert len(most.body) < len(least.body) * 1.02
    assert images.decode(most.body).size == images.decode(least.body).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "avif", "png"])
async def test_rendition_has_exactly_the_requested_metadata(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    path = written(tmp_path, images.copyrighted_jpeg(WIDTH, HEIGHT, orientation=6))
    none, owner, everything = [(await made(pool, path, spelling, image_format)).getexif() for spelling in METADATA_TRANSFORMS]
    assert not none
    assert {ExifTags.Base(tag).name: str(value).strip("\0 ") for tag, value in owner.items() if tag in OWNER} == OWNED
    assert images.CAMERA not in str(dict(owner))
    assert not owner.get_ifd(ExifTags.IFD.GPSInfo)
    assert str(everything[ExifTags.Base.Model]).strip("\0") == images.CAMERA
    assert everything.get_ifd(ExifTags.IFD.GPSInfo)
    # The picture is upright now, and must not be rotated again.
    for exif in (owner, everything):
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
    for spelling in METADATA_TRANSFORMS:
        image = await made(pool, path, spelling, image_format)
        assert image.size == (WIDTH, HEIGHT)
        assert images.near(images.corner_colors(image)["top right"], images.CORNERS["top right"])


METADATA_TRANSFORMS = ("full", "metadata=copyright", "metadata=all")
OWNER = (ExifTags.Base.Artist, ExifTags.Base.Copyright)
OWNED = {"Artist": images.ARTIST, "Copyright": images.COPYRIGHT}


# All color types and depths of PNG.


def sampled(color_type: int, bits: int) -> tuple[npt.NDArray[np.uint16], Image.Image]:
    """Return samples of a color type (PNG, third edition, §11.2.1) at a depth, and the picture that they represent.

    Neither side is a multiple of eight, so rows end within a byte, and the passes of an interlaced file differ in size.
    """
    width, height, most = 53, 37, (1 << bits) - 1
    rgb = np.asarray(images.picture(width, height)).astype(np.float64) / 255
    alpha = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    if color_type == 3:
        indices = (rgb[..., 0] * min(most, 255)).round().astype(np.uint16)
        palette = np.array(palette_of(min(most, 255) + 1), np.uint8)
        return indices, Image.fromarray(palette[indices][..., :3], "RGB")
    values = {0: rgb[..., :1], 2: rgb, 4: np.concatenate([rgb[..., :1], alpha], axis=2), 6: np.concatenate([rgb, alpha], axis=2)}
    samples = (values[color_type] * most).round().astype(np.uint16)
    seen = (samples / most * 255).round().astype(np.uint8)
    return samples, Image.fromarray(seen[..., 0] if color_type == 0 else seen, {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}[color_type])


def palette_of(colors: int, *, alpha: bool = False) -> list[tuple[int, ...]]:
    shades = [(255 - 255 * index // max(1, colors - 1), (index * 37) % 256, (index * 91) % 256) for index in range(colors)]
    return [(*shade, 255 * (index % 3 > 0)) for index, shade in enumerate(shades)] if alpha else list(shades)


# Color type → its permitted depths.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color_type", "bits"), [(color_type, bits) for color_type, depths in DEPTHS.items() for bits in depths])
async def test_png_of_every_color_type_and_depth_is_decoded(
    pool: RenderPool, tmp_path: Path, color_type: int, bits: int, interlaced: bool
) -> None:
    samples, seen = sampled(color_type, bits)
    palette = palette_of(1 << bits) if color_type == 3 else []
    path = written(tmp_path, images.png(samples, bits, interlaced=interlaced, palette=palette))
    image = await made(pool, path, "full")
    assert image.mode == seen.mode
    # 16 bits truncated to 8, instead of rounded, would differ by half a level.
    assert distance(image, seen) < 0.4
    for spelling in ("width=31", "crop=10:5:40:30,rotate=90", "gamma=1.5,width=40"):
        assert distance(await made(pool, path, spelling), reference.reference(seen, parse(spelling))) < 1.5
    assert images.distance(await made(pool, path, "full", "webp"), reference.flatten_on_white(seen)) < 90
    assert (await made(pool, path, "full", "jpeg")).mode == ("L" if color_type in {0, 4} else "RGB")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color_type", "bits"), [(0, 1), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 4), (3, 8)])
async def test_png_with_a_transparent_color_is_transparent_there(
    pool: RenderPool, tmp_path: Path, color_type: int, bits: int, interlaced: bool
) -> None:
    samples, seen = sampled(color_type, bits)
    if color_type == 3:
        palette = palette_of(1 << bits, alpha=True)
        body = images.png(samples, bits, interlaced=interlaced, palette=palette)
        alpha = np.array([color[3] for color in palette], np.uint8)[samples]
    else:
        pixel = samples.reshape(37, 53, -1)[20, 25]
        body = images.png(samples, bits, interlaced=interlaced, clear=tuple(int(sample) for sample in pixel))
        alpha = (255 * (samples.reshape(37, 53, -1) != pixel).any(axis=2)).astype(np.uint8)
    image = await made(pool, written(tmp_path, body), "full")
    assert image.mode in {"LA", "RGBA"}
    expected = seen.convert("RGBA")
    expected.putalpha(Image.fromarray(alpha, "L"))
    assert distance(image, expected) < 0.3


# Combinations of options, as PNG: the order in which they act matters.

tenths = st.integers(0, 20).map(lambda number: number / 10)
parts = st.integers(0, 100).map(lambda number: number / 100)


def edge_tolerance(transform: Transform, ideal: Image.Image) -> float:
    """Return how much of the distance the edge of a freely rotated picture may cause, which may be aliased or smooth.

    The edge is a pixel wide, or wider if it is enlarged or blurred, and differs by an eighth of the full range.
    """
    if transform.rotate % 90 == 0:
        return 0.0
    left, top, right, bottom = reference.crop_box(WIDTH, HEIGHT, transform)
    width, height = reference.rotated_size(right - left, bottom - top, transform.rotate)
    pixels = max(1.0, ideal.width / width, ideal.height / height, (transform.blur or 0) / 2)
    return 255 / 8 * pixels * 2 * (ideal.width + ideal.height) / (ideal.width * ideal.height)


@st.composite
def combinations(draw: st.DrawFn) -> Transform:
    """Draw a transform with some of the options that change the picture."""
    left, top = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    overlay = st.builds(
        Overlay,
        st.just(MARK),
        st.sampled_from(COMPASS),
        st.integers(10, 100).map(lambda number: number / 100),
        parts,
        st.integers(-30, 30),
        st.integers(-30, 30),
    )
    fit: Any = draw(st.sampled_from(FITS))
    gravity: Any = "center"
    if fit in {"cover", "contain"}:
        gravity = draw(st.sampled_from(COMPASS) | (st.builds(FocalPoint, parts, parts) if fit == "cover" else st.nothing()))
    options: dict[str, st.SearchStrategy[Any]] = {
        "crop": st.just(Region(left, top, draw(st.integers(30, 100 - left)), draw(st.integers(30, 100 - top)), percent=True)),
        "rotate": st.sampled_from((90.0, 180.0, 270.0)) | st.integers(1, 3_599).map(lambda number: number / 10),
        "flip": st.sampled_from(("horizontal", "vertical")),
        "enlarge": st.just(True),
        "brightness": st.integers(5, 15).map(lambda number: number / 10),
        "contrast": st.integers(5, 15).map(lambda number: number / 10),
        "gamma": st.integers(5, 20).map(lambda number: number / 10),
        "saturation": tenths,
        "blur": st.integers(3, 60).map(lambda number: number / 10),
        "overlay": overlay,
        "round": st.integers(1, 150) | st.just("max"),
        "pad": st.builds(Sides, *[st.integers(0, 30)] * 4),
        "background": st.sampled_from(("ff8800", "204060c0", "ffffff40")),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(options)), max_size=6))
    drawn_options = {name: draw(strategy) for name, strategy in options.items() if name in chosen}
    box = Transform(width=draw(st.integers(20, 260)), height=draw(st.integers(20, 260)), fit=fit, gravity=gravity)
    if fit not in {"inside", "outside"} and draw(st.booleans()):
        box = structs.replace(box, height=None, ratio=draw(st.sampled_from((Ratio(1, 1), Ratio(5, 2), Ratio(2, 3)))))
    return structs.replace(box, **drawn_options)


@given(transforms=st.lists(combinations(), min_size=6, max_size=6), clear=st.booleans())
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_combination_of_options_matches_the_reference(
    pool: RenderPool, tmp_path: Path, transforms: list[Transform], clear: bool
) -> None:
    body = images.rgba_png(WIDTH, HEIGHT) if clear else images.rgb_png(WIDTH, HEIGHT)
    path, overlay = written(tmp_path, body), written(tmp_path, mark(), "overlay")
    wrong: list[str] = []

    async def compare(transform: Transform) -> None:
        spelling = transform.canonical_form
        image = images.decode((await rendered(pool, path, spelling, "png", overlay=overlay if transform.overlay else None)).body)
        ideal, other = (
            reference.reference(images.decode(body), transform, images.decode(mark()), resampling=resampling)
            for resampling in (Resampling.LANCZOS, Resampling.BICUBIC)
        )
        edge = edge_tolerance(transform, ideal)
        if image.size != ideal.size:
            wrong.append(f"{spelling}: {image.size}, not {ideal.size}")
        elif (away := distance(image, ideal)) > distance(ideal, other) + edge + ROUNDED_REPEATEDLY:
            wrong.append(f"{spelling}: {away:.2f} away, {distance(ideal, other) + edge + ROUNDED_REPEATEDLY:.2f} allowed")

    async with anyio.create_task_group() as tasks:
        for transform in transforms:
            tasks.start_soon(compare, transform)
    assert wrong == []


@pytest.mark.parametrize("spelling", ["rotate=162,width=245,height=20,fit=fill", "rotate=50,width=24,height=220,fit=fill"])
async def test_free_rotation_that_is_stretched_matches_the_reference(pool: RenderPool, tmp_path: Path, spelling: str) -> None:
    """Width and height are scaled by very different factors, and neither is reduced without a filter."""
    image = await made(pool, written(tmp_path, images.rgb_png(WIDTH, HEIGHT)), spelling)
    ideal = reference.reference(scene(), parse(spelling))
    assert image.size == ideal.size
    assert distance(image, ideal) < allowed(spelling, "png") + edge_tolerance(parse(spelling), ideal)


async def test_overlay_is_upright_and_has_its_own_colors(pool: RenderPool, tmp_path: Path) -> None:
    """It looks like a rendition of its own: its orientation and profile are applied."""
    path = written(tmp_path, images.rgb_png(WIDTH, HEIGHT))
    marks = {
        "turned": images.photo_jpeg(60, 80, orientation=6, quality=95),
        "p3": images.rgb_png(60, 40, profile=images.p3_profile()),
        "inks": images.cmyk_jpeg(60, 40, profile=images.cmyk_profile()),
        "gray": images.gray_png(60, 40, alpha=True),
        "deep": images.png16(60, 40),
        "tall": images.rgba_png(20, 200),
    }
    for name, body in marks.items():
        seen = images.picture(60, 40) if name == "deep" else reference.decode_upright(body)
        for spelling in (f"overlay={MARK}:west:0.8", f"width=100,overlay={MARK}:southeast:0.3:0.6:5:5", f"grayscale=true,overlay={MARK}"):
            job = render_job(path, spelling, "png", overlay=written(tmp_path, body, "overlay"))
            image = images.decode((await pool.run(job, Rendered)).body)
            ideal = reference.reference(scene(), parse(spelling), seen)
            assert distance(image, ideal) < allowed(spelling, "png") + ROUNDED_ONCE, (name, spelling)


async def test_svg_as_an_overlay_is_sharp(pool: RenderPool, tmp_path: Path) -> None:
    path, overlay = written(tmp_path, images.flat_png(400, 300, (250, 250, 250))), written(tmp_path, svg(), "overlay")
    image = images.decode((await rendered(pool, path, f"overlay={MARK}:center:1", "png", overlay=overlay)).body)
    large = reference.reference(drawn(VECTOR_SCALE), parse("width=400,height=300"), vector_scale=VECTOR_SCALE)
    assert distance(image, reference.flatten_on_color(large, (250, 250, 250))) < ROUNDED_REPEATEDLY

import io
import time
from pathlib import Path

import anyio
import msgspec
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from service.errors import BrokenImageError, DamagedOriginalError, ServiceError, TooManyPixelsError, UnsupportedFormatError
from service.render.messages import Limits, Rendered
from service.render.pool import RenderPool
from service.transform import FORMATS, Format
from tests import images
from tests.service.renders import probed, render_job, rendered, written

pytestmark = pytest.mark.anyio

PILLOW_NAMES: dict[Format, str] = {"avif": "AVIF", "webp": "WEBP", "jpeg": "JPEG", "png": "PNG"}

# Mean absolute differences from a reference made with Pillow, in steps of 8-bit sRGB: what a resampler of its own makes of it,
# and what each encoder loses of the scene at the default quality.
RESAMPLED = 2.5
ENCODED: dict[Format, float] = {"avif": 5.0, "webp": 5.0, "jpeg": 4.5, "png": RESAMPLED}

WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("photo"), images.photo_jpeg(400, 300, quality=95), "photo.jpg")


async def picture(pool: RenderPool, path: Path, spelling: str = "full", image_format: Format = "png") -> Image.Image:
    """Return a rendition, decoded, after a look at what it says of itself."""
    result = await rendered(pool, path, spelling, image_format)
    image = images.opened(result.body)
    assert image.format == PILLOW_NAMES[image_format]
    assert image.size == (result.width, result.height)
    return image


def scaled(width: int, height: int, *, original: tuple[int, int] = (400, 300)) -> Image.Image:
    """Return the scene as Pillow scales it."""
    return images.picture(*original).resize((width, height), Image.Resampling.LANCZOS)


def on_canvas(image: Image.Image, size: tuple[int, int], left: int, top: int) -> Image.Image:
    canvas = Image.new("RGB", size, WHITE)
    canvas.paste(image, (left, top))
    return canvas


FITS = {
    "full": images.picture(400, 300),
    "width=200": scaled(200, 150),
    "height=150": scaled(200, 150),
    "width=200,height=200": scaled(200, 150),
    "width=150,height=150,fit=outside": scaled(200, 150),
    "width=150,height=150,fit=cover": scaled(200, 150).crop((25, 0, 175, 150)),
    "width=200,height=100,fit=cover,gravity=south": scaled(200, 150).crop((0, 50, 200, 150)),
    "width=150,height=150,fit=cover,gravity=focal:0.9:0.1": scaled(200, 150).crop((50, 0, 200, 150)),
    "width=200,height=200,fit=contain": on_canvas(scaled(200, 150), (200, 200), 0, 25),
    "width=240,height=150,fit=contain,gravity=east": on_canvas(scaled(200, 150), (240, 150), 40, 0),
    "width=150,height=150,fit=fill": scaled(150, 150),
}


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("spelling", FITS)
async def test_rendition_of_every_fit_and_format_is_what_pillow_makes_of_it(
    pool: RenderPool, photo: Path, spelling: str, image_format: Format
) -> None:
    image = await picture(pool, photo, spelling, image_format)
    padded = "contain" in spelling and image_format != "jpeg"
    assert image.mode == ("RGBA" if padded else "RGB")
    if padded:
        image = on_white(image)
    assert images.distance(image, FITS[spelling]) < ENCODED[image_format]


def on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_made_twice_is_the_same_bytes(pool: RenderPool, photo: Path, image_format: Format) -> None:
    """In two processes at once: what one region makes, another would make too."""
    bodies: list[bytes] = []

    async def render() -> None:
        bodies.append((await rendered(pool, photo, "width=200,height=200,fit=cover,gravity=attention", image_format)).body)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(render)
        tasks.start_soon(render)
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("image_format", ["avif", "webp", "jpeg"])
async def test_rendition_of_a_lower_quality_is_smaller_and_further_from_the_original(
    pool: RenderPool, photo: Path, image_format: Format
) -> None:
    low, high = [(await rendered(pool, photo, f"quality={quality}", image_format)).body for quality in (15, 90)]
    assert len(low) < len(high) / 2
    assert images.distance(images.opened(low), FITS["full"]) > images.distance(images.opened(high), FITS["full"])


# Orientation.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 400)], ids=["landscape", "portrait"])
async def test_rendition_of_any_orientation_is_upright(pool: RenderPool, folder: Path, width: int, height: int, orientation: int) -> None:
    path = written(folder, images.photo_jpeg(width, height, orientation=orientation), "turned.jpg")
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == (width, height)
    whole = await picture(pool, path, "full")
    assert whole.size == (width, height)
    assert all(images.near(colour, images.CORNERS[corner]) for corner, colour in images.corner_colours(whole).items())
    half = await picture(pool, path, f"width={width // 2}")
    assert images.distance(half, scaled(width // 2, height // 2, original=(width, height))) < RESAMPLED + 1
    assert not half.getexif()
    corner = await picture(pool, path, "width=40,height=40,fit=cover,gravity=southeast")
    assert images.near(images.corner_colours(corner)["bottom right"], WHITE)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", [2, 6])
async def test_rendition_of_an_orientation_in_another_format_is_upright(
    pool: RenderPool, folder: Path, image_format: str, orientation: int
) -> None:
    path = written(folder, images.turned(300, 200, orientation, image_format), "turned")
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == (300, 200)
    whole = await picture(pool, path, "full")
    assert all(images.near(colour, images.CORNERS[corner]) for corner, colour in images.corner_colours(whole).items())


@pytest.mark.parametrize("orientation", [0, 9, 42, 65_535])
async def test_rendition_of_an_orientation_that_does_not_exist_is_as_stored(pool: RenderPool, folder: Path, orientation: int) -> None:
    path = written(folder, images.photo_jpeg(400, 300, orientation=orientation), "turned.jpg")
    info = (await probed(pool, path)).info
    whole = await picture(pool, path, "full")
    assert (info.width, info.height) == whole.size == (400, 300)
    assert all(images.near(colour, images.CORNERS[corner]) for corner, colour in images.corner_colours(whole).items())


# Metadata.


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_carries_nothing_of_the_camera_the_place_or_the_profile(
    pool: RenderPool, folder: Path, image_format: Format
) -> None:
    original = images.camera_jpeg()
    assert images.opened(original).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    result = await rendered(pool, written(folder, original, "camera.jpg"), "width=200", image_format)
    for private in (images.CAMERA, images.PLACE, "GPS", "xmpmeta", "ICC_PROFILE", "iCCP", "Exif\0\0", "eXIf", "EXIF", "XMP "):
        assert private.encode("ascii") not in result.body
    image = images.opened(result.body)
    assert not image.getexif()
    assert not {"exif", "icc_profile", "xmp", "comment", "photoshop"} & {name for name, value in image.info.items() if value}


# Colour.


async def test_rendition_of_display_p3_is_what_it_looks_like_in_srgb(pool: RenderPool, folder: Path) -> None:
    profile = images.p3_profile()
    path = written(folder, images.rgb_png(400, 300, profile=profile), "p3.png")
    reference = ImageCms.profileToProfile(
        images.picture(400, 300),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert reference is not None
    image = await picture(pool, path)
    assert images.distance(image, reference) < 1
    assert images.distance(image, images.picture(400, 300)) > 4


@pytest.mark.parametrize(
    ("p3", "srgb"), [((200, 100, 100), (215, 93, 97)), ((128, 128, 128), (128, 128, 128)), ((0, 0, 0), (0, 0, 0)), (WHITE, WHITE)]
)
async def test_colour_of_display_p3_is_known_in_srgb(pool: RenderPool, folder: Path, p3: images.Colour, srgb: images.Colour) -> None:
    image = await picture(pool, written(folder, images.flat_png(16, 16, p3, profile=images.p3_profile()), "flat.png"))
    assert images.near(images.corner_colours(image)["top left"], srgb, 2)


async def test_rendition_of_an_srgb_profile_keeps_every_colour(pool: RenderPool, folder: Path) -> None:
    image = await picture(pool, written(folder, images.rgb_png(400, 300, profile=images.srgb_profile()), "srgb.png"))
    assert images.distance(image, images.picture(400, 300)) < 1


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_of_cmyk_without_a_profile_is_rgb_of_about_those_colours(
    pool: RenderPool, folder: Path, image_format: Format
) -> None:
    image = await picture(pool, written(folder, images.cmyk_jpeg(), "cmyk.jpg"), "width=200", image_format)
    assert image.mode == "RGB"
    # Inks are duller than lights: red is, blue and green even more.
    corners = images.corner_colours(image)
    assert images.near(corners["bottom right"], WHITE, 6)
    for corner, strongest in (("top left", 0), ("top right", 1), ("bottom left", 2)):
        assert corners[corner].index(max(corners[corner])) == strongest
    assert images.distance(image, scaled(200, 150)) < 40


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("grey", [False, True])
async def test_rendition_of_sixteen_bits_has_eight_and_the_same_colours(
    pool: RenderPool, folder: Path, image_format: Format, grey: bool
) -> None:
    image = await picture(pool, written(folder, images.png16(400, 300, grey=grey), "deep.png"), "width=200", image_format)
    reference = scaled(200, 150)
    assert image.mode == ("L" if grey and image_format in {"png", "jpeg"} else "RGB")
    assert images.distance(image, reference.convert("L") if grey else reference) < ENCODED[image_format] + 0.5


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_of_grey_is_grey(pool: RenderPool, folder: Path, image_format: Format) -> None:
    image = await picture(pool, written(folder, images.grey_png(), "grey.png"), "width=200", image_format)
    pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).max() <= 3
    assert images.distance(image, scaled(200, 150).convert("L")) < ENCODED[image_format]


@pytest.mark.parametrize(
    ("name", "body", "tolerance"),
    [
        ("photo.webp", images.webp(), 4.0),
        ("photo.avif", images.avif(), 4.0),
        ("photo.tiff", images.tiff(), RESAMPLED),
        ("progressive.jpg", images.photo_jpeg(400, 300, progressive=True), 3.5),
        # 64 colours, dithered.
        ("palette.png", images.palette_png(), 9.0),
    ],
)
async def test_rendition_of_every_format_that_is_taken_looks_like_the_original(
    pool: RenderPool, folder: Path, name: str, body: bytes, tolerance: float
) -> None:
    image = await picture(pool, written(folder, body, name), "width=200")
    assert images.distance(image, scaled(200, 150)) < tolerance


# Alpha.


@pytest.mark.parametrize("image_format", ["png", "webp", "avif"])
@pytest.mark.parametrize("name", ["rgba.png", "grey.png", "rgba.webp"])
async def test_rendition_of_a_transparent_original_is_transparent_where_it_was(
    pool: RenderPool, folder: Path, name: str, image_format: Format
) -> None:
    body = {"rgba.png": images.rgba_png(), "grey.png": images.grey_png(alpha=True), "rgba.webp": images.webp(alpha=True)}[name]
    image = await picture(pool, written(folder, body, name), "width=200", image_format)
    assert image.mode == ("LA" if name == "grey.png" and image_format == "png" else "RGBA")
    alpha = np.asarray(image.getchannel("A"))
    assert alpha[:, :96].min() >= 250
    assert alpha[40:110, 104:].max() <= 5
    reference = scaled(200, 150).convert("L") if name == "grey.png" else scaled(200, 150)
    assert images.distance(image.convert("RGB").crop((0, 0, 96, 150)), reference.crop((0, 0, 96, 150))) < 6


@pytest.mark.parametrize("name", ["rgba.png", "grey.png"])
async def test_rendition_without_alpha_of_a_transparent_original_is_white_where_it_was_transparent(
    pool: RenderPool, folder: Path, name: str
) -> None:
    body = {"rgba.png": images.rgba_png(), "grey.png": images.grey_png(alpha=True)}[name]
    image = (await picture(pool, written(folder, body, name), "width=200", "jpeg")).convert("RGB")
    pixels = np.asarray(image)
    assert pixels[45:105, 108:].min() >= 245
    reference = scaled(200, 150).convert("L" if name == "grey.png" else "RGB")
    assert images.distance(image.crop((0, 0, 92, 150)), reference.crop((0, 0, 92, 150))) < ENCODED["jpeg"]


async def test_rendition_of_transparent_pixels_of_another_colour_has_no_fringe(pool: RenderPool, folder: Path) -> None:
    """A green disc's surroundings are black and transparent: scaled and laid on white, nothing dark may show around it."""
    original = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    original.paste((0, 255, 0, 255), (0, 0, 203, 400))
    out = io.BytesIO()
    original.save(out, "PNG")
    image = await picture(pool, written(folder, out.getvalue(), "edge.png"), "width=100", "jpeg")
    greens = np.asarray(image)[20:80, :, 1]
    assert greens.min() > 225


async def test_rendition_with_a_canvas_is_transparent_beside_the_picture(pool: RenderPool, photo: Path) -> None:
    image = await picture(pool, photo, "width=200,height=200,fit=contain,gravity=north")
    alpha = np.asarray(image.getchannel("A"))
    assert alpha[:150].min() == 255
    assert alpha[150:].max() == 0


# What stays where something is cut.


@pytest.mark.parametrize(
    ("original", "gravity", "corners"),
    [
        ((600, 200), "west", ["top left", "bottom left"]),
        ((600, 200), "northwest", ["top left", "bottom left"]),
        ((600, 200), "east", ["top right", "bottom right"]),
        ((600, 200), "southeast", ["top right", "bottom right"]),
        ((600, 200), "focal:0:0.5", ["top left", "bottom left"]),
        ((600, 200), "focal:1:0", ["top right", "bottom right"]),
        ((600, 200), "center", []),
        ((600, 200), "north", []),
        ((600, 200), "focal:0.5:0.5", []),
        ((200, 600), "north", ["top left", "top right"]),
        ((200, 600), "northeast", ["top left", "top right"]),
        ((200, 600), "south", ["bottom left", "bottom right"]),
        ((200, 600), "focal:0.5:1", ["bottom left", "bottom right"]),
        ((200, 600), "focal:0.9:0.02", ["top left", "top right"]),
        ((200, 600), "center", []),
        ((200, 600), "west", []),
    ],
)
async def test_cover_gravity_keeps_the_region_that_it_names(
    pool: RenderPool, folder: Path, original: tuple[int, int], gravity: str, corners: list[str]
) -> None:
    path = written(folder, images.photo_jpeg(*original, quality=95), "long.jpg")
    image = await picture(pool, path, f"width=100,height=100,fit=cover,gravity={gravity}".replace(",gravity=center", ""))
    found = images.corner_colours(image)
    seen = [corner for corner in images.CORNERS if images.near(found[corner], images.CORNERS[corner])]
    assert seen == corners


@pytest.mark.parametrize("strategy", ["attention", "entropy"])
@pytest.mark.parametrize("side", ["left", "right"])
async def test_cover_strategy_finds_the_only_thing_that_is_to_be_seen(pool: RenderPool, folder: Path, strategy: str, side: str) -> None:
    scene = images.picture(150, 150)
    field = Image.new("RGB", (900, 200), (90, 90, 90))
    field.paste(scene, (20 if side == "left" else 730, 25))
    out = io.BytesIO()
    field.save(out, "PNG")
    image = await picture(pool, written(folder, out.getvalue(), "field.png"), f"width=200,height=200,fit=cover,gravity={strategy}")
    pixels = np.asarray(image).astype(int)
    lively = (np.abs(pixels - 90).max(axis=2) > 20).mean()
    assert lively > 0.4


# Animation.


@pytest.mark.parametrize(("name", "body"), [("gif", images.animated_gif(frames=3)), ("webp", images.animated_webp(frames=3))])
@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_of_an_animation_is_its_first_frame(
    pool: RenderPool, folder: Path, name: str, body: bytes, image_format: Format
) -> None:
    path = written(folder, body, name)
    info = (await probed(pool, path)).info
    assert (info.format, info.frames, info.width, info.height) == (name, 3, 120, 90)
    image = await picture(pool, path, "width=60", image_format)
    assert image.size == (60, 45)
    assert getattr(image, "n_frames", 1) == 1
    assert all(images.near(colour, images.FRAME_COLOURS[0], 12) for colour in images.corner_colours(image).values())


# Sizes at the edge.


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 1), (1, 3), (1, 400), (400, 1), (17, 15)])
async def test_rendition_of_a_tiny_original_has_its_size(
    pool: RenderPool, folder: Path, width: int, height: int, image_format: Format
) -> None:
    path = written(folder, images.flat_png(width, height, (200, 60, 40)), "tiny.png")
    image = await picture(pool, path, "full", image_format)
    assert image.size == (width, height)
    assert images.near(images.corner_colours(image)["top left"], (200, 60, 40), 6)


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_of_one_pixel_s_width_is_made(pool: RenderPool, photo: Path, image_format: Format) -> None:
    assert (await picture(pool, photo, "width=1", image_format)).size == (1, 1)


async def test_rendition_is_never_larger_than_the_original(pool: RenderPool, photo: Path) -> None:
    assert (await picture(pool, photo, "width=800")).size == (400, 300)
    assert (await picture(pool, photo, "width=1000,height=1000,fit=cover")).size == (300, 300)
    assert (await picture(pool, photo, "width=500,height=400,fit=contain")).size == (500, 400)


async def refused(pool: RenderPool, path: Path, spelling: str, image_format: Format, limits: Limits) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await rendered(pool, path, spelling, image_format, limits=limits)
    return caught.value


async def test_rendition_of_more_pixels_than_are_made_is_refused(pool: RenderPool, photo: Path) -> None:
    limits = Limits(max_pixels=200_000, max_whole_pixels=200_000, max_output_pixels=10_000)
    error = await refused(pool, photo, "width=200", "webp", limits)
    assert type(error) is TooManyPixelsError
    assert error.received == "200 x 150"
    assert (await rendered(pool, photo, "width=100", "webp", limits=limits)).width == 100
    # What counts is what comes out, not what is cut.
    assert (await rendered(pool, photo, "width=100,height=100,fit=cover", "webp", limits=limits)).width == 100
    assert type(await refused(pool, photo, "width=200,height=100,fit=contain", "webp", limits)) is TooManyPixelsError


async def test_rendition_with_a_longer_side_than_its_format_holds_is_refused(pool: RenderPool, folder: Path) -> None:
    path = written(folder, images.flat_png(17_000, 100, (1, 2, 3)), "long.png")
    limits = Limits(max_pixels=10**8, max_whole_pixels=10**8, max_output_pixels=10**8)
    for image_format in ("webp", "avif"):
        assert type(await refused(pool, path, "full", image_format, limits)) is TooManyPixelsError
        assert (await rendered(pool, path, "width=100,height=100,fit=cover", image_format, limits=limits)).width == 100
    assert (await rendered(pool, path, "full", "jpeg", limits=limits)).width == 17_000


# What is no good.


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("photo.jpg", images.photo_jpeg(400, 300)),
        ("progressive.jpg", images.photo_jpeg(400, 300, progressive=True)),
        ("photo.png", images.rgb_png()),
        ("photo.webp", images.webp()),
        ("photo.avif", images.avif()),
    ],
)
async def test_original_that_is_cut_short_is_broken_whatever_is_made_of_it(
    pool: RenderPool, folder: Path, name: str, body: bytes, image_format: Format
) -> None:
    path = written(folder, images.truncated(body), name)
    with pytest.raises(BrokenImageError) as caught:
        await rendered(pool, path, "width=200", image_format)
    assert caught.value.status_code == 422
    with pytest.raises(BrokenImageError):
        await probed(pool, path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("name", ["gif", "tiff", "deep.png", "animated.webp", "rgba.webp"])
async def test_original_of_another_kind_that_is_cut_short_anywhere_is_refused(
    pool: RenderPool, folder: Path, name: str, share: float
) -> None:
    """Where the header itself is cut, nothing tells any more what it was."""
    body = {
        "gif": images.palette_gif(),
        "tiff": images.tiff(),
        "deep.png": images.png16(),
        "animated.webp": images.animated_webp(400, 300),
        "rgba.webp": images.webp(alpha=True),
    }[name]
    with pytest.raises((BrokenImageError, UnsupportedFormatError)):
        await probed(pool, written(folder, images.truncated(body, share), name))


async def test_original_with_a_flipped_bit_is_damaged(pool: RenderPool, folder: Path, photo: Path) -> None:
    job = render_job(photo, "width=100")
    body = bytearray(images.photo_jpeg(400, 300, quality=95))
    assert job.digest == render_job(written(folder, bytes(body), "same.jpg")).digest
    body[len(body) // 2] ^= 1
    path = written(folder, bytes(body), "flipped.jpg")
    with pytest.raises(DamagedOriginalError):
        await pool.run(msgspec.structs.replace(job, path=str(path)), Rendered)


@pytest.mark.parametrize(
    ("body", "received"),
    [
        (b"%PDF-1.7 ...", "a PDF document"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>', "an SVG image"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an XML document"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML document"),
        (b'{"error": "no"}', "JSON"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"BM\x46\0\0\0\0\0\0\0", "BMP"),
        (b"GIF", "47 49 46"),
        (b"\0" * 64, "00 00"),
        (b"x", "78"),
    ],
)
async def test_original_that_is_no_image_is_told_what_it_seems_to_be(pool: RenderPool, folder: Path, body: bytes, received: str) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        await probed(pool, written(folder, body, "photo.jpg"))
    assert received in str(caught.value.received)
    assert caught.value.status_code == 415


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("png", images.png_bomb()),
        ("gif", images.gif_bomb()),
        ("jpeg", images.jpeg_bomb()),
        ("progressive jpeg", images.jpeg_bomb(progressive=True)),
        ("webp", images.webp_bomb()),
        ("frames", images.animated_gif(4, 4, frames=400)),
    ],
)
async def test_bomb_is_refused_from_its_header(pool: RenderPool, folder: Path, name: str, body: bytes) -> None:
    path = written(folder, body, "bomb")
    limits = Limits(max_pixels=128_000_000, max_whole_pixels=6_000 if name == "frames" else 100_000_000, max_output_pixels=40_000_000)
    before = pool.process_ids
    started = time.monotonic()
    with pytest.raises(TooManyPixelsError):
        await probed(pool, path, limits=limits)
    with pytest.raises(TooManyPixelsError):
        await rendered(pool, path, "width=100", limits=limits)
    assert time.monotonic() - started < 1
    assert pool.process_ids == before


# Files of the world.

# Formats that are not offered; HEIC with HEVC is read to its header and no further.
NOT_TAKEN = {"svg", "svg-hostile", "heic"}
NO_GOOD = {"bomb", "broken"}


def corpus_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in images.corpus_files(folder)]


def good_files() -> list[Path]:
    root = images.corpus()
    folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root else []
    return corpus_files(*(folder for folder in folders if folder not in NOT_TAKEN | NO_GOOD))


needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")


@needs_corpus
async def test_corpus_files_of_every_format_that_is_taken_are_probed_and_rendered_in_every_format(pool: RenderPool) -> None:
    sizes: dict[str, tuple[int, int]] = {}

    async def look(path: Path, image_format: Format) -> None:
        info = (await probed(pool, path)).info
        image = await picture(pool, path, "width=96", image_format)
        assert image.width == min(96, info.width), path.name
        sizes[path.name] = image.size

    files = good_files()
    async with anyio.create_task_group() as tasks:
        for number, path in enumerate(files):
            tasks.start_soon(look, path, FORMATS[number % len(FORMATS)])
    assert len(sizes) == len(files) > 40


@needs_corpus
async def test_corpus_orientations_are_upright(pool: RenderPool) -> None:
    for path in corpus_files("orientation"):
        original = ImageOps.exif_transpose(images.opened(path.read_bytes()))
        image = await picture(pool, path, "width=300")
        reference = original.convert("RGB").resize(image.size, Image.Resampling.LANCZOS)
        assert images.distance(image, reference) < 3, path.name


@needs_corpus
@pytest.mark.parametrize("image_format", FORMATS)
async def test_corpus_photo_looks_like_what_pillow_makes_of_it(pool: RenderPool, image_format: Format) -> None:
    path = images.corpus_files("photo")[-1]
    image = await picture(pool, path, "width=640", image_format)
    reference = images.opened(path.read_bytes()).convert("RGB").resize(image.size, Image.Resampling.LANCZOS, reducing_gap=3)
    assert images.distance(image, reference) < ENCODED[image_format]


@needs_corpus
async def test_corpus_file_with_a_place_gives_a_rendition_without_one(pool: RenderPool) -> None:
    (path,) = images.corpus_files("exif-gps")
    assert images.opened(path.read_bytes()).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    for image_format in FORMATS:
        image = await picture(pool, path, "full", image_format)
        assert not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)


@needs_corpus
async def test_corpus_cmyk_with_a_profile_is_what_that_profile_says(pool: RenderPool) -> None:
    (path,) = [path for path in images.corpus_files("cmyk") if path.name == "sharp__Channel_digital_image_CMYK_color.jpg"]
    original = images.opened(path.read_bytes())
    reference = ImageCms.profileToProfile(
        original,
        ImageCms.ImageCmsProfile(io.BytesIO(original.info["icc_profile"])),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert reference is not None
    assert images.distance(await picture(pool, path), reference) < 4


@needs_corpus
async def test_corpus_broken_files_are_broken_or_no_image(pool: RenderPool) -> None:
    for path in images.corpus_files("broken"):
        for job in (probed(pool, path), rendered(pool, path, "width=100")):
            with pytest.raises((BrokenImageError, UnsupportedFormatError)) as caught:
                await job
            assert caught.value.remedy, path.name


@needs_corpus
async def test_corpus_bombs_are_refused_at_once(pool: RenderPool) -> None:
    before = pool.process_ids
    for path in images.corpus_files("bomb"):
        started = time.monotonic()
        if path.name == "images__1024-pages.gif":
            assert (await probed(pool, path)).info.frames == 1024
            continue
        with pytest.raises(UnsupportedFormatError if path.suffix == ".svg" else TooManyPixelsError):
            await probed(pool, path)
        assert time.monotonic() - started < 1, path.name
    assert pool.process_ids == before


@needs_corpus
async def test_corpus_files_of_formats_that_are_not_taken_are_unsupported(pool: RenderPool) -> None:
    for path in corpus_files(*NOT_TAKEN):
        with pytest.raises(UnsupportedFormatError) as caught:
            await probed(pool, path)
        assert caught.value.received, path.name

"""Properties of all renditions, for any transform. `test_matrix.py` tests the transforms themselves."""

import io
from pathlib import Path

import anyio
import msgspec
import numpy as np
import pytest
from PIL import ExifTags, Image

from service.errors import ServiceError, TooManyPixelsError
from service.images.formats import FORMATS, Format
from service.images.info import Limits
from service.images.render_request import resolve
from service.rendering.pool import RenderPool
from service.rendering.protocol import Intermediate, MakeIntermediate, Rendered
from tests.support import images, reference
from tests.support.renders import LIMITS, input_file_of, probed, render_job, rendered, written

pytestmark = pytest.mark.anyio

PILLOW_NAMES: dict[Format, str] = {"jxl": "JXL", "avif": "AVIF", "webp": "WEBP", "jpeg": "JPEG", "png": "PNG", "gif": "GIF"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("photo"), images.photo_jpeg(400, 300, quality=95), "photo.jpg")


async def picture(pool: RenderPool, path: Path, spelling: str = "full", image_format: Format = "png") -> Image.Image:
    """Return a rendition, decoded, after checking its format and size."""
    result = await rendered(pool, path, spelling, image_format)
    image = images.decode(result.body)
    assert image.format == PILLOW_NAMES[image_format]
    assert image.size == (result.width, result.height)
    return image


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_made_twice_has_the_same_bytes(pool: RenderPool, photo: Path, image_format: Format) -> None:
    """It is made in two processes at once, because every region must make the same file."""
    bodies: list[bytes] = []

    async def render() -> None:
        bodies.append((await rendered(pool, photo, "width=200,height=200,fit=cover,gravity=attention", image_format)).body)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(render)
        tasks.start_soon(render)
    assert bodies[0] == bodies[1]


RESOLVED_ORIGINALS = {
    "photo": images.photo_jpeg(400, 300, orientation=6),
    "pages": images.pages_tiff([Image.new("RGB", (80, 60), (200, 30, 30)), Image.new("RGB", (60, 90), (30, 200, 30))]),
    "animation": images.animated_gif(),
    "framed": images.framed_png(120, 90, (12, 8)),
    "drawing": b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><circle cx="20" cy="15" r="9"/></svg>',
}


RESOLVED_TRANSFORMS = [
    *((kind, spelling) for kind in RESOLVED_ORIGINALS for spelling in ("width=64", "trim=10,width=30", "rotate=20,quality=50")),
    *((kind, "frame=1,width=40,height=40,fit=cover") for kind in ("pages", "animation")),
]


@pytest.mark.parametrize(("kind", "spelling"), RESOLVED_TRANSFORMS)
async def test_rendition_of_a_resolved_request_has_the_bytes_of_one_that_the_render_process_resolves(
    pool: RenderPool, tmp_path: Path, kind: str, spelling: str
) -> None:
    path = written(tmp_path, RESOLVED_ORIGINALS[kind], kind)
    info = (await probed(pool, path)).info
    job = render_job(path, spelling, "webp")
    request = resolve(info, job.request.transform, "webp", LIMITS)
    made = await pool.run(msgspec.structs.replace(job, request=request), Rendered)
    assert made.body == (await pool.run(job, Rendered)).body


@pytest.mark.parametrize("image_format", ["avif", "webp", "jpeg"])
async def test_rendition_of_a_lower_quality_is_smaller_and_further_from_the_original(
    pool: RenderPool, photo: Path, image_format: Format
) -> None:
    low, high = [(await rendered(pool, photo, f"quality={quality}", image_format)).body for quality in (15, 90)]
    assert len(low) < len(high) / 2
    scene = images.picture(400, 300)
    assert images.distance(images.decode(low), scene) > images.distance(images.decode(high), scene)


# Metadata.


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_has_no_camera_no_location_and_no_profile(pool: RenderPool, folder: Path, image_format: Format) -> None:
    original = images.camera_jpeg()
    assert images.decode(original).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    result = await rendered(pool, written(folder, original, "camera.jpg"), "width=200", image_format)
    for private in (images.CAMERA, images.PLACE, "GPS", "xmpmeta", "ICC_PROFILE", "iCCP", "Exif\0\0", "eXIf", "EXIF", "XMP "):
        assert private.encode("ascii") not in result.body
    image = images.decode(result.body)
    assert not image.getexif()
    assert not {"exif", "icc_profile", "xmp", "comment", "photoshop"} & {name for name, value in image.info.items() if value}


async def test_rendition_with_a_canvas_is_transparent_around_the_picture(pool: RenderPool, photo: Path) -> None:
    image = await picture(pool, photo, "width=200,height=200,fit=contain,gravity=north")
    alpha = np.asarray(image.getchannel("A"))
    assert alpha[:150].min() == 255
    assert alpha[150:].max() == 0


# The part that a crop keeps.


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
async def test_cover_gravity_keeps_the_named_region(
    pool: RenderPool, folder: Path, original: tuple[int, int], gravity: str, corners: list[str]
) -> None:
    path = written(folder, images.photo_jpeg(*original, quality=95), "long.jpg")
    image = await picture(pool, path, f"width=100,height=100,fit=cover,gravity={gravity}".replace(",gravity=center", ""))
    found = images.corner_colors(image)
    seen = [corner for corner in images.CORNERS if images.near(found[corner], images.CORNERS[corner])]
    assert seen == corners


@pytest.mark.parametrize("strategy", ["attention", "entropy"])
@pytest.mark.parametrize("side", ["left", "right"])
async def test_cover_strategy_finds_the_only_visible_object(pool: RenderPool, folder: Path, strategy: str, side: str) -> None:
    scene = images.picture(150, 150)
    field = Image.new("RGB", (900, 200), (90, 90, 90))
    field.paste(scene, (20 if side == "left" else 730, 25))
    out = io.BytesIO()
    field.save(out, "PNG")
    image = await picture(pool, written(folder, out.getvalue(), "field.png"), f"width=200,height=200,fit=cover,gravity={strategy}")
    pixels = np.asarray(image).astype(int)
    lively = (np.abs(pixels - 90).max(axis=2) > 20).mean()
    assert lively > 0.4


# Extreme sizes.


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 1), (1, 3), (1, 400), (400, 1), (17, 15)])
async def test_rendition_of_a_tiny_original_has_its_size(
    pool: RenderPool, folder: Path, width: int, height: int, image_format: Format
) -> None:
    path = written(folder, images.flat_png(width, height, (200, 60, 40)), "tiny.png")
    image = await picture(pool, path, "full", image_format)
    assert image.size == (width, height)
    assert images.near(images.corner_colors(image)["top left"], (200, 60, 40), 6)


@pytest.mark.parametrize("image_format", FORMATS)
async def test_rendition_one_pixel_wide_is_made(pool: RenderPool, photo: Path, image_format: Format) -> None:
    assert (await picture(pool, photo, "width=1", image_format)).size == (1, 1)


async def test_rendition_is_never_larger_than_the_original(pool: RenderPool, photo: Path) -> None:
    assert (await picture(pool, photo, "width=800")).size == (400, 300)
    assert (await picture(pool, photo, "width=1000,height=1000,fit=cover")).size == (300, 300)
    assert (await picture(pool, photo, "width=500,height=400,fit=contain")).size == (500, 400)


async def refused(pool: RenderPool, path: Path, spelling: str, image_format: Format, limits: Limits) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await rendered(pool, path, spelling, image_format, limits=limits)
    return caught.value


async def test_rendition_with_too_many_pixels_is_refused(pool: RenderPool, photo: Path) -> None:
    limits = Limits(max_pixels=200_000, max_whole_pixels=200_000, max_output_pixels=10_000, max_frames=1, codec_bytes=0)
    error = await refused(pool, photo, "width=200", "webp", limits)
    assert type(error) is TooManyPixelsError
    assert error.received == "200 x 150"
    assert (await rendered(pool, photo, "width=100", "webp", limits=limits)).width == 100
    # The limit applies to the rendition, not to the part that is cropped away.
    assert (await rendered(pool, photo, "width=100,height=100,fit=cover", "webp", limits=limits)).width == 100
    assert type(await refused(pool, photo, "width=200,height=100,fit=contain", "webp", limits)) is TooManyPixelsError


FORMATS_LIMITED_TO_16K: tuple[Format, ...] = ("webp", "avif")


async def test_rendition_with_a_side_too_long_for_its_format_is_refused(pool: RenderPool, folder: Path) -> None:
    path = written(folder, images.flat_png(17_000, 100, (1, 2, 3)), "long.png")
    limits = Limits(max_pixels=10**8, max_whole_pixels=10**8, max_output_pixels=10**8, max_frames=1, codec_bytes=0)
    for image_format in FORMATS_LIMITED_TO_16K:
        assert type(await refused(pool, path, "full", image_format, limits)) is TooManyPixelsError
        assert (await rendered(pool, path, "width=100,height=100,fit=cover", image_format, limits=limits)).width == 100
    assert (await rendered(pool, path, "full", "jpeg", limits=limits)).width == 17_000


# Renditions of the intermediate.

INTERMEDIATE_TRANSFORMS = [
    "width=1200",
    "width=640,height=640,fit=cover,gravity=focal:0.8:0.2",
    "crop=25p:25p:60p:60p,width=700",
    "rotate=90,width=500,background=ffffff",
    "rotate=10,width=800",
    "width=300,blur=2,saturation=1.4",
]


HALF_SIZE_TRANSFORMS = [
    "width=900",
    "width=600,height=600,fit=cover,gravity=focal:0.8:0.2",
    "crop=25p:25p:60p:60p,width=500",
    "rotate=90,width=500,background=ffffff",
    "rotate=10,width=450",
    "width=300,blur=2,saturation=1.4",
]


@pytest.mark.parametrize("kind", ["png", pytest.param("alpha", marks=pytest.mark.long), pytest.param("p3", marks=pytest.mark.long)])
async def test_rendition_of_the_intermediate_looks_like_one_of_the_original(pool: RenderPool, folder: Path, kind: str) -> None:
    """The loss of a JPEG at a very high quality is allowed, or none; sizes are relative to the original."""
    scene = images.picture(1200, 900).resize((3_600, 2_700))
    if kind == "alpha":
        scene.putalpha(images.decode(images.rgba_png(1_200, 900)).getchannel("A").resize(scene.size))
    out = io.BytesIO()
    scene.save(out, "PNG", compress_level=1, icc_profile=images.p3_profile() if kind == "p3" else None)
    path = written(folder, out.getvalue(), "large.png")
    await require_alike(pool, folder, path, INTERMEDIATE_TRANSFORMS if kind != "png" else INTERMEDIATE_TRANSFORMS[::2])


@pytest.mark.parametrize("orientation", [1, pytest.param(6, marks=pytest.mark.long)])
async def test_rendition_of_half_an_intermediate_looks_like_one_of_the_baseline_jpeg(
    pool: RenderPool, folder: Path, orientation: int
) -> None:
    # Sides that the decoder's factor does not divide.
    body = images.copyrighted_jpeg(3_603, 2_701, orientation=orientation)
    await require_alike(pool, folder, written(folder, body, "camera.jpg"), HALF_SIZE_TRANSFORMS)


async def require_alike(pool: RenderPool, folder: Path, path: Path, spellings: list[str]) -> None:
    """Require renditions of the intermediate that look like those of the original."""
    info = (await probed(pool, path)).info
    assert info.intermediate is not None
    body = (await pool.run(MakeIntermediate(input_file_of(path), LIMITS), Intermediate)).body
    reduced = written(folder, body, "intermediate")
    for spelling in spellings:
        job = render_job(path, spelling, "png")
        assert resolve(info, job.request.transform, job.request.format, LIMITS).from_intermediate
        whole = images.decode((await pool.run(job, Rendered)).body)
        small = images.decode((await pool.run(msgspec.structs.replace(job, input_file=input_file_of(reduced, info)), Rendered)).body)
        assert (small.size, small.mode) == (whole.size, whole.mode)
        for ground in ((255, 255, 255), (0, 0, 0)):
            assert images.distance(reference.flatten_on_color(small, ground), reference.flatten_on_color(whole, ground)) < 1, spelling


# Files of the corpus.

# `faults` has files that are refused on purpose, and its own list of expected results.
REFUSED_FOLDERS = {"bomb", "broken", "faults", "svg-hostile"}


async def good_files(pool: RenderPool) -> list[Path]:
    """Return the files of every folder whose format this server reads: HEIC needs pillow-heif."""
    reads = (await pool.codec_support()).reads
    root = images.corpus()
    folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root else []
    missing = set() if "heic" in reads else {"heic"}
    return [path for folder in folders if folder not in REFUSED_FOLDERS | missing for path in images.corpus_files(folder)]


needs_corpus = pytest.mark.skipif(images.corpus() is None, reason="no corpus of real images beside the checkout")


@pytest.mark.long
@needs_corpus
@pytest.mark.parametrize("image_format", FORMATS)
async def test_corpus_files_are_probed_and_rendered(pool: RenderPool, image_format: Format) -> None:
    sizes: dict[str, tuple[int, int]] = {}

    async def look(path: Path) -> None:
        info = (await probed(pool, path)).info
        image = await picture(pool, path, "width=96,frame=0", image_format)
        assert image.width == (96 if info.vector else min(96, info.width)), path.name
        sizes[path.name] = image.size

    files = await good_files(pool)
    async with anyio.create_task_group() as tasks:
        for path in files[list(FORMATS).index(image_format) :: 2]:
            tasks.start_soon(look, path)
    assert len(sizes) == len(files[list(FORMATS).index(image_format) :: 2]) > 20


@needs_corpus
@pytest.mark.parametrize("image_format", FORMATS)
async def test_corpus_photo_looks_like_pillow_s_rendition(pool: RenderPool, image_format: Format) -> None:
    path = images.corpus_files("photo")[-1]
    image = await picture(pool, path, "width=640", image_format)
    ideal = images.decode(path.read_bytes()).convert("RGB").resize(image.size, Image.Resampling.LANCZOS, reducing_gap=3)
    # Half of this photo is film grain, on which two resamplers differ more than on a scene.
    assert images.distance(image, ideal) < reference.encoder_loss(ideal, image_format) * 1.2 + 2.5


@needs_corpus
async def test_corpus_file_with_a_location_gives_a_rendition_without_it(pool: RenderPool) -> None:
    (path,) = images.corpus_files("exif-gps")
    assert images.decode(path.read_bytes()).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    for image_format in FORMATS:
        image = await picture(pool, path, "full", image_format)
        assert not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)

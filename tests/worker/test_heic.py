"""HEIC with HEVC: files like those of iPhones, made with pillow-heif's encoder, and one from the corpus."""

import functools
import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import pyvips
from PIL import ExifTags, Image

from service.errors import BrokenImageError, ServiceError, TooCostlyError, TooManyPixelsError
from service.images.formats import FORMATS, Format
from service.images.info import Limits
from service.rendering.pool import RenderPool
from service.rendering.protocol import ImageError
from service.worker import memory
from service.worker.formats import heic
from tests.support import images
from tests.support.renders import MEBIBYTE, probed, render_pool, rendered, watched_replies, written

pytestmark = pytest.mark.anyio

# Tolerances: for the loss of HEVC at quality 90 on the scene, and for another resampler.
ENCODING_TOLERANCE = 4.0

# Half a level for rounding to 8 bits, and the loss of converting RGB to YCbCr and back.
ROUNDING_TOLERANCE = 0.5

needs_corpus = pytest.mark.skipif(not images.corpus_files("heic"), reason="the corpus is not beside the checkout")


def encoded(picture: Image.Image, **options: object) -> bytes:
    """Return a picture as a HEIC with HEVC, by default with chroma subsampling 4:2:0."""
    body = io.BytesIO()
    # The encoder's own preset takes ten times as long for the same decoder's work.
    pillow_heif.from_pillow(picture).save(body, **{"quality": 90, "enc_params": {"preset": "ultrafast"}, **options})
    return body.getvalue()


def high_bit_depth_heic(samples: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Return samples from 0 to 2**bits - 1, height × width or height × width × 3, as a lossless HEIC of 10 or 12 bits."""
    height, width = samples.shape[:2]
    mode = "L;16" if samples.ndim == 2 else "RGB;16"
    picture = pillow_heif.from_bytes(mode, (width, height), (samples << (16 - bits)).tobytes())
    picture[0].info["bit_depth"] = bits
    body = io.BytesIO()
    picture.save(body, quality=-1, chroma=444)
    return body.getvalue()


@functools.cache
def photo(width: int = 400, height: int = 300) -> bytes:
    """Return the scene."""
    return encoded(images.picture(width, height))


@functools.cache
def tiled() -> bytes:
    """Return the scene in twelve tiles, with partial ones at the end of each row and column, as iPhones write it."""
    return encoded(images.picture(1_000, 750), tile_size=256)


@functools.cache
def held(orientation: int) -> bytes:
    """Return the scene, 400 × 300 when upright, stored in an orientation that both the container and Exif state."""
    stored = images.picture(400, 300)
    if orientation != 1:
        stored = stored.transpose(images._STORED[orientation])
    return encoded(stored, exif=exif_of(orientation))


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "Ada"
    return exif.tobytes()


def transparent() -> Image.Image:
    """Return the scene with its right half transparent."""
    picture = images.picture(400, 300).convert("RGBA")
    picture.paste((0, 0, 0, 0), (200, 0, 400, 300))
    return picture


async def png(pool: RenderPool, path: Path, spelling: str = "full") -> Image.Image:
    return images.decode((await rendered(pool, path, spelling, "png")).body)


@pytest.mark.parametrize("image_format", FORMATS)
async def test_heic_is_rendered_in_every_format(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    path = written(tmp_path, photo())
    info = (await probed(pool, path)).info
    assert (info.format, info.width, info.height, info.frames, info.alpha, info.needs_full_decode) == ("heic", 400, 300, 1, False, True)
    image = images.decode((await rendered(pool, path, "width=200", image_format)).body)
    assert image.size == (200, 150)
    reference = images.picture(400, 300).resize((200, 150), Image.Resampling.LANCZOS)
    # GIF has only 256 colors.
    assert images.distance(image.convert("RGB"), reference) < ENCODING_TOLERANCE * (2 if image_format == "gif" else 1.5)


@pytest.mark.parametrize("size", [(333, 251), (64, 1), (1, 1)])
async def test_heic_of_an_odd_size_keeps_it(pool: RenderPool, tmp_path: Path, size: tuple[int, int]) -> None:
    path = written(tmp_path, encoded(images.picture(*size), chroma=444))
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == size
    image = await png(pool, path)
    assert image.size == size
    assert images.distance(image, images.picture(*size)) < ENCODING_TOLERANCE


async def test_heic_in_tiles_is_one_picture(pool: RenderPool, tmp_path: Path) -> None:
    image = await png(pool, written(tmp_path, tiled()))
    assert images.distance(image, images.picture(1_000, 750)) < ENCODING_TOLERANCE


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_heic_of_any_orientation_is_upright(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    path = written(tmp_path, held(orientation))
    info = (await probed(pool, path)).info
    image = await png(pool, path)
    assert (info.width, info.height) == image.size == (400, 300)
    assert images.distance(image, images.picture(400, 300)) < ENCODING_TOLERANCE
    part = await png(pool, path, "crop=0:0:200:150,width=100")
    reference = images.picture(400, 300).crop((0, 0, 200, 150)).resize((100, 75), Image.Resampling.LANCZOS)
    assert images.distance(part, reference) < ENCODING_TOLERANCE * 1.5


async def test_heic_with_an_exif_orientation_that_contradicts_the_container_is_not_rotated(pool: RenderPool, tmp_path: Path) -> None:
    """The container's orientation takes precedence over that of Exif (ISO/IEC 23008-12 §6.5.10)."""
    upright, turned = exif_of(1), exif_of(6)
    body = held(1)
    assert upright[6:] in body
    path = written(tmp_path, body.replace(upright[6:], turned[6:]))
    assert (await png(pool, path)).size == (400, 300)
    kept = images.decode((await rendered(pool, path, "metadata=all", "jpeg")).body)
    assert (kept.size, kept.getexif().get(ExifTags.Base.Orientation, 1)) == ((400, 300), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_decoded_has_the_size_in_its_header_and_no_orientation(orientation: int) -> None:
    body = held(orientation)
    header, image = pyvips.Image.new_from_buffer(body, ""), heic.decode(memoryview(body))
    assert (image.width, image.height) == (header.width, header.height)
    assert (image.bands, image.format, image.interpretation) == (3, "uchar", "srgb")
    assert not [field for field in image.copy_memory().get_fields() if "rientation" in field]


async def test_heic_with_alpha_is_transparent_in_the_same_places(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, encoded(transparent()))
    assert (await probed(pool, path)).info.alpha
    alpha = np.asarray(await png(pool, path))[..., 3]
    assert (alpha[:, :190] > 250).all()
    assert (alpha[:, 210:] < 5).all()


async def test_heic_with_premultiplied_alpha_has_the_colors_of_the_scene(pool: RenderPool, tmp_path: Path) -> None:
    picture = images.picture(400, 300).convert("RGBA")
    picture.putalpha(128)
    pixels = np.asarray(picture).astype(np.uint16)
    pixels[..., :3] = (pixels[..., :3] * 128 + 127) // 255
    body = io.BytesIO()
    pillow_heif.from_bytes("RGBa", picture.size, pixels.astype(np.uint8).tobytes()).save(body, quality=95, chroma=444)
    image = await png(pool, written(tmp_path, body.getvalue()))
    assert images.distance(image, images.picture(400, 300)) < ENCODING_TOLERANCE
    assert abs(np.asarray(image)[..., 3].astype(int) - 128).max() <= 2


async def test_heic_in_gray_stays_gray(pool: RenderPool, tmp_path: Path) -> None:
    gray = images.picture(400, 300).convert("L")
    image = await png(pool, written(tmp_path, encoded(gray)))
    assert image.mode == "L"
    assert images.distance(image, gray) < ENCODING_TOLERANCE


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("bits", [10, 12])
def test_heic_of_more_than_8_bits_is_rounded_to_the_nearest(monkeypatch: pytest.MonkeyPatch, bits: int, gray: bool) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    most = (1 << bits) - 1
    ramp = np.linspace(0, most, 512).round().astype(np.uint16)
    samples = np.tile(ramp, (8, 1)) if gray else np.tile(ramp[:, None], (8, 1, 3))
    image = heic.decode(memoryview(high_bit_depth_heic(samples, bits)))
    assert (image.format, image.bands) == ("uchar", 1 if gray else 3)
    away = np.abs(image.numpy().astype(float) - samples * (255 / most))
    # Truncating two or four bits would differ by up to three quarters of a level.
    assert away.max() <= ROUNDING_TOLERANCE


async def test_heic_in_display_p3_is_converted_to_srgb_or_kept(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, encoded(images.picture(400, 300), icc_profile=images.p3_profile()))
    converted, kept = await png(pool, path), await png(pool, path, "profile=keep")
    assert "icc_profile" not in converted.info
    assert kept.info["icc_profile"] == images.p3_profile()
    assert images.distance(kept, images.picture(400, 300)) < ENCODING_TOLERANCE
    assert images.distance(converted, images.picture(400, 300)) > 4


async def test_heic_with_nclx_display_p3_looks_as_with_the_icc_profile(pool: RenderPool, tmp_path: Path) -> None:
    scene = images.picture(400, 300)
    by_profile = written(tmp_path, encoded(scene, icc_profile=images.p3_profile()), "profile")
    by_name = written(tmp_path, encoded(scene, color_primaries=12, transfer_characteristics=13, matrix_coefficients=6), "name")
    # Two profiles of one color space have slightly different tables.
    assert images.distance(await png(pool, by_name), await png(pool, by_profile)) < 1


@pytest.mark.parametrize("orientation", [1, 6])
async def test_heic_with_metadata_copyright_keeps_the_owner_and_no_orientation(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    path = written(tmp_path, held(orientation))
    exif = images.decode((await rendered(pool, path, "width=99,metadata=copyright", "jpeg")).body).getexif()
    assert exif[ExifTags.Base.Artist] == "Ada"
    assert exif.get(ExifTags.Base.Orientation, 1) == 1


async def test_heic_whose_exif_block_lacks_its_prefix_keeps_the_owner(pool: RenderPool, tmp_path: Path) -> None:
    """Four bytes state the offset of the TIFF header, which need not follow the prefix `Exif` (ISO/IEC 23008-12, annex A)."""
    named = (6).to_bytes(4, "big") + b"Exif\0\0"
    body = held(1)
    assert named in body
    body = body.replace(named, (6).to_bytes(4, "big") + bytes(6))
    kept = images.decode((await rendered(pool, written(tmp_path, body), "metadata=copyright", "jpeg")).body)
    assert kept.getexif()[ExifTags.Base.Artist] == "Ada"


async def test_heic_with_metadata_all_keeps_xmp_that_states_an_upright_picture(pool: RenderPool, tmp_path: Path) -> None:
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6">{images.PLACE}</x:xmpmeta>'.encode()
    path = written(tmp_path, encoded(images.picture(400, 300), xmp=xmp))
    kept = (await rendered(pool, path, "metadata=all", "webp")).body
    assert images.PLACE.encode() in kept
    assert b'tiff:Orientation="1"' in kept


async def test_heic_of_several_pictures_shows_the_primary_one(pool: RenderPool, tmp_path: Path) -> None:
    pictures = pillow_heif.from_pillow(images.picture(400, 300))
    pictures.add_from_pillow(images.picture(200, 320, seed=2))
    body = io.BytesIO()
    pictures.save(body, quality=90, primary_index=1)
    image = await png(pool, written(tmp_path, body.getvalue()))
    assert image.size == (200, 320)
    assert images.distance(image, images.picture(200, 320, seed=2)) < ENCODING_TOLERANCE


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.9999])
@pytest.mark.parametrize("body", [photo, tiled])
async def test_truncated_heic_is_broken(pool: RenderPool, tmp_path: Path, body: Callable[[], bytes], share: float) -> None:
    path = written(tmp_path, images.truncated(body(), share))
    with pytest.raises(BrokenImageError):
        await probed(pool, path)
    with pytest.raises(BrokenImageError):
        await rendered(pool, path, "width=100", "webp")


def test_heic_with_an_item_outside_the_file_is_broken_without_decoding() -> None:
    """libheif would leave the tile out, and return a picture with a hole."""
    body = bytearray(tiled())
    # The `iloc` box (ISO/IEC 14496-12 §8.11.3) in pillow-heif's files has version 0 or 1, and ends with a length of four bytes.
    start = body.index(b"iloc") - 4
    end = start + int.from_bytes(body[start : start + 4], "big")
    length = int.from_bytes(body[end - 4 : end], "big")
    body[end - 4 : end] = (length + len(body)).to_bytes(4, "big")
    with pytest.raises(ImageError) as caught:
        heic.decode(memoryview(body))
    assert caught.value.failure.kind == "broken"


def test_heic_with_absurd_sizes_in_its_header_is_broken_and_not_out_of_memory() -> None:
    size, absurd = struct.pack(">II", 400, 300), struct.pack(">II", 400, 3_000_000_000)
    assert size in photo()
    with pytest.raises(ImageError) as caught:
        heic.decode(memoryview(photo().replace(size, absurd)))
    assert caught.value.failure.kind == "broken"


@pytest.mark.parametrize("body", [photo, tiled])
async def test_mutated_heic_is_rendered_or_refused_and_no_process_is_lost(
    pool: RenderPool, tmp_path: Path, body: Callable[[], bytes]
) -> None:
    before = pool.process_ids
    refused: list[ServiceError] = []

    async def look(seed: int) -> None:
        changed = bytearray(body())
        # Half of the changes are in the headers, where a byte matters most.
        for place in np.random.default_rng(seed).integers(24, 900 if seed % 2 else len(changed), 12):
            changed[place] ^= 0x5A
        try:
            await probed(pool, written(tmp_path, bytes(changed), str(seed)))
        except ServiceError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for seed in range(40):
            tasks.start_soon(look, seed)
    assert any(isinstance(error, BrokenImageError) for error in refused)
    assert [error for error in refused if not 400 <= error.status_code < 500] == []
    assert pool.process_ids == before


async def test_heic_with_too_many_pixels_is_refused_from_its_header(pool: RenderPool, tmp_path: Path) -> None:
    limits = Limits(max_pixels=100_000, max_whole_pixels=100_000, max_output_pixels=100_000, max_frames=9, codec_bytes=10**9)
    with pytest.raises(TooManyPixelsError):
        await probed(pool, written(tmp_path, photo()), limits=limits)


async def test_heic_that_needs_too_much_memory_is_too_costly_and_affects_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = Image.new("RGB", (7_500, 5_000), (90, 120, 200))
    large = written(tmp_path, encoded(flat, quality=30), "large")
    replies = watched_replies(monkeypatch)
    async with render_pool(memory_bytes=256 * MEBIBYTE) as pool:
        with pytest.raises(TooCostlyError):
            await rendered(pool, large, "width=100", "webp")
        assert (await png(pool, written(tmp_path, photo()))).size == (400, 300)
    # Each reply is the process's own, so it did not end. Afterwards it may be replaced, because it has grown.
    assert [type(reply).__name__ for reply in replies] == ["Failure", "Rendered"]


def test_heic_whose_decoder_finds_no_memory_is_short_of_memory_and_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder's message is the same for broken data."""
    cause = "Decoder plugin generated an error: Unspecified: Decoding the input data did not give a decompressed image."

    def refuse(*_: object) -> None:
        raise ValueError(cause)

    monkeypatch.setattr(heic, "_to_vips", refuse)
    for has_space, kind in ((True, "broken"), (False, "too-costly")):
        monkeypatch.setattr(memory, "has_space_for", lambda _, has_space=has_space: has_space)
        with pytest.raises(ImageError) as refused:
            heic.decode(memoryview(photo()))
        assert refused.value.failure.kind == kind
        assert refused.value.failure.short_of_memory == (not has_space)


def test_heic_without_the_extra_is_refused_with_its_name(tmp_path: Path) -> None:
    """In a process without pillow-heif, as after `pip install darkroom` without the extra."""
    (tmp_path / "photo.heic").write_bytes(photo())
    script = """
import importlib.util, sys
from pathlib import Path
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "pillow_heif" else found(name, package)
from service.rendering.protocol import ImageError
from service.images.info import Limits
from service.worker.probe import block_unused_loaders, probe, readable_formats
block_unused_loaders()
print(",".join(readable_formats()))
try:
    probe(memoryview(Path(sys.argv[1]).read_bytes()), Limits(10**8, 10**8, 10**8, 9, 10**9))
except ImageError as error:
    print(error.failure.kind, error.failure.expected)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "photo.heic")]
    formats, failure = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert "heic" not in formats.split(",")
    assert "avif" in formats.split(",")
    assert failure == "unsupported an installation with the extra `heic` (pip install 'darkroom-image-cdn[heic]')"


def test_heic_decoder_is_reported_as_supported_without_being_loaded() -> None:
    script = """
import sys
from service.worker import jobs, probe
print("heic" in probe.readable_formats(), "pillow_heif" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["True", "False"]


@needs_corpus
async def test_corpus_photo_of_an_iphone_is_rendered_and_has_an_intermediate(pool: RenderPool) -> None:
    for path in images.corpus_files("heic"):
        found = await probed(pool, path)
        assert (found.info.format, found.info.width, found.info.height) == ("heic", 4032, 3024)
        assert found.intermediate is not None
        assert images.decode(found.intermediate).size == found.info.intermediate
        reference = pillow_heif.open_heif(path)[0].to_pillow().resize((640, 480), Image.Resampling.LANCZOS)
        kept = images.decode((await rendered(pool, path, "width=640,profile=keep", "png")).body)
        assert images.distance(kept, reference) < 2.5


@needs_corpus
async def test_corpus_photo_of_an_iphone_needs_less_than_two_thirds_of_a_renders_memory() -> None:
    async with render_pool(memory_bytes=320 * MEBIBYTE) as pool:
        for path in images.corpus_files("heic"):
            assert (await probed(pool, path)).intermediate
            assert (await rendered(pool, path, "width=640", "webp")).height == 480
            assert (await rendered(pool, path, "crop=1000:500:800:600", "avif")).width == 800

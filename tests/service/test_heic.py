"""HEIC with HEVC: photos of iPhones, made here with pillow-heif's encoder, and the corpus's one."""

import functools
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from service.errors import BrokenImageError, TooManyPixelsError
from service.render.messages import Limits
from service.render.pool import RenderPool
from service.transform import FORMATS, Format
from tests import images
from tests.service.renders import probed, rendered, written

pytestmark = pytest.mark.anyio

# What HEVC at quality 90 loses of the scene, and what a resampler of its own makes of it.
ENCODED = 4.0


@functools.cache
def heic(width: int = 400, height: int = 300, *, mode: str = "RGB", exif: bytes = b"", profile: bytes = b"") -> bytes:
    """Return the scene as a HEIC, compressed with HEVC."""
    picture = images.picture(width, height).convert(mode)
    if mode == "RGBA":
        picture.paste((0, 0, 0, 0), (width // 2, 0, width, height))
    encoded = pillow_heif.from_pillow(picture)
    body = io.BytesIO()
    encoded.save(body, quality=90, exif=exif or None, icc_profile=profile or None)
    return body.getvalue()


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "Ada"
    return exif.tobytes()


@pytest.mark.parametrize("image_format", FORMATS)
async def test_heic_is_rendered_in_every_format(pool: RenderPool, tmp_path: Path, image_format: Format) -> None:
    path = written(tmp_path, heic())
    info = (await probed(pool, path)).info
    assert (info.format, info.width, info.height, info.frames, info.alpha, info.decodes_whole) == ("heic", 400, 300, 1, False, True)
    image = images.opened((await rendered(pool, path, "width=200", image_format)).body)
    assert image.size == (200, 150)
    reference = images.picture(400, 300).resize((200, 150), Image.Resampling.LANCZOS)
    # A palette of 256 colours is what GIF has.
    assert images.distance(image.convert("RGB"), reference) < ENCODED * (2 if image_format == "gif" else 1.5)


async def test_heic_of_an_odd_size_has_it(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, heic(333, 251))
    info = (await probed(pool, path)).info
    assert (info.width, info.height) == (333, 251)
    image = images.opened((await rendered(pool, path, "full", "png")).body)
    assert image.size == (333, 251)
    assert images.distance(image, images.picture(333, 251)) < ENCODED


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_heic_is_turned_once_whatever_its_exif_says_beside(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    """The container's own rotation counts (ISO/IEC 23008-12 §6.5.10), which the writer has set from the Exif orientation, or none."""
    path = written(tmp_path, heic(exif=exif_of(orientation)))
    upright = pillow_heif.open_heif(path)[0].to_pillow().convert("RGB")
    info = (await probed(pool, path)).info
    image = images.opened((await rendered(pool, path, "full", "png")).body)
    assert (info.width, info.height) == image.size == upright.size
    assert images.distance(image, upright) < 0.5


async def test_heic_with_alpha_is_clear_where_it_is(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, heic(mode="RGBA"))
    assert (await probed(pool, path)).info.alpha
    alpha = np.asarray(images.opened((await rendered(pool, path, "full", "png")).body))[..., 3]
    assert (alpha[:, :190] > 250).all()
    assert (alpha[:, 210:] < 5).all()


async def test_heic_in_display_p3_is_what_it_looks_like_in_srgb_or_kept(pool: RenderPool, tmp_path: Path) -> None:
    path = written(tmp_path, heic(profile=images.p3_profile()))
    converted = images.opened((await rendered(pool, path, "full", "png")).body)
    kept = images.opened((await rendered(pool, path, "profile=keep", "png")).body)
    assert "icc_profile" not in converted.info
    assert kept.info["icc_profile"] == images.p3_profile()
    assert images.distance(kept, images.picture(400, 300)) < ENCODED
    assert images.distance(converted, images.picture(400, 300)) > 4


@pytest.mark.parametrize("orientation", [1, 6])
async def test_heic_tells_whose_it_is_when_asked_and_nothing_of_a_turn(pool: RenderPool, tmp_path: Path, orientation: int) -> None:
    path = written(tmp_path, heic(exif=exif_of(orientation)))
    exif = images.opened((await rendered(pool, path, "width=99,metadata=copyright", "jpeg")).body).getexif()
    assert exif[ExifTags.Base.Artist] == "Ada"
    assert exif.get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
async def test_heic_that_is_cut_short_is_broken(pool: RenderPool, tmp_path: Path, share: float) -> None:
    with pytest.raises(BrokenImageError):
        await probed(pool, written(tmp_path, images.truncated(heic(), share)))


async def test_heic_of_more_pixels_than_are_taken_is_refused_from_its_header(pool: RenderPool, tmp_path: Path) -> None:
    limits = Limits(max_pixels=100_000, max_whole_pixels=100_000, max_output_pixels=100_000, max_frames=9)
    with pytest.raises(TooManyPixelsError):
        await probed(pool, written(tmp_path, heic()), limits=limits)


def test_heic_without_the_extra_is_refused_with_its_name(tmp_path: Path) -> None:
    """In a process that finds no pillow-heif, as after `pip install darkroom` alone."""
    (tmp_path / "photo.heic").write_bytes(heic())
    script = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "pillow_heif" else found(name, package)
from service.render.messages import ImageError, Limits
from service.render.probe import allow_only_offered_loaders, offered, probe
allow_only_offered_loaders()
print(",".join(offered()))
try:
    probe(sys.argv[1], Limits(10**8, 10**8, 10**8, 9))
except ImageError as error:
    print(error.failure.kind, error.failure.expected)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "photo.heic")]
    offered, told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert "heic" not in offered.split(",")
    assert "avif" in offered.split(",")
    assert told == "unsupported an installation with the extra `heic` (pip install darkroom[heic])"


def test_heic_decoder_is_not_loaded_before_such_a_file_comes() -> None:
    script = "import sys, service.render.job; print('pillow_heif' in sys.modules, 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split() == ["False", "False"]


@pytest.mark.skipif(not images.corpus_files("heic"), reason="the corpus is not beside the checkout")
async def test_corpus_photo_of_an_iphone_is_rendered_and_has_an_intermediate(pool: RenderPool) -> None:
    for path in images.corpus_files("heic"):
        found = await probed(pool, path)
        assert (found.info.format, found.info.width, found.info.height) == ("heic", 4032, 3024)
        assert found.intermediate is not None
        assert images.opened(found.intermediate).size == found.info.intermediate
        reference = pillow_heif.open_heif(path)[0].to_pillow().resize((640, 480), Image.Resampling.LANCZOS)
        kept = images.opened((await rendered(pool, path, "width=640,profile=keep", "png")).body)
        assert images.distance(kept, reference) < 2.5

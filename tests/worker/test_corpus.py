"""Every file of the shared corpus, compared with the picture that Chromium shows of it.

Files that Chromium does not read, or does not show as the standard says, are compared with Pillow or with arithmetic.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from _pytest.mark import ParameterSet
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from service.errors import BrokenImageError, ServiceError, TooManyPixelsError, UnsupportedFormatError
from service.rendering.pool import RenderPool
from tests.support import images, reference
from tests.support.chromium import Animation, Painter, visible_distance
from tests.support.renders import check_words, probed, rendered, written
from tests.support.tiffs import rgb_from_lab

CORPUS = images.corpus()

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(CORPUS is None, reason="the corpus of real images is not beside the repository")]

# The largest mean difference to the reference, in steps of 8-bit sRGB.
MAX_DISTANCE = 6.0

# Directories of small files; the others, and one tall picture, take long in the browser, which hands their pixels over.
QUICK = {"faults", "icc", "png-mode", "svg", "svg-hostile", "webp"}
TALL = "faults/tall-1200x18000.png"

BROWSER_FORMATS = {".avif": "avif", ".gif": "gif", ".jpg": "jpeg", ".png": "png", ".svg": "svg", ".webp": "webp"}

REFUSED: dict[str, tuple[type[ServiceError], str]] = {
    "faults/jpeg-half-with-eoi.jpg": (BrokenImageError, "broken or incomplete"),
    "faults/libvips__ojpeg-tile.tif": (UnsupportedFormatError, r"old-style JPEG compression \(6\)"),
    "bomb/images__1024-pages.gif": (TooManyPixelsError, "too many frames"),
    "bomb/images__giant.svg": (TooManyPixelsError, "too large"),
    "bomb/sharp__65536-uint32-limit.png": (TooManyPixelsError, "too many pixels"),
    "bomb/sharp__giant-image.jpg": (TooManyPixelsError, "too many pixels"),
    "broken/pngsuite__xcsn0g01.png": (BrokenImageError, "broken or incomplete"),
    "broken/pngsuite__xd0n2c08.png": (BrokenImageError, "broken or incomplete"),
    "broken/pngsuite__xhdn0g08.png": (BrokenImageError, "broken or incomplete"),
    "broken/pngsuite__xlfn0g04.png": (UnsupportedFormatError, "not an image"),
    "broken/sharp__corrupt-header.jpg": (BrokenImageError, "broken or incomplete"),
    "broken/sharp__truncated.jpg": (BrokenImageError, "broken or incomplete"),
    "broken/sharp__truncated.png": (BrokenImageError, "broken or incomplete"),
}


def without_profile(body: bytes) -> bytes:
    """Return a JPEG without its ICC profile, which has one segment (ICC.1:2022, annex B.4)."""
    at = body.index(b"ICC_PROFILE\0") - 4
    return body[:at] + body[at + 2 + int.from_bytes(body[at + 2 : at + 4], "big") :]


# Files that are to look like another one, which Chromium draws instead.
LIKE: dict[str, Callable[[bytes], bytes]] = {
    # Chromium leaves the last rows of blocks out.
    "faults/jpeg-no-eoi.jpg": lambda body: body + b"\xff\xd9",
    # Chromium takes the first half of a link between two devices for the profile of one, which no standard allows.
    "faults/jpeg-icc-devicelink.jpg": without_profile,
}

# Files of formats that Chromium shows, and which have tests of their own.
AVIF_WITH_ALPHA = "faults/avif-premultiplied.avif"
INKS_WITHOUT_PROFILE = "cmyk/images__Channel_digital_image_CMYK_color_no_profile.jpg"
INKS_WITH_PROFILE = "cmyk/sharp__Channel_digital_image_CMYK_color.jpg"
# Lab of 16 bits, which Pillow does not read.
LAB = "tiff/sharp__cielab-dagams.tiff"


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def read(name: str) -> bytes:
    assert CORPUS is not None
    return (CORPUS / name).read_bytes()


def case(path: Path) -> ParameterSet:
    name = name_of(path)
    is_long = path.parent.name not in QUICK or name == TALL
    return pytest.param(name, id=name, marks=[pytest.mark.long] if is_long else [])


FILES = [path for folder in sorted(CORPUS.iterdir()) if folder.is_dir() for path in images.corpus_files(folder.name)] if CORPUS else []
SHOWN = [path for path in FILES if name_of(path) not in {*REFUSED, AVIF_WITH_ALPHA, INKS_WITHOUT_PROFILE, LAB} and path.suffix != ".md"]
IN_BROWSERS = [case(path) for path in SHOWN if path.suffix in BROWSER_FORMATS]
ELSEWHERE = [case(path) for path in SHOWN if path.suffix not in BROWSER_FORMATS]
ANIMATIONS = [case(path) for path in SHOWN if path.suffix == ".gif" or path.parent.name == "animated"]


async def picture(pool: RenderPool, folder: Path, name: str) -> Image.Image:
    """Return the whole picture that the service makes of a file, without loss."""
    path = written(folder, read(name))
    await probed(pool, path)
    return images.decode((await rendered(pool, path, "full", "png")).body).convert("RGBA")


def drawn(painter: Painter, name: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Return the picture of a file in Chromium."""
    body = LIKE[name](read(name)) if name in LIKE else read(name)
    found = painter.draw(body, BROWSER_FORMATS[Path(name).suffix], size)
    assert found is not None
    return found


@pytest.mark.parametrize("name", IN_BROWSERS)
async def test_file_of_the_corpus_is_shown_as_in_chromium(pool: RenderPool, painter: Painter, tmp_path: Path, name: str) -> None:
    ours = await picture(pool, tmp_path, name)
    # A drawing takes the size of the rendition, because browsers and libvips choose different ones where it has none.
    assert visible_distance(ours, drawn(painter, name, ours.size if name.endswith(".svg") else None)) <= MAX_DISTANCE


@pytest.mark.parametrize("name", ELSEWHERE)
async def test_file_of_the_corpus_that_browsers_do_not_read_is_shown_as_in_pillow(pool: RenderPool, tmp_path: Path, name: str) -> None:
    assert visible_distance(await picture(pool, tmp_path, name), pillow_picture(read(name))) <= MAX_DISTANCE


def pillow_picture(body: bytes) -> Image.Image:
    """Return the picture that Pillow and Little CMS make of a file."""
    pillow_heif.register_heif_opener()
    image = images.decode(body)
    if image.mode == "LAB":
        srgb = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert srgb is not None
        return srgb.convert("RGBA")
    return (image if image.mode == "YCbCr" else reference.decode_upright(body)).convert("RGBA")


async def test_premultiplied_avif_of_the_corpus_has_the_alpha_of_its_file(pool: RenderPool, tmp_path: Path) -> None:
    """Chromium 156 spreads alpha of every AVIF from the limited range, although the stream declares the full one (AV1 §5.5.2)."""
    assert visible_distance(await picture(pool, tmp_path, AVIF_WITH_ALPHA), pillow_picture(read(AVIF_WITH_ALPHA))) <= MAX_DISTANCE


async def test_inks_without_a_profile_are_shown_more_like_those_with_it_than_in_chromium(
    pool: RenderPool, painter: Painter, tmp_path: Path
) -> None:
    """No standard defines the colors of such inks: libvips assumes a common press, and Chromium inverts the numbers."""
    right = drawn(painter, INKS_WITH_PROFILE)
    distance = visible_distance(await picture(pool, tmp_path, INKS_WITHOUT_PROFILE), right)
    assert distance < visible_distance(drawn(painter, INKS_WITHOUT_PROFILE), right) / 2


async def test_lab_of_16_bits_of_the_corpus_has_the_colors_of_the_standard(pool: RenderPool, tmp_path: Path) -> None:
    """One strip of LZW, with differences between neighbors (TIFF 6.0 §14); L* is unsigned, and a* and b* are signed (§23)."""
    body = read(LAB)
    file, tags = io.BytesIO(body), ImageFileDirectory_v2(body[:8])
    file.seek(tags.next)
    tags.load(file)
    (start,), (length,) = tags[273], tags[279]
    differences = np.frombuffer(imagecodecs.lzw_decode(body[start : start + length]), "<u2").reshape(tags[257], tags[256], 3)
    values = np.cumsum(differences, axis=1, dtype=np.uint16)
    lab = np.concatenate([values[:, :, :1] / 655.35, values[:, :, 1:].astype(np.int16) / 256], axis=-1)
    expected = Image.fromarray(np.rint(rgb_from_lab(lab)).astype(np.uint8))
    assert visible_distance(await picture(pool, tmp_path, LAB), expected) <= MAX_DISTANCE


@pytest.mark.parametrize("name", REFUSED)
async def test_file_of_the_corpus_is_refused_with_the_reason(pool: RenderPool, tmp_path: Path, name: str) -> None:
    error, words = REFUSED[name]
    with pytest.raises(error, match=words) as raised:
        await picture(pool, tmp_path, name)
    check_words(raised.value)


@pytest.mark.parametrize("name", ANIMATIONS)
async def test_animation_of_the_corpus_shows_the_same_at_every_time_as_in_chromium(
    pool: RenderPool, painter: Painter, tmp_path: Path, name: str
) -> None:
    rendition = await rendered(pool, written(tmp_path, read(name)), "lossless=true", "webp")
    check_animation(painter.play(rendition.body, "webp"), painter.play(read(name), BROWSER_FORMATS[Path(name).suffix]))


def check_animation(found: Animation, expected: Animation) -> None:
    """Compare two animations; an encoder may have merged frames that are equal."""
    if len(expected.frames) > 1:
        assert found.plays == expected.plays
        assert sum(found.delays) == sum(expected.delays)
    ends = list(accumulate(found.delays))
    for frame, end, delay in zip(expected.frames, accumulate(expected.delays), expected.delays, strict=True):
        shown = found.frames[min(bisect_right(ends, end - delay / 2), len(ends) - 1)]
        assert visible_distance(shown, frame) <= MAX_DISTANCE

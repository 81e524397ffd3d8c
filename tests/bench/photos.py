"""The test images. `python -m tests.bench.photos <kind> <source> <target>` makes one, so that the measuring process never loads libvips."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyvips

REPOSITORY = Path(__file__).parents[2]

# A 12.7 Mpixel JPEG of a camera, if the directory of test images lies next to the checkout.
CORPUS_PHOTO = REPOSITORY.parent / "shared" / "corpus" / "photo" / "metadata-extra__Canon_EOS_5D.jpg"

# A 12.2 Mpixel HEIC of an iPhone, in the same directory.
CORPUS_HEIC = CORPUS_PHOTO.parents[1] / "heic" / "test-assets__IMG_2682.heic"

# Directories next to it that hold photos as people take them.
_CORPUS_FOLDERS = ("photo", "orientation", "jpeg", "exif-gps", "webp", "hdr", "avif", "heic")

_ALBUM = 100

# That of the camera's. At 640 wide its decoder shrinks as much as in `pyvips.Image.thumbnail`, which the bare render calls.
_PHOTO_SIZE = 2_912, 4_368
_LARGE_SIZE = 6_000, 4_000
_HUGE_SIZE = 10_000, 10_000

# With its default preset x265 takes half a minute for a large picture. The preset has little effect on the time to decode.
_HEVC_PRESET = "ultrafast"


def photo(folder: Path) -> tuple[Path, str]:
    """Return a baseline JPEG of about 12 Mpixel, and its description."""
    if CORPUS_PHOTO.exists():
        return CORPUS_PHOTO, f"{CORPUS_PHOTO.name}, 12.7 Mpixel"
    return make_image("photo", CORPUS_PHOTO, folder / "photo.jpg"), "a generated JPEG of 12.7 Mpixel"


def heic(photo_path: Path, folder: Path, *, may_take_long: bool) -> tuple[Path, str] | None:
    """Return a HEIC and its description; `None` without both pillow-heif, which makes one, and the directory of test images."""
    found = CORPUS_HEIC if CORPUS_HEIC.exists() else None
    if find_spec("pillow_heif") is not None and (may_take_long or found is None):
        return make_image("large-heic", photo_path, folder / "large-heic"), "24.0 Mpixel tiled from the photo"
    return None if found is None else (found, f"{found.name} of an iPhone, 12.2 Mpixel")


def album(photo_path: Path, folder: Path, count: int) -> list[Path]:
    """Return `count` different photos, up to 100: those in the directory of test images, if it exists, and parts of the photo."""
    corpus = CORPUS_PHOTO.parents[1]
    found = sorted(path for name in _CORPUS_FOLDERS for path in (corpus / name).glob("*") if path.is_file())
    parts = sorted(make_image("album", photo_path, folder / "album").iterdir())
    # Alternate between the two kinds, so that few photos include both.
    return [path for pair in zip_longest(found, parts) for path in pair if path is not None][:count]


def has_profile(path: Path) -> bool:
    """Return whether a JPEG has a color profile (ICC.1, annex B.4)."""
    return b"ICC_PROFILE\0" in path.read_bytes()


def make_image(kind: str, source: Path, target: Path) -> Path:
    """Return `target`, an image of `kind` (a key of `_MAKERS`). It is made from `source` in another process unless it exists."""
    if target.exists():
        return target
    command = [sys.executable, "-m", "tests.bench.photos", kind, str(source), str(target)]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "VIPS_CONCURRENCY": "2"}, check=True)
    return target


def _photo(source: str, target: str) -> None:
    """Make an image with as much detail as a photo: clouds of several sizes over gradients, edges, and a little grain."""
    import pyvips  # noqa: PLC0415 - only in the process that makes images

    width, height = _PHOTO_SIZE
    bands = []
    for seed in range(3):
        cloud = sum(
            (
                pyvips.Image.perlin(width, height, cell_size=cell, seed=seed * 10 + cell) * weight
                for cell, weight in ((701, 90), (97, 40), (17, 25), (5, 12))
            ),
            start=pyvips.Image.xyz(width, height)[seed % 2] * (110 / max(_PHOTO_SIZE)),
        )
        grain = pyvips.Image.gaussnoise(width, height, mean=0, sigma=4, seed=seed)
        bands.append(cloud + grain + 60)
    picture = bands[0].bandjoin(bands[1:])
    edges = picture.extract_band(1) > 128
    picture = edges.ifthenelse(picture * 1.15 + 10, picture * 0.85)
    picture.cast("uchar").copy(interpretation="srgb").jpegsave(target, Q=92)


def _progressive(source: str, target: str) -> None:
    import pyvips  # noqa: PLC0415

    pyvips.Image.new_from_file(source, access="sequential").jpegsave(target, Q=90, interlace=True, keep="none")


def _png(source: str, target: str) -> None:
    """Make a PNG, 2,400 pixels wide, whose alpha channel fades out toward the bottom."""
    import pyvips  # noqa: PLC0415

    image = pyvips.Image.thumbnail(source, 2_400)
    alpha = 255 - pyvips.Image.xyz(image.width, image.height)[1] * (200 / image.height)
    image.bandjoin(alpha.cast("uchar")).pngsave(target, compression=3, keep="none")


def _huge(source: str, target: str) -> None:
    """Make a baseline JPEG of 100 Mpixel."""
    _tiled(source, _HUGE_SIZE).jpegsave(target, Q=85, keep="none")


def _large_jpeg(source: str, target: str) -> None:
    """Make a baseline JPEG of 24 Mpixel with its color at half the resolution, as cameras do."""
    _tiled(source, _LARGE_SIZE).jpegsave(target, Q=90, subsample_mode="on", keep="none")


def _large_progressive(source: str, target: str) -> None:
    """Make the same JPEG as `_large_jpeg`, but progressive."""
    _tiled(source, _LARGE_SIZE).jpegsave(target, Q=90, subsample_mode="on", interlace=True, keep="none")


def _large_png(source: str, target: str) -> None:
    """Make an opaque PNG of 24 Mpixel with filtered lines, as most programs write it; libvips does not filter by default."""
    _tiled(source, _LARGE_SIZE).pngsave(target, compression=6, filter="all", keep="none")


def _large_heic(source: str, target: str) -> None:
    """Make a HEIC of 24 Mpixel, which takes about ten seconds."""
    import pillow_heif  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    picture = Image.fromarray(_tiled(source, _LARGE_SIZE).numpy())
    pillow_heif.from_pillow(picture).save(target, quality=80, enc_params={"preset": _HEVC_PRESET})


def _album(source: str, target: str) -> None:
    """Make a directory of 100 baseline JPEGs of 6 to 12 Mpixel, like those of cameras, each a different part of the photo."""
    import pyvips  # noqa: PLC0415

    Path(target).mkdir()
    photo = pyvips.Image.new_from_file(source).copy_memory()
    for number in range(_ALBUM):
        width, height = photo.width * (70 + number % 29) // 100, photo.height * (70 + number % 29) // 100
        left, top = (photo.width - width) * (number % 10) // 10, (photo.height - height) * (number // 10) // 10
        photo.crop(left, top, width, height).jpegsave(f"{target}/{number:03}.jpg", Q=88, subsample_mode="on", keep="none")


def _tiled(source: str, size: tuple[int, int]) -> pyvips.Image:
    """Return an image of this size that repeats the photo."""
    import pyvips  # noqa: PLC0415

    width, height = size
    tile = pyvips.Image.new_from_file(source).copy_memory()
    return tile.replicate(-(-width // tile.width), -(-height // tile.height)).crop(0, 0, width, height)


_MAKERS = {
    "photo": _photo,
    "progressive": _progressive,
    "png": _png,
    "huge": _huge,
    "large-jpeg": _large_jpeg,
    "large-progressive": _large_progressive,
    "large-png": _large_png,
    "large-heic": _large_heic,
    "album": _album,
}

if __name__ == "__main__":
    _MAKERS[sys.argv[1]](sys.argv[2], sys.argv[3])

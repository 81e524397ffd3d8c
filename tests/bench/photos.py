"""The test images. `python -m tests.bench.photos <kind> <from> <to>` makes one, so that libvips never loads into the measuring process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

# A camera's own 12.7 Mpixel JPEG, where the folder of test images stands beside the checkout.
CORPUS_PHOTO = REPOSITORY.parent / "shared" / "corpus" / "photo" / "metadata-extra__Canon_EOS_5D.jpg"

_PHOTO_SIZE = 4_240, 2_832
_HUGE_SIDE = 10_000


def photo(folder: Path) -> tuple[Path, str]:
    """Return a baseline JPEG of about 12 Mpixel, and what it is in words."""
    if CORPUS_PHOTO.exists():
        return CORPUS_PHOTO, f"{CORPUS_PHOTO.name}, 12.7 Mpixel"
    return made("photo", CORPUS_PHOTO, folder / "photo.jpg"), "a generated JPEG of 12.0 Mpixel"


def has_profile(path: Path) -> bool:
    """Return whether a JPEG carries a colour profile (ICC.1, annex B.4)."""
    return b"ICC_PROFILE\0" in path.read_bytes()


def made(kind: str, source: Path, target: Path) -> Path:
    """Return `target`, now an image of `kind` (see `_MAKERS`) made from `source`, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.photos", kind, str(source), str(target)]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "VIPS_CONCURRENCY": "2"}, check=True)
    return target


def _photo(source: str, target: str) -> None:
    """Make a picture with the detail of a photo: clouds of several sizes over gradients, edges, a little grain."""
    import pyvips  # noqa: PLC0415 - only where an image is made

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
    """Make a PNG of 2,400 pixels' width with an alpha channel that fades out downwards."""
    import pyvips  # noqa: PLC0415

    image = pyvips.Image.thumbnail(source, 2_400)
    alpha = 255 - pyvips.Image.xyz(image.width, image.height)[1] * (200 / image.height)
    image.bandjoin(alpha.cast("uchar")).pngsave(target, compression=3, keep="none")


def _huge(source: str, target: str) -> None:
    """Make a baseline JPEG of 100 Mpixel: the photo, laid side by side."""
    import pyvips  # noqa: PLC0415

    tile = pyvips.Image.new_from_file(source).copy_memory()
    tiled = tile.replicate(-(-_HUGE_SIDE // tile.width), -(-_HUGE_SIDE // tile.height))
    tiled.crop(0, 0, _HUGE_SIDE, _HUGE_SIDE).jpegsave(target, Q=85, keep="none")


_MAKERS = {"photo": _photo, "progressive": _progressive, "png": _png, "huge": _huge}

if __name__ == "__main__":
    _MAKERS[sys.argv[1]](sys.argv[2], sys.argv[3])

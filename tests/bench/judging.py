"""The bytes and the scores of renditions. `python -m tests.bench.judging <original> <rendition>…` prints scores: only it loads SciPy.

The reference is the whole original, decoded without a reduction and scaled by libvips' resampler to the size of the rendition.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from PIL import Image

from tests.bench import sides
from tests.bench.report import Output
from tests.bench.servers import REPOSITORY
from tests.bench.side import Work

# Sides round the sides of a rendition differently.
_MAX_DIFFERENCE_PIXELS = 1


def check(work: Work, body: bytes) -> None:
    """Raise `RuntimeError` unless a file is a rendition of the width, the shape and the format that were requested."""
    try:
        with Image.open(io.BytesIO(body)) as image:
            found = (image.format or "").lower(), *image.size
    except OSError as error:
        raise RuntimeError(f"expected {work.format}, received {body[:40]!r}") from error
    name, width, height = found
    if name != work.format or abs(width - work.width) > _MAX_DIFFERENCE_PIXELS:
        raise RuntimeError(f"expected {work.format} of {work.width} pixels, received {name} of {width}")
    if work.height is not None and abs(height - work.height) > _MAX_DIFFERENCE_PIXELS:
        raise RuntimeError(f"expected a height of {work.height} pixels, received {height}")


def checked(work: Work, render: Mapping[str, Callable[[], bytes]]) -> dict[str, bytes]:
    """Return the rendition of each side that `render` makes. A side that fails, or makes another rendition, is left out."""
    bodies = {}
    for name, of_side in render.items():
        try:
            body = of_side()
            check(work, body)
        except (RuntimeError, OSError) as error:
            sides.leave_out(name, error)
        else:
            bodies[name] = body
    return bodies


class Judge:
    """Judges renditions, each different file once."""

    def __init__(self, folder: Path, originals: Path) -> None:
        """Create a judge. `folder`: where it writes the files; it does not exist yet. `originals`: the directory of the originals."""
        folder.mkdir()
        self._folder = folder
        self._originals = originals

    def outputs(self, work: Work, bodies: Mapping[str, bytes]) -> dict[str, Output]:
        """Return the bytes and the SSIMULACRA2 of the files of all sides; a crop has no score, because each side cuts out another part."""
        if work.smart_crop:
            return {name: Output(len(body), None) for name, body in bodies.items()}
        files = {name: self._folder / hashlib.sha256(body).hexdigest() for name, body in bodies.items()}
        for name, body in bodies.items():
            files[name].write_bytes(body)
        distinct = list(dict.fromkeys(files.values()))
        command = [sys.executable, "-m", "tests.bench.judging", str(self._originals / work.original), *map(str, distinct)]
        found = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True).stdout
        scores = dict(zip(distinct, msgspec.json.decode(found, type=list[float]), strict=True))
        return {name: Output(len(body), scores[files[name]]) for name, body in bodies.items()}


def main() -> None:
    """Print the scores of the renditions of an original as a list in JSON."""
    import pyvips  # noqa: PLC0415 - only in the process that judges

    from tests.quality.judge import score  # noqa: PLC0415

    original, *renditions = sys.argv[1:]
    scores = []
    for rendition in renditions:
        body = Path(rendition).read_bytes()
        with Image.open(io.BytesIO(body)) as image:
            width, height = image.size
        whole = pyvips.Image.new_from_file(original)
        profile = {"output_profile": "srgb"} if whole.get_typeof("icc-profile-data") else {}
        scores.append(score(Image.fromarray(whole.thumbnail_image(width, height=height, size="force", **profile).numpy()), body))
    sys.stdout.buffer.write(msgspec.json.encode(scores))


if __name__ == "__main__":
    main()

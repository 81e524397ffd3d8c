"""`python -m tests.gallery FILE` makes contact sheets with a labeled rendition for each example: one of all, and one of each group."""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
from pathlib import Path

import anyio
import msgspec
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.images.digest import digest_from_sha256
from service.images.formats import Format
from service.images.transform import parse
from service.rendering.pool import RenderPool
from service.rendering.protocol import InputFile, Render, Rendered
from tests.browser.landscape import evening_lake
from tests.support.renders import LIMITS, render_pool, unresolved

_COLUMNS, _GROUP_COLUMNS = 6, 3
_CELL = (300, 262)
_PICTURE = (284, 200)
_PAPER, _INK, _CHECK = (250, 249, 246), (40, 40, 40), ((255, 255, 255), (226, 226, 226))
_LABEL_LINE_CHARACTERS = 46

_SILK = ((214, 40, 40), (247, 200, 80), (214, 40, 40), (247, 200, 80), (214, 40, 40))
_BADGE_COLOR = (255, 255, 255, 235)


class Example(msgspec.Struct, frozen=True):
    """One cell: a transform of an original, in a format. `{badge}` in the transform stands for the digest of the overlay."""

    transform: str
    format: Format = "webp"
    original: str = "lake"


# Grouped as in docs/transforms.md. Every option has at least one example, which tests/test_gallery.py checks. The renditions fit into a
# cell.
GROUPS: dict[str, tuple[Example, ...]] = {
    "size": (
        Example("width=280"),
        Example("width=200,height=200,fit=inside"),
        Example("width=180,height=180,fit=outside"),
        Example("width=200,height=200,fit=cover"),
        Example("width=200,height=200,fit=cover,gravity=west"),
        Example("width=200,height=200,fit=cover,gravity=attention"),
        Example("width=200,height=200,fit=cover,gravity=entropy"),
        Example("width=200,height=200,fit=cover,gravity=focal:0.75:0.3"),
        Example("width=200,height=200,fit=contain"),
        Example("width=200,height=200,fit=contain,gravity=south,background=1d3557"),
        Example("width=200,height=200,fit=contain,background=blur"),
        Example("width=200,height=200,fit=fill"),
        Example("width=280,ratio=16:9"),
        Example("height=200,ratio=4:5,gravity=focal:0.75:0.3"),
        Example("width=280,ratio=16:9,fit=contain,background=blur"),
    ),
    "shape": (
        Example("crop=60p:10p:30p:45p,width=280"),
        Example("crop=2560:600:280:180"),
        Example("trim=12,width=280", original="framed"),
        Example("rotate=90,height=200"),
        Example("rotate=12,width=280"),
        Example("rotate=348,width=280,background=f4a261"),
        Example("width=280,flip=horizontal"),
        Example("width=280,flip=vertical"),
        Example("width=280,enlarge=true", original="small"),
    ),
    "look": (
        Example("width=280,brightness=1.4"),
        Example("width=280,contrast=1.6"),
        Example("width=280,gamma=1.8"),
        Example("width=280,saturation=2"),
        Example("width=280,saturation=0.3"),
        Example("width=280,grayscale=true"),
        Example("width=280,blur=4"),
        Example("width=280,blur=40"),
        Example("width=280,sharpen=2"),
    ),
    "finish": (
        Example("width=280,overlay={badge}"),
        Example("width=280,overlay={badge}:southeast:0.2:0.7:12:12"),
        Example("width=280,round=40"),
        Example("width=200,height=200,fit=cover,round=max", "png"),
        Example("width=240,pad=10:20,background=ffffff"),
        Example("width=220,pad=30,background=blur"),
        Example("width=200,height=200,fit=cover,round=max,pad=12,background=e76f51", "jpeg"),
    ),
    "file": (
        Example("width=280,profile=p3"),
        Example("width=280,profile=keep"),
        Example("width=280,metadata=all", "jpeg"),
        Example("width=280,quality=10"),
        Example("width=280,quality=auto"),
        Example("width=280,max_bytes=2500"),
        Example("width=280,lossless=true"),
        Example("width=280,effort=6", "avif"),
        Example("width=280,progressive=true", "jpeg"),
        Example("width=180", "gif", "spinning"),
        Example("width=180,frame=2", "png", "spinning"),
        Example("width=180,animate=true,round=24", "webp", "spinning"),
    ),
}
EXAMPLES = tuple(example for group in GROUPS.values() for example in group)


def main() -> None:
    """Write the sheet of all examples to FILE, and one sheet for each group to a directory next to it."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        cells = anyio.run(_cells, Path(name))
    _sheet(list(cells.values()), _COLUMNS).save(target, optimize=True)
    folder = target.with_suffix("")
    folder.mkdir(exist_ok=True)
    for group, examples in GROUPS.items():
        _sheet([cells[example] for example in examples], _GROUP_COLUMNS).save(folder / f"{group}.webp", quality=88)


async def _cells(folder: Path) -> dict[Example, Image.Image]:
    originals = {name: _write_original(folder, name, body) for name, body in _originals().items()}
    async with render_pool(slots=2) as pool:
        return {example: _cell(example, await _render(pool, example, originals)) for example in EXAMPLES}


def _sheet(cells: list[Image.Image], columns: int) -> Image.Image:
    sheet = Image.new("RGB", (columns * _CELL[0], -(-len(cells) // columns) * _CELL[1]), _PAPER)
    for index, cell in enumerate(cells):
        sheet.paste(cell, (index % columns * _CELL[0], index // columns * _CELL[1]))
    return sheet


async def _render(pool: RenderPool, example: Example, originals: dict[str, InputFile]) -> Rendered:
    transform = parse(example.transform.format(badge=originals["badge"].digest))
    overlay = originals["badge"] if transform.overlay else None
    job = Render(originals[example.original], unresolved(transform, example.format), LIMITS, overlay)
    return await pool.run(job, Rendered)


def _cell(example: Example, rendered: Rendered) -> Image.Image:
    cell = Image.new("RGB", _CELL, _PAPER)
    picture = _fit_into_cell(Image.open(io.BytesIO(rendered.body)))
    left, top = (_CELL[0] - picture.width) // 2, 8 + (_PICTURE[1] - picture.height) // 2
    cell.paste(_checkered(picture.size), (left, top))
    cell.paste(picture, (left, top), picture)
    kilobytes = f"{len(rendered.body) / 1000:.1f} kB {example.format}"
    lines = [*_label_lines(example.transform.format(badge="<digest>")), f"{rendered.width} x {rendered.height}, {kilobytes}"]
    draw = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        draw.text((_CELL[0] / 2, 212 + 14 * number), line, _INK, ImageFont.load_default(11), anchor="ma")
    return cell


def _fit_into_cell(image: Image.Image) -> Image.Image:
    """Return an image scaled to the size of a cell, with the first three frames of an animation side by side."""
    count = min(getattr(image, "n_frames", 1), 3)
    frames = []
    for number in range(count):
        image.seek(number)
        frame = image.convert("RGBA")
        frame.thumbnail((_PICTURE[0] // count, _PICTURE[1]))
        frames.append(frame)
    picture = Image.new("RGBA", (sum(frame.width for frame in frames), max(frame.height for frame in frames)))
    left = 0
    for frame in frames:
        picture.paste(frame, (left, 0))
        left += frame.width
    return picture


def _checkered(size: tuple[int, int]) -> Image.Image:
    y, x = np.indices((size[1], size[0]))
    return Image.fromarray(np.where(((x // 8 + y // 8) % 2)[..., None] == 0, _CHECK[0], _CHECK[1]).astype(np.uint8))


def _label_lines(transform: str) -> list[str]:
    lines = [""]
    for pair in transform.split(","):
        extended = f"{lines[-1]},{pair}" if lines[-1] else pair
        lines[-1:] = [extended] if len(extended) <= _LABEL_LINE_CHARACTERS else [lines[-1] + ",", pair]
    return lines


def _write_original(folder: Path, name: str, body: bytes) -> InputFile:
    path = folder / name
    path.write_bytes(body)
    return InputFile(str(path), digest_from_sha256(hashlib.sha256(body).digest()))


def _originals() -> dict[str, bytes]:
    with Image.open(io.BytesIO(evening_lake())) as picture:
        _draw_balloon(picture)
        lake = _encode(picture, "JPEG", quality=95)
        small = picture.resize((180, 120), Image.Resampling.LANCZOS)
        medium = picture.resize((600, 400), Image.Resampling.LANCZOS)
    framed = Image.new("RGB", (700, 560), (252, 252, 252))
    framed.paste(medium, (30, 110))
    spinning = [medium.rotate(angle, center=(440, 140)).crop((340, 40, 540, 240)) for angle in range(0, 360, 45)]
    return {
        "lake": lake,
        "small": _encode(small, "PNG"),
        "framed": _encode(framed, "PNG"),
        "badge": _encode(_badge(), "PNG"),
        "spinning": _encode(spinning[0], "WEBP", save_all=True, append_images=spinning[1:], duration=120, lossless=True),
    }


def _draw_balloon(picture: Image.Image) -> None:
    """Draw a subject to the right of the middle, which shows the effect of a crop."""
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = 2440, 400, 2960, 920
    for number, color in enumerate(_SILK):
        inset = number * 52
        draw.ellipse((left + inset, top, right - inset, bottom), fill=color)
    draw.polygon(((2540, 850), (2860, 850), (2760, 1030), (2640, 1030)), fill=_SILK[1])
    draw.rectangle((2650, 1070, 2750, 1150), fill=(92, 58, 30))
    for rope in (2652, 2748):
        draw.line((rope, 1030, rope, 1070), fill=(40, 30, 20), width=8)


def _badge() -> Image.Image:
    badge = Image.new("RGBA", (400, 400))
    draw = ImageDraw.Draw(badge)
    draw.ellipse((20, 20, 380, 380), outline=_BADGE_COLOR, width=28)
    draw.regular_polygon((200, 200, 110), 5, fill=_BADGE_COLOR)
    return badge


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    body = io.BytesIO()
    image.save(body, image_format, **options)
    return body.getvalue()


if __name__ == "__main__":
    main()

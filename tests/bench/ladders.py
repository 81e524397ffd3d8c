"""Many renditions of one original: a ladder from one decode, and what is made later from an intermediate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import click
import msgspec

from service.images.document import Document
from service.images.formats import Format
from service.images.ladder import LADDER_WIDTHS
from service.images.transform import PIPELINE_VERSION, Transform
from service.rendering.protocol import Rendered, RenderLadder
from tests.bench import photos
from tests.bench.bench import Bench
from tests.bench.renderer import Renderer, renderer
from tests.bench.report import Row

FORMATS: tuple[Format, ...] = ("webp", "jpeg")

# What a column of text has room for. The widest steps of the default ladder are mostly encoding, which no decode in common saves.
_NARROW_WIDTHS = (160, 320, 480, 640, 960, 1_280)

_LATER_WIDTH = 640

# One from an intermediate takes so little that the kernel's clock of CPU, 10 ms a tick, would be too coarse.
_LATER_AT_A_TIME = 5

_LARGE = "24.0 Mpixel laid from the photo"


class _Original(msgspec.Struct, frozen=True):
    """An original in the store: what it stands for, and which image exactly, in words."""

    what: str
    words: str
    document: Document


def ladder(bench: Bench) -> list[Row]:
    """Return what a ladder takes from one decode of the original against a render of the original for each of its renditions."""
    rows = []
    large, png = (photos.made(kind, bench.photo_path, bench.folder / kind) for kind in ("large-jpeg", "large-png"))
    with renderer(bench.folder / "ladder") as rendering:
        camera = _Original("a camera's JPEG", bench.photo_words, rendering.ingest(bench.photo_path))
        rows += _ladder(bench, rendering, camera, _NARROW_WIDTHS, 0.48)
        rows += _ladder(bench, rendering, camera, LADDER_WIDTHS, 0.48)
        for what, path, target in (("a 24 Mpixel JPEG", large, 0.48), ("a 24 Mpixel PNG", png, 0.20)):
            original = _Original(what, _LARGE, rendering.ingest(path))
            rows += _ladder(bench, rendering, original, LADDER_WIDTHS, target)
        rows += _ladder(bench, rendering, original, LADDER_WIDTHS, target, as_warmed=True)
    return rows


def later(bench: Bench) -> list[Row]:
    """Return what a rendition takes from an intermediate against the same from its original."""
    kinds = [
        ("a 24 Mpixel PNG", photos.made("large-png", bench.photo_path, bench.folder / "large-png"), _LARGE),
        ("a progressive JPEG", photos.made("large-progressive", bench.photo_path, bench.folder / "large-progressive"), _LARGE),
    ]
    rows = []
    with renderer(bench.folder / "later") as rendering:
        heic = photos.heic(bench.photo_path, bench.folder, may_take_long=bench.extent.slow_images)
        if heic is None or "heic" not in rendering.offered().reads:
            click.echo("later: no row of HEIC, which needs pillow-heif", err=True)
        else:
            kinds.append(("a HEIC", *heic))
        for what, path, words in kinds:
            original = _Original(what, words, rendering.ingest(path))
            for image_format in FORMATS:
                rows += _later(bench, rendering, original, image_format)
    return rows


def _ladder(
    bench: Bench, rendering: Renderer, original: _Original, widths: Sequence[int], target: float, *, as_warmed: bool = False
) -> list[Row]:
    """Return a ladder against as many renders from the original; `as_warmed`: from what warming takes, the intermediate."""
    digest, info = original.document.digest, original.document.info

    async def together() -> list[Rendered]:
        whole = (
            rendering.intermediates.open_input(digest, info, Transform(width=widths[-1]))
            if as_warmed
            else rendering.intermediates.open_original(digest)
        )
        async with whole as source:
            if as_warmed and source.intermediate_of is None:
                raise RuntimeError(f"{original.what} has no intermediate for {widths[-1]}: {info}")
            job = RenderLadder(source, list(widths), list(FORMATS), PIPELINE_VERSION, rendering.limits)
            async with aclosing(rendering.pool.render_ladder(job)) as renditions:
                return [rendered async for rendered in renditions]

    async def one_by_one() -> list[Rendered]:
        made = []
        for width in widths:
            for image_format in FORMATS:
                async with rendering.intermediates.open_original(digest) as source:
                    made.append(await rendering.render(source, width, image_format))
        return made

    taken = rendering.in_turn(together, one_by_one, bench.extent.ladder_rounds)
    count = len(widths) * len(FORMATS)
    note = (
        f"{original.words}; per rendition of {count}, {len(widths)} widths up to {widths[-1]} in {' and '.join(FORMATS)}, "
        f"from one decode of {'its intermediate, as warming makes them' if as_warmed else 'the original'}; "
        f"bare: {count} renders, each from the original"
    )
    return taken.rows(f"ladder to {widths[-1]} of {original.what}{' as warmed' if as_warmed else ''}", target, note)


def _later(bench: Bench, rendering: Renderer, original: _Original, image_format: Format) -> list[Row]:
    document = original.document

    async def from_intermediate() -> list[Rendered]:
        made = []
        for _ in range(_LATER_AT_A_TIME):
            async with rendering.intermediates.open_input(document.digest, document.info, Transform(width=_LATER_WIDTH)) as source:
                if source.intermediate_of is None:
                    raise RuntimeError(f"{original.what} has no intermediate: {document.info}")
                made.append(await rendering.render(source, _LATER_WIDTH, image_format))
        return made

    async def from_original() -> list[Rendered]:
        async with rendering.intermediates.open_original(original.document.digest) as source:
            return [await rendering.render(source, _LATER_WIDTH, image_format)]

    taken = rendering.in_turn(from_intermediate, from_original, bench.extent.later_rounds)
    note = f"{original.words}; {image_format} {_LATER_WIDTH} wide, from the stored intermediate; bare: from the original"
    return taken.rows(f"later {image_format} of {original.what}", 0.25, note)

"""Many renditions of one original: a whole ladder from one decode, and single renditions from an intermediate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import click
import msgspec

from service.images.document import Document
from service.images.formats import Format
from service.images.ladder import LADDER_WIDTHS
from service.images.render_request import resolve
from service.images.transform import PIPELINE_VERSION, Transform
from service.rendering.protocol import Rendered, RenderLadder
from tests.bench import photos
from tests.bench.bench import Bench
from tests.bench.renderer import Renderer, renderer
from tests.bench.report import Row

FORMATS: tuple[Format, ...] = ("webp", "jpeg")

# Widths that fit into a column of text. The widest steps of the default ladder take mostly encoding, which a shared decode does not save.
_NARROW_WIDTHS = (160, 320, 480, 640, 960, 1_280)

_LATER_WIDTH = 640

# One rendition from an intermediate takes so little CPU time that the kernel's ticks of 10 ms would be too coarse.
_LATER_COUNT = 5

_LARGE = "24.0 Mpixel tiled from the photo"


class _StoredImage(msgspec.Struct, frozen=True):
    """An original in the store. `kind`: such as "a 24 Mpixel PNG"; `description`: which image it is."""

    kind: str
    description: str
    document: Document


def ladder(bench: Bench) -> list[Row]:
    """Return the cost of a ladder from one decode of the original, against one render of the original for each rendition."""
    rows: list[Row] = []
    with renderer(bench.folder / "ladder") as rendering:
        camera = _StoredImage("a camera's JPEG", bench.photo_description, rendering.ingest(bench.photo_path))
        rows += _ladder(bench, rendering, camera, LADDER_WIDTHS)
        if bench.extent.slow_images:
            rows += _ladder(bench, rendering, camera, _NARROW_WIDTHS)
            rows += _large_ladders(bench, rendering)
    return rows


def _large_ladders(bench: Bench, rendering: Renderer) -> list[Row]:
    rows = []
    large, png = (photos.make_image(kind, bench.photo_path, bench.folder / kind) for kind in ("large-jpeg", "large-png"))
    for kind, path in (("a 24 Mpixel JPEG", large), ("a 24 Mpixel PNG", png)):
        original = _StoredImage(kind, _LARGE, rendering.ingest(path))
        rows += _ladder(bench, rendering, original, LADDER_WIDTHS)
    return rows + _ladder(bench, rendering, original, LADDER_WIDTHS, as_warmed=True)


def later(bench: Bench) -> list[Row]:
    """Return the cost of a rendition from an intermediate, against that of the same rendition from its original."""
    images = [
        ("a 24 Mpixel PNG", photos.make_image("large-png", bench.photo_path, bench.folder / "large-png"), _LARGE),
        ("a progressive JPEG", photos.make_image("large-progressive", bench.photo_path, bench.folder / "large-progressive"), _LARGE),
    ]
    rows = []
    with renderer(bench.folder / "later") as rendering:
        heic = photos.heic(bench.photo_path, bench.folder, may_take_long=bench.extent.slow_images)
        if heic is None or "heic" not in rendering.codec_support().reads:
            click.echo("later: the row of HEIC is skipped, because pillow-heif is not installed", err=True)
        else:
            images.append(("a HEIC", *heic))
        for kind, path, description in images:
            original = _StoredImage(kind, description, rendering.ingest(path))
            for image_format in FORMATS:
                rows += _later(bench, rendering, original, image_format)
    return rows


def _ladder(bench: Bench, rendering: Renderer, original: _StoredImage, widths: Sequence[int], *, as_warmed: bool = False) -> list[Row]:
    """Return the cost of a ladder from one decode against that of one render of the original for each rendition.

    `as_warmed`: decode the intermediate, as warming does, in place of the original.
    """
    digest, info = original.document.digest, original.document.info

    async def together() -> list[Rendered]:
        ladder_input = (
            rendering.intermediates.open_input(digest, resolve(info, Transform(width=widths[-1]), FORMATS[0], rendering.limits))
            if as_warmed
            else rendering.intermediates.open_original(digest)
        )
        async with ladder_input as source:
            if as_warmed and source.intermediate_of is None:
                raise RuntimeError(f"{original.kind} has no intermediate for {widths[-1]}: {info}")
            job = RenderLadder(source, list(widths), list(FORMATS), PIPELINE_VERSION, rendering.limits)
            async with aclosing(rendering.pool.render_ladder(job)) as renditions:
                return [rendered async for rendered in renditions]

    async def one_by_one() -> list[Rendered]:
        renditions = []
        for width in widths:
            for image_format in FORMATS:
                async with rendering.intermediates.open_original(digest) as source:
                    renditions.append(await rendering.render(source, width, image_format))
        return renditions

    cost = rendering.alternate(together, one_by_one, bench.extent.ladder_rounds)
    count = len(widths) * len(FORMATS)
    note = (
        f"{original.description}; per rendition of {count}, {len(widths)} widths up to {widths[-1]} in {' and '.join(FORMATS)}, "
        f"from one decode of {'its intermediate, as warming makes them' if as_warmed else 'the original'}; "
        f"bare: {count} renders, each from the original"
    )
    return cost.rows(f"ladder to {widths[-1]} of {original.kind}{' as warmed' if as_warmed else ''}", note)


def _later(bench: Bench, rendering: Renderer, original: _StoredImage, image_format: Format) -> list[Row]:
    document = original.document

    async def from_intermediate() -> list[Rendered]:
        renditions = []
        for _ in range(_LATER_COUNT):
            request = resolve(document.info, Transform(width=_LATER_WIDTH), image_format, rendering.limits)
            async with rendering.intermediates.open_input(document.digest, request) as source:
                if source.intermediate_of is None:
                    raise RuntimeError(f"{original.kind} has no intermediate: {document.info}")
                renditions.append(await rendering.render(source, _LATER_WIDTH, image_format))
        return renditions

    async def from_original() -> list[Rendered]:
        async with rendering.intermediates.open_original(original.document.digest) as source:
            return [await rendering.render(source, _LATER_WIDTH, image_format)]

    cost = rendering.alternate(from_intermediate, from_original, bench.extent.later_rounds)
    note = f"{original.description}; {image_format} {_LATER_WIDTH} wide, from the stored intermediate; bare: from the original"
    return cost.rows(f"later {image_format} of {original.kind}", note)

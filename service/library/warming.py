"""Warming: the default ladder of every new image, rendered when nobody waits for anything else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import aclosing

import anyio
import msgspec
import structlog

from service.errors import GoneError, OverloadedError, ServiceError, StorageFullError, StorageUnavailableError
from service.images.geometry import intermediate_suffices
from service.images.info import ImageInfo, Limits
from service.images.ladder import ladders
from service.images.picture import EXTENSIONS
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Format, Transform, for_format
from service.library.intermediates import Intermediates
from service.library.originals import Originals
from service.library.renditions import Renditions
from service.library.warming_queue import WarmingQueue
from service.rendering.pool import RenderPool
from service.rendering.protocol import RenderLadder
from service.settings import WarmFormat
from service.urls.rendition_url import RenditionUrl

log = structlog.get_logger(__name__)

# Between two attempts when the store, or the start of a render process, has failed.
_RETRY_SECONDS = 10.0

_NOT_THE_IMAGES_FAULT = (StorageUnavailableError, StorageFullError, OverloadedError)


class LadderStep(msgspec.Struct, frozen=True):
    """One rendition of a ladder. `alone`: an animation, or a step that is lower than its shape: no decode is made for others too."""

    address: RenditionUrl
    transform: Transform
    width: int
    format: Format
    reduced: bool
    alone: bool


class Warmer:
    """Works the queue off, one image at a time."""

    def __init__(
        self,
        queue: WarmingQueue,
        originals: Originals,
        renditions: Renditions,
        intermediates: Intermediates,
        pool: RenderPool,
        *,
        limits: Limits,
        formats: Sequence[WarmFormat],
    ) -> None:
        """Take what is to be warmed, what is known of it, who keeps and who makes its renditions from what, and which ones."""
        self._queue = queue
        self._originals = originals
        self._renditions = renditions
        self._intermediates = intermediates
        self._pool = pool
        self._limits = limits
        self._formats = formats

    async def run(self) -> None:
        """Warm one image after the other, for as long as this process serves.

        An image that cannot be warmed is forgotten, so that it does not come again at every start. One that a stop, the store or a want
        of render processes kept from being warmed is not.
        """
        while True:
            digest = None
            try:
                digest = await self._queue.next()
                await self._warm(digest)
                await self._queue.acknowledge(digest)
            except ServiceError as error:
                log.info("warming pauses", problem=error.slug)
                if digest is not None:
                    self._queue.add(digest)
                await anyio.sleep(_RETRY_SECONDS)

    async def _warm(self, digest: str) -> None:
        made = 0
        try:
            info = (await self._originals.document(digest)).info
            ladder = ladder_steps(digest, info, self._formats, (await self._pool.codec_support()).writes, self._limits)
            while missing := [step for step in ladder if not await self._renditions.is_stored(step.address)]:
                made += await self._make(digest, info, missing)
        except GoneError:
            log.info("a taken-down image is not warmed", digest=digest)
        except ServiceError as error:
            if isinstance(error, _NOT_THE_IMAGES_FAULT) or self._pool.start_failure is not None:
                raise
            log.error("an image was not warmed", digest=digest, problem=error.slug, detail=error.detail, made=made)  # noqa: TRY400 - it tells
        except Exception:
            log.exception("an image was not warmed", digest=digest, made=made)
        else:
            log.info("warmed", digest=digest, made=made)

    async def _make(self, digest: str, info: ImageInfo, missing: Sequence[LadderStep]) -> int:
        """Make what can be made from one decode together with the first step; return how many were made until somebody waited."""
        first = missing[0]
        # An object store's originals lie in memory while they are worked on: not while they wait.
        await self._pool.wait_until_idle()
        if first.alone:
            await self._renditions.render_in_background(first.address, first.transform)
            return 1
        together = steps_of_one_decode(missing)
        job_formats = list(dict.fromkeys(step.format for step in together))
        job_widths = list(dict.fromkeys(step.width for step in together))
        made = 0
        async with self._intermediates.open_input(digest, info, first.transform, background=True) as source:
            job = RenderLadder(source, job_widths, job_formats, PIPELINE_VERSION, self._limits)
            async with aclosing(self._pool.render_ladder(job)) as renditions:
                for step in together:
                    if made == 0:
                        # Its turn may be long in coming: nobody is told to wait for it.
                        rendered = await anext(renditions)
                        await self._renditions.store(step.address, rendered)
                    else:
                        with self._renditions.announce(step.address) as coming:
                            following = await anext(renditions, None)
                            if following is None:
                                return made
                            coming.set_result(await self._renditions.store(step.address, following))
                    made += 1
        return made


def ladder_steps(
    digest: str, info: ImageInfo, wanted: Collection[WarmFormat], offered: Collection[Format], limits: Limits
) -> list[LadderStep]:
    """Return what is rendered of an image, widest first: the very addresses that its document has in the formats that are `wanted`.

    `offered`: the formats that the running libvips writes.
    """
    by_default = DEFAULTS[PIPELINE_VERSION].animates
    document = ladders(info, Transform(), limits, supported=offered)
    chosen = [ladder for ladder in document if ladder.format in wanted or (ladder is document[-1] and "fallback" in wanted)]
    ladder = [
        LadderStep(
            RenditionUrl(PIPELINE_VERSION, digest, transform.canonical_form, EXTENSIONS[ladder.format]),
            transform,
            step.width,
            ladder.format,
            reduced=intermediate_suffices(info, transform),
            alone=transform.height is not None or info.animates(transform, ladder.format, by_default=by_default),
        )
        for ladder in chosen
        for step in ladder.steps
        for transform in [for_format(step.transform, ladder.format)]
    ]
    return sorted(ladder, key=lambda step: step.width, reverse=True)


def steps_of_one_decode(missing: Sequence[LadderStep]) -> list[LadderStep]:
    """Return the steps that one job makes with the first: of the same source, and at each width the formats that the first width lacks."""
    first = missing[0]
    alike = [step for step in missing if step.reduced == first.reduced]
    lacking: dict[int, list[Format]] = {}
    for step in alike:
        lacking.setdefault(step.width, []).append(step.format)
    formats = lacking[first.width]
    return [step for step in alike if set(formats) <= set(lacking[step.width]) and step.format in formats]

"""Warming: the default ladder of every new image is rendered in advance, while no request needs a render process."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from types import MappingProxyType

import msgspec
import structlog

from service import instruments
from service.concurrency.polling import poll
from service.errors import GoneError, OverloadedError, RenderFailedError, ServiceError, StorageFullError, StorageUnavailableError
from service.images.formats import FORMATS, Format
from service.images.info import ImageInfo, Limits
from service.images.ladder import LADDER_WIDTHS, ladders
from service.images.render_request import resolve
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Transform, for_url
from service.library.documents import Documents
from service.library.intermediates import Intermediates
from service.library.renditions import Renditions
from service.library.warming_queue import WaitingImage, WarmingQueue
from service.rendering.pool import RenderPool
from service.rendering.protocol import RenderLadder
from service.settings.sections import WarmFormat
from service.urls.rendition_url import RenditionUrl

log = structlog.get_logger(__name__)

# The pause after a failure of the store or of the start of a render process.
_RETRY_SECONDS = 10.0

_PASSING_ERRORS = (StorageUnavailableError, StorageFullError, OverloadedError)


class LadderStep(msgspec.Struct, frozen=True):
    """One rendition of a ladder.

    `from_intermediate`: it is rendered from the intermediate.
    `separate`: it cannot share a decode with other steps, because it is animated or sized by its height.
    """

    url: RenditionUrl
    transform: Transform
    width: int
    format: Format
    from_intermediate: bool
    separate: bool


class Warmer:
    """Renders the ladders of the images in the queue, one image at a time."""

    def __init__(
        self,
        queue: WarmingQueue,
        documents: Documents,
        renditions: Renditions,
        intermediates: Intermediates,
        pool: RenderPool,
        *,
        limits: Limits,
        formats: Sequence[WarmFormat],
        default_widths: Sequence[int] = LADDER_WIDTHS,
        quality: Mapping[Format, int] = MappingProxyType({}),
    ) -> None:
        """Warm with a pool of render processes; nothing happens before `run`.

        queue: the images to warm.
        documents: says what an original is.
        renditions: renders and stores single renditions, and knows which are stored.
        intermediates: opens the files that renditions are made from.
        pool: renders several renditions from one decode.
        limits: the pixels and frames that a rendition may have.
        formats: the formats to render; `fallback` stands for the last format of an image's document.
        default_widths: the widths of the ladder of the widest images, in rising order.
        quality: that of formats in new URLs (see `for_url`).
        """
        self._queue = queue
        self._documents = documents
        self._renditions = renditions
        self._intermediates = intermediates
        self._pool = pool
        self._limits = limits
        self._formats = formats
        self._default_widths = default_widths
        self._quality = quality
        self._warmed = 0

    def __repr__(self) -> str:
        return f"<Warmer: {self._warmed} images warmed, {self._queue!r}>"

    async def run(self) -> None:
        """Warm one image after the other, for as long as this process serves.

        An image that cannot be warmed, or whose render process ends twice, is dropped, so that it does not fail again at every start. One
        whose warming was stopped by a shutdown, or by a failure of the store or of render processes, stays in the queue.
        """
        await poll(self._warm_next, every=0.0, retry_after=_RETRY_SECONDS, on_error=_pausing)

    async def _warm_next(self) -> None:
        image = await self._queue.next()
        try:
            await self._warm(image)
            await self._queue.acknowledge(image.digest)
        except ServiceError:
            self._queue.add(image)
            raise

    async def _warm(self, image: WaitingImage) -> None:
        digest, made, has_failed = image.digest, 0, False
        try:
            info = (await self._documents.facts(digest)).info
            supported = (await self._pool.codec_support()).writes
            ladder = ladder_steps(
                digest, info, self._formats, supported, self._limits, default_widths=self._default_widths, quality=self._quality
            )
            while missing := await self._not_stored(digest, ladder):
                # Before the input is opened: an original from S3 takes up memory while it is open, so it must not wait for a slot.
                await self._pool.wait_until_idle()
                try:
                    with self._charged(image):
                        rendered = await self._make(digest, info, missing)
                    made += rendered
                    if rendered == len(missing):
                        break
                except RenderFailedError:
                    # The process may have been killed for a reason that has nothing to do with this image. If the image is to blame, its
                    # second failure opens the circuit breaker.
                    if has_failed:
                        raise
                    has_failed = True
        except GoneError:
            instruments.WARMED_IMAGES.add("gone")
            log.info("a taken-down image is not warmed", digest=digest)
        except ServiceError as error:
            if isinstance(error, _PASSING_ERRORS) or self._pool.start_failure is not None:
                raise
            instruments.WARMED_IMAGES.add("failed")
            log.error("an image was not warmed", digest=digest, problem=error.slug, detail=error.detail, made=made)  # noqa: TRY400 - no bug
        except Exception:
            instruments.WARMED_IMAGES.add("failed")
            log.exception("an image was not warmed", digest=digest, made=made)
        else:
            self._warmed += 1
            instruments.WARMED_IMAGES.add("warmed")
            log.info("warmed", digest=digest, made=made)

    async def _not_stored(self, digest: str, ladder: Sequence[LadderStep]) -> list[LadderStep]:
        missing = await self._renditions.not_stored(digest, [step.url for step in ladder])
        return [step for step in ladder if step.url in missing]

    @contextmanager
    def _charged(self, image: WaitingImage) -> Iterator[None]:
        """Count the time of the block as spent for the client of an image, also if it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._queue.charge(image.client, time.monotonic() - started)

    async def _make(self, digest: str, info: ImageInfo, missing: Sequence[LadderStep]) -> int:
        """Render the steps that can share one decode with the first; return how many were rendered before a request needed the slot."""
        first = missing[0]
        if first.separate:
            await self._renditions.render_in_background(first.url, first.transform)
            return 1
        together = steps_of_one_decode(missing)
        job_formats = list(dict.fromkeys(step.format for step in together))
        # The last width of the ladder of a small image is larger than the image, which does not grow.
        job_widths = list(dict.fromkeys(step.transform.width or step.width for step in together))
        request = resolve(info, first.transform, first.format, self._limits)
        made = 0
        async with self._documents.or_gone([digest]), self._intermediates.open_input(digest, request, background=True) as input_file:
            job = RenderLadder(input_file, job_widths, job_formats, PIPELINE_VERSION, self._limits, dict(self._quality))
            async with aclosing(self._pool.render_ladder(job)) as renditions:
                for step in together:
                    if made == 0:
                        # Not announced: the first rendition may wait long for its slot, and a request should not wait with it.
                        rendered = await anext(renditions)
                        await self._renditions.store(step.url, rendered)
                    else:
                        with self._renditions.announce(step.url) as announced:
                            following = await anext(renditions, None)
                            if following is None:
                                return made
                            announced.set_result(await self._renditions.store(step.url, following))
                    made += 1
        return made


def _pausing(error: ServiceError) -> None:
    log.info("warming pauses", problem=error.slug)


def ladder_steps(
    digest: str,
    info: ImageInfo,
    wanted: Collection[WarmFormat],
    supported: Collection[Format],
    limits: Limits,
    *,
    default_widths: Sequence[int] = LADDER_WIDTHS,
    quality: Mapping[Format, int] = MappingProxyType({}),
) -> list[LadderStep]:
    """Return the steps to render of an image, widest first: exactly the URLs in its document that have a wanted format.

    wanted: formats; `fallback` stands for the last format of the document.
    supported: the formats that the installed libvips can write.
    default_widths: the widths of the ladder of the widest images, in rising order.
    quality: that of formats in new URLs (see `for_url`).
    """
    animated = DEFAULTS[PIPELINE_VERSION].animated
    document = ladders(info, Transform(), limits, supported=supported, default_widths=default_widths)
    chosen = [ladder for ladder in document if ladder.format in wanted or (ladder is document[-1] and "fallback" in wanted)]
    ladder = [
        LadderStep(
            RenditionUrl(PIPELINE_VERSION, digest, transform.canonical_form, FORMATS[ladder.format].extension),
            transform,
            step.width,
            ladder.format,
            from_intermediate=resolve(info, transform, ladder.format, limits).from_intermediate,
            separate=transform.height is not None or info.animates(transform, ladder.format, by_default=ladder.format in animated),
        )
        for ladder in chosen
        for step in ladder.steps
        for transform in [for_url(step.transform, ladder.format, quality)]
    ]
    return sorted(ladder, key=lambda step: step.width, reverse=True)


def steps_of_one_decode(missing: Sequence[LadderStep]) -> list[LadderStep]:
    """Return the steps that one job renders together with the first missing step.

    They have the same input, and at each of the widths all formats that are missing at the first width are missing.
    """
    first = missing[0]
    same_input = [step for step in missing if step.from_intermediate == first.from_intermediate]
    missing_formats: dict[int, list[Format]] = {}
    for step in same_input:
        missing_formats.setdefault(step.width, []).append(step.format)
    formats = missing_formats[first.width]
    return [step for step in same_input if set(formats) <= set(missing_formats[step.width]) and step.format in formats]

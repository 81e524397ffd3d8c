"""RenderRequest: one rendition of one image, resolved and checked before anything is rendered."""

from __future__ import annotations

import msgspec

from service.images.formats import Format
from service.images.geometry import Box, Plan, feasible_plan, intermediate_suffices, with_fine_rotation
from service.images.info import ImageInfo, Limits
from service.images.transform import DEFAULTS, PIPELINE_VERSION, Transform, for_format

_FIRST_VERSION_WITH_FINE_ROTATION = 3
_FIRST_VERSION_WITH_INTERMEDIATES_OF_BASELINE_JPEGS = 3


class RenderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A rendition that the header of its original allows. Whoever gets one need not check it again.

    info: the header.
    transform: without the options that have no effect in the format.
    version: the pipeline version, which gives the values of omitted options.
    frames: of the rendition, more than one only for an animation.
    """

    info: ImageInfo
    transform: Transform
    format: Format
    version: int
    frames: int
    plan: Plan

    @property
    def from_intermediate(self) -> bool:
        """Whether it is rendered from the intermediate of the original."""
        if self.info.shrinks_on_load and self.version < _FIRST_VERSION_WITH_INTERMEDIATES_OF_BASELINE_JPEGS:
            return False
        return intermediate_suffices(self.info, self.transform, self.plan)


def resolve(
    info: ImageInfo,
    transform: Transform,
    image_format: Format,
    limits: Limits,
    *,
    version: int = PIPELINE_VERSION,
    trimmed: Box | None = None,
) -> RenderRequest:
    """Return the request of a rendition.

    info: the header of the original.
    trimmed: the part of the original that `transform.trim` leaves, once it is known; until then nothing is trimmed.

    Raises `BadTransformError` for a transform that contradicts the format or the original, `TooManyPixelsError`, and `TooComplexError`.
    """
    transform = for_format(transform, image_format)
    animated = info.animates(transform, image_format, by_default=image_format in DEFAULTS[version].animated)
    frames = info.frames if animated else 1
    plan = feasible_plan(info, transform, image_format, limits, frames=frames, trimmed=trimmed)
    if version >= _FIRST_VERSION_WITH_FINE_ROTATION:
        plan = with_fine_rotation(plan)
    return RenderRequest(info=info, transform=transform, format=image_format, version=version, frames=frames, plan=plan)

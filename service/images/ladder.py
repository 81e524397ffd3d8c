"""Ladders: the widths and formats in which a page is offered an image.

A ladder is one format in several widths, from which a browser chooses (`srcset`). Every step of a ladder can be rendered.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from fractions import Fraction

import msgspec

from service.errors import BadTransformError
from service.images.formats import FORMATS, Format
from service.images.geometry import Plan, feasible_plan, is_drawn_in_time, is_worth_linking, make_plan, require_frame
from service.images.info import ImageInfo, Limits
from service.images.options import BLUR, MAX_SIDE_PIXELS, DynamicRange
from service.images.transform import DEFAULTS, PIPELINE_VERSION, PLAIN, Transform, can_animate, require_sides, scaled

# From a phone in a column to a wide screen at twice the density: each step saves about half of the next one's bytes.
LADDER_WIDTHS = (320, 640, 960, 1280, 1920, 2560)

# A step is left out of a default ladder if the next wider one has fewer pixels than this multiple of its own, and so, as a rule, less than
# 1.2 times its bytes. Bytes grow as a power of pixels, whose exponent is 0.75 on average for photos and up to 0.9 for drawings
# (docs/quality.md). 1.25 is 1.2 to the power of 1 / 0.82: a needless step costs less than a missing one.
MIN_STEP_RATIO = Fraction(5, 4)

# A format whose ladder ends below this fraction of the fallback's width is left out: a browser takes the first type that it supports, and a
# picture at half the density that it needs is not sharp.
_MIN_REACH = Fraction(1, 2)

# An encoder's memory for 10 bits per band, as a multiple of that for 8: 1.3 measured, and the picture itself has 16.
_HIGH_RANGE_MEMORY = Fraction(3, 2)

_ANIMATED = DEFAULTS[PIPELINE_VERSION].animated
_OPAQUE_COLOR_DIGITS = 6


class LadderStep(msgspec.Struct, frozen=True):
    """One step of a ladder: the transform that makes it, and the width and height in pixels that the rendition will have."""

    transform: Transform
    width: int
    height: int


class Ladder(msgspec.Struct, frozen=True):
    """The steps of an image in one format, narrowest first, each width once. dynamic_range: that of the steps."""

    format: Format
    steps: list[LadderStep]
    dynamic_range: DynamicRange = "standard"


def fallback_format(info: ImageInfo, transform: Transform = PLAIN, *, animated: Collection[Format] = _ANIMATED) -> Format:
    """Return the format that every browser supports and that preserves the frames and the transparency of the rendition.

    With a high dynamic range it is JPEG, which every browser shows, although it has no transparency.

    animated: the formats in which an animation stays one (see `DEFAULTS`), by default those of the current pipeline version.
    """
    if transform.dynamic_range == "high":
        return "jpeg"
    if info.animates(transform, "gif", by_default="gif" in animated):
        return "gif"
    return "png" if transform.lossless or _has_alpha(info, transform) else "jpeg"


def default_formats(info: ImageInfo, transform: Transform = PLAIN, *, animated: Collection[Format] = _ANIMATED) -> tuple[Format, ...]:
    """Return the formats of a ladder, the smallest first, the fallback last; for `animated` see `fallback_format`."""
    fallback = fallback_format(info, transform, animated=animated)
    if fallback == "gif":
        # JPEG XL renditions are not animated.
        return ("avif", "webp", "gif") if "avif" in animated and can_animate(transform, "avif") else ("webp", "gif")
    # Without loss, AVIF is the largest, and JPEG XL is larger than WebP for most drawings and screenshots, for which `lossless` is used
    # most.
    formats: tuple[Format, ...] = ("webp", fallback) if transform.lossless else ("jxl", "avif", "webp", fallback)
    return tuple(name for name in formats if transform.dynamic_range == "standard" or FORMATS[name].high_dynamic_range)


def ladder_widths(width: int, widest: Sequence[int] = LADDER_WIDTHS, *, grows: bool = False) -> list[int]:
    """Return the default widths for an image of `width` pixels: none above it unless it `grows`, and its own width if they end there.

    widest: the widths of the ladder of the widest images, in rising order.
    """
    if grows:
        return list(widest)
    steps = [step for step in widest if step < width]
    return [*steps, width] if len(steps) < len(widest) else steps


def possible_formats(
    info: ImageInfo, transform: Transform, limits: Limits, supported: Collection[Format], *, version: int = PIPELINE_VERSION
) -> Sequence[Format]:
    """Return the formats of `default_formats` in which one rendition can be made, the smallest first, the fallback last.

    If an animation can be made in none of them, they are those of its first frame; if that cannot be made either, only the fallback.

    supported: the formats that the installed codecs write. version: the pipeline version of the rendition, which limits them too.

    Raises `BadTransformError` for a crop outside the picture.
    """
    defaults = DEFAULTS.get(version, DEFAULTS[PIPELINE_VERSION])
    animated = defaults.animated
    page = info.of_page(transform.frame)
    plan = make_plan(page.width, page.height, transform, vector=page.vector)
    alpha = _has_alpha(info, transform)
    for kept in (animated, frozenset[Format]()):
        possible = [
            image_format
            for image_format in default_formats(info, transform, animated=kept)
            if image_format in supported
            and image_format in defaults.offered
            and is_worth_linking(plan, image_format, limits, frames=_frames(info, transform, image_format, animated), alpha=alpha)
        ]
        if possible:
            return possible
    return default_formats(info, transform, animated=animated)[-1:]


def ladders(
    info: ImageInfo,
    transform: Transform,
    limits: Limits,
    *,
    widths: Sequence[int] = (),
    formats: Sequence[Format] = (),
    supported: Collection[Format] = FORMATS,
    default_widths: Sequence[int] = LADDER_WIDTHS,
) -> list[Ladder]:
    """Return the ladders of `transform`, the fallback's last.

    Every length of the transform is scaled with the width, so that a crop keeps its shape, and a rounded corner its look, at every step.

    widths: in pixels. By default those of `ladder_widths`, without those that a limit or the format excludes, and without those that have
        nearly as many bytes as a wider one; each ladder ends with its widest possible step. An image that is too narrow for any width has
        one step, given by its height.
    formats: by default those of `default_formats` that have steps. If an animation has none, they are those of its first frame.
    supported: the formats that the installed libvips writes.
    default_widths: the widths of the ladder of the widest images, in rising order.

    With a high dynamic range, the ladders of formats that hold it come first, if the image has one, and those of the standard range follow.

    Raises `TooManyPixelsError`, and for drawings `TooComplexError`, if a width or a format that was named is impossible, or if everything
    is; and `BadTransformError` for a frame or a crop outside the image, and for a transform with a height only.
    """
    if transform.dynamic_range == "high":
        standard = msgspec.structs.replace(transform, dynamic_range="standard")
        found = ladders(info, standard, limits, widths=widths, formats=formats, supported=supported, default_widths=default_widths)
        return [*_high_ladders(info, found, limits), *found]
    require_frame(info, transform)
    steps = _Steps(info, transform, limits, default_widths)
    if widths or formats:
        return _named_ladders(steps, sorted(set(widths)), formats, [name for name in default_formats(info, transform) if name in supported])
    still = transform
    found = _default_ladders(steps, supported)
    if not found and steps.animates and not transform.animate:
        still = msgspec.structs.replace(transform, frame=0)
        found = _default_ladders(_Steps(info, still, limits, default_widths), supported)
    if not found and transform.width is None:
        found = _lowest_ladders(info, still, limits, supported)
    if not found:
        steps.require(1, fallback_format(info, transform))
    return found


def _high_ladders(info: ImageInfo, standard: Sequence[Ladder], limits: Limits) -> list[Ladder]:
    """Return the same ladders with a high dynamic range, in the formats that hold it together with the transparency of the image."""
    if info.dynamic_range == "standard":
        return []
    found = []
    for ladder in standard:
        traits = FORMATS[ladder.format]
        needed_bytes = traits.encoder_bytes_per_pixel[info.alpha] * _HIGH_RANGE_MEMORY
        if traits.high_dynamic_range and (traits.alpha or not info.alpha):
            steps = [
                LadderStep(msgspec.structs.replace(step.transform, dynamic_range="high"), step.width, step.height)
                for step in ladder.steps
                if step.width * step.height * needed_bytes <= limits.codec_bytes
            ]
            found += [Ladder(ladder.format, steps, "high")] if steps else []
    return found


class _Steps:
    """The possible steps of one transform of one image. Each is planned once for all formats."""

    def __init__(self, info: ImageInfo, transform: Transform, limits: Limits, widest: Sequence[int]) -> None:
        self.info = info
        self.transform = transform
        self._page = info.of_page(transform.frame)
        self._limits = limits
        full = make_plan(self._page.width, self._page.height, transform, vector=info.vector)
        _require_shape(transform)
        self._full_width = full.picture_size[0]
        self._alpha = _has_alpha(info, transform)
        self._planned: dict[int, tuple[Transform, Plan] | None] = {}
        grows = (info.vector and transform.width is None) or transform.enlarge
        self.default_widths = ladder_widths(full.picture_size[0], widest, grows=grows)
        own_width = self.default_widths[-1]
        if own_width not in widest:
            # At the next width of the ladder the rendition is the same, and clients that do not know the width of the image build that URL.
            wider = widest[bisect_left(widest, own_width)]
            if self._gives_the_same(own_width, wider):
                self.default_widths[-1] = wider

    @property
    def animates(self) -> bool:
        """Whether the fallback is an animation."""
        return _frames(self.info, self.transform, "gif") > 1

    def ladder(self, image_format: Format) -> Ladder:
        """Return the default ladder in one format; it has no steps if none is possible."""
        widths = self.default_widths
        count = bisect_left(widths, True, key=lambda width: not self.is_worth_linking(width, image_format))
        possible = widths[:count]
        if count < len(widths):
            between = range(possible[-1] + 1 if possible else 1, widths[count])
            more = bisect_left(between, True, key=lambda width: not self.is_worth_linking(width, image_format))
            possible += between[:more][-1:]
        return _without_near_steps(self.at(possible, image_format))

    def at(self, widths: Sequence[int], image_format: Format) -> Ladder:
        """Return the ladder of some possible widths. Widths that give the same rendition, because it does not grow, make one step."""
        steps: dict[int, LadderStep] = {}
        for width in widths:
            if (planned := self._at(width)) is not None:
                transform, made = planned
                steps.setdefault(made.output_size[0], LadderStep(transform, *made.output_size))
        return Ladder(image_format, [steps[width] for width in sorted(steps)])

    def is_worth_linking(self, width: int, image_format: Format) -> bool:
        """Return whether a step is possible, and worth a link (see `geometry.is_worth_linking`)."""
        planned = self._at(width)
        if planned is None or not is_drawn_in_time(self.info, planned[1]):
            return False
        frames = _frames(self.info, self.transform, image_format)
        return is_worth_linking(planned[1], image_format, self._limits, frames=frames, alpha=self._alpha)

    def require(self, width: int, image_format: Format) -> None:
        """Return if a step is possible; raises `TooManyPixelsError`, `TooComplexError` and `BadTransformError`."""
        transform = at_width(self.transform, width, self._full_width)
        frames = _frames(self.info, self.transform, image_format)
        feasible_plan(self.info, transform, image_format, self._limits, frames=frames, linked=True)

    def _gives_the_same(self, width: int, wider: int) -> bool:
        """Return whether a wider step gives the same rendition, because it does not grow and has no lengths that do.

        With a `ratio` the heights may differ by rounding: then the wider step is nearer to the ratio.
        """
        first, second = self._at(width), self._at(wider)
        if first is None or second is None:
            return False
        (transform, plan), (other, other_plan) = first, second
        same_lengths = msgspec.structs.replace(other, width=transform.width, height=transform.height) == transform
        same_size = plan.picture_size[0] == other_plan.picture_size[0] if transform.ratio is not None else plan == other_plan
        return same_lengths and same_size

    def _at(self, width: int) -> tuple[Transform, Plan] | None:
        """Return the transform of a step and its plan, `None` if a length of it would be above the limits of options."""
        if width not in self._planned:
            try:
                transform = at_width(self.transform, width, self._full_width)
            except BadTransformError:
                self._planned[width] = None
            else:
                self._planned[width] = transform, make_plan(self._page.width, self._page.height, transform, vector=self.info.vector)
        return self._planned[width]


def _without_near_steps(ladder: Ladder) -> Ladder:
    """Return a ladder without the steps that have nearly as many bytes as the next wider one that stays (see `MIN_STEP_RATIO`)."""
    kept: list[LadderStep] = []
    for step in reversed(ladder.steps):
        if not kept or kept[-1].width * kept[-1].height >= step.width * step.height * MIN_STEP_RATIO:
            kept.append(step)
    return msgspec.structs.replace(ladder, steps=kept[::-1])


def _default_ladders(steps: _Steps, supported: Collection[Format]) -> list[Ladder]:
    """Return the default ladders that have steps and are wide enough."""
    formats = [image_format for image_format in default_formats(steps.info, steps.transform) if image_format in supported]
    found = [ladder for ladder in map(steps.ladder, formats) if ladder.steps]
    return [ladder for ladder in found if ladder.steps[-1].width >= found[-1].steps[-1].width * _MIN_REACH]


def _named_ladders(steps: _Steps, widths: Sequence[int], formats: Sequence[Format], defaults: Sequence[Format]) -> list[Ladder]:
    """Return the ladders of named widths, named formats, or both; raises as `ladders` does if one of them is impossible."""
    # If only widths are named, the fallback must have all of them.
    required = formats or defaults[-1:]
    for image_format in required:
        for width in widths:
            steps.require(width, image_format)
    if widths and not formats:
        better = [steps.at([width for width in widths if steps.is_worth_linking(width, name)], name) for name in defaults[:-1]]
        return [ladder for ladder in better if ladder.steps] + [steps.at(widths, name) for name in required]
    found = [steps.at(widths, name) if widths else steps.ladder(name) for name in formats]
    for ladder in found:
        if not ladder.steps:
            steps.require(1, ladder.format)
    return found


def _lowest_ladders(info: ImageInfo, transform: Transform, limits: Limits, supported: Collection[Format]) -> list[Ladder]:
    """Return ladders of one step for an image so narrow that it is too high at a width of one pixel."""
    page = info.of_page(transform.frame)
    height = min(MAX_SIDE_PIXELS, limits.max_output_pixels)
    factor = Fraction(height, make_plan(page.width, page.height, transform, vector=info.vector).height)
    lower = msgspec.structs.replace(scaled(transform, factor), height=height)
    plan = make_plan(page.width, page.height, lower, vector=info.vector)
    return [
        Ladder(name, [LadderStep(lower, *plan.output_size)])
        for name in default_formats(info, transform)
        if name in supported and is_worth_linking(plan, name, limits, frames=1, alpha=info.alpha)
    ]


def _frames(info: ImageInfo, transform: Transform, image_format: Format, animated: Collection[Format] = _ANIMATED) -> int:
    """Return how many frames a rendition has; for `animated` see `fallback_format`."""
    return info.frames if info.animates(transform, image_format, by_default=image_format in animated) else 1


def _has_alpha(info: ImageInfo, transform: Transform) -> bool:
    """Return whether a rendition may have transparent pixels."""
    background = transform.background
    if background is not None and (background == BLUR or len(background) == _OPAQUE_COLOR_DIGITS):
        return False
    page = info.of_page(transform.frame)
    plan = make_plan(page.width, page.height, transform, vector=info.vector)
    return info.alpha or transform.round is not None or not plan.has_right_angle or plan.canvas is not None or plan.padded is not None


def _require_shape(transform: Transform) -> None:
    if transform.width is None and transform.height is not None and transform.ratio is None:
        raise BadTransformError(
            "A ladder needs a width: this transform has only a height.",
            expected="width and height, only a width, a ratio, or none of them",
            received=transform.canonical_form,
            remedy="Give the width too, or request one URL with `format`.",
        )


def at_width(transform: Transform, width: int, full_width: int) -> Transform:
    """Return a transform whose box is `width` wide, with all lengths in proportion.

    full_width: the width in pixels of a rendition without a box.

    Raises `BadTransformError` if a side would be longer than `MAX_SIDE_PIXELS`.
    """
    base = transform if transform.ratio is None else msgspec.structs.replace(transform, height=None)
    factor = width / (transform.box[0] or Fraction(full_width))
    return require_sides(msgspec.structs.replace(scaled(base, factor), width=width))

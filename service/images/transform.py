"""Transform: what can be asked of an image; parse and canonical spelling.

A spelling is `key=value` pairs in the declared order, comma-separated, defaults left out; the empty one is `full`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from fractions import Fraction
from math import floor

import msgspec

from service.errors import BadTransformError
from service.images.formats import FORMATS, Format
from service.images.options import (
    API_OPTIONS,
    COMPASS,
    MAX_PAD_PIXELS,
    MAX_SIDE_PIXELS,
    MAX_VALUE_CHARACTERS,
    OPTIONS,
    Fit,
    Flip,
    Gravity,
    Metadata,
    Option,
    Overlay,
    Profile,
    Region,
    Sides,
    Value,
    scaled_number,
    spelled,
    text_of,
)

FULL = "full"

_VALUE = re.compile(r"[A-Za-z0-9.:_-]+")


class Transform(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an image.

    The fields act in this order, whatever the order in which they are written.

    frame, animate: which frames. Then the picture is turned upright by its Exif orientation: all below is of the upright one.
    crop: the part to keep (pixels or percent of the original); trim: borders of one colour cut off (0 to 255 steps of 8 bits).
    rotate: degrees clockwise, 0 to 360; flip: `horizontal` or `vertical`.
    width, height: pixels of the picture now, 1 to 8192; one alone keeps the aspect ratio; without `enlarge` nothing grows: where
        the picture is smaller than the box, the box shrinks in proportion. `fit` as CSS object-fit and sharp mean it: `inside`
        (whole, at most the box), `outside` (whole, at least the box), `cover` (fills the box, cropped), `contain` (whole, padded
        to the box), `fill` (stretched). gravity: what stays where `cover` cuts, where `contain` lays: a compass anchor; for
        `cover` also `attention`, `entropy` (libvips smartcrop) or a focal point of the upright original.
    brightness, contrast, gamma, saturation, grayscale: on the encoded colours, as CSS Filter Effects define the first two and
        the last two; blur, sharpen: sigma in pixels of the rendition.
    overlay: another image laid over the picture. round: corners cut to a radius in pixels, or `max`. pad: pixels added outside
        the box, which makes the rendition larger. background: what lies behind everything.
    profile, metadata: what the file says of its colours and its origin. quality (1 to 100 on the encoder's scale, or `auto`),
        max_bytes, lossless, effort (0 to 6), progressive: the encoder's. A quality that is left out is the version's default.
    """

    frame: int | None = None
    animate: bool = False
    crop: Region | None = None
    trim: float | None = None
    rotate: float = 0.0
    flip: Flip = "none"
    width: int | None = None
    height: int | None = None
    fit: Fit = "inside"
    gravity: Gravity = "center"
    enlarge: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    grayscale: bool = False
    blur: float | None = None
    sharpen: float | None = None
    overlay: Overlay | None = None
    round: int | str | None = None
    pad: Sides = Sides(0, 0, 0, 0)
    background: str | None = None
    profile: Profile = "srgb"
    metadata: Metadata = "none"
    quality: int | str | None = None
    max_bytes: int | None = None
    lossless: bool = False
    effort: int | None = None
    progressive: bool = False

    @property
    def canonical_form(self) -> str:
        """The transform as text, in its only canonical form."""
        pairs = [f"{key}={spelled(value)}" for key, value in self.options().items()]
        return ",".join(pairs) or FULL

    @property
    def stretches(self) -> bool:
        """Whether levels are spread, so that more than 8 bits of them are worth having."""
        return self.brightness != 1 or self.contrast != 1 or self.gamma != 1

    def options(self) -> dict[str, Value]:
        """Return what differs from the default, by key in the declared order."""
        return {
            key: value
            for key, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True)
            if (value := getattr(self, key)) != default and value is not None
        }


class Defaults(msgspec.Struct, frozen=True):
    """What a transform leaves out, for one pipeline version: the quality per format, and whether an animation stays one."""

    quality: Mapping[Format, int]
    animates: bool


# Raised whenever the same transform would give other pixels, or other bytes that are worth having.
PIPELINE_VERSION = 2

# A row is never changed once released: old addresses keep their meaning. A new default is a new version.
DEFAULTS: Mapping[int, Defaults] = {
    1: Defaults(quality={"avif": 58, "webp": 80, "jpeg": 80, "png": 100, "gif": 100}, animates=False),
    # These look alike: SSIMULACRA2 75 on photos, 640 and 1,280 wide (`make quality`).
    2: Defaults(quality={"avif": 58, "webp": 82, "jpeg": 73, "png": 100, "gif": 100}, animates=True),
}


def parse(spelling: str) -> Transform:
    """Return the transform that a spelling asks for, in any order of keys and any spelling of numbers.

    Raises `BadTransformError` for anything that is not one.
    """
    if spelling == FULL:
        return Transform()
    options: dict[str, str] = {}
    for pair in spelling.split(","):
        key, equals, value = pair.partition("=")
        if not equals or _VALUE.fullmatch(value) is None:
            raise BadTransformError(
                "A part of the transform is not a key and a value.",
                expected="key=value pairs joined by commas, values of A-Z a-z 0-9 . : _ -; or `full`",
                received=pair,
                remedy="Write for example width=640,height=480,fit=cover.",
            )
        if key in options:
            raise BadTransformError(f"`{key}` stands twice.", expected="each key once", received=spelling, remedy="Leave one of them out.")
        options[key] = value
    return _transform(_values(options, OPTIONS))


def parse_canonical(spelling: str) -> Transform:
    """Return the transform of a canonical spelling; raises `BadTransformError` for any other spelling of it too."""
    transform = parse(spelling)
    if transform.canonical_form != spelling:
        raise BadTransformError(
            "This is not the canonical spelling of the transform.",
            expected=transform.canonical_form,
            received=spelling,
            remedy="Use the expected spelling: keys in the declared order, defaults left out, numbers in their shortest form.",
        )
    return transform


def from_options(options: Mapping[str, object], preset: Transform | None = None) -> Transform:
    """Return the transform of a JSON object's members, over those of a `preset`; raises `BadTransformError`.

    `focal` and `dpr` are resolved here: they are in no address.
    """
    values = _values({key: text_of(key, value) for key, value in options.items() if value is not None}, API_OPTIONS)
    focal, dpr = values.pop("focal", None), values.pop("dpr", None)
    if focal is not None:
        if "gravity" in values:
            raise BadTransformError(
                "`focal` and `gravity` say the same thing.", expected="one of them", received="both", remedy="Leave one of them out."
            )
        values["gravity"] = focal
    transform = _transform({**(preset.options() if preset else {}), **values})
    return scaled(transform, Fraction(str(dpr))) if isinstance(dpr, float) else transform


def scaled(transform: Transform, factor: Fraction) -> Transform:
    """Return the transform with every length in pixels of the rendition multiplied: sides, radius, pad, blur, the overlay's offset.

    Raises `BadTransformError` where a side would be longer than is made.
    """

    def length(pixels: int, most: int) -> int:
        return max(-most, min(most, floor(pixels * factor + Fraction(1, 2))))

    def side(pixels: int | None) -> int | None:
        if pixels is None:
            return None
        longer = max(1, floor(pixels * factor + Fraction(1, 2)))
        if longer > MAX_SIDE_PIXELS:
            raise BadTransformError(
                "The rendition would be longer than is made.",
                expected=f"at most {MAX_SIDE_PIXELS} pixels",
                received=str(longer),
                remedy="Leave the largest widths out, lower `dpr`, or give the transform a smaller or wider box.",
            )
        return longer

    overlay, pad, radius = transform.overlay, transform.pad, transform.round
    if overlay is not None:
        overlay = msgspec.structs.replace(overlay, x=length(overlay.x, MAX_PAD_PIXELS), y=length(overlay.y, MAX_PAD_PIXELS))
    return msgspec.structs.replace(
        transform,
        width=side(transform.width),
        height=side(transform.height),
        blur=None if transform.blur is None else min(250.0, max(0.3, scaled_number(transform.blur, factor))),
        overlay=overlay,
        round=max(1, length(radius, MAX_SIDE_PIXELS)) if isinstance(radius, int) else radius,
        pad=Sides(*(length(getattr(pad, edge), MAX_PAD_PIXELS) for edge in ("top", "right", "bottom", "left"))),
    )


def for_format(transform: Transform, image_format: Format) -> Transform:
    """Return the transform without what `image_format` has no use for; raises `BadTransformError` for what it cannot do."""
    if transform.lossless and not FORMATS[image_format].lossless:
        raise BadTransformError(
            f"A {image_format} always loses something: `lossless` contradicts it.",
            expected=f"one of {', '.join(sorted(name for name, traits in FORMATS.items() if traits.lossless))}",
            received=image_format,
            remedy="Leave `lossless` out, or ask for another format.",
        )
    if transform.animate and not FORMATS[image_format].animation:
        raise BadTransformError(
            f"A {image_format} holds no animation: `animate` contradicts it.",
            expected=f"one of {', '.join(sorted(name for name, traits in FORMATS.items() if traits.animation))}",
            received=image_format,
            remedy="Leave `animate` out for the first frame, or ask for another format.",
        )
    used = {key: value for key, value in transform.options().items() if key not in FORMATS[image_format].ignored_options}
    return Transform(**used)  # type: ignore[arg-type]


def _values(options: Mapping[str, str], known: Mapping[str, Option]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, text in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.7)
            raise BadTransformError(
                "The transform has an unknown key.",
                expected=", ".join(known),
                received=key,
                remedy=f"Did you mean `{near[0]}`?" if near else "Leave it out, or use one of the keys above.",
            )
        if len(text) > MAX_VALUE_CHARACTERS:
            raise BadTransformError(
                f"The value of `{key}` is too long.",
                expected=f"at most {MAX_VALUE_CHARACTERS} characters",
                received=f"{len(text)} characters",
                remedy="See GET /docs for the values that it can have.",
            )
        values[key] = known[key].read(key, text)
    return values


def _transform(values: Mapping[str, object]) -> Transform:
    # One still has one spelling.
    if values.get("animate") is False:
        values = {"frame": 0, **{key: value for key, value in values.items() if key != "animate"}}
    transform = Transform(**values)  # type: ignore[arg-type]
    _check_box(transform)
    _check_together(transform)
    return transform


def _check_box(transform: Transform) -> None:
    """Refuse what could not act without a box: an option without effect would give one rendition several addresses."""
    boxed = transform.width is not None and transform.height is not None
    if transform.fit != "inside" and not boxed:
        raise BadTransformError(
            f"`fit={transform.fit}` needs a box.",
            expected="width and height",
            received=transform.canonical_form,
            remedy="Give both, or leave `fit` out.",
        )
    if transform.gravity != "center" and transform.fit not in {"cover", "contain"}:
        raise BadTransformError(
            f"`gravity` acts with fit=cover or fit=contain only, not with fit={transform.fit}.",
            expected="fit=cover or fit=contain",
            received=transform.canonical_form,
            remedy="Leave `gravity` out, or change `fit`.",
        )
    if transform.fit == "contain" and transform.gravity not in COMPASS:
        raise BadTransformError(
            "With fit=contain nothing is cut, so `gravity` can only be a compass anchor.",
            expected=", ".join(COMPASS),
            received=spelled(transform.gravity),
            remedy="Use a compass anchor, or fit=cover.",
        )
    if transform.enlarge and transform.width is None and transform.height is None:
        raise BadTransformError(
            "`enlarge` needs a size to grow to.",
            expected="width or height",
            received=transform.canonical_form,
            remedy="Give one of them, or leave `enlarge` out.",
        )


def _check_together(transform: Transform) -> None:
    contradictions = (
        (transform.animate and transform.frame is not None, "animate", "frame", "all frames and one of them"),
        (transform.lossless and transform.quality is not None, "lossless", "quality", "no loss and how much of it"),
        (transform.lossless and transform.max_bytes is not None, "lossless", "max_bytes", "no loss and a size that may need some"),
        (transform.grayscale and transform.saturation != 1, "grayscale", "saturation", "no colours and how strong they are"),
        (transform.grayscale and transform.profile == "p3", "grayscale", "profile", "no colours and a space for more of them"),
    )
    for contradict, one, other, meaning in contradictions:
        if contradict:
            raise BadTransformError(
                f"`{one}` and `{other}` contradict each other: {meaning}.",
                expected="one of them",
                received=transform.canonical_form,
                remedy=f"Leave `{one}` or `{other}` out.",
            )

"""Transform: the options that make a rendition of an image; read and write them.

The canonical form of a transform is its options as `key=value` pairs, in the declared order, joined by commas, without those that have
their default; that of a transform without options is `full`. It is a part of URLs and of storage keys.
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
    DynamicRange,
    Fit,
    Flip,
    Gravity,
    Metadata,
    Option,
    Overlay,
    Profile,
    Ratio,
    Region,
    Sides,
    Value,
    format_value,
    scaled_number,
    to_text,
)

FULL = "full"

# The default of `fit` for a transform with a `ratio`.
FIT_OF_RATIO: Fit = "cover"

_VALUE = re.compile(r"[A-Za-z0-9.:_-]+")

# The options that a rendition with a high dynamic range may have: those that move and scale pixels, and those of the file. The others are
# defined for encoded colors of a standard dynamic range: CSS filters, backgrounds and overlays of 8 bits.
_HIGH_DYNAMIC_RANGE_OPTIONS = frozenset(
    {"frame", "crop", "trim", "rotate", "flip", "width", "height", "ratio", "fit", "gravity", "enlarge"}
    | {"profile", "dynamic_range", "metadata", "quality", "max_bytes", "effort", "progressive"}
)


class Transform(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one rendition.

    They act in this order, whatever the order in which they are written.

    frame, animate: which frames. The picture is then turned upright by its Exif orientation; everything below is about the upright one.
    crop: the part to keep, in pixels or percent of the original. trim: removes borders of one color (0 to 255 steps of 8 bits).
    rotate: degrees clockwise, 0 to 360. flip: `horizontal` or `vertical`.
    width, height: pixels of the picture at this point, 1 to 8192. With one of them the aspect ratio stays the same. Without `enlarge`
        nothing grows: if the picture is smaller than the box, the box shrinks in proportion.
    ratio: the shape of the box, with at most one of its sides. Its fit is `cover`, `contain` or `fill`.
    fit: as in CSS object-fit and sharp: `inside` (whole, no larger than the box), `outside` (whole, no smaller than the box), `cover`
        (fills the box, cropped), `contain` (whole, padded to the box), `fill` (stretched to the box).
    gravity: the part that stays when `cover` crops, or the place of the picture in the box of `contain`: a compass anchor, and for
        `cover` also `attention`, `entropy` (libvips smartcrop) or a focal point of the upright original.
    brightness, contrast, gamma, saturation, grayscale: act on encoded colors; all but gamma as CSS Filter Effects define them.
    blur, sharpen: sigma in pixels of the rendition.
    overlay: another image on top of the picture. round: corners cut to a radius in pixels, or `max`. pad: pixels added around the box,
        which makes the rendition larger. background: what shows behind everything.
    profile, metadata: which of them the file contains.
    dynamic_range: `high` for a rendition that is brighter than white on screens that allow it, where its original is.
    quality: 1 to 100 on the encoder's scale, or `auto`; `None` for the default of the pipeline version.
    max_bytes, lossless, effort (0 to 6), progressive: options of the encoder.
    """

    frame: int | None = None
    animate: bool = False
    crop: Region | None = None
    trim: float | None = None
    rotate: float = 0.0
    flip: Flip = "none"
    width: int | None = None
    height: int | None = None
    ratio: Ratio | None = None
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
    dynamic_range: DynamicRange = "standard"
    metadata: Metadata = "none"
    quality: int | str | None = None
    max_bytes: int | None = None
    lossless: bool = False
    effort: int | None = None
    progressive: bool = False

    @property
    def canonical_form(self) -> str:
        """The text of this transform: equal transforms have equal texts."""
        pairs = [f"{key}={format_value(value)}" for key, value in self.options().items()]
        return ",".join(pairs) or FULL

    @property
    def box(self) -> tuple[Fraction | None, Fraction | None]:
        """Width and height of the box in pixels, not rounded. A side is `None` if it depends on the picture."""
        width = None if self.width is None else Fraction(self.width)
        height = None if self.height is None else Fraction(self.height)
        if self.ratio is not None and width is not None:
            height = width / self.ratio.value
        elif self.ratio is not None and height is not None:
            width = height * self.ratio.value
        return width, height

    @property
    def stretches(self) -> bool:
        """Whether it spreads levels apart, so that decoding more than 8 bits of them improves the result."""
        return self.brightness != 1 or self.contrast != 1 or self.gamma != 1

    def options(self) -> dict[str, Value]:
        """Return the options that differ from their default, by key in the declared order."""
        found = {
            key: value
            for key, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True)
            if (value := getattr(self, key)) != default and value is not None
        }
        if self.ratio is not None and self.fit == FIT_OF_RATIO:
            del found["fit"]
        return found


PLAIN = Transform()


class Defaults(msgspec.Struct, frozen=True):
    """The values of omitted options in one pipeline version.

    quality: for each format. animated: the formats in which an animation stays one. offered: the formats from which a URL that ends in
    `.auto` chooses.
    """

    quality: Mapping[Format, int]
    animated: frozenset[Format]
    offered: frozenset[Format] = frozenset(FORMATS)


# Raised whenever the same transform would give other pixels, or other bytes that are worth having.
PIPELINE_VERSION = 3

# The first versions are older than JPEG XL: at their URLs that end in `.auto`, a client gets the same format as ever.
_WITHOUT_JXL: frozenset[Format] = frozenset(FORMATS) - {"jxl"}

# A row never changes once it is released, so that old URLs keep their meaning. A new default needs a new version.
DEFAULTS: Mapping[int, Defaults] = {
    1: Defaults(
        quality={"jxl": 75, "avif": 58, "webp": 80, "jpeg": 80, "png": 100, "gif": 100}, animated=frozenset(), offered=_WITHOUT_JXL
    ),
    # All formats look alike at these: SSIMULACRA2 75 on photos, 640 and 1,280 pixels wide (`make quality`).
    2: Defaults(
        quality={"jxl": 75, "avif": 58, "webp": 82, "jpeg": 73, "png": 100, "gif": 100},
        animated=frozenset({"webp", "gif"}),
        offered=_WITHOUT_JXL,
    ),
    3: Defaults(
        quality={"jxl": 70, "avif": 59, "webp": 82, "jpeg": 67, "png": 100, "gif": 100}, animated=frozenset({"avif", "webp", "gif"})
    ),
}

# The default quality of a picture with a high dynamic range, where it differs: PQ has fewer levels for what an ordinary screen shows. At
# these, tone-mapped pictures look like those of a standard range (SSIMULACRA2, three photos, 640 pixels wide).
HIGH_RANGE_QUALITY: Mapping[Format, int] = {"avif": 78}


def parse(text: str) -> Transform:
    """Return the transform of a text in canonical form or with any other order of keys and form of numbers.

    Raises `BadTransformError` for any other text.
    """
    if text == FULL:
        return Transform()
    options: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or _VALUE.fullmatch(value) is None:
            raise BadTransformError(
                "A part of the transform is not a key and a value.",
                expected="key=value pairs joined by commas, values of A-Z a-z 0-9 . : _ -; or `full`",
                received=pair,
                remedy="Write for example width=640,height=480,fit=cover.",
            )
        if key in options:
            raise BadTransformError(f"`{key}` is given twice.", expected="each key once", received=text, remedy="Leave one of them out.")
        options[key] = value
    return _transform(_values(options, OPTIONS))


def parse_canonical(text: str) -> Transform:
    """Return the transform of a text in canonical form; raises `BadTransformError` for any other text."""
    transform = parse(text)
    if transform.canonical_form != text:
        raise BadTransformError(
            "This is not the canonical form of the transform.",
            expected=transform.canonical_form,
            received=text,
            remedy="Use the expected form: keys in the declared order, defaults left out, numbers in their shortest form.",
        )
    return transform


def from_options(options: Mapping[str, object], preset: Transform | None = None) -> Transform:
    """Return the transform of the members of a JSON object, which override those of `preset`; raises `BadTransformError`.

    `focal` and `dpr` are resolved: a `Transform` has no such options.
    """
    values = _values({key: to_text(key, value) for key, value in options.items() if value is not None}, API_OPTIONS)
    focal, dpr = values.pop("focal", None), values.pop("dpr", None)
    if focal is not None:
        if "gravity" in values:
            raise BadTransformError(
                "`focal` and `gravity` both set the gravity.", expected="one of them", received="both", remedy="Leave one of them out."
            )
        values["gravity"] = focal
    transform = _transform({**(preset.options() if preset else {}), **values})
    return scaled(transform, Fraction(str(dpr))) if isinstance(dpr, float) else transform


def scaled(transform: Transform, factor: Fraction) -> Transform:
    """Return the transform with every length in pixels of the rendition multiplied: sides, radius, pad, blur, the overlay's offset.

    Raises `BadTransformError` if a side would be longer than `MAX_SIDE_PIXELS`.
    """

    def length(pixels: int, max_pixels: int) -> int:
        return max(-max_pixels, min(max_pixels, floor(pixels * factor + Fraction(1, 2))))

    def side(pixels: int | None) -> int | None:
        if pixels is None:
            return None
        result = max(1, floor(pixels * factor + Fraction(1, 2)))
        return _require_side(result)

    overlay, pad, radius = transform.overlay, transform.pad, transform.round
    if overlay is not None:
        overlay = msgspec.structs.replace(overlay, x=length(overlay.x, MAX_PAD_PIXELS), y=length(overlay.y, MAX_PAD_PIXELS))
    larger = msgspec.structs.replace(
        transform,
        width=side(transform.width),
        height=side(transform.height),
        blur=None if transform.blur is None else min(250.0, max(0.3, scaled_number(transform.blur, factor))),
        overlay=overlay,
        round=max(1, length(radius, MAX_SIDE_PIXELS)) if isinstance(radius, int) else radius,
        pad=Sides(*(length(getattr(pad, edge), MAX_PAD_PIXELS) for edge in ("top", "right", "bottom", "left"))),
    )
    return require_sides(larger)


def require_sides(transform: Transform) -> Transform:
    """Return the transform; raises `BadTransformError` if its `ratio` makes a side of its box longer than `MAX_SIDE_PIXELS`."""
    for side in transform.box if transform.ratio is not None else ():
        if side is not None:
            _require_side(floor(side + Fraction(1, 2)))
    return transform


def _require_side(pixels: int) -> int:
    if pixels > MAX_SIDE_PIXELS:
        raise BadTransformError(
            "A side of the rendition would be too long.",
            expected=f"at most {MAX_SIDE_PIXELS} pixels",
            received=str(pixels),
            remedy="Leave the largest widths out, lower `dpr`, or give the transform a smaller or wider box.",
        )
    return pixels


def can_animate(transform: Transform, image_format: Format) -> bool:
    """Return whether a rendition of an animation can be one, as far as its format and the other options allow it."""
    traits = FORMATS[image_format]
    is_lossless = transform.lossless and traits.lossy_animation
    return traits.animation and not is_lossless and transform.dynamic_range == "standard"


def for_format(transform: Transform, image_format: Format) -> Transform:
    """Return the transform without the options that have no effect in a format; raises `BadTransformError` for one that contradicts it."""
    if transform.lossless and not FORMATS[image_format].lossless:
        raise BadTransformError(
            f"`lossless` contradicts the format: {image_format} is always lossy.",
            expected=f"one of {', '.join(sorted(name for name, traits in FORMATS.items() if traits.lossless))}",
            received=image_format,
            remedy="Leave `lossless` out, or request another format.",
        )
    if transform.animate and not FORMATS[image_format].animation:
        raise BadTransformError(
            f"`animate` contradicts the format: {image_format} has no animation.",
            expected=f"one of {', '.join(sorted(name for name, traits in FORMATS.items() if traits.animation))}",
            received=image_format,
            remedy="Leave `animate` out to get the first frame, or request another format.",
        )
    if transform.animate and not can_animate(transform, image_format):
        raise BadTransformError(
            f"`animate` contradicts the format: with these options {image_format} has no animation.",
            expected="`animate` without `lossless` and `dynamic_range`",
            received=image_format,
            remedy="Leave `animate` out to get the first frame, or leave the others out.",
        )
    if transform.dynamic_range == "high" and not FORMATS[image_format].high_dynamic_range:
        raise BadTransformError(
            f"`dynamic_range` contradicts the format: {image_format} renditions have a standard dynamic range.",
            expected=f"one of {', '.join(sorted(name for name, traits in FORMATS.items() if traits.high_dynamic_range))}",
            received=image_format,
            remedy="Leave `dynamic_range` out, or request another format.",
        )
    defaults = {key: getattr(PLAIN, key) for key in FORMATS[image_format].ignored_options}
    return msgspec.structs.replace(transform, **defaults)


def for_url(transform: Transform, image_format: Format, quality: Mapping[Format, int]) -> Transform:
    """Return the transform in new URLs of a format: without options that have no effect in it, and with the server's own `quality`.

    A transform that decides its loss itself has no other quality: by `quality`, `max_bytes` or `lossless`, or by a high dynamic range, for
    which the scale of quality differs.

    Raises `BadTransformError` for an option that contradicts the format.
    """
    used = for_format(transform, image_format)
    decides = used.quality is not None or used.max_bytes is not None or used.lossless or used.dynamic_range == "high"
    return used if decides or image_format not in quality else msgspec.structs.replace(used, quality=quality[image_format])


def _values(options: Mapping[str, str], known: Mapping[str, Option]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, text in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.7)
            raise BadTransformError(
                "The transform has an unknown key.",
                expected=", ".join(known),
                received=key,
                remedy=f"Did you mean `{near[0]}`?" if near else "Leave it out, or use one of the expected keys.",
            )
        if len(text) > MAX_VALUE_CHARACTERS:
            raise BadTransformError(
                f"The value of `{key}` is too long.",
                expected=f"at most {MAX_VALUE_CHARACTERS} characters",
                received=f"{len(text)} characters",
                remedy="See GET /docs for its values.",
            )
        values[key] = known[key].read(key, text)
    return values


def _transform(values: Mapping[str, object]) -> Transform:
    # Both make the same picture, which has one canonical form.
    if values.get("animate") is False:
        values = {"frame": 0, **{key: value for key, value in values.items() if key != "animate"}}
    if "ratio" in values:
        values = {"fit": FIT_OF_RATIO, **values}
    transform = Transform(**values)  # type: ignore[arg-type]
    _check_box(transform)
    _check_together(transform)
    return transform


def _check_box(transform: Transform) -> None:
    """Refuse options that have no effect without a box: they would give one rendition several URLs."""
    if transform.ratio is not None:
        _check_ratio(transform)
    boxed = transform.ratio is not None or (transform.width is not None and transform.height is not None)
    if transform.fit != "inside" and not boxed:
        raise BadTransformError(
            f"`fit={transform.fit}` needs a box.",
            expected="width and height, or ratio",
            received=transform.canonical_form,
            remedy="Give both, or leave `fit` out.",
        )
    if transform.gravity != "center" and transform.fit not in {"cover", "contain"}:
        raise BadTransformError(
            f"`gravity` acts only with fit=cover or fit=contain, not with fit={transform.fit}.",
            expected="fit=cover or fit=contain",
            received=transform.canonical_form,
            remedy="Leave `gravity` out, or change `fit`.",
        )
    if transform.fit == "contain" and transform.gravity not in COMPASS:
        raise BadTransformError(
            "With fit=contain nothing is cropped, so `gravity` can only be a compass anchor.",
            expected=", ".join(COMPASS),
            received=format_value(transform.gravity),
            remedy="Use a compass anchor, or fit=cover.",
        )
    if transform.enlarge and transform.width is None and transform.height is None:
        raise BadTransformError(
            "`enlarge` needs a size to grow to.",
            expected="width or height",
            received=transform.canonical_form,
            remedy="Give one of them, or leave `enlarge` out.",
        )


def _check_ratio(transform: Transform) -> None:
    if transform.width is not None and transform.height is not None:
        raise BadTransformError(
            "`ratio` contradicts `width` and `height`: together they are a shape too.",
            expected="`ratio` and at most one of `width` and `height`",
            received=transform.canonical_form,
            remedy="Leave one of the three out.",
        )
    if transform.fit in {"inside", "outside"}:
        raise BadTransformError(
            f"`ratio` contradicts `fit={transform.fit}`: a new shape, and the shape of the picture.",
            expected="fit=cover (the default with `ratio`), fit=contain or fit=fill",
            received=f"fit={transform.fit}",
            remedy="Leave `fit` or `ratio` out.",
        )
    require_sides(transform)


def _check_together(transform: Transform) -> None:
    contradictions = (
        (transform.animate and transform.frame is not None, "animate", "frame", "all frames, and one of them"),
        (transform.lossless and transform.quality is not None, "lossless", "quality", "no loss, and how much of it"),
        (transform.lossless and transform.max_bytes is not None, "lossless", "max_bytes", "no loss, and a size that may need some"),
        (transform.grayscale and transform.saturation != 1, "grayscale", "saturation", "no colors, and how strong they are"),
        (transform.grayscale and transform.profile == "p3", "grayscale", "profile", "no colors, and a space for more of them"),
    )
    if transform.dynamic_range == "high":
        _check_high_dynamic_range(transform)
    for contradict, one, other, meaning in contradictions:
        if contradict:
            raise BadTransformError(
                f"`{one}` and `{other}` contradict each other: {meaning}.",
                expected="one of them",
                received=transform.canonical_form,
                remedy=f"Leave `{one}` or `{other}` out.",
            )


def _check_high_dynamic_range(transform: Transform) -> None:
    others = {f"`{key}`" for key in transform.options() if key not in _HIGH_DYNAMIC_RANGE_OPTIONS}
    others |= {"a `rotate` by no right angle"} if transform.rotate % 90 else set()
    others |= {"`fit=contain`"} if transform.fit == "contain" else set()
    if others:
        names = " and ".join(sorted(others))
        raise BadTransformError(
            f"`dynamic_range=high` and {names} contradict each other: HDR, and a change that is defined for a standard dynamic range.",
            expected="only options for size, shape and file",
            received=transform.canonical_form,
            remedy=f"Leave out {names}, or `dynamic_range`.",
        )

"""The options of a transform: how the value of each is read, written and described.

The canonical form of a value has only the characters `A-Z a-z 0-9 . : _ -`. Lists are joined by `:`, and numbers have at most four
decimals, no exponent and no trailing zeros.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Literal, TypeAlias, get_args

import msgspec

from service.errors import BadTransformError
from service.images.digest import DIGEST_EXAMPLE, is_digest

Fit: TypeAlias = Literal["inside", "outside", "cover", "contain", "fill"]
Compass: TypeAlias = Literal["center", "north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest"]
Strategy: TypeAlias = Literal["attention", "entropy"]
Flip: TypeAlias = Literal["none", "horizontal", "vertical"]
Metadata: TypeAlias = Literal["none", "copyright", "all"]
Profile: TypeAlias = Literal["srgb", "p3", "keep"]
DynamicRange: TypeAlias = Literal["standard", "high"]

FITS: tuple[str, ...] = get_args(Fit)
COMPASS: tuple[str, ...] = get_args(Compass)
STRATEGIES: tuple[str, ...] = get_args(Strategy)
FLIPS: tuple[str, ...] = get_args(Flip)
METADATA: tuple[str, ...] = get_args(Metadata)
PROFILES: tuple[str, ...] = get_args(Profile)
DYNAMIC_RANGES: tuple[str, ...] = get_args(DynamicRange)

# Half of the longest side that WebP holds: more than any screen has, and one rendition still fits into a render process's memory.
MAX_SIDE_PIXELS = 8_192
MAX_FRAME = 9_999
MAX_PAD_PIXELS = 4_096
MAX_BYTES = 64 << 20
MIN_BYTES = 128
MAX_EFFORT = 6
MAX_QUALITY = 100
AUTO = "auto"
BLUR = "blur"
MAX_RADIUS = "max"
MAX_RATIO = 100

# So that every ratio to 1 with four decimals has its exact canonical form.
MAX_RATIO_TERM = 1_000_000

# An overlay with all its parts has about 90 characters; four numbers of 18 digits have fewer.
MAX_VALUE_CHARACTERS = 128
MAX_VALUE_PARTS = 8
OVERLAY_SCALE = 0.25

_COLOR = re.compile(r"[0-9a-f]{6}([0-9a-f]{2})?")
_SHORT_COLOR = re.compile(r"[0-9a-f]{3,4}")


class FocalPoint(msgspec.Struct, frozen=True):
    """A point of the upright original: `x` from the left, `y` from the top, each 0 to 1, at most four decimals."""

    x: float
    y: float


class Region(msgspec.Struct, frozen=True):
    """A part of the upright original: left, top, width and height in pixels, or with `percent` in percent of the original's sides."""

    left: float
    top: float
    width: float
    height: float
    percent: bool = False


class Sides(msgspec.Struct, frozen=True):
    """Lengths in pixels, clockwise from the top, as in CSS."""

    top: int
    right: int
    bottom: int
    left: int


class Ratio(msgspec.Struct, frozen=True):
    """A width to a height, whole numbers in lowest terms: 1:100 to 100:1, each at most `MAX_RATIO_TERM`."""

    width: int
    height: int

    @property
    def value(self) -> Fraction:
        """The width as a multiple of the height."""
        return Fraction(self.width, self.height)


class Overlay(msgspec.Struct, frozen=True):
    """Another image on top of the picture.

    gravity: the compass anchor at which it is placed. scale: its width as a fraction of the picture's, 0.01 to 1. opacity: 0 to 1.
    x, y: pixels from the anchor toward the middle (from the center to the right and down), -4096 to 4096.
    """

    digest: str
    gravity: str = "center"
    scale: float = OVERLAY_SCALE
    opacity: float = 1.0
    x: int = 0
    y: int = 0


Gravity: TypeAlias = str | FocalPoint
Value: TypeAlias = int | float | str | bool | FocalPoint | Region | Sides | Ratio | Overlay


class Option(msgspec.Struct, frozen=True):
    """One option.

    read: returns the value of a text, given the option's name for messages; raises `BadTransformError`.
    help: the description in the API, the playground and docs/transforms.md.
    schema: the JSON Schema of its value in the API.
    example: a value in the API, for its description.
    """

    read: Callable[[str, str], object]
    help: str
    schema: Mapping[str, object]
    example: object


def format_value(value: Value) -> str:  # noqa: PLR0911 - one for each type
    """Return the canonical form of an option's value."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.4f}".rstrip("0").rstrip(".")
        case FocalPoint(x, y):
            return f"focal:{format_value(x)}:{format_value(y)}"
        case Region(left, top, width, height, percent):
            return ":".join(format_value(length) + ("p" if percent else "") for length in (left, top, width, height))
        case Ratio(width, height):
            return f"{width}:{height}"
        case Sides(top, right, bottom, left):
            if left != right:
                return f"{top}:{right}:{bottom}:{left}"
            if bottom != top:
                return f"{top}:{right}:{bottom}"
            return f"{top}:{right}" if right != top else str(top)
        case Overlay(digest, gravity, scale, opacity, x, y):
            parts = [digest, gravity, format_value(scale), format_value(opacity), str(x), str(y)]
            for default in ("0", "0", "1", format_value(OVERLAY_SCALE), "center"):
                if parts[-1] != default:
                    break
                parts.pop()
            return ":".join(parts)
        case _:
            return str(value)


def to_text(key: str, value: object) -> str:
    """Return the text of an option's JSON value, which `Option.read` takes; a list and an overlay's object are joined by `:`.

    Raises `BadTransformError` for a value of another type.
    """
    match value:
        case bool():
            return format_value(value)
        case int() | float() | str():
            return _normalize(str(value)) if key in _FREE_FORM else str(value)
        case list() if (
            key in _FREE_FORM
            and len(value) <= MAX_VALUE_PARTS
            and all(isinstance(part, (int, float, str)) and not isinstance(part, bool) for part in value)
        ):
            return ":".join(_normalize(str(part)) for part in value)
        case dict() if key == "overlay":
            known = ("digest", "gravity", "scale", "opacity", "x", "y")
            if unknown := sorted(set(value) - set(known)):
                raise _invalid(key, ", ".join(known), unknown[0], "Leave it out.")
            defaults = ("", "center", format_value(OVERLAY_SCALE), "1", "0", "0")
            return ":".join(to_text(name, value.get(name, default)) for name, default in zip(known, defaults, strict=True))
        case _:
            lists = ", or a list of numbers" if key in _FREE_FORM else ""
            raise _invalid(key, f"a number, a string, or true or false{lists}", _short.repr(value), "See GET /docs.")


# A JSON value may be very long and very deep, so the part of it that a message quotes is bounded.
_short = reprlib.Repr()
_short.maxlist = _short.maxdict = 4
_short.maxlevel = 3
_short.maxstring = _short.maxother = 64


# Options that people write in various ways.
_FREE_FORM = frozenset({"background", "crop", "focal", "pad", "ratio"})


def _normalize(text: str) -> str:
    """Return a value such as `50%`, `#ff8800`, `0.3,0.6` or `16/9` in the characters of a canonical form."""
    return text.strip().replace("%", "p").replace(",", ":").replace("/", ":").replace(" ", "").removeprefix("#")


def parse_number(text: str) -> Decimal | None:
    """Return a plain decimal number with at most four decimals, `None` for any other text: no exponent, no plus sign, no infinity."""
    if re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text) is None:
        return None
    # Adding 0 turns -0 into 0.
    number = Decimal(text) + 0
    return number if number == number.quantize(Decimal("0.0001")) else None


def _invalid(key: str, expected: str, received: str, remedy: str) -> BadTransformError:
    return BadTransformError(f"`{key}` is invalid.", expected=expected, received=received, remedy=remedy)


def _whole(minimum: int, maximum: int, unit: str = "") -> Callable[[str, str], int]:
    def read(key: str, text: str) -> int:
        number = parse_number(text)
        if number is None or number != int(number) or not minimum <= number <= maximum:
            raise BadTransformError(
                f"`{key}` is out of range.",
                expected=f"a whole number{unit and f' of {unit}'} from {minimum} to {maximum}",
                received=text,
                remedy=f"Use {key}={minimum} to {key}={maximum}.",
            )
        return int(number)

    return read


def _decimal(minimum: float, maximum: float, unit: str = "") -> Callable[[str, str], float]:
    def read(key: str, text: str) -> float:
        number = parse_number(text)
        if number is None or not Decimal(str(minimum)) <= number <= Decimal(str(maximum)):
            raise BadTransformError(
                f"`{key}` is out of range.",
                expected=f"a number{unit and f' of {unit}'} from {minimum:g} to {maximum:g}, with at most four decimals",
                received=text,
                remedy=f"Use {key}={minimum:g} to {key}={maximum:g}.",
            )
        return float(number)

    return read


def _one_of(words: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(key: str, text: str) -> str:
        if text not in words:
            near = difflib.get_close_matches(text, words, 1)
            raise BadTransformError(
                f"`{key}` has an unknown value.",
                expected=", ".join(words),
                received=text,
                remedy=f"Did you mean `{near[0]}`?" if near else "Use one of the expected values.",
            )
        return text

    return read


def _either(word: str, read_number: Callable[[str, str], int]) -> Callable[[str, str], int | str]:
    def read(key: str, text: str) -> int | str:
        return word if text == word else read_number(key, text)

    return read


def _flag(key: str, text: str) -> bool:
    return _one_of(("true", "false"))(key, text) == "true"


def _read_focal(key: str, text: str) -> FocalPoint:  # noqa: ARG001 - the signature of all readers
    match [parse_number(part) for part in text.split(":")]:
        case [Decimal() as x, Decimal() as y] if 0 <= x <= 1 and 0 <= y <= 1:
            return FocalPoint(float(x), float(y))
        case _:
            raise BadTransformError(
                "The focal point is not a point of the image.",
                expected="<x>:<y>, each from 0 to 1 with at most four decimals, measured from the top left of the upright image",
                received=text,
                remedy="Use for example gravity=focal:0.3:0.6.",
            )


def _read_gravity(key: str, text: str) -> Gravity:
    if text.startswith("focal:"):
        return _read_focal(key, text.removeprefix("focal:"))
    return _one_of((*COMPASS, *STRATEGIES, "focal:<x>:<y>"))(key, text)


def _read_region(key: str, text: str) -> Region:
    expected = "left, top, width and height of a part within the picture, in whole pixels of the upright original or all four in percent"
    remedy = "Use for example crop=10:20:640:480 or crop=10p:20p:50p:50p."
    parts = text.split(":")
    percent = all(part.endswith("p") for part in parts)
    match [parse_number(part.removesuffix("p") if percent else part) for part in parts]:
        case [Decimal() as left, Decimal() as top, Decimal() as width, Decimal() as height]:
            numbers = (left, top, width, height)
        case _:
            raise _invalid(key, expected, text, remedy)
    most = 100 if percent else 1_000_000
    whole = percent or all(number == int(number) for number in numbers)
    inside = left >= 0 and top >= 0 and width > 0 and height > 0 and left + width <= most and top + height <= most
    if not whole or not inside:
        raise _invalid(key, expected, text, remedy)
    return Region(float(numbers[0]), float(numbers[1]), float(numbers[2]), float(numbers[3]), percent)


def _read_ratio(key: str, text: str) -> Ratio:
    match [parse_number(part) for part in text.split(":")]:
        case [Decimal() as number] if number > 0:
            ratio = Fraction(number)
        case [Decimal() as width, Decimal() as height] if width > 0 and height > 0:
            ratio = Fraction(width) / Fraction(height)
        case _:
            ratio = Fraction(0)
    is_short = max(ratio.numerator, ratio.denominator) <= MAX_RATIO_TERM
    if not Fraction(1, MAX_RATIO) <= ratio <= MAX_RATIO or not is_short:
        raise _invalid(
            key,
            f"<width>:<height>, from 1:{MAX_RATIO} to {MAX_RATIO}:1, and in lowest terms no number above {MAX_RATIO_TERM}",
            text,
            "Use for example ratio=16:9 or ratio=1.91:1.",
        )
    return Ratio(ratio.numerator, ratio.denominator)


def _read_sides(key: str, text: str) -> Sides:
    read = _whole(0, MAX_PAD_PIXELS, "pixels")
    parts = text.split(":")
    if len(parts) > 4:
        raise _invalid(key, "one to four lengths, clockwise from the top as in CSS", text, "Use for example pad=20 or pad=10:20.")
    lengths = [read(key, part) for part in parts]
    top, right = lengths[0], lengths[1] if len(lengths) > 1 else lengths[0]
    bottom = lengths[2] if len(lengths) > 2 else top
    return Sides(top, right, bottom, lengths[3] if len(lengths) > 3 else right)


def _read_background(key: str, text: str) -> str:
    color = text.lower()
    if _SHORT_COLOR.fullmatch(color):
        color = "".join(digit * 2 for digit in color)
    if color != BLUR and _COLOR.fullmatch(color) is None:
        raise _invalid(key, "a color in hexadecimal digits, rrggbb or rrggbbaa, or `blur`", text, "Use for example background=ff8800.")
    return color.removesuffix("ff") if len(color) == 8 else color


def _read_degrees(key: str, text: str) -> float:
    return _decimal(-360, 360, "degrees clockwise")(key, text) % 360


def _read_overlay(key: str, text: str) -> Overlay:
    digest, *rest = text.split(":")
    if not is_digest(digest) or len(rest) > 5:
        raise _invalid(
            key,
            "<digest>[:<gravity>[:<scale>[:<opacity>[:<x>[:<y>]]]]], with the digest of an uploaded image",
            text,
            "Upload the overlay first, and use the digest in its image document.",
        )
    readers: tuple[Callable[[str, str], object], ...] = (
        _one_of(COMPASS),
        _decimal(0.01, 1),
        _decimal(0, 1),
        _whole(-MAX_PAD_PIXELS, MAX_PAD_PIXELS, "pixels"),
        _whole(-MAX_PAD_PIXELS, MAX_PAD_PIXELS, "pixels"),
    )
    values = [read(key, part) for read, part in zip(readers, rest, strict=False)]
    return Overlay(digest, *values)  # type: ignore[arg-type]


def scaled_number(number: float, factor: Fraction) -> float:
    """Return a length times `factor`, rounded to the four decimals of a canonical form."""
    return float(round(Fraction(str(number)) * factor, 4))


def _number_schema(minimum: float, maximum: float, kind: str = "number") -> Mapping[str, object]:
    return {"type": kind, "minimum": minimum, "maximum": maximum}


def _word_schema(words: tuple[str, ...]) -> Mapping[str, object]:
    return {"type": "string", "enum": list(words)}


_LIST_SCHEMA: Mapping[str, object] = {"type": "array", "items": {"type": ["number", "string"]}}
_OVERLAY_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "required": ["digest"],
    "properties": {
        "digest": {"type": "string"},
        "gravity": {**_word_schema(COMPASS), "default": "center"},
        "scale": {**_number_schema(0.01, 1), "default": OVERLAY_SCALE},
        "opacity": {**_number_schema(0, 1), "default": 1},
        "x": {**_number_schema(-MAX_PAD_PIXELS, MAX_PAD_PIXELS, "integer"), "default": 0},
        "y": {**_number_schema(-MAX_PAD_PIXELS, MAX_PAD_PIXELS, "integer"), "default": 0},
    },
}


def _integer(minimum: int, maximum: int, unit: str, text: str, example: int) -> Option:
    return Option(_whole(minimum, maximum, unit), text, _number_schema(minimum, maximum, "integer"), example)


def _number(minimum: float, maximum: float, unit: str, text: str, example: float) -> Option:
    return Option(_decimal(minimum, maximum, unit), text, _number_schema(minimum, maximum), example)


def _word(words: tuple[str, ...], text: str, example: str) -> Option:
    return Option(_one_of(words), text, _word_schema(words), example)


def _boolean(text: str, example: bool) -> Option:
    return Option(_flag, text, {"type": "boolean"}, example)


# In the order of the canonical form, which is the order in which they act; those of the encoder come last.
OPTIONS: Mapping[str, Option] = {
    "frame": _integer(0, MAX_FRAME, "", "The frame of an animation, or the page of a TIFF, to show as a still picture. The first is 0.", 0),
    "animate": _boolean(
        "`true` requires all frames: formats without animation are refused. `false` is the same as `frame=0`. Without `animate` and "
        "`frame`, an animation stays one in avif, webp and gif, and becomes its first frame in other formats. With `lossless` or "
        "`dynamic_range=high`, avif has no animation.",
        False,
    ),
    "crop": Option(
        _read_region,
        "The part to keep: left, top, width and height, in pixels of the upright original, or all four in percent (`10p:20p:50p:50p`, "
        "in JSON also `10%,20%,50%,50%`).",
        {"oneOf": [_LIST_SCHEMA, {"type": "string"}]},
        ["10%", "10%", "80%", "80%"],
    ),
    "trim": _number(
        0,
        255,
        "8-bit levels",
        "Removes borders that differ from the top left pixel by at most this much, 0 to 255; 10 is usual. When a URL is made, it is "
        "replaced by the resulting `crop`.",
        10,
    ),
    "rotate": Option(
        _read_degrees,
        "Degrees to rotate clockwise, -360 to 360. The corners that this opens are transparent, or show the `background`.",
        _number_schema(-360, 360),
        90,
    ),
    "flip": _word(
        FLIPS, "Mirrors the picture after `rotate`: `horizontal` swaps left and right, `vertical` swaps top and bottom.", "horizontal"
    ),
    "width": _integer(
        1,
        MAX_SIDE_PIXELS,
        "pixels",
        f"The width in pixels, 1 to {MAX_SIDE_PIXELS}. Without `height` and `ratio`, the aspect ratio stays the same.",
        640,
    ),
    "height": _integer(
        1,
        MAX_SIDE_PIXELS,
        "pixels",
        f"The height in pixels, 1 to {MAX_SIDE_PIXELS}. Without `width` and `ratio`, the aspect ratio stays the same.",
        480,
    ),
    "ratio": Option(
        _read_ratio,
        f"The shape of the box, width to height, `1:{MAX_RATIO}` to `{MAX_RATIO}:1`, such as `16:9` or `1.91:1` (CSS `aspect-ratio`). "
        "`width` or `height` gives its size; without both, it is the largest such box in the picture, or with `contain` the smallest "
        "around it. `fit` is then `cover` by default, and may be `contain` or `fill`.",
        {"oneOf": [{"type": "string"}, _LIST_SCHEMA, {"type": "number", "minimum": 1 / MAX_RATIO, "maximum": MAX_RATIO}]},
        "16:9",
    ),
    "fit": _word(
        FITS,
        "How the picture fits the box of `width` and `height`, or `ratio`: `inside` (the default: whole, no larger than the box), "
        "`outside` (whole, no smaller than the box), `cover` (fills the box, cropped), `contain` (whole, padded to the box) or `fill` "
        "(stretched to the box).",
        "cover",
    ),
    "gravity": Option(
        _read_gravity,
        "The part that stays when `cover` crops, or the place of the picture in the box of `contain`: "
        f"{', '.join(f'`{anchor}`' for anchor in COMPASS)}. With `cover` also `attention` (faces and subjects), `entropy` (detail) or "
        "`focal:<x>:<y>` (a point, each coordinate from 0 to 1, measured from the top left of the upright original).",
        {"anyOf": [_word_schema((*COMPASS, *STRATEGIES)), {"type": "string", "pattern": "^focal:"}]},
        "attention",
    ),
    "enlarge": _boolean("`true` lets a small picture grow to the requested size. Vector images always do.", True),
    "brightness": _number(0, 4, "", "Multiplies the brightness, 0 to 4; 1 changes nothing (CSS `brightness()`).", 1.2),
    "contrast": _number(0, 4, "", "Multiplies the contrast, 0 to 4; 1 changes nothing (CSS `contrast()`).", 1.1),
    "gamma": _number(0.1, 10, "", "Changes the midtones, 0.1 to 10: above 1 they become lighter, below 1 darker.", 1.5),
    "saturation": _number(0, 4, "", "Multiplies the color saturation, 0 to 4; 1 changes nothing (CSS `saturate()`).", 0.8),
    "grayscale": _boolean("`true` removes all color (CSS `grayscale()`).", True),
    "blur": _number(0.3, 250, "pixels", "Gaussian blur, given by its sigma in pixels of the rendition, 0.3 to 250.", 4),
    "sharpen": _number(
        0.3, 10, "pixels", "Sharpens edges in lightness, given by the sigma in pixels of the rendition, 0.3 to 10; 1 is usual.", 1
    ),
    "overlay": Option(
        _read_overlay,
        "Another uploaded image on top of the picture, `<digest>:<gravity>:<scale>:<opacity>:<x>:<y>`: its digest, a compass direction "
        f"(default `center`), its width as a fraction of the picture's, 0.01 to 1 (default {OVERLAY_SCALE}), its opacity, 0 to 1 "
        "(default 1), and its distance in pixels from the anchor (default 0 and 0).",
        {"oneOf": [_OVERLAY_SCHEMA, {"type": "string"}]},
        {"digest": DIGEST_EXAMPLE, "gravity": "southeast", "scale": 0.2, "opacity": 0.7, "x": 12, "y": 12},
    ),
    "round": Option(
        _either(MAX_RADIUS, _whole(1, MAX_SIDE_PIXELS, "pixels")),
        f"The radius of rounded corners in pixels, 1 to {MAX_SIDE_PIXELS}, or `max`, which makes a square picture a circle.",
        {"oneOf": [_number_schema(1, MAX_SIDE_PIXELS, "integer"), _word_schema((MAX_RADIUS,))]},
        "max",
    ),
    "pad": Option(
        _read_sides,
        f"Pixels to add around the box, 0 to {MAX_PAD_PIXELS}: one length for all sides, or two to four lengths as in CSS.",
        {"oneOf": [_number_schema(0, MAX_PAD_PIXELS, "integer"), _LIST_SCHEMA, {"type": "string"}]},
        [10, 20],
    ),
    "background": Option(
        _read_background,
        "What shows behind the picture: a color in hexadecimal digits, `rrggbb` or `rrggbbaa`, or `blur`, a blurred copy of the picture. "
        "Without it the background is transparent, or white in formats without transparency.",
        {"type": "string"},
        "#ff8800",
    ),
    "profile": _word(
        PROFILES,
        "The color profile: `srgb` (converted to sRGB, no profile embedded), `p3` (converted to Display P3, profile embedded) or `keep` "
        "(the values and the profile of the original).",
        "p3",
    ),
    "dynamic_range": _word(
        DYNAMIC_RANGES,
        "`high` keeps the brightness of an HDR original on screens that can show it, in jxl, avif and jpeg (with a gain map). Other "
        "originals look the same as with `standard`. Only options for size and shape can be used with it.",
        "high",
    ),
    "metadata": _word(
        METADATA,
        "The metadata to keep: `none`, `copyright` (creator, copyright notice, credit and license) or `all` (includes the place where a "
        "photo was taken).",
        "copyright",
    ),
    "quality": Option(
        _either(AUTO, _whole(1, MAX_QUALITY)),
        "1 to 100 on the encoder's own scale, or `auto`, the smallest file that looks like the default quality. png and gif have no "
        "quality.",
        {"oneOf": [_number_schema(1, MAX_QUALITY, "integer"), _word_schema((AUTO,))]},
        "auto",
    ),
    "max_bytes": _integer(
        MIN_BYTES,
        MAX_BYTES,
        "bytes",
        f"The largest size of the file in bytes, {MIN_BYTES} to {MAX_BYTES}. The rendition has the best quality that fits; if none does, "
        "it is refused.",
        50_000,
    ),
    "lossless": _boolean(
        "`true` encodes without any loss, in jxl, webp, avif and png. In jxl, a JPEG whose pixels stay as they are becomes about a fifth "
        "smaller, and can be restored byte by byte.",
        True,
    ),
    "effort": _integer(
        0,
        MAX_EFFORT,
        "",
        f"How hard the encoder tries to make a small file, from 0 (fastest) to {MAX_EFFORT} (smallest). Above 3, avif takes seconds.",
        4,
    ),
    "progressive": _boolean("`true` makes a jxl, jpeg or png appear coarse first, and become sharper while it loads.", True),
}

# Only in the API: resolved when a URL is made.
FOCAL = Option(_read_focal, "The same as `gravity=focal:<x>:<y>`.", {"oneOf": [_LIST_SCHEMA, {"type": "string"}]}, [0.3, 0.6])
DPR = Option(
    _decimal(0.5, 4),
    "The device pixel ratio, 0.5 to 4: multiplies every length in pixels of the rendition, except the sigma of `sharpen`, which is in "
    "pixels of the screen.",
    {**_number_schema(0.5, 4), "default": 1},
    2,
)
API_OPTIONS: Mapping[str, Option] = {**OPTIONS, "focal": FOCAL, "dpr": DPR}

"""Transform: what can be asked of an image; parse and canonical spelling.

A spelling is `key=value` pairs in the declared order, comma-separated, defaults left out; the empty one is `full`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias, get_args

import msgspec

from service.errors import BadTransformError

Fit: TypeAlias = Literal["inside", "outside", "cover", "contain", "fill"]
Compass: TypeAlias = Literal["center", "north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest"]
Strategy: TypeAlias = Literal["attention", "entropy"]
Format: TypeAlias = Literal["avif", "webp", "jpeg", "png"]

FITS: tuple[str, ...] = get_args(Fit)
COMPASS: tuple[str, ...] = get_args(Compass)
STRATEGIES: tuple[str, ...] = get_args(Strategy)
FORMATS: tuple[Format, ...] = get_args(Format)

# The longest side that WebP holds is 16,383; half of it is above any screen and keeps one rendition within a render process's memory.
MAX_SIDE_PIXELS = 8_192
FULL = "full"

_VALUE = re.compile(r"[A-Za-z0-9.:_-]+")


class FocalPoint(msgspec.Struct, frozen=True):
    """A point of the upright image: `x` from the left, `y` from the top, each 0 to 1, at most four decimals."""

    x: float
    y: float


Gravity: TypeAlias = str | FocalPoint


class Transform(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of an image. Nothing is enlarged: where the original is smaller than the box, the box shrinks in proportion.

    width, height: pixels of the upright rendition, 1 to 8192; one alone keeps the aspect ratio.
    fit: with both: `inside` (whole, at most the box), `outside` (whole, at least the box), `cover` (fills the box, cropped),
        `contain` (whole, padded to the box: transparent, or white where the format has no alpha), `fill` (stretched to the box).
    gravity: what stays where something is cut (`cover`) or padded (`contain`): a compass anchor; for `cover` also `attention`, `entropy`
        (libvips smartcrop) or a focal point `focal:<x>:<y>`.
    quality: 1 to 100 on the encoder's own scale; of png, where nothing is lost, no meaning. Without it the default of the pipeline version.
    """

    width: int | None = None
    height: int | None = None
    fit: Fit = "inside"
    gravity: Gravity = "center"
    quality: int | None = None

    @property
    def spelling(self) -> str:
        """The canonical spelling."""
        pairs = [f"{key}={_spell(value)}" for key, value in self.options().items()]
        return ",".join(pairs) or FULL

    def options(self) -> dict[str, int | str | FocalPoint]:
        """Return what differs from the default, by key in the declared order."""
        return {
            field.name: value
            for field in msgspec.structs.fields(self)
            if (value := getattr(self, field.name)) != field.default and value is not None
        }


class Defaults(msgspec.Struct, frozen=True):
    """What a transform leaves out, for one pipeline version."""

    quality: Mapping[Format, int]


# A row is never changed once released: old addresses keep their meaning. A new default is a new version.
DEFAULTS: Mapping[int, Defaults] = {1: Defaults(quality={"avif": 58, "webp": 80, "jpeg": 80, "png": 100})}


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
    return _transform(options)


def parse_canonical(spelling: str) -> Transform:
    """Return the transform of a canonical spelling; raises `BadTransformError` for any other spelling of it too."""
    transform = parse(spelling)
    if transform.spelling != spelling:
        raise BadTransformError(
            "This is not the canonical spelling of the transform.",
            expected=transform.spelling,
            received=spelling,
            remedy="Use the expected spelling: keys in the declared order, defaults left out, numbers in their shortest form.",
        )
    return transform


def from_options(options: Mapping[str, object]) -> Transform:
    """Return the transform of a JSON object's members; raises `BadTransformError`."""
    return _transform({key: _option_text(key, value) for key, value in options.items() if value is not None})


def _option_text(key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadTransformError(
            f"`{key}` has no such type of value.", expected="a number or a string", received=str(value), remedy="See GET /docs."
        )
    return value if isinstance(value, str) else str(value)


def _transform(options: Mapping[str, str]) -> Transform:
    values: dict[str, object] = {}
    for key, text in options.items():
        if key not in _READERS:
            near = difflib.get_close_matches(key, _READERS, 1)
            raise BadTransformError(
                "The transform has an unknown key.",
                expected=", ".join(_READERS),
                received=key,
                remedy=f"Did you mean `{near[0]}`?" if near else "Leave it out, or use one of the keys above.",
            )
        values[key] = _READERS[key](key, text)
    transform = msgspec.convert(values, Transform)
    _check_together(transform)
    return transform


def _check_together(transform: Transform) -> None:
    """Refuse what could not act: an option without effect would give one rendition several addresses."""
    boxed = transform.width is not None and transform.height is not None
    if transform.fit != "inside" and not boxed:
        raise BadTransformError(
            f"`fit={transform.fit}` needs a box.",
            expected="width and height",
            received=transform.spelling,
            remedy="Give both, or leave `fit` out.",
        )
    placeable = {"cover": (*COMPASS, *STRATEGIES, "focal:<x>:<y>"), "contain": COMPASS}.get(transform.fit, ())
    if transform.gravity != "center" and not placeable:
        raise BadTransformError(
            f"`gravity` acts with fit=cover or fit=contain only, not with fit={transform.fit}.",
            expected="fit=cover or fit=contain",
            received=transform.spelling,
            remedy="Leave `gravity` out, or change `fit`.",
        )
    if transform.fit == "contain" and transform.gravity not in COMPASS:
        raise BadTransformError(
            "With fit=contain nothing is cut, so `gravity` can only be a compass anchor.",
            expected=", ".join(COMPASS),
            received=_spell(transform.gravity),
            remedy="Use a compass anchor, or fit=cover.",
        )


def _whole(minimum: int, maximum: int, unit: str) -> Callable[[str, str], int]:
    def read(key: str, text: str) -> int:
        number = _number(text)
        if number is None or number != int(number) or not minimum <= number <= maximum:
            raise BadTransformError(
                f"`{key}` is out of range.",
                expected=f"a whole number of {unit} from {minimum} to {maximum}",
                received=text,
                remedy=f"Use {key}={minimum} to {key}={maximum}.",
            )
        return int(number)

    return read


def _one_of(words: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(key: str, text: str) -> str:
        if text not in words:
            near = difflib.get_close_matches(text, words, 1)
            raise BadTransformError(
                f"`{key}` has an unknown value.",
                expected=", ".join(words),
                received=text,
                remedy=f"Did you mean `{near[0]}`?" if near else "Use one of the values above.",
            )
        return text

    return read


def _read_gravity(key: str, text: str) -> Gravity:
    if not text.startswith("focal:"):
        return _one_of((*COMPASS, *STRATEGIES, "focal:<x>:<y>"))(key, text)
    numbers = [_number(part) for part in text.removeprefix("focal:").split(":")]
    match numbers:
        case [Decimal() as x, Decimal() as y] if 0 <= x <= 1 and 0 <= y <= 1:
            return FocalPoint(float(x), float(y))
        case _:
            raise BadTransformError(
                "The focal point is not a point of the image.",
                expected="focal:<x>:<y>, each 0 to 1 with at most four decimals, from the top left of the upright image",
                received=text,
                remedy="Use for example gravity=focal:0.3:0.6.",
            )


def _number(text: str) -> Decimal | None:
    """Return a plain decimal number with at most four decimals, else `None`: no exponent, no sign, no infinity."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is None:
        return None
    number = Decimal(text)
    return number if number == number.quantize(Decimal("0.0001")) else None


def _spell(value: object) -> str:
    match value:
        case FocalPoint(x=x, y=y):
            return f"focal:{_spell(x)}:{_spell(y)}"
        case float():
            return f"{value:.4f}".rstrip("0").rstrip(".")
        case _:
            return str(value)


_READERS: Mapping[str, Callable[[str, str], object]] = {
    "width": _whole(1, MAX_SIDE_PIXELS, "pixels"),
    "height": _whole(1, MAX_SIDE_PIXELS, "pixels"),
    "fit": _one_of(FITS),
    "gravity": _read_gravity,
    "quality": _whole(1, 100, "steps on the encoder's scale"),
}

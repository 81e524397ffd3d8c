"""What is arguments of images: transforms that are right, nearly right and wrong, in addresses that are signed, and bodies for the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

from service.images.options import OPTIONS

Writer: TypeAlias = Callable[[Random, Sequence[str]], str]

EXTENSIONS = ("webp", "webp", "jpg", "png", "gif", "avif", "auto")
_ANCHORS = ("center", "north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
_ODD = (
    "",
    "-",
    "0",
    "-1",
    "1e3",
    "0.00001",
    "99999999999",
    "nan",
    "true",
    "max",
    "auto",
    "a:b",
    "1:2:3:4:5:6:7",
    "x" * 300,
    "focal:2:2",
    "100p:0:1:1",
    "ffffffffff",
    "%00",
)


def _whole(*choices: int) -> Writer:
    return lambda chance, _: str(chance.choice(choices) if chance.random() < 0.7 else chance.randrange(1, 400))


def _decimal(minimum: float, maximum: float) -> Writer:
    return lambda chance, _: (
        f"{chance.choice((minimum, maximum, round(chance.uniform(minimum, maximum), chance.randrange(5)))):.4f}".rstrip("0").rstrip(".")
    )


def _word(*words: str) -> Writer:
    return lambda chance, _: chance.choice(words)


def _crop(chance: Random, _: Sequence[str]) -> str:
    if chance.random() < 0.5:
        left, top = chance.randrange(100), chance.randrange(100)
        return f"{left}p:{top}p:{chance.randrange(1, 101 - left)}p:{chance.randrange(1, 101 - top)}p"
    return ":".join(str(chance.choice((0, 1, 2, 10, 59, 100, 1_000, 999_999))) for _ in range(4))


def _overlay(chance: Random, digests: Sequence[str]) -> str:
    digest = chance.choice(digests)
    parts = [
        digest,
        chance.choice(_ANCHORS),
        chance.choice(("0.01", "0.25", "1")),
        chance.choice(("0", "0.5", "1")),
        *(str(chance.choice((0, 1, -7, 4096))) for _ in range(2)),
    ]
    return ":".join(parts[: chance.randrange(1, 7)])


_WRITERS: dict[str, Writer] = {
    "frame": _whole(0, 0, 1, 2, 9_999),
    "animate": _word("true", "false"),
    "crop": _crop,
    "trim": _decimal(0, 255),
    "rotate": _decimal(0, 359),
    "flip": _word("horizontal", "vertical"),
    "width": _whole(1, 2, 64, 100, 640),
    "height": _whole(1, 2, 64, 100, 640),
    "fit": _word("cover", "contain", "outside", "fill"),
    "gravity": _word(*_ANCHORS, "attention", "entropy", "focal:0.3:0.6", "focal:0:1"),
    "enlarge": _word("true"),
    "brightness": _decimal(0, 4),
    "contrast": _decimal(0, 4),
    "gamma": _decimal(0.1, 10),
    "saturation": _decimal(0, 4),
    "grayscale": _word("true"),
    "blur": _decimal(0.3, 250),
    "sharpen": _decimal(0.3, 10),
    "overlay": _overlay,
    "round": _whole(1, 8, 8_192),
    "pad": _word("1", "10:20", "0:0:0:7", "1:2:3", "300"),
    "background": _word("ff8800", "00000000", "ff880080", "blur"),
    "profile": _word("p3", "keep"),
    "metadata": _word("copyright", "all"),
    "quality": _word("1", "50", "100", "auto"),
    "max_bytes": _word("128", "1000", "20000", "67108864"),
    "lossless": _word("true"),
    "effort": _word("0", "1", "3"),
    "progressive": _word("true"),
}


def spelling(chance: Random, digests: Sequence[str]) -> str:
    """Return a transform: some options, most with values that are right, most in the order of the canonical spelling.

    `digests` are those that an overlay may name.
    """
    keys = set(chance.sample(list(OPTIONS), chance.choice((1, 2, 3, 4, 6, 10))))
    keys |= {"width", "height"} if keys & {"fit", "gravity"} and chance.random() < 0.9 else set()
    # Without a side the rendition is as large as the original: seldom, it only takes time.
    keys |= {"width"} if chance.random() < 0.9 else set()
    ordered = [key for key in OPTIONS if key in keys]
    if chance.random() < 0.05:
        chance.shuffle(ordered)
    pairs = [f"{key}={chance.choice(_ODD) if chance.random() < 0.03 else _WRITERS[key](chance, digests)}" for key in ordered]
    text = ",".join(pairs)
    if chance.random() < 0.05:
        text = chance.choice(
            (
                text + ",",
                text.upper(),
                text + "," + pairs[0],
                "full",
                "full," + text,
                "x=1," + text,
                text.replace("=", ":"),
                "," * 300,
                text * 40,
            )
        )
    return text


def api_body(chance: Random, digests: Sequence[str]) -> object:
    """Return a JSON value for one of the routes that take one, most of it of the right shape."""
    options: dict[str, object] = {}
    for pair in spelling(chance, digests).split(","):
        key, _, value = pair.partition("=")
        options[key] = float(value) if value.replace(".", "", 1).isdigit() and len(value) < 9 and chance.random() < 0.7 else value
    wanted: dict[str, object] = {"transform": options}
    extras: dict[str, Callable[[], object]] = {
        "format": lambda: chance.choice(("webp", "avif", "jpeg", "png", "gif", "jpg", "", "svg", 3)),
        "formats": lambda: [chance.choice(("webp", "avif", "jpeg", "png", "gif", "x")) for _ in range(chance.choice((0, 1, 2, 9, 500)))],
        "widths": lambda: [chance.choice((1, 100, 320, 8_192, 0, -1, 1 << 40)) for _ in range(chance.choice((0, 1, 3, 40, 3_000)))],
        "sizes": lambda: chance.choice(("100vw", '"><script>', "x" * 5_000, "\ud800", 5)),
        "alt": lambda: chance.choice(("A panda", "<&'\"", "\0", None, "x" * 3_000)),
        "variant": lambda: chance.choice(("card", "none", "", "x" * 500)),
        "focal": lambda: chance.choice(([0.3, 0.6], [2, 2], [0.3], None, "0.3:0.6", [1e-9, 1])),
        "url": lambda: chance.choice(
            ("https://example.invalid/a.jpg", "file:///etc/passwd", "http://127.0.0.1:1/", "x", "https://[::1]/", "\ud800", 1)
        ),
        "digests": lambda: [chance.choice((*digests, "a" * 32, "A" * 32, "", 5)) for _ in range(chance.choice((0, 1, 5, 1_001)))],
        "unknown": lambda: [[[[]]]] * 50,
    }
    for name in chance.sample(list(extras), chance.choice((0, 1, 1, 2, 4))):
        wanted[name] = extras[name]()
    if chance.random() < 0.5:
        # One key alone: what the other routes take.
        name = chance.choice(list(wanted))
        return {name: wanted[name]}
    return wanted if chance.random() < 0.95 else chance.choice(([], None, "x", [wanted], {"transform": wanted}))

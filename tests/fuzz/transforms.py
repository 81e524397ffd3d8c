"""Random transforms for signed URLs, most of them valid or nearly valid, and random JSON bodies for the API."""

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
    return lambda rng, _: str(rng.choice(choices) if rng.random() < 0.7 else rng.randrange(1, 400))


def _decimal(minimum: float, maximum: float) -> Writer:
    return lambda rng, _: f"{rng.choice((minimum, maximum, round(rng.uniform(minimum, maximum), rng.randrange(5)))):.4f}".rstrip(
        "0"
    ).rstrip(".")


def _word(*words: str) -> Writer:
    return lambda rng, _: rng.choice(words)


def _crop(rng: Random, _: Sequence[str]) -> str:
    if rng.random() < 0.5:
        left, top = rng.randrange(100), rng.randrange(100)
        return f"{left}p:{top}p:{rng.randrange(1, 101 - left)}p:{rng.randrange(1, 101 - top)}p"
    return ":".join(str(rng.choice((0, 1, 2, 10, 59, 100, 1_000, 999_999))) for _ in range(4))


def _overlay(rng: Random, digests: Sequence[str]) -> str:
    digest = rng.choice(digests)
    parts = [
        digest,
        rng.choice(_ANCHORS),
        rng.choice(("0.01", "0.25", "1")),
        rng.choice(("0", "0.5", "1")),
        *(str(rng.choice((0, 1, -7, 4096))) for _ in range(2)),
    ]
    return ":".join(parts[: rng.randrange(1, 7)])


_WRITERS: dict[str, Writer] = {
    "frame": _whole(0, 0, 1, 2, 9_999),
    "animate": _word("true", "false"),
    "crop": _crop,
    "trim": _decimal(0, 255),
    "rotate": _decimal(0, 359),
    "flip": _word("horizontal", "vertical"),
    "width": _whole(1, 2, 64, 100, 640),
    "height": _whole(1, 2, 64, 100, 640),
    "ratio": _word("1:1", "16:9", "9:16", "191:100", "100:1", "1:100", "32:18", "0:1", "1:1000001"),
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
    "dynamic_range": _word("high"),
    "metadata": _word("copyright", "all"),
    "quality": _word("1", "50", "100", "auto"),
    "max_bytes": _word("128", "1000", "20000", "67108864"),
    "lossless": _word("true"),
    "effort": _word("0", "1", "3"),
    "progressive": _word("true"),
}


def random_transform(rng: Random, digests: Sequence[str]) -> str:
    """Return a transform as text: several options, mostly with valid values, and mostly in canonical order.

    `digests`: images that an overlay may use.
    """
    keys = set(rng.sample(list(OPTIONS), rng.choice((1, 2, 3, 4, 6, 10))))
    keys |= {"width", rng.choice(("height", "ratio"))} if keys & {"fit", "gravity"} and rng.random() < 0.9 else set()
    keys -= {"height"} if "ratio" in keys and rng.random() < 0.9 else set()
    # Without a width the rendition is as large as the original. That is tried rarely, because it mostly takes time.
    keys |= {"width"} if rng.random() < 0.9 else set()
    ordered = [key for key in OPTIONS if key in keys]
    if rng.random() < 0.05:
        rng.shuffle(ordered)
    pairs = [f"{key}={rng.choice(_ODD) if rng.random() < 0.03 else _WRITERS[key](rng, digests)}" for key in ordered]
    text = ",".join(pairs)
    if rng.random() < 0.05:
        text = rng.choice(
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


def random_api_body(rng: Random, digests: Sequence[str]) -> object:
    """Return a JSON value for one of the routes that accept JSON, mostly with the fields and types that they expect."""
    options: dict[str, object] = {}
    for pair in random_transform(rng, digests).split(","):
        key, _, value = pair.partition("=")
        options[key] = float(value) if value.replace(".", "", 1).isdigit() and len(value) < 9 and rng.random() < 0.7 else value
    wanted: dict[str, object] = {"transform": options}
    extras: dict[str, Callable[[], object]] = {
        "format": lambda: rng.choice(("webp", "avif", "jpeg", "png", "gif", "jpg", "", "svg", 3)),
        "formats": lambda: [rng.choice(("webp", "avif", "jpeg", "png", "gif", "x")) for _ in range(rng.choice((0, 1, 2, 9, 500)))],
        "widths": lambda: [rng.choice((1, 100, 320, 8_192, 0, -1, 1 << 40)) for _ in range(rng.choice((0, 1, 3, 40, 3_000)))],
        "sizes": lambda: rng.choice(("100vw", "auto, 100vw", "auto", '"><script>', "\r\nSet-Cookie: a=b", "x" * 5_000, "\ud800", 5)),
        "alt": lambda: rng.choice(("A panda", "<&'\"", "\0", None, "x" * 3_000)),
        "name": lambda: rng.choice((True, False, None, "panda", "写真_1", "../x", "a.b", "e\u0301", "a\0b", "\ud800", "", "x" * 3_000, 5)),
        "priority": lambda: rng.choice((True, False, None, "high", 1)),
        "art_direction": lambda: [
            {
                "media": rng.choice(("(max-width: 40em)", "(a) and (not (b))", "screen", '(a)"><script>', "(" * 200, "", "\0", 5)),
                "transform": rng.choice((options, {"ratio": "1:1"}, {}, None)),
                **rng.choice(({}, {"digest": rng.choice((*digests, "a" * 32))}, {"sizes": "\ud800"}, {"unknown": 1})),
            }
            for _ in range(rng.choice((0, 1, 2, 7, 500)))
        ],
        "variant": lambda: rng.choice(("card", "none", "", "x" * 500)),
        "focal": lambda: rng.choice(([0.3, 0.6], [2, 2], [0.3], None, "0.3:0.6", [1e-9, 1])),
        "url": lambda: rng.choice(
            ("https://example.invalid/a.jpg", "file:///etc/passwd", "http://127.0.0.1:1/", "x", "https://[::1]/", "\ud800", 1)
        ),
        "source": lambda: rng.choice(("cms", "CMS", "", "x" * 500, 1)),
        "path": lambda: rng.choice(("a.jpg", "ö/a b.jpg", "../a.jpg", "a//b", "%2e%2e/a", "a\0b", "", "\ud800", "ö" * 3_000, 1)),
        "digests": lambda: [rng.choice((*digests, "a" * 32, "A" * 32, "", 5)) for _ in range(rng.choice((0, 1, 5, 1_001)))],
        "unknown": lambda: [[[[]]]] * 50,
    }
    for name in rng.sample(list(extras), rng.choice((0, 1, 1, 2, 4))):
        wanted[name] = extras[name]()
    if rng.random() < 0.5:
        # An object with one key, as some of the routes expect it.
        name = rng.choice(list(wanted))
        return {name: wanted[name]}
    return wanted if rng.random() < 0.95 else rng.choice(([], None, "x", [wanted], {"transform": wanted}))

"""URLs of renditions without a valid signature that a stranger may try: none of them may be rendered."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias
from urllib.parse import quote

import msgspec

from service.images.ladder import LADDER_WIDTHS
from tests.vectors.make import LATER_TRANSFORMS, NOT_NAMES, NOT_PATHS, OTHER_SPELLINGS, TRANSFORMS, WORDS

_BASE32 = string.ascii_lowercase + "234567"
_OPEN_EXTENSIONS = ("jxl", "avif", "webp", "jpg", "auto")
# Of the vectors, those that HTTP clients can send.
_NOT_NAMES = [name for name in NOT_NAMES if name and name.isascii() and " " not in name]

# The file names of objects that are not in the source begin with it.
MISSING = "missing"
# The one fault for which a source is requested.
FETCHING_FAULT = "an object that a source does not have"


class HostileUrl(msgspec.Struct, frozen=True):
    """The path of a request, what is wrong with it, and the statuses that the response may have."""

    path: str
    fault: str
    statuses: frozenset[int]


class Target(msgspec.Struct, frozen=True):
    """What a stranger knows: the digest of a photo and its name, that of another image, which has no name, and the name of a source.

    widths: of the open ladder.
    """

    digest: str
    name: str
    nameless: str
    source: str
    widths: tuple[int, ...]


_Maker: TypeAlias = Callable[[random.Random, Target], str]


def hostile_urls(rng: random.Random, target: Target, count: int) -> Iterator[HostileUrl]:
    """Yield so many URLs, every kind of fault equally often, in random order."""
    for _ in range(count):
        fault = rng.choice(list(_FAULTS))
        statuses, make = _FAULTS[fault]
        yield HostileUrl(make(rng, target), fault, statuses)


def _closed_width(rng: random.Random, target: Target) -> int:
    """Return a width of no step."""
    return rng.choice([width for width in (rng.randint(1, 8_192), *LADDER_WIDTHS, 641, 1) if width not in target.widths])


def _open(rng: random.Random, target: Target, end: str = "", *, digest: str = "", signature: str = "-", extension: str = "") -> str:
    transform = f"width={rng.choice(target.widths)}"
    return f"/i/v3/{digest or target.digest}/{transform}/{signature}{end}.{extension or rng.choice(_OPEN_EXTENSIONS)}"


def _closed_transform(rng: random.Random, target: Target) -> str:
    width = _closed_width(rng, target)
    transform = rng.choice(
        (f"width={width}", f"height={width}", f"width={rng.choice(target.widths)},blur={width % 90 + 1}", *TRANSFORMS[6:])
    )
    name = rng.choice(("", f"/{quote(target.name)}", "/boat"))
    return f"/i/v{rng.choice((1, 2, 3))}/{rng.choice((target.digest, target.nameless))}/{transform}/-{name}.{rng.choice(_OPEN_EXTENSIONS)}"


def _misspelled_transform(rng: random.Random, target: Target) -> str:
    width = rng.choice(target.widths)
    spellings = (
        f"width=0{width}",
        f"width={width}.0",
        f"WIDTH={width}",
        f"width={width},width={width}",
        f"width={width},fit=inside",
        "width=",
    )
    return f"/i/v3/{target.digest}/{rng.choice(spellings)}/-.{rng.choice(_OPEN_EXTENSIONS)}"


def _word(rng: random.Random) -> str:
    return quote("-".join(rng.choices(WORDS, k=rng.randint(1, 3))), safe="")


def _signature(rng: random.Random) -> str:
    return "".join(rng.choices(_BASE32, k=26))


def _respelled(rng: random.Random, target: Target) -> str:
    """Return the name with some characters percent-encoded that need not be, or with lower-case digits."""
    spelled = quote(target.name, safe="")
    at = rng.choice([index for index, character in enumerate(target.name) if character.isascii()])
    over = quote(target.name[:at], safe="") + f"%{ord(target.name[at]):02X}" + quote(target.name[at + 1 :], safe="")
    return rng.choice((over, spelled.lower() if "%" in spelled else over))


def _forged(rng: random.Random, target: Target) -> str:
    transform = rng.choice((*TRANSFORMS, *LATER_TRANSFORMS))
    return f"/i/v3/{target.digest}/{transform}/{_signature(rng)}{rng.choice(('', '/boat'))}.{rng.choice(_OPEN_EXTENSIONS)}"


def _in_source(rng: random.Random, target: Target, path: str, transform: str = "", signature: str = "-") -> str:
    transform = transform or f"width={rng.choice(target.widths)}"
    return f"/from/{target.source}/{path}/{transform}/{signature}.{rng.choice(_OPEN_EXTENSIONS)}"


def _missing(rng: random.Random) -> str:
    """Return the path of an object that is not in the source, hardly ever the same one twice."""
    return f"{rng.choice(('', 'folder/'))}{MISSING}-{_word(rng)}-{rng.randint(0, 99_999)}.jpg"


_FAULTS: Mapping[str, tuple[frozenset[int], _Maker]] = {
    "a transform that is not open": (frozenset({403}), _closed_transform),
    "another spelling of an open transform": (frozenset({400, 403}), _misspelled_transform),
    "an open transform in an earlier version": (
        frozenset({403}),
        lambda rng, target: _open(rng, target).replace("/v3/", rng.choice(("/v1/", "/v2/"))),
    ),
    "a format in which this image is not open": (
        frozenset({403}),
        lambda rng, target: _open(rng, target, rng.choice(("", "/boat")), extension=rng.choice(("png", "gif"))),
    ),
    "an image that is not here": (
        frozenset({404}),
        lambda rng, target: _open(rng, target, rng.choice(("", "/boat")), digest="".join(rng.choices(_BASE32, k=32))),
    ),
    "another name": (frozenset({308}), lambda rng, target: _open(rng, target, f"/{_word(rng)}")),
    "a name where there is none": (frozenset({308}), lambda rng, target: _open(rng, target, f"/{_word(rng)}", digest=target.nameless)),
    "another spelling of the name": (frozenset({308}), lambda rng, target: _open(rng, target, f"/{_respelled(rng, target)}")),
    "something that is no name": (frozenset({400}), lambda rng, target: _open(rng, target, f"/{rng.choice(_NOT_NAMES)}")),
    "a query": (frozenset({308}), lambda rng, target: f"{_open(rng, target)}?{_word(rng)}={rng.randint(0, 9_999)}"),
    "a forged signature": (frozenset({403}), _forged),
    "another path": (
        frozenset({400}),
        lambda rng, target: _open(rng, target).replace("/", "//", 1 + rng.randint(1, 4))[: rng.randint(40, 90)] + "/",
    ),
    "a transform that is not open, in a source": (
        frozenset({403}),
        lambda rng, target: _in_source(rng, target, _missing(rng), f"width={_closed_width(rng, target)}"),
    ),
    "a forged signature, in a source": (
        frozenset({403}),
        lambda rng, target: _in_source(rng, target, _missing(rng), rng.choice(TRANSFORMS), _signature(rng)),
    ),
    "a path that leads out of a source": (frozenset({400}), lambda rng, target: _in_source(rng, target, rng.choice(NOT_PATHS))),
    "another spelling of a path in a source": (
        frozenset({308}),
        lambda rng, target: _in_source(rng, target, rng.choice(list(OTHER_SPELLINGS))),
    ),
    "a query, in a source": (frozenset({308}), lambda rng, target: f"{_in_source(rng, target, _missing(rng))}?{_word(rng)}"),
    "a source that is not configured": (
        frozenset({404}),
        lambda rng, target: _in_source(rng, target, _missing(rng)).replace(target.source, rng.choice(("other", "a", target.source + "-2"))),
    ),
    FETCHING_FAULT: (frozenset({404}), lambda rng, target: _in_source(rng, target, _missing(rng))),
}

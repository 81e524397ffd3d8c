"""The targets: one for each row of the report, in its order. docs/benchmarks.md has a row for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tests.bench.sides import SAME_CALLS, THUMBNAIL, WHOLE_REDUCTION

# The bare limits that are not sides.
BARE_ASGI, BARE_RSGI, BARE_START, BARE_LOOP = "bare ASGI", "bare RSGI", "bare start", "bare loop"
IDLE, SEPARATE_RENDERS, FROM_ORIGINAL, COLD_RENDER, FEWER_RENDERS = (
    "idle", "separate renders", "from the original", "a cold render", "after fewer renders",
)  # fmt: skip

# The ladders and the later renditions that are measured.
LADDERS = {
    "ladder to 1280 of a camera's JPEG": 0.48,
    "ladder to 2560 of a camera's JPEG": 0.48,
    "ladder to 2560 of a 24 Mpixel JPEG": 0.48,
    "ladder to 2560 of a 24 Mpixel PNG": 0.20,
    "ladder to 2560 of a 24 Mpixel PNG as warmed": 0.20,
}
LATER = tuple(
    f"later {image_format} of {original}"
    for original in ("a 24 Mpixel PNG", "a progressive JPEG", "a HEIC")
    for image_format in ("webp", "jpeg")
)


class Target(msgspec.Struct, frozen=True):
    """A row of the report.

    name: of the row. unit: of its figures.
    limit: what is to be reached, `None` where the figure is only reported.
    against: the bare limit that is measured beside it, "" if there is none.
    is_ratio: whether our figure is divided by that of `against` before it is compared with `limit`.
    at_most: whether `limit` is the highest value that is good, not the lowest.
    once: whether one figure is enough for a verdict, because it is counted, or is the sum of a long run.
    basis: the origin of the limit, or what is measured, as a phrase.
    """

    name: str
    unit: str
    limit: float | None = None
    against: str = ""
    is_ratio: bool = True
    at_most: bool = True
    once: bool = False
    basis: str = ""

    @property
    def is_on_clock(self) -> bool:
        """Whether it is a time on the clock or a throughput, which depends on the other work of the machine."""
        return self.unit in {"ms", "/s"} and "CPU" not in self.name


def _times(name: str, limit: float | None, against: str, basis: str, cpu_limit: float | None = None) -> Iterator[Target]:
    """Yield the rows of a rendition: median time and CPU time."""
    yield Target(f"{name}, p50", "ms", limit, against, basis=basis)
    yield Target(f"{name}, CPU", "ms", cpu_limit, against)


_PSS = "proportional set size of all processes"
# The other server whose files are the smallest at the same score.
SMALLEST_PEERS = {"WebP": "sharp", "JPEG": "Next.js", "AVIF": "Next.js"}
_AT_A_SCORE = "SSIMULACRA2 75, medians of several photos; with `make bench PEERS=folder`"

TARGETS: tuple[Target, ...] = (
    Target("hit, CPU per request", "µs", 1.10, BARE_ASGI, basis="bare: an ASGI function that sends the same response"),
    Target("hit 304, CPU per request", "µs", 1.05, BARE_ASGI, basis="bare: an ASGI function that sends the same response"),
    Target("hit among many entries, CPU per request", "µs", 1.10, BARE_ASGI, basis="bare: the same bodies in a dict"),
    Target("hit p99 while AVIF is made", "ms", 2, IDLE, basis="on the same server"),
    *_times("cold → WebP 640", 1.06, WHOLE_REDUCTION, "85 ms where libvips took 80"),
    *_times("cold → JPEG 640", 1.05, WHOLE_REDUCTION, "58 ms where libvips took 55"),
    *_times("cold → AVIF 640", 1.10, THUMBNAIL, "160 ms where libvips took 145 at effort 0"),
    *_times("cold → smart crop 400²", 0.98, THUMBNAIL, "80 ms where libvips took 82"),
    *_times("cold → 24 Mpixel PNG", 0.25, THUMBNAIL, "a render from the original"),
    *_times("cold → 24 Mpixel progressive JPEG", 0.25, THUMBNAIL, "a render from the original"),
    *_times("miss, what the server adds", 1.05, SAME_CALLS, "WebP 640, against the same calls of libvips, same file", cpu_limit=1.05),
    Target("renders per second, 4 clients", "/s", 0.89, WHOLE_REDUCTION, at_most=False, basis="22 where libvips made 24.7"),
    Target("renders per second, against the same calls", "/s", 0.93, SAME_CALLS, at_most=False, basis="libvips in a thread per core"),
    *(Target(f"bytes at the same score, {name}", "kB", 1, peer, basis=_AT_A_SCORE) for name, peer in SMALLEST_PEERS.items()),
    Target("many clients of one cold rendition, renders", "", 1, once=True, basis="by the originals read and by the responses"),
    Target("200 clients of one cold rendition, CPU", "renders", once=True, basis="CPU of all responses, divided by that of one render"),
    *(Target(f"{name}, {part}", "ms", limit, SEPARATE_RENDERS) for name, limit in LADDERS.items() for part in ("time", "CPU")),
    *(Target(f"{name}, {part}", "ms", 0.25, FROM_ORIGINAL) for name in LATER for part in ("time", "CPU")),
    Target("first view of a warmed rendition, p50", "ms", 5, COLD_RENDER, is_ratio=False, basis="WebP 640 of the same photo"),
    Target("renders at first views of a warmed ladder", "", 0, once=True),
    Target("100 images pushed", "/s", 0.9, BARE_LOOP, at_most=False, basis="`darkroom push` against a loop that only posts"),
    Target("upload of a camera's JPEG, CPU", "ms", basis="with its placeholder and its intermediate, without a ladder"),
    Target("hostile URL, CPU, mean", "ms", 2, once=True),
    Target("hostile URL, CPU, costliest kind", "ms", 2, once=True),
    Target("object that a source does not have, CPU", "ms", once=True, basis="with the request to the bucket"),
    Target("memory, idle", "MB", 90, BARE_START, is_ratio=False, once=True, basis=f"{_PSS}; bare: Litestar on Granian with pyvips"),
    Target("memory after varied renders", "MB", 350, once=True, basis=_PSS),
    Target("memory after very many varied renders", "MB", 450, once=True, basis=_PSS),
    Target("memory after very many, less cached bodies", "MB", 1.10, FEWER_RENDERS, once=True),
    Target("peak of one 100 Mpixel render", "MB", 150, once=True, basis="highest resident memory of its process"),
    Target("start to 200 on /health", "ms", 0.58, BARE_START, basis="0.35 s where a bare Litestar on Granian with pyvips took 0.60"),
    Target("start, CPU until then", "ms", None, BARE_START, basis="without the render processes, which start meanwhile"),
    Target("renders per hour with an eighth of a core", "/h", once=True, basis="a control group with 10 ms in 80; hits go on"),
)  # fmt: skip

_BY_NAME = {target.name: target for target in TARGETS}


def target(name: str) -> Target:
    """Return the target of a row; raises `KeyError` if there is none."""
    return _BY_NAME[name]


def limit_text(of: Target) -> str:
    """Return a target as the tables show it."""
    if of.limit is None:
        return "–"
    unit = "" if of.is_ratio and of.against else of.unit
    return f"{'≤' if of.at_most else '≥'} {of.limit:g} {unit}".rstrip()

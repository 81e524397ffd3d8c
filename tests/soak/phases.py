"""The schedule of a soak: what fails when, and which responses that permits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

# `quiet`: nothing fails but what the visitors themselves do wrong. `killed renders`: render processes are killed with SIGKILL.
# `failing store`: one request in five to the store fails, and each takes longer. `store outage`: the store refuses connections.
# `overload`: many more renditions are requested than can be rendered.
Disturbance: TypeAlias = Literal["quiet", "killed renders", "failing store", "store outage", "overload"]
DISTURBANCES: tuple[Disturbance, ...] = get_args(Disturbance)

# What a request needs of the server beyond its memory.
Need: TypeAlias = Literal["store", "renders"]

ROUNDS = 3

# The parts of a round. The last one is quiet for a quarter of it, so that memory is measured under the same load each time.
_ROUND: Sequence[tuple[Disturbance, float]] = (
    ("quiet", 0.10),
    ("killed renders", 0.15),
    ("quiet", 0.05),
    ("failing store", 0.10),
    ("store outage", 0.10),
    ("quiet", 0.15),
    ("overload", 0.10),
    ("quiet", 0.25),
)

# How long the effects of a disturbance may last after its end, in seconds: the store is found again within 10 s (promise 12), a render
# process starts within seconds, and the queue of an overload has to be worked off.
_RECOVERY_SECONDS: dict[Disturbance, float] = {
    "quiet": 0.0,
    "killed renders": 5.0,
    "failing store": 10.0,
    "store outage": 10.0,
    "overload": 15.0,
}

_PERMITTED: dict[Disturbance, dict[Need, frozenset[str]]] = {
    "quiet": {},
    "killed renders": {"renders": frozenset({"500 render-failed"})},
    "failing store": {"store": frozenset({"503 storage-unavailable"})},
    "store outage": {"store": frozenset({"503 storage-unavailable"})},
    "overload": {"renders": frozenset({"503 overloaded"})},
}

# On a machine that has other work, renders are too slow at any time, and recovery takes so many times as long.
_BUSY_PERMITTED: dict[Need, frozenset[str]] = {"renders": frozenset({"503 overloaded", "503 deadline-exceeded"})}
_BUSY_SLOWNESS = 12.0


class Phase(msgspec.Struct, frozen=True):
    """A disturbance, and how many seconds it lasts."""

    disturbance: Disturbance
    seconds: float


class Span(msgspec.Struct, frozen=True):
    """A phase within a schedule: when it begins and ends, in seconds since the beginning of the load."""

    disturbance: Disturbance
    begins: float
    ends: float

    def recovered(self, slowness: float) -> float:
        """Return when its effects must have ended on a machine that is slower by a factor."""
        return self.ends + slowness * _RECOVERY_SECONDS[self.disturbance]


def rounds(seconds: float, disturbances: Iterable[Disturbance] = DISTURBANCES) -> list[Phase]:
    """Return three equal rounds of `disturbances`, which take `seconds` together; the others are replaced with quiet.

    What is measured at the end of the first round is at one third of the run, and all disturbances have come once by then.
    """
    chosen = {"quiet", *disturbances}
    return [
        Phase(disturbance if disturbance in chosen else "quiet", seconds * share / ROUNDS)
        for _ in range(ROUNDS)
        for disturbance, share in _ROUND
    ]


class Schedule:
    """Phases one after the other."""

    def __init__(self, phases: Iterable[Phase], *, is_busy: bool = False) -> None:
        """Schedule `phases`.

        is_busy: whether the machine may have other work, so that renders may be refused or too slow at any time, and recovery takes longer.
        """
        self.spans: list[Span] = []
        self.is_busy = is_busy
        self._slowness = _BUSY_SLOWNESS if is_busy else 1.0
        self._always: Mapping[Need, frozenset[str]] = _BUSY_PERMITTED if is_busy else {}
        begins = 0.0
        for phase in phases:
            self.spans.append(Span(phase.disturbance, begins, begins + phase.seconds))
            begins += phase.seconds
        self.seconds = begins

    def disturbance(self, at: float) -> Disturbance:
        """Return what is disturbed at a time, in seconds since the beginning."""
        return next((span.disturbance for span in self.spans if span.begins <= at < span.ends), "quiet")

    def permitted(self, needs: Iterable[Need], begins: float, ends: float) -> frozenset[str]:
        """Return the outcomes that disturbances permit for a request with these needs that is sent and responded to at these times."""
        current = [span for span in self.spans if span.begins <= ends and begins <= span.recovered(self._slowness)]
        found: set[str] = set()
        for need in needs:
            found |= self._always.get(need, frozenset())
            for span in current:
                found |= _PERMITTED[span.disturbance].get(need, frozenset())
        return frozenset(found)

    def was_in_danger(self, since: float, until: float) -> bool:
        """Return whether render processes were killed between these times, so that an image that existed then may be blamed."""
        return any(
            span.disturbance == "killed renders" and span.begins <= until and since <= span.recovered(self._slowness) for span in self.spans
        )

"""The queue for slots: which job is admitted, which gets the next free slot, and when a client that is refused should come back.

Everything is counted in seconds of work, as `cost` estimates them. A job that is admitted takes a `Place`, which counts as work ahead of
later ones from that moment on, although its files may not be open yet.

**Admission.** A job is admitted if a slot is free for it. Otherwise its expected end, which is when the work ahead of it and its own will
be done, must lie within `_ADMITTED_SHARE` of the time that its client waits: estimates err, and a job that ends too late costs the slots
as much as one that ends in time. A job that takes longer than that by itself is admitted only if a slot is free.

**Order.** There are two lanes, renditions and uploads, and in each lane the jobs of every client (`current_client`) have a queue of their
own, first come, first served. While jobs of both lanes wait, the lane that has had less work done gets the next slot, and in the lane the
client that has had less work done: nobody starves others, however many jobs one client has. This is fair queueing with the estimates as
lengths of packets (A. Demers, S. Keshav and S. Shenker, "Analysis and simulation of a fair queueing algorithm", SIGCOMM 1989). A client
that has not waited before is taken to have had as much work done as one that has always waited, so that a crowd of new clients is served
in the order in which it comes. Jobs that have waited for most of the time that their client waits come before all others, and those whose
start has become so late that they would end after their client has left are dropped when they should have started: admitted work is
rarely late, but an estimate can be wrong, and other clients can come.

**Retry-After** is the time until the same request would be admitted. Clients that are refused one after another are not all called back
for the same moment: each return is given the time that its work needs, and the next client a later one. A part of the slots
is left for clients that come for the first time (`_RETURNING_SHARE`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

import anyio

from service import instruments
from service.concurrency.current_client import current_client
from service.errors import OverloadedError
from service.rendering.cost import CostModel, Work

Lane: TypeAlias = Literal["renditions", "uploads"]

# Why a job is refused: too many wait, it is not expected to end in time, or it has waited until it was too late to start.
Refusal: TypeAlias = Literal["full", "late", "expired"]

# The part of the time that clients wait which an admitted job may be expected to take until it ends.
_ADMITTED_SHARE = 0.7

# With this part of that time left, a job comes before those of all clients: others came that were not expected.
_URGENT_SHARE = 0.15

# The part of that time which is left for all that follows a render: its result is stored before it is sent.
_STORING_SHARE = 0.1

# With this part of it as work ahead, only a job that takes most of the rest by itself is refused.
_MUCH_SHARE = 0.3

# A job at work that should have ended is expected to take this share of its estimate longer.
_OVERDUE_SHARE = 0.25

# The part of the slots that clients who return may fill, and the longest time until they return.
_RETURNING_SHARE = 0.7
_MAX_RETRY_SECONDS = 60

# The work of the cheapest job before any has come. Each job that costs more raises it a little, up to its own.
_LEAST_SECONDS = 0.01
_LEAST_RISES = 1.1

# The expected work of a job before any has come, and the weight of the newest one in the mean.
_FIRST_TYPICAL_SECONDS = 0.2
_NEWEST_WEIGHT = 0.1


class Refused(NamedTuple):
    """A job that would be refused: its lane, and the seconds for which it would need a slot."""

    lane: Lane
    seconds: float


class Place:
    """The place of an admitted job: first among the jobs that will need a slot, then with one. Leave it with `SlotQueue.leave`."""

    def __init__(self, work: Work, seconds: float, lane: Lane, end_by: float, client: str | None = None) -> None:
        """Take a place.

        work: what the job is.
        seconds: the expected time in a slot.
        lane: whose turn it waits for.
        end_by: the time of the event loop at which the client leaves.
        client: whom it is for, `None` if that is not known.
        """
        self.client = client
        self.work = work
        self.seconds = seconds
        self.lane = lane
        self.end_by = end_by
        # When it comes before the jobs of all clients, and when it is dropped, if it has no slot yet.
        self.urgent_at = self.start_by = end_by
        self.started_at = 0.0
        self.turn: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<Place {self.lane} {self.seconds:.3f} s{' waiting' if self.turn else ''}>"


class _Turns:
    """The jobs of one lane without a slot: by client, their seconds of work, and those that wait for their turn."""

    def __init__(self) -> None:
        self.done_seconds = 0.0
        # By client: the work of its jobs, how many there are, and the mean of them; all three have the same clients in the same order.
        self.pending_seconds: dict[str | None, float] = {}
        self._pending: dict[str | None, int] = {}
        self._mean_seconds: dict[str | None, float] = {}
        self._done: dict[str | None, float] = {}
        self._waiting: dict[str | None, deque[Place]] = {}
        # The work that a client would have had done that has always waited.
        self._done_of_all = 0.0
        # Those that have had a slot before: they come before all clients.
        self._again: deque[Place] = deque()

    def __bool__(self) -> bool:
        """Return whether a job waits."""
        return bool(self._again or self._waiting)

    def seconds_ahead(self, client: str | None) -> float:
        """Return the work that starts before a new job of a client: its own, as much of every other client, and one job more of it."""
        own = self.pending_seconds.get(client, 0.0)
        if not own:
            return sum(self._mean_seconds.values())
        work = zip(self.pending_seconds.values(), self._mean_seconds.values(), strict=True)
        # Every request that is refused goes through all clients, so no function is called for each.
        return sum([pending if pending < own + mean else own + mean for pending, mean in work])  # noqa: FURB136

    def add(self, place: Place) -> None:
        """Count the work of a job."""
        self._count(place.client, self.pending_seconds.get(place.client, 0.0) + place.seconds, self._pending.get(place.client, 0) + 1)

    def remove(self, place: Place) -> None:
        """Count the work of a job no longer."""
        client, jobs = place.client, self._pending[place.client] - 1
        if jobs:
            self._count(client, max(0.0, self.pending_seconds[client] - place.seconds), jobs)
            return
        # A client without a job has no work and is forgotten; the sums of floats might leave some.
        del self._pending[client], self.pending_seconds[client], self._mean_seconds[client]
        self._done.pop(client, None)

    def count_again(self, places: Iterable[Place]) -> None:
        """Count the work of all jobs again, after their estimates have changed."""
        seconds = dict.fromkeys(self.pending_seconds, 0.0)
        for place in places:
            seconds[place.client] += place.seconds
        for client, pending in seconds.items():
            self._count(client, pending, self._pending[client])

    def _count(self, client: str | None, seconds: float, jobs: int) -> None:
        self.pending_seconds[client], self._pending[client], self._mean_seconds[client] = seconds, jobs, seconds / jobs

    def wait(self, place: Place, *, again: bool) -> None:
        """Let a job wait for its turn; `again`: before all others."""
        if again:
            self._again.appendleft(place)
            return
        if place.client not in self._waiting:
            # A client that had no job gets no credit for that time: otherwise new clients could come before an old one forever.
            self._done[place.client] = max(self._done.get(place.client, 0.0), self._done_of_all)
            self._waiting[place.client] = deque()
        self._waiting[place.client].append(place)

    def stop_waiting(self, place: Place) -> None:
        """Remove a job that does not wait any longer, if it did."""
        waiting = self._waiting.get(place.client, deque())
        if place in self._again:
            self._again.remove(place)
        elif place in waiting:
            waiting.remove(place)
            if not waiting:
                del self._waiting[place.client]

    def pop(self) -> Place:
        """Remove and return the job whose turn it is; one must wait."""
        if self._again:
            return self._again.popleft()
        place = min((waiting[0] for waiting in self._waiting.values()), key=lambda first: first.urgent_at)
        if anyio.current_time() < place.urgent_at:
            place = self._waiting[min(self._waiting, key=self._done_of)][0]
        self.stop_waiting(place)
        return place

    def start(self, place: Place) -> None:
        """Count the work of a job that gets a slot as done."""
        self.done_seconds += place.seconds
        done = self._done_of(place.client)
        self._done_of_all = max(self._done_of_all + place.seconds / max(1, len(self._pending)), done)
        if place.client in self._pending:
            self._done[place.client] = done + place.seconds

    def _done_of(self, client: str | None) -> float:
        return self._done.get(client, 0.0)


class SlotQueue:
    """A fixed number of slots, and the jobs that have been admitted to them."""

    def __init__(self, costs: CostModel, *, slots: int, queue_limit: int, wait_seconds: float) -> None:
        """Create a queue.

        costs: estimates the work of jobs.
        slots: 1 or more.
        queue_limit: how many admitted jobs may be without a slot, 1 or more.
        wait_seconds: how long a client waits for the end of its job, in seconds.
        """
        self.costs = costs
        self._slots = slots
        self._queue_limit = queue_limit
        self._wait_seconds = wait_seconds
        self._with_slot: set[Place] = set()
        self._without_slot: set[Place] = set()
        self._lanes: dict[Lane, _Turns] = {"renditions": _Turns(), "uploads": _Turns()}
        self._least_seconds: dict[Lane, float] = {}
        self._typical_seconds = _FIRST_TYPICAL_SECONDS
        self._next_return = 0.0

    def __repr__(self) -> str:
        pending = sum(map(self._pending_seconds, self._lanes))
        return (
            f"<SlotQueue slots={self._slots} busy={len(self._with_slot)} pending={len(self._without_slot)} pending_seconds={pending:.1f}>"
        )

    @property
    def free_slots(self) -> int:
        """The number of slots without a job."""
        return self._slots - len(self._with_slot)

    @property
    def has_waiters(self) -> bool:
        """Whether an admitted job has no slot yet."""
        return bool(self._without_slot)

    @property
    def _admitted(self) -> int:
        """The number of admitted jobs, with and without a slot."""
        return len(self._with_slot) + len(self._without_slot)

    def waiting(self) -> dict[Lane, tuple[int, float]]:
        """Return by lane the number of admitted jobs without a slot, and their expected work in seconds. Any thread may call it."""
        pending = list(self._without_slot)
        by_lane = {lane: [place.seconds for place in pending if place.lane == lane] for lane in self._lanes}
        return {lane: (len(seconds), sum(seconds)) for lane, seconds in by_lane.items()}

    def expected_start(self, seconds: float, lane: Lane) -> float:
        """Return the seconds until a job that came now would get a slot."""
        if self._admitted < self._slots:
            return 0.0
        own = self._lanes[lane].seconds_ahead(current_client.get())
        other = sum(self._pending_seconds(each) for each in self._lanes if each != lane)
        return _filled(self._free_in(), own + min(other, own + seconds))

    def admit(self, work: Work, lane: Lane = "renditions", *, end_by: float | None = None) -> Place:
        """Return the place of a job, which must be left; raises `OverloadedError` if it cannot be expected to end in time.

        end_by: the time of the event loop at which the client leaves; without it, the client has come just now.
        """
        now = anyio.current_time()
        if end_by is None:
            end_by = now + self._wait_seconds
        seconds = self.costs.estimate(work)
        self._least_seconds[lane] = min(seconds, _LEAST_RISES * self._least_seconds.get(lane, seconds))
        self._typical_seconds += _NEWEST_WEIGHT * (seconds - self._typical_seconds)
        if not self._fits(self.expected_start(seconds, lane), seconds, _ADMITTED_SHARE * (end_by - now)):
            raise self._overloaded(seconds, lane, self._reason())
        place = Place(work, seconds, lane, end_by, current_client.get())
        place.urgent_at = end_by - _URGENT_SHARE * (end_by - now)
        place.start_by = self._start_by(place)
        return self._add(place)

    def add(self, work: Work, lane: Lane = "renditions") -> Place:
        """Return the place of a job that is a part of one that was admitted."""
        return self._add(Place(work, self.costs.estimate(work), lane, math.inf, current_client.get()))

    def refusal(self, lane: Lane = "renditions", work: Work | None = None) -> Refused | None:
        """Return how a job would be refused now, `None` if it would be admitted. It costs little: it is called for every request.

        work: what the job is; without it, it is the cheapest of those that come at present.
        """
        seconds = self._least_seconds.get(lane, _LEAST_SECONDS) if work is None else self.costs.estimate(work)
        if self.admits_any:
            return None
        if self._fits(self.expected_start(seconds, lane), seconds, self._longest_seconds):
            return None
        # The one that is refused is a usual one, not the cheapest.
        return Refused(lane, self._typical_seconds if work is None else seconds)

    @property
    def admits_any(self) -> bool:
        """Whether a job would be admitted at whatever cost, because a slot is free for it."""
        return self._admitted < self._slots

    @property
    def has_much_work(self) -> bool:
        """Whether so much work waits that jobs may be refused for their cost, although cheaper ones would be admitted."""
        return sum(map(self._pending_seconds, self._lanes)) > _MUCH_SHARE * self._longest_seconds * self._slots

    def overloaded_error(self, refused: Refused) -> OverloadedError:
        """Return the error of a job that is refused, and expect it to come back."""
        return self._overloaded(refused.seconds, refused.lane, self._reason())

    def raise_if_full(self, lane: Lane = "renditions", work: Work | None = None) -> None:
        """Raise the error of `refusal`, if there is one."""
        if (refused := self.refusal(lane, work)) is not None:
            raise self.overloaded_error(refused)

    def late_error(self, place: Place) -> OverloadedError:
        """Return the error of a job that was admitted and has waited until it was too late to start."""
        return self._overloaded(place.seconds, place.lane, "expired")

    async def take_slot(self, place: Place, *, again: bool = False) -> None:
        """Wait for a slot; raises `OverloadedError` when it is too late to start.

        again: whether the place has had a slot before. It comes first then, since it has waited already.
        """
        if place not in self._without_slot:
            raise RuntimeError("this place has a slot, or was left")
        lane = self._lanes[place.lane]
        if self.free_slots and not any(self._lanes.values()):
            self._start(place)
            return
        if not lane:
            # A lane that was empty gets no credit for that time.
            lane.done_seconds = max(each.done_seconds for each in self._lanes.values())
        place.turn = anyio.Event()
        lane.wait(place, again=again)
        if again:
            place.end_by = place.urgent_at = place.start_by = math.inf
        with anyio.move_on_at(place.start_by):
            await self._wait_for_turn(place)
        if place in self._without_slot:
            raise self.late_error(place)

    def give_up_slot(self, place: Place) -> None:
        """Take the slot of a place, which needs another one later."""
        self._with_slot.remove(place)
        self._add(place)
        self._start_next()

    def leave(self, place: Place) -> None:
        """Give up a place, and its slot if it has one."""
        if place in self._without_slot:
            self._remove_pending(place)
        else:
            self._with_slot.discard(place)
        self._start_next()

    def take_free_slot(self, work: Work) -> Place:
        """Return a place with a slot, which must be left, for a job that waits for nothing; there must be a free slot."""
        if not self.free_slots:
            raise RuntimeError("no slot is free")
        place = Place(work, self.costs.estimate(work), "renditions", math.inf)
        place.started_at = anyio.current_time()
        self._with_slot.add(place)
        return place

    def learn(self, place: Place) -> None:
        """Learn from the time that a place has had its slot, and estimate the jobs without a slot again."""
        self.costs.learn(place.work, anyio.current_time() - place.started_at)
        for pending in self._without_slot:
            pending.seconds = self.costs.estimate(pending.work)
            pending.start_by = self._start_by(pending)
        for name, lane in self._lanes.items():
            lane.count_again(pending for pending in self._without_slot if pending.lane == name)

    def _pending_seconds(self, lane: Lane) -> float:
        return sum(self._lanes[lane].pending_seconds.values())

    @property
    def _longest_seconds(self) -> float:
        return _ADMITTED_SHARE * self._wait_seconds

    def _start_by(self, place: Place) -> float:
        """Return when it is too late to start a job: it may take longer than expected by the same share as when it was admitted.

        A job that cannot end in time anyway was admitted to a slot that was free.
        """
        left = max(place.seconds / _ADMITTED_SHARE, _STORING_SHARE * self._wait_seconds)
        return place.end_by - min(left, self._longest_seconds)

    def _free_in(self) -> list[float]:
        """Return the seconds until each slot is expected to be free, in rising order."""
        now = anyio.current_time()
        busy = (max(place.seconds - (now - place.started_at), _OVERDUE_SHARE * place.seconds) for place in self._with_slot)
        return sorted([*busy, *[0.0] * self.free_slots])

    def _fits(self, start: float, seconds: float, longest_seconds: float) -> bool:
        if self._admitted < self._slots:
            return True
        return not self._is_full() and start + seconds <= longest_seconds

    def _is_full(self) -> bool:
        """Return whether the queue is as long as it may be. A place that is about to take a free slot is not part of it."""
        return self._admitted >= self._slots + self._queue_limit

    def _return_in(self, start: float, seconds: float) -> int:
        """Return the whole seconds, at least 1, after which a refused job should come back, and reserve that time for it."""
        now = anyio.current_time()
        fits_in = start + seconds - self._longest_seconds
        if self._is_full():
            fits_in = max(fits_in, _filled(self._free_in(), 0.0))
        due = max(now + fits_in, self._next_return)
        if due - now >= _MAX_RETRY_SECONDS:
            return _MAX_RETRY_SECONDS
        self._next_return = due + seconds / (self._slots * _RETURNING_SHARE)
        return max(1, math.ceil(due - now))

    async def _wait_for_turn(self, place: Place) -> None:
        if place.turn is None:
            return
        try:
            await place.turn.wait()
        finally:
            place.turn = None
            self._lanes[place.lane].stop_waiting(place)

    def _start(self, place: Place) -> None:
        self._lanes[place.lane].start(place)
        self._remove_pending(place)
        place.started_at = anyio.current_time()
        self._with_slot.add(place)

    def _start_next(self) -> None:
        """Give free slots to the jobs whose turn it is."""
        while self.free_slots and (lanes := [lane for lane in self._lanes.values() if lane]):
            place = min(lanes, key=lambda lane: lane.done_seconds).pop()
            # One that costs more than was expected when it was admitted may be too late by now.
            if anyio.current_time() <= place.start_by:
                self._start(place)
            if place.turn is not None:
                place.turn.set()

    def _reason(self) -> Refusal:
        return "full" if self._is_full() else "late"

    def _overloaded(self, seconds: float, lane: Lane, reason: Refusal) -> OverloadedError:
        instruments.RENDER_REFUSALS.add(lane, reason)
        start = self.expected_start(seconds, lane)
        return OverloadedError(
            "More renders are waiting than can be made in time.",
            expected=f"at most {self._queue_limit} waiting, and an end within {self._longest_seconds:.3g} s",
            received=f"{len(self._without_slot)} waiting, and an end in about {start + seconds:.1f} s",
            remedy="Try again after the seconds in Retry-After.",
            retry_after_seconds=self._return_in(start, seconds),
        )

    def _add(self, place: Place) -> Place:
        self._without_slot.add(place)
        self._lanes[place.lane].add(place)
        return place

    def _remove_pending(self, place: Place) -> None:
        self._without_slot.remove(place)
        self._lanes[place.lane].remove(place)


def _filled(free_in: list[float], work: float) -> float:
    """Return the time at which `work` that is spread over all slots is done, as water fills steps.

    free_in: the times at which the slots become free, in rising order.
    """
    for count, (free, following) in enumerate(zip(free_in, [*free_in[1:], math.inf], strict=True), start=1):
        room = (following - free) * count
        if work <= room:
            return free + work / count
        work -= room
    return free_in[-1]

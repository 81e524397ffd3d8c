"""The queue for slots, simulated in virtual time: who is admitted, in which order, and whether Retry-After is true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from service.concurrency.current_client import current_client
from service.errors import OverloadedError
from service.rendering.cost import CostModel, Work
from service.rendering.slot_queue import Lane, Place, SlotQueue
from tests.support.virtual_time import VirtualTimeLoop

WAIT_SECONDS = 30.0


def simulate(simulation: Coroutine[Any, Any, None]) -> None:
    """Run a simulation to its end, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(simulation)


def slot_queue(slots: int = 1, queue_limit: int = 256) -> SlotQueue:
    return SlotQueue(CostModel(), slots=slots, queue_limit=queue_limit, wait_seconds=WAIT_SECONDS)


class Visits(msgspec.Struct):
    """What clients saw: the seconds of each job that was done, by lane; refusals at once; refusals of clients that had come back before;
    and jobs that were admitted and then dropped.
    """

    done: dict[Lane, list[float]] = msgspec.field(default_factory=lambda: {"renditions": [], "uploads": []})
    work_done: dict[Lane, float] = msgspec.field(default_factory=lambda: {"renditions": 0.0, "uploads": 0.0})
    refused: int = 0
    refused_again: int = 0
    dropped: int = 0
    retry_after: list[int] = []


async def visit(
    queue: SlotQueue,
    visits: Visits,
    seconds: float,
    *,
    lane: Lane = "renditions",
    returns: bool = False,
    kind: str | None = None,
    takes: float | None = None,
) -> None:
    """Do one job of a kind whose prior is `seconds`, and come back after a refusal as often as it takes, if the client `returns`.

    takes: the seconds that it takes, if not as many as its prior.
    """
    refusals = 0
    work = Work(kind or f"job of {seconds:.1f}", seconds)
    while True:
        came = anyio.current_time()
        try:
            place = queue.admit(work, lane)
        except OverloadedError as error:
            retry_after = error.retry_after_seconds or 0
            visits.retry_after.append(retry_after)
            visits.refused += 1
            visits.refused_again += refusals > 0
            refusals += 1
            if not returns:
                return
            await anyio.sleep(retry_after)
            continue
        try:
            await queue.take_slot(place)
            await anyio.sleep(seconds if takes is None else takes)
            queue.learn(place)
        except OverloadedError:
            visits.dropped += 1
            return
        finally:
            queue.leave(place)
        visits.done[lane].append(anyio.current_time() - came)
        visits.work_done[lane] += seconds
        return


def test_queue_that_admits_any_job_refuses_none_and_says_so_only_while_a_slot_is_free() -> None:
    async def simulation() -> None:
        queue, work = slot_queue(slots=2), Work("any", 1e9)
        places = []
        for _ in range(2):
            assert (queue.admits_any, queue.refusal(work=work)) == (True, None)
            places.append(queue.admit(work))
        assert (queue.admits_any, queue.refusal(work=work) is None) == (False, False)
        for place in places:
            queue.leave(place)
            assert (queue.admits_any, queue.refusal(work=work)) == (True, None)

    simulate(simulation())


def test_job_with_a_free_slot_is_admitted_however_long_it_takes() -> None:
    async def simulation() -> None:
        queue, visits = slot_queue(), Visits()
        await visit(queue, visits, 500.0)
        assert visits.done["renditions"] == [500.0]

    simulate(simulation())


@pytest.mark.parametrize("slots", [1, 4])
def test_admitted_jobs_end_while_their_clients_wait_and_slots_are_never_idle_at_four_times_the_capacity(slots: int) -> None:
    async def simulation() -> None:
        queue, visits, draw = slot_queue(slots), Visits(), random.Random(slots)
        async with anyio.create_task_group() as tasks:
            while anyio.current_time() < 200:
                seconds = draw.choice([0.1, 0.3, 1.0, 4.0])
                tasks.start_soon(visit, queue, visits, seconds)
                await anyio.sleep(draw.expovariate(4 * slots / 1.35))
        assert visits.dropped == 0
        assert visits.refused > 100 * slots
        assert 1 <= min(visits.retry_after) <= max(visits.retry_after) <= 60
        assert max(visits.done["renditions"]) <= WAIT_SECONDS
        assert visits.work_done["renditions"] > 0.98 * slots * 200

    simulate(simulation())


def test_jobs_that_take_three_times_the_prior_are_refused_once_that_was_measured() -> None:
    async def simulation() -> None:
        queue, visits, draw = slot_queue(), Visits(), random.Random(3)
        async with anyio.create_task_group() as tasks:
            while anyio.current_time() < 600:
                tasks.start_soon(lambda: visit(queue, visits, 1.0, kind="slow", takes=3.0))
                await anyio.sleep(draw.expovariate(4 / 3))
        # Only some of those that were admitted before the first one had ended.
        assert visits.dropped < 15
        assert len(visits.done["renditions"]) == pytest.approx(200, abs=12)
        assert sorted(visits.done["renditions"])[-15] <= WAIT_SECONDS

    simulate(simulation())


def test_admitted_jobs_end_in_time_when_the_machine_becomes_half_as_fast_as_a_crowd_comes() -> None:
    async def simulation() -> None:
        queue, visits, draw = slot_queue(2), Visits(), random.Random(7)
        slowness = 1.0

        async def job(number: int) -> None:
            await visit(queue, visits, 0.25, kind=f"kind {number}", takes=slowness * 0.25 * draw.uniform(0.8, 1.2))

        for number in range(400):
            await job(number % 8)
        assert visits.refused == 0
        slowness = 2.0
        visits.done["renditions"].clear()
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            while anyio.current_time() < began + 60:
                tasks.start_soon(job, draw.randrange(8))
                await anyio.sleep(draw.expovariate(5 * 4))
        assert visits.refused > 500
        assert visits.dropped == 0
        assert max(visits.done["renditions"]) <= WAIT_SECONDS
        # The slots were never idle.
        assert len(visits.done["renditions"]) > 0.95 * 4 * (anyio.current_time() - began)

    simulate(simulation())


def test_waiting_job_that_turns_out_to_cost_too_much_is_not_started() -> None:
    async def simulation() -> None:
        queue, refused = slot_queue(), list[float]()
        first, second, third = (queue.admit(Work("slow", 5.0)) for _ in range(3))
        await queue.take_slot(first)

        async def wait(place: Place) -> None:
            try:
                await queue.take_slot(place)
            except OverloadedError:
                refused.append(anyio.current_time())
            queue.leave(place)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, second)
            tasks.start_soon(wait, third)
            await anyio.sleep(20.0)
            # From now on 12 s are expected of each, and their clients leave in 10 s.
            queue.learn(first)
            await anyio.sleep(0.5)
            queue.leave(first)
        assert refused == [20.5, 20.5]
        assert not queue.has_waiters
        assert queue.free_slots == 1

    simulate(simulation())


def test_clients_of_a_crowd_that_come_back_after_retry_after_are_admitted_with_high_probability() -> None:
    async def simulation() -> None:
        queue, visits = slot_queue(2), Visits()
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(lambda seconds: visit(queue, visits, seconds, returns=True), [0.2, 0.5, 1.5][number % 3])
        assert len(visits.done["renditions"]) == 200
        assert visits.refused > 50
        assert visits.refused_again <= 0.1 * (visits.refused - visits.refused_again)
        assert visits.dropped == 0
        assert max(visits.done["renditions"]) <= WAIT_SECONDS
        # Nobody is sent away for longer than it takes to serve all of them.
        assert anyio.current_time() < 1.6 * 200 * 2.2 / 3 / 2

    simulate(simulation())


def test_clients_that_come_back_are_admitted_although_new_ones_take_half_of_the_slots() -> None:
    async def simulation() -> None:
        queue, visits, newcomers, draw = slot_queue(2), Visits(), Visits(), random.Random(5)
        async with anyio.create_task_group() as tasks:
            for _ in range(120):
                tasks.start_soon(lambda: visit(queue, visits, 1.0, returns=True))
            while anyio.current_time() < 300:
                await anyio.sleep(draw.expovariate(0.5 * 2))
                tasks.start_soon(lambda: visit(queue, newcomers, 1.0, returns=True))
        refused_first = visits.refused - visits.refused_again
        assert refused_first > 50
        assert visits.refused_again <= 0.25 * refused_first
        assert visits.dropped == newcomers.dropped == 0

    simulate(simulation())


def test_queue_of_full_length_refuses_until_a_slot_is_expected_to_be_free() -> None:
    async def simulation() -> None:
        queue, visits = slot_queue(queue_limit=2), Visits()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(visit, queue, visits, 4.0)
            await anyio.sleep(1.5)
            with pytest.raises(OverloadedError) as caught:
                queue.admit(Work("job of 4.0", 4.0))
            assert caught.value.retry_after_seconds == 3
            with pytest.raises(OverloadedError):
                queue.raise_if_full()
        queue.raise_if_full()
        assert visits.done["renditions"] == [4.0, 8.0, 12.0]

    simulate(simulation())


def test_cheap_job_is_admitted_where_an_expensive_one_could_not_end_in_time() -> None:
    async def simulation() -> None:
        queue, visits = slot_queue(), Visits()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit, queue, visits, 18.0)
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(visit, queue, visits, 10.0)
            tasks.start_soon(visit, queue, visits, 1.0)
        assert visits.done["renditions"] == [18.0, 19.0]
        # It would end in 28 s, or in 29 after the cheap one, and may end in 21.
        assert visits.retry_after == [7]

    simulate(simulation())


@pytest.mark.parametrize(("crowd", "other"), [("renditions", "uploads"), ("uploads", "renditions")])
def test_neither_lane_starves_the_other(crowd: Lane, other: Lane) -> None:
    async def simulation() -> None:
        queue, visits, draw = slot_queue(2), Visits(), random.Random(9)

        async def arrive(lane: Lane, load: float) -> None:
            async with anyio.create_task_group() as tasks:
                while anyio.current_time() < 120:
                    await anyio.sleep(draw.expovariate(load * 2 / 0.5))
                    tasks.start_soon(lambda: visit(queue, visits, 0.5, lane=lane))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(arrive, crowd, 5.0)
            await anyio.sleep(20)
            tasks.start_soon(arrive, other, 0.3)
        # Of its load of 0.3 × 2 slots × 100 s nearly all is done, and each job soon; the crowd gets the rest.
        assert visits.work_done[other] > 0.85 * 0.3 * 2 * 100
        assert max(visits.done[other]) < 5
        assert visits.work_done[crowd] > 0.6 * 2 * 120

    simulate(simulation())


def test_job_that_needs_its_slot_again_comes_first_and_counts_as_work_meanwhile() -> None:
    async def simulation() -> None:
        queue, visits = slot_queue(), Visits()
        place = queue.admit(Work("exclusive", 5.0))
        await queue.take_slot(place)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(visit, queue, visits, 2.0)
            await anyio.lowlevel.checkpoint()
            queue.give_up_slot(place)
            assert queue.has_waiters
            assert queue.expected_start(1.0, "renditions") == pytest.approx(2 + 2 + 2 + 5)
            await queue.take_slot(place, again=True)
            assert anyio.current_time() == 2.0
            queue.leave(place)
        assert visits.done["renditions"] == [2.0, 4.0, 6.0]

    simulate(simulation())


def test_client_that_leaves_gives_up_its_place_in_the_queue_or_its_slot() -> None:
    async def simulation() -> None:
        queue, visits = slot_queue(), Visits()
        scopes = [anyio.CancelScope() for _ in range(3)]

        async def leaving(scope: anyio.CancelScope) -> None:
            with scope:
                await visit(queue, visits, 5.0)

        async with anyio.create_task_group() as tasks:
            for scope in scopes:
                tasks.start_soon(leaving, scope)
            await anyio.sleep(1)
            scopes[1].cancel()
            await anyio.sleep(1)
            scopes[0].cancel()
        assert visits.done["renditions"] == [7.0]
        assert repr(queue) == "<SlotQueue slots=1 busy=0 pending=0 pending_seconds=0.0>"

    simulate(simulation())


async def visit_as(client: str | None, queue: SlotQueue, visits: Visits, seconds: float) -> None:
    current_client.set(client)
    await visit(queue, visits, seconds)


@pytest.mark.parametrize("factor", [1.5, 4])
def test_crowd_of_clients_that_is_admitted_is_served_in_time_whatever_comes_later(factor: float) -> None:
    async def simulation() -> None:
        queue, visits, draw = slot_queue(slots=2), Visits(), random.Random(13)
        costs = [0.1, 0.1, 0.3, 0.3, 1.5]
        async with anyio.create_task_group() as tasks:
            while anyio.current_time() < 150:
                tasks.start_soon(visit_as, f"client {draw.randrange(200)}", queue, visits, draw.choice(costs))
                await anyio.sleep(draw.expovariate(factor * 2 * len(costs) / sum(costs)))
        assert visits.refused > 100
        assert visits.dropped == 0
        assert max(visits.done["renditions"]) <= WAIT_SECONDS
        assert visits.work_done["renditions"] > 0.98 * 2 * 150

    simulate(simulation())


@pytest.mark.parametrize("greedy", [["one"], ["one", "two", "three"], [None]])
def test_client_with_few_jobs_is_served_soon_whatever_others_send(greedy: list[str | None]) -> None:
    async def simulation() -> None:
        queue, of_greedy, of_modest = slot_queue(slots=2), Visits(), Visits()
        async with anyio.create_task_group() as tasks:
            for second in range(60):
                for number in range(50):
                    tasks.start_soon(visit_as, greedy[number % len(greedy)], queue, of_greedy, 0.2)
                await anyio.sleep(0.5)
                if second >= 5:
                    tasks.start_soon(visit_as, "modest", queue, of_modest, 0.2)
                await anyio.sleep(0.5)
        assert of_greedy.refused > 1_000
        assert (of_modest.refused, of_modest.dropped, len(of_modest.done["renditions"])) == (0, 0, 55)
        # Its own work, the end of a job at work, and a turn of each of the others.
        assert max(of_modest.done["renditions"]) <= 0.2 * (2 + len(greedy))
        assert of_greedy.work_done["renditions"] >= 0.95 * (2 * 60 - of_modest.work_done["renditions"])

    simulate(simulation())


def test_client_that_was_away_gets_no_credit_for_that_time() -> None:
    async def simulation() -> None:
        queue, of_first, of_second = slot_queue(), Visits(), Visits()
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(visit_as, "first", queue, of_first, 0.2)
            await anyio.sleep(5)
            for _ in range(20):
                tasks.start_soon(visit_as, "second", queue, of_second, 0.2)
            await anyio.sleep(4)
            # In these four seconds they took turns.
            assert abs(len(of_second.done["renditions"]) - 10) <= 1
        assert (len(of_first.done["renditions"]), len(of_second.done["renditions"])) == (50, 20)
        assert not queue.has_waiters

    simulate(simulation())


def test_job_that_is_about_to_take_a_free_slot_leaves_the_queue_to_others() -> None:
    async def admitted() -> None:
        queue = slot_queue(slots=2, queue_limit=1)
        places = [queue.admit(Work("short", 1.0)) for _ in range(3)]
        with pytest.raises(OverloadedError):
            queue.admit(Work("short", 1.0))
        for place in places:
            queue.leave(place)

    simulate(admitted())

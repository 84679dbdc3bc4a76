"""Sums that grow faster than time: of what many tasks or handles do at once. None of them overflows."""

import asyncio

import obsloop
from tests.support import DELAY, stepped

YEARS_2 = 63_000_000.0
MANY = 200
"""So many times two years are more nanoseconds than 63 bits hold."""


def test_the_sum_of_tasks_durations_may_be_longer_than_292_years():
    """200 tasks live for two years each, as 10,000 do in two weeks: their sum is 400 years."""
    with stepped() as (_, loop):

        async def main():
            tasks = [asyncio.create_task(asyncio.sleep(YEARS_2)) for _ in range(MANY)]
            await asyncio.gather(*tasks)

        loop.run_until_complete(main())
        durations = loop.snapshot().histogram("asyncio.task.duration")
        assert durations.count == MANY + 1
        assert durations.sum == (MANY + 1) * YEARS_2
        # And on: the sum counts further from there.
        loop.run_until_complete(main())
        assert loop.snapshot().histogram("asyncio.task.duration").sum == 2 * (MANY + 1) * YEARS_2


def test_the_sum_of_delays_may_be_longer_than_292_years():
    """200 callbacks and 200 new tasks are ready while one callback takes two years."""
    with stepped() as (clock, loop):

        async def nothing():
            pass

        loop.call_soon(clock.advance, YEARS_2)
        for _ in range(MANY):
            loop.call_soon(int)
        tasks = [loop.create_task(nothing()) for _ in range(MANY)]
        loop.run_until_complete(asyncio.gather(*tasks))
        snapshot = loop.snapshot()
        assert snapshot.histogram(DELAY, "callback").sum == MANY * YEARS_2
        assert snapshot.histogram(DELAY, "task_step").sum == MANY * YEARS_2
        assert snapshot.histogram("asyncio.task.first_step.delay").sum == MANY * YEARS_2


def test_the_sum_of_a_measurements_waits_may_be_longer_than_292_years():
    """The same in ``measure_tasks``: 200 inner tasks are ready for two years."""
    with stepped() as (clock, loop):

        async def nothing():
            pass

        async def main():
            with obsloop.measure_tasks() as measured:
                loop.call_soon(clock.advance, YEARS_2)
                await asyncio.gather(*(nothing() for _ in range(MANY)))
            return measured.times()

        assert loop.run_until_complete(main()).waiting >= MANY * YEARS_2

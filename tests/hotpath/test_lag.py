"""The loop's lag, against a step clock: which iterations count, from when to when, and how long each."""

import asyncio
from itertools import accumulate

import pytest

import obsloop
from tests.support import run_briefly, stepped as step_clock

LAG = "asyncio.eventloop.lag"
ROUNDING = 10
"""Each bucket counts whole observations. Over several buckets, the fractions may add up to a few."""


def lag(loop: obsloop.Loop) -> obsloop.Histogram:
    return loop.snapshot().histogram(LAG)


def assert_lag(loop: obsloop.Loop, *iterations: float) -> None:
    """At each bound, the lag is that of iterations of these lengths, and of no others."""
    snapshot = loop.snapshot()
    found = snapshot.histogram(LAG)
    assert found.count == int(snapshot.run_time * 1e3)
    bounds = found.partition.bounds
    below = list(accumulate(found.bucket_counts))
    for bound_ns, upto in zip(bounds, below, strict=False):
        above_ms = sum(max(0.0, d - bound_ns / 1e9) for d in iterations) * 1e3
        assert found.count - upto == pytest.approx(above_ms, abs=ROUNDING), bound_ns
    waits = sum(d * d for d in iterations) / 2 * 1e3
    assert found.sum == pytest.approx(waits, rel=0.009, abs=1e-6)
    assert found.sum <= waits + 1e-6


def test_an_iteration_makes_arrivals_wait_for_its_rest(stepped):
    """A block of 2 s, one of 0.3 s, and short ones, in 10 s: the share above each bound is the formula's."""
    clock, loop = stepped
    for seconds in (2, 0.3, 0.004, 0.004):
        loop.call_soon(clock.advance, seconds)
        run_briefly(loop)
    loop.call_later(10 - 2.308, loop.stop)
    loop.run_forever()
    assert_lag(loop, 2, 0.3, 0.004, 0.004)
    found = lag(loop)
    assert found.count == 10_000
    assert found.cumulative((1.0,)) == (9_000,)


def test_many_short_callbacks_are_one_long_iteration(stepped):
    """A hundred callbacks of 10 ms in one iteration: an arrival waits for the iteration, not for a callback."""
    clock, loop = stepped
    for _ in range(100):
        loop.call_soon(clock.advance, 0.01)
    run_briefly(loop)
    assert_lag(loop, 1)


def test_waits_are_no_lag(stepped):
    """An hour of waiting for a timer is 3.6 million observations of nothing."""
    _, loop = stepped
    loop.call_later(3600, loop.stop)
    loop.run_forever()
    found = lag(loop)
    assert (found.count, found.bucket_counts[0], found.sum) == (3_600_000, 3_600_000, 0.0)


def test_the_present_iteration_counts(stepped):
    """A loop that never returns from a callback shows at each reading how long it has been."""
    clock, loop = stepped
    seen = []

    def stuck() -> None:
        for seconds in (1, 3):
            clock.advance(seconds)
            seen.append(lag(loop))
        assert_lag(loop, 4)

    loop.call_soon(stuck)
    run_briefly(loop)
    assert [found.count for found in seen] == [1000, 4000]
    assert seen[1].count - seen[1].cumulative((1.0,))[0] == pytest.approx(3000, abs=ROUNDING)
    assert_lag(loop, 4)
    loop.call_soon(clock.advance, 1)
    run_briefly(loop)
    assert_lag(loop, 4, 1)


def test_a_reading_at_the_end_of_a_slow_iteration_counts_it_once(stepped):
    """An instrument hears of a slow iteration before its poll: the time until the poll belongs to it."""
    clock, loop = stepped
    seen = []

    class Instrument:
        def on_slow_iteration(self, event) -> None:
            seen.append(lag(loop))
            clock.advance(0.5)

    loop.add_instrument(Instrument())
    loop.call_soon(clock.advance, 2)
    loop.call_soon(loop.call_soon, loop.stop)  # so that a poll of the same run follows
    loop.run_forever()
    assert seen[0].count == 2000
    assert seen[0].count - seen[0].cumulative((1.0,))[0] == pytest.approx(1000, abs=ROUNDING)
    assert_lag(loop, 2.5)


def test_a_poll_within_a_callback_ends_the_iteration(stepped):
    """Some programs run the loop within a callback. Then arrivals wait only for that poll."""
    clock, loop = stepped

    def outer() -> None:
        clock.advance(1)
        loop.call_soon(clock.advance, 2)
        loop._run_once()
        assert_lag(loop, 1, 2)
        clock.advance(1)

    loop.call_soon(outer)
    run_briefly(loop)
    assert_lag(loop, 1, 3)
    snapshot = loop.snapshot()
    assert snapshot.value("asyncio.eventloop.iterations") == 2


def test_a_loop_that_is_run_one_iteration_at_a_time(stepped):
    """Between two iterations nothing is open."""
    clock, loop = stepped
    for _ in range(3):
        loop.call_soon(clock.advance, 1)
        loop._run_once()
        clock.advance(5)
    assert_lag(loop, 1, 1, 1)


def test_loops_of_one_name_add_up_and_go_on_after_each_other():
    """Two that live at once, and one that begins when they are closed: no count goes back."""

    def block(loop: obsloop.Loop, seconds: float) -> None:
        loop.call_soon(clock.advance, seconds)
        run_briefly(loop)

    with step_clock() as (clock, loop):
        other = obsloop.Loop(clock.selector())
        block(loop, 1)
        block(other, 2)
        assert_lag(loop, 1, 2)
        before = lag(loop).bucket_counts
        other.close()
        third = obsloop.Loop(clock.selector())
        assert lag(loop).bucket_counts == before
        block(third, 3)
        assert_lag(loop, 1, 2, 3)
        assert all(new >= old for new, old in zip(lag(loop).bucket_counts, before, strict=True))
        third.close()


def test_an_exception_ends_the_iteration(stepped):
    """One that leaves the loop, too, is counted with the time until then."""
    clock, loop = stepped

    def leave() -> None:
        clock.advance(1)
        raise KeyboardInterrupt

    loop.call_soon(leave)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    clock.advance(7)
    assert_lag(loop, 1)


def test_tasks_and_timers_are_the_same(stepped):
    """It is the loop's lag: what ran does not matter."""
    clock, loop = stepped

    async def main() -> None:
        for _ in range(5):
            clock.advance(0.2)
            await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert_lag(loop, *[0.2] * 5)

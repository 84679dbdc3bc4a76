"""The arithmetic of the lag: exact at each bound, whole counts, and no count that goes back."""

from itertools import pairwise

from hypothesis import given, settings, strategies as st

from obsloop.base import clock
from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.counters import IN_CALLBACK, IN_IDLE, Counters, new_counters
from obsloop.metrics.lag import OBSERVATION_NS, Lag, sum_of_waits, time_above_bounds
from obsloop.metrics.reading import read
from obsloop.testing import StepClock

LENGTHS = st.one_of(st.integers(0, 3_000_000), st.integers(0, 10**10), st.sampled_from(SECONDS.bounds))
STEPS = st.lists(st.tuples(st.integers(0, 1), LENGTHS, LENGTHS, st.sampled_from(["go", "read", "open"])), max_size=60)


def blocks(lengths: list[int]) -> tuple[list[int], list[int]]:
    """Counts and sums by bucket."""
    counts, sums = [0] * SECONDS.size, [0] * SECONDS.size
    for length in lengths:
        counts[SECONDS.index(length)] += 1
        sums[SECONDS.index(length)] += length
    return counts, sums


@given(st.lists(LENGTHS, max_size=40), st.integers(0, 10**12))
def test_the_time_above_each_bound_is_exact(lengths, idle_ns):
    """To the nanosecond: it is the sum of what iterations lasted beyond the bound."""
    run_ns = sum(lengths) + idle_ns
    above = time_above_bounds(run_ns, *blocks(lengths))
    assert above == [run_ns, *(sum(max(0, d - bound) for d in lengths) for bound in SECONDS.bounds)]


@given(st.lists(st.integers(1000, 10**12), min_size=1, max_size=40))
def test_the_sum_is_less_than_a_hundredth_too_low(lengths):
    """Half the sum of squares, in observations, as far as buckets know it."""
    exact = sum(d * d for d in lengths) / (2 * OBSERVATION_NS)
    found = sum_of_waits(*blocks(lengths))
    assert exact * 0.992 - 1 <= found <= exact * (1 + 1e-12)


def shares(counters: list[Counters]) -> list[float]:
    """How many observations each bucket should have now, with fractions."""
    readings = [read(c) for c in counters]
    lengths = [0] * SECONDS.size, [0] * SECONDS.size
    for reading in readings:
        open_ns = reading.open_iteration_ns
        for into, more in zip(lengths, (reading.iteration[1:], reading.counted.iteration_ns[1:]), strict=True):
            into[:] = [a + b for a, b in zip(into, more, strict=True)]
        if open_ns:
            lengths[0][SECONDS.index(open_ns)] += 1
            lengths[1][SECONDS.index(open_ns)] += open_ns
    above = time_above_bounds(sum(r.run_ns for r in readings), *lengths)
    return [(a - b) / OBSERVATION_NS for a, b in pairwise((*above, 0))]


@settings(deadline=None)
@given(STEPS)
def test_no_count_goes_back_whenever_one_reads(steps):
    """Two loops of one name, read in waits, between iterations, and within one that goes on afterwards."""
    with StepClock() as step:
        both, lag, last = [new_counters(), new_counters()], Lag(), [0] * (SECONDS.size + 1)

        def look() -> list[int]:
            block = lag.block([read(c) for c in both])
            assert all(new >= old for new, old in zip(block, last, strict=True))
            differences = [count - share for count, share in zip(block[1:], shares(both), strict=True)]
            assert all(abs(d) < 1 + 1e-6 for d in differences[1:])  # the lowest bucket gives what others have too much
            assert differences[0] < 1 + 1e-6
            return block

        for which, wait_ns, length_ns, when in steps:
            counters = both[which]
            if not counters.run_started_ns:
                counters.begin_run(step.monotonic_ns())
            counters.state, counters.tick_ns = IN_IDLE, step.monotonic_ns()
            step._now_ns += wait_ns
            if when == "read":
                last = look()
            counters.idle_ns += wait_ns
            counters.state, counters.began_ns, counters.tick_ns = IN_CALLBACK, *[step.monotonic_ns()] * 2
            step._now_ns += length_ns // 2
            if when == "open":
                last = look()
            step._now_ns += length_ns - length_ns // 2
            counters.record_iteration(step.monotonic_ns() - counters.began_ns)
            counters.began_ns = 0
            counters.state, counters.tick_ns = IN_IDLE, step.monotonic_ns()
        step.advance(0.2)  # a wait, at last
        last = look()
        assert sum(last[1:]) == sum(read(c).run_ns for c in both) // OBSERVATION_NS


def test_a_writer_that_has_not_noted_the_end_takes_nothing_back():
    """A reader may read the clock later than the loop's thread did for what it is about to note."""
    with StepClock() as step:
        counters, lag = new_counters(), Lag()
        counters.begin_run(step.monotonic_ns())
        counters.state, counters.began_ns = IN_CALLBACK, step.monotonic_ns()
        step.advance(3)
        end_ns = step.monotonic_ns()
        step.advance(0.2)
        first = lag.block([read(counters)])
        counters.record_iteration(end_ns - counters.began_ns)
        counters.state, counters.tick_ns, counters.began_ns = IN_IDLE, end_ns, 0
        second = lag.block([read(counters)])
        assert all(new >= old for new, old in zip(second, first, strict=True))
        step.advance(10)
        third = lag.block([read(counters)])
        assert sum(third[1:]) == 13_200


def test_a_forked_child_starts_from_nothing():
    """Of the iteration in which the process forked, only the child's part counts."""
    with StepClock() as step:
        counters = new_counters()
        counters.begin_run(step.monotonic_ns())
        counters.state, counters.began_ns, counters.tick_ns = IN_CALLBACK, *[step.monotonic_ns()] * 2
        step.advance(5)
        counters.tick_ns = clock.monotonic_ns()
        counters.forked()
        step.advance(2)
        counters.record_iteration(step.monotonic_ns() - counters.began_ns)
        counters.end_run(step.monotonic_ns())
        waits_ns, *counts = Lag().block([read(counters)])
        assert (waits_ns, sum(counts)) == (2_000_000_000_000, 2000)

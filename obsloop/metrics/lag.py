"""The loop's lag: how long a callback that became ready at a random moment would have waited for the loop.

While the loop waits in ``select``, it would have waited for nothing. While an iteration of length d runs, it would have
waited for the rest of it: any time between 0 and d, each equally likely. So an iteration has ``max(0, d - x)`` of its
time in which one would have waited longer than x. The sum over all iterations is S(x), in nanoseconds.

The histogram of iterations has a count n and a sum s of durations for each bucket. Since all durations of a bucket are
on the same side of each bound, S at a bound is the sum of ``s - n * bound`` over the buckets above it, without an
error. The time in a bucket of the lag is the difference of S at its two bounds. One observation stands for one
millisecond of it. The present iteration counts as if it ended now.

S and its differences only grow: an iteration that is still open now will be longer at its end.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from heapq import nlargest
from itertools import pairwise
from typing import TYPE_CHECKING

from obsloop.metrics.buckets import SECONDS, added_up
from obsloop.metrics.counters import STRIDE

if TYPE_CHECKING:
    from obsloop.metrics.reading import Reading

OBSERVATION_NS = 1_000_000
"""The running time for which one observation stands."""


def time_above_bounds(run_ns: int, counts: Sequence[int], sums_ns: Sequence[int]) -> list[int]:
    """Return how long, in nanoseconds, the lag was above the lower bound of each bucket, lowest bucket first.

    The first number is the whole running time, ``run_ns``. ``counts`` and ``sums_ns`` are of the iterations in each
    bucket.
    """
    above: list[int] = []
    n = total_ns = 0
    for i in range(len(counts) - 1, 0, -1):
        n += counts[i]
        total_ns += sums_ns[i]
        above.append(total_ns - n * SECONDS.bounds[i - 1])
    above.append(run_ns)
    above.reverse()
    return above


def sum_of_waits(counts: Sequence[int], sums_ns: Sequence[int]) -> int:
    """Return the sum of all observations, in nanoseconds.

    It is half the sum of the squares of the durations, in milliseconds. A bucket's n durations are taken as equal. That
    is at most 0.8 % too low, since a bucket's bounds are at most 19 % apart.
    """
    squares = sum(total_ns * total_ns // n for n, total_ns in zip(counts, sums_ns, strict=True) if n)
    return squares // (2 * OBSERVATION_NS)


class Lag:
    """The histogram of one loop name. No count of it goes back, also with several readers."""

    __slots__ = ("_showing", "_shown")

    def __init__(self) -> None:
        self._showing = threading.RLock()
        self._shown = [0] * STRIDE

    def block(self, readings: Sequence[Reading]) -> list[int]:
        """Return the histogram as a block of counters, given the readings of all the name's counters."""
        counts = added_up(r.iteration[1:] for r in readings)
        sums_ns = added_up(r.counted.iteration_ns[1:] for r in readings)
        for reading in readings:
            if reading.open_iteration_ns:
                bucket = bisect_left(SECONDS.bounds, reading.open_iteration_ns)
                counts[bucket] += 1
                sums_ns[bucket] += reading.open_iteration_ns
        above_ns = time_above_bounds(sum(r.run_ns for r in readings), counts, sums_ns)
        return self._steady(above_ns, sum_of_waits(counts, sums_ns))

    def _steady(self, above_ns: Sequence[int], sum_ns: int) -> list[int]:
        """Return whole counts, none of them below its last returned value.

        Together they are the running time. Each differs by less than one observation from its bucket's share. The
        fractions together are observations, too: the buckets that lack most get one each. A count that would fall stays
        as it is until the time has caught up, and the lowest bucket, of waits and short iterations, has less meanwhile.
        That happens to what was rounded up, and if a reader reads the clock before the loop's thread has noted what it
        did.
        """
        with self._showing:
            counts = self._shown[1:]
            lacking: list[tuple[int, int]] = []
            for i, (time_ns, higher_ns) in enumerate(pairwise((*above_ns, 0))):
                counts[i] = max(counts[i], (time_ns - higher_ns) // OBSERVATION_NS)
                lacking.append((time_ns - higher_ns - counts[i] * OBSERVATION_NS, i))
            left = above_ns[0] // OBSERVATION_NS - sum(counts)
            counts[0] = max(self._shown[1], counts[0] + min(0, left))
            for lack_ns, i in nlargest(left, lacking):
                counts[i] += lack_ns > 0
            self._shown = [max(sum_ns, self._shown[0]), *counts]
            return self._shown.copy()

"""The bounds that all histograms share, in integer arithmetic.

One list of integer upper bounds holds two families: the decimal bounds that Prometheus users write (1, 2.5, 5 times a
power of ten), and the powers of 2^(1/4) of which OpenTelemetry's exponential histograms (scale 2) and Prometheus's
native ones (schema 2) are made. So counts over this list can be summed into either form without an error. An
exponential bound is irrational, but counted values are integers: ``v <= 2^(i/4)`` is the same as
``v <= floor(2^(i/4))``. The floor is exact, since it comes from integer roots and not from floats.

This module is not on the hot path: ``hotpath.pure`` takes ``bounds`` and ``fast_index`` from it once.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import isqrt
from operator import add

SCALE = 2
"""The finest exponential scale that is exact: bounds are powers of ``2**(1 / 2**SCALE)``."""

_PER_OCTAVE = 1 << SCALE


def floor_power(units: int, exponent: int) -> int:
    """Return ``floor(units * 2**(exponent / 4))``, exactly. The fourth root is two integer square roots."""
    fourth = units**_PER_OCTAVE
    return isqrt(isqrt(fourth << exponent if exponent >= 0 else fourth >> -exponent))


class Buckets:
    """Upper-inclusive integer bounds, with the places of the decimal and the exponential ones among them.

    ``units`` is how many counted integers make one exported unit: 10**9 for nanoseconds exported as seconds, 1 for
    plain counts. Bucket ``i`` holds the values ``bounds[i-1] < v <= bounds[i]``; one more bucket past the last bound
    holds the rest, so a histogram has ``size == len(bounds) + 1`` counters.
    """

    __slots__ = (
        "_decimal",
        "_exponential",
        "bounds",
        "decimal_bounds",
        "max_exponent",
        "min_exponent",
        "size",
        "units",
    )

    def __init__(self, units: int, octaves: tuple[int, int], decimals: Sequence[int]) -> None:
        """``octaves``: lowest and highest power of two, in exported units. ``decimals``: bounds in counted integers."""
        self.units = units
        self.min_exponent = octaves[0] * _PER_OCTAVE
        self.max_exponent = octaves[1] * _PER_OCTAVE
        powers = {e: floor_power(units, e) for e in range(self.min_exponent, self.max_exponent + 1)}
        self.bounds = tuple(sorted({0, *powers.values(), *decimals} if units == 1 else {*powers.values(), *decimals}))
        self.size = len(self.bounds) + 1
        self.decimal_bounds = tuple(d / units for d in decimals)
        self._decimal = {d / units: self.bounds.index(d) for d in decimals}
        self._exponential = {e: self.bounds.index(p) for e, p in powers.items()}

    def index(self, value: int) -> int:
        """Return the bucket that holds ``value``."""
        return bisect_left(self.bounds, value)

    def index_of_decimal(self, bound: float) -> int:
        """Return the bucket with the upper bound ``bound``, in exported units. ``ValueError`` if there is none."""
        try:
            return self._decimal[bound]
        except KeyError:
            known = ", ".join(f"{b:g}" for b in self.decimal_bounds)
            raise ValueError(f"{bound!r} is not a bound that can be exported exactly; choose among {known}") from None

    def index_of_exponent(self, exponent: int) -> int:
        """Return the bucket with the upper bound ``2**(exponent / 4)`` (scale 2). ``KeyError`` out of the range."""
        return self._exponential[exponent]

    def fast_index(self, limit: int) -> list[int]:
        """Return a table of ``index(v)`` for every ``v < limit``. The pure core uses it for short durations."""
        table: list[int] = []
        for i, bound in enumerate(self.bounds):
            table.extend([i] * (min(bound + 1, limit) - len(table)))
            if len(table) >= limit:
                break
        return table

    def coarse_index(self, limit: int, bits: int) -> list[int]:
        """Return a table of ``index(v) + 1`` by ``v >> bits``, for ``v < limit``; 0 where these ``v`` differ in it."""
        table = [0] * (limit >> bits)
        below = -1
        for i, bound in enumerate((*self.bounds, limit)):
            first, end = (below >> bits) + 1, min((bound + 1) >> bits, len(table))
            table[first:end] = [i + 1] * (end - first)
            below = bound
            if end == len(table):
                break
        return table


SECONDS = Buckets(
    units=10**9,
    octaves=(-24, 10),  # 60 ns to 17 minutes
    decimals=[int(m * 10**k) for k in range(2, 10) for m in (10, 25, 50)] + [10**11],  # 1 us to 50 s, and 100 s
)
"""For durations and delays: counted in nanoseconds, exported in seconds."""

COUNTS = Buckets(
    units=1,
    octaves=(0, 20),  # 1 to a million
    decimals=[m * 10**k for k in range(6) for m in (1, 2, 5)] + [10**6],
)
"""For depths of queues: counted and exported as they are; zero has a bucket of its own."""


def added_up(blocks: Iterable[list[int]]) -> list[int]:
    """Return the sum of blocks of equal length, number by number, as a new list."""
    # Most names have one block or two. Then this takes a fifth of the time of a sum for each column.
    first, *others = blocks
    total = list(first)
    for block in others:
        total = list(map(add, total, block))
    return total

"""What a reader gets: immutable figures of one loop name, and of the process, in exported units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import sub
from types import MappingProxyType
from typing import NamedTuple

from obsloop.metrics.buckets import SCALE, Buckets


class ExponentialBuckets(NamedTuple):
    """An exponential histogram, as OpenTelemetry and Prometheus define it: base ``2**(2**-scale)``, bounds inclusive.

    ``counts[i]`` holds the values in ``(base**(offset + i), base**(offset + i + 1)]``. What is at or below
    ``zero_threshold`` is in ``zero_count``: of times what is shorter than 60 ns, the smallest bound held; of plain
    counts zero alone. What is past the largest bound held (17 minutes; a million) is in the last bucket.
    """

    scale: int
    offset: int
    counts: tuple[int, ...]
    zero_count: int
    zero_threshold: float


class Exemplar(NamedTuple):
    """One real case of what a histogram counted: a value, and the trace in which it happened."""

    value: float
    """In exported units (seconds)."""
    time: float
    """Unix time, in seconds, at which it was seen."""
    trace_id: str
    """As W3C's Trace Context writes it: 32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts over a partition that classic and exponential buckets are exact sums of."""

    partition: Buckets
    bucket_counts: tuple[int, ...]
    sum: float
    """The sum of all values, in exported units (seconds, or a plain count)."""
    exemplars: tuple[Exemplar, ...] = ()
    """Real cases, ascending: of each bucket of slow ones at most one, the latest that was in a sampled span. Of
    callbacks' duration, schedule delay and the queue time of executors' jobs, in a program that has OpenTelemetry."""

    @classmethod
    def from_block(cls, partition: Buckets, block: Sequence[int]) -> Histogram:
        """From the core's form: the sum in counted integers, then the buckets."""
        return cls(partition, tuple(block[1:]), block[0] / partition.units)

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.bucket_counts)

    def cumulative(self, bounds: Sequence[float]) -> tuple[int, ...]:
        """How many values were at most each of ``bounds``, exactly: a classic Prometheus histogram's ``le`` buckets.

        Raises ``ValueError`` for a bound that is none of ``partition.decimal_bounds``.
        """
        upto = list(accumulate(self.bucket_counts))
        return tuple([upto[self.partition.index_of_decimal(b)] for b in bounds])

    def exponential(self, scale: int = SCALE) -> ExponentialBuckets:
        """The same counts in exponential buckets, exactly, at a scale up to 2; empty buckets at the ends left out."""
        if not 0 <= scale <= SCALE:
            raise ValueError(f"scale {scale!r} cannot be given exactly; choose 0 to {SCALE}")
        p = self.partition
        step = 1 << (SCALE - scale)
        # Zero is a bound where plain counts are counted: then what is up to the smallest power has a bucket, too.
        zero = 0 if p.bounds[0] == 0 else p.index_of_exponent(p.min_exponent)
        if not any(self.bucket_counts):  # most are: kinds of handle that a program does not use
            return ExponentialBuckets(scale, p.min_exponent // step - (not zero), (), 0, p.bounds[zero] / p.units)
        exponents = range(p.min_exponent + (step if zero else 0), p.max_exponent + 1, step)
        uptos = [p.index_of_exponent(exponent) + 1 for exponent in exponents]
        # Sums of slices, of which most are empty: differences of one running sum cost a fraction.
        running = list(accumulate(self.bucket_counts, initial=0))
        ends = [running[zero + 1], *(running[upto] for upto in uptos), running[-1]]
        counts = list(map(sub, ends[1:], ends))
        filled = [i for i, n in enumerate(counts) if n]
        lo, hi = (filled[0], filled[-1] + 1) if filled else (0, 0)
        offset = exponents[0] // step - 1 + lo
        return ExponentialBuckets(scale, offset, tuple(counts[lo:hi]), ends[0], p.bounds[zero] / p.units)


Value = float | int | Histogram
Points = Mapping[tuple[str, ...], Value]
"""Values by their label values, in the order of ``Metric.labels``."""


class CoroutineTime(NamedTuple):
    """What all tasks of one coroutine function took of the loop."""

    time: float
    """Seconds in their steps."""
    steps: int
    """How often they were resumed."""
    filename: str
    lineno: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one loop name, or of the process, at one moment. ``snapshot[metric name]`` gives the points."""

    loop_name: str
    """Empty for the figures of the process."""
    running: bool
    """Whether a loop of this name runs now."""
    blocked_time: float
    """Seconds that the loop has been in its present callback (the longest, if several run); 0.0 when it waits."""
    data: Mapping[str, Points]
    began: float = 0.0
    """Unix time, in seconds, at which all of it was zero: a loop of this name ran first, or obsloop was loaded; after a
    fork, that of the fork. 0.0 where it is not known."""
    coroutines: Mapping[str, CoroutineTime] = field(default_factory=dict[str, CoroutineTime])
    """What the tasks of each coroutine function took of the loop, by its name with its module, longest first: all of
    them, where ``asyncio.eventloop.callback.time`` shows the busiest. In the pure core an estimate from one step in
    sixteen."""

    def __getitem__(self, metric_name: str) -> Points:
        try:
            return self.data[metric_name]
        except KeyError:
            raise KeyError(f"no metric {metric_name!r} here; there are {', '.join(sorted(self.data))}") from None

    def value(self, metric_name: str, *label_values: str) -> float | int:
        """One number, by metric and label values in the catalogue's order."""
        found = self[metric_name][label_values]
        if isinstance(found, Histogram):
            raise TypeError(f"{metric_name} is a histogram: use histogram()")
        return found

    def histogram(self, metric_name: str, *label_values: str) -> Histogram:
        """One histogram, by metric and label values in the catalogue's order."""
        found = self[metric_name][label_values]
        if not isinstance(found, Histogram):
            raise TypeError(f"{metric_name} is no histogram: use value()")
        return found

    @property
    def run_time(self) -> float:
        """Seconds that loops of this name ran: the sum over the states."""
        return float(sum(self.value("asyncio.eventloop.time", *state) for state in self["asyncio.eventloop.time"]))

    def utilization(self, since: Snapshot | None = None) -> float:
        """Share of the running time since an earlier snapshot, or the beginning, that was not idle; 0.0 if none."""
        idle, ran = float(self.value("asyncio.eventloop.time", "idle")), self.run_time
        if since is not None:
            idle -= since.value("asyncio.eventloop.time", "idle")
            ran -= since.run_time
        return min(1.0, max(0.0, 1.0 - idle / ran)) if ran > 0.0 else 0.0


def frozen(data: dict[str, dict[tuple[str, ...], Value]]) -> Mapping[str, Points]:
    """``data`` with nothing left to change."""
    return MappingProxyType({name: MappingProxyType(points) for name, points in data.items()})

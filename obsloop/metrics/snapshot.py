"""The snapshots that readers get: immutable metrics of one loop name, or of the process, in exported units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import sub
from types import MappingProxyType
from typing import NamedTuple

from obsloop.metrics.buckets import SCALE, Buckets
from obsloop.metrics.metric import Metric


class ExponentialBuckets(NamedTuple):
    """An exponential histogram, as OpenTelemetry and Prometheus define it: base ``2**(2**-scale)``, bounds inclusive.

    ``counts[i]`` counts the values in ``(base**(offset + i), base**(offset + i + 1)]``. ``zero_count`` counts the
    values up to ``zero_threshold``: times up to 60 ns, the smallest bound; of plain counts, only zero. Values above the
    largest bound (17 minutes; a million) are in the last bucket.
    """

    scale: int
    offset: int
    counts: tuple[int, ...]
    zero_count: int
    zero_threshold: float


class Exemplar(NamedTuple):
    """One value that a histogram counted, with the trace in which it happened."""

    value: float
    """In exported units (seconds)."""
    time: float
    """When it was counted, as Unix time in seconds."""
    trace_id: str
    """32 hexadecimal digits, as in W3C's Trace Context."""
    span_id: str
    """16 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts over fine buckets, of which classic and exponential buckets are exact sums."""

    partition: Buckets
    bucket_counts: tuple[int, ...]
    sum: float
    """The sum of all values, in exported units (seconds, or a plain count)."""
    exemplars: tuple[Exemplar, ...] = ()
    """Exemplars, ascending: for each slow bucket at most one, the latest value in a sampled span. Only for the duration
    and schedule delay of callbacks and the queue time of executors' jobs, in a program that uses OpenTelemetry."""

    @classmethod
    def from_block(cls, partition: Buckets, block: Sequence[int]) -> Histogram:
        """Make a histogram of a block of counters: the sum in counted integers, then the buckets."""
        return cls(partition, tuple(block[1:]), block[0] / partition.units)

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.bucket_counts)

    def cumulative(self, bounds: Sequence[float]) -> tuple[int, ...]:
        """Return how many values were at most each of ``bounds``, exactly, as in Prometheus's classic ``le`` buckets.

        Raises ``ValueError`` for a bound that is not in ``partition.decimal_bounds``.
        """
        upto = list(accumulate(self.bucket_counts))
        return tuple([upto[self.partition.index_of_decimal(b)] for b in bounds])

    def exponential(self, scale: int = SCALE) -> ExponentialBuckets:
        """Return the same counts in exponential buckets, exactly. Empty buckets at the ends are left out.

        Raises ``ValueError`` for a ``scale`` that is not 0, 1 or 2.
        """
        if not 0 <= scale <= SCALE:
            raise ValueError(f"scale {scale!r} cannot be given exactly; choose 0 to {SCALE}")
        p = self.partition
        step = 1 << (SCALE - scale)
        # For plain counts zero is a bound. Then the values up to the smallest power have a bucket, too.
        zero = 0 if p.bounds[0] == 0 else p.index_of_exponent(p.min_exponent)
        if not any(self.bucket_counts):  # most histograms are empty: a program does not use all kinds of handles
            return ExponentialBuckets(scale, p.min_exponent // step - (not zero), (), 0, p.bounds[zero] / p.units)
        exponents = range(p.min_exponent + (step if zero else 0), p.max_exponent + 1, step)
        uptos = [p.index_of_exponent(exponent) + 1 for exponent in exponents]
        # Most slices are empty, so differences of one running sum cost a fraction of summing each slice.
        running = list(accumulate(self.bucket_counts, initial=0))
        ends = [running[zero + 1], *(running[upto] for upto in uptos), running[-1]]
        counts = list(map(sub, ends[1:], ends))
        filled = [i for i, n in enumerate(counts) if n]
        lo, hi = (filled[0], filled[-1] + 1) if filled else (0, 0)
        offset = exponents[0] // step - 1 + lo
        return ExponentialBuckets(scale, offset, tuple(counts[lo:hi]), ends[0], p.bounds[zero] / p.units)


Value = float | int | Histogram
Points = Mapping[tuple[str, ...], Value]
"""Values by label values, in the order of ``Metric.labels``."""


class CoroutineTime(NamedTuple):
    """The loop time that all tasks of one coroutine function took."""

    time: float
    """Seconds in their steps."""
    steps: int
    """How often they were resumed."""
    filename: str
    lineno: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The metrics of one loop name, or of the process, at one moment. ``snapshot[metric name]`` gives the points."""

    loop_name: str
    """Empty for the metrics of the process."""
    running: bool
    """Whether a loop of this name runs now."""
    blocked_time: float
    """Seconds that the loop has been in its current callback (the longest, if several loops run); 0.0 if it waits."""
    data: Mapping[str, Points]
    began: float = 0.0
    """When all counters were zero, as Unix time in seconds: when a loop of this name first ran, or obsloop was loaded;
    after a fork, the time of the fork. 0.0 if not known."""
    coroutines: Mapping[str, CoroutineTime] = field(default_factory=dict[str, CoroutineTime])
    """The loop time of the tasks of each coroutine function, by its name with its module, longest first. It has all
    functions, while ``asyncio.eventloop.callback.time`` names only the busiest. In the pure core this is an estimate
    from one step in sixteen."""
    partial: bool = False
    """Whether the loop is uvloop's own, of which obsloop measures less. What it does not measure has no points."""

    def __getitem__(self, metric_name: str) -> Points:
        try:
            return self.data[metric_name]
        except KeyError:
            raise KeyError(f"no metric {metric_name!r} here; there are {', '.join(sorted(self.data))}") from None

    def value(self, metric_name: str, *label_values: str) -> float | int:
        """Return one number, by metric and label values in the catalogue's order. ``TypeError`` for a histogram."""
        found = self[metric_name][label_values]
        if isinstance(found, Histogram):
            raise TypeError(f"{metric_name} is a histogram: use histogram()")
        return found

    def histogram(self, metric_name: str, *label_values: str) -> Histogram:
        """Return one histogram, by metric and label values in the catalogue's order. ``TypeError`` for a number."""
        found = self[metric_name][label_values]
        if not isinstance(found, Histogram):
            raise TypeError(f"{metric_name} is no histogram: use value()")
        return found

    def exported(self, metric: Metric) -> Points:
        """Return the points of a metric that exporters export: all but those of what has never happened.

        A series without labels is always there, and so are those of ``Metric.from_start`` and those whose label values
        come from the program, which has them only from an event.
        """
        points = self[metric.name]
        plain = metric.kind != "histogram" and not metric.labels
        if plain or metric.from_start or any(label.bound for label in metric.labels):
            return points
        counted = self.data.get(metric.counted_by, {})
        return {labels: value for labels, value in points.items() if _happened(value) or counted.get(labels)}

    @property
    def run_time(self) -> float:
        """Seconds that loops of this name ran: the sum over the states."""
        return float(sum(self.value("asyncio.eventloop.time", *state) for state in self["asyncio.eventloop.time"]))

    def utilization(self, since: Snapshot | None = None) -> float:
        """Return the share of the running time that was not idle, since an earlier snapshot or the start.

        It is 0.0 if the loop did not run.
        """
        idle, ran = float(self.value("asyncio.eventloop.time", "idle")), self.run_time
        if since is not None:
            idle -= since.value("asyncio.eventloop.time", "idle")
            ran -= since.run_time
        return min(1.0, max(0.0, 1.0 - idle / ran)) if ran > 0.0 else 0.0


def _happened(value: Value) -> bool:
    return any(value.bucket_counts) if isinstance(value, Histogram) else value != 0


def frozen(data: dict[str, dict[tuple[str, ...], Value]]) -> Mapping[str, Points]:
    """Return an immutable view of ``data``."""
    return MappingProxyType({name: MappingProxyType(points) for name, points in data.items()})

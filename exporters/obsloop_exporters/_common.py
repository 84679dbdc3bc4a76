"""What all our exporters share: which bounds a histogram has, and which are exact, label values to be written,
and which exemplars go with which buckets.

Shared, so that one run looks the same wherever it is looked at. No third-party module is needed here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from math import inf

from obsloop import Exemplar, Metric


def bounds_for(
    metric: Metric, seconds_buckets: Iterable[float] | None, count_buckets: Iterable[float] | None
) -> tuple[float, ...]:
    """Of a histogram: those of the two that it takes, or else its own; ascending, each once, without +Inf.

    Of anything else none. Raises ``ValueError`` for a bound that obsloop's histograms cannot be summed into exactly.
    """
    if metric.kind != "histogram":
        return ()
    argument, bounds = ("seconds_buckets", seconds_buckets) if metric.unit == "s" else ("count_buckets", count_buckets)
    bounds = metric.buckets if bounds is None else tuple(bounds)
    for bound in bounds:
        if bound != inf and bound not in metric.bounds:
            raise ValueError(
                f"{argument}: {bound!r} is not a bound that {metric.name} can be exported at exactly;"
                f" choose among {', '.join(f'{b:g}' for b in metric.bounds)}"
            )
    return tuple(sorted({float(bound) for bound in bounds} - {inf}))


def latest(exemplars: Iterable[Exemplar], bucket_of: Callable[[float], int]) -> dict[int, Exemplar]:
    """Of each bucket that is exported the latest exemplar: obsloop's own buckets are finer."""
    found: dict[int, Exemplar] = {}
    for exemplar in exemplars:
        bucket = bucket_of(exemplar.value)
        if bucket not in found or found[bucket].time < exemplar.time:
            found[bucket] = exemplar
    return found


def bucket_within(bounds: Sequence[float]) -> Callable[[float], int]:
    """Which of the buckets with these upper bounds, and one more for the rest, a value is in."""
    return lambda value: bisect_left(bounds, value)


def encodable(value: str) -> str:
    """A label value that UTF-8 can write: a thread's name, and so a loop's, may hold half a surrogate pair."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")

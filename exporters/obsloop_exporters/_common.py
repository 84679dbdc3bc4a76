"""Choose bounds, label values and exemplars for all exporters, so that a run looks the same in each system.

No third-party module is needed here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from math import inf

from obsloop import Exemplar, Metric


def bounds_for(
    metric: Metric, seconds_buckets: Iterable[float] | None, count_buckets: Iterable[float] | None
) -> tuple[float, ...]:
    """Return a histogram's bounds, ascending, without +Inf; empty for any other metric.

    They are ``seconds_buckets`` or ``count_buckets``, by its unit, or if not given the metric's own. A bound at which
    obsloop's buckets cannot be summed exactly raises ``ValueError``.
    """
    if metric.kind != "histogram":
        return ()
    argument, bounds = ("seconds_buckets", seconds_buckets) if metric.unit == "s" else ("count_buckets", count_buckets)
    bounds = metric.buckets if bounds is None else tuple(bounds)
    for bound in bounds:
        if bound != inf and bound not in metric.bounds:
            raise ValueError(
                f"{argument}: {metric.name} cannot be exported exactly at the bound {bound!r};"
                f" choose among {', '.join(f'{b:g}' for b in metric.bounds)}"
            )
    return tuple(sorted({float(bound) for bound in bounds} - {inf}))


def latest(exemplars: Iterable[Exemplar], bucket_of: Callable[[float], int]) -> dict[int, Exemplar]:
    """Return the latest exemplar of each exported bucket. (obsloop's own buckets are finer.)"""
    found: dict[int, Exemplar] = {}
    for exemplar in exemplars:
        bucket = bucket_of(exemplar.value)
        if bucket not in found or found[bucket].time < exemplar.time:
            found[bucket] = exemplar
    return found


def bucket_within(bounds: Sequence[float]) -> Callable[[float], int]:
    """Return a function that finds a value's bucket, among those with these upper bounds and one for the rest."""
    return lambda value: bisect_left(bounds, value)


def encodable(value: str) -> str:
    """Make a label value encodable in UTF-8: a thread's name, and so a loop's, may hold half a surrogate pair."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")

"""Convert a reading to the SDK's data classes, as one reader prefers them: kind, temporality, buckets.

All buckets are exact: sums of obsloop's own buckets. Only public classes of the SDK are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, log2
from operator import sub
from typing import Any

from opentelemetry.sdk import metrics
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    SumAggregation,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import obsloop
from obsloop import METRICS, ExponentialBuckets, Histogram, Metric
from obsloop_exporters import _otel_reading as reading
from obsloop_exporters._common import bucket_within, latest
from obsloop_exporters._otel_reading import Point, Reading, attempt

SCOPE = InstrumentationScope("obsloop", obsloop.__version__)

_SCALE = 2
"""The finest scale at which obsloop's buckets are exact."""
# The smallest and the largest value are not kept: OTLP leaves the fields out then, and the console shows null.
_UNKNOWN: Any = None
_EXEMPLAR: Any = getattr(metrics, "Exemplar", None)
"""None in older SDKs, whose points have no exemplars."""
_NOT_ASKED: object = getattr(ExplicitBucketHistogramAggregation(), "_boundaries", None)
"""The attribute's value if no bounds were given: None, or in older SDKs bounds made for milliseconds."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One metric as it is exported: as it is, or as a View wants it."""

    name: str
    description: str
    keys: frozenset[str] | None = None
    """The attributes that stay; None for all."""
    aggregation: Aggregation | None = None
    """None: the reader's."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one reader prefers."""

    temporality: Mapping[str, AggregationTemporality]
    """By ``Metric.kind``; gauges have none."""
    aggregation: Aggregation
    """That of histograms."""
    bounds: Mapping[str, tuple[float, ...]]
    """Bounds of explicit buckets that the program has chosen, by metric, for when neither the reader nor a View has
    any."""
    exemplars: Callable[[], bool] = lambda: True
    """Whether the provider lets exemplars out."""


Streams = Mapping[str, tuple[Stream, ...]]
"""By metric; empty for one that a View drops."""

PLAIN: Streams = {metric.name: (Stream(metric.name, metric.help),) for metric in METRICS}
"""Without any View."""


def scope_metrics(now: Reading, base: Reading | None, wishes: Wishes, streams: Streams) -> sdk.ScopeMetrics:
    """Return all exported metrics in the catalogue's order, without those that have no series."""
    found: list[sdk.Metric] = []
    for metric in obsloop.exported_metrics():
        if streams[metric.name]:
            points = reading.points(metric, now, base)
            for stream in streams[metric.name]:
                data = attempt(stream.name, _data, metric, stream, points, now.time_ns, wishes)
                if data is not None and data.data_points:
                    found.append(sdk.Metric(stream.name, stream.description, metric.unit, data))
    return sdk.ScopeMetrics(SCOPE, found, SCOPE.schema_url or "")


def _data(metric: Metric, stream: Stream, points: Iterable[Point], time_ns: int, wishes: Wishes) -> sdk.DataT | None:
    aggregation = stream.aggregation
    if aggregation is None:
        aggregation = wishes.aggregation if metric.kind == "histogram" else SumAggregation()
    if isinstance(aggregation, DropAggregation):
        return None
    if stream.keys is not None:
        points = _merged(points, stream.keys, last=metric.kind == "gauge")
    if metric.kind == "gauge" or isinstance(aggregation, LastValueAggregation):
        return sdk.Gauge([_number(point, 0, time_ns, _plain(point.value)) for point in points])
    temporality = wishes.temporality[metric.kind]
    delta = temporality is AggregationTemporality.DELTA
    changes = [
        (point, min(time_ns, point.since_ns if delta else point.began_ns), _changed(point, delta)) for point in points
    ]
    if metric.kind != "histogram" or isinstance(aggregation, SumAggregation):
        numbers = [_number(point, start_ns, time_ns, _plain(value)) for point, start_ns, value in changes]
        return sdk.Sum(numbers, temporality, metric.kind != "updowncounter")
    with_exemplars = wishes.exemplars()
    histograms = [
        (point.attributes, start_ns, time_ns, value if with_exemplars else replace(value, exemplars=()))
        for point, start_ns, value in changes
        if isinstance(value, Histogram) and (not delta or value.count)
    ]
    if isinstance(aggregation, ExponentialBucketHistogramAggregation):
        return sdk.ExponentialHistogram([exponential(*each, aggregation) for each in histograms], temporality)
    bounds = _bounds(metric, aggregation, wishes)
    return sdk.Histogram([_explicit(*each, bounds) for each in histograms], temporality)


def _changed(point: Point, delta: bool) -> reading.Value:
    return reading.minus(point.value, point.before) if delta else point.value


def _merged(points: Iterable[Point], keys: frozenset[str], *, last: bool) -> list[Point]:
    """Merge the series so that only these attributes stay: to sums, or with ``last`` (gauges) to the last one."""
    merged: dict[tuple[tuple[str, str], ...], Point] = {}
    for point in points:
        attributes = {key: value for key, value in point.attributes.items() if key in keys}
        one = tuple(attributes.items())
        there = merged.get(one)
        if there is None or last:
            merged[one] = point._replace(attributes=attributes)
            continue
        before = there.before if point.before is None else point.before
        if there.before is not None and point.before is not None:
            before = reading.plus(there.before, point.before)
        merged[one] = Point(
            attributes,
            reading.plus(there.value, point.value),
            before,
            min(there.began_ns, point.began_ns),
            min(there.since_ns, point.since_ns),
        )
    return list(merged.values())


def _plain(value: reading.Value) -> float | int:
    """Return the number, or a histogram's sum, as OpenTelemetry's sum aggregation does."""
    return value.sum if isinstance(value, Histogram) else value


def _number(point: Point, start_ns: int, time_ns: int, value: float) -> sdk.NumberDataPoint:
    return sdk.NumberDataPoint(point.attributes, start_ns, time_ns, value)


def _explicit(
    attributes: dict[str, str], start_ns: int, time_ns: int, value: Histogram, bounds: tuple[float, ...]
) -> sdk.HistogramDataPoint:
    count = value.count
    upto = (*value.cumulative(bounds), count)
    counts = tuple(map(sub, upto, (0, *upto)))
    return sdk.HistogramDataPoint(
        attributes,
        start_ns,
        time_ns,
        count,
        value.sum,
        counts,
        bounds,
        _UNKNOWN,
        _UNKNOWN,
        *_exemplars(value, bucket_within(bounds)),
    )


def _exemplars(value: Histogram, bucket_of: Callable[[float], int]) -> tuple[list[Any], ...]:
    """Return a point's last argument, the latest exemplar of each bucket; empty without any."""
    if not value.exemplars or _EXEMPLAR is None:
        return ()
    return (
        [
            _EXEMPLAR({}, of, round(at * 1e9), int(span_id, 16), int(trace_id, 16))
            for of, at, trace_id, span_id in latest(value.exemplars, bucket_of).values()
        ],
    )


def _bounds(metric: Metric, aggregation: Aggregation, wishes: Wishes) -> tuple[float, ...]:
    """Return those of the requested bounds that are exact. Others are left out, with one warning."""
    asked: tuple[float, ...] | None = None
    if isinstance(aggregation, ExplicitBucketHistogramAggregation):
        asked = getattr(aggregation, "_boundaries", None)
    if asked is None or asked == _NOT_ASKED:
        return wishes.bounds.get(metric.name, metric.buckets)
    exact = tuple(float(bound) for bound in asked if bound in metric.bounds)
    if len(exact) < len(asked):
        left_out = ", ".join(f"{bound:g}" for bound in asked if bound not in metric.bounds)
        reading.say_once(
            f"{metric.name}: buckets cannot be given exactly at {left_out}, which are left out; choose among"
            f" {', '.join(f'{bound:g}' for bound in metric.bounds)}"
        )
    return exact


def exponential(
    attributes: dict[str, str],
    start_ns: int,
    time_ns: int,
    value: Histogram,
    aggregation: ExponentialBucketHistogramAggregation,
) -> sdk.ExponentialHistogramDataPoint:
    """Return a point at the finest exact scale that fits into the aggregation's maximum of buckets."""
    max_scale: int = getattr(aggregation, "_max_scale", _SCALE)
    max_size: int = getattr(aggregation, "_max_size", 160)
    buckets = value.exponential(min(_SCALE, max(0, max_scale)))
    # At least two buckets: values below and above 1 never share one. By definition scales end at -10.
    while buckets.scale > max(max_scale, -10) or len(buckets.counts) > max(2, max_size):
        buckets = halved(buckets)
    return sdk.ExponentialHistogramDataPoint(
        attributes,
        start_ns,
        time_ns,
        value.count,
        value.sum,
        buckets.scale,
        buckets.zero_count,
        sdk.Buckets(buckets.offset if buckets.counts else 0, buckets.counts),
        sdk.Buckets(0, ()),
        0,
        _UNKNOWN,
        _UNKNOWN,
        *_exemplars(value, lambda of: ceil(log2(of) * 2.0**buckets.scale) - 1),
    )


def halved(buckets: ExponentialBuckets) -> ExponentialBuckets:
    """Return the counts at the next coarser scale, where bucket ``i`` is ``2 i`` and ``2 i + 1`` of the finer one."""
    odd = buckets.offset & 1
    counts = (*(0,) * odd, *buckets.counts, *(0,) * ((odd + len(buckets.counts)) & 1))
    pairs = tuple(counts[i] + counts[i + 1] for i in range(0, len(counts), 2))
    return buckets._replace(scale=buckets.scale - 1, offset=buckets.offset >> 1, counts=pairs)

"""What the tests of the OpenTelemetry exporter share: providers of their own, and what a reader was given."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricReader

import obsloop
from obsloop import LOOP_NAME_LABEL, Histogram, Metric, Snapshot
from obsloop_exporters import otel_metrics

DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE

Given = dict[str, dict[frozenset[tuple[str, str]], Any]]


@contextmanager
def provider_with(*readers: MetricReader, views: Any = (), install: bool = True) -> Iterator[MeterProvider]:
    """A provider with these readers, given obsloop's metrics; shut down afterwards."""
    provider = MeterProvider(metric_readers=readers, views=views, shutdown_on_exit=False)
    if install:
        otel_metrics.install(provider)
    try:
        yield provider
    finally:
        provider.shutdown()


def metrics(reader: InMemoryMetricReader, scope: str = "obsloop") -> dict[str, Any]:
    """The metrics of one collection, by name."""
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data else ())
        for one in resource.scope_metrics
        if one.scope.name == scope
        for metric in one.metrics
    }


def given(reader: InMemoryMetricReader) -> Given:
    """The points of one collection, by name and attributes."""
    return {
        name: {frozenset(point.attributes.items()): point for point in metric.data.data_points}
        for name, metric in metrics(reader).items()
    }


def key(metric: Metric, labels: tuple[str, ...], loop: str) -> frozenset[tuple[str, str]]:
    """The attributes that a series has."""
    own = {LOOP_NAME_LABEL: loop} if metric.scope == "loop" else {}
    return frozenset((own | {one.name: value for one, value in zip(metric.labels, labels, strict=True)}).items())


def expected(loops: Mapping[str, Snapshot], process: Snapshot) -> Given:
    """The values of all series of some snapshots, by name and attributes."""
    every: Given = {}
    for metric in obsloop.METRICS:
        series = every.setdefault(metric.name, {})
        for snapshot in [process] if metric.scope == "process" else loops.values():
            if metric.name == "asyncio.eventloop.utilization":
                series[key(metric, (), snapshot.loop_name)] = snapshot.utilization()
                continue
            for labels, value in snapshot.exported(metric).items():
                series[key(metric, labels, snapshot.loop_name)] = value
    return {name: series for name, series in every.items() if series}


def exponential_of(point: Any) -> dict[int, int]:
    """Bucket index to count, without the empty ones; of a data class or of protobuf."""
    return {point.positive.offset + i: n for i, n in enumerate(point.positive.bucket_counts) if n}


def exponential(histogram: Histogram, scale: int) -> dict[int, int]:
    """The same of a snapshot's histogram."""
    buckets = histogram.exponential(scale)
    return {buckets.offset + i: n for i, n in enumerate(buckets.counts) if n}


def explicit(histogram: Histogram, bounds: tuple[float, ...]) -> list[int]:
    """The counts of explicit buckets, as OpenTelemetry has them: not cumulative, one more than there are bounds."""
    upto = (*histogram.cumulative(bounds), histogram.count)
    return [b - a for a, b in zip((0, *upto), upto, strict=False)]

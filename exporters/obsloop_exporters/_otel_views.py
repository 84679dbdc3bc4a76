"""Apply the Views of the program's MeterProvider: rename, drop, sum up, other buckets.

The SDK applies Views only to what is recorded through it, which obsloop's metrics are not. So they are read and applied
here. They can be read by private names only: if those are missing, all metrics are exported unchanged, with one
warning.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    DefaultAggregation,
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    SumAggregation,
)

from obsloop import METRICS, Metric
from obsloop_exporters._otel_points import PLAIN, SCOPE, Stream, Streams
from obsloop_exporters._otel_reading import say_once

_CLASSES: dict[str, type[Any]] = {
    "counter": sdk.ObservableCounter,
    "updowncounter": sdk.ObservableUpDownCounter,
    "gauge": sdk.ObservableGauge,
    "histogram": sdk.Histogram,
}
_OBEYED = {
    "counter": (DropAggregation, SumAggregation, LastValueAggregation),
    "updowncounter": (DropAggregation, SumAggregation, LastValueAggregation),
    "gauge": (DropAggregation, LastValueAggregation),
    "histogram": (
        DropAggregation,
        SumAggregation,
        ExplicitBucketHistogramAggregation,
        ExponentialBucketHistogramAggregation,
    ),
}

_known: weakref.WeakKeyDictionary[Any, Streams] = weakref.WeakKeyDictionary()


def streams_of(provider: object | None) -> Streams:
    """Return how each metric is exported by ``provider``. Its Views do not change after it is made."""
    if not isinstance(provider, sdk.MeterProvider):
        return PLAIN
    found = _known.get(provider)
    if found is None:
        try:
            views: Sequence[Any] = provider._sdk_config.views
            found = {metric.name: _streams(metric, views) for metric in METRICS} if views else PLAIN
        except Exception as error:
            say_once(f"the MeterProvider's Views cannot be read and are not applied to obsloop's metrics: {error!r}")
            found = PLAIN
        _known[provider] = found
    return found


def _streams(metric: Metric, views: Sequence[Any]) -> tuple[Stream, ...]:
    instrument = _stand_in(metric)
    matching = [view for view in views if view._match(instrument)]
    return tuple(_stream(metric, view) for view in matching) or PLAIN[metric.name]


def _stream(metric: Metric, view: Any) -> Stream:
    aggregation: Aggregation | None = view._aggregation
    if isinstance(aggregation, DefaultAggregation):
        aggregation = None
    elif not isinstance(aggregation, _OBEYED[metric.kind]):
        say_once(
            f"a View's {type(aggregation).__name__} does not fit a {metric.kind} such as {metric.name}: it is ignored"
            " for such metrics",
            once=f"{type(aggregation).__name__} {metric.kind}",
        )
        aggregation = None
    keys: set[str] | None = view._attribute_keys
    return Stream(
        view._name or metric.name,
        view._description or metric.help,
        None if keys is None else frozenset(keys),
        aggregation,
    )


def _stand_in(metric: Metric) -> Any:
    """Return an instrument for a View to match, of the right class and not registered anywhere."""
    stand_in: Any = type("StandIn", (_CLASSES[metric.kind],), {"__init__": object.__init__})()
    stand_in.name, stand_in.unit, stand_in.instrumentation_scope = metric.name, metric.unit, SCOPE
    return stand_in

"""The SDK's side: exporters and readers that are given obsloop's metrics beside what the program itself records.

The SDK has no way in for histograms that are counted already. So they are added where a collection leaves it, between
the reader and the exporter, in public data classes. The private names that this needs are all in ``readers``,
``exporter_of``, ``wishes_of`` and ``exemplars_wanted``: each is looked for, not leant on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry import metrics as api
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
)
from opentelemetry.sdk.metrics.view import DefaultAggregation, ExplicitBucketHistogramAggregation

import obsloop
from obsloop_exporters import _otel_reading as reading
from obsloop_exporters._otel_points import PLAIN, SCOPE, Streams, Wishes, scope_metrics
from obsloop_exporters._otel_reading import Reading, attempt
from obsloop_exporters._otel_views import streams_of

# As instruments that are observed, which is what obsloop's figures are: "lowmemory" tells these from the others.
_CLASSES: Mapping[str, type[Any]] = {
    "counter": sdk.ObservableCounter,
    "updowncounter": sdk.ObservableUpDownCounter,
    "histogram": sdk.Histogram,
}

Bounds = Mapping[str, tuple[float, ...]]


class Figures:
    """What one exporter or reader is given. Differences are to what arrived there last: nobody else disturbs them."""

    def __init__(self, wishes: Wishes, streams: Callable[[], Streams]) -> None:
        self._wishes = wishes
        self._streams = streams
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._arrived: Reading | None = None
        self._lock = threading.RLock()

    def send(self, data: MetricsData, send: Callable[[MetricsData], bool]) -> None:
        """``send`` the data with ours; it says whether they arrived. What did not is in the next difference."""
        if self._pid != os.getpid():
            # After fork the figures begin anew, and the lock may be held by a thread that is not here.
            self._begin()
        with self._lock:
            began = time.perf_counter()
            added = attempt("all of it", self._added, data)
            spent = time.perf_counter() - began
            arrived = False
            try:
                arrived = send(data if added is None else added[0])
            finally:
                if arrived and added is not None:
                    self._arrived = added[1]
                obsloop.count_export(spent, failed=not arrived)

    def _added(self, data: MetricsData) -> tuple[MetricsData, Reading]:
        now = reading.take()
        ours = scope_metrics(now, self._arrived, self._wishes, self._streams())
        added = [
            # What the SDK has under our scope is what kept the collection from being empty: it is in ours.
            replace(one, scope_metrics=[*(s for s in one.scope_metrics if s.scope != SCOPE), *([ours] * (i == 0))])
            for i, one in enumerate(data.resource_metrics)
        ]
        return replace(data, resource_metrics=added), now


class Exporter(MetricExporter):
    """An exporter, given obsloop's metrics too. All else is as the exporter inside has it."""

    def __init__(self, inside: MetricExporter, figures: Figures) -> None:
        super().__init__(
            preferred_temporality=getattr(inside, "_preferred_temporality", None),
            preferred_aggregation=getattr(inside, "_preferred_aggregation", None),
        )
        self.inside: Any = inside
        self.provider: Callable[[], object] = api.get_meter_provider
        """Whose reader it belongs to, as far as is known: for the Views."""
        self._figures = figures

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        """Send the SDK's data and obsloop's. A failure is counted, and the next export covers it."""
        result = MetricExportResult.FAILURE

        def send(data: MetricsData) -> bool:
            nonlocal result
            result = self.inside.export(data, timeout_millis=timeout_millis, **kwargs)
            return result is not MetricExportResult.FAILURE

        self._figures.send(metrics_data, send)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As inside."""
        return bool(self.inside.force_flush(timeout_millis=timeout_millis))

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """As inside."""
        self.inside.shutdown(timeout_millis=timeout_millis, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "inside":  # not there yet: made without __init__, as by copy
            raise AttributeError(name)
        return getattr(self.inside, name)


class Attached:
    """The readers of one provider that are given obsloop's metrics, until ``detach``.

    Its lock is held shortly and never while the SDK is called: collections come here with locks of the SDK's own.
    """

    def __init__(self, provider: object) -> None:
        self.provider = provider
        self.bounds: Bounds = {}
        self._lock = threading.Lock()
        self._undo: dict[MetricReader, Callable[[], None]] = {}
        self._figures: dict[MetricReader, tuple[MetricExporter | None, Figures]] = {}
        """Kept when detached: who attaches again counts on from what has arrived."""

    def look(self, bounds: Bounds) -> bool:
        """Attach to the readers that have come since the last look. False where they cannot be found."""
        found = readers(self.provider)
        if found is None:
            return False
        if len(found) != len(self._undo) or not all(reader in self._undo for reader in found):
            with self._lock:
                self.bounds = bounds
                for gone in self._figures.keys() - set(found):
                    del self._figures[gone]
                self._undo = {reader: self._undo.get(reader) or self._attach(reader) for reader in found}
        return True

    def detach(self) -> None:
        """Leave all readers as they were."""
        with self._lock:
            for undo in self._undo.values():
                undo()
            self._undo = {}

    def forked(self) -> None:
        """The lock may be held by a thread that is gone."""
        self._lock = threading.Lock()

    def _attach(self, reader: MetricReader) -> Callable[[], None]:
        inside = exporter_of(reader)
        if isinstance(inside, Exporter):  # by `wrap`
            inside.provider = lambda: self.provider
            return lambda: None
        there = self._figures.get(reader)
        if there is None or there[0] is not inside:
            wishes = wishes_of(reader if inside is None else inside, self.bounds, lambda: self.provider)
            there = self._figures[reader] = inside, Figures(wishes, lambda: streams_of(self.provider))
        owner: Any = reader
        if inside is None:
            return self._hook(owner, there[1])
        wrapped = owner._exporter = Exporter(inside, there[1])
        wrapped.provider = lambda: self.provider

        def undo() -> None:
            if owner._exporter is wrapped:
                owner._exporter = inside

        return undo

    def _hook(self, reader: Any, figures: Figures) -> Callable[[], None]:
        """A reader without an exporter keeps what it is given: that it was given is that it arrived."""
        receive = reader._receive_metrics

        def receive_ours(metrics_data: MetricsData, *args: object, **kwargs: object) -> None:
            def send(data: MetricsData) -> bool:
                receive(data, *args, **kwargs)
                return True

            figures.send(metrics_data, send)

        reader._receive_metrics = receive_ours

        def undo() -> None:
            if reader._receive_metrics is receive_ours:
                del reader._receive_metrics

        return undo


def readers(provider: object) -> list[MetricReader] | None:
    """The readers of a provider, those too that came after it was made; None where they cannot be found.

    The SDK has no public name for them. This is the one place that knows where they are.
    """
    if not isinstance(provider, MeterProvider):
        return None
    consumer = getattr(provider, "_measurement_consumer", None)
    found: Iterable[object] | None = getattr(consumer, "_reader_storages", None)
    if found is None:
        found = getattr(provider, "_metric_readers", None)
    if found is None:
        return None
    every = list(found)
    return [one for one in every if isinstance(one, MetricReader)] if every else []


def exporter_of(reader: MetricReader) -> MetricExporter | None:
    """The exporter that a reader pushes to; None where it has none, and is asked for what it received."""
    found = getattr(reader, "_exporter", None)
    return found if isinstance(found, MetricExporter) else None


def wishes_of(owner: MetricExporter | MetricReader, bounds: Bounds, provider: Callable[[], object]) -> Wishes:
    """What an exporter or a reader prefers, by its arguments or the environment; cumulative where it says nothing."""
    temporalities: Mapping[type, AggregationTemporality] = (
        getattr(owner, "_preferred_temporality", None) or getattr(owner, "_instrument_class_temporality", None) or {}
    )
    aggregations: Mapping[type, Any] = (
        getattr(owner, "_preferred_aggregation", None) or getattr(owner, "_instrument_class_aggregation", None) or {}
    )
    aggregation = next((found for one, found in aggregations.items() if issubclass(one, sdk.Histogram)), None)
    if aggregation is None or isinstance(aggregation, DefaultAggregation):
        aggregation = ExplicitBucketHistogramAggregation()
    temporality = {
        kind: next(
            (found for one, found in temporalities.items() if issubclass(one, wanted)),
            AggregationTemporality.CUMULATIVE,
        )
        for kind, wanted in _CLASSES.items()
    }
    return Wishes(temporality, aggregation, bounds, lambda: exemplars_wanted(provider()))


def exemplars_wanted(provider: object) -> bool:
    """Whether a provider lets exemplars out: not with ``OTEL_METRICS_EXEMPLAR_FILTER=always_off``, or that filter.

    Ours are of sampled spans only, which "trace_based", the SDK's default, wants; "always_on" would be for values
    without a trace, too.
    """
    chosen = getattr(getattr(provider, "_sdk_config", None), "exemplar_filter", None)
    off = getattr(sdk, "AlwaysOffExemplarFilter", None)
    return off is None or not isinstance(chosen, off)


def wrapped(inside: MetricExporter, bounds: Bounds) -> Exporter:
    """An exporter for a provider that is yet to be made: it obeys Views if that turns out to be the global one."""
    if isinstance(inside, Exporter):
        return inside

    def provider() -> object:
        found = exporter.provider()
        mine = any(exporter_of(reader) is exporter for reader in readers(found) or ())
        return found if mine else None

    def streams() -> Streams:
        found = provider()
        return PLAIN if found is None else streams_of(found)

    exporter = Exporter(inside, Figures(wishes_of(inside, bounds, provider), streams))
    return exporter

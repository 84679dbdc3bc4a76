"""Add obsloop's metrics to what the SDK's exporters and readers get from the program.

The SDK accepts no histograms that are counted already. So they are added where a collection leaves it, between the
reader and the exporter, in public data classes. The SDK's private names that this needs are all in ``readers``,
``exporter_of``, ``wishes_of`` and ``exemplars_wanted``. If one is missing, the code goes on without it.
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

# The classes of observable instruments, which suit obsloop's metrics: the preference "lowmemory" depends on them.
_CLASSES: Mapping[str, type[Any]] = {
    "counter": sdk.ObservableCounter,
    "updowncounter": sdk.ObservableUpDownCounter,
    "histogram": sdk.Histogram,
}

Bounds = Mapping[str, tuple[float, ...]]


class Collected:
    """What one exporter or reader gets. Differences are to what arrived there last, independent of all others."""

    def __init__(self, wishes: Wishes, streams: Callable[[], Streams]) -> None:
        self._wishes = wishes
        self._streams = streams
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._arrived: Reading | None = None
        self._lock = threading.RLock()

    def send(self, data: MetricsData, send: Callable[[MetricsData], bool]) -> None:
        """Add obsloop's metrics to the data and ``send`` them. If that returns False, the next difference has them."""
        if self._pid != os.getpid():
            # After a fork the metrics begin anew, and a thread that is not in the child may hold the lock.
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
            # Without the SDK's metrics of obsloop's scope: those are the anchors, which are in ``ours`` too.
            replace(one, scope_metrics=[*(s for s in one.scope_metrics if s.scope != SCOPE), *([ours] * (i == 0))])
            for i, one in enumerate(data.resource_metrics)
        ]
        return replace(data, resource_metrics=added), now


class Exporter(MetricExporter):
    """An exporter that adds obsloop's metrics. All else is that of the exporter inside."""

    def __init__(self, inside: MetricExporter, collected: Collected) -> None:
        super().__init__(
            preferred_temporality=getattr(inside, "_preferred_temporality", None),
            preferred_aggregation=getattr(inside, "_preferred_aggregation", None),
        )
        self.inside: Any = inside
        self.provider: Callable[[], object] = api.get_meter_provider
        """The provider whose reader it belongs to, as far as known; for the Views."""
        self._collected = collected

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        """Send the SDK's data and obsloop's. A failure is counted, and the next export covers it."""
        result = MetricExportResult.FAILURE

        def send(data: MetricsData) -> bool:
            nonlocal result
            result = self.inside.export(data, timeout_millis=timeout_millis, **kwargs)
            return result is not MetricExportResult.FAILURE

        self._collected.send(metrics_data, send)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter inside."""
        return bool(self.inside.force_flush(timeout_millis=timeout_millis))

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Shut down the exporter inside."""
        self.inside.shutdown(timeout_millis=timeout_millis, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "inside":  # not set yet: made without __init__, as by copy
            raise AttributeError(name)
        return getattr(self.inside, name)


class Attached:
    """The readers of one provider that get obsloop's metrics, until ``detach``.

    Its lock is held shortly and never while the SDK is called: collections come here with locks of the SDK.
    """

    def __init__(self, provider: object) -> None:
        self.provider = provider
        self.bounds: Bounds = {}
        self._lock = threading.Lock()
        self._undo: dict[MetricReader, Callable[[], None]] = {}
        self._collected: dict[MetricReader, tuple[MetricExporter | None, Collected]] = {}
        """Kept after ``detach``: a reader that is attached again goes on from what has arrived."""

    def look(self, bounds: Bounds) -> bool:
        """Attach to the readers that are new since the last call. Return False if they cannot be found."""
        found = readers(self.provider)
        if found is None:
            return False
        if len(found) != len(self._undo) or not all(reader in self._undo for reader in found):
            with self._lock:
                self.bounds = bounds
                for gone in self._collected.keys() - set(found):
                    del self._collected[gone]
                self._undo = {reader: self._undo.get(reader) or self._attach(reader) for reader in found}
        return True

    def detach(self) -> None:
        """Leave all readers as they were."""
        with self._lock:
            for undo in self._undo.values():
                undo()
            self._undo = {}

    def forked(self) -> None:
        """Replace the lock in a forked child: a thread that is gone may hold it."""
        self._lock = threading.Lock()

    def _attach(self, reader: MetricReader) -> Callable[[], None]:
        inside = exporter_of(reader)
        if isinstance(inside, Exporter):  # by `wrap`
            inside.provider = lambda: self.provider
            return lambda: None
        there = self._collected.get(reader)
        if there is None or there[0] is not inside:
            wishes = wishes_of(reader if inside is None else inside, self.bounds, lambda: self.provider)
            there = self._collected[reader] = inside, Collected(wishes, lambda: streams_of(self.provider))
        owner: Any = reader
        if inside is None:
            return self._hook(owner, there[1])
        wrapped = owner._exporter = Exporter(inside, there[1])
        wrapped.provider = lambda: self.provider

        def undo() -> None:
            if owner._exporter is wrapped:
                owner._exporter = inside

        return undo

    def _hook(self, reader: Any, collected: Collected) -> Callable[[], None]:
        """Hook a reader without an exporter, which keeps what it gets: so the data have always arrived."""
        receive = reader._receive_metrics

        def receive_ours(metrics_data: MetricsData, *args: object, **kwargs: object) -> None:
            def send(data: MetricsData) -> bool:
                receive(data, *args, **kwargs)
                return True

            collected.send(metrics_data, send)

        reader._receive_metrics = receive_ours

        def undo() -> None:
            if reader._receive_metrics is receive_ours:
                del reader._receive_metrics

        return undo


def readers(provider: object) -> list[MetricReader] | None:
    """Return the readers of a provider, also those added after it was made; None if they cannot be found.

    The SDK has no public name for them. Only this function knows where they are.
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
    """Return the exporter that a reader pushes to; None if it has none, and keeps what it received."""
    found = getattr(reader, "_exporter", None)
    return found if isinstance(found, MetricExporter) else None


def wishes_of(owner: MetricExporter | MetricReader, bounds: Bounds, provider: Callable[[], object]) -> Wishes:
    """Return what an exporter or a reader prefers, by its arguments or the environment; by default cumulative."""
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
    """Return whether a provider exports exemplars: not with ``OTEL_METRICS_EXEMPLAR_FILTER=always_off`` or that filter.

    obsloop's belong to sampled spans only. That suits "trace_based", the SDK's default; "always_on" would also take
    values without a trace.
    """
    chosen = getattr(getattr(provider, "_sdk_config", None), "exemplar_filter", None)
    off = getattr(sdk, "AlwaysOffExemplarFilter", None)
    return off is None or not isinstance(chosen, off)


def wrapped(inside: MetricExporter, bounds: Bounds) -> Exporter:
    """Wrap an exporter for a provider that is not made yet. It obeys Views if that becomes the global one."""
    if isinstance(inside, Exporter):
        return inside

    def provider() -> object:
        found = exporter.provider()
        mine = any(exporter_of(reader) is exporter for reader in readers(found) or ())
        return found if mine else None

    def streams() -> Streams:
        found = provider()
        return PLAIN if found is None else streams_of(found)

    exporter = Exporter(inside, Collected(wishes_of(inside, bounds, provider), streams))
    return exporter

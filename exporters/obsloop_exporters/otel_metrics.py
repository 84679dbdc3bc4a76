"""Export every metric of obsloop's catalogue through the program's own OpenTelemetry MeterProvider.

    obsloop_exporters.otel_metrics.install()

works for the global MeterProvider, made at any time by the program or by ``opentelemetry-instrument``.
``install(provider)`` takes another one. ``wrap(exporter)`` is for a program that makes its exporter itself.

Only OpenTelemetry's API is needed. With a provider of the SDK, histograms are exact: exponential or explicit buckets,
cumulative or delta, as each reader prefers and as Views say. Nothing of this runs in a loop's thread.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry.metrics import MeterProvider, get_meter_provider

import obsloop
from obsloop import METRICS
from obsloop_exporters._common import bounds_for
from obsloop_exporters._otel_instruments import Shared, anchors, everything
from obsloop_exporters._otel_reading import attempt, log

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

    from obsloop_exporters._otel_sdk import Attached

__all__ = ["install", "uninstall", "wrap"]

_lock = threading.RLock()


class _Way:
    """The way into one MeterProvider. Instruments cannot be removed, so they ask here whether to have values."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self._provider = provider
        """None for the global one, which the program may set later."""
        self._anchored = self._complete = False
        self._shared = Shared()
        self._leaf = threading.Lock()
        """Nothing of OpenTelemetry is called under this lock: collections come here with locks of the SDK."""
        self._attached: Attached | None = None
        self._told = False
        self.installed = self.wraps = False
        self.bounds: Mapping[str, tuple[float, ...]] = {}

    def provider(self) -> MeterProvider:
        return get_meter_provider() if self._provider is None else self._provider

    def anchor(self) -> None:
        """Keep the provider's collections from being empty."""
        if not self._anchored:
            self._anchored = True
            anchors(self.provider().get_meter("obsloop", obsloop.__version__), self._anchor_wanted)

    def install(self) -> None:
        self.installed = True
        self.anchor()
        if not self._reached() and not self._complete:
            self._complete = True
            meter = self.provider().get_meter("obsloop", obsloop.__version__)
            everything(meter, self._instruments_wanted, self._shared, self.bounds)

    def uninstall(self) -> None:
        self.installed = False
        if self._attached is not None:
            self._attached.detach()

    def forked(self) -> None:
        self._shared.forked()
        self._leaf = threading.Lock()
        if self._attached is not None:
            self._attached.forked()

    def _anchor_wanted(self) -> bool:
        """Return whether the anchors have values. Called when a collection begins: attach to new readers, too."""
        if self.installed:
            attempt("the MeterProvider's readers", self._reached)
        return self.installed or self.wraps

    def _instruments_wanted(self) -> bool:
        """Return whether the API is the only way in. (Without a provider there are no collections.)"""
        if not self.installed or attempt("the MeterProvider's readers", self._reached):
            return False
        if not self._told:
            self._told = True
            log.warning(
                "the readers of %s.%s cannot be reached: obsloop's histograms are exported as the counters NAME.bucket"
                " and NAME.sum. If the program makes the exporter, obsloop_exporters.otel_metrics.wrap(exporter) sends"
                " true histograms.",
                type(self.provider()).__module__,
                type(self.provider()).__qualname__,
            )
        return True

    def _reached(self) -> bool:
        """Attach to the provider's new readers. Return whether readers get all metrics, in the SDK's data classes."""
        if "opentelemetry.sdk.metrics" not in sys.modules:  # then the provider is not the SDK's
            return False
        from obsloop_exporters._otel_sdk import Attached  # noqa: PLC0415 - the SDK may be missing

        provider = self.provider()
        with self._leaf:
            if self._attached is None or self._attached.provider is not provider:
                self._attached = Attached(provider)
        return self._attached.look(self.bounds)


_ways: weakref.WeakSet[_Way] = weakref.WeakSet()
"""A way lives as long as the instruments that ask it, and so as long as its provider."""


def install(
    meter_provider: MeterProvider | None = None,
    *,
    seconds_buckets: Iterable[float] | None = None,
    count_buckets: Iterable[float] | None = None,
) -> None:
    """Export obsloop's metrics through ``meter_provider``, or through the global one, whenever that is set.

    Each reader gets what it prefers: exponential histograms at scale 2 or coarser, or explicit buckets; cumulative or
    delta. Views are obeyed. ``seconds_buckets`` and ``count_buckets`` are the bounds of explicit buckets, for times and
    for counts, if neither the reader nor a View has bounds. Without them each histogram has its own
    (``obsloop.Metric.buckets``). A bound must be exact for obsloop: 1, 2.5 or 5 times a power of ten seconds; a count
    of 1, 2 or 5 times a power of ten. Another one raises ``ValueError``, which lists them.

    Utilization is since the reader's last export that arrived. Calling this again changes only the bounds of readers
    that are added later.
    """
    bounds = _bounds(seconds_buckets, count_buckets)
    with _lock:
        way = _way(meter_provider)
        way.bounds = bounds
        way.install()


def uninstall(meter_provider: MeterProvider | None = None) -> None:
    """Undo ``install``: the provider's readers are as they were, and obsloop's instruments have no values."""
    with _lock:
        _way(meter_provider).uninstall()


def wrap(
    exporter: MetricExporter,
    *,
    seconds_buckets: Iterable[float] | None = None,
    count_buckets: Iterable[float] | None = None,
) -> MetricExporter:
    """Wrap ``exporter`` so that it also sends obsloop's metrics: for a program that makes its exporter itself.

        PeriodicExportingMetricReader(obsloop_exporters.otel_metrics.wrap(OTLPMetricExporter()))

    The global provider gets instruments that always have values, because an SDK exports nothing if nothing was
    recorded; its Views are obeyed. Nothing else of it changes. For a provider that is not the global one, call
    ``install`` with it instead. For the bounds see there. Needs OpenTelemetry's SDK.
    """
    try:
        from obsloop_exporters._otel_sdk import wrapped  # noqa: PLC0415 - the SDK may be missing
    except ImportError as error:
        raise ImportError(f"wrap() needs OpenTelemetry's SDK ({error}): pip install 'obsloop[otlp]'") from error

    bounds = _bounds(seconds_buckets, count_buckets)
    with _lock:
        way = _way(None)
        way.wraps = True
        way.anchor()
    return wrapped(exporter, bounds)


def _bounds(
    seconds_buckets: Iterable[float] | None, count_buckets: Iterable[float] | None
) -> dict[str, tuple[float, ...]]:
    seconds = None if seconds_buckets is None else tuple(seconds_buckets)
    counts = None if count_buckets is None else tuple(count_buckets)
    found = {metric.name: bounds_for(metric, seconds, counts) for metric in METRICS}
    # Without a choice, a metric has its own bounds, which depend on the setting ``metrics``.
    return {
        metric.name: found[metric.name] for metric in METRICS if (seconds if metric.unit == "s" else counts) is not None
    }


def _way(provider: MeterProvider | None) -> _Way:
    """Return the one way into that provider, since instruments are made only once."""
    wanted = get_meter_provider() if provider is None else provider
    for way in _ways:
        if way.provider() is wanted:
            return way
    way = _Way(None if wanted is get_meter_provider() else provider)
    _ways.add(way)
    return way


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread that is gone may hold the old one
    _lock = threading.RLock()
    for way in _ways:
        way.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

"""OpenTelemetry: every metric of obsloop's catalogue through the program's own MeterProvider.

    obsloop_exporters.otel_metrics.install()

works for the global MeterProvider, whoever makes it and whenever: the program itself or ``opentelemetry-instrument``.
``install(provider)`` takes another one; ``wrap(exporter)`` is for a program that makes its exporter itself.

Only OpenTelemetry's API is needed. Where the provider is the SDK's, histograms are exact: exponential ones or explicit
buckets, cumulative or delta, as each reader prefers, and as Views say. Nothing of it runs in a loop's thread.
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
    """The way into one MeterProvider. Instruments cannot be taken back, so they ask here whether to say something."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self._provider = provider
        """None for the global one, which may be yet to come."""
        self._anchored = self._complete = False
        self._shared = Shared()
        self._leaf = threading.Lock()
        """Nothing of OpenTelemetry's is called under it: collections come here with locks of the SDK's own."""
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
        """Called at the beginning of each collection: the readers that are there by now are attached to, too."""
        if self.installed:
            attempt("the MeterProvider's readers", self._reached)
        return self.installed or self.wraps

    def _instruments_wanted(self) -> bool:
        """Whether the API is the only way in. (While the provider is yet to come nobody collects.)"""
        if not self.installed or attempt("the MeterProvider's readers", self._reached):
            return False
        if not self._told:
            self._told = True
            log.warning(
                "the readers of %s.%s cannot be reached: obsloop's histograms go out as the counters NAME.bucket and"
                " NAME.sum. Where the program makes the exporter, obsloop_exporters.otel_metrics.wrap(exporter) sends"
                " true histograms.",
                type(self.provider()).__module__,
                type(self.provider()).__qualname__,
            )
        return True

    def _reached(self) -> bool:
        """Whether the provider's readers are given all, by the SDK's own data classes; attach to those that are new."""
        if "opentelemetry.sdk.metrics" not in sys.modules:  # then the provider is not the SDK's
            return False
        from obsloop_exporters._otel_sdk import Attached  # noqa: PLC0415 - the SDK may be missing

        provider = self.provider()
        with self._leaf:
            if self._attached is None or self._attached.provider is not provider:
                self._attached = Attached(provider)
        return self._attached.look(self.bounds)


_ways: weakref.WeakSet[_Way] = weakref.WeakSet()
"""Each lives as long as the instruments that ask it, and so as long as its provider."""


def install(
    meter_provider: MeterProvider | None = None,
    *,
    seconds_buckets: Iterable[float] | None = None,
    count_buckets: Iterable[float] | None = None,
) -> None:
    """Export obsloop's figures through ``meter_provider``, or through the global one, whenever that is set.

    Each reader gets what it prefers: exponential histograms at scale 2 or coarser, or explicit buckets; cumulative or
    delta; Views are obeyed. ``seconds_buckets`` and ``count_buckets`` are the bounds of explicit buckets, of times and
    of counts, where neither the reader nor a View has bounds, and without them each histogram has its own
    (``obsloop.Metric.buckets``): each must be one that obsloop can give exactly (1, 2.5 or
    5 times a power of ten seconds; a count of 1, 2 or 5 times a power of ten); ``ValueError`` says which there are.

    Utilization is since the reader's last export that arrived. Calling it again changes nothing but the bounds of
    readers that are yet to come.
    """
    bounds = _bounds(seconds_buckets, count_buckets)
    with _lock:
        way = _way(meter_provider)
        way.bounds = bounds
        way.install()


def uninstall(meter_provider: MeterProvider | None = None) -> None:
    """Undo ``install``: the provider's readers are as they were, and its instruments of ours are silent."""
    with _lock:
        _way(meter_provider).uninstall()


def wrap(
    exporter: MetricExporter,
    *,
    seconds_buckets: Iterable[float] | None = None,
    count_buckets: Iterable[float] | None = None,
) -> MetricExporter:
    """``exporter``, made to send obsloop's figures along: for a program that makes its exporter itself.

        PeriodicExportingMetricReader(obsloop_exporters.otel_metrics.wrap(OTLPMetricExporter()))

    Nothing else of the provider is touched. An SDK exports nothing where nothing was recorded: the global provider is
    therefore given instruments that always have figures, and its Views are obeyed. For a provider that is not global
    call ``install`` with it instead. For the bounds see there. Needs OpenTelemetry's SDK.
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
    return {metric.name: bounds_for(metric, seconds, counts) for metric in METRICS}


def _way(provider: MeterProvider | None) -> _Way:
    """The one way into that provider: instruments are made once."""
    wanted = get_meter_provider() if provider is None else provider
    for way in _ways:
        if way.provider() is wanted:
            return way
    way = _Way(None if wanted is get_meter_provider() else provider)
    _ways.add(way)
    return way


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the old one may be held by a thread that is gone
    _lock = threading.RLock()
    for way in _ways:
        way.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

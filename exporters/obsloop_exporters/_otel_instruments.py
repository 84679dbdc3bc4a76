"""Offer obsloop's metrics as observable instruments of OpenTelemetry's API, for any ``MeterProvider``.

The API has no instrument for a histogram that is counted already. So through the API alone a histogram is two counters:
``NAME.bucket`` with the attribute ``le`` as in Prometheus (+Inf is the count), and ``NAME.sum``. If the SDK's readers
can be reached, true histograms are sent, and of these instruments only the ``ANCHORS`` have values.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

import obsloop
from obsloop import METRICS, Histogram, Metric
from obsloop_exporters import _otel_reading as reading
from obsloop_exporters._otel_reading import Reading, attempt

ANCHORS = tuple(metric for metric in METRICS if metric.scope == "process" and metric.kind == "counter")
"""These always have values, so that no collection is empty: an SDK exports nothing if nothing was recorded."""

Callback = Callable[[CallbackOptions], Iterable[Observation]]
_Observe = Callable[[Reading, "Reading | None"], Iterable[Observation]]


class Shared:
    """One reading for all instruments of a collection. If an instrument asks again, a new one is taken."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._now: Reading | None = None
        self._before: Reading | None = None
        self._served: set[str] = set()

    def serve(self, who: str) -> tuple[Reading, Reading | None]:
        """Return the reading, and the one before it."""
        with self._lock:
            if self._now is None or who in self._served:
                self._served.clear()
                self._before, self._now = self._now, reading.take()
            self._served.add(who)
            return self._now, self._before

    def forked(self) -> None:
        """Begin anew in a forked child: the metrics do, and a thread that is gone may hold the lock."""
        self.__init__()  # type: ignore[misc]


def anchors(meter: Meter, wanted: Callable[[], bool]) -> None:
    """Make the instruments that keep a collection from being empty. They have no values while not ``wanted``."""
    for metric in ANCHORS:
        _make(meter, metric, metric.name, metric.help, _when(wanted, _anchor(metric)))


def everything(
    meter: Meter, wanted: Callable[[], bool], shared: Shared, bounds: Mapping[str, tuple[float, ...]]
) -> None:
    """Make instruments for all metrics but the anchors. They have no values while not ``wanted``."""

    def make(metric: Metric, name: str, what: str, observe: _Observe) -> None:
        def callback(options: CallbackOptions) -> Iterable[Observation]:
            del options
            now, before = shared.serve(name)
            return attempt(name, lambda: list(observe(now, before))) or ()

        _make(meter, metric, name, what, _when(wanted, callback))

    for metric in METRICS:
        if metric.kind == "histogram":
            bucket = f"{metric.name}.bucket"
            make(metric, bucket, f"{metric.help} The number of those up to le.", _buckets(metric, bounds))
            make(metric, f"{metric.name}.sum", f"{metric.help} Their sum.", _numbers(metric))
        elif metric not in ANCHORS:
            make(metric, metric.name, metric.help, _numbers(metric))


def _make(meter: Meter, metric: Metric, name: str, what: str, callback: Callback) -> None:
    unit = "{value}" if name.endswith(".bucket") else metric.unit
    if metric.kind == "gauge":
        meter.create_observable_gauge(name, [callback], unit, what)
    elif metric.kind == "updowncounter":
        meter.create_observable_up_down_counter(name, [callback], unit, what)
    else:
        meter.create_observable_counter(name, [callback], unit, what)


def _when(wanted: Callable[[], bool], callback: Callback) -> Callback:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return callback(options) if wanted() else ()

    return observe


def _anchor(metric: Metric) -> Callback:
    def callback(options: CallbackOptions) -> Iterable[Observation]:
        del options
        now = Reading(0, {}, obsloop.process_snapshot())
        return attempt(metric.name, lambda: list(_numbers(metric)(now, None))) or ()

    return callback


def _exported(metric: Metric) -> Metric | None:
    """Return the metric as it is exported now; None if it is not."""
    return next((one for one in obsloop.exported_metrics() if one.name == metric.name), None)


def _numbers(metric: Metric) -> _Observe:
    def observe(now: Reading, before: Reading | None) -> Iterator[Observation]:
        exported = _exported(metric)
        for point in () if exported is None else reading.points(exported, now, before):
            value = point.value
            yield Observation(value.sum if isinstance(value, Histogram) else value, point.attributes)

    return observe


def _buckets(metric: Metric, chosen: Mapping[str, tuple[float, ...]]) -> _Observe:
    def observe(now: Reading, before: Reading | None) -> Iterator[Observation]:
        exported = _exported(metric)
        if exported is None:
            return
        bounds = chosen.get(metric.name, exported.buckets)
        texts = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        for point in reading.points(exported, now, before):
            if isinstance(point.value, Histogram):
                upto = (*point.value.cumulative(bounds), point.value.count)
                for le, count in zip(texts, upto, strict=True):
                    yield Observation(count, point.attributes | {"le": le})

    return observe

"""The API's side: obsloop's signals as instruments that are observed, for any ``MeterProvider`` there is.

OpenTelemetry's API has no instrument for a histogram that is counted already. Through the API alone a histogram is
therefore two counters: ``NAME.bucket`` with the attribute ``le``, as Prometheus has it (+Inf is the count), and
``NAME.sum``. Where the SDK's readers can be reached, true histograms are sent and all of this is silent but the
``ANCHORS``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

import obsloop
from obsloop import SIGNALS, Histogram, Signal
from obsloop_exporters import _otel_reading as reading
from obsloop_exporters._otel_reading import Reading, attempt

ANCHORS = tuple(signal for signal in SIGNALS if signal.scope == "process" and signal.kind == "counter")
"""An SDK exports nothing where nothing was recorded: these always have figures, so that no collection is empty."""

Callback = Callable[[CallbackOptions], Iterable[Observation]]
_Observe = Callable[[Reading, "Reading | None"], Iterable[Observation]]


class Shared:
    """One reading for all the instruments of a collection: a new one when an instrument asks again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._now: Reading | None = None
        self._before: Reading | None = None
        self._served: set[str] = set()

    def serve(self, who: str) -> tuple[Reading, Reading | None]:
        """The reading, and the one before it."""
        with self._lock:
            if self._now is None or who in self._served:
                self._served.clear()
                self._before, self._now = self._now, reading.take()
            self._served.add(who)
            return self._now, self._before

    def forked(self) -> None:
        """Begin anew: the figures do, and the lock may be held by a thread that is gone."""
        self.__init__()  # type: ignore[misc]


def anchors(meter: Meter, wanted: Callable[[], bool]) -> None:
    """Make the instruments that keep a collection from being empty; silent while they are not ``wanted``."""
    for signal in ANCHORS:
        _make(meter, signal, signal.name, signal.help, _when(wanted, _anchor(signal)))


def everything(
    meter: Meter, wanted: Callable[[], bool], shared: Shared, bounds: Mapping[str, tuple[float, ...]]
) -> None:
    """Make instruments for all signals but the anchors; silent while they are not ``wanted``."""

    def make(signal: Signal, name: str, what: str, observe: _Observe) -> None:
        def callback(options: CallbackOptions) -> Iterable[Observation]:
            del options
            now, before = shared.serve(name)
            return attempt(name, lambda: list(observe(now, before))) or ()

        _make(meter, signal, name, what, _when(wanted, callback))

    for signal in SIGNALS:
        if signal.kind == "histogram":
            bucket = f"{signal.name}.bucket"
            make(signal, bucket, f"{signal.help} How many at most le.", _buckets(signal, bounds[signal.name]))
            make(signal, f"{signal.name}.sum", f"{signal.help} Their sum.", _numbers(signal))
        elif signal not in ANCHORS:
            make(signal, signal.name, signal.help, _numbers(signal))


def _make(meter: Meter, signal: Signal, name: str, what: str, callback: Callback) -> None:
    unit = "{value}" if name.endswith(".bucket") else signal.unit
    if signal.kind == "gauge":
        meter.create_observable_gauge(name, [callback], unit, what)
    elif signal.kind == "updowncounter":
        meter.create_observable_up_down_counter(name, [callback], unit, what)
    else:
        meter.create_observable_counter(name, [callback], unit, what)


def _when(wanted: Callable[[], bool], callback: Callback) -> Callback:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return callback(options) if wanted() else ()

    return observe


def _anchor(signal: Signal) -> Callback:
    def callback(options: CallbackOptions) -> Iterable[Observation]:
        del options
        now = Reading(0, {}, obsloop.process_snapshot())
        return attempt(signal.name, lambda: list(_numbers(signal)(now, None))) or ()

    return callback


def _numbers(signal: Signal) -> _Observe:
    def observe(now: Reading, before: Reading | None) -> Iterator[Observation]:
        for point in reading.points(signal, now, before):
            value = point.value
            yield Observation(value.sum if isinstance(value, Histogram) else value, point.attributes)

    return observe


def _buckets(signal: Signal, bounds: tuple[float, ...]) -> _Observe:
    texts = [*(f"{bound:g}" for bound in bounds), "+Inf"]

    def observe(now: Reading, before: Reading | None) -> Iterator[Observation]:
        for point in reading.points(signal, now, before):
            if isinstance(point.value, Histogram):
                upto = (*point.value.cumulative(bounds), point.value.count)
                for le, count in zip(texts, upto, strict=True):
                    yield Observation(count, point.attributes | {"le": le})

    return observe

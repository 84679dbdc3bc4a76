"""Convert snapshots to OpenTelemetry's points: attributes, the value now and at the last reading, the times.

Both ways into a ``MeterProvider`` use this, so it needs neither the API nor the SDK. One reading serves all metrics, so
that their values belong together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from operator import add, sub
from typing import NamedTuple, ParamSpec, TypeVar

import obsloop
from obsloop import LOOP_NAME_LABEL, Histogram, Metric, Snapshot
from obsloop_exporters._common import encodable

_UTILIZATION = "asyncio.eventloop.utilization"
_FLOATS = {"s", "1"}
"""The units whose values are floats, even a 0: a series has one type. All other values are whole."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

Value = float | int | Histogram

log = logging.getLogger("obsloop.exporters")
_told: set[str] = set()


class Reading(NamedTuple):
    """All metrics of this process at one moment."""

    time_ns: int
    """Unix time."""
    loops: Mapping[str, Snapshot]
    process: Snapshot


class Point(NamedTuple):
    """One series."""

    attributes: dict[str, str]
    value: Value
    before: Value | None
    """The value at the reading before; None if it was zero, or without such a reading."""
    began_ns: int
    """Unix time since which ``value`` counts; 0 if not known."""
    since_ns: int
    """Unix time since which the difference to ``before`` counts."""


def take() -> Reading:
    """Take a reading now."""
    loops, process = obsloop.snapshots(), obsloop.process_snapshot()
    return Reading(time.time_ns(), loops, process)


def points(metric: Metric, now: Reading, base: Reading | None) -> list[Point]:
    """Return all series of ``metric`` that are exported. Those that cannot be read are left out, with one warning."""
    found: list[Point] = []
    if metric.scope == "process":
        pairs = [(now.process, base and base.process)]
    else:
        pairs = [(snapshot, base and base.loops.get(name)) for name, snapshot in now.loops.items()]
    for snapshot, before in pairs:
        found += attempt(metric.name, _points, metric, snapshot, before, base) or ()
    return found


def attempt(what: str, read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
    """Return what ``read`` returns. If it raises, log a warning the first time and return None."""
    try:
        return read(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        say_once(f"left out of OpenTelemetry's metrics: {what}: {error!r}", error, once=what)
        return None


def say_once(text: str, error: BaseException | None = None, *, once: str = "") -> None:
    """Log a warning, once for each ``once``, which is by default the text."""
    once = once or text
    if once not in _told and len(_told) < 100:
        _told.add(once)
        try:
            log.warning("%s", text, exc_info=error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # noqa: S110  a logging handler of the program's
            pass


def _points(metric: Metric, snapshot: Snapshot, before: Snapshot | None, base: Reading | None) -> list[Point]:
    began_ns = round(snapshot.began * 1e9)
    if before is not None and before.began != snapshot.began:  # the metrics began anew: a fork
        before = None
    since_ns = began_ns if base is None or before is None else base.time_ns
    own = {LOOP_NAME_LABEL: encodable(snapshot.loop_name)} if metric.scope == "loop" else {}
    if metric.name == _UTILIZATION:
        return [Point(own, snapshot.utilization(before), None, began_ns, since_ns)]
    names = [label.name for label in metric.labels]
    last: Mapping[tuple[str, ...], Value] = {} if before is None else before[metric.name]
    return [
        Point(
            own | dict(zip(names, map(encodable, labels), strict=True)),
            float(value) if metric.unit in _FLOATS and not isinstance(value, Histogram) else value,
            last.get(labels),
            began_ns,
            since_ns,
        )
        for labels, value in snapshot.exported(metric).items()
    ]


def plus(a: Value, b: Value) -> Value:
    """Return the sum, for histograms the histogram of both."""
    if isinstance(a, Histogram) and isinstance(b, Histogram):
        counts = tuple(map(add, a.bucket_counts, b.bucket_counts))
        return Histogram(a.partition, counts, a.sum + b.sum, a.exemplars + b.exemplars)
    if isinstance(a, Histogram) or isinstance(b, Histogram):
        raise TypeError(f"{a!r} and {b!r} are of different kinds")
    return a + b


def minus(a: Value, b: Value | None) -> Value:
    """Return the difference of ``a`` to the earlier ``b``; ``a`` if there was none."""
    if b is None:
        return a
    if isinstance(a, Histogram) and isinstance(b, Histogram):
        counts = tuple(map(sub, a.bucket_counts, b.bucket_counts))
        new = tuple(exemplar for exemplar in a.exemplars if exemplar not in b.exemplars)
        return Histogram(a.partition, counts, a.sum - b.sum, new)
    if isinstance(a, Histogram) or isinstance(b, Histogram):
        raise TypeError(f"{a!r} and {b!r} are of different kinds")
    return a - b

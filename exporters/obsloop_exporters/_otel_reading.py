"""From snapshots to OpenTelemetry's points: attributes, the value now, the value at the last reading, and the times.

Neither the API nor the SDK is needed here: the two ways into a ``MeterProvider`` share it. One reading serves all
metrics, so that what arrives belongs together.
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
"""The units of floats, even where one is just 0. (A series has one type; all else is whole.)"""

_P = ParamSpec("_P")
_T = TypeVar("_T")

Value = float | int | Histogram

log = logging.getLogger("obsloop.exporters")
_told: set[str] = set()


class Reading(NamedTuple):
    """All figures of this process at one moment."""

    time_ns: int
    """Unix time."""
    loops: Mapping[str, Snapshot]
    process: Snapshot


class Point(NamedTuple):
    """One series."""

    attributes: dict[str, str]
    value: Value
    before: Value | None
    """The value at the reading before; None where it was zero, or where there was none."""
    began_ns: int
    """Unix time since which ``value`` counts; 0 where it is not known."""
    since_ns: int
    """Unix time since which the difference to ``before`` counts."""


def take() -> Reading:
    """The figures of this moment."""
    loops, process = obsloop.snapshots(), obsloop.process_snapshot()
    return Reading(time.time_ns(), loops, process)


def points(metric: Metric, now: Reading, base: Reading | None) -> list[Point]:
    """All series of ``metric``; what cannot be read is left out, and said once."""
    found: list[Point] = []
    if metric.scope == "process":
        pairs = [(now.process, base and base.process)]
    else:
        pairs = [(snapshot, base and base.loops.get(name)) for name, snapshot in now.loops.items()]
    for snapshot, before in pairs:
        found += attempt(metric.name, _points, metric, snapshot, before, base) or ()
    return found


def attempt(what: str, read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
    """What ``read`` returns; None, and a line in the log the first time, where it raises."""
    try:
        return read(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        say_once(f"left out of what OpenTelemetry is given: {what}: {error!r}", error, once=what)
        return None


def say_once(text: str, error: BaseException | None = None, *, once: str = "") -> None:
    """A warning; the same one, or another for the same ``once``, is not said again."""
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
    if before is not None and before.began != snapshot.began:  # it has begun anew since: a fork
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
        for labels, value in snapshot[metric.name].items()
    ]


def plus(a: Value, b: Value) -> Value:
    """The sum; of histograms the histogram of both."""
    if isinstance(a, Histogram) and isinstance(b, Histogram):
        counts = tuple(map(add, a.bucket_counts, b.bucket_counts))
        return Histogram(a.partition, counts, a.sum + b.sum, a.exemplars + b.exemplars)
    if isinstance(a, Histogram) or isinstance(b, Histogram):
        raise TypeError(f"{a!r} and {b!r} are of different kinds")
    return a + b


def minus(a: Value, b: Value | None) -> Value:
    """What has come to ``b`` to make it ``a``."""
    if b is None:
        return a
    if isinstance(a, Histogram) and isinstance(b, Histogram):
        counts = tuple(map(sub, a.bucket_counts, b.bucket_counts))
        new = tuple(exemplar for exemplar in a.exemplars if exemplar not in b.exemplars)
        return Histogram(a.partition, counts, a.sum - b.sum, new)
    if isinstance(a, Histogram) or isinstance(b, Histogram):
        raise TypeError(f"{a!r} and {b!r} are of different kinds")
    return a - b

"""A process's metrics as plain data: what it publishes for the others, and what its successor goes on from.

    {"loops": {name: part}, "process": part}
    part = {"running": bool, "blocked": seconds, "began": Unix time, "data": {metric: [[label values, value], ...]}}

A value is a number, or for a histogram ``{"s": sum, "n": [[bucket, count], ...], "e": exemplars}`` with the buckets
that are not empty. Only exported metrics are in it. It is written as JSON: nothing in it can be executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from obsloop._version import __version__
from obsloop.metrics.buckets import COUNTS, SECONDS
from obsloop.metrics.catalog import MAX_LOOP_NAMES, METRICS, OTHER
from obsloop.metrics.levels import exported_metrics
from obsloop.metrics.metric import Label, Metric
from obsloop.metrics.snapshot import Exemplar, Histogram, Points, Snapshot, Value
from obsloop.probes.collect import process_snapshot, snapshots

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
Published = dict[str, Any]
_Points = dict[tuple[str, ...], Any]

MAX_EXEMPLARS = 5
"""Of one series; the slowest ones."""


def now() -> Published:
    """Return the metrics of this process at this moment, without those of its predecessors."""
    loops = {name: _part(snapshot) for name, snapshot in snapshots().items()}
    return {"loops": loops, "process": _part(process_snapshot())}


def encode(parts: Published) -> bytes:
    """Return metrics as JSON."""
    return json.dumps({"version": __version__, **parts}, separators=(",", ":")).encode()


def decode(text: bytes) -> Published:
    """Return metrics from JSON; empty ones if it is none, or of another version of obsloop."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        found = json.loads(text)
        if found["version"] != __version__:
            return empty()
        for part in (*found["loops"].values(), found["process"]):
            if not isinstance(part["blocked"] + part["began"], (int, float)):
                return empty()
            part["data"] = {name: points for name, points in part["data"].items() if name in BY_NAME}
        return {"loops": found["loops"], "process": found["process"]}
    return empty()


def empty() -> Published:
    """Return the metrics of a process in which nothing has happened."""
    return {"loops": {}, "process": {"running": False, "blocked": 0.0, "began": 0.0, "data": {}}}


def lasting(parts: Published) -> Published:
    """Return what stays after a process is gone: its counters and histograms, as after a loop that has ended."""
    return {
        "loops": {name: _lasting(part) for name, part in parts["loops"].items()},
        "process": _lasting(parts["process"]),
    }


def added(before: Published, after: Published) -> Published:
    """Return the sum of a slot's past and of its present process.

    The loops' names and the labels of the past come first. So a counter of the past never goes back for want of room.
    """
    if not before["loops"] and not before["process"]["data"]:
        return after
    loops: dict[str, Any] = dict(before["loops"])
    for name, part in after["loops"].items():
        known = name in loops or len(loops) < 2 * MAX_LOOP_NAMES
        into = name if known else OTHER
        loops[into] = _added([loops[into], part], bounded=True) if into in loops else part
    return {"loops": loops, "process": _added([before["process"], after["process"]], bounded=True)}


def sum_of(parts: list[Any]) -> Any:
    """Return the sum of several processes' parts; of a gauge the largest value."""
    return parts[0] if len(parts) == 1 else _added(parts, bounded=False)


def snapshot_of(name: str, part: Any) -> Snapshot:
    """Return a part as a snapshot."""
    data = {
        metric: {tuple(labels): _value(BY_NAME[metric], value) for labels, value in points}
        for metric, points in part["data"].items()
    }
    return GroupSnapshot(name, part["running"], part["blocked"], data, part["began"])


class GroupSnapshot(Snapshot):
    """A snapshot of published metrics, which hold what is exported and no more."""

    __slots__ = ()

    def exported(self, metric: Metric) -> Points:
        """Return the points of a metric."""
        return self.data.get(metric.name, {})


def _part(snapshot: Snapshot) -> dict[str, Any]:
    scope = "loop" if snapshot.loop_name else "process"
    data: dict[str, Any] = {}
    for metric in exported_metrics():
        if metric.scope == scope and metric.name in snapshot.data:
            points = snapshot.exported(metric)
            if points:
                data[metric.name] = [[labels, _plain(value)] for labels, value in points.items()]
    if scope == "loop":  # also when it is not exported: utilization is computed from it
        times = snapshot["asyncio.eventloop.time"]
        data["asyncio.eventloop.time"] = [[labels, value] for labels, value in times.items()]
    return {
        "running": snapshot.running,
        "blocked": snapshot.blocked_time,
        "began": snapshot.began,
        "data": data,
    }


def _plain(value: Value) -> Any:
    if not isinstance(value, Histogram):
        return value
    plain: dict[str, Any] = {"s": value.sum, "n": [(i, n) for i, n in enumerate(value.bucket_counts) if n]}
    if value.exemplars:
        plain["e"] = value.exemplars[-MAX_EXEMPLARS:]
    return plain


def _value(metric: Metric, value: Any) -> Value:
    if metric.kind != "histogram":
        return value  # type: ignore[no-any-return]
    partition = SECONDS if metric.unit == "s" else COUNTS
    counts = [0] * partition.size
    for bucket, n in value["n"]:
        counts[bucket] = n
    exemplars = tuple(Exemplar(*exemplar) for exemplar in value.get("e", ()))
    return Histogram(partition, tuple(counts), value["s"], exemplars)


def _lasting(part: Any) -> Any:
    kinds = ("counter", "histogram")
    data = {metric: points for metric, points in part["data"].items() if BY_NAME[metric].kind in kinds}
    return {"running": False, "blocked": 0.0, "began": part["began"], "data": data}


def _added(parts: list[Any], *, bounded: bool) -> Any:
    began = [part["began"] for part in parts if part["began"]]
    names = dict.fromkeys(metric for part in parts for metric in part["data"])
    return {
        "running": any(part["running"] for part in parts),
        "blocked": max(part["blocked"] for part in parts),
        "began": min(began, default=0.0),
        "data": {metric: _points(BY_NAME[metric], parts, bounded=bounded) for metric in names},
    }


def _points(metric: Metric, parts: list[Any], *, bounded: bool) -> list[Any]:
    total: _Points = {}
    seen: list[set[str]] = [set(label.values) for label in metric.labels]
    for part in parts:
        for labels, value in part["data"].get(metric.name, ()):
            key = tuple(labels)
            if bounded:
                key = tuple(map(_fitting, metric.labels, seen, key))
            total[key] = _sum(metric, total[key], value) if key in total else value
    return [[key, value] for key, value in total.items()]


def _fitting(label: Label, seen: set[str], value: str) -> str:
    if value not in seen and label.bound and len(seen) >= label.bound:
        return OTHER
    seen.add(value)
    return value


def _sum(metric: Metric, one: Any, other: Any) -> Any:
    if metric.kind == "gauge":
        return max(one, other)
    if metric.kind != "histogram":
        return one + other
    counts = dict(one["n"])
    for bucket, n in other["n"]:
        counts[bucket] = counts.get(bucket, 0) + n
    total: dict[str, Any] = {"s": one["s"] + other["s"], "n": sorted(counts.items())}
    exemplars: list[Any] = sorted(tuple(exemplar) for each in (one, other) for exemplar in each.get("e", ()))
    exemplars = exemplars[-MAX_EXEMPLARS:]
    if exemplars:
        total["e"] = exemplars
    return total

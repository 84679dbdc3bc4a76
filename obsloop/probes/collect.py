"""Snapshots: ask every probe for its metrics, and put them together.

A snapshot is made in the thread that asks for it. It does not disturb the loops' threads.
"""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import Any

from obsloop import instruments
from obsloop.hotpath.displaced import is_displaced
from obsloop.metrics import registry, self_metrics
from obsloop.metrics.buckets import COUNTS, SECONDS, added_up
from obsloop.metrics.catalog import BOUNDED, METRICS, STATES
from obsloop.metrics.counters import FIELDS, KINDS, STRIDE
from obsloop.metrics.reading import Reading, read
from obsloop.metrics.registry import LoopMetrics
from obsloop.metrics.snapshot import Histogram, Snapshot, Value, frozen
from obsloop.probes import executor_loads, gc as gc_probe, processes, tasks
from obsloop.probes.network import servers
from obsloop.probes.network.transports import accounting


def snapshot_of(metrics: LoopMetrics) -> Snapshot:
    """Return all metrics of this loop name, at this moment."""
    tasks.roll_call([loop for ref in list(metrics.live) if (loop := ref()) is not None])
    blocks = metrics.blocks()
    lent = [(loop, counters) for ref, counters in list(metrics.live.copy().items()) if (loop := ref()) is not None]
    displaced = {id(counters) for loop, counters in lent if is_displaced(loop)}
    readings = [read(counters, ours=id(counters) not in displaced) for counters in blocks]
    self_metrics.dropped["torn_snapshot"] += sum(not r.consistent for r in readings)
    loops = [loop for loop, _ in lent]
    durations = added_up(r.durations for r in readings)
    delays = added_up(r.delays for r in readings)
    iteration = added_up(r.iteration for r in readings)
    blocked_time = max((r.blocked_ns for r in readings), default=0) / 1e9
    by_kind = {(kind,): slice(i * STRIDE, (i + 1) * STRIDE) for i, kind in enumerate(KINDS)}
    timer = by_kind["timer",]
    coroutines = tasks.coroutine_times(readings)

    def total(field: str) -> int:
        return sum(getattr(r, field) for r in readings)

    def seconds(block: list[int]) -> Histogram:
        return Histogram.from_block(SECONDS, block)

    data: dict[str, dict[tuple[str, ...], Value]] = {
        "asyncio.eventloop.time": {
            (state,): ns / 1e9 for state, ns in metrics.steady({s: total(f"{s}_ns") for s in STATES}).items()
        },
        "asyncio.eventloop.iterations": {(): sum(iteration[1:])},
        "asyncio.eventloop.iteration.duration": {(): seconds(iteration)},
        "asyncio.eventloop.lag": {(): seconds(metrics.lag.block(readings))},
        "asyncio.eventloop.schedule.delay": {kind: seconds(delays[at]) for kind, at in by_kind.items()},
        "asyncio.eventloop.callback.duration": {kind: seconds(durations[at]) for kind, at in by_kind.items()},
        "asyncio.eventloop.timer.count": {(): sum(len(getattr(loop, "_scheduled", ())) for loop in loops)},
        "asyncio.eventloop.timer.cancelled": {(): sum(getattr(loop, "_timer_cancelled_count", 0) for loop in loops)},
        # A timer is ready when it is due: its lateness is the delay of its kind.
        "asyncio.eventloop.timer.lateness": {(): seconds(delays[timer])},
        "asyncio.eventloop.blocked.time": {(): blocked_time},
        **_straight_from(readings),
        **executor_loads.collect(loops, metrics.labelled),
        **processes.collect(loops),
        **servers.collect(loops, metrics.labelled),
        **accounting.collect(blocks, readings),
        **tasks.collect(loops, readings),
        "asyncio.eventloop.callback.time": tasks.collect_coroutines(metrics.top_coroutines, coroutines),
        **metrics.labelled.collect(),
    }
    running = any(r.running for r in readings)
    metrics.exemplars.put_into(data)
    if metrics.partial:
        _leave_out(data, metrics)
    shown = MappingProxyType(coroutines)
    return Snapshot(
        metrics.name, running, blocked_time, frozen(data), metrics.began, shown, partial=bool(metrics.partial)
    )


_UNITS = {metric.name: metric.unit for metric in METRICS}


def _straight_from(readings: list[Reading]) -> dict[str, dict[tuple[str, ...], Value]]:
    """Return the metrics that the table of counters names: sums and histograms."""
    found: dict[str, dict[tuple[str, ...], Value]] = {}
    for field in FIELDS:
        if metric := field.metadata["metric"]:
            values = [getattr(r.counted, field.name) for r in readings]
            if "cells" in field.metadata:
                buckets = SECONDS if _UNITS[metric] == "s" else COUNTS
                found[metric] = {(): Histogram.from_block(buckets, added_up(values))}
            else:
                found[metric] = {(): sum(values)}
    return found


_WITHOUT_CALLBACKS = frozenset(
    {
        "asyncio.eventloop.time",
        "asyncio.eventloop.iterations",
        "asyncio.eventloop.iteration.duration",
        "asyncio.eventloop.lag",
        "asyncio.eventloop.blocked.time",
        "asyncio.eventloop.callback.slow",
    }
)
"""The metrics of loops that stay uvloop's, of those that are not counted by label."""
_BY_LABEL = ("asyncio.eventloop.block.", "asyncio.eventloop.exceptions", "asyncio.executor.")


def _leave_out(data: dict[str, dict[tuple[str, ...], Value]], metrics: LoopMetrics) -> None:
    """Leave out the points of what is not measured on uvloop: they would be zero, which is wrong."""
    for name in data:
        if name not in _WITHOUT_CALLBACKS and not name.startswith(_BY_LABEL):
            data[name] = {}
    times: Any = data["asyncio.eventloop.time"]
    busy = times["callback",] + times["overhead",] + times["poll",]
    data["asyncio.eventloop.time"] = {("idle",): times["idle",], ("callback",): busy, ("gc",): times["gc",]}


def snapshots() -> dict[str, Snapshot]:
    """Return the metrics of every loop name that has run in this process, by name."""
    began = time.perf_counter_ns()
    result = {metrics.name: snapshot_of(metrics) for metrics in registry.every_one()}
    self_metrics.add_time("snapshot", time.perf_counter_ns() - began)
    return result


def process_snapshot() -> Snapshot:
    """Return the metrics of the process, not of a loop: garbage collection, and what obsloop itself costs and loses."""
    entries = registry.every_one()
    dropped = {
        **self_metrics.dropped,
        **{label.name: sum(metrics.labelled.folded(label.name) for metrics in entries) for label in BOUNDED},
    }
    data: dict[str, dict[tuple[str, ...], Value]] = {
        **gc_probe.collect(),
        "obsloop.self.time": {(what,): ns / 1e9 for what, ns in self_metrics.times_ns().items()},
        "obsloop.dropped": {(what,): n for what, n in dropped.items()},
        "obsloop.instrument.disabled": {(hook,): n for hook, n in instruments.disabled.items()},
    }
    return Snapshot("", False, 0.0, frozen(data), self_metrics.began)

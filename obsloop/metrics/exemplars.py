"""Exemplars: to a histogram's slow buckets the trace of one real case each, so that one gets from a bar to a cause.

Nothing here runs for what was fast. A case is kept where it is on a slow path anyway: a callback that took long, with
its own delay where that was long too; a job that waited long for a worker; and, when a slow callback has ended, what
waits behind it and was delayed by it, which may be as fast as it likes. Slow is what ``slow_callback_duration`` says.
OpenTelemetry is looked at where the program has loaded it, and never imported.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.hotpath import backend, marks as _marks
from obsloop.introspect import stacks
from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.catalog import EXECUTOR
from obsloop.metrics.counters import KIND_OF_BLOCK, STRIDE, TIMER
from obsloop.metrics.snapshot import Exemplar, Histogram

if TYPE_CHECKING:
    from collections.abc import Container

    from obsloop.introspect.stacks import Ids
    from obsloop.metrics.counters import Cells
    from obsloop.metrics.registry import Ledger
    from obsloop.metrics.snapshot import Value

_DURATION = "asyncio.eventloop.callback.duration"
_DELAY = "asyncio.eventloop.schedule.delay"
_QUEUED = "asyncio.executor.job.queue_duration"

_MOST = 16
"""So many of those that wait are looked at when a slow callback has ended: the first handles, and the first timers."""
_MAX_LATE = 1e9  # seconds: what is later was never on time


class Exemplars:
    """Those of one loop name: for each series and each bucket of the partition the latest, and so never more of them.

    Any loop's thread writes, any thread reads; no lock: a writer takes one atomic step, a reader copies in one.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...], int], Exemplar] = {}

    def note(self, signal_name: str, labels: tuple[str, ...], value_ns: int, ids: Ids) -> None:
        """This value has been counted, or soon will be, in that series; it happened in that span."""
        bucket = SECONDS.index(value_ns)
        self._kept[signal_name, labels, bucket] = Exemplar(value_ns / 1e9, time.time(), *ids)

    def put_into(self, data: dict[str, dict[tuple[str, ...], Value]]) -> None:
        """Give the histograms of a snapshot theirs; what has not been counted yet is for the next one."""
        found: dict[tuple[str, tuple[str, ...]], list[Exemplar]] = {}
        for (name, labels, bucket), exemplar in self._kept.copy().items():
            histogram = data[name].get(labels)
            if isinstance(histogram, Histogram) and histogram.bucket_counts[bucket]:
                found.setdefault((name, labels), []).append(exemplar)
        for (name, labels), exemplars in found.items():
            histogram = data[name][labels]
            if isinstance(histogram, Histogram):
                data[name][labels] = replace(histogram, exemplars=tuple(sorted(exemplars)))


def callback(exemplars: Exemplars, cells: Cells, kind: int, spent_ns: int, delay_ns: int, ids: Ids | None) -> None:
    """A callback that is looked at anyway has ended, in that span."""
    if ids is not None:
        labels = (KIND_OF_BLOCK[kind // STRIDE],)
        if spent_ns >= cells.slow_ns:
            exemplars.note(_DURATION, labels, spent_ns, ids)
        if delay_ns >= cells.slow_ns:
            exemplars.note(_DELAY, labels, delay_ns, ids)


def job(ledger: Ledger, executor: str, outcome: str, queued_ns: int, context: Any) -> None:
    """A job has waited long for a worker; it was handed over in that OpenTelemetry context."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    ids = None if trace is None else stacks.ids_of(trace.get_current_span(context))
    if ids is not None:
        ledger.exemplars.note(_QUEUED, (ledger.rare.fitting(EXECUTOR, executor), outcome), queued_ns, ids)


def next_one(loop: Any, exemplars: Exemplars, cells: Cells, handle: Any, now_ns: int) -> None:
    """``handle`` is next, in an iteration of many callbacks that has become a slow one."""
    if "opentelemetry.trace" in sys.modules:
        _waiting(loop, exemplars, cells, handle, now_ns)


def behind(loop: Any, exemplars: Exemplars, cells: Cells) -> None:
    """A slow callback has ended. What waits has waited at least until now: one case of each kind.

    The span is that in which a handle waits: when it has run, its span may be over. What the delay is in the end is
    known to the nanosecond only when the handle is called, and a look at each would be one on the hot path: of the
    next one a few microseconds are missing, of others what those before them take.
    """
    if "opentelemetry.trace" not in sys.modules:
        return
    now_ns = clock.monotonic_ns()
    queue = backend.queue(loop)
    done = {-1}
    for i in range(min(_MOST, len(queue))):  # not by an iterator: other threads may append
        done.add(_waiting(loop, exemplars, cells, queue[i], now_ns, done))
    now = loop.time()
    for timer in loop._scheduled[:_MOST]:
        late = now - timer._when
        if TIMER in done or timer._cancelled or not late > 0:
            continue
        marks = _marks.marks(timer)
        could_ns = max(0 if marks is None else marks[1], cells.run_started_ns)  # when it could become ready at all
        delay_ns = min(int(min(late, _MAX_LATE) * 1e9), now_ns - could_ns)
        ids = stacks.span_ids(stacks.context(timer, None)) if delay_ns >= cells.slow_ns else None
        if ids is not None:
            done.add(TIMER)
            exemplars.note(_DELAY, (KIND_OF_BLOCK[TIMER // STRIDE],), delay_ns, ids)


def _waiting(loop: Any, exemplars: Exemplars, cells: Cells, handle: Any, now_ns: int, done: Container[int] = ()) -> int:
    """Note a handle that waits, if it has waited long and its kind is none of ``done``; its kind then, else -1."""
    marks: tuple[int, int] | None = _marks.marks(handle) or loop._obsloop.foreign.get(id(handle))
    if marks is None or marks[0] in done or handle._cancelled or now_ns - marks[1] < cells.slow_ns:
        return -1
    ids = stacks.span_ids(stacks.context(handle, None))
    if ids is None:
        return -1
    kind, ready_ns = marks
    exemplars.note(_DELAY, (KIND_OF_BLOCK[kind // STRIDE],), now_ns - ready_ns, ids)
    return kind

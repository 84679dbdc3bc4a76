"""Exemplars of slow callbacks, and of what waited behind them.

A case is kept where the loop is on a slow path anyway: a callback that took long, with its own delay where that was
long too; and, when a slow callback has ended, what waits behind it, which may be as fast as it likes.
OpenTelemetry is looked at where the program has loaded it, and never imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.hotpath import backend, marks as _marks
from obsloop.introspect import spans
from obsloop.metrics.counters import KIND_OF_BLOCK, STRIDE, TIMER

if TYPE_CHECKING:
    from collections.abc import Container

    from obsloop.introspect.spans import Ids
    from obsloop.metrics.counters import Counters
from obsloop.metrics.exemplars import Exemplars

_DURATION = "asyncio.eventloop.callback.duration"
_DELAY = "asyncio.eventloop.schedule.delay"

_MOST = 16
"""So many of those that wait are looked at when a slow callback has ended: the first handles, and the first timers."""
_MAX_LATE = 1e9  # seconds: what is later was never on time


def callback(
    exemplars: Exemplars, counters: Counters, kind: int, spent_ns: int, delay_ns: int, ids: Ids | None
) -> None:
    """A callback that is looked at anyway has ended, in that span."""
    if ids is not None:
        labels = (KIND_OF_BLOCK[kind // STRIDE],)
        if spent_ns >= counters.slow_ns:
            exemplars.note(_DURATION, labels, spent_ns, ids)
        if delay_ns >= counters.slow_ns:
            exemplars.note(_DELAY, labels, delay_ns, ids)


def next_one(loop: Any, exemplars: Exemplars, counters: Counters, handle: Any, now_ns: int) -> None:
    """``handle`` is next, in an iteration of many callbacks that has become a slow one."""
    if "opentelemetry.trace" in sys.modules:
        _waiting(loop, exemplars, counters, handle, now_ns)


def behind(loop: Any, exemplars: Exemplars, counters: Counters) -> None:
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
        done.add(_waiting(loop, exemplars, counters, queue[i], now_ns, done))
    now = loop.time()
    for timer in loop._scheduled[:_MOST]:
        late = now - timer._when
        if TIMER in done or timer._cancelled or not late > 0:
            continue
        marks = _marks.marks(timer)
        could_ns = max(0 if marks is None else marks[1], counters.run_started_ns)  # when it could become ready at all
        delay_ns = min(int(min(late, _MAX_LATE) * 1e9), now_ns - could_ns)
        ids = spans.span_ids(spans.context(timer, None)) if delay_ns >= counters.slow_ns else None
        if ids is not None:
            done.add(TIMER)
            exemplars.note(_DELAY, (KIND_OF_BLOCK[TIMER // STRIDE],), delay_ns, ids)


def _waiting(
    loop: Any, exemplars: Exemplars, counters: Counters, handle: Any, now_ns: int, done: Container[int] = ()
) -> int:
    """Note a handle that waits, if it has waited long and its kind is none of ``done``; its kind then, else -1."""
    marks: tuple[int, int] | None = _marks.marks(handle) or loop._obsloop.foreign.get(id(handle))
    if marks is None or marks[0] in done or handle._cancelled or now_ns - marks[1] < counters.slow_ns:
        return -1
    ids = spans.span_ids(spans.context(handle, None))
    if ids is None:
        return -1
    kind, ready_ns = marks
    exemplars.note(_DELAY, (KIND_OF_BLOCK[kind // STRIDE],), now_ns - ready_ns, ids)
    return kind

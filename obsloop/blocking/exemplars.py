"""Keep exemplars of slow callbacks, and of the handles that waited behind them.

They are taken only where the loop is on a slow path anyway: of a callback that took long, and of its own delay if that
was long; and, after a slow callback, of the handles that wait behind it, however fast these are. OpenTelemetry is asked
only if the program has loaded it, and never imported.
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
"""How many waiting handles, and how many timers, are checked after a slow callback: the first ones."""
_MAX_LATE = 1e9  # seconds; a timer that is later was never on time


def callback(
    exemplars: Exemplars, counters: Counters, kind: int, spent_ns: int, delay_ns: int, ids: Ids | None
) -> None:
    """Note a callback that has ended, and its delay, if they were slow; ``ids`` is its span."""
    if ids is not None:
        labels = (KIND_OF_BLOCK[kind // STRIDE],)
        if spent_ns >= counters.slow_ns:
            exemplars.note(_DURATION, labels, spent_ns, ids)
        if delay_ns >= counters.slow_ns:
            exemplars.note(_DELAY, labels, delay_ns, ids)


def next_one(loop: Any, exemplars: Exemplars, counters: Counters, handle: Any, now_ns: int) -> None:
    """Note the delay of ``handle``, which is next in an iteration of many callbacks that has become slow."""
    if "opentelemetry.trace" in sys.modules:
        _waiting(loop, exemplars, counters, handle, now_ns)


def behind(loop: Any, exemplars: Exemplars, counters: Counters) -> None:
    """Note one handle of each kind that waits behind a slow callback, which has just ended.

    The span is taken while the handle waits: after it ran, its span may be over. The delay is that until now, so it
    is a little short: a few microseconds for the next handle, for others also what those before them take. The exact
    delay is known only when the handle is called, and a check there would be on the hot path.
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
        could_ns = max(0 if marks is None else marks[1], counters.run_started_ns)  # when it could first become ready
        delay_ns = min(int(min(late, _MAX_LATE) * 1e9), now_ns - could_ns)
        ids = spans.span_ids(spans.context(timer, None)) if delay_ns >= counters.slow_ns else None
        if ids is not None:
            done.add(TIMER)
            exemplars.note(_DELAY, (KIND_OF_BLOCK[TIMER // STRIDE],), delay_ns, ids)


def _waiting(
    loop: Any, exemplars: Exemplars, counters: Counters, handle: Any, now_ns: int, done: Container[int] = ()
) -> int:
    """Note a handle if it has waited long and its kind is none of ``done``. Return its kind then, else -1."""
    marks: tuple[int, int] | None = _marks.marks(handle) or loop._obsloop.foreign.get(id(handle))
    if marks is None or marks[0] in done or handle._cancelled or now_ns - marks[1] < counters.slow_ns:
        return -1
    ids = spans.span_ids(spans.context(handle, None))
    if ids is None:
        return -1
    kind, ready_ns = marks
    exemplars.note(_DELAY, (KIND_OF_BLOCK[kind // STRIDE],), now_ns - ready_ns, ids)
    return kind

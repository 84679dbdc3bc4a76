"""The metrics of each loop *name*, shared by all loops that ever had it.

A thousand short ``asyncio.run`` calls add to one entry, and no series appears per loop. An entry lends each live loop a
block of counters of its own, so that every block has one writer. When a loop is closed or collected, its block goes
back, and the next loop of that name continues to count in it. The metrics of a name are the sum of its blocks. There
are as many blocks as there ever were live loops of that name at once.

There is no lock here. A garbage collection or a signal handler may run the program's code between any two steps, and
that code may run a loop, or wait for a thread that does. So each change is one step that nothing can interrupt: a
``pop``, an ``append``, a ``setdefault``, or a line without a call.

There are ``MAIN``, ``_OTHER`` and at most ``MAX_LOOP_NAMES`` more names. If a new name finds no room, it gets the
place of a name whose loops have all been gone for ``REST_SECONDS``: by then every scrape has seen the last numbers.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

from obsloop.base import clock
from obsloop.base.fork import reset_in_child
from obsloop.metrics import coroutine_times, runs
from obsloop.metrics.catalog import LOOP_NAME_LABEL, MAX_LOOP_NAMES, OTHER, STATES
from obsloop.metrics.counters import Counters, new_counters
from obsloop.metrics.exemplars import Exemplars
from obsloop.metrics.labelled import LabelledMetrics
from obsloop.metrics.lag import Lag
from obsloop.metrics.self_metrics import dropped

_by_name: dict[str, LoopMetrics] = {}
_places: list[None] = [None] * MAX_LOOP_NAMES
"""One for each name that there is still room for."""

MAIN = "main"
"""The name of the main thread's loop. It needs no place, so that it has its name whichever loops came before."""
REST_SECONDS = 60.0
_UNBOUNDED = (MAIN, OTHER)


class LoopMetrics:
    """All metrics of one loop name."""

    __slots__ = (
        "_blocks",
        "_free",
        "_showing",
        "_shown_ns",
        "began",
        "ended",
        "exemplars",
        "labelled",
        "lag",
        "live",
        "name",
        "partial",
        "top_coroutines",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.time()
        self.ended = clock.seconds()
        """When the last loop of this name was closed or collected, by the monotonic clock."""
        self.partial: bool | None = None
        """Whether all loops of this name were uvloop's own, which measure only some metrics."""
        self.labelled = LabelledMetrics()
        self.lag = Lag()
        self.top_coroutines = coroutine_times.TopCoroutines()
        self.exemplars = Exemplars()
        self._blocks: list[Counters] = [new_counters()]
        """All blocks, lent or free, so that a reader misses none that is lent or given back meanwhile."""
        self._free: list[Counters] = self._blocks.copy()
        self.live: dict[weakref.ref[Any], Counters] = {}
        self._showing = threading.RLock()
        self._shown_ns: dict[str, int] = dict.fromkeys(STATES, 0)

    def lease(self, loop: Any) -> Counters:
        """Lend ``loop`` a block, until ``release`` or until the loop is collected."""
        try:
            counters = self._free.pop()
        except IndexError:
            counters = new_counters()
            self._blocks.append(counters)
        self.live[weakref.ref(loop, self._take_back)] = counters
        return counters

    def release(self, loop: Any) -> None:
        """Take the block of ``loop`` back, since the loop is closed."""
        self._take_back(weakref.ref(loop))

    def _take_back(self, ref: weakref.ref[Any]) -> None:
        # The garbage collector may call this at any point of any thread: so single atomic steps, and no lock.
        counters = self.live.pop(ref, None)
        if counters is not None:
            if counters.run_started_ns:  # collected in the middle of a run, whose thread has ended
                counters.end_run(counters.tick_ns)
                runs.forget(counters)
            counters.flows.end()
            self.ended = clock.seconds()
            self._free.append(counters)

    def blocks(self) -> list[Counters]:
        """Return every block, lent or free."""
        return self._blocks.copy()

    def forked(self) -> None:
        """Set everything to zero in a forked child.

        Locks and free blocks are made anew, since a thread that the child does not have may have held the old ones.
        """
        self.began = time.time()
        self._showing = threading.RLock()
        self._shown_ns = dict.fromkeys(STATES, 0)
        self.labelled.forked()
        self.lag = Lag()
        self.exemplars = Exemplars()
        live = self.live.copy()
        self._free = [new_counters()]
        self._blocks = [*live.values(), *self._free]
        for ref, counters in live.items():
            counters.forked()
            loop = ref()
            if loop is not None:
                loop._obsloop.forked()

    def steady(self, states_ns: dict[str, int]) -> dict[str, int]:
        """Return times with the same sum, but no state below its last returned value: counters must not go back.

        A reader may come after the writer has read the clock and before it has noted the time. The reader then counts
        the time since for the old state, and the writer for the next state.
        """
        with self._showing:
            shown_ns = self._shown_ns
            run_ns = max(sum(states_ns.values()), sum(shown_ns.values()))
            steady_ns = {state: max(ns, shown_ns[state]) for state, ns in states_ns.items()}
            excess_ns = sum(steady_ns.values()) - run_ns
            for state, shown in shown_ns.items():
                given_ns = min(excess_ns, steady_ns[state] - shown)
                steady_ns[state] -= given_ns
                excess_ns -= given_ns
            self._shown_ns = steady_ns
            return steady_ns


def lease(name: str, loop: Any) -> tuple[LoopMetrics, Counters]:
    """Return the entry of ``name`` (of ``_OTHER`` if there are too many names), and a block of it for ``loop``."""
    metrics = _by_name.get(name)
    if metrics is None:
        metrics = _by_name.setdefault(name, LoopMetrics(name)) if name in _UNBOUNDED else _new(name)
    counters = metrics.lease(loop)
    if _by_name.setdefault(metrics.name, metrics) is not metrics:  # another thread gave its place away just now
        metrics.release(loop)
        return lease(name, loop)
    return metrics, counters


def _new(name: str) -> LoopMetrics:
    """Make the entry of a name that had none just now."""
    new = LoopMetrics(name)
    try:
        place = _places.pop()
    except IndexError:
        metrics = _by_name.get(name)  # another thread may have made it meanwhile, or code that interrupted this one
        if metrics is None and _take_a_place():
            metrics = _by_name.setdefault(name, new)
        if metrics is None:
            dropped[LOOP_NAME_LABEL] += 1
            metrics = _by_name.setdefault(OTHER, LoopMetrics(OTHER))
        return metrics
    metrics = _by_name.setdefault(name, new)
    if metrics is not new:
        _places.append(place)
    return metrics


def _take_a_place() -> bool:
    """Forget the name whose loops have been gone for longest, if that is long enough. Return whether there was one."""
    latest = clock.seconds() - REST_SECONDS
    gone = [m for m in every_one() if not m.live and m.name not in _UNBOUNDED and m.ended <= latest]
    oldest = min(gone, key=lambda metrics: metrics.ended, default=None)
    return oldest is not None and _by_name.pop(oldest.name, None) is not None


def forget() -> None:
    """Forget all entries, as if no loop had ever run. For tests."""
    _by_name.clear()
    _places[:] = [None] * MAX_LOOP_NAMES


def every_one() -> list[LoopMetrics]:
    """Return every entry of this process."""
    return list(_by_name.values())


@reset_in_child
def forked() -> None:
    """Forget all entries in a forked child, except those with live loops, which start from zero."""
    entries = list(_by_name.items())
    _by_name.clear()
    for name, metrics in entries:
        metrics.forked()
        if metrics.live:
            _by_name[name] = metrics
    _places[:] = [None] * (MAX_LOOP_NAMES - len(_by_name.keys() - {*_UNBOUNDED}))

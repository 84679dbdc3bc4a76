"""Who counts where: one ledger for each loop *name*, shared by all loops that ever had it.

A thousand short ``asyncio.run`` calls add to one set of figures, and no series appears per loop. A ledger lends each
live loop a block of counters (``Cells``) of its own, so that every block has one writer; when a loop closes, or is
collected, its block goes back and the next loop of that name counts on in it. A ledger's figures are the sum of its
blocks, of which there are as many as there ever were live loops of that name at once.

There is no lock here. A garbage collection or a signal handler may run the program's code between any two steps, and
that code may run a loop or wait for a thread that does. So each change is one step that nothing can interrupt: a
``pop``, an ``append``, a ``setdefault``, or a line that calls nothing.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from obsloop import instruments
from obsloop.blocking import recent, watchdog
from obsloop.hotpath import runs
from obsloop.hotpath.backend import new_cells
from obsloop.hotpath.displaced import is_displaced
from obsloop.metrics import coroutine_times
from obsloop.metrics.buckets import COUNTS, SECONDS
from obsloop.metrics.catalog import BOUNDED, LOOP_NAME_LABEL, MAX_LOOP_NAMES, OTHER, STATES
from obsloop.metrics.counters import KINDS, STRIDE, Cells, read
from obsloop.metrics.exemplars import Exemplars
from obsloop.metrics.labelled import Rare
from obsloop.metrics.snapshot import Histogram, Snapshot, Value, frozen
from obsloop.probes import executors, gc as gc_probe, processes, tasks
from obsloop.probes.network import servers, transports
from obsloop.tasks import census
from obsloop.tasks.lints import runner

if TYPE_CHECKING:
    from collections.abc import Iterable

_ledgers: dict[str, Ledger] = {}
_places: list[None] = [None] * MAX_LOOP_NAMES
"""One for each name that may still come."""
_dropped = {
    LOOP_NAME_LABEL: 0,
    "torn_snapshot": 0,
    "export": 0,
    "span": 0,
}  # what else is dropped is counted where it is
_self_time_ns = {"snapshot": 0, "scrape": 0, "export": 0}
_began = time.time()


class Ledger:
    """The counters of one loop name."""

    __slots__ = ("_blocks", "_free", "_live", "_showing", "_shown_ns", "began", "exemplars", "name", "rare", "seats")

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.time()
        self.rare = Rare()
        self.seats = coroutine_times.Seats()
        self.exemplars = Exemplars()
        self._blocks: list[Cells] = [new_cells()]
        """All that there ever were, lent or free, so that a reader misses none that changes hands meanwhile."""
        self._free: list[Cells] = self._blocks.copy()
        self._live: dict[weakref.ref[Any], Cells] = {}
        self._showing = threading.RLock()
        self._shown_ns: dict[str, int] = dict.fromkeys(STATES, 0)

    def lease(self, loop: Any) -> Cells:
        """A block for ``loop``, until ``release`` or until the loop is collected."""
        try:
            cells = self._free.pop()
        except IndexError:
            cells = new_cells()
            self._blocks.append(cells)
        self._live[weakref.ref(loop, self._take_back)] = cells
        return cells

    def release(self, loop: Any) -> None:
        """``loop`` is closed."""
        self._take_back(weakref.ref(loop))

    def _take_back(self, ref: weakref.ref[Any]) -> None:
        # May be called by the garbage collector at any point of any thread: single atomic steps, and no lock.
        cells = self._live.pop(ref, None)
        if cells is not None:
            if cells.run_started_ns:  # collected in the middle of a run: its thread is gone
                cells.end_run(cells.tick_ns)
                runs.forget(cells)
            cells.flows.end()
            self._free.append(cells)

    def blocks(self) -> list[Cells]:
        """Every block, lent or free."""
        return self._blocks.copy()

    def forked(self) -> None:
        """Start from nothing in a forked child. Locks and free blocks may be another thread's, which is gone."""
        self.began = time.time()
        self._showing = threading.RLock()
        self._shown_ns = dict.fromkeys(STATES, 0)
        self.rare.forked()
        self.exemplars = Exemplars()
        live = self._live.copy()
        self._free = [new_cells()]
        self._blocks = [*live.values(), *self._free]
        for ref, cells in live.items():
            cells.forked()
            loop = ref()
            if loop is not None:
                loop._obsloop.forked()

    def _steady(self, states_ns: dict[str, int]) -> dict[str, int]:
        """The same time in all, with no state below what it was shown as before: counters do not go back.

        A reader may come between the writer's look at the clock and its note of it. It takes the time since for the
        state that was, and the writer gives it to the state that follows.
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

    def snapshot(self) -> Snapshot:
        """All figures of this name, at this moment."""
        tasks.roll_call([loop for ref in list(self._live) if (loop := ref()) is not None])
        blocks = self.blocks()
        lent = [(loop, cells) for ref, cells in list(self._live.copy().items()) if (loop := ref()) is not None]
        displaced = {id(cells) for loop, cells in lent if is_displaced(loop)}
        readings = [read(cells, ours=id(cells) not in displaced) for cells in blocks]
        _dropped["torn_snapshot"] += sum(not r.consistent for r in readings)
        loops = [loop for loop, _ in lent]
        durations = _add(r.durations for r in readings)
        delays = _add(r.delays for r in readings)
        iteration = _add(r.iteration for r in readings)
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
                (state,): ns / 1e9 for state, ns in self._steady({s: total(f"{s}_ns") for s in STATES}).items()
            },
            "asyncio.eventloop.iterations": {(): sum(iteration[1:])},
            "asyncio.eventloop.events": {(): total("events")},
            "asyncio.eventloop.events_waiting": {(): total("events_waiting")},
            "asyncio.eventloop.poll.duration": {(): seconds(_add(r.poll for r in readings))},
            "asyncio.eventloop.iteration.duration": {(): seconds(iteration)},
            "asyncio.eventloop.schedule.delay": {kind: seconds(delays[at]) for kind, at in by_kind.items()},
            "asyncio.eventloop.callback.duration": {kind: seconds(durations[at]) for kind, at in by_kind.items()},
            "asyncio.eventloop.ready.depth": {(): Histogram.from_block(COUNTS, _add(r.depth for r in readings))},
            "asyncio.eventloop.timer.count": {(): sum(len(getattr(loop, "_scheduled", ())) for loop in loops)},
            "asyncio.eventloop.timer.cancelled": {
                (): sum(getattr(loop, "_timer_cancelled_count", 0) for loop in loops)
            },
            # A timer is ready when it is due: its lateness is the delay of its kind.
            "asyncio.eventloop.timer.lateness": {(): seconds(delays[timer])},
            "asyncio.eventloop.blocked.time": {(): blocked_time},
            **executors.points(loops, self.rare),
            **processes.points(loops),
            **servers.points(loops, self.rare),
            **transports.points(blocks, readings),
            **tasks.points(loops, readings),
            "asyncio.eventloop.callback.time": tasks.coroutine_points(self.seats, coroutines),
            **self.rare.points(),
        }
        running = any(r.running for r in readings)
        self.exemplars.put_into(data)
        return Snapshot(self.name, running, blocked_time, frozen(data), self.began, MappingProxyType(coroutines))


def _add(blocks: Iterable[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*blocks, strict=True)]


def lease(name: str, loop: Any) -> tuple[Ledger, Cells]:
    """The ledger of ``name``, or of ``_OTHER`` when there are too many names, and a block in it for ``loop``."""
    ledger = _ledgers.get(name)
    if ledger is None:
        ledger = _ledgers.setdefault(OTHER, Ledger(OTHER)) if name == OTHER else _new(name)
    return ledger, ledger.lease(loop)


def _new(name: str) -> Ledger:
    """The ledger of a name that had none a moment ago."""
    new = Ledger(name)
    try:
        place = _places.pop()
    except IndexError:
        ledger = _ledgers.get(name)  # made meanwhile: by another thread, or within this one by code in between
        if ledger is None:
            _dropped[LOOP_NAME_LABEL] += 1
            ledger = _ledgers.setdefault(OTHER, Ledger(OTHER))
        return ledger
    ledger = _ledgers.setdefault(name, new)
    if ledger is not new:
        _places.append(place)
    return ledger


def forget() -> None:
    """For tests: as if no loop had ever run."""
    _ledgers.clear()
    _places[:] = [None] * MAX_LOOP_NAMES


def snapshots() -> dict[str, Snapshot]:
    """The figures of every loop name that has run in this process, by name."""
    began = time.perf_counter_ns()
    result = {ledger.name: ledger.snapshot() for ledger in list(_ledgers.values())}
    _self_time_ns["snapshot"] += time.perf_counter_ns() - began
    return result


def process_snapshot() -> Snapshot:
    """The figures of the process and of no loop: garbage collection, and what obsloop itself costs and loses."""
    ledgers = list(_ledgers.values())
    dropped = {
        **_dropped,
        **coroutine_times.dropped,
        **runner.dropped(),
        **{label.name: sum(ledger.rare.folded(label.name) for ledger in ledgers) for label in BOUNDED},
    }
    self_time_ns = {**_self_time_ns, "watchdog": watchdog.self_time_ns(), "tasks": census.census_time_ns()}
    data: dict[str, dict[tuple[str, ...], Value]] = {
        **gc_probe.points(),
        "obsloop.self.time": {(what,): ns / 1e9 for what, ns in self_time_ns.items()},
        "obsloop.dropped": {(what,): n for what, n in dropped.items()},
        "obsloop.instrument.disabled": {(hook,): n for hook, n in instruments.disabled.items()},
    }
    return Snapshot("", False, 0.0, frozen(data), _began)


def add_scrape_time(spent_ns: int) -> None:
    """The service has answered a scrape."""
    _self_time_ns["scrape"] += spent_ns


def count_export(spent: float, *, failed: bool = False) -> None:
    """An exporter that sends by itself has sent, or has failed to: one more in ``obsloop.dropped{what="export"}`` then.

    ``spent``: seconds that it took to put the figures into their form, without the sending; they are added to
    ``obsloop.self.time``. May be called in any thread.
    """
    spent_ns, failures = round(spent * 1e9), int(failed)
    _self_time_ns["export"] += spent_ns
    _dropped["export"] += failures


def count_dropped_spans(number: int = 1) -> None:
    """An exporter of spans did not make so many, since it may only make so many a minute: that many more in
    ``obsloop.dropped{what="span"}``. May be called in any thread."""
    _dropped["span"] += number


def _after_fork_in_child() -> None:
    global _began  # noqa: PLW0603 - one moment for the whole process
    _began = time.time()
    ledgers = list(_ledgers.items())
    _ledgers.clear()
    for name, ledger in ledgers:
        ledger.forked()
        if ledger._live:
            _ledgers[name] = ledger
    _places[:] = [None] * (MAX_LOOP_NAMES - len(_ledgers.keys() - {OTHER}))
    for counts in (_dropped, _self_time_ns):
        counts.update(dict.fromkeys(counts, 0))
    for part in (gc_probe, instruments, runs, recent, coroutine_times, tasks):
        part.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

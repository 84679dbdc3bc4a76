"""Lints: report what is wrong with tasks, with a name, a place and a reason, while the program runs.

There are four detectors, one file each, apart from all measurement: the watchdog's thread scans the live tasks now and
then, and the hot path knows nothing of it. ``findings`` handles the results of all of them. A scan runs in slices,
between which the watchdog does its own work. The more a scan costs, the later the next one comes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from obsloop.base import clock, gc_pause
from obsloop.base.fork import reset_in_child
from obsloop.introspect import attributes
from obsloop.metrics import runs as _running
from obsloop.tasks import census
from obsloop.tasks.lints import findings, scan
from obsloop.tasks.lints.growing import Growing
from obsloop.tasks.lints.never_retrieved import NEVER_RETRIEVED, NeverRetrieved
from obsloop.tasks.lints.never_woken import NeverWoken
from obsloop.tasks.lints.never_yields import AlwaysReady, Steps
from obsloop.tasks.lints.scan import TaskScan

if TYPE_CHECKING:
    from obsloop.metrics.runs import Run

LOOK_NS = 1_000_000_000
"""Between two scans; but scans use one thousandth of a core at most."""
SHARE = 1_000
SLICE = 256
"""How many tasks one slice reads, in less than a millisecond: the loop may want the interpreter."""
SLICE_PAUSE_NS = 5_000_000


class _Lints:
    """All lints of this process. A forked child gets new ones."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.always_ready = AlwaysReady()
        self.never_woken = NeverWoken()
        self.growing = Growing()
        self.never_retrieved = NeverRetrieved()
        self.going_on: Iterator[None] | None = None
        """The scan that has begun."""
        self.next_ns = 0
        self.cost_ns = 0
        """CPU time of this scan so far."""

    def look(self, now_ns: int) -> int:
        """Begin a scan or go on with one, if it is time. Return when it is time again."""
        runs = _runs()
        due_ns = self.steps.look(runs, now_ns)
        if now_ns < self.next_ns:
            return min(due_ns, self.next_ns)
        if not runs and self.going_on is None:
            return now_ns + LOOK_NS
        if self.going_on is None:
            self.going_on, self.cost_ns = self._all(TaskScan(now_ns, runs)), 0
        going_on, self.going_on = self.going_on, None  # a scan that raises is not continued
        began_ns = time.thread_time_ns()
        self.next_ns = now_ns + LOOK_NS
        if next(going_on, self) is self:
            self.cost_ns += time.thread_time_ns() - began_ns
            self.next_ns = now_ns + max(LOOK_NS, SHARE * self.cost_ns)
        else:
            self.cost_ns += time.thread_time_ns() - began_ns
            self.going_on = going_on
            self.next_ns = now_ns + SLICE_PAUSE_NS
        return min(due_ns, self.next_ns)

    def _all(self, now: TaskScan) -> Iterator[None]:
        """Make one scan, slice by slice. Between two slices it holds no task and no loop."""
        self.always_ready.begin(now)
        self.never_woken.begin(now)
        references = _references(now)
        if len(references) > scan.MAX_LOOKED:
            # At random, not every tenth: the references are in the order of addresses, which may depend on the kind.
            now.every = len(references) / scan.MAX_LOOKED
            references = random.sample(references, scan.MAX_LOOKED)
        for n, ref in enumerate(references, 1):
            self._see(now, ref)
            if n % SLICE == 0:
                yield
        yield
        self.never_woken.end(now)
        yield
        self.always_ready.end(now)
        self.growing.end(now)

    def _see(self, now: TaskScan, ref: Any) -> None:
        task = ref()
        if task is None:
            return
        try:
            loop_id = scan.loop_id_of(task)
            run = now.runs.get(loop_id) if loop_id is not None else None
            if run is None or loop_id is None:
                return
            waiter = scan.waiter_of(task)
            waits_for = None if waiter is None else attributes.class_of(waiter)
            del waiter
            now.count(ref, run, loop_id, scan.coroutine_of(task))
            if waits_for is None:
                self.always_ready.see(now, run, ref, id(task))
            else:
                self.never_woken.see(ref, id(task), waits_for)
        except BaseException:  # a task of the program's own class that behaves differently
            return


_lints = _Lints()


def go_on() -> int:
    """Scan the tasks of all running loops, if it is time. Return when it is time again. For the watchdog."""
    now_ns = clock.REAL()
    if clock.monotonic_ns is not clock.REAL:
        return now_ns + LOOK_NS  # a test has replaced the clock: nothing is scanned
    with gc_pause.held:
        return _lints.look(now_ns)


def exception_seen(loop: Any, context: dict[str, Any], error_type: str, detail: str) -> None:
    """Note a call of the loop's exception handler, in any thread: two of its messages are findings."""
    obs = loop._obsloop
    message = attributes.text(context.get("message"))
    if not (obs.settings.lints and message):
        return
    if message.endswith(NEVER_RETRIEVED):
        _lints.never_retrieved.add(obs, context.get("future"), error_type, detail)
    elif message == "Task was destroyed but it is pending!":
        _lints.never_woken.destroyed(loop, context.get("task"))


def kept() -> findings.Recent:
    """Return what was reported last. From any thread."""
    return findings.kept()


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _lints  # noqa: PLW0603 - as a whole: the parent may have been in the middle of a scan
    _lints = _Lints()


def _references(now: TaskScan) -> list[Any]:
    # In its own function, so that nothing of it is left in the frame of the scan, which waits between its slices.
    return census._references([loop for run in now.runs.values() if (loop := run.loop()) is not None])


def _runs() -> dict[int, Run]:
    """Return the runs of all loops with lints, by the loop's ``id``, including loops in whose callbacks others run."""
    found: dict[int, Run] = {}
    for run in _all_runs(list(_running.runs.values())):
        loop = run.loop()
        if loop is not None:
            settings = loop._obsloop.settings
            if settings.lints and settings.watchdog:
                found[id(loop)] = run
    return found


def _all_runs(innermost: Iterable[Run]) -> Iterator[Run]:
    for one in innermost:
        run: Run | None = one
        while run is not None:
            yield run
            run = run.outer

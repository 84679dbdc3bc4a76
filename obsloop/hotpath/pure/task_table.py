"""The live tasks of one loop in the pure core: when each was created, and the times of tasks that asked for them."""

from __future__ import annotations

import asyncio
from threading import get_ident
from time import sleep
from typing import TYPE_CHECKING, Any

from obsloop.hotpath import marks
from obsloop.metrics.counters import IN_CALLBACK, OTHER, TASK_STEP

if TYPE_CHECKING:
    pass
from obsloop.metrics.counters import Counters

_PATIENCE = 20
_BREATH_SECONDS = 50e-6

OK, ERROR, CANCELLED, ABANDONED = range(4)  # of counters.FINISHES


class Measurement:
    """What the steps of some tasks took together: the task that began it, and all tasks that came from it since."""

    __slots__ = ("outer", "run_ns", "steps", "wait_ns")

    def __init__(self, outer: Measurement | None) -> None:
        self.outer = outer
        self.run_ns = self.wait_ns = self.steps = 0


class Times:
    """What the steps of one task took."""

    __slots__ = ("measurement", "run_ns", "since_ns", "steps", "wait_ns")

    def __init__(self, since_ns: int, measurement: Measurement | None) -> None:
        self.since_ns = since_ns
        self.measurement = measurement
        self.run_ns = self.wait_ns = self.steps = 0


class TaskTable:
    """The tasks of one loop, written in its thread. ``probes.tasks`` makes metrics of it."""

    __slots__ = ("_missing", "_timed", "created", "eager_measurement", "eager_ns", "inner_at_ns", "inner_ns", "n")

    def __init__(self) -> None:
        self.created: dict[int, int] = {}
        """When each live task was created, by ``id``; tasks that have begun are in the order in which they began."""
        self._timed: dict[int, Times] = {}
        self.n = 0
        """How many tasks went through ``create_task``."""
        self.eager_ns = 0
        """When the creation began of a task that may run at once; 0 if none is being created."""
        self.eager_measurement: Measurement | None = None
        """The measurement which that task joins."""
        self.inner_ns = self.inner_at_ns = 0
        """How much of a step such tasks took, and when that step began."""
        self._missing: tuple[dict[int, int], dict[int, Times]] = {}, {}
        """The tasks that have not answered the roll call yet."""

    def live(self) -> int:
        """Return how many tasks are not done."""
        return len(self.created)

    def oldest_ns(self) -> int:
        """Return when the oldest of them was created; 0 if there is none."""
        return min(list(self.created.values()), default=0)

    def destroyed(self, task: Any, counters: Counters | None) -> None:
        """Forget a task that died before it was done."""
        self._timed.pop(id(task), None)
        if self.created.pop(id(task), None) is not None and counters is not None:
            counters.finished(ABANDONED, None)

    def begin_roll_call(self) -> None:
        """Begin a roll call, from any thread. Next: ``answer`` with the ids of all pending tasks, ``end_roll_call``."""
        self._missing = self.created.copy(), self._timed.copy()

    def answer(self, ids: list[int]) -> None:
        """Note that these tasks are pending."""
        created, timed = self._missing
        for key in ids:
            created.pop(key, None)
            timed.pop(key, None)

    def end_roll_call(self, loop: Any, counters: Counters) -> None:
        """Remove the tasks that did not answer: they died, or a signal handler's exception left them uncounted."""
        created, timed = self._missing
        self._missing = {}, {}
        tick_ns = counters.tick_ns
        # The running task is done before its step is over: it calls `call_soon` for the tasks that wait for it. The
        # next line runs in C alone, so that no reference to the task is left in this thread.
        (current,) = map(id, map(asyncio.current_task, (loop,)))
        created.pop(current, None)
        timed.pop(current, None)
        if created and loop._thread_id != get_ident() and current == id(None):
            # A task is done a little before it is counted. If its step may be at that point, let it go on.
            for _ in range(_PATIENCE):
                if counters.tick_ns != tick_ns or counters.state != IN_CALLBACK:
                    break
                sleep(_BREATH_SECONDS)
            else:
                return  # a long callback: leave it to the next roll call
        n = 0
        for key, created_ns in created.items():
            try:
                # The loop's thread cannot run between comparison and removal: nothing is called there.
                if self.created[key] == created_ns:
                    del self.created[key]
                    n += 1
            except KeyError:
                continue
        for key, times in timed.items():
            try:
                if self._timed[key] is times:
                    del self._timed[key]
            except KeyError:
                continue
        counters.tasks_finished[ABANDONED] += n

    def close(self, counters: Counters | None) -> None:
        """Count the tasks that are left as abandoned: the loop is closed."""
        if counters is not None:
            for _ in self.created:
                counters.finished(ABANDONED, None)
        self.created.clear()
        self._timed.clear()

    def times_of(self, task: Any, start_ns: int, ready_ns: int) -> tuple[int, int, int, int]:
        """Return since when the running ``task`` has times, and its earlier steps' run time, wait time and number.

        Its present step began at ``start_ns`` and was ready at ``ready_ns``: the times begin there at the latest.
        """
        times = self._times(task, min(start_ns, ready_ns))
        return times.since_ns, times.run_ns, times.wait_ns, times.steps

    def enter(self, task: Any, start_ns: int, ready_ns: int) -> Measurement:
        """Put the running ``task`` into a new measurement, within the one that it was in. Return it."""
        times = self._times(task, min(start_ns, ready_ns))
        times.measurement = measurement = Measurement(times.measurement)
        return measurement

    def leave(self, task: Any, measurement: Measurement) -> None:
        """Put ``task`` back into the measurement around ``measurement``."""
        times = self._timed.get(id(task))
        if times is not None and times.measurement is measurement:
            times.measurement = measurement.outer

    def present_step(self, loop: Any, task: Any, handle: Any) -> tuple[int, int] | None:
        """Return when the present step of ``task`` began, and when it was ready, or None if no step is known to be its.

        Both are moved later by the time that eager tasks have taken of it. ``handle`` is the one that ``loop`` runs
        now. For an eager task's first step, return twice when it began.
        """
        counters = loop._obsloop.counters
        inner_ns = self.inner(counters)
        kind, ready_ns = marks.marks(handle) or (OTHER, 0)
        if kind <= TASK_STEP and getattr(handle._callback, "__self__", None) is task:
            return counters.tick_ns + inner_ns, ready_ns + inner_ns
        if not self.eager_ns:
            return None
        times = self._timed.get(id(task))
        if times is not None and times.since_ns < self.eager_ns:  # of a dead task at the same address
            del self._timed[id(task)]
        began_ns = self.eager_ns + inner_ns
        return began_ns, began_ns

    def measurement_of(self, task: Any) -> Measurement | None:
        """Return the measurement that ``task`` is in."""
        times = self._timed.get(id(task))
        return None if times is None else times.measurement

    def inner(self, counters: Counters) -> int:
        """Return how much of the present step went to the first steps of eager tasks."""
        return self.inner_ns if self.inner_at_ns == counters.tick_ns else 0

    def _times(self, task: Any, since_ns: int) -> Times:
        times = self._timed.get(id(task))
        if times is None:
            times = self._timed[id(task)] = Times(since_ns, self.eager_measurement)
        return times

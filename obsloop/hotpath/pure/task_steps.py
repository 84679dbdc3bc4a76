"""The hot path of tasks in pure Python: who was created, who ended and how, and what their steps took.

Nothing keeps a task alive: the task table knows tasks by ``id`` and forgets them when they are done, are destroyed
while pending or are left behind by a loop that is closed. Where asyncio does not report that a task is destroyed, a new
task at its address shows it, or a roll call (``probes.tasks``) does. What all tasks have is the moment of creation.
Per-task times are kept for tasks that asked (``task_times``) and for those of a ``Measurement``; per-coroutine times
are sampled. The compiled twin (``task_table.pxi``) keeps both of all tasks, exactly.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from obsloop.metrics import coroutine_times

if TYPE_CHECKING:
    pass
from obsloop.hotpath.pure.task_table import CANCELLED, ERROR, OK, TaskTable, Times
from obsloop.metrics.counters import Counters

SAMPLED = 16
"""One step in so many stands for all of them, on average: the gaps are random, since programs go round and round."""
_GAPS = 2 * SAMPLED - 1
_random = Random(0).random  # noqa: S311 - for gaps, not for secrets


def ended(self: Any, counters: Counters, task: Any, context: Any, end_ns: int, created_ns: int) -> None:
    """``task`` is done now; ``created_ns`` is 0 where nobody knows. The usual is inline in ``run_once``."""
    task_table: TaskTable = self._obsloop.tasks
    if not created_ns:  # made by hand, or before the loop was observed
        counters.tasks_created += 1
    times = task_table._timed.pop(id(task), None) if task_table._timed else None
    outcome = CANCELLED if task.cancelled() else OK if task._exception is None else ERROR
    duration_ns = max(0, end_ns - created_ns) if created_ns else None
    counters.finished(outcome, duration_ns)
    if outcome == ERROR or (duration_ns is not None and duration_ns >= counters.slow_task_ns):
        run_ns, wait_ns, steps = (-1, -1, 0) if times is None else (times.run_ns, times.wait_ns, times.steps)
        self._obsloop.task_done(self, task, context, outcome, created_ns or end_ns, end_ns, run_ns, wait_ns, steps)


def step(task_table: TaskTable, counters: Counters, task: Any, spent_ns: int, waited_ns: int) -> None:
    """One step of a task, where there are tasks whose times are kept."""
    times = task_table._timed.get(id(task))
    if times is not None:
        _count_for(times, spent_ns - task_table.inner(counters), max(0, waited_ns))


def _count_for(times: Times, spent_ns: int, waited_ns: int) -> None:
    times.run_ns += spent_ns
    times.wait_ns += waited_ns
    times.steps += 1
    measurement = times.measurement
    while measurement is not None:
        measurement.run_ns += spent_ns
        measurement.wait_ns += waited_ns
        measurement.steps += 1
        measurement = measurement.outer


def sample(task_table: TaskTable, counters: Counters, task: Any, spent_ns: int) -> int:
    """This step stands for the short ones since the last that did. Returns how many it is to the next one."""
    if spent_ns < counters.notable_ns:  # else it is counted by itself
        add(counters, coroutine_times.number_of_task(task), spent_ns - task_table.inner(counters), SAMPLED)
    return 1 + int(_random() * _GAPS)


def count_step(task_table: TaskTable, counters: Counters, task: Any, spent_ns: int) -> None:
    """One step that took long, for its coroutine."""
    add(counters, coroutine_times.number_of_task(task), spent_ns - task_table.inner(counters), 1)


def add(counters: Counters, number: int, spent_ns: int, weight: int) -> None:
    ns, steps = counters.coroutines.get(number, (0, 0))
    counters.coroutines[number] = (ns + weight * spent_ns, steps + weight)

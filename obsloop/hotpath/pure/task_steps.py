"""The hot path of tasks in pure Python: which were created, which ended and how, and what their steps took.

Nothing keeps a task alive. The task table knows tasks by ``id``, and forgets them when they are done, are destroyed
while pending, or are left behind by a loop that is closed. Where asyncio does not report that a task is destroyed, the
table learns it from a new task at its address or from a roll call (``probes.tasks``). The table keeps the time of
creation of every task. It keeps times per task for tasks that asked (``task_times``) and for those of a
``Measurement``; times per coroutine are sampled. The compiled twin (``task_table.pxi``) keeps both of all tasks,
exactly.
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
"""One step in so many stands for all, on average. The gaps are random, since programs repeat themselves."""
_GAPS = 2 * SAMPLED - 1
_random = Random(0).random  # noqa: S311 - for gaps, not for secrets


def ended(self: Any, counters: Counters, task: Any, context: Any, end_ns: int, created_ns: int) -> None:
    """Count ``task``, which is done now. ``created_ns`` is 0 if unknown. ``run_once`` does the usual case inline."""
    task_table: TaskTable = self._obsloop.tasks
    if not created_ns:  # made without `create_task`, or before the loop was observed
        counters.tasks_created += 1
    times = task_table._timed.pop(id(task), None) if task_table._timed else None
    outcome = CANCELLED if task.cancelled() else OK if task._exception is None else ERROR
    duration_ns = max(0, end_ns - created_ns) if created_ns else None
    counters.finished(outcome, duration_ns)
    if outcome == ERROR or (duration_ns is not None and duration_ns >= counters.slow_task_ns):
        run_ns, wait_ns, steps = (-1, -1, 0) if times is None else (times.run_ns, times.wait_ns, times.steps)
        self._obsloop.task_done(self, task, context, outcome, created_ns or end_ns, end_ns, run_ns, wait_ns, steps)


def step(task_table: TaskTable, counters: Counters, task: Any, spent_ns: int, waited_ns: int) -> None:
    """Count one step of a task, while there are tasks whose times are kept."""
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
    """Let this step stand for the short ones since the last sample. Return the number of steps to the next sample."""
    if spent_ns < counters.notable_ns:  # a longer one is counted exactly, by `count_step`
        add(counters, coroutine_times.number_of_task(task), spent_ns - task_table.inner(counters), SAMPLED)
    return 1 + int(_random() * _GAPS)


def count_step(task_table: TaskTable, counters: Counters, task: Any, spent_ns: int) -> None:
    """Count one long step for its coroutine."""
    add(counters, coroutine_times.number_of_task(task), spent_ns - task_table.inner(counters), 1)


def add(counters: Counters, number: int, spent_ns: int, weight: int) -> None:
    ns, steps = counters.coroutines.get(number, (0, 0))
    counters.coroutines[number] = (ns + weight * spent_ns, steps + weight)

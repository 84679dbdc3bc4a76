"""Tasks: what their metrics are read from, how they end, and where the running task's time has gone so far.

The counting is on the hot path: ``hotpath.pure.task_steps`` and its compiled twin.
"""

from __future__ import annotations

import asyncio
import functools
import operator
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import filterfalse
from types import TracebackType
from typing import Any, NamedTuple

from obsloop.base import clock
from obsloop.base.asyncio_private import private_tasks
from obsloop.base.clock import epoch
from obsloop.base.fork import reset_in_child
from obsloop.base.guarded import guarded
from obsloop.events import TaskDone
from obsloop.hotpath import backend
from obsloop.instruments import emit, has_listeners
from obsloop.introspect import coroutines, error_names
from obsloop.introspect.attributes import class_of
from obsloop.introspect.coroutines import TASKS
from obsloop.metrics import coroutine_times as _coroutines
from obsloop.metrics.buckets import SECONDS, added_up
from obsloop.metrics.coroutine_times import TopCoroutines
from obsloop.metrics.counters import FINISHES
from obsloop.metrics.reading import Reading
from obsloop.metrics.snapshot import CoroutineTime, Histogram, Value


def done(
    loop: Any,
    task: Any,
    context: Any,
    outcome: int,
    created_ns: int,
    end_ns: int,
    run_ns: int,
    wait_ns: int,
    steps: int,
) -> None:
    """Report a task that ended and took long or failed. ``run_ns`` is below 0 if unknown. Never raises."""
    guarded(_tell, loop, task, context, outcome, created_ns, end_ns, run_ns, wait_ns, steps)


def _tell(loop: Any, task: Any, context: Any, outcome: int, created_ns: int, end_ns: int, *times: int) -> None:
    obs = loop._obsloop
    if not has_listeners(obs.instruments, "on_task_done"):
        return
    run_ns, wait_ns, steps = times
    exception = task._exception
    if context is None:  # it began at once, and never was in the loop's queue
        context = task.get_context()
    emit(
        obs.instruments,
        "on_task_done",
        TaskDone(
            loop_name=obs.metrics_of(loop).name,
            kind="task_step",
            **coroutines.site_of_task(task).fields(),
            duration=max(0, end_ns - created_ns) / 1e9,
            schedule_delay=0.0,
            started_at=epoch(created_ns),
            outcome=FINISHES[outcome],
            error_type="" if exception is None else error_names.type_name(class_of(exception)),
            running=None if run_ns < 0 else run_ns / 1e9,
            waiting=None if wait_ns < 0 else wait_ns / 1e9,
            steps=None if run_ns < 0 else steps,
            context=context,
        ),
    )


# ---- which tasks are alive -------------------------------------------------------------------------------------------

_SLICE = 4096
_BREATH_SECONDS = 50e-6
_CHEAP_NS = 1_000_000
"""A roll call that cost no more CPU time than this, with some 5,000 tasks, is taken at each reading."""
_SHARE = 100
"""A roll call that cost more is repeated after this many times its cost: 1 % of one core at most."""
_calling = threading.Lock()
_due_ns: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_task_class: Any = asyncio.Task
_done: Any = _task_class.done
_call: Any = operator.call
_is_there: Any = functools.partial(operator.is_not, None)


def roll_call(loops: Iterable[Any]) -> None:
    """Let these loops' task tables forget tasks that died pending without a report. These count as abandoned.

    From any thread, before a reading; with very many tasks not before each one. Never raises.
    """
    guarded(_roll_call, loops)


def _roll_call(loops: Iterable[Any]) -> None:
    now_ns = clock.REAL()
    due = [
        (loop, obs.tasks, obs.counters)
        for loop in loops
        if (obs := loop._obsloop).tasks is not None and obs.counters is not None and obs.tasks.live()
    ]
    due = [entry for entry in due if _due_ns.get(entry[0], 0) <= now_ns]
    if not due or not _calling.acquire(blocking=False):
        return
    try:
        began_ns = time.thread_time_ns()
        for _, task_table, _ in due:
            task_table.begin_roll_call()
        for ids in _pending([loop for loop, _, _ in due]):
            for _, task_table, _ in due:
                task_table.answer(ids)
        for loop, task_table, counters in due:
            task_table.end_roll_call(loop, counters)
        cost_ns = time.thread_time_ns() - began_ns
        for loop, _, _ in due:
            _due_ns[loop] = now_ns + _SHARE * cost_ns if cost_ns > _CHEAP_NS else 0
    finally:
        _calling.release()


def _pending(loops: Iterable[Any]) -> Iterator[list[int]]:
    """Yield the ids of all pending tasks of ``loops``, some at a time; up to Python 3.13, of the whole process.

    Up to 3.13 ``asyncio.all_tasks`` would hold all of them, and tasks that die meanwhile would die in this thread. From
    3.14 on it knows only tasks in C. Tasks of Python's own class are in the sets that are read below.
    """
    if sys.version_info >= (3, 14):
        for loop in loops:
            yield list(map(id, asyncio.all_tasks(loop)))
    if sys.version_info >= (3, 12):
        yield list(map(id, private_tasks._eager_tasks))  # in their first step; the weak set gets them afterwards
        refs: list[Any] = list(private_tasks._scheduled_tasks.data)
    else:
        refs = list(private_tasks._all_tasks.data)
    for i in range(0, len(refs), _SLICE):
        some = refs[i : i + _SLICE]
        try:
            # All in C: a task is held only while it is asked, and its loop cannot run in between.
            alive: Iterator[Any] = filter(_is_there, map(_call, some))
            yield list(map(id, filterfalse(_done, alive)))
        except TypeError:  # some are of Python's own class
            yield [id(task) for ref in some if (task := ref()) is not None and not _is_done(task)]
        if i + _SLICE < len(refs):
            time.sleep(_BREATH_SECONDS)


def _is_done(task: Any) -> bool:
    """Return whether ``task`` is done. A task of other classes than asyncio's counts as pending: it is not counted."""
    classes: tuple[Any, ...] = TASKS
    for cls in classes:
        with suppress(TypeError):
            return bool(cls.done(task))
    return False


@reset_in_child
def forked() -> None:
    """In a forked child, make a new lock: another thread of the parent may have held it."""
    global _calling  # noqa: PLW0603
    _calling = threading.Lock()


# ---- metrics ---------------------------------------------------------------------------------------------------------


def collect(loops: Iterable[Any], readings: list[Reading]) -> dict[str, dict[tuple[str, ...], Value]]:
    """Return the metrics of these loops' tasks, live and finished."""
    task_tables = [loop._obsloop.tasks for loop in loops if loop._obsloop.tasks is not None]
    now_ns = clock.monotonic_ns()
    oldest_ns = min(
        (created_ns for task_table in task_tables if (created_ns := task_table.oldest_ns())), default=now_ns
    )
    finished = added_up(r.counted.tasks_finished for r in readings)
    delays = Histogram.from_block(SECONDS, added_up(r.first_step_delays for r in readings))
    return {
        "asyncio.task.created": {(): sum(r.counted.tasks_created for r in readings)},
        "asyncio.task.finished": {(how,): n for how, n in zip(FINISHES, finished, strict=True)},
        "asyncio.task.active": {(): sum(task_table.live() for task_table in task_tables)},
        "asyncio.task.oldest.age": {(): max(0, now_ns - oldest_ns) / 1e9},
        "asyncio.task.first_step.delay": {(): delays},
    }


def coroutine_times(readings: Iterable[Reading]) -> dict[str, CoroutineTime]:
    """Return what each coroutine function took, longest first."""
    return _coroutines.times(r.counted.coroutines for r in readings)


def collect_coroutines(
    top_coroutines: TopCoroutines, found: Mapping[str, CoroutineTime]
) -> dict[tuple[str, ...], Value]:
    """Return the coroutines' seconds as metric values: the busiest by name, the rest together."""
    return dict(top_coroutines.seconds(found))


# ---- the running task's own times ------------------------------------------------------------------------------------


class TaskTimes(NamedTuple):
    """Where a task's time went, in seconds. The times add up to its age."""

    running: float
    """In its steps, including the present one."""
    waiting: float
    """Ready to run, while the loop was busy with other callbacks."""
    suspended: float
    """Neither: it waited for something else, such as an answer, a timer or a lock."""
    steps: int
    """How often it was resumed, including the present step."""


def task_times() -> TaskTimes:
    """Return where the time of the running task has gone so far.

    In the compiled core, a task's times begin with the task; in the pure core, with the step in which they are first
    asked for. Raises ``RuntimeError`` outside of a task, and in a task whose loop is not observed.
    """
    loop, task = _running_task("task_times()")
    start_ns, ready_ns, now_ns = _present_step(loop, task)
    since_ns, run_ns, wait_ns, steps = loop._obsloop.tasks.times_of(task, start_ns, ready_ns)
    run_ns += now_ns - start_ns
    wait_ns += max(0, start_ns - ready_ns)
    return _times(run_ns, wait_ns, now_ns - since_ns - run_ns - wait_ns, steps + 1)


class measure_tasks:
    """Measure where the time of the running task and its inner tasks goes. A context manager.

    Inner tasks are those that it creates in the ``with`` block, those that they create, and so on. What they do after
    the end of the block is not counted. Raises ``RuntimeError`` outside of a task, and in a task whose loop is not
    observed.
    """

    def __init__(self) -> None:
        self._times: TaskTimes | None = None

    def __enter__(self) -> measure_tasks:
        self._loop, self._task = _running_task("measure_tasks()")
        task_table = self._loop._obsloop.tasks
        start_ns, ready_ns, now_ns = _present_step(self._loop, self._task)
        _, run_ns, wait_ns, _ = task_table.times_of(self._task, start_ns, ready_ns)
        self._began_ns = now_ns
        # The present step is counted as a whole when it ends. So note the part of it before this.
        self._before_ns = now_ns - start_ns, max(0, start_ns - ready_ns)
        self._own_ns = run_ns + wait_ns + sum(self._before_ns)
        self._group = task_table.enter(self._task, start_ns, ready_ns)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._times = self._so_far()
        self._loop._obsloop.tasks.leave(self._task, self._group)
        del self._loop, self._task, self._group

    def times(self) -> TaskTimes:
        """Return where the time went, until now or the end of the block.

        ``running`` and ``waiting`` are sums over the task and its inner tasks, and may exceed the time that has passed.
        ``suspended`` is the task's own.
        """
        return self._times or self._so_far()

    def _so_far(self) -> TaskTimes:
        measurement, task_table = self._group, self._loop._obsloop.tasks
        # The present step may be an inner task's. It is not counted before its end.
        present = asyncio.current_task(self._loop)
        start_ns, ready_ns, now_ns = _present_step(self._loop, present)
        run_ns, wait_ns = now_ns - start_ns, max(0, start_ns - ready_ns)
        inner: Any = task_table.measurement_of(present)
        while inner is not None and inner is not measurement:
            inner = inner.outer
        if inner is None:
            run_ns = wait_ns = 0
        _, own_run_ns, own_wait_ns, _ = task_table.times_of(self._task, now_ns, now_ns)
        own_ns = own_run_ns + own_wait_ns - self._own_ns
        if present is self._task:
            own_ns += run_ns + wait_ns
        before_run_ns, before_wait_ns = self._before_ns
        return _times(
            measurement.run_ns + run_ns - before_run_ns,
            measurement.wait_ns + wait_ns - before_wait_ns,
            now_ns - self._began_ns - own_ns,
            measurement.steps + 1,
        )


def _times(run_ns: int, wait_ns: int, suspended_ns: int, steps: int) -> TaskTimes:
    return TaskTimes(max(0, run_ns) / 1e9, max(0, wait_ns) / 1e9, max(0, suspended_ns) / 1e9, steps)


def _running_task(who: str) -> tuple[Any, Any]:
    loop: Any = asyncio._get_running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    if task is None:
        raise RuntimeError(f"{who} was called outside of a task: call it in a coroutine that a task runs")
    obs = getattr(loop, "_obsloop", None)
    if obs is None or obs.tasks is None:
        raise RuntimeError(
            f"{who}: the running loop does not keep its tasks' times; start the program with"
            " loop_factory=obsloop.new_event_loop, or under `obsloop run`"
        )
    return loop, task


def _present_step(loop: Any, task: Any) -> tuple[int, int, int]:
    """Return when the present step of ``task`` began, when it was ready, and now; if unknown, now three times."""
    now_ns = clock.monotonic_ns()
    if loop._obsloop.counters is None:
        return now_ns, now_ns, now_ns
    step = loop._obsloop.tasks.present_step(loop, task, backend.own_handle(loop, sys._getframe()))
    return (now_ns, now_ns, now_ns) if step is None else (*step, now_ns)

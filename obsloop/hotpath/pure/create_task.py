"""``loop.create_task`` of the pure core: the usual way, and the ways of a task factory, debug mode or an eager task."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.asyncio_private import private_base_events, private_tasks
from obsloop.hotpath import creation_samples, marks
from obsloop.hotpath.creation_samples import MASK
from obsloop.introspect.coroutines import is_task
from obsloop.metrics import coroutine_times
from obsloop.metrics.counters import FIRST_STEP, OTHER, TASK_STEP

if TYPE_CHECKING:
    from obsloop.introspect.coroutines import is_task
from obsloop.hotpath.pure.task_steps import _count_for, add, ended
from obsloop.hotpath.pure.task_table import ABANDONED, Measurement, TaskTable, Times
from obsloop.metrics.counters import Counters

_STOCK: Any = private_base_events.BaseEventLoop.create_task


def _create_otherwise(self: Any, coro: Any, **kwargs: Any) -> Any:
    """Create a task with the program's factory, in debug mode, or eagerly: then its first step is already over."""
    obs = self._obsloop
    task_table: TaskTable = obs.tasks
    counters = obs.counters
    before_ns, eager_ns, eager_measurement = clock.monotonic_ns(), task_table.eager_ns, task_table.eager_measurement
    task_table.eager_measurement = _measurement_of_creator(self, task_table)
    inner_ns = 0 if counters is None else task_table.inner(counters)
    task_table.inner_ns, task_table.inner_at_ns, task_table.eager_ns = (
        0,
        0 if counters is None else counters.tick_ns,
        before_ns,
    )
    try:
        task = _STOCK(self, coro, **kwargs)
    finally:
        task_table.eager_ns, task_table.eager_measurement = eager_ns, eager_measurement
        # The time is the creator's until `_settle` knows that the new task ran a step of its own.
        task_table.inner_ns, inner_ns = inner_ns, 0 if counters is None else task_table.inner(counters)
    if self._task_factory is None and task._source_traceback:
        del task._source_traceback[-2:]  # the stock method removes its own frame; these two are obsloop's
    if is_task(task):
        if task_table.created.pop(id(task), None) is not None and counters is not None:
            counters.finished(ABANDONED, None)  # a dead task had the same address
        times = task_table._timed.get(id(task))
        if times is not None and times.since_ns < before_ns:
            del task_table._timed[id(task)]
        if (task.done() or not _is_next(self, task)) and counters is not None:
            _settle(self, counters, task, coro, before_ns, clock.monotonic_ns() - before_ns, inner_ns)
        _created_now(self, task)
    return task


def _settle(self: Any, counters: Counters, task: Any, coro: Any, before_ns: int, spent_ns: int, inner_ns: int) -> None:
    """Count a task that began at once and may be done. ``inner_ns``: how much of that its own eager tasks took."""
    task_table: TaskTable = self._obsloop.tasks
    task_table.inner_ns += spent_ns
    number = coroutine_times.number_of(coro) if inspect.iscoroutine(coro) else coroutine_times.REST
    add(counters, number, spent_ns - inner_ns, 1)
    if task_table._timed:
        if id(task) not in task_table._timed:
            _join(self, task_table, task)
        times = task_table._timed.get(id(task))
        if times is not None:
            times.since_ns = before_ns
            _count_for(times, spent_ns - inner_ns, 0)
    counters.tasks_created += 1
    if task.done():
        ended(self, counters, task, None, clock.monotonic_ns(), before_ns)
    else:
        task_table.created[id(task)] = before_ns


def _is_next(self: Any, task: Any) -> bool:
    """Return whether the handle scheduled last is the task's first step, and mark it so."""
    try:
        handle = self._ready[-1]
        if (marks.marks(handle) or (OTHER,))[0] > TASK_STEP or handle._callback.__self__ is not task:
            return False
        handle._kind = FIRST_STEP
    except (AttributeError, IndexError):
        return False
    return True


def _created_now(self: Any, task: Any) -> Any:
    task_table: TaskTable = self._obsloop.tasks
    task_table.n += 1
    if not task_table.n & MASK:
        creation_samples.sample(self, task)
    if task_table._timed:
        _join(self, task_table, task)
    return task


def _join(self: Any, task_table: TaskTable, task: Any) -> None:
    """Put a task into the measurement of its creator, unless it has begun one of its own by now."""
    if id(task) in task_table._timed:
        return
    measurement = _measurement_of_creator(self, task_table)
    if measurement is not None:
        task_table._timed[id(task)] = Times(clock.monotonic_ns(), measurement)


def _measurement_of_creator(self: Any, task_table: TaskTable) -> Measurement | None:
    """Return the running task's measurement; for an eager task that is not known yet, that of its own creator."""
    creator = task_table._timed.get(id(asyncio.current_task(self))) if task_table._timed else None
    return task_table.eager_measurement if creator is None else creator.measurement


def _create_task_by_name(self: Any, coro: Any, *, name: Any = None, context: Any = None) -> Any:
    """Schedule a coroutine object; return a task object."""
    if self._task_factory is not None or self._debug or self._closed:
        return _create_otherwise(self, coro, name=name, context=context)
    # Looked up each time, as asyncio does: a program may have put another class in its place.
    task = private_tasks.Task(coro, loop=self, name=name, context=context)
    # The same as `_is_next` and `_created_now`, inline. Nothing else can have been scheduled since.
    try:
        handle = self._ready[-1]
        if handle._kind == TASK_STEP:
            handle._kind = FIRST_STEP
    except (AttributeError, IndexError):  # other code schedules it
        pass
    task_table = self._obsloop.tasks
    if id(task) in task_table.created:  # it has not begun: a dead task had the same address
        task_table.destroyed(task, self._obsloop.counters)
    task_table.n = n = task_table.n + 1
    if not n & MASK:
        creation_samples.sample(self, task)
    if task_table._timed:
        task_table._timed.pop(id(task), None)
        _join(self, task_table, task)
    return task


def _create_task_by_keywords(self: Any, coro: Any, **kwargs: Any) -> Any:
    """Schedule or begin executing a coroutine object; return a task object."""
    if self._task_factory is not None or self._debug or self._closed or "eager_start" in kwargs:
        return _create_otherwise(self, coro, **kwargs)
    task = private_tasks.Task(coro, loop=self, **kwargs)
    try:
        handle = self._ready[-1]
        if handle._kind == TASK_STEP:
            handle._kind = FIRST_STEP
    except (AttributeError, IndexError):
        pass
    task_table = self._obsloop.tasks
    if id(task) in task_table.created:  # it has not begun: a dead task had the same address
        task_table.destroyed(task, self._obsloop.counters)
    task_table.n = n = task_table.n + 1
    if not n & MASK:
        creation_samples.sample(self, task)
    if task_table._timed:
        task_table._timed.pop(id(task), None)
        _join(self, task_table, task)
    return task


# Since 3.14 create_task takes any keyword that the task takes. Keep the signature that this interpreter has.
create_task: Any = (
    _create_task_by_keywords if "kwargs" in inspect.signature(_STOCK).parameters else _create_task_by_name
)
create_task.__name__ = "create_task"
create_task.__qualname__ = "create_task"

"""The hot path of tasks in pure Python: who was created, who ended and how, and what their steps took.

Nothing keeps a task alive: a tally knows tasks by ``id`` and forgets them when they are done, are destroyed while
pending or are left behind by a loop that is closed. Where asyncio does not report that a task is destroyed, a new task
at its address shows it, or a roll call (``probes.tasks``) does. What all tasks have is the moment of creation.
Per-task times are kept for tasks that asked (``task_times``) and for those of a ``Group``; per-coroutine times are
sampled. The compiled twin (``task_table.pxi``) keeps both of all tasks, exactly.
"""

from __future__ import annotations

import asyncio
import inspect
from random import Random
from threading import get_ident
from time import sleep
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.asyncio_private import private_base_events, private_tasks
from obsloop.hotpath import creation_samples, marks
from obsloop.hotpath.creation_samples import MASK
from obsloop.introspect.coroutines import is_task
from obsloop.metrics import coroutine_times
from obsloop.metrics.counters import FIRST_STEP, IN_CALLBACK, OTHER, TASK_STEP

if TYPE_CHECKING:
    from obsloop.introspect.coroutines import is_task
from obsloop.metrics.counters import Cells

OK, _ERROR, CANCELLED, _ABANDONED = range(4)  # of _cells.FINISHES
_STOCK: Any = private_base_events.BaseEventLoop.create_task

SAMPLED = 16
"""One step in so many stands for all of them, on average: the gaps are random, since programs go round and round."""
_GAPS = 2 * SAMPLED - 1
_PATIENCE = 20
_BREATH_SECONDS = 50e-6
_random = Random(0).random  # noqa: S311 - for gaps, not for secrets


class Group:
    """What the steps of some tasks took together: those of the task that began it and of all that came of it since."""

    __slots__ = ("outer", "run_ns", "steps", "wait_ns")

    def __init__(self, outer: Group | None) -> None:
        self.outer = outer
        self.run_ns = self.wait_ns = self.steps = 0


class _Times:
    """The same of one task."""

    __slots__ = ("group", "run_ns", "since_ns", "steps", "wait_ns")

    def __init__(self, since_ns: int, group: Group | None) -> None:
        self.since_ns = since_ns
        self.group = group
        self.run_ns = self.wait_ns = self.steps = 0


class Tally:
    """The tasks of one loop; written in its thread. See ``probes.tasks`` for what is made of it."""

    __slots__ = ("_missing", "_timed", "created", "eager_group", "eager_ns", "inner_at_ns", "inner_ns", "n")

    def __init__(self) -> None:
        self.created: dict[int, int] = {}
        """When each live task was created, by ``id``: of those that have begun, the first to begin first."""
        self._timed: dict[int, _Times] = {}
        self.n = 0
        """How many went through ``create_task``."""
        self.eager_ns = 0
        """Since when a task is being made that may run at once; 0 where none is."""
        self.eager_group: Group | None = None
        """And in which group."""
        self.inner_ns = self.inner_at_ns = 0
        """What such tasks took of the step that began then."""
        self._missing: tuple[dict[int, int], dict[int, _Times]] = {}, {}
        """Those that have not answered the roll call yet."""

    def live(self) -> int:
        """How many tasks there are that are not done."""
        return len(self.created)

    def oldest_ns(self) -> int:
        """When the oldest of them was created; 0 when there is none."""
        return min(list(self.created.values()), default=0)

    def destroyed(self, task: Any, cells: Cells | None) -> None:
        """A task has died before it was done."""
        self._timed.pop(id(task), None)
        if self.created.pop(id(task), None) is not None and cells is not None:
            cells.finished(_ABANDONED, None)

    def begin_roll_call(self) -> None:
        """From any thread: ``answer`` with the ids of all pending tasks, then ``end_roll_call``."""
        self._missing = self.created.copy(), self._timed.copy()

    def answer(self, ids: list[int]) -> None:
        """These are pending."""
        created, timed = self._missing
        for key in ids:
            created.pop(key, None)
            timed.pop(key, None)

    def end_roll_call(self, loop: Any, cells: Cells) -> None:
        """Those that did not answer have died, or an exception from a signal handler kept them from being counted."""
        created, timed = self._missing
        self._missing = {}, {}
        tick_ns = cells.tick_ns
        # The task whose step runs is done before its step is over: it calls `call_soon` for those that wait for it.
        # The next line is C alone, so that no reference to the task is left in this thread.
        (current,) = map(id, map(asyncio.current_task, (loop,)))
        created.pop(current, None)
        timed.pop(current, None)
        if created and loop._thread_id != get_ident() and current == id(None):
            # A task is done a little before it is counted. If its step may be at that point, let it go on.
            for _ in range(_PATIENCE):
                if cells.tick_ns != tick_ns or cells.state != IN_CALLBACK:
                    break
                sleep(_BREATH_SECONDS)
            else:
                return  # a long callback: the next roll call will tell
        n = 0
        for key, created_ns in created.items():
            try:
                # The loop's thread cannot come between comparison and removal: nothing is called there.
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
        cells.tasks_finished[_ABANDONED] += n

    def close(self, cells: Cells | None) -> None:
        """The loop is closed: who is left will not end any more."""
        if cells is not None:
            for _ in self.created:
                cells.finished(_ABANDONED, None)
        self.created.clear()
        self._timed.clear()

    def times_of(self, task: Any, start_ns: int, ready_ns: int) -> tuple[int, int, int, int]:
        """Since when there are times of the running ``task``, and what its earlier steps ran, waited, and numbered.

        Its present step began at ``start_ns`` and was ready at ``ready_ns``: the times begin there at the latest.
        """
        times = self._times(task, min(start_ns, ready_ns))
        return times.since_ns, times.run_ns, times.wait_ns, times.steps

    def enter(self, task: Any, start_ns: int, ready_ns: int) -> Group:
        """From now on the running ``task`` is in a group of its own, within the one that it was in."""
        times = self._times(task, min(start_ns, ready_ns))
        times.group = group = Group(times.group)
        return group

    def leave(self, task: Any, group: Group) -> None:
        """And from now on in the one before, again."""
        times = self._timed.get(id(task))
        if times is not None and times.group is group:
            times.group = group.outer

    def present_step(self, loop: Any, task: Any, handle: Any) -> tuple[int, int] | None:
        """When the present step of ``task`` began, and was ready; both later by what eager tasks took of it since.

        ``handle`` is the one that ``loop`` runs now.

        Of an eager task's first step, twice when it began. None where it is known of no step that it is of ``task``.
        """
        cells = loop._obsloop.cells
        inner_ns = self.inner(cells)
        kind, ready_ns = marks.marks(handle) or (OTHER, 0)
        if kind <= TASK_STEP and getattr(handle._callback, "__self__", None) is task:
            return cells.tick_ns + inner_ns, ready_ns + inner_ns
        if not self.eager_ns:
            return None
        times = self._timed.get(id(task))
        if times is not None and times.since_ns < self.eager_ns:  # a dead task's, whose address it has
            del self._timed[id(task)]
        began_ns = self.eager_ns + inner_ns
        return began_ns, began_ns

    def group_of(self, task: Any) -> Group | None:
        """The group that ``task`` is in."""
        times = self._timed.get(id(task))
        return None if times is None else times.group

    def inner(self, cells: Cells) -> int:
        """How much of the present step was eager tasks' first steps."""
        return self.inner_ns if self.inner_at_ns == cells.tick_ns else 0

    def _times(self, task: Any, since_ns: int) -> _Times:
        times = self._timed.get(id(task))
        if times is None:
            times = self._timed[id(task)] = _Times(since_ns, self.eager_group)
        return times


def _create_otherwise(self: Any, coro: Any, **kwargs: Any) -> Any:
    """By the program's factory, in debug mode, or eagerly: then its first step is over when there is a task."""
    obs = self._obsloop
    tally: Tally = obs.tasks
    cells = obs.cells
    before_ns, eager_ns, eager_group = clock.monotonic_ns(), tally.eager_ns, tally.eager_group
    tally.eager_group = _group_of_creator(self, tally)
    inner_ns = 0 if cells is None else tally.inner(cells)
    tally.inner_ns, tally.inner_at_ns, tally.eager_ns = 0, 0 if cells is None else cells.tick_ns, before_ns
    try:
        task = _STOCK(self, coro, **kwargs)
    finally:
        tally.eager_ns, tally.eager_group = eager_ns, eager_group
        # As far as it is known that it was its own step; until then it is its creator's.
        tally.inner_ns, inner_ns = inner_ns, 0 if cells is None else tally.inner(cells)
    if self._task_factory is None and task._source_traceback:
        del task._source_traceback[-2:]  # the stock method takes its own frame away; these are ours
    if is_task(task):
        if tally.created.pop(id(task), None) is not None and cells is not None:
            cells.finished(_ABANDONED, None)  # a dead task, at whose address it is
        times = tally._timed.get(id(task))
        if times is not None and times.since_ns < before_ns:
            del tally._timed[id(task)]
        if (task.done() or not _is_next(self, task)) and cells is not None:
            _settle(self, cells, task, coro, before_ns, clock.monotonic_ns() - before_ns, inner_ns)
        _created_now(self, task)
    return task


def _settle(self: Any, cells: Cells, task: Any, coro: Any, before_ns: int, spent_ns: int, inner_ns: int) -> None:
    """A task has begun at once, and maybe is done. ``inner_ns``: what eager tasks of its own took of that."""
    tally: Tally = self._obsloop.tasks
    tally.inner_ns += spent_ns
    number = coroutine_times.number_of(coro) if inspect.iscoroutine(coro) else coroutine_times.REST
    _add(cells, number, spent_ns - inner_ns, 1)
    if tally._timed:
        if id(task) not in tally._timed:
            _join(self, tally, task)
        times = tally._timed.get(id(task))
        if times is not None:
            times.since_ns = before_ns
            _count_for(times, spent_ns - inner_ns, 0)
    cells.tasks_created += 1
    if task.done():
        ended(self, cells, task, None, clock.monotonic_ns(), before_ns)
    else:
        tally.created[id(task)] = before_ns


def _is_next(self: Any, task: Any) -> bool:
    """Whether what has just been scheduled is its first step; then it is marked so."""
    try:
        handle = self._ready[-1]
        if (marks.marks(handle) or (OTHER,))[0] > TASK_STEP or handle._callback.__self__ is not task:
            return False
        handle._kind = FIRST_STEP
    except (AttributeError, IndexError):
        return False
    return True


def _created_now(self: Any, task: Any) -> Any:
    tally: Tally = self._obsloop.tasks
    tally.n += 1
    if not tally.n & MASK:
        creation_samples.sample(self, task)
    if tally._timed:
        _join(self, tally, task)
    return task


def _join(self: Any, tally: Tally, task: Any) -> None:
    """A task belongs to the group of the one that creates it, unless it has begun one of its own by now."""
    if id(task) in tally._timed:
        return
    group = _group_of_creator(self, tally)
    if group is not None:
        tally._timed[id(task)] = _Times(clock.monotonic_ns(), group)


def _group_of_creator(self: Any, tally: Tally) -> Group | None:
    """The group of the task that runs; of one that runs at once and is not known yet, that of its own creator."""
    creator = tally._timed.get(id(asyncio.current_task(self))) if tally._timed else None
    return tally.eager_group if creator is None else creator.group


def _create_task_by_name(self: Any, coro: Any, *, name: Any = None, context: Any = None) -> Any:
    """Schedule a coroutine object; return a task object."""
    if self._task_factory is not None or self._debug or self._closed:
        return _create_otherwise(self, coro, name=name, context=context)
    # Looked up each time, as asyncio does: a program may have put another class in its place.
    task = private_tasks.Task(coro, loop=self, name=name, context=context)
    # What `_is_next` and `_created_now` do. Nothing else can have been scheduled since.
    try:
        handle = self._ready[-1]
        if handle._kind == TASK_STEP:
            handle._kind = FIRST_STEP
    except (AttributeError, IndexError):  # somebody else schedules it
        pass
    tally = self._obsloop.tasks
    if id(task) in tally.created:  # it has not begun: that is a dead task, at whose address it is
        tally.destroyed(task, self._obsloop.cells)
    tally.n = n = tally.n + 1
    if not n & MASK:
        creation_samples.sample(self, task)
    if tally._timed:
        tally._timed.pop(id(task), None)
        _join(self, tally, task)
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
    tally = self._obsloop.tasks
    if id(task) in tally.created:  # it has not begun: that is a dead task, at whose address it is
        tally.destroyed(task, self._obsloop.cells)
    tally.n = n = tally.n + 1
    if not n & MASK:
        creation_samples.sample(self, task)
    if tally._timed:
        tally._timed.pop(id(task), None)
        _join(self, tally, task)
    return task


# Since 3.14 it takes whatever keywords the task takes; the signature is kept as this interpreter has it.
create_task: Any = (
    _create_task_by_keywords if "kwargs" in inspect.signature(_STOCK).parameters else _create_task_by_name
)
create_task.__name__ = "create_task"
create_task.__qualname__ = "create_task"


def ended(self: Any, cells: Cells, task: Any, context: Any, end_ns: int, created_ns: int) -> None:
    """``task`` is done now; ``created_ns`` is 0 where nobody knows. The usual is inline in ``run_once``."""
    tally: Tally = self._obsloop.tasks
    if not created_ns:  # made by hand, or before the loop was observed
        cells.tasks_created += 1
    times = tally._timed.pop(id(task), None) if tally._timed else None
    outcome = CANCELLED if task.cancelled() else OK if task._exception is None else _ERROR
    duration_ns = max(0, end_ns - created_ns) if created_ns else None
    cells.finished(outcome, duration_ns)
    if outcome == _ERROR or (duration_ns is not None and duration_ns >= cells.slow_task_ns):
        run_ns, wait_ns, steps = (-1, -1, 0) if times is None else (times.run_ns, times.wait_ns, times.steps)
        self._obsloop.task_done(self, task, context, outcome, created_ns or end_ns, end_ns, run_ns, wait_ns, steps)


def step(tally: Tally, cells: Cells, task: Any, spent_ns: int, waited_ns: int) -> None:
    """One step of a task, where there are tasks whose times are kept."""
    times = tally._timed.get(id(task))
    if times is not None:
        _count_for(times, spent_ns - tally.inner(cells), max(0, waited_ns))


def _count_for(times: _Times, spent_ns: int, waited_ns: int) -> None:
    times.run_ns += spent_ns
    times.wait_ns += waited_ns
    times.steps += 1
    group = times.group
    while group is not None:
        group.run_ns += spent_ns
        group.wait_ns += waited_ns
        group.steps += 1
        group = group.outer


def sample(tally: Tally, cells: Cells, task: Any, spent_ns: int) -> int:
    """This step stands for the short ones since the last that did. Returns how many it is to the next one."""
    if spent_ns < cells.notable_ns:  # else it is counted by itself
        _add(cells, coroutine_times.number_of_task(task), spent_ns - tally.inner(cells), SAMPLED)
    return 1 + int(_random() * _GAPS)


def count_step(tally: Tally, cells: Cells, task: Any, spent_ns: int) -> None:
    """One step that took long, for its coroutine."""
    _add(cells, coroutine_times.number_of_task(task), spent_ns - tally.inner(cells), 1)


def _add(cells: Cells, number: int, spent_ns: int, weight: int) -> None:
    ns, steps = cells.coroutines.get(number, (0, 0))
    cells.coroutines[number] = (ns + weight * spent_ns, steps + weight)


METHODS: dict[str, Any] = {"create_task": create_task}
"""What a loop class takes from here."""

"""Tasks: what their figures are read from, how they end, and what the running one has had of its loop so far.

The counting itself is on the hot path: ``_tally`` and its compiled twin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from obsloop import _clock, _coroutines, _sites
from obsloop._cells import FINISHES, Reading
from obsloop._coroutines import Seats
from obsloop._events import TaskDone
from obsloop._instruments import emit, heard
from obsloop._partition import SECONDS
from obsloop._peek import class_of, is_a
from obsloop._private import private_tasks
from obsloop._snapshot import CoroutineTime, Histogram, Value
from obsloop.probes import errors
from obsloop.watch.episodes import epoch
from obsloop.watch.guarded import guarded

_TASKS = (asyncio.Task, private_tasks._PyTask)
_FIELDS = ("first_step_delays", "task_durations")


def is_task(thing: Any) -> bool:
    """Whether it is a task of asyncio's own making, or of a subclass: one whose steps are known when they are seen."""
    return is_a(thing, _TASKS)


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
    """A task has ended that took long or has failed. ``run_ns`` is below 0 where nobody knows. Never raises."""
    guarded(_tell, loop, task, context, outcome, created_ns, end_ns, run_ns, wait_ns, steps)


def _tell(loop: Any, task: Any, context: Any, outcome: int, created_ns: int, end_ns: int, *times: int) -> None:
    obs = loop._obsloop
    if not heard(obs.instruments, "on_task_done"):
        return
    run_ns, wait_ns, steps = times
    exception = task._exception
    if context is None:  # it began at once, and never was on the loop
        context = task.get_context()
    emit(
        obs.instruments,
        "on_task_done",
        TaskDone(
            loop_name=obs.ledger_of(loop).name,
            kind="task_step",
            **_sites.site_of_task(task).fields(),
            duration=max(0, end_ns - created_ns) / 1e9,
            schedule_delay=0.0,
            started_at=epoch(created_ns),
            outcome=FINISHES[outcome],
            error_type="" if exception is None else errors.type_name(class_of(exception)),
            running=None if run_ns < 0 else run_ns / 1e9,
            waiting=None if wait_ns < 0 else wait_ns / 1e9,
            steps=None if run_ns < 0 else steps,
            context=context,
        ),
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


def points(loops: Iterable[Any], readings: list[Reading]) -> dict[str, dict[tuple[str, ...], Value]]:
    """The tasks of these loops, and what was counted of those that ever were."""
    tallies = [loop._obsloop.tasks for loop in loops if loop._obsloop.tasks is not None]
    now_ns = _clock.monotonic_ns()
    oldest_ns = min((created_ns for tally in tallies if (created_ns := tally.oldest_ns())), default=now_ns)
    finished = [sum(column) for column in zip(*(r.tasks_finished for r in readings), strict=True)]
    delays, durations = (
        Histogram.from_block(SECONDS, [sum(column) for column in zip(*(getattr(r, f) for r in readings), strict=True)])
        for f in _FIELDS
    )
    return {
        "asyncio.task.created": {(): sum(r.tasks_created for r in readings)},
        "asyncio.task.finished": {(how,): n for how, n in zip(FINISHES, finished, strict=True)},
        "asyncio.task.active": {(): sum(tally.live() for tally in tallies)},
        "asyncio.task.oldest.age": {(): max(0, now_ns - oldest_ns) / 1e9},
        "asyncio.task.first_step.delay": {(): delays},
        "asyncio.task.duration": {(): durations},
    }


def coroutine_times(readings: Iterable[Reading]) -> dict[str, CoroutineTime]:
    """What each coroutine function took, longest first."""
    return _coroutines.times(r.coroutines for r in readings)


def coroutine_points(seats: Seats, found: Mapping[str, CoroutineTime]) -> dict[tuple[str, ...], Value]:
    """The same as figures: of the busiest by name, of the rest together."""
    return dict(seats.seconds(found))


# ---- the running task's own times ------------------------------------------------------------------------------------


class TaskTimes(NamedTuple):
    """Where a task's time went. Their sum is its age; all in seconds but ``steps``."""

    running: float
    """In its steps, the present one included."""
    waiting: float
    """Ready to run, but the loop was busy with others: what it waited for the loop."""
    suspended: float
    """Neither: it waited for something else, an answer, a timer, a lock."""
    steps: int
    """How often it was resumed, the present step included."""


def task_times() -> TaskTimes:
    """Where the time of the running task has gone so far.

    In the pure core a task's times begin with the step in which somebody asks for them first; in the compiled one with
    the task. Raises ``RuntimeError`` outside of a task, and in one whose loop is not observed.
    """
    loop, task = _running_task("task_times()")
    start_ns, ready_ns, now_ns = _present_step(loop, task)
    since_ns, run_ns, wait_ns, steps = loop._obsloop.tasks.times_of(task, start_ns, ready_ns)
    run_ns += now_ns - start_ns
    wait_ns += max(0, start_ns - ready_ns)
    return _times(run_ns, wait_ns, now_ns - since_ns - run_ns - wait_ns, steps + 1)


class measure_tasks:
    """A context manager: where the time of the running task goes while it is open, its inner tasks included.

    Inner tasks are those that it creates meanwhile, theirs, and so on. What they do after the end of the ``with`` block
    is not counted. Raises ``RuntimeError`` outside of a task, and in one whose loop is not observed.
    """

    def __init__(self) -> None:
        self._times: TaskTimes | None = None

    def __enter__(self) -> measure_tasks:
        self._loop, self._task = _running_task("measure_tasks()")
        tally = self._loop._obsloop.tasks
        start_ns, ready_ns, now_ns = _present_step(self._loop, self._task)
        _, run_ns, wait_ns, _ = tally.times_of(self._task, start_ns, ready_ns)
        self._began_ns = now_ns
        # The present step is counted when it ends, with the part before this.
        self._before_ns = now_ns - start_ns, max(0, start_ns - ready_ns)
        self._own_ns = run_ns + wait_ns + sum(self._before_ns)
        self._group = tally.enter(self._task, start_ns, ready_ns)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._times = self._so_far()
        self._loop._obsloop.tasks.leave(self._task, self._group)
        del self._loop, self._task, self._group

    def times(self) -> TaskTimes:
        """Where it went, until now or the end of the block.

        ``running`` and ``waiting`` are sums over the task and its inner tasks, and may be more than the time that has
        passed; ``suspended`` is the task's own.
        """
        return self._times or self._so_far()

    def _so_far(self) -> TaskTimes:
        group, tally = self._group, self._loop._obsloop.tasks
        start_ns, ready_ns, now_ns = _present_step(self._loop, self._task)
        run_ns, wait_ns = now_ns - start_ns, max(0, start_ns - ready_ns)
        _, own_run_ns, own_wait_ns, _ = tally.times_of(self._task, start_ns, ready_ns)
        own_ns = own_run_ns + own_wait_ns + run_ns + wait_ns - self._own_ns
        before_run_ns, before_wait_ns = self._before_ns
        return _times(
            group.run_ns + run_ns - before_run_ns,
            group.wait_ns + wait_ns - before_wait_ns,
            now_ns - self._began_ns - own_ns,
            group.steps + 1,
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
    """When the present step of ``task`` began, when it was ready, and now. Of an eager task's first step: now."""
    now_ns = _clock.monotonic_ns()
    cells = loop._obsloop.cells
    ready_ns = None if cells is None else loop._obsloop.tasks.present_step(loop, task)
    return (now_ns, now_ns, now_ns) if cells is None or ready_ns is None else (cells.tick_ns, ready_ns, now_ns)

"""Describe the tasks of one listing: where they are, since when, and for what they wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from obsloop.base.guarded import harmless
from obsloop.hotpath import creation_samples
from obsloop.introspect import attributes, coroutines, own_code
from obsloop.tasks import asking, chains, since, tracking
from obsloop.tasks.asking import TaskRef
from obsloop.tasks.awaits import Reader, Wait
from obsloop.tasks.graph import Node, Place, Waits, connect
from obsloop.tasks.since import Moment, Since
from obsloop.tasks.tracking import Cancellation

Loops = dict[int, tuple[asyncio.AbstractEventLoop, str | None]]
"""Loops and their names, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """One live task, without its arguments and locals."""

    loop_name: str | None
    name: str
    coroutine: str
    """The coroutine function, with its module."""
    state: str
    """``running`` now; ``ready`` to run; ``waiting`` for a future; ``unknown`` for tasks that are not asyncio's own."""
    cancelling: bool
    """Whether its cancellation was requested."""
    waits_for: str | None
    """The class of the future that it waits for; for a task also its name."""
    waiting_on: str | None
    """What it waits for at the end of its chain, in words."""
    waiting: float | None
    """Seconds for which it has waited for this at least; None if it does not wait."""
    waiting_resolution: float | None
    """By how many seconds it may have waited longer; None if unknown."""
    filename: str
    """Where it waits or is, in the innermost coroutine. Empty if there is no Python source."""
    lineno: int
    function: str
    place_filename: str
    """Where the program's own code waits: the innermost such frame. Without own code, the innermost frame that is not
    the standard library's. Empty if there is none."""
    place_lineno: int
    place_function: str
    place_own: bool
    """Whether it is the program's own code."""
    age: float
    """Seconds since it was first seen."""
    age_resolution: float | None
    """By how many seconds it may be older; None if unknown, for a task from before the first census."""
    created_at: Place | None
    """The line that created it: of every task with the setting ``track_tasks``, of one in 64 without it."""
    created_by: str | None
    """The name of the task that created it, if ``track_tasks`` is set and a task did."""
    cancelled: Cancellation | None
    """Who last asked for its cancellation, and where, if ``track_tasks`` is set."""


class Describer:
    """Describes the tasks of one listing, one after the other, and then how they wait for each other."""

    def __init__(self, loops: Loops, now_ns: int, taken_ns: int | None) -> None:
        self._loops = loops
        self._now_ns = now_ns
        self._taken_ns = taken_ns
        self._reader = Reader()
        self._created = creation_samples.places()
        self._found: list[tuple[TaskInfo, Node, TaskRef]] = []

    def add(self, ref: TaskRef, moment: Moment, waits: Since | None, *, known: bool) -> None:
        """Describe one task, unless it is done or gone by now. ``known``: whether a census has seen it."""
        task = ref()
        loop_id = asking.loop_id(ref)
        if task is None or loop_id is None:
            return
        loop, loop_name = self._loops[loop_id]
        now_ns = self._now_ns
        seen_ns, resolution_ns = moment
        state, waits_for = asking.state_of(task, loop)
        site = coroutines.site_of_task(task)
        # Do not call `get_coro` of asyncio's own tasks: in CPython 3.12.1 that crashes if an eager task ends meanwhile.
        own = attributes.is_a(task, coroutines.TASKS)
        places = coroutines.waiting_places(coroutines.coroutine_of(task) if own else task.get_coro())
        nowhere = "", 0, ""
        filename, lineno, function = places[-1] if places else nowhere
        rule = getattr(getattr(loop, "_obsloop", None), "own_code", own_code.DEFAULT)
        own_place = next((place for place in reversed(places) if rule.is_own(place[0])), None)
        others = (place for place in reversed(places) if not own_code.is_standard(place[0]))
        place = own_place or next(others, nowhere)
        wait = Wait()
        with harmless:
            wait = self._reader.read(task, state)
        waited: tuple[float, float | None] | None = None
        if state == "waiting":
            waited = since.waited(task, waits, now_ns)
            if waited is None:  # it began to wait after the last census
                least_ns = self._taken_ns if known else None
                waited = 0.0, resolution_ns and resolution_ns / 1e9 if least_ns is None else (now_ns - least_ns) / 1e9
        made = tracking.made(task)
        created = self._created.get(id(task)) if made is None else made.place
        info = TaskInfo(
            loop_name=loop_name,
            name=site.task_name or "",
            coroutine=site.name,
            state=state,
            cancelling=asking.ask(task, "cancelling") > 0,
            waits_for=waits_for,
            waiting_on=wait.text or None,
            waiting=None if waited is None else waited[0],
            waiting_resolution=None if waited is None else waited[1],
            filename=filename,
            lineno=lineno,
            function=function,
            place_filename=place[0],
            place_lineno=place[1],
            place_function=place[2],
            place_own=own_place is not None,
            age=max(0, now_ns - seen_ns) / 1e9,
            age_resolution=None if resolution_ns is None else max(0, resolution_ns) / 1e9,
            created_at=created,
            created_by=None if made is None else made.by,
            cancelled=tracking.cancelled(task),
        )
        at = place if place[0] else (filename, lineno, function)
        self._found.append((info, Node(id(task), wait, loop_name, at, None if waited is None else waited[0]), ref))

    def result(self) -> tuple[list[TaskInfo], Waits]:
        """Return the descriptions, the oldest task first, and who waits for whom."""
        # Tasks of the same census are in the order of the numbers in their default names.
        found = sorted(self._found, key=lambda each: (-each[0].age, len(each[0].name), each[0].name))
        waits = Waits(awaits=[() for _ in found])
        with harmless:
            nodes = [node for _info, node, _ref in found]
            still = (_still(ref, node.wait.future_id) for _info, node, ref in found)
            waits = connect(nodes, still, self._reader.left_out)
        return [info for info, _node, _ref in found], waits


def _still(ref: TaskRef, future_id: int) -> bool:
    """Return whether the task still waits for that future."""
    task: Any = ref()
    future = None if task is None else chains.waiter_of(task)
    return future is not None and id(future) == future_id and not asking.ask(future, "done")

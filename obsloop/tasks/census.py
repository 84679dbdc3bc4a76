"""The live tasks of every loop that runs in this process, and since when they have been seen.

Only other threads read them: the loop is not asked, not stopped, and pays nothing per task.

asyncio keeps no creation times. So another thread reads all tasks about once a second (a census) and notes which are
new: a task is as old as its first census, or older by at most the time since the census before. (From Python 3.14 on, a
census sees running loops only. A task may be older than that if it was made long before its loop ran, or before
``instrument()`` took over its loop while a service already existed.)

Tasks are held by weak references. Strong ones exist only while a single task is read: a task that dies meanwhile should
die in its own thread.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, compress, islice, repeat
from operator import call, not_
from time import thread_time_ns
from types import NoneType
from typing import Any

from obsloop.base import gc_pause
from obsloop.base.asyncio_private import C_TASK, private_tasks
from obsloop.base.clock import REAL as monotonic_ns
from obsloop.base.fork import reset_in_child
from obsloop.base.guarded import goes_on, harmless
from obsloop.introspect import attributes, coroutines, own_code
from obsloop.metrics import runs, self_metrics

MAX_SHOWN = 1_000
MAX_KNOWN = 10_000
"""How many tasks a census keeps."""
CENSUS_SECONDS = 1.0
CENSUS_SHARE = 1_000
"""The next census comes after this many times what the last one cost: 0.1 % of one core at most."""
MAX_WALKED = 100_000
"""How many tasks that no census has seen a listing reads. It only counts further ones."""
_CHUNK = 512
"""How many tasks are read in one step, which takes a tenth of a millisecond."""

_C_TASK: Any = C_TASK or ()  # without C, no class is a subclass of it
_deque: Any = deque
_c_done: Callable[[Any], bool] = getattr(_C_TASK, "done", bool)
_c_loop: Callable[[Any], Any] = getattr(_C_TASK, "get_loop", id)
_TaskRef = weakref.ref["asyncio.Task[Any]"]
_Moment = tuple[int, int | None]
"""When a task was first seen, and by how many nanoseconds it may be older; None if unknown."""
_Loops = dict[int, tuple[asyncio.AbstractEventLoop, str | None]]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The tasks of all running loops, the oldest known first."""

    tasks: list[TaskInfo] = field(default_factory=list[TaskInfo])
    not_shown: int = 0
    """How many more there are."""
    unseen: int = 0
    """How many of all these no census has seen: they are too new, or the census was full."""
    not_looked_at: int = 0
    """How many of ``unseen`` and ``not_shown`` were counted but not read, since there were too many. Some may be done,
    or belong to loops that do not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Census:
    """What the last census found. The next one replaces it as a whole."""

    first_seen: dict[_TaskRef, _Moment] = field(default_factory=dict[_TaskRef, _Moment])
    """The oldest first."""
    complete_ns: int | None = None
    """When the last census that could keep every task was taken: a task that is new since then is younger than that."""


_census = _Census()
_census_ns = 0


def begin() -> None:
    """Note the tasks that exist before any census, so that later ones are known to be new. Never raises.

    For the thread that is about to take censuses.
    """
    loop = asyncio._get_running_loop()
    _take([] if loop is None else [loop], first=True)


def take_census() -> float:
    """Note which tasks are new; return after how many seconds to do it again. For one thread. Never raises.

    Does nothing while no loop runs.
    """
    loops = [loop for loop, _name in _loops().values()]
    cost_ns = _take(loops, first=False) if loops else 0
    return max(CENSUS_SECONDS, CENSUS_SHARE * cost_ns / 1e9)


def census_time_ns() -> int:
    """Return the CPU time of all censuses of this process, in nanoseconds."""
    return _census_ns


self_metrics.read_time("tasks", census_time_ns)


def listing(limit: int = MAX_SHOWN) -> Listing:
    """Return at most ``limit`` live tasks of the running loops. Never raises. From any thread, but a loop's waits."""
    try:
        with gc_pause.held:
            return _listing(limit, _loops(), _census)
    except BaseException as error:  # out of memory, most likely: then there is nothing to show
        if goes_on(error):
            raise
        return Listing()


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _census, _census_ns  # noqa: PLW0603
    _census = _Census()
    _census_ns = 0


def _listing(limit: int, loops: _Loops, census: _Census) -> Listing:
    if not loops:
        return Listing()
    first_seen = census.first_seen
    chosen: list[_TaskRef] = []
    known = lasting = 0
    for chunk in _chunks(first_seen):  # the oldest first
        living, loop_ids = _living(chunk)
        lasting += len(living)
        found = list(compress(living, map(loops.__contains__, loop_ids)))
        known += len(found)
        chosen += found[: max(0, limit - len(chosen))]
    references = _references(loop for loop, _name in loops.values())
    walked = met = unseen = 0
    for chunk in _chunks(references):
        if walked - met >= MAX_WALKED:
            break
        fresh = [ref for ref in chunk if ref not in first_seen]
        walked += len(chunk)
        met += len(chunk) - len(fresh)
        living, loop_ids = _living(fresh)
        found = list(compress(living, map(loops.__contains__, loop_ids)))
        unseen += len(found)
        chosen += found[: max(0, limit - len(chosen))]
    # Tasks that the census knows may be anywhere among the references.
    not_looked_at = max(0, len(references) - walked - max(0, lasting - met))
    del references
    now_ns = monotonic_ns()
    new: _Moment = (now_ns, None if census.complete_ns is None else now_ns - census.complete_ns)
    tasks: list[TaskInfo] = []
    for ref in gc_pause.breathing(chosen):
        with harmless:  # a task of the program's own class that behaves differently
            info = _describe(ref, loops, now_ns, census.first_seen.get(ref, new))
            if info is not None:
                tasks.append(info)
    # Tasks of the same census are in the order of the numbers in their default names.
    tasks.sort(key=lambda info: (-info.age, len(info.name), info.name))
    return Listing(
        tasks=tasks,
        not_shown=known + unseen + not_looked_at - len(chosen),
        unseen=unseen + not_looked_at,
        not_looked_at=not_looked_at,
    )


def _take(loops: list[asyncio.AbstractEventLoop], *, first: bool) -> int:
    """Take a census and return its CPU time in nanoseconds."""
    global _census, _census_ns  # noqa: PLW0603 - one thread writes, and others read whole objects
    began_ns = thread_time_ns()
    with harmless, gc_pause.held:
        _census = _counted(_census, loops, first=first)
    cost_ns = thread_time_ns() - began_ns
    _census_ns += cost_ns
    return cost_ns


def _counted(census: _Census, loops: list[asyncio.AbstractEventLoop], *, first: bool) -> _Census:
    """Return the census after this one. Known tasks stay known, also while their loop pauses."""
    began_ns = monotonic_ns()  # a task made after this may be missing from the references
    references = _references(loops)
    now_ns = monotonic_ns()
    complete_ns = census.complete_ns
    fresh: _Moment = (now_ns, None if first or complete_ns is None else now_ns - complete_ns)
    first_seen: dict[_TaskRef, _Moment] = {}
    for chunk in _chunks(census.first_seen):
        for ref in _living(chunk)[0]:
            first_seen[ref] = census.first_seen[ref]
    complete = True
    for chunk in _chunks(references):
        new, _loop_ids = _living([ref for ref in chunk if ref not in first_seen])
        room = MAX_KNOWN - len(first_seen)
        first_seen.update(zip(new[:room], repeat(fresh), strict=False))
        if len(new) > room:
            complete = False
            break
    return _Census(first_seen=first_seen, complete_ns=began_ns if complete else complete_ns)


def _loops() -> _Loops:
    """Return the running loops, including those in whose callbacks other loops run."""
    found: _Loops = {}
    for innermost in list(runs.runs.values()):
        run: runs.Run | None = innermost
        while run is not None:
            loop = run.loop()
            if loop is not None:
                metrics = getattr(getattr(loop, "_obsloop", None), "metrics", None)
                found[id(loop)] = (loop, getattr(metrics, "name", None))
            run = run.outer
    return found


def _references(loops: Iterable[asyncio.AbstractEventLoop]) -> list[_TaskRef]:
    """Return every task of ``loops``; up to Python 3.13, of all loops, including tasks that are done.

    ``asyncio.all_tasks`` works from other threads only from 3.14 on. Before, it starts again, up to a thousand times,
    if the loop's thread makes or ends a task meanwhile. Copying the set below it is one step that nothing interrupts.
    """
    if sys.version_info >= (3, 14):
        found: list[_TaskRef] = []
        for loop in loops:
            with harmless:
                # In one step: the set of all tasks is gone before another thread runs, and no task dies with it.
                found.extend(map(weakref.ref, chain.from_iterable(map(asyncio.all_tasks, (loop,)))))
        return found
    if sys.version_info < (3, 12):
        return list(private_tasks._all_tasks.data)
    eager = list(private_tasks._eager_tasks)  # those in their first step, which the weak set gets afterwards
    scheduled: set[_TaskRef] = private_tasks._scheduled_tasks.data
    return [*(ref for ref in map(weakref.ref, eager) if ref not in scheduled), *list(scheduled)]


def _chunks(references: Iterable[_TaskRef]) -> Iterator[list[_TaskRef]]:
    """Yield the references in lists that are read in one step each, and let other threads run now and then."""
    rest = iter(references)
    return gc_pause.breathing(iter(lambda: list(islice(rest, _CHUNK)), []))


def _living(chunk: list[_TaskRef]) -> tuple[list[_TaskRef], list[int]]:
    """Return those references whose tasks are neither done nor gone, and the ``id`` of each task's loop."""
    tasks: list[Any] = []
    kinds: list[type[Any]] = []
    own: list[bool] = []
    pending: list[bool] = []
    loop_ids: list[int] = []
    # These calls run C functions only, and so does the loop over them. So no other thread runs until `tasks` is empty
    # again, and none can drop a task and leave the last reference here.
    steps: tuple[Any, ...] = (
        partial(tasks.extend, map(call, chunk)),
        partial(kinds.extend, map(attributes.class_of, tasks)),
        partial(own.extend, map(issubclass, kinds, repeat(_C_TASK))),
        partial(pending.extend, map(not_, map(_c_done, compress(tasks, own)))),
        partial(loop_ids.extend, map(id, map(_c_loop, compress(compress(tasks, own), pending)))),
        tasks.clear,
    )
    _deque(map(call, steps), 0)
    living = list(compress(compress(chunk, own), pending))
    for ref, kind, is_own in zip(chunk, kinds, own, strict=True):
        if not is_own and kind is not NoneType:  # a task in Python
            loop_id = _loop_id(ref)
            if loop_id is not None:
                living.append(ref)
                loop_ids.append(loop_id)
    return living, loop_ids


def _loop_id(ref: _TaskRef) -> int | None:
    """Return the id of the task's loop; None if the task is done or gone."""
    task = ref()
    try:
        return None if task is None or _ask(task, "done") else id(_ask(task, "get_loop"))
    except BaseException as error:
        if goes_on(error):
            raise
        return None


def _describe(ref: _TaskRef, loops: _Loops, now_ns: int, moment: _Moment) -> TaskInfo | None:
    """Describe the task; return None if it is done or gone by now."""
    task = ref()
    loop_id = _loop_id(ref)
    if task is None or loop_id is None:
        return None
    loop, loop_name = loops[loop_id]
    seen_ns, resolution_ns = moment
    state, waits_for = _state(task, loop)
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
    return TaskInfo(
        loop_name=loop_name,
        name=site.task_name or "",
        coroutine=site.name,
        state=state,
        cancelling=_ask(task, "cancelling") > 0,
        waits_for=waits_for,
        filename=filename,
        lineno=lineno,
        function=function,
        place_filename=place[0],
        place_lineno=place[1],
        place_function=place[2],
        place_own=own_place is not None,
        age=max(0, now_ns - seen_ns) / 1e9,
        age_resolution=None if resolution_ns is None else max(0, resolution_ns) / 1e9,
    )


def _state(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> tuple[str, str | None]:
    """Return its state and what it waits for. asyncio shows any thread the current task of any loop."""
    if asyncio.current_task(loop) is task:
        return "running", None
    if not attributes.is_a(task, coroutines.TASKS):
        return "unknown", None
    future = attributes.get(task, "_fut_waiter")
    if future is None:
        return "ready", None
    try:
        if _ask(future, "done"):
            return "ready", None
    except BaseException as error:  # a future of the program's own class; the task waits for it in any case
        if goes_on(error):
            raise
    kind = type(future).__name__
    of_whom = f" {coroutines.site_of_task(future).task_name}" if attributes.is_a(future, coroutines.TASKS) else ""
    return "waiting", kind + of_whom


def _ask(future: Any, method: str) -> Any:
    """Call asyncio's own method, not that of a program's subclass, which may not be made for this thread."""
    try:
        return getattr(asyncio.Task, method)(future)
    except TypeError:  # not asyncio's own kind of task or future
        return getattr(future, method)()

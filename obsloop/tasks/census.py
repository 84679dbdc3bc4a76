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
from obsloop.introspect import attributes
from obsloop.metrics import runs, self_metrics
from obsloop.tasks import asking
from obsloop.tasks.asking import TaskRef
from obsloop.tasks.describing import Describer, Loops, TaskInfo
from obsloop.tasks.graph import Waits
from obsloop.tasks.since import Moment, Since, note

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The tasks of all running loops, the oldest known first."""

    tasks: list[TaskInfo] = field(default_factory=list[TaskInfo])
    not_shown: int = 0
    """How many more there are."""
    unseen: int = 0
    """How many of all these no census has seen: they are too new, or the census was full."""
    waits: Waits = field(default_factory=Waits)
    """How these tasks wait for each other, by their place in ``tasks``."""
    not_looked_at: int = 0
    """How many of ``unseen`` and ``not_shown`` were counted but not read, since there were too many. Some may be done,
    or belong to loops that do not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Census:
    """What the last census found. The next one replaces it as a whole."""

    first_seen: dict[TaskRef, Moment] = field(default_factory=dict[TaskRef, Moment])
    """The oldest first."""
    waits: dict[TaskRef, Since] = field(default_factory=dict[TaskRef, Since])
    """Since when each has waited for its present future."""
    taken_ns: int | None = None
    """When the last census looked at what tasks wait for."""
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


def _listing(limit: int, loops: Loops, census: _Census) -> Listing:
    if not loops:
        return Listing()
    first_seen = census.first_seen
    chosen: list[TaskRef] = []
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
    new: Moment = (now_ns, None if census.complete_ns is None else now_ns - census.complete_ns)
    describer = Describer(loops, now_ns, census.taken_ns)
    for ref in gc_pause.breathing(chosen):
        with harmless:  # a task of the program's own class that behaves differently
            describer.add(ref, first_seen.get(ref, new), census.waits.get(ref), known=ref in first_seen)
    tasks, waits = describer.result()
    return Listing(
        tasks=tasks,
        waits=waits,
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
    fresh: Moment = (now_ns, None if first or complete_ns is None else now_ns - complete_ns)
    first_seen: dict[TaskRef, Moment] = {}
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
    waits: dict[TaskRef, Since] = {}
    taken_ns = monotonic_ns()
    before_ns = census.taken_ns
    for chunk in _chunks(first_seen):
        kept, changed, at_ns = note(chunk, census.waits, monotonic_ns)
        waits.update(kept)
        later: Moment = (at_ns, None if before_ns is None else at_ns - before_ns)
        for ref, future in changed:
            waits[ref] = future, later if ref in census.first_seen else (at_ns, first_seen[ref][1])
    return _Census(
        first_seen=first_seen, waits=waits, taken_ns=taken_ns, complete_ns=began_ns if complete else complete_ns
    )


def _loops() -> Loops:
    """Return the running loops, including those in whose callbacks other loops run."""
    found: Loops = {}
    for innermost in list(runs.runs.values()):
        run: runs.Run | None = innermost
        while run is not None:
            loop = run.loop()
            if loop is not None:
                metrics = getattr(getattr(loop, "_obsloop", None), "metrics", None)
                found[id(loop)] = (loop, getattr(metrics, "name", None))
            run = run.outer
    return found


def _references(loops: Iterable[asyncio.AbstractEventLoop]) -> list[TaskRef]:
    """Return every task of ``loops``; up to Python 3.13, of all loops, including tasks that are done.

    ``asyncio.all_tasks`` works from other threads only from 3.14 on. Before, it starts again, up to a thousand times,
    if the loop's thread makes or ends a task meanwhile. Copying the set below it is one step that nothing interrupts.
    """
    if sys.version_info >= (3, 14):
        found: list[TaskRef] = []
        for loop in loops:
            with harmless:
                # In one step: the set of all tasks is gone before another thread runs, and no task dies with it.
                found.extend(map(weakref.ref, chain.from_iterable(map(asyncio.all_tasks, (loop,)))))
        return found
    if sys.version_info < (3, 12):
        return list(private_tasks._all_tasks.data)
    eager = list(private_tasks._eager_tasks)  # those in their first step, which the weak set gets afterwards
    scheduled: set[TaskRef] = private_tasks._scheduled_tasks.data
    return [*(ref for ref in map(weakref.ref, eager) if ref not in scheduled), *list(scheduled)]


def _chunks(references: Iterable[TaskRef]) -> Iterator[list[TaskRef]]:
    """Yield the references in lists that are read in one step each, and let other threads run now and then."""
    rest = iter(references)
    return gc_pause.breathing(iter(lambda: list(islice(rest, _CHUNK)), []))


def _living(chunk: list[TaskRef]) -> tuple[list[TaskRef], list[int]]:
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
            loop_id = asking.loop_id(ref)
            if loop_id is not None:
                living.append(ref)
                loop_ids.append(loop_id)
    return living, loop_ids

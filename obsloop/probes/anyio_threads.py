"""anyio's threads: ``anyio.to_thread.run_sync``, in which Starlette and FastAPI run ``def`` routes.

anyio has a pool of threads of its own for each loop, and a limiter that lets at most 40 of them work at once. They are
shown as an executor named ``anyio``. Nothing of anyio is imported, called or replaced. Only if the program has loaded
it, its variables of this loop are read: the limiter, which knows how many tasks wait, and the set of threads.

anyio keeps no times. So each reading notes which task is the last one in the queue. The queue is served in order: while
a noted task waits, the first one has waited at least as long. So the wait is a lower bound; it lacks at most the time
between two readings. A wait for another limiter, which the program passes to ``run_sync``, is not seen.
"""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict, deque
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from obsloop.introspect.attributes import class_of, clean, find, get, is_a, join, text
from obsloop.introspect.frames import Frames, in_one_step, of_thread
from obsloop.introspect.functions import Site
from obsloop.probes.executor_pools import Load

if TYPE_CHECKING:
    from obsloop.introspect.own_code import OwnCode

NAME = "anyio"
MAX_MARKS = 128
"""When there are more, every second one is dropped: the longer the wait, the coarser it is."""
MAX_THREADS = 100
"""So many threads are asked for the function that they run."""
BUILT_IN = Site("(a built-in function)", "", 0)

_values: Any = vars(OrderedDict)["values"]
_reversed: Any = reversed
_next: Any = next
_ref: Any = weakref.ref
_ident: Any = attrgetter("_ident")


class Waits:
    """Since when tasks of one loop have waited for anyio's limiter."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: list[tuple[int, Any]] = []
        """When each was noted, and a weak reference to the event for which that task waits: anyio makes one per wait.
        Replaced as a whole, because several threads read."""

    def note(self, waiting: Any, now_ns: int) -> int:
        """Note the last task in the queue ``waiting``. Return since when the first one has waited, at the latest."""
        newest: list[Any] = []
        last: Any = map(_reversed, map(_values, (waiting,)))
        try:
            in_one_step(partial(newest.extend, map(_ref, map(_next, last))))
        except (RuntimeError, TypeError):  # the queue has changed, or is none that we know
            newest.clear()
        marks = [mark for mark in self._marks if _waits(mark[1])]
        if newest and not any(mark[1] is newest[0] for mark in marks):
            marks.append((now_ns, newest[0]))
        if len(marks) > MAX_MARKS:
            marks = marks[::2]
        self._marks = marks
        return min((at_ns for at_ns, _ in marks), default=now_ns)

    def forget(self) -> None:
        """Forget all waits: no task waits any more."""
        self._marks = []


def _waits(ref: Any) -> bool:
    """Return whether a task waits for this event of asyncio's."""
    event = ref()
    return event is not None and get(event, "_value") is False and bool(get(event, "_waiters"))


def load(loop: Any, now_ns: int) -> Load | None:
    """Return what anyio's threads of this loop are busy with; None if it has none. From any thread."""
    limiter = _of_loop(loop, "_default_thread_limiter")
    if limiter is None:
        return None
    waiting, borrowers, limit = (get(limiter, name) for name in ("_wait_queue", "_borrowers", "_total_tokens"))
    if not (is_a(waiting, OrderedDict) and is_a(borrowers, set)):
        return None  # an anyio that we do not know
    threads = _of_loop(loop, "_threadpool_workers")
    waits: Waits = loop._obsloop.anyio
    queued, since_ns = len(waiting), 0
    if queued:
        since_ns = waits.note(waiting, now_ns)
    else:
        waits.forget()
    return Load(
        NAME,
        queued,
        len(borrowers),
        len(threads) if is_a(threads, set) else 0,
        limit if type(limit) is int else None,
        since_ns,
        since_ns,
    )


def functions(loop: Any) -> list[Site]:
    """Return the function of each busy thread: the outermost one of the program's own code, as its stack shows it."""
    worker = get(sys.modules.get("anyio._backends._asyncio"), "WorkerThread")
    run = find(worker, "run") if is_a(worker, type) else None
    threads, idle = (_of_loop(loop, name) for name in ("_threadpool_workers", "_threadpool_idle_workers"))
    if run is None or not (is_a(threads, set) and is_a(idle, deque)):
        return []
    idents: list[Any] = []
    idles: list[Any] = []
    try:
        in_one_step(partial(idents.extend, map(_ident, threads)), partial(idles.extend, map(_ident, idle)))
    except (RuntimeError, AttributeError):
        return []
    busy = [ident for ident in idents if ident and ident not in set(idles)]
    code, rule = get(run, "__code__"), loop._obsloop.own_code
    sites = (_of_stack(of_thread(ident), code, rule) for ident in busy[:MAX_THREADS])
    return [site for site in sites if site is not None]


def _of_stack(frames: Frames, run: Any, rule: OwnCode) -> Site | None:
    """Return the function that the worker runs; None if the stack does not show it."""
    if run not in frames.codes:
        return None
    outermost = frames.codes.index(run) - 1
    if outermost < 0:
        return BUILT_IN
    modules = [text(module) for module in frames.modules]
    own = (i for i in range(outermost, -1, -1) if rule.is_own(frames.codes[i].co_filename, modules[i]))
    at = next(own, outermost)
    code = frames.codes[at]
    return Site(clean(join(modules[at], code.co_qualname)), code.co_filename, code.co_firstlineno)


def _of_loop(loop: Any, name: str) -> Any:
    """Return the value of anyio's run variable ``name`` of this loop; None without one, or without anyio."""
    of_loops = get(sys.modules.get("anyio.lowlevel"), "_run_vars")
    variable = get(sys.modules.get("anyio._backends._asyncio"), name)
    if variable is None or class_of(of_loops) is not weakref.WeakKeyDictionary:
        return None
    values: Any = of_loops.get(loop)
    if class_of(values) is not dict:
        return None
    found: Any = values.get(variable)
    return values.get(name) if found is None else found  # older versions of anyio have the name as key

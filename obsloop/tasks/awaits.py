"""What a waiting task waits for at the end of its chain, in plain words, and which other tasks that are.

A task waits for a future. If that is a task, a ``gather`` or a ``shield``, the future shows the other tasks. Otherwise
the innermost coroutine of asyncio's says what the future is for: a timer, a socket, a lock, ``asyncio.wait``. That
coroutine's locals are read only for the object that it waits for, never by name, and nothing of them is kept.

From Python 3.14 on asyncio itself notes for each task which tasks await it. That is read too.

``Reader`` reads the tasks of one listing, from another thread than the loop's. Between two tasks it keeps numbers and
texts only.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from types import CodeType, FunctionType, MethodType
from typing import Any, cast

from obsloop.base import clock
from obsloop.base.asyncio_private import C_FUTURE, C_TASK, private_tasks
from obsloop.introspect import attributes, callbacks, contexts, coroutines
from obsloop.introspect.attributes import class_of, get, is_a
from obsloop.tasks import asyncio_waits, chains

MAX_INNER = 10_000
"""So many other tasks that one task waits for are read; further ones are counted."""
MAX_EDGES = 50_000
"""In one listing."""
_MAX_NESTED = 5
_MAX_CALLBACKS = 16

_C_FUTURE: Any = C_FUTURE or ()
_c_done: Any = getattr(C_FUTURE, "done", None)
_awaited_by: Any = getattr(attributes.find(C_TASK, "_asyncio_awaited_by"), "__get__", None) if C_TASK else None
_GATHERING: Any = private_tasks._GatheringFuture
_SHIELD: Any = private_tasks.shield
_JOB = "obsloop.probes.executors.Job"


class Wait:
    """What one task waits for."""

    __slots__ = ("all_of", "awaiters", "counted", "future_id", "grouped", "held", "inner", "lock", "more", "text")

    def __init__(self) -> None:
        self.text = ""
        """In plain words; empty for a task that does not wait."""
        self.future_id = 0
        """The ``id`` of the future that it waits for."""
        self.inner: list[int] = []
        """The ``id`` of each task that it waits for."""
        self.grouped: list[int] = []
        """The ``id`` of each task of a ``TaskGroup`` in whose block it is. It waits for them at the end."""
        self.more = 0
        """How many more tasks that it waits for were not read."""
        self.all_of = True
        """Whether it waits for all of them, not for the first that ends."""
        self.counted = ""
        """How many of how many are done."""
        self.awaiters: list[int] = []
        """The ``id`` of each task that awaits this one, as asyncio has noted it."""
        self.lock: asyncio_waits.Waiting | None = None
        """The lock, queue or event that it waits for."""
        self.held: list[int] = []
        """The ``id`` of each lock and semaphore in whose ``async with`` block it is."""


class Reader:
    """Reads the tasks of one listing."""

    def __init__(self) -> None:
        self.edges = 0
        self.left_out = 0
        """How many awaited tasks were not read, since there were too many."""
        self._shared: dict[int, str] = {}  # what futures with many waiters are, by id

    def read(self, task: Any, state: str) -> Wait:
        """Return what ``task`` waits for. Raises for tasks of a class that asyncio does not know."""
        found = Wait()
        self._awaiters(task, found)
        if state in ("running", "unknown"):
            return found
        chain = chains.chain_of(chains.coroutine_of(task))
        frames: list[tuple[CodeType, list[Any]]] = []
        seen: set[int] = set()
        entered: list[Any] = []
        for coro in chain:
            code = chains.code_of(coro)
            if class_of(code) is CodeType and id(coro) not in seen:
                seen.add(id(coro))
                held = contexts.referents(coro)
                frames.append((code, held))
                entered += contexts.entered(coro, held, seen)
        frames.reverse()  # the innermost first
        ends_ns = self._blocks(entered, found)
        found.lock = asyncio_waits.lock_of(frames)
        if found.lock is not None and found.lock.lock_id in found.held:
            found.held.remove(found.lock.lock_id)  # it is about to enter that block
        future = chains.waiter_of(task)
        if state != "waiting" or future is None:
            return found
        found.future_id = id(future)
        found.text = self._text(future, frames, found)
        if ends_ns is not None:
            found.text += f", times out in {_seconds(ends_ns)}"
        return found

    def _text(self, future: Any, frames: list[tuple[CodeType, list[Any]]], found: Wait) -> str:
        """Say what the future is, and note the tasks behind it."""
        if self._inner(future, found, 0):
            return found.counted or self._named(future)
        if found.lock is not None:
            return found.lock.text
        known = self._by_frame(future, *frames[0], found) if frames else ""
        return known or self._behind(future)

    def _by_frame(self, future: Any, code: CodeType, held: list[Any], found: Wait) -> str:
        """Say what the innermost coroutine waits for; empty if it is none of asyncio's that this knows."""
        if code is asyncio_waits.WAIT:
            return self._wait(held, found)
        if code in asyncio_waits.FOR_ANOTHER:  # up to Python 3.11, through a future of its own
            for other in held:
                if other is not future and self._inner(other, found, 0):
                    return f"{self._named(other)}{_timer(held, ', times out in ')}"
        if code is asyncio_waits.GROUP_EXIT:
            group = asyncio_waits.held_of(held, asyncio_waits.GROUP)
            return f"TaskGroup: {self._group(group, found)} tasks not done"
        return asyncio_waits.text_of(code, held)

    def _inner(self, future: Any, found: Wait, depth: int) -> bool:
        """Note the tasks that ``future`` stands for; return whether it is a task, a ``gather`` or a ``shield``."""
        if coroutines.is_task(future):
            self._add(found, (id(future),))
            return True
        if class_of(future) is _GATHERING:
            # Its dictionary has no descriptor, as C made the base class. The class is asyncio's: no other code runs.
            children: Any = object.__getattribute__(future, "_children")
            if class_of(children) is not list:
                return False
            self._all_of(children, found, "gather", depth)
            return True
        if depth < _MAX_NESTED and is_a(future, (_C_FUTURE,) if C_FUTURE else ()):
            shielded = _shielded(get(future, "_callbacks"))
            return shielded is not None and self._inner(shielded, found, depth + 1)
        return False

    def _all_of(self, futures: Any, found: Wait, what: str, depth: int) -> None:
        some: list[Any] = list(islice(futures, MAX_INNER))
        found.more += len(futures) - len(some)
        total = len(futures)
        try:
            done: list[bool] = list(map(_c_done, some))
        except TypeError:  # some are not asyncio's own
            found.counted = found.counted or f"{what} of {total}"
        else:
            found.counted = found.counted or f"{what}: {sum(done)} of {total} done"
            some = [future for future, is_done in zip(some, done, strict=True) if not is_done]
        tasks = [id(future) for future in some if coroutines.is_task(future)]
        self._add(found, tasks)
        if len(tasks) < len(some) and depth < _MAX_NESTED:
            for future in some:
                if not coroutines.is_task(future):
                    self._inner(future, found, depth + 1)

    def _wait(self, held: list[Any], found: Wait) -> str:
        """Read ``asyncio.wait``, whose first local is the set of what it waits for."""
        futures = asyncio_waits.held_of(held, (set, frozenset, list, tuple))
        if futures is None:
            return "asyncio.wait"
        self._all_of(futures, found, "asyncio.wait", 0)
        found.all_of = "ALL_COMPLETED" in [text for text in held if class_of(text) is str] or len(futures) == 1
        return f"{found.counted}{'' if found.all_of else ', until the first ends'}{_timer(held, ', times out in ')}"

    def _group(self, group: Any, found: Wait) -> int:
        tasks: Any = get(group, "_tasks")
        if class_of(tasks) is not set:
            return 0
        n = len(tasks)
        self._add(found, list(map(id, islice(cast("set[Any]", tasks), MAX_INNER))))
        found.more += max(0, n - MAX_INNER)
        return n

    def _blocks(self, entered: list[Any], found: Wait) -> float | None:
        """Note the locks that the task holds and the tasks of its groups; return the time of its earliest time-out."""
        ends: list[float] = []
        for obj in entered:
            lock_id = asyncio_waits.held_lock(obj)
            if lock_id:
                found.held.append(lock_id)
            elif is_a(obj, asyncio_waits.GROUP):
                tasks: Any = get(obj, "_tasks")
                if class_of(tasks) is set:
                    found.grouped += map(id, islice(cast("set[Any]", tasks), MAX_INNER))
                    found.more += max(0, len(tasks) - MAX_INNER)
            elif is_a(obj, asyncio_waits.TIMEOUT):
                when = get(obj, "_when")
                if class_of(when) is float or class_of(when) is int:
                    ends.append(when)
        return min(ends, default=None)

    def _behind(self, future: Any) -> str:
        """Say what a future is that no coroutine of asyncio's waits for."""
        known = self._shared.get(id(future))
        if known is not None:
            return known
        kind = attributes.qualname_of(class_of(future))
        done: Any = get(future, "_callbacks")
        entries: list[Any] = cast("list[Any]", done) if class_of(done) is list else []
        jobs: list[str] = [_job(entry) for entry in entries[:_MAX_CALLBACKS]]
        text: str = next(filter(None, jobs), "")
        text = text or ("future" if kind == "Future" else f"future {kind}")
        if len(entries) > _MAX_CALLBACKS:
            self._shared[id(future)] = text
        return text

    def _named(self, task: Any) -> str:
        if coroutines.is_task(task):
            return f"task {coroutines.site_of_task(task).task_name}"
        shielded = _shielded(get(task, "_callbacks"))
        return f"shielded {self._named(shielded)}" if coroutines.is_task(shielded) else "shield"

    def _awaiters(self, task: Any, found: Wait) -> None:
        """Note the tasks that asyncio says await this one, also through a ``gather`` or other futures."""
        if _awaited_by is None or not is_a(task, C_TASK):
            return
        level: list[Any] = list(islice(_awaited_by(task) or (), MAX_INNER))
        for _ in range(_MAX_NESTED):
            above: list[Any] = []
            for one in level:
                if coroutines.is_task(one):
                    found.awaiters.append(id(one))
                else:
                    above += islice(get(one, "_asyncio_awaited_by") or (), MAX_INNER)
            if not above:
                return
            level = above

    def _add(self, found: Wait, ids: Iterable[int]) -> None:
        room = max(0, min(MAX_INNER - len(found.inner), MAX_EDGES - self.edges))
        added = list(ids)
        found.inner += added[:room]
        found.more += max(0, len(added) - room)
        self.left_out += max(0, len(added) - room)
        self.edges += min(room, len(added))


def _shielded(entries: Any) -> Any:
    """Return the future behind the outer one of ``asyncio.shield``; None if these are not its callbacks."""
    for entry in islice(entries if class_of(entries) is list else (), _MAX_CALLBACKS):
        function: Any = entry[0] if class_of(entry) is tuple and entry else None
        if class_of(function) is FunctionType and function.__code__ in asyncio_waits.SHIELDS:
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                if name == "inner":
                    return cell.cell_contents
    return None


def _job(entry: Any) -> str:
    """Say which executor's job sets the future with this callback; empty if none does."""
    function: Any = entry[0] if class_of(entry) is tuple and entry else None
    if class_of(function) is MethodType:
        job = function.__self__
        if attributes.class_name(class_of(job)) != _JOB:
            return ""
        inner = get(job, "__wrapped__")
        name = "" if inner is None else f" {callbacks.site_of_callback(inner).name}"
        began_ns = get(job, "began_ns")
        since = "runs" if began_ns else "is queued"
        return f"executor job{name}, which {since} for {_age(began_ns or get(job, 'submitted_ns'))}"
    if class_of(function) is FunctionType and function.__code__ in asyncio_waits.CHAINED:
        return "executor job or other thread"
    return ""


def _timer(held: list[Any], words: str) -> str:
    """Say when the timer among these referents ends; empty if there is none."""
    when = asyncio_waits.timer_of(held)
    return "" if when is None else f"{words}{_seconds(when)}"


def _seconds(when: float) -> str:
    return f"{max(0.0, when - clock.seconds()):.1f} s"


def _age(began_ns: Any) -> str:
    return f"{max(0, clock.REAL() - began_ns) / 1e9:.1f} s" if class_of(began_ns) is int else "an unknown time"

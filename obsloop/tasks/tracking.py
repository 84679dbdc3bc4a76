"""Who created each task, and who cancelled it: for loops whose settings ask for it with ``track_tasks``.

asyncio keeps neither. ``Task.cancel`` is a method of C that cannot be replaced, so such a loop makes tasks of a
subclass through a task factory. A program that sets a factory of its own replaces this one, and its tasks are not
tracked.

A task carries strings and numbers only, no frame and no other task.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import runners
from dataclasses import dataclass
from typing import Any, NamedTuple

from obsloop.base.clock import REAL as monotonic_ns
from obsloop.base.fork import reset_in_child
from obsloop.base.guarded import harmless
from obsloop.introspect import attributes, coroutines, frames
from obsloop.introspect.attributes import get
from obsloop.introspect.stacks import _LOOPS_OWN
from obsloop.metrics.self_metrics import dropped

MAX_KINDS = 200
"""So many kinds of cancellations are counted apart; further ones are counted in ``dropped``."""
_BETWEEN = ("asyncio.", "obsloop.")
_MADE, _CANCELLED = "_obsloop_made", "_obsloop_cancelled"

Place = tuple[str, int, str]
"""File, line and function."""


class Made(NamedTuple):
    """How a task was created."""

    place: Place
    """The innermost line that is neither asyncio's nor obsloop's. If the loop called asyncio's own code, that."""
    by: str | None
    """The name of the task that created it."""


class Cancellation(NamedTuple):
    """One request to cancel a task."""

    place: Place
    """As in ``Made``."""
    by: str | None
    """The name of the task that ran meanwhile; None if no task did, as for a time-out."""
    via: str | None
    """The function of asyncio that passed it on, such as ``Timeout._on_timeout``."""
    through: str | None
    """The name of the task that awaited this one and was cancelled itself."""
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationKind:
    """Cancellations of the tasks of one coroutine from one line, added up."""

    loop_name: str | None
    coroutine: str
    place: Place
    via: str | None
    count: int
    last_task: str
    last_by: str | None
    last_through: str | None
    last_ns: int


# The functions of the loop that call callbacks; `asyncio.Runner.run` is called by the program.
_CALLS = frozenset(entry for entry in _LOOPS_OWN if entry[0] != runners.__file__)
_Task: Any = asyncio.Task
_cancel: Any = _Task.cancel
_name_of: Any = _Task.get_name
_set_name: Any = _Task.set_name


class TrackedTask(_Task):  # type: ignore[misc]
    """A task that notes who created and who cancelled it."""

    __slots__ = (_CANCELLED, _MADE)

    def cancel(self, msg: Any = None) -> bool:
        """Request the task to cancel itself, as ``asyncio.Task.cancel`` does."""
        place, via, through = _walk(sys._getframe(1))
        asked: bool = _cancel(self, msg)
        if asked:
            with harmless:
                _note(self, Cancellation(place, _running(), via, through, monotonic_ns()))
        return asked

    cancel.__doc__ = _cancel.__doc__

    if sys.version_info[:2] == (3, 13):

        def set_name(self, value: object, /) -> None:
            """Set the task's name. The first 3.13 do so with None after each call of a factory, and lose ``Task-1``."""
            if value is not None:
                _set_name(self, value)


TrackedTask.__name__ = TrackedTask.__qualname__ = "Task"  # as the program's logs show it
_CANCEL: Any = TrackedTask.cancel.__code__


def track(loop: Any) -> None:
    """Let ``loop`` note of each new task who creates and who cancels it, unless the program has a task factory."""
    if loop.get_task_factory() is None:
        loop.set_task_factory(_create)


def made(task: Any) -> Made | None:
    """Return how ``task`` was created; None if it is not tracked."""
    return get(task, _MADE) if attributes.is_a(task, TrackedTask) else None


def cancelled(task: Any) -> Cancellation | None:
    """Return the last request to cancel ``task``; None if there was none, or it is not tracked."""
    return get(task, _CANCELLED) if attributes.is_a(task, TrackedTask) else None


def cancellations() -> list[CancellationKind]:
    """Return all cancellations of this process, by kind, the most recent first. From any thread."""
    with _state.lock:
        found = list(_state.kinds.items())
    kinds = [
        CancellationKind(
            loop_name=loop_name, coroutine=coroutine, place=place, via=via, count=count,
            last_task=name, last_by=last.by, last_through=last.through, last_ns=last.at_ns,
        )
        for (loop_name, coroutine, place, via), (count, name, last) in found
    ]  # fmt: skip
    return sorted(kinds, key=lambda kind: -kind.last_ns)


class _State:
    """All that a process keeps. A forked child gets a new one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kinds: dict[tuple[str | None, str, Place, str | None], tuple[int, str, Cancellation]] = {}


_state = _State()


def _create(loop: Any, coro: Any, **kwargs: Any) -> Any:
    """Create a tracked task. The loop's task factory."""
    task = TrackedTask(coro, loop=loop, **kwargs)
    place, _via, _through = _walk(sys._getframe(1))
    setattr(task, _MADE, Made(place, _running()))
    return task


def _running() -> str | None:
    """Return the name of the task that runs in this thread; None if none does."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return None
    return None if task is None else _name(task)


def _name(task: Any) -> str:
    """Return its name by asyncio's own method; that of a task of another kind as it says."""
    try:
        return str(_name_of(task))
    except TypeError:
        return coroutines.site_of_task(task).task_name or ""


def _walk(frame: Any) -> tuple[Place, str | None, str | None]:
    """Return the program's place, the function of asyncio that it or the loop called, and whose cancel this is."""
    last = frame
    via: str | None = None
    through: str | None = None
    for last, code, module in frames.callers(frame, _CALLS):
        if code is _CANCEL:
            through = through or _name_of(last.f_locals["self"])
        elif not module.startswith(_BETWEEN):
            break
        elif module.startswith("asyncio."):
            via = code.co_qualname
    code = last.f_code
    return (code.co_filename, last.f_lineno or 0, code.co_qualname), via, through


def _note(task: Any, cancellation: Cancellation) -> None:
    setattr(task, _CANCELLED, cancellation)
    site = coroutines.site_of_task(task)
    metrics = getattr(getattr(task.get_loop(), "_obsloop", None), "metrics", None)
    key = getattr(metrics, "name", None), site.name, cancellation.place, cancellation.via
    with _state.lock:
        kinds = _state.kinds
        known = kinds.get(key)
        if known is None and len(kinds) >= MAX_KINDS:
            dropped["task_cancellation"] += 1
            return
        kinds[key] = (known[0] if known else 0) + 1, site.task_name or "", cancellation


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _state  # noqa: PLW0603 - as a whole: the parent's lock may be held
    _state = _State()

"""Ask a task what state it is in, from another thread than its loop's."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from obsloop.base.guarded import goes_on
from obsloop.introspect import attributes, coroutines

TaskRef = weakref.ref["asyncio.Task[Any]"]


def ask(future: Any, method: str) -> Any:
    """Call asyncio's own method, not that of a program's subclass, which may not be made for this thread."""
    try:
        return getattr(asyncio.Task, method)(future)
    except TypeError:  # not asyncio's own kind of task or future
        return getattr(future, method)()


def loop_id(ref: TaskRef) -> int | None:
    """Return the id of the task's loop; None if the task is done or gone."""
    task = ref()
    try:
        return None if task is None or ask(task, "done") else id(ask(task, "get_loop"))
    except BaseException as error:
        if goes_on(error):
            raise
        return None


def state_of(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> tuple[str, str | None]:
    """Return its state and what it waits for. asyncio shows any thread the current task of any loop."""
    if asyncio.current_task(loop) is task:
        return "running", None
    if not attributes.is_a(task, coroutines.TASKS):
        return "unknown", None
    future = attributes.get(task, "_fut_waiter")
    if future is None:
        return "ready", None
    try:
        if ask(future, "done"):
            return "ready", None
    except BaseException as error:  # a future of the program's own class; the task waits for it in any case
        if goes_on(error):
            raise
    kind = type(future).__name__
    of_whom = f" {coroutines.site_of_task(future).task_name}" if attributes.is_a(future, coroutines.TASKS) else ""
    return "waiting", kind + of_whom

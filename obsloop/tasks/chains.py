"""From a task to the coroutines that await each other, and to the future at their end; read past any subclass."""

from __future__ import annotations

from types import CodeType, CoroutineType, GeneratorType
from typing import Any

from obsloop.base.asyncio_private import C_TASK
from obsloop.introspect import attributes, coroutines
from obsloop.tasks import asking

_DEEPEST = 100  # coroutines that await each other
_C_TASK: Any = C_TASK
# These read past anything that a subclass of the program's may define.
_c_waiter: Any = attributes.find(_C_TASK, "_fut_waiter").__get__ if _C_TASK is not None else None
_c_coro: Any = attributes.find(_C_TASK, "_coro").__get__ if _C_TASK is not None else None
_c_done: Any = _C_TASK.done if _C_TASK is not None else None
_c_loop: Any = _C_TASK.get_loop if _C_TASK is not None else None


def loop_id_of(task: Any) -> int | None:
    """Return the ``id`` of the task's loop; None if the task is done, or is not asyncio's own kind of task."""
    if _C_TASK is not None and issubclass(attributes.class_of(task), _C_TASK):
        return None if _c_done(task) else id(_c_loop(task))
    if not attributes.is_a(task, coroutines.TASKS) or asking.ask(task, "done"):
        return None
    return id(asking.ask(task, "get_loop"))


def waiter_of(task: Any) -> Any:
    """Return the future that it waits for; None if it runs, or is ready without a future having woken it."""
    if _C_TASK is not None and issubclass(attributes.class_of(task), _C_TASK):
        return _c_waiter(task)
    return attributes.get(task, "_fut_waiter")


def coroutine_of(task: Any) -> Any:
    """Return the task's coroutine."""
    if _C_TASK is not None and issubclass(attributes.class_of(task), _C_TASK):
        return _c_coro(task)
    return coroutines.coroutine_of(task)


def code_of(coro: Any) -> Any:
    """Return what all tasks of one coroutine function share: its code or, if there is none, the class."""
    cls = attributes.class_of(coro)
    if cls is CoroutineType:
        return coro.cr_code
    if cls is GeneratorType:
        return coro.gi_code
    inner = coroutines.generator_in(coro)
    code = attributes.get(inner, f"{coroutines.prefix_of(inner)}_code")
    return code if attributes.class_of(code) is CodeType else cls


def chain_of(coro: Any) -> list[Any]:
    """Return the coroutines that await each other, outermost first, and last what the innermost one iterates with.

    Return an empty list if that cannot be read.
    """
    found: list[Any] = []
    for _ in range(_DEEPEST):
        if coro is None:
            return found
        if attributes.class_of(coro) is CoroutineType:
            found.append(coro)
            coro = coro.cr_await
            continue
        coro = coroutines.generator_in(coro)
        found.append(coro)
        coro = coroutines.awaited_by(coro)
    return []

"""What kind of callback a handle runs: a task's step, or another."""

from __future__ import annotations

import asyncio
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any

from obsloop.base.asyncio_private import (
    C_TASK,
    private_tasks,
)
from obsloop.introspect.attributes import class_of
from obsloop.metrics.counters import CALLBACK, TASK_STEP

if TYPE_CHECKING:
    pass


def a_step() -> tuple[Any, Any]:
    """Return the callback with which a task schedules its own step, and that task: no module names its type."""
    seen: list[Any] = []

    class Probe:
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> None:
            seen.append(callback)

        def get_debug(self) -> bool:
            return False

    async def nothing() -> None:
        pass

    coro = nothing()
    probe: Any = Probe()
    task: Any = asyncio.Task(coro, loop=probe, name="obsloop")
    task._log_destroy_pending = False
    coro.close()
    return seen[0], task


class _NoStep:
    pass


# Without the C accelerator a step is a bound method, which PY_STEPS covers; then no type stands for steps alone.
STEP: Any = _NoStep if isinstance(a_step()[0], MethodType) else a_step()[0].__class__
_PY_TASK = private_tasks._PyTask
_C_TASK = C_TASK or _PY_TASK
PY_STEPS = (_PY_TASK._Task__step, _PY_TASK._Task__wakeup)
"""Compare these by identity: a program's function may have no hash, or a comparison that fails."""


def kind_of(callback: Any) -> int:
    """Return ``TASK_STEP`` for a task's step or wake-up, C or Python, else ``CALLBACK``. Run no code of the program."""
    cls = class_of(callback)
    if cls is STEP:
        return TASK_STEP
    if cls is BuiltinMethodType:
        # Read the true type: `isinstance` would ask the object for `__class__`, which may be a property.
        is_wakeup = issubclass(type(callback.__self__), _C_TASK) and callback.__name__ == "task_wakeup"
        return TASK_STEP if is_wakeup else CALLBACK
    if cls is MethodType:
        function = callback.__func__
        if function is PY_STEPS[0] or function is PY_STEPS[1]:
            return TASK_STEP
    return CALLBACK

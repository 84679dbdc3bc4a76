"""Where tasks are created: the place of one creation in ``EVERY``, so that live tasks can be grouped by the line that
made them.

``create_task`` calls ``sample``. The lints read the rest, in the watchdog's thread. Only strings and weak references
are kept, no frame and no task, for at most ``MAX_SAMPLED`` tasks; further ones are counted in ``dropped``.
"""

from __future__ import annotations

import asyncio
import operator
import sys
import weakref
from typing import Any, NamedTuple

from obsloop.introspect import frames
from obsloop.introspect.stacks import _LOOPS_OWN
from obsloop.metrics.self_metrics import dropped

EVERY = 64
"""One creation in so many is sampled: each live sample stands for so many live tasks."""
MASK = EVERY - 1
MAX_SAMPLED = 1_000
"""64,000 live tasks on average: a leak has been reported long before."""
_BETWEEN = ("asyncio.", "obsloop.")


class Place(NamedTuple):
    """A line that creates tasks."""

    filename: str
    lineno: int
    function: str
    """Its function, with the module."""


_sampled: dict[int, tuple[weakref.ref[asyncio.Task[Any]], Place]] = {}
"""By ``id`` of the weak reference, which is the first item."""


def sample(loop: Any, task: Any) -> None:
    """Note where ``task`` was created: the innermost frame that is neither asyncio's nor obsloop's. Never raises.

    In the loop's thread, on the stack of the creation.
    """
    try:
        if len(_sampled) >= MAX_SAMPLED:
            dropped["task_creation"] += 1
            return
        ref = weakref.ref(task, _forget)
        _sampled[id(ref)] = ref, _place(sys._getframe(1))
    except Exception:  # a task of the program's own kind, without weak references
        return


def living() -> list[tuple[asyncio.Task[Any], Place]]:
    """Return the sampled tasks that are alive, done or not. From any thread; do not keep it."""
    return [(task, place) for ref, place in list(_sampled.values()) if (task := ref()) is not None]


def places() -> dict[int, tuple[str, int, str]]:
    """Return the place of each sampled task that is alive, by the task's ``id``. From any thread."""
    entries = list(_sampled.values())
    ids = list(map(id, map(operator.call, [ref for ref, _place in entries])))
    gone = id(None)
    return {
        task_id: (place.filename, place.lineno, place.function)
        for task_id, (_ref, place) in zip(ids, entries, strict=True)
        if task_id != gone
    }


def _forget(ref: weakref.ref[asyncio.Task[Any]]) -> None:
    _sampled.pop(id(ref), None)


def _place(frame: Any) -> Place:
    """Return where the program is; if the loop called asyncio's own code, where that is."""
    last = frame
    for last, _, module in frames.callers(frame, _LOOPS_OWN):  # noqa: B007 - used below
        if not module.startswith(_BETWEEN):
            break
    code = last.f_code
    module = last.f_globals.get("__name__")
    prefix = f"{module}." if type(module) is str else ""
    return Place(code.co_filename, last.f_lineno or 0, f"{prefix}{code.co_qualname}")

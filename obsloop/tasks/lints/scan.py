"""One scan of the live tasks: it reads once what all lints need to know of a task, from another thread than the loop's
and without running code of the program.
"""

from __future__ import annotations

from traceback import FrameSummary
from types import CodeType
from typing import TYPE_CHECKING, Any

from obsloop.introspect import attributes, coroutines, stacks
from obsloop.introspect.functions import Site
from obsloop.introspect.own_code import OwnCode
from obsloop.tasks.chains import chain_of, code_of, coroutine_of, loop_id_of, waiter_of

if TYPE_CHECKING:
    import asyncio
    import weakref

    from obsloop.metrics.runs import Run

__all__ = ["chain_of", "code_of", "coroutine_of", "loop_id_of", "waiter_of"]

MAX_LOOKED = 10_000
"""Of more tasks, so many are read, chosen at random; they stand for the others."""


class Kind:
    """The live tasks of one coroutine on one loop, as found by one scan."""

    __slots__ = ("key", "n", "ref", "run")

    def __init__(self, key: tuple[Any, ...], run: Run, ref: Any) -> None:
        self.key = key
        self.run = run
        self.ref: weakref.ref[asyncio.Task[Any]] = ref
        """One of them."""
        self.n = 0


class TaskScan:
    """What a scan reads, and what it has found so far."""

    __slots__ = ("_codes", "began_ns", "every", "kinds", "runs")

    def __init__(self, began_ns: int, runs: dict[int, Run]) -> None:
        self.began_ns = began_ns
        self.runs = runs
        """The runs of the scanned loops, by the loop's ``id``."""
        self.every = 1.0
        """One task in so many is read."""
        self.kinds: dict[tuple[int, int], Kind] = {}
        """By the ``id`` of the loop and that of the coroutine's code or class."""
        self._codes: list[Any] = []  # keeps alive what those ids belong to

    def count(self, ref: Any, run: Run, loop_id: int, coro: Any) -> None:
        """Count one more task of its kind."""
        code = code_of(coro)
        found = self.kinds.get((loop_id, id(code)))
        if found is None:
            self._codes.append(code)
            found = self.kinds[loop_id, id(code)] = Kind((id(run.counters), *_name(code)), run, ref)
        found.n += 1


def key_of(run: Run, coro: Any) -> tuple[Any, ...]:
    """Return the ``key`` of this coroutine's ``Kind``."""
    return (id(run.counters), *_name(code_of(coro)))


def _name(code: Any) -> tuple[Any, ...]:
    """Return a name that is the same from scan to scan, and holds no object of the program's."""
    if attributes.class_of(code) is CodeType:
        return code.co_filename, code.co_firstlineno, code.co_qualname
    return (attributes.class_name(code),)


def site_and_place(ref: Any, rule: OwnCode) -> tuple[Site, str] | None:
    """Return the site of a task, and ``at FILE:LINE in FUNCTION`` where it waits; None if the task is gone.

    The place is in the innermost coroutine that is the program's own by this rule.
    """
    task = ref()
    if task is None:
        return None
    frames: list[FrameSummary] = []
    for coro in chain_of(coroutine_of(task)):
        place = coroutines.place_in(coro)
        if place is not None:
            code, line = place
            frames.append(rule.frame(code, line, name=code.co_qualname))
    return coroutines.site_of_task(task), attributes.clean(stacks.where(tuple(frames)))

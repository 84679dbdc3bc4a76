"""Since when each task has waited for its present future, as far as censuses have seen it.

asyncio keeps no such time, and the address of a future may be used again. So a census keeps a weak reference to each
task's future. If the next census finds that the task still waits for that same object, it has waited in between.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import compress, repeat
from operator import call, gt, is_, mul
from typing import Any

from obsloop.base.asyncio_private import C_FUTURE, C_TASK
from obsloop.introspect import attributes
from obsloop.tasks import chains
from obsloop.tasks.asking import TaskRef

_deque: Any = deque
_C_TASK: Any = C_TASK or ()  # without C, no class is a subclass of it
_C_FUTURE: Any = C_FUTURE or ()
_waiter_of: Callable[[Any], Any] = attributes.find(C_TASK, "_fut_waiter").__get__ if C_TASK else id


class FutureRef(weakref.ref[Any]):
    """A census's weak reference to a future. It is a class of its own so that lints can tell it from a program's."""

    __slots__ = ()


Moment = tuple[int, int | None]
"""When a census saw it first, and by how many nanoseconds it may have begun earlier; None if unknown."""
Since = tuple[FutureRef, Moment]


def note(
    chunk: list[TaskRef], before: dict[TaskRef, Since], now_ns: Callable[[], int]
) -> tuple[list[tuple[TaskRef, Since]], Iterator[tuple[TaskRef, FutureRef]], int]:
    """Return the tasks that still wait for what ``before`` says, those that now wait for another future, and when."""
    olds: list[Any] = list(map(before.get, chunk))
    old_futures: list[Any] = [object if old is None else old[0] for old in olds]
    tasks: list[Any] = []
    own: list[bool] = []
    futures: list[Any] = []
    usable: list[bool] = []
    same: list[bool] = []
    new: list[FutureRef] = []
    known: Iterable[Any] = map(call, compress(old_futures, own))  # lazy: `own` is empty still
    # As in `census`: C functions only, so no other thread runs until these lists are empty again.
    steps: tuple[Any, ...] = (
        partial(tasks.extend, map(call, chunk)),
        partial(own.extend, map(issubclass, map(attributes.class_of, tasks), repeat(_C_TASK))),
        partial(futures.extend, map(_waiter_of, compress(tasks, own))),
        partial(usable.extend, map(issubclass, map(attributes.class_of, futures), repeat(_C_FUTURE))),
        partial(same.extend, map(is_, futures, known)),
        partial(new.extend, map(FutureRef, compress(futures, map(gt, usable, same)))),
        futures.clear,
        tasks.clear,
    )
    _deque(map(call, steps), 0)
    at_ns = now_ns()
    mine = list(compress(chunk, own))
    kept = list(compress(zip(mine, compress(olds, own), strict=False), map(mul, usable, same)))
    return kept, zip(compress(mine, map(gt, usable, same)), new, strict=True), at_ns


def waited(task: Any, since: Since | None, now_ns: int) -> tuple[float, float | None] | None:
    """Return how many seconds ``task`` has waited at least, and by how many more perhaps; None if that is not known."""
    if since is None:
        return None
    future_ref, (seen_ns, resolution_ns) = since
    future = future_ref()
    if future is None or chains.waiter_of(task) is not future:
        return None
    return max(0, now_ns - seen_ns) / 1e9, None if resolution_ns is None else max(0, resolution_ns) / 1e9


def foreign_refs(future: Any) -> int:
    """Return how many weak references to ``future`` there are that are not a census's."""
    return sum(type(ref) is not FutureRef for ref in weakref.getweakrefs(future))

"""The handles of the pure core: asyncio's, with the kind of callback and the time when it became ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obsloop.base.asyncio_private import (
    Handle as BaseHandle,
    TimerHandle as BaseTimerHandle,
)
from obsloop.hotpath.cold_path import (
    LockedHandle,
)
from obsloop.hotpath.marks import own_handles
from obsloop.metrics.counters import (
    KIND_OF_BLOCK,
    STRIDE,
    THREADSAFE,
    TIMER,
)

if TYPE_CHECKING:
    from collections.abc import Callable


LOCKED = THREADSAFE if LockedHandle is not None else STRIDE * len(KIND_OF_BLOCK)

new: Callable[[type[Any]], Any] = object.__new__
exact_type: Callable[[Any], Any] = type


class Handle(BaseHandle):
    """``asyncio.Handle`` with its kind and the time when it became ready, in monotonic nanoseconds."""

    __slots__ = ("_kind", "_ready_ns")


class TimerHandle(BaseTimerHandle):
    """``asyncio.TimerHandle`` with the time when it became ready; before that, the earliest time at which it can."""

    __slots__ = ("_ready_ns",)
    _ready_ns: int
    _kind = TIMER

    # The heap compares handles at every push and pop.
    def __lt__(self, other: Any) -> Any:
        try:
            return self._when < other._when
        except AttributeError:
            return NotImplemented

    def cancel(self) -> None:
        if self._cancelled or self._loop._debug:
            super().cancel()
            return
        if self._scheduled:
            self._loop._timer_cancelled_count += 1
        self._cancelled = True
        self._callback = self._args = None


ThreadSafeHandle: Any = (
    type("ThreadSafeHandle", (LockedHandle,), {"__slots__": ("_kind", "_ready_ns"), "__module__": __name__})
    if LockedHandle is not None
    else Handle
)
own_handles.update((Handle, TimerHandle, ThreadSafeHandle))

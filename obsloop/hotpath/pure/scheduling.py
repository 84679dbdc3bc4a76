"""What puts a callback onto the loop: ``call_soon`` and its variants, timers, readers and writers.

The functions that take ``self`` are methods: ``loop.loop.Loop`` takes them as they are.
"""

from __future__ import annotations

import heapq
import selectors
from contextvars import copy_context
from types import FunctionType
from typing import TYPE_CHECKING, Any

from obsloop.base.clock import monotonic_ns
from obsloop.hotpath.cold_path import (
    caller_stack,
    registered,
    unwatch,
)
from obsloop.hotpath.kinds import STEP, kind_of
from obsloop.metrics.counters import (
    CALLBACK,
    READER,
    TASK_STEP,
    THREADSAFE,
    WRITER,
)

if TYPE_CHECKING:
    from contextvars import Context
from obsloop.hotpath.pure.handles import Handle, ThreadSafeHandle, TimerHandle, exact_type, new
from obsloop.hotpath.pure.self_pipe import wake

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def call_soon(self: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
    """Schedule as ``loop.call_soon`` does: the handle is ready now."""
    if self._closed or self._debug:
        return _call_soon_in_debug(self, callback, args, context)
    handle: Handle = new(Handle)
    handle._callback = callback
    handle._args = args
    handle._loop = self
    handle._context = context if context is not None else copy_context()
    handle._cancelled = False
    handle._repr = None
    handle._source_traceback = None
    cls = exact_type(callback)  # not `__class__`, which may be a property of the program's
    handle._kind = TASK_STEP if cls is STEP else CALLBACK if cls is FunctionType else kind_of(callback)
    handle._ready_ns = monotonic_ns()
    self._ready.append(handle)
    return handle


def _call_soon_in_debug(self: Any, callback: Any, args: tuple[Any, ...], context: Context | None) -> Any:
    self._check_call(callback, "call_soon")
    handle = Handle(callback, args, self, context)
    handle._source_traceback = caller_stack(3)
    handle._kind = kind_of(callback)
    handle._ready_ns = monotonic_ns()
    self._ready.append(handle)
    return handle


def call_soon_threadsafe(self: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
    """Schedule as ``loop.call_soon_threadsafe`` does: the handle is ready now, by the calling thread's clock."""
    self._check_closed()
    if self._debug:
        self._check_callback(callback, "call_soon_threadsafe")
    handle = ThreadSafeHandle(callback, args, self, context)
    if handle._source_traceback:
        handle._source_traceback = caller_stack()
    handle._kind = THREADSAFE
    handle._ready_ns = monotonic_ns()
    self._ready.append(handle)
    wake(self)
    return handle


def call_later(self: Any, delay: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
    """Schedule as ``loop.call_later`` does: ready at ``when``. A negative delay means now."""
    if delay is None:
        raise TypeError("delay must not be None")
    if getattr(self.call_at, "__func__", None) is not call_at:  # asyncio's call_later goes through call_at
        return self.call_at(self.time() + delay, callback, *args, context=context)
    now = self.time()
    when = now + delay  # may be of the program's own type: asyncio only needs this sum
    return _schedule(self, when, callback, args, context, 0 if when >= now else monotonic_ns())


def call_at(self: Any, when: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
    """Schedule as ``loop.call_at`` does: ready at ``when``. A time in the past means now."""
    if when is None:
        raise TypeError("when cannot be None")
    return _schedule(self, when, callback, args, context, monotonic_ns())


def _schedule(
    self: Any, when: float, callback: Any, args: tuple[Any, ...], context: Context | None, not_before_ns: int
) -> Any:
    if self._closed or self._debug:
        self._check_call(callback, "call_at")
    handle: Any = new(TimerHandle)
    handle._callback = callback
    handle._args = args
    handle._loop = self
    handle._context = context if context is not None else copy_context()
    handle._cancelled = False
    handle._repr = None
    handle._source_traceback = caller_stack(3) if self._debug else None
    handle._when = when
    handle._scheduled = True
    handle._ready_ns = not_before_ns
    heapq.heappush(self._scheduled, handle)
    return handle


def add_reader(self: Any, fd: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
    """Watch ``fd`` as ``loop._add_reader`` does, with a handle that ``run_once`` stamps when a poll returns it."""
    return _watch(self, fd, _READ, callback, args, context)


def add_writer(self: Any, fd: Any, callback: Any, *args: Any, context: Context | None = None) -> Any:
    """Watch ``fd`` as ``loop._add_writer`` does, with a handle that ``run_once`` stamps when a poll returns it."""
    return _watch(self, fd, _WRITE, callback, args, context)


def _watch(self: Any, fd: Any, event: int, callback: Any, args: tuple[Any, ...], context: Context | None) -> Any:
    self._check_closed()
    handle = Handle(callback, args, self, context)
    handle._kind = READER if event == _READ else WRITER
    handle._ready_ns = 0
    key = registered(self._selector, fd)
    if key is None:
        self._selector.register(fd, event, (handle, None) if event == _READ else (None, handle))
    else:
        reader, writer = key.data
        if event == _READ:
            replaced, data = reader, (handle, writer)
        else:
            replaced, data = writer, (reader, handle)
        self._selector.modify(fd, key.events | event, data)
        if replaced is not None:
            replaced.cancel()
    return handle


def remove_reader(self: Any, fd: Any) -> bool:
    """Stop watching ``fd`` as ``loop._remove_reader`` does."""
    return unwatch(self, fd, _READ)


def remove_writer(self: Any, fd: Any) -> bool:
    """Stop watching ``fd`` as ``loop._remove_writer`` does."""
    return unwatch(self, fd, _WRITE)

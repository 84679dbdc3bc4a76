"""What both cores call rarely, not for every handle: errors, debug mode, the beginning and end of runs.

Nothing here is timed or needs to be fast.
"""

from __future__ import annotations

import heapq
import inspect
import selectors
import socket
import sys
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.asyncio_private import (
    private_base_events,
    private_events,
    private_format_helpers,
    private_selector_events,
)
from obsloop.hotpath.marks import own_handles
from obsloop.hotpath.observer import slow_iteration
from obsloop.metrics import runs
from obsloop.metrics.counters import IN_CALLBACK, IN_OVERHEAD

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters

# Since 3.14 asyncio's handle of call_soon_threadsafe takes a lock to cancel and run; obsloop's does so where it does.
LockedHandle: Any = getattr(private_events, "_ThreadSafeHandle", None)
# Since 3.13 asyncio shows arguments in debug mode only.
_FORMAT_TAKES_DEBUG = "debug" in inspect.signature(private_format_helpers._format_callback_source).parameters

_EpollSelector: Any = getattr(selectors, "EpollSelector", None)
_SELECT = _EpollSelector.select if _EpollSelector is not None else None
_ASKS_MAP = "get_map" in private_selector_events.BaseSelectorEventLoop._add_reader.__code__.co_names


def registered(selector: Any, fd: Any) -> Any:
    """Return the selector's key for ``fd``, or None, read in the way of this interpreter's own loop.

    That way takes longer than the rest, since the standard selector searches by name for objects with a descriptor.
    """
    if type(selector) is _EpollSelector and type(fd) is int and selector.get_map() is not None:
        return selector._fd_to_key.get(fd)
    if _ASKS_MAP:
        return selector.get_map().get(fd)
    try:
        return selector.get_key(fd)
    except KeyError:
        return None


def unwatch(self: Any, fd: Any, event: int) -> bool:
    """Stop watching ``fd`` as ``loop._remove_reader`` (``event`` 1) and ``loop._remove_writer`` (2) do."""
    if self.is_closed():
        return False
    selector = self._selector
    key = registered(selector, fd)
    if key is None:
        return False
    reader, writer = key.data
    removed, data = (reader, (None, writer)) if event == 1 else (writer, (reader, None))
    mask = key.events & ~event
    if mask:
        selector.modify(fd, mask, data)
    else:
        selector.unregister(fd)
    if removed is None:
        return False
    removed.cancel()
    return True


def reads_itself(loop: Any, method: Any) -> bool:
    """Return whether ``method`` of ``loop`` is what reads the loop's own pipe."""
    ssock = getattr(loop, "_ssock", None)
    key = registered(loop._selector, ssock.fileno()) if isinstance(ssock, socket.socket) else None
    if not isinstance(key, selectors.SelectorKey):
        return False
    return getattr(getattr(key.data[0], "_callback", None), "__func__", None) is method


def caller_stack(depth: int = 2) -> Any:
    """Return the stack of the code that called the loop's method, for debug mode."""
    return private_format_helpers.extract_stack(sys._getframe(depth))


def is_plain_epoll(selector: Any) -> bool:
    """Return whether ``selector`` is the standard epoll selector, with its own ``select``."""
    return type(selector) is _EpollSelector and getattr(selector.select, "__func__", None) is _SELECT


def give_way() -> None:
    """Let waiting threads and signal handlers run.

    The interpreter checks for them when it enters a Python function. The compiled core calls this one now and then,
    because a batch of callbacks in C enters none.
    """


def enter(self: Any, counters: Counters) -> tuple[int, int] | None:
    """Begin a run, go on with it, or note an iteration inside one of the loop's own callbacks (some programs do that).

    For such an iteration, return when it began and when that callback began. Pass that to ``leave``.
    """
    now_ns = clock.monotonic_ns()
    if not counters.run_started_ns:
        # What was scheduled before is ready now: the time during which the loop stood still is not its delay.
        for handle in tuple(self._ready):
            if type(handle) in own_handles:
                handle._ready_ns = now_ns
        counters.begin_run(now_ns)
        runs.began(self, counters)
    elif counters.state == IN_CALLBACK:
        outer = now_ns, counters.tick_ns
        # This ends the iteration around this one: the loop is about to poll.
        around_ns = counters.began_ns
        counters.state = IN_OVERHEAD
        counters.tick_ns = counters.began_ns = now_ns
        if around_ns:
            counters.record_iteration(now_ns - around_ns)
        return outer
    return None


def leave(
    self: Any, counters: Counters, began_ns: int, now_ns: int, outer: tuple[int, int] | None, *, stopped: bool
) -> None:
    """Close the iteration that began at ``began_ns`` (0: none is open) and, when stopped, the run. No poll follows.

    The last iteration within a callback goes on: no poll ends it before that of the iteration around it.
    """
    if began_ns and now_ns - began_ns >= counters.slow_iteration_ns:
        now_ns = slow_iteration(self, counters, began_ns, now_ns)
    if began_ns and outer is None:
        began_ns = counters.began_ns or began_ns
        counters.began_ns = 0  # before it is counted: a reader in another thread must not see it twice
        counters.record_iteration(now_ns - began_ns)
    if outer is not None:
        entered_ns, callback_ns = outer
        counters.nested_ns += now_ns - entered_ns
        counters.state = IN_CALLBACK
        counters.tick_ns = callback_ns
    elif stopped:
        end_run(counters, now_ns)


def end_run(counters: Counters, now_ns: int) -> None:
    """End the run, if it has not ended yet."""
    if counters.run_started_ns:
        runs.ended(counters)
        counters.end_run(now_ns)


def report(self: Any, handle: Any, exc: BaseException) -> None:
    """Handle an exception as ``Handle._run`` does."""
    debug = {"debug": self._debug} if _FORMAT_TAKES_DEBUG else {}
    where = private_format_helpers._format_callback_source(handle._callback, handle._args, **debug)
    context = {"message": f"Exception in callback {where}", "exception": exc, "handle": handle}
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    self.call_exception_handler(context)


def run_in_debug(self: Any, handle: Any) -> None:
    """Run one handle in debug mode, by asyncio's rules and with its log line; ``loop.time()`` times it."""
    try:
        self._current_handle = handle
        t0 = self.time()
        handle._run()
        dt = self.time() - t0
        if dt >= self.slow_callback_duration:
            private_base_events.logger.warning(
                "Executing %s took %.3f seconds", private_base_events._format_handle(handle), dt
            )
    finally:
        self._current_handle = None
        handle = None  # no cycle: an exception's traceback leads to this frame, and the handle to its task


def rebuild_heap(self: Any, scheduled: list[Any]) -> list[Any]:
    """Drop the cancelled timers from the heap, when there are too many. Return the new heap."""
    kept: list[Any] = []
    for handle in scheduled:
        if handle._cancelled:
            handle._scheduled = False
        else:
            kept.append(handle)
    heapq.heapify(kept)
    self._scheduled = kept
    self._timer_cancelled_count = 0
    return kept

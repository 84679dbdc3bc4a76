"""What both cores do now and then, and not for every handle: kinds, errors, debug mode, the beginning and end of runs.

Nothing here is timed or needs to be fast; ``hotpath.pure``, and its compiled twin, call it when something rare happens.
"""

from __future__ import annotations

import heapq
import inspect
import selectors
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

# Since 3.14 asyncio's own handle of call_soon_threadsafe locks around cancel and run; ours does where theirs does.
LockedHandle: Any = getattr(private_events, "_ThreadSafeHandle", None)
# Since 3.13 arguments are shown in debug mode only.
_FORMAT_TAKES_DEBUG = "debug" in inspect.signature(private_format_helpers._format_callback_source).parameters

_EpollSelector: Any = getattr(selectors, "EpollSelector", None)
_SELECT = _EpollSelector.select if _EpollSelector is not None else None
_ASKS_MAP = "get_map" in private_selector_events.BaseSelectorEventLoop._add_reader.__code__.co_names


def registered(selector: Any, fd: Any) -> Any:
    """The selector's key for ``fd``, or None, asked for as this interpreter's own loop does it."""
    if _ASKS_MAP:
        return selector.get_map().get(fd)
    try:
        return selector.get_key(fd)
    except KeyError:
        return None


def caller_stack(depth: int = 2) -> Any:
    """Where the caller of the loop's method stands, for debug mode."""
    return private_format_helpers.extract_stack(sys._getframe(depth))


def is_plain_epoll(selector: Any) -> bool:
    """Whether ``selector`` is the standard epoll selector, with its own ``select``."""
    return type(selector) is _EpollSelector and getattr(selector.select, "__func__", None) is _SELECT


def give_way() -> None:
    """Let other threads and signal handlers in, where they wait.

    The interpreter looks for them when it enters a function of Python. The compiled core calls this one now and then,
    because a batch of callbacks in C enters none.
    """


def enter(self: Any, counters: Counters) -> tuple[int, int] | None:
    """``run_once`` is called: a run begins, or goes on, or this is an iteration within one of the loop's own callbacks.

    For the last, as some programs do it, returns when it began and when that callback did; ``leave`` wants it back.
    """
    now_ns = clock.monotonic_ns()
    if not counters.run_started_ns:
        # What was scheduled before is ready now: the time when the loop stood still was not its delay.
        for handle in tuple(self._ready):
            if type(handle) in own_handles:
                handle._ready_ns = now_ns
        counters.begin_run(now_ns)
        runs.began(self, counters)
    elif counters.state == IN_CALLBACK:
        outer = now_ns, counters.tick_ns
        counters.state = IN_OVERHEAD
        counters.tick_ns = now_ns
        return outer
    return None


def leave(
    self: Any, counters: Counters, began_ns: int, now_ns: int, outer: tuple[int, int] | None, *, stopped: bool
) -> None:
    """No poll follows: close the iteration that began at ``began_ns`` (0: none is open) and, when stopped, the run."""
    if began_ns:
        counters.record_iteration(now_ns - began_ns)
        if now_ns - began_ns >= counters.slow_iteration_ns:
            slow_iteration(self, counters, began_ns, now_ns)
    if outer is not None:
        entered_ns, callback_ns = outer
        counters.nested_ns += now_ns - entered_ns
        counters.state = IN_CALLBACK
        counters.tick_ns = callback_ns
    elif stopped:
        end_run(counters, now_ns)


def end_run(counters: Counters, now_ns: int) -> None:
    """The run ends, if it has not yet."""
    if counters.run_started_ns:
        runs.ended(counters)
        counters.end_run(now_ns)


def report(self: Any, handle: Any, exc: BaseException) -> None:
    """What ``Handle._run`` does with an exception."""
    debug = {"debug": self._debug} if _FORMAT_TAKES_DEBUG else {}
    where = private_format_helpers._format_callback_source(handle._callback, handle._args, **debug)
    context = {"message": f"Exception in callback {where}", "exception": exc, "handle": handle}
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    self.call_exception_handler(context)


def run_in_debug(self: Any, handle: Any) -> None:
    """One handle in debug mode, by asyncio's own rules and with its own log line; it is timed by ``loop.time()``."""
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
        handle = None  # an exception's traceback leads to this frame: no cycle through the handle's task


def rebuild_heap(self: Any, scheduled: list[Any]) -> list[Any]:
    """Drop the cancelled timers from the heap, when there are too many of them."""
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

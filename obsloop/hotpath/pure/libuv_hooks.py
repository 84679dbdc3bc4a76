"""What libuv calls before and after each poll of an observed uvloop loop.

An iteration is the time from the end of a wait to the next poll. libuv calls protocols within its poll, and gives the
sum of all waits. So the iteration began when the poll began, plus what the loop has waited since.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from obsloop.base import clock
from obsloop.metrics.counters import IN_CALLBACK, IN_IDLE

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters

_IDLE_TIME = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)


class LibuvHooks:
    """The two hooks of one loop, which write to ``counters``; ``report(began_ns, end_ns)`` gets slow iterations.

    ``loop`` and ``idle_time`` are addresses: of libuv's loop, and of its function ``uv_metrics_idle_time``.
    """

    def __init__(self, counters: Counters, loop: int, idle_time: int, report: Callable[[int, int], None]) -> None:
        self._counters, self._loop, self._report = counters, loop, report
        self._idle_time = _IDLE_TIME(idle_time)
        self._seen_idle_ns = 0
        self._closing = threading.Lock()  # only the watchdog and `close` take it
        # libuv runs without the GIL, which CFUNCTYPE takes and PYFUNCTYPE does not.
        made = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._hooks = made(self._before_poll), made(self._after_poll)
        self.data = 0
        self.before_poll, self.after_poll = (ctypes.cast(hook, ctypes.c_void_p).value for hook in self._hooks)
        self.begin()

    def begin(self) -> None:
        """Forget idle time from before the run that begins."""
        self._seen_idle_ns = self._idle_time(self._loop)

    def _before_poll(self, _: int) -> None:
        counters = self._counters
        now = clock.monotonic_ns()
        began_ns = counters.began_ns
        if began_ns:
            if now - began_ns >= counters.slow_iteration_ns:
                self._report(began_ns, now)
            counters.began_ns = 0  # before it is counted: a reader in another thread must not see it twice
            counters.record_iteration(now - began_ns)
            now = clock.monotonic_ns()
        counters.state = IN_IDLE
        counters.tick_ns = now

    def _after_poll(self, _: int) -> None:
        counters = self._counters
        if not counters.run_started_ns:
            return
        idle_ns = self._idle_time(self._loop)
        waited_ns, self._seen_idle_ns = idle_ns - self._seen_idle_ns, idle_ns
        if waited_ns > 0:
            counters.idle_ns += waited_ns
            counters.waits += 1
        # Protocols' callbacks ran within the poll, after the wait: the iteration began with them.
        counters.began_ns = counters.tick_ns + waited_ns
        counters.state = IN_CALLBACK
        counters.tick_ns = counters.began_ns

    def close(self) -> None:
        """Never ask libuv again: its loop is about to be closed."""
        with self._closing:
            self._loop = 0

    def look_into_poll(self, least_ns: int) -> int:
        """Note that the present poll has called protocols for ``least_ns``, if so. From any thread.

        Return when that began, else 0.
        """
        counters = self._counters
        tick_ns = counters.tick_ns
        with self._closing:
            if not self._loop or counters.state != IN_IDLE:
                return 0
            waited_ns: int = self._idle_time(self._loop) - self._seen_idle_ns
        began_ns = tick_ns + waited_ns
        if clock.monotonic_ns() - began_ns < least_ns or counters.tick_ns != tick_ns:
            return 0
        # No call from here on: the loop's thread cannot come between.
        self._seen_idle_ns += waited_ns
        counters.idle_ns += waited_ns
        counters.began_ns = began_ns
        counters.state = IN_CALLBACK
        counters.tick_ns = began_ns
        return began_ns

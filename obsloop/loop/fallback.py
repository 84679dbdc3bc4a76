"""Time a loop through public methods only, if ``base.asyncio_check`` does not know this version of asyncio.

Each callback is wrapped, and a selector that takes times stands in front of the loop's. That costs several times what
``hotpath.pure`` costs and sees less. Callbacks that asyncio schedules by private methods (a transport's reads) are not
timed: their time is neither idle nor poll, so it counts as overhead. The depth of the ready queue is not seen.
"""

from __future__ import annotations

import asyncio
import selectors
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from obsloop.base import clock
from obsloop.base.settings import Settings
from obsloop.hotpath.observer import notable, slow_iteration
from obsloop.loop.observation import Observed, observe
from obsloop.metrics import runs
from obsloop.metrics.counters import (
    CALLBACK,
    IN_CALLBACK,
    IN_IDLE,
    IN_OVERHEAD,
    IN_POLL,
    READER,
    TASK_STEP,
    THREADSAFE,
    TIMER,
    WRITER,
    count_value,
)


class Loop(Observed):
    """An ``asyncio.SelectorEventLoop`` whose callbacks, scheduled by public methods, are timed."""

    def __init__(self, selector: selectors.BaseSelector | None = None, *, settings: Settings | None = None) -> None:
        settings = settings or Settings.from_env(strict=False)
        self._timed = _TimedSelector(selector or selectors.DefaultSelector())
        super().__init__(self._timed)
        observe(self, settings)

    def run_forever(self) -> None:
        if self.is_running():
            super().run_forever()  # refuses
        counters = self._obsloop.lease(self)
        self._timed.counters = counters
        self._timed.loop = weakref.ref(self)
        counters.begin_run(clock.monotonic_ns())
        runs.began(self, counters)
        try:
            super().run_forever()
        finally:
            self._timed.end_iteration(clock.monotonic_ns())
            runs.ended(counters)
            counters.end_run(clock.monotonic_ns())

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        kind = TASK_STEP if isinstance(getattr(callback, "__self__", None), asyncio.Task) else CALLBACK
        return super().call_soon(_Timed(self, kind, callback), *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        return super().call_soon_threadsafe(_Timed(self, THREADSAFE, callback), *args, context=context)

    def call_at(self, when: Any, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        timed = _Timed(self, TIMER, callback)
        if isinstance(when, int | float):  # the stock method refuses anything else
            timed.ready_ns += max(0, int((when - self.time()) * 1e9))
        return super().call_at(when, timed, *args, context=context)

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        super().add_reader(fd, _Timed(self, READER, callback), *args)

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        super().add_writer(fd, _Timed(self, WRITER, callback), *args)


class _Timed:
    """A callback and when it became ready; for a watched descriptor, that is the return of the last poll.

    When it was slow, this stands for its handle: it has the attributes that name a handle's callback.
    """

    __slots__ = ("_args", "_callback", "kind", "loop", "ready_ns")

    def __init__(self, loop: Loop, kind: int, callback: Callable[..., Any]) -> None:
        self.loop, self.kind, self._callback = loop, kind, callback
        self._args: tuple[Any, ...] = ()
        self.ready_ns = clock.monotonic_ns()

    def __call__(self, *args: Any) -> None:
        counters = self.loop._obsloop.lease(self.loop)
        ready_ns = self.loop._timed.returned_ns if self.kind in (READER, WRITER) else self.ready_ns
        counters.tick_ns = start_ns = clock.monotonic_ns()
        counters.state = IN_CALLBACK
        try:
            self._callback(*args)
        finally:
            ready_ns, end_ns = max(ready_ns, counters.run_started_ns), clock.monotonic_ns()
            counters.record(self.kind, ready_ns, end_ns)
            counters.state = IN_OVERHEAD
            if end_ns - start_ns >= counters.notable_ns:
                self._args = args
                notable(self.loop, counters, self, self.kind, ready_ns, start_ns, end_ns, counters.began_ns)
                self._args = ()

    def __repr__(self) -> str:
        return repr(self._callback)


class _TimedSelector(selectors.BaseSelector):
    """A selector that passes everything on to another one and times ``select``."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.counters: Any = None
        self.loop: Callable[[], Any] = lambda: None
        self.returned_ns = 0

    def end_iteration(self, now_ns: int) -> bool:
        """Count the iteration that ends. Return whether it was slow: then an instrument may have scheduled a call."""
        slow = False
        if self.returned_ns and self.counters is not None:
            slow = now_ns - self.returned_ns >= self.counters.slow_iteration_ns
            if slow:
                now_ns = slow_iteration(self.loop(), self.counters, self.returned_ns, now_ns)
            self.counters.began_ns = 0  # before it is counted: a reader in another thread must not see it twice
            self.counters.record_iteration(now_ns - self.returned_ns)
        self.returned_ns = 0
        return slow

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        counters = self.counters
        if counters is None:
            return self._selector.select(timeout)
        if self.end_iteration(clock.monotonic_ns()):
            timeout = 0
        waits = timeout is None or timeout > 0
        called_ns = clock.monotonic_ns()
        counters.state = IN_IDLE if waits else IN_POLL
        counters.tick_ns = called_ns
        found = self._selector.select(timeout)
        self.returned_ns = clock.monotonic_ns()
        if waits:
            counters.idle_ns += self.returned_ns - called_ns
            counters.waits += 1
        else:
            count_value(counters.poll, 0, self.returned_ns - called_ns)
            counters.events_waiting += len(found)
        counters.events += len(found)
        counters.state = IN_OVERHEAD
        counters.tick_ns = counters.began_ns = self.returned_ns
        return found

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()

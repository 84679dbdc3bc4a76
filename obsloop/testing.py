"""For tests, obsloop's and yours: a clock that the test moves, and a record of events."""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from obsloop import events as _events, instruments
from obsloop.base import clock as _clock
from obsloop.hotpath import backend
from obsloop.loop import start as _start

_E = TypeVar("_E")
_MOST = 10_000
_SHOWN = 5
_LOOP: Any = _start.Loop  # StepClock replaces its `time`


class StepClock:
    """A clock that moves only when the test moves it. As a context manager, it becomes the clock that times all loops.

    The metrics show a delay made with ``advance`` to the nanosecond, even on a busy machine::

        with StepClock() as clock:
            loop = obsloop.Loop(clock.selector())
            loop.call_soon(clock.advance, 0.25)     # a callback of 250 ms
            loop.call_later(3600, loop.stop)        # an hour that takes no time
            loop.run_forever()

    There is one clock for the whole process: do not run loops in other threads meanwhile.
    """

    def __init__(self, start: float = 1000.0) -> None:
        """Make a clock that shows ``start``, in seconds."""
        self._now_ns = round(start * 1e9)

    def monotonic_ns(self) -> int:
        """Return the clock's time in nanoseconds."""
        return self._now_ns

    def time(self) -> float:
        """Return the clock's time in seconds, as ``loop.time()`` does."""
        return self._now_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock does not go back: {seconds!r} seconds")
        self._now_ns += round(seconds * 1e9)

    def selector(self) -> selectors.BaseSelector:
        """Make a selector that moves the clock instead of waiting for a time-out, unless a file is ready."""
        return _StepSelector(self)

    def __enter__(self) -> StepClock:
        own: dict[str, Any] = dict(vars(_start.Loop))
        self._saved: tuple[Callable[[], int], Any] = (_clock.monotonic_ns, own.get("time"))
        backend.set_clock(self.monotonic_ns)
        _LOOP.time = staticmethod(self.time)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        clock, loop_time = self._saved
        if loop_time is None:
            del _LOOP.time  # it was inherited
        else:
            _LOOP.time = loop_time
        backend.set_clock(clock)


class _StepSelector(selectors.DefaultSelector):
    def __init__(self, clock: StepClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        found = super().select(0)
        if not found and timeout > 0:
            self._clock.advance(timeout)
        return found


class Recorder:
    """An instrument that keeps every event. As a context manager, it listens to every loop of the process.

    A test can check the events, and wait for those that another thread emits::

        with Recorder() as events:
            obsloop.run(main())
            blocked = events.wait_for(obsloop.events.LoopUnblocked)
        assert events.errors == []

    ``loop.add_instrument(recorder)`` gives it the events of one loop. It keeps the first 10,000 events and counts the
    rest in ``dropped``. Any thread may use it.
    """

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._dropped = 0
        # Its lock is reentrant: a garbage collection while it is held may run a finalizer that reports an error here.
        self._arrived = threading.Condition()

    @property
    def events(self) -> list[Any]:
        """All events of all types, in the order of their arrival. This list and those below are copies."""
        with self._arrived:
            return self._kept.copy()

    @property
    def slow_callbacks(self) -> list[_events.SlowCallback]:
        """Callbacks that took too long."""
        return self._of(_events.SlowCallback)

    @property
    def slow_iterations(self) -> list[_events.SlowIteration]:
        """Iterations that took too long."""
        return self._of(_events.SlowIteration)

    @property
    def blocked(self) -> list[_events.LoopBlocked]:
        """Loops that were blocked, at the first sample. The watchdog's thread emits them: use ``wait_for``."""
        return self._of(_events.LoopBlocked)

    @property
    def unblocked(self) -> list[_events.LoopUnblocked]:
        """Loops that moved on. The watchdog's thread emits them: use ``wait_for``."""
        return self._of(_events.LoopUnblocked)

    @property
    def errors(self) -> list[_events.CallbackError]:
        """Calls of the loops' exception handlers."""
        return self._of(_events.CallbackError)

    @property
    def lints(self) -> list[_events.TaskLint]:
        """Tasks with something wrong. Mostly the watchdog's thread emits them: use ``wait_for``."""
        return self._of(_events.TaskLint)

    @property
    def dropped(self) -> int:
        """How many events were not kept because there was no more room."""
        return self._dropped

    def wait_for(self, event_type: type[_E], timeout: float = 5.0) -> _E:
        """Wait until there is an event of that type, and return the first one; ``TimeoutError`` after ``timeout`` s.

        Raises ``RuntimeError`` in a thread that runs a loop, since the loop would stand still meanwhile. There, use
        ``await asyncio.to_thread(recorder.wait_for, event_type)``.
        """
        if asyncio._get_running_loop() is not None:
            name = event_type.__name__
            raise RuntimeError(
                f"Recorder.wait_for({name}) was called in a thread that runs a loop, and would block the loop."
                f" Use `await asyncio.to_thread(recorder.wait_for, {name})`."
            )
        end = time.monotonic() + timeout
        with self._arrived:
            while not (found := self._of(event_type)):
                if not self._arrived.wait(end - time.monotonic()):
                    raise TimeoutError(f"no {event_type.__name__} within {timeout:g} s; what arrived: {self!r}")
            return found[0]

    def clear(self) -> None:
        """Forget all events so far, and set ``dropped`` to 0."""
        with self._arrived:
            self._kept.clear()
            self._dropped = 0

    def _of(self, event_type: type[_E]) -> list[_E]:
        return [event for event in self.events if isinstance(event, event_type)]

    def _keep(self, event: Any) -> None:
        with self._arrived:
            if len(self._kept) < _MOST:
                self._kept.append(event)
            else:
                self._dropped += 1
            self._arrived.notify_all()

    def __enter__(self) -> Recorder:
        instruments.add_instrument(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # the test has removed it already
            instruments.remove_instrument(self)

    def __repr__(self) -> str:
        kept = self.events
        if not kept:
            return "<Recorder: no events>"
        counts = Counter(type(event).__name__ for event in kept)
        dropped = f", {self._dropped} dropped" if self._dropped else ""
        shown = "; ".join(map(_brief, kept[:_SHOWN])) + ("; ..." if len(kept) > _SHOWN else "")
        return f"<Recorder: {', '.join(f'{n} {name}' for name, n in counts.items())}{dropped}: {shown}>"


def _brief(event: Any) -> str:
    """Return an event of any type in a few words."""
    text = type(event).__name__
    if name := getattr(event, "name", ""):
        text += f" {name}"
    if filename := getattr(event, "filename", ""):
        text += f" ({filename}:{event.lineno})"
    return f"{text} {event.duration:.3f} s" if hasattr(event, "duration") else text


# One method for every hook, so that a Recorder also keeps the events of hooks that are added later.
for _hook in instruments.HOOKS:
    setattr(Recorder, _hook, Recorder._keep)

"""What our tests, and a user's tests, need: time in their own hands, and what happened to look at."""

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
_LOOP: Any = _start.Loop  # whose methods a test's clock replaces


class StepClock:
    """A clock that stands still until it is told to move; as a context manager it is the one that loops are timed with.

    A delay that is put in with ``advance`` is found again in the figures to the nanosecond, on the busiest machine::

        with StepClock() as clock:
            loop = obsloop.Loop(clock.selector())
            loop.call_soon(clock.advance, 0.25)     # a callback of 250 ms
            loop.call_later(3600, loop.stop)        # an hour that takes no time
            loop.run_forever()

    The clock is the whole process's: do not run loops in other threads meanwhile.
    """

    def __init__(self, start: float = 1000.0) -> None:
        """``start``: what the clock shows at first, in seconds."""
        self._now_ns = round(start * 1e9)

    def monotonic_ns(self) -> int:
        """What the clock shows, in nanoseconds."""
        return self._now_ns

    def time(self) -> float:
        """What the clock shows, in seconds: ``loop.time()``."""
        return self._now_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock does not go back: {seconds!r} seconds")
        self._now_ns += round(seconds * 1e9)

    def selector(self) -> selectors.BaseSelector:
        """A selector that does not wait for a time-out but moves the clock to it. What is ready is returned first."""
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
    """An instrument that keeps every event it is given; as a context manager it listens to every loop of the process.

    A test can look at what happened, and wait for what arrives from another thread::

        with Recorder() as events:
            obsloop.run(main())
            blocked = events.wait_for(obsloop.events.LoopUnblocked)
        assert events.errors == []

    ``loop.add_instrument(recorder)`` gives it the events of one loop. It keeps the first 10,000 events and counts the
    rest in ``dropped``. All of it may be used from any thread.
    """

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._dropped = 0
        # Its lock is reentrant: a collection while it is held may run a finalizer that reports an error, to us too.
        self._arrived = threading.Condition()

    @property
    def events(self) -> list[Any]:
        """All events, of whatever type, in the order of their arrival. This list, and those below, are copies."""
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
        """Blocked loops at first sight. From the watchdog's thread: ``wait_for`` them."""
        return self._of(_events.LoopBlocked)

    @property
    def unblocked(self) -> list[_events.LoopUnblocked]:
        """Loops that moved on. From the watchdog's thread: ``wait_for`` them."""
        return self._of(_events.LoopUnblocked)

    @property
    def errors(self) -> list[_events.CallbackError]:
        """What the exception handlers of loops were called for."""
        return self._of(_events.CallbackError)

    @property
    def lints(self) -> list[_events.TaskLint]:
        """What was found to be wrong with tasks. Mostly from the watchdog's thread: ``wait_for`` them."""
        return self._of(_events.TaskLint)

    @property
    def dropped(self) -> int:
        """How many events arrived when there was no more room, and were not kept."""
        return self._dropped

    def wait_for(self, event_type: type[_E], timeout: float = 5.0) -> _E:
        """Wait until an event of that type is there, and return the first one; ``TimeoutError`` after ``timeout`` s.

        Not in a thread in which a loop runs: the loop would wait too, and nothing would happen on it. There it raises
        ``RuntimeError``; say ``await asyncio.to_thread(recorder.wait_for, event_type)``.
        """
        if asyncio._get_running_loop() is not None:
            name = event_type.__name__
            raise RuntimeError(
                f"Recorder.wait_for({name}) was called in a thread in which a loop runs, and the loop would stand still"
                f" meanwhile: say `await asyncio.to_thread(recorder.wait_for, {name})`"
            )
        end = time.monotonic() + timeout
        with self._arrived:
            while not (found := self._of(event_type)):
                if not self._arrived.wait(end - time.monotonic()):
                    raise TimeoutError(f"no {event_type.__name__} within {timeout:g} s; what arrived: {self!r}")
            return found[0]

    def clear(self) -> None:
        """Forget what has arrived so far, and what was dropped."""
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
        with suppress(ValueError):  # the test has removed it by itself
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
    """An event of any type in a few words."""
    text = type(event).__name__
    if name := getattr(event, "name", ""):
        text += f" {name}"
    if filename := getattr(event, "filename", ""):
        text += f" ({filename}:{event.lineno})"
    return f"{text} {event.duration:.3f} s" if hasattr(event, "duration") else text


# Every hook there is, so that events of hooks that are added to the list are kept too.
for _hook in instruments.HOOKS:
    setattr(Recorder, _hook, Recorder._keep)

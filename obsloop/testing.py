"""What our tests, and a user's tests, need to have time in their own hands."""

from __future__ import annotations

import selectors
from types import TracebackType

from obsloop import _clock, _core, _start


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
        self._saved = (_clock.monotonic_ns, _start.Loop.time)
        _core.set_clock(self.monotonic_ns)
        _start.Loop.time = staticmethod(self.time)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        clock, _start.Loop.time = self._saved
        _core.set_clock(clock)


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

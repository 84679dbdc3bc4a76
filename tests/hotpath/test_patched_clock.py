"""Tests that freeze or move the time of a loop find the same on ours as on the stock loop; our own figures are safe."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

import obsloop
from obsloop.base import clock as _clock
from obsloop.blocking import watchdog
from obsloop.events import LoopUnblocked
from obsloop.testing import Recorder
from tests.support import DURATION, LIMIT, run_briefly

from .support import run_all


class Shifted:
    """The real clock and some: an hour, when the test says so."""

    shift = 0.0
    real = staticmethod(time.monotonic)

    def __call__(self, loop: Any = None) -> float:
        return self.real() + self.shift


def _method(clock: Any) -> Any:
    def time_of_loop(self: Any) -> float:
        return clock()

    return time_of_loop


def by_module(loop: Any, clock: Any) -> Any:
    """As `freezegun` and most tests do it."""
    return mock.patch("time.monotonic", clock)


def by_global(loop: Any, clock: Any) -> Any:
    """What asyncio has under the name `time`."""
    return mock.patch("asyncio.base_events.time", mock.Mock(monotonic=clock))


def by_stock_class(loop: Any, clock: Any) -> Any:
    """The method where asyncio defines it."""
    return mock.patch.object(asyncio.BaseEventLoop, "time", _method(clock))


def by_class(loop: Any, clock: Any) -> Any:
    """The method on the loop's own class."""
    return mock.patch.object(type(loop), "time", _method(clock))


def by_loop(loop: Any, clock: Any) -> Any:
    """The method on this loop alone."""
    return mock.patch.object(loop, "time", clock)


PATCHES: tuple[Callable[[Any, Any], Any], ...] = (by_module, by_global, by_stock_class, by_class, by_loop)


@pytest.mark.parametrize("patch", PATCHES)
def test_a_timer_of_an_hour_is_due_when_the_clock_says_so(make_loop, patch):
    """It is made and run under the patch; before and after it, the real clock holds."""
    loop, clock, told = make_loop(), Shifted(), []
    loop.call_later(1800, told.append, "half an hour")
    run_briefly(loop)
    with patch(loop, clock):
        loop.call_later(3600, told.append, "an hour")
        run_briefly(loop)
        assert told == []
        clock.shift = 3000
        assert loop.time() >= clock.real() + 2999
        run_all(loop)
        assert told == ["half an hour"]
        clock.shift = 4000
        run_all(loop)
        assert told == ["half an hour", "an hour"]
        late = loop.call_later(10, told.append, "by the shifted clock")
        assert late.when() >= clock.real() + 4000
    assert loop.time() < clock.real() + 1
    loop.call_later(0, told.append, "by the real clock")
    run_all(loop)
    run_all(loop)
    assert told[2:] == ["by the real clock"]


@pytest.mark.parametrize("patch", PATCHES)
def test_a_patch_that_a_callback_makes_holds_at_once(make_loop, patch):
    """In the iteration that has begun already, and from the next line on."""
    loop, clock, made = make_loop(), Shifted(), []
    clock.shift = 5000

    def callback() -> None:
        with patch(loop, clock):
            made.append(loop.call_later(1, print).when())
        made.append(loop.call_later(1, print).when())

    loop.call_soon(callback)
    run_briefly(loop)
    assert made[0] > clock.real() + 4900
    assert made[1] < clock.real() + 2


def test_a_subclass_has_its_own_time(make_loop):
    """A method, a static one, and one that asks asyncio's."""
    for time_of in (lambda self: 5.0, staticmethod(lambda: 5.0), lambda self: super(type(self), self).time() * 0 + 5):
        loop = make_loop()
        cls = type("Mine", (type(loop),), {"time": time_of})
        mine = cls()
        assert mine.time() == 5.0
        assert mine.call_later(1, print).when() == 6.0
        mine.close()


def test_a_time_set_on_a_loop_stays_when_it_is_observed():
    """A running stock loop with a clock of its own is turned, and turned back to asyncio's clock later."""
    loop: Any = asyncio.SelectorEventLoop()
    plain: Any = asyncio.SelectorEventLoop()
    try:
        loop.time = lambda: 5.0
        obsloop.instrument(loop)
        obsloop.instrument(plain)
        assert loop.call_later(1, print).when() == 6.0
        with mock.patch("time.monotonic", return_value=7.0):
            assert plain.call_later(1, print).when() == 8.0
    finally:
        loop.close()
        plain.close()


def test_a_delay_of_the_programs_own_type(make_loop):
    """All that asyncio wants of it is that it can be added to a float."""

    class Delay:
        def __radd__(self, now: float) -> float:
            return now - 1.0

    loop, told = make_loop(), []
    loop.call_later(Delay(), told.append, "due")
    run_all(loop)
    assert told == ["due"]


@contextmanager
def frozen() -> Iterator[None]:
    """What freezegun does to the clocks: every module's reference to one becomes a reference to another."""
    fakes = {id(time.monotonic): lambda: 1.8e9, id(time.monotonic_ns): lambda: 1_800_000_000_000_000_000}
    changed = []
    for name, module in list(sys.modules.items()):
        if name == __name__:
            continue
        for attribute, value in list(vars(module).items()):
            if id(value) in fakes:
                changed.append((module, attribute, value))
                setattr(module, attribute, fakes[id(value)])
    try:
        yield
    finally:
        for module, attribute, value in changed:
            setattr(module, attribute, value)


def test_figures_are_of_the_real_clock_while_the_time_is_frozen(clean_metrics):
    """Durations stay sums of what has passed, though every clock that the program sees stands at another year."""
    loop = obsloop.Loop()
    begin = _clock.monotonic_ns()
    with frozen():
        assert time.monotonic() == 1.8e9
        for _ in range(3):
            loop.call_soon(sum, range(1000))
            run_briefly(loop)
    run_briefly(loop)
    passed = (_clock.monotonic_ns() - begin) / 1e9
    snapshot = loop.snapshot()
    loop.close()
    assert 0 < snapshot.histogram(DURATION, "callback").sum < passed
    assert (
        0 < sum(snapshot.value("asyncio.eventloop.time", s) for s in ("idle", "poll", "callback", "overhead")) < passed
    )


def test_the_watchdog_goes_on_after_the_time_was_frozen():
    """It looked at a loop while every clock stood at another year: it still wakes for the next loop, and reports it."""
    before = time.monotonic()
    with frozen():
        loop = obsloop.Loop()
        loop.slow_callback_duration = 0.02
        loop.call_soon(block_until_seen, loop)
        run_briefly(loop)
        loop.close()
        assert watchdog._life is not None
        assert before < watchdog._life.looked_ns / 1e9 < 1.7e9
    with Recorder() as events:
        # In another thread: a loop that the watchdog does not know yet rings for it.
        thread = threading.Thread(target=lambda: obsloop.run(asyncio.sleep(0.01)))
        thread.start()
        thread.join()
        loop = obsloop.Loop()
        loop.call_soon(time.sleep, 0.15)
        run_briefly(loop)
        loop.close()
        events.wait_for(LoopUnblocked, LIMIT)


def block_until_seen(loop: obsloop.Loop) -> None:
    """Block the loop until the watchdog has looked at it. Counts steps: the clock may be frozen."""
    for _ in range(round(LIMIT / 0.01)):
        if loop._obsloop.episode is not None:
            return
        time.sleep(0.01)
    pytest.fail("the watchdog has not looked")

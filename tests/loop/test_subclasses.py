"""A program's own loop class on top of ours: what it overrides is used, and what runs is timed all the same."""

import asyncio
import contextlib
import socket

import pytest

import obsloop
from tests.support import DURATION, assert_holds, counts, ran_ns, run_briefly, stepped as stepped_loop


def test_an_overridden_run_once_is_called_for_each_iteration():
    """One call, one iteration, as test loops expect it; the figures are as ever."""

    class Counting(obsloop.Loop):
        calls = 0

        def _run_once(self) -> None:
            self.calls += 1
            super()._run_once()

    with stepped_loop(Counting) as (clock, loop):
        for seconds in (1, 2, 3):
            loop.call_later(seconds, clock.advance, 0.5)
        loop.call_later(10, loop.stop)
        loop.run_forever()
        snapshot = loop.snapshot()
        assert loop.calls == snapshot.value("asyncio.eventloop.iterations") >= 4
        assert_holds(snapshot.histogram(DURATION, "timer"), [0.5, 0.5, 0.5, 0])
        assert ran_ns(snapshot) == 10 * 10**9
        assert not snapshot.running


@pytest.mark.parametrize("how", ["stop", "raise"])
def test_an_overridden_run_once_that_ends_the_run_ends_it_in_the_books(how):
    """It stops the loop, or raises, after the iteration: the loop does not run, and the pause is nobody's time."""

    class Ending(obsloop.Loop):
        ends = True

        def _run_once(self) -> None:
            super()._run_once()
            if self.ends and how == "stop":
                self.stop()
            elif self.ends:
                raise KeyboardInterrupt

    with stepped_loop(Ending) as (clock, loop):
        for _ in range(2):
            loop.call_soon(clock.advance, 2)
            with contextlib.suppress(KeyboardInterrupt):
                loop.run_forever()
            assert not loop.is_running()
            assert not loop.snapshot().running
            clock.advance(1000)
            assert loop.snapshot().blocked_time == 0
        assert ran_ns(loop.snapshot()) == 4 * 10**9


def test_overridden_scheduling_methods_are_used_and_their_callbacks_timed():
    """call_soon, call_at and call_soon_threadsafe of the program's own, each calling ours."""

    class Noting(obsloop.Loop):
        def __init__(self, *args) -> None:
            self.noted: list[str] = []
            super().__init__(*args)

        def call_soon(self, callback, *args, context=None):
            self.noted.append("call_soon")
            return super().call_soon(callback, *args, context=context)

        def call_at(self, when, callback, *args, context=None):
            self.noted.append("call_at")
            return super().call_at(when, callback, *args, context=context)

        def call_soon_threadsafe(self, callback, *args, context=None):
            self.noted.append("call_soon_threadsafe")
            return super().call_soon_threadsafe(callback, *args, context=context)

    with stepped_loop(Noting) as (clock, loop):

        async def main() -> None:
            loop.call_soon(clock.advance, 1)
            loop.call_at(loop.time() + 10, clock.advance, 2)
            loop.call_soon_threadsafe(clock.advance, 4)
            await asyncio.sleep(20)

        loop.run_until_complete(main())
        snapshot = loop.snapshot()
        assert {"call_soon", "call_at", "call_soon_threadsafe"} <= set(loop.noted)
        assert snapshot.histogram(DURATION, "callback").sum == 1
        assert snapshot.histogram(DURATION, "timer").sum == 2
        assert snapshot.histogram(DURATION, "threadsafe").sum == 4


def test_call_later_of_ours_reaches_a_call_at_of_the_programs():
    """asyncio's call_later calls self.call_at: a class that overrides only call_at sees every timer."""

    class Noting(obsloop.Loop):
        noted = 0

        def call_at(self, when, callback, *args, context=None):
            self.noted += 1
            return super().call_at(when, callback, *args, context=context)

    with stepped_loop(Noting) as (_, loop):
        loop.call_later(1, loop.stop)
        loop.run_forever()
        assert loop.noted == 1
        assert counts(loop.snapshot())["timer"] == 1


def test_an_overridden_time_is_what_timers_go_by():
    """A clock that runs ten times as fast: a timer of 10 s comes after 1 s, and is not late."""

    class Fast(obsloop.Loop):
        def time(self) -> float:
            return 10 * super().time()

    with stepped_loop(Fast) as (clock, loop):
        began = clock.time()
        ticks: list[float] = []
        loop.call_later(10, loop.stop)
        select = loop._selector.select

        def tenth(timeout=None):
            ticks.append(timeout)
            return select(None if timeout is None else timeout / 10)

        loop._selector.select = tenth
        loop.run_forever()
        assert clock.time() - began == pytest.approx(1)
        assert loop.snapshot().histogram("asyncio.eventloop.timer.lateness").sum == pytest.approx(0)


def test_overridden_process_events_are_called_with_what_select_returned(clean_metrics):
    """The program's own _process_events, on the standard selector: it sees the events, which are counted and timed."""

    class Noting(obsloop.Loop):
        seen = 0

        def _process_events(self, event_list) -> None:
            self.seen += len(event_list)
            super()._process_events(event_list)

    loop = Noting()
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, ours.recv, 1)
    theirs.send(b"xy")
    run_briefly(loop)
    run_briefly(loop)
    loop.remove_reader(ours)
    ours.close()
    theirs.close()
    snapshot = loop.snapshot()
    assert loop.seen == snapshot.value("asyncio.eventloop.events") == 2
    assert counts(snapshot) == {"reader": 2}
    loop.close()


def test_iterations_driven_from_outside_are_balanced(stepped):
    """`_run_once` called without run_forever, as test suites do: each call is a run of its own."""
    clock, loop = stepped
    for _ in range(3):
        loop.call_soon(clock.advance, 1)
        loop._run_once()
        clock.advance(100)
    assert ran_ns(loop.snapshot()) == 3 * 10**9
    assert not loop.snapshot().running


def test_an_iteration_within_a_callback_counts_no_time_twice(stepped):
    """A nested `_run_once`, as nest-asyncio programs do: the callback within is not counted in the outer one again."""
    clock, loop = stepped

    def outer() -> None:
        clock.advance(1)
        loop.call_soon(clock.advance, 2)
        loop._run_once()
        clock.advance(4)
        loop.stop()

    loop.call_soon(outer)
    loop.run_forever()
    snapshot = loop.snapshot()
    assert ran_ns(snapshot) == 7 * 10**9
    assert counts(snapshot) == {"callback": 2}


def test_a_nested_iteration_that_stops_the_loop_leaves_the_books_balanced(stepped):
    """stop() within a nested iteration: the run ends once, with the outer callback."""
    clock, loop = stepped

    def outer() -> None:
        clock.advance(1)
        loop.stop()
        loop._run_once()
        clock.advance(4)

    loop.call_soon(outer)
    loop.run_forever()
    assert ran_ns(loop.snapshot()) == 5 * 10**9


def test_a_loop_that_was_never_set_up_says_so_as_the_stock_loop_does():
    """A subclass that schedules before `super().__init__()` gets an AttributeError, from both."""
    for cls in (asyncio.SelectorEventLoop, obsloop.Loop):

        class Early(cls):
            def __init__(self) -> None:
                with pytest.raises(AttributeError):
                    self.call_soon(str)
                with pytest.raises(AttributeError):
                    self.call_later(1, str)
                with pytest.raises(AttributeError):
                    self.get_debug()
                super().__init__()

        Early().close()

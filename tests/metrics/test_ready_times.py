"""When a callback was ready: delays are true, and none is invented for what could not have run earlier."""

import asyncio
import socket

import pytest

import obsloop
from tests.support import DELAY, DURATION, assert_holds, counts, run_briefly, stepped as stepped_loop

LATENESS = "asyncio.eventloop.timer.lateness"


def test_the_delay_of_a_handle_contains_what_ran_before_it_in_the_batch(stepped):
    """Three callbacks ready at once, of 1, 2 and 4 s: they waited 0, 1 and 3 s."""
    clock, loop = stepped

    def put() -> None:
        for seconds in (1, 2, 4):
            loop.call_soon(clock.advance, seconds)
        loop.call_soon(loop.stop)

    loop.call_soon(put)
    loop.run_forever()
    assert_holds(loop.snapshot().histogram(DURATION, "callback"), [0, 1, 2, 4, 0])
    assert_holds(loop.snapshot().histogram(DELAY, "callback"), [0, 0, 1, 3, 7])


def test_a_slow_callback_adds_no_delay_to_what_it_schedules_at_its_end(stepped):
    """What a callback schedules after 5 s of work is ready then, not when the callback began."""
    clock, loop = stepped

    def slow() -> None:
        clock.advance(5)
        loop.call_soon(loop.stop)

    loop.call_soon(slow)
    loop.run_forever()
    assert_holds(loop.snapshot().histogram(DELAY, "callback"), [0, 0])


def test_a_timer_is_late_by_what_kept_the_loop_from_it(stepped):
    """Due in the middle of a callback of 10 s: the lateness is the rest of that callback, and is its delay too."""
    clock, loop = stepped
    loop.call_later(4, loop.stop)
    loop.call_soon(clock.advance, 10)
    loop.run_forever()
    assert_holds(loop.snapshot().histogram(LATENESS), [6])
    assert_holds(loop.snapshot().histogram(DELAY, "timer"), [6])


def test_timers_of_one_batch_are_late_each_from_its_own_time(stepped):
    """Due after 1, 2 and 3 s, run after 5 s, the first for 1 s: late by 4, 4 and 3 s."""
    clock, loop = stepped
    loop.call_later(1, clock.advance, 1)
    loop.call_later(2, str)
    loop.call_later(3, loop.stop)
    loop.call_soon(clock.advance, 5)
    loop.run_forever()
    assert_holds(loop.snapshot().histogram(LATENESS), [4, 4, 3])


def test_a_timer_in_time_is_not_late(stepped):
    """An idle loop runs its timers when they are due."""
    _, loop = stepped
    for seconds in (0, 0.5, 7, 3600, 100_000):
        loop.call_later(seconds, loop.stop)
        loop.run_forever()
    assert_holds(loop.snapshot().histogram(LATENESS), [0] * 5)


@pytest.mark.parametrize("put", ["call_at a time long past", "call_at 0", "call_later a negative delay"])
def test_a_moment_that_has_passed_means_now(stepped, put):
    """A timer for the past was ready when it was scheduled: no hours of delay are invented."""
    clock, loop = stepped

    def schedule() -> None:
        if put == "call_at a time long past":
            loop.call_at(loop.time() - 500, loop.stop)
        elif put == "call_at 0":
            loop.call_at(0, loop.stop)
        else:
            loop.call_later(-500, loop.stop)
        clock.advance(2)

    loop.call_soon(schedule)
    loop.run_forever()
    assert_holds(loop.snapshot().histogram(LATENESS), [2])


def test_a_timer_moved_to_the_front_by_a_negative_delay_keeps_its_order(stepped):
    """The heap still sorts by `when`: the most overdue runs first."""
    _, loop = stepped
    ran: list[str] = []
    loop.call_later(-1, ran.append, "second")
    loop.call_later(-2, ran.append, "first")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == ["first", "second"]


@pytest.mark.parametrize("way", ["callback", "timer", "task", "threadsafe"])
def test_what_was_scheduled_before_the_loop_ran_is_ready_when_it_starts(stepped, way):
    """A program that makes its loop, then loads for a minute, has no minute of delay."""
    clock, loop = stepped
    schedule = {
        "callback": lambda: loop.call_soon(str),
        "timer": lambda: loop.call_later(1, str),
        "task": lambda: tasks.append(loop.create_task(asyncio.sleep(0))),
        "threadsafe": lambda: loop.call_soon_threadsafe(str),
    }[way]
    tasks: list[asyncio.Task[None]] = []
    schedule()
    clock.advance(60)
    run_briefly(loop)
    for _ in range(2):  # and again: between two runs the loop stood still as well
        schedule()
        clock.advance(60)
        run_briefly(loop)
    run_briefly(loop)
    snapshot = loop.snapshot()
    assert sum(snapshot.histogram(DELAY, kind).sum for (kind,) in snapshot[DELAY]) == 0


def test_what_was_ready_in_a_run_and_left_waits_anew_in_the_next(stepped):
    """A callback left over by stop() is ready again when the loop starts again."""
    clock, loop = stepped
    loop.call_soon(lambda: (loop.stop(), loop.call_soon(clock.advance, 3)))
    loop.run_forever()
    clock.advance(100)
    run_briefly(loop)
    assert_holds(loop.snapshot().histogram(DELAY, "callback"), [0, 0])


def test_descriptors_are_ready_when_the_poll_returns(stepped):
    """Two readers found by one poll, the first works for 2 s: the second waited 2 s."""
    clock, loop = stepped
    pairs = [socket.socketpair() for _ in range(2)]
    for ours, theirs in pairs:
        theirs.send(b"x")
        loop.add_reader(ours, lambda ours=ours: (ours.recv(1), clock.advance(2)))
    run_briefly(loop)
    for ours, theirs in pairs:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
    assert_holds(loop.snapshot().histogram(DELAY, "reader"), [0, 2])
    assert_holds(loop.snapshot().histogram(DURATION, "reader"), [2, 2])


def test_a_reader_is_stamped_at_each_poll_that_returns_it(stepped):
    """A watched descriptor is one handle, run many times: each time its delay counts from that poll."""
    clock, loop = stepped
    ours, theirs = socket.socketpair()
    theirs.send(b"xyz")
    loop.add_reader(ours, lambda: (ours.recv(1), clock.advance(1)))
    for _ in range(3):
        run_briefly(loop)
        clock.advance(50)
    loop.remove_reader(ours)
    ours.close()
    theirs.close()
    assert_holds(loop.snapshot().histogram(DELAY, "reader"), [0, 0, 0])


def test_a_cancelled_handle_is_not_counted(stepped):
    """Cancelled before its turn, by any way: it did not run, so it has neither duration nor delay."""
    _, loop = stepped
    handles = [loop.call_soon(str), loop.call_later(0, str), loop.call_soon_threadsafe(str)]
    for handle in handles:
        handle.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert counts(loop.snapshot()) == {"callback": 1, "reader": 1}  # stop(), and the wake-up of the thread's call


def test_a_subclass_with_a_clock_of_its_own_has_true_lateness():
    """`time()` may be the program's own (here it runs from zero): timers are timed all the same."""

    class FromZero(obsloop.Loop):
        def time(self) -> float:
            return super().time() - 1000

    with stepped_loop(FromZero) as (clock, loop):
        loop.call_at(4, loop.stop)
        loop.call_soon(clock.advance, 10)
        loop.run_forever()
        assert_holds(loop.snapshot().histogram(LATENESS), [6])

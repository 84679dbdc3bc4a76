"""call_later, call_at, time(), and the TimerHandle they return."""

import asyncio
import contextvars
import functools
import gc
import itertools
import time
import weakref

import pytest

from .support import LIMIT, run, run_batch, run_forever

story = contextvars.ContextVar("story", default="untold")


def schedule(loop, method, delay, callback, *args, **kwargs):
    """Call `callback` after `delay` seconds, by either method."""
    when = delay if method == "call_later" else loop.time() + delay
    return getattr(loop, method)(when, callback, *args, **kwargs)


both = pytest.mark.parametrize("method", ["call_later", "call_at"])


def test_time_is_a_monotonic_float(loop):
    """The loop's clock gives floats that never go back, and by default it is time.monotonic()."""
    before = time.monotonic()
    readings = [loop.time() for _ in range(1000)]
    after = time.monotonic()
    assert all(isinstance(reading, float) for reading in readings)
    assert [before, *readings, after] == sorted([before, *readings, after])


@both
@pytest.mark.parametrize("delay", [0, 0.0, 0.03, -1, True])
def test_delay_may_be_int_or_float(loop, method, delay):
    """The callback runs, not before its time by the loop's clock, whatever number the delay is."""
    seen = []
    start = loop.time()
    schedule(loop, method, delay, lambda: (seen.append(loop.time()), loop.stop()))
    run_forever(loop)
    # The loop takes as due what falls within one tick of its clock.
    assert seen[0] - start >= delay - time.get_clock_info("monotonic").resolution


def test_when_may_be_an_int(loop):
    """call_at takes an int as well; one in the past is due at once."""
    seen = []
    handle = loop.call_at(int(loop.time()) - 1, seen.append, "due")
    assert isinstance(handle.when(), int)
    run_batch(loop)
    assert seen == ["due"]


@both
def test_no_delay_is_no_call_in_place(loop, method):
    """A delay of zero does not run the callback inside the call."""
    seen = []
    schedule(loop, method, 0, seen.append, 1)
    assert seen == []
    run(loop, asyncio.sleep(0.001))
    assert seen == [1]


@both
def test_order_is_that_of_the_times(loop, method):
    """Timers run in the order of their times, not of their registration."""
    seen = []
    base = loop.time()
    for number in (3, 1, 4, 0, 2):
        if method == "call_at":
            loop.call_at(base + number / 1000, seen.append, number)
        else:
            loop.call_later(number / 100, seen.append, number)
    schedule(loop, method, 0.1, loop.stop)
    run_forever(loop)
    assert seen == [0, 1, 2, 3, 4]


def test_order_when_all_are_due_together(loop):
    """The order is kept when a busy loop finds many timers due in one batch."""
    seen = []
    past = loop.time() - 1
    numbers = [(number * 7919) % 1009 for number in range(1009)]
    for number in numbers:
        loop.call_at(past + number / 10_000, seen.append, number)
    run_batch(loop)
    assert seen == list(range(1009))


@both
def test_called_exactly_once(loop, method):
    """A timer that has fired does not fire again, and two at the same time are two calls."""
    seen = []
    for number in range(2):
        schedule(loop, method, 0, seen.append, number)
    run(loop, asyncio.sleep(0.02))
    assert sorted(seen) == [0, 1]


@both
def test_positional_arguments_and_partial_keywords(loop, method):
    """As for call_soon."""
    seen = []

    def callback(*args, **kwargs):
        seen.append((args, kwargs))

    schedule(loop, method, -2, callback, 1, 2)
    schedule(loop, method, -1, functools.partial(callback, flush=True), 3)
    run_batch(loop)
    assert seen == [((1, 2), {}), ((3,), {"flush": True})]
    with pytest.raises(TypeError):
        schedule(loop, method, 0, callback, flush=True)


@both
def test_none_is_no_time(loop, method):
    """None as the time is a TypeError at once, not a failure inside the loop."""
    with pytest.raises(TypeError):
        getattr(loop, method)(None, print)


@both
def test_handle_is_a_timer_handle(loop, method):
    """What is returned is a TimerHandle that knows its time by the loop's clock."""
    before = loop.time()
    handle = schedule(loop, method, 10, print)
    assert isinstance(handle, asyncio.TimerHandle)
    assert before + 10 <= handle.when() <= loop.time() + 10
    assert handle.cancelled() is False
    handle.cancel()
    assert handle.cancelled() is True


def test_when_is_what_was_asked_for(loop):
    """call_at's handle gives back the very time."""
    when = loop.time() + 12.345
    handle = loop.call_at(when, print)
    assert handle.when() == when
    handle.cancel()
    assert handle.when() == when


def test_timer_handles_compare_by_time(loop):
    """TimerHandles order by when(), which sorted containers of handles rely on."""
    base = loop.time() + LIMIT
    early, late = loop.call_at(base, print), loop.call_at(base + 1, print)
    again = loop.call_at(base, print)
    assert early < late
    assert early <= late
    assert late > early
    assert late >= early
    assert early == again
    assert hash(early) == hash(again)
    assert early != late
    assert early != object()
    again.cancel()
    assert early != again


@both
def test_cancel_before_afterwards_twice_and_by_itself(loop, method):
    """Cancelling a timer works as for a Handle."""
    seen = []
    handles = []

    def by_itself():
        handles[0].cancel()
        seen.append("by itself")

    never = schedule(loop, method, 0, seen.append, "never")
    ran = schedule(loop, method, 0, seen.append, "ran")
    handles.append(schedule(loop, method, 0.001, by_itself))
    never.cancel()
    never.cancel()
    run(loop, asyncio.sleep(0.02))
    ran.cancel()
    ran.cancel()
    run(loop, asyncio.sleep(0.01))
    assert seen == ["ran", "by itself"]


def test_cancel_in_the_batch_in_which_it_is_due(loop):
    """A due timer can be cancelled by a callback that runs before it in the same batch."""
    handle = loop.call_at(loop.time() - 1, pytest.fail, "was cancelled")
    loop.call_soon(handle.cancel)
    run_batch(loop)
    run_batch(loop)


def test_cancelled_timers_do_not_pile_up(loop):
    """Far timers that were cancelled are dropped with all they hold, long before their time."""

    class Heavy:
        def __call__(self):
            pass

    handles = weakref.WeakSet()
    for _ in range(1000):
        handle = loop.call_later(3600, Heavy())
        handles.add(handle)
        handle.cancel()
    keep = loop.call_later(LIMIT, print)
    del handle
    run_batch(loop)
    gc.collect()
    # asyncio sweeps once there are more than a hundred, and more than half of all timers.
    assert len(handles) <= 100
    keep.cancel()


def test_live_timers_survive_the_sweep_of_cancelled_ones(loop):
    """The sweep keeps the live ones, and their order."""
    seen = []
    base = loop.time()
    cancelled = []
    for number in range(600):
        if number % 3:
            cancelled.append(loop.call_at(base + 0.02 + number / 100_000, pytest.fail, "cancelled"))
        else:
            loop.call_at(base + 0.02 + number / 100_000, seen.append, number)
    for handle in cancelled:
        handle.cancel()
    run(loop, asyncio.sleep(0.1))
    assert seen == list(range(0, 600, 3))


@both
def test_context(loop, method):
    """A timer runs in the context of its caller, or in the one that is given."""
    seen = []
    context = contextvars.copy_context()
    context.run(story.set, "given")

    def scheduling():
        story.set("the caller's")
        schedule(loop, method, -2, lambda: seen.append(story.get()))

    contextvars.copy_context().run(scheduling)
    schedule(loop, method, -1, lambda: seen.append(story.get()), context=context)
    run_batch(loop)
    assert seen == ["the caller's", "given"]


def test_repr_names_time_and_callback(loop):
    """A timer's repr has when= and the callback; of a cancelled one, that it is cancelled."""

    def a_known_name():
        pass

    handle = loop.call_later(LIMIT, a_known_name)
    assert repr(handle).startswith("<TimerHandle when=")
    assert "a_known_name()" in repr(handle)
    handle.cancel()
    assert repr(handle).startswith("<TimerHandle cancelled when=")


def test_a_timer_made_by_a_timer(loop):
    """A callback reschedules itself: each round waits its delay out."""
    seen = []

    def tick():
        seen.append(loop.time())
        if len(seen) == 4:
            loop.stop()
        else:
            loop.call_later(0.02, tick)

    loop.call_soon(tick)
    run_forever(loop)
    resolution = time.get_clock_info("monotonic").resolution
    assert all(b - a >= 0.02 - resolution for a, b in itertools.pairwise(seen))


def test_a_timer_wakes_a_loop_that_has_nothing_else(loop):
    """Sleeps, timeouts and wait_for stand on timers."""

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.01)
        async with asyncio.timeout(LIMIT):
            return await asyncio.sleep(0.01, "slept")

    assert run(loop, main()) == "slept"


def test_a_subclass_may_bring_its_own_clock(loop_class):
    """time() can be overridden; timers follow the loop's own clock."""

    class Stepping(loop_class):
        now = 1000.0

        def time(self):
            return self.now

    loop = Stepping()
    try:
        seen = []
        handle = loop.call_later(3600, seen.append, "an hour later")
        assert handle.when() == 4600.0
        run_batch(loop)
        assert seen == []
        loop.now += 3600
        run_batch(loop)
        assert seen == ["an hour later"]
    finally:
        loop.close()

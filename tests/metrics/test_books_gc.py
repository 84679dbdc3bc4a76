"""Time in the garbage collector is in state gc, once, wherever in the loop's thread a collection is set off."""

import gc
import threading

import pytest

import obsloop
from tests.support import run_briefly, states_ns, stepped as stepped_loop

MS = 1_000_000


class Garbage:
    """A cycle that takes a known time to collect."""

    def __init__(self, clock, seconds: float) -> None:
        self.itself, self.clock, self.seconds = self, clock, seconds

    def __del__(self) -> None:
        self.clock.advance(self.seconds)


def collect(clock, seconds: float) -> None:
    """Leave garbage and collect it."""
    Garbage(clock, seconds)
    gc.collect()


def test_a_collection_within_a_callback_is_gc_and_not_callback(stepped):
    """A callback of 1 s with a collection of 4 s in it: state callback has 1 s, gc 4 s; its duration is 5 s."""
    clock, loop = stepped

    def callback() -> None:
        clock.advance(1)
        collect(clock, 4)

    loop.call_soon(callback)
    run_briefly(loop)
    snapshot = loop.snapshot()
    assert states_ns(snapshot) == {"idle": 0, "poll": 0, "callback": 1000 * MS, "gc": 4000 * MS, "overhead": 0}
    assert snapshot.histogram("asyncio.eventloop.callback.duration", "callback").sum == 5.0


@pytest.mark.parametrize("timeout", ["poll", "idle"])
def test_a_collection_within_select_leaves_the_books_balanced(stepped, timeout):
    """A selector in Python can set off the collector: its time is counted once, as gc."""
    clock, loop = stepped
    select = loop._selector.select

    def collecting(timeout=None):
        loop._selector.select = select
        collect(clock, 4)
        return select(timeout)

    loop._selector.select = collecting
    if timeout == "poll":
        loop.call_soon(loop.stop)
    else:
        loop.call_later(1, loop.stop)
    began = clock.monotonic_ns()
    loop.run_forever()
    got = states_ns(loop.snapshot())
    assert sum(got.values()) == clock.monotonic_ns() - began
    assert got["gc"] == 4000 * MS


def test_a_collection_in_the_loops_own_work_is_gc_and_not_overhead():
    """A collection while the loop handles events is taken out of the overhead."""

    class Collecting(obsloop.Loop):
        def _process_events(self, event_list) -> None:
            collect(the_clock[0], 2)
            super()._process_events(event_list)

    the_clock = []
    with stepped_loop(Collecting) as (clock, loop):
        the_clock.append(clock)
        run_briefly(loop)
        assert states_ns(loop.snapshot()) == {"idle": 0, "poll": 0, "callback": 0, "gc": 2000 * MS, "overhead": 0}


def test_a_collection_in_another_thread_is_not_the_loops(stepped):
    """Who sets the collector off pays for it: another thread's collection during a callback stays callback time."""
    clock, loop = stepped

    def callback() -> None:
        thread = threading.Thread(target=collect, args=(clock, 3))
        thread.start()
        thread.join()

    loop.call_soon(callback)
    run_briefly(loop)
    assert states_ns(loop.snapshot())["callback"] == 3000 * MS
    assert states_ns(loop.snapshot())["gc"] == 0

"""The books balance: idle + poll + callback + gc + overhead is the time that the loop ran, whatever ran on it."""

import asyncio
import selectors
import socket
import threading
import time

import pytest
from hypothesis import given, settings, strategies as st

import obsloop
from tests.support import ran_ns, run_briefly, states_ns, stepped as stepped_loop

MS = 1_000_000
SELECTORS = [
    selectors.DefaultSelector,
    *(getattr(selectors, n) for n in ("SelectSelector", "PollSelector") if hasattr(selectors, n)),
]


class Boom(Exception):
    """What the callbacks of these tests raise."""


class Scenario:
    """Puts known work on a stepped loop and keeps its own account of it."""

    def __init__(self, clock, loop) -> None:
        self.clock, self.loop, self.callback_ms = clock, loop, 0
        self.ours, self.theirs = socket.socketpair()
        self.tasks: list[asyncio.Task[None]] = []
        loop.set_exception_handler(lambda loop, context: self.spend(1))

    def close(self) -> None:
        self.loop.remove_reader(self.ours)
        self.ours.close()
        self.theirs.close()
        while not all(task.done() for task in self.tasks):
            self.clock.advance(1)
            run_briefly(self.loop)

    def spend(self, ms: int) -> None:
        self.callback_ms += ms
        self.clock.advance(ms / 1000)

    def fail(self, ms: int) -> None:
        self.spend(ms)
        raise Boom

    def from_thread(self, ms: int) -> None:
        thread = threading.Thread(target=self.loop.call_soon_threadsafe, args=(self.spend, ms))
        thread.start()
        thread.join()

    def read(self, ms: int) -> None:
        self.ours.recv(1)
        self.spend(ms)

    def watch(self, ms: int) -> None:
        self.theirs.send(b"x")
        self.loop.add_reader(self.ours, self.read, ms)

    def task(self, ms: int) -> None:
        async def steps() -> None:
            self.spend(ms)
            await asyncio.sleep(0)
            self.spend(ms)
            await asyncio.sleep(ms / 1000)

        self.tasks.append(self.loop.create_task(steps()))

    def put(self, way: str, ms: int) -> None:
        match way:
            case "callback":
                self.loop.call_soon(self.spend, ms)
            case "timer":
                self.loop.call_later(ms / 500, self.spend, ms)
            case "cancelled":
                self.loop.call_later(ms / 500, self.spend, ms).cancel()
            case "raises":
                self.loop.call_soon(self.fail, ms)
            case "thread":
                self.from_thread(ms)
            case "reader":
                self.watch(ms)
            case "task":
                self.task(ms)
            case "within":
                self.loop.call_soon(self.put, "callback", ms)
            case "stop":
                self.loop.call_later(ms / 1000, self.loop.stop)


WAYS = ("callback", "timer", "cancelled", "raises", "thread", "reader", "task", "within", "stop")
ACTIONS = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 400)), max_size=12)


@settings(max_examples=120, deadline=None, database=None)
@given(runs=st.lists(st.tuples(ACTIONS, st.integers(0, 5000)), min_size=1, max_size=4), debug=st.booleans())
def test_the_states_sum_to_the_time_that_the_loop_ran(runs, debug):
    """A random mix of everything, stopped and restarted with pauses: the sum is exact, and so is each state."""
    with stepped_loop() as (clock, loop):
        loop.set_debug(debug)
        loop.slow_callback_duration = 1e9
        scenario = Scenario(clock, loop)
        total_ns = 0
        for actions, pause_ms in runs:
            for way, ms in actions:
                scenario.put(way, ms)
            loop.call_later(1, loop.stop)
            began = clock.monotonic_ns()
            loop.run_forever()
            total_ns += clock.monotonic_ns() - began
            clock.advance(pause_ms / 1000)
        got = states_ns(loop.snapshot())
        spent_ns = scenario.callback_ms * MS
        scenario.close()
    assert got == {"idle": total_ns - spent_ns, "poll": 0, "callback": spent_ns, "gc": 0, "overhead": 0}


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_the_books_balance_against_the_real_clock(clean_metrics, selector, debug):
    """Real work on the real clock: the sum lies between what was measured inside and outside; once within 0.1 %."""

    async def work() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        async with server:
            for _ in range(5):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                await reader.read()
                writer.close()
                await writer.wait_closed()
            await asyncio.gather(asyncio.to_thread(time.sleep, 0.02), asyncio.sleep(0.1))
            time.sleep(0.02)
            for _ in range(500):
                await asyncio.sleep(0)

    async def timed() -> None:
        began = time.monotonic_ns()
        await work()
        inside.append(time.monotonic_ns() - began)
        loop.stop()

    loop = obsloop.Loop(selector())
    loop.set_debug(debug)
    loop.slow_callback_duration = 1e9
    inside: list[int] = []
    errors: list[float] = []
    while len(errors) < 10 and min(errors, default=1) > 0.001:
        before = ran_ns(loop.snapshot())
        task = loop.create_task(timed())
        began = time.monotonic_ns()
        loop.run_forever()
        outside = time.monotonic_ns() - began
        got = ran_ns(loop.snapshot()) - before
        task.result()
        assert inside.pop() <= got + 5  # five states, each rounded once
        assert got <= outside + 5
        errors.append((outside - got) / outside)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert min(errors) <= 0.001


def test_time_between_runs_belongs_to_no_state(stepped):
    """An hour's pause between two runs is nowhere."""
    clock, loop = stepped
    loop.call_soon(clock.advance, 1)
    run_briefly(loop)
    before = states_ns(loop.snapshot())
    clock.advance(3600)
    assert states_ns(loop.snapshot()) == before
    loop.call_soon(clock.advance, 1)
    run_briefly(loop)
    assert ran_ns(loop.snapshot()) == 2_000 * MS
    assert not loop.snapshot().running


def test_known_idle_and_poll_are_found(clean_metrics):
    """A wait of 2 s is idle; a poll with time-out 0 that takes 3 s is poll, one value in its histogram."""
    with stepped_loop() as (clock, loop):
        select = loop._selector.select

        def slow_poll(timeout=None):
            if timeout == 0:
                clock.advance(3)
            return select(timeout)

        loop._selector.select = slow_poll
        loop.call_later(2, loop.stop)
        loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()
        snapshot = loop.snapshot()
    assert states_ns(snapshot) == {"idle": 2000 * MS, "poll": 3000 * MS, "callback": 0, "gc": 0, "overhead": 0}
    poll = snapshot.histogram("asyncio.eventloop.poll.duration")
    assert (poll.count, poll.sum) == (1, 3.0)


def test_known_overhead_is_found():
    """Time in the loop's own work, here a slow _process_events, is overhead."""

    class Slow(obsloop.Loop):
        def _process_events(self, event_list) -> None:
            the_clock[0].advance(0.5)
            super()._process_events(event_list)

    the_clock = []
    with stepped_loop(Slow) as (clock, loop):
        the_clock.append(clock)
        for _ in range(3):
            loop.call_soon(clock.advance, 0.25)
            run_briefly(loop)
        assert states_ns(loop.snapshot()) == {
            "idle": 0, "poll": 0, "callback": 750 * MS, "gc": 0, "overhead": 1500 * MS,
        }  # fmt: skip


def test_a_snapshot_within_a_long_callback_shows_the_open_stretch(stepped):
    """A snapshot from another thread in the middle of a callback counts its time so far; the histogram does not yet."""
    clock, loop = stepped
    taken = []

    def callback() -> None:
        clock.advance(7)
        thread = threading.Thread(target=lambda: taken.append(loop.snapshot()))
        thread.start()
        thread.join()
        clock.advance(1)

    loop.call_soon(callback)
    run_briefly(loop)
    (during,) = taken
    assert states_ns(during) == {"idle": 0, "poll": 0, "callback": 7000 * MS, "gc": 0, "overhead": 0}
    assert (during.running, during.blocked_time) == (True, 7.0)
    assert during.histogram("asyncio.eventloop.callback.duration", "callback").count == 0
    assert states_ns(loop.snapshot())["callback"] == 8000 * MS


@pytest.mark.parametrize("waits", [True, False], ids=["idle", "poll"])
def test_a_snapshot_within_a_long_select_shows_the_open_stretch(stepped, waits):
    """A snapshot in the middle of a wait counts it as idle so far, in the middle of a poll as poll."""
    clock, loop = stepped
    select, taken = loop._selector.select, []

    def slow(timeout=None):
        clock.advance(5)
        taken.append(loop.snapshot())
        return select(timeout)

    loop._selector.select = slow
    if waits:
        loop.call_later(1, loop.stop)
    else:
        loop.call_soon(loop.stop)
    loop.run_forever()
    expected = dict.fromkeys(("idle", "poll", "callback", "gc", "overhead"), 0)
    assert states_ns(taken[0]) == expected | {"idle" if waits else "poll": 5000 * MS}
    assert taken[0].blocked_time == 0.0

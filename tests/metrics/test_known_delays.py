"""A known delay and a known duration, put in by each way onto the loop, are found again in the right histogram."""

import asyncio
import os
import selectors
import signal
import socket
import sys
import threading
import time

import pytest

import obsloop
from obsloop.testing import StepClock
from tests.support import DELAY, DURATION, KINDS, buckets_of, counts, forget_everything, kinds_with

WAITED, WORKED = 0.03, 0.07  # seconds, in buckets of their own


class CustomTask(asyncio.Task):
    """A task class of the program's own."""


class CustomPyTask(asyncio.tasks._PyTask):
    """One that derives from asyncio's task in Python."""


class Ways:
    """Each method puts `work` onto a running loop by one way; `in_the_way` runs just before it, in the same batch."""

    def __init__(self, loop, in_the_way, work) -> None:
        self.loop, self.in_the_way, self.work = loop, in_the_way, work
        self.ours, self.theirs = socket.socketpair()
        self.kept: list[object] = []

    def close(self) -> None:
        self.loop.remove_reader(self.ours)
        self.loop.remove_writer(self.ours)
        self.ours.close()
        self.theirs.close()

    async def coroutine(self) -> None:
        self.work()

    def _put_task(self, make) -> None:
        self.loop.call_soon(self.in_the_way)
        self.kept.append(make(self.coroutine(), loop=self.loop))

    def task(self) -> None:
        self._put_task(asyncio.Task)

    def custom_task(self) -> None:
        self._put_task(CustomTask)

    def python_task(self) -> None:
        self._put_task(asyncio.tasks._PyTask)

    def custom_python_task(self) -> None:
        self._put_task(CustomPyTask)

    def _put_wakeup(self, make) -> None:
        async def waits() -> None:
            await future
            self.work()

        future = self.loop.create_future()
        self.kept.append(make(waits(), loop=self.loop))
        self.loop.call_soon(self.loop.call_soon, self.in_the_way)
        self.loop.call_soon(future.set_result, None)

    def wakeup(self) -> None:
        self._put_wakeup(asyncio.Task)

    def custom_wakeup(self) -> None:
        self._put_wakeup(CustomTask)

    def python_wakeup(self) -> None:
        self._put_wakeup(asyncio.tasks._PyTask)

    def callback(self) -> None:
        self.loop.call_soon(self.in_the_way)
        self.loop.call_soon(self.work)

    def done_callback(self) -> None:
        self.loop.call_soon(self.in_the_way)
        future = self.loop.create_future()
        future.add_done_callback(lambda future: self.work())
        future.set_result(None)

    def timer(self) -> None:
        self.loop.call_soon(self.in_the_way)
        self.loop.call_later(0, self.work)

    def reader(self) -> None:
        self.loop.call_soon(self.in_the_way)
        self.theirs.send(b"x")
        self.loop.add_reader(self.ours, self.work)

    def writer(self) -> None:
        self.loop.call_soon(self.in_the_way)
        self.loop.add_writer(self.ours, self.work)

    def threadsafe(self) -> None:
        self.loop.call_soon(self.in_the_way)
        thread = threading.Thread(target=self.loop.call_soon_threadsafe, args=(self.work,))
        thread.start()
        thread.join()

    def signal(self) -> None:
        # First the self-pipe is read, beside this; then the handler runs in the batch after it.
        self.loop.call_soon(self.loop.call_soon, self.in_the_way)
        self.loop.add_signal_handler(signal.SIGUSR1, self.work)
        os.kill(os.getpid(), signal.SIGUSR1)

    def stock_handle(self) -> None:
        self.loop.call_soon(self.in_the_way)
        self.loop._ready.append(asyncio.Handle(self.work, (), self.loop))


KIND_OF_WAY = {
    "task": "task_step", "custom_task": "task_step", "python_task": "task_step", "custom_python_task": "task_step",
    "wakeup": "task_step", "custom_wakeup": "task_step", "python_wakeup": "task_step",
    "callback": "callback", "done_callback": "callback", "timer": "timer", "reader": "reader", "writer": "writer",
    "threadsafe": "threadsafe", "signal": "signal", "stock_handle": "other",
}  # fmt: skip
EVERY_WAY = pytest.mark.parametrize(("way", "kind"), KIND_OF_WAY.items())

SELECTORS = ["stepping", *(n for n in ("EpollSelector", "PollSelector", "SelectSelector") if hasattr(selectors, n))]
DEBUG = pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])


def put(loop, way: str, spend) -> obsloop.Snapshot:
    """Run `way` on the loop, with WAITED in its way and WORKED as its work; the figures after it."""

    def work() -> None:
        spend(WORKED)
        ways.loop.remove_reader(ways.ours)
        ways.loop.remove_writer(ways.ours)
        loop.stop()

    ways = Ways(loop, lambda: spend(WAITED), work)
    loop.slow_callback_duration = 1e9
    loop.call_soon(getattr(ways, way))
    try:
        loop.run_forever()
        return loop.snapshot()
    finally:
        ways.close()
        loop.close()


def test_every_kind_has_a_way():
    """The ways below are all the ways there are."""
    assert set(KIND_OF_WAY.values()) == set(KINDS)


@EVERY_WAY
@DEBUG
@pytest.mark.parametrize("selector", SELECTORS)
def test_what_was_put_in_is_found(way, kind, selector, debug):
    """Exactly there: the duration once and in this kind only, the delay to the nanosecond."""
    forget_everything()
    with StepClock() as clock:
        loop = obsloop.Loop(clock.selector() if selector == "stepping" else getattr(selectors, selector)())
        loop.set_debug(debug)
        snapshot = put(loop, way, clock.advance)
    assert kinds_with(snapshot, DURATION, WORKED) == {kind: 1}
    assert kinds_with(snapshot, DURATION, WAITED) == {"callback": 1}
    delays = snapshot.histogram(DELAY, kind)
    assert delays.sum == WAITED
    assert delays.bucket_counts[min(buckets_of(delays, [WAITED]))] == 1
    assert counts(snapshot, DELAY) == counts(snapshot, DURATION)


@EVERY_WAY
@DEBUG
def test_what_was_put_in_is_found_on_the_real_clock(clean_metrics, way, kind, debug):
    """The same with real sleeps: what the histograms hold lies between what was slept and what the whole run took."""
    loop = obsloop.Loop()
    loop.set_debug(debug)
    began = time.monotonic()
    snapshot = put(loop, way, time.sleep)
    took = time.monotonic() - began
    duration, delay = snapshot.histogram(DURATION, kind), snapshot.histogram(DELAY, kind)
    assert WORKED <= max(duration.sum, 0) <= took
    assert WAITED <= delay.sum <= took * delay.count
    for histogram, slept in ((duration, WORKED), (delay, WAITED)):
        low, high = (min(buckets_of(histogram, [seconds])) for seconds in (slept, took))
        assert sum(histogram.bucket_counts[low : high + 1]) >= 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("how", ["factory", "argument"])
def test_an_eager_step_runs_in_its_parents_handle(stepped, how):
    """An eager task's first step is part of the callback that made it; its later steps are task steps."""
    clock, loop = stepped

    async def eager() -> None:
        clock.advance(WORKED)
        await asyncio.sleep(0)
        clock.advance(WAITED)
        loop.stop()

    def parent() -> None:
        if how == "factory":
            loop.set_task_factory(asyncio.eager_task_factory)
            kept.append(loop.create_task(eager()))
        else:
            kept.append(asyncio.Task(eager(), loop=loop, eager_start=True))

    kept: list[asyncio.Task[None]] = []
    loop.call_soon(parent)
    loop.run_forever()
    snapshot = loop.snapshot()
    assert kinds_with(snapshot, DURATION, WORKED) == {"callback": 1}
    assert kinds_with(snapshot, DURATION, WAITED) == {"task_step": 1}

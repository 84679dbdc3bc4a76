"""Frames of other threads are read in one step: no collection begins meanwhile, and no frame is kept."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from itertools import repeat

import pytest

import obsloop
from obsloop.events import LoopUnblocked
from obsloop.hotpath import held
from obsloop.introspect import coroutines, frames as _frames
from tests.blocking.support import BLOCK
from tests.support import LIMIT, until_all_is_told


def deeper(n: int, go: threading.Event, local: object = None) -> None:
    """Wait for `go`, `n` calls deep, with a local variable in each."""
    if n:
        deeper(n - 1, go, object())
    else:
        go.wait()


@pytest.fixture
def waiting():
    """A thread that waits at the end of many calls."""
    go = threading.Event()
    thread = threading.Thread(target=deeper, args=(300, go))
    thread.start()
    while thread.is_alive() and len(_frames.of_thread(thread.ident).codes) < _frames.LIMIT:
        time.sleep(0.001)
    yield thread
    go.set()
    thread.join()


def test_what_is_read_of_a_thread(waiting):
    """Its innermost frames, and whether there may be more."""
    frames = _frames.of_thread(waiting.ident, deeper.__code__)
    assert len(frames.codes) == len(frames.lines) == len(frames.modules) == _frames.LIMIT
    assert frames.cut
    assert frames.codes[-1] is deeper.__code__
    assert frames.modules[-1] == __name__
    assert frames.lines[-1] == deeper.__code__.co_firstlineno + 3
    assert 0 < len(frames.wanted) < _frames.LIMIT
    assert {frame.f_code for frame in frames.wanted} == {deeper.__code__}
    assert _frames.is_alive(waiting.ident)


def test_a_thread_that_is_gone_has_no_frames():
    """Nor is it an error."""
    thread = threading.Thread(target=len, args=("",))
    thread.start()
    thread.join()
    assert _frames.of_thread(thread.ident) == _frames.Frames([], [], [], [], cut=False)
    assert not _frames.is_alive(thread.ident)


def test_no_collection_begins_within_a_step():
    """However much is allocated in it; and afterwards collections are on again, or off if they were."""
    began: list[str] = []
    at_both_ends: list[int] = []
    made: list[list[object]] = []
    me = threading.get_ident()

    def see(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and threading.get_ident() == me:
            began.append(phase)

    def step() -> None:
        _frames.in_one_step(
            partial(at_both_ends.extend, map(len, (began,))),
            partial(made.extend, map(list, repeat((), 10_000))),
            partial(at_both_ends.extend, map(len, (began,))),
        )

    before = gc.get_threshold()
    gc.callbacks.append(see)
    try:
        gc.set_threshold(1, 1, 1)
        step()
        assert at_both_ends[0] == at_both_ends[1]
        assert gc.isenabled()
        gc.disable()
        step()
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.set_threshold(*before)
        gc.callbacks.remove(see)


def test_a_step_that_fails_leaves_collections_on():
    """What the program has set is put back, whatever happens."""
    with pytest.raises(ValueError, match="invalid literal"):
        _frames.in_one_step(partial(int, "x"))
    assert gc.isenabled()


READ = """
import gc, sys, threading, time
from obsloop.introspect import frames as _frames

class Garbage:
    def __init__(self):
        self.me = self

    def __del__(self):
        time.sleep(0.001)

def nap():
    time.sleep(0.002)

def naps():
    while True:
        nap()

def starts():
    while True:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

for target in [starts, *[naps] * 20]:
    threading.Thread(target=target, daemon=True).start()
other = threading.enumerate()[-1].ident
end = time.monotonic() + 1.0
n = 0
while time.monotonic() < end or n < 60:
    n += 1
    gc.disable()
    Garbage(), Garbage(), Garbage()
    gc.set_threshold(gc.get_count()[0] + n % 60 + 1, 2, 2)
    gc.enable()
    _frames.of_thread(other)
gc.disable()
print("read", n > 50)
"""


def test_threads_may_start_while_garbage_is_collected():
    """Finalizers give the GIL away, and threads start all the time: nothing waits for ever.

    Before 3.12 a collection that began while the frames were made held the lock which a new thread needs.
    """
    child = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, timeout=30, check=False)
    assert child.stdout == "read True\n", child.stderr


def test_a_suspended_coroutine_is_read_without_its_frame():
    """Code and line are known until it has ended; its locals are its own."""

    class Thing:
        pass

    async def waits() -> None:
        thing = Thing()
        refs.append(weakref.ref(thing))
        await asyncio.sleep(0)

    refs: list[weakref.ref[Thing]] = []
    coro = waits()
    assert coroutines.place_in(coro) == (waits.__code__, waits.__code__.co_firstlineno)
    coro.send(None)
    assert coroutines.place_in(coro) == (waits.__code__, waits.__code__.co_firstlineno + 3)
    coro.close()
    assert coroutines.place_in(coro) is None
    assert refs[0]() is None


# ---- what a look holds is the program's, and the program's thread finalises it ---------------------------------------


class Noted:
    """Says in which thread it was finalised."""

    def __init__(self, where: list[str]) -> None:
        self.where = where

    def __del__(self) -> None:
        self.where.append(threading.current_thread().name)


class SampledBlocks(obsloop.Instrument):
    """Counts the blocks with a sample of the watchdog. Keeps no event: that of a slow callback has its context."""

    def __init__(self) -> None:
        self.seen = 0

    def on_loop_unblocked(self, event: LoopUnblocked) -> None:
        self.seen += bool(event.samples)


def until_looked_at() -> None:
    """Block the loop until the watchdog has taken a sample of the block."""
    obs = asyncio.get_running_loop()._obsloop
    deadline = time.monotonic() + LIMIT
    time.sleep(BLOCK / 2)
    while not (obs.episode and obs.episode.sightings) and time.monotonic() < deadline:
        time.sleep(BLOCK / 2)


def finalised_in(block_with: Callable[[Noted, Callable[[], None]], None], times: int = 2) -> list[str]:
    """The names of the threads in which values were finalised that only a blocked request held."""
    where: list[str] = []
    value: contextvars.ContextVar[Noted] = contextvars.ContextVar("value")

    async def request() -> None:
        value.set(Noted(where))
        block_with(Noted(where), until_looked_at)

    async def main() -> None:
        await asyncio.sleep(0.05)
        for i in range(times):
            await asyncio.create_task(request())
            # An idle loop: it polls until somebody wakes it.
            deadline = time.monotonic() + LIMIT
            while len(where) < 2 * (i + 1) and time.monotonic() < deadline:
                await asyncio.sleep(0.05)

    blocks = SampledBlocks()
    obsloop.add_instrument(blocks)
    try:
        obsloop.run(main())
        until_all_is_told()
    finally:
        obsloop.remove_instrument(blocks)
    assert blocks.seen >= times
    assert len(where) == 2 * times
    return where


def test_values_of_a_blocked_request_are_finalised_in_its_thread():
    """What only its context or its stack held: the peer of a StreamWriter waits for that."""
    assert set(finalised_in(lambda value, block: block())) == {"MainThread"}


def test_locals_of_a_deep_stack_are_finalised_in_its_thread():
    """The watchdog reads it while it lasts, and holds no frame of it."""

    def down(n: int, value: Noted, block: Callable[[], None]) -> None:
        if n:
            down(n - 1, value, block)
        else:
            block()

    assert set(finalised_in(lambda value, block: down(400, value, block))) == {"MainThread"}


def test_what_is_seen_too_late_is_dropped_all_the_same():
    """The loop has gone on to its poll, and waits for long: it is woken to drop what the look held."""
    where: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        counters = loop._obsloop.counters
        await asyncio.sleep(0.05)
        began_ns = counters.began_ns
        thread = threading.Thread(target=late, args=(loop, began_ns))
        thread.start()
        started = time.monotonic()
        await asyncio.sleep(0.3 if not where else 0)
        thread.join()
        while not where and time.monotonic() - started < 5:
            await asyncio.sleep(0.01)

    def late(loop: asyncio.AbstractEventLoop, began_ns: int) -> None:
        time.sleep(0.05)
        things = [Noted(where)]
        held.hand_over(loop, began_ns, time.monotonic_ns(), things)
        deadline = time.monotonic() + 0.2
        while not where and time.monotonic() < deadline:
            time.sleep(0.001)
        in_time.append(bool(where))

    in_time: list[bool] = []
    obsloop.run(main())
    assert where == ["MainThread"]
    assert in_time == [True]

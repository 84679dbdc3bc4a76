"""What the watchdog sleeps on: it wakes for a ring and for a loop that may be blocked, and measures meanwhile."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import Any

import pytest

import obsloop
from obsloop.blocking import usage, wakeup, watchdog
from obsloop.hotpath import backend
from obsloop.metrics.counters import IN_CALLBACK, IN_IDLE, IN_OVERHEAD, IN_POLL, NEVER_NS, STOPPED, new_counters
from obsloop.testing import Recorder, StepClock
from tests.support import LIMIT, until_all_is_told

from .support import compute, until

MS = 1_000_000
FLOOR, LEAST, LATE = 5 * MS, 10 * MS, 2 * MS

BELLS = [wakeup.Wakeup] + ([backend.compiled_wakeup] if backend.compiled_wakeup is not None else [])

LOOKS = pytest.mark.skipif(
    backend.compiled_wakeup is None, reason="only the compiled core looks without the GIL, on Linux"
)


def bell_of(cls):
    """A bell that nothing late distracts: this machine may be busy."""
    return cls(LEAST, FLOOR, NEVER_NS)


def looking():
    """One that looks."""
    return bell_of(backend.compiled_wakeup)


def now() -> int:
    """This moment."""
    return time.monotonic_ns()


def cells_of(state: int, slow_ms: int = 50):
    """Those of a loop that has been in that state for no time; all of it is 50 ms."""
    counters = new_counters()
    counters.set_thresholds(slow_ms * MS, slow_ms * MS)
    counters.run_started_ns = now() - 1000 * MS
    counters.state = state
    counters.tick_ns = counters.began_ns = now()
    return counters


SOON = 20_000
"""Milliseconds: a wait that ends before has ended early, however busy the machine is."""


def waited(wakeup, watched=(), ms: int = 60_000, asking_ms: int = 60_000) -> tuple[bool, float]:
    """What a wait of `ms` at the longest says, and how many milliseconds it lasted."""
    began = now()
    rung = wakeup.wait(list(watched), began + ms * MS, began + asking_ms * MS)
    return rung, (now() - began) / MS


@contextmanager
def later(ms: float, function, *args):
    """Have another thread call it after so long."""
    timer = threading.Timer(ms / 1000, function, args)
    timer.start()
    yield
    timer.join()


@pytest.mark.parametrize("cls", BELLS)
def test_it_rings(cls):
    """Before a wait, or during one; however often before, it is one ring."""
    wakeup = bell_of(cls)
    for _ in range(3):
        wakeup.notify()
    rung, ms = waited(wakeup)
    assert rung
    assert ms < SOON
    assert waited(wakeup, ms=30)[0] is False
    with later(50, wakeup.notify):
        rung, ms = waited(wakeup)
    assert rung
    assert 40 < ms < SOON


@pytest.mark.parametrize("cls", BELLS)
def test_it_waits_until_its_moment(cls):
    """No less."""
    rung, ms = waited(bell_of(cls), ms=60)
    assert not rung
    assert 59.9 <= ms < SOON


@pytest.mark.parametrize("cls", BELLS)
def test_parked_it_waits_for_a_ring(cls):
    """For ever, if need be."""
    wakeup = bell_of(cls)
    began = now()
    with later(80, wakeup.notify):
        assert wakeup.wait([], NEVER_NS, NEVER_NS) is True
    assert now() - began >= 80 * MS


@LOOKS
@pytest.mark.parametrize("state", [IN_CALLBACK, IN_OVERHEAD])
def test_a_loop_that_may_be_blocked_ends_the_wait(state):
    """When its iteration has lasted for 50 ms, whatever the others do."""
    watched = [(cells_of(s), threading.get_native_id()) for s in (IN_IDLE, state, STOPPED)]
    rung, ms = waited(looking(), watched)
    assert not rung
    assert 48 <= ms < SOON


@LOOKS
def test_a_callback_may_be_slow_before_its_iteration_is():
    """Its own limit counts from its own beginning."""
    counters = cells_of(IN_CALLBACK, slow_ms=1000)
    counters.slow_ns = 30 * MS
    counters.tick_ns = now() + 20 * MS
    _, ms = waited(looking(), [(counters, threading.get_native_id())])
    assert now() - counters.tick_ns >= 28 * MS
    assert ms < SOON


@LOOKS
@pytest.mark.parametrize("state", [IN_IDLE, IN_POLL, STOPPED])
def test_a_loop_that_waits_or_is_stopped_is_never_due(state):
    """The whole time is waited."""
    rung, ms = waited(looking(), [(cells_of(state), threading.get_native_id())], ms=200)
    assert not rung
    assert ms >= 199.9


@LOOKS
def test_before_the_first_poll_nothing_of_the_program_runs():
    """What a loop does then takes as long as it takes."""
    counters = cells_of(IN_OVERHEAD)
    counters.began_ns = 0
    assert waited(looking(), [(counters, threading.get_native_id())], ms=150)[1] >= 149.9


@LOOKS
def test_there_are_five_milliseconds_between_two_looks():
    """A loop that is due already has just been looked at."""
    counters = cells_of(IN_CALLBACK)
    counters.began_ns -= 10_000 * MS
    assert 4.9 <= waited(looking(), [(counters, threading.get_native_id())])[1] < SOON


@LOOKS
def test_a_limit_that_is_lowered_counts_at_the_next_look():
    """At most the old limit later; nobody needs to ring."""
    counters = cells_of(IN_CALLBACK, slow_ms=100)
    counters.began_ns = counters.tick_ns = now() + 50 * MS
    with later(20, counters.set_thresholds, 10 * MS, 10 * MS):
        _, ms = waited(looking(), [(counters, threading.get_native_id())])
    assert 58 <= ms < SOON


@LOOKS
def test_a_loop_that_is_idle_now_and_then_is_asked_about_with_the_gil():
    """From the moment given on, and only if it did anything since the wait began."""
    counters = cells_of(IN_IDLE)
    watched = [(counters, threading.get_native_id())]
    assert waited(looking(), watched, ms=250, asking_ms=100)[1] >= 249.9
    with later(20, setattr, counters, "tick_ns", now() + 1):
        assert 99.9 <= waited(looking(), watched, asking_ms=100)[1] < SOON


@LOOKS
def test_one_wait_is_many_sleeps():
    """Whoever asks how late the watchdog is, asks about its present sleep."""
    wakeup, counters = looking(), cells_of(IN_IDLE)
    seen = []

    def ask() -> None:
        for _ in range(10):
            time.sleep(0.02)
            seen.append((wakeup.planned_ns - now()) / MS)

    thread = threading.Thread(target=ask)
    thread.start()
    assert waited(wakeup, [(counters, threading.get_native_id())], ms=400)[1] >= 399.9
    thread.join()
    assert max(seen) <= 51
    assert wakeup.switches >= 0


@LOOKS
def test_a_late_wake_ends_the_wait():
    """What the watchdog did meanwhile is to be known."""
    wakeup = backend.compiled_wakeup(LEAST, FLOOR, -NEVER_NS)  # any is late
    assert 45 <= waited(wakeup, [(cells_of(IN_IDLE), threading.get_native_id())])[1] < SOON


@LOOKS
def test_with_a_clock_of_a_test_nothing_is_looked_at():
    """The times in the counters are not real."""
    counters = cells_of(IN_CALLBACK)
    with StepClock():
        assert waited(looking(), [(counters, threading.get_native_id())], ms=150)[1] >= 149.9
    assert counters.looks() is None


# ---- measurements ----------------------------------------------------------------------------------------------------


class _Observed:
    """What carries the measurements that were made with the GIL."""

    usage = None


@LOOKS
def test_it_measures_what_python_measures():
    """CPU time, idle time with the wait that lasts still, and collections: the same from both, a moment apart."""
    counters, me = cells_of(IN_IDLE), threading.get_native_id()
    counters.idle_ns, counters.tick_ns = 7, now() - 50 * MS
    counters.collection_began(now() - 30 * MS)
    compute(0.02)
    before = usage.measure(counters, me)
    waited(looking(), [(counters, me)], ms=10)
    native_id, [(at_ns, began_ns, tick_ns, idle_ns, gc_ns, cpu_ns)] = counters.looks()
    after = usage.measure(counters, me)
    assert native_id == me
    assert (began_ns, tick_ns) == (counters.began_ns, counters.tick_ns)
    for name, value in (("at_ns", at_ns), ("idle_ns", idle_ns), ("gc_ns", gc_ns), ("cpu_ns", cpu_ns)):
        assert getattr(before, name) <= value <= getattr(after, name)
    assert idle_ns - 7 == at_ns - tick_ns


@LOOKS
def test_it_measures_another_thread():
    """20 ms of CPU time between two looks."""
    counters = cells_of(IN_POLL, slow_ms=50)
    go, done, end = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        compute(0.02)
        counters.began_ns = counters.tick_ns = now()
        done.set()
        end.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    watched = [(counters, thread.native_id)]
    waited(looking(), watched, ms=10)
    go.set()
    assert done.wait(30)
    waited(looking(), watched, ms=10)
    end.set()
    thread.join()
    native_id, [older, newer] = counters.looks()
    assert native_id == thread.native_id
    assert 20 <= (newer[5] - older[5]) / MS < 30


@LOOKS
def test_one_is_always_from_before_the_iteration():
    """However often it looks in the middle of one."""
    obs, counters, me = _Observed(), cells_of(IN_IDLE), threading.get_native_id()
    wakeup = looking()
    usage.look(obs, counters, me)
    waited(wakeup, [(counters, me)], ms=10)
    counters.state, counters.began_ns = IN_CALLBACK, now()
    for _ in range(5):
        counters.tick_ns = now()
        waited(wakeup, [(counters, me)], ms=10)
    usage.look(obs, counters, me)
    known = usage.known(obs, counters)
    before = known.before(counters.began_ns)
    assert before is not None
    assert before.at_ns == counters.looks()[1][0][0] <= counters.began_ns  # the later of the two that were made before
    assert before.queue == obs.usage.older.queue is not None
    assert known.newer == obs.usage.newer


@LOOKS
def test_runs_and_threads_are_not_mixed():
    """What was measured of another run, or of another thread, is not compared with."""
    obs, counters, me = _Observed(), cells_of(IN_IDLE), threading.get_native_id()
    waited(looking(), [(counters, me)], ms=10)
    assert usage.known(obs, counters).native_id == me
    counters.begin_run(now())
    assert counters.looks() is None
    assert usage.known(obs, counters) is None
    counters.state = IN_IDLE
    waited(looking(), [(counters, me)], ms=10)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    counters.tick_ns = now()
    waited(looking(), [(counters, thread.native_id)], ms=10)
    end.set()
    native_id, measured = counters.looks()
    assert (native_id, len(measured)) == (thread.native_id, 1)
    thread.join()


@LOOKS
def test_a_thread_that_is_gone_is_not_measured():
    """Its clock is, too."""
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()
    until(lambda: not os.path.exists(f"/proc/self/task/{thread.native_id}"))
    counters = cells_of(IN_IDLE)
    waited(looking(), [(counters, thread.native_id)], ms=10)
    assert counters.looks() is None


# ---- with loops ------------------------------------------------------------------------------------------------------


@contextmanager
def saturated():
    """A loop in another thread that polls every few microseconds."""
    stop = threading.Event()

    async def spin() -> None:
        while not stop.is_set():
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: obsloop.run(spin(), settings=obsloop.Settings(name="loop0")))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def block_until_seen() -> bool:
    """Block the running loop until the watchdog has seen that; return whether it has."""
    obs = asyncio.get_running_loop()._obsloop
    deadline = time.monotonic() + LIMIT
    while obs.episode is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return obs.episode is not None


def test_a_blocked_loop_is_seen_while_another_polls_all_the_time():
    """The watchdog sleeps for the other one's sake, and looks at this one in time."""

    async def main() -> bool:
        await asyncio.sleep(0.3)
        return block_until_seen()

    with saturated():
        assert obsloop.run(main())


def test_a_saturated_loop_that_is_blocked_is_seen():
    """It gave the watchdog no reason to take the GIL before."""

    async def main() -> bool:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            await asyncio.sleep(0)
        return block_until_seen()

    assert obsloop.run(main())


def test_a_loop_that_begins_to_run_is_seen_soon(monkeypatch):
    """While the watchdog waits for another, and has never seen this one: the loop rings."""
    rung: list[Any] = []
    begin = watchdog._begin
    monkeypatch.setattr(watchdog, "_begin", lambda run: (rung.append(run.loop()), begin(run)))

    def run() -> None:
        loop = obsloop.Loop()

        def block() -> None:
            """Until the watchdog has looked."""
            end = time.monotonic() + LIMIT
            while loop._obsloop.episode is None and time.monotonic() < end:
                time.sleep(0.01)

        loop.call_soon(time.sleep, 0.05)
        loop.call_later(0.06, block)
        loop.call_later(0.4, loop.stop)
        loop.run_forever()
        loop.close()
        assert loop in rung

    async def main() -> None:
        await asyncio.sleep(0.3)
        thread = threading.Thread(target=run, name="loop1")
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.01)

    with Recorder() as events:
        obsloop.run(main())
        until_all_is_told()
    assert any(event.samples for event in events.unblocked if event.loop_name == "loop1")


def test_a_thousand_runs_do_not_ring_a_thousand_times(monkeypatch):
    """A loop that ran a moment ago is still watched."""
    rung = []
    begin = watchdog._begin
    # While it is parked, on a busy machine, each run rings until it wakes.
    monkeypatch.setattr(watchdog, "_begin", lambda run: (watchdog._asleep or rung.append(run), begin(run)))
    loop = obsloop.Loop()
    while watchdog._asleep:  # parked by tests before: until it wakes, each run rings
        loop.run_until_complete(asyncio.sleep(0.01))
    rung.clear()
    began = time.monotonic()
    for _ in range(1000):
        loop.run_until_complete(asyncio.sleep(0))
        obsloop.run(asyncio.sleep(0))  # another loop, with the same counters
    loop.close()
    elapsed = time.monotonic() - began
    assert len(rung) <= 4 + 4 * elapsed, (len(rung), elapsed)


def test_at_the_end_of_the_program_nobody_waits_for_it():
    """The thread is in its wait when the interpreter goes."""
    for _ in range(5):
        code = "import obsloop, asyncio; obsloop.run(asyncio.sleep(0.02))"
        subprocess.run([sys.executable, "-X", "dev", "-c", code], check=True, timeout=60)

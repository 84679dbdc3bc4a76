"""The thread that sees blocked loops: what it tells, when it looks, and that it harms nobody."""

import asyncio
import gc
import logging
import os
import re
import sys
import threading
import time
import weakref
from contextlib import suppress
from itertools import pairwise

import pytest

import obsloop
from obsloop import instruments
from obsloop.base import log
from obsloop.blocking import episodes, watchdog
from obsloop.events import LoopBlocked, LoopUnblocked
from obsloop.hotpath import backend
from obsloop.introspect.functions import Site
from obsloop.introspect.own_code import Culprit
from obsloop.testing import Recorder, StepClock
from tests.support import output

from .support import BLOCK, block, compute, pair, until

EPISODES = "asyncio.eventloop.block.episodes"
DURATION = "asyncio.eventloop.block.duration"


def sleeper() -> None:
    """Blocks the loop."""
    time.sleep(BLOCK)


def long_sleeper(seconds: float) -> None:
    """Blocks the loop for so long."""
    time.sleep(seconds)


@pytest.fixture(autouse=True)
def _nothing_logged_yet():
    log.forked()


def test_a_block_is_told_while_it_lasts_and_when_it_is_over():
    """Both events name the same episode; the second has its whole duration and all samples."""
    blocked, unblocked = pair(block(sleeper))
    assert blocked.name == unblocked.name
    assert blocked.name.endswith("block.<locals>.main")
    assert (blocked.kind, blocked.task_name) == ("task_step", unblocked.task_name)
    assert blocked.started_at == unblocked.started_at
    assert blocked.started_at == pytest.approx(time.time(), abs=10)
    assert 0.1 <= blocked.duration < unblocked.duration
    assert unblocked.duration >= BLOCK
    assert unblocked.samples[: len(blocked.samples)] == blocked.samples
    here = sleeper.__code__
    for event in (blocked, unblocked):
        assert event.culprit_seen
        assert event.culprit_function == f"{__name__}.sleeper"
        assert (event.culprit_filename, event.culprit_lineno) == (here.co_filename, here.co_firstlineno + 2)


def test_samples_are_taken_as_the_age_doubles():
    """At 0.1 s, 0.2 s, 0.4 s ... at the earliest, each with its stack from the callback on."""
    _, unblocked = pair(block(lambda: time.sleep(0.9)))
    ages = [age for age, _ in unblocked.samples]
    assert 1 <= len(ages) <= 4
    assert ages[0] >= 0.1
    assert all(later >= 2 * earlier for earlier, later in pairwise(ages))
    for _, frames in unblocked.samples:
        assert [frames[0].name, frames[-1].name] == ["main", "<lambda>"]


def test_a_slow_callback_is_named_by_the_place_it_was_at_for_longest():
    """The last sample is of a short piece after the block: samples are taken at 0.1, 0.2, 0.4 and 0.8 s."""

    def function() -> None:
        time.sleep(0.75)
        time.sleep(0.12)

    first = function.__code__.co_firstlineno + 1
    slow = max(block(function).slow_callbacks, key=lambda event: event.duration)
    assert (slow.culprit_filename, slow.culprit_lineno) == (__file__, first)


def test_what_was_seen_for_longest_counts():
    """Each sample stands for the time around it; samples of what ran before do not count."""

    def sighting(at_ns: int, function: str, line: int = 1) -> episodes.Sighting:
        culprit = Culprit(function, "f.py", line, seen=True)
        return episodes.Sighting(at_ns, Site("f", "f.py", 1), "callback", "", culprit, 0.0, "/")

    before, a, b = sighting(50, "before"), sighting(100, "a"), sighting(200, "b")
    assert episodes.longest_sighting([before, a, b], 90, 201) is a
    assert episodes.longest_sighting([before, a, b], 90, 300) is b
    assert episodes.longest_sighting([a, b], 0, 201) is a
    assert episodes.longest_sighting([a, b], 0, 400) is b
    assert episodes.longest_sighting([a, sighting(150, "b"), sighting(190, "a")], 0, 201).at_ns == 190
    assert episodes.longest_sighting([a], 101, 201) is None
    lines = [sighting(100, "a", 1), sighting(150, "a", 2), sighting(200, "a", 3), sighting(240, "b")]
    found = episodes.longest_sighting(lines, 100, 300)
    assert (found.culprit.function, found.culprit.lineno) == ("a", 2)  # the function first, then its longest line
    assert episodes.longest_sighting(lines, 100, 300, "g") is None


def test_every_block_is_counted_once_by_its_cause():
    """Three blocks: three episodes, with their durations; and the events come in pairs."""

    async def main() -> None:
        for _ in range(3):
            await asyncio.sleep(0.01)
            time.sleep(0.15)

    with Recorder() as events:
        obsloop.run(main(), settings=obsloop.Settings(name="counted"))
        until(lambda: len(events.unblocked) >= 3)
    snapshot = obsloop.snapshots()["counted"]
    told = [event.cause for event in events.unblocked]
    for (cause,), n in snapshot[EPISODES].items():
        histogram = snapshot.histogram(DURATION, cause)
        assert n == histogram.count == told.count(cause)
        assert histogram.sum == pytest.approx(sum(e.duration for e in events.unblocked if e.cause == cause))
    kinds = [type(event) for event in events.events if isinstance(event, LoopBlocked | LoopUnblocked)]
    assert kinds == [LoopBlocked, LoopUnblocked] * (len(kinds) // 2)
    assert sum(snapshot[EPISODES].values()) == len(kinds) // 2 >= 3


def test_what_nobody_could_see_is_told_at_its_end():
    """A quarter of a second of a clock in the test's hands: no time to look, and the pair is complete nevertheless."""
    with Recorder() as events, StepClock() as clock:
        loop = obsloop.Loop(clock.selector())
        loop.call_soon(clock.advance, 0.25)
        loop.call_later(1, loop.stop)
        loop.run_forever()
        loop.close()
        events.wait_for(LoopUnblocked)
    [blocked], [unblocked] = events.blocked, events.unblocked
    assert blocked.duration == unblocked.duration == 0.25
    assert blocked.samples == unblocked.samples == ()
    assert "seen at its end" in unblocked.detail
    assert unblocked.cause == "unknown"  # what the real clock says has nothing to do with it


def test_many_short_callbacks_block_as_well_as_a_long_one():
    """Forty callbacks of 10 ms in one iteration: none is slow, and the loop did not poll for 0.4 s."""
    with Recorder() as events:
        loop = obsloop.Loop()
        loop.call_later(0.05, lambda: [loop.call_soon(time.sleep, 0.01) for _ in range(40)])
        loop.call_later(0.1, loop.stop)
        loop.run_forever()
        loop.close()
        unblocked = events.wait_for(LoopUnblocked)
    assert events.slow_callbacks == []
    assert unblocked.duration >= 0.4
    assert unblocked.samples


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_an_eager_child_is_the_one_that_blocks():
    """It runs within its parent's step: the current task tells, from another thread too."""

    async def child() -> None:
        time.sleep(BLOCK)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await asyncio.sleep(0.05)
        await asyncio.create_task(child(), name="the child")

    with Recorder() as events:
        obsloop.run(main())
        unblocked = events.wait_for(LoopUnblocked)
    assert unblocked.name.endswith("child")
    assert unblocked.kind == "task_step"
    # Some versions of asyncio name an eager task only after its first step.
    assert unblocked.task_name == "the child" or (sys.version_info < (3, 13, 4) and unblocked.task_name[:5] == "Task-")


def test_many_loops_in_many_threads_are_watched_by_one():
    """Eight loops at once, each blocked in its own thread: eight pairs, each with its own name."""

    def run(i: int) -> None:
        async def main() -> None:
            await asyncio.sleep(0.05)
            time.sleep(BLOCK)
            await asyncio.sleep(0.01)

        obsloop.run(main(), settings=obsloop.Settings(name=f"loop{i}"))

    with Recorder() as events:
        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        watchdogs = [t for t in threading.enumerate() if t.name == "obsloop-watchdog"]
        for thread in threads:
            thread.join()
        until(lambda: len({event.loop_name for event in events.unblocked}) == 4)
    assert len(watchdogs) == 1
    assert watchdogs[0].daemon
    assert {e.loop_name for e in events.blocked} == {f"loop{i}" for i in range(4)}


def test_a_loop_with_a_lower_limit_is_seen_sooner():
    """slow_callback_duration is the limit, of each loop for itself."""
    with Recorder() as events:
        loop = obsloop.Loop()
        loop.slow_callback_duration = 0.03
        loop.call_later(0.15, time.sleep, 0.2)
        loop.call_later(0.4, loop.stop)
        loop.run_forever()
        loop.close()
        unblocked = events.wait_for(LoopUnblocked)
    assert unblocked.samples
    assert unblocked.samples[0][0] >= 0.03


def test_switched_off_nothing_is_watched():
    """No event; the slow callback itself is told as ever."""

    async def main() -> None:
        await asyncio.sleep(0.02)
        sleeper()

    with Recorder() as events:
        obsloop.run(main(), settings=obsloop.Settings(watchdog=False))
        time.sleep(0.1)
    assert (events.blocked, events.unblocked) == ([], [])
    assert len(events.slow_callbacks) >= 1


def test_it_parks_when_no_loop_runs_and_comes_back():
    """After a second without a loop it wakes no more, and keeps no file open; the next run is watched again."""
    block(sleeper)
    until(lambda: watchdog._asleep)
    spent_ns = watchdog.self_time_ns()
    time.sleep(0.5)
    assert watchdog.self_time_ns() == spent_ns
    _, unblocked = pair(block(sleeper))
    assert unblocked.samples


def test_a_thousand_runs_leave_nothing_behind():
    """No thread and no descriptor for each."""
    obsloop.run(asyncio.sleep(0))
    fds, threads = len(os.listdir("/dev/fd")), threading.active_count()
    for _ in range(1000):
        obsloop.run(asyncio.sleep(0))
    assert len(os.listdir("/dev/fd")) <= fds + 2
    assert threading.active_count() == threads


def test_what_was_blocked_is_not_kept_alive():
    """Neither the loop, nor its task, nor what is on its stack."""

    class Thing:
        pass

    gone = []

    def blocked() -> None:
        thing = Thing()
        gone.append(weakref.ref(thing))
        gone.append(weakref.ref(asyncio.get_running_loop()))
        gone.append(weakref.ref(asyncio.current_task()))
        time.sleep(BLOCK)

    events = block(blocked)
    assert events.unblocked[0].samples
    until(lambda: gc.collect() >= 0 and not any(ref() is not None for ref in gone))


def test_an_instrument_that_raises_does_not_stop_it():
    """Neither an error nor SystemExit: the next block is told to the others."""

    class Broken(obsloop.Instrument):
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def on_loop_blocked(self, event: LoopBlocked) -> None:
            raise self.error

    for error in (ValueError("no"), SystemExit(3)):
        broken = Broken(error)
        instruments.add_instrument(broken)
        try:
            with Recorder() as events:
                loop = obsloop.Loop()
                loop.call_later(0.05, time.sleep, 0.15)
                loop.call_later(0.3, loop.stop)
                loop.run_forever()
                loop.close()
                events.wait_for(LoopUnblocked)
        finally:
            instruments.remove_instrument(broken)
    assert block(sleeper).unblocked


def test_a_long_block_is_logged_once(caplog):
    """While it lasts and when it is over, with the culprit; the same culprit is not logged again so soon."""
    with caplog.at_level(logging.WARNING, "obsloop"):
        block(sleeper, log_blocked_after=60, unhealthy_after=60)
        assert caplog.messages == []
        for _ in range(2):
            block(lambda: long_sleeper(0.9), unhealthy_after=0.5, name="logged")
        until(lambda: len(caplog.messages) == 2)
    lasting, over = caplog.messages
    line = long_sleeper.__code__.co_firstlineno + 2
    by = rf"by {__name__}.long_sleeper \(tests/blocking/test_watchdog.py:{line}\), \w+"
    assert re.match(rf"event loop has been blocked for \d\.\d\d s {by}, and still is; .*loop logged$", lasting)
    assert re.match(rf"event loop blocked \d\.\d\d s {by}; task Task-\d+, loop logged$", over)


def test_a_logging_handler_that_raises_harms_nobody():
    """The events come first, and the thread goes on."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit("no")

    logger, handler = logging.getLogger("obsloop"), Broken()
    logger.addHandler(handler)
    try:
        assert block(sleeper, unhealthy_after=0.1).unblocked
        assert block(sleeper).unblocked
    finally:
        logger.removeHandler(handler)


def test_with_log_slow_callbacks_every_block_is_logged(caplog):
    """From the loop's ``slow_callback_duration`` on, and not from half a second on."""
    with caplog.at_level(logging.WARNING, "obsloop"):
        block(sleeper, log_blocked_after=60, log_slow_callbacks=True, name="asked")
        until(lambda: any(f"by {__name__}.sleeper (" in line for line in caplog.messages))


def test_a_loop_that_never_comes_back_is_reported():
    """Its program is killed in the end; at first sight it was told and logged."""
    out = output("""
        import asyncio, logging, os, sys, time, obsloop
        logging.basicConfig(stream=sys.stdout, format="%(message)s")

        class Last(obsloop.Instrument):
            def on_loop_blocked(self, event):
                print("blocked", event.kind, flush=True)

        obsloop.add_instrument(Last())
        class Out(logging.Handler):
            def emit(self, record):
                print(record.getMessage().splitlines()[0], flush=True)
                os._exit(0)
        logging.getLogger("obsloop").addHandler(Out())

        async def main():
            await asyncio.sleep(0.01)
            while True:
                time.sleep(0.01)

        obsloop.run(main(), settings=obsloop.Settings(never_yields_after=60))  # another matter, with a line of its own
    """)
    told, logged = out.splitlines()
    assert told == "blocked task_step"
    assert re.match(r"event loop has been blocked for [1-9]\d*\.\d\d s by __main__.main", logged)


def test_an_episode_ends_with_its_loop():
    """A callback that stops the loop, and one that raises out of it, while it is blocked."""

    def leave() -> None:
        time.sleep(BLOCK)
        raise KeyboardInterrupt

    def stop(loop: asyncio.AbstractEventLoop) -> None:
        time.sleep(BLOCK)
        loop.stop()

    for last in (stop, lambda loop: leave()):
        with Recorder() as events:
            loop = obsloop.Loop()
            loop.call_later(0.05, last, loop)
            with suppress(KeyboardInterrupt):
                loop.run_forever()
            loop.close()
            unblocked = events.wait_for(LoopUnblocked)
        assert unblocked.duration >= BLOCK
        assert loop._obsloop.episode is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_finds_one_thread_only():
    """No warning where Python warns; the parent's loop is watched again, and so is one of the child, from nothing."""
    out = output("""
        import asyncio, os, sys, threading, time, obsloop
        from obsloop.testing import Recorder

        async def blocked():
            await asyncio.sleep(0.05)
            time.sleep(0.3)
            await asyncio.sleep(0.02)

        def in_child():
            snapshot = obsloop.snapshots().get("main")
            print("child starts with", sum(snapshot["asyncio.eventloop.block.episodes"].values()), flush=True)
            thread = threading.Thread(target=lambda: obsloop.run(blocked()), name="child")
            thread.start()
            thread.join()

        async def main():
            await blocked()
            pid = os.fork()
            with Recorder() as events:
                if pid == 0:
                    in_child()
                else:
                    os.waitpid(pid, 0)  # blocks the loop, which goes on later
                    await asyncio.sleep(0.05)
                    await blocked()
                time.sleep(0.05)
                seen = [bool(event.samples) for event in events.unblocked]
            print("child" if pid == 0 else "parent", seen[-1], flush=True)
            if pid == 0:
                os._exit(0)

        obsloop.run(main())
    """)
    assert out.splitlines() == ["child starts with 0", "child True", "parent True"]


def test_the_threads_own_time_is_counted():
    """What it used, in nanoseconds; more with time, and far less than the time itself."""
    before, began = watchdog.self_time_ns(), time.monotonic()
    block(lambda: compute(BLOCK))
    spent_ns = watchdog.self_time_ns() - before
    assert 0 < spent_ns < (time.monotonic() - began) * 1e9 / 2


def test_signals_are_not_for_this_thread():
    """The program's signals stay the program's: all but those of its own faults are blocked in it."""
    block(sleeper)
    life = watchdog._life
    assert life is not None
    path = f"/proc/self/task/{life.thread.native_id}/status"
    if not os.path.exists(path):
        pytest.skip("no /proc on this system")
    with open(path) as status:
        blocked = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk"))
    import signal

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGALRM"):
        assert blocked >> (getattr(signal, name) - 1) & 1
    assert not blocked >> (signal.SIGSEGV - 1) & 1


def test_a_look_during_which_the_loop_goes_on_is_made_again(monkeypatch):
    """The frames would be of one callback and the handle of the next: the block is named after neither."""
    real, looks = backend.running_handle, []

    def reads(loop, iterations, kept):
        looks.append(loop)
        if len(looks) == 1:
            loop._obsloop.counters.tick_ns += 1  # as if the next callback had begun
        return real(loop, iterations, kept)

    monkeypatch.setattr(backend, "running_handle", reads)
    blocked, _ = pair(block(lambda: until(lambda: asyncio.get_running_loop()._obsloop.episode is not None)))
    assert len(looks) >= 2
    assert len(blocked.samples) == 1

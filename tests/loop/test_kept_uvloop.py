"""A loop that stays uvloop's is observed: its times, what blocks it, its jobs, its exceptions."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time

import pytest

import obsloop
from obsloop.events import LoopUnblocked
from obsloop.testing import Recorder
from tests.blocking.support import BLOCK, compute, until
from tests.support import LIMIT

uvloop = pytest.importorskip("uvloop", reason="uvloop has no wheel for this interpreter")
kept = pytest.importorskip("obsloop.loop.kept_uvloop")

pytestmark = pytest.mark.usefixtures("clean_metrics", "nothing_to_tell")


def run(main, *, adopted=True):
    """Run `main` on uvloop, observed from the start or from its first step on."""

    async def first():
        if adopted:
            assert isinstance(obsloop.instrument(), uvloop.Loop)
        return await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if adopted else kept.Loop) as runner:
        return runner.run(first())


def snapshot():
    return obsloop.snapshots()["main"]


def culprit():
    """Block the loop."""
    time.sleep(BLOCK)


@pytest.mark.parametrize("adopted", [True, False])
def test_a_block_is_found_with_culprit_cause_and_stack(adopted):
    """Also on a loop that ran already when it was observed."""

    async def main():
        await asyncio.sleep(0.15)
        culprit()
        await asyncio.sleep(0.05)

    with Recorder() as events:
        run(main, adopted=adopted)
        events.wait_for(LoopUnblocked)
    event = max(events.unblocked, key=lambda event: event.duration)
    assert event.culprit_function == f"{__name__}.culprit"
    assert event.culprit_seen
    assert event.duration >= BLOCK
    assert event.cause in ("syscall", "off_cpu", "gil")
    assert any(frame.name == "culprit" for _, frames in event.samples for frame in frames)
    found = snapshot()
    assert sum(found["asyncio.eventloop.block.time"].values()) >= BLOCK
    assert found.value("asyncio.eventloop.callback.slow", f"{__name__}.culprit") == 1
    assert found.histogram("asyncio.eventloop.lag").sum > 0


def test_a_block_within_libuvs_poll_is_found():
    """There, libuv calls protocols: no hook runs between the wait and them."""

    class Blocks(asyncio.Protocol):
        def data_received(self, data):
            culprit()

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(Blocks, sock=ours)
        threading.Timer(0.2, theirs.send, (b"x",)).start()
        await asyncio.sleep(0.2 + 2 * BLOCK)
        transport.close()
        theirs.close()

    with Recorder() as events:
        run(main)
        events.wait_for(LoopUnblocked)
    event = max(events.unblocked, key=lambda event: event.duration)
    assert event.duration >= BLOCK
    assert event.culprit_function == f"{__name__}.culprit"


def test_idle_and_busy_are_a_known_load():
    """The busy time is at least what was computed; what was slept is idle."""
    computed = slept = 0.0

    async def main():
        nonlocal computed, slept
        for _ in range(40):
            began = time.monotonic()
            compute(0.01)
            computed += time.monotonic() - began
            began = time.monotonic()
            await asyncio.sleep(0.02)
            slept += time.monotonic() - began

    run(main, adopted=False)
    found = snapshot()
    times = found["asyncio.eventloop.time"]
    assert times.keys() == {("idle",), ("callback",), ("gc",)}
    busy = times["callback",] + times["gc",]
    assert computed <= busy
    # libuv counts a timer from the iteration's start, so on a busy machine it waits a little less than asked.
    assert 40 * 0.02 * 0.9 <= times["idle",] <= slept
    assert found.run_time >= computed + times["idle",]
    assert found.value("asyncio.eventloop.iterations") >= 40
    assert found.histogram("asyncio.eventloop.iteration.duration").sum >= computed * 0.95


def test_what_is_not_measured_is_missing():
    """It would be zero, which is wrong. A name that had one of obsloop's own loops has all metrics."""

    async def main():
        await asyncio.sleep(0)

    run(main)
    found = snapshot()
    for name in ("asyncio.eventloop.callback.duration", "asyncio.task.created", "asyncio.transport.io"):
        assert found[name] == {}
    assert found["asyncio.eventloop.iterations"]
    obsloop.run(main())
    assert snapshot()["asyncio.task.created"]


def test_jobs_of_executors_are_measured():
    """Of the default executor, also one that uvloop made before the loop was observed."""

    async def main():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, time.sleep, 0.05)
        await asyncio.to_thread(time.sleep, 0.05)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError):
            await loop.run_in_executor(None, time.sleep, 0)

    run(main)
    ran = snapshot().histogram("asyncio.executor.job.duration", "default", "ok")
    assert (ran.count, ran.sum >= 0.1) == (2, True)

    async def late():
        loop = asyncio.get_running_loop()
        first = await loop.run_in_executor(None, threading.get_ident)
        obsloop.instrument()
        assert await loop.run_in_executor(None, threading.get_ident) == first

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(late())


def test_exceptions_are_counted_before_the_programs_handler():
    """The program's handler gets them as before, also one that was set before the loop was observed."""
    caught = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: caught.append(type(context["exception"])))
        obsloop.instrument()
        assert loop.get_exception_handler() is not None
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        loop.set_exception_handler(None)
        assert loop.get_exception_handler() is None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert caught == [ZeroDivisionError]
    assert snapshot().value("asyncio.eventloop.exceptions", "ZeroDivisionError", "callback") == 1


def test_subprocesses_and_signals_work():
    """As on uvloop itself."""

    async def main():
        loop = asyncio.get_running_loop()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(42)", stdout=asyncio.subprocess.PIPE
        )
        assert await process.communicate() == (b"42\n", None)
        arrived = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, arrived.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(arrived.wait(), 20)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main)
    run(main, adopted=False)


def test_several_loops_in_threads():
    """Each has its own times, and all can be read meanwhile."""

    async def main():
        for _ in range(50):
            await asyncio.sleep(0.001)

    threads = [threading.Thread(target=run, args=(main,), name=f"worker-{i}") for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        obsloop.snapshots()
        time.sleep(0.001)
    assert sum(found.value("asyncio.eventloop.iterations") for found in obsloop.snapshots().values()) >= 4 * 50


def test_a_loop_is_closed_while_the_watchdog_looks_at_it():
    """Many short loops, with checks in between: nothing is asked of a libuv loop that is gone."""

    async def main():
        await asyncio.sleep(0.001)

    for _ in range(100):
        run(main)
    assert not snapshot().running


def test_a_loop_that_stopped_by_itself_is_not_blocked():
    """Its run began before it was observed, so that only the watchdog can see that it is over."""
    loop = uvloop.new_event_loop()
    try:
        loop.call_soon(obsloop.instrument)
        loop.call_soon(loop.stop)
        loop.run_forever()
        until(lambda: not snapshot().running)
        assert snapshot().blocked_time == 0.0
    finally:
        loop.close()


def test_a_subclass_keeps_its_methods():
    """And `isinstance` holds for it and for uvloop's class."""

    class Mine(uvloop.Loop):
        def hello(self):
            return 42

    loop = Mine()
    assert obsloop.instrument(loop) is loop
    assert isinstance(loop, Mine)
    assert loop.hello() == 42
    assert obsloop.instrument(loop) is loop
    loop.slow_callback_duration = 0.5
    assert loop.slow_callback_duration == 0.5
    assert loop._obsloop.slow_ns == 500_000_000
    loop.close()


def test_nothing_is_left_behind():
    """After 20,000 callbacks and steps the collector finds no cycle, and a closed loop goes."""

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(10_000):
            loop.call_soon(int)
            await asyncio.sleep(0)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10_000):
                loop.call_soon(int)
                await asyncio.sleep(0)
            assert gc.collect() == 0
        finally:
            gc.enable()

    run(main)
    end = time.monotonic() + LIMIT
    while [
        one for one in gc.get_objects() if type(one) is kept.Loop
    ]:  # a look of the watchdog may hold it for a moment
        assert time.monotonic() < end, "something holds a closed loop"
        gc.collect()


def test_without_libuvs_functions_it_does_without_times(monkeypatch, caplog):
    """One line says so, and jobs and exceptions are counted as before."""
    monkeypatch.setattr(kept, "_libuv", None)
    monkeypatch.setattr("obsloop.base.log._logged", set())

    async def main():
        await asyncio.to_thread(int)

    with caplog.at_level(logging.WARNING, "obsloop"):
        run(main)
        run(main)
    assert len([line for line in caplog.messages if "does not export libuv's functions" in line]) == 1
    found = snapshot()
    assert found.histogram("asyncio.executor.job.duration", "default", "ok").count == 2

"""Subprocesses: how many are alive, how long they lived, and how they ended. Real children, no mocks."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
import weakref

import pytest

import obsloop
from obsloop.events import SubprocessExit
from obsloop.probes import processes
from obsloop.testing import Recorder
from tests.support import LIMIT, forget_everything, output

DURATION, ACTIVE = "asyncio.subprocess.duration", "asyncio.subprocess.active"
REAPED = "asyncio.subprocess.reap.delay"


@pytest.fixture(params=["made", "instrumented"])
def loop(request):
    """A loop of ours; it runs in the main thread, as the watchers of 3.11 want it."""
    forget_everything()
    settings = obsloop.Settings(name="main")
    if request.param == "made":
        made = obsloop.Loop(settings=settings)
    else:
        made = obsloop.instrument(asyncio.SelectorEventLoop(), settings)
    yield made
    made.close()


def run(loop, coro):
    return loop.run_until_complete(asyncio.wait_for(coro, LIMIT))


def counts(loop):
    """How many ended how, those that did not left out."""
    return {how: histogram.count for (how,), histogram in loop.snapshot()[DURATION].items() if histogram.count}


def exits(recorder):
    """Return the events of children. A busy machine also makes callbacks slow, which adds events."""
    return [event for event in recorder.events if isinstance(event, SubprocessExit)]


def test_a_child_that_sleeps_for_300_ms(loop):
    """It is alive meanwhile; its duration is what was put in, and the event has its name and no argument."""

    async def main():
        child = await asyncio.create_subprocess_exec("/bin/sleep", "0.3")
        alive = loop.snapshot().value(ACTIVE)
        assert await child.wait() == 0
        return alive, child.pid

    began = time.time()
    with Recorder() as events:
        alive, pid = run(loop, main())
    assert alive == 1
    snapshot = loop.snapshot()
    histogram = snapshot.histogram(DURATION, "ok")
    assert snapshot.value(ACTIVE) == 0
    assert histogram.count == 1
    assert 0.3 <= histogram.sum <= time.time() - began + 0.1
    (event,) = events.events
    assert (event.name, event.pid, event.returncode, event.exit) == ("sleep", pid, 0, "ok")
    assert event.duration == pytest.approx(histogram.sum)
    assert event.started_at == pytest.approx(began, abs=5)
    assert "0.3" not in repr(event.name)


def test_how_they_end(loop):
    """With 0, with 3, by SIGKILL; by exec and by shell, whose command line is not told."""

    async def main():
        one = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        two = await asyncio.create_subprocess_shell("exit 3 # secret")
        three = await asyncio.create_subprocess_exec("sleep", "60")
        three.kill()
        return [await child.wait() for child in (one, two, three)]

    with Recorder() as events:
        assert run(loop, main()) == [0, 3, -signal.SIGKILL]
    assert counts(loop) == {"ok": 1, "error": 1, "signal": 1}
    told = {(event.name, event.returncode, event.exit) for event in exits(events)}
    assert told == {(os.path.basename(sys.executable), 0, "ok"), ("sh", 3, "error"), ("sleep", -9, "signal")}
    assert "secret" not in repr(events.events)


def test_a_transport_that_is_closed_early(loop):
    """asyncio kills the child then; it is reaped and counted all the same."""

    async def main():
        transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "60")
        transport.close()
        while loop.snapshot().value(ACTIVE):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # asyncio still has its pipes to close

    run(loop, main())
    assert counts(loop) == {"signal": 1}


def test_one_that_cannot_be_started(loop):
    """The error is asyncio's, without a frame of ours; nothing is counted, and the next child is itself."""

    async def main():
        with pytest.raises(FileNotFoundError) as caught:
            await asyncio.create_subprocess_exec("/no/such/program")
        assert not [entry for entry in caught.traceback if "/obsloop/" in str(entry.path)]
        child = await asyncio.create_subprocess_exec("true")
        await child.wait()

    with Recorder() as events:
        run(loop, main())
    assert [event.name for event in exits(events)] == ["true"]
    assert loop.snapshot().value(ACTIVE) == 0


def test_a_start_that_is_cancelled(loop):
    """asyncio kills such a child; it is counted once."""

    async def main():
        task = asyncio.ensure_future(loop.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "60"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while loop.snapshot().value(ACTIVE):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # asyncio still has its pipes to close

    run(loop, main())
    assert counts(loop) == {"signal": 1}


def test_many_children_leave_nothing_behind(loop):
    """Two hundred, twenty at once: all are counted, none is alive, no object stays."""

    async def main():
        for _ in range(10):
            children = await asyncio.gather(*(asyncio.create_subprocess_exec("true") for _ in range(20)))
            gone.extend(weakref.ref(child) for child in children)
            await asyncio.gather(*(child.wait() for child in children))

    gone = []
    run(loop, main())
    gc.collect()
    assert counts(loop) == {"ok": 200}
    assert loop.snapshot().value(ACTIVE) == 0
    assert not loop._obsloop.processes.live
    assert sum(ref() is not None for ref in gone) == 0


LAST_WORDS = "import time; time.sleep(0.1); print(time.monotonic(), flush=True)"


@pytest.mark.parametrize("blocked", [0.0, 0.7])
def test_how_long_a_child_had_been_dead(loop, blocked):
    """It says when it ends, by a clock that is the system's; a loop that is blocked comes to it later."""

    async def main():
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", LAST_WORDS, stdout=asyncio.subprocess.PIPE)
        time.sleep(blocked)
        words, _ = await child.communicate()
        return float(words)

    with Recorder() as events:
        last_words = run(loop, main())
        reaped_by = time.monotonic()
    (event,) = exits(events)
    histogram = loop.snapshot().histogram(REAPED)
    assert histogram.count == 1
    assert histogram.sum == pytest.approx(event.reap_delay)
    assert 0 <= event.reap_delay <= reaped_by - last_words
    if blocked:
        # It takes a while from its last words to its end: the interpreter is taken down.
        assert event.reap_delay >= reaped_by - last_words - 0.35
        assert event.reap_delay > 0.05


def test_children_cost_no_descriptor_and_no_thread(loop):
    """A process that has a subprocess may fork, and Python warns from 3.12 on where there are threads."""

    async def main(n):
        for _ in range(n):
            children = [await asyncio.create_subprocess_exec("true") for _ in range(10)]
            names.update(thread.name for thread in threading.enumerate())
            assert [await child.wait() for child in children] == [0] * 10

    names = {thread.name for thread in threading.enumerate()}
    earlier = names.copy()  # those of the service, after other tests
    run(loop, main(1))
    before = len(os.listdir("/proc/self/fd"))
    run(loop, main(10))
    assert len(os.listdir("/proc/self/fd")) == before
    assert {name for name in names - earlier if name.startswith("obsloop")} <= {"obsloop-watchdog"}
    assert loop.snapshot().histogram(REAPED).count == 110


FORKING = """
import asyncio, os, threading
import obsloop

async def main():
    child = await asyncio.create_subprocess_exec("sleep", "60")
    if not any("waitpid" in thread.name for thread in threading.enumerate()):  # asyncio's own, where there is no pidfd
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    child.kill()
    return await child.wait()

print(obsloop.run(main()))
"""


def test_a_fork_while_a_child_lives_warns_of_nothing():
    """Where asyncio itself has no thread for the child, neither have we."""
    assert output(FORKING) == "-9\n"


def test_children_that_end_while_the_loop_is_blocked(loop):
    """Three of them, one after another: the watchdog sees each end, the loop reaps them together, later."""

    async def main():
        children = [await asyncio.create_subprocess_exec("sleep", seconds) for seconds in ("0.2", "0.4", "0.6")]
        time.sleep(1)
        assert [await child.wait() for child in children] == [0] * 3

    with Recorder() as events:
        run(loop, main())
    first, second, third = sorted((event.reap_delay for event in exits(events)), reverse=True)
    assert first > second > third
    assert first - third > 0.15


def test_more_children_than_the_watchdog_asks_for(loop, monkeypatch):
    """All are counted; of those that it does not ask for it is only known when the loop heard of them."""
    monkeypatch.setattr(processes.Processes, "MOST", 0)

    async def main():
        children = [await asyncio.create_subprocess_exec("sleep", "0.2") for _ in range(3)]
        time.sleep(0.4)
        assert [await child.wait() for child in children] == [0] * 3

    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {"ok": 3}
    assert loop.snapshot().histogram(REAPED).count == 3
    assert all(event.reap_delay >= 0 for event in exits(events))

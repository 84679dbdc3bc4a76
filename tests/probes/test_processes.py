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
from obsloop.probes import deaths
from obsloop.testing import Recorder
from tests.support import LIMIT, forget_everything

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
    """What was told of children. A busy machine makes the loop slow too, and that is told beside it."""
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


def test_two_hundred_children_leave_no_descriptor_and_no_thread(loop):
    """The thread that waits for them is there while there are any, and so are their descriptors."""

    async def main():
        for _ in range(10):
            children = [await asyncio.create_subprocess_exec("true") for _ in range(10)]
            assert [await child.wait() for child in children] == [0] * 10

    run(loop, main())
    until_nobody_waits()
    before = len(os.listdir("/proc/self/fd"))
    run(loop, main())
    until_nobody_waits()
    assert len(os.listdir("/proc/self/fd")) == before
    assert loop.snapshot().histogram(REAPED).count == 200


def until_nobody_waits():
    end = time.monotonic() + LIMIT
    while any(thread.name == "obsloop-child" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_more_children_than_are_waited_for(loop, monkeypatch):
    """They are counted as lost, and their duration is not: only how long they had been dead is not known."""
    monkeypatch.setattr(deaths, "MAX_WAITING", 2)
    before = obsloop.process_snapshot().value("obsloop.dropped", "child_end")

    async def main():
        children = [await asyncio.create_subprocess_exec("sleep", "0.2") for _ in range(5)]
        assert [await child.wait() for child in children] == [0] * 5

    with Recorder() as events:
        run(loop, main())
    assert counts(loop) == {"ok": 5}
    assert loop.snapshot().histogram(REAPED).count == 2
    assert sum(event.reap_delay is None for event in exits(events)) == 3
    assert obsloop.process_snapshot().value("obsloop.dropped", "child_end") == before + 3

"""Starved executors: reported while nothing has completed, with who holds the workers; busy ones are not."""

import asyncio
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import obsloop
from obsloop.base import log
from obsloop.blocking import starvation
from obsloop.introspect.functions import Site
from obsloop.probes.executor_pools import Load
from obsloop.tasks.lints import findings
from obsloop.testing import Recorder, StepClock
from tests.support import LIMIT, forget_everything

LINT = "executor_starved"


@pytest.fixture(autouse=True)
def from_nothing(clean_metrics):
    """No finding of a test before is remembered."""
    for part in (starvation, findings, log):
        part.forked()
    yield
    for part in (starvation, findings):
        part.forked()


@pytest.fixture
def told():
    """The events while the test lasts."""
    with Recorder() as events:
        yield events


class Pool:
    """An executor with two threads, and jobs that end when the test says so."""

    def __init__(self, name: str) -> None:
        self.executor = ThreadPoolExecutor(2, thread_name_prefix=name)
        self.over = threading.Event()

    def hold(self) -> None:
        self.over.wait(LIMIT)


@contextmanager
def pool(name="two"):
    made = Pool(name)
    with made.executor:
        try:
            yield made
        finally:
            made.over.set()


def counted(name):
    return obsloop.snapshots()[name].value("asyncio.task.lint", LINT)


def test_a_starved_default_executor_is_reported_before_anything_completes(told, caplog):
    """Two threads, both held; three jobs wait. The event, the log line and the counter say so, and who holds them."""

    async def main():
        with pool() as held:
            asyncio.get_running_loop().set_default_executor(held.executor)
            waiting = [asyncio.create_task(asyncio.to_thread(held.hold)) for _ in range(5)]
            end = time.monotonic() + LIMIT
            while not told.lints:
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
            assert not any(task.done() for task in waiting)
            held.over.set()
            await asyncio.gather(*waiting)

    with caplog.at_level(logging.WARNING, "obsloop"):
        obsloop.run(main(), settings=obsloop.Settings(name="held", starved_after=0.3))
    (event,) = told.lints
    assert (event.lint, event.loop_name, event.executor, event.count) == (LINT, "held", "default", 3)
    assert (event.name, event.filename) == (f"{__name__}.Pool.hold", __file__)
    assert event.duration >= 0.3
    assert "holds 2 of the 2 threads of executor default: 3 jobs wait, the longest for " in event.message
    assert "loop.set_default_executor()" in event.detail
    assert counted("held") == 1
    (line,) = [r for r in caplog.records if LINT in r.getMessage()]
    assert line.levelno == logging.WARNING
    place = f"{__file__}:{Pool.hold.__code__.co_firstlineno}"
    assert line.getMessage().startswith(f"{LINT} on loop held: {__name__}.Pool.hold ({place}) holds 2 of the 2 threads")


def test_a_busy_executor_without_a_queue_is_healthy(told):
    """All threads are held for many times the limit, and no job waits: that is what they are for."""

    async def main():
        with pool() as held:
            loop = asyncio.get_running_loop()
            jobs = [loop.run_in_executor(held.executor, held.hold) for _ in range(2)]
            for _ in range(10):
                await asyncio.sleep(0.05)
                starvation._starvation.next_ns = 0
            held.over.set()
            await asyncio.gather(*jobs)

    obsloop.run(main(), settings=obsloop.Settings(name="busy", starved_after=0.05))
    assert told.lints == []
    assert counted("busy") == 0


@pytest.mark.parametrize("settings", [{"lints": False}, {"watchdog": False}], ids=["no lints", "no watchdog"])
def test_it_is_off_when_not_wanted(told, settings):
    """Starved for many times the limit, and nothing is reported."""

    async def main():
        with pool() as held:
            loop = asyncio.get_running_loop()
            jobs = [loop.run_in_executor(held.executor, held.hold) for _ in range(5)]
            await asyncio.sleep(0.5)
            held.over.set()
            await asyncio.gather(*jobs)

    obsloop.run(main(), settings=obsloop.Settings(name="off", starved_after=0.01, **settings))
    assert told.lints == []


@pytest.fixture
def stepped(told, monkeypatch):
    """Run a function with a clock that only it moves, a loop that runs, a pool, and a lint that it asks itself."""
    monkeypatch.setattr(findings, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(starvation, "SHARE", 0)
    forget_everything()

    def run(steps):
        async def main():
            lint = starvation.Starvation()

            def look():
                lint.next_ns = 0
                lint.look(clock.monotonic_ns())
                return len(told.lints)

            with pool() as held:
                await steps(clock, held, look)
                held.over.set()
                await until(lambda: not any(p.jobs for p in loop._obsloop.executors.values()))

        with StepClock() as clock:
            loop = obsloop.Loop(clock.selector(), settings=obsloop.Settings(name="stepped", starved_after=1.0))
            try:
                loop.run_until_complete(main())
            finally:
                loop.close()

    return run


def submit(held, function, n=1):
    loop = asyncio.get_running_loop()
    return [loop.run_in_executor(held.executor, function) for _ in range(n)]


async def until(condition):
    """Wait for real threads, however the loop's clock stands."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
        await asyncio.sleep(0)


async def until_active(held, n):
    """Wait until the pool's threads run so many jobs."""
    (one,) = [p for p in asyncio.get_running_loop()._obsloop.executors.values() if p.ref() is held.executor]
    await until(lambda: one.load().active == n)


def test_it_is_reported_once_again_when_it_doubles_and_when_it_comes_back(stepped, told):
    """One report for three jobs, one for six, one after the queue was empty; none in between."""

    async def steps(clock, held, look):
        first = submit(held, held.hold, 5)
        await until_active(held, 2)
        clock.advance(0.9)
        assert look() == 0
        clock.advance(0.2)
        assert look() == 0, "one check may come after a pause of the whole process"
        assert look() == 1
        clock.advance(100)
        assert look() == 1
        more = submit(held, held.hold, 3)
        assert look() == 2
        held.over.set()
        await asyncio.gather(*first, *more)
        assert look() == 2
        held.over.clear()
        submit(held, held.hold, 3)
        await until_active(held, 2)
        clock.advance(2)
        assert (look(), look()) == (2, 3)
        assert [event.count for event in told.lints] == [3, 6, 1]
        assert told.lints[-1].message.endswith("a job has waited for 2.0 s")
        assert counted("stepped") == 3

    stepped(steps)


def test_a_queue_that_moves_is_healthy(stepped):
    """The queue is never empty for 50 s, but each job waits for half a second only."""

    async def steps(clock, held, look):
        gates = [threading.Event() for _ in range(103)]
        jobs = [submit(held, lambda gate=gate: gate.wait(LIMIT)) for gate in gates[:3]]
        for number, gate in enumerate(gates[:-3]):
            await until_active(held, 2)
            clock.advance(0.5)
            jobs.append(submit(held, lambda gate=gates[number + 3]: gate.wait(LIMIT)))
            gate.set()
            await asyncio.gather(*jobs[number])
            assert look() == 0
        for gate in gates:
            gate.set()
        await asyncio.gather(*(job for some in jobs for job in some))

    stepped(steps)


def test_each_executor_is_a_finding_of_its_own(stepped, told):
    """Two pools, of which one is starved; and the functions that hold it, with how many threads each."""

    async def steps(clock, held, look):
        def other():
            held.over.wait(LIMIT)

        submit(held, other)
        await until_active(held, 1)
        submit(held, held.hold, 2)
        await until_active(held, 2)
        with pool("idle") as idle:
            await asyncio.get_running_loop().run_in_executor(idle.executor, len, "")
            clock.advance(5)
            assert (look(), look()) == (0, 1)
        (event,) = told.lints
        assert event.executor == "two"
        assert "holds 1 of the 2 threads" in event.message
        assert "also held by " in event.detail
        assert {event.name.rpartition(".")[2], *event.detail.split(" (")[0].rpartition(".")[2:]} == {"hold", "other"}

    stepped(steps)


def test_the_functions_that_are_read_are_not_kept(stepped):
    """The loop's thread drops them: what a job held is gone after it."""

    async def steps(clock, held, look):
        class Job:
            def __call__(self):
                held.over.wait(LIMIT)

            def __del__(self):
                dropped.append(threading.get_ident())

        dropped: list[int] = []
        jobs = submit(held, Job()) + submit(held, Job()) + submit(held, Job())
        await until_active(held, 2)
        clock.advance(5)
        assert await asyncio.to_thread(look) == 0
        assert await asyncio.to_thread(look) == 1
        held.over.set()
        await asyncio.gather(*jobs)
        clock.advance(0.01)  # the pure core drops them after an iteration that took some time
        await until(lambda: len(dropped) == 3)

    stepped(steps)


A, B = Site("app.a", "/app.py", 1), Site("app.b", "/app.py", 9)


@pytest.mark.parametrize(
    ("load", "holders", "name", "message", "detail"),
    [
        (Load("default", 30, 6, 6, 6, 1, 1), {A: 5, B: 1}, "app.a",
         "holds 5 of the 6 threads of executor default: 30 jobs wait, the longest for 27.0 s",
         "also held by app.b (1); "),
        (Load("Process", 1, 4, 4, 4, 1, 1, "processes"), {}, "(unknown)",
         "code holds the 4 processes of executor Process: a job has waited for 27.0 s", "give slow calls"),
        (Load("own", 1, 4, None, None, 1, 1), {}, "(unknown)", "code holds the workers of executor own: ", "give slow"),
        (Load("many", 2, 9, 9, 9, 1, 1), {Site(f"f{i}", "", 0): 9 - i for i in range(8)}, "f0", "holds 9 of the 9 ",
         "also held by f1 (8), f2 (7), f3 (6), f4 (5), others; "),
    ],
    ids=["threads", "processes", "unknown", "many"],
)  # fmt: skip
def test_the_report_says_what_is_known(load, holders, name, message, detail):
    """Threads or processes, their number, the functions that hold most of them."""
    site, said, more = starvation.report(load, 27.0, Counter(holders))
    assert site.name == name
    assert said.startswith(message)
    assert more.startswith(detail)

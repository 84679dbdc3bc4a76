"""anyio's threads, in which FastAPI runs ``def`` routes: an executor named ``anyio``, with real requests that wait."""

import asyncio
import functools
import gc
import logging
import os
import queue
import threading
import time
import weakref
from contextlib import asynccontextmanager

import anyio
import fastapi
import httpx
import pytest
import uvicorn

import obsloop
from obsloop.base import log
from obsloop.blocking import starvation
from obsloop.probes import anyio_threads, executor_loads
from obsloop.tasks.lints import findings
from obsloop.testing import Recorder
from tests.support import LIMIT, output

LENGTH, THREADS, ACTIVE, AGE = (
    f"asyncio.executor.{name}" for name in ("queue.length", "thread.count", "thread.active", "oldest_job.age")
)


@pytest.fixture(autouse=True)
def from_nothing(clean_metrics):
    """No finding of a test before is remembered."""
    for part in (starvation, findings, log):
        part.forked()
    yield
    for part in (starvation, findings):
        part.forked()


def anyios(snapshot=None):
    """Queue, threads, active ones and age of the executor ``anyio``; None if there is none."""
    snapshot = snapshot or obsloop.snapshots()["main"]
    if ("anyio",) not in snapshot[LENGTH]:
        return None
    return tuple(snapshot.value(name, "anyio") for name in (LENGTH, THREADS, ACTIVE, AGE))


def holders():
    """How many threads each function holds, by its name without the module."""
    found = executor_loads.holders(asyncio.get_running_loop(), "anyio")
    return {site.name.rpartition(".")[2]: n for site, n in found.items()}


def starved(events):
    """The findings about executors. A busy machine adds some about tasks that take long to yield."""
    return [event for event in events.lints if event.lint == "executor_starved"]


async def until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def run(main, **settings):
    return obsloop.run(main(), settings=obsloop.Settings(name="main", **settings))


@asynccontextmanager
async def serving(app):
    """A client of a server on a free port, with four threads for ``def`` routes."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = 4
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    serve = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=LIMIT) as client:
            yield client
    finally:
        server.should_exit = True
        await serve


def test_blocked_routes_of_fastapi_show_before_anything_completes(caplog):
    """Four threads and ten requests that hold them: six wait, and a fast route behind them. For how long is known."""
    over = threading.Event()
    app = fastapi.FastAPI()

    @app.get("/slow")
    def slow() -> str:
        over.wait(LIMIT)
        return "slow"

    @app.get("/fast")
    def fast() -> str:
        return "fast"

    async def main():
        async with serving(app) as client:
            assert (await client.get("/fast")).json() == "fast"
            sent = time.monotonic()
            slows = [asyncio.create_task(client.get("/slow")) for _ in range(10)]
            await until(lambda: anyios()[:3] == (6, 4, 4))
            waiting = time.monotonic()
            behind = asyncio.create_task(client.get("/fast"))
            await until(lambda: anyios()[0] == 7)
            await asyncio.sleep(0.5)
            now = time.monotonic()
            age = anyios()[3]
            assert now - waiting <= age <= time.monotonic() - sent
            assert holders() == {"slow": 4}
            await until(lambda: starved(events))
            assert not any(task.done() for task in (behind, *slows))
            over.set()
            answers = [(await task).json() for task in (*slows, behind)]
            assert answers == ["slow"] * 10 + ["fast"]
            await until(lambda: anyios()[2] == 0)
            assert anyios() == (0, 4, 0, 0.0)
            assert holders() == {}

    with Recorder() as events, caplog.at_level(logging.WARNING, "obsloop"):
        run(main, starved_after=0.3)
    (event,) = starved(events)
    assert (event.lint, event.executor, event.count) == ("executor_starved", "anyio", 7)
    assert event.name.endswith(".slow")
    assert event.filename == __file__
    (line,) = [r.getMessage() for r in caplog.records if "executor_starved" in r.getMessage()]
    assert "slow" in line
    assert "holds 4 of the 4 threads of executor anyio: 7 jobs wait, the longest for " in line
    assert "current_default_thread_limiter().total_tokens" in line
    assert obsloop.snapshots()["main"].value("asyncio.task.lint", "executor_starved") == 1


def test_busy_routes_without_a_queue_are_healthy():
    """All four threads are held for many times the limit, and no request waits."""
    over = threading.Event()
    app = fastapi.FastAPI()

    @app.get("/slow")
    def slow() -> str:
        over.wait(LIMIT)
        return "slow"

    async def main():
        async with serving(app) as client:
            slows = [asyncio.create_task(client.get("/slow")) for _ in range(4)]
            await until(lambda: anyios() is not None and anyios()[2] == 4)
            for _ in range(10):
                await asyncio.sleep(0.05)
                starvation._starvation.next_ns = 0
            assert anyios() == (0, 4, 4, 0.0)
            over.set()
            await asyncio.gather(*slows)

    with Recorder() as events:
        run(main, starved_after=0.05)
    assert starved(events) == []


async def in_thread(function, *args):
    await anyio.to_thread.run_sync(function, *args)


@asynccontextmanager
async def one_thread():
    """One thread, which is held until the block is left."""
    over, begun = threading.Event(), threading.Event()

    def hold():
        begun.set()
        over.wait(LIMIT)

    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    holding = asyncio.create_task(in_thread(hold))
    await until(begun.is_set)
    try:
        yield
    finally:
        over.set()
        await holding


def test_a_wait_that_was_given_up_does_not_count():
    """One task waits, gives up, and another one comes: its wait begins anew, though the queue was never seen empty."""

    async def main():
        async with one_thread():
            first = asyncio.create_task(in_thread(int))
            await asyncio.sleep(0.05)
            assert anyios()[0] == 1
            await asyncio.sleep(0.3)
            began = time.monotonic()
            second = asyncio.create_task(in_thread(int))
            first.cancel()
            await asyncio.sleep(0.05)
            queued, _, _, age = anyios()
            assert (queued, age <= time.monotonic() - began) == (1, True)
        await second

    run(main)


def test_the_oldest_wait_is_that_of_the_first_in_the_queue():
    """Tasks come one by one and each is served in its turn: the age is never more than the first one's wait."""

    async def main():
        gates = [threading.Event() for _ in range(8)]
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        began, noted, tasks = [], [], []
        for gate in gates:
            began.append(time.monotonic())
            tasks.append(asyncio.create_task(in_thread(gate.wait, LIMIT)))
            await asyncio.sleep(0.03)
            anyios()
            noted.append(time.monotonic())
        for number, gate in enumerate(gates[:-1]):
            seen = time.monotonic()
            queued, _, _, age = anyios()
            assert queued == len(gates) - number - 1
            assert seen - noted[number + 1] <= age <= time.monotonic() - began[number + 1]
            gate.set()
            await tasks[number]
            await until(lambda: holders() != {})
        gates[-1].set()
        await tasks[-1]
        assert anyios()[0] == 0

    run(main)


def test_marks_are_bounded(monkeypatch):
    """A queue that never empties keeps so many marks, and still knows its oldest wait."""
    monkeypatch.setattr(anyio_threads, "MAX_MARKS", 4)

    async def main():
        async with one_thread():
            began, tasks = time.monotonic(), []
            for _ in range(30):
                tasks.append(asyncio.create_task(in_thread(int)))
                await asyncio.sleep(0.01)
                age = anyios()[3]
                assert age <= time.monotonic() - began
                assert len(asyncio.get_running_loop()._obsloop.anyio._marks) <= 4
            assert age >= 0.2
        await asyncio.gather(*tasks)

    run(main)


def test_functions_are_named_by_what_the_program_gave():
    """A method under a partial, two functions of the standard library, and one without Python code."""

    class Report:
        def write(self, until, number):
            until.wait(LIMIT)

    async def main():
        over = threading.Event()
        anyio.to_thread.current_default_thread_limiter().total_tokens = 10
        jobs = [
            asyncio.create_task(in_thread(functools.partial(Report().write, over), 1)),
            asyncio.create_task(in_thread(over.wait, LIMIT)),
            asyncio.create_task(in_thread(lines.get)),
            asyncio.create_task(in_thread(os.read, reading, 1)),
        ]
        await until(lambda: len(holders()) == 4)
        assert holders() == {"write": 1, "wait": 1, "get": 1, "(a built-in function)": 1}
        over.set()
        lines.put("")
        os.write(writing, b".")
        await asyncio.gather(*jobs)
        await until(lambda: holders() == {})

    lines = queue.Queue()
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb"):
        run(main)


def test_the_limiter_is_not_kept_alive():
    """After its loop, nothing of obsloop refers to the limiter, to its queue or to the tasks that waited."""

    async def main():
        loop = asyncio.get_running_loop()
        async with one_thread():
            waiting = asyncio.create_task(in_thread(int))
            await asyncio.sleep(0.05)
            assert anyios()[0] == 1
            event = next(iter(anyio.to_thread.current_default_thread_limiter()._wait_queue.values()))
            refs = [weakref.ref(waiting), weakref.ref(event)]
            del event
            assert loop._obsloop.anyio._marks
        await waiting
        del waiting
        starvation._starvation.next_ns = 0
        await asyncio.sleep(0.05)
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
        return weakref.ref(loop)

    loop = run(main)
    end = time.monotonic() + LIMIT
    while loop() is not None:  # a look of the watchdog may hold it for a moment
        assert time.monotonic() < end, "anyio keeps a loop's limiter for as long as that loop"
        gc.collect()


def test_two_loops_have_threads_of_their_own():
    """One is starved in another thread; the other one has an idle limiter, and is not."""

    async def idle():
        await in_thread(int)
        await asyncio.to_thread(done.wait, LIMIT)

    async def main():
        async with one_thread():
            waiting = asyncio.create_task(in_thread(int))
            thread = threading.Thread(
                target=lambda: obsloop.run(idle(), settings=obsloop.Settings(name="idle", starved_after=0.2))
            )
            thread.start()
            await until(lambda: "idle" in obsloop.snapshots() and anyios(obsloop.snapshots()["idle"]))
            await until(lambda: starved(events))
            assert anyios(obsloop.snapshots()["idle"])[0] == 0
            assert anyios()[0] == 1
            done.set()
            await asyncio.to_thread(thread.join, LIMIT)
        await waiting

    done = threading.Event()
    with Recorder() as events:
        run(main, starved_after=0.2)
    assert {event.loop_name for event in starved(events)} == {"main"}


def test_without_anyio_there_is_nothing_and_nothing_is_imported():
    """A program that does not load anyio has no such executor, and does not get anyio."""
    source = """
    import asyncio, sys, time
    import obsloop
    from obsloop.service import executors

    async def main():
        await asyncio.to_thread(int)
        await asyncio.sleep(0.3)
        print([key for key in obsloop.snapshots()["main"]["asyncio.executor.queue.length"]])
        print([entry["executor"] for entry in executors.report()])

    obsloop.run(main(), settings=obsloop.Settings(starved_after=0.01))
    print(sorted(name for name in sys.modules if name.startswith("anyio")))
    """
    assert output(source).splitlines() == ["[('default',)]", "['default']", "[]"]


def test_anyio_on_trio_does_no_harm():
    """trio runs in another thread and blocks its threads: this loop has no such executor, and no error is logged."""
    source = """
    import asyncio, sys, threading
    import anyio, anyio.to_thread
    import obsloop
    from obsloop.service import executors

    begun, over = threading.Event(), threading.Event()

    async def on_trio():
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(anyio.to_thread.run_sync, over.wait, 60)
            await anyio.sleep(0.1)
            begun.set()

    async def main():
        thread = threading.Thread(target=anyio.run, args=(on_trio,), kwargs={"backend": "trio"})
        thread.start()
        while not begun.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        print("trio" in sys.modules, dict(obsloop.snapshots()["main"]["asyncio.executor.queue.length"]))
        print(executors.report())
        over.set()
        await asyncio.to_thread(thread.join)

    obsloop.run(main(), settings=obsloop.Settings(starved_after=0.05))
    """
    assert output(source).splitlines() == ["True {}", "[]"]


@pytest.mark.parametrize("strange", ["no dict", "no limiter", "another queue"])
def test_an_anyio_that_is_built_differently_is_left_alone(monkeypatch, strange):
    """A later version may keep other things there: then there is no such executor, and no error."""
    from anyio import lowlevel
    from anyio._backends import _asyncio

    class Limiter:
        _wait_queue, _borrowers, _total_tokens = [], 0, "many"

    async def main():
        loop = asyncio.get_running_loop()
        await in_thread(int)
        assert anyios() is not None
        kept = weakref.WeakKeyDictionary()
        kept[loop] = {
            "no dict": None,
            "no limiter": {},
            "another queue": {_asyncio._default_thread_limiter: Limiter(), _asyncio._threadpool_workers: 3},
        }[strange]
        monkeypatch.setattr(lowlevel, "_run_vars", kept)
        assert anyios() is None
        assert holders() == {}
        monkeypatch.undo()

    run(main)

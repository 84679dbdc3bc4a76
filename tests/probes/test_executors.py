"""Executors: what is put in as waiting, running and delivering is found again; the job notices nothing."""

import asyncio
import contextlib
import functools
import gc
import multiprocessing
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from unittest import mock

import pytest

import obsloop
from obsloop.testing import Recorder, StepClock
from tests.support import LIMIT, forget_everything

QUEUED, RAN, DELIVERED = (f"asyncio.executor.{name}" for name in ("job.queue_duration", "job.duration", "result.delay"))
LENGTH, THREADS, ACTIVE, AGE = (
    f"asyncio.executor.{name}" for name in ("queue.length", "thread.count", "thread.active", "oldest_job.age")
)


class Inline:
    """An executor that does the work in submit."""

    def submit(self, func, /, *args):
        future = Future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future


@pytest.fixture
def loop(clean_metrics):
    made = obsloop.Loop(settings=obsloop.Settings(name="main"))
    yield made
    if not made.is_closed():
        made.run_until_complete(made.shutdown_default_executor())
        made.close()


@pytest.fixture
def stepped():
    """A loop and a clock that stands still, unless it is told."""
    forget_everything()
    with StepClock() as clock:
        made = obsloop.Loop(clock.selector())
        yield clock, made
        made.close()


def counts(loop, signal):
    """How many values each series has, the empty ones left out."""
    return {labels: histogram.count for labels, histogram in loop.snapshot()[signal].items() if histogram.count}


def test_ten_jobs_of_100_ms_on_two_threads(loop):
    """The queue's times are known: two do not wait, two wait 0.1 s, and so on; 2 s in all. They run for 1 s in all."""
    with ThreadPoolExecutor(2, thread_name_prefix="two") as pool:

        async def main():
            jobs = [loop.run_in_executor(pool, time.sleep, 0.1) for _ in range(10)]
            await asyncio.sleep(0.05)
            busy = loop.snapshot()
            await asyncio.gather(*jobs)
            return busy

        busy = loop.run_until_complete(main())
    assert (busy.value(LENGTH, "two"), busy.value(ACTIVE, "two"), busy.value(THREADS, "two")) == (8, 2, 2)
    assert busy.value(AGE, "two") >= 0.04
    after = loop.snapshot()
    queued, ran = after.histogram(QUEUED, "two", "ok"), after.histogram(RAN, "two", "ok")
    assert (queued.count, ran.count, after.histogram(DELIVERED, "two", "ok").count) == (10, 10, 10)
    assert ran.sum >= 1.0
    assert queued.sum >= 1.9  # more on a busy machine, not less
    at = queued.partition.index(40_000_000)
    assert sum(queued.bucket_counts[at:]) >= 8, "only the first two found a thread at once"


def test_times_are_exact(stepped):
    """By a clock that only we move: 3 s in the queue, 2 s of work, 1 s until the loop comes to it."""
    clock, loop = stepped
    held = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="one") as pool, Recorder() as events:
        pool.submit(held.wait, LIMIT)
        future = loop.run_in_executor(pool, clock.advance, 2)
        clock.advance(3)
        waiting = loop.snapshot()
        assert (waiting.value(LENGTH, "one"), waiting.value(ACTIVE, "one"), waiting.value(AGE, "one")) == (1, 0, 3)
        held.set()
        thread_name = pool.submit(lambda: threading.current_thread().name).result(LIMIT)  # after that job
        ended = loop.snapshot()
        assert (ended.value(LENGTH, "one"), ended.value(ACTIVE, "one"), ended.value(AGE, "one")) == (0, 0, 0)
        clock.advance(1)
        loop.run_until_complete(future)
    snapshot = loop.snapshot()
    for signal, seconds in ((QUEUED, 3), (RAN, 2), (DELIVERED, 1)):
        histogram = snapshot.histogram(signal, "one", "ok")
        assert (histogram.count, histogram.sum) == (1, seconds)
    (event,) = events.events
    assert (event.schedule_delay, event.duration, event.result_delay) == (3, 2, 1)
    assert (event.executor, event.outcome, event.via, event.thread_name) == (
        "one", "ok", "run_in_executor", thread_name,
    )  # fmt: skip
    assert event.name.endswith("StepClock.advance")


def test_starvation_shows_before_anything_completes(loop):
    """The age of the oldest job grows while its pool's only thread is held."""
    held = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="one") as pool:
        jobs = [loop.run_in_executor(pool, held.wait, LIMIT) for _ in range(3)]
        loop.run_until_complete(asyncio.sleep(0.02))
        ages = [loop.snapshot().value(AGE, "one")]
        time.sleep(0.02)  # the loop does not run: a scrape is enough
        ages.append(loop.snapshot().value(AGE, "one"))
        assert 0.01 < ages[0] <= ages[1] - 0.02
        assert loop.snapshot().value(LENGTH, "one") == 2
        assert counts(loop, QUEUED) == {}
        held.set()
        loop.run_until_complete(asyncio.gather(*jobs))
    assert loop.snapshot().value(AGE, "one") == 0


def test_outcomes(loop):
    """One that returns, one that raises, one that nobody waits for any more, one that never began."""
    held, began = threading.Event(), threading.Event()

    def hold():
        began.set()
        held.wait(LIMIT)

    async def main():
        await loop.run_in_executor(None, int)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 1, 0)
        with ThreadPoolExecutor(1, thread_name_prefix="one") as pool:
            running = loop.run_in_executor(pool, hold)
            queued = loop.run_in_executor(pool, print, "was cancelled")
            await asyncio.to_thread(began.wait, LIMIT)
            running.cancel()
            queued.cancel()
            await asyncio.sleep(0.01)
            held.set()
        await asyncio.sleep(0.01)

    with Recorder() as events:
        loop.run_until_complete(main())
    assert counts(loop, QUEUED) == {("default", "ok"): 2, ("default", "error"): 1, ("one", "cancelled"): 2}
    assert counts(loop, RAN) == {("default", "ok"): 2, ("default", "error"): 1, ("one", "cancelled"): 1}
    assert counts(loop, DELIVERED) == {("default", "ok"): 2, ("default", "error"): 1}
    # A busy machine also makes callbacks slow, which adds events.
    jobs = [event for event in events.events if isinstance(event, obsloop.events.ExecutorJob)]
    told = {(event.name.rpartition(".")[2], event.outcome, event.via, event.error_type) for event in jobs}
    assert told == {
        ("int", "ok", "run_in_executor", ""),
        ("divmod", "error", "run_in_executor", "ZeroDivisionError"),
        ("hold", "cancelled", "run_in_executor", ""),
        ("print", "cancelled", "run_in_executor", ""),
        ("wait", "ok", "to_thread", ""),
    }


def test_the_job_sees_nothing_of_us(loop):
    """Same thread, same result object, and a traceback without a frame of ours."""
    result = object()

    def job(given):
        assert given is result
        return given, threading.current_thread().name

    def fail():
        raise LookupError("within")

    async def main():
        same, thread = await loop.run_in_executor(None, job, result)
        assert same is result
        assert thread.startswith("asyncio_")
        for way in (functools.partial(loop.run_in_executor, None, fail), functools.partial(asyncio.to_thread, fail)):
            with pytest.raises(LookupError, match="within") as caught:
                await way()
            frames = traceback.extract_tb(caught.value.__traceback__)
            assert frames[-1].name == "fail"
            assert not [frame for frame in frames if "obsloop/probes" in frame.filename]

    loop.run_until_complete(main())


def test_an_executor_that_runs_inline(loop):
    """The job is over before submit returns: no wait, and the loop's thread is the worker."""

    async def main():
        assert await loop.run_in_executor(Inline(), divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(Inline(), divmod, 7, 0)

    loop.run_until_complete(main())
    assert counts(loop, RAN) == {("Inline", "ok"): 1, ("Inline", "error"): 1}


def test_what_is_done_in_the_loops_thread_is_delivered_as_asyncio_does_it(loop):
    """At once, or in the next iteration: that depends on the version."""
    stock = asyncio.SelectorEventLoop()

    async def main(loop):
        future = loop.run_in_executor(Inline(), int)
        at_once = future.done()
        assert await future == 0
        return at_once

    try:
        assert loop.run_until_complete(main(loop)) == stock.run_until_complete(main(stock))
    finally:
        stock.close()


def test_an_executor_that_gives_the_loops_own_future(loop):
    """As asyncio, we hand it through; there is nothing to time."""
    future = loop.create_future()
    future.set_result(42)

    class Odd:
        def submit(self, func, /, *args):
            return future

    assert loop.run_in_executor(Odd(), print) is future
    with pytest.raises(AssertionError):  # what asyncio says to what is no future at all
        loop.run_in_executor(type("None_", (), {"submit": lambda self, func: 42})(), print)
    assert counts(loop, RAN) == {}


def test_a_process_pool_gets_the_function_itself(loop):
    """It is pickled as ever. From outside its jobs have a beginning and an end: one time, queue and work together."""
    context = multiprocessing.get_context("spawn")

    def unpicklable():
        pass

    async def main():
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            jobs = [loop.run_in_executor(pool, time.sleep, 0.1) for _ in range(3)]
            first = loop.snapshot()
            assert (first.value(LENGTH, "ProcessPoolExecutor"), first.value(ACTIVE, "ProcessPoolExecutor")) == (2, 1)
            await asyncio.gather(*jobs)
            assert loop.snapshot().value(THREADS, "ProcessPoolExecutor") == 1
            theirs = pool.submit(unpicklable).exception()
            with pytest.raises(type(theirs)) as ours:
                await loop.run_in_executor(pool, unpicklable)
            assert str(ours.value) == str(theirs)

    loop.run_until_complete(main())
    key = "ProcessPoolExecutor", "ok"
    assert counts(loop, QUEUED) == {}
    ran = loop.snapshot().histogram(RAN, *key)
    assert ran.count == 3
    assert ran.sum >= 0.1 + 0.2 + 0.3


class Sorting(ThreadPoolExecutor):
    """A pool of the program's own that looks at the function."""

    seen = None

    def submit(self, func, /, *args):
        self.seen = func
        return super().submit(func, *args)


class Named(ThreadPoolExecutor):
    """One that takes its jobs as the standard one does."""


def test_an_executor_of_the_programs_own_gets_the_function_itself(loop):
    """It may compare it, sort by it or pickle it. Its jobs have one time, from submission to end."""
    with Sorting(1, thread_name_prefix="sorting") as pool:
        assert loop.run_until_complete(loop.run_in_executor(pool, divmod, 7, 2)) == (3, 1)
        assert pool.seen is divmod
        with Recorder() as events, pytest.raises(ZeroDivisionError):
            loop.run_until_complete(loop.run_in_executor(pool, divmod, 7, 0))
    assert counts(loop, RAN) == {("sorting", "ok"): 1, ("sorting", "error"): 1}
    assert counts(loop, QUEUED) == {}
    (event,) = events.events
    assert (event.name, event.error_type) == ("divmod", "ZeroDivisionError")


def test_a_mock_of_an_executor_is_called_with_the_function(loop):
    """A whole mock, or a standard pool whose ``submit`` is one. A reading stumbles over neither."""
    future = Future()
    future.set_result(42)
    executor = mock.MagicMock()
    executor.submit.return_value = future
    with ThreadPoolExecutor(1) as pool:
        pool.submit = mock.Mock(return_value=future)
        for each in (executor, pool):
            assert loop.run_until_complete(loop.run_in_executor(each, divmod, 7, 2)) == 42
            each.submit.assert_called_once_with(divmod, 7, 2)
            loop.snapshot()


def test_a_subclass_that_takes_its_jobs_as_the_standard_pool_is_seen_in_full(loop):
    """Nothing of the program's looks at the function there: its queue's times are known."""
    with Named(1, thread_name_prefix="named") as pool:
        assert loop.run_until_complete(loop.run_in_executor(pool, divmod, 7, 2)) == (3, 1)
    assert counts(loop, QUEUED) == counts(loop, RAN) == {("named", "ok"): 1}


def test_a_pool_that_is_shut_down_early(loop):
    """Its refusal is its own; jobs that it cancels are cancelled; nothing stays in the gauges."""
    held = threading.Event()

    async def main():
        pool = ThreadPoolExecutor(1, thread_name_prefix="short")
        jobs = [loop.run_in_executor(pool, held.wait, LIMIT) for _ in range(3)]
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            loop.run_in_executor(pool, print)
        held.set()
        done = await asyncio.gather(*jobs, return_exceptions=True)
        assert done[0] is True
        assert [type(result) for result in done[1:]] == [asyncio.CancelledError] * 2
        snapshot = loop.snapshot()
        assert (snapshot.value(LENGTH, "short"), snapshot.value(ACTIVE, "short")) == (0, 0)

    loop.run_until_complete(main())
    assert counts(loop, QUEUED) == {("short", "ok"): 1, ("short", "cancelled"): 2}


def test_a_loop_that_closes_first(loop):
    """A job may outlive its loop: it ends in peace, and its figures are not counted."""
    held = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        loop.run_in_executor(pool, held.wait, LIMIT)
        loop.close()
        held.set()
    assert counts(loop, QUEUED) == {}
    assert loop.snapshot()[LENGTH] == {}


def test_names(loop):
    """The default one, a pool's own prefix, a class; past eight names it is _OTHER, and that is counted."""

    async def main():
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="mine"))
        with contextlib.ExitStack() as stack:
            pools = [
                stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=prefix))
                for prefix in ("named", "", *(f"many-{i}" for i in range(8)))
            ]
            for pool in (None, *pools):
                await loop.run_in_executor(pool, int)
            return loop.snapshot()

    snapshot = loop.run_until_complete(main())
    expected = {"default", "named", "ThreadPoolExecutor", *(f"many-{i}" for i in range(5)), "_OTHER"}
    assert {name for name, _ in snapshot[RAN]} == expected
    assert {name for (name,) in snapshot[THREADS]} == expected
    assert snapshot.value(THREADS, "_OTHER") == 3
    assert obsloop.process_snapshot().value("obsloop.dropped", "executor") == 9  # three jobs, three times


def test_executors_come_and_go(loop):
    """A thousand pools leave nothing behind: no series, no object."""

    async def main():
        for _ in range(1000):
            pool = Inline()
            await loop.run_in_executor(pool, int)

    loop.run_until_complete(main())
    gc.collect()
    assert len(loop._obsloop.executors) <= 1
    assert counts(loop, RAN) == {("Inline", "ok"): 1000}


def test_a_job_lets_go_of_its_function(loop):
    """When it is delivered nobody holds the function, its arguments or its result; no cycle for the collector."""

    class Thing:
        pass

    async def main():
        gone = []
        for _ in range(3):
            thing = Thing()
            gone.append(weakref.ref(thing))
            await loop.run_in_executor(None, lambda x: x, thing)
            del thing
        while any(ref() is not None for ref in gone):  # the worker's last reference
            await asyncio.sleep(0.001)

    gc.collect()
    gc.disable()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), LIMIT))
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["partial", "method", "closure"])
@pytest.mark.parametrize("listener", [False, True])
def test_what_a_job_holds_is_gone_before_its_delivery(loop, kind, listener):
    """A partial's arguments, a method's object, a closure's variables: the worker drops them, as on the stock loop.

    The loop does not run meanwhile. An instrument still learns the function's name afterwards.
    """

    class Thing:
        def method(self):
            return 1

    def take(thing):
        return 1

    def submitted(pool):
        thing = Thing()
        job = {
            "partial": functools.partial(take, thing),
            "method": thing.method,
            "closure": lambda: 1 if thing else 0,
        }[kind]
        return loop.run_in_executor(pool, job), weakref.ref(thing)

    with ThreadPoolExecutor(1) as pool, Recorder() if listener else contextlib.nullcontext() as events:
        future, ref = submitted(pool)
        for _ in range(2):  # the worker lets go of a job before it takes the next but one
            pool.submit(int).result(LIMIT)
        assert ref() is None
        assert loop.run_until_complete(future) == 1
    if listener:
        (event,) = events.events
        assert event.name.rpartition(".")[2] == {"partial": "take", "method": "method", "closure": "<lambda>"}[kind]


@pytest.mark.parametrize("way", ["run_in_executor", "to_thread"])
def test_the_callers_opentelemetry_context_is_current_in_the_job(loop, way):
    """And only there: the thread is as before afterwards. Other context variables are as asyncio has them."""
    context = pytest.importorskip("opentelemetry.context")

    def tell():
        return context.get_value("story")

    async def main():
        call = functools.partial(loop.run_in_executor, None) if way == "run_in_executor" else asyncio.to_thread
        assert await call(tell) is None
        token = context.attach(context.set_value("story", "told"))
        assert await call(tell) == "told"
        context.detach(token)
        assert await call(tell) is None

    loop.set_default_executor(ThreadPoolExecutor(1))
    loop.run_until_complete(main())


def test_opentelemetry_is_not_imported_and_may_fail(loop, monkeypatch):
    """Where it is not loaded nothing is asked; where it is broken the job runs."""

    class Broken:
        def __getattr__(self, name):
            raise RuntimeError(name)

    monkeypatch.delitem(sys.modules, "opentelemetry.context", raising=False)
    assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0
    assert "opentelemetry.context" not in sys.modules
    monkeypatch.setitem(sys.modules, "opentelemetry.context", Broken())
    assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0


def test_an_instrumented_loop_and_a_subclass():
    """obsloop.instrument() gives a loop the same; a subclass of the program's may call on."""
    forget_everything()
    called = []

    class Theirs(asyncio.SelectorEventLoop):
        def run_in_executor(self, executor, func, *args):
            called.append(func)
            return super().run_in_executor(executor, func, *args)

    for made, expected in ((asyncio.SelectorEventLoop(), []), (Theirs(), [int])):
        loop = obsloop.instrument(made, obsloop.Settings(name="main"))
        assert loop.run_until_complete(loop.run_in_executor(None, int)) == 0
        loop.run_until_complete(loop.shutdown_default_executor())
        assert called == expected
        loop.close()
    assert obsloop.snapshots()["main"].histogram(RAN, "default", "ok").count == 2

"""Closing: idempotent, irreversible, pending callbacks lost; and the shutdowns that come before it."""

import asyncio
import concurrent.futures
import gc
import threading
import warnings
import weakref

import pytest

from .support import LIMIT, run, run_batch, socket_pair


def test_close_is_idempotent_and_irreversible(loop):
    """A loop can be closed twice, and not be run again."""
    assert not loop.is_closed()
    loop.close()
    assert loop.is_closed()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()
    future = asyncio.Future(loop=loop)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(future)


def test_close_of_a_running_loop_is_refused(loop):
    """A loop must not be closed while it runs, and goes on when someone tries."""

    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        return loop.is_closed()

    assert run(loop, main()) is False


def test_close_loses_pending_callbacks(loop):
    """Callbacks, timers and readers that still wait when the loop closes never run."""
    with socket_pair() as (a, b):
        b.send(b"x")
        loop.call_soon(pytest.fail, "soon")
        loop.call_soon_threadsafe(pytest.fail, "threadsafe")
        loop.call_later(0, pytest.fail, "timer")
        loop.add_reader(a, pytest.fail, "reader")
        loop.close()
    assert loop.is_closed()


def test_a_closed_loop_takes_no_more_work(loop):
    """Every way to schedule something says that the loop is closed."""
    loop.close()

    async def main():
        pass

    with socket_pair() as (a, _):
        for attempt in (
            lambda: loop.call_soon(print),
            lambda: loop.call_soon_threadsafe(print),
            lambda: loop.call_later(1, print),
            lambda: loop.call_at(1, print),
            lambda: loop.run_in_executor(None, print),
            lambda: loop.add_reader(a, print),
            lambda: loop.add_writer(a, print),
        ):
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                attempt()
        assert loop.remove_reader(a) is False
        assert loop.remove_writer(a) is False
    coro = main()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coro)
    coro.close()


def test_a_closed_loop_answers_harmless_questions(loop):
    """What only reads the loop, cancels or stops still works after close()."""
    handle = loop.call_later(LIMIT, print)
    loop.close()
    handle.cancel()
    loop.stop()
    assert handle.cancelled()
    assert loop.is_running() is False
    assert isinstance(loop.time(), float)
    assert loop.get_debug() is False
    assert "closed=True" in repr(loop)


def test_close_does_not_wait_for_the_executor(loop):
    """close() returns while an executor's job still runs."""
    started, finish = threading.Event(), threading.Event()

    def job():
        started.set()
        assert finish.wait(LIMIT)

    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    job_future = loop.run_in_executor(None, job)
    assert started.wait(LIMIT)
    loop.close()
    assert not job_future.done()
    with pytest.raises(RuntimeError):
        executor.submit(print)
    # The job's end finds a closed loop: that must not raise in the worker.
    finish.set()
    executor.shutdown(wait=True)


def test_a_forgotten_loop_warns_and_closes_itself(loop_class):
    """A loop that is collected without having been closed gives a ResourceWarning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_class()
        loop.call_soon(print)
        del loop
        gc.collect()
    assert any("unclosed event loop" in str(w.message) and w.category is ResourceWarning for w in caught)


def test_a_closed_loop_is_collected(loop_class):
    """Nothing keeps a closed loop alive once its user has let go of it."""
    loop = loop_class()
    loop.call_soon(print)
    loop.call_later(LIMIT, print)
    run(loop, asyncio.sleep(0))
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_many_loops_one_after_the_other(make_loop):
    """A closed loop leaves nothing behind that stands in the way of the next one."""
    for number in range(20):
        loop = make_loop()
        assert run(loop, asyncio.sleep(0, number)) == number
        loop.close()


async def first(generator):
    """The first item, asked for inside the loop, which only then learns of the generator."""
    return await anext(generator)


def test_shutdown_asyncgens_finishes_generators(loop):
    """Generators that were left half-way get their finally block run inside the loop."""
    seen = []

    async def ticks():
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            seen.append(asyncio.get_running_loop())

    generator = ticks()
    run(loop, first(generator))
    run(loop, loop.shutdown_asyncgens())
    assert seen == [loop]


def test_a_dropped_asyncgen_is_closed_by_the_loop(loop):
    """A generator that is garbage while the loop runs is closed by a task of the loop."""
    seen = []

    async def ticks():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def main():
        async for _ in ticks():
            break
        gc.collect()
        while not seen:
            await asyncio.sleep(0)

    run(loop, main())
    assert seen == ["closed"]


def test_shutdown_asyncgens_reports_a_generator_that_raises(loop):
    """An error on the way out reaches the exception handler, with the generator named."""
    contexts = []
    loop.set_exception_handler(lambda _loop, context: contexts.append(context))

    async def bad():
        try:
            yield 1
        finally:
            raise LookupError("on the way out")

    generator = bad()
    run(loop, first(generator))
    run(loop, loop.shutdown_asyncgens())
    (context,) = contexts
    assert context["asyncgen"] is generator
    assert "an error occurred during closing of asynchronous generator" in context["message"]
    assert isinstance(context["exception"], LookupError)


def test_a_generator_after_shutdown_asyncgens_warns(loop):
    """A generator started after the shutdown cannot be cleaned up any more, and is warned about."""

    async def ticks():
        yield 1

    async def main():
        await loop.shutdown_asyncgens()
        generator = ticks()
        with pytest.warns(ResourceWarning, match="was scheduled after"):
            await anext(generator)
        await generator.aclose()

    run(loop, main())


def test_asyncio_run_uses_the_loop_from_end_to_end(loop_class):
    """asyncio.Runner with our class as its factory: runs, shuts down, closes."""
    with asyncio.Runner(loop_factory=loop_class) as runner:
        loop = runner.get_loop()
        assert type(loop) is loop_class
        assert runner.run(asyncio.sleep(0, "value")) == "value"
        assert runner.run(asyncio.to_thread(threading.get_ident)) != threading.get_ident()
    assert loop.is_closed()


def test_a_batch_after_an_empty_one(loop):
    """A run that finds nothing to do leaves the loop usable."""
    seen = []
    run_batch(loop)
    loop.call_soon(seen.append, 1)
    run_batch(loop)
    assert seen == [1]

"""run_in_executor, set_default_executor, shutdown_default_executor."""

import asyncio
import concurrent.futures
import contextvars
import functools
import multiprocessing
import sys
import threading

import pytest

from .support import LIMIT, run

story = contextvars.ContextVar("story", default="untold")


@pytest.fixture
def blocked():
    """An event that a job waits for, set at the latest when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_default_executor_runs_in_another_thread(loop):
    """None means the default executor: a thread pool, whose threads are named after asyncio."""

    async def main():
        thread = await loop.run_in_executor(None, threading.current_thread)
        assert thread is not threading.current_thread()
        assert thread.name.startswith("asyncio_")

    run(loop, main())


def test_arguments_and_partial_keywords(loop):
    """Arguments are passed on; keywords come by functools.partial."""

    async def main():
        assert await loop.run_in_executor(None, divmod, 7, 2) == (3, 1)
        assert await loop.run_in_executor(None, functools.partial(int, "ff", base=16)) == 255
        with pytest.raises(TypeError):
            loop.run_in_executor(None, int, "ff", base=16)

    run(loop, main())


def test_it_returns_a_future_of_the_loop_and_begins_at_once(loop):
    """The job is handed over in the call itself, before anyone awaits, also when the loop is not running."""
    began = threading.Event()
    future = loop.run_in_executor(None, began.set)
    assert asyncio.isfuture(future)
    assert future.get_loop() is loop
    assert began.wait(LIMIT)
    assert run(loop, future) is None


def test_exceptions_come_back(loop):
    """What the job raises, the awaiting coroutine gets."""

    def fail():
        raise LookupError("in the worker")

    async def main():
        with pytest.raises(LookupError, match="in the worker"):
            await loop.run_in_executor(None, fail)

    run(loop, main())


def test_a_given_executor(loop):
    """An executor of the caller's does the work, and stays the caller's."""

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as mine:
            name = await loop.run_in_executor(mine, lambda: threading.current_thread().name)
            assert name.startswith("mine")
            await loop.shutdown_default_executor()
            assert await loop.run_in_executor(mine, int, "42") == 42

    run(loop, main())


def test_a_process_pool(loop):
    """Any Executor will do, one of processes too: the job and its result cross by pickling."""

    async def main():
        # Not by fork: other threads may be alive in this process.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert await loop.run_in_executor(pool, divmod, 7, 2) == (3, 1)
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(pool, divmod, 7, 0)

    run(loop, main())


def test_any_object_with_submit(loop):
    """The loop asks an executor for submit() only, and passes func and args as they are."""
    seen = []

    class Immediate:
        def submit(self, func, *args):
            seen.append((func, args))
            future = concurrent.futures.Future()
            future.set_result(func(*args))
            return future

    async def main():
        return await loop.run_in_executor(Immediate(), divmod, 7, 2)

    assert run(loop, main()) == (3, 1)
    ((_, args),) = seen
    assert args == (7, 2) or not args  # a wrapped job may carry its arguments


def test_set_default_executor(loop):
    """The executor that is set is used for None; only a ThreadPoolExecutor will do."""
    mine = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(mine)

    async def main():
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)

    assert run(loop, main()).startswith("mine")
    for thing in (None, 42, object()):
        with pytest.raises(TypeError, match="executor must be ThreadPoolExecutor instance"):
            loop.set_default_executor(thing)


def test_shutdown_default_executor(loop, blocked):
    """It waits for the jobs that run; afterwards the default executor refuses, and says why."""

    async def main():
        job = loop.run_in_executor(None, blocked.wait, LIMIT)
        shutting_down = asyncio.ensure_future(loop.shutdown_default_executor())
        await asyncio.sleep(0.02)
        assert not shutting_down.done()
        blocked.set()
        await shutting_down
        assert await job is True
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(None, print)
        await loop.shutdown_default_executor()

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.12, and without effect there (gh-111358)")
def test_shutdown_default_executor_with_a_timeout(loop, blocked):
    """A job that outlasts the timeout is left alone, with a warning."""

    async def main():
        job = loop.run_in_executor(None, blocked.wait, LIMIT)
        with pytest.warns(RuntimeWarning, match="The executor did not finishing joining"):
            await loop.shutdown_default_executor(0.02)
        blocked.set()
        assert await job is True

    run(loop, main())


def test_the_loop_goes_on_meanwhile(loop, blocked):
    """A job that blocks holds its thread, not the loop."""

    async def main():
        job = loop.run_in_executor(None, blocked.wait, LIMIT)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not job.done()
        blocked.set()
        assert await job is True

    run(loop, main())


def test_cancelled_before_and_after_it_began(loop, blocked):
    """A queued job that is cancelled never runs; a running one runs on, unheard."""

    async def main():
        executor = concurrent.futures.ThreadPoolExecutor(1)
        loop.set_default_executor(executor)
        began = threading.Event()

        def job():
            began.set()
            blocked.wait(LIMIT)

        running = loop.run_in_executor(None, job)
        queued = loop.run_in_executor(None, pytest.fail, "was cancelled")
        assert began.wait(LIMIT)
        queued.cancel()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        with pytest.raises(asyncio.CancelledError):
            await running
        blocked.set()
        await loop.shutdown_default_executor()

    run(loop, main())


def test_to_thread_carries_the_context(loop):
    """asyncio.to_thread takes keywords and the context along; run_in_executor does not."""

    def tell(*, end):
        return story.get() + end

    async def main():
        story.set("told")
        assert await asyncio.to_thread(tell, end="!") == "told!"
        assert await loop.run_in_executor(None, story.get) == "untold"

    run(loop, main())


def test_coroutines_are_refused_in_debug_mode(loop):
    """A coroutine function is no job; debug mode says so."""
    loop.set_debug(True)

    async def job():
        pass

    with pytest.raises(TypeError, match=r"coroutines cannot be used with run_in_executor\(\)"):
        loop.run_in_executor(None, job)
    with pytest.raises(TypeError, match=r"a callable object was expected by run_in_executor\(\)"):
        loop.run_in_executor(None, 42)


def test_many_jobs(loop):
    """A thousand jobs: each result with its own awaiter."""

    async def main():
        return await asyncio.gather(*(loop.run_in_executor(None, pow, n, 2) for n in range(1000)))

    assert run(loop, main()) == [n * n for n in range(1000)]

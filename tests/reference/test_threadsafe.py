"""call_soon_threadsafe from other threads: waking, losing nothing, stopping. Its other rules: test_call_soon."""

import asyncio
import threading

from .support import LIMIT, run, run_forever


def test_threadsafe_wakes_a_sleeping_loop(loop):
    """A loop that waits with nothing to do is woken by another thread; the callback runs in the loop's."""
    asleep = threading.Event()
    seen = []

    def callback():
        seen.append(threading.get_ident())
        loop.stop()

    def other_thread():
        assert asleep.wait(LIMIT)
        # Whether the loop has gone to sleep by now or is about to: neither may lose the wake-up.
        loop.call_soon_threadsafe(callback)

    thread = threading.Thread(target=other_thread)
    thread.start()
    loop.call_soon(asleep.set)
    run_forever(loop)
    thread.join()
    assert seen == [threading.get_ident()]


def test_threadsafe_from_many_threads_loses_nothing(loop):
    """Each thread's callbacks all arrive, in that thread's order."""
    threads, each = 8, 500
    seen = {number: [] for number in range(threads)}
    done = loop.create_future()
    start = threading.Barrier(threads)

    def callback(number, count):
        seen[number].append(count)
        if sum(map(len, seen.values())) == threads * each:
            done.set_result(None)

    def work(number):
        start.wait(LIMIT)
        for count in range(each):
            loop.call_soon_threadsafe(callback, number, count)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    run(loop, done)
    for worker in workers:
        worker.join()
    assert seen == {number: list(range(each)) for number in range(threads)}


def test_threadsafe_stops_a_loop_from_outside(loop):
    """The documented way to stop a loop of another thread."""
    started = threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=run_forever, args=(loop,))
    thread.start()
    assert started.wait(LIMIT)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert not loop.is_running()


def test_threadsafe_cancel_from_another_thread(loop):
    """run_coroutine_threadsafe, built on it: a result and a cancellation cross the threads."""
    thread = threading.Thread(target=run_forever, args=(loop,))
    thread.start()
    assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "result"), loop).result(LIMIT) == "result"
    cancelled = threading.Event()

    async def wait():
        try:
            await asyncio.sleep(LIMIT)
        finally:
            cancelled.set()

    waiting = asyncio.run_coroutine_threadsafe(wait(), loop)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(LIMIT)
    waiting.cancel()
    assert cancelled.wait(LIMIT)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()

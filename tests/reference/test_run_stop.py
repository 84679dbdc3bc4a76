"""Running and stopping: run_forever's batch rule, run_until_complete, is_running."""

import asyncio
import sys
import threading

import pytest

from .support import LIMIT, RecordingSelector, run, run_batch, run_forever, socket_pair


def test_stop_before_run_polls_once_with_timeout_zero(make_loop):
    """A loop that was stopped before it runs looks at its sockets once, does not wait, and exits."""
    selector = RecordingSelector()
    loop = make_loop(selector)
    loop.call_later(LIMIT, pytest.fail, "a timer that is not due")
    loop.stop()
    loop.run_forever()
    assert selector.timeouts == [0]


def test_stop_before_run_runs_what_was_scheduled_and_what_io_makes_ready(loop):
    """What was scheduled and what sockets make ready runs; what these schedule waits for the next run."""
    seen = []
    with socket_pair() as (a, b):
        b.send(b"x")
        loop.add_reader(a, lambda: (seen.append(a.recv(1)), loop.call_soon(seen.append, "after I/O")))
        loop.call_soon(lambda: (seen.append("scheduled"), loop.call_soon(seen.append, "after scheduled")))
        loop.stop()
        loop.run_forever()
        assert seen == ["scheduled", b"x"]
        loop.stop()
        loop.run_forever()
        assert seen == ["scheduled", b"x", "after scheduled", "after I/O"]
        loop.remove_reader(a)


def test_stop_while_running_finishes_the_batch(loop):
    """stop() lets the rest of the batch run; callbacks made by callbacks run in the next run_forever()."""
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "made by first")
        loop.stop()
        loop.call_soon(seen.append, "made after stop")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    loop.call_soon(seen.append, "third")
    run_forever(loop)
    assert seen == ["first", "second", "third"]
    run_batch(loop)
    assert seen[3:] == ["made by first", "made after stop"]


def test_a_due_timer_belongs_to_the_batch(loop):
    """A timer that is due when the loop polls runs in that batch, after what was scheduled already."""
    seen = []
    loop.call_at(loop.time() - 1, seen.append, "timer")
    loop.call_soon(seen.append, "soon")
    run_batch(loop)
    assert seen == ["soon", "timer"]


def test_a_busy_loop_still_polls(loop):
    """Callbacks that reschedule themselves for ever keep neither sockets nor timers from their turn."""
    seen = []

    def again():
        loop.call_soon(again)

    again()
    with socket_pair() as (a, b):
        loop.add_reader(a, lambda: (seen.append(a.recv(1)), loop.call_later(0.001, loop.stop)))
        loop.call_soon(b.send, b"x")
        run_forever(loop)
        loop.remove_reader(a)
    assert seen == [b"x"]


def test_stop_is_spent_by_one_run(loop):
    """Two stops end one run; the next run goes on until it is stopped again."""
    seen = []
    loop.stop()
    loop.stop()
    loop.run_forever()
    loop.call_soon(lambda: loop.call_soon(lambda: (seen.append("two batches on"), loop.stop())))
    run_forever(loop)
    assert seen == ["two batches on"]


def test_is_running_and_the_running_loop(loop):
    """A loop is running, and is THE running loop, inside its callbacks and at no other time."""
    seen = []
    assert not loop.is_running()
    loop.call_soon(lambda: seen.append((loop.is_running(), asyncio.get_running_loop())))
    run_batch(loop)
    assert seen == [(True, loop)]
    assert not loop.is_running()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


#: On these releases the stock loop loses its running state when run_forever() is refused (gh-130145).
REFUSAL_BREAKS = (3, 13) <= sys.version_info < (3, 13, 3)


@pytest.mark.parametrize("which", ["the same loop", "another loop"])
def test_a_loop_does_not_run_inside_a_loop(make_loop, which):
    """Neither a loop that runs already nor a second one in its thread can be run; the running one goes on."""
    loop = make_loop()
    inner = loop if which == "the same loop" else make_loop()
    message = "already running" if inner is loop else "while another loop is running"
    seen = []

    async def main():
        never = inner.create_future()
        with pytest.raises(RuntimeError, match=message):
            inner.run_until_complete(never)
        if not REFUSAL_BREAKS:
            with pytest.raises(RuntimeError, match=message):
                inner.run_forever()
        assert loop.is_running()
        assert asyncio.get_running_loop() is loop
        for count in range(3):
            await asyncio.sleep(0.001)
            seen.append(count)

    run(loop, main())
    assert seen == [0, 1, 2]
    assert not loop.is_running()
    run(inner, asyncio.sleep(0))


def test_two_loops_run_in_two_threads(make_loop):
    """Each thread has a running loop of its own."""
    loops = [make_loop(), make_loop()]
    both_run = threading.Barrier(2, timeout=LIMIT)
    seen = {}

    async def meet():
        both_run.wait()
        return asyncio.get_running_loop()

    def work(loop):
        seen[loop] = run(loop, meet())

    threads = [threading.Thread(target=work, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {loop: loop for loop in loops}


def test_run_until_complete_wraps_a_coroutine_in_a_task(loop):
    """A coroutine runs as a task, and its value is returned."""

    async def main(value):
        await asyncio.sleep(0)
        return value, isinstance(asyncio.current_task(), asyncio.Task)

    assert loop.run_until_complete(main(42)) == (42, True)


def test_run_until_complete_takes_any_awaitable(loop):
    """An object that has only __await__ will do."""

    class Later:
        def __await__(self):
            yield from asyncio.sleep(0, "later").__await__()
            return "later"

    assert loop.run_until_complete(Later()) == "later"


def test_run_until_complete_of_a_future(loop):
    """A future's value comes back, whether it is set on the way or was there before."""
    future = loop.create_future()
    loop.call_soon(future.set_result, "on the way")
    assert loop.run_until_complete(future) == "on the way"
    assert loop.run_until_complete(future) == "on the way"


def test_run_until_complete_raises_what_the_future_raises(loop):
    """An exception of the coroutine or future is raised to the caller; the loop is fine afterwards."""

    async def fail():
        raise LookupError("from the coroutine")

    with pytest.raises(LookupError, match="from the coroutine"):
        loop.run_until_complete(fail())
    future = loop.create_future()
    future.set_exception(KeyError("from the future"))
    with pytest.raises(KeyError, match="from the future"):
        loop.run_until_complete(future)
    cancelled = loop.create_future()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(cancelled)
    assert loop.run_until_complete(asyncio.sleep(0, "fine")) == "fine"


def test_run_until_complete_that_is_stopped(loop):
    """A loop that is stopped before the future is done says so; the task goes on in the next run."""

    async def main():
        loop.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done after all"

    task = loop.create_task(main())
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(task)
    assert not task.done()
    assert loop.run_until_complete(task) == "done after all"


def test_run_until_complete_refuses_what_cannot_be_awaited(make_loop):
    """An object that is no awaitable is a TypeError, another loop's future a ValueError."""
    loop, other = make_loop(), make_loop()
    with pytest.raises(TypeError):
        loop.run_until_complete(42)
    with pytest.raises(ValueError, match="loop"):
        loop.run_until_complete(other.create_future())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_callback_leaves_run_forever(loop, error):
    """KeyboardInterrupt and SystemExit leave the loop at once; what was behind them runs in the next run."""
    seen = []

    def interrupt():
        raise error("enough")

    loop.call_soon(seen.append, "before")
    loop.call_soon(interrupt)
    loop.call_soon(seen.append, "behind")
    with pytest.raises(error, match="enough"):
        run_forever(loop)
    assert seen == ["before"]
    assert not loop.is_running()
    run_batch(loop)
    assert seen == ["before", "behind"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_task_leaves_run_until_complete(loop, error):
    """The same from inside a coroutine: nothing is logged, nothing is asked of the exception handler."""
    asked = []
    loop.set_exception_handler(lambda _loop, context: asked.append(context))

    async def interrupt():
        await asyncio.sleep(0)
        raise error("enough")

    with pytest.raises(error, match="enough"):
        loop.run_until_complete(interrupt())
    assert loop.run_until_complete(asyncio.sleep(0, "fine")) == "fine"
    assert asked == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_io_and_timer_callbacks(loop, error):
    """It does not matter which kind of callback raises it."""

    def interrupt():
        raise error("enough")

    loop.call_later(0, interrupt)
    with pytest.raises(error):
        run_forever(loop)
    with socket_pair() as (a, _):
        loop.add_writer(a, interrupt)
        with pytest.raises(error):
            run_forever(loop)
        loop.remove_writer(a)
    run_batch(loop)

"""Debug mode: how it is switched on, what it checks, and the slow callback's log line."""

import asyncio
import re
import sys
import threading
import time

import pytest

from .support import run, run_batch, socket_pair


@pytest.fixture
def debugging(loop):
    """A loop in debug mode."""
    loop.set_debug(True)
    return loop


def nap(seconds):
    """A callback that blocks for a known time."""
    time.sleep(seconds)


def test_get_and_set(loop):
    """Off by default, on and off at will, also while the loop runs."""
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True

    async def main():
        loop.set_debug(False)
        await asyncio.sleep(0)
        return loop.get_debug()

    assert run(loop, main()) is False


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ((), {}, False),
        ((), {"PYTHONASYNCIODEBUG": "1"}, True),
        ((), {"PYTHONASYNCIODEBUG": ""}, False),
        (("-X", "dev"), {}, True),
        (("-E",), {"PYTHONASYNCIODEBUG": "1"}, False),
    ],
    ids=["default", "environment", "empty", "dev mode", "environment ignored"],
)
def test_the_environment_decides_the_default(run_program, options, environ, expected):
    """PYTHONASYNCIODEBUG set to a non-empty string, or Python's dev mode, switches debug mode on."""
    out = run_program("loop = {loop}\nprint(loop.get_debug())\nloop.close()\n", *options, **environ)
    assert out == f"{expected}\n"


def test_a_slow_callback_is_logged(debugging, asyncio_log):
    """A callback that takes slow_callback_duration or longer is logged with its handle and its time."""
    debugging.slow_callback_duration = 0.02
    debugging.call_soon(nap, 0.05)
    run_batch(debugging)
    (line,) = asyncio_log()
    pattern = r"Executing <Handle nap\(0\.05\) at (.*) created at (.*)> took (\d+\.\d{3}) seconds"
    match = re.fullmatch(pattern, line)
    assert match, line
    assert "test_debug.py:" in match[1]
    assert "test_debug.py:" in match[2]
    assert float(match[3]) >= 0.049


def test_a_slow_timer_is_logged(debugging, asyncio_log):
    """A timer's line names the TimerHandle."""
    debugging.slow_callback_duration = 0.02
    debugging.call_later(0, nap, 0.05)
    run(debugging, asyncio.sleep(0.01))
    lines = [line for line in asyncio_log() if "nap" in line]
    assert len(lines) == 1
    assert re.match(r"Executing <TimerHandle when=[\d.]+ nap\(0\.05\) at ", lines[0])


def test_a_slow_task_step_is_logged_by_its_task(debugging, asyncio_log):
    """A step of a task is logged as the Task, with its name, and its coroutine where it was written."""
    debugging.slow_callback_duration = 0.02

    async def blocking():
        await asyncio.sleep(0)
        nap(0.05)

    debugging.run_until_complete(debugging.create_task(blocking(), name="a known name"))
    (line,) = asyncio_log()
    assert re.match(r"Executing <Task \w+ name='a known name' coro=<\S*blocking\(\)", line)
    assert re.search(r"took \d+\.\d{3} seconds$", line)


def test_a_slow_reader_is_logged(debugging, asyncio_log):
    """So is the callback of a descriptor."""
    debugging.slow_callback_duration = 0.02
    with socket_pair() as (a, b):
        b.send(b"x")
        debugging.add_reader(a, nap, 0.05)
        run_batch(debugging)
        debugging.remove_reader(a)
    (line,) = asyncio_log()
    assert line.startswith("Executing <Handle nap(0.05) at ")


def test_a_slow_callback_that_cancels_itself_is_named_still(debugging, asyncio_log):
    """Its handle keeps its repr in debug mode, for this very log line."""
    debugging.slow_callback_duration = 0.02
    handles = []

    def cancel_and_nap():
        handles[0].cancel()
        nap(0.05)

    handles.append(debugging.call_soon(cancel_and_nap))
    run_batch(debugging)
    (line,) = asyncio_log()
    assert "cancel_and_nap" in line
    assert line.startswith("Executing <Handle ")


def test_quick_callbacks_are_not_logged(debugging, asyncio_log):
    """Below the threshold there is no line; at a threshold of zero there is one for each."""
    debugging.slow_callback_duration = 60.0
    debugging.call_soon(nap, 0)
    run_batch(debugging)
    assert asyncio_log() == []
    debugging.slow_callback_duration = 0
    debugging.call_soon(nap, 0)
    run_batch(debugging)
    assert len(asyncio_log()) == 1


def test_the_threshold_is_a_tenth_of_a_second(loop):
    """The documented default."""
    assert loop.slow_callback_duration == 0.1


def test_without_debug_mode_nothing_is_logged(loop, asyncio_log):
    """The line belongs to debug mode."""
    loop.slow_callback_duration = 0
    loop.call_soon(nap, 0.01)
    run_batch(loop)
    assert asyncio_log() == []


def test_call_soon_from_another_thread(debugging):
    """While the loop runs, only its thread may schedule; call_soon_threadsafe may be called by any."""
    called = threading.Event()

    def other_thread():
        for attempt in (
            lambda: debugging.call_soon(print),
            lambda: debugging.call_later(1, print),
            lambda: debugging.call_at(1, print),
        ):
            with pytest.raises(RuntimeError, match="Non-thread-safe operation invoked on an event loop"):
                attempt()
        debugging.call_soon_threadsafe(called.set)
        return True

    assert run(debugging, asyncio.to_thread(other_thread))
    run_batch(debugging)
    assert called.is_set()


def test_a_stopped_loop_may_be_prepared_by_any_thread(debugging):
    """While the loop is not running there is no wrong thread."""
    seen = []
    thread = threading.Thread(target=debugging.call_soon, args=(seen.append, "prepared"))
    thread.start()
    thread.join()
    run_batch(debugging)
    assert seen == ["prepared"]


def test_without_debug_mode_threads_are_not_checked(loop):
    """The check costs something, and is not made outside debug mode."""
    seen = []

    async def main():
        await asyncio.to_thread(loop.call_soon, seen.append, "unchecked")

    run(loop, main())
    assert seen == ["unchecked"]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_callbacks_are_checked(debugging, method):
    """A coroutine, a coroutine function, or what cannot be called is a TypeError at the call."""

    async def job():
        pass

    when = () if "soon" in method else (0,)
    coro = job()
    # The name in the message of call_later is that of call_at, which it uses.
    name = "call_at" if method == "call_later" else method
    for thing in (job, coro):
        with pytest.raises(TypeError, match=rf"coroutines cannot be used with {name}\(\)"):
            getattr(debugging, method)(*when, thing)
    coro.close()
    with pytest.raises(TypeError, match=rf"a callable object was expected by {name}\(\), got 42"):
        getattr(debugging, method)(*when, 42)


def test_reprs_tell_where(debugging):
    """In debug mode a handle's repr has its arguments and the place where it was made."""
    handles = [debugging.call_soon(nap, 0), debugging.call_later(0, nap, 0)]
    handles.append(debugging.call_soon_threadsafe(nap, 0))
    for handle in handles:
        assert re.search(r"nap\(0\) at .*test_debug\.py:\d+ created at .*test_debug\.py:\d+>$", repr(handle))
        handle.cancel()
        # A cancelled handle keeps its text, for the log.
        assert "nap(0)" in repr(handle)


def test_tasks_and_futures_tell_where(debugging):
    """The place of creation of a task and of a future is in their repr."""

    async def main():
        future = debugging.create_future()
        task = debugging.create_task(asyncio.sleep(0))
        texts = repr(future), repr(task)
        await task
        return texts

    future, task = run(debugging, main())
    # Of a future, asyncio names the line in create_future() itself.
    assert re.search(r"created at .*\.py:\d+>$", future)
    assert re.search(r"created at .*test_debug\.py:\d+>$", task)


def test_coroutine_origin_tracking(debugging):
    """In debug mode, and only while the loop runs, coroutines know where they were made."""

    async def main():
        return sys.get_coroutine_origin_tracking_depth()

    assert sys.get_coroutine_origin_tracking_depth() == 0
    assert run(debugging, main()) > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0
    debugging.set_debug(False)
    assert run(debugging, main()) == 0


def test_closing_is_logged_in_debug_mode(debugging, caplog):
    """A debug line says that the loop was closed."""
    caplog.set_level("DEBUG", logger="asyncio")
    debugging.close()
    assert any(record.getMessage().startswith("Close <") for record in caplog.records)


def test_repr_of_the_loop(loop, loop_class):
    """The loop's repr has its class and its state."""
    assert repr(loop) == f"<{loop_class.__name__} running=False closed=False debug=False>"

    async def main():
        return repr(loop)

    assert run(loop, main()) == f"<{loop_class.__name__} running=True closed=False debug=False>"

"""Hooks and logging handlers that raise what is no ``Exception``: they are disabled, and the program goes on."""

import asyncio
import logging
import os
import sys
import threading
import time

import pytest

import obsloop
from obsloop import instruments

from .support import output, run_briefly

LIMIT = 60


def cancelled(event=None):
    """The easy case: the result of a future that was cancelled."""
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()
        future.cancel()
        future.result()
    finally:
        loop.close()


class Raises:
    """An instrument with one hook, which raises at each call."""

    def __init__(self, hook, error=None):
        self.calls = 0
        self._error = error
        setattr(self, hook, self._raise)

    def _raise(self, event):
        self.calls += 1
        if self._error is not None:
            raise self._error
        cancelled()


@pytest.fixture
def disabled(monkeypatch):
    """How often each hook was disabled in this test."""
    fresh = dict.fromkeys(instruments.HOOKS, 0)
    monkeypatch.setattr(instruments, "disabled", fresh)
    return fresh


async def one_child():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    return await asyncio.wait_for(process.wait(), LIMIT)


async def a_failing_job():
    with pytest.raises(LookupError):
        await asyncio.get_running_loop().run_in_executor(None, {}.__getitem__, "x")
    return 0


async def a_failed_task():
    async def fail():
        raise LookupError

    await asyncio.gather(asyncio.create_task(fail()), return_exceptions=True)
    return 0


async def a_slow_callback():
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.001
    loop.call_soon(time.sleep, 0.01)
    await asyncio.sleep(0.02)
    return 0


async def an_error():
    asyncio.get_running_loop().call_exception_handler({"message": "nothing has happened"})
    return 0


async def a_connection():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await asyncio.sleep(0)
    assert not loop.is_closed()
    return 0


@pytest.mark.parametrize(
    ("hook", "work"),
    [
        ("on_subprocess_exit", one_child),
        ("on_executor_job", a_failing_job),
        ("on_task_done", a_failed_task),
        ("on_slow_callback", a_slow_callback),
        ("on_slow_iteration", a_slow_callback),
        ("on_callback_error", an_error),
        ("on_connection_set_up", a_connection),
        ("on_transport_closed", a_connection),
    ],
)
def test_a_hook_that_is_cancelled_is_disabled_and_the_program_goes_on(hook, work, disabled, caplog):
    """Every hook of a loop's thread: the program's work is done twice, the hook is called once."""
    raises, heard = Raises(hook), []
    other = type("Other", (), {hook: lambda self, event: heard.append(event)})()

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_instrument(raises)
        loop.add_instrument(other)
        return await work(), await work()

    assert obsloop.run(main()) == (0, 0)
    assert raises.calls == 1
    assert len(heard) >= 2
    assert disabled[hook] == 1
    assert f"{hook} of the instrument" in caplog.text


def blocked_twice(instrument):
    """A loop that is blocked twice; both times the watchdog sees it and has told all."""
    told = threading.Semaphore(0)

    class Last:
        def on_loop_unblocked(self, event):
            told.release()

    loop = obsloop.Loop()
    loop.slow_callback_duration = 0.02
    loop.add_instrument(instrument)
    loop.add_instrument(Last())
    try:
        for _ in range(2):
            loop.call_soon(time.sleep, 0.2)
            run_briefly(loop)
            assert told.acquire(timeout=LIMIT)
    finally:
        loop.close()


@pytest.mark.parametrize("error", [None, SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("hook", ["on_loop_blocked", "on_loop_unblocked"])
def test_a_hook_in_the_watchdogs_thread_is_called_once(hook, error, disabled, caplog):
    """Not for ever; and what ends a program elsewhere ends nothing there."""
    raises = Raises(hook, error)
    blocked_twice(raises)
    assert raises.calls == 1
    assert disabled[hook] == 1


class Broken(logging.Handler):
    """A logging handler that raises, at each record."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)
        cancelled()


@pytest.fixture
def broken_log():
    handler = Broken()
    logging.getLogger("obsloop").addHandler(handler)
    yield handler
    logging.getLogger("obsloop").removeHandler(handler)


@pytest.mark.parametrize("hook", ["on_subprocess_exit", "on_loop_blocked"])
def test_a_logging_handler_that_is_cancelled_changes_nothing(hook, disabled, broken_log):
    """The hook is disabled and counted before the line is written, so that no handler can prevent it."""
    raises = Raises(hook)
    if hook == "on_loop_blocked":
        blocked_twice(raises)
    else:

        async def main():
            asyncio.get_running_loop().add_instrument(raises)
            return await one_child(), await one_child()

        assert obsloop.run(main()) == (0, 0)
    assert (raises.calls, disabled[hook]) == (1, 1)
    assert any(hook in record.getMessage() for record in broken_log.records)


def test_what_goes_wrong_in_our_own_code_may_be_anything(monkeypatch, broken_log):
    """Also where the line about it cannot be written."""
    from obsloop.base import guarded

    monkeypatch.setattr("obsloop.base.log._logged", set())
    guarded.guarded(cancelled)
    assert len(broken_log.records) == 1


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_what_asks_the_program_to_end_ends_it_in_the_loops_thread(error):
    """After the hook is disabled; and what waits for the child, on the way out, gets its answer."""
    printed = output(
        f"""
        import asyncio, sys, logging
        import obsloop
        from obsloop import instruments as _instruments

        logging.getLogger("obsloop").addHandler(logging.NullHandler())
        logging.getLogger("obsloop").propagate = False

        class Ends:
            def on_subprocess_exit(self, event):
                raise {error}

        async def main():
            asyncio.get_running_loop().add_instrument(Ends())
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
            try:
                await process.wait()
            finally:
                print("on the way out:", await process.wait())

        try:
            obsloop.run(main())
        except {error.partition("(")[0]}:
            print("ended:", _instruments.disabled["on_subprocess_exit"])
        """,
        PATH=os.environ.get("PATH", ""),
    )
    assert printed == "on the way out: 0\nended: 1\n"

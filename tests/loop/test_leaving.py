"""An exception or an interrupt leaves the loop as it leaves the stock loop, and the books balance."""

import asyncio
import os
import signal
import threading
import time

import pytest

import obsloop
from tests.support import counts, ran_ns, run_briefly


class Unusual(BaseException):
    """Neither an Exception nor one of those that asyncio lets through."""


EXCEPTIONS = [KeyboardInterrupt, SystemExit, Unusual, asyncio.CancelledError, ValueError, GeneratorExit]


def story_of_a_raise(loop, exception: type[BaseException], where: str) -> list[object]:
    """What happens, in order, when a callback raises: what ran, what was reported, what left the loop."""
    told: list[object] = []

    def bad() -> None:
        told.append("bad")
        raise exception("boom")

    async def bad_task() -> None:
        bad()

    def handler(loop, context) -> None:
        told.append((context["message"].partition(" ")[0], type(context.get("exception")).__name__))
        if where == "handler":
            bad()

    def put() -> None:
        told.append("put")
        loop.call_soon(told.append, "before")
        if where == "task":
            kept.append(loop.create_task(bad_task()))
        elif where == "timer":
            loop.call_later(0, bad)
        elif where == "threadsafe":
            loop.call_soon_threadsafe(bad)
        elif where == "handler":
            loop.call_soon(int, "not a number")
        else:
            loop.call_soon(bad)
        loop.call_soon(told.append, "after")
        loop.call_soon(loop.stop)

    kept: list[asyncio.Task[None]] = []
    loop.set_exception_handler(handler)
    loop.call_soon(put)
    for _ in range(2):
        try:
            loop.run_forever()
            told.append("stopped")
        except BaseException as exc:
            told.append(repr(exc))
        told.append((len(loop._ready), loop.is_running(), asyncio._get_running_loop()))
        loop.call_soon(loop.stop)
    for task in kept:
        if task.done() and not task.cancelled():
            told.append(repr(task.exception()))
    loop.close()
    return told


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("where", ["callback", "task", "timer", "threadsafe", "handler"])
@pytest.mark.parametrize("exception", EXCEPTIONS, ids=lambda e: e.__name__)
def test_what_a_callback_raises_goes_where_it_goes_on_the_stock_loop(clean_metrics, caplog, exception, where, debug):
    """Reported or let through, the rest of the batch still queued, the loop able to run again: as compared."""
    stories = []
    for loop in (asyncio.SelectorEventLoop(), obsloop.Loop()):
        loop.set_debug(debug)
        stories.append(story_of_a_raise(loop, exception, where))
    assert stories[0] == stories[1]


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("exception", EXCEPTIONS, ids=lambda e: e.__name__)
def test_the_books_balance_when_an_exception_leaves_the_loop(stepped, exception, debug):
    """A callback works for 3 s and raises: it is counted with its 3 s, and the run is closed."""
    clock, loop = stepped
    loop.set_debug(debug)
    loop.slow_callback_duration = 1e9
    loop.set_exception_handler(lambda loop, context: None)

    def bad() -> None:
        clock.advance(3)
        raise exception

    loop.call_soon(clock.advance, 1)
    loop.call_soon(bad)
    loop.call_soon(clock.advance, 1)
    loop.call_soon(loop.stop)
    began, pauses = clock.monotonic_ns(), 0
    for _ in range(2):
        try:
            loop.run_forever()
        except exception:
            assert not loop.snapshot().running
            clock.advance(1000)
            pauses += 1000
            continue
        break
    snapshot = loop.snapshot()
    assert ran_ns(snapshot) == clock.monotonic_ns() - began - pauses * 10**9 == 5 * 10**9
    assert counts(snapshot) == {"callback": 4}


@pytest.mark.parametrize("where", ["in the poll", "in a callback"])
def test_a_real_interrupt_leaves_as_from_the_stock_loop(clean_metrics, where):
    """SIGINT with Python's own handler: KeyboardInterrupt out of run_forever, which can then be called again."""

    def interrupt(loop) -> None:
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    outcomes = []
    for make in (asyncio.SelectorEventLoop, obsloop.Loop):
        loop = make()
        if where == "in a callback":
            loop.call_soon(time.sleep, 5)
        loop.call_later(30, loop.stop)
        thread = threading.Thread(target=interrupt, args=(loop,))
        began = time.monotonic_ns()
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        took = time.monotonic_ns() - began
        thread.join()
        outcomes.append((loop.is_running(), len(loop._ready), len(loop._scheduled)))
        if make is obsloop.Loop:
            snapshot = loop.snapshot()
            assert 40_000_000 < ran_ns(snapshot) <= took + 5
            state = "idle" if where == "in the poll" else "callback"
            assert snapshot.value("asyncio.eventloop.time", state) > 0.04
            assert not snapshot.running
        run_briefly(loop)
        loop.close()
    assert outcomes[0] == outcomes[1]

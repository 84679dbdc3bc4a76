"""Harmless: no garbage, no growth, and what leaves a loop or breaks in it does so as on the stock loop."""

import asyncio
import contextvars
import gc
import socket
import sys

import pytest

import obsloop
from tests.support import counts, run_briefly

STEPS = 20_000


async def steps(n: int) -> None:
    """Task steps, futures, callbacks, cancelled timers and handles."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 4):
        await asyncio.sleep(0)
        loop.call_soon(str).cancel()
        loop.call_later(100, str).cancel()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


def garbage_of(make_loop) -> dict[str, int]:
    """What the collector finds after 20,000 steps, by type."""
    loop = make_loop()
    loop.run_until_complete(steps(100))
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        loop.run_until_complete(steps(STEPS))
        gc.collect()
        found: dict[str, int] = {}
        for thing in gc.garbage:
            name = f"{type(thing).__module__}.{type(thing).__qualname__}"
            found[name] = found.get(name, 0) + 1
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    loop.close()
    return found


def test_20_000_steps_leave_the_collector_nothing_of_ours(clean_metrics):
    """The collector finds what it finds after the same steps on the stock loop, and no object of a class of ours."""
    ours = garbage_of(obsloop.Loop)
    assert not [name for name in ours if "obsloop" in name]
    assert sum(ours.values()) <= sum(garbage_of(asyncio.SelectorEventLoop).values())


def test_300_000_callbacks_leave_memory_flat(clean_metrics):
    """No per-callback object is kept: the interpreter's count of allocated blocks is as before."""
    loop = obsloop.Loop()

    def run(n: int) -> None:
        def again(left: int) -> None:
            if left:
                loop.call_soon(again, left - 1)
            else:
                loop.stop()

        for _ in range(10):
            loop.call_soon(again, n // 10)
        loop.run_forever()
        run_briefly(loop)

    run(50_000)
    gc.collect()
    before = sys.getallocatedblocks()
    run(300_000)
    gc.collect()
    grown = sys.getallocatedblocks() - before
    loop.close()
    assert grown < 1000


def story_of_odd_callbacks(loop) -> list[object]:
    """Callbacks that meddle with the loop that runs them."""
    told: list[object] = []
    handles: dict[str, asyncio.Handle] = {}
    context = contextvars.copy_context()

    def cancels_itself_and_raises() -> None:
        told.append("cancels itself")
        handles["itself"].cancel()
        raise ValueError("boom")

    def cancels_a_later_one() -> None:
        told.append("cancels later")
        handles["later"].cancel()

    def closes() -> None:
        try:
            loop.close()
        except RuntimeError as exc:
            told.append(str(exc))

    def runs_again() -> None:
        try:
            loop.run_forever()
        except RuntimeError as exc:
            told.append(str(exc))

    def enters_twice() -> None:
        told.append("entered")
        loop._ready.appendleft(asyncio.Handle(told.append, ("next in the queue",), loop, context))

    loop.set_exception_handler(
        lambda loop, context: told.append((context["message"].partition(" at ")[0], repr(context.get("exception"))))
    )
    handles["itself"] = loop.call_soon(cancels_itself_and_raises)
    loop.call_soon(cancels_a_later_one)
    handles["later"] = loop.call_soon(told.append, "never: cancelled by an earlier one")
    loop.call_soon(closes)
    loop.call_soon(runs_again)
    loop.call_soon(enters_twice, context=context)
    loop.call_soon(told.append, "between")
    loop.call_soon(loop.stop)
    loop.call_soon(told.append, "the batch goes on after stop")
    loop.call_soon(loop.call_soon, told.append, "of the next batch")
    loop.run_forever()
    told.append("stopped")
    loop.call_soon(loop._ready.clear)
    loop.call_soon(told.append, "never: cleared")
    loop.call_soon(loop.stop)
    return told


def test_callbacks_that_meddle_with_the_loop_do_what_they_do_on_the_stock_loop(clean_metrics):
    """Cancelling itself or others, closing, stopping, running again, touching the ready queue: the same story."""
    stock, ours = asyncio.SelectorEventLoop(), obsloop.Loop()
    assert story_of_odd_callbacks(stock) == story_of_odd_callbacks(ours)
    before = sum(counts(ours.snapshot()).values())
    for loop in (stock, ours):  # a queue emptied under the running batch is an error on both
        with pytest.raises(IndexError):
            loop.run_forever()
    after = sum(counts(ours.snapshot()).values())
    for loop in (stock, ours):
        run_briefly(loop)
        loop.close()
    assert after == before + 2, "what was left over before, and clear()"


@pytest.mark.parametrize("by", ["call_soon", "call_later", "call_soon_threadsafe", "add_reader"])
def test_a_context_that_is_entered_already_is_reported(clean_metrics, caplog, by):
    """Python refuses to enter a context twice: told as the stock loop tells it, and the loop goes on."""
    stories = []
    for loop in (asyncio.SelectorEventLoop(), obsloop.Loop()):
        caplog.clear()
        told: list[str] = []
        context = contextvars.copy_context()
        ours, theirs = socket.socketpair()
        theirs.send(b"x")
        loop.set_exception_handler(
            lambda loop, context, told=told: told.append(str(context["exception"]).split(": ")[0])
        )
        if by == "call_later":
            loop.call_later(0, told.append, "never", context=context)
        elif by == "add_reader":
            loop.add_reader(ours, told.append, "never")
            loop._selector.get_key(ours).data[0]._context = context
        else:
            getattr(loop, by)(told.append, "never", context=context)
        context.run(run_briefly, loop)
        loop.remove_reader(ours)
        loop.call_soon(told.append, "goes on")
        run_briefly(loop)
        stories.append((told, [record.getMessage().partition("\n")[0] for record in caplog.records]))
        ours.close()
        theirs.close()
        loop.close()
    assert stories[0] == stories[1]
    told, logged = stories[1]
    assert told[-1] == "goes on"
    assert len(told) == 2 or logged == ["Unhandled error in exception handler"]


ODD_MOMENTS = [float("-inf"), float("inf"), -1e300, 1e300, 0, -0.0, 10**30, -(10**30), True]


@pytest.mark.parametrize("delay", ODD_MOMENTS, ids=str)
@pytest.mark.parametrize("way", ["call_later", "call_at"])
def test_odd_moments_do_what_they_do_on_the_stock_loop(clean_metrics, way, delay):
    """Minus infinity is now and infinity is never: no arithmetic of ours fails where asyncio's does not."""
    outcomes = []
    for loop in (asyncio.SelectorEventLoop(), obsloop.Loop()):
        ran: list[str] = []
        getattr(loop, way)(delay, ran.append, "odd")
        loop.call_later(0.01, loop.stop)
        try:
            loop.run_forever()
            ran.append("stopped")
        except Exception as exc:
            ran.append(repr(exc))
        outcomes.append(ran)
        loop.close()
    assert outcomes[0] == outcomes[1]

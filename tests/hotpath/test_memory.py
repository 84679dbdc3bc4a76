"""Whoever drops a handle, a callback or a loop gets its memory back: by reference count, or from the collector.

Each test runs on the stock loop too. The compiled core hides queued handles from the collector while a loop runs; a
cycle through such a handle must be found once the handle is out of the queue, whichever way it went.
"""

import contextvars
import gc
import sys
import weakref
from contextlib import suppress

import pytest

from tests.support import run_briefly

from .support import WAYS, Thing, collect, put, ready_fd, run_all, unwatch


def cycle(loop, way: str, fd: int) -> tuple[weakref.ref, weakref.ref, object]:
    """A handle whose callback holds an object that holds the handle: weak references to both, and the handle."""
    thing = Thing()
    handle = thing.handle = put(loop, way, fd, lambda thing=thing: None)
    return weakref.ref(thing), weakref.ref(handle), handle


@pytest.mark.parametrize("way", WAYS)
def test_a_cycle_through_a_handle_is_collected_after_it_ran(make_loop, way):
    """Handle, callback, object, handle: gone once it has run and is no longer watched."""
    loop = make_loop()
    with ready_fd(way) as fd:
        thing, handle, _ = cycle(loop, way, fd)
        del _
        run_all(loop)
        unwatch(loop, way, fd)
    collect()
    assert (thing(), handle()) == (None, None)


@pytest.mark.parametrize("way", WAYS)
def test_a_cycle_through_a_cancelled_handle_is_collected(make_loop, way):
    """Cancelled before it ran, and passed over by the loop."""
    loop = make_loop()
    with ready_fd(way) as fd:
        thing, handle, kept = cycle(loop, way, fd)
        kept.cancel()
        del kept
        run_all(loop)
        unwatch(loop, way, fd)
    collect()
    assert (thing(), handle()) == (None, None)


@pytest.mark.parametrize("way", WAYS)
def test_closing_the_loop_lets_go_of_what_was_pending(make_loop, way):
    """Put, never run, and the loop is closed."""
    loop = make_loop()
    with ready_fd(way) as fd:
        thing, handle, _ = cycle(loop, way, fd)
        del _
        loop.close()
    collect()
    assert (thing(), handle()) == (None, None)


@pytest.mark.parametrize("way", WAYS)
def test_a_loop_dropped_unclosed_is_collected_with_what_is_pending(loop_class, way):
    """Nobody closed it: the loop, its queue and what hangs on it go together."""
    with ready_fd(way) as fd:
        loop = loop_class()
        run_briefly(loop)
        thing, handle, _ = cycle(loop, way, fd)
        loop_ref = weakref.ref(loop)
        del _, loop
        collect()
        assert (thing(), handle(), loop_ref()) == (None, None, None)


def test_what_was_left_when_the_loop_stopped_is_collected_with_the_loop(loop_class):
    """Scheduled while the loop ran, still in its queue when it stopped, and the loop is dropped."""
    loop = loop_class()
    seen = []

    def last(loop) -> None:
        seen.extend(cycle(loop, "call_soon", 0)[:2])
        loop.stop()

    loop.call_soon(last, loop)
    loop.run_forever()
    loop_ref = weakref.ref(loop)
    del loop
    collect()
    assert [ref() for ref in (*seen, loop_ref)] == [None, None, None]


@pytest.mark.parametrize("fate", ["runs", "cancelled", "raises", "leaves"])
def test_a_cycle_made_while_the_loop_runs_is_collected_while_it_runs(make_loop, fate):
    """The loop goes on; the handle's fate does not matter."""
    loop = make_loop()
    loop.set_exception_handler(lambda loop, context: None)
    refs = []

    def bad(thing) -> None:
        raise KeyboardInterrupt if fate == "leaves" else ValueError

    def make() -> None:
        thing = Thing()
        thing.handle = loop.call_soon(bad if fate in ("raises", "leaves") else Thing.called, thing)
        if fate == "cancelled":
            thing.handle.cancel()
        refs.extend([weakref.ref(thing), weakref.ref(thing.handle)])
        loop.call_later(0.01, look)  # from here: in no iteration of a machine that is slow before the handle ran

    def look() -> None:
        collect()
        refs[:] = [ref() for ref in refs]
        loop.stop()

    loop.call_soon(make)
    with suppress(KeyboardInterrupt):
        loop.run_forever()
    if fate == "leaves":
        loop.run_forever()
    assert refs == [None, None]


@pytest.mark.parametrize("how", ["clear", "pop", "remove", "replaced"])
def test_a_handle_taken_out_of_the_queue_from_outside_is_collected(make_loop, how):
    """Some programs put their hands into `_ready` while the loop runs."""
    loop = make_loop()
    refs = []

    def take() -> None:
        refs.extend(cycle(loop, "call_soon", 0)[:2])
        if how == "replaced":
            loop._ready = type(loop._ready)()
        elif how == "remove":
            loop._ready.remove(refs[1]())
        else:
            getattr(loop._ready, how)()
        loop.stop()

    loop.call_soon(take)
    loop.run_forever()
    collect()
    assert [ref() for ref in refs] == [None, None]


def test_a_weak_reference_to_a_handle_tells_when_it_is_gone(make_loop):
    """At once after it ran, without the collector."""
    loop = make_loop()
    gone = []
    gc.disable()
    try:
        for way in ("call_soon", "timer", "threadsafe"):
            handle = put(loop, way, 0, Thing.called, None)
            weakref.finalize(handle, gone.append, way)
            del handle
        run_all(loop)
    finally:
        gc.enable()
    assert sorted(gone) == ["call_soon", "threadsafe", "timer"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fate", ["runs", "cancelled", "raises", "cancels itself"])
def test_reference_counts_balance(make_loop, way, fate):
    """A callback, its argument and its context are held by nobody, a thousand handles later."""
    loop = make_loop()
    loop.set_exception_handler(lambda loop, context: None)
    argument, context = Thing(), contextvars.copy_context()
    box = []

    def callback(thing) -> None:
        if fate == "raises":
            raise ValueError
        if fate == "cancels itself":
            box.pop().cancel()

    def once() -> None:
        with ready_fd(way) as fd:
            if way in ("reader", "writer"):
                handle = put(loop, way, fd, callback, argument)
            elif way == "timer":
                handle = loop.call_later(0, callback, argument, context=context)
            elif way == "threadsafe":
                handle = loop.call_soon_threadsafe(callback, argument, context=context)
            else:
                handle = loop.call_soon(callback, argument, context=context)
            if fate == "cancelled":
                handle.cancel()
            box[:] = [handle]
            del handle
            run_all(loop)
            unwatch(loop, way, fd)
            box.clear()

    def counted() -> list[int]:
        collect()
        return [sys.getrefcount(x) for x in (callback, argument, context)]

    once()
    before = counted()
    for _ in range(1000 if way in ("call_soon", "timer") else 100):
        once()
    assert counted() == before


def test_it_survives_a_collection_at_every_allocation(make_loop):
    """With the collector's threshold at one, all that was scheduled runs, in its order."""
    loop = make_loop()
    ran: list[int] = []
    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for i in range(300):
            thing = Thing()
            thing.handle = loop.call_soon(lambda i=i, thing=thing: loop.call_soon(ran.append, i))
            loop.call_later(0, Thing().called, [i])
            loop.call_soon_threadsafe(Thing().called, [i])
            loop.call_later(60, Thing().called).cancel()
        run_all(loop)
        run_briefly(loop)
    finally:
        gc.set_threshold(*threshold)
    assert ran == list(range(300))

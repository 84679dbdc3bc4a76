"""A handle of ours is an `asyncio.Handle` for all who look: by `isinstance`, repr, comparison, hash and copy."""

import asyncio
import copy
import pickle
import weakref

import pytest

import obsloop

from .support import Thing, run_all


@pytest.fixture
def ours():
    """A loop of ours."""
    loop = obsloop.Loop()
    yield loop
    loop.close()


def stock_timer(loop, when: float, callback=print, args=()) -> asyncio.TimerHandle:
    """asyncio's own, for the same loop."""
    return asyncio.TimerHandle(when, callback, args, loop, None)


def test_they_are_instances_of_asyncios_classes(ours):
    """And a timer is a handle, a handle no timer."""
    handle, timer, safe = ours.call_soon(print), ours.call_later(1, print), ours.call_soon_threadsafe(print)
    watched = ours._add_reader(ours._csock.fileno(), print)
    for each in (handle, timer, safe, watched):
        assert isinstance(each, asyncio.Handle)
    assert isinstance(timer, asyncio.TimerHandle)
    assert not isinstance(handle, asyncio.TimerHandle)
    ours._remove_reader(ours._csock.fileno())
    ours._ready.clear()


@pytest.mark.parametrize("debug", [False, True])
def test_repr_begins_as_asyncios(make_loop, debug):
    """`<Handle` and `<TimerHandle`, alive and cancelled, and with the callback's name."""
    loop = make_loop()
    loop.set_debug(debug)
    handle, timer = loop.call_soon(Thing.called, 1), loop.call_later(5, Thing.called, 1)
    assert repr(handle).startswith("<Handle Thing.called(")
    assert repr(timer).startswith("<TimerHandle when=")
    assert "Thing.called(" in repr(timer)
    handle.cancel()
    timer.cancel()
    assert repr(handle).startswith("<Handle cancelled")
    assert repr(timer).startswith("<TimerHandle cancelled when=")
    assert ("Thing.called(" in repr(handle)) is debug
    loop._ready.clear()


def test_timers_compare_with_each_other_and_with_asyncios(ours):
    """By `when`; equal only when callback and arguments are, too."""
    early, late = ours.call_at(10.0, print), ours.call_at(20.0, print)
    for a, b in ((early, late), (early, stock_timer(ours, 20.0)), (stock_timer(ours, 10.0), late)):
        assert a < b
        assert a <= b
        assert b > a
        assert b >= a
        assert a != b
        assert not a == b  # noqa: SIM201 - it is __eq__ that is asked
    same = stock_timer(ours, 10.0)
    assert early == same
    assert same == early
    assert early <= same
    assert early >= same
    assert not early < same
    assert hash(early) == hash(same) == hash(10.0)
    assert early != ours.call_at(10.0, str)
    assert early != stock_timer(ours, 10.0, print, (1,))
    for timer in list(ours._scheduled):
        timer.cancel()
    assert early != stock_timer(ours, 10.0)


def test_comparisons_with_anything_else(ours):
    """Never equal, never in order; a plain handle compares by identity."""
    timer, handle = ours.call_at(10.0, print), ours.call_soon(print)
    for other in (10.0, None, handle, object()):
        assert timer != other
        assert other != timer
        with pytest.raises(TypeError):
            timer < other  # noqa: B015
        with pytest.raises(TypeError):
            other >= timer  # noqa: B015
    assert handle == handle
    assert handle != ours.call_soon(print)
    assert len({handle, timer, handle}) == 2
    ours._ready.clear()


def test_when_is_what_was_given(ours):
    """An int stays an int."""
    assert ours.call_at(10, print).when() == 10
    assert type(ours.call_at(10, print).when()) is int


def test_they_have_no_room_for_attributes_of_others(make_loop):
    """As asyncio's own, they have slots."""
    loop = make_loop()
    for handle in (loop.call_soon(print), loop.call_later(1, print)):
        with pytest.raises(AttributeError):
            handle.mine = 1
        with pytest.raises((AttributeError, TypeError)):
            handle.__class__ = Thing
    loop._ready.clear()


def test_asyncios_methods_take_them(make_loop):
    """Called through the class, as a subclass of a handle elsewhere would do."""
    loop = make_loop()
    handle, timer = loop.call_soon(print), loop.call_later(60, print)
    asyncio.Handle.cancel(handle)
    asyncio.TimerHandle.cancel(timer)
    assert handle.cancelled()
    assert timer.cancelled()
    assert loop._timer_cancelled_count == 1
    assert asyncio.Handle.cancelled(handle)
    assert asyncio.TimerHandle.when(timer) == timer.when()
    loop._ready.clear()


def test_a_copy_is_a_handle_of_the_same_class(make_loop):
    """`copy.copy` works on asyncio's handles; nothing is scheduled by it."""
    loop = make_loop()
    told: list = []
    handle, timer = loop.call_soon(told.append, 1), loop.call_later(60, told.append, 2)
    copied, copied_timer = copy.copy(handle), copy.copy(timer)
    assert type(copied) is type(handle)
    assert copied._callback == handle._callback
    assert copied_timer == timer
    assert copied_timer.when() == timer.when()
    run_all(loop)
    assert told == [1]
    copied._run()
    assert told == [1, 1]


def test_neither_a_handle_nor_a_loop_can_be_pickled(make_loop):
    """There is no meaning to it, and no crash."""
    loop = make_loop()
    for thing in (loop.call_soon(print), loop.call_later(1, print), loop):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(thing)
    loop._ready.clear()


def test_call_later_goes_through_an_overridden_call_at(loop_class):
    """By a subclass, or put on the object."""

    class Mine(loop_class):
        def call_at(self, when, callback, *args, context=None):
            seen.append(callback)
            return super().call_at(when, callback, *args, context=context)

    seen: list = []
    loop = Mine()
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == [loop.stop]
    loop.close()
    loop = loop_class()
    call_at = loop.call_at
    loop.call_at = lambda when, callback, *args, context=None: seen.append(callback) or call_at(when, callback, *args)
    loop.call_later(0, str)
    assert seen[1:] == [str]
    loop.close()


def test_handles_can_be_kept_weakly(make_loop):
    """`WeakSet` and `WeakKeyDictionary` take them."""
    loop = make_loop()
    kept = weakref.WeakSet([loop.call_soon(str)])
    assert len(kept) == 1
    run_all(loop)
    assert len(kept) == 0

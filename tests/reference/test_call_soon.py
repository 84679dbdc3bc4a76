"""call_soon, call_soon_threadsafe, and the Handle they return."""

import asyncio
import contextvars
import functools
import gc
import weakref

import pytest

from .support import run_batch

story = contextvars.ContextVar("story", default="untold")

#: The two methods whose rules are the same.
both = pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])


@both
def test_fifo_each_exactly_once(loop, method):
    """Callbacks run in the order in which they were registered, each one once."""
    seen = []
    for number in range(1000):
        getattr(loop, method)(seen.append, number)
    run_batch(loop)
    run_batch(loop)
    assert seen == list(range(1000))


def test_both_kinds_share_one_queue(loop):
    """call_soon and call_soon_threadsafe do not overtake one another."""
    seen = []
    for number in range(10):
        loop.call_soon(seen.append, number)
        loop.call_soon_threadsafe(seen.append, -number)
    run_batch(loop)
    assert seen == [sign * number for number in range(10) for sign in (1, -1)]


@both
def test_called_after_it_returns_when_control_returns(loop, method):
    """The callback does not run inside the call, nor in the same batch when a callback schedules it."""
    seen = []

    def outer():
        getattr(loop, method)(seen.append, "inner")
        seen.append("outer")

    getattr(loop, method)(outer)
    assert seen == []
    run_batch(loop)
    assert seen == ["outer"]
    run_batch(loop)
    assert seen == ["outer", "inner"]


@both
def test_positional_arguments_and_partial_keywords(loop, method):
    """Arguments behind the callback are passed on; keywords come by functools.partial."""
    seen = []

    def callback(*args, **kwargs):
        seen.append((args, kwargs))

    getattr(loop, method)(callback)
    getattr(loop, method)(callback, 1, None, [2])
    getattr(loop, method)(functools.partial(callback, 1, flush=True), 2)
    run_batch(loop)
    assert seen == [((), {}), ((1, None, [2]), {}), ((1, 2), {"flush": True})]


@both
def test_keywords_are_not_taken(loop, method):
    """Any keyword but context= is a TypeError, not something to pass on."""
    with pytest.raises(TypeError):
        getattr(loop, method)(print, flush=True)


@both
def test_the_same_callback_many_times(loop, method):
    """Registering a callback twice is two calls with two handles."""
    seen = []
    one = getattr(loop, method)(seen.append, "x")
    two = getattr(loop, method)(seen.append, "x")
    assert one is not two
    run_batch(loop)
    assert seen == ["x", "x"]


@both
def test_handle_is_an_asyncio_handle(loop, method):
    """What is returned is a Handle that can be cancelled, and is no timer."""
    handle = getattr(loop, method)(print)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True


@both
def test_cancel_before_it_runs(loop, method):
    """A cancelled callback does not run, and its neighbours do."""
    seen = []
    getattr(loop, method)(seen.append, 1)
    getattr(loop, method)(seen.append, 2).cancel()
    getattr(loop, method)(seen.append, 3)
    run_batch(loop)
    assert seen == [1, 3]


@both
def test_cancel_by_an_earlier_callback_of_the_batch(loop, method):
    """A callback that is ready already can still be cancelled by one that runs before it."""
    seen = []
    handles = []

    def cancel_the_next():
        handles[0].cancel()

    getattr(loop, method)(cancel_the_next)
    handles.append(getattr(loop, method)(seen.append, "never"))
    run_batch(loop)
    assert seen == []


@both
def test_cancel_twice_and_cancel_afterwards_have_no_effect(loop, method):
    """A second cancel, and a cancel of what has run, do nothing."""
    seen = []
    ran = getattr(loop, method)(seen.append, "ran")
    twice = getattr(loop, method)(seen.append, "cancelled")
    twice.cancel()
    twice.cancel()
    run_batch(loop)
    ran.cancel()
    twice.cancel()
    run_batch(loop)
    assert seen == ["ran"]
    assert ran.cancelled()


@both
def test_cancel_by_itself(loop, method, asyncio_log):
    """A callback may cancel the handle that is running it."""
    seen = []
    handles = []

    def callback():
        handles[0].cancel()
        seen.append("to the end")

    handles.append(getattr(loop, method)(callback))
    run_batch(loop)
    run_batch(loop)
    assert seen == ["to the end"]
    assert asyncio_log() == []


@both
def test_cancel_lets_go_of_callback_and_arguments(loop, method):
    """A cancelled handle does not keep what it would have called."""

    class Heavy:
        def __call__(self, other):
            pass

    callback, argument = Heavy(), Heavy()
    gone = weakref.ref(callback), weakref.ref(argument)
    handle = getattr(loop, method)(callback, argument)
    handle.cancel()
    del callback, argument
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@both
def test_nothing_is_kept_once_it_ran(loop, method):
    """After its run the loop has no reference to a callback, so that nothing leaks between batches."""

    class Heavy:
        def __call__(self):
            pass

    callback = Heavy()
    gone = weakref.ref(callback)
    getattr(loop, method)(callback)
    run_batch(loop)
    del callback
    run_batch(loop)
    gc.collect()
    assert gone() is None


@both
def test_context_of_the_caller(loop, method):
    """A callback runs in a copy of the context it was scheduled in, and does not leak into the next one."""
    seen = []

    def callback():
        seen.append(story.get())
        story.set("changed by the callback")

    def schedule():
        story.set("told")
        getattr(loop, method)(callback)
        story.set("changed after the call")

    contextvars.copy_context().run(schedule)
    getattr(loop, method)(callback)
    run_batch(loop)
    assert seen == ["told", "untold"]
    assert story.get() == "untold"


@both
def test_context_argument(loop, method):
    """context= names the context to run in: that very one, not a copy."""
    context = contextvars.copy_context()
    handle = getattr(loop, method)(story.set, "told", context=context)
    assert context.get(story) is None
    run_batch(loop)
    assert context[story] == "told"
    if hasattr(handle, "get_context"):  # since 3.12
        assert handle.get_context() is context


@both
def test_repr_names_the_callback(loop, method):
    """A handle's repr has the callback's name and place, or says that it is cancelled."""

    def a_known_name(argument):
        pass

    handle = getattr(loop, method)(a_known_name, "argument")
    assert "Handle" in repr(handle)
    assert "a_known_name(" in repr(handle)
    assert "test_call_soon.py:" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)
    assert "a_known_name" not in repr(handle)


@both
def test_handles_are_hashable_and_equal_to_themselves_only(loop, method):
    """Handles can be kept in sets and in weak references."""
    one, two = getattr(loop, method)(print), getattr(loop, method)(print)
    assert len({one, two, one}) == 2
    assert one != two
    assert weakref.ref(one)() is one
    one.cancel()
    two.cancel()

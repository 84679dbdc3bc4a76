"""Who listens: what is accepted as an instrument, whose events it gets, and what none of them costs."""

import pytest

import obsloop

from .support import run_briefly


class Counts:
    """Counts slow callbacks."""

    def __init__(self) -> None:
        self.loops: list[str] = []

    def on_slow_callback(self, event):
        self.loops.append(event.loop_name)


def block(clock, loop) -> None:
    """One slow callback."""
    loop.call_soon(clock.advance, 0.2)
    run_briefly(loop)


def test_an_instrument_of_one_loop_hears_that_loop_only(stepped):
    """And one of the process hears every loop, also those that are made later."""
    clock, loop = stepped
    one, every = Counts(), Counts()
    loop.add_instrument(one)
    obsloop.add_instrument(every)
    try:
        other = obsloop.Loop(clock.selector(), settings=obsloop.Settings(name="other"))
        block(clock, loop)
        block(clock, other)
        other.close()
    finally:
        obsloop.remove_instrument(every)
    block(clock, loop)
    assert (one.loops, every.loops) == (["main", "main"], ["main", "other"])


def test_added_twice_is_called_once_and_removed_is_called_no_more(stepped):
    """Identity counts, not equality."""
    clock, loop = stepped

    class Equal(Counts):
        def __eq__(self, other):
            return True

        __hash__ = None

    first, second = Equal(), Equal()
    for instrument in (first, first, second):
        loop.add_instrument(instrument)
    block(clock, loop)
    loop.remove_instrument(first)
    block(clock, loop)
    assert (len(first.loops), len(second.loops)) == (1, 2)


def test_removing_what_was_not_added_is_an_error(stepped):
    """It says so, of a loop's and of the process's."""
    _, loop = stepped
    for remove in (loop.remove_instrument, obsloop.remove_instrument):
        with pytest.raises(ValueError, match=r"test_instruments\.Counts is not an instrument here"):
            remove(Counts())


def test_hooks_that_are_inherited_unchanged_are_not_called(stepped):
    """A subclass of Instrument listens to what it overrides, and nothing else."""
    _, loop = stepped

    class Mine(obsloop.Instrument):
        def on_slow_callback(self, event):
            pass

    loop.add_instrument(Mine())
    instruments = loop._obsloop.instruments
    assert len(instruments.on_slow_callback) == 1
    assert instruments.on_slow_iteration == instruments.on_loop_blocked == ()


class Misspelled(obsloop.Instrument):
    def on_slow_callbacks(self, event):
        pass


class Async:
    async def on_slow_callback(self, event):
        pass


class NoMethod:
    on_slow_callback = 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (object(), "object has no hook to call: expected one or more of on_slow_callback"),
        (Misspelled(), "Misspelled has no hook to call"),
        (Async(), "on_slow_callback of .*Async is a coroutine function: hooks are called, not awaited"),
        (NoMethod(), "on_slow_callback of .*NoMethod is not callable"),
        (Counts, "got the class Counts: give an instance"),
    ],
)
def test_what_is_no_instrument_is_refused_in_clear_words(stepped, wrong, message):
    """At the time when it is added, not when the first event is lost."""
    _, loop = stepped
    for add in (loop.add_instrument, obsloop.add_instrument):
        with pytest.raises(TypeError, match=message):
            add(wrong)


def test_a_hook_is_looked_up_once_when_its_instrument_is_added(stepped):
    """A method that is replaced afterwards is not seen; nothing is looked up per event."""
    clock, loop = stepped
    counts = Counts()
    loop.add_instrument(counts)
    counts.on_slow_callback = lambda event: pytest.fail("looked up again")
    block(clock, loop)
    assert counts.loops == ["main"]


def test_an_instrument_lives_no_longer_than_its_loop(stepped):
    """The loop holds it, and nobody else does."""
    import gc
    import weakref

    loop = obsloop.Loop()
    counts = Counts()
    gone = weakref.ref(counts)
    loop.add_instrument(counts)
    loop.close()
    del loop, counts
    gc.collect()
    assert gone() is None

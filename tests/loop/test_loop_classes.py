"""The observed kinds of a program's own loop classes: one for each class, and no longer there than it."""

import asyncio
import gc
import weakref

import obsloop
from obsloop.loop.start import observed_class


def test_a_loop_class_that_is_dropped_is_freed():
    """A program that makes a loop class again and again: its observed kind goes with it."""

    def made():
        class Own(asyncio.SelectorEventLoop):
            pass

        loop = obsloop.instrument(Own(), obsloop.Settings(watchdog=False))
        again = obsloop.instrument(Own(), obsloop.Settings(watchdog=False))
        assert type(loop) is type(again)
        assert isinstance(loop, obsloop.Loop)
        loop.close()
        again.close()
        return weakref.ref(Own), weakref.ref(type(loop))

    refs = [ref for _ in range(3) for ref in made()]
    gc.collect()
    assert [ref() for ref in refs] == [None] * 6


def test_a_subclass_has_an_observed_kind_of_its_own():
    """It inherits all from its base but that."""

    class Base(asyncio.SelectorEventLoop):
        pass

    class Derived(Base):
        pass

    assert observed_class(Base) is observed_class(Base)
    assert observed_class(Derived).__mro__[1] is Derived

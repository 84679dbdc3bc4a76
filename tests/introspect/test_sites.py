"""A handle has a name that a person understands, whatever stands around the function that it calls."""

import asyncio
import builtins
import contextvars
import functools
import sys
import threading
import time
import types

import pytest

import obsloop
from obsloop.introspect.attributes import LONGEST
from obsloop.introspect.callbacks import site_of_callback, site_of_handle
from obsloop.introspect.coroutines import site_of_coroutine, site_of_task, waiting_at
from obsloop.introspect.functions import Site
from obsloop.loop import fallback

HERE = __name__


def line_of(function) -> int:
    return function.__code__.co_firstlineno


def view() -> None:
    """A function of a program."""


def traced(function):
    """A decorator, as libraries have them."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


async def report() -> None:
    """A coroutine function of a program."""


class Base:
    """What a program's classes inherit from."""

    def inherited(self) -> None:
        pass

    @traced
    def decorated(self) -> None:
        pass

    def with_argument(self, argument) -> None:
        pass

    preset = functools.partialmethod(with_argument, 1)

    @classmethod
    def of_class(cls) -> None:
        pass

    @staticmethod
    def static() -> None:
        pass

    def __call__(self) -> None:
        pass


class Client(Base):
    """The class that the program uses."""

    def __init__(self) -> None:
        pass


CALLABLES = [
    (view, "view", view),
    (traced(view), "view", view),
    (functools.partial(functools.partial(traced(view), 1), 2), "view", view),
    (functools.lru_cache(view), "view", view),
    (Client().inherited, "Client.inherited", Base.inherited),
    (functools.partial(Client().inherited), "Client.inherited", Base.inherited),
    (Client().decorated, "Client.decorated", Base.decorated.__wrapped__),
    (Client().preset, "Client.with_argument", Base.with_argument),
    (Client.preset, "Base.with_argument", Base.with_argument),
    (Client.of_class, "Client.of_class", Base.of_class.__func__),
    (Client().of_class, "Client.of_class", Base.of_class.__func__),
    (Client.static, "Base.static", Base.static),
    (vars(Base)["static"], "Base.static", Base.static),
    (vars(Base)["of_class"], "Base.of_class", Base.of_class.__func__),
    (types.MethodType(traced(view), Client()), "view", view),
    (Client(), "Client.__call__", Base.__call__),
    (Client, "Client", Client.__init__),
]


@pytest.mark.parametrize(("callback", "name", "function"), CALLABLES)
def test_a_callable_has_the_name_of_the_function_of_the_program(loop, callback, name, function):
    """Partials, wrappers and methods are looked through; file and line are those of the definition."""
    handle = loop.call_soon(callback)
    assert site_of_handle(handle) == Site(f"{HERE}.{name}", __file__, line_of(function))


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (time.sleep, "time.sleep"),
        (builtins.print, "print"),
        ([].append, "list.append"),
        (list.append, "list.append"),
        ([].__len__, "list.__len__"),
        (dict.fromkeys, "dict.fromkeys"),
        (type("Many", (list,), {"__module__": "app"})().append, "app.Many.append"),
        (contextvars.copy_context().copy, "_contextvars.Context.copy"),
        (object, "object"),
    ],
)
def test_what_is_written_in_c_has_a_name_and_no_place(loop, callback, name):
    """Builtins, their methods, bound or not."""
    assert site_of_handle(loop.call_soon(callback)) == Site(name, "", 0)


def test_inner_functions_and_lambdas_say_where_they_are(loop):
    """A lambda has no name but has a place."""
    callback = lambda: None  # noqa: E731
    name = f"{HERE}.test_inner_functions_and_lambdas_say_where_they_are.<locals>.<lambda>"
    assert site_of_handle(loop.call_soon(callback)) == Site(name, __file__, line_of(callback))
    assert site_of_handle(loop.call_soon(threading.Event().set)).name == "threading.Event.set"


@pytest.mark.skipif(obsloop.core != "compiled", reason="needs a function compiled by Cython")
def test_cython_functions_are_named_as_python_ones(loop):
    """They are no Python functions, but say as much."""
    from obsloop.hotpath.compiled import core

    name, filename, lineno, _, _ = site_of_callback(core.call_later)
    assert name == "obsloop.hotpath.compiled.core.call_later"
    assert filename.endswith("obsloop/hotpath/compiled/scheduling.pxi")
    assert lineno > 0


def test_every_kind_of_handle_has_its_callback(loop):
    """Timers, handles from other threads, and asyncio's own; one that cancelled itself has let go of its callback."""
    handles = [loop.call_later(1, view), loop.call_at(1, view), loop.call_soon_threadsafe(view)]
    handles.append(asyncio.Handle(view, (), loop))
    assert {site_of_handle(handle).name for handle in handles} == {f"{HERE}.view"}
    handles[0].cancel()
    assert site_of_handle(handles[0]).name == "(cancelled)"


def test_the_fallback_loop_wraps_callbacks_and_is_looked_through():
    """Its wrapper is ours, and says nothing to the program's people."""
    loop = fallback.Loop()
    try:
        assert site_of_handle(loop.call_soon(view)).name == f"{HERE}.view"
        task = asyncio.Task(coro := report(), loop=loop, name="nightly")
        assert site_of_handle(loop._ready[-1])[::3] == (f"{HERE}.report", "nightly")
        task._log_destroy_pending = False
        coro.close()
    finally:
        loop.close()


def test_loop_methods_that_pass_a_callable_on_are_looked_through(loop):
    """`call_soon_threadsafe(loop.call_soon, f)` and its kin; a context that runs something; a coroutine for a task."""
    handles = [
        loop.call_soon(loop.call_soon, view),
        loop.call_soon(loop.call_later, 1, view),
        loop.call_soon(functools.partial(loop.call_soon, view)),
        loop.call_soon(contextvars.copy_context().run, view),
    ]
    assert {site_of_handle(handle).name for handle in handles} == {f"{HERE}.view"}
    coro = report()
    assert site_of_handle(loop.call_soon(loop.create_task, coro)).name == f"{HERE}.report"
    coro.close()


def test_a_coroutine_from_another_thread_is_named_before_it_is_a_task(loop):
    """run_coroutine_threadsafe hides it in the closure of a function of its own."""
    asyncio.run_coroutine_threadsafe(report(), loop)
    assert site_of_handle(loop._ready[-1]).name == f"{HERE}.report"
    loop.run_until_complete(asyncio.sleep(0))


# ---- objects that mean no good ---------------------------------------------------------------------------------------


class Ran(BaseException):
    """Code of the program's ran."""


def run(*args, **kwargs):
    raise Ran


def traps():
    """Classes that pytest must not find in the module, as it would ask them what they are."""

    class Meta(type):
        __getattribute__ = __eq__ = run
        __hash__ = type.__hash__
        __name__ = property(run)

    class Hostile:
        """Nothing may be asked of its objects."""

        __getattribute__ = __getattr__ = __repr__ = __str__ = __eq__ = __bool__ = __len__ = __get__ = run
        __class__ = __dict__ = __wrapped__ = __name__ = __self__ = _callback = _args = property(run)
        __hash__ = None

        def __call__(self) -> None:
            pass

    class OfMeta(metaclass=Meta):
        """Nor of this class."""

        __getattribute__ = __getattr__ = run

        def __call__(self) -> None:
            pass

    class Text(str):
        """What is longer than a string may be is no name."""

        __str__ = __repr__ = __len__ = __eq__ = __getitem__ = __format__ = isprintable = run
        __hash__ = str.__hash__

    return [Hostile, OfMeta, Text]


TRAPS = traps()


def hostile():
    return TRAPS[0]()


def hostile_by_class():
    return TRAPS[1]()


def in_a_circle():
    def one() -> None: ...

    def two() -> None: ...

    one.__wrapped__, two.__wrapped__ = two, one
    return one


def with_attribute(name, value):
    def function() -> None: ...

    setattr(function, name, value)
    return function


IN_HERE = "<locals>.function"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (hostile, f"{HERE}.traps.<locals>.Hostile.__call__"),
        (hostile_by_class, f"{HERE}.traps.<locals>.OfMeta.__call__"),
        (lambda: TRAPS[1], f"{HERE}.traps.<locals>.OfMeta"),
        (lambda: types.MethodType(view, hostile()), f"{HERE}.traps.<locals>.Hostile.view"),
        (lambda: functools.partial(hostile(), hostile()), f"{HERE}.traps.<locals>.Hostile.__call__"),
        (in_a_circle, f"{HERE}.in_a_circle.<locals>.one"),
        (lambda: with_attribute("__qualname__", TRAPS[2]("app")), f"{HERE}.app"),
        (lambda: with_attribute("__module__", hostile()), f"with_attribute.{IN_HERE}"),
        (lambda: with_attribute("__module__", None), f"with_attribute.{IN_HERE}"),
        (lambda: with_attribute("__wrapped__", hostile()), f"{HERE}.traps.<locals>.Hostile.__call__"),
        (lambda: with_attribute("__wrapped__", "no function"), f"{HERE}.with_attribute.{IN_HERE}"),
        (lambda: with_attribute("__qualname__", "new\nline\x1b[0m"), f"{HERE}.new?line?[0m"),
        (lambda: with_attribute("__qualname__", "x" * 999), f"{HERE}.{'x' * 999}"[: LONGEST - 3] + "..."),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "of",
)
def test_no_object_can_raise_or_run_anything(loop, make, name):
    """What an object says of itself is not asked for; what is found is printable and short."""
    callback = make()
    assert site_of_callback(callback).name == name
    assert site_of_callback(callback, (hostile(),)).name == name
    assert site_of_handle(asyncio.Handle(callback, (hostile(),), loop)).name == name


def test_what_is_no_handle_task_or_coroutine_is_no_trouble():
    """Each function takes anything."""
    for thing in (None, 0, "text", object(), hostile(), TRAPS[1](), TRAPS[1], [], sys):
        sites = [site_of_handle(thing), site_of_callback(thing), site_of_task(thing), site_of_coroutine(thing)]
        assert all(site.name and site.name.isprintable() for site in sites)
        assert waiting_at(thing) == ("", 0, "")

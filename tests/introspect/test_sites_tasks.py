"""A task is named after its coroutine's function, by the same name before, while and after it runs."""

import asyncio
import functools
import sys
import threading
import types

import pytest

from obsloop.introspect import coroutines
from obsloop.introspect.callbacks import site_of_handle
from obsloop.introspect.coroutines import site_of_coroutine, site_of_task, waiting_at
from obsloop.introspect.functions import Site

HERE = __name__


def line_of(function) -> int:
    return function.__code__.co_firstlineno


def traced_coroutine(function):
    """Another, whose wrapper is a coroutine function."""

    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


async def report(until=None) -> None:
    """A coroutine function of a program."""
    if until is not None:
        await until


@traced_coroutine
async def decorated_report(until=None) -> None:
    """One that is decorated."""
    await report(until)


@types.coroutine
def by_generator(until):
    """A coroutine made of a generator."""
    yield from until


async def ticks(until):
    """An asynchronous generator."""
    await until
    yield 1


class Job:
    """What a program's classes inherit from."""

    async def run(self) -> None:
        pass


class Worker(Job):
    """The class that the program uses."""


@pytest.mark.parametrize("task_class", [asyncio.Task, asyncio.tasks._PyTask, type("Own", (asyncio.Task,), {})])
def test_a_step_is_named_after_its_coroutine_before_and_after(loop, task_class):
    """First step, wake-up, finished: one name, with the task's; the name is to be a metric's label."""
    future = loop.create_future()
    task = task_class(report(future), loop=loop, name="nightly")
    expected = Site(f"{HERE}.report", __file__, line_of(report), "nightly")
    step = loop._ready[-1]
    assert site_of_handle(step) == expected
    loop.run_until_complete(asyncio.sleep(0))
    assert waiting_at(task.get_coro()) == (__file__, line_of(report) + 3, "report")
    future.set_result(None)
    wakeup = loop._ready[-1]
    assert site_of_handle(wakeup) == expected
    loop.run_until_complete(task)
    coroutines._named.clear()  # not from memory
    assert [site_of_handle(step), site_of_handle(wakeup), site_of_task(task)] == [expected] * 3
    assert waiting_at(task.get_coro()) == ("", 0, "")


@pytest.mark.parametrize(
    ("make", "function"),
    [
        (report, report),
        (by_generator, by_generator),
        (lambda until: ticks(until).asend(None), ticks),
        (lambda until: anext(ticks(until), None), ticks),
        (decorated_report, decorated_report.__wrapped__),
    ],
    ids=["coroutine", "generator", "asend", "anext", "decorated"],
)
def test_every_kind_of_coroutine_has_the_name_of_its_function(loop, make, function):
    """By a generator, of an asynchronous generator, decorated: the program's function is named, alive or finished."""
    future = loop.create_future()

    async def drive(coro):  # what is a generator can be awaited, but can be no task since 3.12
        return await coro

    coro = make(future)
    task = asyncio.Task(coro if asyncio.iscoroutine(coro) else drive(coro), loop=loop, name="any")
    expected = Site(f"{HERE}.{function.__qualname__}", __file__, line_of(function))
    if task.get_coro() is coro:
        assert site_of_handle(loop._ready[-1]) == expected._replace(task_name="any")
    loop.run_until_complete(asyncio.sleep(0))
    assert site_of_coroutine(coro) == expected
    file, line, name = waiting_at(coro)
    assert (file, line > 0) == (__file__, True)
    assert name == ("report" if "report" in function.__name__ else function.__name__)
    future.set_result(None)
    loop.run_until_complete(task)
    coroutines._named.clear()
    assert site_of_coroutine(coro) == expected


def test_two_functions_behind_one_wrapper_are_not_mistaken(monkeypatch):
    """One decorator makes wrappers of the same code: with the same name in two modules nobody can tell which it is."""
    for name in ("app_one", "app_two"):
        module = types.ModuleType(name)
        exec("async def same(): pass", vars(module))
        module.same = traced_coroutine(module.same)
        monkeypatch.setitem(sys.modules, name, module)
    coroutines._named.clear()
    coro = sys.modules["app_two"].same()
    assert site_of_coroutine(coro).name == "same"
    monkeypatch.delitem(sys.modules, "app_one")
    coroutines._named.clear()
    assert site_of_coroutine(coro).name == "app_two.same"
    coroutines._named.clear()
    coro.close()


def test_a_method_that_is_a_coroutine_is_named_as_written():
    """Its object is not known to the coroutine."""
    coro = Worker().run()
    assert site_of_coroutine(coro).name == f"{HERE}.Job.run"
    coro.close()


def test_code_without_a_file_has_a_name_all_the_same(monkeypatch):
    """What was typed in or generated; in a program that has a file, which the workers of pytest-xdist have not."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "program.py", raising=False)
    space = {"__name__": "generated"}
    exec(compile("async def made(): pass", "<made up>", "exec"), space)
    coro = space["made"]()
    assert site_of_coroutine(coro) == Site("<made up>.made", "<made up>", 1)
    coro.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_an_eager_task_knows_itself_while_it_runs(loop):
    """It runs before it was ever on the loop; one that never had to wait has let go of its coroutine at its end."""
    seen = []

    async def child() -> None:
        seen.append(site_of_task(asyncio.current_task()))

    async def main() -> asyncio.Task:
        return asyncio.Task(child(), loop=loop, eager_start=True, name="eager")

    task = loop.run_until_complete(main())
    name = f"{HERE}.test_an_eager_task_knows_itself_while_it_runs.<locals>.child"
    assert seen == [Site(name, __file__, line_of(child), "eager")]
    assert site_of_task(task).task_name == "eager"


def test_another_thread_can_ask_while_the_callback_runs(loop):
    """As a watchdog does it: a callback, and a coroutine in the middle of its step."""
    seen = []

    def ask(function, about) -> None:
        thread = threading.Thread(target=lambda: seen.append(function(about).name))
        thread.start()
        thread.join()

    def callback() -> None:
        ask(site_of_handle, handle)

    async def coroutine() -> None:
        ask(site_of_task, asyncio.current_task())

    handle = loop.call_soon(callback)
    loop.run_until_complete(coroutine())
    place = f"{HERE}.test_another_thread_can_ask_while_the_callback_runs.<locals>"
    assert seen == [f"{place}.callback", f"{place}.coroutine"]


def test_the_innermost_wait_is_found_through_many_coroutines(loop):
    """A chain of coroutines, an asynchronous generator and an object with __await__ of its own."""

    class Awaitable:
        def __await__(self):
            return report(future).__await__()

    async def main() -> None:
        async def one(depth: int) -> None:
            if depth:
                await one(depth - 1)
            else:
                await anext(agen())

        async def agen():
            await Awaitable()
            yield

        await one(50)

    future = loop.create_future()
    task = asyncio.Task(main(), loop=loop)
    loop.run_until_complete(asyncio.sleep(0))
    assert waiting_at(task.get_coro()) == (__file__, line_of(report) + 3, "report")
    future.set_result(None)
    loop.run_until_complete(task)


def test_a_coroutine_of_the_programs_own_making_is_named_after_its_class(loop):
    """An object with send, throw, close and __await__ can be a task."""

    class Own:
        def send(self, value):
            raise StopIteration

        def throw(self, *args):
            raise StopIteration

        def close(self) -> None: ...

        def __await__(self):
            return self

        def __iter__(self):
            return self

        def __next__(self):
            raise StopIteration

    task = asyncio.Task(Own(), loop=loop, name="own")
    name = f"{HERE}.test_a_coroutine_of_the_programs_own_making_is_named_after_its_class.<locals>.Own"
    assert site_of_handle(loop._ready[-1]) == Site(name, "", 0, "own")
    loop.run_until_complete(task)


def test_names_are_kept_as_text_and_not_without_end(loop, monkeypatch):
    """Whoever makes functions without end does not fill the memory; no object is kept."""
    monkeypatch.setattr(coroutines, "_MOST", 100)  # each new name is looked for in all modules, which takes its time
    for number in range(coroutines._MOST * 2):
        space = {}
        exec(compile("async def made(): pass", f"<made {number}>", "exec"), space)
        coro = space["made"]()
        site_of_coroutine(coro)
        coro.close()
    assert len(coroutines._named) <= coroutines._MOST
    assert all(type(part) in (str, int) for key, value in coroutines._named.items() for part in (*key, *value))

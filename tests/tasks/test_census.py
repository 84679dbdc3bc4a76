"""The listing of tasks, from outside of the loops' threads: who is there, in what state, where, and for how long."""

import asyncio
import contextlib
import gc
import sys
import threading
import time
import types
import weakref
from collections.abc import Coroutine
from types import coroutine

import pytest

import obsloop
from obsloop.introspect import coroutines
from obsloop.service import chores
from obsloop.tasks import census
from tests.support import output


@pytest.fixture(autouse=True)
def no_census_yet(monkeypatch):
    """Each test begins and ends as a new process does; a service that an earlier test started takes no census."""
    monkeypatch.setattr(chores, "census", types.SimpleNamespace(take_census=lambda: 1.0))
    census.forked()
    yield
    census.forked()


@pytest.fixture
def clock(monkeypatch):
    """The census' clock, in nanoseconds, in the test's hands: `clock[0] += ...`."""
    moment = [1_000_000_000_000]
    monkeypatch.setattr(census, "monotonic_ns", lambda: moment[0])
    return moment


@contextlib.contextmanager
def running(name="tasks"):
    """A loop that runs in a thread of this name; gives a function that calls another in that thread and waits."""
    loop = obsloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=name)
    thread.start()

    def call(function, *args):
        async def main():
            return function(*args)

        return asyncio.run_coroutine_threadsafe(main(), loop).result(60)

    async def end():
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    call.loop = loop
    call(int)
    try:
        yield call
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def listed(limit=census.MAX_SHOWN):
    return {task.name: task for task in census.listing(limit).tasks}


async def innermost():
    await asyncio.get_running_loop().create_future()


async def between():
    await innermost()


async def outermost():
    await between()


LINE = innermost.__code__.co_firstlineno + 1


def test_a_task_is_shown_where_it_waits_innermost():
    """Three coroutines await each other: the coroutine is the outermost, the place is the innermost one's line."""
    with running("somebody") as call:
        call(lambda: setattr(call, "task", asyncio.create_task(outermost(), name="deep")))
        task = listed()["deep"]
        assert (task.loop_name, task.coroutine) == ("somebody", f"{__name__}.outermost")
        assert (task.filename, task.lineno, task.function) == (__file__, LINE, "innermost")
        assert (task.state, task.waits_for, task.cancelling) == ("waiting", "Future", False)


def test_states_and_what_is_waited_for():
    """A future's class, another task's name, a gathering; asked to cancel; and the task that runs at this moment."""
    begun, go_on = threading.Event(), threading.Event()

    async def stubborn():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await innermost()
            if go_on.is_set():
                return

    async def wait_for(other):
        await other

    async def ready():
        pass

    async def block():
        asyncio.create_task(ready(), name="ready")  # noqa: RUF006
        begun.set()
        go_on.wait(60)

    def make():
        first = asyncio.create_task(stubborn(), name="stubborn")
        call.tasks = [
            first,
            asyncio.create_task(wait_for(first), name="on a task"),
            asyncio.create_task(wait_for(asyncio.gather(asyncio.shield(first))), name="on many"),
        ]

    with running() as call:
        call(make)
        call(int)
        call(call.tasks[0].cancel)
        call(int)
        call.loop.call_soon_threadsafe(lambda: call.tasks.append(asyncio.ensure_future(block())))
        begun.wait(60)
        tasks = listed()
        go_on.set()
        assert (tasks["stubborn"].state, tasks["stubborn"].cancelling) == ("waiting", True)
        assert (tasks["on a task"].state, tasks["on a task"].waits_for) == ("waiting", "Task stubborn")
        assert (tasks["on many"].state, tasks["on many"].waits_for) == ("waiting", "_GatheringFuture")
        assert (tasks["ready"].state, tasks["ready"].waits_for) == ("ready", None)
        (now,) = [task for task in tasks.values() if task.state == "running"]
        assert now.coroutine.endswith("block")
        assert now.function.endswith("block")  # the loop stands still, and the answer came nevertheless


def test_a_task_is_as_old_as_it_is_within_the_resolution(clock):
    """A known age is put in and found again, by censuses that come at their own times."""
    census.begin()
    with running() as call:
        clock[0] += 700_000_000
        call(lambda: setattr(call, "task", asyncio.create_task(outermost(), name="aged")))
        born_ns = clock[0]
        task = listed()["aged"]
        assert task.age == 0.0
        assert task.age_resolution == pytest.approx(0.7)  # since the last look nobody has seen it
        for pause_ns in (400_000_000, 1_000_000_000, 5_000_000_000):
            clock[0] += pause_ns
            census.take_census()
        clock[0] += 300_000_000
        task = listed()["aged"]
        age = (clock[0] - born_ns) / 1e9
        assert task.age <= age <= task.age + task.age_resolution
        assert task.age == pytest.approx(6.3)
        assert task.age_resolution == pytest.approx(1.1)


def test_what_was_there_before_the_first_census_is_of_unknown_age(clock):
    """A loop that is turned while it runs has tasks from before: they are that old at least, nobody knows how much."""
    with running() as call:
        call(lambda: setattr(call, "task", asyncio.create_task(outermost(), name="before")))
        assert listed()["before"].age_resolution is None
        call(census.begin)
        clock[0] += 2_000_000_000
        call(lambda: setattr(call, "later", asyncio.create_task(outermost(), name="after")))
        census.take_census()
        tasks = listed()
        assert (tasks["before"].age, tasks["before"].age_resolution) == (2.0, None)
        assert (tasks["after"].age, tasks["after"].age_resolution) == (0.0, 2.0)


def test_a_task_keeps_its_age_while_its_loop_makes_a_pause(clock):
    """Runs of one loop, one after the other, with a census between them."""
    census.begin()
    loop = obsloop.new_event_loop()

    async def main():
        clock[0] += 1_000_000_000
        census.take_census()
        return listed()["patient"]

    with contextlib.closing(loop), running("other"):
        task = loop.create_task(outermost(), name="patient")
        loop.run_until_complete(main())
        clock[0] += 1_000_000_000
        census.take_census()
        assert "patient" not in listed()
        assert loop.run_until_complete(main()).age == 2.0
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)


def test_a_hundred_thousand_tasks_are_a_bounded_answer(clock):
    """The oldest known thousand are shown, all are counted, the census keeps ten thousand and says what it lacks."""
    census.begin()
    with running() as call:
        call(lambda: setattr(call, "old", [asyncio.create_task(outermost(), name=f"old {i}") for i in range(600)]))
        clock[0] += 1_000_000_000
        census.take_census()
        clock[0] += 1_000_000_000

        def many():
            call.many = [asyncio.create_task(innermost()) for _ in range(100_000)]

        call(many)
        clock[0] += 1_000_000_000
        census.take_census()
        clock[0] += 1_000_000_000
        found = census.listing()
        assert len(found.tasks) == 1000
        assert found.not_shown == 100_600 - 1000
        assert found.unseen == 100_600 - 10_000
        assert [task.name for task in found.tasks[:600]] == [f"old {i}" for i in range(600)]
        assert {task.age for task in found.tasks[:600]} == {3.0}
        assert {task.age for task in found.tasks[600:]} == {1.0}
        assert len(census._census.first_seen) == census.MAX_KNOWN
        # Who finds room later may have been there for long: since the last census that was complete.
        call(lambda: [task.cancel() for task in call.many[:95_000]])
        call(int)
        census.take_census()
        late = [m for m in census._census.first_seen.values() if m[0] == clock[0]]
        assert all(resolution_ns == 3_000_000_000 for _, resolution_ns in late)
        assert found.unseen > census.listing().unseen == 0
        assert all(task.age_resolution >= 1.0 for task in census.listing(10_000).tasks)


def test_a_census_costs_a_thousandth_at_most_and_its_time_is_known(monkeypatch):
    """The more it costs, the later the next one; and nothing at all while no loop runs."""
    costs = iter([0, 300_000, 0, 5_000_000])
    total = [0]

    def thread_time_ns():
        total[0] += next(costs)
        return total[0]

    monkeypatch.setattr(census, "thread_time_ns", thread_time_ns)
    assert census.take_census() == 1.0
    assert total == [0]
    with running():
        assert census.take_census() == 1.0
        assert census.take_census() == pytest.approx(5.0)
    assert census.census_time_ns() == 5_300_000


def test_loops_in_two_threads_are_both_there():
    """Each task with its own loop's name; and a loop that nobody observes is not."""
    with running("one") as one, running("two") as two:
        for call in (one, two):
            call(lambda call=call: setattr(call, "task", asyncio.create_task(outermost())))
        stock = asyncio.SelectorEventLoop()
        task = stock.create_task(outermost(), name="unobserved")
        found = [task.loop_name for task in census.listing().tasks]
        assert sorted(found) == ["one", "two"]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            stock.run_until_complete(task)
        stock.close()


def test_a_loop_within_a_callback_of_another_hides_neither():
    """As nest-asyncio and some test clients do it."""
    loop, inner = obsloop.new_event_loop(), obsloop.new_event_loop()
    found = []

    async def look():
        thread = threading.Thread(target=lambda: found.append(listed()))
        thread.start()
        thread.join()

    def nested():
        asyncio._set_running_loop(None)
        inner.run_until_complete(look())
        asyncio._set_running_loop(loop)

    with contextlib.closing(loop), contextlib.closing(inner):
        task = loop.create_task(outermost(), name="outer")
        loop.call_soon(nested)
        loop.call_soon(task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
    (tasks,) = found
    assert "outer" in tasks
    assert sum(task.function.endswith("look") for task in tasks.values()) == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are from Python 3.12 on")
def test_eager_tasks_are_there_in_their_first_step_and_after():
    """First in a set of their own, then among the others: once in any case."""
    found = []

    async def eager():
        thread = threading.Thread(target=lambda: found.extend(census.listing().tasks))
        thread.start()
        thread.join()
        await innermost()

    def make():
        call.task = asyncio.eager_task_factory(call.loop, eager(), name="eager")

    with running() as call:
        call(make)
        assert [task.state for task in found if task.name == "eager"] == ["running"]
        found[:] = []
        found.extend(census.listing().tasks)
        assert [(task.state, task.lineno) for task in found if task.name == "eager"] == [("waiting", LINE)]


def test_no_task_of_asyncios_is_asked_for_its_coroutine(monkeypatch):
    """`get_coro` crashes CPython 3.12.1 when an eager task ends meanwhile, so the coroutine is read without a call."""

    class Asked(asyncio.tasks._PyTask):
        def get_coro(self):
            raise AssertionError("asked")

    with running() as call:
        call(lambda: setattr(call, "task", Asked(outermost(), loop=call.loop, name="quiet")))
        call(int)
        # From Python 3.14 on, asyncio in C does not list a task in Python.
        monkeypatch.setattr(census, "_references", lambda loops: [weakref.ref(call.task)])
        assert listed()["quiet"].function == "innermost"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are from Python 3.12 on")
def test_an_eager_task_may_end_while_it_is_described():
    """In a process of its own, which CPython 3.12.1 used to end: the task's first step ends while its name is read."""
    assert (
        output("""
        import asyncio, threading
        import obsloop
        from obsloop.tasks import census as _tasks
        from obsloop.introspect import coroutines as _sites

        begun, go_on, over = threading.Event(), threading.Event(), threading.Event()
        name_of = _sites.site_of_task

        def slowly(task):
            site = name_of(task)
            if threading.current_thread() is thread and site.name.endswith("first_step"):
                go_on.set()
                over.wait(60)
            return site

        _sites.site_of_task = slowly

        async def first_step():
            begun.set()
            go_on.wait(60)

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_task_factory(asyncio.eager_task_factory)
            task = asyncio.create_task(first_step())
            over.set()

        thread = threading.Thread(target=lambda: begun.wait(60) and found.append(_tasks.listing()))
        found = []
        thread.start()
        obsloop.run(main())
        thread.join()
        print(sum(task.coroutine.endswith("first_step") for task in found[0].tasks))
    """)
        == "1\n"
    )


class Handmade(Coroutine):
    """What compilers of Python make: it behaves like a coroutine and has nothing to look into."""

    def __init__(self, coro):
        self._steps = coro.__await__()

    def send(self, value):
        return self._steps.send(value)

    def throw(self, *exception):
        return self._steps.throw(*exception)

    def close(self):
        self._steps.close()

    def __await__(self):
        return self


def test_coroutines_of_every_make_have_a_place_or_none():
    """A generator of the old days, a step of an asynchronous generator, a coroutine of somebody's own."""

    @coroutine
    def generator():
        yield from asyncio.get_running_loop().create_future().__await__()

    async def old():
        await generator()

    async def numbers():
        await asyncio.get_running_loop().create_future()
        yield 1

    async def consume():
        async for _ in numbers():
            pass

    def make():
        call.tasks = [
            asyncio.create_task(old(), name="generator"),
            asyncio.create_task(consume(), name="consumer"),
            asyncio.create_task(numbers().__anext__(), name="step"),
            asyncio.create_task(Handmade(innermost()), name="handmade"),
        ]

    with running() as call:
        call(make)
        call(int)
        tasks = listed()
        assert {task.state for task in tasks.values()} == {"waiting"}
        assert tasks["generator"].function.endswith("generator")
        assert tasks["consumer"].function.endswith("numbers")
        assert tasks["step"].name == "step"
        assert (tasks["handmade"].filename, tasks["handmade"].lineno) == ("", 0)


def test_tasks_of_the_programs_own_class_are_asked_nothing():
    """Their methods belong to the loop's thread: asyncio's own are called instead.

    Except for one: from Python 3.14 on asyncio itself asks them whether they are done.
    """
    called = set()

    class Own(asyncio.Task):
        def __getattribute__(self, name):
            called.add((threading.get_ident(), name))
            return super().__getattribute__(name)

        def get_name(self):
            raise RuntimeError("not for you")

    with running() as call:
        call(lambda: setattr(call, "task", Own(outermost(), loop=call.loop, name="own")))
        census.take_census()
        task = listed()["own"]
        assert (task.state, task.function) == ("waiting", "innermost")
        ours = {name for ident, name in called if ident == threading.get_ident()}
        assert ours <= ({"done", "get_loop", "_loop"} if sys.version_info >= (3, 14) else set())


def test_a_loop_that_makes_and_ends_tasks_all_the_time_is_no_obstacle():
    """Every listing succeeds, the lasting task is in it, and those who look hold nobody alive."""
    over = threading.Event()

    async def short():
        await asyncio.sleep(0)

    async def churn():
        while not over.is_set():
            await asyncio.gather(*(asyncio.create_task(short()) for _ in range(100)))

    with running() as call:
        call(lambda: setattr(call, "tasks", [asyncio.create_task(churn(), name="churn")]))
        for _ in range(50):
            census.take_census()
            assert "churn" in listed(100_000)
        over.set()
        call(int)
        call.tasks.append(call(lambda: asyncio.create_task(outermost())))
        ref = weakref.ref(call.tasks[-1])
        census.take_census()
        listed()
        call.loop.call_soon_threadsafe(call.tasks.pop().cancel)
        end = time.monotonic() + 30
        while ref() is not None and time.monotonic() < end:
            call(gc.collect)
        assert ref() is None


def test_nothing_that_goes_wrong_is_raised(monkeypatch):
    """The one who asks gets what can be told."""

    def broken(*args):
        raise RuntimeError

    assert census.listing() == census.Listing()
    with running() as call:
        call(lambda: setattr(call, "task", asyncio.create_task(outermost())))
        monkeypatch.setattr(coroutines, "waiting_places", broken)
        assert census.listing().tasks == []
        monkeypatch.setattr(census, "_references", broken)
        assert census.listing() == census.Listing()
        assert census.take_census() == 1.0
        monkeypatch.undo()
        assert len(census.listing().tasks) == 1


def test_a_child_after_fork_starts_its_own_census():
    """Ages and their cost are the parent's."""
    assert (
        output("""
        import asyncio, os, sys, time, warnings
        import obsloop
        from obsloop import service
        from obsloop.tasks import census as _tasks
        warnings.simplefilter("ignore")
        service.ensure("127.0.0.1:0", unhealthy_after=1.0)
        async def main():
            while not _tasks._census.first_seen:
                await asyncio.sleep(0.05)
            assert _tasks.census_time_ns() > 0
            if os.fork() == 0:
                print(_tasks.census_time_ns(), _tasks._census.first_seen, flush=True)
                os._exit(0)
            os.wait()
        obsloop.run(main())
    """)
        == "0 {}\n"
    )

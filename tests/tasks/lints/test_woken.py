"""Tasks that nobody can wake: found by counting references, on each kind of task and future, and nobody else."""

import asyncio
import gc
import sys
import weakref
from asyncio import futures, tasks

import pytest

import obsloop
from obsloop.tasks import census
from obsloop.tasks.lints import never_woken

TASKS = {"C task": asyncio.Task, "Python task": tasks._PyTask}
FUTURES = {"C future": asyncio.Future, "Python future": futures._PyFuture}


async def innermost(make, hand_over):
    future = make(loop=asyncio.get_running_loop())
    hand_over(future)
    await future


LINE = innermost.__code__.co_firstlineno + 3


async def outer(make, hand_over):
    await innermost(make, hand_over)


def nobody(future) -> None:
    """Keep nothing."""


def found(name="looked at"):
    return obsloop.snapshots()[name].value("asyncio.task.lint", "never_woken")


async def looks(looking, n=6, after=10.0):
    for _ in range(n):
        await looking.look(after)


def test_counting_is_exact_on_this_interpreter():
    """All four combinations; where one is not, that is known, too: a reference that is hidden is not explained."""
    assert never_woken.exact() == {(True, True), (True, False), (False, True), (False, False)}


def test_where_counting_is_not_exact_the_lint_is_off_and_says_so(looked_at, told, monkeypatch, caplog):
    """As on an interpreter that counts in another way: nothing is told of, and one line says that nothing will be."""
    monkeypatch.setattr(never_woken, "_EXPECTED", [])

    async def main(looking):
        task = asyncio.create_task(innermost(asyncio.Future, nobody))
        await looks(looking)
        task.cancel()

    looked_at(main)
    assert told.lints == []
    assert [r.getMessage() for r in caplog.records if "references are not counted as expected" in r.getMessage()] == [
        "on this interpreter references are not counted as expected: tasks that nothing can wake are found only for 0"
        " of 4 combinations of tasks and futures"
    ]


@pytest.mark.parametrize("future_kind", FUTURES)
@pytest.mark.parametrize("task_kind", TASKS)
def test_a_task_whose_future_nobody_has_is_told_of_once(looked_at, told, task_kind, future_kind):
    """Lost by whoever was to set it. Its twin, whose future is in a list, is well; so is the one that awaits it."""
    kept = []

    async def main(looking):
        loop = asyncio.get_running_loop()
        make = FUTURES[future_kind]
        lost = TASKS[task_kind](outer(make, nobody), loop=loop, name="lost")
        well = TASKS[task_kind](outer(make, kept.append), loop=loop, name="well")
        if TASKS[task_kind] is tasks._PyTask and sys.version_info >= (3, 14):
            for task in (lost, well):  # whoever has tasks of another make says so, or asyncio does not list them
                asyncio._register_task(task)
        waits = asyncio.gather(lost, well)
        await looks(looking, 3)
        assert told.lints == []  # 20 s after it was first seen so
        census.listing()  # makes frames of coroutines, and changes nothing
        await looks(looking, 10)
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)

    looked_at(main)
    (event,) = told.lints
    assert (event.lint, event.task_name, event.name) == ("never_woken", "lost", f"{__name__}.outer")
    assert (event.filename, event.lineno) == (__file__, outer.__code__.co_firstlineno)
    assert event.detail == f"at {__file__}:{LINE} in innermost"
    assert event.duration == pytest.approx(30)
    assert event.last_seen - event.started_at == pytest.approx(30)
    assert event.message.endswith("only cancelling ends it")
    assert found() == 1


def test_a_task_that_nobody_has_either_is_told_of_before_it_is_collected(looked_at, told):
    """Made and forgotten, as the documentation of ``create_task`` warns of; in a variable or not."""

    async def direct():
        await asyncio.get_running_loop().create_future()

    async def main(looking):
        asyncio.create_task(direct(), name="forgotten")  # noqa: RUF006
        await asyncio.sleep(0)
        await looks(looking)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    gc.disable()
    try:
        looked_at(main)
    finally:
        gc.enable()
    (event,) = told.lints
    assert (event.lint, event.task_name) == ("never_woken", "forgotten")
    assert event.message.endswith("nothing refers to the task, either")


def test_one_that_was_collected_while_it_waited_is_a_finding_too(told):
    """asyncio says "Task was destroyed but it is pending!": so nobody was able to wake it."""

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        asyncio.create_task(innermost(asyncio.Future, nobody), name="forgotten")  # noqa: RUF006
        await asyncio.sleep(0)
        gc.collect()

    obsloop.run(main(), settings=obsloop.Settings(name="looked at"))
    (event,) = told.lints
    assert (event.lint, event.task_name, event.name) == ("never_woken", "forgotten", f"{__name__}.innermost")
    assert found() == 1


def test_many_with_one_mistake_are_one_piece_of_news(looked_at, told, caplog):
    """Ten tasks, then five more, then five more: 10 and 20 are told, 15 is not; all twenty are counted, one is logged.

    When all are gone and there are some again, that is no news within a minute.
    """

    async def main(looking):
        many = []
        for n in (10, 5, 5):
            many += [asyncio.create_task(innermost(asyncio.Future, nobody)) for _ in range(n)]
            await asyncio.sleep(0)
            await looks(looking)
        for task in many:
            task.cancel()
        await asyncio.wait(many)
        await looks(looking, 1)
        again = asyncio.create_task(innermost(asyncio.Future, nobody))
        await looks(looking)
        again.cancel()

    looked_at(main)
    assert [event.count for event in told.lints] == [10, 20]
    assert found() == 21
    assert sum(r.getMessage().startswith("never_woken") for r in caplog.records) == 1


def test_who_waits_for_ever_on_purpose_is_left_alone(looked_at, told, stopping):
    """``await asyncio.Future()`` of a task that somebody has; of the one a run is for; and within a time-out."""

    async def direct():
        await asyncio.Future()

    async def direct_in_loop():
        await asyncio.get_running_loop().create_future()

    async def within_timeout():
        forever = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(3600):
            await forever

    async def waited_for():
        await asyncio.wait_for(asyncio.Future(), 3600)

    async def shared():
        mapping["x"] = future = asyncio.get_running_loop().create_future()
        await future

    mapping = weakref.WeakValueDictionary()

    async def root(looking, loop):
        forever = loop.create_future()
        looker = asyncio.create_task(looks(looking, 8))
        looker.add_done_callback(lambda _: loop.stop())
        await forever

    async def main(looking):
        tasks = [asyncio.create_task(f()) for f in (direct, direct_in_loop, within_timeout, waited_for, shared)]
        async with stopping(*tasks):
            await looks(looking, 8)
        loop = obsloop.new_event_loop(obsloop.Settings(name="root"))

        def other():
            asyncio.set_event_loop(loop)
            task = loop.create_task(root(looking, loop))
            with pytest.raises(RuntimeError, match="stopped before"):
                loop.run_until_complete(task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

        await asyncio.to_thread(other)

    looked_at(main)
    assert told.lints == []


def test_the_watchdog_finds_it_by_itself(quick, told):
    """In real time, and after the setting's 0.3 s."""

    async def main():
        task = asyncio.create_task(innermost(asyncio.Future, nobody), name="lost")
        event = await asyncio.to_thread(told.wait_for, obsloop.events.TaskLint, 30)
        task.cancel()
        return event

    event = obsloop.run(main(), settings=obsloop.Settings(name="looked at", never_woken_after=0.3))
    assert (event.lint, event.task_name) == ("never_woken", "lost")
    assert event.duration >= 0.3
    assert found() == 1

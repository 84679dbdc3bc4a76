"""create_future, create_task, and task factories."""

import asyncio
import contextvars
import sys

import pytest

from .support import run, run_batch

story = contextvars.ContextVar("story", default="untold")


async def return_story():
    """What the running context says."""
    return story.get()


def test_create_future_is_attached_to_the_loop(make_loop):
    """A future of the loop's, pending, whose callbacks the loop runs."""
    loop = make_loop()
    future = loop.create_future()
    assert asyncio.isfuture(future)
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    assert not future.done()
    seen = []
    future.add_done_callback(seen.append)
    future.set_result(1)
    assert seen == []
    run_batch(loop)
    assert seen == [future]


def test_create_task_schedules_and_returns_a_task(loop):
    """The coroutine is scheduled, not begun; the Task gives its result."""
    seen = []

    async def main():
        seen.append("began")
        return asyncio.current_task()

    task = loop.create_task(main())
    assert isinstance(task, asyncio.Task)
    assert task.get_loop() is loop
    assert seen == []
    assert run(loop, task) is task
    assert seen == ["began"]


def test_create_task_refuses_what_is_no_coroutine(loop):
    """A function, or a number, is a TypeError."""
    for thing in (return_story, 42, None):
        with pytest.raises(TypeError):
            loop.create_task(thing)


def test_task_names(loop):
    """name= is kept; without one each task gets its own name."""
    named = loop.create_task(asyncio.sleep(0), name="a known name")
    one, two = loop.create_task(asyncio.sleep(0)), loop.create_task(asyncio.sleep(0))
    assert named.get_name() == "a known name"
    assert one.get_name() != two.get_name()
    run(loop, asyncio.sleep(0.001))


def test_task_context(loop):
    """A task runs in a copy of its creator's context; context= is used as it is."""

    async def tell(what):
        story.set(what)

    context = contextvars.copy_context()
    context.run(story.set, "given")

    async def main():
        story.set("the creator's")
        inherited = await loop.create_task(return_story())
        await loop.create_task(tell("by a task"))
        given = await loop.create_task(return_story(), context=context)
        await loop.create_task(tell("changed"), context=context)
        return inherited, story.get(), given

    assert run(loop, main()) == ("the creator's", "the creator's", "given")
    assert context[story] == "changed"


def test_tasks_take_turns(loop):
    """Each await of sleep(0) lets every other ready task have its step, in order."""
    seen = []

    async def steps(name):
        for count in range(3):
            seen.append(f"{name}{count}")
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(steps("a"), steps("b"), steps("c"))

    run(loop, main())
    assert seen == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_all_tasks_and_current_task(loop):
    """The loop's tasks can be listed, and the running one asked for, in plain callbacks None."""
    seen = []

    async def main():
        other = loop.create_task(asyncio.sleep(0), name="other")
        names = {task.get_name() for task in asyncio.all_tasks(loop)}
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        await other
        await asyncio.sleep(0)
        return names, asyncio.current_task().get_name()

    names, current = loop.run_until_complete(loop.create_task(main(), name="main"))
    assert (names, current) == ({"main", "other"}, "main")
    assert seen == [None]
    assert asyncio.all_tasks(loop) == set()


def test_cancelling_tasks(loop):
    """cancel() is thrown in where the task waits, and can be handled there."""

    async def stubborn():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            return "handled"

    async def main():
        tasks = [loop.create_task(stubborn()), loop.create_task(asyncio.sleep(10))]
        await asyncio.sleep(0)
        for task in tasks:
            assert task.cancel("message")
        return await asyncio.gather(*tasks, return_exceptions=True)

    handled, cancelled = run(loop, main())
    assert handled == "handled"
    assert isinstance(cancelled, asyncio.CancelledError)


def test_task_group(loop):
    """Structured concurrency of the standard library works on the loop: one failure ends the group."""

    async def fail():
        raise LookupError("in the group")

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        run(loop, main())
    assert [str(exc) for exc in caught.value.exceptions] == ["in the group"]


def test_task_factory_set_and_get(loop):
    """The default is None; a factory is given back as it was; None restores the default."""

    def factory(loop, coro, **kwargs):
        return asyncio.Task(coro, loop=loop, **kwargs)

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(42)


def test_task_factory_makes_the_tasks(loop):
    """A factory is called with the loop and the coroutine, for each task, and what it returns is used."""
    calls = []

    class MyTask(asyncio.Task):
        pass

    def factory(loop, coro, **kwargs):
        calls.append((loop, coro))
        return MyTask(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    coro = return_story()
    task = loop.create_task(coro)
    assert type(task) is MyTask
    assert calls == [(loop, coro)]
    assert loop.run_until_complete(task) == "untold"

    async def main():
        return type(asyncio.current_task()), type(asyncio.ensure_future(asyncio.sleep(0)))

    # Tasks that asyncio makes on its own go through the factory too.
    assert loop.run_until_complete(main()) == (MyTask, MyTask)
    loop.set_task_factory(None)
    assert run(loop, main()) == (asyncio.Task, asyncio.Task)


def test_task_factory_with_two_arguments(loop):
    """The reference's signature (loop, coro) works when neither name nor context is given."""
    loop.set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))
    assert loop.run_until_complete(return_story()) == "untold"


def test_task_factory_with_name_and_context(loop):
    """name= and context= reach the task, through whatever way this Python takes them there."""
    seen = []

    def factory(loop, coro, **kwargs):
        seen.append(kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    context = contextvars.copy_context()
    context.run(story.set, "given")
    task = loop.create_task(return_story(), name="a known name", context=context)
    assert task.get_name() == "a known name"
    assert loop.run_until_complete(task) == "given"
    assert seen[0]["context"] is context
    # Only since 3.13.3 is the name passed on; before, the loop set it on the finished task.
    assert seen[0].get("name", "a known name") == "a known name"


def test_task_factory_may_return_another_future(loop):
    """The result need only be compatible with a Future."""

    class Ready(asyncio.Future):
        """Some releases of 3.13 insist on giving it a name."""

        def set_name(self, name):
            pass

    ready = Ready(loop=loop)
    ready.set_result("not a task at all")

    def factory(loop, coro, **kwargs):
        coro.close()
        return ready

    loop.set_task_factory(factory)
    assert loop.create_task(return_story()) is ready
    assert loop.run_until_complete(ready) == "not a task at all"


def test_a_factory_that_raises(loop):
    """Its exception is the caller's of create_task."""

    def factory(loop, coro, **kwargs):
        coro.close()
        raise LookupError("no task today")

    loop.set_task_factory(factory)
    with pytest.raises(LookupError, match="no task today"):
        loop.create_task(return_story())
    loop.set_task_factory(None)
    assert run(loop, return_story()) == "untold"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks since 3.12")
def test_eager_task_factory(loop):
    """The standard eager factory begins a task inside create_task, while the loop runs."""
    seen = []

    async def at_once():
        seen.append(asyncio.current_task())
        return "no step of its own"

    async def later():
        seen.append("first part")
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        me = asyncio.current_task()
        done = loop.create_task(at_once(), name="eager")
        assert done.done()
        assert done.result() == "no step of its own"
        pending = loop.create_task(later())
        assert not pending.done()
        assert seen == [done, "first part"]
        assert asyncio.current_task() is me
        assert await pending is pending

    run(loop, main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="eager_start is new in 3.14")
def test_eager_start(loop):
    """eager_start=True begins this one task inside create_task; a factory is passed it on."""
    passed = []

    def factory(loop, coro, **kwargs):
        passed.append(kwargs.get("eager_start"))
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main():
        lazy = loop.create_task(return_story(), eager_start=False)
        eager = loop.create_task(return_story(), eager_start=True)
        assert (lazy.done(), eager.done()) == (False, True)
        loop.set_task_factory(factory)
        assert loop.create_task(return_story(), eager_start=True).done()
        loop.set_task_factory(None)
        await lazy

    run(loop, main())
    assert passed == [True]

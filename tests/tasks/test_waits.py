"""Who waits for whom: what is at the end of each chain, locks with their waiters and holders, circles, cancels."""

import asyncio
import contextlib
import re
import subprocess
import sys
import threading
import time

import pytest

import obsloop
from obsloop.tasks import awaits, census, lock_places, tracking
from tests.tasks.test_census import clock, no_census_yet, running  # noqa: F401 - fixtures


def start(call, **coroutines):
    """Start tasks of these names in the loop's thread, and let each run until it waits."""

    def make():
        call.tasks = [asyncio.create_task(coro, name=name) for name, coro in coroutines.items()]

    call(make)
    wait_until(lambda: all(task.state == "waiting" for task in census.listing().tasks if task.name in coroutines))


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def seen():
    """Return the listing, what each task waits for, and the names of the tasks that each awaits."""
    found = census.listing()
    names = [task.name for task in found.tasks]
    on = {task.name: task.waiting_on for task in found.tasks}
    return found, on, {name: {names[i] for i in found.waits.awaits[n]} for n, name in enumerate(names)}


async def forever():
    await asyncio.get_running_loop().create_future()


def test_each_way_to_wait_for_other_tasks_is_seen():
    """gather, TaskGroup, wait, shield, wait_for, and a plain await: each names the tasks, and counts them."""

    def inner(name):
        return asyncio.create_task(forever(), name=name)

    async def gathers():
        await asyncio.gather(inner("g1"), inner("g2"))

    async def groups():
        async with asyncio.TaskGroup() as group:
            group.create_task(forever(), name="t1")

    async def waits():
        await asyncio.wait([inner("w1"), inner("w2")], return_when=asyncio.FIRST_COMPLETED)

    async def shields():
        await asyncio.shield(inner("s1"))

    async def limited():
        await asyncio.wait_for(inner("f1"), 1_000)

    async def plain():
        await inner("p1")

    with running() as call:
        start(
            call, gathers=gathers(), groups=groups(), waits=waits(), shields=shields(), limited=limited(), plain=plain()
        )
        _found, on, awaited = seen()
        assert awaited["gathers"] == {"g1", "g2"}
        assert awaited["groups"] == {"t1"}
        assert awaited["waits"] == {"w1", "w2"}
        assert awaited["shields"] == {"s1"}
        assert awaited["limited"] == {"f1"}
        assert awaited["plain"] == {"p1"}
        assert on["gathers"] == "gather: 0 of 2 done"
        assert on["groups"] == "TaskGroup: 1 tasks not done"
        assert on["waits"] == "asyncio.wait: 0 of 2 done, until the first ends"
        assert on["shields"] == "shielded task s1"
        assert re.fullmatch(r"task f1, times out in \d+\.\d s", on["limited"])
        assert on["plain"] == "task p1"


def test_the_end_of_a_chain_is_named():
    """A timer, a job, a lock, a socket, and a plain future."""

    async def job():
        await asyncio.to_thread(release.wait, 60)

    release = threading.Event()
    with running() as call:
        start(call, sleeps=asyncio.sleep(1_000), job=job(), future=forever())
        _found, on, _awaited = seen()
        release.set()
        assert re.fullmatch(r"sleep, (\d+)\.\d s more", on["sleeps"])
        assert "threading.Event.wait" in on["job"]
        assert on["job"].startswith("executor job ")
        assert on["future"] == "future"


def test_a_lock_has_its_waiters_its_holder_and_the_longest_wait(clock):  # noqa: F811
    """The holder is in the `async with` block; the wait is as long as censuses have seen it, and not longer."""
    census.begin()

    async def holds(lock):
        async with lock:
            await forever()

    async def wants(lock):
        async with lock:
            raise AssertionError

    with running() as call:
        lock = call(asyncio.Lock)
        start(call, holder=holds(lock))
        start(call, first=wants(lock), second=wants(lock))
        clock[0] += 1_000_000_000
        census.take_census()
        clock[0] += 5_000_000_000
        found, on, _awaited = seen()
        (info,) = found.waits.locks
        names = [task.name for task in found.tasks]
        assert on["first"] == "Lock.acquire"
        assert (info.what, info.waiters, info.longest) == ("Lock.acquire", 2, 5.0)
        assert {names[i] for i in info.tasks} == {"first", "second"}
        assert [names[i] for i in info.holders] == ["holder"]
        assert info.places[0][0][2].endswith("wants")
        assert info.made_at is None
        assert found.waits.circles == []


def test_a_new_wait_for_the_same_lock_begins_at_zero(clock):  # noqa: F811
    """A task that waits again and again has not waited for long, although its lock is the same."""
    census.begin()
    with running() as call:
        queue = call(asyncio.Queue)

        async def takes():
            while True:
                await queue.get()

        start(call, taker=takes())
        for _ in range(3):
            clock[0] += 1_000_000_000
            census.take_census()
            call(queue.put_nowait, None)
            wait_until(lambda: queue.empty() and seen()[1]["taker"] == "Queue.get")
        clock[0] += 1_000_000_000
        (task,) = [task for task in census.listing().tasks if task.name == "taker"]
        assert (task.waiting, task.waiting_resolution) == (0.0, 1.0)
        census.take_census()
        clock[0] += 2_000_000_000
        (task,) = [task for task in census.listing().tasks if task.name == "taker"]
        assert (task.waiting, task.waiting_resolution) == (2.0, 1.0)


@pytest.mark.parametrize("kind", ["semaphore", "condition", "event", "put", "join", "barrier"])
def test_each_kind_of_lock_is_known(kind):
    """By the innermost coroutine of asyncio's, also if one is built on another."""

    async def conditions(condition):
        async with condition:
            await condition.wait()

    def make():
        full = asyncio.Queue(1)
        full.put_nowait(None)
        return {
            "semaphore": asyncio.Semaphore(0).acquire,
            "condition": lambda: conditions(asyncio.Condition()),
            "event": asyncio.Event().wait,
            "put": lambda: full.put(None),
            "join": full.join,
            "barrier": asyncio.Barrier(2).wait,
        }[kind]()

    what = {
        "semaphore": "Semaphore.acquire", "condition": "Condition.wait", "event": "Event.wait", "put": "Queue.put",
        "join": "Queue.join", "barrier": "Barrier.wait",
    }[kind]  # fmt: skip
    with running() as call:
        start(call, waiter=call(make))
        found, on, _awaited = seen()
        assert on["waiter"] == what
        assert [(lock.what, lock.waiters) for lock in found.waits.locks] == [(what, 1)]


def test_circles_are_found_through_awaits_and_locks():
    """A waits for B and B for A; and two tasks take two locks in opposite order."""

    async def other(name):
        await asyncio.sleep(0)
        # Not a plain await: asyncio's `cancel` follows such a circle until Python's recursion limit.
        await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name() == name])

    async def both(one, two, name):
        async with one:
            ready.append(name)
            while len(ready) < 2:
                await asyncio.sleep(0)
            async with two:
                raise AssertionError

    ready: list[str] = []
    with running() as call:
        one, two = call(asyncio.Lock), call(asyncio.Lock)
        call(lambda: setattr(call, "kept", [asyncio.create_task(other(to), name=name) for name, to in ("AB", "BA")]))
        start(call, left=both(one, two, "left"), right=both(two, one, "right"))
        wait_until(lambda: len(census.listing().waits.circles) == 2)
        found = census.listing()
        circles = [{found.tasks[i].name for i in circle} for circle in found.waits.circles]
        assert sorted(circles, key=min) == [{"A", "B"}, {"left", "right"}]


def test_waiting_for_a_lock_is_no_circle_if_its_holder_goes_on():
    """The parent holds the lock in a task group's block, and only its own sleep keeps it there."""

    async def child(lock):
        async with lock:
            await forever()

    async def parent(lock):
        async with asyncio.TaskGroup() as group, lock:
            group.create_task(child(lock), name="child")
            await forever()

    with running() as call:
        start(call, parent=parent(call(asyncio.Lock)))
        wait_until(lambda: seen()[1].get("child") == "Lock.acquire")
        found, _on, awaited = seen()
        assert awaited["parent"] == {"child"}
        assert found.waits.circles == []


def test_very_many_awaited_tasks_are_counted(monkeypatch):
    """One gather of more than is read: the answer is bounded, and says what it lacks."""
    monkeypatch.setattr(awaits, "MAX_EDGES", 5)

    async def gathers():
        await asyncio.gather(*(forever() for _ in range(20)))

    with running() as call:
        start(call, gathers=gathers())
        found = census.listing()
        forward = found.waits.not_listed
        assert forward == 15


def test_who_created_and_who_cancelled_a_task_is_noted_if_asked():
    """By line, with the task that ran, the function of asyncio that passed it on, and the awaiting task."""
    tracking.forked()

    async def stubborn():
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    async def awaiting(task):
        await task

    async def main():
        inner = asyncio.create_task(stubborn(), name="inner")
        outer = asyncio.create_task(awaiting(inner), name="outer")
        await asyncio.sleep(0.01)
        outer.cancel()
        line = sys._getframe().f_lineno - 1
        await asyncio.sleep(0)
        found = await asyncio.to_thread(lambda: {task.name: task for task in census.listing().tasks})
        assert found["inner"].created_at[0] == __file__
        assert found["inner"].created_by == found["outer"].created_by == asyncio.current_task().get_name()
        assert found["outer"].created_at[1] == found["inner"].created_at[1] + 1
        cancelled = found["inner"].cancelled
        assert cancelled.place[:2] == (__file__, line)
        assert (cancelled.through, cancelled.by) == ("outer", asyncio.current_task().get_name())
        assert type(inner).__name__ == "Task"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await forever()
        released.set()
        await outer

    released = asyncio.Event()
    loop = obsloop.new_event_loop(obsloop.Settings(track_tasks=True))
    loop.run_until_complete(loop.create_task(main()))
    kinds = {(kind.coroutine.rpartition(".")[2], kind.via): kind.count for kind in tracking.cancellations()}
    assert kinds["stubborn", None] == 1
    assert kinds["main", "Timeout._on_timeout"] == 1
    loop.close()


def test_the_line_that_made_a_lock_is_noted_if_asked():
    """asyncio's classes are as they were before and after."""
    before = asyncio.Lock.__init__
    loop = obsloop.new_event_loop(obsloop.Settings(track_locks=True))
    try:
        lock = asyncio.Lock()
        assert lock._obsloop_made_at[:2] == (__file__, sys._getframe().f_lineno - 1)
    finally:
        lock_places.end()
        loop.close()
    assert asyncio.Lock.__init__ is before
    assert not hasattr(asyncio.Lock(), "_obsloop_made_at")


PSTREE = """
import asyncio, sys
import obsloop
from obsloop.tasks import census

async def forever():
    await asyncio.get_running_loop().create_future()

async def middle():
    async with asyncio.TaskGroup() as group:
        group.create_task(forever(), name="leaf1")
        group.create_task(forever(), name="leaf2")

async def shielded():
    await asyncio.shield(asyncio.create_task(forever(), name="leaf3"))

async def waits():
    await asyncio.wait([asyncio.create_task(forever(), name="leaf4")])

async def main():
    asyncio.current_task().set_name("root")
    tasks = [asyncio.create_task(each(), name=each.__name__) for each in (middle, shielded, waits)]
    everything = asyncio.gather(*tasks)
    asyncio.get_running_loop().call_later(0.2, lambda: asyncio.get_running_loop().run_in_executor(None, tell))
    await everything

def tell():
    found = census.listing()
    for i, task in enumerate(found.tasks):
        for j in found.waits.awaits[i]:
            print(task.name, found.tasks[j].name)
    print("end", flush=True)

obsloop.run(main())
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="python -m asyncio pstree is from Python 3.14 on")
def test_the_tree_is_that_of_asyncio_pstree():
    """The same edges, from outside of the process and from within."""
    with subprocess.Popen([sys.executable, "-c", PSTREE], stdout=subprocess.PIPE, text=True) as process:
        try:
            ours = {tuple(line.split()) for line in iter(process.stdout.readline, "end\n")}
            asked = subprocess.run(
                [sys.executable, "-m", "asyncio", "pstree", str(process.pid)],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            process.kill()
    if asked.returncode and "insufficient permissions" in asked.stdout + asked.stderr:
        pytest.skip("this system lets no process read another one's memory, which pstree does")
    assert asked.returncode == 0, asked.stderr
    theirs: set[tuple[str, str]] = set()
    path: list[tuple[int, str]] = []
    for line in asked.stdout.splitlines():
        found = re.search(r"\(T\) (\S+)", line)
        if found is None:
            continue
        while path and path[-1][0] >= found.start():
            path.pop()
        if path:
            theirs.add((path[-1][1], found[1]))
        path.append((found.start(), found[1]))
    assert ours == theirs
    assert ("root", "middle") in theirs
    assert ("middle", "leaf2") in theirs

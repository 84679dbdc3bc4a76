"""Programs with which nothing is wrong, of many kinds, under limits far below those of life: nothing is told."""

import asyncio
import contextlib
import gc
import socket
import sys
import threading
from asyncio import tasks

import pytest

import obsloop
from obsloop.tasks.lints import runner

SECONDS = 1.5
LIMITS = {"never_woken_after": 0.1, "growing_after": 0.3, "growing_by": 20, "never_yields_after": 1.0}


async def sleeps() -> None:
    await asyncio.sleep(3600)


async def ticks() -> None:
    while True:
        await asyncio.sleep(0.01)


async def idle_server() -> None:
    """With ten connections on which nothing is said."""
    hold = asyncio.Event()

    async def serve(reader, writer):
        with contextlib.closing(writer):
            await reader.readline()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        reading, writers = [], []
        try:  # it may be over before all of them are connected, on a busy machine
            for _ in range(10):
                reader, writer = await asyncio.open_connection(*address)
                writers.append(writer)
                reading.append(asyncio.create_task(reader.read()))
            await hold.wait()
        finally:
            for writer in writers:
                writer.close()
            await asyncio.gather(*reading, return_exceptions=True)


async def drains() -> None:
    """Into a connection whose peer does not read."""

    over = asyncio.Event()

    async def serve(reader, writer):
        with contextlib.closing(writer):
            await over.wait()
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            writer.write(bytes(20_000_000))
            await writer.drain()
        finally:
            writer.transport.abort()
            over.set()


async def serves_for_ever() -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    async with server:
        await server.serve_forever()


async def reads_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_recv(ours, 10)


async def consumes() -> None:
    await asyncio.Queue().get()


async def consumes_by_priority() -> None:
    queue: asyncio.PriorityQueue = asyncio.PriorityQueue(1)
    await queue.put(1)
    await queue.put(2)


async def joins() -> None:
    queue: asyncio.Queue = asyncio.Queue()
    queue.put_nowait(1)
    await queue.join()


async def locks() -> None:
    lock = asyncio.Lock()
    async with lock:
        await asyncio.gather(*(lock.acquire() for _ in range(3)))


async def other_locks() -> None:
    semaphore, condition, event = asyncio.Semaphore(0), asyncio.Condition(), asyncio.Event()

    async def conditionally():
        async with condition:
            await condition.wait_for(lambda: False)

    await asyncio.gather(semaphore.acquire(), conditionally(), event.wait(), asyncio.Barrier(2).wait())


async def gathers() -> None:
    await asyncio.gather(*(sleeps() for _ in range(3)), asyncio.shield(asyncio.ensure_future(sleeps())))


async def waits_in_every_way() -> None:
    async def first():
        for done in asyncio.as_completed([asyncio.ensure_future(sleeps())]):
            await done

    async def any_of():
        await asyncio.wait([asyncio.ensure_future(sleeps())], timeout=3600)

    async def within():
        async with asyncio.timeout(3600):
            await asyncio.get_running_loop().create_future()

    await asyncio.gather(
        first(), any_of(), within(), asyncio.wait_for(sleeps(), None), asyncio.wait_for(sleeps(), 3600)
    )


async def group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(sleeps())
        group.create_task(waits_for_ever())


async def waits_for_ever() -> None:
    await asyncio.Future()


async def answers_requests() -> None:
    """A client that keeps what it waits for in a table, by number, as many do; answered by another task."""
    pending: dict[int, asyncio.Future] = {}

    async def ask(number):
        pending[number] = future = asyncio.get_running_loop().create_future()
        try:
            return await future
        finally:
            del pending[number]

    async def answer():
        while True:
            await asyncio.sleep(0.3)
            for number in list(pending)[:5]:
                if not pending[number].done():
                    pending[number].set_result(number)

    answering = asyncio.create_task(answer())
    try:
        while True:
            await asyncio.gather(*(ask(i) for i in range(10)))
    finally:
        answering.cancel()


async def in_threads() -> None:
    over = threading.Event()
    loop = asyncio.get_running_loop()
    try:
        await asyncio.gather(asyncio.to_thread(over.wait, 60), loop.run_in_executor(None, over.wait, 60))
    finally:
        over.set()


async def from_a_thread() -> None:
    """A future that another thread, and nobody in this one, will set."""
    future = asyncio.get_running_loop().create_future()
    over = threading.Event()
    loop = asyncio.get_running_loop()

    def set_later(future):
        over.wait(60)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: future.done() or future.set_result(1))

    thread = threading.Thread(target=set_later, args=(future,))
    thread.start()
    try:
        await future
    finally:
        over.set()
        thread.join()


async def subprocess() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(3600)", stdout=asyncio.subprocess.PIPE
    )
    try:
        await asyncio.gather(child.wait(), child.stdout.read())
    finally:
        child.kill()
        await child.wait()


async def iterates() -> None:
    async def numbers():
        while True:
            await asyncio.sleep(3600)
            yield 1

    async with contextlib.aclosing(numbers()) as iterator:
        async for _ in iterator:
            pass


async def comes_and_goes() -> None:
    """Short tasks, up to two hundred at once."""

    async def short():
        await asyncio.sleep(0.05)

    while True:
        await asyncio.gather(*(short() for _ in range(200)))


PROGRAMS = [
    sleeps, ticks, idle_server, drains, serves_for_ever, reads_a_socket, consumes, consumes_by_priority, joins, locks,
    other_locks, gathers, waits_in_every_way, group, waits_for_ever, answers_requests, in_threads, from_a_thread,
    subprocess, iterates, comes_and_goes,
]  # fmt: skip


ASK_FOR_THEIR_TASK = (waits_in_every_way, group)
"""From Python 3.14 on asyncio does not tell Python's tasks of themselves where it has those in C."""


def python_task(loop, coro, **kwargs):
    return tasks._PyTask(coro, loop=loop, **kwargs)


FACTORIES = {"C tasks": None, "Python tasks": python_task}
if sys.version_info >= (3, 12):
    FACTORIES["eager tasks"] = asyncio.eager_task_factory


@pytest.mark.parametrize("tasks_are", FACTORIES)
def test_nothing_is_told_of_a_healthy_program(quick, told, tasks_are, caplog):
    """All of them at once on one loop, each held by a task, looked at all the time; collections in between."""
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(FACTORIES[tasks_are])
        left_out = ASK_FOR_THEIR_TASK if tasks_are == "Python tasks" and sys.version_info >= (3, 14) else ()
        running = [loop.create_task(p(), name=p.__name__) for p in PROGRAMS if p not in left_out]
        end = loop.time() + SECONDS
        while loop.time() < end:
            await asyncio.sleep(0.1)
            gc.collect(0)
            seen.append(len(runner._lints.never_woken._suspects))
        assert [task.get_name() for task in running if task.done()] == []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        loop.set_task_factory(None)

    obsloop.run(main(), settings=obsloop.Settings(name="healthy", **LIMITS))
    assert told.lints == []
    assert max(seen) == 0  # not only not told: never even suspected
    assert set(obsloop.snapshots()["healthy"]["asyncio.task.lint"].values()) == {0}
    assert [r.getMessage() for r in caplog.records if r.name == "obsloop" and "lint" in r.getMessage()] == []

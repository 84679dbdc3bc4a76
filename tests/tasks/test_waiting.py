"""The profile of waiting: where live tasks wait, weighted by time."""

import asyncio
import time

import pytest

import obsloop
from obsloop.profile.data import total_ns
from obsloop.tasks import census, waiting

GO_ON = waiting.go_on


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch):
    """Each test begins and ends as a new process does. A service that an earlier test has started reads nothing."""
    monkeypatch.setattr(waiting, "go_on", lambda: None)
    for forget in (waiting.forked, census.forked):
        forget()
    yield
    for forget in (waiting.forked, census.forked):
        forget()


async def query(event):
    await event.wait()  # in the standard library from here on


async def handler(event):
    await query(event)


async def other(event):
    await asyncio.wait_for(event.wait(), 600)


def read(times):
    """Read as the service's thread does, a little later each time. Return the seconds between first and last."""
    first = last = 0.0
    for i in range(times + 1):
        census.take_census()
        waiting._state.next_at = 0.0
        GO_ON()
        last = waiting._state.read_at or 0.0
        first = last if i == 0 else first
        time.sleep(0.05)
    return last - first


def test_a_task_adds_the_time_that_it_waits():
    """Three tasks wait in one line and one in another: the stacks end at the program's own line."""

    async def main():
        event = asyncio.Event()
        tasks = [asyncio.create_task(handler(event), name=f"order-{i}") for i in range(3)]
        tasks.append(asyncio.create_task(other(event)))
        await asyncio.sleep(0.05)
        seconds = await asyncio.to_thread(read, 3)
        event.set()
        await asyncio.gather(*tasks)
        return seconds

    seconds = obsloop.run(main(), settings=obsloop.Settings(name="shop"))
    found = waiting.profile(3_600)
    sums = {}
    for sample in found["samples"]:
        sums[";".join(str(found["frames"][i][0]).partition(".")[2] for i in sample["stack"])] = sample
    # Not more exact: the service of an earlier test may read, too, just before and after.
    assert sums["handler;query"]["ns"] == pytest.approx(3 * seconds * 1e9, rel=0.1)
    assert sums["handler;query"]["labels"] == {"loop": "shop", "task": "order-N", "waits_for": "Future"}
    assert sums["other"]["ns"] == pytest.approx(seconds * 1e9, rel=0.1)
    assert all(own for *_, own in found["frames"] if "handler" in _[0] or "query" in _[0])


def test_a_few_tasks_stand_for_all(monkeypatch):
    """However many tasks there are, so many are read, and the sum is that of all."""
    read_of = []
    stack_of = waiting._stack_of

    def counted(*args):
        read_of.append(args[0])
        return stack_of(*args)

    monkeypatch.setattr(waiting, "_stack_of", counted)

    async def main():
        event = asyncio.Event()
        tasks = [asyncio.create_task(handler(event)) for _ in range(1_000)]
        await asyncio.sleep(0.05)
        seconds = await asyncio.to_thread(read, 2)
        event.set()
        await asyncio.gather(*tasks)
        return seconds

    seconds = obsloop.run(main())
    assert len(read_of) <= 2 * waiting.MAX_READ
    assert total_ns(waiting.profile(3_600)) == pytest.approx(1_000 * seconds * 1e9, rel=0.1)


def test_the_pause_follows_the_cost():
    """After a reading that cost much, the next one comes later."""
    GO_ON()
    waiting._state.next_at = 0.0
    began, cpu = time.monotonic(), time.thread_time()

    def expensive(*_):
        while time.thread_time() < cpu + 0.05:
            pass

    read, waiting._read = waiting._read, expensive
    try:
        GO_ON()
    finally:
        waiting._read = read
    assert waiting._state.next_at - began >= waiting.PAUSE_TIMES * 0.04

"""`measure_tasks` over nested blocks and inner tasks: each amount that is put in is found where it belongs, once."""

import asyncio

import pytest

import obsloop


def test_a_block_within_a_block(stepped):
    """The outer one has what the inner one has, and its own before and after; the inner one has only its own."""
    clock, loop = stepped

    async def main():
        with obsloop.measure_tasks() as outer:
            clock.advance(1)
            with obsloop.measure_tasks() as inner:
                clock.advance(2)
                await asyncio.sleep(10)
                clock.advance(4)
            clock.advance(8)
            await asyncio.sleep(20)
        clock.advance(16)
        return outer.times(), inner.times()

    outer, inner = loop.run_until_complete(main())
    assert outer == (15, 0, 30, 3)
    assert inner == (6, 0, 10, 2)


def test_inner_tasks_of_inner_tasks(stepped):
    """They count in every block around them; who was there before, and a neighbour, in none."""
    clock, loop = stepped

    async def work(seconds, *, deeper=0):
        clock.advance(seconds)
        if deeper:
            await asyncio.create_task(work(seconds * 2, deeper=deeper - 1))

    async def main():
        before = asyncio.create_task(work(1000))
        with obsloop.measure_tasks() as outer:
            await asyncio.create_task(work(1, deeper=2))  # 1 + 2 + 4
            with obsloop.measure_tasks() as inner:
                await asyncio.create_task(work(8, deeper=1))  # 8 + 16
            await asyncio.create_task(work(32))
        await before
        return outer.times(), inner.times()

    outer, inner = loop.run_until_complete(main())
    assert (outer.running, inner.running) == (7 + 24 + 32, 24)
    # The first of the inner tasks was behind the neighbour: 1000 s that it waited for the loop.
    assert (outer.waiting, inner.waiting) == (1000, 0)


def test_a_task_that_outlives_the_block(stepped):
    """Counted while the block is open, and no more; later it has blocks of its own."""
    clock, loop = stepped

    async def long_lived():
        clock.advance(1)
        await asyncio.sleep(10)
        clock.advance(2)
        with obsloop.measure_tasks() as own:
            clock.advance(4)
        return own.times().running

    async def main():
        with obsloop.measure_tasks() as block:
            task = asyncio.create_task(long_lived())
            await asyncio.sleep(5)
        at_the_end = block.times()
        assert await task == 4
        assert block.times() == at_the_end
        return at_the_end

    assert loop.run_until_complete(main()).running == 1


def test_an_inner_task_asks(stepped):
    """What its present step has run and waited so far is in the answer, and is not taken from what is suspended."""
    clock, loop = stepped

    async def main():
        with obsloop.measure_tasks() as block:

            async def inner():
                clock.advance(3)
                return block.times()

            task = asyncio.create_task(inner())
            clock.advance(1)
            return await task, block.times()

    asked, after = loop.run_until_complete(main())
    assert (asked.running, asked.waiting, asked.suspended) == (4, 1, 3)
    assert (after.running, after.waiting, after.suspended) == (4, 1, 3)


def test_a_neighbour_asks(stepped):
    """Whoever has the block in hand may look; the neighbour's own step is not in it."""
    clock, loop = stepped
    blocks = []

    async def neighbour():
        clock.advance(5)
        return blocks[0].times()

    async def main():
        task = asyncio.create_task(neighbour())
        with obsloop.measure_tasks() as block:
            blocks.append(block)
            clock.advance(1)
            await asyncio.sleep(100)
        return task.result()

    assert loop.run_until_complete(main()).running == 1


@pytest.mark.parametrize("ask", [obsloop.task_times, lambda: obsloop.measure_tasks().__enter__()])
def test_outside_of_a_task(stepped, ask):
    """A callback has no times of its own: the error says where to call it."""
    _, loop = stepped
    raised = []

    def callback():
        with pytest.raises(RuntimeError, match="outside of a task") as error:
            ask()
        raised.append(error)
        loop.stop()

    loop.call_soon(callback)
    loop.run_forever()
    assert raised

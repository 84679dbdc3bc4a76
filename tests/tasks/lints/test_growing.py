"""Tasks that become more and more: known numbers are put in, look by look, and found again."""

import asyncio
import random
import re
import sys

import pytest

import obsloop
from obsloop.hotpath import creation_samples
from obsloop.tasks.lints import scan

SETTINGS = {"growing_after": 50.0, "growing_by": 100}  # windows of ten seconds


async def wait() -> None:
    await asyncio.Event().wait()


async def other() -> None:
    await asyncio.Event().wait()


def found():
    return obsloop.snapshots()["looked at"].value("asyncio.task.lint", "growing")


class Crowd:
    """Tasks of one coroutine, as many as the test wants."""

    def __init__(self, function=wait) -> None:
        self.function = function
        self.tasks = []

    async def be(self, n) -> None:
        gone = [self.tasks.pop(random.randrange(len(self.tasks))) for _ in range(len(self.tasks) - n)]
        for task in gone:
            task.cancel()
        self.tasks += [asyncio.create_task(self.function()) for _ in range(n - len(self.tasks))]
        await asyncio.gather(*gone, return_exceptions=True)
        await asyncio.sleep(0)


def grow(looked_at, numbers, each=1, **settings):
    """One look every ten seconds, at so many live tasks."""
    per_look = []

    async def main(looking):
        crowd = Crowd()
        for n in numbers:
            await crowd.be(n)
            for _ in range(each):
                await looking.look(10.0 / each)
            per_look.append(found())
        await crowd.be(0)

    looked_at(main, **SETTINGS | settings)
    return per_look


def test_growth_is_told_when_it_has_gone_on_for_long_enough(looked_at, told):
    """50 more every ten seconds, from 40 on. The sixth window after the first is the one: 40 have become 290."""
    counts = grow(looked_at, range(40, 500, 50))
    assert counts.index(1) == 6  # a window's number is known when the next one begins
    (event,) = told.lints
    assert (event.lint, event.name) == ("growing", f"{__name__}.wait")
    assert (event.filename, event.lineno) == (__file__, wait.__code__.co_firstlineno)
    assert event.count == 290
    assert event.message == "290 live tasks of this coroutine, up from 40: their number has been growing for 60 s"
    assert event.duration == pytest.approx(60)


def test_it_is_told_again_when_it_has_doubled_and_is_over_when_half_is_gone(looked_at, told):
    """Told at 290; at 580 or just above; not on the way down; and again, a minute later, when it grows once more."""
    up = list(range(40, 700, 50))
    grow(looked_at, [*up, 100, 50, *range(40, 500, 50)])
    first, second, *rest = [event.count for event in told.lints]
    assert first == 290
    assert 580 <= second <= 630
    assert rest == []  # within a minute of real time: the third is not news, though it is a growth of its own
    assert found() == 2


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ([1000] * 12, "as many all the time"),
        ([0, 0, *[1000] * 12], "a load that came on at once"),
        (range(10, 80, 5), "fewer than a hundred more"),
        (range(500, 900, 25), "less than twice as many"),
        ([40, 100, 200, 300, 200, 300, 400, 500, 200, 400, 600], "up and down"),
        ([*range(900, 0, -90)], "fewer and fewer"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_comes_to_an_end_or_is_little_is_healthy(looked_at, told, numbers, why):
    """None of these is told of."""
    grow(looked_at, numbers)
    assert told.lints == [], why


def test_short_lived_tasks_of_the_same_coroutine_hide_nothing(looked_at, told):
    """The floor grows by 50 in each window, above it 0 to 300 come and go at random: told all the same."""
    rng = random.Random(5)

    async def main(looking):
        crowd = Crowd()
        for floor in range(40, 600, 50):
            for above in (rng.randrange(300), 0, rng.randrange(300)):
                await crowd.be(floor + above)
                await looking.look(10.0 / 3)
        await crowd.be(0)

    looked_at(main, **SETTINGS)
    assert [event.name for event in told.lints] == [f"{__name__}.wait"]


def test_the_line_that_creates_them_is_named_by_samples(looked_at, told):
    """One creation in 64 is sampled by ``create_task``: the coroutine's growth names the line."""

    def spawn(function):
        return asyncio.create_task(function())

    async def main(looking):
        tasks = []
        for _ in range(9):
            tasks += [spawn(wait) for _ in range(128)]
            await asyncio.sleep(0)
            await looking.look(10.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    looked_at(main, **SETTINGS)
    (event,) = told.lints
    line = spawn.__code__.co_firstlineno + 1
    assert event.detail.startswith(f"created at {__file__}:{line} in {__name__}.{spawn.__qualname__} (")
    samples, of_all = map(int, re.findall(r"\((\d+) of (\d+) samples\)", event.detail)[0])
    # Of the look, which is one window later than the number that it tells; other tasks are counted, too.
    assert samples == of_all
    assert samples == pytest.approx(event.count // 64 + 2, abs=1)


def test_a_line_that_makes_tasks_of_many_coroutines_is_found_by_samples(looked_at, told):
    """Forty coroutines, none of which has a hundred tasks more; together they are thousands, all from one line."""
    space: dict[str, object] = {"asyncio": asyncio}
    for i in range(40):
        exec(f"async def job_{i}(): await asyncio.Event().wait()\n", space)
    jobs = [space[f"job_{i}"] for i in range(40)]

    async def main(looking):
        tasks = []
        for _ in range(9):
            for n in range(10 * 40):
                tasks.append(asyncio.create_task(jobs[n % 40]()))
            await asyncio.sleep(0)
            await looking.look(10.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    looked_at(main, **SETTINGS)
    (event,) = told.lints
    assert (event.lint, event.filename) == ("growing", __file__)
    assert event.name.endswith("main")
    assert 0.8 <= event.count / 2800 <= 1.1  # an estimate, of 2,800
    assert event.detail.endswith("coroutines")


def test_of_very_many_tasks_a_known_share_is_looked_at(looked_at, told, monkeypatch):
    """Ten times as many as a look takes: each stands for others, the growth is found, the numbers are estimates."""
    monkeypatch.setattr(scan, "MAX_LOOKED", 400)

    async def main(looking):
        crowd, steady = Crowd(), Crowd(other)
        await steady.be(1000)
        for n in range(500, 5000, 500):
            await crowd.be(n)
            await looking.look(10.0)
        await crowd.be(0)
        await steady.be(0)

    looked_at(main, **SETTINGS | {"growing_by": 50})
    (event,) = told.lints
    assert event.name == f"{__name__}.wait"
    assert event.count == pytest.approx(3000, rel=0.3)


def test_samples_are_bounded_and_forgotten_with_their_tasks(looked_at):
    """A thousand are kept, more are counted as dropped; none keeps its task alive."""

    async def main(looking):
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(wait()) for _ in range(1010)]
        for task in tasks:
            creation_samples.sample(loop, task)
        assert len(creation_samples.living()) == creation_samples.MAX_SAMPLED
        # Of these, and of those that ``create_task`` sampled before.
        assert obsloop.process_snapshot().value("obsloop.dropped", "task_creation") in (10 + 15, 10 + 16)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks.clear()
        task = None
        await asyncio.sleep(0)
        return len(creation_samples._sampled)

    assert looked_at(main) < 10  # a few may be held by an exception's traceback


WIRED = """
def create_task(self, coro, **kwargs):
    task = base.create_task(self, coro, **kwargs)
    _created.sample(self, task)
    return task
"""
"""How the loop's own method calls it, for every task here: in a frame of ours."""


def test_a_sample_is_the_programs_own_line(looked_at, monkeypatch):
    """Not asyncio's or ours, when the task is made by ``ensure_future`` or a task group; asyncio's where the loop calls
    asyncio's own code and no program is on the stack.
    """
    space = {"__name__": "obsloop.loop.loop", "_created": creation_samples, "base": asyncio.SelectorEventLoop}
    exec(WIRED, space)
    made = []

    async def nothing():
        made.append(asyncio.current_task())

    async def serve(reader, writer):
        made.append(asyncio.current_task())
        writer.close()

    async def main(looking):
        monkeypatch.setattr(obsloop.Loop, "create_task", space["create_task"])
        line = sys._getframe().f_lineno
        made.append(asyncio.ensure_future(nothing()))
        async with asyncio.TaskGroup() as group:
            made.append(group.create_task(nothing()))
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        while len(made) < 5:
            await asyncio.sleep(0.01)
        server.close()
        places = dict(creation_samples.living())
        ours = [places[task] for task in made[:2]]
        assert [place.lineno - line for place in ours] == [1, 3]
        assert {place.filename for place in ours} == {__file__}
        assert {place.function for place in ours} == {f"{__name__}.{main.__qualname__}"}
        assert places[made[4]].function == "asyncio.streams.StreamReaderProtocol.connection_made"

    looked_at(main)

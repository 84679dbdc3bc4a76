"""The application, driven by keys as Textual's pilot presses them, at 80 columns and 24 lines."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from obsloop.top.app import VIEWS, Top
from obsloop.top.lines import Lines, RowList
from obsloop.top.local import Local
from obsloop.top.source import Reading, SourceError
from obsloop.top.target import Target
from tests.blocking.support import until

SECONDS = 60


@asynccontextmanager
async def running(source):
    """The application, with its first reading."""
    app = Top(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(pilot, "process")
        yield pilot


def screen(pilot):
    """The lines on the screen."""
    width, height = pilot.app.size
    strips = pilot.app.screen._compositor.render_strips()
    lines = ["".join(segment.text for segment in strip) for strip in strips]
    assert len(lines) == height
    assert all(len(line) == width for line in lines)
    return lines


async def shows(pilot, words):
    """Wait until these words are on the screen."""
    end = time.monotonic() + SECONDS
    while not any(words in line for line in screen(pilot)):
        assert time.monotonic() < end, "\n".join(screen(pilot))
        await pilot.pause(0.05)


async def shows_no_more(pilot, words):
    """Wait until these words are not on the screen."""
    end = time.monotonic() + SECONDS
    while any(words in line for line in screen(pilot)):
        assert time.monotonic() < end, "\n".join(screen(pilot))
        await pilot.pause(0.05)


def test_the_blocked_worker_and_its_stack_are_seen(workers):
    """While it is blocked, its row has a mark and its stack stands below, whichever row is chosen."""
    workers.workers[0].do("block", 0.3)

    async def main():
        async with running(Local(Target())) as pilot:
            await shows(pilot, str(workers.workers[1].process.pid))
            await shows(pilot, "__main__.block")
            workers.workers[1].send("block", 30.0)
            await shows(pilot, "BLOCKED NOW for")
            (row,) = [line for line in screen(pilot) if "NOW" in line and str(workers.workers[1].process.pid) in line]
            assert row.startswith("!")
            await shows(pilot, "1 BLOCKED NOW")
            assert any("in __main__.block" in line for line in screen(pilot))

    asyncio.run(main())


def test_every_view_fits_and_every_key_does_what_the_last_line_says(workers):
    """The views by number and by tab, sorting, the tree of tasks, filter, pause, details, help and the end."""
    workers.workers[0].do("block", 0.3)

    async def main():
        async with running(Local(Target())) as pilot:
            for i, name in enumerate(VIEWS):
                await pilot.press(str(i + 1))
                await shows(pilot, f"[{i + 1} {name}]")
                assert "q quit" in screen(pilot)[-1]
            await pilot.press("tab")
            await shows(pilot, "[1 Overview]")
            await pilot.press("s")
            await shows(pilot, "by blocked")
            await pilot.press("2")
            await shows(pilot, "__main__.block")
            await pilot.press("slash", *"zzz", "enter")
            await shows(pilot, "No row has 'zzz'")
            await pilot.press("escape")
            await shows(pilot, "__main__.block")
            await pilot.press("slash", *"block", "enter")
            await shows(pilot, "with 'block'")
            assert any("__main__.block" in line for line in screen(pilot))
            await pilot.press("t")
            await shows(pilot, "__main__.main")
            await pilot.press("t")
            await shows(pilot, "TASK, AND BELOW IT")
            await shows(pilot, "Task-1")
            await pilot.press("down", "end", "home")
            await pilot.press("enter")
            assert not pilot.app.query_one(RowList).display
            assert pilot.app.query_one("#detail", Lines).size.height > 15
            await pilot.press("escape")
            assert pilot.app.query_one(RowList).display
            await pilot.press("space")
            await shows(pilot, "PAUSED")
            await pilot.press("space")
            await shows_no_more(pilot, "PAUSED")
            await pilot.press("question_mark")
            await shows(pilot, "Any key goes back")
            await pilot.press("x", "x")
            await shows(pilot, "TASK, AND BELOW IT")
            await pilot.press("q")
            assert not pilot.app.is_running

    asyncio.run(main())


def test_a_source_that_fails_is_a_line_at_the_top():
    """The keys go on to work, and it is asked again."""

    class Failing:
        title = "nowhere"
        asked = 0

        def read(self, *, tasks=False):
            self.asked += 1
            if self.asked == 3:
                return Reading([], 1.0)
            raise SourceError("nowhere does not answer") if self.asked < 3 else ValueError("\x1b[2J")

    source = Failing()

    async def main():
        app = Top(source)
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, "! nowhere does not answer")
            await shows(pilot, "! the answers cannot be read: ValueError('")
            await pilot.press("2")
            await shows(pilot, "[2 Culprits]")

    asyncio.run(main())
    assert source.asked > 3


def test_the_thread_that_reads_ends_with_the_application(workers):
    """Also if the application ends in the middle of a reading."""
    import threading

    async def main():
        async with running(Local(Target())) as pilot:
            await pilot.press("q")

    asyncio.run(main())
    until(lambda: all(thread.name != "readings" for thread in threading.enumerate()), SECONDS)


@pytest.mark.parametrize("size", [(20, 5), (200, 60)])
def test_any_size_will_do(workers, size):
    """A tiny terminal shows what fits, a large one uses its room."""

    async def main():
        async with Top(Local(Target())).run_test(size=size) as pilot:
            await shows(pilot, "obsloop top")
            for key in "12345t":
                await pilot.press(key)
                await pilot.pause(0.2)
            screen(pilot)

    asyncio.run(main())

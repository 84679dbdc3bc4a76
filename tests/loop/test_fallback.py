"""An interpreter whose asyncio we do not know: timed by public methods, said once, and nothing breaks.

It is faked by a copy of this interpreter's own asyncio, in which private parts have other names.
"""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tests.support import output, program

RENAMED = ("_ready", "_scheduled", "_timer_cancelled_count", "_clock_resolution", "_stopping", "_selector")


@pytest.fixture(scope="module")
def unknown(tmp_path_factory) -> str:
    """A folder with an asyncio whose loop has other private names; to be put first on the path."""
    folder = tmp_path_factory.mktemp("unknown")
    package = folder / "asyncio"
    shutil.copytree(Path(asyncio.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in package.glob("*.py"):
        text = file.read_text()
        for name in RENAMED:
            text = re.sub(rf"\b{name}\b", f"{name}_renamed", text)
        file.write_text(text)
    return str(folder)


def run(source: str, path: str) -> tuple[list[str], list[str]]:
    """What the program prints and says, on the unknown interpreter."""
    done = program(source, "-W", "error", path=[path])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_it_says_so_once_and_works(unknown):
    """One line on stderr that names what is not as known; a program runs, and its callbacks are timed."""
    out, err = run(
        """
        import asyncio, time
        import obsloop

        async def main():
            loop = asyncio.get_running_loop()
            loop.call_soon(time.sleep, 0.02)
            loop.call_later(0.01, time.sleep, 0.02)
            loop.call_soon_threadsafe(time.sleep, 0.02)
            await asyncio.sleep(0.05)
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            async with server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                print(await reader.read())
                writer.close()
                await writer.wait_closed()
            return await asyncio.to_thread(str, "done")

        for _ in range(3):
            print(obsloop.run(main()))
        snapshot = obsloop.snapshots()["main"]
        durations = snapshot["asyncio.eventloop.callback.duration"]
        print([durations[kind,].sum >= 0.06 for kind in ("callback", "timer", "threadsafe")])
        print(durations["task_step",].count > 0, snapshot.running)
        """,
        unknown,
    )
    assert out == ["b''", "done"] * 3 + ["[True, True, True]", "True False"]
    assert len(err) == 1
    assert "this interpreter's asyncio is not known to this version of obsloop" in err[0]
    assert "_ready" in err[0] or "_clock_resolution" in err[0]


def test_the_books_balance_there_too(unknown):
    """The states sum to the time that the loop ran, between what was measured inside and outside."""
    out, _ = run(
        """
        import asyncio, time
        import obsloop

        async def main():
            began = time.monotonic()
            await asyncio.sleep(0.05)
            time.sleep(0.05)
            return time.monotonic() - began

        loop = obsloop.Loop()
        inside = outside = 0
        for _ in range(3):
            began = time.monotonic()
            inside += loop.run_until_complete(main())
            outside += time.monotonic() - began
            time.sleep(0.1)
        loop.close()
        snapshot = obsloop.snapshots()["main"]
        print(inside - 1e-6 <= snapshot.run_time <= outside + 1e-6)
        states = {state: value for (state,), value in snapshot["asyncio.eventloop.time"].items()}
        print(states["idle"] > 0.1, states["callback"] >= 0.15)
        """,
        unknown,
    )
    assert out == ["True", "True True"]


def test_running_it_twice_at_once_is_refused_and_leaves_the_books_alone(unknown):
    """`run_forever` within a callback raises, as on the stock loop, and the run that is going on stays one run."""
    out, _ = run(
        """
        import time
        import obsloop

        loop = obsloop.Loop()

        def again():
            time.sleep(0.05)
            try:
                loop.run_forever()
            except RuntimeError as exc:
                print(exc)

        loop.call_soon(again)
        loop.call_soon(loop.stop)
        began = time.monotonic()
        loop.run_forever()
        took = time.monotonic() - began
        loop.close()
        print(0.05 <= obsloop.snapshots()["main"].run_time <= took + 1e-6)
        """,
        unknown,
    )
    assert out == ["This event loop is already running", "True"]


def test_a_snapshot_of_a_living_loop_works_there(unknown):
    """What is not known of the loop, its heap of timers, is told as none; all else is as ever."""
    out, _ = run(
        """
        import obsloop
        loop = obsloop.Loop()
        loop.call_later(100, str)
        loop.call_soon(loop.stop)
        loop.run_forever()
        snapshot = loop.snapshot()
        loop.close()
        print(snapshot.histogram("asyncio.eventloop.callback.duration", "callback").count)
        """,
        unknown,
    )
    assert out == ["1"]


def test_instrument_says_that_it_cannot(unknown):
    """A loop that exists already cannot be observed there: the error says so, and what to do."""
    out, _ = run(
        """
        import asyncio
        import obsloop

        async def main():
            try:
                obsloop.instrument()
            except obsloop.InstrumentError as exc:
                print(exc)
            print(isinstance(asyncio.get_running_loop(), obsloop.Loop))

        asyncio.run(main())
        """,
        unknown,
    )
    assert out[0].startswith(
        "on this interpreter a loop that already exists cannot be observed: start the program with"
    )
    assert out[1] == "False"


@pytest.mark.parametrize(
    "change",
    [
        "cls = base_events.BaseEventLoop; old = cls._run_once; cls._run_once = lambda self: old(self)",
        "del base_events.MAXIMUM_SELECT_TIMEOUT; base_events.BaseEventLoop._run_once = lambda self: None",
        "del selector_events.BaseSelectorEventLoop._add_reader",
        "del tasks._PyTask",
        "del format_helpers._format_callback_source",
        "del base_events._MIN_SCHEDULED_TIMER_HANDLES",
    ],
    ids=lambda text: text.partition(" ")[2].partition(";")[0],
)
def test_whatever_is_missing_importing_does_not_fail(change):
    """Each private part that the hot path leans on may go: obsloop is imported, says so, and has its names."""
    done = program(f"""
        from asyncio import base_events, format_helpers, selector_events, tasks
        {change}
        import obsloop
        print(obsloop.Loop.__module__)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "obsloop.loop.fallback\n"
    assert len(done.stderr.splitlines()) == 1
    assert "not known to this version of obsloop" in done.stderr


def test_this_interpreter_is_known():
    """No fallback and no word where nothing is changed."""
    assert output("import obsloop; print(obsloop.Loop.__module__)") == "obsloop.loop.loop\n"

"""Which core is there and which is chosen; the facts of the compiled one; and all tests of this folder on the other."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import obsloop
from obsloop.testing import StepClock
from tests.support import DELAY, DURATION, assert_holds, run_briefly

from .support import BUILT, ON_THE_OTHER, other_process

FILES = sorted(map(str, Path(__file__).parent.glob("test_*.py")))
SHARES = 4  # a process for each file would start pytest so often that this took most of the time


@pytest.mark.other_core
@pytest.mark.parametrize("share", range(SHARES))
def test_every_test_of_this_folder_passes_on_the_other_core(share):
    """In other processes, with OBSLOOP_PURE the other way round."""
    env = os.environ | {ON_THE_OTHER: "1"}
    if obsloop.core == "compiled":
        env["OBSLOOP_PURE"] = "1"
    else:
        env.pop("OBSLOOP_PURE", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES[share::SHARES]],
        cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.parametrize("pure", ["", "1"])
def test_the_environment_chooses_the_core(pure):
    """Compiled where it was built, unless OBSLOOP_PURE is set and not empty."""
    expected = "compiled" if BUILT and not pure else "pure"
    source = "import obsloop; print(obsloop.core)"
    assert other_process(source, OBSLOOP_PURE=pure) == expected
    version = [sys.executable, "-m", "obsloop", "--version"]
    env = os.environ | {"OBSLOOP_PURE": pure, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run(version, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    assert obsloop.__version__ in printed
    assert expected in printed


def test_a_compiled_core_that_is_not_there_is_done_without():
    """A pure wheel, or a compiled one for another interpreter: the pure core, without an error."""
    source = """
    import sys
    sys.modules["obsloop.hotpath.compiled.core"] = None
    import obsloop
    loop = obsloop.Loop()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    print(obsloop.core)
    """
    assert other_process(source) == "pure"


@pytest.mark.compiled_only
def test_the_methods_are_the_compiled_ones():
    """No frame of Python for what is called per handle."""
    for name in ("call_soon", "call_soon_threadsafe", "call_later", "call_at", "_run_once", "_add_reader"):
        method = getattr(obsloop.Loop, name)
        assert not hasattr(method, "__code__") or "hotpath/compiled/" in method.__code__.co_filename
    assert type(obsloop.Loop.call_soon).__name__ == "cython_function_or_method"


@pytest.mark.compiled_only
def test_what_the_collector_does_not_see_it_sees_again():
    """Queued while the loop runs: hidden. Afterwards, and when the loop stops: shown."""
    import gc

    loop = obsloop.Loop()
    told = []

    def make() -> None:
        kept.append(loop.call_soon(look))
        told.append(gc.is_tracked(kept[0]))

    def look() -> None:
        told.append(gc.is_tracked(kept[0]))
        kept.append(loop.call_soon(str))
        loop.stop()

    kept: list = []
    loop.call_soon(make)
    loop.run_forever()
    assert told == [False, False]
    assert [gc.is_tracked(handle) for handle in kept] == [True, True]
    run_briefly(loop)
    loop.close()


def test_a_loop_at_the_address_of_a_loop_that_is_gone():
    """Thousands are made, used and closed or dropped; none is taken for its predecessor."""
    source = """
    import gc, obsloop, sys, warnings
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda _: None     # the collector may take a dropped loop's sockets before the loop
    seen, again = set(), 0
    kept = None
    for i in range(3000):
        loop = obsloop.Loop()
        again += id(loop) in seen
        seen.add(id(loop))
        assert not loop.get_debug() and not loop._ready and not loop._scheduled and not loop.is_closed()
        ran = []
        loop.call_soon(ran.append, i)
        loop.call_later(60, print).cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert ran == [i] and loop._timer_cancelled_count == 0
        loop.set_debug(i % 2)
        if i % 10:
            loop.close()
        elif i % 20:
            kept = vars(loop).copy()   # its state outlives the loop
        del loop
        if i % 50 == 0:
            gc.collect()
    print(again > 0)
    """
    assert other_process(source) == "True"


def test_two_loops_in_turn_and_in_threads():
    """The one that was asked for last is remembered; the other must not be mistaken for it."""
    source = """
    import obsloop, threading
    a, b = obsloop.Loop(), obsloop.Loop()
    a.set_debug(True)
    for _ in range(100):
        assert a.get_debug() and not b.get_debug()
        for loop in (a, b):
            told = []
            (b if loop is a else a).call_soon(told.append, "other's")
            loop.call_soon(loop.stop)
            loop.run_forever()
            assert not told
            loop._ready.clear()
        [x.call_soon(x.stop) or x.run_forever() for x in (a, b)]
    def work(n, total=[0, 0]):
        loop = obsloop.Loop()
        def again(left):
            total[n] += 1
            loop.call_soon(again, left - 1) if left else loop.stop()
        loop.call_soon(again, 20000)
        loop.run_forever()
        loop.close()
        assert total[n] == 20001
        print("done", end=" ")
    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 1)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    a.close(); b.close()
    """
    assert other_process(source) == "done done"


def test_a_stepped_clock_is_exact(clean_metrics):
    """What was put in is found again, to the nanosecond: an hour's timer, a callback of 250 ms, its delay."""
    with StepClock() as clock:
        loop = obsloop.Loop(clock.selector())
        loop.call_soon(clock.advance, 0.25)
        loop.call_soon(str)
        loop.call_later(3600, loop.stop)
        loop.run_forever()
        assert clock.time() == 4600
        snapshot = loop.snapshot()
        assert_holds(snapshot.histogram(DURATION, "callback"), [0.25, 0])
        assert_holds(snapshot.histogram(DELAY, "callback"), [0, 0.25])
        assert_holds(snapshot.histogram(DELAY, "timer"), [0])
        loop.close()


def test_tasks_and_futures_are_asyncios_own():
    """With their names, contexts and factories."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert type(loop.create_future()) is asyncio.Future
        task = loop.create_task(asyncio.sleep(0), name="mine")
        assert type(task) is asyncio.Task
        assert task.get_name() == "mine"
        await task
        made: list[asyncio.Task] = []

        def factory(loop, coro, **kwargs) -> asyncio.Task:
            made.append(asyncio.Task(coro, loop=loop, **kwargs))
            return made[-1]

        loop.set_task_factory(factory)
        task = loop.create_task(asyncio.sleep(0))
        assert made == [task]
        await task
        loop.set_task_factory(None)
        with pytest.raises(TypeError):
            await loop.create_task(5)

    obsloop.run(main())

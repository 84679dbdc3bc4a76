"""Each cause caused for real: a loop is blocked in a known way, and the answer is what was done to it."""

import ctypes
import gc
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tests.support import output

from .support import BLOCK, assert_caused, compute

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell it apart")

HOLDING = ctypes.PyDLL(None)
"""The C library, called without letting go of the GIL."""


def blind_alley() -> None:
    """A pattern that backtracks for a few tenths of a second, in C and with the GIL held all the time."""
    end = time.perf_counter() + BLOCK
    while time.perf_counter() < end:
        re.match(r"(a|aa)+$", "a" * 32 + "b")


def test_computing():
    """A Python function that uses the CPU."""
    assert_caused(lambda: compute(BLOCK), "cpu")


def test_a_pattern_that_backtracks():
    """It holds the GIL, so that nobody can look; it was this very thread that used the CPU."""
    assert_caused(blind_alley, "cpu")


def test_sleeping():
    """One long system call."""
    assert_caused(lambda: time.sleep(BLOCK), "syscall")


@LINUX
def test_many_short_calls():
    """A database driver that asks sixty times: each wait is as short as one for the GIL."""
    assert_caused(lambda: [time.sleep(0.005) for _ in range(60)], "syscall")


def test_collecting_garbage():
    """A collection of a large linked structure, and nothing else."""

    class Link:
        pass

    def chain(n: int) -> Link:
        first = previous = Link()
        for _ in range(n):
            link = Link()
            link.before, previous.after, previous = previous, link, link
        return first

    def collect() -> None:
        end = time.perf_counter() + BLOCK
        while time.perf_counter() < end:
            gc.collect()

    gc.disable()
    kept = [chain(200_000) for _ in range(3)]
    try:
        assert_caused(collect, "gc")
    finally:
        gc.enable()
        del kept
        gc.collect()


@LINUX
@pytest.mark.parametrize(
    "hold", [lambda: HOLDING.usleep(int(BLOCK * 1e6)), blind_alley], ids=["waiting in C", "computing in C"]
)
def test_another_thread_holds_the_gil(hold):
    """The loop's thread wants to go on computing and cannot; nobody sees it until it is over."""

    def blocked() -> None:
        go = threading.Event()
        thread = threading.Thread(target=lambda: (go.wait(10), hold()))
        thread.start()
        go.set()
        compute(0.03)
        time.sleep(0)
        thread.join()

    assert_caused(blocked, "gil")


@LINUX
def test_holding_the_gil_in_a_system_call():
    """The watchdog has to wait for the GIL, but not the loop's thread: it is the one that waits in a call."""
    assert_caused(lambda: HOLDING.usleep(int(BLOCK * 1e6)), "syscall")


STOPPED = """
    import asyncio, sys, time, obsloop
    from obsloop.events import LoopUnblocked
    from obsloop.testing import Recorder

    def compute(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    def until_stopped(function, *args):
        longest = 0
        while longest < 0.7:
            began = time.monotonic()
            function(*args)
            longest = time.monotonic() - began

    async def main():
        await asyncio.sleep(0.2)
        print("now", flush=True)
        {what}
        await asyncio.sleep(0.05)

    with Recorder() as events:
        obsloop.run(main())
        {then}
    print(*(event.cause for event in events.unblocked))
"""


@LINUX
@pytest.mark.parametrize(
    "what",
    ["until_stopped(compute, 0.005)", "until_stopped(time.sleep, 0.05)", "await asyncio.sleep(0.1)"],
    ids=["computing", "in a call", "idle"],
)
def test_a_stopped_process(what):
    """SIGSTOP and SIGCONT in the middle of a callback, which was stopped for most of its time: none of its own doing.

    While the loop is idle it is no block at all.
    """
    then = "time.sleep(0.1)" if "asyncio" in what else "events.wait_for(LoopUnblocked, 60)"
    source = f"import sys; sys.path[:] = {sys.path!r}\n" + textwrap.dedent(STOPPED.format(what=what, then=then))
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        began = time.monotonic()
        time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1 + 10 * (time.monotonic() - began))  # this process may have been late
        process.send_signal(signal.SIGCONT)
        causes = process.stdout.read().split()
    if "asyncio" in what:
        assert set(causes) <= {"off_cpu"}  # where the machine held it up before it was idle
    else:
        assert causes
        assert set(causes) == {"off_cpu"}


@LINUX
def test_starved_by_others():
    """60 ms of computing, on a CPU that three others of the same priority want as well: the machine's doing."""
    cpu = max(os.sched_getaffinity(0))
    pin = f"import os; os.sched_setaffinity(0, {{{cpu}}})"
    others = [subprocess.Popen([sys.executable, "-c", f"{pin}\nwhile True: pass"]) for _ in range(3)]
    try:
        found = output(
            pin
            + textwrap.dedent("""
            import asyncio, time, obsloop
            from obsloop.testing import Recorder

            def compute(seconds):
                end = time.thread_time() + seconds
                while time.thread_time() < end:
                    pass

            async def main():
                end = time.monotonic() + 60
                while len(events.unblocked) < 3 and time.monotonic() < end:  # the others may begin late
                    compute(0.06)
                    await asyncio.sleep(0.02)

            with Recorder() as events:
                # On a busy machine it lasts a second or more, and nothing is to be logged of that.
                settings = obsloop.Settings(unhealthy_after=600, log_blocked_after=600, never_yields_after=600)
                obsloop.run(main(), settings=settings)
            print(*(event.cause for event in events.unblocked if "main" in event.name))
            """)
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    causes = found.split()
    assert causes
    assert set(causes) == {"off_cpu"}

"""What threads used, measured from outside: known work is put in and found again, and no file is left open."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from obsloop.blocking import usage
from obsloop.metrics.counters import IN_CALLBACK, IN_IDLE, Counters

from .support import compute, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells this of a thread, from outside")


def open_files() -> int:
    """How many of the kernel's files about threads this process has open. Other threads may open files of their own."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # it is closed by now
            found += "/task/" in os.readlink(f"/proc/self/fd/{descriptor}")
    return found


def test_cpu_time_of_another_thread_is_what_it_used():
    """20 ms of it, read from outside before and after."""
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        compute(0.02)
        done.set()
        go.clear()
        go.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    before = usage.cpu_time_ns(thread.native_id)
    queue = usage.scheduling(thread.native_id)
    go.set()
    assert done.wait(30)
    used_ms = (usage.cpu_time_ns(thread.native_id) - before) / 1e6
    told = usage.scheduling(thread.native_id)
    go.set()
    thread.join()
    assert 20 <= used_ms < 30
    assert told.slices > queue.slices
    assert told.wait_ns >= queue.wait_ns


def test_of_a_thread_that_is_gone_nothing_is_known():
    """Neither its clock nor its file; and the file is closed."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert usage.scheduling(thread.native_id) is not None
    end.set()
    thread.join()
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        time.sleep(0.001)
    assert usage.scheduling(thread.native_id) is None
    assert usage.cpu_time_ns(thread.native_id) is None
    assert thread.native_id not in usage._files


def test_a_program_that_closes_all_descriptors_is_not_harmed_by_ours():
    """As daemons do. Our file's number may be the program's own by then: that is not closed, nor believed."""
    me = threading.get_native_id()
    assert usage.scheduling(me) is not None
    fd = usage._files[me].fd
    os.close(fd)
    r, w = os.pipe()
    if fd not in (r, w):
        os.dup2(w, fd)
        os.close(w)
        w = fd
    try:
        assert usage.scheduling(me) is not None
        assert usage._files[me].fd not in (r, w)
        os.write(w, b"still ours")
        assert os.read(r, 20) == b"still ours"
    finally:
        os.close(r)
        os.close(w)


def test_files_are_few_and_closed_when_their_thread_is_gone():
    """A hundred threads, one after the other."""
    usage.close_unused(0)
    before = open_files()

    def one_more() -> int:
        thread = threading.Thread(target=lambda: usage.scheduling(threading.get_native_id()))
        thread.start()
        thread.join()
        return open_files() - before

    assert max(one_more() for _ in range(100)) >= 1
    until(lambda: one_more() <= 2)  # the last one, and one that was on its last steps
    usage.close_unused(0)
    assert open_files() == before


COUNT = """
import asyncio, os, threading, time, obsloop

def count():
    return len(os.listdir("/proc/self/fd"))

async def main():
    counts = [count()]
    for _ in range(60):
        time.sleep(0.005)
        await asyncio.sleep(0.005)
        counts.append(count())
    time.sleep(0.15)  # long enough for the watchdog to look
    for _ in range(10):
        await asyncio.sleep(0.01)
        counts.append(count())
    return counts

def run():
    print(set(len(set(obsloop.run(main()))) for _ in range(2)))

run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_no_descriptor_comes_or_goes_while_the_program_runs():
    """A program that counts its open descriptors finds none of the watchdog's among those that it opened."""
    child = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, timeout=30, check=False)
    assert child.stdout == "{1}\n{1}\n", child.stderr


def test_our_own_switches_are_the_kernels_slices():
    """How often this thread was put on a CPU, as it counts itself and as its file says: the same, but for a few."""
    me = threading.get_native_id()
    told, own = usage.scheduling(me).slices, usage._switches()
    for _ in range(100):
        time.sleep(0.001)
    told, own = usage.scheduling(me).slices - told, usage._switches() - own
    assert own >= 100
    assert abs(told - own) <= 5


class _Observed:
    """What carries the measurements."""

    usage = None


def test_one_measurement_is_always_from_before_the_iteration():
    """However often the watchdog looks in the middle of one."""
    obs, counters = _Observed(), Counters()
    me = threading.get_native_id()
    counters.began_ns = counters.tick_ns = time.monotonic_ns()
    counters.state = IN_IDLE
    usage.look(obs, counters, me)
    counters.state, counters.began_ns = IN_CALLBACK, time.monotonic_ns()
    for _ in range(5):
        counters.tick_ns = time.monotonic_ns()
        usage.look(obs, counters, me)
    before = obs.usage.before(counters.began_ns)
    assert before is not None
    assert before.at_ns <= counters.began_ns


def test_waiting_counts_as_idle_while_it_lasts():
    """The wait that is still open is in it."""
    counters = Counters()
    counters.state, counters.tick_ns, counters.idle_ns = IN_IDLE, time.monotonic_ns() - 50_000_000, 7
    measured = usage.measure(counters, threading.get_native_id())
    assert 50_000_007 <= measured.idle_ns <= 50_000_007 + measured.at_ns - counters.tick_ns - 50_000_000

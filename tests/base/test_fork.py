"""After a fork the child starts with clean metrics, its parent is untouched, and the books of both balance."""

import pytest

from tests.support import output

FIGURES = """
import asyncio, os, sys, time
import obsloop

def callbacks(name="main"):
    figures = obsloop.snapshots()
    if name not in figures:
        return None
    points = figures[name]["asyncio.eventloop.callback.duration"]
    return sum(histogram.count for histogram in points.values())

def states(loop):
    snapshot = loop.snapshot()
    return sum(round(1e9 * ns) for ns in snapshot["asyncio.eventloop.time"].values())

def run(n):
    loop = obsloop.Loop()
    for _ in range(n):
        loop.call_soon(str)
    loop.stop()
    loop.run_forever()
    loop.close()

def in_child(function):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        print("child:", function(), flush=True)
    finally:
        os._exit(0)
"""


def lines(source: str) -> list[str]:
    return output(FIGURES + source).splitlines()


def test_a_child_starts_clean_and_leaves_its_parent_alone():
    """Forked between runs: the child has no series until it runs a loop; the parent's are as they were."""
    assert lines("""
run(7)
collections = lambda: obsloop.process_snapshot().value("cpython.gc.collections", "2")
in_child(lambda: (obsloop.snapshots(), run(3), callbacks(), collections()))
print("parent:", callbacks())
run(1)
print("parent:", callbacks())
""") == ["child: ({}, None, 3, 0)", "parent: 7", "parent: 8"]


def test_a_child_forked_by_a_callback_starts_clean():
    """Forked on the running loop: the child's figures are empty, not running and not blocked; the parent counts on."""
    assert lines("""
loop = obsloop.Loop()

def look():
    snapshot = loop.snapshot()
    return callbacks(), snapshot.running, snapshot.blocked_time, states(loop)

def fork():
    in_child(look)

for _ in range(5):
    loop.call_soon(str)
loop.call_soon(fork)
loop.call_soon(loop.stop)
loop.run_forever()
print("parent:", callbacks())
loop.close()
""") == ["child: (0, False, 0.0, 0)", "parent: 7"]


def test_a_child_that_goes_on_running_the_loop_keeps_balanced_books():
    """A forked server process: from the callback that forked on, the states sum to the time since then."""
    (line,) = lines("""
loop = obsloop.Loop()
times = []

def fork():
    times.append(time.monotonic_ns())
    time.sleep(0.02)
    if pid := os.fork():
        os.waitpid(pid, 0)
        loop.stop()
    else:
        loop.call_soon(time.sleep, 0.03)
        loop.call_later(0.06, stop)

def stop():
    times.append(time.monotonic_ns())
    loop.stop()

for _ in range(5):
    loop.call_soon(str)
loop.call_soon(lambda: times.append(time.monotonic_ns()))
loop.call_soon(fork)
loop.run_forever()
ended = time.monotonic_ns()
if len(times) == 3:
    before, began, stopped = times
    snapshot = loop.snapshot()
    durations = snapshot["asyncio.eventloop.callback.duration"]
    print("child:", {kind: h.count for (kind,), h in durations.items() if h.count}, snapshot.running)
    assert stopped - began <= states(loop) + 5, (times, states(loop))
    assert states(loop) <= ended - before + 5, (times, ended, states(loop))
loop.close()
""")
    assert line == "child: {'callback': 2, 'timer': 1} False"


def test_a_worker_of_multiprocessing_starts_clean():
    """A forked worker pool, each worker with its own asyncio.run: each tells its own figures only."""
    assert lines("""
import multiprocessing

async def main():
    await asyncio.sleep(0)

def work(n):
    for _ in range(n):
        obsloop.run(main())
    return obsloop.snapshots()["main"].value("asyncio.eventloop.iterations"), callbacks()

if __name__ == "__main__":
    run(1000)
    one = multiprocessing.get_context("fork")
    with one.Pool(1) as pool:
        first = pool.apply(work, (1,))
        pool.close()
        pool.join()
    with one.Pool(1) as pool:
        second = pool.apply(work, (10,))
        pool.close()
        pool.join()
    print([10 * n for n in first] == list(second), callbacks())
""") == ["True 1000"]


@pytest.mark.parametrize("where", ["idle", "thread"])
def test_loops_of_other_threads_are_not_the_childs(where):
    """A loop that ran in another thread does not run in the child: its name is there, with nothing counted."""
    assert lines(f"""
import threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads is what this is about
where = {where!r}
loop = obsloop.Loop()
begun = threading.Event()
loop.call_soon(begun.set)
if where == "thread":
    loop.call_soon(time.sleep, 0.3)
thread = threading.Thread(target=loop.run_forever, name="other")
thread.start()
begun.wait()

def look():
    snapshot = obsloop.snapshots().get("other")
    return snapshot is None or (callbacks("other"), snapshot.running, snapshot.blocked_time, states(loop))

in_child(look)
loop.call_soon_threadsafe(loop.stop)
thread.join()
print("parent:", callbacks("other") >= 2)
loop.close()
""") == ["child: (0, False, 0.0, 0)", "parent: True"]


def test_a_child_counts_since_the_fork():
    """Its figures say so, running loop or not, and what exports cost and lost in the parent is the parent's."""
    assert lines("""
run(7)
obsloop.count_export(1.0, failed=True)
forked = time.time()
def child():
    run(1)
    process = obsloop.process_snapshot()
    lost, spent = process.value("obsloop.dropped", "export"), process.value("obsloop.self.time", "export")
    return [s.began >= forked for s in (process, *obsloop.snapshots().values())], lost, spent
in_child(child)
print("parent:", [s.began < forked for s in (obsloop.process_snapshot(), *obsloop.snapshots().values())])
""") == ["child: ([True, True], 0, 0.0)", "parent: [True, True]"]

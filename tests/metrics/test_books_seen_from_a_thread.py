"""Snapshots taken by another thread while the loop is busy: no counter ever goes back, no time is counted twice."""

import asyncio
import gc
import itertools
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import obsloop
from tests.support import LIMIT, states_ns


def counters(snapshot: obsloop.Snapshot) -> Iterator[tuple[str, int]]:
    """Everything in a snapshot that may only grow, in integers: times in ns, counts, each bucket."""
    for metric in obsloop.METRICS:
        for labels, value in snapshot.data.get(metric.name, {}).items():
            name = " ".join((metric.name, *labels))
            if isinstance(value, obsloop.Histogram):
                yield f"{name} sum", round(value.sum * value.partition.units)
                yield from ((f"{name} bucket {i}", n) for i, n in enumerate(value.bucket_counts))
            elif metric.kind == "counter":
                yield name, round(value * 1e9) if metric.unit == "s" else int(value)


class Watcher(threading.Thread):
    """Takes one snapshot after the other and notes what went back, and times that exceed the time there was."""

    def __init__(self, loop: obsloop.Loop) -> None:
        super().__init__()
        self.loop, self.over, self.taken, self.wrong = loop, False, 0, []
        self.began_ns = time.monotonic_ns()

    def run(self) -> None:
        last: dict[str, int] = {}
        while not self.over:
            snapshot = self.loop.snapshot()
            now_ns = time.monotonic_ns()
            new = dict(counters(snapshot))
            slack = 2  # ns: a float of seconds, rounded
            self.wrong += [f"{k}: {last[k]} -> {n}" for k, n in new.items() if n < last.get(k, 0) - slack]
            summed = sum(states_ns(snapshot).values())
            if summed > 1.01 * (now_ns - self.began_ns) + 10_000_000:
                self.wrong.append(f"sum of states {summed} after {now_ns - self.began_ns}")
            last = new
            self.taken += 1
            if not self.taken % 50:
                time.sleep(0.001)

    def __enter__(self) -> "Watcher":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over = True
        self.join()


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Threads take turns as often as the interpreter can: the hardest case for numbers without a lock."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def busy(loop: obsloop.Loop, seconds: float, watcher: Watcher) -> None:
    """Callbacks, tasks, timers, readers, collections, stops and restarts: for so long, and until some were watched."""
    loop.set_exception_handler(lambda loop, context: None)
    loop.slow_callback_duration = 1e9
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, ours.recv, 10)
    until, limit = time.monotonic() + seconds, time.monotonic() + LIMIT

    async def task() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def round_of_work() -> None:
        loop.call_soon([].pop)
        loop.call_later(0.0001, sum, range(300))
        theirs.send(b"x")
        await asyncio.gather(task(), task(), asyncio.sleep(0.0005))
        loop.call_soon(gc.collect, 0)

    async def main() -> None:
        for _ in range(30):
            await round_of_work()

    try:
        while time.monotonic() < until or watcher.taken <= 10:
            assert time.monotonic() < limit
            loop.run_until_complete(main())
    finally:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
        loop.close()


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_counters_never_go_back_while_the_loop_is_busy(clean_metrics, debug):
    """A thread that reads without a pause sees every counter grow, and no more time than has passed."""
    loop = obsloop.Loop()
    loop.set_debug(debug)
    with Watcher(loop) as watcher:
        busy(loop, 0.5, watcher)
    assert watcher.wrong == []


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_counters_never_go_back_at_the_hastiest_thread_switches(clean_metrics, hasty_switches, debug):
    """The same where the threads change places every microsecond."""
    loop = obsloop.Loop()
    loop.set_debug(debug)
    with Watcher(loop) as watcher:
        busy(loop, 0.5, watcher)
    assert watcher.wrong == []


def test_counters_do_not_go_back_when_a_long_collection_ends(clean_metrics):
    """A collection that runs Python for 50 ms within a callback: what a snapshot in its middle said stays true."""

    class Lingering:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            seen.append(states_ns(loop.snapshot()))
            time.sleep(0.05)
            seen.append(states_ns(loop.snapshot()))

    def callback() -> None:
        Lingering()
        gc.collect()
        seen.append(states_ns(loop.snapshot()))

    seen: list[dict[str, int]] = []
    loop = obsloop.Loop()
    loop.call_soon(callback)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert len(seen) == 3
    for earlier, later in itertools.pairwise(seen):
        assert {state for state, ns in later.items() if ns < earlier[state] - 2} == set()


def test_a_wait_seen_from_a_thread_grows_as_idle(clean_metrics):
    """While the loop waits for nothing, each snapshot from another thread has more idle time, and nothing blocked."""
    loop = obsloop.Loop()
    seen: list[obsloop.Snapshot] = []

    def look() -> None:
        while not loop.snapshot().running:
            time.sleep(0.001)
        for _ in range(5):
            time.sleep(0.01)
            seen.append(loop.snapshot())
        loop.call_soon_threadsafe(loop.stop)

    loop.snapshot()  # the figures are counted under this thread's name
    thread = threading.Thread(target=look)
    thread.start()
    loop.run_forever()
    thread.join()
    loop.close()
    idle = [states_ns(snapshot)["idle"] for snapshot in seen]
    assert idle == sorted(set(idle)), "each more than the one before"
    assert {snapshot.value("asyncio.eventloop.blocked.time") for snapshot in seen} == {0}

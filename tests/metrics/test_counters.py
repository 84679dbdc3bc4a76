"""What is counted per iteration: events, the ready queue, timers, polls; and what is told of a blocked loop."""

import socket
import threading

import pytest

import obsloop
from tests.support import assert_holds, program, run_briefly, states_ns


@pytest.fixture
def pairs():
    """Three connected pairs of sockets."""
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


def value(loop: obsloop.Loop, name: str, *labels: str) -> float | int:
    return loop.snapshot().value(f"asyncio.eventloop.{name}", *labels)


def test_iterations_and_their_duration(stepped):
    """Three iterations of 1, 2 and 0 s are three iterations, and three values in the histogram."""
    clock, loop = stepped
    for seconds in (1, 2):
        loop.call_soon(clock.advance, seconds)
        run_briefly(loop)
    run_briefly(loop)
    assert value(loop, "iterations") == 3
    assert_holds(loop.snapshot().histogram("asyncio.eventloop.iteration.duration"), [1, 2, 0])


def test_an_iteration_begins_when_select_returns(stepped):
    """The wait for a timer is in no iteration; the callback after it is."""
    clock, loop = stepped
    loop.call_later(50, clock.advance, 1)
    loop.call_later(60, loop.stop)
    loop.run_forever()
    durations = loop.snapshot().histogram("asyncio.eventloop.iteration.duration")
    assert durations.sum == 1
    assert durations.count == value(loop, "iterations")


def test_ready_depth_counts_what_runs_in_each_iteration(stepped):
    """5 handles, then none, then 2: the depth is seen at each iteration, cancelled handles included."""
    _, loop = stepped
    handles = [loop.call_soon(str) for _ in range(5)]
    handles[0].cancel()
    run_briefly(loop)
    run_briefly(loop)
    loop.call_soon(str)
    loop.call_later(0, str)
    run_briefly(loop)
    assert_holds(loop.snapshot().histogram("asyncio.eventloop.ready.depth"), [5, 0, 2])


def test_a_deep_queue_is_counted_to_the_handle(stepped):
    """Depths far apart land in their own buckets, and the sum is exact."""
    _, loop = stepped
    for n in (1, 50, 1001, 20_000):
        for _ in range(n):
            loop.call_soon(int)
        run_briefly(loop)
    assert_holds(loop.snapshot().histogram("asyncio.eventloop.ready.depth"), [1, 50, 1001, 20_000])


@pytest.mark.parametrize("selector", ["epoll", "stepping"])
def test_events_are_counted_and_those_that_waited(clean_metrics, stepped, pairs, selector):
    """Events of a poll without a wait were waiting already; those that end a wait were not."""
    _, loop = stepped
    if selector == "epoll":
        loop = obsloop.Loop()
    for ours, theirs in pairs:
        loop.add_reader(ours, ours.recv, 1)
        theirs.send(b"x")
    run_briefly(loop)  # polls with time-out 0, since it is to stop
    assert (value(loop, "events"), value(loop, "events_waiting")) == (3, 3)
    pairs[0][1].send(b"x")
    loop.remove_reader(pairs[0][0])
    loop.add_reader(pairs[0][0], loop.stop)
    loop.run_forever()  # waits, and is woken at once
    assert (value(loop, "events"), value(loop, "events_waiting")) == (4, 3)
    for ours, _ in pairs:
        loop.remove_reader(ours)
    loop.close()


def test_a_wakeup_by_another_thread_is_one_event(stepped):
    """The self-pipe is a descriptor like any other."""
    _, loop = stepped

    def wake() -> None:
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
        thread.start()
        thread.join()

    loop.call_soon(wake)
    loop.run_forever()
    assert value(loop, "events") == 1


def test_timers_in_the_heap_and_cancelled_ones_among_them(stepped):
    """Cancelled timers are still in the heap until their turn comes, or until they are too many."""
    clock, loop = stepped
    timers = [loop.call_later(10 + i, str) for i in range(10)]
    timers[0].cancel()
    timers[5].cancel()
    assert (value(loop, "timer.count"), value(loop, "timer.cancelled")) == (10, 2)
    run_briefly(loop)  # the cancelled one at the top goes
    assert (value(loop, "timer.count"), value(loop, "timer.cancelled")) == (9, 1)
    clock.advance(100)
    run_briefly(loop)
    assert (value(loop, "timer.count"), value(loop, "timer.cancelled")) == (0, 0)
    assert loop.snapshot().histogram("asyncio.eventloop.callback.duration", "timer").count == 8


def test_a_heap_full_of_cancelled_timers_is_cleaned(stepped):
    """As on the stock loop: when most of more than a hundred timers are cancelled, they are dropped."""
    _, loop = stepped
    timers = [loop.call_later(1000 + i, str) for i in range(200)]
    for timer in timers[50:]:
        timer.cancel()
    run_briefly(loop)
    assert (value(loop, "timer.count"), value(loop, "timer.cancelled")) == (50, 0)


def test_timers_of_a_closed_loop_are_gone(clean_metrics):
    """The count is of loops that live."""
    loop = obsloop.Loop()
    loop.call_later(1000, str)
    assert value(loop, "timer.count") == 1
    loop.close()
    assert value(loop, "timer.count") == 0


def test_poll_duration_holds_polls_without_a_wait_only(stepped):
    """One value for each poll with time-out 0; a wait is idle time."""
    _, loop = stepped
    loop.call_soon(str)
    loop.call_later(5, loop.stop)
    loop.run_forever()
    assert_holds(loop.snapshot().histogram("asyncio.eventloop.poll.duration"), [0])
    assert states_ns(loop.snapshot())["idle"] == 5_000_000_000


def test_blocked_time_is_that_of_the_present_callback(stepped):
    """Seen from another thread: it grows within a callback, begins anew in the next, and is 0 when the loop waits."""
    clock, loop = stepped
    seen: list[tuple[float, bool]] = []

    def look() -> None:
        snapshot = loop.snapshot()
        assert snapshot.value("asyncio.eventloop.blocked.time") == snapshot.blocked_time
        seen.append((snapshot.blocked_time, snapshot.running))

    def callback() -> None:
        for _ in range(2):
            clock.advance(3)
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

    look()
    loop.call_soon(callback)
    loop.call_soon(callback)
    loop.call_soon(loop.stop)
    loop.run_forever()
    look()
    assert seen == [(0, False), (3, True), (6, True), (3, True), (6, True), (0, False)]


def test_blocked_time_is_0_in_a_wait(stepped):
    """A loop that has waited for an hour is healthy."""
    clock, loop = stepped
    select, seen = loop._selector.select, []

    def waiting(timeout=None):
        clock.advance(3600)
        seen.append(loop.snapshot().blocked_time)
        return select(timeout)

    loop._selector.select = waiting
    loop.call_later(1, loop.stop)
    loop.run_forever()
    assert seen == [0]


def test_utilization_is_the_share_that_was_not_idle(stepped):
    """1 s of work and 3 s of waiting is a quarter; since an earlier snapshot only what came after it counts."""
    clock, loop = stepped
    assert loop.snapshot().utilization() == 0
    loop.call_soon(clock.advance, 1)
    loop.call_later(4, loop.stop)
    loop.run_forever()
    first = loop.snapshot()
    assert first.utilization() == 0.25
    clock.advance(1000)
    assert loop.snapshot().utilization(since=first) == 0
    loop.call_soon(clock.advance, 2)
    loop.call_later(2, loop.stop)
    loop.run_forever()
    assert loop.snapshot().utilization(since=first) == 1
    assert loop.snapshot().utilization() == 0.5


def test_collections_are_counted_by_generation():
    """A process that collects twice in generation 1 and three times in generation 2 says so, with their pauses."""
    done = program("""
        import gc
        import obsloop
        gc.disable()
        obsloop.Loop().close()
        for generation in (1, 1, 2, 2, 2):
            gc.collect(generation)
        snapshot = obsloop.process_snapshot()
        print([snapshot.value("cpython.gc.collections", g) for g in "012"])
        print([snapshot.histogram("cpython.gc.pause.duration", g).count for g in "012"])
        print(all(snapshot.histogram("cpython.gc.pause.duration", g).sum > 0 for g in "12"))
    """)
    assert (done.stdout.splitlines(), done.stderr) == (["[0, 2, 3]", "[0, 2, 3]", "True"], "")


def test_our_own_time_is_counted(clean_metrics):
    """Taking snapshots costs time, and it is told."""
    obsloop.Loop().close()
    before = obsloop.process_snapshot().value("obsloop.self.time", "snapshot")
    for _ in range(100):
        obsloop.snapshots()
    loop = obsloop.Loop()
    loop.snapshot()
    loop.close()
    after_all = obsloop.process_snapshot().value("obsloop.self.time", "snapshot")
    assert after_all >= before
    obsloop.snapshots()
    assert obsloop.process_snapshot().value("obsloop.self.time", "snapshot") > after_all

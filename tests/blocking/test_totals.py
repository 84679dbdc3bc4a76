"""Blocks added up by culprit: for five minutes, an hour and a day, with a bound on everything."""

import threading
from traceback import FrameSummary

import pytest

from obsloop.blocking import totals
from obsloop.blocking.blame import Share
from obsloop.introspect.own_code import Culprit, Frame

EXPORT = Culprit("shop.export", "/srv/shop.py", 31, seen=True)
REPORT = Culprit("shop.report", "/srv/shop.py", 70, seen=True)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The clock, in seconds, in the test's hands. Each test begins and ends as a new process does."""
    moment = [1_000_000.0]
    monkeypatch.setattr(totals, "monotonic", lambda: moment[0])
    totals.forked()
    yield moment
    totals.forked()


def note(culprit, seconds, cause="cpu", samples=(), loop="main"):
    totals.note(loop, [Share(culprit, cause, round(seconds * 1e9))], samples)


def test_blocks_are_added_up_by_culprit(clock):
    """Seconds, number, the worst, the last, the causes and the lines; most seconds first."""
    note(EXPORT, 0.25)
    note(REPORT, 0.2)
    clock[0] += 7
    note(EXPORT._replace(lineno=40), 0.5, "syscall")
    clock[0] += 3
    found = totals.totals()
    first, second = found.groups
    assert (first.function, second.function) == ("shop.export", "shop.report")
    assert first.windows["5m"] == first.windows["24h"] == (0.75, 2, 0.5, clock[0] - 3)
    assert list(first.lines) == [40, 31]
    assert {cause: total.seconds for cause, total in first.causes.items()} == {"syscall": 0.5, "cpu": 0.25}
    assert first.seen


def test_an_old_block_leaves_one_window_after_the_other(clock):
    """Each window is exact to one of its time buckets."""
    note(EXPORT, 0.25)
    seconds = []
    for later in (0, 299, 311, 3_600, 3_661, 86_400, 87_301):
        clock[0] = 1_000_000.0 + later
        groups = totals.totals().groups
        seconds.append([groups[0].windows[name].blocks for name in totals.WINDOWS] if groups else [])
    assert seconds == [[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1], []]


def test_too_many_culprits_are_added_up_under_one_name():
    """No second is lost, and the number is known; the stacks are bounded, too."""
    stack = (Frame("/srv/shop.py", 31, "f", "shop.f", own=True),)
    for i in range(2_000):
        note(Culprit(f"shop.f{i}", "/srv/shop.py", 31, seen=True), 0.125, samples=((0.1, stack),))
    found = totals.totals()
    assert len(found.groups) == totals.MAX_CULPRITS + 1
    assert sum(group.windows["1h"].seconds for group in found.groups) == 250.0
    assert (found.folded, found.dropped) == (2_000 - totals.MAX_CULPRITS, 0)
    assert found.groups[0].function == totals.OTHERS.function
    assert len(totals._state.stacks) <= totals.MAX_STACKS


def test_what_the_queue_has_no_room_for_is_counted():
    """While a thread reads, writers never wait for it."""
    with totals._state.folding:
        for _ in range(1_500):
            note(EXPORT, 0.125)
    found = totals.totals()
    assert found.dropped == 500
    assert found.groups[0].windows["5m"].blocks == 1_000


def test_threads_that_write_at_once_lose_nothing():
    """Four loops block at the same time."""
    threads = [threading.Thread(target=lambda: [note(EXPORT, 0.125) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = totals.totals()
    assert found.groups[0].windows["5m"].blocks + found.dropped == 800


def test_a_block_that_comes_late_is_not_missing():
    """Two threads took their numbers in one order, and queued their blocks in the other."""
    state = totals._state
    note(EXPORT, 0.125)
    note(EXPORT, 0.125)
    first, second = state.queue.popleft(), state.queue.popleft()
    for block, dropped in ((second, 1), (first, 0)):
        state.queue.append(block)
        assert totals.totals().dropped == dropped
    assert totals.totals().groups[0].windows["5m"].blocks == 2


def test_the_stack_shows_the_culprits_line():
    """Not the last sample, which may already see the next line."""
    line = (Frame("/srv/shop.py", 31, "export", "shop.export", own=True), FrameSummary("/lib/x.py", 1, "x"))
    other = (Frame("/srv/shop.py", 32, "export", "shop.export", own=True),)
    elsewhere = (Frame("/srv/shop.py", 1, "main", "shop.main", own=True),)
    note(EXPORT, 0.5, samples=((0.1, line), (0.2, other), (0.4, elsewhere)))
    assert totals.totals().groups[0].stack == line
    note(EXPORT, 0.5, samples=((0.1, other), (0.2, elsewhere)))
    assert totals.totals().groups[0].stack == other

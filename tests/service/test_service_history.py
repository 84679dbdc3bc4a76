"""Five minutes of a loop's numbers: differences of counters, and a quantile of what was counted in between."""

import time
from bisect import bisect_left

import pytest

import obsloop
from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.snapshot import Histogram
from obsloop.service import chores, history
from obsloop.service.history import Point


def lag(*values):
    counts = [0] * SECONDS.size
    for value in values:
        counts[bisect_left(SECONDS.bounds, round(value * 1e9))] += 1
    return Histogram(SECONDS, tuple(counts), sum(values))


@pytest.fixture(autouse=True)
def nothing_yet():
    """Each test begins and ends as a new process does."""
    history.forked()
    yield
    history.forked()


def test_rates_are_of_what_happened_between_two_points():
    """Shares of the running time; the lag before the first point does not count."""
    old, new = [5.0] * 50, [0.001] * 90 + [0.3] * 10
    rates = history.between(Point(100.0, 50.0, 20.0, 3.0, lag(*old)), Point(110.0, 60.0, 24.0, 5.0, lag(*old, *new)))
    assert (rates.seconds, rates.blocked_share, rates.utilization) == (10.0, 0.2, 0.6)
    assert rates.lag_p99 == pytest.approx(0.3, rel=0.2)  # a bucket's bounds are at most 19 % apart


def test_a_loop_that_did_not_run_has_no_rates():
    """None, not zero; and a loop without lag has the others."""
    assert history.between(Point(1.0, 5.0, 0.0, 0.0, None), Point(2.0, 5.0, 0.0, 0.0, None)) == (
        1.0,
        None,
        None,
        None,
        None,
    )
    assert history.between(Point(1.0, 5.0, 0.0, 0.0, None), Point(2.0, 6.0, 1.0, 0.0, None)) == (
        1.0,
        0.0,
        None,
        0.0,
        0.0,
    )


def test_a_window_begins_at_its_length_or_with_the_first_point():
    """A young process has less than a minute."""
    points = [Point(100.0 + 5 * i, 5.0 * i, 5.0 * i, 0.0, None) for i in range(30)]
    assert history.over(points, 60.0).seconds == 60.0
    assert history.over(points[:4], 60.0).seconds == 15.0
    assert len(history.line(points)) == 29


def test_a_known_block_is_found_in_the_samples():
    """A real loop that blocks for 0.4 s between two samples, and while it still does."""

    async def main():
        time.sleep(0.4)

    history.sample()
    with obsloop_runner() as runner:
        runner.run(idle())
        history.sample()
        first = history._points[-1]["history"]
        runner.run(main())
    history.sample()
    last = history._points[-1]["history"]
    assert 0.4 <= last.blocked - first.blocked <= last.ran - first.ran
    assert history.between(first, last).blocked_share > 0.5


async def idle():
    pass


def obsloop_runner():
    import asyncio

    settings = obsloop.Settings(name="history")
    return asyncio.Runner(loop_factory=lambda: obsloop.new_event_loop(settings=settings))


def test_samples_are_bounded_and_taken_every_five_seconds(monkeypatch):
    """Whatever happens, a bit more than five minutes; a census that costs much does not delay them."""
    now = [1_000_000.0]
    taken = []
    monkeypatch.setattr(chores.clock, "seconds", lambda: now[0])
    monkeypatch.setattr(chores, "_census_at", 0.0)
    monkeypatch.setattr(chores, "_sample_at", 0.0)
    monkeypatch.setattr(chores.census, "take_census", lambda: taken.append(now[0]) or 100.0)
    for _ in range(400):
        assert chores.do() == 1.0
        now[0] += 1.0
    assert len(taken) == 5 or len(taken) == 4
    assert len(history._points) == history._points.maxlen == 62

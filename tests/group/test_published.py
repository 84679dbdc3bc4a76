"""Published as plain data: what is published, what a successor goes on from, and sums over workers."""

import asyncio
import json

import obsloop
from obsloop.group import published
from obsloop.metrics.catalog import MAX_SITES, OTHER

SLOW = "asyncio.eventloop.callback.slow"
DELAY = "asyncio.eventloop.schedule.delay"


def part(**data):
    """A part of metrics with these points."""
    return {"running": True, "blocked": 0.5, "began": 100.0, "data": data}


def whole(**loops):
    """Published with these loops."""
    return {"loops": loops, "process": part()}


def test_what_is_published_says_the_same_as_the_snapshot():
    """Through JSON and back, every exported value is there: numbers and histograms."""
    loop = obsloop.new_event_loop(obsloop.Settings(name="published"))
    try:
        loop.run_until_complete(asyncio.sleep(0.01))
        before = obsloop.snapshots()["published"]
        sent = published.decode(published.encode(published.now()))
        after = published.snapshot_of("published", sent["loops"]["published"])
    finally:
        loop.close()
    assert json.loads(published.encode(sent))["loops"]
    for metric in obsloop.exported_metrics():
        if metric.scope == "loop" and metric.name != "asyncio.eventloop.utilization":
            assert set(after.exported(metric)) == set(before.exported(metric)), metric.name
    kind = ("timer",)
    assert after[DELAY][kind].bucket_counts == before[DELAY][kind].bucket_counts
    assert after[DELAY][kind].sum == before[DELAY][kind].sum
    assert after.value("asyncio.eventloop.iterations") == before.value("asyncio.eventloop.iterations")
    assert after.run_time >= before.run_time > 0


def test_published_of_another_version_are_not_read():
    """Its metrics may have other labels. While versions are mixed, each shows its own processes."""
    text = published.encode(whole(main=part())).replace(obsloop.__version__.encode(), b"0.0.0.other")
    assert published.decode(text) == published.empty()
    assert published.decode(b"{") == published.empty()
    assert published.decode(b"[]") == published.empty()


def test_counters_last_and_gauges_do_not():
    """What a process leaves to its successor: it has no tasks and no blocked loop any more."""
    left = published.lasting(whole(main=part(**{SLOW: [[["f"], 3]], "asyncio.task.active": [[[], 7]]})))
    assert left["loops"]["main"]["data"] == {SLOW: [[["f"], 3]]}
    assert left["loops"]["main"]["running"] is False
    assert left["loops"]["main"]["blocked"] == 0.0


def test_a_successor_goes_on_from_there():
    """Counters and histograms are added, series by series."""
    past = published.lasting(whole(main=part(**{SLOW: [[["f"], 3]], DELAY: [[["timer"], {"s": 1.0, "n": [[2, 5]]}]]})))
    now = whole(main=part(**{SLOW: [[["f"], 1], [["g"], 1]], DELAY: [[["timer"], {"s": 0.5, "n": [[2, 1], [9, 1]]}]]}))
    found = published.added(past, now)["loops"]["main"]["data"]
    assert dict(found[SLOW]) == {("f",): 4, ("g",): 1}
    assert dict(found[DELAY]) == {("timer",): {"s": 1.5, "n": [(2, 6), (9, 1)]}}


def test_the_labels_of_the_past_keep_their_series():
    """New names go under _OTHER when there is no room, so no counter goes back and the table stays bounded."""
    past = published.lasting(whole(main=part(**{SLOW: [[[f"old{i}"], 1] for i in range(MAX_SITES)]})))
    now = whole(main=part(**{SLOW: [[["old5"], 2], [["new1"], 3], [["new2"], 4]]}))
    found = dict(published.added(past, now)["loops"]["main"]["data"][SLOW])
    assert found["old5",] == 3
    assert found[OTHER,] == 7
    assert len(found) == MAX_SITES + 1


def test_workers_are_added_up():
    """Counters and numbers of things are sums; of a gauge, such as the longest block, it is the largest."""
    longest = "asyncio.eventloop.block.longest"
    one = part(**{SLOW: [[["f"], 3]], "asyncio.transport.active": [[["tcp", "server"], 2]], longest: [[["f"], 0.4]]})
    other = part(**{SLOW: [[["f"], 1]], "asyncio.transport.active": [[["tcp", "server"], 5]], longest: [[["f"], 0.9]]})
    total = published.sum_of([one, other])["data"]
    assert dict(total[SLOW]) == {("f",): 4}
    assert dict(total["asyncio.transport.active"]) == {("tcp", "server"): 7}
    assert dict(total[longest]) == {("f",): 0.9}

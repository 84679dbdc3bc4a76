"""The profile of blocked time: known blocks are in it, with their whole time."""

import asyncio
import time
from traceback import FrameSummary

import pytest

import obsloop
from obsloop.blocking import profile
from obsloop.blocking.blame import Share
from obsloop.blocking.episodes import Sighting
from obsloop.introspect.functions import Site
from obsloop.introspect.own_code import Culprit, Frame
from obsloop.profile.data import total_ns
from tests.blocking.support import compute
from tests.support import until_all_is_told


@pytest.fixture(autouse=True)
def nothing_yet():
    """Each test begins and ends as a new process does."""
    profile.forked()
    yield
    profile.forked()


def sleeps():
    time.sleep(0.35)


def computes():
    compute(0.25)


async def main():
    for _ in range(2):
        await asyncio.sleep(0.02)
        sleeps()
        await asyncio.sleep(0.02)
        computes()


def stacks(found):
    return {
        tuple(str(found["frames"][i][0]).rpartition(".")[2] for i in sample["stack"]): sample
        for sample in found["samples"]
    }


def blocked_ns(name):
    return sum(obsloop.snapshots()[name]["asyncio.eventloop.block.time"].values()) * 1e9


def test_the_sum_is_that_of_the_metric():
    """All time that loops were blocked is in the profile, below the functions that blocked them."""
    obsloop.run(main(), settings=obsloop.Settings(name="shop"))
    until_all_is_told()
    found = profile.profile(3_600)
    assert total_ns(found) == pytest.approx(blocked_ns("shop"), rel=0.02)
    assert total_ns(found) >= 1.2e9
    below = {stack: sample["ns"] for stack, sample in stacks(found).items() if "sleeps" in stack}
    assert sum(below.values()) == pytest.approx(0.7e9, rel=0.5)
    for sample in found["samples"]:
        assert {"cause", "culprit", "loop"} <= set(sample["labels"])
        assert sample["labels"]["loop"] == "shop"


def test_a_block_that_was_not_sampled_counts():
    """With a threshold below what the watchdog can see, blocks end unseen. Their time is under a frame that says so."""

    async def short():
        for _ in range(20):
            await asyncio.sleep(0.001)
            end = time.perf_counter() + 0.006
            while time.perf_counter() < end:
                pass

    obsloop.run(short(), settings=obsloop.Settings(name="short", slow_callback=0.004))
    until_all_is_told()
    found = profile.profile(3_600)
    assert total_ns(found) == pytest.approx(blocked_ns("short"), rel=0.02)
    unseen = [sample for sample in found["samples"] if found["frames"][sample["stack"][-1]][0] == "(not sampled)"]
    assert unseen
    assert all(sample["count"] == 0 for sample in unseen)
    assert any("short" in str(found["frames"][sample["stack"][0]][0]) for sample in unseen)


def sighting(at, function, site="app.handle"):
    return Sighting(at, Site(site, "/srv/app.py", 1, task_name="order-17"), "task_step", "", culprit(function), 0.0)


def culprit(function):
    return Culprit(f"app.{function}", "/srv/app.py", 5, seen=True)


def stack(*functions):
    found: list[FrameSummary] = [Frame("/srv/app.py", 5, f, f"app.{f}", own=True) for f in functions]
    return 0.0, tuple(found)


def shared_out(block):
    return [(tuple(f[0] for f in frames), dict(found), ns, n) for frames, found, ns, n in profile.split(block)]


def test_each_sample_stands_for_the_time_around_it():
    """Of 1,000 ns with samples at 100, 200 and 800, the first stands for 150, the second for 350, the third for 500."""
    block = profile._Block(
        0.0,
        "main",
        (Share(culprit("a"), "cpu", 1_000, "/r"),),
        (sighting(100, "a"), sighting(200, "b"), sighting(800, "a")),
        (stack("handle", "a"), stack("handle", "b"), stack("handle", "a")),
        0,
        1_000,
    )
    common = {"cause": "cpu", "culprit": "app.a", "loop": "main", "route": "/r", "task": "order-N"}
    assert shared_out(block) == [
        (("app.handle", "app.a"), common, 150, 1),
        (("app.handle", "app.b"), common, 350, 1),  # the same callback
        (("app.handle", "app.a"), common, 500, 1),
    ]


def test_culprits_keep_their_shares():
    """Two callbacks of one iteration: the samples of one do not take the other's time."""
    block = profile._Block(
        0.0,
        "main",
        (Share(culprit("a"), "cpu", 700), Share(culprit("c"), "syscall", 300)),
        (sighting(100, "a"),),
        (stack("a"),),
        0,
        1_000,
    )
    found = shared_out(block)
    assert [(frames, ns, n) for frames, _, ns, n in found] == [
        (("app.a",), 700, 1),
        (("app.c", "(not sampled)"), 300, 0),
    ]
    assert found[1][1] == {"cause": "syscall", "culprit": "app.c", "loop": "main"}

"""Profiles as data: bounded tables, windows, merging."""

import json

from obsloop.metrics.self_metrics import dropped
from obsloop.profile import data, windows
from obsloop.profile.labels import task_label

MAIN = ("app.main", "/srv/app.py", 3, True)


def frame(n):
    return (f"app.f{n}", "/srv/app.py", n, True)


def sums(profile):
    return {";".join(profile["frames"][i][0] for i in sample["stack"]): sample["ns"] for sample in profile["samples"]}


def test_a_window_has_what_happened_in_it():
    """Ten seconds are the resolution, and after a day all is forgotten."""
    recent = windows.Recent("blocked")
    for at in range(0, 7_200, 60):
        recent.add(float(at), (MAIN, frame(at // 3_600)), (("cause", "cpu"),), 1_000)
    assert sums(recent.profile(300.0, 7_200.0, 1e9)) == {"app.main;app.f1": 5_000}
    assert sums(recent.profile(86_400.0, 7_200.0, 1e9)) == {"app.main;app.f0": 60_000, "app.main;app.f1": 60_000}
    assert recent.profile(86_400.0, 7_200.0 + 2 * 86_400, 1e9)["samples"] == []


def test_stacks_over_the_bound_are_others(clean_metrics):
    """No time is lost, and what was folded is counted. After a day there is room again."""
    before = dropped["profile"]
    recent = windows.Recent("blocked")
    for n in range(data.MAX_STACKS + 100):
        recent.add(100.0, (MAIN, frame(n)), (), 10)
    found = recent.profile(60.0, 100.0, 1e9)
    assert sums(found)["_OTHER"] == 100 * 10
    assert (found["dropped"], dropped["profile"] - before) == (100, 100)
    assert data.total_ns(found) == 10 * (data.MAX_STACKS + 100)
    later = 100.0 + 2 * 86_400
    recent.add(later, (frame(90_000),), (), 7)
    recent.add(later, (frame(90_001),), (), 7)
    assert sums(recent.profile(60.0, later, 1e9)) == {"app.f90000": 7, "app.f90001": 7}


def test_memory_is_bounded():
    """Whatever comes: cells, frames and depth have their bounds, and the newest are kept."""
    recent = windows.Recent("blocked")
    deep = tuple(frame(n) for n in range(500))
    for step in range(400):
        for n in range(100):
            recent.add(step * 10.0, (*deep, frame(1_000 + n)), (), 1)
    assert recent._cells <= windows.MAX_CELLS
    assert recent._cells == sum(len(b.cells) for b in (*recent._fine, *recent._coarse))
    found = recent.profile(60.0, 3_995.0, 1e9)
    assert {len(sample["stack"]) for sample in found["samples"]} == {windows.MAX_DEPTH}
    assert found["frames"][found["samples"][0]["stack"][-1]][0].startswith("app.f10")
    for n in range(3_000):
        recent.add(4_000.0, [frame(10_000 + n * 10 + i) for i in range(10)], (), 1)
    assert len(recent._frames) <= windows.MAX_FRAMES


def test_profiles_of_workers_merge():
    """JSON in between changes nothing; equal stacks add up, and labels tell the workers apart where that is wanted."""
    one, other = windows.Recent("blocked"), windows.Recent("blocked")
    one.add(5.0, (MAIN,), (("cause", "cpu"),), 10)
    other.add(5.0, (MAIN,), (("cause", "cpu"),), 20, 2)
    other.add(5.0, (MAIN, frame(1)), (), 5)
    profiles = [json.loads(json.dumps(recent.profile(60.0, 6.0, 1e9))) for recent in (one, other)]
    merged = data.merge(profiles)
    assert sums(merged) == {"app.main": 30, "app.main;app.f1": 5}
    assert merged["samples"][0]["count"] == 3
    apart = data.merge(data.labelled(profile, worker=str(i)) for i, profile in enumerate(profiles))
    assert [(sample["labels"].get("worker"), sample["ns"]) for sample in apart["samples"]] == [
        ("1", 20),
        ("0", 10),
        ("1", 5),
    ]
    assert data.total_ns(apart) == data.total_ns(merged) == 35
    least = data.merge(profiles, limit=1)
    assert (sums(least), least["dropped"]) == ({"_OTHER": 35}, 4)
    assert data.merge([])["samples"] == []


def test_names_of_tasks_do_not_make_stacks_of_their_own():
    """asyncio's own names say nothing, and numbers are one."""
    assert [task_label(name) for name in ("Task-12", "worker-3", "order 7/9", None)] == [
        "",
        "worker-N",
        "order N/N",
        "",
    ]

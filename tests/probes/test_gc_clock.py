"""The clock may be replaced in the middle of a collection, by another thread than the one that collects."""

import time

from obsloop.probes import gc as probe
from obsloop.testing import StepClock


def test_a_collection_between_two_clocks_takes_no_time(monkeypatch):
    """One that began by the real clock and ends by the test's, and the other way round: 0 s, not days."""
    monkeypatch.setattr(probe, "_pauses", [[0] * probe.STRIDE for _ in range(3)])
    began_ns = time.monotonic_ns()
    with StepClock(start=1.0):
        probe._on_gc("start", {"generation": 0})
    probe._on_gc("stop", {"generation": 0})
    probe._on_gc("start", {"generation": 0})
    with StepClock(start=1.0):
        probe._on_gc("stop", {"generation": 0})
    pauses = probe.collect()["cpython.gc.pause.duration"]["0",]
    assert pauses.count >= 2
    assert 0 <= pauses.sum <= (time.monotonic_ns() - began_ns) / 1e9

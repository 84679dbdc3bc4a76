"""Keep a few numbers of each loop for five minutes: time blocked, lag and utilization.

The thread `pages` takes a sample every five seconds, whether a person looks or not: who opens the page after an
incident must still see it. A sample is one snapshot, about a millisecond; only counters are kept, and the pages show
their differences.
"""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from obsloop.base import clock
from obsloop.base.fork import reset_in_child
from obsloop.metrics import registry
from obsloop.metrics.snapshot import Histogram, Snapshot
from obsloop.probes.collect import snapshots

STEP_SECONDS = 5.0
WINDOWS = {"10s": 10.0, "1m": 60.0, "5m": 300.0}
"""Window -> its length in seconds."""
MAX_LOOPS = 16
"""So many loops are kept in one sample, the running ones first."""
BLOCKS = "asyncio.eventloop.block.time"
LAG = "asyncio.eventloop.lag"
_KEPT = int(WINDOWS["5m"] / STEP_SECONDS) + 2
_SLACK = STEP_SECONDS / 2
"""A sample that is too young for a window by so much still begins it."""


class Point(NamedTuple):
    """The counters of one loop at one moment. Times are in seconds."""

    at: float
    """By `clock.seconds`."""
    ran: float
    idle: float
    blocked: float
    """Including the block that still lasts."""
    lag: Histogram | None
    """None if the loop does not measure it."""
    iterations: float = 0.0


class Rates(NamedTuple):
    """What happened between two points. None: the loop did not run."""

    seconds: float
    """The time between the points."""
    blocked_share: float | None
    lag_p99: float | None
    """In seconds; also None if the lag is not measured."""
    utilization: float | None
    iterations: float | None
    """Per second."""


_points: deque[dict[str, Point]] = deque(maxlen=_KEPT)


def sample() -> None:
    """Keep a sample of all loops. For one thread."""
    found = snapshots()
    _points.append(dict(list(points_of(found).items())[:MAX_LOOPS]))


def points_of(found: dict[str, Snapshot]) -> dict[str, Point]:
    """Return the points of these snapshots, those of running loops first."""
    now = clock.seconds()
    slow_after = {metrics.name: _slow_after(metrics) for metrics in registry.every_one()}
    ranked = sorted(found.items(), key=lambda item: not item[1].running)
    return {name: _point(snapshot, now, slow_after.get(name, 0.1)) for name, snapshot in ranked}


def points(name: str, last: Point) -> list[Point]:
    """Return the kept points of a loop, the oldest first, and its `last` one, which is not kept."""
    kept = [sample[name] for sample in _points.copy() if name in sample]
    while kept and last.at - kept[-1].at < 1.0:  # too short for a difference that means something
        kept.pop()
    return [*kept, last]


def over(found: Sequence[Point], seconds: float) -> Rates:
    """Return the rates of the last `seconds`, or since the oldest of the points."""
    last = found[-1]
    young = [point for point in found if last.at - point.at <= seconds + _SLACK]
    return between(young[0], last)


def line(found: Sequence[Point]) -> list[Rates]:
    """Return the rates between each two neighbours of the points."""
    return [between(one, other) for one, other in pairwise(found)]


def between(one: Point, other: Point) -> Rates:
    """Return what happened between two points of one loop."""
    ran = other.ran - one.ran
    seconds = other.at - one.at
    if ran <= 0:
        return Rates(seconds, None, None, None, None)
    return Rates(
        seconds,
        min(1.0, max(0.0, other.blocked - one.blocked) / ran),
        None if other.lag is None else _quantile(0.99, one.lag, other.lag),
        min(1.0, max(0.0, 1 - (other.idle - one.idle) / ran)),
        max(0.0, other.iterations - one.iterations) / ran,
    )


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _points  # noqa: PLW0603 - the parent's may have been half-way through a change
    _points = deque(maxlen=_KEPT)


def _point(snapshot: Snapshot, now: float, slow_after: float) -> Point:
    blocked = sum(seconds for seconds in snapshot[BLOCKS].values() if not isinstance(seconds, Histogram))
    if snapshot.blocked_time >= slow_after:
        blocked += snapshot.blocked_time
    lag = snapshot.data.get(LAG, {}).get(())
    return Point(
        now,
        snapshot.run_time,
        float(snapshot.value("asyncio.eventloop.time", "idle")),
        float(blocked),
        lag if isinstance(lag, Histogram) else None,
        float(snapshot.value("asyncio.eventloop.iterations")),
    )


def _slow_after(metrics: registry.LoopMetrics) -> float:
    """Return from how many seconds on a callback of these loops counts as a block."""
    loops = [loop for ref in list(metrics.live) if (loop := ref()) is not None]
    return min((float(loop.slow_callback_duration) for loop in loops), default=0.1)


def _quantile(share: float, one: Histogram | None, other: Histogram) -> float | None:
    """Return a quantile of what was counted between two readings of a histogram, in seconds."""
    before = one.bucket_counts if one is not None else (0,) * len(other.bucket_counts)
    counts = [max(0, n - was) for n, was in zip(other.bucket_counts, before, strict=True)]
    total = sum(counts)
    if not total:
        return None
    bounds = other.partition.bounds
    upto = 0
    for i, n in enumerate(counts):
        if n and upto + n >= share * total:
            lower = bounds[i - 1] if i else 0
            upper = bounds[i] if i < len(bounds) else lower
            return (lower + (upper - lower) * (share * total - upto) / n) / other.partition.units
        upto += n
    return None

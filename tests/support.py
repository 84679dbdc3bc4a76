"""What the tests at the top level share: figures as integers, known work to put on a loop, programs of their own.

What knows more than the public names is here only: `forget_everything`, `until_all_is_told`,
`state_of_watchdog` and `blocks_of`.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import obsloop
from obsloop.base import clock
from obsloop.blocking import endings, watchdog
from obsloop.metrics import registry
from obsloop.metrics.self_metrics import dropped
from obsloop.testing import StepClock

LIMIT = 60.0
"""Seconds after which a program is taken to hang. Far above what the busiest machine needs."""

STATES = ("idle", "poll", "callback", "gc", "overhead")
KINDS = ("task_step", "callback", "timer", "reader", "writer", "threadsafe", "signal", "other")
DURATION = "asyncio.eventloop.callback.duration"
DELAY = "asyncio.eventloop.schedule.delay"


def forget_everything() -> None:
    """Start the process's metrics from nothing, as if no loop had ever run."""
    registry.forget()
    dropped.update(dict.fromkeys(dropped, 0))


def until_all_is_told() -> None:
    """Wait until the watchdog has emitted the events of all blocks that are over."""
    end = time.monotonic() + LIMIT
    # In this order: an event that it has taken is on its way for as long as the watchdog is busy.
    while endings.ended_episodes or endings.open_episodes or (watchdog._life is not None and watchdog._life.busy_ns):
        assert time.monotonic() < end, f"the watchdog has something to report, and does not: {state_of_watchdog()}"
        time.sleep(0.01)


def state_of_watchdog() -> str:
    """What there is to know of the watchdog: its thread, where that is, and what it has to report."""
    life = watchdog._life
    lines = [
        f"_coming={watchdog._coming}, _refused={watchdog._refused}, _asleep={watchdog._asleep},"
        f" step clock: {clock.monotonic_ns is not clock.REAL}, now_ns={clock.REAL()}",
        *(f"ended: {ended}" for ended in endings.ended_episodes.copy()),
        *(
            f"open: {entry}, taken: {entry.obs.episode is not entry.episode}, state {entry.run.counters.state}"
            for entry in endings.open_episodes.copy()
        ),
    ]
    if life is None:
        return "\n".join(["no thread", *lines])
    frame = sys._current_frames().get(life.thread.ident or 0)
    return "\n".join(
        [
            f"alive={life.thread.is_alive()}, stop={life.stop}, busy_ns={life.busy_ns}, looked_ns={life.looked_ns},"
            f" watched_ns={life.watched_ns}, next_ns={life.next_ns}, lints_ns={life.lints_ns}",
            *lines,
            "".join(traceback.format_stack(frame)) if frame is not None else "no frame",
        ]
    )


def looks() -> int:
    """How often the watchdog has looked at the callback that runs now, in this thread."""
    obs = asyncio.get_running_loop()._obsloop
    episode = obs.episode
    if episode is None:
        return 0
    began_ns = obs.counters.tick_ns
    return sum(sight.at_ns >= began_ns for sight, _ in zip(episode.sightings, episode.samples, strict=False))


def block(seconds: float, least: int = 1) -> None:
    """Block the loop for so long, and on until the watchdog has looked at this callback so often.

    On a busy machine the watchdog may come late: a block of a fixed length could be over by then.
    """
    end = time.monotonic() + LIMIT
    time.sleep(seconds)
    while looks() < least:
        assert time.monotonic() < end, f"the watchdog has not looked: {state_of_watchdog()}"
        time.sleep(0.01)


def blocks_of(name: str) -> int:
    """How many blocks of counters the metrics of this name holds."""
    return len(registry._by_name[name].blocks())


def states_ns(snapshot: obsloop.Snapshot) -> dict[str, int]:
    """The time in each state, in nanoseconds."""
    return {state: round(snapshot.value("asyncio.eventloop.time", state) * 1e9) for state in STATES}


def ran_ns(snapshot: obsloop.Snapshot) -> int:
    """What the states sum up to, in nanoseconds."""
    return sum(states_ns(snapshot).values())


def buckets(histogram: obsloop.Histogram) -> Counter[int]:
    """The buckets that are not empty."""
    return Counter({i: n for i, n in enumerate(histogram.bucket_counts) if n})


def buckets_of(histogram: obsloop.Histogram, values: Iterable[float]) -> Counter[int]:
    """The buckets that `values` (in seconds, or plain counts) belong in."""
    units = histogram.partition.units
    return Counter(histogram.partition.index(round(value * units)) for value in values)


def assert_holds(histogram: obsloop.Histogram, values: Iterable[float]) -> None:
    """The histogram holds `values`, each in its bucket, their sum, and nothing else."""
    values = list(values)
    assert buckets(histogram) == buckets_of(histogram, values)
    units = histogram.partition.units
    assert round(histogram.sum * units) == sum(round(value * units) for value in values)


def kinds_with(snapshot: obsloop.Snapshot, signal: str, value: float) -> dict[str, int]:
    """The kinds that have values in the bucket of `value` (seconds), and how many."""
    found = {}
    for kind in KINDS:
        histogram = snapshot.histogram(signal, kind)
        n = histogram.bucket_counts[histogram.partition.index(round(value * 1e9))]
        if n:
            found[kind] = n
    return found


def counts(snapshot: obsloop.Snapshot, signal: str = DURATION) -> dict[str, int]:
    """How many callbacks of each kind there were, the kinds that had none left out."""
    return {kind: n for kind in KINDS if (n := snapshot.histogram(signal, kind).count)}


@contextlib.contextmanager
def stepped(make: Callable[..., obsloop.Loop] = obsloop.Loop) -> Iterator[tuple[StepClock, obsloop.Loop]]:
    """A loop in whose world time passes only when the clock is told so, or while the loop waits for a timer."""
    forget_everything()
    with StepClock() as clock:
        loop = make(clock.selector())
        try:
            yield clock, loop
        finally:
            loop.close()


def run_briefly(loop) -> None:
    """One iteration: what is ready now runs, and nothing after it."""
    loop.stop()
    loop.run_forever()


def program(source: str, *options: str, path: Iterable[str] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `source` in an interpreter of its own, with our import path and, of our variables, the choice of core."""
    head = f"import sys; sys.path[:] = {[*path, *sys.path]!r}\n"
    env = {k: v for k, v in os.environ.items() if k == "OBSLOOP_PURE" or not k.startswith(("PYTHON", "OBSLOOP_"))}
    env["OBSLOOP_LOG_BLOCKED_AFTER"] = "3600"  # a busy machine blocks any loop for half a second: it would be logged
    return subprocess.run(
        [sys.executable, *options, "-c", head + textwrap.dedent(source)],
        env=env | environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def output(source: str, *options: str, **environ: str) -> str:
    """What such a program prints; it must succeed, and say nothing on stderr."""
    done = program(source, "-W", "error", *options, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout

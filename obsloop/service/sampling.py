"""Sample the loops' threads a hundred times a second, for as long as a client asks: /debug/pprof/profile.

A thread of its own does this, so that it blocks neither the pages nor the scrape. Time in the poll is not sampled: the
loop waits for work there. While nothing asks, this costs nothing.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from obsloop.base import clock, gc_pause
from obsloop.base.fork import reset_in_child
from obsloop.introspect import frames as _frames, own_code, stacks
from obsloop.metrics import runs, self_metrics
from obsloop.metrics.counters import IN_CALLBACK, IN_OVERHEAD, Counters
from obsloop.profile.data import MAX_STACKS, OTHERS, Frame, Key, Profile, make
from obsloop.profile.labels import labels

HERTZ = 100
_STEP_NS = 1_000_000_000 // HERTZ
_BUSY = (IN_OVERHEAD, IN_CALLBACK)


class BusyError(Exception):
    """A profile is being taken already."""


class _Seen(NamedTuple):
    """One stack as it was read. It keeps the code objects alive, so that their ids stay theirs."""

    frames: _frames.Frames
    rule: own_code.OwnCode
    loop_name: str


_lock = threading.Lock()


@reset_in_child
def forked() -> None:
    """Make a new lock in a forked child: the thread that held the old one is not there."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


def allowed() -> bool:
    """Return whether the settings of a running loop allow it to be sampled, or no loop runs."""
    found = [loop for run in list(runs.runs.values()) if (loop := run.loop()) is not None]
    return not found or any(loop._obsloop.settings.pprof for loop in found)


def sample(seconds: float, rest: Callable[[float], None] = time.sleep) -> Profile:
    """Return the profile of the next ``seconds``. Raise BusyError if another thread takes one now."""
    lock = _lock
    if not lock.acquire(blocking=False):
        raise BusyError
    try:
        return _sample(seconds, rest)
    finally:
        lock.release()


def _sample(seconds: float, rest: Callable[[float], None]) -> Profile:
    epoch, began_ns = time.time(), clock.REAL()
    cpu_ns = time.thread_time_ns()
    ends_ns = began_ns + round(seconds * 1e9)
    seen: dict[Any, _Seen] = {}
    sums: dict[Any, list[int]] = {}
    last_ns = due_ns = began_ns
    marks = {run.counters: (began_ns, run.counters.idle_ns) for run in list(runs.runs.values())}
    while due_ns < ends_ns:
        due_ns = max(due_ns + _STEP_NS, last_ns + _STEP_NS // 2)  # after a delay, do not catch up
        rest(max(0, min(due_ns, ends_ns) - clock.REAL()) / 1e9)
        last_ns = clock.REAL()
        found = list(runs.runs.values())
        marks = {run.counters: marks.get(run.counters) or (last_ns, run.counters.idle_ns) for run in found}
        busy = [run for run in found if run.counters.state in _BUSY]
        if busy:
            with gc_pause.held:
                for run in busy:
                    ns = _busy_ns(marks, run.counters, last_ns)
                    _look(run, ns, seen, sums)
    resolved: dict[Key, tuple[int, int]] = {}
    for key, (ns, count) in sums.items():
        stack = _resolved(seen[key]) if key is not None else ((OTHERS,), ())
        known = resolved.get(stack, (0, 0))
        resolved[stack] = known[0] + ns, known[1] + count
    dropped = sums.get(None, [0, 0])[1]
    self_metrics.dropped["profile"] += dropped
    profile = make("running", epoch, seconds, dropped, ((key, ns, n) for key, (ns, n) in resolved.items()))
    self_metrics.add_time("profile", time.thread_time_ns() - cpu_ns)
    return profile


def _busy_ns(marks: dict[Counters, tuple[int, int]], counters: Counters, now_ns: int) -> int:
    """Return for how long a sample stands: the loop's time since its last sample, without that in which it was idle.

    So the sum is right although samples come late while a callback holds the GIL.
    """
    at_ns, idle_ns = marks[counters]
    idle_now_ns = counters.idle_ns
    marks[counters] = now_ns, idle_now_ns
    return max(0, now_ns - at_ns - max(0, idle_now_ns - idle_ns))


def _look(run: runs.Run, passed_ns: int, seen: dict[Any, _Seen], sums: dict[Any, list[int]]) -> None:
    """Read the stack of one loop's thread."""
    loop = run.loop()
    if loop is None or not loop._obsloop.settings.pprof:
        return
    frames = _frames.of_thread(run.ident)
    if not frames.codes:
        return
    # Not the codes themselves: to hash one, Python reads all of its names and constants.
    key: Any = (run.ident, tuple(map(id, frames.codes)), tuple(frames.lines))
    known = sums.get(key)
    if known is None:
        if len(sums) >= MAX_STACKS:
            key = None
        else:
            metrics = loop._obsloop.metrics
            name = metrics.name if metrics is not None else loop._obsloop.settings.name or ""
            seen[key] = _Seen(frames, loop._obsloop.own_code, name)
        known = sums.setdefault(key, [0, 0])
    known[0] += passed_ns
    known[1] += 1


def _resolved(seen: _Seen) -> Key:
    stack = stacks.take(seen.frames, seen.rule)
    found: tuple[Frame, ...] = tuple(
        (getattr(f, "function", "") or f.name, f.filename, f.lineno or 0, bool(getattr(f, "own", False)))
        for f in stack.frames
    )
    return found or (("(the loop itself)", "", 0, False),), labels(loop=seen.loop_name)

"""Is a process's loop blocked? What it knows itself, what it tells the others, and what they make of its silence."""

from __future__ import annotations

from typing import Any, NamedTuple

from obsloop.base import clock
from obsloop.blocking.recent import kept
from obsloop.events import LoopBlocked
from obsloop.hotpath.displaced import is_displaced
from obsloop.metrics import registry
from obsloop.metrics.reading import blocked_ns

SILENT_NS = 2_500_000_000
"""A process that has not written its heartbeat for so long is stuck: stopped, or in C code that holds the GIL."""
MAX_LOOPS = 10
MAX_TEXT = 100


class Health(NamedTuple):
    """The state of one process. Times are in nanoseconds."""

    process: int
    silent_ns: int
    """How long it has been silent beyond its usual pause; 0 if it is not."""
    loops: dict[str, int]
    """The running loops, and for how long each has been in its present callback; 0: it waits."""
    unhealthy_after_ns: int
    blocked_by: list[dict[str, Any]]
    """For each block that lasts: loop, culprit's function and file, cause."""

    @property
    def blocked(self) -> dict[str, int]:
        """The loops that are blocked for too long."""
        return {name: ns for name, ns in self.loops.items() if ns > self.unhealthy_after_ns}


def running() -> dict[str, int]:
    """Return the running loops of this process, and for how long each has been in its present callback."""
    found: dict[str, int] = {}
    for metrics in registry.every_one():
        for ref, counters in list(metrics.live.copy().items()):
            loop = ref()
            ns = None if loop is None or is_displaced(loop) else blocked_ns(counters)
            if ns is not None:
                found[metrics.name] = max(ns, found.get(metrics.name, 0))
    return found


def state(process: int, unhealthy_after: float) -> dict[str, Any]:
    """Return this process's heartbeat, as plain data."""
    loops = dict(list(running().items())[:MAX_LOOPS])
    blocked_by = [
        {
            "loop": event.loop_name[:MAX_TEXT],
            "function": event.culprit_function[:MAX_TEXT],
            "file": event.culprit_filename[-MAX_TEXT:],
            "line": event.culprit_lineno or 0,
            "cause": event.cause,
        }
        for event in (kept().events if any(loops.values()) else ())
        if isinstance(event, LoopBlocked) and event.loop_name in loops
    ]
    return {
        "process": process,
        "at_ns": clock.monotonic_ns(),
        "loops": {name[:MAX_TEXT]: ns for name, ns in loops.items()},
        "unhealthy_after_ns": int(unhealthy_after * 1e9),
        "blocked_by": blocked_by[:MAX_LOOPS],
    }


def of(beat: dict[str, Any]) -> Health | None:
    """Return what another process's heartbeat means now; None if it cannot be read.

    A loop that was in a callback then is in it still, unless the process has just moved on: so only the time at the
    heartbeat counts while the process is not silent.
    """
    try:
        age_ns = max(0, clock.monotonic_ns() - int(beat["at_ns"]))
        silent_ns = age_ns if age_ns > SILENT_NS else 0
        loops = {str(name): int(ns) + silent_ns for name, ns in beat["loops"].items()}
        after_ns = int(beat["unhealthy_after_ns"])
        return Health(int(beat["process"]), silent_ns, loops, after_ns, list(beat["blocked_by"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None

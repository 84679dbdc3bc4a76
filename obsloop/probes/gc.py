"""Garbage collection: how often, how long, and whose time it took.

A collection runs in the thread that started it, and stops the others only where they need the interpreter. So its time
belongs to the state of the loop that runs in that thread. ``gc.callbacks`` is the interpreter's own hook for it.
"""

from __future__ import annotations

import gc
from threading import get_ident
from typing import Any

from obsloop.base import clock
from obsloop.base.fork import reset_in_child
from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.counters import STRIDE, count_value
from obsloop.metrics.runs import runs
from obsloop.metrics.snapshot import Histogram, Value

_pauses: list[list[int]] = [[0] * STRIDE for _ in range(3)]
_started_ns = 0
_started_by: Any = None
"""The clock that ``_started_ns`` is from. A test may put another one in its place in the middle of a collection."""


def _on_gc(phase: str, info: dict[str, Any]) -> None:
    global _started_ns, _started_by  # noqa: PLW0603 - the interpreter runs one collection at a time
    now_ns = clock.monotonic_ns()
    run = runs.get(get_ident())
    counters = run.counters if run is not None else None
    if phase == "start":
        _started_ns, _started_by = now_ns, clock.monotonic_ns
        if counters is not None:
            counters.collection_began(now_ns)
    elif _started_ns:
        if _started_by is not clock.monotonic_ns:
            now_ns = _started_ns
        generation: int = info["generation"]
        count_value(_pauses[min(generation, 2)], 0, now_ns - _started_ns)
        _started_ns = 0
        if counters is not None and counters.gc_started_ns:
            counters.collection_ended(now_ns)


def install() -> None:
    """Listen to the collector. Calling this again has no effect."""
    if _on_gc not in gc.callbacks:
        gc.callbacks.append(_on_gc)


def collect() -> dict[str, dict[tuple[str, ...], Value]]:
    """Return the metrics of the process, by metric and generation."""
    blocks = [block[:] for block in _pauses]
    return {
        "cpython.gc.collections": {(str(g),): sum(block[1:]) for g, block in enumerate(blocks)},
        "cpython.gc.pause.duration": {
            (str(g),): Histogram.from_block(SECONDS, block) for g, block in enumerate(blocks)
        },
    }


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    for block in _pauses:
        block[:] = [0] * STRIDE

"""Which loops run now, and in which threads.

The loop's own thread adds an entry at the begin of each run and removes it at the end. Any thread may read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from threading import get_ident, get_native_id
from typing import TYPE_CHECKING, Any

from obsloop.base.fork import reset_in_child

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters


class Run:
    """One run of one loop."""

    __slots__ = ("counters", "ident", "loop", "native_id", "outer")

    def __init__(self, loop: Any, counters: Counters) -> None:
        self.ident = get_ident()
        self.native_id = get_native_id()
        self.counters = counters
        self.loop: weakref.ref[Any] = weakref.ref(loop)
        self.outer = runs.get(self.ident)
        """The run in whose callback this one was started, as some programs do it; else None."""


runs: dict[int, Run] = {}
"""By thread ident."""


def _nobody(run: Run) -> None:
    """Do nothing, before the watchdog's module sets ``wake``."""


wake: Callable[[Run], None] = _nobody
"""Called at the begin of each run. The watchdog sets it."""


def began(loop: Any, counters: Counters) -> None:
    """Add the run that begins in this thread."""
    run = Run(loop, counters)
    runs[run.ident] = run
    wake(run)


def ended(counters: Counters) -> None:
    """Remove the run that ends in this thread."""
    ident = get_ident()
    run = runs.get(ident)
    if run is None or run.counters is not counters:
        forget(counters)
    elif run.outer is None:
        del runs[ident]
    else:
        runs[ident] = run.outer


def forget(counters: Counters) -> None:
    """Remove the run with these counters, in whatever thread it was."""
    for ident, run in list(runs.items()):
        if run.counters is counters:
            runs.pop(ident, None)


@reset_in_child
def forked() -> None:
    """Keep in a forked child only the run of the thread that forked."""
    run = runs.get(get_ident())
    runs.clear()
    if run is not None:
        runs[run.ident] = run
        run.native_id = get_native_id()

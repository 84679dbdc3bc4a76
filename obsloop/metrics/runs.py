"""Which loops run now, and in which threads: what has to be known of a loop from outside its thread.

Entered and left by the loop's own thread, at the begin and end of each run; read from any thread.
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
        """The loop within whose callback this one runs, as some programs do it."""


runs: dict[int, Run] = {}
"""By thread ident."""


def _nobody(run: Run) -> None:
    """Nobody watches yet."""


wake: Callable[[Run], None] = _nobody
"""Called at the begin of each run: the watchdog's."""


def began(loop: Any, counters: Counters) -> None:
    """A run begins in this thread."""
    run = Run(loop, counters)
    runs[run.ident] = run
    wake(run)


def ended(counters: Counters) -> None:
    """It ends."""
    ident = get_ident()
    run = runs.get(ident)
    if run is None or run.counters is not counters:
        forget(counters)
    elif run.outer is None:
        del runs[ident]
    else:
        runs[ident] = run.outer


def forget(counters: Counters) -> None:
    """Whatever thread it was in, it runs no more."""
    for ident, run in list(runs.items()):
        if run.counters is counters:
            runs.pop(ident, None)


@reset_in_child
def forked() -> None:
    """In a forked child only the thread that forked is left."""
    run = runs.get(get_ident())
    runs.clear()
    if run is not None:
        runs[run.ident] = run
        run.native_id = get_native_id()

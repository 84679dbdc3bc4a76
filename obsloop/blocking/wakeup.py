"""Let the watchdog sleep, and let loops wake it up."""

from __future__ import annotations

import _thread
from contextlib import suppress
from typing import TYPE_CHECKING

from obsloop.base import clock
from obsloop.metrics.counters import NEVER_NS

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters


class Wakeup:
    """What the watchdog sleeps on. The compiled core's ``Wakeup`` checks healthy loops meanwhile, without the GIL."""

    __slots__ = ("_lock", "planned_ns", "switches")

    looks = False
    """Whether this class checks loops."""

    def __init__(self, min_threshold_ns: int, floor_ns: int, late_ns: int) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()  # held while there is nothing to report; ``notify`` releases it
        self.planned_ns = 0
        """When the present sleep is to end; one ``wait`` may consist of several sleeps."""
        self.switches = -1
        """How often the thread had been taken off its CPU when the present sleep began; -1: not known."""

    def notify(self) -> None:
        """End the present wait, or the next."""
        with suppress(RuntimeError):  # it is notified already
            self._lock.release()

    def wait(self, watched: list[tuple[Counters, int]], until_ns: int, asking_ns: int) -> bool:
        """Wait for ``notify``, at most until ``until_ns`` (from ``NEVER_NS`` on: for ever). Return whether it came.

        A class that ``looks`` also returns when one of the ``watched`` (each with its thread's native id) may be
        blocked; when it woke late; and, from ``asking_ns`` on, when one is idle: then a check with the GIL is free.
        """
        if until_ns >= NEVER_NS:
            return self._lock.acquire()
        return self._lock.acquire(timeout=max(0, until_ns - clock.REAL()) / 1e9)

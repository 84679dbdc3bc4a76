"""Counters by labels that come from outside, a program's names: bounded, and what is past the bound is counted, too.

Who came first keeps its series: a counter that gave way to a busier one would go back, and rates over it would lie.
"""

from __future__ import annotations

import threading

from obsloop._catalog import OTHER


class BoundedCounts:
    """Counters by label values, of which the first has at most ``bound`` values; the rest is ``_OTHER``.

    For what happens rarely: counting takes a lock.
    """

    __slots__ = ("_bound", "_counts", "_folded", "_lock", "_values")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self.forked()

    def add(self, value: str, *others: str) -> None:
        """One more of these label values."""
        with self._lock:
            if value not in self._values:
                if len(self._values) < self._bound:
                    self._values.add(value)
                else:
                    self._folded += 1
                    value = OTHER
            labels = (value, *others)
            self._counts[labels] = self._counts.get(labels, 0) + 1

    def points(self) -> dict[tuple[str, ...], int]:
        """The counts by label values."""
        with self._lock:
            return dict(self._counts)

    @property
    def folded(self) -> int:
        """How many went into ``_OTHER``."""
        return self._folded

    def forked(self) -> None:
        """Start from nothing."""
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._counts: dict[tuple[str, ...], int] = {}
        self._folded = 0

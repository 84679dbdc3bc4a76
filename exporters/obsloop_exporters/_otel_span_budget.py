"""Limit how many spans are made, with a token bucket: what is rare may happen often one day."""

from __future__ import annotations

import threading
import time


class Budget:
    """A budget of so many spans a minute on average, and so many at once. For any thread."""

    __slots__ = ("_at_ns", "_lock", "_most", "_tokens")

    def __init__(self, per_minute: int) -> None:
        self._most = self._tokens = float(per_minute)
        self._at_ns = time.monotonic_ns()
        self._lock = threading.Lock()

    def take(self, number: int) -> bool:
        """Take ``number`` tokens or none. Return whether it did. A full bucket gives more than it holds, on credit."""
        with self._lock:
            now_ns = time.monotonic_ns()
            self._tokens = min(self._most, self._tokens + (now_ns - self._at_ns) / 60e9 * self._most)
            self._at_ns = now_ns
            if not self._most or self._tokens < min(number, self._most):
                return False
            self._tokens -= number
            return True

    def give_back(self, number: int) -> None:
        """Give back tokens that were not needed."""
        with self._lock:
            self._tokens += number

    def forked(self) -> None:
        """Replace the lock in a forked child: a thread that is gone may hold it."""
        self._lock = threading.Lock()

"""How many spans may be made: a token bucket, for what is rare may happen often one day."""

from __future__ import annotations

import threading
import time


class Budget:
    """So many a minute on average, and so many at once. Of any thread's."""

    __slots__ = ("_at_ns", "_lock", "_most", "_tokens")

    def __init__(self, per_minute: int) -> None:
        self._most = self._tokens = float(per_minute)
        self._at_ns = time.monotonic_ns()
        self._lock = threading.Lock()

    def take(self, number: int) -> bool:
        """Take so many, or none. More than there can ever be are given on credit, when the bucket is full."""
        with self._lock:
            now_ns = time.monotonic_ns()
            self._tokens = min(self._most, self._tokens + (now_ns - self._at_ns) / 60e9 * self._most)
            self._at_ns = now_ns
            if not self._most or self._tokens < min(number, self._most):
                return False
            self._tokens -= number
            return True

    def give_back(self, number: int) -> None:
        """They were not needed."""
        with self._lock:
            self._tokens += number

    def forked(self) -> None:
        """In a forked child: whoever held the lock is gone."""
        self._lock = threading.Lock()

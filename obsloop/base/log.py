"""obsloop's logger, and two ways to log rarely: once, and at most once in ``EVERY_SECONDS``."""

from __future__ import annotations

import logging

from obsloop.base import clock
from obsloop.base.fork import reset_in_child

MAX_KEYS = 1_000
EVERY_SECONDS = 10.0

logger = logging.getLogger("obsloop")
_logged: set[str] = set()
_throttles: list[Throttle] = []


def first_time(key: str) -> bool:
    """Return whether this is the process's first call with this key. After ``MAX_KEYS`` keys, always False."""
    if key in _logged or len(_logged) >= MAX_KEYS:
        return False
    _logged.add(key)
    return True


class Throttle:
    """Let one line per key through in ``EVERY_SECONDS``, and count the others."""

    def __init__(self) -> None:
        self._last: dict[object, tuple[float, int, float]] = {}
        _throttles.append(self)

    def left_out(self, key: object) -> int | None:
        """Return how many lines with this key were left out since the last one; None if this line must be left out."""
        found = self.left_out_with_sum(key, 0.0)
        return None if found is None else found[0]

    def left_out_with_sum(self, key: object, value: float) -> tuple[int, float] | None:
        """Return how many lines with this key were left out since the last one, and the sum of their values.

        ``value`` is this line's. None if this line must be left out. It keeps ``MAX_KEYS`` keys; all later keys share
        one.
        """
        now = clock.seconds()
        if key not in self._last and len(self._last) >= MAX_KEYS:
            key = None
        last, left_out, total = self._last.get(key, (now - EVERY_SECONDS, 0, 0.0))
        if now - last < EVERY_SECONDS:
            self._last[key] = last, left_out + 1, total + value
            return None
        self._last[key] = now, 0, 0.0
        return left_out, total

    def forget(self) -> None:
        """Let the next line of each key through."""
        self._last.clear()


@reset_in_child
def forked() -> None:
    """Forget in a forked child what the parent has logged."""
    _logged.clear()
    for throttle in _throttles:
        throttle.forget()

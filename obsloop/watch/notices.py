"""Log lines about loops that are blocked for long: few, however often it happens."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from obsloop._events import LoopBlocked
from obsloop.watch import stacks

_log = logging.getLogger("obsloop")

_EVERY_SECONDS = 10.0

_told: dict[str, tuple[float, int]] = {}
"""Loop name -> when a line was last written, and how many have been left out since."""


def blocked(event: LoopBlocked, duration: float, cause: str, where: str, *, over: bool) -> None:
    """Say that a loop has been blocked for ``duration`` seconds; at most once in a while for each loop."""
    now = time.monotonic()
    last, left_out = _told.get(event.loop_name, (now - _EVERY_SECONDS, 0))
    if now - last < _EVERY_SECONDS:
        _told[event.loop_name] = last, left_out + 1
        return
    _told[event.loop_name] = now, 0
    frames = event.samples[-1][1] if event.samples else ()
    with suppress(Exception):  # a logging handler of the program's that raises: there is nobody left to tell
        _log.warning(
            "loop %s %s blocked for %.1f s by %s (%s:%d), cause: %s%s%s%s",
            event.loop_name, "was" if over else "has been", duration, event.name, event.filename, event.lineno, cause,
            f"; {where}" if where else "",
            f" ({left_out} more such blocks were not logged)" if left_out else "",
            stacks.lines(frames),
        )  # fmt: skip


def forked() -> None:
    """In a forked child nothing has been said yet."""
    _told.clear()

"""Log that a loop is blocked for long: few lines, however often it happens."""

from __future__ import annotations

from obsloop.base.guarded import harmless
from obsloop.base.log import Throttle, logger
from obsloop.events import LoopBlocked
from obsloop.introspect import stacks
from obsloop.introspect.attributes import printable

_throttle = Throttle()
"""By loop name."""


def blocked(event: LoopBlocked, duration: float, cause: str, where: str, *, over: bool) -> None:
    """Log that a loop has been blocked for ``duration`` seconds; at most once in a while for each loop name."""
    left_out = _throttle.left_out(event.loop_name)
    if left_out is None:
        return
    frames = event.samples[-1][1] if event.samples else ()
    with harmless:  # a logging handler of the program's may raise
        logger.warning(
            "loop %s %s blocked for %.1f s by %s (%s:%d), cause: %s%s%s%s",
            printable(event.loop_name), "was" if over else "has been", duration, printable(event.name),
            printable(event.filename), event.lineno, cause, f"; {where}" if where else "",
            f" ({left_out} more such blocks were not logged)" if left_out else "",
            stacks.lines(frames),
        )  # fmt: skip

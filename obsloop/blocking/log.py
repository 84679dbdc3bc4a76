"""Log lines about loops that are blocked for long: few, however often it happens."""

from __future__ import annotations

import logging
import time

from obsloop.base.guarded import harmless
from obsloop.events import LoopBlocked, TaskLint
from obsloop.introspect import stacks
from obsloop.introspect.attributes import printable

_log = logging.getLogger("obsloop")

_EVERY_SECONDS = 10.0

_told: dict[str, tuple[float, int]] = {}
"""Loop name -> when a line was last written, and how many have been left out since."""
_linted: dict[tuple[str, str], tuple[float, int]] = {}
"""The same by loop name and lint."""


def blocked(event: LoopBlocked, duration: float, cause: str, where: str, *, over: bool) -> None:
    """Say that a loop has been blocked for ``duration`` seconds; at most once in a while for each loop."""
    now = time.monotonic()
    last, left_out = _told.get(event.loop_name, (now - _EVERY_SECONDS, 0))
    if now - last < _EVERY_SECONDS:
        _told[event.loop_name] = last, left_out + 1
        return
    _told[event.loop_name] = now, 0
    frames = event.samples[-1][1] if event.samples else ()
    with harmless:  # a logging handler of the program's may raise
        _log.warning(
            "loop %s %s blocked for %.1f s by %s (%s:%d), cause: %s%s%s%s",
            printable(event.loop_name), "was" if over else "has been", duration, printable(event.name),
            printable(event.filename), event.lineno, cause, f"; {where}" if where else "",
            f" ({left_out} more such blocks were not logged)" if left_out else "",
            stacks.lines(frames),
        )  # fmt: skip


def lint(event: TaskLint) -> None:
    """Say that something is wrong with tasks; at most once in a while for each loop and lint."""
    now = time.monotonic()
    key = (event.loop_name, event.lint)
    last, left_out = _linted.get(key, (now - _EVERY_SECONDS, 0))
    if now - last < _EVERY_SECONDS:
        _linted[key] = last, left_out + 1
        return
    _linted[key] = now, 0
    with harmless:  # a logging handler of the program's may raise
        _log.warning(
            "%s on loop %s: %s%s (%s:%d) %s%s%s%s",
            event.lint, printable(event.loop_name), printable(event.name),
            f" (task {printable(event.task_name)})" if event.task_name else "",
            printable(event.filename), event.lineno, printable(event.message),
            f"; {event.count} tasks" if event.count > 1 and event.lint != "growing" else "",
            f"; {printable(event.detail)}" if event.detail else "",
            f" ({left_out} more such findings were not logged)" if left_out else "",
        )  # fmt: skip


def forked() -> None:
    """In a forked child nothing has been said yet."""
    _told.clear()
    _linted.clear()

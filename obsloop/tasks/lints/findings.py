"""What comes of what the lints find: it is counted, told once (again only when there is twice as much of it, or it had
been over), kept for ``/tasks`` and logged.

Each finding belongs to a group, all tasks of one coroutine on one loop, so that a thousand tasks with one mistake are
one piece of news. Groups are bounded; what finds no room is counted. Any thread may come here: what a lint tells about
an exception is told by whoever's garbage collection let go of it, so there is no lock, only single atomic steps.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import count
from typing import Any, NamedTuple

from obsloop.base import clock, gc_pause
from obsloop.base.fork import reset_in_child
from obsloop.base.guarded import harmless
from obsloop.base.log import Throttle, logger
from obsloop.events import TaskLint
from obsloop.instruments import emit
from obsloop.introspect.attributes import printable
from obsloop.introspect.functions import Site
from obsloop.metrics.self_metrics import dropped

MAX_GROUPS = 1_000
"""Of each lint. Groups come from the program's text; only one that makes coroutines as it goes has more."""
KEPT = 100
AGAIN_SECONDS = 60.0
"""What was over and is there again is news after so long only."""

Key = tuple[Any, ...]


class Recent(NamedTuple):
    """What is kept of what was told, at one moment."""

    events: list[TaskLint]
    """Newest first."""
    older: int
    """How many there were before these."""


_numbers = count()
_throttle = Throttle()
"""By loop name and lint."""
_kept: deque[tuple[int, TaskLint]] = deque(maxlen=KEPT)


class _Told:
    """How much of a group has been told."""

    __slots__ = ("at", "level")

    def __init__(self) -> None:
        self.level = 0
        """The number that was told last; after it has fallen to half, that half, so that a new rise is news."""
        self.at = 0.0


class Groups:
    """The hysteresis of one lint."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[Key, _Told] = {}

    def is_news(self, key: Key, n: int) -> bool:
        """There are ``n`` in this group now: whether that is to be told."""
        told = self._told.get(key)
        now = clock.seconds()
        if told is None:
            if n < 1:
                return False
            if len(self._told) >= MAX_GROUPS:
                self._forget_settled(now)
            if len(self._told) >= MAX_GROUPS:
                dropped["task_lint"] += 1
                return False
            told = self._told[key] = _Told()
        elif n <= told.level // 2:
            told.level = n
            return False
        elif n < 2 * told.level or (not told.level and now - told.at < AGAIN_SECONDS):
            return False
        told.level, told.at = n, now
        return True

    def level(self, key: Key) -> int:
        """The number that was told of it, or what has become of that; 0 where it was not told, or is over."""
        told = self._told.get(key)
        return 0 if told is None else told.level

    def settle(self, present: set[Key]) -> None:
        """Of all other groups there is nothing left."""
        for key in list(self._told):
            if key not in present:
                self.is_news(key, 0)

    def _forget_settled(self, now: float) -> None:
        for key, told in list(self._told.items()):
            if not told.level and now - told.at >= AGAIN_SECONDS:
                self._told.pop(key, None)


def add(obs: Any, lint: str, n: int = 1) -> None:
    """Count ``n`` findings."""
    if obs.metrics is not None and n > 0:
        obs.metrics.labelled.count("asyncio.task.lint", lint, n=n)


def tell(
    obs: Any,
    lint: str,
    site: Site,
    message: str,
    *,
    n: int = 1,
    seconds: float = 0.0,
    detail: str = "",
    log: bool = True,
) -> None:
    """Tell of ``n`` tasks, one of which is ``site``, that it has been so for ``seconds``."""
    now = time.time()
    event = TaskLint(
        loop_name=obs.metrics.name if obs.metrics is not None else obs.settings.name or "",
        kind="task_step",
        **site.fields(),
        duration=seconds,
        schedule_delay=0.0,
        started_at=now - seconds,
        detail=detail,
        lint=lint,
        message=message,
        count=n,
        last_seen=now,
    )
    _kept.append((next(_numbers), event))
    gc_pause.let_go()  # hooks and logging handlers are the program's code, and may wait
    emit(obs.instruments, "on_task_lint", event)
    if log:
        _log(event)


def kept() -> Recent:
    """What is kept now, and how much more there was. From any thread."""
    for _ in range(100):
        try:
            entries = list(_kept)
        except RuntimeError:  # where copying is not one step, a writer may come between
            continue
        noted = max((number for number, _ in entries), default=-1) + 1
        return Recent([event for _, event in reversed(entries)], noted - len(entries))
    return Recent([], 0)


def _log(event: TaskLint) -> None:
    """Say that something is wrong with tasks; at most once in a while for each loop and lint."""
    left_out = _throttle.left_out((event.loop_name, event.lint))
    if left_out is None:
        return
    with harmless:  # a logging handler of the program's may raise
        logger.warning(
            "%s on loop %s: %s%s (%s:%d) %s%s%s%s",
            event.lint, printable(event.loop_name), printable(event.name),
            f" (task {printable(event.task_name)})" if event.task_name else "",
            printable(event.filename), event.lineno, printable(event.message),
            f"; {event.count} tasks" if event.count > 1 and event.lint != "growing" else "",
            f"; {printable(event.detail)}" if event.detail else "",
            f" ({left_out} more such findings were not logged)" if left_out else "",
        )  # fmt: skip


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _kept, _numbers
    fresh: deque[tuple[int, TaskLint]] = deque(maxlen=KEPT)
    _kept, _numbers = fresh, count()

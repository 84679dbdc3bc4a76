"""What happens to the lints' findings: they are counted, reported once, kept for ``/tasks`` and logged.

All tasks of one coroutine on one loop form a group, so a thousand tasks with one mistake are reported once. A group is
reported again when its number doubles, or when it was over and comes back. The number of groups is bounded; a finding
without room is counted as dropped. Any thread may call this: an exception that was never retrieved is reported by the
thread that released the task. So there is no lock, only single atomic steps.
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
"""Per lint. Groups come from the program's text; only a program that makes coroutine functions as it runs has more."""
KEPT = 100
AGAIN_SECONDS = 60.0
"""A group that was over and comes back is reported only after so long."""

Key = tuple[Any, ...]


class Recent(NamedTuple):
    """The kept findings at one moment."""

    events: list[TaskLint]
    """Newest first."""
    older: int
    """How many there were before these."""


_numbers = count()
_throttle = Throttle()
"""By loop name and lint."""
_kept: deque[tuple[int, TaskLint]] = deque(maxlen=KEPT)


class _Reported:
    """How much of a group has been reported."""

    __slots__ = ("at", "level")

    def __init__(self) -> None:
        self.level = 0
        """The number reported last. After it has fallen to half, that half, so that a new rise is reported."""
        self.at = 0.0


class Groups:
    """The hysteresis of one lint."""

    __slots__ = ("_reported",)

    def __init__(self) -> None:
        self._reported: dict[Key, _Reported] = {}

    def is_news(self, key: Key, n: int) -> bool:
        """Return whether to report the group, which has ``n`` members now."""
        reported = self._reported.get(key)
        now = clock.seconds()
        if reported is None:
            if n < 1:
                return False
            if len(self._reported) >= MAX_GROUPS:
                self._forget_settled(now)
            if len(self._reported) >= MAX_GROUPS:
                dropped["task_lint"] += 1
                return False
            reported = self._reported[key] = _Reported()
        elif n <= reported.level // 2:
            reported.level = n
            return False
        elif n < 2 * reported.level or (not reported.level and now - reported.at < AGAIN_SECONDS):
            return False
        reported.level, reported.at = n, now
        return True

    def level(self, key: Key) -> int:
        """Return the number reported last, or what it has fallen to; 0 if none was reported or the group is over."""
        reported = self._reported.get(key)
        return 0 if reported is None else reported.level

    def settle(self, present: set[Key]) -> None:
        """Note that all other groups are empty."""
        for key in list(self._reported):
            if key not in present:
                self.is_news(key, 0)

    def _forget_settled(self, now: float) -> None:
        for key, reported in list(self._reported.items()):
            if not reported.level and now - reported.at >= AGAIN_SECONDS:
                self._reported.pop(key, None)


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
    executor: str = "",
    log: bool = True,
) -> None:
    """Report ``n`` tasks, one of which is ``site``, for which this has held for ``seconds``."""
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
        executor=executor,
    )
    _kept.append((next(_numbers), event))
    gc_pause.let_go()  # hooks and logging handlers are the program's code, and may wait
    emit(obs.instruments, "on_task_lint", event)
    if log:
        _log(event)


def kept() -> Recent:
    """Return the kept findings and how many older ones there were. From any thread."""
    for _ in range(100):
        try:
            entries = list(_kept)
        except RuntimeError:  # if copying is not one step, a writer may come between
            continue
        noted = max((number for number, _ in entries), default=-1) + 1
        return Recent([event for _, event in reversed(entries)], noted - len(entries))
    return Recent([], 0)


def _log(event: TaskLint) -> None:
    """Log a finding, at most once in a while for each loop and lint."""
    left_out = _throttle.left_out((event.loop_name, event.lint))
    if left_out is None:
        return
    in_tasks = event.count > 1 and event.lint not in ("growing", "executor_starved")  # their messages have the number
    with harmless:  # a logging handler of the program's may raise
        logger.warning(
            "%s on loop %s: %s%s%s %s%s%s%s",
            event.lint, printable(event.loop_name), printable(event.name),
            f" (task {printable(event.task_name)})" if event.task_name else "",
            f" ({printable(event.filename)}:{event.lineno})" if event.filename else "",
            printable(event.message),
            f"; {event.count} tasks" if in_tasks else "",
            f"; {printable(event.detail)}" if event.detail else "",
            f" ({left_out} more such findings were not logged)" if left_out else "",
        )  # fmt: skip


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _kept, _numbers
    fresh: deque[tuple[int, TaskLint]] = deque(maxlen=KEPT)
    _kept, _numbers = fresh, count()

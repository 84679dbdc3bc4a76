"""Measure what a thread has used of the machine, from any thread, so that two moments can be compared.

For a loop's thread: CPU time, time on the run queue, time slices (the last two from Linux' ``/proc``), idle time and
garbage collection. For the watchdog: how late it woke, and its slices meanwhile. None where a system has no number.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import suppress
from threading import get_native_id
from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.base import clock
from obsloop.base.fork import reset_in_child
from obsloop.metrics.counters import IN_IDLE, IN_POLL

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters

resource: Any = None
if sys.platform == "linux":
    import resource

_LINUX = sys.platform == "linux"
_MOST_FILES = 32
_QUEUE_NS = 1_000_000_000  # so old may the kernel's numbers of a busy thread be
_FIGHT_SLICES = 20
WORTH_ASKING_NS = 10_000_000  # for a shorter time, the kernel is not asked how much was on the run queue
LATE_NS = 2_000_000  # a smaller lateness is within the precision of a timed wait


class Scheduling(NamedTuple):
    """The kernel's counters of one thread."""

    cpu_ns: int
    wait_ns: int
    """Time on the run queue: the thread could have run, but did not."""
    slices: int
    """How often it was put on a CPU."""


class SchedStat(NamedTuple):
    """The kernel's counters of a loop's thread at one moment, and what else the thread had used by then."""

    at_ns: int
    idle_ns: int
    cpu_ns: int
    wait_ns: int
    slices: int
    waits: int
    """Polls that might wait: each may be the reason of one slice."""


class Usage(NamedTuple):
    """What a loop's thread had used at one moment, in nanoseconds from an arbitrary start."""

    at_ns: int
    began_ns: int
    tick_ns: int
    idle_ns: int
    gc_ns: int
    cpu_ns: int | None
    queue: SchedStat | None
    """The kernel's counters, which may be a little older."""


class UsageHistory(NamedTuple):
    """The last two measurements of a loop's thread, at least one from before the present iteration."""

    native_id: int
    newer: Usage
    older: Usage | None
    over_ns: int = 0
    """When the last iteration began whose end was reported."""

    def before(self, moment_ns: int) -> Usage | None:
        """Return the last measurement that was made by then, if any."""
        return self.newer if self.newer.at_ns <= moment_ns else self.older


class _File:
    """An open ``schedstat``. It stays open, since opening takes six times as long as reading."""

    __slots__ = ("fd", "identity", "used_ns")

    def __init__(self, native_id: int) -> None:
        self.fd = os.open(f"/proc/self/task/{native_id}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self.identity = _identity(self.fd)
        self.used_ns = 0

    def close(self) -> None:
        # The program may have closed all descriptors, and the number may be another file's by now.
        with suppress(OSError):
            if _identity(self.fd) == self.identity:
                os.close(self.fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


_files: dict[int, _File] = {}


def scheduling(native_id: int) -> Scheduling | None:
    """Return the kernel's counters of a thread of this process; None if there are none or the thread is gone."""
    if not _LINUX:
        return None
    for _ in range(2):
        try:
            file = _files.get(native_id) or _open(native_id)
            cpu, wait, slices = os.pread(file.fd, 96, 0).split()
            file.used_ns = clock.REAL()
            return Scheduling(int(cpu), int(wait), int(slices))
        except (OSError, ValueError):  # the thread is gone, or the program closed obsloop's file: try once more
            lost = _files.pop(native_id, None)
            if lost is None:
                return None
            lost.close()
    return None


def prepare(native_id: int) -> None:
    """Open the file of a thread for later calls of ``scheduling``.

    Programs and their tests count open descriptors. So this happens before the program's code runs in the thread, the
    file stays open while the thread lives, and files of gone threads are closed only when another one is opened.
    """
    if _LINUX and native_id not in _files:
        with suppress(OSError):
            _open(native_id)


def _open(native_id: int) -> _File:
    """Open a thread's file, and close those of threads that are gone. Raise OSError if that fails."""
    close_unused(_MOST_FILES // 2 if len(_files) >= _MOST_FILES else _MOST_FILES)
    file = _File(native_id)
    kept = _files.setdefault(native_id, file)
    if kept is not file:  # another thread has opened it meanwhile
        file.close()
    return kept


def close_unused(keep: int = _MOST_FILES) -> None:
    """Close the files of threads that are gone, and the least recently used ones beyond ``keep``."""
    oldest_first = sorted(_files.copy().items(), key=lambda item: item[1].used_ns)
    for i, (native_id, file) in enumerate(oldest_first):
        gone = i < len(oldest_first) - keep or not os.path.exists(f"/proc/self/task/{native_id}")
        if gone and _files.pop(native_id, None) is file:
            file.close()


def cpu_time_ns(native_id: int) -> int | None:
    """Return the CPU time of a thread of this process, in nanoseconds; None if not known."""
    if native_id == get_native_id():
        return time.thread_time_ns()
    if not _LINUX:
        return None
    try:
        # The clock id that pthread_getcpuclockid() makes; from the kernel's thread id it is harmless for a gone thread.
        return time.clock_gettime_ns((~native_id << 3) | 6)
    except OSError:
        return None


def measure(counters: Counters, native_id: int, queue: SchedStat | None = None) -> Usage:
    """Measure what the thread ``native_id``, in which the loop of ``counters`` runs, has used by now.

    With a ``queue``, the kernel's files are not read: reading releases the GIL.
    """
    gc_ns = counters.collecting_ns()
    tick_ns, state, idle_ns, began_ns = counters.tick_ns, counters.state, counters.idle_ns, counters.began_ns
    now_ns = clock.monotonic_ns()
    if state == IN_IDLE:
        idle_ns += max(0, now_ns - tick_ns)
    cpu_ns = cpu_time_ns(native_id)
    if queue is None and cpu_ns is not None:
        stat = scheduling(native_id)
        queue = (
            SchedStat(now_ns, idle_ns, cpu_ns, stat.wait_ns, stat.slices, counters.waits) if stat is not None else None
        )
    return Usage(now_ns, began_ns, tick_ns, idle_ns, gc_ns, cpu_ns, queue)


def look(obs: Any, counters: Counters, native_id: int) -> None:
    """Measure the loop's thread for later comparisons, unless that would gain nothing.

    For a busy loop, ask the kernel once a second only. Asking releases the GIL, and to get it back from a loop that
    polls every few microseconds takes a hundred tries.
    """
    own: UsageHistory | None = obs.usage
    older: Usage | None = None
    queue: SchedStat | None = None
    over_ns = 0 if own is None else own.over_ns
    waits = counters.state in (IN_IDLE, IN_POLL)
    if own is not None and own.native_id == native_id:
        older = own.newer
        if older.tick_ns == counters.tick_ns:
            return  # nothing has happened since the last measurement: it waits
        if older.began_ns == counters.began_ns and not waits:
            return  # after two within one iteration, none might be left from before it
        queue = older.queue
        if queue is not None and (counters.state == IN_IDLE or clock.monotonic_ns() - queue.at_ns > _QUEUE_NS):
            queue = None
    obs.usage = UsageHistory(native_id, measure(counters, native_id, queue), older, over_ns)


def iteration_ended(obs: Any, counters: Counters, began_ns: int, native_id: int) -> None:
    """Measure this thread at the end of a slow iteration, for comparison with what comes next."""
    obs.usage = UsageHistory(native_id, measure(counters, native_id), None, began_ns)


def known(obs: Any, counters: Counters) -> UsageHistory | None:
    """Return the last two measurements of the loop's thread, from ``look`` and from those made without the GIL.

    If any is from before the present iteration, one of the two is.
    """
    own: UsageHistory | None = obs.usage
    stat = counters.looks()
    if stat is None:
        return own
    native_id, looks = stat
    found: list[Usage] = []
    queues: list[SchedStat] = []
    if own is not None and own.native_id == native_id:
        found = [own.newer] if own.older is None else [own.older, own.newer]
        queues = [usage.queue for usage in found if usage.queue is not None]
    elif own is not None and own.newer.at_ns > looks[-1][0]:
        return own
    for at_ns, began_ns, tick_ns, idle_ns, gc_ns, cpu_ns in looks:
        queue = max((queue for queue in queues if queue.at_ns <= at_ns), key=lambda queue: queue.at_ns, default=None)
        found.append(Usage(at_ns, began_ns, tick_ns, idle_ns, gc_ns, cpu_ns, queue))
    found.sort(key=lambda usage: usage.at_ns)
    newer = found.pop()
    older = [usage for usage in found if usage.at_ns <= counters.began_ns][-1:] or found[:1]
    return UsageHistory(native_id, newer, older[0] if older else None, 0 if own is None else own.over_ns)


def is_over(obs: Any, began_ns: int) -> bool:
    """Return whether the end of the iteration that began then is reported: its thread is on the way to the poll."""
    own: UsageHistory | None = obs.usage
    return own is not None and own.over_ns == began_ns


# ---- the watchdog itself ---------------------------------------------------------------------------------------------


class LateWakeup(NamedTuple):
    """A sleep of the watchdog that lasted too long or was disturbed."""

    planned_ns: int
    woke_ns: int
    wait_ns: int
    slices: int


class _Sleep(NamedTuple):
    native_id: int
    wakeup: Any
    """Has ``planned_ns`` and ``switches`` of the present sleep: one wait may consist of many sleeps."""

    def slices(self) -> int | None:
        """Return the slices that ``scheduling`` would have counted at the sleep's begin."""
        known = self.wakeup.switches >= 0 and _watchdog.known is not None
        return self.wakeup.switches + _watchdog.offset if known else None


class _Watchdog:
    """The watchdog's last late wakeups, and its present sleep."""

    __slots__ = ("known", "known_ns", "late", "offset", "sleep", "woke_ns")

    def __init__(self) -> None:
        self.woke_ns = self.known_ns = 0
        self.offset = 1  # a running thread was put on a CPU once more than taken off
        self.known: Scheduling | None = None
        """The kernel's last counters of it. The kernel is not asked each time."""
        self.sleep: _Sleep | None = None
        self.late: deque[LateWakeup] = deque(maxlen=16)


_watchdog = _Watchdog()


def _switches() -> int:
    """Return how often this thread was taken off its CPU. Does not release the GIL."""
    used: Any = resource.getrusage(resource.RUSAGE_THREAD)
    return int(used.ru_nvcsw + used.ru_nivcsw)


def _own_slices() -> int | None:
    """Return this thread's slices without asking ``scheduling``: the two differ by a few in a thousand."""
    return _switches() + _watchdog.offset if resource is not None and _watchdog.known is not None else None


def falls_asleep(planned_ns: int, wakeup: Any) -> None:
    """Note that the watchdog is going to sleep until ``planned_ns``, on ``wakeup``."""
    native_id = get_native_id()
    if planned_ns - _watchdog.known_ns > _QUEUE_NS and resource is not None:
        before = _switches()
        _watchdog.known, _watchdog.known_ns = scheduling(native_id), planned_ns
        if _watchdog.known is not None and before == _switches():
            _watchdog.offset = _watchdog.known.slices - before
    wakeup.planned_ns, wakeup.switches = planned_ns, _switches() if resource is not None else -1
    _watchdog.sleep = _Sleep(native_id, wakeup)


def wakes() -> bool:
    """Note that the watchdog woke. Return whether it had to fight for the GIL with a loop that polls all the time.

    Such a loop, with a poll every few microseconds, releases the GIL so shortly that a waiting thread is woken and
    comes too late, a hundred times over.
    """
    sleep = _watchdog.sleep
    _watchdog.woke_ns = now_ns = clock.monotonic_ns()
    if sleep is None:
        return False
    slices = _own_slices()
    late_ns: int = now_ns - sleep.wakeup.planned_ns
    if late_ns >= LATE_NS:
        late = _compared(sleep, now_ns, slices, awake=True)
        if late is not None:
            _watchdog.late.append(late)
    # Only now: asking the kernel releases the GIL, and a loop that was held up too may ask for this sleep meanwhile.
    _watchdog.sleep = None
    slept = sleep.slices()
    if slices is None or slept is None:
        return False
    # Against a thread that computes, it would be one slice in a switch interval of 5 ms.
    return slices - slept > max(_FIGHT_SLICES, late_ns // 500_000)


def _compared(sleep: _Sleep, now_ns: int, slices: int | None, *, awake: bool) -> LateWakeup | None:
    """Return how late or disturbed the watchdog's sleep is by now; None if it is neither."""
    planned_ns, slept = sleep.wakeup.planned_ns, sleep.slices()
    late_ns = now_ns - planned_ns
    wait_ns = 0
    if not awake or late_ns >= WORTH_ASKING_NS:
        stat, known = scheduling(sleep.native_id), _watchdog.known
        if stat is not None:
            slices = stat.slices
            if known is not None:
                wait_ns = min(max(0, late_ns), stat.wait_ns - known.wait_ns)
            if awake:
                _watchdog.known = stat
    woken = slices - slept if slices is not None and slept is not None else 0
    return LateWakeup(planned_ns, now_ns, wait_ns, woken) if late_ns >= LATE_NS or woken > 0 else None


def lateness(started_ns: int, ended_ns: int) -> list[LateWakeup]:
    """Return the watchdog's late or disturbed sleeps within a stretch of time, its present sleep included."""
    now_ns = clock.monotonic_ns()  # later ones were noted by another clock, a test's
    noted = [late for late in _watchdog.late.copy() if late.woke_ns <= now_ns]
    found = [late for late in noted if late.woke_ns > started_ns and late.planned_ns < ended_ns]
    sleep = _watchdog.sleep
    late = _compared(sleep, clock.monotonic_ns(), None, awake=False) if sleep is not None else None
    return found if late is None else [*found, late]


def woke_within(started_ns: int, ended_ns: int) -> bool:
    """Return whether the watchdog woke, or was due to wake, within a stretch of time that ends now."""
    sleep = _watchdog.sleep
    return _watchdog.woke_ns > started_ns or bool(sleep is not None and sleep.wakeup.planned_ns < ended_ns)


@reset_in_child
def forked() -> None:
    """Begin anew in a forked child: the files are those of the parent's threads, and there is no watchdog."""
    global _watchdog  # noqa: PLW0603 - as a whole
    _watchdog = _Watchdog()
    for file in list(_files.values()):
        file.close()
    _files.clear()

"""Decide why a loop did not move on. All limits of the decision are here.

``why`` takes the measured numbers from ``usage``, for a block that has just ended or that still lasts. ``decide`` is
pure: it compares how the time divides into garbage collection, other CPU time, time on the run queue, and the rest.

========  ==========================================  ==================================================================
cause     what the kernel shows of the loop's thread  why
========  ==========================================  ==================================================================
gc        garbage collection is the largest share     the garbage collector ran in the loop's thread
cpu       CPU time is the largest share               the program's code computed
off_cpu   two thirds of the time on the run queue;    another program had the CPU, or the process or its machine was
          or a tenth of it, without which it would    stopped (SIGSTOP): a free machine would have been fast enough,
          not be slow; or the process stood still     or would have needed a third of the time at most
gil       mostly asleep, but put on a CPU five times  a thread waits for the GIL in timed waits of one switch interval;
          or more, every second switch interval or    the watchdog then has to wait for the GIL too
          more often
syscall   mostly asleep, and put on a CPU rarely; or  the thread waited in one system call; or in many short ones
          often, while the watchdog woke in time      (which do not make the watchdog late)
unknown   no CPU time, too little measured, or a      the system does not say, the clock is a test's, or two causes
          watchdog that may have been kept as well    look the same
========  ==========================================  ==================================================================
"""

from __future__ import annotations

import math
import sys
from threading import get_native_id
from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.base import clock
from obsloop.blocking import usage
from obsloop.blocking.usage import LATE_NS, WORTH_ASKING_NS, LateWakeup

if TYPE_CHECKING:
    from obsloop.blocking.usage import SchedStat, Usage, UsageHistory
    from obsloop.metrics.counters import Counters

# With a smaller share on the run queue, the machine is not blamed: there is always some run-queue time, and 0.1003 s of
# sleep against a limit of 0.1 s is the program's doing.
_MIN_OFF_SHARE = 0.1

# A block that a free machine would have had too is the program's doing, unless the machine made it so much longer.
_MIN_OFF_RATIO = 2

# The watchdog is put on a CPU once when it is only late, and again and again when it waits for the GIL.
_MIN_FIGHT_SLICES = 2

# Waiting for the GIL is a timed wait of the switch interval, over and over: undisturbed, one slice for each. A thread
# that waits in one system call has one or two; preemption adds a few.
_MIN_GIL_SLICES = 5
_MIN_GIL_RATE = 0.5

# The watchdog's own slices, if it waited for the GIL. A stopped process gives two to four (it is woken to be stopped,
# and to go on), so the rate comes on top of them. Below this lateness the two cannot be distinguished.
_STOP_SLICES = 3
_WOKEN_SLICES = 2  # one may come from falling asleep, if another program got the CPU just before
_WATCHDOG_GIL_RATE = 0.5
_CLEARLY_LATE_NS = 20_000_000

# A watchdog that woke so shortly before the end of a block woke with it: what held up both is over.
_SAME_MOMENT_NS = 3_000_000

_MIN_COVERED = 0.5  # the part that must be measured of a block that began before the first measurement


class Measured(NamedTuple):
    """The measurements of one block. Times in nanoseconds; None where the system has no number."""

    started_ns: int
    ended_ns: int
    threshold_ns: int
    """Anything shorter would not have been a block."""
    gc_ns: int
    cpu_ns: int | None
    """CPU time of the loop's thread, that of collections included."""
    wait_ns: int | None
    """Time of the loop's thread on the run queue."""
    slices: int | None
    """How often the loop's thread was put on a CPU."""
    over: bool
    """Whether the block has ended. A thread that still waits has not been put on a CPU again."""
    switch_ns: int
    """The interpreter's switch interval."""
    late: tuple[LateWakeup, ...] = ()
    """The watchdog's late or disturbed sleeps during the block."""
    sighted: bool = False
    """Whether the watchdog was due to wake during the block: if it was and is not late, nothing held it up."""


def decide(m: Measured) -> str:
    """Return one of ``CAUSES``."""
    duration = max(1, m.ended_ns - m.started_ns)
    gc_ns = min(m.gc_ns, duration)
    if m.cpu_ns is None:
        return "gc" if gc_ns * 2 > duration else "unknown"
    cpu_ns = min(max(0, m.cpu_ns - gc_ns), duration - gc_ns)
    off_ns = min(m.wait_ns or 0, duration - gc_ns - cpu_ns)
    rest_ns = duration - gc_ns - cpu_ns - off_ns
    if m.slices is not None and _stood_still(m, rest_ns):
        off_ns, rest_ns = off_ns + rest_ns, 0
    if off_ns >= duration * _MIN_OFF_SHARE and duration - off_ns < m.threshold_ns:
        return "off_cpu"  # on a free machine it would have been fast enough
    if off_ns >= (duration - off_ns) * _MIN_OFF_RATIO:
        return "off_cpu"
    shares = {"gc": gc_ns, "cpu": cpu_ns, "": rest_ns}
    largest = max(shares, key=lambda cause: shares[cause])
    return largest or _waited(m, rest_ns)


def _waited(m: Measured, rest_ns: int) -> str:
    """Return what the loop's thread waited for, which was asleep for most of the time."""
    late_ns = sum(_within(m, late) for late in m.late)
    if m.slices is None:  # the run queue is not known either
        return "unknown" if late_ns * 2 >= rest_ns else "syscall"
    if m.over and m.slices <= 0:
        return "off_cpu"  # as far as this kernel knows, it never left the CPU: the machine is a guest
    if not _like_gil(m, rest_ns):
        # The loop's thread was not woken to try for the GIL. If the watchdog waited for the GIL, then this thread held
        # it in its system call. On a busy machine the watchdog waits for a CPU while the loop's thread sleeps. Only a
        # thread that is still off the CPU may be on the run queue too: the kernel counts that time when it is over.
        if not m.over and sum(min(late.wait_ns, _within(m, late)) for late in m.late) * 2 >= rest_ns:
            return "unknown"
        return "unknown" if _perhaps_stopped(m) else "syscall"
    return _gil_or_calls(m)


def _gil_or_calls(m: Measured) -> str:
    """Decide whether a thread that was woken so often waited for the GIL, or made many short calls."""
    # A wait for the GIL holds up the watchdog too: it is woken more than once, and the run queue is not the reason.
    fights = [late for late in m.late if late.slices >= _MIN_FIGHT_SLICES]
    fought_ns = sum(max(0, _within(m, late) - late.wait_ns) for late in fights)
    if not m.sighted:
        return "gil"
    if fought_ns * 2 < m.switch_ns:
        return "syscall"
    # For so short a time ``usage`` does not ask the kernel for the run-queue part. It may be all, on a machine that let
    # the loop's thread wait longer for a CPU than the watchdog was late.
    short = all(late.woke_ns - late.planned_ns < WORTH_ASKING_NS for late in fights)
    busy = (m.wait_ns or 0) >= min(fought_ns, (m.ended_ns - m.started_ns) * _MIN_OFF_SHARE)
    return "unknown" if short and busy else "gil"


def _like_gil(m: Measured, rest_ns: int) -> bool:
    """Return whether the loop's thread was woken as often as one that waits for the GIL."""
    return m.slices is not None and m.slices >= max(_MIN_GIL_SLICES, rest_ns / m.switch_ns * _MIN_GIL_RATE)


def _stood_still(m: Measured, rest_ns: int) -> bool:
    """Return whether the process ran nothing for most of the time: it was stopped (SIGSTOP), or its machine was."""
    for late in m.late:
        late_ns = late.woke_ns - late.planned_ns
        if late_ns <= 0:
            if late.slices >= _WOKEN_SLICES and late.woke_ns >= m.ended_ns and not _like_gil(m, rest_ns):
                return True  # it was woken before it was due: to be stopped, and to go on
        elif late_ns >= _CLEARLY_LATE_NS and late.wait_ns * 2 < late_ns and late.slices:
            of_gil = late.slices >= _STOP_SLICES + late_ns / m.switch_ns * _WATCHDOG_GIL_RATE
            # If the watchdog woke long before the end, the process did not stand still for most of the time.
            if not of_gil and late.woke_ns - m.started_ns >= rest_ns / 2:
                return True
    return False


def _perhaps_stopped(m: Measured) -> bool:
    """Return whether the process may have been stopped: the watchdog woke with the block's end, or has not woken.

    A thread is put on a CPU to be stopped. So a watchdog without a slice since it fell asleep was not stopped: it waits
    for a CPU, unless the whole machine stood still. One slice before it is due may come from falling asleep.
    """
    for late in m.late:
        if not m.over or late.woke_ns < m.ended_ns - _SAME_MOMENT_NS:
            continue
        late_ns = late.woke_ns - late.planned_ns
        if late_ns <= 0:
            unclear = late.slices > 0
        elif late_ns < _CLEARLY_LATE_NS:
            unclear = late_ns >= LATE_NS and late.slices > 0
        else:
            unclear = late.slices == 0
        if unclear:
            return True
    return False


def _within(m: Measured, late: LateWakeup) -> int:
    return max(0, min(late.woke_ns, m.ended_ns) - max(late.planned_ns, m.started_ns))


def why(obs: Any, counters: Counters, started_ns: int, ended_ns: int) -> str:
    """Return why the loop was blocked from ``started_ns`` to ``ended_ns`` (now). From any thread; never raises."""
    return why_and_cpu(obs, counters, started_ns, ended_ns)[0]


def why_and_cpu(obs: Any, counters: Counters, started_ns: int, ended_ns: int) -> tuple[str, float | None]:
    """Return the cause and the seconds of CPU that the loop's thread used meanwhile; None if not known."""
    try:
        if clock.monotonic_ns is not clock.REAL:
            return "unknown", None  # a test's clock: real CPU time means nothing
        known = usage.known(obs, counters)
        if known is None or ended_ns <= started_ns:
            return "unknown", None
        measured = _measure(obs, counters, known, started_ns, ended_ns)
        if measured is None:
            return "unknown", None
        cpu_ns = measured.cpu_ns
        return decide(measured), None if cpu_ns is None else min(cpu_ns, ended_ns - started_ns) / 1e9
    except Exception:  # rather no answer than an error in the loop
        return "unknown", None


def _measure(obs: Any, counters: Counters, known: UsageHistory, started_ns: int, ended_ns: int) -> Measured | None:
    before = known.before(started_ns)
    from_ns = started_ns
    if before is None:
        # The first measurement came after the block's begin. If the measured part is most of it, it stands for all.
        before = known.newer if known.older is None else known.older
        from_ns = before.at_ns
        if ended_ns - from_ns < (ended_ns - started_ns) * _MIN_COVERED:
            return None
    now = usage.measure(counters, known.native_id)
    # Between the measurement and the block, and since its end, the loop was idle or (an assumption) used the CPU.
    around_ns = max(0, from_ns - before.at_ns) + max(0, now.at_ns - ended_ns)
    around_ns = max(0, around_ns - max(0, now.idle_ns - before.idle_ns))
    cpu_ns = None
    if before.cpu_ns is not None and now.cpu_ns is not None:
        cpu_ns = max(0, now.cpu_ns - before.cpu_ns - around_ns)
    over = known.native_id == get_native_id()
    wait_ns, slices = _queued(obs, before, now, ended_ns - from_ns - (cpu_ns or 0), cpu_ns or 0, over=over)
    threshold_ns = min(obs.slow_ns, obs.slow_iteration_ns)
    if threshold_ns > ended_ns - started_ns:
        threshold_ns = 0  # the caller asks about a block that was not slow
    covered = (ended_ns - from_ns) / (ended_ns - started_ns)
    return Measured(
        started_ns=from_ns,
        ended_ns=ended_ns,
        threshold_ns=int(threshold_ns * covered),
        gc_ns=now.gc_ns - before.gc_ns,
        cpu_ns=cpu_ns,
        wait_ns=wait_ns,
        slices=slices,
        over=over,
        switch_ns=max(1, int(sys.getswitchinterval() * 1e9)),
        late=tuple(usage.lateness(from_ns, ended_ns)),
        sighted=usage.woke_within(from_ns, ended_ns),
    )


def _queued(
    obs: Any, before: Usage, now: Usage, off_ns: int, used_ns: int, *, over: bool
) -> tuple[int | None, int | None]:
    """Estimate a block's run-queue time in nanoseconds and its time slices.

    In the block the thread used ``used_ns`` of CPU and was off it for ``off_ns``. If the block is not ``over``, the
    thread may still be off the CPU. The kernel's numbers are for a longer time, or, where the watchdog saw the block,
    for its part since then: the block has a share of them.
    """
    first: SchedStat | None = before.queue
    last = now.queue
    older = True
    if obs.episode is not None and obs.episode.queue is not None:
        seen: SchedStat = obs.episode.queue
        if (now.at_ns - seen.at_ns) >= (now.at_ns - obs.episode.began_ns) * _MIN_COVERED:
            first, older = seen, False
    if first is None or last is None:
        return None, None
    asleep_ns = last.at_ns - first.at_ns - (last.idle_ns - first.idle_ns) - (last.cpu_ns - first.cpu_ns)
    off_ns = max(0, off_ns)
    share = off_ns / max(1, asleep_ns, (last.wait_ns - first.wait_ns) // 2)
    # Subtract the slices of polls, but leave one: a poll need not have left the CPU, and the block may have.
    slices = last.slices - first.slices
    slices = max(min(slices, 1), slices - (last.waits - first.waits))
    wait_ns = last.wait_ns - first.wait_ns
    if older:
        cpu_ns = last.cpu_ns - first.cpu_ns
        outside_ns = last.at_ns - first.at_ns - cpu_ns - off_ns  # with polls, which end on the run queue
        if not over and slices <= 1:
            # The kernel counts a wait when it ends, with a slice. The one slice may be the return from the poll before
            # the block. That wait may have begun before the first measurement, so it need not fit in after it.
            outside_ns = wait_ns
        waited_ns = _wait_of_block(wait_ns, cpu_ns, outside_ns, off_ns, used_ns)
    else:
        waited_ns = round(wait_ns * share)
    return waited_ns, math.ceil(slices * share)


def _wait_of_block(wait_ns: int, cpu_ns: int, outside_ns: int, off_ns: int, used_ns: int) -> int:
    """Estimate a block's run-queue time from that of a longer time: ``wait_ns``, beside ``cpu_ns`` of CPU.

    A thread waits for a CPU in order to use it. So the block's share is its share of the CPU time, not of the time off
    the CPU: a sleep has much of that and needs no CPU. At least, it is what does not fit outside of the block, where
    the thread was off the CPU for ``outside_ns``; at most, the time that the thread was off the CPU in the block.
    """
    estimate_ns = wait_ns * used_ns // max(1, cpu_ns)
    least_ns = wait_ns - max(0, outside_ns)
    return max(0, min(max(estimate_ns, least_ns), wait_ns, off_ns))

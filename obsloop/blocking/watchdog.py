"""Run the watchdog: one thread for the whole process that finds blocked loops while they are blocked.

A loop is blocked when its present iteration, or its present callback, has lasted too long, so that it does not come
back to its poll. The thread sleeps until the first moment at which that is possible, parks when no loop runs, ends for
a fork, and survives every error. Loops' threads queue the ends of blocks and notify the watchdog; they never wait.
"""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.fork import reset_in_child
from obsloop.base.guarded import guarded
from obsloop.base.threads import are_refused, in_subinterpreter, start_without_signals
from obsloop.blocking import starvation, usage
from obsloop.blocking.detector import FLOOR_NS, MIN_THRESHOLD_NS, close_gone, look, wants_watching
from obsloop.blocking.endings import REST_NS, end_of_iteration, ended_episodes, open_episodes, report, samples_of, seen
from obsloop.blocking.wakeup import Wakeup
from obsloop.hotpath import backend
from obsloop.metrics import runs, self_metrics
from obsloop.metrics.counters import NEVER_NS
from obsloop.tasks.lints import runner

if TYPE_CHECKING:
    from obsloop.blocking.blame import Share
    from obsloop.blocking.episodes import Sighting
    from obsloop.metrics.counters import Counters
    from obsloop.metrics.runs import Run

__all__ = ["closed", "iteration_ended", "samples_of", "seen", "self_time_ns"]
_LONGEST_NS = 100_000_000  # between two checks: a loop may have begun to run, or a threshold may have changed
_MOST_PATIENCE = 8
_PARK_NS = 1_000_000_000  # the thread parks after no loop has run for so long
_STALE_NS = 10_000_000_000  # a start that takes so long hangs: another thread may try
_JOIN_SECONDS = 1.0
_EXIT_SECONDS = 0.2


class _Life:
    """The thread from its start to its end. A fork ends it; the next run of a loop begins another."""

    __slots__ = (
        "busy_ns",
        "cpu_ns",
        "ended",
        "lints_ns",
        "looked_ns",
        "made_ns",
        "next_ns",
        "patience",
        "polls_ns",
        "prepared",
        "stop",
        "thread",
        "wakeup",
        "watched_ns",
    )

    def __init__(self) -> None:
        self.wakeup: Any = (backend.compiled_wakeup or Wakeup)(MIN_THRESHOLD_NS, FLOOR_NS, usage.LATE_NS)
        self.stop = False
        self.ended = False
        """It has done its last work, and checks for the last time whether it is to stop."""
        self.busy_ns = 0
        """Since when it works, which may take long since it calls hooks. 0 while it sleeps."""
        self.prepared = _thread.allocate_lock()
        """Held until this thread's ``schedstat`` is open, so that the thread need not open it later."""
        self.prepared.acquire()
        self.patience = 1
        self.made_ns = clock.REAL()
        self.cpu_ns = self.lints_ns = self.looked_ns = self.next_ns = self.watched_ns = 0
        self.polls_ns = NEVER_NS
        self.thread = threading.Thread(target=_work, args=(self,), name="obsloop-watchdog", daemon=True)


_life: _Life | None = None
_asleep = True  # parked, or not there at all
_refused = False  # this interpreter starts no daemon threads, or is ending: nothing is watched
_transient = False  # this is a subinterpreter: the thread ends with the last loop
_coming: _Life | None = None
"""The life that a thread is starting at this moment."""
_spent_before_ns = 0  # by threads that have ended
_watched: dict[tuple[Counters, int], int] = {}
"""Counters and their thread's native id -> when that loop last ran or notified. Forgotten a second later."""


# ---- called in loops' threads ----------------------------------------------------------------------------------------


def _wake(run: Run) -> None:
    """Note that a run begins in this thread."""
    if _asleep or (run.counters, run.native_id) not in _watched:
        guarded(_begin, run)


runs.wake = _wake


def _begin(run: Run) -> None:
    """Watch this thread's loop if its settings ask for it: start the watchdog's thread or notify it."""
    loop = run.loop()
    if loop is not None and loop._obsloop.settings.watchdog and not _refused:
        usage.prepare(run.native_id)
        usage.look(loop._obsloop, run.counters, run.native_id)
        _watched[run.counters, run.native_id] = clock.REAL()  # it notifies once, however short its runs are
        _start()


def iteration_ended(
    loop: Any,
    obs: Any,
    counters: Counters,
    began_ns: int,
    ended_ns: int,
    sighting: Sighting,
    shares: list[Share],
) -> None:
    """Count a block at the end of its iteration, and have the watchdog emit its events.

    It counts if the iteration was slow, or if the watchdog saw the loop blocked. In the loop's thread; never waits.
    """
    slow = ended_ns - began_ns >= min(obs.slow_ns, obs.slow_iteration_ns)
    if slow or obs.episode is not None:
        run = runs.runs.get(threading.get_ident())
        usage.iteration_ended(obs, counters, began_ns, run.native_id if run is not None else threading.get_native_id())
        end_of_iteration(obs, began_ns, ended_ns, sighting, shares)
    life = _life
    if life is None:
        guarded(_start)
    elif ended_episodes:
        life.wakeup.notify()


def self_time_ns() -> int:
    """Return the CPU time of the watchdog's threads so far, in nanoseconds."""
    return _spent_before_ns + (_life.cpu_ns if _life is not None else 0)


self_metrics.read_time("watchdog", self_time_ns)


def _start() -> None:
    """Start the thread, or notify it if there is one."""
    life = _life
    if life is not None:
        life.wakeup.notify()
    elif not _refused and (_coming is None or clock.REAL() - _coming.made_ns > _STALE_NS):
        try:
            life = _Life()  # since Python 3.13 a subinterpreter already refuses here
        except RuntimeError as error:
            _refuse(error)
        else:
            _begin_life(life)


def _refuse(error: RuntimeError) -> None:
    """Watch nothing from now on if this interpreter starts no daemon threads; raise any other error again."""
    global _refused  # noqa: PLW0603
    if not are_refused(error):
        raise error
    _refused = True
    _watched.clear()


def _begin_life(life: _Life) -> None:
    """Start the thread of ``life``, unless another thread starts one at this moment.

    A signal handler may raise at any call in here. The thread then ends if it did not become the watchdog, and the
    next run starts another.
    """
    global _life, _asleep, _transient, _coming  # noqa: PLW0603
    try:
        if _life is not None or (_coming is not None and life.made_ns - _coming.made_ns <= _STALE_NS):
            return
        _coming = life  # no call since it was compared: no other thread came between
        _transient = in_subinterpreter()
        start_without_signals(life.thread)
        usage.prepare(life.thread.native_id or 0)
        if _coming is life:
            _life, _asleep = life, False
    except RuntimeError as error:
        _refuse(error)
    finally:
        if _life is not life:
            life.stop = True
        if _coming is life:
            _coming = None
        life.prepared.release()


def _end_life(life: _Life) -> None:
    """Note that the thread of ``life`` is gone or given up. Only if it is the present one: another may have begun."""
    global _life, _asleep, _spent_before_ns  # noqa: PLW0603
    if _life is life:
        _spent_before_ns += life.cpu_ns
        _life, _asleep = None, True


# ---- the thread ------------------------------------------------------------------------------------------------------


def _work(life: _Life) -> None:
    try:
        _watch_until_stopped(life)
    finally:
        _end_life(life)  # here, since the thread that ends it may be interrupted before it gets to this


def _watch_until_stopped(life: _Life) -> None:
    life.prepared.acquire(timeout=_JOIN_SECONDS)
    while True:
        while not life.stop:
            # BaseException: an instrument or a logging handler may raise SystemExit, which would end the thread.
            try:
                life.busy_ns = clock.REAL()
                life.next_ns = life.busy_ns + _LONGEST_NS
                guarded(_pass, life)
                life.busy_ns = 0
                guarded(_sleep, life)
            except BaseException:
                time.sleep(FLOOR_NS / 1e9)
        life.busy_ns = clock.REAL()
        with suppress(BaseException):
            report()
        # In this order: a thread that takes ``stop`` back either finds ``ended`` set, or makes this one go on.
        life.ended = True
        if life.stop:
            return
        life.ended = False


def _pass(life: _Life) -> None:
    """Emit the events of ended blocks, and check every loop."""
    life.looked_ns = clock.REAL()
    life.cpu_ns = time.thread_time_ns()
    report()
    life.polls_ns = NEVER_NS
    for run in list(runs.runs.values()):
        guarded(look, life, run)
    if open_episodes:
        guarded(close_gone, life)
    guarded(_look_at_tasks, life)
    guarded(_look_at_executors, life)


def _look_at_tasks(life: _Life) -> None:
    """Run the lints, or a slice of a scan, if they are due."""
    life.lints_ns = life.looked_ns + REST_NS  # in case they raise
    life.lints_ns = runner.go_on()


def _look_at_executors(life: _Life) -> None:
    """Check for starved executors, if that is due."""
    life.lints_ns = min(life.lints_ns, starvation.go_on())


def _sleep(life: _Life) -> None:
    """Sleep until the next check is due or ``notify`` is called; if no loop has run for a second, until one runs."""
    global _asleep  # noqa: PLW0603
    now_ns = clock.REAL()
    if now_ns - life.watched_ns >= _PARK_NS and not open_episodes:
        _asleep = True
        if not (ended_episodes or life.stop or any(wants_watching(run) for run in list(runs.runs.values()))):
            _watched.clear()
            life.wakeup.wait([], NEVER_NS, NEVER_NS)
        _asleep = False
        return
    _watch(now_ns)
    watched: list[tuple[Counters, int]] = []
    # If each check has to fight a loop for the GIL, that loop polls all the time, and the fight costs both: check less.
    patient_ns = now_ns + life.patience * _LONGEST_NS
    until_ns = now_ns + max(FLOOR_NS, min(life.next_ns - now_ns, _LONGEST_NS))
    if life.wakeup.looks and not open_episodes and clock.monotonic_ns is clock.REAL:
        watched, until_ns = list(_watched), now_ns + REST_NS
    elif life.patience > 1 and not open_episodes:
        until_ns = patient_ns
    until_ns = max(now_ns + FLOOR_NS, min(until_ns, life.lints_ns, life.polls_ns))
    usage.falls_asleep(until_ns, life.wakeup)
    rung = life.wakeup.wait(watched, until_ns, patient_ns)
    life.patience = min(life.patience * 2, _MOST_PATIENCE) if usage.wakes() else 1
    if rung and not life.stop:  # frequent notifying does not make the checks more frequent
        time.sleep(min(FLOOR_NS, max(0, life.looked_ns + FLOOR_NS - clock.REAL())) / 1e9)


def _watch(now_ns: int) -> None:
    """Settle which loops need not notify when they begin to run: those that run, or did less than a second ago."""
    for key, seen_ns in list(_watched.items()):
        if now_ns - seen_ns > REST_NS:
            _watched.pop(key, None)
    # In this order: a run that begins now either is among these, or finds itself forgotten and notifies.
    for run in list(runs.runs.values()):
        if wants_watching(run):
            _watched[run.counters, run.native_id] = now_ns


# ---- fork ------------------------------------------------------------------------------------------------------------


def _before_fork() -> None:
    """End the thread. A process that forks should have one thread; Python 3.12 and later warn if it has more."""
    _end(_JOIN_SECONDS)


def _end(patience: float) -> None:
    """End the thread. If it has been in the same work (a hook that hangs) for ``patience`` seconds, let it go on."""
    life = _life
    if life is None:
        return
    life.stop = True
    life.wakeup.notify()
    if threading.current_thread() is not life.thread:
        busy_ns = life.busy_ns
        if busy_ns:
            patience -= (clock.REAL() - busy_ns) / 1e9
        life.thread.join(max(0.0, patience))
        if life.thread.is_alive():
            life.stop = False
            if not life.ended:
                return  # it goes on when the hook returns: the next fork does not wait, and no second thread is needed
            life.stop = True
            life.thread.join(_JOIN_SECONDS)
        _wait_until_gone(life.thread.native_id)
    _end_life(life)


def _wait_until_gone(native_id: int | None) -> None:
    """Wait until the kernel no longer counts a joined thread, which may still be on its last steps.

    The thread's clock disappears with it. ``/proc`` is no use: it keeps what was looked up.
    """
    deadline = clock.seconds() + _JOIN_SECONDS / 10
    while native_id and usage.cpu_time_ns(native_id) is not None and clock.seconds() < deadline:
        time.sleep(0.00005)


def _after_fork_in_parent() -> None:
    """Have each loop's next iteration start the watchdog again. Not at once: Python counts threads after this."""
    for run in list(runs.runs.values()):
        run.counters.slow_iteration_ns = 0  # the iteration reports its end, which starts the thread


@reset_in_child
def _after_fork_in_child() -> None:
    # Replaced or cleared as a whole: the threads that held them are gone.
    global _life, _asleep, _coming, _spent_before_ns  # noqa: PLW0603
    _life, _asleep, _spent_before_ns = None, True, 0
    _coming = None
    for kept in (ended_episodes, open_episodes, _watched):
        kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)


# ---- the end ---------------------------------------------------------------------------------------------------------


def closed() -> None:
    """Note that a loop is closed. In a subinterpreter, which may end next, the thread ends with the last loop."""
    if _transient and _life is not None and not runs.runs:
        _end(_EXIT_SECONDS)


def _at_exit() -> None:
    """Let the watchdog report the last blocks. End the thread of a subinterpreter, which cannot end while it has one.

    The main interpreter's ends with its daemons.
    """
    global _refused  # noqa: PLW0603
    life = _life
    deadline = clock.seconds() + _EXIT_SECONDS
    if ended_episodes and life is not None:
        life.wakeup.notify()
        while (ended_episodes or life.busy_ns) and clock.seconds() < deadline:
            time.sleep(0.002)
    if _transient:
        _end(_EXIT_SECONDS)
        _refused = True  # loops that run after this are not watched


atexit.register(_at_exit)

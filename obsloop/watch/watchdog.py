"""One thread for the whole process that sees, while it lasts, that a loop is blocked.

A loop is blocked when it does not come back to its poll: when its present iteration has lasted too long, or its present
callback. The thread sleeps until the first moment when that could be, parks when no loop runs, ends for a fork, and
never dies of an error. Loops' threads hand it what has ended and ring; they wait for nothing.
"""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.base import clock as _clock
from obsloop.hotpath import backend as _core
from obsloop.introspect import frames as _frames
from obsloop.metrics import runs as _running
from obsloop.introspect import callbacks as _sites
from obsloop._cells import IN_CALLBACK, IN_OVERHEAD, KIND_OF_BLOCK, NEVER_NS, STRIDE
from obsloop._displaced import is_displaced
from obsloop._sites import Site
from obsloop._threads import are_refused, in_subinterpreter, start_without_signals
from obsloop.blocking import cause as causes
from obsloop.blocking import episodes
from obsloop.hotpath import held
from obsloop.tasks.lints import runner as lints
from obsloop.blocking import log as notices
from obsloop.introspect import stacks
from obsloop.blocking import usage
from obsloop.watch.episodes import MAX_SAMPLES, Episode, Sight, Story
from obsloop.watch.guarded import guarded

if TYPE_CHECKING:
    from obsloop._cells import Cells
    from obsloop._events import Sample
    from obsloop._running import Run

__all__ = ["closed", "iteration_ended", "samples_of", "seen", "self_time_ns"]

_FLOOR_NS = 5_000_000  # between two looks
_MIN_THRESHOLD_NS = 10_000_000  # while it lasts; what is shorter is seen at its end
_LONGEST_NS = 100_000_000  # between two looks: a loop may have begun to run, or a limit have changed
_CHILDREN_NS = 20_000_000  # between two looks at a blocked loop that has children: one of them may end
_REST_NS = 1_000_000_000  # between two that need the GIL, where healthy loops are looked at without it
_MOST_PATIENCE = 8
_PARK_NS = 1_000_000_000  # no loop has run for so long
_MAX_ENDED = 256  # of more, only the counters tell
_JOIN_SECONDS = 1.0
_EXIT_SECONDS = 0.2

_BUSY = (IN_OVERHEAD, IN_CALLBACK)
_THE_LOOP = Site("(loop)", "", 0)


class _Ended(NamedTuple):
    """An episode that is over, and counted; its events are still to be emitted."""

    story: Story
    episode: Episode | None
    duration_ns: int
    cause: str
    unhealthy_ns: float


class _Open(NamedTuple):
    """An episode that goes on."""

    run: Run
    obs: Any
    episode: Episode


class Bell:
    """What the thread sleeps on. The compiled core's ``Bell`` looks at healthy loops meanwhile, without the GIL."""

    __slots__ = ("_lock", "planned_ns", "switches")

    looks = False
    """Whether this one does."""

    def __init__(self, min_threshold_ns: int, floor_ns: int, late_ns: int) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()  # held while there is nothing to tell: whoever has something releases it
        self.planned_ns = 0
        """When the present sleep is to end; ``wait`` may consist of several."""
        self.switches = -1
        """How often the thread had been taken off its CPU when the present sleep began; -1: not known."""

    def ring(self) -> None:
        """End the present wait, or the next."""
        with suppress(RuntimeError):  # it rings already
            self._lock.release()

    def wait(self, watched: list[tuple[Cells, int]], until_ns: int, asking_ns: int) -> bool:
        """Wait for a ring, until that moment at the longest (from ``NEVER_NS`` on: for ever); whether it rang.

        One that looks also returns when one of the ``watched`` (each with its thread's native id) may be blocked; when
        it woke late; and, from ``asking_ns`` on, when one is idle: then a look with the GIL costs nobody anything.
        """
        if until_ns >= NEVER_NS:
            return self._lock.acquire()
        return self._lock.acquire(timeout=max(0, until_ns - time.monotonic_ns()) / 1e9)


class _Life:
    """The thread, from its start to its end; a fork ends it, and the next run of a loop begins another."""

    __slots__ = (
        "bell",
        "busy_ns",
        "cpu_ns",
        "ended",
        "lints_ns",
        "looked_ns",
        "next_ns",
        "patience",
        "prepared",
        "stop",
        "thread",
        "watched_ns",
    )

    def __init__(self) -> None:
        self.bell: Any = (backend.compiled_bell or Bell)(_MIN_THRESHOLD_NS, _FLOOR_NS, usage.LATE_NS)
        self.stop = False
        self.ended = False
        """It has done its last work, and looks for the last time whether it is to stop."""
        self.busy_ns = 0
        """Since when it does what may take long: hooks are called. 0 while it sleeps."""
        self.prepared = _thread.allocate_lock()
        """Held until the file that tells of this thread is open: then it need not open one later."""
        self.prepared.acquire()
        self.patience = 1
        self.cpu_ns = self.lints_ns = self.looked_ns = self.next_ns = self.watched_ns = 0
        self.thread = threading.Thread(target=_work, args=(self,), name="obsloop-watchdog", daemon=True)


_life: _Life | None = None
_asleep = True  # parked, or not there at all
_refused = False  # this interpreter starts no daemon threads, or ends: nothing is watched
_transient = False  # this is a subinterpreter: the thread ends with the last loop
_starting = _thread.allocate_lock()
_ended: deque[_Ended] = deque()
_open: list[_Open] = []
_spent_before_ns = 0  # by threads that have ended
_watched: dict[tuple[Cells, int], int] = {}
"""Cells and their thread's native id -> when they were last seen to run, or rang. A second later they are forgotten."""


# ---- called in loops' threads ----------------------------------------------------------------------------------------


def _wake(run: Run) -> None:
    """A run begins in this thread."""
    if _asleep or (run.cells, run.native_id) not in _watched:
        guarded(_begin, run)


runs.wake = _wake


def _begin(run: Run) -> None:
    """Watch this thread's loop, if it wants to be watched: start the thread, or end its rest."""
    loop = run.loop()
    if loop is not None and loop._obsloop.settings.watchdog and not _refused:
        usage.prepare(run.native_id)
        usage.look(loop._obsloop, run.cells, run.native_id)
        _watched[run.cells, run.native_id] = time.monotonic_ns()  # it rings once, however short it runs
        _start()


def seen(obs: Any, started_ns: int, ended_ns: int) -> Sight | None:
    """What the watchdog saw for most of the time from ``started_ns`` to ``ended_ns``; in the loop's thread."""
    episode: Episode | None = obs.episode
    return None if episode is None else episodes.longest_seen(episode.sights.copy(), started_ns, ended_ns)


def samples_of(obs: Any, started_ns: int) -> tuple[Sample, ...]:
    """What it saw of the callback that began at ``started_ns`` and has just ended; in the loop's thread."""
    episode: Episode | None = obs.episode
    if episode is None:
        return ()
    before = (started_ns - episode.began_ns) / 1e9
    return tuple((seconds - before, frames) for seconds, frames in episode.samples.copy() if seconds >= before)


def iteration_ended(
    loop: Any,
    obs: Any,
    cells: Cells,
    began_ns: int,
    ended_ns: int,
    site: Site,
    kind: str,
    schedule_delay: float,
    cause: str,
) -> None:
    """An iteration that was slow, or in which the watchdog saw the loop blocked, ends: count it, and have it told.

    In the loop's thread; waits for nobody. An iteration that was neither does not count.
    """
    slow = ended_ns - began_ns >= min(obs.slow_ns, obs.slow_iteration_ns)
    if slow or obs.episode is not None:
        run = runs.runs.get(threading.get_ident())
        usage.iteration_ended(obs, cells, began_ns, run.native_id if run is not None else threading.get_native_id())
        _over(obs, began_ns, ended_ns, site, kind, schedule_delay, cause)
    life = _life
    if life is None:
        guarded(_start)
    elif _ended:
        life.bell.ring()


def _over(obs: Any, began_ns: int, ended_ns: int, site: Site, kind: str, schedule_delay: float, cause: str) -> None:
    """Close the episode of ``obs``, or one that was not seen. Whoever takes it out of ``obs`` counts it."""
    episode: Episode | None = obs.episode
    obs.episode = None  # no call since it was read: nobody came between
    if episode is None:
        sight = episodes.at_its_end(ended_ns, site, kind, schedule_delay)
        story = Story(_name(obs), obs.instruments, sight, episodes.epoch(began_ns))
        _count(obs, _Ended(story, None, ended_ns - began_ns, cause, obs.settings.unhealthy_after * 1e9))
    else:
        _close(obs, episode, ended_ns, cause)


def _lost(obs: Any, episode: Episode, ended_ns: int) -> None:
    """The watchdog finds that an episode is over, whose loop has not told."""
    if obs.episode is episode:
        obs.episode = None  # no call since it was compared: nobody came between
        _close(obs, episode, ended_ns, episode.cause)


def _close(obs: Any, episode: Episode, ended_ns: int, cause: str) -> None:
    cause = episode.cause if cause == "unknown" else cause
    duration_ns = max(0, ended_ns - episode.began_ns)
    _count(obs, _Ended(episode.story, episode, duration_ns, cause, obs.settings.unhealthy_after * 1e9))


def _count(obs: Any, ended: _Ended) -> None:
    """Count it, and hand it to the watchdog; where it is far behind, it is counted only."""
    rare = obs.ledger.rare
    rare.count("asyncio.eventloop.block.episodes", ended.cause)
    rare.time("asyncio.eventloop.block.duration", ended.duration_ns, ended.cause)
    if len(_ended) < _MAX_ENDED or ended.episode is not None:
        _ended.append(ended)


def _name(obs: Any) -> str:
    return obs.ledger.name if obs.ledger is not None else obs.settings.name or ""


def self_time_ns() -> int:
    """CPU time of the thread so far."""
    return _spent_before_ns + (_life.cpu_ns if _life is not None else 0)


def _start() -> None:
    """Have a thread that looks: start it, or ring for it."""
    global _life, _asleep, _refused, _transient  # noqa: PLW0603
    if _life is not None:
        _life.bell.ring()
    elif not _refused and _starting.acquire(blocking=False):  # else another thread starts it at this moment
        try:
            if _life is None:
                _transient = in_subinterpreter()
                life = _Life()
                start_without_signals(life.thread)
                usage.prepare(life.thread.native_id or 0)
                life.prepared.release()
                _life, _asleep = life, False
        except RuntimeError as error:
            if not are_refused(error):
                raise
            _refused = True
            _watched.clear()
        finally:
            _starting.release()


# ---- the thread ------------------------------------------------------------------------------------------------------


def _work(life: _Life) -> None:
    life.prepared.acquire(timeout=_JOIN_SECONDS)
    while True:
        while not life.stop:
            # BaseException: an instrument or a logging handler may raise SystemExit, and that would be the end.
            try:
                life.busy_ns = time.monotonic_ns()
                life.next_ns = life.busy_ns + _LONGEST_NS
                guarded(_pass, life)
                life.busy_ns = 0
                guarded(_sleep, life)
            except BaseException:
                time.sleep(_FLOOR_NS / 1e9)
        life.busy_ns = time.monotonic_ns()
        with suppress(BaseException):
            _tell()
        # In this order: who takes ``stop`` back either finds that it has ended, or has it go on.
        life.ended = True
        if life.stop:
            return
        life.ended = False


def _pass(life: _Life) -> None:
    """Tell what has ended, and look at every loop."""
    life.looked_ns = time.monotonic_ns()
    life.cpu_ns = time.thread_time_ns()
    _tell()
    for run in list(runs.runs.values()):
        guarded(_look, life, run)
    if _open:
        guarded(_close_gone, life)
    guarded(_look_at_tasks, life)


def _look_at_tasks(life: _Life) -> None:
    """The lints have a look, or a slice of one, when it is time."""
    life.lints_ns = life.looked_ns + _REST_NS  # should they raise
    life.lints_ns = lints.go_on()


def _sleep(life: _Life) -> None:
    """Until the next look is due, somebody rings, or, when no loop has run for a second, a loop runs."""
    global _asleep  # noqa: PLW0603
    now_ns = time.monotonic_ns()
    if now_ns - life.watched_ns >= _PARK_NS and not _open:
        _asleep = True
        if not (_ended or life.stop or any(_wants_watching(run) for run in list(runs.runs.values()))):
            _watched.clear()
            life.bell.wait([], NEVER_NS, NEVER_NS)
        _asleep = False
        return
    _watch(now_ns)
    watched: list[tuple[Cells, int]] = []
    # A loop that has to be fought for the GIL at each look polls all the time, and the fight costs both: fewer looks.
    patient_ns = now_ns + life.patience * _LONGEST_NS
    until_ns = now_ns + max(_FLOOR_NS, min(life.next_ns - now_ns, _LONGEST_NS))
    if life.bell.looks and not _open and clock.monotonic_ns is clock.REAL:
        watched, until_ns = list(_watched), now_ns + _REST_NS
    elif life.patience > 1 and not _open:
        until_ns = patient_ns
    until_ns = max(now_ns + _FLOOR_NS, min(until_ns, life.lints_ns))
    usage.falls_asleep(until_ns, life.bell)
    rung = life.bell.wait(watched, until_ns, patient_ns)
    life.patience = min(life.patience * 2, _MOST_PATIENCE) if usage.wakes() else 1
    if rung and not life.stop:  # however often it rings, there are no more looks
        time.sleep(max(0, life.looked_ns + _FLOOR_NS - time.monotonic_ns()) / 1e9)


def _watch(now_ns: int) -> None:
    """Settle which loops need not ring when they begin to run: those that run, and those that did a moment ago."""
    for key, seen_ns in list(_watched.items()):
        if now_ns - seen_ns > _REST_NS:
            _watched.pop(key, None)
    # In this order: a run that begins now either is among these, or finds itself forgotten, and rings.
    for run in list(runs.runs.values()):
        if _wants_watching(run):
            _watched[run.cells, run.native_id] = now_ns


def _wants_watching(run: Run) -> bool:
    loop = run.loop()
    return loop is not None and loop._obsloop.settings.watchdog


def _look(life: _Life, run: Run) -> None:
    """One look at one loop."""
    loop = run.loop()
    if loop is None or not loop._obsloop.settings.watchdog:
        return
    life.watched_ns = time.monotonic_ns()
    if clock.monotonic_ns is not clock.REAL:
        return  # with a test's clock nothing is seen while it lasts
    obs, cells = loop._obsloop, run.cells
    state, began_ns, tick_ns = cells.state, cells.began_ns, cells.tick_ns
    if obs.held and state not in _BUSY:
        held.wake(loop)
    now_ns = time.monotonic_ns()
    slow_ns = max(obs.slow_ns, _MIN_THRESHOLD_NS)
    slow_iteration_ns = max(obs.slow_iteration_ns, _MIN_THRESHOLD_NS)
    due_ns = now_ns + min(slow_ns, slow_iteration_ns)
    if state in _BUSY and began_ns:  # before the first poll of a run nothing of the program's runs
        due_ns = min(due_ns, began_ns + slow_iteration_ns)
        if state == IN_CALLBACK:
            due_ns = min(due_ns, tick_ns + slow_ns)
    episode: Episode | None = obs.episode
    if episode is not None and episode.began_ns != began_ns and began_ns:
        _lost(obs, episode, tick_ns)  # it moved on, and nobody told us
        episode = None
    if (episode is not None or due_ns <= now_ns) and is_displaced(loop):
        if episode is not None:
            _lost(obs, episode, now_ns)
        return
    if episode is not None:
        due_ns = _go_on(run, loop, episode, now_ns)
    elif due_ns > now_ns:
        usage.look(obs, cells, run.native_id)
    elif not usage.is_over(obs, began_ns):
        callback_ns = 0 if began_ns + slow_iteration_ns <= now_ns else tick_ns
        episode = _see_first(run, loop, began_ns, callback_ns, now_ns)
        due_ns = now_ns + _FLOOR_NS if episode is None else episode.next_ns
    life.next_ns = min(life.next_ns, due_ns, _look_at_children(obs, state))


def _look_at_children(obs: Any, state: int) -> int:
    """Ask which children of a busy loop have ended. Returns when to ask again."""
    if state not in _BUSY or not obs.processes.live:
        return NEVER_NS
    obs.processes.look()
    return time.monotonic_ns() + _CHILDREN_NS if obs.episode is not None else NEVER_NS


def _see_first(run: Run, loop: Any, began_ns: int, callback_ns: int, now_ns: int) -> Episode | None:
    """A loop is blocked, in its iteration or (not 0) in the callback that began at ``callback_ns``: open an episode."""
    obs, cells = loop._obsloop, run.cells
    found = _see(run, loop, now_ns)
    if found is None:
        return None
    sight, frames = found
    cause = causes.why(obs, cells, began_ns, now_ns)
    story = Story(_name(obs), obs.instruments, sight, episodes.epoch(began_ns))
    samples = ((now_ns - began_ns) / 1e9, frames)
    episode = Episode(began_ns, story, sight, samples, cause)
    episode.queue = usage.measure(cells, run.native_id).queue
    unhealthy_ns = 0 if obs.settings.log_slow_callbacks else int(obs.settings.unhealthy_after * 1e9)
    episode.plan(now_ns, unhealthy_ns)
    # Looking took a while. No call from here on until it is open: the loop's thread does not come between.
    known = obs.usage
    if (
        cells.began_ns != began_ns
        or cells.state not in _BUSY
        or (callback_ns and cells.tick_ns != callback_ns)
        or (known is not None and known.over_ns == began_ns)
    ):
        return None
    obs.episode = episode
    cells.slow_iteration_ns = 0
    _open.append(_Open(run, obs, episode))
    event = story.blocked(now_ns - began_ns, cause, tuple(episode.samples))
    if not unhealthy_ns or now_ns - began_ns >= unhealthy_ns:
        episode.logged = True
        notices.blocked(event, event.duration, cause, sight.where, over=False)
    return episode


def _go_on(run: Run, loop: Any, episode: Episode, now_ns: int) -> int:
    """An episode goes on: another sample, a log line. Returns when to look again."""
    obs = loop._obsloop
    if now_ns < episode.next_ns:
        return episode.next_ns
    duration_ns = now_ns - episode.began_ns
    if now_ns >= episode.next_sample_ns and len(episode.samples) < MAX_SAMPLES:
        found = _see(run, loop, now_ns)
        if found is not None and obs.episode is episode:
            episode.sight, frames = found
            episode.sights.append(episode.sight)
            episode.samples.append((duration_ns / 1e9, frames))
    unhealthy_ns = int(obs.settings.unhealthy_after * 1e9)
    if not episode.logged and duration_ns >= unhealthy_ns:
        episode.logged = True
        episode.cause = causes.why(obs, run.cells, episode.began_ns, now_ns)
        event = episode.story.event(duration_ns, episode.cause, tuple(episode.samples))
        notices.blocked(event, duration_ns / 1e9, episode.cause, episode.sight.where, over=False)
    episode.plan(now_ns, unhealthy_ns)
    return episode.next_ns


def _see(run: Run, loop: Any, now_ns: int) -> tuple[Sight, tuple[Any, ...]] | None:
    """What the loop's thread is doing; None where it is gone, or past what blocked it."""
    if held.full(loop._obsloop):
        return None
    began_ns = run.cells.began_ns
    kept: list[Any] = []
    try:
        return _seen(run, loop, now_ns, kept)
    finally:
        held.hand_over(loop, began_ns, now_ns, kept)


def _seen(run: Run, loop: Any, now_ns: int, kept: list[Any]) -> tuple[Sight, tuple[Any, ...]] | None:
    """The same; each object of the program's that it reads is in ``kept`` before."""
    cells = run.cells
    before_ns = cells.tick_ns
    frames = frames.of_thread(run.ident, backend.ITERATION)
    if not frames.codes:
        return None
    handle = backend.running_handle(loop, frames.wanted, kept)
    tick_ns, state = cells.tick_ns, cells.state
    if tick_ns != before_ns:
        return None  # the frames may be of one callback and the handle of the next: look again
    stack = stacks.take(frames)
    if stack.ours:
        return None
    if handle is None and stack.outermost is None and state == IN_CALLBACK and backend.METHODS:
        return None  # between two callbacks, and neither is to be named
    site, kind = _THE_LOOP, "other"
    delay_ns = 0
    if handle is not None:
        site = callbacks.site_of_handle(handle)
        marks: tuple[int, int] = loop._obsloop.marks_of_running(handle)
        kind = KIND_OF_BLOCK[marks[0] // STRIDE]
        ready_ns = marks[1]
        delay_ns = max(0, tick_ns - ready_ns) if ready_ns and state == IN_CALLBACK else 0
    task = stacks.inner_task(loop, handle)
    kept.append(task)
    if task is not None:
        site, kind = callbacks.site_of_task(task), "task_step"
    elif site in (_THE_LOOP, callbacks.CANCELLED) and stack.outermost is not None:
        site = stack.outermost
    where = stacks.where(stack.frames)
    context = stacks.context(handle, task)
    kept.append(context)
    span, ids = stacks.span(context, kept)
    detail = "; ".join(text for text in (site.detail, where, span) if text)
    return Sight(now_ns, site, kind, detail, where, delay_ns / 1e9, ids), stack.frames


def _tell() -> None:
    """Emit the events of what has ended."""
    while _ended:
        ended = _ended.popleft()
        story, episode, duration_ns, cause, unhealthy_ns = ended
        samples = tuple(episode.samples) if episode is not None else ()
        if episode is None:
            event = story.blocked(duration_ns, cause, samples)
            if duration_ns >= unhealthy_ns:
                notices.blocked(event, event.duration, cause, "", over=True)
        else:
            _open[:] = [entry for entry in _open if entry.episode is not episode]
        story.unblocked(duration_ns, cause, samples)


def _close_gone(life: _Life) -> None:
    """Close the episodes of loops that went away while they were blocked."""
    for run, obs, episode in _open.copy():
        if obs.episode is not episode:
            continue  # its end is on the way to us
        inner = runs.runs.get(run.ident)
        while inner is not None and inner is not run:
            inner = inner.outer
        if inner is None or run.loop() is None or not frames.is_alive(run.ident):
            now_ns = time.monotonic_ns()
            _lost(obs, episode, now_ns)
            life.bell.ring()


# ---- fork ------------------------------------------------------------------------------------------------------------


def _before_fork() -> None:
    """End the thread: a process that forks should have one only, and since 3.12 Python warns where it has more."""
    _end(_JOIN_SECONDS)


def _end(patience: float) -> None:
    """End the thread. Where it has been at the same work, a hook that hangs, for ``patience`` seconds, it goes on."""
    global _life, _asleep, _spent_before_ns  # noqa: PLW0603
    life = _life
    if life is None:
        return
    life.stop = True
    life.bell.ring()
    if threading.current_thread() is not life.thread:
        busy_ns = life.busy_ns
        if busy_ns:
            patience -= (time.monotonic_ns() - busy_ns) / 1e9
        life.thread.join(max(0.0, patience))
        if life.thread.is_alive():
            life.stop = False
            if not life.ended:
                return  # it goes on when the hook returns: the next fork waits no longer, and there is no second thread
            life.stop = True
            life.thread.join(_JOIN_SECONDS)
        _wait_until_gone(life.thread.native_id)
    _spent_before_ns += life.cpu_ns
    _life, _asleep = None, True


def _wait_until_gone(native_id: int | None) -> None:
    """A thread that has been joined may be on its last steps still, and be counted by the kernel.

    Its clock tells, which is gone with it: no look-up in ``/proc``, which keeps what was looked up.
    """
    deadline = time.monotonic() + _JOIN_SECONDS / 10
    while native_id and usage.cpu_time_ns(native_id) is not None and time.monotonic() < deadline:
        time.sleep(0.00005)


def _after_fork_in_parent() -> None:
    """Watch again when a loop moves on. Not at once: Python counts the threads after this, to warn of them."""
    for run in list(runs.runs.values()):
        run.cells.slow_iteration_ns = 0  # its end is told, whereupon there is a thread again


def _after_fork_in_child() -> None:
    # As a whole: whoever held them is gone.
    global _life, _asleep, _starting, _spent_before_ns, _ended, _open, _watched  # noqa: PLW0603
    _life, _asleep, _spent_before_ns = None, True, 0
    _starting = _thread.allocate_lock()
    _ended, _open, _watched = deque(), [], {}
    for part in (usage, notices, lints):
        part.forked()
    for run in list(runs.runs.values()):
        loop = run.loop()
        if loop is not None:
            loop._obsloop.episode = loop._obsloop.usage = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


# ---- the end ---------------------------------------------------------------------------------------------------------


def closed() -> None:
    """A loop is closed. In a subinterpreter the thread ends with the last one: it may be ended next."""
    if _transient and _life is not None and not runs.runs:
        _end(_EXIT_SECONDS)


def _at_exit() -> None:
    """A subinterpreter cannot be ended while a thread of it is left. The main one ends with its daemon threads."""
    global _refused  # noqa: PLW0603
    if _transient:
        _end(_EXIT_SECONDS)
        _refused = True  # what runs after this is not watched


atexit.register(_at_exit)

"""A task that never yields: one of its steps lasts too long, or it only yields with ``sleep(0)``.

The first is seen while it lasts. The second, ``while True: await asyncio.sleep(0)`` in one form or another, keeps the
loop from ever waiting, and uses a whole CPU for it. Two facts show it from outside. A task that yielded without
anything to wait for has no future, and is called as a step; one that a future woke keeps the future until it runs, and
is called as a wake-up. And while such a task exists, no poll may wait. So a task is reported if every scan found it so
for long enough, and if from scan to scan the loop went round without one poll that waited. A server under full load
causes no false alarm: its tasks wait for futures, however shortly.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from obsloop.base.asyncio_private import private_tasks
from obsloop.hotpath import backend, held
from obsloop.introspect import attributes, coroutines, frames as _frames, own_code, stacks
from obsloop.introspect.functions import Site
from obsloop.metrics.counters import IN_CALLBACK
from obsloop.metrics.self_metrics import dropped
from obsloop.tasks.lints import findings, scan
from obsloop.tasks.lints.scan import TaskScan

if TYPE_CHECKING:
    from obsloop.metrics.runs import Run

_PY_STEP: Any = getattr(getattr(private_tasks, "_PyTask", None), "_Task__step", object())

LINT = "never_yields"
SLOW_CALLBACKS = 10
LEAST_NS = 1_000_000_000
PATIENCE = 10
"""A task that is always ready is reported after so many times the limit of a step."""
MIN_LOOKS = 5
MAX_READY = 1_000
"""How many tasks that may be always ready are followed at once."""


def limit_ns(obs: Any) -> int:
    """Return how long one step of a task may last, in nanoseconds."""
    seconds = obs.settings.never_yields_after
    slow_ns: int = obs.slow_ns
    return max(LEAST_NS, SLOW_CALLBACKS * slow_ns) if seconds is None else round(seconds * 1e9)


class Steps:
    """Steps that last too long: checked whenever the watchdog checks."""

    __slots__ = ("_groups", "_reported")

    def __init__(self) -> None:
        self._groups = findings.Groups()
        self._reported: dict[int, int] = {}
        """By the ``id`` of a run's counters: when the step began that was counted."""

    def look(self, runs: dict[int, Run], now_ns: int) -> int:
        """Check what these loops do at this moment. Return when there may be something to find."""
        for key in list(self._reported):
            if all(id(run.counters) != key for run in runs.values()):
                self._reported.pop(key, None)
        due_ns = now_ns + LEAST_NS
        for run in runs.values():
            counters, loop = run.counters, run.loop()
            began_ns = counters.tick_ns
            if loop is None or counters.state != IN_CALLBACK or self._reported.get(id(counters)) == began_ns:
                continue
            limit = limit_ns(loop._obsloop)
            if now_ns - began_ns < limit:
                due_ns = min(due_ns, began_ns + limit)
            elif self._see(run, loop, began_ns, now_ns):
                self._reported[id(counters)] = began_ns
        return due_ns

    def _see(self, run: Run, loop: Any, began_ns: int, now_ns: int) -> bool:
        """Handle a callback that lasts too long: if it is a task's step, report it. Return whether it was counted."""
        if held.full(loop._obsloop):
            return False
        iteration_ns = run.counters.began_ns
        kept: list[Any] = []
        try:
            found = _site_and_place(run, loop, kept)
        finally:
            held.hand_over(loop, iteration_ns, now_ns, kept)
        if found is None:
            return False
        site, where = found
        if run.counters.tick_ns != began_ns:
            return False
        obs = loop._obsloop
        findings.add(obs, LINT)
        key = (id(run.counters), *site[:3])
        seconds = (now_ns - began_ns) / 1e9
        if self._groups.is_news(key, 1):
            self._groups.settle(set())  # each step is a finding of its own: reported again after a while
            message = f"has not let others run for {seconds:.1f} s"
            # It is not logged: a line about the block is, too.
            findings.tell(obs, LINT, site, message, seconds=seconds, detail=where, log=False)
        return True


def _site_and_place(run: Run, loop: Any, kept: list[Any]) -> tuple[Site, str] | None:
    """Return who keeps the loop in a task's step, and at which line. Add the task to ``kept``.

    Under a server, the task's own coroutine is the server's. The culprit is the program's function.
    """
    task: Any = None
    with suppress(Exception):
        task = asyncio.current_task(loop)
    kept.append(task)
    frames = _frames.of_thread(run.ident)
    if task is None or not frames.codes:
        return None
    site = coroutines.site_of_task(task)
    stack = stacks.take(frames, loop._obsloop.own_code)
    culprit = own_code.culprit_of(stack.innermost_first, site)
    if culprit.function != site.name:
        site = Site(culprit.function, culprit.filename, culprit.lineno, site.task_name)
    return site, stacks.where(stack.frames)


class _Ready:
    """A task that may be always ready."""

    __slots__ = ("looks", "ref", "reported", "since_ns")

    def __init__(self, ref: Any, since_ns: int) -> None:
        self.ref = ref
        self.since_ns = since_ns
        self.looks = 1
        self.reported = False


class AlwaysReady:
    """Tasks that only yield with ``sleep(0)``."""

    __slots__ = ("_busy", "_groups", "_loops", "_ready")

    def __init__(self) -> None:
        self._groups = findings.Groups()
        self._loops: dict[int, tuple[int, int, int]] = {}
        """By the ``id`` of a loop's counters: its run, the number of polls that waited, when the last poll returned."""
        self._busy: set[int] = set()
        """The ``id`` of the counters of loops that have gone round since the last scan without waiting."""
        self._ready: dict[int, _Ready] = {}
        """By the ``id`` of the task."""

    def begin(self, now: TaskScan) -> None:
        """Note which loops have been busy all the time, and check the tasks that are followed."""
        before, self._loops = self._loops, {}
        self._busy = set()
        for run in now.runs.values():
            counters = run.counters
            state = counters.run_started_ns, counters.waits, counters.began_ns
            self._loops[id(counters)] = state
            last = before.get(id(counters))
            if last is not None and last[:2] == state[:2] and last[2] != state[2]:
                self._busy.add(id(counters))
        for key, entry in list(self._ready.items()):
            gave_way, of = _gave_way(entry.ref(), now)
            if gave_way is False or of is None or id(of.counters) not in self._busy:
                del self._ready[key]
            elif gave_way:
                entry.looks += 1

    def see(self, now: TaskScan, run: Run, ref: Any, task_id: int) -> None:
        """Note a task of the scan that waits for no future."""
        if id(run.counters) not in self._busy or task_id in self._ready:
            return
        if len(self._ready) < MAX_READY:
            self._ready[task_id] = _Ready(ref, now.began_ns)
        else:
            dropped["task_lint"] += 1

    def end(self, now: TaskScan) -> None:
        """Report the tasks that have been ready for too long."""
        found: dict[findings.Key, list[_Ready]] = {}
        runs: dict[findings.Key, Run] = {}
        for entry in list(self._ready.values()):
            task = entry.ref()
            run = now.runs.get(scan.loop_id_of(task) or 0) if task is not None else None
            loop = run.loop() if run is not None else None
            if run is None or loop is None or entry.looks < MIN_LOOKS:
                continue
            obs = loop._obsloop
            if now.began_ns - entry.since_ns < PATIENCE * limit_ns(obs):
                continue
            if not entry.reported:
                entry.reported = True
                findings.add(obs, LINT)
            key = scan.key_of(run, scan.coroutine_of(task))
            found.setdefault(key, []).append(entry)
            runs[key] = run
            del task
        for key, entries in found.items():
            loop = runs[key].loop()
            known = scan.site_and_place(entries[0].ref, loop._obsloop.own_code) if loop is not None else None
            if loop is None or known is None or not self._groups.is_news(key, len(entries)):
                continue
            site, where = known
            seconds = (now.began_ns - min(entry.since_ns for entry in entries)) / 1e9
            message = f"has been runnable for {seconds:.1f} s without ever waiting: it only yields with sleep(0)"
            findings.tell(loop._obsloop, LINT, site, message, n=len(entries), seconds=seconds, detail=where)
        self._groups.settle(set(found))


def _gave_way(task: Any, now: TaskScan) -> tuple[bool | None, Run | None]:
    """Return whether it is ready or runs without a future having woken it (None: not visible now), and its run."""
    loop_id = None if task is None else scan.loop_id_of(task)
    run = now.runs.get(loop_id) if loop_id is not None else None
    loop = run.loop() if run is not None else None
    if run is None or loop is None or scan.waiter_of(task) is not None:
        return False, None
    if asyncio.current_task(loop) is not task:
        return True, run
    if held.full(loop._obsloop):
        return None, run
    iteration_ns = run.counters.began_ns
    kept: list[Any] = [task]
    try:
        return _runs_since_giving_way(task, run, loop, kept), run
    finally:
        held.hand_over(loop, iteration_ns, now.began_ns, kept)


def _runs_since_giving_way(task: Any, run: Run, loop: Any, kept: list[Any]) -> bool | None:
    """Return whether ``task``, which runs, yielded before this step without waiting; None if that is not visible."""
    iterations = _frames.of_thread(run.ident, backend.ITERATION).wanted if backend.ITERATION else []
    handle = backend.running_handle(loop, iterations, kept)
    callback = None if handle is None else attributes.get(handle, "_callback")
    if callback is None or attributes.get(callback, "__self__") is not task:
        return None  # it has gone on meanwhile, or is in its first, eager step
    return backend.is_step(callback) or attributes.get(callback, "__func__") is _PY_STEP

"""A task that nothing can wake: it waits for a plain future to which nothing refers but the task itself.

Anything that is to set a future's result refers to it: a timer, a transport, a lock's queue, an executor's job, another
task. So this lint counts the future's references, and subtracts those that the waiting task accounts for: its own
``_fut_waiter``, what it iterates with, and the variables of its coroutines. The garbage collector's
``gc.get_referents`` shows all of these for these few objects (searching the whole heap for referrers would cost too
much). If every scan for long enough finds none left, nothing can set the future any more.

This is reported if nothing refers to the task either, so that nothing can even cancel it. It is also reported if the
future is in a variable of the coroutine, since then other code was meant to set it. It is not reported for a task that
other code refers to and that runs ``await asyncio.Future()``: this is how programs wait until they are cancelled. For
the same reason the task of ``run_until_complete`` is left out, and so is a task within a time-out, which will wake it.

No interpreter promises how it counts references. So the count is first tried on known examples, for tasks and futures
in C and in Python. A combination for which it is not exact is left out, and one log line says so.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from obsloop.base.asyncio_private import C_FUTURE, C_TASK, private_base_events, private_futures, private_tasks
from obsloop.base.guarded import harmless
from obsloop.introspect import attributes, coroutines
from obsloop.metrics.self_metrics import dropped
from obsloop.tasks import since
from obsloop.tasks.lints import findings, scan
from obsloop.tasks.lints.scan import TaskScan

if TYPE_CHECKING:
    from obsloop.metrics.runs import Run

LINT = "never_woken"
MAX_CHECKED = 200
"""How many tasks' references are counted in one scan; if there are more, the next scan counts others."""
MAX_SUSPECTS = 1_000
MIN_LOOKS = 3
_ENDS_A_WAIT = ("timeout", "cancelscope")

_log = logging.getLogger("obsloop")
_is_root: Any = getattr(private_base_events, "_run_until_complete_cb", None)
_get: Any = gc.get_referents


class Count(NamedTuple):
    """References to a task and to what it waits for that these two do not account for themselves."""

    future: int
    variables: int
    """How many of the future's references are variables of the task's coroutines."""
    task: int


class _Suspect:
    __slots__ = ("future_id", "held", "looks", "ref", "reported", "since_ns")

    def __init__(self, ref: Any, future_id: int, since_ns: int, *, held: bool) -> None:
        self.ref = ref
        self.future_id = future_id
        self.since_ns = since_ns
        self.looks = 0
        self.held = held
        self.reported = False


class NeverWoken:
    """The lint."""

    __slots__ = ("_eligible", "_exact", "_from", "_groups", "_refs", "_suspects")

    def __init__(self) -> None:
        self._groups = findings.Groups()
        self._suspects: dict[int, _Suspect] = {}
        """By the ``id`` of the task."""
        self._exact: frozenset[tuple[bool, bool]] | None = None
        """The combinations of tasks and futures in C (True) or Python that are counted exactly; None: not tried yet."""
        self._refs: list[tuple[int, Any]] = []
        self._eligible = self._from = 0

    def begin(self, now: TaskScan) -> None:
        """Check the tasks that are suspected."""
        if self._exact is None:
            self._exact = exact()
            if len(self._exact) < len(_COMBINATIONS):
                with harmless:  # a logging handler of the program's may raise
                    _log.warning(
                        "on this interpreter references are not counted as expected: tasks that nothing can wake are"
                        " found only for %d of %d combinations of tasks and futures",
                        len(self._exact), len(_COMBINATIONS),
                    )  # fmt: skip
        self._eligible = 0
        self._refs = []
        for key, suspect in list(self._suspects.items()):
            loop_id = _loop_id(suspect.ref)
            if loop_id is None:
                del self._suspects[key]
            elif loop_id in now.runs:
                future_id, held = self._lost(suspect.ref)
                if future_id == suspect.future_id:
                    suspect.looks += 1
                    suspect.held = held
                else:
                    del self._suspects[key]

    def see(self, ref: Any, task_id: int, waits_for: type[Any] | None) -> None:
        """Note a task of the scan and the class of what it waits for. ``end`` counts, when no variable has the task."""
        if waits_for in _PLAIN and self._exact:
            self._eligible += 1
            if self._from < self._eligible <= self._from + MAX_CHECKED and task_id not in self._suspects:
                self._refs.append((task_id, ref))

    def end(self, now: TaskScan) -> None:
        """Report the tasks that nothing could have woken for long enough."""
        for task_id, ref in self._refs:
            future_id, held = self._lost(ref)
            if not future_id:
                continue
            if len(self._suspects) < MAX_SUSPECTS:
                self._suspects[task_id] = _Suspect(ref, future_id, now.began_ns, held=held)
            else:
                dropped["task_lint"] += 1
        self._refs = []
        self._from = self._from + MAX_CHECKED if self._from + MAX_CHECKED < self._eligible else 0
        found: dict[findings.Key, list[_Suspect]] = {}
        runs: dict[findings.Key, Run] = {}
        for suspect in list(self._suspects.values()):
            run = now.runs.get(_loop_id(suspect.ref) or 0)
            loop = run.loop() if run is not None else None
            if run is None or loop is None or suspect.looks < MIN_LOOKS:
                continue
            obs = loop._obsloop
            if (now.began_ns - suspect.since_ns) / 1e9 < obs.settings.never_woken_after:
                continue
            if not suspect.reported:
                suspect.reported = True
                findings.add(obs, LINT)
            key = scan.key_of(run, scan.coroutine_of(suspect.ref()))
            found.setdefault(key, []).append(suspect)
            runs[key] = run
        for key, suspects in found.items():
            loop = runs[key].loop()
            known = scan.site_and_place(suspects[0].ref, loop._obsloop.own_code) if loop is not None else None
            if loop is None or known is None or not self._groups.is_news(key, len(suspects)):
                continue
            site, where = known
            seconds = (now.began_ns - min(suspect.since_ns for suspect in suspects)) / 1e9
            end = "only cancelling ends it" if suspects[0].held else "nothing refers to the task, either"
            message = (
                f"waits forever ({seconds:.1f} s so far): the future it awaits is lost, so nothing can complete it;"
                f" {end}"
            )
            findings.tell(loop._obsloop, LINT, site, message, n=len(suspects), seconds=seconds, detail=where)
        self._groups.settle(set(found))

    def is_reported(self, task: Any) -> bool:
        """Return whether this task has been reported already."""
        suspect = self._suspects.get(id(task))
        return suspect is not None and suspect.reported

    def destroyed(self, loop: Any, task: Any) -> None:
        """Report a task that was collected as garbage while it waited, as asyncio says: nothing could have woken it."""
        if loop.is_running() and not self.is_reported(task):
            obs = loop._obsloop
            findings.add(obs, LINT)
            site = coroutines.site_of_task(task)
            if self._groups.is_news((id(obs.counters), "destroyed", *site[:3]), 1):
                findings.tell(
                    obs, LINT, site, "was destroyed while it waited: nothing referred to it any more", log=False
                )

    def _lost(self, ref: Any) -> tuple[int, bool]:
        """Return the ``id`` of the future and whether the task is referred to; ``(0, False)`` if it can be woken."""
        found = count(ref)
        task = ref()
        if found is None or found.future or task is None or not self._exact or _combination(task) not in self._exact:
            return 0, False
        held = found.task > 0
        if held and not found.variables:
            return 0, False
        future = scan.waiter_of(task)
        if attributes.class_of(future) not in _PLAIN or future.done() or since.foreign_refs(future):
            return 0, False
        if held and (_is_for_a_run(task) or _has_a_timeout(task)):
            return 0, False
        return id(future), held


def _loop_id(ref: Any) -> int | None:
    task = ref()
    return None if task is None else scan.loop_id_of(task)


def count(ref: Any, *, fully: bool = False) -> Count | None:
    """Count the references to a task and its future that they do not account for.

    None if the chain of the task's coroutines does not end at a plain future. The caller must not have the task or the
    future in a variable. If other code refers to the future, references to the task are not counted, unless ``fully``.
    """
    task = ref()
    future = None if task is None else scan.waiter_of(task)
    if future is None or attributes.class_of(future) not in _PLAIN:
        return None
    chain = scan.chain_of(scan.coroutine_of(task))
    iterator = _times(chain[-1], future) if chain else 0
    if not iterator:
        return None
    own = _times(task, future) + _times_within(task, future)
    variables = sum(_times(coro, future) for coro in chain[:-1])
    of_future = sys.getrefcount(future) - own - iterator - variables - _ours[0]
    if of_future > 0 and not fully:
        return Count(of_future, variables, -1)
    of_task = _to_task(future, task) + sum(_times(coro, task) for coro in chain)
    return Count(of_future, variables, sys.getrefcount(task) - of_task - _ours[1])


def _times(holder: Any, held: Any) -> int:
    """Return how many references ``holder`` has to ``held``."""
    found = 0
    for obj in _get(holder):
        if obj is held:
            found += 1
    return found


def _times_within(task: Any, held: Any) -> int:
    """Return how many references the task's own dictionary, if it has one, holds to ``held``."""
    spaces: list[Any] = [obj for obj in _get(task) if type(obj) is dict]
    return sum(value is held for space in spaces for value in space.values())


def _to_task(future: Any, task: Any) -> int:
    """Count the future's references to the task: in its callbacks, and since 3.14 as the one that awaits it."""
    found = 0
    level = [future]
    for _ in range(4):
        below: list[Any] = []
        for obj in level:
            for held in _get(obj):
                if held is task:
                    found += 1
                elif type(held) in (list, tuple, MethodType, BuiltinMethodType) or type(held).__name__ in _WRAPPERS:
                    below.append(held)
        level = below
    return found


def _is_for_a_run(task: Any) -> bool:
    """Return whether ``run_until_complete`` runs until it is done."""
    callbacks = attributes.get(task, "_callbacks")
    return bool(callbacks) and any(entry[0] is _is_root for entry in callbacks)


def _has_a_timeout(task: Any) -> bool:
    """Return whether a coroutine of the task is within a time-out: asyncio's, or a class whose name says so."""
    for coro in scan.chain_of(scan.coroutine_of(task)):
        for obj in _get(coro):
            owner = attributes.get(obj, "__self__") if type(obj) in (MethodType, BuiltinMethodType) else obj
            within = attributes.get(owner, "gen")  # contextlib's
            for one in (owner, *(_get(coroutines.generator_in(within)) if within is not None else ())):
                inner = attributes.get(one, "__self__") if type(one) in (MethodType, BuiltinMethodType) else one
                name = attributes.qualname_of(attributes.class_of(inner)).lower()
                if any(part in name for part in _ENDS_A_WAIT):
                    return True
    return False


# ---- is it exact? ----------------------------------------------------------------------------------------------------

_PY_FUTURE: Any = getattr(private_futures, "_PyFuture", asyncio.Future)
_C_FUTURE: Any = C_FUTURE
_PY_TASK: Any = getattr(private_tasks, "_PyTask", asyncio.Task)
_C_TASK: Any = C_TASK
_TASKS: dict[bool, Any] = {False: _PY_TASK, **({True: _C_TASK} if _C_TASK is not None else {})}
_FUTURES: dict[bool, Any] = {False: _PY_FUTURE, **({True: _C_FUTURE} if _C_FUTURE is not None else {})}
_PLAIN = frozenset(_FUTURES.values())
_COMBINATIONS = [(task, future) for task in _TASKS for future in _FUTURES]
_WRAPPERS = ("TaskWakeupMethWrapper", "TaskStepMethWrapper")
_ours = (0, 0)
"""References that counting itself adds, to the future and to the task; measured with the first example."""


class _Probe:
    """As much of a loop as a task needs for its first step."""

    def __init__(self) -> None:
        self.scheduled: list[Any] = []

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> None:
        self.scheduled.append((callback, args))

    def get_debug(self) -> bool:
        return False

    def step(self) -> None:
        """Run what was scheduled last."""
        callback, args = self.scheduled.pop()
        running = asyncio._get_running_loop()
        asyncio._set_running_loop(self)  # type: ignore[arg-type]
        try:
            callback(*args)
        finally:
            asyncio._set_running_loop(running)


def _combination(task: Any) -> tuple[bool, bool]:
    future = scan.waiter_of(task)
    return (
        _C_TASK is not None and attributes.is_a(task, _C_TASK),
        _C_FUTURE is not None and attributes.is_a(future, _C_FUTURE),
    )


def exact() -> frozenset[tuple[bool, bool]]:
    """Return the combinations for which counting is exact on known examples. In a thread without a loop."""
    global _ours  # noqa: PLW0603 - the same for the whole process
    if not getattr(sys, "_is_gil_enabled", bool)() and sys.version_info >= (3, 13):
        return frozenset()  # without the GIL references are counted in two places
    found: list[tuple[bool, bool]] = []
    for combination in _COMBINATIONS:
        try:
            if not found:
                _ours = (0, 0)
                first = _try(combination)[0]
                if first is not None:
                    _ours = first.future, first.task - 1
            if _try(combination) == _EXPECTED:
                found.append(combination)
        except Exception:  # noqa: S112  an interpreter that differs in more than in counting
            continue
    return frozenset(found)


_EXPECTED = [Count(0, 1, 1), Count(1, 1, 1), Count(0, 1, 0), Count(1, 1, 0), Count(0, 0, 1), Count(0, 0, 0)]
"""For a task in a variable; its future, too; neither; only the future; then twice for a coroutine without variables."""


def _try(combination: tuple[bool, bool]) -> list[Count | None]:
    """Return what is counted for known examples."""
    task_type, future_type = _TASKS[combination[0]], _FUTURES[combination[1]]
    probe = _Probe()

    async def with_variable() -> None:
        future = future_type(loop=probe)
        await future

    async def without() -> None:
        await future_type(loop=probe)

    results: list[Count | None] = []
    for example in (with_variable, without):
        coro = example()  # keeps the rest alive, and refers to neither the task nor, but as expected, the future
        task = task_type(coro, loop=probe, name="obsloop")
        task._log_destroy_pending = False
        probe.step()
        ref = weakref.ref(task)
        results.append(count(ref, fully=True))
        if example is with_variable:
            future = scan.waiter_of(task)
            results.append(count(ref, fully=True))
            del task, future
            results.append(count(ref, fully=True))
            future = scan.waiter_of(ref())
            results.append(count(ref, fully=True))
        else:
            del task
            results.append(count(ref, fully=True))
            future = scan.waiter_of(ref())
        future.set_result(None)
        del future
        probe.step()  # the task ends, and no cycle is left to the garbage collector
    return results

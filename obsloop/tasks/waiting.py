"""Add up where the live tasks wait, weighted by time.

A few of the tasks that the census knows are read at a time, chosen evenly, and stand for all of them until the next
reading. So the profile is an estimate: a task that lives for less than the time between two readings is often missed.
"""

from __future__ import annotations

import threading
import time
from pathlib import PurePath
from typing import Any

from obsloop.base import clock, gc_pause
from obsloop.base.fork import reset_in_child
from obsloop.base.guarded import harmless
from obsloop.introspect import attributes, coroutines, own_code
from obsloop.metrics import self_metrics
from obsloop.profile import windows
from obsloop.profile.data import Frame, Labels, Profile
from obsloop.profile.labels import labels, task_label
from obsloop.tasks import asking, census
from obsloop.tasks.describing import Loops
from obsloop.tasks.lints import scan

MAX_READ = 50
"""How many tasks are read at a time, which takes some milliseconds."""
PAUSE_SECONDS = 1.0
PAUSE_TIMES = 500
"""The next reading comes after this many times what the last one cost: 0.2 % of one core at most."""
_LONGEST_SECONDS = 60.0
"""One reading stands for no longer than this."""


class _State:
    """All that a process keeps. A forked child gets a new one."""

    def __init__(self) -> None:
        self.recent = windows.Recent("waiting")
        self.folding = threading.Lock()
        self.read_at: float | None = None
        self.next_at = 0.0
        self.turn = 0


_state = _State()


def go_on() -> None:
    """Read some tasks, if that is due. For one thread, not a loop's."""
    state = _state
    now = clock.seconds()
    if now < state.next_at:
        return
    began_ns = time.thread_time_ns()
    state.next_at = now + PAUSE_SECONDS
    if state.read_at is not None:
        _read(state, now, min(_LONGEST_SECONDS, now - state.read_at))
    state.read_at = now
    cost_ns = time.thread_time_ns() - began_ns
    self_metrics.add_time("profile", cost_ns)
    state.next_at = now + max(PAUSE_SECONDS, PAUSE_TIMES * cost_ns / 1e9) - 0.1  # the caller comes once a second


def profile(seconds: float) -> Profile:
    """Return where tasks have waited in the last ``seconds``. For the service's threads."""
    state = _state
    with state.folding:
        return state.recent.profile(seconds, *windows.now())


def _read(state: _State, now: float, passed: float) -> None:
    found: list[tuple[tuple[Frame, ...], Labels]] = []
    with gc_pause.held:
        known = list(census._census.first_seen)
        every = -(-len(known) // MAX_READ) or 1
        state.turn += 1
        chosen = known[state.turn * 7919 % every :: every]  # a prime: no pattern of the program's has this step
        loops = census._loops()
        files: dict[Any, tuple[str, bool]] = {}
        for ref in gc_pause.breathing(chosen):
            with harmless:  # a task of the program's own class that behaves differently
                stack = _stack_of(ref, loops, files)
                if stack is not None:
                    found.append(stack)
    if not chosen:
        return
    ns = round(passed * 1e9 * len(known) / len(chosen))
    with state.folding:
        for frames, labelled in found:
            state.recent.add(now, frames, labelled, ns)


def _stack_of(ref: Any, loops: Loops, files: dict[Any, tuple[str, bool]]) -> tuple[tuple[Frame, ...], Labels] | None:
    """Return where a task waits, from its coroutine to the innermost own frame; None if it does not wait.

    ``files`` keeps what was found out about each file.
    """
    task = ref()
    loop_id = asking.loop_id(ref)
    if task is None or loop_id not in loops or not attributes.is_a(task, coroutines.TASKS):
        return None
    loop, loop_name = loops[loop_id]
    state, waits_for = asking.state_of(task, loop)
    if state != "waiting":
        return None
    rule = getattr(getattr(loop, "_obsloop", None), "own_code", own_code.DEFAULT)
    site = coroutines.site_of_task(task)
    frames: list[Frame] = []
    for coro in scan.chain_of(scan.coroutine_of(task)):
        place = coroutines.place_in(coro)
        if place is not None:
            code, lineno = place
            known = files.get((rule, code.co_filename))
            if known is None:
                known = PurePath(code.co_filename).stem, rule.is_own(code.co_filename)
                files[rule, code.co_filename] = known
            frames.append((attributes.clean(f"{known[0]}.{code.co_qualname}"), code.co_filename, lineno, known[1]))
    while any(own for *_, own in frames) and not frames[-1][3]:
        frames.pop()
    if not frames:
        frames = [(site.name, site.filename, site.lineno, False)]
    future = (waits_for or "").partition(" ")[0]  # without the name of a task: each would be a stack of its own
    return tuple(frames), labels(loop=loop_name, waits_for=future, task=task_label(site.task_name))


@reset_in_child
def forked() -> None:
    """Start from nothing in a forked child."""
    global _state  # noqa: PLW0603 - as a whole: the parent's may have been half-way through a change
    _state = _State()

"""Read the counters of a running loop from any thread: a consistent copy, with the stretch of time that is open."""

from typing import NamedTuple

from obsloop.base import clock
from obsloop.metrics.counters import (
    FIRST_STEP,
    FORKED,
    IN_CALLBACK,
    IN_IDLE,
    IN_OVERHEAD,
    IN_POLL,
    STOPPED,
    STRIDE,
    TASK_STEP,
    Counted,
    Counters,
)

_TRIES = 16


class Reading(NamedTuple):
    """A consistent copy of one loop's counters, including the stretch of time that is still open.

    All times are in nanoseconds. ``durations`` and ``delays`` have a block of ``STRIDE`` for each of ``KINDS``.
    ``iteration`` is one block.
    """

    consistent: bool
    running: bool
    blocked_ns: int
    run_ns: int
    idle_ns: int
    poll_ns: int
    callback_ns: int
    gc_ns: int
    overhead_ns: int
    durations: list[int]
    delays: list[int]
    iteration: list[int]
    open_iteration_ns: int
    """How long the present iteration has lasted; 0 if the loop polls, waits or does not run."""
    first_step_delays: list[int]
    counted: Counted
    """The copy itself, for all that needs no more than to be read."""


def read(counters: Counters, *, ours: bool = True) -> Reading:
    """Return a copy that includes the open stretch. It is not ``consistent`` if the writer moved on in every try.

    If the loop's iteration is no longer obsloop's (``ours``), the time since the writer's last change is unknown and is
    left out.
    """
    consistent = False
    raw = counters.copy()
    now_ns = clock.monotonic_ns()
    for _ in range(_TRIES):
        consistent = raw.tick_ns == counters.tick_ns and raw.state == counters.state
        if consistent:
            break
        raw = counters.copy()
        now_ns = clock.monotonic_ns()
    running = raw.state not in (STOPPED, FORKED)
    if not ours:
        now_ns = raw.tick_ns
    open_ns = [0] * (FORKED + 1)
    gc_ns = raw.gc_ns
    if running:
        open_ns[raw.state] = max(0, now_ns - raw.tick_ns)
        if raw.gc_started_ns:
            gc_ns[raw.state] += max(0, now_ns - raw.gc_started_ns)
    run_ns = raw.run_ns + (max(0, now_ns - raw.run_started_ns) if running else 0)
    idle_ns = raw.idle_ns + open_ns[IN_IDLE] - gc_ns[IN_IDLE]
    poll_ns = raw.poll[0] + open_ns[IN_POLL] - gc_ns[IN_POLL]
    callback_ns = sum(raw.durations[::STRIDE]) - raw.nested_ns + open_ns[IN_CALLBACK] - gc_ns[IN_CALLBACK]
    in_iteration = raw.began_ns and raw.state in (IN_CALLBACK, IN_OVERHEAD)
    collecting_ns = sum(gc_ns[IN_IDLE:FORKED])  # without collections while the loop did not run
    return Reading(
        consistent=consistent,
        running=running and ours,
        blocked_ns=open_ns[IN_CALLBACK] + open_ns[IN_OVERHEAD],
        run_ns=run_ns,
        idle_ns=idle_ns,
        poll_ns=poll_ns,
        callback_ns=callback_ns,
        gc_ns=collecting_ns,
        overhead_ns=max(0, run_ns - idle_ns - poll_ns - callback_ns - collecting_ns),
        durations=_by_kind(raw.durations),
        delays=_by_kind(raw.delays),
        iteration=[sum(raw.iteration_ns), *raw.iteration[1:]],
        open_iteration_ns=max(0, now_ns - raw.began_ns) if in_iteration else 0,
        first_step_delays=raw.delays[FIRST_STEP : FIRST_STEP + STRIDE],
        counted=raw,
    )


def _by_kind(blocks: list[int]) -> list[int]:
    """Merge the block of first steps into that of steps."""
    later = blocks[TASK_STEP:]
    for i, n in enumerate(blocks[FIRST_STEP:TASK_STEP]):
        later[i] += n
    return later


def blocked_ns(counters: Counters) -> int | None:
    """Return how long the loop has been in its present iteration's callback; 0 if it waits, None if it does not run.

    This reads two numbers and copies none.
    """
    state, tick_ns = counters.state, counters.tick_ns
    for _ in range(_TRIES):
        if counters.state == state and counters.tick_ns == tick_ns:
            break
        state, tick_ns = counters.state, counters.tick_ns
    if state in (STOPPED, FORKED):
        return None
    return max(0, clock.monotonic_ns() - tick_ns) if state in (IN_CALLBACK, IN_OVERHEAD) else 0

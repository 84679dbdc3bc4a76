"""The counters that one running loop writes: plain numbers, one writer, no lock.

Only the loop's own thread writes (``hotpath.pure``, and ``probes.gc`` in that thread); any thread may read
(``metrics.reading``). The
writer changes the numbers only in straight lines without a call, so that under the GIL another thread never sees half
of a change. Each such line ends by moving ``tick_ns``. A reader whose copy ends with ``tick_ns`` unmoved has a
consistent one.

Time is a chain: every stretch of a run begins where the one before ended. Callback and poll time are the sums of their
histograms, and idle time has a counter. The rest of the run is the loop's overhead.
"""

# ruff: noqa: RUF009  (`cells` declares a field: each object has a list of its own)

from bisect import bisect_left
from dataclasses import dataclass, field, fields

from obsloop.base import clock
from obsloop.metrics.buckets import COUNTS, SECONDS

KINDS = ("task_step", "callback", "timer", "reader", "writer", "signal", "other", "threadsafe")
"""The ways onto the loop, in the order of their blocks in a ``Reading``."""

KIND_OF_BLOCK = (KINDS[0], *KINDS)
"""The kind of each block of ``Counters``. There, the first steps of tasks have a block of their own, the first one."""

STRIDE = SECONDS.size + 1
"""The length of one block: the sum in nanoseconds, then a counter for each bucket."""

NETWORKS = ("tcp", "unix", "udp", "pipe")
"""The networks of transports, in the order of ``io_bytes``: bytes read, then bytes written, of each."""

FINISHES = ("ok", "error", "cancelled", "abandoned")
"""How tasks end; ``abandoned``: destroyed while pending, or still pending when their loop was closed."""

# A kind is the offset of its block, so that the hot path adds and does not multiply. Kinds up to TASK_STEP are steps of
# tasks.
FIRST_STEP, TASK_STEP, CALLBACK, TIMER, READER, WRITER, SIGNAL, OTHER, THREADSAFE = (
    STRIDE * i for i in range(len(KIND_OF_BLOCK))
)

# The loop's state since `tick_ns`.
STOPPED, IN_IDLE, IN_POLL, IN_OVERHEAD, IN_CALLBACK, FORKED = range(6)

NEVER_NS = 1 << 62
"""A threshold that nothing reaches."""

FAST_NS = 1 << 14
"""16 us: for shorter durations, the bucket is one look-up in a table."""

MIN_NOTABLE_NS = 250_000
"""Shorter callbacks are never notable, however low the thresholds: naming one would cost a per cent of its time."""


def number(*, metric: str = "", reset: bool = True) -> int:
    """Declare a field of ``Counted``: one number. With ``metric``, that metric is its sum over the loops of a name."""
    return field(default=0, metadata={"metric": metric, "reset": reset})


def cells(n: int, *, metric: str = "", many_add: bool = False) -> list[int]:
    """Declare a field of ``Counted``: a list of ``n`` numbers. With ``metric``, it is the histogram of that metric.

    ``many_add``: many tasks add to its sums at once, so that 63 bits do not hold them for long.
    """
    return field(default_factory=lambda: [0] * n, metadata={"metric": metric, "cells": n, "many_add": many_add})


@dataclass(slots=True, eq=False)
class Counted:
    """The table of the counters: each is written here once. Times are in nanoseconds.

    Derived from it: the slots, the copy, what a forked child sets to zero, the metrics named here
    (``probes.collect``), and the fields of the compiled core (``make fields``).
    """

    durations: list[int] = cells(STRIDE * len(KIND_OF_BLOCK))
    delays: list[int] = cells(STRIDE * len(KIND_OF_BLOCK), many_add=True)
    task_durations: list[int] = cells(STRIDE, metric="asyncio.task.duration", many_add=True)
    poll: list[int] = cells(STRIDE, metric="asyncio.eventloop.poll.duration")
    iteration: list[int] = cells(STRIDE)
    """Iterations by duration. The sums are in the next field, with a cell for each bucket: ``metrics.lag`` needs them.
    Cell 0 of both stays 0."""
    iteration_ns: list[int] = cells(STRIDE)
    depth: list[int] = cells(COUNTS.size + 1, metric="asyncio.eventloop.ready.depth")
    gc_ns: list[int] = cells(FORKED + 1)
    """The time of collections in the loop's thread, by the loop's state."""
    io_bytes: list[int] = cells(2 * len(NETWORKS))
    tasks_finished: list[int] = cells(len(FINISHES))
    tick_ns: int = number(reset=False)
    state: int = number(reset=False)
    run_started_ns: int = number(reset=False)
    began_ns: int = number(reset=False)
    """When the last poll returned, which began the current iteration. 0 before the first poll of a run."""
    run_ns: int = number()
    idle_ns: int = number()
    nested_ns: int = number()
    """Time of iterations within a callback of this loop: it counts as their own, and again in that callback."""
    gc_started_ns: int = number()
    """When the current collection in the loop's thread began; 0: there is none."""
    events: int = number(metric="asyncio.eventloop.events")
    events_waiting: int = number(metric="asyncio.eventloop.events_waiting")
    tasks_created: int = number()
    """The histogram of first steps counts the tasks whose first step is on the loop; here are the others. In a copy:
    all tasks."""
    coroutines: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    """Nanoseconds and steps of each coroutine, by its number in ``metrics.coroutine_times``."""


FIELDS = tuple(each for each in fields(Counted) if each.metadata)
"""All but the coroutines, which are no numbers."""


def count_value(counters: list[int], block: int, value_ns: int) -> None:
    """Add a value to the histogram at ``block``. The hot path does this inline."""
    bucket = block + 1 + bisect_left(SECONDS.bounds, value_ns)
    counters[block] += value_ns
    counters[bucket] += 1


class Flows:
    """The open transports of one loop: their number, buffers and pauses. Only the loop's thread writes."""

    __slots__ = ("active", "buffered", "pauses")

    def __init__(self) -> None:
        self.active: dict[tuple[str, str], int] = {}
        self.buffered = 0
        """Bytes in all write buffers."""
        self.pauses = (0, 0)
        """How many are paused, n, and an offset: n times the clock plus the offset is the sum of all paused times. This
        is one object, so that a reader in another thread never sees half of a change and the sum never goes back."""

    def paused_ns(self) -> int:
        """Return the sum of the times that transports were paused, until now."""
        n, offset_ns = self.pauses
        return n * clock.monotonic_ns() + offset_ns

    def pause(self, n: int, now_ns: int) -> None:
        """Add ``n`` to the number of paused transports; ``n`` may be negative."""
        paused, offset_ns = self.pauses
        self.pauses = (paused + n, offset_ns - n * now_ns)

    def forked(self) -> None:
        """Set the paused time to zero in a forked child; open transports stay."""
        n = self.pauses[0]
        self.pauses = (n, -n * clock.monotonic_ns())

    def end(self) -> None:
        """Count no transport as open any more, since the loop is closed."""
        self.active = {}
        self.buffered = 0
        self.pause(-self.pauses[0], clock.monotonic_ns())


class Counters(Counted):
    """One block of counters. The registry lends it to one loop at a time."""

    __slots__ = ("fast_ns", "flows", "notable_ns", "slow_iteration_ns", "slow_ns", "slow_task_ns", "waits")

    def __init__(self) -> None:
        super().__init__()
        self.state = STOPPED
        self.flows = Flows()
        # Polls that might wait: each may take the thread off its CPU once. blocking.cause needs this.
        self.waits = 0
        # The hot path reports a callback from notable_ns on, and an iteration from slow_iteration_ns on; a callback is
        # slow from slow_ns on. Below fast_ns nothing is reported, so the hot path checks no other threshold.
        self.notable_ns = self.slow_ns = self.slow_iteration_ns = NEVER_NS
        self.fast_ns = FAST_NS
        self.slow_task_ns = NEVER_NS  # the threshold of a task's time from creation to end

    def set_thresholds(self, slow_ns: int, slow_iteration_ns: int) -> None:
        """Set from which duration on callbacks and iterations are slow. Any thread may call this at any time.

        A callback of a hundredth of a slow iteration is notable, so that the iteration's end can name its callbacks.
        """
        self.slow_ns = slow_ns
        self.slow_iteration_ns = slow_iteration_ns
        self.notable_ns = min(slow_ns, max(slow_iteration_ns // 100, MIN_NOTABLE_NS))
        self.fast_ns = min(FAST_NS, self.notable_ns, slow_iteration_ns)

    def collecting_ns(self) -> int:
        """Return the time of garbage collections in the loop's thread, a current one included."""
        started_ns = self.gc_started_ns
        return sum(self.gc_ns) + (clock.monotonic_ns() - started_ns if started_ns else 0)

    def begin_run(self, now_ns: int) -> None:
        """Begin a run. Its time is overhead until the first poll."""
        self.run_started_ns = now_ns
        self.began_ns = 0
        self.state = IN_OVERHEAD
        self.tick_ns = now_ns

    def record(self, kind: int, ready_ns: int, end_ns: int) -> None:
        """Count one callback that began at ``tick_ns``. The hot path does this inline."""
        spent_ns = end_ns - self.tick_ns
        waited_ns = max(0, self.tick_ns - ready_ns)
        i = kind + 1 + bisect_left(SECONDS.bounds, spent_ns)
        j = kind + 1 + bisect_left(SECONDS.bounds, waited_ns)
        self.durations[kind] += spent_ns
        self.durations[i] += 1
        self.delays[kind] += waited_ns
        self.delays[j] += 1
        self.tick_ns = end_ns

    def collection_began(self, now_ns: int) -> None:
        """Note that a garbage collection starts in the loop's thread."""
        self.gc_started_ns = now_ns

    def collection_ended(self, now_ns: int) -> None:
        """Count the collection's time, which readers subtract from the state in which the loop is."""
        self.gc_ns[self.state] += now_ns - self.gc_started_ns
        self.gc_started_ns = 0

    def record_iteration(self, spent_ns: int) -> None:
        """Count an iteration. The hot path does this inline."""
        bucket = 1 + bisect_left(SECONDS.bounds, spent_ns)
        self.iteration_ns[bucket] += spent_ns
        self.iteration[bucket] += 1

    def end_run(self, now_ns: int) -> None:
        """End a run in any state. An open wait ends here, too, such as an interrupted ``select``."""
        if self.state == IN_IDLE:
            self.idle_ns += now_ns - self.tick_ns
        elif self.state == IN_POLL:
            count_value(self.poll, 0, now_ns - self.tick_ns)
        self.run_ns += now_ns - self.run_started_ns
        self.run_started_ns = 0
        self.state = STOPPED
        self.tick_ns = now_ns

    def forked(self) -> None:
        """Set everything to zero in a forked child, in place: a loop that still runs there uses these same lists.

        The time since the current callback began stays in the child's books, so that they balance if the loop runs on.
        """
        running = self.run_started_ns
        tick_ns = self.tick_ns
        for each in FIELDS:
            if n := each.metadata.get("cells"):
                getattr(self, each.name)[:] = [0] * n
            elif each.metadata["reset"]:
                setattr(self, each.name, 0)
        self.coroutines.clear()
        self.run_started_ns = tick_ns if running else 0
        self.began_ns = tick_ns if running and self.began_ns else 0
        self.state = FORKED if running else STOPPED
        self.flows.forked()

    def finished(self, outcome: int, duration_ns: int | None) -> None:
        """Count a task that has ended, by the number of its outcome in ``FINISHES``."""
        self.tasks_finished[outcome] += 1
        if duration_ns is not None:
            count_value(self.task_durations, 0, max(0, duration_ns))

    def looks(self) -> tuple[int, list[tuple[int, ...]]] | None:
        """Return the watchdog's measurements of this run without the GIL: the thread, and one or two, older first.

        Each has the moment, ``began_ns``, ``tick_ns``, idle time, collections' time and CPU time. Only the compiled
        core measures like this; here it is always None.
        """
        return None

    def copy(self) -> Counted:
        """Return a plain copy of the counters."""
        copy = Counted()
        for each in FIELDS:
            value = getattr(self, each.name)
            setattr(copy, each.name, value[:] if "cells" in each.metadata else value)
        copy.coroutines = dict(self.coroutines)
        copy.tasks_created += sum(copy.delays[FIRST_STEP + 1 : TASK_STEP])
        return copy


_made_by: type[Counters] = Counters


def new_counters() -> Counters:
    """Make a block of counters, of the compiled core's class if that core is in use."""
    return _made_by()


def make_counters_by(cls: type[Counters]) -> None:
    """Make blocks of another class with the same fields from now on: the compiled core's."""
    global _made_by  # noqa: PLW0603 - one for the whole process
    _made_by = cls

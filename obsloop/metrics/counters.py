"""The counters that one running loop writes: plain numbers, one writer, no lock.

The loop's own thread is the only writer (``hotpath.pure``, and ``probes.gc`` in that thread); any thread may ``read``
them. The writer changes the numbers only in straight lines without a call, so that under the GIL another thread never
sees half of a change, and each such line ends by moving ``tick_ns``: a reader that finds ``tick_ns`` unmoved after its
copy has a consistent one.

Time is kept as a chain: every stretch of a run begins where the one before ended. Callback and poll time are the sums
of their histograms and idle time has a counter; what is left of the run is the loop's own overhead.
"""

from bisect import bisect_left
from typing import NamedTuple

from obsloop.base import clock
from obsloop.metrics.buckets import COUNTS, SECONDS

KINDS = ("task_step", "callback", "timer", "reader", "writer", "signal", "other", "threadsafe")
"""The ways onto the loop, in the order of their blocks in a ``Reading``."""

KIND_OF_BLOCK = (KINDS[0], *KINDS)
"""The same by the blocks of ``Counters``, where first steps of tasks have one to themselves, before the others."""

STRIDE = SECONDS.size + 1
"""One block: the sum in nanoseconds, then a counter for each bucket."""

NETWORKS = ("tcp", "unix", "udp", "pipe")
"""What transports are over, in the order of their bytes in ``io_bytes``: read, then written, of each."""

# A kind is carried as the offset of its block, so that the hot path adds and does not multiply. What is up to TASK_STEP
# is the step of a task.
FIRST_STEP, TASK_STEP, CALLBACK, TIMER, READER, WRITER, SIGNAL, OTHER, THREADSAFE = (
    STRIDE * i for i in range(len(KIND_OF_BLOCK))
)

# What the loop is doing since `tick_ns`.
STOPPED, IN_IDLE, IN_POLL, IN_OVERHEAD, IN_CALLBACK, FORKED = range(6)

NEVER_NS = 1 << 62
"""A threshold that nothing reaches."""

FAST_NS = 1 << 14
"""16 us: below this the bucket of a duration is one look-up in a table."""

MIN_NOTABLE_NS = 250_000
"""What is shorter is not noted one by one, however low the thresholds: naming it would cost a per cent of it."""

_TRIES = 16


class Raw(NamedTuple):
    """The counters as they stand: see ``Counters``."""

    tick_ns: int
    state: int
    run_started_ns: int
    run_ns: int
    idle_ns: int
    nested_ns: int
    gc_started_ns: int
    gc_ns: list[int]
    events: int
    events_waiting: int
    durations: list[int]
    delays: list[int]
    poll: list[int]
    iteration: list[int]
    depth: list[int]
    io_bytes: list[int]
    tasks_created: int
    tasks_finished: list[int]
    task_durations: list[int]
    coroutines: dict[int, tuple[int, int]]


class Reading(NamedTuple):
    """A consistent copy of one loop's counters, with the stretch of time that is still open folded in.

    All times in nanoseconds. ``durations`` and ``delays`` hold a block of ``STRIDE`` for each of ``KINDS``; the other
    histograms are one block each.
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
    events: int
    events_waiting: int
    durations: list[int]
    delays: list[int]
    poll: list[int]
    iteration: list[int]
    depth: list[int]
    io_bytes: list[int]
    first_step_delays: list[int]
    tasks_created: int
    tasks_finished: list[int]
    task_durations: list[int]
    coroutines: dict[int, tuple[int, int]]
    """Nanoseconds and steps, by the coroutine's number in ``metrics.coroutine_times``."""


def count_value(counters: list[int], block: int, value_ns: int) -> None:
    """One more value in the histogram at ``block``: what the hot path does inline."""
    bucket = block + 1 + bisect_left(SECONDS.bounds, value_ns)
    counters[block] += value_ns
    counters[bucket] += 1


class Flows:
    """What the transports of one loop are at; written by the loop's thread alone."""

    __slots__ = ("active", "buffered", "pauses")

    def __init__(self) -> None:
        self.active: dict[tuple[str, str], int] = {}
        self.buffered = 0
        """Bytes in all their write buffers."""
        self.pauses = (0, 0)
        """How many are paused, and what to add to as many times the clock to have the time that all were: one object,
        so that a reader in another thread never sees half of a change and the sum never goes back."""

    def paused_ns(self) -> int:
        """How long transports have been paused in all, until now."""
        n, offset_ns = self.pauses
        return n * clock.monotonic_ns() + offset_ns

    def pause(self, n: int, now_ns: int) -> None:
        """``n`` more are paused, or fewer."""
        paused, offset_ns = self.pauses
        self.pauses = (paused + n, offset_ns - n * now_ns)

    def forked(self) -> None:
        """In a forked child: what is open is the child's too, and nothing has been paused for any time yet."""
        n = self.pauses[0]
        self.pauses = (n, -n * clock.monotonic_ns())

    def end(self) -> None:
        """Their loop is closed: what it left open is nobody's any more."""
        self.active = {}
        self.buffered = 0
        self.pause(-self.pauses[0], clock.monotonic_ns())


FINISHES = ("ok", "error", "cancelled", "abandoned")
"""How tasks end; ``abandoned``: destroyed while pending, or left behind by a loop that was closed."""


class Counters:
    """One block of counters, leased by the registry to one loop at a time."""

    __slots__ = (
        "began_ns",
        "coroutines",
        "delays",
        "depth",
        "durations",
        "events",
        "events_waiting",
        "fast_ns",
        "flows",
        "gc_ns",
        "gc_started_ns",
        "idle_ns",
        "io_bytes",
        "iteration",
        "nested_ns",
        "notable_ns",
        "poll",
        "run_ns",
        "run_started_ns",
        "slow_iteration_ns",
        "slow_ns",
        "slow_task_ns",
        "state",
        "task_durations",
        "tasks_created",
        "tasks_finished",
        "tick_ns",
        "waits",
    )

    def __init__(self) -> None:
        self.durations = [0] * (STRIDE * len(KIND_OF_BLOCK))
        self.delays = [0] * (STRIDE * len(KIND_OF_BLOCK))
        self.poll = [0] * STRIDE
        self.iteration = [0] * STRIDE
        self.depth = [0] * (COUNTS.size + 1)
        # What transports read and wrote, and what they are at.
        self.io_bytes = [0] * (2 * len(NETWORKS))
        self.flows = Flows()
        # Of tasks whose first step is not on the loop: the others are counted by the first steps' histogram.
        self.tasks_created = 0
        self.tasks_finished = [0] * len(FINISHES)
        self.task_durations = [0] * STRIDE
        # Nanoseconds and steps of each coroutine, by its number.
        self.coroutines: dict[int, tuple[int, int]] = {}
        self.idle_ns = self.run_ns = self.run_started_ns = self.tick_ns = 0
        # Time of iterations that ran within a callback of this loop: they are counted by themselves, and in it.
        self.nested_ns = 0
        # When the collection that goes on in the loop's thread began (0: none does), and collections' time by state.
        self.gc_started_ns = 0
        self.gc_ns = [0] * (FORKED + 1)
        self.events = self.events_waiting = 0
        # Polls that might wait: each may take the thread off its CPU once. Read by who asks why a loop was blocked.
        self.waits = 0
        self.state = STOPPED
        # When the last poll returned: the iteration that goes on began then. 0 before the first poll of a run.
        self.began_ns = 0
        # From which duration on somebody is told: of a callback that is noted, of a slow one, of a slow iteration; and
        # below which nobody is, so that the hot path needs no further look.
        self.notable_ns = self.slow_ns = self.slow_iteration_ns = NEVER_NS
        self.fast_ns = FAST_NS
        self.slow_task_ns = NEVER_NS  # likewise of a task, from created to done

    def set_thresholds(self, slow_ns: int, slow_iteration_ns: int) -> None:
        """From when on callbacks and iterations are slow; may be called at any time, from any thread.

        What took a hundredth of a slow iteration is noted, so that the iteration's end can say what it was spent on.
        """
        self.slow_ns = slow_ns
        self.slow_iteration_ns = slow_iteration_ns
        self.notable_ns = min(slow_ns, max(slow_iteration_ns // 100, MIN_NOTABLE_NS))
        self.fast_ns = min(FAST_NS, self.notable_ns, slow_iteration_ns)

    def collecting_ns(self) -> int:
        """Time of garbage collections in the loop's thread, one that goes on now included."""
        started_ns = self.gc_started_ns
        return sum(self.gc_ns) + (clock.monotonic_ns() - started_ns if started_ns else 0)

    def begin_run(self, now_ns: int) -> None:
        """The loop begins to run; what it does next is overhead until the first poll."""
        self.run_started_ns = now_ns
        self.began_ns = 0
        self.state = IN_OVERHEAD
        self.tick_ns = now_ns

    def record(self, kind: int, ready_ns: int, end_ns: int) -> None:
        """One callback that began at ``tick_ns``: what the hot path does inline."""
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
        """The garbage collector starts in the loop's thread."""
        self.gc_started_ns = now_ns

    def collection_ended(self, now_ns: int) -> None:
        """It has ended; its time comes out of the state that the loop is in."""
        self.gc_ns[self.state] += now_ns - self.gc_started_ns
        self.gc_started_ns = 0

    def record_iteration(self, spent_ns: int) -> None:
        """One iteration that no poll follows."""
        count_value(self.iteration, 0, spent_ns)

    def end_run(self, now_ns: int) -> None:
        """The loop stops, in whatever state: an open wait is closed (an interrupted ``select`` ends here)."""
        if self.state == IN_IDLE:
            self.idle_ns += now_ns - self.tick_ns
        elif self.state == IN_POLL:
            count_value(self.poll, 0, now_ns - self.tick_ns)
        self.run_ns += now_ns - self.run_started_ns
        self.run_started_ns = 0
        self.state = STOPPED
        self.tick_ns = now_ns

    def forked(self) -> None:
        """Start from nothing in a forked child, in place: a loop that goes on running there holds these very lists.

        The time since the current callback began stays in the child's books, so that they balance if it does go on.
        """
        running = self.run_started_ns
        tick_ns = self.tick_ns
        for name in (
            "durations", "delays", "poll", "iteration", "depth", "gc_ns", "io_bytes", "tasks_finished", "task_durations"
        ):  # fmt: skip
            counters = getattr(self, name)
            counters[:] = [0] * len(counters)
        self.tasks_created = 0
        self.coroutines.clear()
        self.idle_ns = self.run_ns = self.nested_ns = self.events = self.events_waiting = self.gc_started_ns = 0
        self.run_started_ns = tick_ns if running else 0
        self.state = FORKED if running else STOPPED
        self.flows.forked()

    def finished(self, outcome: int, duration_ns: int | None) -> None:
        """A task has ended, by the number of its outcome in ``FINISHES``."""
        self.tasks_finished[outcome] += 1
        if duration_ns is not None:
            count_value(self.task_durations, 0, max(0, duration_ns))

    def looks(self) -> tuple[int, list[tuple[int, ...]]] | None:
        """What the watchdog measured of this run without the GIL: of which thread, and one or two, the older first.

        Each the moment, ``began_ns``, ``tick_ns``, idle time, collections' time and CPU time. Never here: only the
        compiled core measures so.
        """
        return None

    def copy(self) -> Raw:
        """What stands in the counters now, in one go and as it is."""
        return Raw(
            self.tick_ns, self.state, self.run_started_ns, self.run_ns, self.idle_ns,
            self.nested_ns, self.gc_started_ns, self.gc_ns[:], self.events, self.events_waiting,
            self.durations[:], self.delays[:], self.poll[:], self.iteration[:], self.depth[:],
            self.io_bytes[:], self.tasks_created + sum(self.delays[FIRST_STEP + 1 : TASK_STEP]),
            self.tasks_finished[:], self.task_durations[:], dict(self.coroutines),
        )  # fmt: skip


_made_by: type[Counters] = Counters


def new_counters() -> Counters:
    """Make a block of counters: the compiled core's where there is one."""
    return _made_by()


def make_counters_by(cls: type[Counters]) -> None:
    """Have blocks made by another class with the same fields: the compiled core's."""
    global _made_by  # noqa: PLW0603 - one for the whole process
    _made_by = cls


def read(counters: Counters, *, ours: bool = True) -> Reading:
    """A copy, the open stretch folded in; ``consistent`` unless the writer moved on during each of several tries.

    Where the loop's iteration is no longer ``ours``, nothing is known of the time since the writer's last note.
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
    collecting_ns = sum(gc_ns[IN_IDLE:FORKED])  # not what was collected while the loop did not run
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
        events=raw.events,
        events_waiting=raw.events_waiting,
        durations=_by_kind(raw.durations),
        delays=_by_kind(raw.delays),
        poll=raw.poll,
        iteration=raw.iteration,
        depth=raw.depth,
        io_bytes=raw.io_bytes,
        first_step_delays=raw.delays[FIRST_STEP : FIRST_STEP + STRIDE],
        tasks_created=raw.tasks_created,
        tasks_finished=raw.tasks_finished,
        task_durations=raw.task_durations,
        coroutines=raw.coroutines,
    )


def _by_kind(blocks: list[int]) -> list[int]:
    """First steps are steps, too."""
    later = blocks[TASK_STEP:]
    for i, n in enumerate(blocks[FIRST_STEP:TASK_STEP]):
        later[i] += n
    return later

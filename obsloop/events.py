"""What instruments are given (see ``obsloop.Instrument``): rare happenings, as small frozen objects.

They carry names, places and times; no arguments, no locals, no payloads. Times are seconds, moments seconds since the
epoch. None is made per ordinary callback.
"""

from __future__ import annotations

import dataclasses
from contextvars import Context
from traceback import FrameSummary

__all__ = [
    "CAUSES",
    "CLOSINGS",
    "DIRECTIONS",
    "EXITS",
    "LINTS",
    "OUTCOMES",
    "PHASES",
    "ROLES",
    "Attempt",
    "CallbackError",
    "ConnectionSetUp",
    "Event",
    "ExecutorJob",
    "LoopBlocked",
    "LoopUnblocked",
    "Sample",
    "SlowCallback",
    "SlowIteration",
    "SubprocessExit",
    "TaskDone",
    "TaskLint",
    "TransportClosed",
]

CAUSES = ("cpu", "syscall", "gc", "gil", "off_cpu", "unknown")
"""Why a loop did not move on: it computed; it waited in a system call; it collected garbage; another thread held the
interpreter's lock; the machine did not run it (busy, throttled, stopped); or nobody can tell."""

OUTCOMES = ("ok", "error", "cancelled")
"""How an executor's job ended; ``cancelled`` is what nobody waited for any more, whether it ran or not."""

EXITS = ("ok", "error", "signal")
"""How a subprocess ended: with status 0, with another one, by a signal."""

ROLES = ("client", "server")
"""Which end of a connection this is. A datagram socket without a remote address is a server; pipes are clients."""

PHASES = ("dns", "connect", "tls", "protocol")
"""What a connection goes through while it is set up; ``protocol`` is the protocol's factory and its beginning."""

DIRECTIONS = ("read", "write")

CLOSINGS = ("eof", "local", "reset", "error", "aborted")
"""Why a transport was closed: the peer ended first; this side did; the peer broke it off; an error; ``abort()``."""

LINTS = ("exception_never_retrieved", "growing", "never_woken", "never_yields")
"""What can be wrong with tasks: an exception that nobody asked for; ever more tasks of one kind; a task that waits for
what nobody can bring about; a task that does not let others run, or gives way only to go on at once."""

Sample = tuple[float, tuple[FrameSummary, ...]]
"""Seconds into the block, and the stack at that moment: outermost frame first, from the callback on, no locals."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all happenings have in common: which callback of which loop, where it is defined, when and how long."""

    loop_name: str
    kind: str
    """The way onto the loop: one of ``task_step``, ``callback``, ``timer``, ``reader`` ... as in the figures."""
    name: str
    """The coroutine or function, with its module: ``app.views.report``, ``app.Client.data_received``."""
    filename: str
    """Where it is defined; empty where it has no Python source."""
    lineno: int
    """The first line of its definition; 0 where it has no Python source."""
    duration: float
    """Seconds from its first instruction to its return; for what still lasts, until now."""
    schedule_delay: float
    """Seconds that it had waited before, from ready to its first instruction."""
    started_at: float
    """When it began, in seconds since the epoch."""
    task_name: str | None = None
    """The task's name where it is a task's step."""
    detail: str = ""
    """What else helps a person: a protocol's peer, the line it was seen at, the active span."""
    cause: str = "unknown"
    """One of ``CAUSES``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SlowCallback(Event):
    """One callback took ``loop.slow_callback_duration`` or longer. Emitted when it returned, in the loop's thread."""

    cpu_time: float | None = None
    """Seconds of CPU that its thread used meanwhile; None where nobody knows."""
    samples: tuple[Sample, ...] = ()
    """What the watchdog saw of it; the seconds are from its first instruction."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """The context that it ran in, as it was when it returned: the task's own, or that of ``call_soon``."""
    context_seen: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A copy of it from when the watchdog looked last, while the callback ran; None where it did not."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SlowIteration(Event):
    """The callbacks of one iteration together took too long. Emitted at its end, in the loop's thread.

    Name and place are those of the callback that took most of it.
    """

    top: tuple[tuple[str, float, int], ...] = ()
    """What took most of it: (name, seconds, calls), longest first. Of many short calls an estimate from samples."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(Event):
    """The loop has not polled for too long and has not moved on yet. Once per episode, in the watchdog's thread.

    Name and place are those of the callback that ran at first sight; ``duration`` is how long it had lasted by then.
    """

    samples: tuple[Sample, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoopUnblocked(Event):
    """The loop moved on after a ``LoopBlocked``: the same, with the whole duration, all samples and the final cause."""

    samples: tuple[Sample, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallbackError(Event):
    """The loop's exception handler was called. Emitted before the program's own handler, or the default one, runs."""

    error_type: str
    """The exception's class with its module; empty where there was none."""
    origin: str
    """What it came from: one of ``callback``, ``task``, ``future``, ``transport``, ``server``, ``other``."""
    exception: BaseException | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskDone(Event):
    """A task has failed, or took ``Settings.slow_task`` or longer. Emitted in the loop's thread, after its last step.

    Name and place are those of its coroutine; ``duration`` is from its creation until it was done, what it waited for
    included.
    """

    outcome: str
    """``ok``, ``error`` or ``cancelled``."""
    error_type: str = ""
    """The exception's class with its module; empty where it raised none."""
    running: float | None = None
    """Seconds in its steps; None where nobody knows: in the pure core of tasks whose times were not asked for."""
    waiting: float | None = None
    """Seconds that it was ready to run while the loop was busy; likewise."""
    steps: int | None = None
    """How often it was resumed; likewise."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """The task's context: what a span of it needs for its parent."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskLint(Event):
    """Something is wrong with a task, or with all tasks of one coroutine. Emitted in the watchdog's thread; for an
    exception that was never retrieved in the thread that let go of the task.

    Name and place are the coroutine's; where tasks grow by the line that creates them, that line's. ``started_at`` is
    when it was first seen to be so, ``duration`` the seconds since. Told once; again when there are twice as many; or
    when it had been over. ``task_name`` is that of one of them.
    """

    lint: str
    """One of ``LINTS``."""
    message: str
    """What is wrong, in words."""
    count: int = 1
    """How many tasks it is true of; of exceptions, how many there have been."""
    last_seen: float
    """When it was seen last, in seconds since the epoch."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorJob(Event):
    """A job handed to an executor has ended, and its result is on the loop. Emitted in the loop's thread.

    Name and place are those of the callable; ``duration`` is the worker's time, ``schedule_delay`` the time in the
    executor's queue. Where the beginning cannot be seen (a process pool), ``duration`` is both. A job that was
    cancelled before it began has no duration.
    """

    executor: str
    """``default``, or the name that the figures have it under."""
    outcome: str
    """One of ``OUTCOMES``."""
    via: str
    """``run_in_executor``, ``to_thread``, ``getaddrinfo`` or ``getnameinfo``."""
    result_delay: float = 0.0
    """Seconds from its end to the callback that delivers the result."""
    thread_name: str = ""
    """The worker that ran it; empty where that is not known."""
    thread_id: int = 0
    """Its ``threading.get_ident()``; 0 where it is not known which one ran it, or none did."""
    error_type: str = ""
    """The exception's class with its module; empty where it raised none."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A context that holds the caller's OpenTelemetry context and nothing else; None where there is none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubprocessExit(Event):
    """A subprocess of the loop's has been reaped. Emitted in the loop's thread, before its protocol hears of it.

    ``name`` is the program's base name, and of its arguments nothing is kept; a shell's command is one. ``duration`` is
    from just before the fork until it was reaped.
    """

    pid: int
    returncode: int
    """As ``subprocess`` has it: negative for a signal."""
    exit: str
    """One of ``EXITS``."""
    reap_delay: float | None = None
    """Seconds from its end until it was reaped; None where nobody waited for its end (more than 64 at once)."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A copy of the context in which it was started."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransportClosed(Event):
    """A transport is closed, and its protocol has been told. Emitted in the loop's thread.

    Name and place are those of the protocol's ``connection_lost``; ``duration`` is from when the transport was made.
    """

    transport: str
    """What it was over: ``tcp``, ``unix``, ``udp`` or ``pipe``."""
    role: str
    """One of ``ROLES``."""
    reason: str
    """One of ``CLOSINGS``."""
    bytes_read: int
    """What came from the kernel, TLS records and all."""
    bytes_written: int
    """What the kernel took."""
    paused_duration: float
    """Seconds that its protocol was paused, because the peer did not read."""
    error_type: str = ""
    """The exception's class with its module; empty where there was none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One TCP or Unix connect of a connection that was set up: of happy eyeballs there may be several at once."""

    address: str
    """The IP address, or the path of a Unix socket."""
    port: int
    duration: float
    """Seconds until it was connected, refused, timed out or given up."""
    started_at: float = 0.0
    """When it began, in seconds since the epoch."""
    error_type: str = ""
    """As in ``asyncio.connect.duration``; empty where it was connected."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSetUp(Event):
    """A connection that this side asked for is set up, or has failed. Emitted in the loop's thread, before who asked
    for it hears of it.

    By ``create_connection`` and all that goes by it (``open_connection``), ``create_unix_connection`` and
    ``create_datagram_endpoint``. Name and place are those of the protocol's factory or, where that is asyncio's own, of
    the task that asked. ``duration`` is from the call until it is set up or has failed.
    """

    transport: str
    """``tcp``, ``unix`` or ``udp``."""
    address: str
    """The host as it was asked for, or the path; of a socket that was connected before, its peer."""
    port: int
    """0 where there is none."""
    dns_duration: float | None = None
    """Seconds that looking the name up took, the executor's queue included; None where there was no name."""
    dns_started_at: float | None = None
    """When that began, in seconds since the epoch; None where there was no name."""
    attempts: tuple[Attempt, ...] = ()
    """In the order in which they began."""
    tls_duration: float | None = None
    """Seconds that the TLS handshake took; None where there was none."""
    tls_started_at: float | None = None
    """When that began, in seconds since the epoch; None where there was none."""
    error_type: str = ""
    """The exception's class with its module, or the system's or resolver's name for it; empty when fine."""
    phase: str = ""
    """In which of ``PHASES`` it failed; empty when fine."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A copy of the context in which it was asked for."""

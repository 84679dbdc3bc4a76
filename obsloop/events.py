"""The events that instruments get (see ``obsloop.Instrument``): small frozen objects, made when something rare happens.

They carry names, places and times, but no arguments, no locals and no payloads. Durations are in seconds, moments in
seconds since the epoch. An ordinary callback makes no event.
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
    "BlockEvent",
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
GIL; the machine did not run it (busy, throttled, stopped); or the cause is not known."""

OUTCOMES = ("ok", "error", "cancelled")
"""How an executor's job ended; ``cancelled``: its future was cancelled, whether the job ran or not."""

EXITS = ("ok", "error", "signal")
"""How a subprocess ended: with status 0, with another status, by a signal."""

ROLES = ("client", "server")
"""Which end of a connection this is. A datagram socket without a remote address is a server; pipes are clients."""

PHASES = ("dns", "connect", "tls", "protocol")
"""The phases of setting up a connection; ``protocol`` is the protocol's factory and its ``connection_made``."""

DIRECTIONS = ("read", "write")

CLOSINGS = ("eof", "local", "reset", "error", "aborted")
"""Why a transport was closed: the peer closed first; this side did; the peer reset it; an error; ``abort()``."""

LINTS = ("exception_never_retrieved", "executor_starved", "growing", "never_woken", "never_yields")
"""What can be wrong with tasks: an exception was never retrieved; jobs wait too long for a worker of an executor; there
are ever more tasks of one kind; a task waits for something that cannot happen any more; a task runs for too long, or
only yields with ``sleep(0)``."""

Sample = tuple[float, tuple[FrameSummary, ...]]
"""Seconds since the block began, and the stack then: outermost frame first, from the callback on, without locals."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The fields that all events share: which callback of which loop, where it is defined, when and how long it ran."""

    loop_name: str
    kind: str
    """How it got onto the loop: one of ``task_step``, ``callback``, ``timer``, ``reader`` ... as in the metrics."""
    name: str
    """The coroutine or function, with its module: ``app.views.report``, ``app.Client.data_received``."""
    filename: str
    """The file that defines it; empty if it has no Python source."""
    lineno: int
    """The first line of its definition; 0 if it has no Python source."""
    duration: float
    """Seconds from its first instruction to its return, or until now if it still runs."""
    schedule_delay: float
    """Seconds that it had waited before, from ready to its first instruction."""
    started_at: float
    """When it began, in seconds since the epoch."""
    task_name: str | None = None
    """The task's name if it is a task's step."""
    detail: str = ""
    """More for a person to read: a protocol's peer, the line where a sample saw it, the active span."""
    cause: str = "unknown"
    """One of ``CAUSES``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockEvent(Event):
    """The fields of all events about a loop that is or was blocked: who blocked it.

    The culprit is the innermost line of the program's own code, as the watchdog's samples saw it for most of the time.
    Own code is neither installed, nor the standard library, nor obsloop (see the settings ``own_packages`` and
    ``foreign_packages``). Without own code, it is the innermost line of a library.
    """

    culprit_function: str = ""
    """The function, with its module and class: ``shop.orders.export``."""
    culprit_filename: str = ""
    """Its file; empty if it has no Python source."""
    culprit_lineno: int = 0
    """The line that ran; the function's first line if there was no sample. 0 if it has no Python source."""
    culprit_seen: bool = False
    """Whether a sample saw it. If not, the culprit is the callback's or the coroutine's own function."""
    http_route: str = ""
    """The route of the web request in which it ran: ``/orders/{number}``. Only with ``obsloop.asgi.Middleware``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SlowCallback(BlockEvent):
    """One callback took ``loop.slow_callback_duration`` or longer. Emitted in the loop's thread, when it returned."""

    cpu_time: float | None = None
    """Seconds of CPU that its thread used meanwhile; None if that is not known."""
    samples: tuple[Sample, ...] = ()
    """The watchdog's samples of it; the seconds count from its first instruction."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """The context that it ran in, as it was when it returned: the task's own, or that of ``call_soon``."""
    context_seen: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A copy of that context from the watchdog's last sample, while the callback ran; None if there was no sample."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SlowIteration(BlockEvent):
    """The callbacks of one iteration together took too long. Emitted in the loop's thread, at the iteration's end.

    Name and place are those of the callback that took most of the time.
    """

    top: tuple[tuple[str, float, int], ...] = ()
    """The callbacks that took most: (name, seconds, calls), longest first. For many short calls, estimated from
    samples. Last comes ``(unnamed)``: the callbacks of the first eighth of the threshold, which get no name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(BlockEvent):
    """The loop has not polled for too long, and still does not. Emitted in the watchdog's thread, once per episode.

    Name and place are those of the callback that ran at the first sample; ``duration`` is the block's length by then.
    """

    samples: tuple[Sample, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoopUnblocked(BlockEvent):
    """The loop moved on after a ``LoopBlocked``. Same fields, with the whole duration, all samples and the final cause.

    Emitted in the watchdog's thread.
    """

    samples: tuple[Sample, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallbackError(Event):
    """The loop's exception handler was called. Emitted before the program's own handler, or the default one, runs."""

    error_type: str
    """The exception's class with its module; empty if there was no exception."""
    origin: str
    """Where it came from: ``callback``, ``task``, ``future``, ``transport``, ``server`` or ``other``."""
    exception: BaseException | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskDone(Event):
    """A task has failed, or took ``Settings.slow_task`` or longer. Emitted in the loop's thread, after its last step.

    Name and place are those of its coroutine; ``duration`` is from its creation until it was done, waiting included.
    """

    outcome: str
    """``ok``, ``error`` or ``cancelled``."""
    error_type: str = ""
    """The exception's class with its module; empty if it raised none."""
    running: float | None = None
    """Seconds in its steps. The pure core knows this only of tasks whose times were asked for; None for others."""
    waiting: float | None = None
    """Seconds that it was ready to run while the loop was busy; None as for ``running``."""
    steps: int | None = None
    """How often it was resumed; None as for ``running``."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """The task's context, in which a span of the task finds its parent."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskLint(Event):
    """Something is wrong with a task, or with all tasks of one coroutine. Emitted in the watchdog's thread, but for an
    exception that was never retrieved: in the thread that dropped the task.

    Name and place are the coroutine's; for growing tasks that share the line that creates them, that line's; for a step
    that lasts too long, those of the program's function that ran.
    ``started_at`` is when it was first seen, ``duration`` the seconds since. A finding is emitted once, again when the
    number of its tasks doubles, and again when it comes back after it was over. ``task_name`` names one of the tasks.
    For ``executor_starved``, name and place are those of the function that holds most workers.
    """

    lint: str
    """One of ``LINTS``."""
    message: str
    """A text for people: what is wrong."""
    count: int = 1
    """How many tasks have it; for exceptions, how many there have been; for an executor, the jobs in its queue."""
    last_seen: float
    """When it was last seen, in seconds since the epoch."""
    executor: str = ""
    """The starved executor, as in the metrics; empty for other lints."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorJob(Event):
    """A job in an executor has ended, and its result is on the loop. Emitted in the loop's thread.

    Name and place are those of the callable; ``duration`` is the worker's time, ``schedule_delay`` the time in the
    executor's queue. In a process pool the beginning is not known, and ``duration`` is the sum of both. A job that was
    cancelled before it began has no duration.
    """

    executor: str
    """``default``, or the executor's name in the metrics."""
    outcome: str
    """One of ``OUTCOMES``."""
    via: str
    """``run_in_executor``, ``to_thread``, ``getaddrinfo`` or ``getnameinfo``."""
    result_delay: float = 0.0
    """Seconds from the job's end to the callback that delivers the result."""
    thread_name: str = ""
    """The worker that ran it; empty if that is not known."""
    thread_id: int = 0
    """The worker's ``threading.get_ident()``; 0 if the worker is not known, or none ran it."""
    error_type: str = ""
    """The exception's class with its module; empty if it raised none."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A context that holds the caller's OpenTelemetry context and nothing else; None if there is none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubprocessExit(Event):
    """The loop has reaped a subprocess. Emitted in the loop's thread, before the subprocess's protocol is called.

    ``name`` is the program's base name, or ``sh`` for a shell's command; no argument or command is kept. ``duration``
    is from just before the fork until the subprocess was reaped.
    """

    pid: int
    returncode: int
    """As in ``subprocess``: negative for a signal."""
    exit: str
    """One of ``EXITS``."""
    reap_delay: float | None = None
    """Seconds from its end until it was reaped; None if its end was not watched (more than 64 children at once)."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A copy of the context in which it was started."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransportClosed(Event):
    """A transport is closed. Emitted in the loop's thread, after its protocol's ``connection_lost``.

    Name and place are those of that ``connection_lost``; ``duration`` is the time since the transport was made.
    """

    transport: str
    """``tcp``, ``unix``, ``udp`` or ``pipe``."""
    role: str
    """One of ``ROLES``."""
    reason: str
    """One of ``CLOSINGS``."""
    bytes_read: int
    """Bytes that came from the kernel; with TLS, those of its records."""
    bytes_written: int
    """Bytes that the kernel took."""
    paused_duration: float
    """Seconds that its protocol was paused because the peer did not read."""
    error_type: str = ""
    """The exception's class with its module; empty if there was none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One TCP or Unix connect for a ``ConnectionSetUp``. With happy eyeballs there may be several at once."""

    address: str
    """The IP address, or the path of a Unix socket."""
    port: int
    duration: float
    """Seconds until it was connected, refused, timed out or given up."""
    started_at: float = 0.0
    """When it began, in seconds since the epoch."""
    error_type: str = ""
    """As in ``asyncio.connect.duration``; empty if it was connected."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSetUp(Event):
    """A connection that the program opens is set up, or has failed. Emitted in the loop's thread, before the program
    gets the result.

    Covers ``create_connection`` and all that calls it (``open_connection``), ``create_unix_connection`` and
    ``create_datagram_endpoint``. Name and place are those of the protocol's factory or, if the factory is asyncio's
    own, of the task that called. ``duration`` is from the call until the connection is set up or has failed.
    """

    transport: str
    """``tcp``, ``unix`` or ``udp``."""
    address: str
    """The host or path as the program gave it; for a socket that was connected before, its peer."""
    port: int
    """0 if there is none."""
    dns_duration: float | None = None
    """Seconds that the look-up of the host name took, the executor's queue included; None if there was no name."""
    dns_started_at: float | None = None
    """When the look-up began, in seconds since the epoch; None if there was no name."""
    attempts: tuple[Attempt, ...] = ()
    """In the order in which they began."""
    tls_duration: float | None = None
    """Seconds that the TLS handshake took; None if there was none."""
    tls_started_at: float | None = None
    """When the handshake began, in seconds since the epoch; None if there was none."""
    error_type: str = ""
    """The exception's class with its module, or the system's or resolver's name for it; empty if it did not fail."""
    phase: str = ""
    """The one of ``PHASES`` in which it failed; empty if it did not fail."""
    context: Context | None = dataclasses.field(default=None, repr=False, compare=False)
    """A copy of the context in which the program called."""

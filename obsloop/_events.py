"""The rare happenings, as small frozen objects: what instruments are given. Nothing is ever made per ordinary callback.

They carry names, places and times; no arguments, no locals, no payloads. Times are seconds, moments seconds since the
epoch. ``obsloop.events`` shows them to the outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from traceback import FrameSummary

CAUSES = ("cpu", "syscall", "gc", "gil", "off_cpu", "unknown")
"""Why a loop did not move on: it computed; it waited in a system call; it collected garbage; another thread held the
interpreter's lock; the machine did not run it (busy, throttled, stopped); or nobody can tell."""

OUTCOMES = ("ok", "error", "cancelled")
"""How an executor's job ended; ``cancelled`` is what nobody waited for any more, whether it ran or not."""

EXITS = ("ok", "error", "signal")
"""How a subprocess ended: with status 0, with another one, by a signal."""

ROLES = ("client", "server")
"""Which end of a connection this is. A datagram socket without a remote address is a server; pipes are clients."""

DIRECTIONS = ("read", "write")

CLOSINGS = ("eof", "local", "reset", "error", "aborted")
"""Why a transport was closed: the peer ended first; this side did; the peer broke it off; an error; ``abort()``."""

Sample = tuple[float, tuple[FrameSummary, ...]]
"""Seconds into the block, and the stack at that moment: outermost frame first, from the callback on, no locals."""


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowCallback(Event):
    """One callback took ``loop.slow_callback_duration`` or longer. Emitted when it returned, in the loop's thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowIteration(Event):
    """The callbacks of one iteration together took too long. Emitted at its end, in the loop's thread.

    Name and place are those of the callback that took most of it.
    """

    top: tuple[tuple[str, float, int], ...] = ()
    """What took most of it: (name, seconds, calls), longest first. Of many short calls an estimate from samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(Event):
    """The loop has not polled for too long and has not moved on yet. Once per episode, in the watchdog's thread.

    Name and place are those of the callback that ran at first sight; ``duration`` is how long it had lasted by then.
    """

    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopUnblocked(Event):
    """The loop moved on after a ``LoopBlocked``: the same, with the whole duration, all samples and the final cause."""

    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackError(Event):
    """The loop's exception handler was called. Emitted before the program's own handler, or the default one, runs."""

    error_type: str
    """The exception's class with its module; empty where there was none."""
    origin: str
    """What it came from: one of ``callback``, ``task``, ``future``, ``transport``, ``server``, ``other``."""
    exception: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
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
    error_type: str = ""
    """The exception's class with its module; empty where it raised none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubprocessExit(Event):
    """A subprocess of the loop's has been reaped. Emitted in the loop's thread, before its protocol hears of it.

    ``name`` is the program's base name, and of its arguments nothing is kept; a shell's command is one. ``duration`` is
    from just before the fork until it was reaped; how long it had been dead by then is not known.
    """

    pid: int
    returncode: int
    """As ``subprocess`` has it: negative for a signal."""
    exit: str
    """One of ``EXITS``."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One address that was tried for a connection."""

    address: str
    port: int
    duration: float
    """Seconds from making the socket until it was connected, or was not."""
    error_type: str
    """The exception's class with its module; empty where it was connected. Who loses a race is cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSetUp(Event):
    """A connection of this side's is set up, or has failed. In the loop's thread, before the caller hears of it.

    Of ``create_connection``, ``create_unix_connection`` and ``create_datagram_endpoint``, and of what is made of them
    (``open_connection``). Name and place are those of the protocol factory; ``duration`` is all of it.
    """

    transport: str
    """``tcp``, ``unix`` or ``udp``."""
    address: str
    """The host as it was asked for, or a path; empty for a socket that was connected already."""
    port: int
    dns_duration: float | None
    """Seconds that look-ups took; None where there was none."""
    attempts: tuple[Attempt, ...]
    """In the order in which they ended."""
    tls_duration: float | None
    """Seconds of the TLS handshake; None where there was none."""
    phase: str
    """Where it failed: ``arguments``, ``dns``, ``connect``, ``tls`` or ``protocol``; empty where it did not."""
    error_type: str
    """The exception's class with its module; empty where it is set up."""


@dataclass(frozen=True, slots=True, kw_only=True)
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

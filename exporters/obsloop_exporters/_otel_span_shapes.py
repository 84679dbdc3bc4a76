"""Shape an event as a span: name, times, attributes, moments, status, and the spans of its parts.

Nothing is recorded here, and no context is read. Names follow OpenTelemetry's conventions (``code.*``, ``thread.*``,
``process.*``, ``error.type`` ...) if there are any, else obsloop's catalogue. No arguments, no messages.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from traceback import FrameSummary
from typing import Any, NamedTuple

from opentelemetry.trace import SpanKind

from obsloop import LOOP_NAME_LABEL
from obsloop.events import (
    Attempt,
    BlockEvent,
    ConnectionSetUp,
    Event,
    ExecutorJob,
    SlowCallback,
    SubprocessExit,
    TaskDone,
)
from obsloop_exporters._common import encodable

Attributes = dict[str, str | int | float]
_CANCELLED = "asyncio.exceptions.CancelledError"


class Moment(NamedTuple):
    """An event of a span."""

    name: str
    at_ns: int
    attributes: Attributes


class Shape(NamedTuple):
    """A span that is not made yet. Times are Unix times."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    failed: bool = False
    """Whether its status is an error. If not, the status stays unset, as it should in instrumentations."""
    kind: SpanKind = SpanKind.INTERNAL
    moments: tuple[Moment, ...] = ()
    parts: tuple[Shape, ...] = ()
    """The spans beneath it."""


def slow_callback(event: SlowCallback) -> Shape:
    """Shape ``asyncio callback {culprit}``, with a moment for each of the watchdog's samples. In the loop's thread."""
    thread = threading.current_thread()
    attributes = {
        **_common(event),
        **_culprit(event),
        "thread.id": threading.get_ident(),
        "thread.name": thread.name,
        "asyncio.eventloop.callback.kind": event.kind,
        "asyncio.eventloop.callback.duration": event.duration,
        "asyncio.eventloop.schedule.delay": event.schedule_delay,
        "asyncio.eventloop.block.cause": event.cause,
        "asyncio.task.name": event.task_name,
        "asyncio.eventloop.callback.cpu_time": event.cpu_time,
    }
    moments = tuple(
        Moment("sample", _ns(event.started_at + seconds), {"code.stacktrace": _text_of(frames)} if frames else {})
        for seconds, frames in event.samples
    )
    return _shape(
        f"asyncio callback {event.culprit_function or event.name}",
        event.started_at,
        event.duration,
        attributes,
        moments=moments,
    )


def executor_job(event: ExecutorJob) -> Shape:
    """Shape ``asyncio executor {function}``, from submission to end, with the moment when a worker began it."""
    began = event.outcome != "cancelled" or event.duration > 0  # a job that was cancelled in the queue never began
    submitted_at = event.started_at - (event.schedule_delay if began else 0.0)
    attributes = {
        **_common(event),
        "asyncio.executor.name": event.executor,
        "asyncio.executor.job.outcome": event.outcome,
        "asyncio.executor.job.via": event.via,
        "asyncio.executor.result.delay": event.result_delay,
        "thread.id": event.thread_id or None,
        "thread.name": event.thread_name or None,
        "error.type": event.error_type or None,
    }
    moments = (Moment("started", _ns(event.started_at), {}),) if event.thread_id else ()
    return _shape(
        f"asyncio executor {event.name}",
        submitted_at,
        event.schedule_delay + event.duration,
        attributes,
        failed=event.outcome == "error",
        moments=moments,
    )


def connection(event: ConnectionSetUp) -> Shape:
    """Shape ``asyncio connection_setup {address}:{port}``; beneath it the look-up, each attempt, and the handshake."""
    peer = _peer(event.address, event.port)
    attributes = {
        **_common(event),
        "server.address": event.address,
        "server.port": event.port or None,
        "network.transport": event.transport,
        "error.type": event.error_type or None,
        "asyncio.connection_setup.phase": event.phase or None,
    }
    parts: list[Shape] = []
    if event.dns_started_at is not None and event.dns_duration is not None:
        parts.append(
            _phase(event, "dns", f"DNS lookup {event.address}", event.dns_started_at, event.dns_duration,
                   {"dns.question.name": event.address})
        )  # fmt: skip
    parts += [_attempt(event, attempt) for attempt in event.attempts]
    if event.tls_started_at is not None and event.tls_duration is not None:
        parts.append(
            _phase(event, "tls", f"TLS client handshake {event.address}", event.tls_started_at, event.tls_duration,
                   {"server.address": event.address, "server.port": event.port or None})
        )  # fmt: skip
    shape = _shape(
        f"asyncio connection_setup {peer}", event.started_at, event.duration, attributes, failed=bool(event.error_type)
    )
    return shape._replace(parts=tuple(parts))


def subprocess_exit(event: SubprocessExit) -> Shape:
    """Shape ``{program}``, from before the fork to the child's own end, as far as that is known; of kind CLIENT."""
    attributes = {
        LOOP_NAME_LABEL: event.loop_name,
        "process.executable.name": event.name,
        "process.pid": event.pid,
        "process.exit.code": event.returncode,
        "error.type": _exit_error(event.returncode),
        "asyncio.subprocess.reap.delay": event.reap_delay,
    }
    shape = _shape(
        event.name, event.started_at, event.duration - (event.reap_delay or 0.0), attributes, failed=event.exit != "ok"
    )
    return shape._replace(kind=SpanKind.CLIENT)


def task(event: TaskDone) -> Shape:
    """Shape ``asyncio task {coroutine}``, from its creation to its end."""
    attributes = {
        **_common(event),
        "asyncio.task.name": event.task_name,
        "asyncio.task.outcome": event.outcome,
        "asyncio.task.running": event.running,
        "asyncio.task.waiting": event.waiting,
        "asyncio.task.steps": event.steps,
        "error.type": event.error_type or None,
    }
    failed = event.outcome == "error"
    return _shape(f"asyncio task {event.name}", event.started_at, event.duration, attributes, failed=failed)


def _common(event: Event) -> dict[str, Any]:
    return {
        LOOP_NAME_LABEL: event.loop_name,
        "code.function.name": event.name,
        "code.file.path": event.filename or None,
        "code.line.number": event.lineno or None,
    }


def _culprit(event: BlockEvent) -> dict[str, Any]:
    """Return ``code.*`` of the line that blocked the loop, and the callback under a name of its own."""
    if not event.culprit_function:
        return {}
    return {
        "code.function.name": event.culprit_function,
        "code.file.path": event.culprit_filename or None,
        "code.line.number": event.culprit_lineno or None,
        "asyncio.eventloop.callback.name": event.name,
        "http.route": event.http_route or None,
    }


def _attempt(event: ConnectionSetUp, attempt: Attempt) -> Shape:
    # An attempt that lost the race was cancelled, but did not fail. One cancelled with the whole set-up did.
    lost = attempt.error_type == _CANCELLED and not event.error_type
    attributes = {
        "network.peer.address": attempt.address,
        "network.peer.port": attempt.port or None,
        "network.transport": event.transport,
        "error.type": attempt.error_type or None,
    }
    name = f"socket connect {_peer(attempt.address, attempt.port)}"
    failed = bool(attempt.error_type) and not lost
    return _shape(name, attempt.started_at, attempt.duration, attributes, failed=failed)


def _phase(
    event: ConnectionSetUp, phase: str, name: str, started_at: float, seconds: float, attributes: Mapping[str, Any]
) -> Shape:
    error_type = event.error_type if event.phase == phase else ""
    return _shape(name, started_at, seconds, {**attributes, "error.type": error_type or None}, failed=bool(error_type))


def _shape(
    name: str,
    started_at: float,
    seconds: float,
    attributes: Mapping[str, Any],
    *,
    failed: bool = False,
    moments: tuple[Moment, ...] = (),
) -> Shape:
    """Return a shape without those attributes that are None."""
    start_ns = _ns(started_at)
    given: Attributes = {
        key: encodable(value) if isinstance(value, str) else value
        for key, value in attributes.items()
        if value is not None
    }
    return Shape(encodable(name), start_ns, start_ns + _ns(max(0.0, seconds)), given, failed=failed, moments=moments)


def _peer(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _exit_error(returncode: int) -> str | None:
    """Return the name of the signal that ended it, or its exit status; None if that is 0."""
    if returncode >= 0:
        return str(returncode) if returncode else None
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # a real-time signal has no name
        return f"signal {-returncode}"


def _text_of(frames: tuple[FrameSummary, ...]) -> str:
    """Return frames as in a traceback, without source lines: no file is read in a loop's thread."""
    lines = (f'  File "{f.filename}", line {f.lineno}, in {f.name}' if f.filename else f"  {f.name}" for f in frames)
    return encodable("\n".join(lines))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)

"""Log blocks of a loop: one line when a block is over, one more while it lasts for long.

Each culprit gets at most one line in ten seconds; its next line says how many were left out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from obsloop.base.guarded import harmless
from obsloop.base.log import Throttle, logger
from obsloop.introspect import stacks
from obsloop.introspect.attributes import printable
from obsloop.introspect.functions import THE_LOOP
from obsloop.introspect.places import place

if TYPE_CHECKING:
    from obsloop.base.settings import Settings
    from obsloop.events import BlockEvent, Sample

_ended, _lasting = Throttle(), Throttle()
"""By loop name and culprit."""


def ended(event: BlockEvent, settings: Settings, samples: tuple[Sample, ...] = ()) -> None:
    """Log a block that is over, if it took as long as the settings ask for."""
    if event.duration >= settings.log_blocked_after or settings.log_slow_callbacks:
        _line(_ended, event, samples, "blocked", "")


def lasting(event: BlockEvent) -> None:
    """Log a block that still lasts."""
    _line(_lasting, event, getattr(event, "samples", ()), "has been blocked for", ", and still is")


def _line(throttle: Throttle, event: BlockEvent, samples: tuple[Sample, ...], verb: str, end: str) -> None:
    left_out = throttle.left_out_with_sum((event.loop_name, event.culprit_function), event.duration)
    if left_out is None:
        return
    n, seconds = left_out
    frames = samples[-1][1] if samples else ()
    parts = [
        f"event loop {verb} {_seconds(event.duration)} by {_culprit(event)}, {_cause(event.cause)}{end}",
        printable(event.detail),
        _who(event),
    ]
    text = "; ".join(filter(None, parts))
    if n:
        text += f" ({n} more of its blocks, {_seconds(seconds)} in sum, were not logged)"
    with harmless:  # a logging handler of the program's may raise
        if logger.isEnabledFor(logging.DEBUG):
            text += stacks.lines(stacks.folded(frames))
        logger.warning("%s", text, extra=_extra(event, stacks.lines(frames)))


def _who(event: BlockEvent) -> str:
    route = f"route {printable(event.http_route)}, " if event.http_route else ""
    task = f"task {printable(event.task_name)}, " if event.task_name else ""
    return f"{route}{task}loop {printable(event.loop_name)}"


def _culprit(event: BlockEvent) -> str:
    where = place(event.culprit_filename, event.culprit_lineno)
    known = [where] if where else []
    if not event.culprit_seen:
        known.append("its line is not known")
    if event.culprit_function == THE_LOOP.name:
        return "the loop itself"
    name = printable(event.culprit_function)
    return f"{name} ({'; '.join(known)})" if known else name


def _cause(cause: str) -> str:
    return "cause unknown" if cause == "unknown" else cause.replace("_", " ")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def _extra(event: BlockEvent, stack: str) -> dict[str, Any]:
    """Return the fields of the log record, for formatters that write all of them: OpenTelemetry's names, and ours."""
    fields = {
        "asyncio.eventloop.name": event.loop_name,
        "asyncio.eventloop.block.duration": event.duration,
        "asyncio.eventloop.block.cause": event.cause,
        "asyncio.task.name": event.task_name,
        "http.route": event.http_route or None,
        "code.function.name": event.culprit_function,
        "code.file.path": event.culprit_filename or None,
        "code.line.number": event.culprit_lineno or None,
        "code.stacktrace": stack.strip("\n") or None,
    }
    return {name: value for name, value in fields.items() if value is not None}

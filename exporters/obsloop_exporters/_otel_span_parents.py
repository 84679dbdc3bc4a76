"""Find the parent of a span that is made after its event is over, from the contexts that the event carries.

Only a copy of a context is entered. The active span is the parent if it had begun by then and not ended; else the span
gets a link in place of a parent. OpenTelemetry's own work, such as an export, gets no span.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry import context as otel_context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span

_SAME_NS = 1_000_000
"""The two clocks are read at different moments: times that differ by so much count as the same."""

# Exporters set these around their own requests. The second key is made when the API is imported, and its name private.
_SUPPRESSED = ("suppress_instrumentation", getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", None))


class Origin(NamedTuple):
    """The arguments that begin a span."""

    context: Context
    start_ns: int
    """Not before the parent's begin: viewers would take that for a wrong clock, and move the span."""
    links: tuple[Link, ...] = ()


def origin(
    contexts: Iterable[contextvars.Context | None], start_ns: int, end_ns: int, *, outlived: bool = False
) -> Origin | None:
    """Return where a span from ``start_ns`` to ``end_ns`` belongs; None if no span is wanted.

    ``contexts`` are in the order of preference. The first one fits whose active span had begun by ``start_ns`` and not
    ended. Else, from the last to the first, one whose span has half of the time or more: a request that begins and ends
    within one callback is what the callback was about. With ``outlived``, a parent that had ended by ``end_ns`` does
    not fit.
    """
    current = [context.copy().run(otel_context.get_current) for context in contexts if context is not None]
    if any(context.get(key) for context in current for key in _SUPPRESSED if key is not None):
        return None
    found = [(context, span) for context in current if (span := trace.get_current_span(context)) and _valid(span)]
    for context, span in found:
        began_ns = _began(span, start_ns)
        if began_ns <= start_ns + _SAME_NS and not _over(span, end_ns if outlived else start_ns):
            return Origin(context, max(start_ns, began_ns))
    for context, span in () if outlived else reversed(found):
        began_ns, ended_ns = max(start_ns, _began(span, end_ns)), min(end_ns, _ended(span, end_ns))
        if ended_ns > began_ns and (ended_ns - began_ns) * 2 >= end_ns - start_ns:
            return Origin(context, began_ns)
    if not found:
        return Origin(trace.set_span_in_context(trace.INVALID_SPAN, current[0] if current else Context()), start_ns)
    context, span = found[-1]
    root = trace.set_span_in_context(trace.INVALID_SPAN, context)
    return Origin(root, start_ns, (Link(span.get_span_context()),))


def _valid(span: Span) -> bool:
    return span.get_span_context().is_valid


def _began(span: Any, unknown_ns: int) -> int:
    """Return the begin of an SDK's span. For any other kind, such as one of another process, return ``unknown_ns``."""
    began_ns = getattr(span, "start_time", None)
    return began_ns if isinstance(began_ns, int) else unknown_ns


def _ended(span: Any, unknown_ns: int) -> int:
    ended_ns = getattr(span, "end_time", None)
    return ended_ns if isinstance(ended_ns, int) else unknown_ns


def _over(span: Any, moment_ns: int) -> bool:
    """Return whether the span had ended by then; if it has no end time, whether it has ended by now."""
    if hasattr(span, "end_time"):
        return span.end_time is not None and _ended(span, moment_ns) <= moment_ns
    return not (isinstance(span, NonRecordingSpan) or span.is_recording())

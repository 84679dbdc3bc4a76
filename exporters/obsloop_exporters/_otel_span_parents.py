"""Whose child a span is that is made when all is over: by the contexts that the event carries.

A context is never entered; a copy of it is. The active span is the parent where it had begun by then and not ended;
where it does not fit there is a link in place of a parent. What OpenTelemetry itself does is no news: no span for it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry import context as otel_context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span

_SAME_NS = 1_000_000
"""Both clocks are read at different moments: so much earlier or later is the same moment."""

# What exporters set around their own requests. The key is made when the API is imported, under a private name.
_SUPPRESSED = ("suppress_instrumentation", getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", None))


class Origin(NamedTuple):
    """What a span is begun with."""

    context: Context
    start_ns: int
    """Not before the parent's: viewers take what begins before its parent for a clock that is wrong, and move it."""
    links: tuple[Link, ...] = ()


def origin(
    contexts: Iterable[contextvars.Context | None], start_ns: int, end_ns: int, *, outlived: bool = False
) -> Origin | None:
    """Where a span from ``start_ns`` to ``end_ns`` belongs; None where there is to be none.

    Of ``contexts``, in the order of preference, the first fits whose active span had begun by ``start_ns`` and not
    ended. Else that one, the last first, in which half of the time or more was spent: a request that begins and ends
    within one callback is what the callback was about. With ``outlived`` a parent that had ended by ``end_ns`` does not
    fit.
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
    """The SDK's spans tell; of any other kind, one of another process's among them, it is taken to fit."""
    began_ns = getattr(span, "start_time", None)
    return began_ns if isinstance(began_ns, int) else unknown_ns


def _ended(span: Any, unknown_ns: int) -> int:
    ended_ns = getattr(span, "end_time", None)
    return ended_ns if isinstance(ended_ns, int) else unknown_ns


def _over(span: Any, moment_ns: int) -> bool:
    """Whether it had ended by then; of a kind that does not tell when, whether it has ended by now."""
    if hasattr(span, "end_time"):
        return span.end_time is not None and _ended(span, moment_ns) <= moment_ns
    return not (isinstance(span, NonRecordingSpan) or span.is_recording())

"""The OpenTelemetry span in which something ran: its ids, read without keeping the span.

OpenTelemetry is looked at where the program has loaded it, and never imported.
"""

from __future__ import annotations

import sys
from contextvars import Context
from typing import Any, NamedTuple

from obsloop.base.guarded import guarded
from obsloop.introspect import attributes

_SAMPLED = 1  # the bit of a span's flags


class Ids(NamedTuple):
    """A sampled span, as W3C's Trace Context writes it: hexadecimal, 32 and 16 digits."""

    trace_id: str
    span_id: str


def context(handle: Any, task: Any) -> Context | None:
    """A copy of the context that is current: the task's or, where there is no task but the handle's own, the handle's.

    The context itself cannot be entered: the loop's thread is in it.
    """
    try:
        get_context = getattr(task, "get_context", None)  # since 3.12
        current: Any = get_context() if get_context is not None else getattr(handle, "_context", None)
        return current.copy() if isinstance(current, Context) else None
    except Exception:  # a task class of somebody's
        return None


def span(context: Context | None, kept: list[Any]) -> tuple[str, Ids | None]:
    """``in span NAME trace ID``, and the ids if it is sampled: of the span that is active in ``context``.

    Runs OpenTelemetry in ``context``, where it is loaded. The span is added to ``kept``: the loop's thread has to drop
    it.
    """
    text = ""
    try:
        active = _active_span(context)
        kept.append(active)
        ids: Any = active and active.get_span_context()
        if not ids or not ids.is_valid:
            return "", None
        name = getattr(active, "name", "")  # a span of another process has none
        text = f"in span {attributes.clean(attributes.text(name)) or '?'} trace {ids.trace_id:032x}"
        return text, ids_of(active)
    except Exception:  # OpenTelemetry's code, or what takes its place, of any version
        return text, None


def span_ids(context: Context | None) -> Ids | None:
    """The same span's ids; None where there is none, or where it is not sampled and so will not be found anywhere."""
    try:
        return ids_of(_active_span(context))
    except Exception:  # as above
        return None


def ids_of(active: Any) -> Ids | None:
    """The ids of a span, if it is sampled. Raises whatever OpenTelemetry's API, or what takes its place, raises."""
    ids: Any = active.get_span_context() if active is not None else None
    if ids is None or not ids.is_valid or not ids.trace_flags & _SAMPLED:
        return None
    return Ids(f"{ids.trace_id:032x}", f"{ids.span_id:016x}")


def _active_span(context: Context | None) -> Any:
    """OpenTelemetry's current span in that context, which is run in; None where OpenTelemetry is not loaded."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    return None if trace is None or context is None else context.run(trace.get_current_span)


def current_context(otel: Any) -> Any:
    """The caller's OpenTelemetry context; None where it is empty, or is not to be had."""
    try:
        return otel.get_current() or None
    except Exception:
        return None


def holding(context: Any) -> Context:
    """A context of the interpreter's in which that OpenTelemetry context is current."""
    holder = Context()
    holder.run(attach, context)
    return holder


def attach(context: Any) -> Any:
    try:
        return sys.modules["opentelemetry.context"].attach(context)
    except Exception:
        return None


def detach(token: Any) -> None:
    guarded(sys.modules["opentelemetry.context"].detach, token)

"""Read the ids of the OpenTelemetry span in which something ran, without keeping the span.

OpenTelemetry is used if the program has loaded it, and never imported.
"""

from __future__ import annotations

import sys
from contextvars import Context
from typing import Any, NamedTuple

from obsloop.base.guarded import guarded
from obsloop.introspect import attributes

_SAMPLED = 1  # the bit of a span's flags


class Ids(NamedTuple):
    """The ids of a sampled span: 32 and 16 hexadecimal digits, as in W3C's Trace Context."""

    trace_id: str
    span_id: str


def context(handle: Any, task: Any) -> Context | None:
    """Return a copy of the current context: that of ``task`` or, if only the handle's own task runs, of the handle.

    The context itself cannot be entered, because the loop's thread is in it.
    """
    try:
        get_context = getattr(task, "get_context", None)  # since 3.12
        current: Any = get_context() if get_context is not None else getattr(handle, "_context", None)
        return current.copy() if isinstance(current, Context) else None
    except Exception:  # a foreign task class
        return None


def span(context: Context | None, kept: list[Any]) -> tuple[str, Ids | None]:
    """Return ``in span NAME trace ID`` of the active span in ``context``, and its ids if it is sampled.

    Runs OpenTelemetry in ``context``, if it is loaded. The span is added to ``kept``: the loop's thread must drop it.
    """
    text = ""
    try:
        active = _active_span(context)
        kept.append(active)
        ids: Any = active and active.get_span_context()
        if not ids or not ids.is_valid:
            return "", None
        name = getattr(active, "name", "")  # a span of another process has no name
        text = f"in span {attributes.clean(attributes.text(name)) or '?'} trace {ids.trace_id:032x}"
        return text, ids_of(active)
    except Exception:  # from OpenTelemetry or a replacement of it, of any version
        return text, None


def span_ids(context: Context | None) -> Ids | None:
    """Return the ids of the active span in ``context``. None without a span, or if it is not sampled, so not stored."""
    try:
        return ids_of(_active_span(context))
    except Exception:  # as above
        return None


def ids_of(active: Any) -> Ids | None:
    """Return the ids of a span if it is sampled, or None. Raises what OpenTelemetry's API or its replacement raises."""
    ids: Any = active.get_span_context() if active is not None else None
    if ids is None or not ids.is_valid or not ids.trace_flags & _SAMPLED:
        return None
    return Ids(f"{ids.trace_id:032x}", f"{ids.span_id:016x}")


def _active_span(context: Context | None) -> Any:
    """Return OpenTelemetry's current span in ``context``, by a call in it; None if OpenTelemetry is not loaded."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    return None if trace is None or context is None else context.run(trace.get_current_span)


def current_context(otel: Any) -> Any:
    """Return the caller's OpenTelemetry context; None if it is empty, or if the call raises."""
    try:
        return otel.get_current() or None
    except Exception:
        return None


def holding(context: Any) -> Context:
    """Return a new context of Python in which that OpenTelemetry context is current."""
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

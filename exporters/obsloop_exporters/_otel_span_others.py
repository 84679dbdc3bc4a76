"""Find out whether OpenTelemetry's own asyncio instrumentation makes a span already, so that obsloop makes none.

It makes spans for functions given to ``to_thread`` and for coroutines, by the names in its settings, which no public
attribute shows. Its threading instrumentation makes no spans.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from obsloop.events import ExecutorJob, TaskDone

_THEIRS = "opentelemetry.instrumentation.asyncio"
_WRAPPER = f"{_THEIRS}.AsyncioInstrumentor.trace_coroutine"


def traced_to_thread(event: ExecutorJob) -> bool:
    """Return whether the job has its span, ``asyncio to_thread-NAME``."""
    return event.via == "to_thread" and _last(event.name) in _names("_to_thread_name_to_trace")


def traced_coroutine(event: TaskDone) -> bool:
    """Return whether the task's coroutine has, or may have, its span, ``asyncio coro-NAME``.

    A coroutine that it wraps has the wrapper's name, and the coroutine inside is unknown. So if its settings have any
    names, a wrapped one may be one of them.
    """
    names = _names("_coros_name_to_trace")
    return bool(names) and (event.name == _WRAPPER or _last(event.name) in names)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _names(attribute: str) -> Collection[str]:
    instrumentor = getattr(sys.modules.get(_THEIRS), "AsyncioInstrumentor", None)
    theirs = getattr(instrumentor, "_instance", None)
    names = getattr(theirs, attribute, None) if getattr(theirs, "is_instrumented_by_opentelemetry", False) else None
    return names if isinstance(names, (set, frozenset, list, tuple)) else ()  # pyright: ignore[reportUnknownVariableType]

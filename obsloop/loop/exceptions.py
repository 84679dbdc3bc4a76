"""Count the exceptions that reach the loop's exception handler: those that no code of the program caught.

asyncio's documentation forbids overriding ``call_exception_handler``. So obsloop's handler stands in front of the
program's: it counts, calls the instruments, and then calls the program's handler or the default one. asyncio's own
rules apply to one that raises.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from obsloop.base.asyncio_private import private_base_events
from obsloop.base.guarded import guarded
from obsloop.events import CallbackError
from obsloop.hotpath import marks
from obsloop.instruments import emit
from obsloop.introspect import callbacks, coroutines
from obsloop.introspect.attributes import class_name, class_of
from obsloop.introspect.error_names import type_name
from obsloop.introspect.functions import Site
from obsloop.metrics.catalog import ORIGINS
from obsloop.metrics.counters import KIND_OF_BLOCK, OTHER, STRIDE
from obsloop.tasks.lints import runner

_CALLBACK, _TASK, _FUTURE, _TRANSPORT, _SERVER, _OTHER = ORIGINS
_DESTROYED = "Task was destroyed but it is pending!"
_NOWHERE = Site("", "", 0)


def on_exception(loop: Any, context: dict[str, Any]) -> None:
    """Handle an exception, as the loop's handler in front of the program's own."""
    try:
        guarded(_count, loop, context)
    finally:  # even if a hook ends the program, asyncio reports the error as always
        _go_on(loop, context)


def _go_on(loop: Any, context: dict[str, Any]) -> None:
    """Do what asyncio would do without obsloop."""
    if context.get("message") == _DESTROYED and loop._obsloop.tasks is not None:
        guarded(loop._obsloop.tasks.destroyed, context.get("task"), loop._obsloop.counters)
    handler = loop._obsloop.exception_handler
    if handler is not None:
        handler(loop, context)  # asyncio handles what it raises
        return
    try:
        loop.default_exception_handler(context)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        # As call_exception_handler does if no handler is set. It would take an exception raised here for one of the
        # program's handler.
        private_base_events.logger.error("Exception in default exception handler", exc_info=True)


def _count(loop: Any, context: dict[str, Any]) -> None:
    exception = context.get("exception")
    error_type = type_name(type(exception)) if isinstance(exception, BaseException) else ""
    origin, kind, site = _origin(context)
    obs = loop._obsloop
    metrics = obs.metrics_of(loop)
    metrics.labelled.count("asyncio.eventloop.exceptions", error_type, origin)
    if obs.servers.accepting is not None and "socket" in context and isinstance(exception, OSError):
        obs.servers.accepting.failed(exception)  # asyncio reports it here, and tries again later
    raised_at = _raised_at(exception)
    runner.exception_seen(loop, context, error_type, raised_at)
    emit(
        obs.instruments,
        "on_callback_error",
        CallbackError(
            loop_name=metrics.name,
            kind=kind,
            **site.fields(),
            duration=0.0,
            schedule_delay=0.0,
            started_at=time.time(),
            detail=" ".join(filter(None, (site.detail, raised_at))),
            error_type=error_type,
            origin=origin,
            exception=exception if isinstance(exception, BaseException) else None,
        ),
    )


def _origin(context: dict[str, Any]) -> tuple[str, str, Site]:
    """Return origin, kind of handle and name, from the keys that asyncio documents for the context."""
    handle = context.get("handle")
    if handle is not None:
        kind = (marks.marks(handle) or (OTHER,))[0]
        return _CALLBACK, KIND_OF_BLOCK[kind // STRIDE], callbacks.site_of_handle(handle)
    for key in ("task", "future"):
        future = context.get(key)
        if isinstance(future, asyncio.Task):
            return _TASK, "task_step", coroutines.site_of_task(future)
        if future is not None:
            return _FUTURE, "other", _NOWHERE
    protocol = context.get("protocol")
    if protocol is not None or context.get("transport") is not None:
        return _TRANSPORT, "other", _class_site(protocol if protocol is not None else context["transport"])
    if context.get("socket") is not None or context.get("server") is not None:
        return _SERVER, "other", _NOWHERE
    asyncgen = context.get("asyncgen")
    return _OTHER, "other", _NOWHERE if asyncgen is None else coroutines.site_of_coroutine(asyncgen)


def _class_site(thing: Any) -> Site:
    return Site(class_name(class_of(thing)), "", 0)


def _raised_at(exception: Any) -> str:
    """Return the line that raised it, the innermost of its traceback, as text."""
    traceback = getattr(exception, "__traceback__", None)
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"raised at {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"

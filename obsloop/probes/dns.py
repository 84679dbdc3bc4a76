"""Name look-ups: what ``loop.getaddrinfo`` and ``loop.getnameinfo`` spend in the resolver.

Both are jobs of the default executor. Their time in its queue is counted there (``executors``). Here only the
resolver's time counts, so a starved pool does not look like a slow name server. An address that asyncio can parse never
becomes a job, and is no look-up. If a program hands ``socket.getaddrinfo`` to an executor, that is a look-up, too.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from obsloop.base.asyncio_private import private_base_events
from obsloop.introspect.error_names import type_name

if TYPE_CHECKING:
    from obsloop.metrics.labelled import LabelledMetrics

_IN_DEBUG_MODE: Any = getattr(private_base_events.BaseEventLoop, "_getaddrinfo_debug", None)
_EAI = {value: name for name, value in vars(socket).items() if name.startswith("EAI_") and isinstance(value, int)}


def look_up(func: Any) -> str:
    """Return ``getaddrinfo`` or ``getnameinfo`` if ``func`` is what the loop now looks up names with; else empty."""
    if func is socket.getaddrinfo:
        return "getaddrinfo"
    if func is socket.getnameinfo:
        return "getnameinfo"
    if _IN_DEBUG_MODE is not None and getattr(func, "__func__", None) is _IN_DEBUG_MODE:
        return "getaddrinfo"
    return ""


def count(labelled: LabelledMetrics, duration_ns: int, exception: BaseException | None) -> None:
    """Count a look-up that has ended, even if nothing waits for it any more: the resolver was as slow."""
    labelled.time("dns.lookup.duration", duration_ns, "" if exception is None else error_name(exception))


def error_name(exception: BaseException) -> str:
    """Return the resolver's name for an error, such as ``EAI_NONAME``; for any other exception, its class."""
    if isinstance(exception, socket.gaierror):
        name = _EAI.get(exception.errno or 0)
        if name is not None:
            return name
    return type_name(type(exception))

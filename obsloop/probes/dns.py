"""Name look-ups: what ``loop.getaddrinfo`` and ``loop.getnameinfo`` spend in the resolver.

Both are jobs of the default executor, and their time in its queue is counted there (``executors``). Here only the
resolver's own time counts, so that a starved pool is not taken for a slow name server. Addresses that asyncio can read
by itself never become a job, and are no look-ups. A program that hands ``socket.getaddrinfo`` to an executor by itself
looks up a name, too.
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
    """``getaddrinfo`` or ``getnameinfo`` where ``func`` is what the loop looks names up with, now; else empty."""
    if func is socket.getaddrinfo:
        return "getaddrinfo"
    if func is socket.getnameinfo:
        return "getnameinfo"
    if _IN_DEBUG_MODE is not None and getattr(func, "__func__", None) is _IN_DEBUG_MODE:
        return "getaddrinfo"
    return ""


def count(labelled: LabelledMetrics, duration_ns: int, exception: BaseException | None) -> None:
    """A look-up has ended. One that nobody waits for any more counts as well: the resolver was as slow."""
    labelled.time("dns.lookup.duration", duration_ns, "" if exception is None else error_name(exception))


def error_name(exception: BaseException) -> str:
    """The resolver's own name for an error, ``EAI_NONAME``; of any other exception the class."""
    if isinstance(exception, socket.gaierror):
        name = _EAI.get(exception.errno or 0)
        if name is not None:
            return name
    return type_name(type(exception))

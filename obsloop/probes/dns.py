"""Name look-ups: what ``loop.getaddrinfo`` and ``loop.getnameinfo`` spend in the resolver.

Both are jobs of the default executor. Their time in its queue is counted there (``executors``). Here only the
resolver's time counts, so a starved pool does not look like a slow name server. An address that asyncio can parse never
becomes a job, and is no look-up. If a program hands ``socket.getaddrinfo`` to an executor, that is a look-up, too.

``loop.getaddrinfo`` of an address, with a port that is a number, is answered in the loop's thread: the C library parses
it and asks nothing. It is a look-up, but no job.
"""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.asyncio_private import private_base_events
from obsloop.introspect.error_names import type_name

if TYPE_CHECKING:
    from obsloop.metrics.labelled import LabelledMetrics

_IN_DEBUG_MODE: Any = getattr(private_base_events.BaseEventLoop, "_getaddrinfo_debug", None)
_EAI = {value: name for name, value in vars(socket).items() if name.startswith("EAI_") and isinstance(value, int)}
_GETADDRINFO = socket.getaddrinfo
_KINDS = {socket.SOCK_STREAM: (socket.SOCK_STREAM, 6), socket.SOCK_DGRAM: (socket.SOCK_DGRAM, 17)}  # TCP, UDP
_LAST_PORT = 65535
_HARMLESS = socket.AI_NUMERICHOST | socket.AI_PASSIVE | getattr(socket, "AI_NUMERICSERV", 0)


def needs_no_thread(loop: Any, host: Any, port: Any, family: Any, flags: Any) -> int:
    """Return the family of ``host`` if ``getaddrinfo`` only has to parse an address, so that it cannot wait; else 0.

    0 too if a program could notice that no job is submitted: by debug mode, an executor of its own, or a replaced
    function.
    """
    if type(host) is not str or loop._debug or socket.getaddrinfo is not _GETADDRINFO:
        return 0
    found = socket.AF_INET6 if ":" in host else socket.AF_INET if host[-1:].isdecimal() else 0  # 0: nearly every name
    if (
        not found
        or family not in (0, found)
        or not isinstance(flags, int)
        or flags & ~_HARMLESS
        or not (type(port) is int or port is None or (type(port) is str and port.isascii() and port.isdecimal()))
        or private_base_events.socket is not socket
        or not _submits_as_asyncio(loop)
    ):
        return 0
    try:
        socket.inet_pton(found, host)  # refuses names, and the scope of an address
    except (OSError, ValueError):
        return 0
    return found


def _submits_as_asyncio(loop: Any) -> bool:
    """Return whether a job would just be submitted; False too if asyncio would raise an error."""
    executor = loop._default_executor
    if loop._closed or getattr(loop, "_executor_shutdown_called", True):
        return False
    return executor is None or (
        type(executor) is ThreadPoolExecutor
        and "submit" not in vars(executor)
        and not getattr(executor, "_shutdown", True)
    )


def answer(loop: Any, found: int, host: str, port: Any, family: Any, type: Any, proto: Any, flags: Any) -> Any:
    """Return what ``socket.getaddrinfo`` returns for an address of the family ``found``, and count the look-up."""
    labelled = loop._obsloop.metrics_of(loop).labelled
    began_ns = clock.monotonic_ns()
    try:
        number = int(port or 0)
        known: Any = _KINDS.get(type)
        if known is not None and proto in (0, known[1]) and 0 <= number <= _LAST_PORT and socket.has_ipv6:
            # One answer, which is known. `socket.getaddrinfo` takes five times as long.
            sys.audit("socket.getaddrinfo", host, port, family, type, proto)
            text = socket.inet_ntop(found, socket.inet_pton(found, host))
            address = (text, number) if found == socket.AF_INET else (text, number, 0, 0)
            infos: Any = [(found, *known, "", address)]
        else:
            infos = _GETADDRINFO(host, port, family, type, proto, flags)
    except Exception as exc:
        count(labelled, clock.monotonic_ns() - began_ns, exc)
        raise
    count(labelled, clock.monotonic_ns() - began_ns, None)
    return infos


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

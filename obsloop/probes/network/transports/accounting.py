"""Transports: opened, closed and why, the bytes that went through, what waits in write buffers, and time spent paused.

The transports here are asyncio's own with a ``Link`` that counts. Their hot path, one read or write, is the core's
(``hotpath.pure.socket_io`` or its compiled twin). The rest of asyncio's code runs as it is, and what it sent is seen
from how its buffer grew and shrank, so that every version's own rules for partial writes, errors and closing hold.
"""

from __future__ import annotations

# asyncio's transports have no types, and what derives from them is all the same to pyright:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.clock import epoch
from obsloop.base.guarded import guarded
from obsloop.events import DIRECTIONS, ROLES, TransportClosed
from obsloop.instruments import emit, heard
from obsloop.introspect import protocols
from obsloop.introspect.attributes import class_of
from obsloop.introspect.error_names import type_name
from obsloop.metrics.counters import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obsloop.metrics.counters import Reading
    from obsloop.metrics.snapshot import Value

CLIENT, SERVER = ROLES


# ---- the figures -----------------------------------------------------------------------------------------------------


def set_buffered(link: Any, n: int) -> None:
    link.counters.flows.buffered += n - link.buffered
    link.buffered = n
    if n:
        link.straight = False


def given_up(link: Any, exc: BaseException | None) -> None:
    """What has not been sent never will be."""
    if exc is None:
        link.reason = "aborted"
    else:
        reset = isinstance(exc, (ConnectionResetError, BrokenPipeError)) or (
            isinstance(exc, ConnectionAbortedError) and exc.errno is not None  # else it is asyncio that gave up
        )
        link.reason = "reset" if reset else "error"
        link.error_type = type_name(class_of(exc))
    set_buffered(link, 0)
    link.disconnect()


def opened(transport: Any, link: Any) -> None:
    guarded(_count_opened, transport, link)


def _count_opened(transport: Any, link: Any) -> None:
    link.opened_ns = clock.monotonic_ns()
    key = (link.network, link.role)
    active = link.counters.flows.active
    active[key] = active.get(key, 0) + 1
    if link.listener is not None:
        link.listener.opened()
    link.loop._obsloop.metrics_of(link.loop).labelled.count("asyncio.transport.opened", *key)


def closed(transport: Any, link: Any, protocol: Any, exc: BaseException | None) -> None:
    opened_ns, link.opened_ns = link.opened_ns, 0
    if not opened_ns:
        return
    now_ns = clock.monotonic_ns()
    loop, link.loop = link.loop, None
    if link.paused_since_ns:
        resumed(link)
    link.disconnect()
    set_buffered(link, 0)
    key = (link.network, link.role)
    active = link.counters.flows.active
    if active.get(key):  # the loop may have been closed since
        active[key] -= 1
    if link.listener is not None:
        link.listener.closed()
        link.listener = None
    obs = loop._obsloop
    metrics = obs.metrics_of(loop)
    reason = link.reason or "aborted"
    metrics.labelled.count("asyncio.transport.closed", link.network, reason)
    if heard(obs.instruments, "on_transport_closed"):
        site = protocols.site_of_protocol(protocol, "connection_lost", transport)
        event = TransportClosed(
            loop_name=metrics.name,
            kind="callback",
            name=site.name,
            filename=site.filename,
            lineno=site.lineno,
            duration=(now_ns - opened_ns) / 1e9,
            schedule_delay=0.0,
            started_at=epoch(opened_ns),
            detail=site.detail,
            transport=link.network,
            role=link.role,
            reason=reason,
            bytes_read=link.read_bytes,
            bytes_written=link.written_bytes,
            paused_duration=link.paused_ns / 1e9,
            error_type=link.error_type,
        )
        emit(obs.instruments, "on_transport_closed", event)


def paused(link: Any) -> None:
    link.paused_since_ns = clock.monotonic_ns()
    link.counters.flows.pause(1, link.paused_since_ns)
    link.loop._obsloop.metrics_of(link.loop).labelled.count("asyncio.transport.write_paused.episodes")


def resumed(link: Any) -> None:
    since_ns, link.paused_since_ns = link.paused_since_ns, 0
    if since_ns:
        now_ns = clock.monotonic_ns()
        link.paused_ns += now_ns - since_ns
        link.counters.flows.pause(-1, now_ns)


def points(counters: Iterable[Any], readings: Iterable[Reading]) -> dict[str, dict[tuple[str, ...], Value]]:
    """The transports of one loop name, at this moment."""
    active: dict[tuple[str, ...], int] = dict.fromkeys(((n, r) for n in NETWORKS for r in ROLES), 0)
    buffered = paused_ns = 0
    for block in counters:
        flows = block.flows
        for key, n in list(flows.active.items()):
            active[key] += n
        buffered += flows.buffered
        paused_ns += flows.paused_ns()
    io_bytes = [sum(column) for column in zip(*(r.io_bytes for r in readings), strict=True)]
    return {
        "asyncio.transport.active": {**active},
        "asyncio.transport.io": {
            (way, name): io_bytes[2 * i + j] for i, name in enumerate(NETWORKS) for j, way in enumerate(DIRECTIONS)
        },
        "asyncio.transport.write_buffer.usage": {(): buffered},
        "asyncio.transport.write_paused.time": {(): paused_ns / 1e9},
    }

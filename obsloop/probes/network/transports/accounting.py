"""Transports: opened, closed and why, the bytes that went through, what waits in write buffers, and time spent paused.

The transports here are asyncio's own with a ``TransportStats`` that counts. Their hot path, one read or write, is in
the core (``hotpath.pure.socket_io`` or its compiled twin). The rest of asyncio's code runs unchanged. What it sent
follows from how its buffer grew and shrank, so each version's rules for partial writes, errors and closing hold.
"""

from __future__ import annotations

# asyncio's transports have no types, so pyright knows none of the types derived from them:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.clock import epoch
from obsloop.base.guarded import failed
from obsloop.events import DIRECTIONS, ROLES, TransportClosed
from obsloop.instruments import emit, has_listeners
from obsloop.introspect import protocols
from obsloop.introspect.attributes import class_of
from obsloop.introspect.error_names import type_name
from obsloop.metrics.buckets import added_up
from obsloop.metrics.counters import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obsloop.metrics.reading import Reading
    from obsloop.metrics.snapshot import Value

CLIENT, SERVER = ROLES


# ---- the metrics -----------------------------------------------------------------------------------------------------


def _counts(stats: Any) -> bool:
    """Return whether the transport still counts. Once its loop is closed, its counters may be another loop's."""
    return stats.loop is not None and stats.loop._obsloop.counters is stats.counters


def set_buffered(stats: Any, n: int) -> None:
    if _counts(stats):
        stats.counters.flows.buffered += n - stats.buffered
    stats.buffered = n
    if n:
        stats.can_send_now = False


def given_up(stats: Any, exc: BaseException | None) -> None:
    """Note that what has not been sent never will be."""
    if exc is None:
        stats.reason = "aborted"
    else:
        reset = isinstance(exc, (ConnectionResetError, BrokenPipeError)) or (
            isinstance(exc, ConnectionAbortedError) and exc.errno is not None  # else asyncio gave up
        )
        stats.reason = "reset" if reset else "error"
        stats.error_type = type_name(class_of(exc))
    set_buffered(stats, 0)
    stats.disconnect()


def opened(transport: Any, stats: Any) -> None:
    try:
        _count_opened(transport, stats)
    except BaseException as error:
        failed(_count_opened, error)


def _count_opened(transport: Any, stats: Any) -> None:
    stats.opened_ns = clock.monotonic_ns()
    key = (stats.network, stats.role)
    active = stats.counters.flows.active
    active[key] = active.get(key, 0) + 1
    if stats.listener is not None:
        stats.listener.opened()
    obs = stats.loop._obsloop
    metrics = obs.metrics or obs.metrics_of(stats.loop)
    metrics.labelled.count("asyncio.transport.opened", *key)


def closed(transport: Any, stats: Any, protocol: Any, exc: BaseException | None) -> None:
    opened_ns, stats.opened_ns = stats.opened_ns, 0
    if not opened_ns:
        return
    now_ns = clock.monotonic_ns()
    if stats.paused_since_ns:
        resumed(stats)
    stats.disconnect()
    if stats.buffered:
        set_buffered(stats, 0)
    loop, obs = stats.loop, stats.loop._obsloop
    if obs.counters is stats.counters:
        stats.counters.flows.active[stats.network, stats.role] -= 1
    stats.loop = None
    if stats.listener is not None:
        stats.listener.closed()
        stats.listener = None
    metrics = obs.metrics or obs.metrics_of(loop)
    reason = stats.reason or "aborted"
    metrics.labelled.count("asyncio.transport.closed", stats.network, reason)
    if has_listeners(obs.instruments, "on_transport_closed"):
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
            transport=stats.network,
            role=stats.role,
            reason=reason,
            bytes_read=stats.read_bytes,
            bytes_written=stats.written_bytes,
            paused_duration=stats.paused_ns / 1e9,
            error_type=stats.error_type,
        )
        emit(obs.instruments, "on_transport_closed", event)


def paused(stats: Any) -> None:
    stats.paused_since_ns = clock.monotonic_ns()
    stats.counters.flows.pause(1, stats.paused_since_ns)
    stats.loop._obsloop.metrics_of(stats.loop).labelled.count("asyncio.transport.write_paused.episodes")


def resumed(stats: Any) -> None:
    since_ns, stats.paused_since_ns = stats.paused_since_ns, 0
    if since_ns:
        now_ns = clock.monotonic_ns()
        stats.paused_ns += now_ns - since_ns
        if _counts(stats):
            stats.counters.flows.pause(-1, now_ns)


def collect(counters: Iterable[Any], readings: Iterable[Reading]) -> dict[str, dict[tuple[str, ...], Value]]:
    """Return the metrics of one loop name's transports, at this moment."""
    active: dict[tuple[str, ...], int] = dict.fromkeys(((n, r) for n in NETWORKS for r in ROLES), 0)
    buffered = paused_ns = 0
    for block in counters:
        flows = block.flows
        for key, n in list(flows.active.items()):
            active[key] += n
        buffered += flows.buffered
        paused_ns += flows.paused_ns()
    io_bytes = added_up(r.counted.io_bytes for r in readings)
    return {
        "asyncio.transport.active": {**active},
        "asyncio.transport.io": {
            (way, name): io_bytes[2 * i + j] for i, name in enumerate(NETWORKS) for j, way in enumerate(DIRECTIONS)
        },
        "asyncio.transport.write_buffer.usage": {(): buffered},
        "asyncio.transport.write_paused.time": {(): paused_ns / 1e9},
    }

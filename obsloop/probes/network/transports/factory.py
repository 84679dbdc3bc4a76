"""How a loop makes its transports, and how it counts files that the kernel sends."""

from __future__ import annotations

# asyncio's transports have no types, so pyright knows none of the types derived from them:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from obsloop.base.asyncio_private import private_selector_events
from obsloop.hotpath import backend
from obsloop.introspect.callbacks import stands_for_asyncio
from obsloop.metrics.counters import NETWORKS
from obsloop.probes.network import servers, tls as handshakes
from obsloop.probes.network.socket_family import is_unix

if TYPE_CHECKING:
    from collections.abc import Generator

from obsloop.probes.network.transports.accounting import CLIENT, SERVER
from obsloop.probes.network.transports.datagrams import DatagramTransport, StockDatagram
from obsloop.probes.network.transports.pipes import ReadPipeTransport, StockReadPipe, StockWritePipe, WritePipeTransport
from obsloop.probes.network.transports.streams import SocketTransport, StockSocket

_HERE = __name__.rpartition(".")[0]
stands_for_asyncio(
    (
        *(f"{_HERE}.{name}" for name in ("base", "streams", "datagrams", "pipes")),
        handshakes.__name__,
        "obsloop.hotpath.pure.socket_io",
    ),
    (*backend.TRANSPORT_METHODS.values(), *backend.DATAGRAM_METHODS.values()),
)

# A transport's repr begins with the name of its class, and protocols search it for the name that asyncio uses.
for _ours, _theirs in (
    (SocketTransport, StockSocket),
    (DatagramTransport, StockDatagram),
    (ReadPipeTransport, StockReadPipe),
    (WritePipeTransport, StockWritePipe),
):
    _ours.__name__ = _ours.__qualname__ = _theirs.__name__

_make_stock: Any = getattr(private_selector_events.BaseSelectorEventLoop, "_make_socket_transport", None)
_CHECKS_FD = "_ensure_fd_no_transport" in getattr(getattr(_make_stock, "__code__", None), "co_names", ())


def _check_fd(loop: Any, sock: Any) -> None:
    """Refuse a socket that already has a transport, if this version of asyncio does."""
    if _CHECKS_FD:
        loop._ensure_fd_no_transport(sock)


def make_socket(loop: Any, sock: Any, protocol: Any, waiter: Any, kwargs: dict[str, Any]) -> Any:
    """Make a transport as ``loop._make_socket_transport`` does."""
    _check_fd(loop, sock)
    return SocketTransport(loop, sock, protocol, waiter, stats=_stats(loop, sock, kwargs), **kwargs)


def make_tls(loop: Any, sock: Any, protocol: Any, sslcontext: Any, waiter: Any, kwargs: dict[str, Any]) -> Any:
    """Make a transport as ``loop._make_ssl_transport`` does."""
    _check_fd(loop, sock)
    tls = handshakes.new_protocol(loop, protocol, sslcontext, waiter, kwargs)
    SocketTransport(loop, sock, tls, stats=_stats(loop, sock, kwargs), **kwargs)
    return tls._app_transport


def make_datagram(loop: Any, sock: Any, protocol: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a transport as ``loop._make_datagram_transport`` does."""
    _check_fd(loop, sock)
    address = args[0] if args else kwargs.get("address")
    stats = new_stats(loop, "udp", CLIENT if address else SERVER)
    return DatagramTransport(loop, sock, protocol, *args, stats=stats, **kwargs)


def new_stats(loop: Any, network: str, role: str) -> Any:
    """Return the record of a transport that is about to be made."""
    obs = loop._obsloop
    stats = backend.TransportStats(obs.counters or obs.lease(loop), 2 * NETWORKS.index(network))
    stats.loop, stats.network, stats.role = loop, network, role
    return stats


def _stats(loop: Any, sock: Any, kwargs: dict[str, Any]) -> Any:
    accepted = kwargs.get("server") is not None or loop._obsloop.accepted_fd == sock.fileno()
    stats = new_stats(loop, "unix" if is_unix(sock) else "tcp", SERVER if accepted else CLIENT)
    stats.listener = servers.listener_of(kwargs.get("extra"))
    return stats


async def accepted_elsewhere(loop: Any, sock: Any, coro: Any) -> Any:
    """Run asyncio's ``coro``, which makes the transport of a socket that other code than this loop accepted."""
    loop._obsloop.accepted_fd = sock.fileno()  # asyncio makes the transport before it awaits anything
    try:
        return await coro
    finally:
        loop._obsloop.accepted_fd = -1


def make_pipe(loop: Any, cls: Any, pipe: Any, protocol: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a transport as ``loop._make_read_pipe_transport`` and ``_make_write_pipe_transport`` do."""
    return cls(loop, pipe, protocol, *args, stats=new_stats(loop, "pipe", CLIENT), **kwargs)


@contextmanager
def sending(loop: Any, transport: Any) -> Generator[None]:
    """Count what ``transport`` sends of a file, while the kernel reads it from the file."""
    stats = getattr(transport, "_obsloop_stats", None)
    sock = transport._sock
    if stats is not None:
        loop._obsloop.sending[id(sock)] = [stats, 0]
    try:
        yield
    finally:
        loop._obsloop.sending.pop(id(sock), None)


def sent(loop: Any, sock: Any, before: int) -> None:
    """Count a piece of the file that may have been sent, after ``before`` bytes."""
    entry = loop._obsloop.sending.get(id(sock))
    if entry is None:
        return
    # asyncio passes the sum on to its next turn. Only there can it be read in time.
    key = loop._selector.get_map().get(sock.fileno()) if sock.fileno() >= 0 else None
    handle = key.data[1] if key is not None else None
    total = before
    if handle is not None and getattr(handle._callback, "__name__", "") == "_sock_sendfile_native_impl":
        total = handle._args[-1]
    stats, counted = entry
    stats.wrote(total - counted)
    entry[1] = total

"""Transports: opened, closed and why, the bytes that went through, what waits in write buffers, and time spent paused.

The transports here are asyncio's own with a ``Link`` that counts. Their hot path, one read or write, is the core's
(``hotpath.pure.socket_io`` or its compiled twin). The rest of asyncio's code runs as it is, and what it sent is seen
from how its buffer grew and shrank, so that every version's own rules for partial writes, errors and closing hold.
"""

from __future__ import annotations

# asyncio's transports have no types, and what derives from them is all the same to pyright:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
import os
import socket
from asyncio.log import logger
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from obsloop.base import clock
from obsloop.base.asyncio_private import private_selector_events, private_unix_events
from obsloop.base.clock import epoch
from obsloop.base.guarded import guarded
from obsloop.events import DIRECTIONS, ROLES, TransportClosed
from obsloop.hotpath import backend
from obsloop.instruments import emit, heard
from obsloop.introspect import protocols
from obsloop.introspect.attributes import class_of
from obsloop.introspect.callbacks import stands_for_asyncio
from obsloop.introspect.error_names import type_name
from obsloop.metrics.counters import NETWORKS
from obsloop.probes.network import servers, tls as handshakes
from obsloop.probes.network.socket_family import is_unix

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from obsloop.metrics.counters import Reading
    from obsloop.metrics.snapshot import Value

CLIENT, SERVER = ROLES
_Socket: Any = getattr(private_selector_events, "_SelectorSocketTransport", object)
_Datagram: Any = getattr(private_selector_events, "_SelectorDatagramTransport", object)
_ReadPipe: Any = getattr(private_unix_events, "_UnixReadPipeTransport", object)
_WritePipe: Any = getattr(private_unix_events, "_UnixWritePipeTransport", object)
_make_stock: Any = getattr(private_selector_events.BaseSelectorEventLoop, "_make_socket_transport", None)
_CHECKS_FD = "_ensure_fd_no_transport" in getattr(getattr(_make_stock, "__code__", None), "co_names", ())
_ADJUSTS = hasattr(_Socket, "_adjust_leftover_buffer") and private_selector_events._HAS_SENDMSG
"""Whether asyncio says how much of its buffer it has sent."""


class _Measured:
    """In front of every transport of asyncio's: when it was made, when its connection was lost, and why."""

    __slots__ = ()

    def _call_connection_lost(self: Any, exc: BaseException | None) -> None:
        protocol = self._protocol
        try:
            super()._call_connection_lost(exc)  # type: ignore[misc]
        finally:
            guarded(_closed, self, self._obsloop_link, protocol, exc)

    def __del__(self: Any, *args: Any) -> None:
        super().__del__(*args)  # type: ignore[misc]  # says that it was never closed, and closes it
        link = getattr(self, "_obsloop_link", None)
        if link is not None and link.opened_ns:
            guarded(_closed, self, link, None, None)


class _Buffering(_Measured):
    """What writes: its buffer, and when it pauses its protocol."""

    __slots__ = ()

    def _maybe_pause_protocol(self: Any) -> None:
        self._grew(self._obsloop_link)
        was_paused = self._protocol_paused
        super()._maybe_pause_protocol()  # type: ignore[misc]
        if self._protocol_paused and not was_paused:
            guarded(_paused, self._obsloop_link)

    def _maybe_resume_protocol(self: Any) -> None:
        link = self._obsloop_link
        self._shrank(link)
        if self._protocol_paused and self.get_write_buffer_size() <= self._low_water:
            _resumed(link)  # before the protocol is told: it may write, and be paused again
        super()._maybe_resume_protocol()  # type: ignore[misc]

    def _grew(self: Any, link: Any) -> None:
        """Its buffer may have grown by what was left over of a write; the rest has been sent."""
        if link.offered:
            sent = link.offered + link.buffered - self.get_write_buffer_size()
            _set_buffered(link, link.buffered + link.offered - sent)
            link.offered = 0
            link.wrote(sent)

    def _shrank(self: Any, link: Any) -> None:
        """Its buffer may have become smaller by what was sent."""
        size = self.get_write_buffer_size()
        link.wrote(link.buffered - size)
        _set_buffered(link, size)


class _SocketLike(_Buffering):
    """Sockets of all kinds have asyncio's ``_SelectorTransport`` in common."""

    __slots__ = ()

    def close(self: Any) -> None:
        link = self._obsloop_link
        if not self._closing:
            link.reason = link.reason or "local"
        if not self._buffer:
            link.disconnect()
        super().close()  # type: ignore[misc]

    def _force_close(self: Any, exc: BaseException | None) -> None:
        if not self._conn_lost:
            _given_up(self._obsloop_link, exc)
        super()._force_close(exc)  # type: ignore[misc]


class SocketTransport(_SocketLike, _Socket):  # type: ignore[misc]
    """A stream socket's transport."""

    __slots__ = ("_obsloop_link",)

    def __init__(self, loop: Any, sock: Any, protocol: Any, *args: Any, link: Any, **kwargs: Any) -> None:
        self._obsloop_link = link
        super().__init__(loop, sock, protocol, *args, **kwargs)
        _opened(self, link)
        self._ease()

    def set_protocol(self, protocol: Any) -> None:
        handshakes.adopt(protocol)
        super().set_protocol(protocol)

    def _ease(self) -> None:
        """Writes may go to the socket at once, unless something is in the way."""
        sock = self._sock
        if not (self._closing or self._conn_lost or self._eof or self._empty_waiter is not None):
            fd = sock.fileno() if sock.__class__ is socket.socket else -1
            self._obsloop_link.connect(sock, fd)

    def _call_connection_lost(self: Any, exc: BaseException | None) -> None:
        try:
            super()._call_connection_lost(exc)
        finally:
            # Methods of its own: with them, only the garbage collector could free it.
            self._read_ready_cb = None
            if _ADJUSTS:
                self._write_ready = None

    def _read_ready__on_eof(self) -> None:
        link = self._obsloop_link
        link.reason = link.reason or "eof"
        super()._read_ready__on_eof()

    def write_eof(self) -> None:
        self._obsloop_link.straight = False
        super().write_eof()

    def _make_empty_waiter(self) -> Any:
        self._obsloop_link.straight = False
        return super()._make_empty_waiter()

    def _reset_empty_waiter(self) -> None:
        super()._reset_empty_waiter()
        if not self._buffer:
            self._ease()

    def _shrank(self, link: Any) -> None:
        if not _ADJUSTS:
            super()._shrank(link)
        if not self._buffer:
            self._ease()

    if _ADJUSTS:

        def _grew(self, link: Any) -> None:
            if link.offered:
                left = len(self._buffer[-1])  # asyncio would go through all of its buffer to tell its size
                sent, link.offered = link.offered - left, 0
                _set_buffered(link, link.buffered + left)
                link.wrote(sent)

        def _adjust_leftover_buffer(self, nbytes: int) -> None:
            super()._adjust_leftover_buffer(nbytes)
            link = self._obsloop_link
            link.wrote(nbytes)
            _set_buffered(link, link.buffered - nbytes)

        def writelines(self, list_of_data: Any) -> None:
            """Hand all to the socket at once, as on the stock transport."""
            link = self._obsloop_link
            if self._eof or self._empty_waiter is not None:
                super().writelines(list_of_data)  # refuses
                return
            if self._conn_lost:
                super().write(b"".join(list_of_data))  # drops it, and says so when it is too much
                return
            link.straight = False
            # Some versions never get an empty piece out of their buffer, and hang (gh-155888).
            list_of_data = [data for data in list_of_data if len(data)]
            # Before it sends: what it has sent is taken off as it says so.
            _set_buffered(link, link.buffered + sum(map(len, list_of_data)))
            try:
                super().writelines(list_of_data)
            finally:
                if not self._conn_lost:
                    _set_buffered(link, self.get_write_buffer_size())
                    if not self._buffer:
                        self._ease()


stands_for_asyncio(
    (__name__, handshakes.__name__, "obsloop.hotpath.pure.socket_io"), backend.TRANSPORT_METHODS.values()
)
for _name, _method in backend.TRANSPORT_METHODS.items():
    setattr(SocketTransport, _name, _method)


class DatagramTransport(_SocketLike, _Datagram):  # type: ignore[misc]
    """A datagram socket's transport; its socket is behind a ``_Tap``."""

    def __init__(self, loop: Any, sock: Any, protocol: Any, *args: Any, link: Any, **kwargs: Any) -> None:
        self._obsloop_link = link
        super().__init__(loop, sock, protocol, *args, **kwargs)
        self._sock: Any = _Tap(sock, link)
        _opened(self, link)

    def _grew(self, link: Any) -> None:
        _set_buffered(link, self.get_write_buffer_size())

    _shrank = _grew


class _Tap:
    """A datagram socket that counts. Its methods say how many bytes went through; asyncio's transport does not."""

    __slots__ = ("_link", "_sock")

    def __init__(self, sock: Any, link: Any) -> None:
        self._sock, self._link = sock, link

    def send(self, data: Any) -> int:
        n: int = self._sock.send(data)
        self._link.wrote(n)
        return n

    def sendto(self, data: Any, address: Any) -> int:
        n: int = self._sock.sendto(data, address)
        self._link.wrote(n)
        return n

    def recvfrom(self, size: int) -> tuple[bytes, Any]:
        found: tuple[bytes, Any] = self._sock.recvfrom(size)
        self._link.read(len(found[0]))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class ReadPipeTransport(_Measured, _ReadPipe):  # type: ignore[misc]
    """The end of a pipe that is read from."""

    def __init__(self, loop: Any, pipe: Any, protocol: Any, *args: Any, link: Any, **kwargs: Any) -> None:
        self._obsloop_link = link
        super().__init__(loop, pipe, protocol, *args, **kwargs)
        _opened(self, link)

    def _read_ready(self) -> None:
        """Asyncio's, and a count."""
        try:
            data = os.read(self._fileno, self.max_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._fatal_error(exc, "Fatal read error on pipe transport")
            return
        if data:
            self._obsloop_link.read(len(data))
            self._protocol.data_received(data)
            return
        self._obsloop_link.reason = "eof"
        if self._loop.get_debug():
            logger.info("%r was closed by peer", self)
        self._closing = True
        self._loop._remove_reader(self._fileno)
        self._loop.call_soon(self._protocol.eof_received)
        self._loop.call_soon(self._call_connection_lost, None)

    def close(self) -> None:
        self._obsloop_link.reason = self._obsloop_link.reason or "local"
        super().close()

    def _close(self, exc: BaseException | None) -> None:
        if exc is not None:
            _given_up(self._obsloop_link, exc)
        super()._close(exc)


class WritePipeTransport(_Buffering, _WritePipe):  # type: ignore[misc]
    """The end of a pipe that is written to."""

    def __init__(self, loop: Any, pipe: Any, protocol: Any, *args: Any, link: Any, **kwargs: Any) -> None:
        self._obsloop_link = link
        super().__init__(loop, pipe, protocol, *args, **kwargs)
        _opened(self, link)

    def _read_ready(self) -> None:
        self._obsloop_link.reason = self._obsloop_link.reason or "eof"
        super()._read_ready()

    def write(self, data: Any) -> None:
        """Write, as on the stock transport."""
        link = self._obsloop_link
        known = isinstance(data, (bytes, bytearray, memoryview)) and not (self._conn_lost or self._closing)
        link.offered = len(data) if known else 0
        try:
            super().write(data)
            if link.offered and not self._conn_lost:
                link.wrote(link.offered)
        finally:
            link.offered = 0

    def _write_ready(self) -> None:
        super()._write_ready()
        if not self._conn_lost and self._pipe is not None:
            self._shrank(self._obsloop_link)

    def write_eof(self) -> None:
        self._obsloop_link.reason = self._obsloop_link.reason or "local"
        super().write_eof()

    def _close(self, exc: BaseException | None = None) -> None:
        if exc is not None or not self._obsloop_link.reason:
            _given_up(self._obsloop_link, exc)
        else:
            _set_buffered(self._obsloop_link, 0)
        super()._close(exc)


# A transport's repr begins with the name of its class, and a protocol finds it in there as asyncio calls it.
for _ours, _theirs in (
    (SocketTransport, _Socket),
    (DatagramTransport, _Datagram),
    (ReadPipeTransport, _ReadPipe),
    (WritePipeTransport, _WritePipe),
):
    _ours.__name__ = _ours.__qualname__ = _theirs.__name__


# ---- the figures -----------------------------------------------------------------------------------------------------


def _set_buffered(link: Any, n: int) -> None:
    link.cells.flows.buffered += n - link.buffered
    link.buffered = n
    if n:
        link.straight = False


def _given_up(link: Any, exc: BaseException | None) -> None:
    """What has not been sent never will be."""
    if exc is None:
        link.reason = "aborted"
    else:
        reset = isinstance(exc, (ConnectionResetError, BrokenPipeError)) or (
            isinstance(exc, ConnectionAbortedError) and exc.errno is not None  # else it is asyncio that gave up
        )
        link.reason = "reset" if reset else "error"
        link.error_type = type_name(class_of(exc))
    _set_buffered(link, 0)
    link.disconnect()


def _opened(transport: Any, link: Any) -> None:
    guarded(_count_opened, transport, link)


def _count_opened(transport: Any, link: Any) -> None:
    link.opened_ns = clock.monotonic_ns()
    key = (link.network, link.role)
    active = link.cells.flows.active
    active[key] = active.get(key, 0) + 1
    if link.listener is not None:
        link.listener.opened()
    link.loop._obsloop.ledger_of(link.loop).rare.count("asyncio.transport.opened", *key)


def _closed(transport: Any, link: Any, protocol: Any, exc: BaseException | None) -> None:
    opened_ns, link.opened_ns = link.opened_ns, 0
    if not opened_ns:
        return
    now_ns = clock.monotonic_ns()
    loop, link.loop = link.loop, None
    if link.paused_since_ns:
        _resumed(link)
    link.disconnect()
    _set_buffered(link, 0)
    key = (link.network, link.role)
    active = link.cells.flows.active
    if active.get(key):  # the loop may have been closed since
        active[key] -= 1
    if link.listener is not None:
        link.listener.closed()
        link.listener = None
    obs = loop._obsloop
    ledger = obs.ledger_of(loop)
    reason = link.reason or "aborted"
    ledger.rare.count("asyncio.transport.closed", link.network, reason)
    if heard(obs.instruments, "on_transport_closed"):
        site = protocols.site_of_protocol(protocol, "connection_lost", transport)
        event = TransportClosed(
            loop_name=ledger.name,
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


def _paused(link: Any) -> None:
    link.paused_since_ns = clock.monotonic_ns()
    link.cells.flows.pause(1, link.paused_since_ns)
    link.loop._obsloop.ledger_of(link.loop).rare.count("asyncio.transport.write_paused.episodes")


def _resumed(link: Any) -> None:
    since_ns, link.paused_since_ns = link.paused_since_ns, 0
    if since_ns:
        now_ns = clock.monotonic_ns()
        link.paused_ns += now_ns - since_ns
        link.cells.flows.pause(-1, now_ns)


def points(cells: Iterable[Any], readings: Iterable[Reading]) -> dict[str, dict[tuple[str, ...], Value]]:
    """The transports of one loop name, at this moment."""
    active: dict[tuple[str, ...], int] = dict.fromkeys(((n, r) for n in NETWORKS for r in ROLES), 0)
    buffered = paused_ns = 0
    for block in cells:
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


# ---- how they are made -----------------------------------------------------------------------------------------------


def _check_fd(loop: Any, sock: Any) -> None:
    """Refuse a socket that has a transport already, where this version of asyncio does."""
    if _CHECKS_FD:
        loop._ensure_fd_no_transport(sock)


def make_socket(loop: Any, sock: Any, protocol: Any, waiter: Any, kwargs: dict[str, Any]) -> Any:
    """What ``loop._make_socket_transport`` makes."""
    _check_fd(loop, sock)
    return SocketTransport(loop, sock, protocol, waiter, link=_link(loop, sock, kwargs), **kwargs)


def make_tls(loop: Any, sock: Any, protocol: Any, sslcontext: Any, waiter: Any, kwargs: dict[str, Any]) -> Any:
    """What ``loop._make_ssl_transport`` makes."""
    _check_fd(loop, sock)
    tls = handshakes.new_protocol(loop, protocol, sslcontext, waiter, kwargs)
    SocketTransport(loop, sock, tls, link=_link(loop, sock, kwargs), **kwargs)
    return tls._app_transport


def make_datagram(loop: Any, sock: Any, protocol: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``loop._make_datagram_transport`` makes."""
    _check_fd(loop, sock)
    address = args[0] if args else kwargs.get("address")
    link = new_link(loop, "udp", CLIENT if address else SERVER)
    return DatagramTransport(loop, sock, protocol, *args, link=link, **kwargs)


def new_link(loop: Any, network: str, role: str) -> Any:
    """The record of a transport that is about to be made."""
    obs = loop._obsloop
    link = backend.Link(obs.cells or obs.lease(loop), 2 * NETWORKS.index(network))
    link.loop, link.network, link.role = loop, network, role
    return link


def _link(loop: Any, sock: Any, kwargs: dict[str, Any]) -> Any:
    accepted = kwargs.get("server") is not None or loop._obsloop.accepted_fd == sock.fileno()
    link = new_link(loop, "unix" if is_unix(sock) else "tcp", SERVER if accepted else CLIENT)
    link.listener = servers.listener_of(kwargs.get("extra"))
    return link


def make_pipe(loop: Any, cls: Any, pipe: Any, protocol: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``loop._make_read_pipe_transport`` and its twin make."""
    return cls(loop, pipe, protocol, *args, link=new_link(loop, "pipe", CLIENT), **kwargs)


# ---- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def sending(loop: Any, transport: Any) -> Generator[None]:
    """While ``transport`` sends a file by itself: the kernel takes it from the file."""
    link = getattr(transport, "_obsloop_link", None)
    sock = transport._sock
    if link is not None:
        loop._obsloop.sending[id(sock)] = [link, 0]
    try:
        yield
    finally:
        loop._obsloop.sending.pop(id(sock), None)


def sent(loop: Any, sock: Any, before: int) -> None:
    """A piece of the file may have gone: ``before`` had gone before it."""
    entry = loop._obsloop.sending.get(id(sock))
    if entry is None:
        return
    # Asyncio hands the sum on to its next turn, by which alone it can be known in time.
    key = loop._selector.get_map().get(sock.fileno()) if sock.fileno() >= 0 else None
    handle = key.data[1] if key is not None else None
    total = before
    if handle is not None and getattr(handle._callback, "__name__", "") == "_sock_sendfile_native_impl":
        total = handle._args[-1]
    link, counted = entry
    link.wrote(total - counted)
    entry[1] = total

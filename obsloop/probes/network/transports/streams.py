"""A stream socket's transport. One read and one write are on the hot path: ``hotpath.pure.socket_io`` and its twin."""

from __future__ import annotations

# asyncio's transports have no types, so pyright knows none of the types derived from them:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
import socket
from typing import Any

from obsloop.base.asyncio_private import private_selector_events
from obsloop.hotpath import backend
from obsloop.probes.network import tls as handshakes
from obsloop.probes.network.transports.accounting import opened, set_buffered
from obsloop.probes.network.transports.base import SocketLike

StockSocket: Any = getattr(private_selector_events, "_SelectorSocketTransport", object)
_ADJUSTS = hasattr(StockSocket, "_adjust_leftover_buffer") and private_selector_events._HAS_SENDMSG
"""Whether asyncio reports how much of its buffer it has sent."""


class SocketTransport(SocketLike, StockSocket):  # type: ignore[misc]
    """A stream socket's transport."""

    __slots__ = ("_obsloop_stats",)

    def __init__(self, loop: Any, sock: Any, protocol: Any, *args: Any, stats: Any, **kwargs: Any) -> None:
        self._obsloop_stats = stats
        super().__init__(loop, sock, protocol, *args, **kwargs)
        opened(self, stats)
        self._ease()

    def set_protocol(self, protocol: Any) -> None:
        handshakes.adopt(protocol)
        super().set_protocol(protocol)

    def _ease(self) -> None:
        """Let writes go to the socket at once, unless something is in the way."""
        sock = self._sock
        if not (self._closing or self._conn_lost or self._eof or self._empty_waiter is not None):
            fd = sock.fileno() if sock.__class__ is socket.socket else -1
            self._obsloop_stats.connect(sock, fd)

    def _call_connection_lost(self: Any, exc: BaseException | None) -> None:
        try:
            super()._call_connection_lost(exc)
        finally:
            # These are its own methods: while it holds them, only the garbage collector could free it.
            self._read_ready_cb = None
            if _ADJUSTS:
                self._write_ready = None

    def _read_ready__on_eof(self) -> None:
        stats = self._obsloop_stats
        stats.reason = stats.reason or "eof"
        super()._read_ready__on_eof()

    def write_eof(self) -> None:
        self._obsloop_stats.can_send_now = False
        super().write_eof()

    def _make_empty_waiter(self) -> Any:
        self._obsloop_stats.can_send_now = False
        return super()._make_empty_waiter()

    def _reset_empty_waiter(self) -> None:
        super()._reset_empty_waiter()
        if not self._buffer:
            self._ease()

    def _shrank(self, stats: Any) -> None:
        if not _ADJUSTS:
            super()._shrank(stats)
        if not self._buffer:
            self._ease()

    if _ADJUSTS:

        def _grew(self, stats: Any) -> None:
            if stats.offered:
                left = len(self._buffer[-1])  # asyncio would go through all of its buffer to compute its size
                sent, stats.offered = stats.offered - left, 0
                set_buffered(stats, stats.buffered + left)
                stats.wrote(sent)

        def _adjust_leftover_buffer(self, nbytes: int) -> None:
            super()._adjust_leftover_buffer(nbytes)
            stats = self._obsloop_stats
            stats.wrote(nbytes)
            set_buffered(stats, stats.buffered - nbytes)

        def writelines(self, list_of_data: Any) -> None:
            """Hand all to the socket at once, as the stock transport does."""
            stats = self._obsloop_stats
            if self._eof or self._empty_waiter is not None:
                super().writelines(list_of_data)  # refuses
                return
            if self._conn_lost:
                super().write(b"".join(list_of_data))  # drops it, and logs a warning after several times
                return
            stats.can_send_now = False
            # Some versions never remove an empty piece from their buffer, and hang (gh-155888).
            list_of_data = [data for data in list_of_data if len(data)]
            # Count before it sends: `_adjust_leftover_buffer` subtracts what was sent.
            set_buffered(stats, stats.buffered + sum(map(len, list_of_data)))
            try:
                super().writelines(list_of_data)
            finally:
                if not self._conn_lost:
                    set_buffered(stats, self.get_write_buffer_size())
                    if not self._buffer:
                        self._ease()


for _name, _method in backend.TRANSPORT_METHODS.items():
    setattr(SocketTransport, _name, _method)

"""A datagram socket's transport, and the tap that counts the bytes of its socket.

The compiled core sends and receives the plain datagrams, and counts them, without the tap (``socket_io.pxi``).
"""

from __future__ import annotations

# asyncio's transports have no types, so pyright knows none of the types derived from them:
# pyright: reportCallIssue=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
import socket
from typing import Any

from obsloop.base.asyncio_private import private_selector_events
from obsloop.hotpath import backend
from obsloop.probes.network.socket_family import family_of
from obsloop.probes.network.transports.accounting import opened, set_buffered
from obsloop.probes.network.transports.base import SocketLike

StockDatagram: Any = getattr(private_selector_events, "_SelectorDatagramTransport", object)


_PLAIN = (socket.AF_INET, socket.AF_INET6)
"""Families whose addresses the compiled core reads and writes."""
_ROOM = 1 << 18
"""What asyncio asks for with one read."""


class DatagramTransport(SocketLike, StockDatagram):  # type: ignore[misc]
    """A datagram socket's transport; its socket is behind a ``_Tap``."""

    def __init__(self, loop: Any, sock: Any, protocol: Any, *args: Any, stats: Any, **kwargs: Any) -> None:
        self._obsloop_stats = stats
        super().__init__(loop, sock, protocol, *args, **kwargs)
        self._sock: Any = _Tap(sock, stats)
        opened(self, stats)
        if sock.__class__ is socket.socket and (family := family_of(sock)) in _PLAIN:
            stats.connect(sock, sock.fileno(), family)

    def _grew(self, stats: Any) -> None:
        set_buffered(stats, self.get_write_buffer_size())

    _shrank = _grew


class _Tap:
    """A datagram socket that counts. Its methods return how many bytes went through; asyncio's transport does not."""

    __slots__ = ("_obs", "_sock", "_stats")

    def __init__(self, sock: Any, stats: Any) -> None:
        self._sock, self._stats = sock, stats
        self._obs = stats.loop._obsloop if type(sock) is socket.socket else None

    def send(self, data: Any) -> int:
        n: int = self._sock.send(data)
        self._stats.wrote(n)
        return n

    def sendto(self, data: Any, address: Any) -> int:
        n: int = self._sock.sendto(data, address)
        self._stats.wrote(n)
        return n

    def recvfrom(self, size: int) -> tuple[bytes, Any]:
        obs = self._obs
        if obs is None or size != _ROOM:
            found: tuple[bytes, Any] = self._sock.recvfrom(size)
            self._stats.read(len(found[0]))
            return found
        # A new object of this size for each read, which shrinks to what came, is mapped and unmapped each time.
        if obs.read_buffer is None:
            obs.read_buffer = memoryview(bytearray(_ROOM))
        n, address = self._sock.recvfrom_into(obs.read_buffer)
        self._stats.read(n)
        return bytes(obs.read_buffer[:n]), address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


for _name, _method in backend.DATAGRAM_METHODS.items():
    setattr(DatagramTransport, _name, _method)

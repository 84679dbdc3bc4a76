"""The hot path of a socket transport, in pure Python: one read, one write, and the bytes of both.

This file holds what runs per read or write, and the record in which one transport counts. Whatever is not plain, such
as a write that did not go out at once, is left to asyncio's own transport and counted by ``probes.network.transports``.
The compiled core has its own ``TransportStats`` and methods of the same names (``socket_io.pxi``); this is the copy to
read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obsloop.base.asyncio_private import private_selector_events
from obsloop.introspect.attributes import class_of

if TYPE_CHECKING:
    from obsloop.metrics.counters import Counters

_STOCK: Any = private_selector_events._SelectorSocketTransport
_stock_write = _STOCK.write


class TransportStats:
    """What is known of one transport, from its creation until its connection is lost."""

    __slots__ = (
        "at",
        "buffered",
        "can_send_now",
        "counters",
        "error_type",
        "io_bytes",
        "listener",
        "loop",
        "network",
        "offered",
        "opened_ns",
        "paused_ns",
        "paused_since_ns",
        "read_bytes",
        "reason",
        "role",
        "written_bytes",
    )

    def __init__(self, counters: Counters, at: int) -> None:
        self.loop: Any = None
        self.network = self.role = ""
        self.counters = counters
        self.io_bytes = counters.io_bytes
        self.at = at
        """The index in the loop's ``io_bytes`` at which bytes read are counted; bytes written are at the next index."""
        self.read_bytes = self.written_bytes = 0
        self.buffered = 0
        """Bytes that the transport was given and the kernel has not taken yet."""
        self.offered = 0
        """While asyncio's own transport writes: how many bytes it was given."""
        self.can_send_now = False
        """Whether a write may go to the socket at once; false where in doubt."""
        self.paused_since_ns = self.paused_ns = 0
        self.reason = self.error_type = ""
        self.opened_ns = 0
        """When it was made; 0 after it is over."""
        self.listener: Any = None

    def read(self, n: int) -> None:
        """Count ``n`` bytes that came from the kernel."""
        self.read_bytes += n
        self.io_bytes[self.at] += n

    def wrote(self, n: int) -> None:
        """Count ``n`` bytes that the kernel took."""
        self.written_bytes += n
        self.io_bytes[self.at + 1] += n

    def connect(self, sock: Any, fd: int, family: int = 0) -> None:
        """Let reads and writes go to ``fd`` at once. ``fd`` is -1 if ``sock`` is not exactly a socket.

        ``family`` is needed for datagrams only.
        """
        self.can_send_now = True

    def disconnect(self) -> None:
        """Let no more bytes go to the socket at once."""
        self.can_send_now = False


def read_data(self: Any) -> None:
    """Read as asyncio's ``_read_ready__data_received`` does, and count the bytes."""
    if self._conn_lost:
        return
    try:
        data = self._sock.recv(self.max_size)
    except (BlockingIOError, InterruptedError):
        return
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal read error on socket transport")
        return
    if not data:
        self._read_ready__on_eof()
        return
    stats = self._obsloop_stats
    stats.read(len(data))
    try:
        self._protocol.data_received(data)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal error: protocol.data_received() call failed.")


def read_into_buffer(self: Any) -> None:
    """Read as asyncio's ``_read_ready__get_buffer`` does, and count the bytes."""
    if self._conn_lost:
        return
    try:
        buffer = self._protocol.get_buffer(-1)
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal error: protocol.get_buffer() call failed.")
        return
    try:
        n = self._sock.recv_into(buffer)
    except (BlockingIOError, InterruptedError):
        return
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal read error on socket transport")
        return
    if not n:
        self._read_ready__on_eof()
        return
    stats = self._obsloop_stats
    stats.read(n)
    try:
        self._protocol.buffer_updated(n)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")


def write(self: Any, data: Any) -> None:
    """Write to the socket at once if nothing is in the way; leave the rest, and every other case, to asyncio."""
    stats = self._obsloop_stats
    cls = class_of(data)
    if stats.can_send_now and (cls is bytes or cls is bytearray) and data:
        try:
            n = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            n = 0
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal write error on socket transport")
            return
        stats.written_bytes += n
        stats.io_bytes[stats.at + 1] += n
        if n == len(data):
            return
        if n:  # else asyncio gets `data` as it is
            data = memoryview(data)[n:]
    write_rest(self, stats, data)


def write_rest(self: Any, stats: Any, data: Any) -> None:
    """Call asyncio's own ``write``, which sends, appends to its buffer, or refuses."""
    view: Any = data
    stats.offered = memoryview(view).nbytes if issubclass(type(data), (bytes, bytearray, memoryview)) else 0
    try:
        _stock_write(self, data)
        if stats.offered and not self._conn_lost:  # else `_maybe_pause_protocol` has counted the rest
            stats.wrote(stats.offered)
    finally:
        stats.offered = 0


TRANSPORT_METHODS = {
    "_read_ready__data_received": read_data,
    "_read_ready__get_buffer": read_into_buffer,
    "write": write,
}
"""What the socket transport takes from the core."""

DATAGRAM_METHODS: dict[str, Any] = {}
"""What the datagram transport takes from the core. The pure core leaves all to asyncio and to the tap on its socket."""

# One read and one write of a socket transport. They use the socket's descriptor and one buffer for all sockets, without
# releasing the GIL, since nothing waits there. To copy much data takes long: then they release the GIL.
# The twin of `obsloop/hotpath/pure/socket_io.py`: read that first.

from asyncio import constants, protocols

from obsloop.hotpath.pure import socket_io as _wire

cdef enum:
    ROOM = 1 << 18                  # what asyncio asks for with one read
    MOST = 1 << 30                  # the most that a program can reasonably ask for
    MUCH = 1 << 16                  # from this size on a copy takes longer than to release the GIL

cdef char *read_buffer = new_buffer(ROOM)
if read_buffer is NULL:
    raise MemoryError

cdef object BufferedProtocol = protocols.BufferedProtocol
cdef object SelectorSocketTransport = private_selector_events._SelectorSocketTransport
cdef object SelectorDatagramTransport = private_selector_events._SelectorDatagramTransport
cdef object stock_datagram_ready = SelectorDatagramTransport._read_ready
cdef object stock_sendto = SelectorDatagramTransport.sendto
cdef object write_rest = _wire.write_rest


cdef class TransportStats:
    """See ``pure.socket_io.TransportStats``."""

    def __init__(self, Counters counters not None, int at):
        if not 0 <= at < MAX_IO - 1:
            raise ValueError(f"{at} is no place in io_bytes")
        self.counters = counters
        self.at = at
        self.fd = -1
        self.network = self.role = self.reason = self.error_type = ""

    cdef inline void count_read(self, Py_ssize_t n) noexcept:
        self.read_bytes += n
        self.counters.io_bytes[self.at] += n

    cdef inline void count_written(self, Py_ssize_t n) noexcept:
        self.written_bytes += n
        self.counters.io_bytes[self.at + 1] += n

    def read(self, Py_ssize_t n):
        self.count_read(n)

    def wrote(self, Py_ssize_t n):
        self.count_written(n)

    def connect(self, sock, int fd, int family=0):
        self.family = family
        self.fd = fd if OBSLOOP_WIRE and fd >= 0 and descriptor_of(sock) == fd else -1
        self.sock = sock
        self.can_send_now = True

    def disconnect(self):
        self.can_send_now = False
        self.fd = -1
        self.sock = None

    cdef inline bint is_open(self):
        return self.fd >= 0 and descriptor_of(self.sock) == self.fd


cdef object os_error(int code):
    return OSError(code, strerror(code))


def read_ready(self):
    """Read what the socket has and pass it to the protocol, as asyncio's ``_read_ready`` does."""
    cdef TransportStats stats = self._obsloop_stats
    cdef Py_ssize_t n = 0
    cdef object data
    cdef int code = 0, overflow = 0
    cdef int fd = stats.fd
    cdef long long room
    if not stats.is_open():
        if self._read_ready_cb is not None:  # while it opens or closes, and on unusual sockets
            self._read_ready_cb()
        return
    protocol = self._protocol
    if type(protocol) is not stats.protocol_type:
        stats.protocol_type = type(protocol)
        stats.buffered_protocol = isinstance(protocol, BufferedProtocol)
    if stats.buffered_protocol:
        read_into(self, stats, protocol)
        return
    size = self.max_size  # each time: it is a public attribute of the transport and of its class
    room = PyLong_AsLongLongAndOverflow(size, &overflow) if type(size) is int else 0
    if not 0 < room <= MOST or overflow:
        self._read_ready_cb()  # which reports what is wrong with it
        return
    if stats.much or room > ROOM:
        data = recv_much(fd, room, &n, &code)
    else:
        n = obsloop_recv(fd, read_buffer, room)
        code = errno
        if n > 0:
            data = PyBytes_FromStringAndSize(read_buffer, n)
    if n <= 0:
        no_data(self, n, code)
        return
    stats.much = n >= MUCH
    stats.count_read(n)
    try:
        protocol.data_received(data)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal error: protocol.data_received() call failed.")


cdef int no_data(self, Py_ssize_t n, int code) except -1:
    """Handle a read without data: the peer has ended, or the read failed."""
    if n == 0:
        self._read_ready__on_eof()
    elif not obsloop_would_block(code):
        self._fatal_error(os_error(code), "Fatal read error on socket transport")
    return 0


cdef int read_into(self, TransportStats stats, protocol) except -1:
    """Read for a protocol that has its own buffer."""
    cdef Py_buffer view
    cdef Py_ssize_t n
    cdef int code
    try:
        buffer = protocol.get_buffer(-1)
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal error: protocol.get_buffer() call failed.")
        return 0
    if not stats.is_open():  # the protocol has closed it just now
        return 0
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal read error on socket transport")
        return 0
    if stats.much:
        with nogil:
            n = obsloop_recv(stats.fd, view.buf, view.len)
    else:
        n = obsloop_recv(stats.fd, view.buf, view.len)
    code = errno
    PyBuffer_Release(&view)
    if n <= 0:
        return no_data(self, n, code)
    stats.much = n >= MUCH
    stats.count_read(n)
    try:
        protocol.buffer_updated(n)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        self._fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")
    return 0


def write(self, data):
    """Write to the socket at once if nothing is in the way; leave the rest, and every other case, to asyncio."""
    cdef TransportStats stats = self._obsloop_stats
    cdef Py_ssize_t n, size
    cdef int code
    cdef char *begin
    if not stats.can_send_now or not stats.is_open():
        write_rest(self, stats, data)
        return
    if PyBytes_CheckExact(data):
        begin = PyBytes_AS_STRING(data)
        size = PyBytes_GET_SIZE(data)
    elif type(data) is bytearray and len(data) < MUCH:
        begin = PyByteArray_AS_STRING(data)
        size = len(data)
    else:
        write_rest(self, stats, data)
        return
    if size == 0:
        return
    if size >= MUCH:
        with nogil:
            n = obsloop_send(stats.fd, begin, size)
    else:
        n = obsloop_send(stats.fd, begin, size)
    if n == size:
        stats.count_written(n)
        return
    if n < 0:
        code = errno
        if not obsloop_would_block(code):
            self._fatal_error(os_error(code), "Fatal write error on socket transport")
            return
        n = 0
    stats.count_written(n)
    write_rest(self, stats, memoryview(data)[n:] if n else data)


def datagram_ready(self):
    """Receive a datagram and pass it to the protocol, as asyncio's ``_read_ready`` does."""
    cdef TransportStats stats = self._obsloop_stats
    cdef Py_ssize_t n
    cdef int code, overflow = 0
    cdef long long room
    cdef PyObject *sender = NULL
    if self._conn_lost:
        return
    size = self.max_size
    room = PyLong_AsLongLongAndOverflow(size, &overflow) if type(size) is int else 0
    if not 0 < room <= ROOM or overflow or not stats.is_open():
        stock_datagram_ready(self)
        return
    n = obsloop_recvfrom(stats.fd, read_buffer, room, &sender)
    if n < 0:
        code = errno
        if not obsloop_would_block(code):
            self._protocol.error_received(os_error(code))
        return
    address = obsloop_owned(sender)
    stats.count_read(n)
    self._protocol.datagram_received(PyBytes_FromStringAndSize(read_buffer, n), address)


def sendto(self, data, addr=None):
    """Send a datagram at once if nothing is in the way; leave every other case to asyncio."""
    cdef TransportStats stats = self._obsloop_stats
    cdef Py_ssize_t n, size
    cdef int code
    size = PyBytes_GET_SIZE(data) if PyBytes_CheckExact(data) else 0
    if size == 0 or not stats.is_open() or self._conn_lost or self._buffer:
        stock_sendto(self, data, addr)
        return
    connected = self._extra["peername"]
    if connected if addr is not None else not connected:
        stock_sendto(self, data, addr)
        return
    if addr is None:
        n = obsloop_send(stats.fd, PyBytes_AS_STRING(data), size)
        code = errno
    elif self._address:
        stock_sendto(self, data, addr)
        return
    else:
        try:
            n = obsloop_sendto(stats.fd, PyBytes_AS_STRING(data), size, stats.family, stats.sock, addr)
            code = errno
        except OSError as exc:  # of an audit hook, as the next ones
            self._protocol.error_received(exc)
            return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal write error on datagram transport")
            return
    if n >= 0:
        stats.count_written(n)
    elif n == -2 or obsloop_would_block(code):
        stock_sendto(self, data, addr)
    else:
        self._protocol.error_received(os_error(code))


for _class, _name, _function in (
    (SelectorSocketTransport, "_read_ready", read_ready),
    (SelectorSocketTransport, "write", write),
    (SelectorDatagramTransport, "_read_ready", datagram_ready),
    (SelectorDatagramTransport, "sendto", sendto),
):
    _function.__name__ = _name
    _function.__qualname__ = f"{_class.__name__}.{_name}"

TRANSPORT_METHODS = {**_wire.TRANSPORT_METHODS, "_read_ready": read_ready, "write": write}
"""What the socket transport takes from the core."""

DATAGRAM_METHODS = {"_read_ready": datagram_ready, "sendto": sendto}
"""What the datagram transport takes from the core."""

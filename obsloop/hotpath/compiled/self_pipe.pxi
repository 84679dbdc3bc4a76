# The loop's own pipe, by which other threads wake it: one write for all calls until the loop has read.
# The twin of `obsloop/hotpath/pure/self_pipe.py`: read that first. No GIL is released between a look at `woken` and
# the system call that belongs to it.

from socket import socket as _socket

from obsloop.base.fork import reset_in_child as _reset_in_child
from obsloop.hotpath.pure import self_pipe as _self_pipe

cdef object SOCKET = _socket
cdef object STOCK_READ = _self_pipe.STOCK_READ
cdef object STOCK_WRITE = _self_pipe.STOCK_WRITE
cdef object PROCESS_DATA = getattr(asyncio.SelectorEventLoop, "_process_self_data", None)
cdef int process = 1


cdef int wake(self, State state) except -1:
    """Wake the loop, after a handle was put onto its queue."""
    method = self._write_to_self
    if not state.wakes_once or not PyMethod_Check(method) or method_function(method) != <PyObject *>own_write:
        method()
    elif state.woken != process:
        if wrote(self):
            state.woken = process
        else:
            STOCK_WRITE(self)
    return 0


cdef inline bint wrote(self) except -1:
    """Try to write a byte to the loop's own pipe."""
    csock = self._csock
    return OBSLOOP_WIRE and type(csock) is SOCKET and obsloop_send(descriptor_of(csock), b"\0", 1) == 1


def write_to_self(self):
    """Write a byte to the loop's own pipe, as asyncio's ``_write_to_self`` does."""
    if not wrote(self):
        STOCK_WRITE(self)


cdef object own_write = write_to_self


def read_from_self(self):
    """Read what woke the loop, as asyncio's ``_read_from_self`` does."""
    cdef State state = own_state(self)
    cdef char data[4096]
    cdef Py_ssize_t n = -1
    try:
        ssock = self._ssock
        if OBSLOOP_WIRE and type(ssock) is SOCKET:
            n = obsloop_recv(descriptor_of(ssock), data, sizeof(data))
            if n > 0:
                method = self._process_self_data
                if n > 1 or data[0] or not PyMethod_Check(method) or method_function(method) != <PyObject *>PROCESS_DATA:
                    method(PyBytes_FromStringAndSize(data, n))
        if not 0 < n < <Py_ssize_t>sizeof(data):  # more to read, or an error to report
            STOCK_READ(self)
    finally:
        state.woken = 0


def wake_once(loop):
    """Let calls share a wake-up from now on, if the loop's reader of its pipe is the method above."""
    own_state(loop).wakes_once = _cold.reads_itself(loop, read_from_self)


def forked():
    """Forget in a forked child which loops are woken."""
    global process
    process += 1


_reset_in_child(forked)

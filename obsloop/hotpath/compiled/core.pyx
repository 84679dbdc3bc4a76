# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=False
"""The compiled core: it behaves as the pure one does, in C.

One extension module, made of the files that are included below. Most have a pure twin, which their first lines name.
``native.h`` has what is written in C.
Read the twin first: names and order are the same here, and the comments there are not repeated. What differs:

* Handles are C structs. ``__class__`` answers asyncio's own class, so that ``isinstance`` holds.
* The loop's fields that the hot path reads (``_ready``, ``_closed`` ...) live in a C struct, ``State``. ``Field``
  descriptors on the loop class show them to all other code under their names.
* ``run_once`` polls the standard epoll selector with ``epoll_wait``, on the selector's descriptor and with its table of
  keys.
"""

import asyncio
import heapq
import inspect
import time
from os import strerror
from asyncio import futures, tasks
from collections import deque

cimport cython
from cpython.contextvars cimport PyContext_CheckExact, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.dict cimport PyDict_GetItem, PyDict_GetItemWithError
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE, PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.errno cimport EBADF, EINTR, errno
from libc.math cimport ceil
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from obsloop.metrics import counters as _cells
from obsloop.base import clock as _clock
from obsloop.hotpath import cold_path as _cold
from obsloop.metrics import coroutine_times as _coroutines
from obsloop.hotpath import creation_samples as _created
from obsloop.hotpath import marks as _marks
from obsloop.introspect import attributes as _peek
from obsloop.hotpath import observer as _slow
from obsloop.metrics.counters import Raw
from obsloop.metrics.buckets import COUNTS, SECONDS
from obsloop.base.asyncio_private import private_base_events, private_selector_events
from obsloop.introspect.coroutines import is_task

cdef extern from "native.h":
    int OBSLOOP_EPOLL
    int OBSLOOP_CLOCK
    int64_t obsloop_now() nogil
    int obsloop_msb(uint64_t v) nogil
    ctypedef union epoll_data:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data data
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout) nogil

# What the watchdog reads and writes without the GIL; the loop's thread goes on meanwhile.
cdef extern from "native.h":
    int OBSLOOP_LOOKS
    int64_t obsloop_load(const int64_t *p) nogil
    int obsloop_load_int(const int *p) nogil
    void obsloop_store(int64_t *p, int64_t v) nogil
    void obsloop_fence() nogil
    int64_t obsloop_cpu_time(int64_t native_id) nogil
    int64_t obsloop_switches() nogil

cdef extern from "pythread.h":
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil

cdef extern from "Python.h":
    bint PyMethod_Check(object o)
    PyObject *method_function "PyMethod_GET_FUNCTION"(object o)
    ctypedef PyObject *(*PyCFunction)(PyObject *, PyObject *)
    bint PyCFunction_CheckExact(object o)
    PyCFunction cfunction_of "PyCFunction_GET_FUNCTION"(object o)
    PyObject *PyObject_CallNoArgs(PyObject *callable)
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject **args, size_t nargs, PyObject *kwnames)
    PyObject **PySequence_Fast_ITEMS(PyObject *tuple)

cdef class State
cdef class Tally
cdef class Turn

include "clock.pxi"
include "buckets.pxi"
include "counters.pxi"
include "wakeup.pxi"
include "handles.pxi"
include "loop_state.pxi"
include "scheduling.pxi"
include "task_table.pxi"
include "task_steps.pxi"
include "create_task.pxi"
include "iteration.pxi"
include "socket_io.pxi"

METHODS = {
    "call_soon": call_soon,
    "call_soon_threadsafe": call_soon_threadsafe,
    "call_later": call_later,
    "call_at": call_at,
    "create_future": create_future,
    "create_task": create_task,
    "get_debug": get_debug,
    "time": TIME,
    "_run_once": run_once,
    "_add_reader": add_reader,
    "_add_writer": add_writer,
    **{name: Field(i) for i, name in enumerate(FIELD_NAMES)},
}
"""What a loop class takes from the core."""

# What the files of the compiled core share: C functions, constants, structs, and the fields and C methods of classes.
# `core.pyx` has all of it without a cimport. The functions of "native.h" have their comments there.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport PyContext_CheckExact, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.dict cimport PyDict_GetItem, PyDict_GetItemWithError
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE, PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.errno cimport EBADF, EINTR, errno
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

cdef extern from "pythread.h":
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "Python.h":
    bint PyMethod_Check(object o)
    PyObject *method_function "PyMethod_GET_FUNCTION"(object o)
    ctypedef PyObject *(*PyCFunction)(PyObject *, PyObject *)
    bint PyCFunction_CheckExact(object o)
    PyCFunction cfunction_of "PyCFunction_GET_FUNCTION"(object o)
    PyObject *PyObject_CallNoArgs(PyObject *callable)
    PyObject *PyObject_Vectorcall(PyObject *callable, PyObject **args, size_t nargs, PyObject *kwnames)
    PyObject **PySequence_Fast_ITEMS(PyObject *tuple)
    void *PyLong_AsVoidPtr(object o) except? NULL
    PyObject *cfunction_self "PyCFunction_GET_SELF"(object o)
    PyObject *method_self "PyMethod_GET_SELF"(object o)
    long long PyLong_AsLongLongAndOverflow(object o, int *overflow) except? -1

cdef class State
cdef class TaskTable
cdef class Turn

# ---- clock.pxi -------------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    int OBSLOOP_CLOCK
    int64_t obsloop_now() nogil
    unsigned int class_tag "obsloop_class_tag"(object obj)
    bint unchanged "obsloop_unchanged"(object a, object b)
    void note_unchanged "obsloop_note_unchanged"(object a, object b)
    int watch_changes "obsloop_watch"(object a, object b) except -1

# ---- buckets.pxi -----------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    int obsloop_msb(uint64_t v) nogil

cdef enum:
    MAX_BOUNDS = 256
    SUB_BITS = 3

cdef struct Line:
    int size                        # number of bounds
    int64_t bounds[MAX_BOUNDS]
    short first[64 << SUB_BITS]     # by leading bits: the first bucket that a value with these bits can be in

# ---- counters.pxi ----------------------------------------------------------------------------------------------------

cdef enum:
    STATES = 6
    MAX_IO = 8
    MAX_BLOCKS = 32
    CARRY_BITS = 62

cdef struct Look:
    int64_t at_ns, began_ns, tick_ns, idle_ns, gc_ns, cpu_ns

# The watchdog's last two measurements of a run without the GIL. One writer; `writing` is odd while it writes.
cdef struct Looks:
    int64_t writing
    int64_t run_ns                  # when the measured run began
    int64_t native_id               # of the measured thread
    int n
    Look newer
    Look older

cdef class Counters:
    cdef public int64_t notable_ns, slow_ns, slow_iteration_ns, slow_task_ns
    cdef public int64_t waits
    cdef public object flows
    # The table of metrics/counters.py begins. `make fields` writes it.
    cdef public int64_t tick_ns
    cdef public int64_t state
    cdef public int64_t run_started_ns
    cdef public int64_t began_ns
    cdef public int64_t run_ns
    cdef public int64_t idle_ns
    cdef public int64_t nested_ns
    cdef public int64_t gc_started_ns
    cdef public int64_t events
    cdef public int64_t events_waiting
    cdef public int64_t tasks_created
    cdef int64_t durations[1449]
    cdef int64_t delays[1449]
    cdef int64_t task_durations[161]
    cdef int64_t poll[161]
    cdef int64_t iteration[161]
    cdef int64_t iteration_ns[161]
    cdef int64_t depth[94]
    cdef int64_t gc_ns[6]
    cdef int64_t io_bytes[8]
    cdef int64_t tasks_finished[4]
    # The table ends.
    cdef int64_t *coroutines        # nanoseconds and steps of each, by its number
    cdef uint32_t n_coroutines
    cdef int64_t carries[MAX_BLOCKS]
    cdef Looks *seen                # a pointer, since another thread writes there and would take the loop's cache lines

    cdef inline void count_waits(self, int64_t *block, int64_t value) noexcept
    cdef inline void count_iteration(self, int64_t spent_ns) noexcept
    cdef list blocks_as_list(self, int64_t *blocks, int n)
    cdef inline int count_step(self, uint32_t coroutine, int64_t spent_ns) except -1
    cdef int know(self, uint32_t coroutine) except -1
    cdef dict coroutine_times(self)

# ---- wakeup.pxi ------------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    int OBSLOOP_LOOKS
    int64_t obsloop_load(const int64_t *p) nogil
    void obsloop_store(int64_t *p, int64_t v) nogil
    void obsloop_fence() nogil
    int64_t obsloop_cpu_time(int64_t native_id) nogil
    int64_t obsloop_switches() nogil

# Where the counters of one loop are, for samples without the GIL. `Wakeup.wait` keeps the counters alive meanwhile.
cdef struct Watched:
    int64_t *tick_ns
    int64_t *began_ns
    int64_t *idle_ns
    int64_t *gc_started_ns
    int64_t *gc_ns
    int64_t *slow_ns
    int64_t *slow_iteration_ns
    int64_t *run_started_ns
    int64_t *state
    Looks *seen
    int64_t native_id
    int64_t first_tick_ns           # when the wait began

cdef class Wakeup:
    cdef PyThread_type_lock lock    # held until `notify` is called
    cdef int64_t min_threshold_ns, floor_ns, late_ns
    cdef public int64_t planned_ns, switches

    cdef bint wait_without_gil(self, Watched *many, int n, int64_t until_ns, int64_t asking_ns) noexcept nogil
    cdef bint sleep(self, int64_t until_ns, int64_t now) noexcept nogil
    cdef int64_t due(self, Watched *w, int64_t now) noexcept nogil
    cdef bint is_idle(self, Watched *w) noexcept nogil

# ---- handles.pxi -----------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    # A number that differs after each change of the class, if it is not 0.
    unsigned int version_of "obsloop_version_of"(object cls) nogil
    int leave_context "obsloop_leave_context"(object context, PyObject *result) except -1
    # A handle in the queue of a running loop is alive as the loop is, and needs no visits of the garbage collector for
    # cycles. So the core hides it. It shows the handle again when it leaves the queue but lives on, and when the
    # loop stops.
    void hide "obsloop_hide"(object handle)
    void show "obsloop_show"(object handle, Py_ssize_t ours)

cdef class Handle:
    cdef public object _callback, _args, _context, _loop, _repr, _source_traceback
    cdef public bint _cancelled
    cdef public int _kind
    cdef public int64_t _ready_ns
    cdef object __weakref__

cdef class ThreadSafeHandle(Handle):
    cdef unsigned long runner       # the thread in which the callback runs; 0 if it does not run
    cdef object waiting             # what other threads wait for; None if none waits

cdef class TimerHandle(Handle):
    cdef object when_
    cdef public bint _scheduled
    cdef double due

# ---- loop_state.pxi --------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    ctypedef union epoll_data:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data data

cdef class State:
    cdef object ready, scheduled, selector, clock_resolution
    cdef bint closed, debug, stopping, running
    cdef bint patched       # whether asyncio.Handle._run is another tool's
    cdef unsigned int patched_version   # the version of asyncio.Handle for which `patched` holds
    cdef long timer_cancelled_count
    cdef Turn turn          # the innermost call of run_once that has not returned; None if there is none
    cdef Turn spare         # the turn of the last call that has returned
    cdef unsigned int plain_tag     # the tag of the loop's class if its `time` is known to be asyncio's; 0: not known
    cdef unsigned int odd_tag       # the tag if its `time` is known to be another
    cdef bint has_time              # whether the program has set `loop.time`
    cdef object own_time            # what it has set it to
    cdef bint wakes_once            # whether calls from other threads share a wake-up
    cdef int woken                  # the process that has one on its way; 0 for none
    cdef TaskTable task_table
    cdef Counters counters        # while run_once runs: counts what is scheduled

    cdef Turn begin_turn(self)
    cdef int end_turn(self, Turn turn) except -1

cdef class Turn:
    cdef PyObject *current  # borrowed: run_once holds the handle while it is here
    cdef epoll_event *events
    cdef int capacity
    cdef bint over
    cdef Turn outer

    cdef int room(self, int n) except -1

cdef class Field:
    cdef int which

# ---- scheduling.pxi --------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    void learn_deque "obsloop_learn_deque"(object type)
    object queue_append "obsloop_append"(object queue, object item)
    object queue_popleft "obsloop_popleft"(object queue)

# ---- task_table.pxi --------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    ctypedef struct Record "obsloop_record":
        PyObject *task
        PyObject *measurement
        int64_t created_ns
        int64_t run_ns
        int64_t wait_ns
        uint64_t steps
        uint64_t coroutine
        uint64_t called

cdef class Measurement:
    cdef readonly int64_t run_ns, steps
    cdef int64_t low_wait_ns        # many of its tasks may wait at once: a second word, as in `Counters.count_waits`
    cdef int64_t wait_carries
    cdef readonly Measurement outer

cdef class TaskTable:
    cdef Record **chunks
    cdef uint32_t n_chunks, n_live, free
    cdef uint32_t *slots            # 1 + a record's number; 0 if empty
    cdef uint32_t mask              # slots - 1
    cdef Record *present            # of the task whose step runs
    cdef uint32_t next_coroutine    # the coroutine's number of the task that create_task is making
    cdef int64_t eager_ns           # when that began, if the task may run at once; else 0
    cdef Measurement eager_measurement          # the measurement which that task joins
    cdef PyObject *entered          # the task that asked for a measurement meanwhile, if it was not known
    cdef int64_t inner_ns           # how much of a step such tasks took
    cdef int64_t inner_at_ns        # when that step began
    cdef bint roll_call             # the last roll call: they are 0 and 1 in turn

    cdef int clear(self) except -1
    cdef inline uint32_t home(self, PyObject *task) noexcept
    cdef inline Record *at(self, uint32_t number) noexcept
    cdef inline Record *find(self, PyObject *task) noexcept
    cdef int grow(self) except -1
    cdef int more(self) except -1
    cdef Record *insert(self, PyObject *task, int64_t created_ns) except NULL
    cdef int remove(self, PyObject *task) except -1
    cdef int bury(self, Counters counters, PyObject *task) except -1
    cdef Record *admit(self, Counters counters, PyObject *task, int64_t created_ns) except NULL
    cdef PyObject *creators_group(self) except? NULL
    cdef inline int64_t inner(self, Counters counters) noexcept

# ---- task_steps.pxi --------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    PyObject *first_field "obsloop_first_field"(PyObject *step)
    PyObject *code_of "obsloop_code"(PyObject *coro)
    void learn_task "obsloop_learn_task"(object type)
    int is_done "obsloop_is_done"(object task) except -1
    int is_cancelled_task "obsloop_is_cancelled"(object task) except -1

cdef enum:
    OK, ERROR, CANCELLED, ABANDONED

# ---- iteration.pxi ---------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    int OBSLOOP_EPOLL
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout) nogil

# ---- socket_io.pxi ---------------------------------------------------------------------------------------------------

cdef extern from "native.h":
    int OBSLOOP_WIRE
    int descriptor_of "obsloop_descriptor_of"(object sock)
    char *new_buffer "obsloop_buffer"(size_t size)
    object recv_much "obsloop_recv_much"(int fd, Py_ssize_t room, Py_ssize_t *n, int *code)
    Py_ssize_t obsloop_recv(int fd, void *p, size_t n) nogil
    Py_ssize_t obsloop_send(int fd, const void *p, size_t n) nogil
    bint obsloop_would_block(int e) nogil
    Py_ssize_t obsloop_recvfrom(int fd, void *p, size_t n, PyObject **sender)
    object obsloop_owned(PyObject *new)
    Py_ssize_t obsloop_sendto(int fd, const void *p, size_t n, int family, object sock, object address) except? -2

cdef class TransportStats:
    cdef public Counters counters
    cdef public object loop, listener
    cdef public object network, role, reason, error_type
    cdef public int64_t read_bytes, written_bytes, paused_since_ns, paused_ns, opened_ns
    cdef public Py_ssize_t buffered, offered
    cdef public bint can_send_now
    cdef int at, fd
    cdef int family                 # of a datagram socket
    cdef object sock                # the program may close it, and its descriptor may become another socket's
    cdef object protocol_type       # of the last protocol that got data
    cdef bint buffered_protocol     # whether that protocol has its own buffer
    cdef bint much                  # whether the last read filled a lot of the buffer

    cdef inline void count_read(self, Py_ssize_t n) noexcept
    cdef inline void count_written(self, Py_ssize_t n) noexcept
    cdef inline bint is_open(self)

# ---- libuv_hooks.pxi -------------------------------------------------------------------------------------------------

ctypedef uint64_t (*idle_time_of)(void *loop) noexcept nogil

# What the hooks of one uvloop loop read and write: libuv's loop, and fields of its counters.
cdef struct LibuvRun:
    void *loop
    idle_time_of idle_time
    int64_t seen_idle_ns            # libuv's sum of all waits, after the last poll
    int64_t least_slow_ns           # after a longer iteration, the clock is read again
    PyObject *hooks
    int64_t *tick_ns
    int64_t *began_ns
    int64_t *idle_ns
    int64_t *waits
    int64_t *run_started_ns
    int64_t *slow_iteration_ns
    int64_t *iteration
    int64_t *iteration_ns
    int64_t *state

cdef class LibuvHooks:
    cdef Counters counters
    cdef object report
    cdef LibuvRun run

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=False
"""The compiled twin of ``_hot`` (and of ``_cells.Cells``): the same behaviour, in C.

Read ``_hot`` first: names and order are the same here, and the comments there are not repeated. What differs:

* Handles are C structs. ``__class__`` answers asyncio's own class, so that ``isinstance`` holds.
* The loop's fields that the hot path reads (``_ready``, ``_closed`` ...) live in a C struct, ``State``; ``Field``
  descriptors on the loop class show them to everybody else under their names.
* The standard epoll selector is asked by ``epoll_wait`` itself, on the selector's descriptor and with its table of keys.
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

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>

    #if defined(__linux__)
    #include <sys/epoll.h>
    #define OBSLOOP_EPOLL 1
    #define OBSLOOP_CLOCK 1
    static inline int64_t obsloop_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    #elif defined(__APPLE__)
    #define OBSLOOP_CLOCK 1
    static inline int64_t obsloop_now(void) { return (int64_t)clock_gettime_nsec_np(CLOCK_UPTIME_RAW); }
    #else
    #define OBSLOOP_CLOCK 0
    static inline int64_t obsloop_now(void) { return 0; }
    #endif

    #ifndef OBSLOOP_EPOLL
    #define OBSLOOP_EPOLL 0
    struct epoll_event { uint32_t events; union { int fd; } data; };
    static int epoll_wait(int epfd, struct epoll_event *e, int n, int t) { (void)epfd; (void)e; (void)n; (void)t; return -1; }
    #endif

    #if defined(_MSC_VER)
    #include <intrin.h>
    static inline int obsloop_msb(uint64_t v) { unsigned long i; _BitScanReverse64(&i, v); return (int)i; }
    #else
    static inline int obsloop_msb(uint64_t v) { return 63 - __builtin_clzll(v); }
    #endif
    """
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
cdef extern from *:
    """
    #if defined(__GNUC__) && UINTPTR_MAX > 0xffffffffu
    static inline int64_t obsloop_load(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline int obsloop_load_int(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void obsloop_store(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void obsloop_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    #else
    static inline int64_t obsloop_load(const int64_t *p) { return *(const volatile int64_t *)p; }
    static inline int obsloop_load_int(const int *p) { return *(const volatile int *)p; }
    static inline void obsloop_store(int64_t *p, int64_t v) { *(volatile int64_t *)p = v; }
    static inline void obsloop_fence(void) { }
    #endif

    #if defined(__linux__)
    #include <sys/resource.h>
    #define OBSLOOP_LOOKS 1
    /* What pthread_getcpuclockid() makes of a thread, by its kernel id; -1 when the thread is gone. */
    static inline int64_t obsloop_cpu_time(int64_t native_id) {
        struct timespec t;
        if (clock_gettime((clockid_t)((~(unsigned int)native_id << 3) | 6), &t) != 0) return -1;
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    /* How often this thread was taken off its CPU. */
    static inline int64_t obsloop_switches(void) {
        struct rusage used;
        if (getrusage(RUSAGE_THREAD, &used) != 0) return -1;
        return (int64_t)used.ru_nvcsw + used.ru_nivcsw;
    }
    #else
    #define OBSLOOP_LOOKS 0
    static inline int64_t obsloop_cpu_time(int64_t native_id) { (void)native_id; return -1; }
    static inline int64_t obsloop_switches(void) { return -1; }
    #endif
    """
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


# ---- clock -----------------------------------------------------------------------------------------------------------

cdef object clock_override = None if OBSLOOP_CLOCK else _clock.monotonic_ns
cdef object real_clock = _clock.monotonic_ns


cdef inline int64_t now_ns() except? -1:
    if clock_override is None:
        return obsloop_now()
    return clock_override()


def set_clock(clock):
    """Another clock for every loop of the process, for tests; the one of ``_clock`` for the real one."""
    global clock_override
    clock_override = None if OBSLOOP_CLOCK and (clock is real_clock or clock is time.monotonic_ns) else clock


# Only for the benchmark, which reports what the recording itself costs; never off in use.
cdef bint recording = True


def set_recording(bint on):
    """Whether callbacks are timed and counted."""
    global recording
    recording = on


cdef extern from *:
    """
    /* Changes with the class and with each of its bases; 0 where it is not known. */
    static inline unsigned int obsloop_class_tag(PyObject *obj) { return Py_TYPE(obj)->tp_version_tag; }
    /* Changes with the dictionary, and no two have the same (PEP 509); 0 where it is not known. */
    static inline uint64_t obsloop_dict_version(PyObject *dict) {
    #if PY_VERSION_HEX < 0x030C0000
        return ((PyDictObject *)dict)->ma_version_tag;
    #else
        (void)dict;
        return 0;
    #endif
    }
    """
    unsigned int class_tag "obsloop_class_tag"(object obj)
    uint64_t dict_version "obsloop_dict_version"(object obj)

cdef object STOCK_TIME = vars(private_base_events.BaseEventLoop).get("time")
# Where `BaseEventLoop.time` looks up what it calls.
cdef dict STOCK_GLOBALS = vars(private_base_events)
cdef dict TIME_GLOBALS = vars(time)
cdef object TIME_MODULE = time  # a slot: a global of the module would be looked up each time
# Not a built-in where obsloop is imported while the time is frozen: then asyncio's own method is called each time.
cdef object MONOTONIC = time.monotonic if type(time.monotonic) is type(len) else object()


# Of both dictionaries when they were last looked into, and the clock was the real one.
cdef uint64_t stock_version = 0
cdef uint64_t time_version = 0


cdef inline bint is_stock_clock() except -1:
    """Whether ``time.monotonic`` is the real one for asyncio, and no test has put another in its place."""
    if stock_version and dict_version(STOCK_GLOBALS) == stock_version and dict_version(TIME_GLOBALS) == time_version:
        return True
    return find_clock()


cdef bint find_clock() except -1:
    """The same, by looking."""
    global stock_version, time_version
    stock_version = time_version = 0
    if (
        PyDict_GetItemWithError(STOCK_GLOBALS, "time") != <PyObject *>TIME_MODULE
        or PyDict_GetItemWithError(TIME_GLOBALS, "monotonic") != <PyObject *>MONOTONIC
    ):
        return False
    stock_version = dict_version(STOCK_GLOBALS)
    time_version = dict_version(TIME_GLOBALS)
    return True


cdef inline double loop_time(State state, object loop) except? -1.0:
    """``loop.time()``, without a call where it is asyncio's own and reads the real clock."""
    if state.plain_tag and class_tag(loop) == state.plain_tag and clock_override is None and is_stock_clock():
        return obsloop_now() / 1e9
    if clock_override is None and is_plain_time(state, loop) and is_stock_clock():
        return obsloop_now() / 1e9
    return loop.time()


cdef bint is_plain_time(State state, object loop) except -1:
    """Whether ``loop.time`` is asyncio's method; found out again when the class, or one of its bases, has changed."""
    cdef unsigned int tag = class_tag(loop)
    if tag and tag == state.plain_tag:
        return True
    if tag and tag == state.odd_tag:
        return False
    state.plain_tag = state.odd_tag = 0
    cls = type(loop)
    getattr(cls, "time", None)  # a look-up, for the class to have a tag
    tag = class_tag(loop)
    plain = not state.has_time and _peek.find(cls, "time") is TIME and behind_time(cls) is STOCK_TIME
    if plain:
        state.plain_tag = tag
    else:
        state.odd_tag = tag
    return plain


cdef object behind_time(cls):
    """What ``time`` would be without ours."""
    passed = False
    for base in _peek.mro_of(cls):
        found = _peek.vars_of(base).get("time")
        if found is TIME:
            passed = True
        elif passed and found is not None:
            return found
    return None


cdef class Time:
    """``loop.time`` on the class: a built-in, called without a frame of Python, where asyncio's would say the same.

    Where a test has replaced ``time.monotonic`` or ``BaseEventLoop.time``, asyncio's own method. What is assigned to
    ``loop.time`` is kept in the loop's ``State``, where the hot path sees it.
    """

    def __get__(self, loop, owner):
        if loop is None:
            return self
        cdef State state = state_of(loop)
        if state is not None:
            if state.has_time:
                return state.own_time
            if is_plain_time(state, loop) and is_stock_clock():
                return MONOTONIC
        found = behind_time(type(loop))
        bind = getattr(type(found), "__get__", None)
        return found if bind is None else bind(found, loop, type(loop))

    def __set__(self, loop, value):
        cdef State state = own_state(loop)
        state.has_time = True
        state.own_time = value
        state.plain_tag = state.odd_tag = 0

    def __delete__(self, loop):
        cdef State state = own_state(loop)
        if not state.has_time:
            raise AttributeError("time")
        state.has_time = False
        state.own_time = None
        state.plain_tag = state.odd_tag = 0

    def __call__(self, loop):
        return loop.time()


cdef Time TIME = Time()


# ---- buckets ---------------------------------------------------------------------------------------------------------

cdef enum:
    MAX_BOUNDS = 256
    SUB_BITS = 3

cdef struct Line:
    int size                        # number of bounds
    int64_t bounds[MAX_BOUNDS]
    short first[64 << SUB_BITS]     # by leading bits: the first bucket that a value with these bits can be in

cdef Line seconds_line
cdef Line counts_line


cdef int fill_line(Line *line, partition) except -1:
    bounds = partition.bounds
    if len(bounds) > MAX_BOUNDS:
        raise ImportError(f"the compiled core was built for {MAX_BOUNDS} bounds, there are {len(bounds)}")
    line.size = len(bounds)
    for i, bound in enumerate(bounds):
        line.bounds[i] = bound
    for msb in range(63):
        for sub in range(1 << SUB_BITS):
            low = (((1 << SUB_BITS) + sub) << msb) >> SUB_BITS
            line.first[(msb << SUB_BITS) + sub] = partition.index(low)
    return 0


fill_line(&seconds_line, SECONDS)
fill_line(&counts_line, COUNTS)


cdef inline int bucket(Line *line, int64_t value) noexcept nogil:
    """Which cell of a block counts ``value``; cell 0 is the sum."""
    cdef int msb, i
    if value <= line.bounds[0]:
        return 1
    msb = obsloop_msb(<uint64_t>value)
    if msb >= SUB_BITS:
        i = line.first[(msb << SUB_BITS) + ((value >> (msb - SUB_BITS)) & ((1 << SUB_BITS) - 1))]
    else:
        i = line.first[(msb << SUB_BITS) + ((value << (SUB_BITS - msb)) & ((1 << SUB_BITS) - 1))]
    while i < line.size and value > line.bounds[i]:
        i += 1
    return i + 1


cdef inline void count(int64_t *block, Line *line, int64_t value) noexcept nogil:
    """One more value. For sums that grow no faster than time passes: 63 bits hold 292 years."""
    block[0] += value
    block[bucket(line, value)] += 1


# ---- counters --------------------------------------------------------------------------------------------------------

cdef enum:
    STATES = 6
    MAX_IO = 8
    MAX_FINISHES = 4
    MAX_BLOCKS = 32
    CARRY_BITS = 62

cdef int STRIDE = _cells.STRIDE
cdef int KINDS = len(_cells.KIND_OF_BLOCK)
cdef int DEPTH = COUNTS.size + 1
cdef int FIRST_STEP = _cells.FIRST_STEP
cdef int TASK_STEP = _cells.TASK_STEP
cdef int CALLBACK = _cells.CALLBACK
cdef int TIMER = _cells.TIMER
cdef int READER = _cells.READER
cdef int WRITER = _cells.WRITER
cdef int THREADSAFE = _cells.THREADSAFE
cdef int STOPPED = _cells.STOPPED
cdef int IN_IDLE = _cells.IN_IDLE
cdef int IN_POLL = _cells.IN_POLL
cdef int IN_OVERHEAD = _cells.IN_OVERHEAD
cdef int IN_CALLBACK = _cells.IN_CALLBACK
cdef int FORKED = _cells.FORKED
cdef int64_t NEVER_NS = _cells.NEVER_NS
cdef int64_t MIN_NOTABLE_NS = _cells.MIN_NOTABLE_NS

if FORKED + 1 != STATES:
    raise ImportError("the compiled core was built for another list of states")
if 2 * len(_cells.NETWORKS) != MAX_IO:
    raise ImportError("the compiled core was built for another list of networks")
if len(_cells.FINISHES) != MAX_FINISHES:
    raise ImportError("the compiled core was built for another list of outcomes")
if 2 * KINDS + 3 > MAX_BLOCKS:
    raise ImportError("the compiled core was built for fewer kinds")


cdef list as_list(int64_t *values, int n):
    return [values[i] for i in range(n)]


cdef struct Look:
    int64_t at_ns, began_ns, tick_ns, idle_ns, gc_ns, cpu_ns

# The last two measurements that the watchdog made of a run without the GIL. One writer; `writing` is odd while it is
# at it.
cdef struct Looks:
    int64_t writing
    int64_t run_ns                  # when the run that they are of began
    int64_t native_id               # of the thread that they are of
    int n
    Look newer
    Look older


cdef class Cells:
    """See ``_cells.Cells``."""

    cdef int64_t *durations
    cdef int64_t *delays
    cdef int64_t *poll
    cdef int64_t *iteration
    cdef int64_t *depth
    cdef public int64_t idle_ns, run_ns, run_started_ns, tick_ns, began_ns, nested_ns, gc_started_ns
    cdef public int64_t notable_ns, slow_ns, slow_iteration_ns
    cdef int64_t gc_ns[STATES]
    cdef public int64_t events, events_waiting, waits
    cdef public int state
    cdef int64_t io_bytes[MAX_IO]
    cdef public object flows
    cdef public int64_t tasks_created, slow_task_ns
    cdef int64_t tasks_finished[MAX_FINISHES]
    cdef int64_t *task_durations
    cdef int64_t *coroutines        # nanoseconds and steps of each, by its number
    cdef uint32_t n_coroutines
    cdef int64_t carries[MAX_BLOCKS]
    cdef Looks *seen                # not here: another thread writes it, and would take the loop's cache lines

    def __cinit__(self):
        self.seen = <Looks *>calloc(1, sizeof(Looks))
        if self.seen is NULL:
            raise MemoryError
        self.durations = <int64_t *>calloc(self.total(), sizeof(int64_t))
        if self.durations is NULL:
            raise MemoryError
        self.delays = self.durations + STRIDE * KINDS
        self.poll = self.delays + STRIDE * KINDS
        self.iteration = self.poll + STRIDE
        self.task_durations = self.iteration + STRIDE
        self.depth = self.task_durations + STRIDE
        self.state = STOPPED
        self.flows = _cells.Flows()
        self.notable_ns = self.slow_ns = self.slow_iteration_ns = self.slow_task_ns = NEVER_NS

    cdef int total(self):
        return STRIDE * KINDS * 2 + STRIDE * 3 + DEPTH

    cdef inline void count_waits(self, int64_t *block, int64_t value) noexcept:
        """One more value, of a kind of which many go on at once: 10,000 live tasks add 10,000 s to the sum each second.

        That fills 63 bits in 10.7 days, so such a sum has a second word.
        """
        count(block, &seconds_line, value)
        if block[0] >> CARRY_BITS:
            block[0] -= <int64_t>1 << CARRY_BITS
            self.carries[(block - self.durations) // STRIDE] += 1

    cdef list blocks_as_list(self, int64_t *blocks, int n):
        """``n`` blocks with their sums in full."""
        cdef list found = as_list(blocks, STRIDE * n)
        cdef int i
        cdef Py_ssize_t first = (blocks - self.durations) // STRIDE
        for i in range(n):
            if self.carries[first + i]:
                found[STRIDE * i] += <object>self.carries[first + i] << CARRY_BITS
        return found

    def __dealloc__(self):
        free(self.durations)
        free(self.seen)
        free(self.coroutines)

    cdef inline int count_step(self, uint32_t coroutine, int64_t spent_ns) except -1:
        if coroutine >= self.n_coroutines:
            self.know(coroutine)
        self.coroutines[2 * coroutine] += spent_ns
        self.coroutines[2 * coroutine + 1] += 1
        return 0

    cdef int know(self, uint32_t coroutine) except -1:
        """Make room for the counters of this one, and some."""
        cdef uint32_t n = max(64, coroutine + coroutine // 2 + 1)
        cdef int64_t *more = <int64_t *>realloc(self.coroutines, 2 * n * sizeof(int64_t))
        if more is NULL:
            raise MemoryError
        memset(more + 2 * self.n_coroutines, 0, 2 * (n - self.n_coroutines) * sizeof(int64_t))
        self.coroutines = more
        self.n_coroutines = n
        return 0

    def finished(self, int outcome, duration_ns):
        self.tasks_finished[outcome] += 1
        if duration_ns is not None:
            self.count_waits(self.task_durations, max(0, <int64_t>duration_ns))

    def set_thresholds(self, int64_t slow_ns, int64_t slow_iteration_ns):
        self.slow_ns = slow_ns
        self.slow_iteration_ns = slow_iteration_ns
        self.notable_ns = min(slow_ns, max(slow_iteration_ns // 100, MIN_NOTABLE_NS))

    def collecting_ns(self):
        cdef int64_t total = now_ns() - self.gc_started_ns if self.gc_started_ns else 0
        cdef int i
        for i in range(STATES):
            total += self.gc_ns[i]
        return total

    def begin_run(self, int64_t now):
        self.run_started_ns = now
        self.began_ns = 0
        self.state = IN_OVERHEAD
        self.tick_ns = now

    def end_run(self, int64_t now):
        if self.state == IN_IDLE:
            self.idle_ns += now - self.tick_ns
        elif self.state == IN_POLL:
            count(self.poll, &seconds_line, now - self.tick_ns)
        self.run_ns += now - self.run_started_ns
        self.run_started_ns = 0
        self.state = STOPPED
        self.tick_ns = now

    def record(self, int kind, int64_t ready_ns, int64_t end_ns):
        cdef int64_t start_ns = self.tick_ns
        count(self.durations + kind, &seconds_line, end_ns - start_ns)
        self.count_waits(self.delays + kind, max(0, start_ns - ready_ns))
        self.tick_ns = end_ns

    def collection_began(self, int64_t now):
        self.gc_started_ns = now

    def collection_ended(self, int64_t now):
        self.gc_ns[self.state] += now - self.gc_started_ns
        self.gc_started_ns = 0

    def record_iteration(self, int64_t spent_ns):
        count(self.iteration, &seconds_line, spent_ns)

    def forked(self):
        running = self.run_started_ns
        memset(self.durations, 0, self.total() * sizeof(int64_t))
        memset(self.carries, 0, sizeof(self.carries))
        memset(self.gc_ns, 0, sizeof(self.gc_ns))
        memset(self.io_bytes, 0, sizeof(self.io_bytes))
        memset(self.tasks_finished, 0, sizeof(self.tasks_finished))
        if self.n_coroutines:
            memset(self.coroutines, 0, 2 * self.n_coroutines * sizeof(int64_t))
        self.tasks_created = 0
        self.idle_ns = self.run_ns = self.nested_ns = self.events = self.events_waiting = self.gc_started_ns = 0
        self.run_started_ns = self.tick_ns if running else 0
        self.state = FORKED if running else STOPPED
        memset(self.seen, 0, sizeof(Looks))
        self.flows.forked()

    def looks(self):
        cdef Looks found
        cdef int64_t before
        cdef int tries
        for tries in range(16):
            before = obsloop_load(&self.seen.writing)
            found = self.seen[0]
            obsloop_fence()
            if before & 1 == 0 and obsloop_load(&self.seen.writing) == before:
                break
        else:
            return None
        if not found.n or found.run_ns != self.run_started_ns:
            return None
        newer = as_tuple(&found.newer)
        return found.native_id, ([newer] if found.n == 1 else [as_tuple(&found.older), newer])

    def copy(self):
        return Raw(
            self.tick_ns, self.state, self.run_started_ns, self.run_ns, self.idle_ns,
            self.nested_ns, self.gc_started_ns, as_list(self.gc_ns, STATES), self.events, self.events_waiting,
            as_list(self.durations, STRIDE * KINDS), self.blocks_as_list(self.delays, KINDS),
            as_list(self.poll, STRIDE), as_list(self.iteration, STRIDE), as_list(self.depth, DEPTH),
            as_list(self.io_bytes, MAX_IO), self.tasks_created, as_list(self.tasks_finished, MAX_FINISHES),
            self.blocks_as_list(self.task_durations, 1), self.coroutine_times(),
        )

    cdef dict coroutine_times(self):
        cdef uint32_t i
        return {
            i: (self.coroutines[2 * i], self.coroutines[2 * i + 1])
            for i in range(self.n_coroutines) if self.coroutines[2 * i + 1]
        }


cdef tuple as_tuple(Look *look):
    return look.at_ns, look.began_ns, look.tick_ns, look.idle_ns, look.gc_ns, look.cpu_ns


# ---- wakeup ----------------------------------------------------------------------------------------------------------

cdef int64_t FOREVER_NS = 1 << 60
cdef int64_t AT_ONCE_NS = 100_000   # what took longer to read is not of one moment

# Where the cells of one loop are, for a look without the GIL; whoever has it keeps the cells alive.
cdef struct Watched:
    int64_t *tick_ns
    int64_t *began_ns
    int64_t *idle_ns
    int64_t *gc_started_ns
    int64_t *gc_ns
    int64_t *slow_ns
    int64_t *slow_iteration_ns
    int64_t *run_started_ns
    int *state
    Looks *seen
    int64_t native_id
    int64_t first_tick_ns           # when the wait began


cdef void look_at(Watched *w) noexcept nogil:
    """Measure the loop's thread, unless nothing would be gained by it: what ``usage.look`` does.

    The loop moves on meanwhile: what is not of one moment is left to the next look.
    """
    cdef Looks *seen = w.seen
    cdef Look look
    cdef int64_t run_ns, tick_ns, began_ns, gc_started_ns, before_ns
    cdef int state, i, tries
    cdef bint same
    for tries in range(3):
        before_ns = obsloop_now()
        run_ns = obsloop_load(w.run_started_ns)
        tick_ns = obsloop_load(w.tick_ns)
        state = obsloop_load_int(w.state)
        began_ns = obsloop_load(w.began_ns)
        gc_started_ns = obsloop_load(w.gc_started_ns)
        look.idle_ns = obsloop_load(w.idle_ns)
        look.gc_ns = 0
        for i in range(STATES):
            look.gc_ns += obsloop_load(&w.gc_ns[i])
        if (
            obsloop_load(w.gc_started_ns) != gc_started_ns
            or obsloop_load_int(w.state) != state
            or obsloop_load(w.tick_ns) != tick_ns
            or obsloop_load(w.run_started_ns) != run_ns
        ):
            continue
        if not run_ns or state == STOPPED or state == FORKED:
            return
        same = seen.n and seen.run_ns == run_ns and seen.native_id == w.native_id
        if same and seen.newer.tick_ns == tick_ns:
            return
        if same and seen.newer.began_ns == began_ns and state != IN_IDLE and state != IN_POLL:
            return
        look.at_ns = obsloop_now()
        look.cpu_ns = obsloop_cpu_time(w.native_id)
        if look.cpu_ns < 0:
            return
        if obsloop_now() - before_ns > AT_ONCE_NS:
            continue
        if state == IN_IDLE:
            look.idle_ns += max(0, look.at_ns - tick_ns)
        if gc_started_ns:
            look.gc_ns += max(0, look.at_ns - gc_started_ns)
        # As they are by now: an iteration that has begun meanwhile counts as looked at.
        look.began_ns = obsloop_load(w.began_ns)
        look.tick_ns = obsloop_load(w.tick_ns)
        if obsloop_load(w.run_started_ns) != run_ns:
            return
        obsloop_store(&seen.writing, seen.writing + 1)
        obsloop_fence()
        if same:
            seen.older = seen.newer
        seen.n = 2 if same else 1
        seen.newer = look
        seen.run_ns = run_ns
        seen.native_id = w.native_id
        obsloop_fence()
        obsloop_store(&seen.writing, seen.writing + 1)
        return


cdef class Bell:
    """See ``watchdog.Bell``. Here healthy loops are looked at while it waits, without the GIL."""

    looks = bool(OBSLOOP_LOOKS)

    cdef PyThread_type_lock lock    # held while there is nothing to tell
    cdef int64_t min_threshold_ns, floor_ns, late_ns
    cdef public int64_t planned_ns, switches

    def __cinit__(self, int64_t min_threshold_ns, int64_t floor_ns, int64_t late_ns):
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError
        PyThread_acquire_lock(self.lock, 1)
        self.min_threshold_ns = min_threshold_ns
        self.floor_ns = floor_ns
        self.late_ns = late_ns
        self.switches = -1

    def __dealloc__(self):
        if self.lock is not NULL:
            PyThread_free_lock(self.lock)

    def ring(self):
        # Under the GIL: nobody else rings between the two.
        PyThread_acquire_lock(self.lock, 0)
        PyThread_release_lock(self.lock)

    def wait(self, list watched, int64_t until_ns, int64_t asking_ns):
        cdef Watched *many = NULL
        cdef Cells cells
        cdef int n = 0
        cdef bint rung
        if clock_override is not None or not OBSLOOP_LOOKS:
            watched = []
        if not OBSLOOP_CLOCK:
            until_ns -= time.monotonic_ns()
        kept = tuple(watched)  # whatever happens to the list: the cells stay
        if kept:
            many = <Watched *>calloc(len(kept), sizeof(Watched))
            if many is NULL:
                raise MemoryError
        try:
            for cells, native_id in kept:
                many[n].tick_ns = &cells.tick_ns
                many[n].began_ns = &cells.began_ns
                many[n].idle_ns = &cells.idle_ns
                many[n].gc_started_ns = &cells.gc_started_ns
                many[n].gc_ns = cells.gc_ns
                many[n].slow_ns = &cells.slow_ns
                many[n].slow_iteration_ns = &cells.slow_iteration_ns
                many[n].run_started_ns = &cells.run_started_ns
                many[n].state = &cells.state
                many[n].seen = cells.seen
                many[n].native_id = native_id
                many[n].first_tick_ns = cells.tick_ns
                n += 1
            with nogil:
                rung = self.wait_without_gil(many, n, until_ns, asking_ns)
        finally:
            free(many)
        return rung

    cdef bint wait_without_gil(self, Watched *many, int n, int64_t until_ns, int64_t asking_ns) noexcept nogil:
        cdef int64_t now, due_ns, next_ns
        cdef bint slept = False
        cdef int i
        while True:
            now = obsloop_now()
            # Where it woke late, Python wants to know what it did meanwhile.
            if slept and (not n or now >= until_ns or now - self.planned_ns >= self.late_ns):
                return False
            next_ns = until_ns
            for i in range(n):
                due_ns = self.due(&many[i], now)
                if due_ns <= now:
                    if slept:
                        return False
                else:
                    if slept and now >= asking_ns and self.is_idle(&many[i]):
                        return False
                    look_at(&many[i])
                next_ns = min(next_ns, due_ns)
            next_ns = max(next_ns, now + self.floor_ns)
            self.switches = obsloop_switches()
            obsloop_store(&self.planned_ns, next_ns)
            if self.sleep(next_ns, now):
                # It is time for the GIL now.
                self.switches = obsloop_switches()
                obsloop_store(&self.planned_ns, obsloop_now())
                return True
            slept = True

    cdef bint sleep(self, int64_t until_ns, int64_t now) noexcept nogil:
        cdef long long microseconds = -1
        if until_ns < FOREVER_NS:
            microseconds = max(0, until_ns - now + 999) // 1000
        return PyThread_acquire_lock_timed(self.lock, microseconds, 0) == 1

    cdef int64_t due(self, Watched *w, int64_t now) noexcept nogil:
        cdef int64_t slow_ns = max(obsloop_load(w.slow_ns), self.min_threshold_ns)
        cdef int64_t slow_iteration_ns = max(obsloop_load(w.slow_iteration_ns), self.min_threshold_ns)
        cdef int64_t due_ns = now + min(slow_ns, slow_iteration_ns)
        cdef int64_t began_ns = obsloop_load(w.began_ns)
        cdef int64_t tick_ns = obsloop_load(w.tick_ns)
        cdef int state = obsloop_load_int(w.state)
        if (state == IN_OVERHEAD or state == IN_CALLBACK) and began_ns:
            due_ns = min(due_ns, began_ns + slow_iteration_ns)
            if state == IN_CALLBACK:
                due_ns = min(due_ns, tick_ns + slow_ns)
        return due_ns

    cdef bint is_idle(self, Watched *w) noexcept nogil:
        return obsloop_load_int(w.state) == IN_IDLE and obsloop_load(w.tick_ns) != w.first_tick_ns


# ---- handles ---------------------------------------------------------------------------------------------------------

cdef object BaseHandle = asyncio.Handle
cdef object BaseTimerHandle = asyncio.TimerHandle


@cython.freelist(1024)
cdef class Handle:
    """``asyncio.Handle`` with its kind and, in monotonic nanoseconds, the moment it became ready."""

    cdef public object _callback, _args, _context, _loop, _repr, _source_traceback
    cdef public bint _cancelled
    cdef public int _kind
    cdef public int64_t _ready_ns
    cdef object __weakref__

    def __init__(self, callback, args, loop, context=None):
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = PyContext_CopyCurrent() if context is None else context

    @property
    def __class__(self):
        return BaseHandle

    def _repr_info(self):
        return BaseHandle._repr_info(self)

    def __repr__(self):
        return self._repr if self._repr is not None else "<{}>".format(" ".join(self._repr_info()))

    def cancel(self):
        if not self._cancelled:
            self._cancelled = True
            if self._loop.get_debug():
                self._repr = repr(self)
            self._callback = None
            self._args = None

    def cancelled(self):
        return self._cancelled

    def get_context(self):
        return self._context

    def _run(self):
        run_handle(self)


cdef class TimerHandle(Handle):
    """``asyncio.TimerHandle`` with the moment it became ready; before that, the earliest moment it could."""

    cdef object when_
    cdef public bint _scheduled
    cdef double due

    def __init__(self, when, callback, args, loop, context=None):
        Handle.__init__(self, callback, args, loop, context)
        self._kind = TIMER
        self._when = when

    @property
    def _when(self):
        return self.when_

    @_when.setter
    def _when(self, when):
        self.due = when
        self.when_ = when

    @property
    def __class__(self):
        return BaseTimerHandle

    def _repr_info(self):
        info = BaseHandle._repr_info(self)
        info.insert(2 if self._cancelled else 1, f"when={self._when}")
        return info

    def __hash__(self):
        return hash(self._when)

    def __richcmp__(self, other, int op):
        cdef TimerHandle a, b
        if op == Py_LT and type(other) is TimerHandle:
            a = self
            b = other
            return a.due < b.due
        if not isinstance(other, BaseTimerHandle):
            return NotImplemented
        if op == Py_LT:
            return self._when < other._when
        if op == Py_GT:
            return self._when > other._when
        same = (
            self._when == other._when and self._callback == other._callback
            and self._args == other._args and self._cancelled == other._cancelled
        )
        if op == Py_EQ:
            return same
        if op == Py_NE:
            return not same
        if op == Py_LE:
            return self._when < other._when or same
        return self._when > other._when or same

    def when(self):
        return self._when

    def cancel(self):
        cdef State state
        if not self._cancelled and self._scheduled:
            state = state_of(self._loop)
            if state is None:
                self._loop._timer_handle_cancelled(self)
            else:
                state.timer_cancelled_count += 1
        Handle.cancel(self)


cdef object ThreadSafeHandle = None if _cold.LockedHandle is None else type(
    "ThreadSafeHandle", (_cold.LockedHandle,), {"__slots__": ("_kind", "_ready_ns"), "__module__": __name__}
)

_marks.own_handles.update(cls for cls in (Handle, TimerHandle, ThreadSafeHandle) if cls is not None)

cdef object STEP = _cold.STEP
cdef object FUNCTION = type(lambda: None)
cdef object BUILTIN = type(len)  # a C task's wake-up: not its first step
cdef object PY_STEP = _cold.PY_STEPS[0]
cdef object PY_WAKEUP = _cold.PY_STEPS[1]
cdef object report = _cold.report


cdef inline int kind_of(object callback) except -1:
    """``TASK_STEP`` for a task's step or wake-up, C or Python, else ``CALLBACK``: see ``_cold.kind_of``."""
    global wakeup
    cdef PyObject *function
    if type(callback) is STEP:
        return TASK_STEP
    if type(callback) is FUNCTION:
        return CALLBACK
    if PyCFunction_CheckExact(callback):
        if wakeup is NULL:
            if _cold.kind_of(callback) != TASK_STEP:
                return CALLBACK
            wakeup = cfunction_of(callback)
        return TASK_STEP if cfunction_of(callback) == wakeup else CALLBACK
    if PyMethod_Check(callback):
        function = method_function(callback)
        if function == <PyObject *>PY_STEP or function == <PyObject *>PY_WAKEUP:
            return TASK_STEP
    return CALLBACK


# The C function behind a C task's wake-up; known from the first one on.
cdef PyCFunction wakeup = NULL


cdef Handle new_handle(loop, callback, args, context, int kind):
    cdef Handle handle = Handle.__new__(Handle)
    handle._callback = callback
    handle._args = args
    handle._loop = loop
    handle._context = PyContext_CopyCurrent() if context is None else context
    handle._kind = kind
    return handle


cdef inline int call(Handle handle) except -1:
    """The callback, in its context."""
    # Held here: the callback may cancel its own handle.
    callback = handle._callback
    args = handle._args
    context = handle._context
    cdef PyObject *result
    if not PyContext_CheckExact(context):
        context.run(callback, *args)
        return 0
    if not PyTuple_CheckExact(args):
        args = tuple(args)
    PyContext_Enter(context)
    if PyTuple_GET_SIZE(args) == 0:
        result = PyObject_CallNoArgs(<PyObject *>callback)
    else:
        result = PyObject_Vectorcall(
            <PyObject *>callback, PySequence_Fast_ITEMS(<PyObject *>args), PyTuple_GET_SIZE(args), NULL
        )
    return leave_context(context, result)


cdef extern from *:
    """
    static int obsloop_leave_context(PyObject *context, PyObject *result) {
        if (PyContext_Exit(context) < 0 || result == NULL) {
            Py_XDECREF(result);
            return -1;
        }
        Py_DECREF(result);
        return 0;
    }
    """
    int leave_context "obsloop_leave_context"(object context, PyObject *result) except -1


cdef int run_handle(Handle handle) except -1:
    """``Handle._run``."""
    try:
        call(handle)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        report(handle._loop, handle, exc)
    return 0


# A handle that waits in the queue of a running loop needs no visits of the cyclic garbage collector: the loop is alive,
# and so is the handle. It is hidden then, and shown again where it leaves the queue but lives on, or the loop stops.

cdef extern from *:
    """
    static inline void obsloop_hide(PyObject *handle) { PyObject_GC_UnTrack(handle); }
    static inline void obsloop_show(PyObject *handle, Py_ssize_t ours) {
        if (Py_REFCNT(handle) > ours && !PyObject_GC_IsTracked(handle)) PyObject_GC_Track(handle);
    }
    """
    void hide "obsloop_hide"(object handle)
    void show "obsloop_show"(object handle, Py_ssize_t ours)


# ---- loop state ------------------------------------------------------------------------------------------------------

cdef class State:
    """The fields of one loop that the hot path reads."""

    cdef object ready, scheduled, selector, clock_resolution
    cdef bint closed, debug, stopping, running
    cdef long timer_cancelled_count
    cdef Turn turn          # the innermost call of run_once that has not returned; None where there is none
    cdef Turn spare         # of the last one that has
    cdef unsigned int plain_tag     # of the loop's class, where its `time` is known to be asyncio's; 0: not known
    cdef unsigned int odd_tag       # or known to be another
    cdef bint has_time              # the program has set `loop.time`
    cdef object own_time            # to this
    cdef Tally tally
    cdef Cells cells        # while run_once runs: where what is scheduled is counted

    def __cinit__(self):
        self.tally = Tally()

    def __dealloc__(self):
        global last_loop, last_state
        if last_state == <PyObject *>self:
            last_loop = last_state = NULL

    cdef Turn begin_turn(self):
        """``run_once`` is called, perhaps within one of the loop's own callbacks or by a signal handler."""
        cdef Turn turn = self.spare
        if turn is None:
            turn = Turn.__new__(Turn)
        self.spare = None
        turn.over = False
        turn.outer = self.turn
        self.turn = turn
        return turn

    cdef int end_turn(self, Turn turn) except -1:
        """And returns. With greenlets or threads the outer call may return first: it goes with the last inner one."""
        turn.current = NULL
        turn.over = True
        while self.turn is not None and self.turn.over:
            turn = self.turn
            self.turn = turn.outer
            turn.outer = None
            self.spare = turn
        return 0


@cython.no_gc
cdef class Turn:
    """One call of ``run_once``: the handle that it runs, and room for the events that it polls."""

    cdef PyObject *current  # borrowed: run_once holds it while it stands here
    cdef epoll_event *events
    cdef int capacity
    cdef bint over
    cdef Turn outer

    def __dealloc__(self):
        free(self.events)

    cdef int room(self, int n) except -1:
        """Have room for ``n`` events. Not during a poll: the kernel writes there."""
        cdef epoll_event *events
        if n > self.capacity:
            n = n + n // 2
            events = <epoll_event *>realloc(self.events, n * sizeof(epoll_event))
            if events is NULL:
                raise MemoryError
            self.events = events
            self.capacity = n
        return 0


# The loop that was asked for last, borrowed: almost always there is one loop. `forget` is called where a loop is made,
# so that a new loop at an old one's address is not taken for it.
cdef PyObject *last_loop = NULL
cdef PyObject *last_state = NULL


def forget():
    """A loop is being made or closed: do not trust addresses."""
    global last_loop, last_state
    last_loop = last_state = NULL


cdef State own_state(object loop):
    """The state of a loop whose own method this is; AttributeError where it was never set up, as on the stock loop."""
    cdef State state = state_of(loop)
    if state is None:
        raise AttributeError(f"{type(loop).__name__!r} object was not set up: call super().__init__() first")
    return state


cdef State state_of(object loop):
    """The state of an observed loop; None for any other object."""
    global last_loop, last_state
    if <PyObject *>loop == last_loop:
        return <State>last_state
    try:
        state = loop._obsloop_state
    except AttributeError:
        return None
    if type(state) is not State:
        return None
    last_loop = <PyObject *>loop
    last_state = <PyObject *>state
    return state


cdef enum:
    READY, SCHEDULED, SELECTOR, CLOCK_RESOLUTION, CLOSED, DEBUG, STOPPING, TIMER_CANCELLED_COUNT

FIELD_NAMES = (
    "_ready", "_scheduled", "_selector", "_clock_resolution", "_closed", "_debug", "_stopping", "_timer_cancelled_count",
)


cdef class Field:
    """A field of ``State`` as an attribute of the loop."""

    cdef int which

    def __init__(self, int which):
        self.which = which

    def __get__(self, loop, owner):
        if loop is None:
            return self
        cdef State state = state_of(loop)
        if state is None:
            raise AttributeError(FIELD_NAMES[self.which])
        if self.which == DEBUG:
            return state.debug
        if self.which == READY:
            # Whoever gets the queue may take handles out of it: for the rest of this run none is hidden.
            show_all(state, False)
            return state.ready
        if self.which == SCHEDULED:
            return state.scheduled
        if self.which == SELECTOR:
            return state.selector
        if self.which == CLOCK_RESOLUTION:
            return state.clock_resolution
        if self.which == CLOSED:
            return state.closed
        if self.which == STOPPING:
            return state.stopping
        return state.timer_cancelled_count

    def __set__(self, loop, value):
        cdef State state = state_of(loop)
        if state is None:
            state = State()
            loop._obsloop_state = state
        if self.which == DEBUG:
            state.debug = bool(value)
        elif self.which == READY:
            state.ready = value
        elif self.which == SCHEDULED:
            state.scheduled = value
        elif self.which == SELECTOR:
            state.selector = value
        elif self.which == CLOCK_RESOLUTION:
            state.clock_resolution = value
        elif self.which == CLOSED:
            state.closed = bool(value)
        elif self.which == STOPPING:
            state.stopping = bool(value)
        else:
            state.timer_cancelled_count = value


cdef int show_all(State state, bint nested) except -1:
    """The loop stops, but for an iteration within a callback: what is left in its queue may become garbage with it."""
    if nested or not state.running:
        return 0
    state.running = False
    for handle in state.ready:
        if type(handle) is Handle:
            show(handle, 0)
    return 0


def adopt(loop, cls):
    """A loop that may run already, in any thread, becomes one of ``cls``: its fields move into a ``State``.

    Without a line of Python in between, so that its own thread finds it either as it was or as it will be.
    """
    cdef State state = State()
    forget()
    state.ready = loop._ready
    state.scheduled = loop._scheduled
    state.selector = loop._selector
    state.clock_resolution = loop._clock_resolution
    state.closed = loop._closed
    state.debug = loop._debug
    state.stopping = loop._stopping
    state.timer_cancelled_count = loop._timer_cancelled_count
    state.tally = loop._obsloop.tasks
    own = loop.time
    by_class = getattr(type(loop), "time", None)
    if own is not by_class and getattr(own, "__func__", None) is not by_class:
        state.has_time = True  # set on the loop itself
        state.own_time = own
    loop._obsloop_state = state
    loop.__class__ = cls


# ---- scheduling ------------------------------------------------------------------------------------------------------

cdef extern from *:
    """
    /* The C functions behind deque.append and deque.popleft, called without a look-up; NULL if they are not as known. */
    static PyCFunction obsloop_deque_append = NULL, obsloop_deque_popleft = NULL;
    static PyTypeObject *obsloop_deque = NULL;

    static PyCFunction obsloop_method(PyObject *type, const char *name, int flags) {
        PyCFunction found = NULL;
        PyObject *method = PyObject_GetAttrString(type, name);
        if (method == NULL) { PyErr_Clear(); return NULL; }
        if (Py_IS_TYPE(method, &PyMethodDescr_Type) && ((PyMethodDescrObject *)method)->d_method->ml_flags == flags)
            found = ((PyMethodDescrObject *)method)->d_method->ml_meth;
        Py_DECREF(method);
        return found;
    }

    static void obsloop_learn_deque(PyObject *type) {
        obsloop_deque_append = obsloop_method(type, "append", METH_O);
        obsloop_deque_popleft = obsloop_method(type, "popleft", METH_NOARGS);
        if (obsloop_deque_append != NULL && obsloop_deque_popleft != NULL) obsloop_deque = (PyTypeObject *)type;
    }

    static inline PyObject *obsloop_append(PyObject *queue, PyObject *item) {
        if (Py_TYPE(queue) == obsloop_deque) return obsloop_deque_append(queue, item);
        return PyObject_CallMethod(queue, "append", "O", item);
    }

    static inline PyObject *obsloop_popleft(PyObject *queue) {
        if (Py_TYPE(queue) == obsloop_deque) return obsloop_deque_popleft(queue, NULL);
        return PyObject_CallMethod(queue, "popleft", NULL);
    }
    """
    void learn_deque "obsloop_learn_deque"(object type)
    object queue_append "obsloop_append"(object queue, object item)
    object queue_popleft "obsloop_popleft"(object queue)

learn_deque(deque)


cdef object heappush = heapq.heappush
cdef object heappop = heapq.heappop
cdef object caller_stack = _cold.caller_stack


def call_soon(self, callback, *args, context=None):
    """``loop.call_soon``: the handle is ready now."""
    cdef State state = own_state(self)
    cdef Handle handle
    if state.closed or state.debug:
        self._check_call(callback, "call_soon")
    handle = new_handle(self, callback, args, context, kind_of(callback))
    if state.debug:
        handle._source_traceback = caller_stack(1)
    if state.running:
        hide(handle)
    if recording:
        handle._ready_ns = now_ns()
        if handle._kind == TASK_STEP and type(callback) is not BUILTIN:
            scheduled_step(self, state, handle, callback)
    queue_append(state.ready, handle)
    return handle


def call_soon_threadsafe(self, callback, *args, context=None):
    """``loop.call_soon_threadsafe``: the handle is ready now, by the clock of the calling thread."""
    cdef State state = own_state(self)
    self._check_closed()
    if state.debug:
        self._check_callback(callback, "call_soon_threadsafe")
    if ThreadSafeHandle is None:
        handle = new_handle(self, callback, args, context, THREADSAFE)
        if state.debug:
            handle._source_traceback = caller_stack(1)
        (<Handle>handle)._ready_ns = now_ns()
    else:
        handle = ThreadSafeHandle(callback, args, self, context)
        if state.debug:
            handle._source_traceback = caller_stack(1)
        handle._kind = THREADSAFE
        handle._ready_ns = now_ns()
    queue_append(state.ready, handle)
    self._write_to_self()
    return handle


def call_later(self, delay, callback, *args, context=None):
    """``loop.call_later``: ready at ``when``; a negative delay means now."""
    if delay is None:
        raise TypeError("delay must not be None")
    method = self.call_at
    if not PyMethod_Check(method) or method_function(method) != <PyObject *>own_call_at:
        # asyncio's call_later goes through call_at
        return method(self.time() + delay, callback, *args, context=context)
    cdef double seconds, now = loop_time(own_state(self), self)
    if type(delay) is float:  # nearly always, and then without a detour over objects
        seconds = delay
        return schedule(self, now + seconds, callback, args, context, 0 if seconds >= 0 else now_ns())
    when = now + delay  # the program's own type, perhaps: all that asyncio wants of it is this sum
    return schedule(self, when, callback, args, context, 0 if when >= now else now_ns())


def call_at(self, when, callback, *args, context=None):
    """``loop.call_at``: ready at ``when``; a moment that has passed means now."""
    if when is None:
        raise TypeError("when cannot be None")
    return schedule(self, when, callback, args, context, now_ns())


cdef object own_call_at = call_at


cdef object schedule(self, when, callback, args, context, int64_t not_before_ns):
    cdef State state = own_state(self)
    if state.closed or state.debug:
        self._check_call(callback, "call_at")
    cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
    handle._callback = callback
    handle._args = args
    handle._loop = self
    handle._context = PyContext_CopyCurrent() if context is None else context
    handle._kind = TIMER
    handle._ready_ns = not_before_ns
    handle.due = when
    handle.when_ = when
    handle._scheduled = True
    if state.debug:
        handle._source_traceback = caller_stack(1)
    heappush(state.scheduled, handle)
    return handle


def add_reader(self, fd, callback, *args, context=None):
    """``loop._add_reader``, with a handle of ours, which ``run_once`` stamps whenever a poll returns it."""
    return watch(self, fd, 1, callback, args, context)


def add_writer(self, fd, callback, *args, context=None):
    """``loop._add_writer``, likewise."""
    return watch(self, fd, 2, callback, args, context)


cdef object watch(self, fd, int event, callback, args, context):
    self._check_closed()
    cdef Handle handle = new_handle(self, callback, args, context, READER if event == 1 else WRITER)
    selector = self._selector
    key = _cold.registered(selector, fd)
    if self._debug:
        handle._source_traceback = caller_stack(1)
    if key is None:
        selector.register(fd, event, (handle, None) if event == 1 else (None, handle))
    else:
        reader, writer = key.data
        if event == 1:
            replaced, data = reader, (handle, writer)
        else:
            replaced, data = writer, (reader, handle)
        selector.modify(fd, key.events | event, data)
        if replaced is not None:
            replaced.cancel()
    return handle


def create_future(self):
    """Create a Future object attached to the loop."""
    return futures.Future(loop=self)


def get_debug(self):
    """Whether the loop is in debug mode."""
    return own_state(self).debug


include "task_steps.pxi"


# ---- iteration -------------------------------------------------------------------------------------------------------

cdef int CHUNK_MASK = _slow.CHUNK - 1
cdef int64_t GIVE_WAY_NS = 1_000_000    # at most so long, and one callback, do others wait for the interpreter
cdef int TIMERS_MASK = 255              # and so many timers that are due
cdef object run_in_debug = _cold.run_in_debug
cdef object give_way = _cold.give_way
cdef object notable = _slow.notable
cdef object slow_iteration = _slow.slow_iteration
cdef object sample = _slow.sample
cdef long MIN_SCHEDULED = private_base_events._MIN_SCHEDULED_TIMER_HANDLES
cdef double MIN_CANCELLED_FRACTION = private_base_events._MIN_CANCELLED_TIMER_HANDLES_FRACTION
cdef double MAX_TIMEOUT = private_base_events.MAXIMUM_SELECT_TIMEOUT
cdef object PROCESS_EVENTS = private_selector_events.BaseSelectorEventLoop._process_events

if _slow.CHUNK & CHUNK_MASK:
    raise ImportError("the compiled core needs a chunk that is a power of two")


cdef int wait_epoll(Turn turn, int epfd, int room, double timeout) except -2:
    """``epoll_wait`` as ``select.epoll.poll`` does it: again after a signal (PEP 475), for what is left of the time."""
    cdef int n, ms
    cdef int64_t deadline_ns = 0, left_ns
    if timeout < 0:
        ms = -1
    else:
        ms = <int>ceil(timeout * 1e3)
        if ms > 0:
            deadline_ns = obsloop_now() + <int64_t>ms * 1000000
    turn.room(room)
    cdef epoll_event *events = turn.events  # no one else's: a signal handler below may run an iteration
    while True:
        with nogil:
            n = epoll_wait(epfd, events, room, ms)
        if n >= 0 or errno == EBADF:
            return n
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
        if ms > 0:
            left_ns = deadline_ns - obsloop_now()
            if left_ns <= 0:
                return 0
            ms = <int>((left_ns + 999999) // 1000000)


cdef int put(State state, obs, handle, fileobj, int kind, int64_t began, self) except -1:
    """A watched descriptor is ready: its handle goes onto the queue, or off the selector if it was cancelled."""
    if handle._cancelled if type(handle) is not Handle else (<Handle>handle)._cancelled:
        if kind == READER:
            self._remove_reader(fileobj)
        else:
            self._remove_writer(fileobj)
        return 0
    if type(handle) is Handle:
        (<Handle>handle)._ready_ns = began
    else:
        obs.stamp(handle, kind, began)
    queue_append(state.ready, handle)
    return 0


def run_once(self):
    """``loop._run_once``; see ``_hot.run_once``."""
    cdef State state = own_state(self)
    obs = self._obsloop
    cdef bint many = obs.iterating
    obs.iterating = False
    cdef Cells cells = obs.cells or obs.lease(self)
    if self._selector is not state.selector:  # a subclass has it as an attribute of the class
        state.selector = self._selector
    cdef bint inline_events
    cdef bint straight = False
    cdef int64_t began = 0, now, start, end, not_before_ns, ready_ns = 0, waited_ns
    cdef int kind = 0, n, i, epfd = -1, mask, timers
    cdef int64_t gave_way_ns
    cdef unsigned int event
    cdef Py_ssize_t waiting, todo
    cdef double timeout, clock, end_time
    cdef Handle h
    cdef TimerHandle timer_handle
    cdef PyObject *found_key
    cdef Turn turn = None
    cdef Cells outer_cells = state.cells
    cdef PyObject *outer_task = NULL if state.tally.present is NULL else state.tally.present.task
    cdef object callback = None
    cdef object handle = None, selector = None, fd_to_key = None, found, key, timer
    cdef list scheduled
    ready = None
    outer = _cold.enter(self, cells)
    turn = state.begin_turn()
    try:
        not_before_ns = cells.run_started_ns
        state.running = True
        state.cells = cells
        state.tally.present = NULL
        while True:
            if type(state.scheduled) is not list:
                raise TypeError(f"loop._scheduled must be a list, not {type(state.scheduled).__name__}")
            scheduled = state.scheduled
            if PyList_GET_SIZE(scheduled):
                if (
                    state.timer_cancelled_count > PyList_GET_SIZE(scheduled) * MIN_CANCELLED_FRACTION
                    and PyList_GET_SIZE(scheduled) > MIN_SCHEDULED
                ):
                    scheduled = _cold.rebuild_heap(self, scheduled)
                else:
                    while PyList_GET_SIZE(scheduled) and is_cancelled(scheduled[0]):
                        state.timer_cancelled_count -= 1
                        timer = heappop(scheduled)
                        timer._scheduled = False

            ready = state.ready
            timeout = 0
            waiting = len(ready)
            if not (waiting or state.stopping):
                if PyList_GET_SIZE(scheduled):
                    timeout = due(scheduled[0]) - loop_time(state, self)
                    if not timeout > 0:  # nan is due, too
                        timeout = 0
                    elif timeout > MAX_TIMEOUT:
                        timeout = MAX_TIMEOUT
                else:
                    timeout = -1
            # Where the loop is going to wait anyway, it also looks whether somebody has replaced a method.
            if state.selector is not selector or timeout != 0:
                selector = state.selector
                inline_events = getattr(self._process_events, "__func__", None) is PROCESS_EVENTS
                straight = OBSLOOP_EPOLL and inline_events and _cold.is_plain_epoll(selector)
                if straight:
                    fd_to_key = selector._fd_to_key
                    epfd = selector.fileno()

            now = now_ns()
            if began:
                count(cells.iteration, &seconds_line, now - began)
                if now - began >= cells.slow_iteration_ns:
                    now = slow_iteration(self, cells, began, now)
                    timeout = 0
                began = 0
            cells.state = IN_POLL if timeout == 0 else IN_IDLE
            cells.tick_ns = now
            # Python code handles signals between its instructions; here it must be asked for.
            PyErr_CheckSignals()
            if straight:
                found = None
                try:
                    n = wait_epoll(turn, epfd, max(1, len(fd_to_key)), timeout)
                except InterruptedError:
                    n = 0
                if n < 0:
                    selector.select(0)  # it was closed, and says so in its own words
                    n = 0
            else:
                n = 0
                found = selector.select(None if timeout < 0 else 0 if timeout == 0 else timeout)
                if type(found) is list:
                    n = len(found)
            began = now_ns()
            if timeout == 0:
                count(cells.poll, &seconds_line, began - now)
                cells.events_waiting += n
            else:
                cells.idle_ns += began - now
                cells.waits += 1
            cells.events += n
            cells.state = IN_OVERHEAD
            cells.tick_ns = cells.began_ns = began

            if straight:
                for i in range(n):
                    found_key = PyDict_GetItem(fd_to_key, turn.events[i].data.fd)
                    if found_key is NULL:
                        continue
                    key = <object>found_key  # a named tuple, whose own way to its items is long
                    event = turn.events[i].events
                    mask = <object>PyTuple_GET_ITEM(key, 2)
                    reader, writer = <object>PyTuple_GET_ITEM(key, 3)
                    if reader is not None and event & ~4u and mask & 1:
                        put(state, obs, reader, <object>PyTuple_GET_ITEM(key, 0), READER, began, self)
                    if writer is not None and event & ~1u and mask & 2:
                        put(state, obs, writer, <object>PyTuple_GET_ITEM(key, 0), WRITER, began, self)
            else:
                self._process_events(found)
                found = None

            if PyList_GET_SIZE(scheduled):
                clock = loop_time(state, self)
                end_time = clock + <double>state.clock_resolution
                if end_time <= clock:
                    end_time = clock + _ulp(clock)
                timers = 0
                while PyList_GET_SIZE(scheduled):
                    timers += 1
                    if timers & TIMERS_MASK == 0:
                        timer = timer_handle = None
                        give_way()
                        scheduled = state.scheduled  # a signal handler may have run an iteration, and made it anew
                        if not PyList_GET_SIZE(scheduled):
                            break
                    timer = scheduled[0]
                    if type(timer) is TimerHandle:
                        timer_handle = timer
                        if timer_handle.due >= end_time:
                            break
                        heappop(scheduled)
                        timer_handle._scheduled = False
                        if timer_handle._cancelled:  # since the poll began
                            state.timer_cancelled_count -= 1
                            continue
                        ready_ns = due_ns(began, clock - timer_handle.due)
                        timer_handle._ready_ns = max(timer_handle._ready_ns, ready_ns, not_before_ns)
                    else:
                        if timer._when >= end_time:
                            break
                        heappop(scheduled)
                        timer._scheduled = False
                        if timer._cancelled:
                            state.timer_cancelled_count -= 1
                            continue
                        obs.stamp(timer, TIMER, max(not_before_ns, due_ns(began, clock - timer._when)))
                    queue_append(ready, timer)
                timer = timer_handle = None

            todo = len(ready)
            start = began if todo == waiting and straight else now_ns()
            count(cells.depth, &counts_line, todo)
            cells.state = IN_CALLBACK
            cells.tick_ns = gave_way_ns = start
            while todo > 0:
                todo -= 1
                handle = queue_popleft(ready)
                if type(handle) is Handle or type(handle) is TimerHandle:
                    h = handle
                    if h._cancelled:
                        show(handle, 2)
                        handle = None
                        continue
                    kind = h._kind
                    ready_ns = h._ready_ns
                    turn.current = <PyObject *>handle
                    if kind <= TASK_STEP:
                        callback = h._callback
                        if step_begins(state, cells, callback, ready_ns):
                            kind = FIRST_STEP
                    if state.debug:
                        run_in_debug(self, handle)
                    else:
                        try:
                            call(h)
                        except (SystemExit, KeyboardInterrupt):
                            raise
                        except BaseException as exc:
                            report(self, handle, exc)
                    turn.current = NULL
                    show(handle, 2)  # `handle` and `h`
                else:
                    if handle._cancelled:
                        obs.foreign.pop(id(handle), None)
                        handle = None
                        continue
                    kind, ready_ns = obs.unstamp(handle, began)
                    turn.current = <PyObject *>handle
                    if state.debug:
                        run_in_debug(self, handle)
                    else:
                        handle._run()
                    turn.current = NULL
                if not recording:
                    callback = None
                    continue
                end = now_ns()
                if callback is not None:
                    step_ended(self, state, cells, h, callback, start, end)
                    callback = None
                waited_ns = start - ready_ns
                count(cells.durations + kind, &seconds_line, end - start)
                cells.count_waits(cells.delays + kind, waited_ns if waited_ns > 0 else 0)
                cells.tick_ns = end
                if end - start >= cells.notable_ns:
                    cells.tick_ns = start = notable(self, cells, handle, kind, ready_ns, start, end, began)
                else:
                    start = end
                if todo & CHUNK_MASK == 0 and todo and end - began >= cells.slow_iteration_ns >> 1:
                    sample(self, cells, began, ready[0])
                    cells.tick_ns = start = now_ns()
                handle = None
                if start - gave_way_ns >= GIVE_WAY_NS:
                    h = None
                    give_way()
                    cells.tick_ns = start = gave_way_ns = now_ns()
            cells.state = IN_OVERHEAD
            handle = h = None

            if state.stopping or not many:
                break
    except BaseException:
        state.end_turn(turn)
        now = now_ns()
        if handle is not None:
            if type(handle) is Handle:
                show(handle, 0)
            if callback is not None:
                step_ended(self, state, cells, h, callback, start, now)
            cells.record(kind, ready_ns, now)
        handle = h = callback = None
        leave_tasks(state, outer_cells, outer_task)
        show_all(state, outer is not None)
        _cold.leave(self, cells, began, now, outer, stopped=True)
        raise
    state.end_turn(turn)
    leave_tasks(state, outer_cells, outer_task)
    show_all(state, outer is not None)
    _cold.leave(self, cells, began, now_ns(), outer, stopped=state.stopping or self._thread_id is None)


def running_handle(loop):
    """The handle that ``loop`` runs at this moment, or None; from any thread."""
    cdef State state = loop._obsloop_state
    return <object>state.turn.current if state.turn is not None and state.turn.current is not NULL else None


def queue(loop):
    """The ready queue of ``loop``, to be looked at and nothing else: the handles in it stay hidden."""
    cdef State state = state_of(loop)
    return state.ready if state is not None else ()


cdef inline bint is_cancelled(object handle) except -1:
    if type(handle) is TimerHandle:
        return (<TimerHandle>handle)._cancelled
    return handle._cancelled


cdef inline int64_t due_ns(int64_t began, double late) noexcept:
    """When a timer that is ``late`` seconds late was due; what is out of all bounds, inf and nan too, never was."""
    return began - <int64_t>(late * 1e9) if late < 1e9 else 0


cdef inline double due(object timer) except? -1.0:
    if type(timer) is TimerHandle:
        return (<TimerHandle>timer).due
    return timer._when


cdef double _ulp(double value):
    import math

    return math.ulp(value)


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

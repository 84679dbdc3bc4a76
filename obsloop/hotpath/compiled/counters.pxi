# What one running loop counts: plain numbers in C, with one writer, the loop's thread.
# The twin of `obsloop/metrics/counters.py`.

cdef int STRIDE = _counters.STRIDE
cdef int KINDS = len(_counters.KIND_OF_BLOCK)
cdef int FIRST_STEP = _counters.FIRST_STEP
cdef int TASK_STEP = _counters.TASK_STEP
cdef int CALLBACK = _counters.CALLBACK
cdef int TIMER = _counters.TIMER
cdef int READER = _counters.READER
cdef int WRITER = _counters.WRITER
cdef int THREADSAFE = _counters.THREADSAFE
cdef int STOPPED = _counters.STOPPED
cdef int IN_IDLE = _counters.IN_IDLE
cdef int IN_POLL = _counters.IN_POLL
cdef int IN_OVERHEAD = _counters.IN_OVERHEAD
cdef int IN_CALLBACK = _counters.IN_CALLBACK
cdef int FORKED = _counters.FORKED
cdef int64_t NEVER_NS = _counters.NEVER_NS
cdef int64_t MIN_NOTABLE_NS = _counters.MIN_NOTABLE_NS

if FORKED + 1 != STATES:
    raise ImportError("the compiled core was built for another list of states")
if 2 * len(_counters.NETWORKS) != MAX_IO:
    raise ImportError("the compiled core was built for another list of networks")
if 2 * KINDS + 1 > MAX_BLOCKS:
    raise ImportError("the compiled core was built for fewer kinds")


cdef list as_list(int64_t *values, int n):
    return [values[i] for i in range(n)]


cdef class Counters:
    """See ``metrics.counters.Counters``."""

    def __cinit__(self):
        self.seen = <Looks *>calloc(1, sizeof(Looks))
        if self.seen is NULL:
            raise MemoryError
        self.state = STOPPED
        self.flows = _counters.Flows()
        self.notable_ns = self.slow_ns = self.slow_iteration_ns = self.slow_task_ns = NEVER_NS

    cdef inline void count_waits(self, int64_t *block, int64_t value) noexcept:
        """Count one more value of a kind that many tasks add to at once.

        10,000 live tasks add 10,000 s to the sum each second. That fills 63 bits in 10.7 days, so the sum has a second
        word.
        """
        count(block, &seconds_line, value)
        if block[0] >> CARRY_BITS:
            block[0] -= <int64_t>1 << CARRY_BITS
            self.carries[(block - self.durations) // STRIDE] += 1

    cdef list blocks_as_list(self, int64_t *blocks, int n):
        """Return ``n`` blocks with their full sums."""
        cdef list found = as_list(blocks, STRIDE * n)
        cdef int i
        cdef Py_ssize_t first = (blocks - self.durations) // STRIDE
        for i in range(n):
            if self.carries[first + i]:
                found[STRIDE * i] += <object>self.carries[first + i] << CARRY_BITS
        return found

    def __dealloc__(self):
        free(self.seen)
        free(self.coroutines)

    cdef inline int count_step(self, uint32_t coroutine, int64_t spent_ns) except -1:
        if coroutine >= self.n_coroutines:
            self.know(coroutine)
        self.coroutines[2 * coroutine] += spent_ns
        self.coroutines[2 * coroutine + 1] += 1
        return 0

    cdef int know(self, uint32_t coroutine) except -1:
        """Make room for the counters of this coroutine and some more."""
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
        self.count_iteration(spent_ns)

    cdef inline void count_iteration(self, int64_t spent_ns) noexcept:
        cdef int i = bucket(&seconds_line, spent_ns)
        self.iteration_ns[i] += spent_ns
        self.iteration[i] += 1

    def forked(self):
        running = self.run_started_ns
        reset_fields(self)
        memset(self.carries, 0, sizeof(self.carries))
        if self.n_coroutines:
            memset(self.coroutines, 0, 2 * self.n_coroutines * sizeof(int64_t))
        self.run_started_ns = self.tick_ns if running else 0
        self.began_ns = self.tick_ns if running and self.began_ns else 0
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
        return copied_fields(self)

    cdef dict coroutine_times(self):
        cdef uint32_t i
        return {
            i: (self.coroutines[2 * i], self.coroutines[2 * i + 1])
            for i in range(self.n_coroutines) if self.coroutines[2 * i + 1]
        }


cdef tuple as_tuple(Look *look):
    return look.at_ns, look.began_ns, look.tick_ns, look.idle_ns, look.gc_ns, look.cpu_ns

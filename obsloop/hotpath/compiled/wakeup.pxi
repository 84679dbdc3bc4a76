# What the watchdog's thread sleeps on. While it waits, it measures healthy loops without the GIL.
# The twin of the class in `obsloop/blocking/wakeup.py`.

cdef int64_t FOREVER_NS = 1 << 60
cdef int64_t AT_ONCE_NS = 100_000   # a reading that took longer is not of one moment


cdef void look_at(Watched *w) noexcept nogil:
    """Measure the loop's thread, as ``usage.look`` does, unless that would add nothing.

    The loop runs on meanwhile. If a reading is not of one moment, the next one replaces it.
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
        state = obsloop_load(w.state)
        began_ns = obsloop_load(w.began_ns)
        gc_started_ns = obsloop_load(w.gc_started_ns)
        look.idle_ns = obsloop_load(w.idle_ns)
        look.gc_ns = 0
        for i in range(STATES):
            look.gc_ns += obsloop_load(&w.gc_ns[i])
        if (
            obsloop_load(w.gc_started_ns) != gc_started_ns
            or obsloop_load(w.state) != state
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
        # The values of now: an iteration that has begun meanwhile counts as measured.
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


cdef class Wakeup:
    """See ``blocking.wakeup.Wakeup``. This one measures healthy loops while it waits, without the GIL."""

    looks = bool(OBSLOOP_LOOKS)

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

    def notify(self):
        # The GIL is held: no other thread notifies between these two calls.
        PyThread_acquire_lock(self.lock, 0)
        PyThread_release_lock(self.lock)

    def wait(self, list watched, int64_t until_ns, int64_t asking_ns):
        cdef Watched *many = NULL
        cdef Counters counters
        cdef int n = 0
        cdef bint rung
        if clock_override is not None or not OBSLOOP_LOOKS:
            watched = []
        if not OBSLOOP_CLOCK:
            until_ns -= real_clock()
        kept = tuple(watched)  # the counters stay alive, whatever happens to the list
        if kept:
            many = <Watched *>calloc(len(kept), sizeof(Watched))
            if many is NULL:
                raise MemoryError
        try:
            for counters, native_id in kept:
                many[n].tick_ns = &counters.tick_ns
                many[n].began_ns = &counters.began_ns
                many[n].idle_ns = &counters.idle_ns
                many[n].gc_started_ns = &counters.gc_started_ns
                many[n].gc_ns = counters.gc_ns
                many[n].slow_ns = &counters.slow_ns
                many[n].slow_iteration_ns = &counters.slow_iteration_ns
                many[n].run_started_ns = &counters.run_started_ns
                many[n].state = &counters.state
                many[n].seen = counters.seen
                many[n].native_id = native_id
                many[n].first_tick_ns = counters.tick_ns
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
            # If it woke late, Python code has to examine what it did meanwhile.
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
                # From now on it may wait for the GIL.
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
        cdef int state = obsloop_load(w.state)
        if (state == IN_OVERHEAD or state == IN_CALLBACK) and began_ns:
            due_ns = min(due_ns, began_ns + slow_iteration_ns)
            if state == IN_CALLBACK:
                due_ns = min(due_ns, tick_ns + slow_ns)
        return due_ns

    cdef bint is_idle(self, Watched *w) noexcept nogil:
        return obsloop_load(w.state) == IN_IDLE and obsloop_load(w.tick_ns) != w.first_tick_ns

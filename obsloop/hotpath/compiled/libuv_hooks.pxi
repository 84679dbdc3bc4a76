# What libuv calls before and after each poll of an observed uvloop loop. It needs no GIL unless an iteration was slow.
# The twin of `obsloop/hotpath/pure/libuv_hooks.py`.

cdef void before_poll(void *handle) noexcept nogil:
    cdef LibuvRun *run = (<LibuvRun **>handle)[0]
    cdef int64_t now, spent_ns
    cdef int i
    now = obsloop_now()
    if run.began_ns[0]:
        spent_ns = now - run.began_ns[0]
        if spent_ns >= run.slow_iteration_ns[0]:
            report_slow(run, now)
        obsloop_store(run.began_ns, 0)  # before it is counted: a reader must not see it twice
        i = bucket(&seconds_line, spent_ns)
        run.iteration_ns[i] += spent_ns
        run.iteration[i] += 1
        if spent_ns >= run.least_slow_ns:
            now = obsloop_now()
    run.state[0] = IN_IDLE
    obsloop_store(run.tick_ns, now)


cdef void after_poll(void *handle) noexcept nogil:
    cdef LibuvRun *run = (<LibuvRun **>handle)[0]
    cdef int64_t idle_ns, waited_ns
    if run.run_started_ns[0] == 0:
        return
    idle_ns = <int64_t>run.idle_time(run.loop)
    waited_ns = idle_ns - run.seen_idle_ns
    run.seen_idle_ns = idle_ns
    if waited_ns > 0:
        run.idle_ns[0] += waited_ns
        run.waits[0] += 1
    # Protocols' callbacks ran within the poll, after the wait: the iteration began with them.
    obsloop_store(run.began_ns, run.tick_ns[0] + waited_ns)
    run.state[0] = IN_CALLBACK
    obsloop_store(run.tick_ns, run.began_ns[0])


cdef void report_slow(LibuvRun *run, int64_t end_ns) noexcept with gil:
    cdef LibuvHooks hooks = <LibuvHooks>run.hooks
    hooks.report(run.began_ns[0], end_ns)


cdef class LibuvHooks:
    """The two hooks of one loop, which write to ``counters``; ``report(began_ns, end_ns)`` gets slow iterations.

    ``loop`` and ``idle_time`` are addresses: of libuv's loop, and of its function ``uv_metrics_idle_time``.
    """

    def __cinit__(self, Counters counters, size_t loop, size_t idle_time, report):
        self.counters = counters
        self.report = report
        self.run.hooks = <PyObject *>self
        self.run.loop = <void *>loop
        self.run.idle_time = <idle_time_of>idle_time
        self.run.tick_ns = &counters.tick_ns
        self.run.began_ns = &counters.began_ns
        self.run.idle_ns = &counters.idle_ns
        self.run.waits = &counters.waits
        self.run.run_started_ns = &counters.run_started_ns
        self.run.slow_iteration_ns = &counters.slow_iteration_ns
        self.run.state = &counters.state
        self.run.iteration = counters.iteration + 1
        self.run.iteration_ns = counters.iteration_ns + 1
        self.run.least_slow_ns = MIN_NOTABLE_NS
        self.run.seen_idle_ns = <int64_t>self.run.idle_time(self.run.loop)

    @property
    def data(self):
        """The address that libuv's handles have to hold as their data."""
        return <size_t>&self.run

    @property
    def before_poll(self):
        """The address of the hook before a poll."""
        return <size_t><void *>before_poll

    @property
    def after_poll(self):
        """The address of the hook after a poll."""
        return <size_t><void *>after_poll

    def begin(self):
        """Forget idle time from before the run that begins."""
        self.run.seen_idle_ns = <int64_t>self.run.idle_time(self.run.loop)

    def close(self):
        """Never ask libuv again: its loop is about to be closed."""
        self.run.loop = NULL

    def look_into_poll(self, int64_t least_ns):
        """Note that the present poll has called protocols for ``least_ns``, if so. From any thread.

        Return when that began, else 0.
        """
        cdef int64_t tick_ns = self.run.tick_ns[0], waited_ns, began_ns
        if self.run.loop is NULL or self.run.state[0] != IN_IDLE:
            return 0
        waited_ns = <int64_t>self.run.idle_time(self.run.loop) - self.run.seen_idle_ns
        began_ns = tick_ns + waited_ns
        if obsloop_now() - began_ns < least_ns or obsloop_load(self.run.tick_ns) != tick_ns:
            return 0
        self.run.seen_idle_ns += waited_ns
        self.run.idle_ns[0] += waited_ns
        self.run.began_ns[0] = began_ns
        self.run.state[0] = IN_CALLBACK
        self.run.tick_ns[0] = began_ns
        return began_ns

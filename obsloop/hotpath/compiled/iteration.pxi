# One iteration of the loop: `run_once` polls, runs what is ready, and times it.
# The twin of `obsloop/hotpath/pure/iteration.py`: read that first.

cdef int CHUNK_MASK = _slow.CHUNK - 1
cdef int64_t GIVE_WAY_NS = 1_000_000    # other threads wait for the interpreter at most this long, plus one callback
cdef int TIMERS_MASK = 255              # or for this many due timers
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
    """Call ``epoll_wait`` as ``select.epoll.poll`` does: after a signal again (PEP 475), for the rest of the time."""
    cdef int n, ms
    cdef int64_t deadline_ns = 0, left_ns
    if timeout < 0:
        ms = -1
    else:
        ms = <int>ceil(timeout * 1e3)
        if ms > 0:
            deadline_ns = obsloop_now() + <int64_t>ms * 1000000
    turn.room(room)
    cdef epoll_event *events = turn.events  # this turn's own: a signal handler below may run an iteration
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
    """Put the handle of a ready descriptor onto the queue, or take it off the selector if it was cancelled."""
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
    """Run one iteration as ``loop._run_once``; see ``pure.iteration.run_once``."""
    cdef State state = own_state(self)
    obs = self._obsloop
    cdef bint many = obs.iterating
    obs.iterating = False
    cdef Counters counters = obs.counters or obs.lease(self)
    if self._selector is not state.selector:  # a subclass has it as a class attribute
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
    cdef Counters outer_cells = state.counters
    cdef PyObject *outer_task = NULL if state.task_table.present is NULL else state.task_table.present.task
    cdef object callback = None
    cdef object handle = None, selector = None, fd_to_key = None, found, key, timer
    cdef list scheduled
    ready = None
    outer = _cold.enter(self, counters)
    turn = state.begin_turn()
    try:
        not_before_ns = counters.run_started_ns
        state.running = True
        state.counters = counters
        state.task_table.present = NULL
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
            # Where the loop is about to wait anyway, it also checks whether a method has been replaced.
            if state.selector is not selector or timeout != 0:
                selector = state.selector
                inline_events = getattr(self._process_events, "__func__", None) is PROCESS_EVENTS
                straight = OBSLOOP_EPOLL and inline_events and _cold.is_plain_epoll(selector)
                state.patched_version = 0
                if straight:
                    fd_to_key = selector._fd_to_key
                    epfd = selector.fileno()

            now = now_ns()
            if began:
                if now - began >= counters.slow_iteration_ns:
                    now = slow_iteration(self, counters, began, now)
                    timeout = 0
                counters.count_iteration(now - (counters.began_ns if counters.began_ns else began))
                began = 0
            counters.state = IN_POLL if timeout == 0 else IN_IDLE
            counters.tick_ns = now
            # Between its instructions Python code handles signals. C code has to check for them.
            PyErr_CheckSignals()
            if straight:
                found = None
                try:
                    n = wait_epoll(turn, epfd, max(1, len(fd_to_key)), timeout)
                except InterruptedError:
                    n = 0
                if n < 0:
                    selector.select(0)  # it was closed, and raises its own error
                    n = 0
            else:
                n = 0
                found = selector.select(None if timeout < 0 else 0 if timeout == 0 else timeout)
                if type(found) is list:
                    n = len(found)
            began = now_ns()
            if timeout == 0:
                count(counters.poll, &seconds_line, began - now)
                counters.events_waiting += n
            else:
                counters.idle_ns += began - now
                counters.waits += 1
            counters.events += n
            counters.state = IN_OVERHEAD
            counters.tick_ns = counters.began_ns = began

            if straight:
                for i in range(n):
                    found_key = PyDict_GetItem(fd_to_key, turn.events[i].data.fd)
                    if found_key is NULL:
                        continue
                    key = <object>found_key  # a named tuple, whose own way to its items is slow
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
                        scheduled = state.scheduled  # a signal handler may have run an iteration, which may replace it
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
            count(counters.depth, &counts_line, todo)
            counters.state = IN_CALLBACK
            counters.tick_ns = gave_way_ns = start
            if state.patched_version == 0 or version_of(BaseHandle) != state.patched_version:
                state.patched = patched_now()
                state.patched_version = version_of(BaseHandle)
            while todo > 0:
                todo -= 1
                handle = queue_popleft(ready)
                if type(handle) is Handle or type(handle) is TimerHandle or type(handle) is ThreadSafeHandle:
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
                        if step_begins(state, counters, callback, ready_ns):
                            kind = FIRST_STEP
                    if state.debug:
                        run_in_debug(self, handle)
                    elif state.patched:
                        handle._run()
                    elif type(handle) is ThreadSafeHandle:
                        run_locked(handle, False)
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
                end = now_ns()
                if callback is not None:
                    step_ended(self, state, counters, h, callback, start, end)
                    callback = None
                waited_ns = start - ready_ns
                count(counters.durations + kind, &seconds_line, end - start)
                counters.count_waits(counters.delays + kind, waited_ns if waited_ns > 0 else 0)
                counters.tick_ns = end
                if end - start >= counters.notable_ns:
                    end = notable(self, counters, handle, kind, ready_ns, start, end, began, todo == 0)
                    counters.tick_ns = start = end
                else:
                    start = end
                if todo & CHUNK_MASK == 0 and todo and end - began >= counters.slow_iteration_ns >> 1:
                    sample(self, counters, began, ready[0])
                    counters.tick_ns = start = now_ns()
                handle = None
                if start - gave_way_ns >= GIVE_WAY_NS:
                    h = None
                    give_way()
                    counters.tick_ns = start = gave_way_ns = now_ns()
            counters.state = IN_OVERHEAD
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
                step_ended(self, state, counters, h, callback, start, now)
            counters.record(kind, ready_ns, now)
        handle = h = callback = None
        leave_tasks(state, outer_cells, outer_task)
        show_all(state, outer is not None)
        _cold.leave(self, counters, began, now, outer, stopped=True)
        raise
    state.end_turn(turn)
    leave_tasks(state, outer_cells, outer_task)
    show_all(state, outer is not None)
    _cold.leave(self, counters, began, now_ns(), outer, stopped=state.stopping or self._thread_id is None)


def running_handle(loop):
    """Return the handle that ``loop`` runs at this moment, or None, from any thread. uvloop's loops have no state."""
    cdef State state = getattr(loop, "_obsloop_state", None)
    if state is None:
        return None
    return <object>state.turn.current if state.turn is not None and state.turn.current is not NULL else None


def queue(loop):
    """Return the ready queue of ``loop``, only for reading: the handles in it stay hidden."""
    cdef State state = state_of(loop)
    return state.ready if state is not None else ()


cdef inline bint is_cancelled(object handle) except -1:
    if type(handle) is TimerHandle:
        return (<TimerHandle>handle)._cancelled
    return handle._cancelled


cdef inline int64_t due_ns(int64_t began, double late) noexcept:
    """Return when a timer was due that is ``late`` seconds late; 0 if that is out of all bounds, or inf or nan."""
    return began - <int64_t>(late * 1e9) if late < 1e9 else 0


cdef inline double due(object timer) except? -1.0:
    if type(timer) is TimerHandle:
        return (<TimerHandle>timer).due
    return timer._when


cdef double _ulp(double value):
    import math

    return math.ulp(value)

# The loop's fields that the hot path reads (`_ready`, `_closed` and so on) are in a C struct. Descriptors on the loop
# class give all other code access to them by their names. No pure twin: there they are plain attributes.

cdef class State:
    """The fields of one loop that the hot path reads."""

    def __cinit__(self):
        self.task_table = TaskTable()

    def __dealloc__(self):
        global last_loop, last_state
        if last_state == <PyObject *>self:
            last_loop = last_state = NULL

    cdef Turn begin_turn(self):
        """Begin a call of ``run_once``, which may be inside one of the loop's own callbacks or in a signal handler."""
        cdef Turn turn = self.spare
        if turn is None:
            turn = Turn.__new__(Turn)
        self.spare = None
        turn.over = False
        turn.outer = self.turn
        self.turn = turn
        return turn

    cdef int end_turn(self, Turn turn) except -1:
        """End a call of ``run_once``. With greenlets or threads an outer call may end first: the inner removes it."""
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

    def __dealloc__(self):
        free(self.events)

    cdef int room(self, int n) except -1:
        """Make room for ``n`` events. Never during a poll, when the kernel writes there."""
        cdef epoll_event *events
        if n > self.capacity:
            n = n + n // 2
            events = <epoll_event *>realloc(self.events, n * sizeof(epoll_event))
            if events is NULL:
                raise MemoryError
            self.events = events
            self.capacity = n
        return 0


# The loop that was asked for last, borrowed: almost always there is one loop. `forget` is called when a loop is made or
# closed, so that a new loop at an old one's address is not taken for the old one.
cdef PyObject *last_loop = NULL
cdef PyObject *last_state = NULL


def forget():
    """Forget the last loop: a loop is being made or closed, and its address may be used again."""
    global last_loop, last_state
    last_loop = last_state = NULL


cdef State own_state(object loop):
    """Return the state of an observed loop. Raise AttributeError if it was never set up, as on the stock loop."""
    cdef State state = state_of(loop)
    if state is None:
        raise AttributeError(f"{type(loop).__name__!r} object was not set up: call super().__init__() first")
    return state


cdef State state_of(object loop):
    """Return the state of an observed loop; None for any other object."""
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
            # The caller may take handles out of the queue, so for the rest of this run none is hidden.
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
    """Show all handles in the queue if the loop stops, since they may become garbage with it. Not if ``nested``."""
    if nested or not state.running:
        return 0
    state.running = False
    for handle in state.ready:
        if type(handle) is Handle:
            show(handle, 0)
    return 0


def adopt(loop, cls):
    """Make a loop, which may be running in any thread, one of ``cls``: move its fields into a ``State``.

    No line of Python runs in between, so its own thread sees it either as it was or as it will be.
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
    state.task_table = loop._obsloop.tasks
    own = loop.time
    by_class = getattr(type(loop), "time", None)
    if own is not by_class and getattr(own, "__func__", None) is not by_class:
        state.has_time = True  # set on the loop itself
        state.own_time = own
    loop._obsloop_state = state
    loop.__class__ = cls

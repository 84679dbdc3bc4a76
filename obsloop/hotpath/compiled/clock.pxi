# The clock: nanoseconds for what obsloop measures, and `loop.time`, which the program may replace.

cdef object clock_override = None if OBSLOOP_CLOCK else _clock.monotonic_ns
cdef object real_clock = _clock.monotonic_ns


cdef inline int64_t now_ns() except? -1:
    if clock_override is None:
        return obsloop_now()
    return clock_override()


def set_clock(clock):
    """Replace the clock of every loop in the process, for tests; ``base.clock``'s own stands for the real one."""
    global clock_override
    clock_override = None if OBSLOOP_CLOCK and (clock is real_clock or clock is time.monotonic_ns) else clock


cdef object STOCK_TIME = vars(private_base_events.BaseEventLoop).get("time")
# Where `BaseEventLoop.time` finds what it calls.
cdef dict STOCK_GLOBALS = vars(private_base_events)
cdef dict TIME_GLOBALS = vars(time)
cdef object TIME_MODULE = time  # a C variable: a global of the module would be looked up each time
# Not a built-in if obsloop is imported while time is frozen: then asyncio's own method is called each time.
cdef object MONOTONIC = time.monotonic if type(time.monotonic) is type(len) else object()


watch_changes(STOCK_GLOBALS, TIME_GLOBALS)


cdef inline bint is_stock_clock() except -1:
    """Return whether asyncio uses the real ``time.monotonic``, which no test has replaced."""
    return unchanged(STOCK_GLOBALS, TIME_GLOBALS) or find_clock()


cdef bint find_clock() except -1:
    """Look whether both dictionaries hold the real clock. If so, note that, until one of them changes."""
    if (
        PyDict_GetItemWithError(STOCK_GLOBALS, "time") != <PyObject *>TIME_MODULE
        or PyDict_GetItemWithError(TIME_GLOBALS, "monotonic") != <PyObject *>MONOTONIC
    ):
        return False
    note_unchanged(STOCK_GLOBALS, TIME_GLOBALS)
    return True


cdef inline double loop_time(State state, object loop) except? -1.0:
    """Return ``loop.time()``, without a call if it is asyncio's own and reads the real clock."""
    if state.plain_tag and class_tag(loop) == state.plain_tag and clock_override is None and is_stock_clock():
        return obsloop_now() / 1e9
    if clock_override is None and is_plain_time(state, loop) and is_stock_clock():
        return obsloop_now() / 1e9
    return loop.time()


cdef bint is_plain_time(State state, object loop) except -1:
    """Return whether ``loop.time`` is asyncio's method. Found out again after the class or one of its bases changes."""
    cdef unsigned int tag = class_tag(loop)
    if tag and tag == state.plain_tag:
        return True
    if tag and tag == state.odd_tag:
        return False
    state.plain_tag = state.odd_tag = 0
    cls = type(loop)
    getattr(cls, "time", None)  # a look-up, so that the class gets a tag
    tag = class_tag(loop)
    plain = not state.has_time and _peek.find(cls, "time") is TIME and behind_time(cls) is STOCK_TIME
    if plain:
        state.plain_tag = tag
    else:
        state.odd_tag = tag
    return plain


cdef object behind_time(cls):
    """Return what ``time`` would be without obsloop's."""
    passed = False
    for base in _peek.mro_of(cls):
        found = _peek.vars_of(base).get("time")
        if found is TIME:
            passed = True
        elif passed and found is not None:
            return found
    return None


cdef class Time:
    """``loop.time`` on the class: a built-in, called without a Python frame, if asyncio's would return the same.

    If a test has replaced ``time.monotonic`` or ``BaseEventLoop.time``, it is asyncio's own method. What the program
    assigns to ``loop.time`` is kept in the loop's ``State``, where the hot path sees it.
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

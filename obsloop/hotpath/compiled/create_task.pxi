# `loop.create_task`, and the tasks that it makes another way: by a task factory, in debug mode, eagerly.
# The twin of `obsloop/hotpath/pure/create_task.py`: read that first.

cdef object STOCK_CREATE_TASK = private_base_events.BaseEventLoop.create_task


cdef object create_otherwise(self, State state, coro, dict kwargs):
    """By the program's factory, in debug mode, or eagerly: then its first step is over when there is a task."""
    cdef Tally tally = state.tally
    cdef Counters counters = state.counters
    cdef int64_t before_ns = now_ns(), eager_ns = tally.eager_ns, inner_ns = 0, spent_ns
    cdef PyObject *entered = tally.entered
    cdef uint32_t number = 0
    if counters is None:
        return STOCK_CREATE_TASK(self, coro, **kwargs)
    if code_of(<PyObject *>coro) is not NULL:
        number = number_of(coro)
    cdef Group eager_group = tally.eager_group
    cdef PyObject *group = tally.creators_group()
    tally.eager_group = None if group is NULL else <Group>group
    inner_ns = tally.inner(counters)
    tally.inner_ns = 0
    tally.inner_at_ns = counters.tick_ns
    tally.eager_ns = before_ns
    tally.entered = NULL
    try:
        task = STOCK_CREATE_TASK(self, coro, **kwargs)
        spent_ns = now_ns() - before_ns
    except BaseException:
        tally.entered = entered
        raise
    finally:
        tally.eager_ns = eager_ns
        tally.eager_group = eager_group
        # As far as it is known that it was its own step; until then it is its creator's.
        tally.inner_ns, inner_ns = inner_ns, tally.inner(counters)
    if is_task(task):
        settle(self, state, task, number, before_ns, spent_ns, inner_ns)
    tally.entered = entered
    return task


cdef int settle(
    self, State state, object task, uint32_t number, int64_t before_ns, int64_t spent_ns, int64_t inner_ns
) except -1:
    """What of it has not been counted when it was scheduled. ``inner_ns``: what eager tasks of its own took."""
    cdef Tally tally = state.tally
    cdef Counters counters = state.counters
    cdef Record *record = tally.find(<PyObject *>task)
    cdef bint entered = tally.entered == <PyObject *>task
    cdef PyObject *group
    if record is not NULL and not entered:
        if record.created_ns >= before_ns:
            record.coroutine = number
            return 0
        tally.bury(counters, <PyObject *>task)
        record = NULL
    tally.inner_ns += spent_ns
    counters.count_step(number, spent_ns - inner_ns)
    if entered and record is not NULL:
        counters.tasks_created += 1
        record.coroutine = number
    elif not is_done(task):
        tally.next_coroutine = number
        record = tally.admit(counters, <PyObject *>task, before_ns)
    if record is not NULL:
        record.created_ns = before_ns
        count_for(record, spent_ns - inner_ns, 0)
    else:
        group = tally.creators_group()
        if group is not NULL:
            add_to(<Group>group, spent_ns - inner_ns, 0)
    if is_done(task):
        task_ended(self, tally, counters, task, None, record, before_ns, now_ns())
    return 0


cdef inline object created(self, State state, object task):
    if state.counters is not None and not state.counters.tasks_created & CREATED_MASK:
        _created.sample(self, task)
    return task


cdef int64_t CREATED_MASK = _created.MASK


def create_task_by_name(self, coro, *, name=None, context=None):
    """Schedule a coroutine object: with no task factory and out of debug mode, a plain ``asyncio.Task``."""
    cdef State state = own_state(self)
    state.tally.next_coroutine = 0
    if state.debug or state.closed or self._task_factory is not None:
        return created(self, state, create_otherwise(self, state, coro, {"name": name, "context": context}))
    state.tally.next_coroutine = number_of(coro)
    try:
        if name is None and context is None:
            return created(self, state, tasks.Task(coro, loop=self))
        return created(self, state, tasks.Task(coro, loop=self, name=name, context=context))
    finally:
        state.tally.next_coroutine = 0


def create_task_by_keywords(self, coro, **kwargs):
    """Schedule or begin executing a coroutine object: with no task factory and out of debug mode, a plain Task."""
    cdef State state = own_state(self)
    state.tally.next_coroutine = 0
    if state.debug or state.closed or self._task_factory is not None or "eager_start" in kwargs:
        return created(self, state, create_otherwise(self, state, coro, kwargs))
    state.tally.next_coroutine = number_of(coro)
    try:
        return created(self, state, tasks.Task(coro, loop=self, **kwargs) if kwargs else tasks.Task(coro, loop=self))
    finally:
        state.tally.next_coroutine = 0


# Since 3.14 it takes whatever keywords the task takes; the signature is kept as this interpreter has it.
cdef object create_task = (
    create_task_by_keywords if "kwargs" in inspect.signature(STOCK_CREATE_TASK).parameters else create_task_by_name
)
create_task.__name__ = "create_task"

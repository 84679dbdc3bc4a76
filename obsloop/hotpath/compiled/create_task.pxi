# `loop.create_task`: the usual way, and the ways of a task factory, debug mode or an eager task.
# The twin of `obsloop/hotpath/pure/create_task.py`: read that first.

cdef object STOCK_CREATE_TASK = private_base_events.BaseEventLoop.create_task


cdef object create_otherwise(self, State state, coro, dict kwargs):
    """Create a task with the program's factory, in debug mode, or eagerly: then its first step is already over."""
    cdef TaskTable task_table = state.task_table
    cdef Counters counters = state.counters
    cdef int64_t before_ns = now_ns(), eager_ns = task_table.eager_ns, inner_ns = 0, spent_ns
    cdef PyObject *entered = task_table.entered
    cdef uint32_t number = 0
    if counters is None:
        return STOCK_CREATE_TASK(self, coro, **kwargs)
    if code_of(<PyObject *>coro) is not NULL:
        number = number_of(coro)
    cdef Measurement eager_measurement = task_table.eager_measurement
    cdef PyObject *measurement = task_table.creators_group()
    task_table.eager_measurement = None if measurement is NULL else <Measurement>measurement
    inner_ns = task_table.inner(counters)
    task_table.inner_ns = 0
    task_table.inner_at_ns = counters.tick_ns
    task_table.eager_ns = before_ns
    task_table.entered = NULL
    try:
        task = STOCK_CREATE_TASK(self, coro, **kwargs)
        spent_ns = now_ns() - before_ns
    except BaseException:
        task_table.entered = entered
        raise
    finally:
        task_table.eager_ns = eager_ns
        task_table.eager_measurement = eager_measurement
        # The time is the creator's until `settle` knows that the new task ran a step of its own.
        task_table.inner_ns, inner_ns = inner_ns, task_table.inner(counters)
    if is_task(task):
        settle(self, state, task, number, before_ns, spent_ns, inner_ns)
    task_table.entered = entered
    return task


cdef int settle(
    self, State state, object task, uint32_t number, int64_t before_ns, int64_t spent_ns, int64_t inner_ns
) except -1:
    """Count what was not counted when it was scheduled. ``inner_ns``: how much of that its own eager tasks took."""
    cdef TaskTable task_table = state.task_table
    cdef Counters counters = state.counters
    cdef Record *record = task_table.find(<PyObject *>task)
    cdef bint entered = task_table.entered == <PyObject *>task
    cdef PyObject *measurement
    if record is not NULL and not entered:
        if record.created_ns >= before_ns:
            record.coroutine = number
            return 0
        task_table.bury(counters, <PyObject *>task)
        record = NULL
    task_table.inner_ns += spent_ns
    counters.count_step(number, spent_ns - inner_ns)
    if entered and record is not NULL:
        counters.tasks_created += 1
        record.coroutine = number
    elif not is_done(task):
        task_table.next_coroutine = number
        record = task_table.admit(counters, <PyObject *>task, before_ns)
    if record is not NULL:
        record.created_ns = before_ns
        count_for(record, spent_ns - inner_ns, 0)
    else:
        measurement = task_table.creators_group()
        if measurement is not NULL:
            add_to(<Measurement>measurement, spent_ns - inner_ns, 0)
    if is_done(task):
        task_ended(self, task_table, counters, task, None, record, before_ns, now_ns())
    return 0


cdef inline object created(self, State state, object task):
    if state.counters is not None and not state.counters.tasks_created & CREATED_MASK:
        _created.sample(self, task)
    return task


cdef int64_t CREATED_MASK = _created.MASK


def create_task_by_name(self, coro, *, name=None, context=None):
    """Schedule a coroutine object: without a task factory and outside debug mode, as a plain ``asyncio.Task``."""
    cdef State state = own_state(self)
    state.task_table.next_coroutine = 0
    if state.debug or state.closed or self._task_factory is not None:
        return created(self, state, create_otherwise(self, state, coro, {"name": name, "context": context}))
    state.task_table.next_coroutine = number_of(coro)
    try:
        if name is None and context is None:
            return created(self, state, tasks.Task(coro, loop=self))
        return created(self, state, tasks.Task(coro, loop=self, name=name, context=context))
    finally:
        state.task_table.next_coroutine = 0


def create_task_by_keywords(self, coro, **kwargs):
    """Schedule or begin a coroutine object: without a task factory and outside debug mode, as a plain Task."""
    cdef State state = own_state(self)
    state.task_table.next_coroutine = 0
    if state.debug or state.closed or self._task_factory is not None or "eager_start" in kwargs:
        return created(self, state, create_otherwise(self, state, coro, kwargs))
    state.task_table.next_coroutine = number_of(coro)
    try:
        return created(self, state, tasks.Task(coro, loop=self, **kwargs) if kwargs else tasks.Task(coro, loop=self))
    finally:
        state.task_table.next_coroutine = 0


# Since 3.14 create_task takes any keyword that the task takes. Keep the signature that this interpreter has.
cdef object create_task = (
    create_task_by_keywords if "kwargs" in inspect.signature(STOCK_CREATE_TASK).parameters else create_task_by_name
)
create_task.__name__ = "create_task"

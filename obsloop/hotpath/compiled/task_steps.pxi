# The steps of tasks: when a task is first seen, what each step took, how the task ended. A task enters the table when
# its first step is scheduled, not in `create_task`: so tasks from any source are counted.
# The twin of `obsloop/hotpath/pure/task_steps.py`: read that first.

learn_task(asyncio.Task)

cdef bint step_is_known = False


cdef int learn_step() except -1:
    """Note whether the C type of a step has its task as its first field."""
    global step_is_known
    step, task = _kinds.a_step()
    step_is_known = type(step) is STEP and getattr(step, "__self__", None) is task and (
        first_field(<PyObject *>step) == <PyObject *>task
    )
    return 0


learn_step()


cdef inline PyObject *task_of(object callback) except? NULL:
    """Return the task whose step ``callback`` is, borrowed."""
    if type(callback) is STEP:
        if step_is_known:
            return first_field(<PyObject *>callback)
        return <PyObject *>callback.__self__
    if PyCFunction_CheckExact(callback):
        return cfunction_self(callback)
    if PyMethod_Check(callback):
        return method_self(callback)
    return NULL


cdef enum:
    CACHED = 256

# Borrowed: code with its own number is kept alive. Other code shares a number (REST), as will any code at its address.
cdef PyObject *cached_code[CACHED]
cdef uint32_t cached_number[CACHED]


cdef inline uint32_t number_of(object coro) except? 0:
    """Return ``coroutine_times.number_of(coro)``, from a table of recent answers where possible."""
    cdef PyObject *code = code_of(<PyObject *>coro)
    cdef uint32_t i, number
    if code is NULL:
        return _coroutines.number_of(coro)
    i = <uint32_t>(<size_t>code >> 5) & (CACHED - 1)
    if cached_code[i] == code:
        return cached_number[i]
    number = _coroutines.number_of(coro)
    if number:
        cached_code[i] = code
        cached_number[i] = number
    return number


cdef inline int scheduled_step(self, State state, Handle handle, object callback) except -1:
    """Note a step scheduled with ``call_soon``: for an unknown task it is the first one."""
    cdef PyObject *task = task_of(callback)
    cdef Record *record
    if state.task_table.present is not NULL and state.task_table.present.task == task:
        return 0  # sleep(0): the running task schedules its own next step
    if task is NULL:
        return 0
    record = state.task_table.find(task)
    if record is not NULL:
        if not record.steps or (not state.task_table.next_coroutine and _coroutines.begun(<object>task)):
            return 0
        state.task_table.bury(state.counters if state.counters is not None else self._obsloop.counters, task)
    if state.counters is not None:  # else the loop does not run, and counts it when it begins
        state.task_table.admit(state.counters, task, handle._ready_ns)
        handle._kind = FIRST_STEP
    return 0


cdef inline bint step_begins(State state, Counters counters, object callback, int64_t ready_ns) except -1:
    """Note that a task's step is about to run. Return whether it is the first one of a task that was not known."""
    cdef TaskTable task_table = state.task_table
    cdef PyObject *task = task_of(callback)
    if task is NULL:
        return 0
    task_table.present = NULL
    cdef Record *record = task_table.find(task)
    cdef bint first = record is NULL
    if record is NULL:
        record = task_table.admit(counters, task, ready_ns)
    if not record.coroutine:
        record.coroutine = _coroutines.number_of_task(<object>task)
    task_table.present = record
    return first and type(callback) is STEP


cdef int leave_tasks(State state, Counters outer_cells, PyObject *outer_task) except -1:
    """Restore the outer counters and task: ``run_once`` returns, and a task's step may have called it."""
    state.counters = outer_cells
    state.task_table.present = NULL if outer_task is NULL else state.task_table.find(outer_task)
    return 0


cdef inline int count_for(Record *record, int64_t spent_ns, int64_t waited_ns) except -1:
    record.run_ns += spent_ns
    record.wait_ns += waited_ns
    record.steps += 1
    if record.measurement is not NULL:
        add_to(<Measurement>record.measurement, spent_ns, waited_ns)
    return 0


cdef int add_to(Measurement measurement, int64_t spent_ns, int64_t waited_ns) except -1:
    while measurement is not None:
        measurement.run_ns += spent_ns
        measurement.low_wait_ns += waited_ns
        if measurement.low_wait_ns >> CARRY_BITS:
            measurement.low_wait_ns -= <int64_t>1 << CARRY_BITS
            measurement.wait_carries += 1
        measurement.steps += 1
        measurement = measurement.outer
    return 0


cdef inline int step_ended(self, State state, Counters counters, Handle handle, object callback, int64_t start, int64_t end) except -1:
    """Count a step that has returned or raised. ``callback`` keeps the task alive."""
    cdef TaskTable task_table = state.task_table
    cdef PyObject *task = task_of(callback)
    cdef Record *record = task_table.present
    cdef int64_t waited_ns, spent_ns = end - start - task_table.inner(counters)
    task_table.present = NULL
    if task is NULL:
        return 0
    if record is NULL or record.task != task:
        record = task_table.find(task)
    if record is not NULL:
        waited_ns = start - handle._ready_ns
        if waited_ns < 0:
            waited_ns = 0
        counters.count_step(record.coroutine, spent_ns)
        count_for(record, spent_ns, waited_ns)
    if is_done(<object>task):
        task_ended(self, task_table, counters, <object>task, handle._context, record, 0, end)
    return 0


cdef int task_ended(
    self, TaskTable task_table, Counters counters, object task, object context, Record *record, int64_t created_ns, int64_t end
) except -1:
    cdef int outcome = CANCELLED if is_cancelled_task(task) else OK if task._exception is None else ERROR
    cdef int64_t run_ns = -1, wait_ns = -1, steps = 0
    if record is not NULL:
        created_ns = record.created_ns
        run_ns, wait_ns, steps = record.run_ns, record.wait_ns, record.steps
        task_table.remove(<PyObject *>task)
    else:
        counters.tasks_created += 1
    counters.tasks_finished[outcome] += 1
    counters.count_waits(counters.task_durations, max(0, end - created_ns))
    if outcome == ERROR or end - created_ns >= counters.slow_task_ns:
        self._obsloop.task_done(self, task, context, outcome, created_ns, end, run_ns, wait_ns, steps)
    return 0

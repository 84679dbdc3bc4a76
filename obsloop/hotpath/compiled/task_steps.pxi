# The compiled twin of `_tally`: read that first. What differs:
#
# * Here there is a record of every live task, and so every task's times and every coroutine's are exact.
# * A task is admitted where its first step is scheduled, whoever made it, and not in `create_task`.
#
# A record is 48 bytes and is found by the task's address, with 4 bytes for each slot of a table that is between two fifths
# and four fifths full. It refers to nothing that it would keep alive.

cdef extern from "Python.h":
    void *PyLong_AsVoidPtr(object o) except? NULL

cdef object current_task = asyncio.current_task


cdef class Group:
    """See ``_tally.Group``."""

    cdef readonly int64_t run_ns, steps
    cdef int64_t low_wait_ns        # many of its tasks may wait at once: a second word, as in `Cells.count_waits`
    cdef int64_t wait_carries
    cdef readonly Group outer

    def __init__(self, Group outer):
        self.outer = outer

    @property
    def wait_ns(self):
        return self.low_wait_ns + (<object>self.wait_carries << CARRY_BITS)


cdef extern from *:
    """
    typedef struct {
        PyObject *task;             /* only its address: it may have died, see `bury` */
        PyObject *group;            /* owned; NULL for none */
        int64_t created_ns;         /* of a free record: the next free one */
        int64_t run_ns;
        int64_t wait_ns;
        uint64_t steps : 48;        /* 32 bits are full after an hour of steps without a pause */
        uint64_t coroutine : 15;
        uint64_t called : 1;        /* of which roll call, see `begin_roll_call` */
    } obsloop_record;
    """
    ctypedef struct Record "obsloop_record":
        PyObject *task
        PyObject *group
        int64_t created_ns
        int64_t run_ns
        int64_t wait_ns
        uint64_t steps
        uint64_t coroutine
        uint64_t called

cdef enum:
    CHUNK_BITS = 10                 # records come in chunks that are never moved
    CHUNK_SIZE = 1 << CHUNK_BITS
    NOBODY = 0xFFFFFFFF


cdef class Tally:
    """See ``_tally.Tally``."""

    cdef Record **chunks
    cdef uint32_t n_chunks, n_live, free
    cdef uint32_t *slots            # 1 + a record's number; 0 where there is none
    cdef uint32_t mask              # slots - 1
    cdef Record *present            # of the task whose step runs
    cdef uint32_t next_coroutine    # what create_task knows of the task that is being made
    cdef int64_t eager_ns           # since when that has been, where it may run at once; 0 where none is made so
    cdef Group eager_group          # and in which group
    cdef PyObject *entered          # the task that asked for a group meanwhile, if it was not known
    cdef int64_t inner_ns           # what such tasks took of the step
    cdef int64_t inner_at_ns        # that began then
    cdef bint roll_call             # which one was the last: they have 0 and 1 in turn

    def __cinit__(self):
        self.free = NOBODY

    def __dealloc__(self):
        self.clear()

    cdef int clear(self) except -1:
        cdef uint32_t i, j
        cdef Record *record
        for i in range(self.n_chunks):
            for j in range(CHUNK_SIZE):
                record = &self.chunks[i][j]
                if record.task is not NULL and record.group is not NULL:
                    Py_DECREF(<object>record.group)
            free(self.chunks[i])
        free(self.chunks)
        free(self.slots)
        self.chunks = NULL
        self.slots = NULL
        self.present = NULL
        self.n_chunks = self.n_live = self.mask = 0
        self.free = NOBODY
        return 0

    cdef inline uint32_t home(self, PyObject *task) noexcept:
        return <uint32_t>((<uint64_t><size_t>task >> 4) * <uint64_t>0x9E3779B97F4A7C15 >> 32) & self.mask

    cdef inline Record *at(self, uint32_t number) noexcept:
        return &self.chunks[number >> CHUNK_BITS][number & (CHUNK_SIZE - 1)]

    cdef inline Record *find(self, PyObject *task) noexcept:
        cdef uint32_t i
        cdef Record *record
        if self.slots is NULL:
            return NULL
        i = self.home(task)
        while self.slots[i]:
            record = self.at(self.slots[i] - 1)
            if record.task == task:
                return record
            i = (i + 1) & self.mask
        return NULL

    cdef int grow(self) except -1:
        """Slots for twice as many."""
        cdef uint32_t n = 2 * (self.mask + 1) if self.slots is not NULL else 256
        cdef uint32_t *old = self.slots
        cdef uint32_t before = self.mask + 1 if old is not NULL else 0
        cdef uint32_t *slots = <uint32_t *>calloc(n, sizeof(uint32_t))
        cdef uint32_t i, j
        if slots is NULL:
            raise MemoryError
        self.slots = slots
        self.mask = n - 1
        for i in range(before):
            if old[i]:
                j = self.home(self.at(old[i] - 1).task)
                while slots[j]:
                    j = (j + 1) & self.mask
                slots[j] = old[i]
        free(old)
        return 0

    cdef int more(self) except -1:
        """One more chunk of free records."""
        cdef Record **chunks
        cdef uint32_t i, first = self.n_chunks << CHUNK_BITS
        chunks = <Record **>realloc(self.chunks, (self.n_chunks + 1) * sizeof(Record *))
        if chunks is NULL:
            raise MemoryError
        self.chunks = chunks
        chunks[self.n_chunks] = <Record *>calloc(CHUNK_SIZE, sizeof(Record))
        if chunks[self.n_chunks] is NULL:
            raise MemoryError
        self.n_chunks += 1
        for i in range(CHUNK_SIZE):
            self.at(first + i).created_ns = first + i + 1
        self.at(first + CHUNK_SIZE - 1).created_ns = self.free
        self.free = first
        return 0

    cdef Record *insert(self, PyObject *task, int64_t created_ns) except NULL:
        cdef uint32_t number, i
        cdef Record *record
        if self.slots is NULL or 5 * <uint64_t>self.n_live >= 4 * <uint64_t>self.mask:
            self.grow()
        if self.free == NOBODY:
            self.more()
        number = self.free
        record = self.at(number)
        self.free = <uint32_t>record.created_ns
        i = self.home(task)
        while self.slots[i]:
            i = (i + 1) & self.mask
        self.slots[i] = number + 1
        self.n_live += 1
        record.task = task
        record.group = NULL
        record.created_ns = created_ns
        record.run_ns = record.wait_ns = 0
        record.steps = record.coroutine = 0
        record.called = self.roll_call
        return record

    cdef int remove(self, PyObject *task) except -1:
        """And close the gap, so that whoever was put past it is found."""
        cdef uint32_t i, j, home, number
        cdef Record *record
        if self.slots is NULL:
            return 0
        i = self.home(task)
        while True:
            if not self.slots[i]:
                return 0
            number = self.slots[i] - 1
            record = self.at(number)
            if record.task == task:
                break
            i = (i + 1) & self.mask
        j = i
        while True:
            j = (j + 1) & self.mask
            if not self.slots[j]:
                break
            home = self.home(self.at(self.slots[j] - 1).task)
            if ((j - home) & self.mask) >= ((j - i) & self.mask):
                self.slots[i] = self.slots[j]
                i = j
        self.slots[i] = 0
        self.n_live -= 1
        if self.present == record:
            self.present = NULL
        group = record.group
        record.task = NULL
        record.group = NULL
        record.steps = 0
        record.created_ns = self.free
        self.free = number
        if not self.n_live and self.n_chunks > 4:
            self.clear()  # there were very many
        if group is not NULL:
            Py_DECREF(<object>group)
        return 0

    # A task that dies pending without asyncio's report (a child of `gather` has it switched off) leaves its record behind.
    # It is found when a new task has its address, or else by a roll call. What has not had a step yet is alive: the loop's
    # queue holds it.

    cdef int bury(self, Cells cells, PyObject *task) except -1:
        """What is known of this address is of a task that has died pending."""
        self.remove(task)
        if cells is not None:
            cells.tasks_finished[ABANDONED] += 1
        return 0

    def begin_roll_call(self):
        self.roll_call = not self.roll_call

    def answer(self, list ids):
        cdef Record *record
        for number in ids:
            record = self.find(<PyObject *>PyLong_AsVoidPtr(number))
            if record is not NULL:
                record.called = self.roll_call

    def end_roll_call(self, loop, Cells cells):
        cdef uint32_t i = 0, j
        cdef Record *record
        while i < self.n_chunks:
            for j in range(CHUNK_SIZE):
                record = &self.chunks[i][j]
                # The task of the step that runs may be done already, and is counted when the step ends.
                if record.task is NULL or record.called == self.roll_call or not record.steps or record == self.present:
                    continue
                self.bury(cells, record.task)
                if not self.n_chunks:  # that was the last one
                    return
            i += 1

    cdef Record *admit(self, Cells cells, PyObject *task, int64_t created_ns) except NULL:
        """A task that has not been seen before."""
        cdef Record *record = self.insert(task, created_ns)
        record.group = self.creators_group()
        if record.group is not NULL:
            Py_INCREF(<object>record.group)
        record.coroutine = self.next_coroutine
        self.next_coroutine = 0
        cells.tasks_created += 1
        return record

    cdef PyObject *creators_group(self) except? NULL:
        """The group of the task that runs, borrowed."""
        cdef Record *record = self.present
        if self.eager_ns:
            task = current_task()
            record = self.find(<PyObject *>task)
            if record is NULL:
                return NULL if self.eager_group is None else <PyObject *>self.eager_group
        return NULL if record is NULL else record.group

    # What `probes.tasks` asks for.

    def live(self):
        return self.n_live

    def oldest_ns(self):
        cdef int64_t oldest = 0
        cdef uint32_t i, j
        cdef Record *record
        for i in range(self.n_chunks):
            for j in range(CHUNK_SIZE):
                record = &self.chunks[i][j]
                if record.task is not NULL and (oldest == 0 or record.created_ns < oldest):
                    oldest = record.created_ns
        return oldest

    def destroyed(self, task, Cells cells):
        if self.find(<PyObject *>task) is not NULL:
            self.bury(cells, <PyObject *>task)

    def close(self, Cells cells):
        if cells is not None:
            cells.tasks_finished[ABANDONED] += self.n_live
        self.clear()

    def times_of(self, task, int64_t start_ns, int64_t ready_ns):
        cdef Record *record = self.find(<PyObject *>task)
        if record is NULL:
            return min(start_ns, ready_ns), 0, 0, 0
        return record.created_ns, record.run_ns, record.wait_ns, record.steps

    def enter(self, task, int64_t start_ns, int64_t ready_ns):
        cdef Record *record = self.find(<PyObject *>task)
        cdef Group group
        if record is NULL:  # an eager task, in its first step: `settle` counts it
            record = self.insert(<PyObject *>task, start_ns)
            record.group = NULL if self.eager_group is None else <PyObject *>self.eager_group
            if record.group is not NULL:
                Py_INCREF(<object>record.group)
            self.entered = <PyObject *>task
        group = Group(None if record.group is NULL else <Group>record.group)
        if record.group is not NULL:
            Py_DECREF(<object>record.group)
        record.group = <PyObject *>group
        Py_INCREF(group)
        return group

    def leave(self, task, Group group):
        cdef Record *record = self.find(<PyObject *>task)
        if record is NULL or record.group != <PyObject *>group:
            return
        record.group = NULL
        if group.outer is not None:
            record.group = <PyObject *>group.outer
            Py_INCREF(group.outer)
        Py_DECREF(group)

    def present_step(self, loop, task, handle):
        cdef State state = state_of(loop)
        cdef int64_t inner_ns
        if state is None or state.cells is None:
            return None
        inner_ns = self.inner(state.cells)
        if state.turn is not None and state.turn.current is not NULL and self.present is not NULL and self.present.task == <PyObject *>task:
            handle = <object>state.turn.current
            return (
                state.cells.tick_ns + inner_ns,
                ((<Handle>handle)._ready_ns if type(handle) is Handle else handle._ready_ns) + inner_ns,
            )
        if not self.eager_ns:
            return None
        cdef Record *record = self.find(<PyObject *>task)
        if record is not NULL and record.created_ns < self.eager_ns and record != self.present:
            self.bury(state.cells, <PyObject *>task)
        return self.eager_ns + inner_ns, self.eager_ns + inner_ns

    def group_of(self, task):
        cdef Record *record = self.find(<PyObject *>task)
        return <object>record.group if record is not NULL and record.group is not NULL else None

    cdef inline int64_t inner(self, Cells cells) noexcept:
        """How much of the present step was eager tasks' first steps."""
        return self.inner_ns if self.inner_at_ns == cells.tick_ns else 0


def tally_of(loop):
    """The tally of ``loop``'s tasks."""
    return own_state(loop).tally if type(getattr(loop, "_obsloop_state", None)) is State else Tally()


cdef extern from *:
    """
    /* The task behind a step's callback: where the C type keeps it, which is tried on a real one first. */
    static inline PyObject *obsloop_first_field(PyObject *step) { return *(PyObject **)(step + 1); }

    /* The code of a coroutine of Python's own, borrowed; NULL for anything else. */
    static inline PyObject *obsloop_code(PyObject *coro) {
        PyObject *code;
        if (!PyCoro_CheckExact(coro)) return NULL;
    #if PY_VERSION_HEX < 0x030C0000
        code = (PyObject *)((PyCoroObject *)coro)->cr_code;
    #elif defined(Py_DEBUG)
        code = PyObject_GetAttrString(coro, "cr_code");
        Py_XDECREF(code);
    #else
        code = (PyObject *)PyGen_GetCode((PyGenObject *)coro);
        Py_XDECREF(code);  /* the coroutine has it */
    #endif
        return code;
    }

    /* What asyncio's C task answers without arguments, called without a look-up; NULL if it is not as known. */
    static PyCFunction obsloop_task_done = NULL, obsloop_task_cancelled = NULL;
    static PyTypeObject *obsloop_task_type = NULL;
    static void obsloop_learn_task(PyObject *type) {
        obsloop_task_done = obsloop_method(type, "done", METH_NOARGS);
        obsloop_task_cancelled = obsloop_method(type, "cancelled", METH_NOARGS);
        if (obsloop_task_done != NULL && obsloop_task_cancelled != NULL) obsloop_task_type = (PyTypeObject *)type;
    }
    /* 1, 0, or -1 with an error set. */
    static inline int obsloop_ask(PyObject *task, PyCFunction method, const char *name) {
        PyObject *answer;
        int yes;
        if (obsloop_task_type != NULL && PyObject_TypeCheck(task, obsloop_task_type)) answer = method(task, NULL);
        else answer = PyObject_CallMethod(task, name, NULL);
        if (answer == NULL) return -1;
        yes = PyObject_IsTrue(answer);
        Py_DECREF(answer);
        return yes;
    }
    static inline int obsloop_is_done(PyObject *task) { return obsloop_ask(task, obsloop_task_done, "done"); }
    static inline int obsloop_is_cancelled(PyObject *task) {
        return obsloop_ask(task, obsloop_task_cancelled, "cancelled");
    }
    """
    PyObject *first_field "obsloop_first_field"(PyObject *step)
    PyObject *code_of "obsloop_code"(PyObject *coro)
    void learn_task "obsloop_learn_task"(object type)
    int is_done "obsloop_is_done"(object task) except -1
    int is_cancelled_task "obsloop_is_cancelled"(object task) except -1

cdef extern from "Python.h":
    PyObject *cfunction_self "PyCFunction_GET_SELF"(object o)
    PyObject *method_self "PyMethod_GET_SELF"(object o)

learn_task(asyncio.Task)

cdef bint step_is_known = False


cdef int learn_step() except -1:
    """Whether the C type of a step has its task as its first field."""
    global step_is_known
    step, task = _cold.a_step()
    step_is_known = type(step) is STEP and getattr(step, "__self__", None) is task and (
        first_field(<PyObject *>step) == <PyObject *>task
    )
    return 0


learn_step()


cdef inline PyObject *task_of(object callback) except? NULL:
    """The task whose step ``callback`` is, borrowed."""
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

cdef PyObject *cached_code[CACHED]  # borrowed: it is kept if it has a number; if not, what is at its address has none
cdef uint32_t cached_number[CACHED]


cdef inline uint32_t number_of(object coro) except? 0:
    """``_coroutines.number_of``, from a table of those that were asked for lately."""
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


cdef enum:
    OK, ERROR, CANCELLED, ABANDONED


cdef inline int scheduled_step(self, State state, Handle handle, object callback) except -1:
    """A step was scheduled with ``call_soon``: it is the first one of a task that is not known."""
    cdef PyObject *task = task_of(callback)
    cdef Record *record
    if state.tally.present is not NULL and state.tally.present.task == task:
        return 0  # it goes on by itself: sleep(0)
    if task is NULL:
        return 0
    record = state.tally.find(task)
    if record is not NULL:
        if not record.steps or (not state.tally.next_coroutine and _coroutines.begun(<object>task)):
            return 0
        state.tally.bury(state.cells if state.cells is not None else self._obsloop.cells, task)
    if state.cells is not None:  # else the loop does not run, and counts it when it begins
        state.tally.admit(state.cells, task, handle._ready_ns)
        handle._kind = FIRST_STEP
    return 0


cdef inline bint step_begins(State state, Cells cells, object callback, int64_t ready_ns) except -1:
    """A task's step is about to run. Returns whether it is the first one of a task that was not known."""
    cdef Tally tally = state.tally
    cdef PyObject *task = task_of(callback)
    if task is NULL:
        return 0
    tally.present = NULL
    cdef Record *record = tally.find(task)
    cdef bint first = record is NULL
    if record is NULL:
        record = tally.admit(cells, task, ready_ns)
    if not record.coroutine:
        record.coroutine = _coroutines.number_of_task(<object>task)
    tally.present = record
    return first and type(callback) is STEP


cdef int leave_tasks(State state, Cells outer_cells, PyObject *outer_task) except -1:
    """``run_once`` returns; it may have been called by a task's step."""
    state.cells = outer_cells
    state.tally.present = NULL if outer_task is NULL else state.tally.find(outer_task)
    return 0


cdef inline int count_for(Record *record, int64_t spent_ns, int64_t waited_ns) except -1:
    record.run_ns += spent_ns
    record.wait_ns += waited_ns
    record.steps += 1
    if record.group is not NULL:
        add_to(<Group>record.group, spent_ns, waited_ns)
    return 0


cdef int add_to(Group group, int64_t spent_ns, int64_t waited_ns) except -1:
    while group is not None:
        group.run_ns += spent_ns
        group.low_wait_ns += waited_ns
        if group.low_wait_ns >> CARRY_BITS:
            group.low_wait_ns -= <int64_t>1 << CARRY_BITS
            group.wait_carries += 1
        group.steps += 1
        group = group.outer
    return 0


cdef inline int step_ended(self, State state, Cells cells, Handle handle, object callback, int64_t start, int64_t end) except -1:
    """It has returned, or raised. ``callback`` keeps the task alive."""
    cdef Tally tally = state.tally
    cdef PyObject *task = task_of(callback)
    cdef Record *record = tally.present
    cdef int64_t waited_ns, spent_ns = end - start - tally.inner(cells)
    tally.present = NULL
    if task is NULL:
        return 0
    if record is NULL or record.task != task:
        record = tally.find(task)
    if record is not NULL:
        waited_ns = start - handle._ready_ns
        if waited_ns < 0:
            waited_ns = 0
        cells.count_step(record.coroutine, spent_ns)
        count_for(record, spent_ns, waited_ns)
    if is_done(<object>task):
        task_ended(self, tally, cells, <object>task, handle._context, record, 0, end)
    return 0


cdef int task_ended(
    self, Tally tally, Cells cells, object task, object context, Record *record, int64_t created_ns, int64_t end
) except -1:
    cdef int outcome = CANCELLED if is_cancelled_task(task) else OK if task._exception is None else ERROR
    cdef int64_t run_ns = -1, wait_ns = -1, steps = 0
    if record is not NULL:
        created_ns = record.created_ns
        run_ns, wait_ns, steps = record.run_ns, record.wait_ns, record.steps
        tally.remove(<PyObject *>task)
    else:
        cells.tasks_created += 1
    cells.tasks_finished[outcome] += 1
    cells.count_waits(cells.task_durations, max(0, end - created_ns))
    if outcome == ERROR or end - created_ns >= cells.slow_task_ns:
        self._obsloop.task_done(self, task, context, outcome, created_ns, end, run_ns, wait_ns, steps)
    return 0


cdef object STOCK_CREATE_TASK = private_base_events.BaseEventLoop.create_task


cdef object create_otherwise(self, State state, coro, dict kwargs):
    """By the program's factory, in debug mode, or eagerly: then its first step is over when there is a task."""
    cdef Tally tally = state.tally
    cdef Cells cells = state.cells
    cdef int64_t before_ns = now_ns(), eager_ns = tally.eager_ns, inner_ns = 0, spent_ns
    cdef PyObject *entered = tally.entered
    cdef uint32_t number = 0
    if cells is None:
        return STOCK_CREATE_TASK(self, coro, **kwargs)
    if code_of(<PyObject *>coro) is not NULL:
        number = number_of(coro)
    cdef Group eager_group = tally.eager_group
    cdef PyObject *group = tally.creators_group()
    tally.eager_group = None if group is NULL else <Group>group
    inner_ns = tally.inner(cells)
    tally.inner_ns = 0
    tally.inner_at_ns = cells.tick_ns
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
        tally.inner_ns, inner_ns = inner_ns, tally.inner(cells)
    if is_task(task):
        settle(self, state, task, number, before_ns, spent_ns, inner_ns)
    tally.entered = entered
    return task


cdef int settle(
    self, State state, object task, uint32_t number, int64_t before_ns, int64_t spent_ns, int64_t inner_ns
) except -1:
    """What of it has not been counted when it was scheduled. ``inner_ns``: what eager tasks of its own took."""
    cdef Tally tally = state.tally
    cdef Cells cells = state.cells
    cdef Record *record = tally.find(<PyObject *>task)
    cdef bint entered = tally.entered == <PyObject *>task
    cdef PyObject *group
    if record is not NULL and not entered:
        if record.created_ns >= before_ns:
            record.coroutine = number
            return 0
        tally.bury(cells, <PyObject *>task)
        record = NULL
    tally.inner_ns += spent_ns
    cells.count_step(number, spent_ns - inner_ns)
    if entered and record is not NULL:
        cells.tasks_created += 1
        record.coroutine = number
    elif not is_done(task):
        tally.next_coroutine = number
        record = tally.admit(cells, <PyObject *>task, before_ns)
    if record is not NULL:
        record.created_ns = before_ns
        count_for(record, spent_ns - inner_ns, 0)
    else:
        group = tally.creators_group()
        if group is not NULL:
            add_to(<Group>group, spent_ns - inner_ns, 0)
    if is_done(task):
        task_ended(self, tally, cells, task, None, record, before_ns, now_ns())
    return 0


cdef inline object created(self, State state, object task):
    if state.cells is not None and not state.cells.tasks_created & CREATED_MASK:
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

# One record for each live task, so every task's times are exact. A record is 48 bytes and does not keep its task alive.
# It is found by the task's address, in a table with 4 bytes per slot that is between two and four fifths full.
# The twin of `obsloop/hotpath/pure/task_table.py`, which has no records: read that first.

cdef object current_task = asyncio.current_task


cdef class Measurement:
    """See ``pure.task_table.Measurement``."""

    def __init__(self, Measurement outer):
        self.outer = outer

    @property
    def wait_ns(self):
        return self.low_wait_ns + (<object>self.wait_carries << CARRY_BITS)


cdef enum:
    CHUNK_BITS = 10                 # records come in chunks that are never moved
    CHUNK_SIZE = 1 << CHUNK_BITS
    NO_RECORD = 0xFFFFFFFF


cdef class TaskTable:
    """See ``pure.task_table.TaskTable``."""

    def __cinit__(self):
        self.free = NO_RECORD

    def __dealloc__(self):
        self.clear()

    cdef int clear(self) except -1:
        cdef uint32_t i, j
        cdef Record *record
        for i in range(self.n_chunks):
            for j in range(CHUNK_SIZE):
                record = &self.chunks[i][j]
                if record.task is not NULL and record.measurement is not NULL:
                    Py_DECREF(<object>record.measurement)
            free(self.chunks[i])
        free(self.chunks)
        free(self.slots)
        self.chunks = NULL
        self.slots = NULL
        self.present = NULL
        self.n_chunks = self.n_live = self.mask = 0
        self.free = NO_RECORD
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
        """Double the number of slots."""
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
        """Add a chunk of free records."""
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
        if self.free == NO_RECORD:
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
        record.measurement = NULL
        record.created_ns = created_ns
        record.run_ns = record.wait_ns = 0
        record.steps = record.coroutine = 0
        record.called = self.roll_call
        return record

    cdef int remove(self, PyObject *task) except -1:
        """Remove a task, and close the gap, so that the tasks stored after it are still found."""
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
        measurement = record.measurement
        record.task = NULL
        record.measurement = NULL
        record.steps = 0
        record.created_ns = self.free
        self.free = number
        if not self.n_live and self.n_chunks > 4:
            self.clear()  # there were many
        if measurement is not NULL:
            Py_DECREF(<object>measurement)
        return 0

    # A task may die pending without asyncio's report (a child of `gather` has it switched off). Then its record remains
    # until a new task at its address or a roll call finds it. A task that has not had a step yet is alive: the loop's
    # queue holds it.

    cdef int bury(self, Counters counters, PyObject *task) except -1:
        """Remove the record at this address: its task has died pending."""
        self.remove(task)
        if counters is not None:
            counters.tasks_finished[ABANDONED] += 1
        return 0

    def begin_roll_call(self):
        self.roll_call = not self.roll_call

    def answer(self, list ids):
        cdef Record *record
        for number in ids:
            record = self.find(<PyObject *>PyLong_AsVoidPtr(number))
            if record is not NULL:
                record.called = self.roll_call

    def end_roll_call(self, loop, Counters counters):
        cdef uint32_t i = 0, j
        cdef Record *record
        while i < self.n_chunks:
            for j in range(CHUNK_SIZE):
                record = &self.chunks[i][j]
                # The running task may be done already. It is counted when its step ends.
                if record.task is NULL or record.called == self.roll_call or not record.steps or record == self.present:
                    continue
                self.bury(counters, record.task)
                if not self.n_chunks:  # that was the last record
                    return
            i += 1

    cdef Record *admit(self, Counters counters, PyObject *task, int64_t created_ns) except NULL:
        """Add a task that has not been seen before."""
        cdef Record *record = self.insert(task, created_ns)
        record.measurement = self.creators_group()
        if record.measurement is not NULL:
            Py_INCREF(<object>record.measurement)
        record.coroutine = self.next_coroutine
        self.next_coroutine = 0
        counters.tasks_created += 1
        return record

    cdef PyObject *creators_group(self) except? NULL:
        """Return the measurement of the running task, borrowed."""
        cdef Record *record = self.present
        if self.eager_ns:
            task = current_task()
            record = self.find(<PyObject *>task)
            if record is NULL:
                return NULL if self.eager_measurement is None else <PyObject *>self.eager_measurement
        return NULL if record is NULL else record.measurement

    # For `probes.tasks`.

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

    def destroyed(self, task, Counters counters):
        if self.find(<PyObject *>task) is not NULL:
            self.bury(counters, <PyObject *>task)

    def close(self, Counters counters):
        if counters is not None:
            counters.tasks_finished[ABANDONED] += self.n_live
        self.clear()

    def times_of(self, task, int64_t start_ns, int64_t ready_ns):
        cdef Record *record = self.find(<PyObject *>task)
        if record is NULL:
            return min(start_ns, ready_ns), 0, 0, 0
        return record.created_ns, record.run_ns, record.wait_ns, record.steps

    def enter(self, task, int64_t start_ns, int64_t ready_ns):
        cdef Record *record = self.find(<PyObject *>task)
        cdef Measurement measurement
        if record is NULL:  # an eager task in its first step: `settle` counts it
            record = self.insert(<PyObject *>task, start_ns)
            record.measurement = NULL if self.eager_measurement is None else <PyObject *>self.eager_measurement
            if record.measurement is not NULL:
                Py_INCREF(<object>record.measurement)
            self.entered = <PyObject *>task
        measurement = Measurement(None if record.measurement is NULL else <Measurement>record.measurement)
        if record.measurement is not NULL:
            Py_DECREF(<object>record.measurement)
        record.measurement = <PyObject *>measurement
        Py_INCREF(measurement)
        return measurement

    def leave(self, task, Measurement measurement):
        cdef Record *record = self.find(<PyObject *>task)
        if record is NULL or record.measurement != <PyObject *>measurement:
            return
        record.measurement = NULL
        if measurement.outer is not None:
            record.measurement = <PyObject *>measurement.outer
            Py_INCREF(measurement.outer)
        Py_DECREF(measurement)

    def present_step(self, loop, task, handle):
        cdef State state = state_of(loop)
        cdef int64_t inner_ns
        if state is None or state.counters is None:
            return None
        inner_ns = self.inner(state.counters)
        if state.turn is not None and state.turn.current is not NULL and self.present is not NULL and self.present.task == <PyObject *>task:
            handle = <object>state.turn.current
            return (
                state.counters.tick_ns + inner_ns,
                ((<Handle>handle)._ready_ns if type(handle) is Handle else handle._ready_ns) + inner_ns,
            )
        if not self.eager_ns:
            return None
        cdef Record *record = self.find(<PyObject *>task)
        if record is not NULL and record.created_ns < self.eager_ns and record != self.present:
            self.bury(state.counters, <PyObject *>task)
        return self.eager_ns + inner_ns, self.eager_ns + inner_ns

    def measurement_of(self, task):
        cdef Record *record = self.find(<PyObject *>task)
        return <object>record.measurement if record is not NULL and record.measurement is not NULL else None

    cdef inline int64_t inner(self, Counters counters) noexcept:
        """Return how much of the present step went to the first steps of eager tasks."""
        return self.inner_ns if self.inner_at_ns == counters.tick_ns else 0


def task_table_of(loop):
    """Return the table of ``loop``'s tasks."""
    return own_state(loop).task_table if type(getattr(loop, "_obsloop_state", None)) is State else TaskTable()

# The handles: asyncio's, with the kind of callback and the time when it became ready; and the call of the callback.
# The twin of `obsloop/hotpath/pure/handles.py`: read that first.

cdef object BaseHandle = asyncio.Handle
cdef object BaseTimerHandle = asyncio.TimerHandle
cdef object allocate_lock = _thread.allocate_lock
cdef object STOCK_RUN = _patched.STOCK
cdef object STOCK_RUN_CODE = _patched.CODE


cdef bint patched_now() except -1:
    """Return whether ``asyncio.Handle._run`` is another tool's at present; see ``patched.is_patched``."""
    if STOCK_RUN is not None and BaseHandle._run is STOCK_RUN and STOCK_RUN.__code__ is STOCK_RUN_CODE:
        return False
    return _patched.is_patched()


@cython.freelist(1024)
cdef class Handle:
    """``asyncio.Handle`` with its kind and the time when it became ready, in monotonic nanoseconds."""

    def __init__(self, callback, args, loop, context=None):
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = PyContext_CopyCurrent() if context is None else context

    @property
    def __class__(self):
        return BaseHandle

    def _repr_info(self):
        return BaseHandle._repr_info(self)

    def __repr__(self):
        return self._repr if self._repr is not None else "<{}>".format(" ".join(self._repr_info()))

    def cancel(self):
        if not self._cancelled:
            self._cancelled = True
            if self._loop.get_debug():
                self._repr = repr(self)
            self._callback = None
            self._args = None

    def cancelled(self):
        return self._cancelled

    def get_context(self):
        return self._context

    def _run(self):
        if patched_now():
            BaseHandle._run(self)
        else:
            run_handle(self)


cdef class TimerHandle(Handle):
    """``asyncio.TimerHandle`` with the time when it became ready; before that, the earliest time at which it can."""

    def __init__(self, when, callback, args, loop, context=None):
        Handle.__init__(self, callback, args, loop, context)
        self._kind = TIMER
        self._when = when

    @property
    def _when(self):
        return self.when_

    @_when.setter
    def _when(self, when):
        self.due = when
        self.when_ = when

    @property
    def __class__(self):
        return BaseTimerHandle

    def _repr_info(self):
        info = BaseHandle._repr_info(self)
        info.insert(2 if self._cancelled else 1, f"when={self._when}")
        return info

    def __hash__(self):
        return hash(self._when)

    def __richcmp__(self, other, int op):
        cdef TimerHandle a, b
        if op == Py_LT and type(other) is TimerHandle:
            a = self
            b = other
            return a.due < b.due
        if not isinstance(other, BaseTimerHandle):
            return NotImplemented
        if op == Py_LT:
            return self._when < other._when
        if op == Py_GT:
            return self._when > other._when
        same = (
            self._when == other._when and self._callback == other._callback
            and self._args == other._args and self._cancelled == other._cancelled
        )
        if op == Py_EQ:
            return same
        if op == Py_NE:
            return not same
        if op == Py_LE:
            return self._when < other._when or same
        return self._when > other._when or same

    def when(self):
        return self._when

    def cancel(self):
        cdef State state
        if not self._cancelled and self._scheduled:
            state = state_of(self._loop)
            if state is None:
                self._loop._timer_handle_cancelled(self)
            else:
                state.timer_cancelled_count += 1
        Handle.cancel(self)


cdef bint locks = _cold.LockedHandle is not None
cdef object BaseLockedHandle = _cold.LockedHandle


@cython.freelist(1024)
cdef class ThreadSafeHandle(Handle):
    """asyncio's handle of ``call_soon_threadsafe`` since 3.14: other threads wait while its callback runs.

    asyncio's has a lock from the beginning. This one gets a lock when another thread has to wait, which is rare. The GIL
    protects ``runner`` and ``waiting``.
    """

    @property
    def __class__(self):
        return BaseLockedHandle

    def cancel(self):
        wait_until_run(self)
        Handle.cancel(self)

    def cancelled(self):
        wait_until_run(self)
        return self._cancelled

    def _run(self):
        run_locked(self, patched_now())


cdef int wait_until_run(ThreadSafeHandle handle) except -1:
    """Wait while another thread runs the handle's callback."""
    while handle.runner and handle.runner != PyThread_get_thread_ident():
        lock = handle.waiting
        if lock is None:
            lock = allocate_lock()
            lock.acquire()
            if not handle.runner or handle.waiting is not None:  # a collection of garbage has let another thread run
                continue
            handle.waiting = lock
        with lock:
            pass
    return 0


cdef int run_locked(ThreadSafeHandle handle, bint patched) except -1:
    """Run the handle as ``_ThreadSafeHandle._run`` does: the lock is held while an error is reported, too."""
    cdef unsigned long before
    wait_until_run(handle)
    if handle._cancelled:
        return 0
    before = handle.runner
    handle.runner = PyThread_get_thread_ident()
    try:
        if patched:
            BaseHandle._run(handle)
        else:
            run_handle(handle)
    finally:
        handle.runner = before
        if not before and handle.waiting is not None:
            lock, handle.waiting = handle.waiting, None
            lock.release()
    return 0


_marks.own_handles.update((Handle, TimerHandle, ThreadSafeHandle))

cdef object STEP = _kinds.STEP
cdef object FUNCTION = type(lambda: None)
cdef object BUILTIN = type(len)  # the type of a C task's wake-up, which is never its first step
cdef object PY_STEP = _kinds.PY_STEPS[0]
cdef object PY_WAKEUP = _kinds.PY_STEPS[1]
cdef object report = _cold.report


cdef inline int kind_of(object callback) except -1:
    """Return ``TASK_STEP`` for a task's step or wake-up, C or Python, else ``CALLBACK``; see ``kinds.kind_of``."""
    global wakeup
    cdef PyObject *function
    if type(callback) is STEP:
        return TASK_STEP
    if type(callback) is FUNCTION:
        return CALLBACK
    if PyCFunction_CheckExact(callback):
        if wakeup is NULL:
            if _kinds.kind_of(callback) != TASK_STEP:
                return CALLBACK
            wakeup = cfunction_of(callback)
        return TASK_STEP if cfunction_of(callback) == wakeup else CALLBACK
    if PyMethod_Check(callback):
        function = method_function(callback)
        if function == <PyObject *>PY_STEP or function == <PyObject *>PY_WAKEUP:
            return TASK_STEP
    return CALLBACK


# The C function behind a C task's wake-up; known after the first wake-up.
cdef PyCFunction wakeup = NULL


cdef Handle new_handle(loop, callback, args, context, int kind):
    cdef Handle handle = Handle.__new__(Handle)
    handle._callback = callback
    handle._args = args
    handle._loop = loop
    handle._context = PyContext_CopyCurrent() if context is None else context
    handle._kind = kind
    return handle


cdef inline int call(Handle handle) except -1:
    """Call the callback in its context."""
    # Keep references here: the callback may cancel its own handle.
    callback = handle._callback
    args = handle._args
    context = handle._context
    cdef PyObject *result
    if not PyContext_CheckExact(context):
        context.run(callback, *args)
        return 0
    if not PyTuple_CheckExact(args):
        args = tuple(args)
    PyContext_Enter(context)
    if PyTuple_GET_SIZE(args) == 0:
        result = PyObject_CallNoArgs(<PyObject *>callback)
    else:
        result = PyObject_Vectorcall(
            <PyObject *>callback, PySequence_Fast_ITEMS(<PyObject *>args), PyTuple_GET_SIZE(args), NULL
        )
    return leave_context(context, result)


cdef int run_handle(Handle handle) except -1:
    """Run the handle as ``Handle._run`` does."""
    try:
        call(handle)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        report(handle._loop, handle, exc)
    return 0

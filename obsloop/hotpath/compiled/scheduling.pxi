# What puts a handle onto the loop: `call_soon`, the timers, the readers and writers.
# The twin of `obsloop/hotpath/pure/scheduling.py`: read that first.

learn_deque(deque)


cdef object heappush = heapq.heappush
cdef object heappop = heapq.heappop
cdef object caller_stack = _cold.caller_stack


def call_soon(self, callback, *args, context=None):
    """Schedule as ``loop.call_soon`` does: the handle is ready now."""
    cdef State state = own_state(self)
    cdef Handle handle
    if state.closed or state.debug:
        self._check_call(callback, "call_soon")
    handle = new_handle(self, callback, args, context, kind_of(callback))
    if state.debug:
        handle._source_traceback = caller_stack(1)
    if state.running:
        hide(handle)
    handle._ready_ns = now_ns()
    if handle._kind == TASK_STEP and type(callback) is not BUILTIN:
        scheduled_step(self, state, handle, callback)
    queue_append(state.ready, handle)
    return handle


def call_soon_threadsafe(self, callback, *args, context=None):
    """Schedule as ``loop.call_soon_threadsafe`` does: the handle is ready now, by the calling thread's clock."""
    cdef State state = own_state(self)
    cdef Handle handle
    if state.closed:
        self._check_closed()
    if state.debug:
        self._check_callback(callback, "call_soon_threadsafe")
    handle = ThreadSafeHandle.__new__(ThreadSafeHandle) if locks else Handle.__new__(Handle)
    handle._callback = callback
    handle._args = args
    handle._loop = self
    handle._context = PyContext_CopyCurrent() if context is None else context
    handle._kind = THREADSAFE
    if state.debug:
        handle._source_traceback = caller_stack(1)
    handle._ready_ns = now_ns()
    queue_append(state.ready, handle)
    wake(self, state)
    return handle


def call_later(self, delay, callback, *args, context=None):
    """Schedule as ``loop.call_later`` does: ready at ``when``. A negative delay means now."""
    if delay is None:
        raise TypeError("delay must not be None")
    method = self.call_at
    if not PyMethod_Check(method) or method_function(method) != <PyObject *>own_call_at:
        # asyncio's call_later goes through call_at
        return method(self.time() + delay, callback, *args, context=context)
    cdef double seconds, now = loop_time(own_state(self), self)
    if type(delay) is float:  # nearly always, and then no objects are needed
        seconds = delay
        return schedule(self, now + seconds, callback, args, context, 0 if seconds >= 0 else now_ns())
    when = now + delay  # may be of the program's own type: asyncio only needs this sum
    return schedule(self, when, callback, args, context, 0 if when >= now else now_ns())


def call_at(self, when, callback, *args, context=None):
    """Schedule as ``loop.call_at`` does: ready at ``when``. A time in the past means now."""
    if when is None:
        raise TypeError("when cannot be None")
    return schedule(self, when, callback, args, context, now_ns())


cdef object own_call_at = call_at


cdef object schedule(self, when, callback, args, context, int64_t not_before_ns):
    cdef State state = own_state(self)
    if state.closed or state.debug:
        self._check_call(callback, "call_at")
    cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
    handle._callback = callback
    handle._args = args
    handle._loop = self
    handle._context = PyContext_CopyCurrent() if context is None else context
    handle._kind = TIMER
    handle._ready_ns = not_before_ns
    handle.due = when
    handle.when_ = when
    handle._scheduled = True
    if state.debug:
        handle._source_traceback = caller_stack(1)
    heappush(state.scheduled, handle)
    return handle


def add_reader(self, fd, callback, *args, context=None):
    """Watch ``fd`` as ``loop._add_reader`` does, with a handle that ``run_once`` stamps when a poll returns it."""
    return watch(self, fd, 1, callback, args, context)


def add_writer(self, fd, callback, *args, context=None):
    """Watch ``fd`` as ``loop._add_writer`` does, with a handle that ``run_once`` stamps when a poll returns it."""
    return watch(self, fd, 2, callback, args, context)


def remove_reader(self, fd):
    """Stop watching ``fd`` as ``loop._remove_reader`` does."""
    return unwatch(self, fd, 1)


def remove_writer(self, fd):
    """Stop watching ``fd`` as ``loop._remove_writer`` does."""
    return unwatch(self, fd, 2)


cdef object EPOLL = getattr(selectors, "EpollSelector", None)
cdef object SELECTOR_KEY = selectors.SelectorKey
cdef object STOCK_REGISTER = getattr(EPOLL, "register", None)
cdef object STOCK_UNREGISTER = getattr(EPOLL, "unregister", None)
cdef object SELECTOR_KEY_NEW = tuple.__new__
cdef dict EPOLL_EVENTS = {1: 1, 2: 4}  # EPOLLIN, EPOLLOUT


cdef inline dict keys_of(selector, fd):
    """Return the standard epoll selector's table of keys; None for any other selector, and for odd descriptors."""
    if type(selector) is not EPOLL or type(fd) is not int or selector.get_map() is None:
        return None
    keys = selector._fd_to_key
    return keys if type(keys) is dict else None


cdef object watch(self, fd, int event, callback, args, context):
    cdef State state = own_state(self)
    if state.closed:
        self._check_closed()
    cdef Handle handle = new_handle(self, callback, args, context, READER if event == 1 else WRITER)
    selector = self._selector
    cdef dict keys = keys_of(selector, fd)
    key = keys.get(fd) if keys is not None else _cold.registered(selector, fd)
    if state.debug:
        handle._source_traceback = caller_stack(1)
    if key is None:
        data = (handle, None) if event == 1 else (None, handle)
        method = selector.register
        if keys is None or fd < 0 or not PyMethod_Check(method) or method_function(method) != <PyObject *>STOCK_REGISTER:
            method(fd, event, data)
        else:  # what the method does, without its six Python functions
            keys[fd] = SELECTOR_KEY_NEW(SELECTOR_KEY, (fd, fd, event, data))
            try:
                selector._selector.register(fd, EPOLL_EVENTS[event])
            except BaseException:
                keys.pop(fd, None)
                raise
    else:
        reader, writer = key.data
        if event == 1:
            replaced, data = reader, (handle, writer)
        else:
            replaced, data = writer, (reader, handle)
        selector.modify(fd, key.events | event, data)
        if replaced is not None:
            replaced.cancel()
    return handle


cdef object unwatch(self, fd, int event):
    cdef State state = own_state(self)
    if state.closed:
        return False
    selector = self._selector
    cdef dict keys = keys_of(selector, fd)
    key = keys.get(fd) if keys is not None else _cold.registered(selector, fd)
    if key is None:
        return False
    reader, writer = key.data
    removed, data = (reader, (None, writer)) if event == 1 else (writer, (reader, None))
    mask = key.events & ~event
    if mask:
        selector.modify(fd, mask, data)
    else:
        method = selector.unregister
        if keys is None or not PyMethod_Check(method) or method_function(method) != <PyObject *>STOCK_UNREGISTER:
            method(fd)
        else:
            del keys[fd]
            try:
                selector._selector.unregister(fd)
            except OSError:  # the descriptor is closed
                pass
    if removed is None:
        return False
    removed.cancel()
    return True


def create_future(self):
    """Create a Future object attached to the loop."""
    return futures.Future(loop=self)


def get_debug(self):
    """Return whether the loop is in debug mode."""
    return own_state(self).debug

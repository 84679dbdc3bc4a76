"""The hot path: what happens for every callback, in one place. This is the copy to read; the compiled core has a twin.

This file holds only what runs per handle or per iteration. The functions that take ``self`` are methods:
``loop.loop.Loop`` takes them as they are. Before they are used, ``base.asyncio_check`` checks what they need of
CPython's own loop.

How time is taken: a handle is stamped when it becomes ready (``_ready_ns``). The end of one callback is the start of
the next, so one clock read gives both the duration of this one and the delay of the next.
"""

from __future__ import annotations

import heapq
import math
import selectors
import sys
from bisect import bisect_left
from typing import Any

from obsloop.base.asyncio_private import Handle as _BaseHandle, private_base_events, private_selector_events
from obsloop.base.clock import monotonic_ns
from obsloop.hotpath.cold_path import enter, is_plain_epoll, leave, rebuild_heap, report, run_in_debug
from obsloop.hotpath.marks import marks, own_handles
from obsloop.hotpath.observer import CHUNK, in_chunks, notable, slow_iteration
from obsloop.hotpath.patched import is_patched
from obsloop.hotpath.pure.handles import LOCKED, Handle, TimerHandle, exact_type
from obsloop.hotpath.pure.task_steps import SAMPLED, count_step, ended, sample, step
from obsloop.hotpath.pure.task_table import CANCELLED, OK
from obsloop.metrics.buckets import COUNTS, SECONDS
from obsloop.metrics.counters import (
    FAST_NS,
    IN_CALLBACK,
    IN_IDLE,
    IN_OVERHEAD,
    IN_POLL,
    READER,
    TASK_STEP,
    TIMER,
    WRITER,
)

# The bucket of a duration: below FAST_NS (16 us) one look-up in a table; below _COARSE (17 ms) a look-up by
# microseconds, which holds 0 where a bound lies within the microsecond; else a bisection. All results are one higher
# than the bucket, since cell 0 is the sum.
_COARSE = 1 << 24
_INDEX: list[int] = [i + 1 for i in SECONDS.fast_index(FAST_NS)]
_DEPTH_INDEX: list[int] = [i + 1 for i in COUNTS.fast_index(FAST_NS)]
_BOUNDS_NS: list[int] = [-1, *SECONDS.bounds]
_COARSE_INDEX: list[int] = SECONDS.coarse_index(_COARSE, 10)
_DEPTH_BOUNDS = [-1, *COUNTS.bounds]

# base_events' rule for when to rebuild the heap instead of waiting until cancelled timers reach its top.
_MIN_SCHEDULED = private_base_events._MIN_SCHEDULED_TIMER_HANDLES
_MIN_CANCELLED_FRACTION = private_base_events._MIN_CANCELLED_TIMER_HANDLES_FRACTION
_MAX_TIMEOUT = private_base_events.MAXIMUM_SELECT_TIMEOUT
_MAX_LATE = 1e9  # seconds: a timer later than this never had a due time

_PROCESS_EVENTS = private_selector_events.BaseSelectorEventLoop._process_events
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_NOT_EPOLLIN, _NOT_EPOLLOUT = ~1, ~4  # EPOLLIN, EPOLLOUT: an error or hang-up counts as both, as in selectors

_COUNTED: Any = object()
"""Replaces the callback (a task's step) once that task has been counted as finished."""


# ---- the iteration ---------------------------------------------------------------------------------------------------


def run_once(self: Any) -> None:
    """Run one iteration as ``loop._run_once``: poll, then call what is ready.

    If obsloop's ``run_forever`` called it, go on until the loop stops. The rules are base_events': it calls everything
    that is ready at the start of the batch; what callbacks schedule waits for the next iteration. Callbacks are called
    and timed only here.
    """
    obs = self._obsloop
    many, obs.iterating = obs.iterating, False
    counters = obs.counters or obs.lease(self)
    clock_ns = monotonic_ns
    durations, delays = counters.durations, counters.delays
    poll_cells, depth_cells = counters.poll, counters.depth
    iteration_cells, iteration_ns = counters.iteration, counters.iteration_ns
    ready = self._ready
    popleft, append = ready.popleft, ready.append
    index, fast, locked, run = _INDEX, counters.fast_ns, LOCKED, None
    coarse_index = _COARSE_INDEX
    began = kind = ready_ns = 0
    task: Any = None
    task_table = obs.tasks
    created, timed, step_kind, left = task_table.created, task_table._timed, TASK_STEP, SAMPLED
    finished, task_cells = counters.tasks_finished, counters.task_durations
    callback: Any = None
    own_class, type_of, counted = Handle, exact_type, _COUNTED
    i: int
    j: int
    start: int
    waited_ns: int
    age_ns: int
    handle: Any = None
    selector: Any = None
    fd_to_key: Any = None
    found: Any = ()
    straight = False
    outer = enter(self, counters)
    try:
        not_before_ns = counters.run_started_ns
        while True:
            scheduled = self._scheduled
            if len(scheduled):
                if (
                    self._timer_cancelled_count > len(scheduled) * _MIN_CANCELLED_FRACTION
                    and len(scheduled) > _MIN_SCHEDULED
                ):
                    scheduled = rebuild_heap(self, scheduled)
                else:
                    while scheduled and scheduled[0]._cancelled:
                        self._timer_cancelled_count -= 1
                        heapq.heappop(scheduled)._scheduled = False

            if self._ready is not ready:  # other code has put another queue in its place
                ready = self._ready
                popleft, append = ready.popleft, ready.append
            timeout: float | None = 0
            waiting = len(ready)
            if not (waiting or self._stopping):
                timeout = min(max(0, scheduled[0]._when - self.time()), _MAX_TIMEOUT) if scheduled else None
            # Where the loop is about to wait anyway, it also checks whether a method has been replaced.
            if self._selector is not selector or timeout != 0:
                selector = self._selector
                inline_events = getattr(self._process_events, "__func__", None) is _PROCESS_EVENTS
                straight = inline_events and is_plain_epoll(selector)
                fast = counters.fast_ns
                run = None
            if _BaseHandle._run is not run:
                run = _BaseHandle._run
                locked = 0 if is_patched() else LOCKED  # 0: `handle._run` calls every callback

            # The poll. With the standard epoll selector call the epoll object itself, by the same rules.
            now_ns = clock_ns()
            if began:
                spent_ns = now_ns - began
                if spent_ns < fast:
                    i = index[spent_ns]
                else:
                    if spent_ns >= counters.slow_iteration_ns:
                        now_ns = slow_iteration(self, counters, began, now_ns)
                        timeout = 0  # a listener may have scheduled something
                    # Polls within a callback began iterations of their own; only the last of these is still open.
                    spent_ns = now_ns - (counters.began_ns or began)
                    i = bisect_left(_BOUNDS_NS, spent_ns)
                iteration_ns[i] += spent_ns
                iteration_cells[i] += 1
                began = 0
            counters.state = IN_POLL if timeout == 0 else IN_IDLE
            counters.tick_ns = now_ns
            if straight:
                if timeout:
                    timeout = math.ceil(timeout * 1e3) * 1e-3  # epoll's resolution: late rather than early
                fd_to_key = selector._fd_to_key
                try:
                    found = selector._selector.poll(timeout, len(fd_to_key) or 1)
                except InterruptedError:
                    found = ()
            else:
                found = selector.select(timeout)
            began = clock_ns()
            spent_ns = began - now_ns
            if timeout == 0:
                i = index[spent_ns] if spent_ns < fast else bisect_left(_BOUNDS_NS, spent_ns)
                poll_cells[0] += spent_ns
                poll_cells[i] += 1
            else:
                counters.idle_ns += spent_ns
                counters.waits += 1
            counters.state = IN_OVERHEAD
            counters.tick_ns = counters.began_ns = began

            if type_of(found) is list and found:  # a selector of the program's may return any iterable
                counters.events += len(found)
                if timeout == 0:
                    counters.events_waiting += len(found)
                if straight:
                    for fd, event in found:
                        key = fd_to_key.get(fd)
                        if key is None:
                            continue
                        mask = key.events
                        reader, writer = key.data
                        if reader is not None and event & _NOT_EPOLLOUT and mask & _READ:
                            if reader._cancelled:
                                self._remove_reader(key.fileobj)
                            else:
                                if type(reader) is Handle:
                                    reader._ready_ns = began
                                else:
                                    obs.stamp(reader, READER, began)
                                append(reader)
                        if writer is not None and event & _NOT_EPOLLIN and mask & _WRITE:
                            if writer._cancelled:
                                self._remove_writer(key.fileobj)
                            else:
                                if type(writer) is Handle:
                                    writer._ready_ns = began
                                else:
                                    obs.stamp(writer, WRITER, began)
                                append(writer)
                else:
                    self._process_events(found)
            elif not straight:
                self._process_events(found)
            found = ()

            if scheduled:
                now = self.time()
                end_time = now + self._clock_resolution
                if end_time <= now:  # a float of the clock is coarser than the resolution
                    end_time = now + math.ulp(now)
                while scheduled:
                    timer = scheduled[0]
                    if timer._when >= end_time:
                        break
                    heapq.heappop(scheduled)
                    timer._scheduled = False
                    if timer._cancelled:  # since the poll began
                        self._timer_cancelled_count -= 1
                        continue
                    late = now - timer._when
                    ready_ns = began - int(late * 1e9) if late < _MAX_LATE else 0  # inf and nan are due, too
                    ready_ns = max(ready_ns, not_before_ns)
                    if type(timer) is TimerHandle:
                        timer._ready_ns = max(timer._ready_ns, ready_ns)
                    else:
                        obs.stamp(timer, TIMER, ready_ns)
                    append(timer)
                timer = None

            # The batch: what is in the queue now. Another thread may append meanwhile. If something was added, read the
            # clock once more: adding took time, and a stamp must not be later than the start.
            todo = len(ready)
            start = began if todo == waiting and straight else clock_ns()
            i = _DEPTH_INDEX[todo] if todo < fast else bisect_left(_DEPTH_BOUNDS, todo)
            depth_cells[0] += todo
            depth_cells[i] += 1
            counters.state = IN_CALLBACK
            counters.tick_ns = start
            for _ in range(todo) if todo <= CHUNK else in_chunks(self, counters, todo, began):
                handle = popleft()
                if handle._cancelled:
                    if obs.foreign:
                        obs.foreign.pop(id(handle), None)
                    handle = None
                    continue
                try:
                    if type_of(handle) is not own_class and type_of(handle) not in own_handles:
                        raise AttributeError  # its `_kind`, if any, means something else
                    kind = handle._kind
                    ready_ns = handle._ready_ns
                    callback = handle._callback
                except AttributeError:
                    kind, ready_ns = obs.unstamp(handle, began)
                    if self._debug:
                        run_in_debug(self, handle)
                    else:
                        handle._run()
                else:
                    if self._debug:
                        run_in_debug(self, handle)
                    elif kind >= locked:
                        handle._run()
                    else:
                        try:
                            if handle._args:
                                handle._context.run(callback, *handle._args)
                            else:  # a call without unpacking is cheaper; task steps have no arguments
                                handle._context.run(callback)
                        except (SystemExit, KeyboardInterrupt):
                            raise
                        except BaseException as exc:
                            report(self, handle, exc)
                end = clock_ns()
                spent_ns = end - start
                waited_ns = start - ready_ns
                if kind <= step_kind:
                    task = callback.__self__
                    if timed:
                        step(task_table, counters, task, spent_ns, waited_ns)
                    left -= 1
                    if not left:
                        left = sample(task_table, counters, task, spent_ns)
                    if task.done():
                        # A task in its first step is not in the table yet.
                        key = id(task)
                        created_ns = created.get(key, 0) if kind == step_kind else ready_ns
                        age_ns = end - created_ns
                        if timed or not created_ns or task._exception is not None or age_ns >= counters.slow_task_ns:
                            created.pop(key, None)
                            ended(self, counters, task, handle._context, end, created_ns)
                            callback = counted
                        else:
                            i = CANCELLED if task.cancelled() else OK
                            j = index[age_ns] if age_ns < fast else bisect_left(_BOUNDS_NS, age_ns)
                            # No call from here on: a signal handler, which may raise, runs before all of it or after.
                            if kind == step_kind and key in created:
                                del created[key]
                            finished[i] += 1
                            task_cells[0] += age_ns
                            task_cells[j] += 1
                            callback = counted
                    elif kind != step_kind:
                        created[id(task)] = ready_ns
                if spent_ns < fast:
                    i = kind + index[spent_ns]
                elif spent_ns < counters.notable_ns:
                    i = kind + bisect_left(_BOUNDS_NS, spent_ns)
                else:
                    if kind <= step_kind:
                        count_step(task_table, counters, task, spent_ns)
                    counters.record(kind, ready_ns, end)
                    end = notable(self, counters, handle, kind, ready_ns, start, end, began, not ready)
                    counters.tick_ns = start = end
                    handle = callback = task = None
                    continue
                if waited_ns < fast:
                    if waited_ns < 0:  # another thread or a signal stamped it after the clock was read here
                        waited_ns = 0
                    j = kind + index[waited_ns]
                elif waited_ns < _COARSE:
                    j = kind + (coarse_index[waited_ns >> 10] or bisect_left(_BOUNDS_NS, waited_ns))
                else:
                    j = kind + bisect_left(_BOUNDS_NS, waited_ns)
                # No call from here to `tick_ns`: a reader in another thread sees all of it or nothing.
                durations[kind] += spent_ns
                durations[i] += 1
                delays[kind] += waited_ns
                delays[j] += 1
                counters.tick_ns = start = end
                handle = callback = task = None  # an exception from here on did not leave through a callback
            counters.state = IN_OVERHEAD

            if self._stopping or not many:
                break
    except BaseException:
        now_ns = clock_ns()
        if handle is not None:  # the exception left through a callback, which is timed as well
            # It may be a signal handler's and come at any point, even before these were read.
            own = marks(handle)
            if own is not None:
                kind, ready_ns = own
                callback = callback or handle._callback
            counters.record(kind, ready_ns, now_ns)
            if kind <= step_kind and callback is not None and callback is not counted:
                task = callback.__self__
                if task.done():
                    created_ns = created.pop(id(task), 0) if kind == step_kind else ready_ns
                    ended(self, counters, task, handle._context, now_ns, created_ns)
                elif kind != step_kind:
                    created[id(task)] = ready_ns
        leave(self, counters, began, now_ns, outer, stopped=True)
        raise
    else:
        leave(self, counters, began, clock_ns(), outer, stopped=self._stopping or self._thread_id is None)
    finally:
        handle = callback = task = None


def running_handle(loop: Any, frame: Any) -> Any:
    """Return the handle that ``loop`` runs in this thread, whose innermost frame is ``frame``."""
    iterations: list[Any] = []
    while frame is not None:
        if frame.f_code is run_once.__code__:
            iterations.append(frame)
        frame = frame.f_back
    return handle_in(iterations, loop, [])


def handle_in(iterations: list[Any], loop: Any, kept: list[Any]) -> Any:
    """Return the handle that ``loop`` runs, given its thread's frames of ``run_once``, innermost first.

    Call it from any thread. It adds what it read to ``kept``, which the loop's thread has to drop.
    """
    for frame in iterations:
        # Before 3.13 this is a copy. The frame would keep it, and so all that it refers to.
        variables = frame.f_locals
        if sys.version_info < (3, 13):
            kept.extend(variables.values())
        mine, handle = variables["self"] is loop, variables.get("handle")
        kept.append(handle)
        if sys.version_info < (3, 13):
            variables.clear()
        if mine:
            return handle
    return None

"""Jobs handed to executors: how long they wait, run, and wait again for the loop; and what an executor is busy with.

``run_in_executor`` works as asyncio's own, with one object per job instead of the three closures there. A worker only
stamps times on it; the loop counts them when it delivers the result. Only a ``ThreadPoolExecutor`` gets that object to
call. A pool of processes or interpreters pickles the function, and an executor of the program's own (or a mock) may
inspect it. These get the function itself, and obsloop sees only the submission and the end of their jobs.

A job leaves one trace in the program: a frame of obsloop on the worker's stack while it runs. obsloop removes it from
the traceback of an exception that the job raises.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from threading import get_ident
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

from obsloop.base import clock
from obsloop.base.asyncio_private import private_futures
from obsloop.base.clock import epoch
from obsloop.base.guarded import guarded
from obsloop.events import ExecutorJob
from obsloop.instruments import emit, process
from obsloop.introspect import callbacks, functions, spans
from obsloop.introspect.attributes import class_of, get
from obsloop.introspect.error_names import type_name
from obsloop.metrics.catalog import EXECUTOR
from obsloop.metrics.counters import KIND_OF_BLOCK, STRIDE, THREADSAFE
from obsloop.metrics.labelled import NEVER
from obsloop.probes import dns

if TYPE_CHECKING:
    from obsloop.metrics.registry import LoopMetrics
from obsloop.introspect.spans import attach, current_context, detach, holding
from obsloop.probes.executor_pools import QUEUED, Pool, forget, pool_of

_everybody: Any = process
_modules = sys.modules
_UNSEEN = functions.Site("", "", 0)  # of a job that ended before a listener was added
_DEEPEST = 100  # how many frames of a job's traceback are searched for obsloop's

# Since 3.14 asyncio delivers a result at once if it is set in the loop's own thread; before, it used the queue.
_AT_ONCE = any(
    "_get_running_loop" in getattr(part, "co_names", ()) and part.co_name == "_call_set_state"
    for part in private_futures._chain_future.__code__.co_consts
)
_copy_state: Any = private_futures._copy_future_state


class Job:
    """One job: the executor calls it in place of the function, and the futures call it when it is over."""

    __slots__ = (
        "__wrapped__",
        "_seen",
        "began_ns",
        "context",
        "destination",
        "ended_ns",
        "loop",
        "pool",
        "source",
        "submitted_ns",
        "thread_id",
        "via",
    )

    def __init__(self, loop: Any, pool: Pool, func: Any) -> None:
        self.__wrapped__: Any = func
        self._seen: tuple[functions.Site, str] | None = None
        self.loop = loop
        self.pool = pool
        self.began_ns = self.ended_ns = self.thread_id = 0
        self.via = dns.look_up(func)
        """``getaddrinfo`` or ``getnameinfo`` for a look-up of a name; else empty."""
        self.source: Any
        self.destination: Any
        otel = _modules.get("opentelemetry.context")
        self.context = None if otel is None else current_context(otel)
        self.submitted_ns = clock.monotonic_ns()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in the caller's OpenTelemetry context; read the clock before and after. In the worker."""
        token = None if self.context is None else attach(self.context)
        self.thread_id = get_ident()
        self.began_ns = clock.monotonic_ns()
        try:
            return self.__wrapped__(*args, **kwargs)
        finally:
            self.ended_ns = clock.monotonic_ns()
            if token is not None:
                detach(token)

    # Code that has patched the standard pool may read attributes of the function.
    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def release(self) -> None:
        """Drop the function, and what it holds, when the pool does: before the result is delivered."""
        function, self.__wrapped__ = self.__wrapped__, None
        obs = self.loop._obsloop
        if self._seen is None and (obs.instruments.on_executor_job or _everybody.on_executor_job):
            self._seen = callbacks.site_of_callback(function), self.via or _via(function)

    def on_cancel(self, destination: Any) -> None:
        """Note that the loop's future is done: if it was cancelled, cancel the job, unless it has begun."""
        if destination.cancelled() and self.source is not None:
            self.source.cancel()

    def on_end(self, source: Any) -> None:
        """Note that the executor's future is done. In the thread that made it so."""
        if not self.ended_ns:
            self.ended_ns = clock.monotonic_ns()
        guarded(self.release)
        if source.__class__ is not _KNOWN or source._exception is not None:
            _take_out(getattr(source, "_exception", None))
        loop = self.loop
        if loop.is_closed():
            self.pool.jobs.pop(self, None)
            self.source = self.destination = None
        elif _AT_ONCE and asyncio._get_running_loop() is loop:
            self.deliver(source)
        else:
            loop.call_soon_threadsafe(self.deliver, source)

    def deliver(self, source: Any) -> None:
        """Deliver the result, and count the job. On the loop."""
        delivered_ns = clock.monotonic_ns()
        destination: Any = self.destination
        self.source = self.destination = None
        if (
            source.__class__ is _KNOWN
            and source._exception is None
            and source._state == "FINISHED"
            and not destination.done()
        ):
            destination.set_result(source._result)  # the same as _copy_state, without its four locks
            outcome = "ok"
        else:
            try:
                _copy_state(source, destination)
            except BaseException:  # other code has set the loop's future
                self.pool.jobs.pop(self, None)
                raise
            outcome = "cancelled" if destination.cancelled() else "ok" if source.exception() is None else "error"
        guarded(_count, self, source, outcome, delivered_ns)


_CALL = Job.__call__.__code__
# The class whose fields `deliver` may read. For any other class of future it calls the public methods.
_KNOWN: Any = Future if {"_exception", "_result", "_state"} <= vars(Future()).keys() else None


def run(loop: Any, executor: Any, func: Any, args: tuple[Any, ...]) -> Any:
    """Submit a job as ``loop.run_in_executor`` does, by asyncio's rules, and with the same exceptions."""
    loop._check_closed()
    if loop._debug:
        loop._check_callback(func, "run_in_executor")
    if executor is None:
        executor = loop._default_executor
        loop._check_default_executor()
        if executor is None:
            executor = loop._default_executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    pool = loop._obsloop.executors.get(id(executor))
    if pool is None or pool.ref() is not executor:
        pool = pool_of(loop, executor)
    job = Job(loop, pool, func)
    pool.jobs[job] = None
    try:
        submit = executor.submit
        if submit.__class__ is not MethodType:  # replaced in this one object
            pool.blind = True
        source: Any = submit(func if pool.blind else job, *args)
        if not isinstance(source, Future):
            pool.jobs.pop(job, None)
            return asyncio.wrap_future(source, loop=loop)  # a future of the loop's, or the error that asyncio raises
    except BaseException:
        pool.jobs.pop(job, None)
        raise
    job.source = future = cast(Any, source)
    job.destination = destination = loop.create_future()
    destination.add_done_callback(job.on_cancel)
    future.add_done_callback(job.on_end)
    return destination


def _count(job: Job, source: Any, outcome: str, delivered_ns: int) -> None:
    """Count the times of a job that is over, and emit its event to listeners."""
    pool, obs = job.pool, job.loop._obsloop
    pool.jobs.pop(job, None)
    began_ns, ended_ns = job.began_ns, job.ended_ns
    metrics = obs.metrics or obs.metrics_of(job.loop)
    blocks = pool.blocks.get(outcome) or pool.opened(metrics, outcome)
    if began_ns and outcome != "cancelled":
        queued_ns, ran_ns = began_ns - job.submitted_ns, ended_ns - began_ns
        delay_ns = max(0, delivered_ns - ended_ns)
    else:
        queued_ns, ran_ns, delay_ns = _unusual(job, source, outcome, delivered_ns)
    metrics.labelled.time_all(blocks, (queued_ns, ran_ns, delay_ns))
    if queued_ns >= obs.slow_ns and job.context is not None:
        guarded(_note_exemplar, metrics, pool.name, outcome, queued_ns, job.context)
    if pool.ref() is None and not pool.jobs:
        forget(obs.executors, pool)
    if job.via and began_ns:
        dns.count(metrics.labelled, ran_ns, getattr(source, "_exception", None))
    if obs.instruments.on_executor_job or _everybody.on_executor_job:
        exception: Any = getattr(source, "_exception", None)
        site, via = job._seen or (_UNSEEN, job.via or "run_in_executor")
        event = ExecutorJob(
            loop_name=metrics.name,
            kind=KIND_OF_BLOCK[THREADSAFE // STRIDE],
            name=site.name,
            filename=site.filename,
            lineno=site.lineno,
            duration=max(0, ran_ns) / 1e9,
            schedule_delay=max(0, queued_ns) / 1e9,
            started_at=epoch(began_ns or job.submitted_ns),
            executor=pool.name,
            outcome=outcome,
            via=via,
            result_delay=max(0, delay_ns) / 1e9,
            thread_name=next((t.name for t in threading.enumerate() if t.ident == job.thread_id), ""),
            thread_id=job.thread_id,
            error_type="" if exception is None else type_name(class_of(exception)),
            context=None if job.context is None else holding(job.context),
        )
        emit(obs.instruments, "on_executor_job", event)


def _unusual(job: Job, source: Any, outcome: str, delivered_ns: int) -> tuple[int, int, int]:
    """Return the times of a job that was cancelled, or whose beginning was not seen; ``NEVER`` for a missing time."""
    pool = job.pool
    queued_ns = ran_ns = NEVER
    if job.began_ns:
        queued_ns, ran_ns = job.began_ns - job.submitted_ns, job.ended_ns - job.began_ns
    elif source.cancelled() or not pool.blind:
        queued_ns = job.ended_ns - job.submitted_ns  # the job never began
    else:
        ran_ns = job.ended_ns - job.submitted_ns
    return queued_ns, ran_ns, NEVER if outcome == "cancelled" else max(0, delivered_ns - job.ended_ns)


def _via(func: Any) -> str:
    """Return how the job came: ``asyncio.to_thread`` calls the function in a copy of the context."""
    inner = get(func, "func") if class_of(func) is functools.partial else None
    to_thread = class_of(getattr(inner, "__self__", None)) is Context
    return "to_thread" if to_thread else "run_in_executor"


def _take_out(exception: Any) -> None:
    """Remove obsloop's frame from the exception's traceback."""
    try:
        above = None
        traceback = getattr(exception, "__traceback__", None)
        for _ in range(_DEEPEST):
            if traceback is None:
                return
            if traceback.tb_frame.f_code is _CALL:
                if above is None:
                    exception.__traceback__ = traceback.tb_next
                else:
                    above.tb_next = traceback.tb_next
                return
            above, traceback = traceback, traceback.tb_next
    except Exception:  # an exception class that guards its attributes keeps the frame
        return


def _note_exemplar(metrics: LoopMetrics, executor: str, outcome: str, queued_ns: int, context: Any) -> None:
    """Note an exemplar: a job that was submitted in ``context``, an OpenTelemetry context, waited long for a worker."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    ids = None if trace is None else spans.ids_of(trace.get_current_span(context))
    if ids is not None:
        metrics.exemplars.note(QUEUED, (metrics.labelled.fitting(EXECUTOR, executor), outcome), queued_ns, ids)

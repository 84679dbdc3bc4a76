"""Take one sample of what a loop's thread is doing: the handle, the task, the stack, the span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obsloop.blocking.episodes import Sighting
from obsloop.hotpath import backend, held
from obsloop.introspect import callbacks, coroutines, frames as _frames, functions, own_code, routes, spans, stacks
from obsloop.metrics.counters import IN_CALLBACK, KIND_OF_BLOCK, STRIDE

if TYPE_CHECKING:
    from obsloop.metrics.runs import Run


def see(run: Run, loop: Any, now_ns: int) -> tuple[Sighting, tuple[Any, ...]] | None:
    """Return what the loop's thread is doing; None if it is gone, or past what blocked it."""
    if held.full(loop._obsloop):
        return None
    began_ns = run.counters.began_ns
    kept: list[Any] = []
    try:
        return _seen(run, loop, now_ns, kept)
    finally:
        held.hand_over(loop, began_ns, now_ns, kept)


def _seen(run: Run, loop: Any, now_ns: int, kept: list[Any]) -> tuple[Sighting, tuple[Any, ...]] | None:
    """Do the work of ``see``. Each object of the program's goes into ``kept`` before it is read."""
    counters = run.counters
    before_ns = counters.tick_ns
    frames = _frames.of_thread(run.ident, backend.ITERATION)
    if not frames.codes:
        return None
    handle = backend.running_handle(loop, frames.wanted, kept)
    tick_ns, state = counters.tick_ns, counters.state
    if tick_ns != before_ns:
        return None  # the frames may belong to one callback and the handle to the next: try again later
    stack = stacks.take(frames, loop._obsloop.own_code)
    if stack.ours:
        return None
    if handle is None and stack.outermost is None and not frames.cut and state == IN_CALLBACK and backend.METHODS:
        return None  # between two callbacks: neither is to blame
    site, kind = functions.THE_LOOP, "other"
    delay_ns = 0
    if handle is not None:
        site = callbacks.site_of_handle(handle)
        marks: tuple[int, int] = loop._obsloop.marks_of_running(handle)
        kind = KIND_OF_BLOCK[marks[0] // STRIDE]
        ready_ns = marks[1]
        delay_ns = max(0, tick_ns - ready_ns) if ready_ns and state == IN_CALLBACK else 0
    task = stacks.inner_task(loop, handle)
    kept.append(task)
    if task is not None:
        site, kind = coroutines.site_of_task(task), "task_step"
    elif site in (functions.THE_LOOP, functions.CANCELLED) and stack.outermost is not None:
        site = stack.outermost
    culprit = own_code.culprit_of(stack.innermost_first, site)
    context = spans.context(handle, task)
    kept.append(context)
    span, ids = spans.span(context, kept)
    called = own_code.called_by(stack.innermost_first, culprit)
    detail = "; ".join(text for text in (site.detail, called, span) if text)
    route = routes.route_of(context)
    return Sighting(now_ns, site, kind, detail, culprit, delay_ns / 1e9, route, ids), stack.frames

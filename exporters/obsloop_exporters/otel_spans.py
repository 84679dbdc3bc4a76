"""Make OpenTelemetry spans for rare events, through the program's own TracerProvider.

    obsloop_exporters.otel_spans.install()

works for the global TracerProvider, made at any time; ``install(provider)`` takes another one. Each slow callback, each
slow or failed executor job, connection or task, and each subprocess becomes a span when it is over, with its own times,
beneath the span that was active for it. Spans are made in the loop's thread. A processor that sends at once
(``SimpleSpanProcessor``) would block it; ``BatchSpanProcessor``, the usual one, does not.

Only OpenTelemetry's API is needed. Spans beyond ``OBSLOOP_SPANS_PER_MINUTE`` are only counted.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode, TracerProvider

import obsloop
from obsloop import SpanSettings
from obsloop.events import ConnectionSetUp, Event, ExecutorJob, SlowCallback, SubprocessExit, TaskDone
from obsloop_exporters import _otel_span_shapes as shapes
from obsloop_exporters._otel_reading import say_once
from obsloop_exporters._otel_span_budget import Budget
from obsloop_exporters._otel_span_others import traced_coroutine, traced_to_thread
from obsloop_exporters._otel_span_parents import origin
from obsloop_exporters._otel_span_shapes import Shape

__all__ = ["install", "uninstall"]

_E = TypeVar("_E", bound=Event)

_lock = threading.RLock()


class _Spans(obsloop.Instrument):
    """The instrument that makes the spans of one TracerProvider."""

    def __init__(self, provider: TracerProvider | None, settings: SpanSettings) -> None:
        self._provider = provider
        """None for the global one, which the program may set later."""
        self._tracer = trace.get_tracer("obsloop", obsloop.__version__, provider)
        self.settings = settings
        self.budget = Budget(settings.spans_per_minute)

    def provider(self) -> TracerProvider:
        return trace.get_tracer_provider() if self._provider is None else self._provider

    # ---- the hooks ---------------------------------------------------------------------------------------------------

    def on_slow_callback(self, event: SlowCallback) -> None:
        """Make a span for each."""
        self._make(event, shapes.slow_callback, event.context, event.context_seen)

    def on_executor_job(self, event: ExecutorJob) -> None:
        """Make a span for a job that took long, or raised."""
        slow = event.schedule_delay + event.duration >= self.settings.slow_job
        if (slow or event.outcome == "error") and not traced_to_thread(event):
            self._make(event, shapes.executor_job, event.context)

    def on_connection_set_up(self, event: ConnectionSetUp) -> None:
        """Make a span for a connection that took long, or failed."""
        if event.duration >= self.settings.slow_connection or event.error_type:
            self._make(event, shapes.connection, event.context)

    def on_subprocess_exit(self, event: SubprocessExit) -> None:
        """Make a span for each."""
        self._make(event, shapes.subprocess_exit, event.context)

    def on_task_done(self, event: TaskDone) -> None:
        """Make a span for a task. Only tasks that took long or failed come here."""
        if not traced_coroutine(event):
            self._make(event, shapes.task, event.context, outlived=True)

    # ---- the spans ---------------------------------------------------------------------------------------------------

    def _make(
        self, event: _E, shape_of: Callable[[_E], Shape], *contexts: contextvars.Context | None, outlived: bool = False
    ) -> None:
        """Make the span of ``event``. If a processor of the program raises, log that once and go on."""
        try:
            self._made(shape_of(event), contexts, outlived)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            obsloop.count_dropped_spans()
            what = type(event).__name__
            say_once(f"no span for {what}: {error!r}. Lost spans are counted; later ones are tried.", error, once=what)

    def _made(self, shape: Shape, contexts: tuple[contextvars.Context | None, ...], outlived: bool) -> None:
        begins = origin(contexts, shape.start_ns, shape.end_ns, outlived=outlived)
        if begins is None:
            return
        number = 1 + len(shape.parts)
        if not self.budget.take(number):
            obsloop.count_dropped_spans(number)
            return
        if not self._begin_and_end(shape._replace(start_ns=begins.start_ns), begins.context, begins.links):
            self.budget.give_back(number)  # a sampler does not want it

    def _begin_and_end(self, shape: Shape, context: Context, links: Any = ()) -> bool:
        """Make the span and those beneath it. Return whether it is recorded."""
        span = self._tracer.start_span(
            shape.name, context, shape.kind, shape.attributes, links, start_time=shape.start_ns
        )  # not attached: later work of this thread does not belong beneath it
        recorded = span.is_recording()
        if recorded:
            if shape.failed:
                span.set_status(Status(StatusCode.ERROR))
            for moment in shape.moments:
                span.add_event(moment.name, moment.attributes, moment.at_ns)
            beneath = trace.set_span_in_context(span, context)
            for part in shape.parts:
                self._begin_and_end(part, beneath)
        span.end(max(shape.start_ns, shape.end_ns))
        return recorded


_installed: list[_Spans] = []


def install(tracer_provider: TracerProvider | None = None, *, settings: SpanSettings | None = None) -> None:
    """Make spans through ``tracer_provider``, or through the global one, whenever that is set.

    ``settings`` default to the ``OBSLOOP_*`` variables; a bad one is logged, and its default is used. Calling this
    again changes only the settings.
    """
    chosen = settings or SpanSettings.from_env(strict=False)
    with _lock:
        spans = _of(tracer_provider)
        if spans is None:
            is_global = tracer_provider is None or tracer_provider is trace.get_tracer_provider()
            spans = _Spans(None if is_global else tracer_provider, chosen)
            obsloop.add_instrument(spans)
            _installed.append(spans)
        elif spans.settings != chosen:
            spans.settings, spans.budget = chosen, Budget(chosen.spans_per_minute)


def uninstall(tracer_provider: TracerProvider | None = None) -> None:
    """Undo ``install``: obsloop records nothing there any more."""
    with _lock:
        spans = _of(tracer_provider)
        if spans is not None:
            _installed.remove(spans)
            obsloop.remove_instrument(spans)


def _of(provider: TracerProvider | None) -> _Spans | None:
    wanted = trace.get_tracer_provider() if provider is None else provider
    return next((spans for spans in _installed if spans.provider() is wanted), None)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread that is gone may hold the old one
    _lock = threading.RLock()
    for spans in _installed:
        spans.budget.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

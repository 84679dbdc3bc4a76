"""Whose child a span is: the request that was blocked, whatever its spans did meanwhile; a link where none fits."""

import asyncio
import contextvars
import gc
import time
import weakref

import pytest
from opentelemetry import baggage, context as otel_context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import obsloop
from obsloop_exporters._otel_span_parents import origin
from tests.exporters.traces import MS, traced, tree
from tests.support import LIMIT, block

BLOCK = 0.2
HERE = f"asyncio callback {__name__}"


async def settle() -> None:
    """The watchdog knows the loop."""
    await asyncio.sleep(0.15)


def callback_of(test: str, name: str) -> str:
    """The slow callback's span of a function within a test."""
    return f"{HERE}.{test}.<locals>.{name}"


def test_a_request_that_is_one_step_of_its_task():
    """Its span begins and ends within the callback, and yet it is what blocked the loop; the child is not before it."""
    with traced() as got:

        async def request() -> None:
            with got.tracer.start_as_current_span("GET /report"):
                block(BLOCK)

        async def main() -> None:
            await settle()
            await asyncio.create_task(request())

        obsloop.run(main())
        name = callback_of("test_a_request_that_is_one_step_of_its_task", "request")
        assert tree(got.all) == {"GET /report": {name: {}}}
        callback, parent = got.named(name), got.named("GET /report")
        assert parent.start_ns <= callback.start_ns
        assert callback.seconds >= BLOCK
        assert callback.attributes["asyncio.eventloop.callback.duration"] >= BLOCK


def test_a_request_that_ends_in_the_step_that_blocks():
    """Its span began in an earlier step; when the callback returns it is no longer active."""
    with traced() as got:

        async def request() -> None:
            with got.tracer.start_as_current_span("GET /report"):
                await asyncio.sleep(0.01)
                block(BLOCK)

        async def main() -> None:
            await settle()
            await asyncio.create_task(request())

        obsloop.run(main())
        name = callback_of("test_a_request_that_ends_in_the_step_that_blocks", "request")
        assert tree(got.all) == {"GET /report": {name: {}}}
        assert got.named(name).links == []


def test_of_two_the_one_that_was_there_before():
    """A span around the block itself is within the callback; the request's was there when it began."""
    with traced() as got:

        async def request() -> None:
            with got.tracer.start_as_current_span("GET /report"):
                await asyncio.sleep(0.01)
                with got.tracer.start_as_current_span("render"):
                    block(BLOCK)
                await asyncio.sleep(0.01)

        async def main() -> None:
            await settle()
            await asyncio.create_task(request())

        obsloop.run(main())
        name = callback_of("test_of_two_the_one_that_was_there_before", "request")
        assert tree(got.all) == {"GET /report": {name: {}, "render": {}}}


def test_requests_side_by_side_are_told_apart():
    """Ten at once, one of which blocks: it is beneath that one."""
    with traced() as got:

        async def request(n: int) -> None:
            with got.tracer.start_as_current_span(f"GET /{n}"):
                await asyncio.sleep(0.01 * n)
                if n == 7:
                    block(BLOCK)
                await asyncio.sleep(0.3)

        async def main() -> None:
            await settle()
            await asyncio.gather(*(request(n) for n in range(10)))

        obsloop.run(main())
        name = callback_of("test_requests_side_by_side_are_told_apart", "request")
        assert tree(got.all) == {f"GET /{n}": {name: {}} if n == 7 else {} for n in range(10)}


def test_plain_callbacks_and_protocols_have_the_context_of_who_asked():
    """``call_later`` keeps the context of its caller, and so does a transport."""
    with traced() as got:

        def later() -> None:
            block(BLOCK)

        async def answer(reader, writer) -> None:
            writer.write(b"x")
            writer.close()

        class Client(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                block(BLOCK)

        async def main() -> None:
            await settle()
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            with got.tracer.start_as_current_span("order"):
                loop.call_later(0.01, later)
                await asyncio.sleep(0.3)
                transport, _ = await loop.create_connection(Client, *server.sockets[0].getsockname()[:2])
                await asyncio.sleep(0.3)
                transport.close()
            server.close()

        obsloop.run(main())
        where = "test_plain_callbacks_and_protocols_have_the_context_of_who_asked"
        slow = [name for name in tree(got.all)["order"] if name.startswith("asyncio callback")]
        assert slow == [callback_of(where, "later"), callback_of(where, "Client.data_received")]


def test_what_a_request_left_behind_has_a_link():
    """A task that blocks when the request's span has ended: a trace of its own, and a link to the request."""
    with traced() as got:

        async def clean_up() -> None:
            await asyncio.sleep(0.1)
            block(BLOCK)

        async def main() -> None:
            await settle()
            with got.tracer.start_as_current_span("GET /report"):
                task = asyncio.create_task(clean_up())
            await task

        obsloop.run(main())
        name = callback_of("test_what_a_request_left_behind_has_a_link", "clean_up")
        assert tree(got.all) == {"GET /report": {}, name: {}}
        assert got.named(name).links == [got.named("GET /report").id]
        assert got.named(name).trace != got.named("GET /report").trace


def test_a_span_that_began_late_has_a_link():
    """It was active for the last bit of the callback only: not what the callback was about."""
    with traced() as got:

        async def work() -> None:
            block(BLOCK)
            token = otel_context.attach(trace.set_span_in_context(got.tracer.start_span("late")))
            await asyncio.sleep(0)
            trace.get_current_span().end()
            otel_context.detach(token)

        async def main() -> None:
            await settle()
            await asyncio.create_task(work())

        obsloop.run(main())
        name = callback_of("test_a_span_that_began_late_has_a_link", "work")
        assert set(tree(got.all)) == {"late", name}
        assert got.named(name).links == [got.named("late").id]


def test_a_request_from_another_process_is_a_parent():
    """Its span is elsewhere; what was sent of it is enough. A job's worker goes on with it, too."""
    with traced() as got:
        remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        def job() -> None:
            with got.tracer.start_as_current_span("in the worker"):
                pass

        async def main() -> None:
            await settle()
            otel_context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
            await asyncio.get_running_loop().run_in_executor(None, job)
            block(BLOCK)
            await asyncio.sleep(0)

        obsloop.run(main())
        assert len(got.all) == 3
        assert {(span.trace, span.parent) for span in got.all} == {((0xABC).to_bytes(16), (0xDEF).to_bytes(8))}


def test_what_is_not_sampled_is_not_made_and_costs_nothing():
    """The parent was not sampled, and so is what is beneath it; the next one has the whole budget."""
    with traced(sampler=ParentBased(ALWAYS_OFF), settings=obsloop.SpanSettings(spans_per_minute=1, slow_job=0)) as got:
        sampled = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        dropped = obsloop.process_snapshot().value("obsloop.dropped", "span")

        async def main() -> None:
            for _ in range(10):
                await asyncio.to_thread(len, "")
            otel_context.attach(trace.set_span_in_context(NonRecordingSpan(sampled)))
            await asyncio.to_thread(max, 1, 2)

        obsloop.run(main())
        assert [span.name for span in got.all] == ["asyncio executor max"]
        assert obsloop.process_snapshot().value("obsloop.dropped", "span") == dropped


def test_what_exporters_do_themselves_is_no_news():
    """They mark their context, as OpenTelemetry's own instrumentations expect it."""
    with traced() as got:

        async def main() -> None:
            otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))
            await asyncio.to_thread(len, "")
            otel_context.attach(otel_context.set_value("suppress_instrumentation", True, otel_context.Context()))
            await asyncio.to_thread(max, 1, 2)
            otel_context.attach(otel_context.Context())
            await asyncio.to_thread(min, 1, 2)

        obsloop.run(main())
        assert [span.name for span in got.all] == ["asyncio executor min"]


def test_the_watchdogs_sight_is_not_needed():
    """Without it, the context as it was when the callback returned is looked at: of a request that goes on, enough."""
    with traced() as got:

        async def main() -> None:
            with got.tracer.start_as_current_span("GET /report"):
                await asyncio.sleep(0.01)
                time.sleep(BLOCK)
                await asyncio.sleep(0)

        obsloop.run(main(), settings=obsloop.Settings(watchdog=False))
        (name,) = tree(got.all)["GET /report"]
        assert name.startswith(HERE)
        assert got.one("asyncio callback").events == []


def test_no_event_keeps_a_context_for_long():
    """A request's context, and all that the program put into it, is gone when the request is, slow or not."""

    class Thing:
        """What a program keeps for a request."""

    held = contextvars.ContextVar("held")
    seen = []

    class Listener:
        def on_slow_callback(self, event) -> None:
            if event.name.endswith(".request"):
                holds = event.context.get(held) is not None
                seen.append((holds, event.context_seen is not None, "context=" in repr(event)))

    async def request() -> weakref.ref:
        thing = Thing()
        held.set(thing)
        block(BLOCK)
        return weakref.ref(thing)

    async def main() -> None:
        asyncio.get_running_loop().add_instrument(Listener())
        await settle()
        ref = await asyncio.create_task(request())
        end = time.monotonic() + LIMIT
        while ref() is not None:
            assert time.monotonic() < end, gc.get_referrers(ref())
            await asyncio.sleep(0.05)
            gc.collect()

    obsloop.run(main())
    assert seen == [(True, True, False)]


# ---- the rule by itself ----------------------------------------------------------------------------------------------

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("program")


def holding(span, **baggages) -> contextvars.Context:
    """A context in which `span` is active."""
    inner = trace.set_span_in_context(span)
    for name, value in baggages.items():
        inner = baggage.set_baggage(name, value, inner)
    found = contextvars.Context()
    found.run(otel_context.attach, inner)
    return found


def span_from(start_ms: int, end_ms: int | None = None):
    """A span with these times."""
    span = TRACER.start_span("one", start_time=start_ms * MS, context=otel_context.Context())
    if end_ms is not None:
        span.end(end_ms * MS)
    return span


@pytest.mark.parametrize(
    ("began", "ended", "outlived", "parent", "start"),
    [
        (50, None, False, True, 100),  # was there before, and goes on
        (50, 150, False, True, 100),  # was there before, and ended meanwhile
        (50, 150, True, False, 100),  # ... which does not do for a task that outlives it
        (50, 250, True, True, 100),  # ... but one that ended after it does
        (50, 90, False, False, 100),  # had ended before
        (101, None, False, True, 101),  # the same moment, by two clocks
        (120, 190, False, True, 120),  # within, and most of it
        (120, 130, False, False, 100),  # within, and little of it
        (180, None, False, False, 100),  # from near its end on
    ],
)
def test_parent_or_link(began, ended, outlived, parent, start):
    """A span from 100 to 200 ms, in a context whose span lasted from `began` to `ended`."""
    span = span_from(began, ended)
    found = origin([holding(span, user="7")], 100 * MS, 200 * MS, outlived=outlived)
    active = trace.get_current_span(found.context).get_span_context()
    assert active.span_id == (span.get_span_context().span_id if parent else 0)
    assert [link.context.span_id for link in found.links] == ([] if parent else [span.get_span_context().span_id])
    assert found.start_ns == start * MS
    assert baggage.get_baggage("user", found.context) == "7"


def test_a_span_of_another_kind():
    """One that does not tell its times is a parent as long as it is recorded; then there is a link."""

    class Foreign(trace.Span):
        recording = True

        def get_span_context(self) -> SpanContext:
            return SpanContext(1, 2, is_remote=False)

        def is_recording(self) -> bool:
            return self.recording

        def end(self, end_time=None) -> None: ...
        def set_attributes(self, attributes) -> None: ...
        def set_attribute(self, key, value) -> None: ...
        def add_event(self, name, attributes=None, timestamp=None) -> None: ...
        def update_name(self, name) -> None: ...
        def set_status(self, status, description=None) -> None: ...
        def record_exception(self, exception, attributes=None, timestamp=None, escaped=False) -> None: ...

    span = Foreign()
    assert origin([holding(span)], 1, 2).links == ()
    Foreign.recording = False
    (link,) = origin([holding(span)], 1, 2).links
    assert link.context.span_id == 2


def test_without_a_span_there_is_a_root():
    """No context, an empty one, and one with a span that is none."""
    for contexts in ([], [None], [contextvars.Context()], [holding(trace.INVALID_SPAN)]):
        found = origin(contexts, 1, 2)
        assert not trace.get_current_span(found.context).get_span_context().is_valid
        assert (found.start_ns, found.links) == (1, ())

"""Beside OpenTelemetry's own asyncio and threading instrumentations: nothing is shown twice, nothing is lost."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import obsloop
from tests.exporters.traces import EVERYTHING, traced, tree

BLOCK = 0.1

pytestmark = pytest.mark.clients


@pytest.fixture
def both(monkeypatch):
    """A function that turns both on for a provider; off again afterwards."""
    from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor

    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE", "theirs")
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE", "their_task")
    on = []

    def turn_on(provider) -> None:
        for instrumentor in (AsyncioInstrumentor(), ThreadingInstrumentor()):
            instrumentor.instrument(tracer_provider=provider)
            on.append(instrumentor)

    yield turn_on
    for instrumentor in on:
        instrumentor.uninstrument()


def test_no_span_twice_and_the_workers_are_children_of_the_caller(both):
    """What they trace has their span, all else ours; what workers make is beneath the caller."""
    with traced(settings=EVERYTHING) as got:
        both(got.provider)
        tracer = got.tracer

        def theirs() -> None:
            with tracer.start_as_current_span("work of theirs"):
                time.sleep(BLOCK)

        def ours() -> None:
            with tracer.start_as_current_span("work of ours"):
                time.sleep(BLOCK)

        async def their_task() -> None:
            await asyncio.sleep(BLOCK)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with tracer.start_as_current_span("order"):
                await asyncio.to_thread(theirs)
                await asyncio.to_thread(ours)
                with ThreadPoolExecutor(1) as pool:
                    await loop.run_in_executor(pool, ours)
                await asyncio.create_task(their_task())

        obsloop.run(main(), settings=obsloop.Settings(slow_task=BLOCK / 2))
        job = f"asyncio executor {ours.__module__}.{ours.__qualname__}"
        beneath = tree(got.all)["order"]
        assert sorted(beneath) == sorted([
            "asyncio to_thread-theirs", "work of theirs", job, "work of ours", f"{job} #2", "work of ours #2",
            "asyncio coro-their_task",
        ])  # fmt: skip
        assert all(below == {} for below in beneath.values())
        for span in got.all:
            assert span.seconds >= BLOCK, span.name


def test_when_they_are_off_again_ours_are_back(both):
    """The same function, before and after."""
    with traced(settings=EVERYTHING) as got:

        def theirs() -> None:
            """Named as one that they trace."""

        obsloop.run(asyncio.to_thread(theirs))
        both(got.provider)
        obsloop.run(asyncio.to_thread(theirs))
        scopes = [span.scope for span in sorted(got.all, key=lambda span: span.start_ns)]
        assert scopes == ["obsloop", "opentelemetry.instrumentation.asyncio"]


def test_a_wrapped_coroutine_that_blocks_is_beneath_its_request(both):
    """Their wrapper is around it; the span is still where it belongs, and the samples say which line it was."""
    with traced() as got:
        both(got.provider)

        async def block() -> None:
            time.sleep(0.3)

        async def main() -> None:
            await asyncio.sleep(0.15)
            with got.tracer.start_as_current_span("order"):
                await asyncio.create_task(block())

        obsloop.run(main())
        callback = got.one("asyncio callback")
        assert callback.parent == got.named("order").id
        assert callback.seconds >= 0.3
        (_, _, attributes), *_ = callback.events
        line = block.__code__.co_firstlineno + 1
        assert attributes["code.stacktrace"].endswith(f'File "{__file__}", line {line}, in block')

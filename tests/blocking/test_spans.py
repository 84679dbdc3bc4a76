"""A blocked loop names the active span, as OpenTelemetry's own SDK has it."""

import asyncio
import time

from opentelemetry.sdk.trace import TracerProvider

import obsloop
from obsloop.testing import Recorder

from .support import BLOCK

TRACER = TracerProvider().get_tracer("tests")


def test_the_span_of_the_task_that_blocks_is_named_and_no_other():
    """Two tasks, each in a span of its own: the one that sleeps on the loop is told of, with its trace."""
    ids: list[str] = []

    async def waits() -> None:
        with TRACER.start_as_current_span("GET /good"):
            await asyncio.sleep(BLOCK * 2)

    async def blocks() -> None:
        with TRACER.start_as_current_span("GET /bad") as span:
            ids.append(f"{span.get_span_context().trace_id:032x}")
            await asyncio.sleep(0.01)
            time.sleep(BLOCK)

    async def main() -> None:
        await asyncio.gather(waits(), blocks())

    with Recorder() as events:
        obsloop.run(main())
        unblocked = events.wait_for(obsloop.events.LoopUnblocked)
    assert f"in span GET /bad trace {ids[0]}" in unblocked.detail
    assert f"in span GET /bad trace {ids[0]}" in events.slow_callbacks[0].detail

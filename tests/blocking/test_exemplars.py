"""Slow buckets carry the trace of a real case: of callbacks, of what waited behind them, of jobs that waited.

Each program puts a known delay into a span of its own, and the span's ids are found again at a value of that size.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Span

import obsloop
from obsloop import Exemplar
from obsloop.introspect.spans import Ids
from obsloop.metrics.buckets import SECONDS
from obsloop.metrics.exemplars import Exemplars
from tests.support import DELAY, DURATION, LIMIT, block, output

from .support import BLOCK

TRACER = TracerProvider().get_tracer("tests")
UNSAMPLED = TracerProvider(sampler=ALWAYS_OFF).get_tracer("tests")
QUEUED = "asyncio.executor.job.queue_duration"
SLOW = 0.2
"""Seconds; less than BLOCK, and more than a busy machine takes for what is not meant to be slow."""
ROOM = 2.0
"""Seconds that a busy machine may take longer than what was put in."""


def ids(span: Span) -> tuple[str, str]:
    """As an exemplar has them."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def run(main: Callable[[], Coroutine[Any, Any, Any]], slow: float = SLOW) -> obsloop.Snapshot:
    """Run it on a loop called "main" that calls so many seconds slow, and what has been counted then."""

    async def program() -> None:
        asyncio.get_running_loop().slow_callback_duration = slow
        await main()

    obsloop.run(program(), settings=obsloop.Settings(name="main"))
    return obsloop.snapshots()["main"]


def found(snapshot: obsloop.Snapshot, signal: str) -> dict[tuple[str, ...], tuple[Exemplar, ...]]:
    """The exemplars of a signal, by labels; each is in a bucket that has a value, and is the only one in it."""
    every = {}
    for labels in snapshot[signal]:
        histogram = snapshot.histogram(signal, *labels)
        buckets = [histogram.partition.index(round(exemplar.value * 1e9)) for exemplar in histogram.exemplars]
        assert len(set(buckets)) == len(buckets)
        assert buckets == sorted(buckets)
        assert all(histogram.bucket_counts[bucket] for bucket in buckets)
        if histogram.exemplars:
            every[labels] = histogram.exemplars
    return every


def only(snapshot: obsloop.Snapshot, signal: str, *labels: str) -> Exemplar:
    """The exemplar of a series that is the only one with any, and has one."""
    every = found(snapshot, signal)
    assert every.keys() == {labels}
    (exemplar,) = every[labels]
    return exemplar


def test_a_slow_callback_is_found_by_its_trace():
    """One step of one task took long, within its span: no other signal and no other kind has an exemplar."""
    spans = []
    before = time.time()

    async def main() -> None:
        with TRACER.start_as_current_span("GET /slow") as span:
            await asyncio.sleep(0.01)
            time.sleep(BLOCK)
            spans.append(ids(span))
            await asyncio.sleep(0.01)

    snapshot = run(main)
    exemplar = only(snapshot, DURATION, "task_step")
    assert (exemplar.trace_id, exemplar.span_id) == spans[0]
    assert BLOCK <= exemplar.value < BLOCK + ROOM
    assert before + BLOCK <= exemplar.time <= time.time()
    assert not found(snapshot, DELAY)
    assert not found(snapshot, QUEUED)


def test_a_span_that_was_over_before_the_callback_was_is_found_too():
    """The watchdog saw it while it lasted."""
    spans = []

    async def main() -> None:
        await asyncio.sleep(0.15)
        with TRACER.start_as_current_span("GET /slow") as span:
            spans.append(ids(span))
            block(BLOCK)

    exemplar = only(run(main), DURATION, "task_step")
    assert (exemplar.trace_id, exemplar.span_id) == spans[0]


def test_what_waited_behind_a_slow_callback_is_found_by_the_span_it_waited_in():
    """Its own step is as fast as can be, and ends the span: only while it waits it can be told."""
    spans = []

    async def waits() -> None:
        with TRACER.start_as_current_span("GET /fast") as span:
            spans.append(ids(span))
            await asyncio.sleep(0)

    async def blocks() -> None:
        await asyncio.sleep(0)
        time.sleep(BLOCK)

    async def main() -> None:
        await asyncio.gather(blocks(), waits())

    snapshot = run(main)
    exemplar = only(snapshot, DELAY, "task_step")
    assert (exemplar.trace_id, exemplar.span_id) == spans[0]
    assert BLOCK <= exemplar.value < BLOCK + ROOM
    assert not found(snapshot, DURATION), "what blocked was in no span"


def test_a_timer_that_was_due_meanwhile_is_found():
    """Due 50 ms after the block began, it is that much less late; timers that are never due do no harm."""
    spans = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        never = [loop.call_later(seconds, print) for seconds in (float("inf"), 3600)]
        with TRACER.start_as_current_span("GET /later") as span:
            spans.append(ids(span))
            loop.call_later(0.05, int)
        time.sleep(BLOCK)
        await asyncio.sleep(0.01)
        for timer in never:
            timer.cancel()

    exemplar = only(run(main), DELAY, "timer")
    assert (exemplar.trace_id, exemplar.span_id) == spans[0]
    assert BLOCK - 0.06 <= exemplar.value < BLOCK + ROOM


def test_one_that_waited_for_many_short_ones_is_found():
    """A slow iteration without a slow callback: two thousand steps of 0.2 ms, each in the same span."""
    spans = []

    async def short() -> None:
        await asyncio.sleep(0)
        time.sleep(0.0002)

    async def main() -> None:
        with TRACER.start_as_current_span("GET /many") as span:
            spans.append(ids(span))
            await asyncio.gather(*[short() for _ in range(2000)])

    every = found(run(main), DELAY)
    for exemplar in every["task_step",]:  # on a busy machine the end of one may have waited too, as a callback
        assert (exemplar.trace_id, exemplar.span_id) == spans[0]
        assert SLOW <= exemplar.value < 2000 * 0.0002 + 4 * ROOM
    assert len(every["task_step",]) > 1, "one for each bucket"


def test_a_job_that_waited_for_a_worker_is_found():
    """Two jobs and one worker: the second waits as long as the first one runs, and has the trace of who asked."""
    spans, submitted, ended = [], [], []
    both = threading.Event()

    def job(seconds: float) -> None:
        assert both.wait(LIMIT)  # on a busy machine, the first job could be over before the second one is there
        time.sleep(seconds)
        ended.append(time.monotonic())

    async def asks(seconds: float) -> None:
        with TRACER.start_as_current_span("GET /job") as span:
            spans.append(ids(span))
            future = asyncio.get_running_loop().run_in_executor(None, job, seconds)
            submitted.append(time.monotonic())
            if len(submitted) == 2:
                both.set()
            await future

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await asyncio.gather(asks(BLOCK), asks(0.0))

    exemplar = only(run(main), QUEUED, "default", "ok")
    assert (exemplar.trace_id, exemplar.span_id) == spans[1]
    assert ended[0] - submitted[1] <= exemplar.value < BLOCK + ROOM


@pytest.mark.parametrize("tracer", [None, UNSAMPLED], ids=["no span", "not sampled"])
def test_a_trace_that_nobody_can_look_up_is_not_named(tracer):
    """Everything is slow, and there is no span, or one that is not sampled."""

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        waits = [asyncio.to_thread(time.sleep, BLOCK) for _ in range(2)]
        together = asyncio.gather(*waits, asyncio.sleep(0.01))
        await asyncio.sleep(0)
        time.sleep(BLOCK)
        await together

    async def in_a_span() -> None:
        if tracer is None:
            await main()
        else:
            with tracer.start_as_current_span("GET /"):
                await main()

    snapshot = run(in_a_span)
    for signal in (DURATION, DELAY, QUEUED):
        assert not found(snapshot, signal)
        slow = sum(
            histogram.count - histogram.cumulative([0.1])[0]
            for labels in snapshot[signal]
            for histogram in [snapshot.histogram(signal, *labels)]
        )
        assert slow, "it was slow"


def test_the_latest_takes_the_place_of_those_before():
    """Of four blocks of about the same length at most one is kept for each bucket, and the last one is among them."""
    spans = []

    async def main() -> None:
        for _ in range(4):
            with TRACER.start_as_current_span("GET /again") as span:
                spans.append(ids(span))
                await asyncio.sleep(0.001)
                time.sleep(0.12)
                await asyncio.sleep(0.001)

    exemplars = found(run(main, slow=0.1), DURATION)["task_step",]
    newest = max(exemplars, key=lambda exemplar: exemplar.time)
    assert (newest.trace_id, newest.span_id) == spans[-1]


def test_slow_is_what_the_loop_calls_slow():
    """With a threshold of 20 ms a callback of 30 ms has an exemplar; with one of ten seconds none has."""

    async def main() -> None:
        with TRACER.start_as_current_span("GET /"):
            await asyncio.sleep(0)
            time.sleep(0.03)
            await asyncio.sleep(0)

    assert not found(run(main, slow=10.0), DURATION)
    assert 0.03 <= max(found(run(main, slow=0.02), DURATION)["task_step",]).value < 0.03 + ROOM


def test_they_are_bounded_however_many_there_are():
    """A hundred thousand cases of one series are as many exemplars as the partition has buckets, and the last ones."""
    exemplars = Exemplars()
    for i in range(100_000):
        exemplars.note(DURATION, ("timer",), 1 + i * i * 10, Ids(f"{i:032x}", f"{i:016x}"))
    assert len(exemplars._kept) <= SECONDS.size
    assert exemplars._kept[DURATION, ("timer",), SECONDS.index(1 + 99_999**2 * 10)].span_id == f"{99_999:016x}"


def test_what_has_not_been_counted_is_not_shown_yet():
    """Whoever reads while a callback still waits finds no exemplar in an empty bucket."""
    empty = obsloop.Histogram(SECONDS, (0,) * SECONDS.size, 0.0)
    full = obsloop.Histogram(SECONDS, (1,) * SECONDS.size, 1.0)
    exemplars = Exemplars()
    for kind in ("timer", "reader", "writer"):
        exemplars.note(DELAY, (kind,), 200_000_000, Ids("a" * 32, "b" * 16))
    data: Any = {DELAY: {("timer",): empty, ("reader",): full}}
    exemplars.put_into(data)
    assert data[DELAY]["timer",].exemplars == ()
    assert [exemplar.value for exemplar in data[DELAY]["reader",].exemplars] == [0.2]
    assert full.exemplars == (), "a snapshot does not change"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # a thread of another test may be ending
def test_a_forked_child_has_none_of_its_parents():
    """Its figures begin anew, and so do their exemplars."""

    async def main() -> None:
        with TRACER.start_as_current_span("GET /"):
            time.sleep(BLOCK)

    assert found(run(main), DURATION)
    child = os.fork()
    if not child:
        code = 1
        try:
            snapshots = obsloop.snapshots().values()
            code = int(any(found(snapshot, DURATION) for snapshot in snapshots))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_tracer_that_raises_costs_nothing_but_the_exemplar(monkeypatch, caplog):
    """Somebody else's API: what it raises is neither the program's business nor the log's."""

    def broken() -> Span:
        raise RuntimeError("broken")

    monkeypatch.setattr("opentelemetry.trace.get_current_span", broken)
    caplog.set_level(logging.DEBUG)
    done = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.01, done.append, 1)
        time.sleep(BLOCK)
        await asyncio.sleep(0.02)

    snapshot = run(main)
    assert done == [1]
    assert not found(snapshot, DURATION)
    assert "broken" not in caplog.text


def test_without_opentelemetry_nothing_is_imported_for_them():
    """A slow program that does not have it: no exemplar, and no module of it."""
    source = """
        import asyncio, sys, time
        import obsloop

        async def main():
            asyncio.get_running_loop().call_soon(int)
            time.sleep(0.15)
            await asyncio.sleep(0)

        obsloop.run(main())
        histograms = [
            value for points in obsloop.snapshots()["main"].data.values() for value in points.values()
            if isinstance(value, obsloop.Histogram)
        ]
        print(any(histogram.exemplars for histogram in histograms), "opentelemetry" in sys.modules)
    """
    assert output(source) == "False False\n"

"""How many spans, through which providers, and what happens when something of theirs fails."""

import asyncio
import threading
import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

import obsloop
from obsloop import SpanSettings
from obsloop_exporters import _otel_span_budget, otel_spans
from obsloop_exporters._otel_span_budget import Budget
from tests.exporters.traces import EVERYTHING, traced
from tests.support import output

RAN = "asyncio.executor.job.duration"


def dropped() -> float:
    """Spans that were not made so far."""
    return obsloop.process_snapshot().value("obsloop.dropped", "span")


def jobs(number: int) -> None:
    """A loop that hands over so many."""

    async def main() -> None:
        for _ in range(number):
            await asyncio.to_thread(len, "")

    obsloop.run(main())


def test_spans_are_bounded_and_counters_are_complete():
    """A hundred jobs and a budget of ten: ten spans; ninety are counted, and the histogram has all hundred."""
    before = dropped()
    with traced(settings=SpanSettings(spans_per_minute=10, slow_job=0)) as got:
        jobs(100)
        assert 10 <= len(got.spans()) <= 12  # a busy machine may take long enough for another token
        assert dropped() - before == 100 - len(got.spans())
    assert obsloop.snapshots()["main"].histogram(RAN, "default", "ok").count == 100


def test_none_may_be_wanted():
    """A budget of nothing."""
    before = dropped()
    with traced(settings=SpanSettings(spans_per_minute=0, slow_job=0)) as got:
        jobs(3)
        assert got.spans() == []
    assert dropped() - before == 3


def test_a_connection_comes_with_all_its_parts_or_not_at_all():
    """Three spans are left and each connection needs two: one is whole, none is in pieces."""
    before = dropped()
    with traced(settings=SpanSettings(spans_per_minute=3, slow_connection=0)) as got:

        async def main() -> None:
            server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
            for _ in range(2):
                _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
                writer.close()
            server.close()

        obsloop.run(main())
        assert sorted(span.name.partition(" 127")[0] for span in got.all) == [
            "asyncio connection_setup",
            "socket connect",
        ]
    assert dropped() - before == 2


def test_the_budget_fills_with_time(monkeypatch):
    """Sixty a minute are one a second, and never more than sixty at once; what is not needed is given back."""
    now = [0]
    monkeypatch.setattr(_otel_span_budget.time, "monotonic_ns", lambda: now[0])
    budget = Budget(60)
    assert [budget.take(1) for _ in range(61)] == [True] * 60 + [False]
    now[0] += 1_000_000_000
    assert [budget.take(1), budget.take(1)] == [True, False]
    budget.give_back(1)
    assert budget.take(1)
    now[0] += 3600 * 1_000_000_000
    assert [budget.take(30), budget.take(30), budget.take(1)] == [True, True, False]


def test_what_needs_more_than_there_can_be_is_given_on_credit(monkeypatch):
    """A connection with a hundred attempts: when the bucket is full, and then nothing for long."""
    now = [0]
    monkeypatch.setattr(_otel_span_budget.time, "monotonic_ns", lambda: now[0])
    budget = Budget(60)
    assert budget.take(100)
    now[0] += 40 * 1_000_000_000
    assert not budget.take(1)
    now[0] += 2 * 1_000_000_000
    assert budget.take(1)
    assert not budget.take(100)


def test_the_budget_holds_between_threads():
    """Four loops in four threads: no token is spent twice."""
    budget, taken = Budget(1000), []

    def take() -> None:
        taken.append(sum(budget.take(1) for _ in range(1000)))

    threads = [threading.Thread(target=take) for _ in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1000 <= sum(taken) <= 1001 + (time.monotonic() - began) * 1000 / 60


def test_a_processor_that_raises_does_not_stop_us(caplog):
    """The program goes on, spans are tried again, those lost are counted, and one line says so."""

    class Broken(SpanProcessor):
        broken = True

        def on_end(self, span) -> None:
            if self.broken:
                raise RuntimeError("as it was told to")

    before, broken = dropped(), Broken()
    with traced() as got:
        got.provider.add_span_processor(broken)
        jobs(2)
        Broken.broken = False
        jobs(1)
        assert len(got.spans()) == 3  # the processor before it has them all
    assert dropped() - before == 2
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["no span for ExecutorJob"]
    assert obsloop.process_snapshot().value("obsloop.instrument.disabled", "on_executor_job") == 0


def test_several_providers_and_each_once():
    """Installing twice is once, with the newer settings; uninstalling leaves the other one."""
    with traced() as first, traced() as second:
        otel_spans.install(first.provider, settings=EVERYTHING)
        jobs(1)
        assert [len(first.spans()), len(second.spans())] == [1, 1]
        otel_spans.install(first.provider, settings=SpanSettings())
        otel_spans.uninstall(second.provider)
        otel_spans.uninstall(second.provider)
        jobs(1)
        assert [len(first.spans()), len(second.spans())] == [1, 1]


def test_settings_are_the_variables_where_none_are_given(monkeypatch):
    """``OBSLOOP_SPANS_PER_MINUTE``, ``OBSLOOP_SLOW_JOB``; a bad one counts as unset."""
    monkeypatch.setenv("OBSLOOP_SLOW_JOB", "0")
    monkeypatch.setenv("OBSLOOP_SPANS_PER_MINUTE", "2")
    with traced(install=False) as got:
        otel_spans.install(got.provider)
        jobs(3)
        assert len(got.spans()) == 2
        monkeypatch.setenv("OBSLOOP_SPANS_PER_MINUTE", "many")
        otel_spans.install(got.provider)
        jobs(3)
        assert len(got.spans()) == 5


def test_the_global_provider_may_come_later():
    """Installed first, as an instrumentation is; a fork in between; nothing of the SDK is needed before."""
    out = output("""
        import asyncio, os, sys
        import obsloop
        from obsloop_exporters import otel_spans

        otel_spans.install(settings=obsloop.SpanSettings(slow_job=0))
        print("opentelemetry.sdk" in sys.modules, flush=True)
        obsloop.run(asyncio.to_thread(len, ""))
        print(obsloop.process_snapshot().value("obsloop.dropped", "span"), flush=True)

        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        memory = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(memory))
        trace.set_tracer_provider(provider)
        otel_spans.install(provider, settings=obsloop.SpanSettings(slow_job=0))  # the same one
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        obsloop.run(asyncio.to_thread(max, 1, 2))
        print([span.name for span in memory.get_finished_spans()], flush=True)
        if not pid:
            os._exit(0)
        otel_spans.uninstall()
        obsloop.run(asyncio.to_thread(min, 1, 2))
        print(len(memory.get_finished_spans()))
    """)
    assert out.splitlines() == ["False", "0", "['asyncio executor max']", "['asyncio executor max']", "1"]


def test_the_entry_point_begins_it():
    """Called without arguments; found by who looks for exporters."""
    out = output("""
        from importlib.metadata import entry_points
        (entry,) = entry_points(group="obsloop.exporters", name="otel_spans")
        begin = entry.load()
        import sys
        print("prometheus_client" in sys.modules, "opentelemetry.sdk" in sys.modules)
        begin()
        import obsloop
        from obsloop import instruments as _instruments
        print(len(_instruments.process.on_slow_callback))
    """)
    assert out == "False False\n1\n"


class Listener:
    """What a task's span is compared with."""

    def __init__(self) -> None:
        self.events = []

    def on_task_done(self, event) -> None:
        self.events.append(event)


def test_tasks_that_took_long_or_failed():
    """Beneath the span that spawned them; a link to one that they outlive. What is neither slow nor failed has none."""
    with traced() as got:
        tracer = got.tracer

        async def fails() -> None:
            raise LookupError("no such order")

        async def takes_long() -> None:
            await asyncio.sleep(0.3)

        async def is_quick() -> None:
            await asyncio.sleep(0)

        async def main() -> None:
            asyncio.get_running_loop().add_instrument(listener)
            with tracer.start_as_current_span("order"):
                with pytest.raises(LookupError):
                    await asyncio.create_task(fails())
                await asyncio.create_task(is_quick())
                await asyncio.create_task(takes_long(), name="first")
                second = asyncio.create_task(takes_long(), name="second")
            await second

        listener = Listener()
        obsloop.run(main(), settings=obsloop.Settings(slow_task=0.25))
        order = got.named("order")
        failed = got.one("asyncio task " + f"{fails.__module__}.{fails.__qualname__}")
        assert (failed.parent, failed.status, failed.attributes["error.type"]) == (order.id, 2, "LookupError")
        first, second = sorted(
            got.spans(f"asyncio task {__name__}.{takes_long.__qualname__}"), key=lambda s: s.start_ns
        )
        assert (first.parent, first.links, first.attributes["asyncio.task.name"]) == (order.id, [], "first")
        assert (second.parent, second.links, second.attributes["asyncio.task.name"]) == (b"", [order.id], "second")
        for span in (first, second):
            assert 0.3 <= span.seconds < 5
            assert span.status == 0
        names = {span.name.rpartition(".")[2] for span in got.spans("asyncio task")}
        assert names == {event.name.rpartition(".")[2] for event in listener.events} == {"fails", "takes_long", "main"}
        assert not trace.get_current_span().get_span_context().is_valid

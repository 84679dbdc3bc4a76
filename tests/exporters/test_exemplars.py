"""Exemplars on their way out: OpenMetrics, OTLP over HTTP and gRPC. Each is the trace of a real case in its bucket.

The program blocks its loop for a known time in a known span; the same span is found again at the other end.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

import obsloop
from obsloop import Exemplar, Histogram
from obsloop.testing import StepClock
from obsloop_exporters import otel_metrics
from obsloop_exporters.prometheus import Exporter
from tests.exporters.otel import metrics, provider_with
from tests.exporters.otlp import receiving
from tests.exporters.programs import run
from tests.exporters.test_formats import OPENMETRICS, registry
from tests.exporters.test_otel_receivers import DELTAS, EXPONENTIAL, FORMS, NEVER, WIRES, exporter_for, kind_of
from tests.support import LIMIT, block

DURATION, DELAY = "asyncio.eventloop.callback.duration", "asyncio.eventloop.schedule.delay"
BUCKETS = next(metric.buckets for metric in obsloop.METRICS if metric.name == DURATION)
QUEUED = "asyncio.executor.job.queue_duration"
SLOW, BLOCK = 0.25, 0.3
pytestmark = pytest.mark.once  # tests/blocking/test_exemplars.py has what differs between interpreters and cores

METRICS = {metric.name: metric for metric in obsloop.METRICS}
NUMBERS = iter(range(1, 1000))


def span() -> Any:
    """One that is sampled, with ids that no other test has."""
    n = next(NUMBERS)
    return NonRecordingSpan(SpanContext(0xABC << 64 | n, 0xDEF << 32 | n, False, TraceFlags(TraceFlags.SAMPLED)))


def ids(one: Any) -> tuple[str, str]:
    """As an exemplar has them."""
    context = one.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


class Case:
    """A program in which a callback is slow, another waits behind it, and a job waits for a worker."""

    def __init__(self) -> None:
        self.spans = {DURATION: span(), DELAY: span(), QUEUED: span()}

    async def __call__(self) -> None:
        """One of each."""
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = SLOW
        loop.set_default_executor(ThreadPoolExecutor(1))
        await asyncio.gather(self.blocks(), self.waits())
        await asyncio.gather(asyncio.to_thread(time.sleep, BLOCK), self.asks())

    async def blocks(self) -> None:
        """The slow one."""
        with trace.use_span(self.spans[DURATION]):
            await asyncio.sleep(0)
            block(BLOCK)

    async def waits(self) -> None:
        """A fast one."""
        with trace.use_span(self.spans[DELAY]):
            await asyncio.sleep(0)

    async def asks(self) -> None:
        """The job."""
        with trace.use_span(self.spans[QUEUED]):
            await asyncio.to_thread(int)

    @property
    def wanted(self) -> dict[str, tuple[str, str]]:
        """Trace and span by metric."""
        return {metric: ids(one) for metric, one in self.spans.items()}


def every(snapshot: obsloop.Snapshot) -> dict[str, list[Exemplar]]:
    """The exemplars of all series, by metric."""
    found = {
        name: [exemplar for value in points.values() if isinstance(value, Histogram) for exemplar in value.exemplars]
        for name, points in snapshot.data.items()
    }
    return {name: exemplars for name, exemplars in found.items() if exemplars}


@pytest.fixture
def case(freeze) -> Case:
    """It has run, and the figures hold still; each of its metrics has the exemplar that it put in."""
    case = Case()
    run(case)
    loops, _ = freeze()
    found = every(loops["main"])
    assert found.keys() == case.wanted.keys()
    for metric, wanted in case.wanted.items():
        (exemplar,) = found[metric]
        assert (exemplar.trace_id, exemplar.span_id) == wanted
        assert BLOCK - 0.05 <= exemplar.value < BLOCK + LIMIT
    return case


def scraped(body: bytes) -> dict[str, list[tuple[float, Any]]]:
    """Upper bound of the bucket and exemplar, by family, as the parser of OpenMetrics reads them."""
    found: dict[str, list[tuple[float, Any]]] = {}
    for family in parse_openmetrics(body.decode()):
        for sample in family.samples:
            if sample.exemplar:
                assert sample.name == f"{family.name}_bucket"
                found.setdefault(family.name, []).append((float(sample.labels["le"]), sample.exemplar))
    return found


def test_openmetrics_has_them_at_the_buckets_that_they_are_in(case):
    """Trace, span, value and time; within the bucket's bounds; and as short as OpenMetrics wants them."""
    snapshot = obsloop.snapshots()["main"]
    found = scraped(Exporter().render(OPENMETRICS)[1])
    assert found.keys() == {f"{metric.replace('.', '_')}_seconds" for metric in case.wanted}
    for metric, (trace_id, span_id) in case.wanted.items():
        ((le, exemplar),) = found[f"{metric.replace('.', '_')}_seconds"]
        (meant,) = every(snapshot)[metric]
        assert exemplar.labels == {"trace_id": trace_id, "span_id": span_id}
        assert (exemplar.value, float(exemplar.timestamp)) == (meant.value, pytest.approx(meant.time, abs=1e-6))
        bounds = [0.0, *BUCKETS, float("inf")]
        assert bounds[bounds.index(le) - 1] < exemplar.value <= le
        assert sum(len(key) + len(value) for key, value in exemplar.labels.items()) <= 128


@pytest.mark.usefixtures("case")
def test_both_ways_to_openmetrics_write_the_same_and_the_classic_text_has_none():
    """The program's registry and obsloop's own service, byte by byte; and 0.0.4 does not know exemplars."""
    for accept, exemplars in ((OPENMETRICS, 3), ("", 0)):
        body = Exporter().render(accept)[1]
        assert body == choose_encoder(accept)[0](registry())
        assert body.count(b"trace_id") == exemplars


def test_of_several_in_one_bucket_the_latest_goes_out(freeze):
    """Obsloop's own buckets are finer than those that are exported: of Prometheus's, 120 to 180 ms are one."""
    spans = [span() for _ in range(3)]

    async def main() -> None:
        for one, seconds in zip(spans, (0.18, 0.12, 0.15), strict=True):
            with trace.use_span(one):
                await asyncio.sleep(0.001)
                block(seconds)
                await asyncio.sleep(0.001)

    run(main)
    loops, _ = freeze()
    held = every(loops["main"])[DURATION]
    newest = {}
    for exemplar in sorted(held, key=lambda exemplar: exemplar.time):
        newest[min(bound for bound in (*BUCKETS, float("inf")) if exemplar.value <= bound)] = exemplar.trace_id
    found = scraped(Exporter().render(OPENMETRICS)[1])["asyncio_eventloop_callback_duration_seconds"]
    assert {le: exemplar.labels["trace_id"] for le, exemplar in found} == newest
    assert len(held) >= 2
    with provider_with(reader := InMemoryMetricReader()):
        points = metrics(reader)[DURATION].data.data_points
    assert {f"{one.trace_id:032x}" for point in points for one in point.exemplars} == set(newest.values())


@WIRES
@FORMS
def test_otlp_brings_them_to_the_receiver(case, wire, aggregation):
    """Over HTTP and gRPC, with explicit and with exponential buckets: the same cases, in the same traces."""
    snapshot = obsloop.snapshots()["main"]
    with receiving(kind_of(wire)) as receiver:
        exporter = exporter_for(wire, receiver, preferred_aggregation=aggregation)
        with provider_with(PeriodicExportingMetricReader(exporter, NEVER)) as provider:
            provider.force_flush()
        last = receiver.last
    found = {
        name: [exemplar for point in series.values() for exemplar in getattr(point, "exemplars", ())]
        for name, series in last.items()
    }
    assert {name for name, exemplars in found.items() if exemplars} == case.wanted.keys()
    for metric, wanted in case.wanted.items():
        ((arrived,), (meant,)) = found[metric], every(snapshot)[metric]
        assert (arrived.trace_id.hex(), arrived.span_id.hex()) == wanted
        assert arrived.as_double == meant.value
        assert arrived.time_unix_nano == round(meant.time * 1e9)


@pytest.mark.parametrize("aggregation", [None, EXPONENTIAL], ids=["explicit", "exponential"])
def test_a_delta_has_those_that_came_in_its_interval(aggregation):
    """Each once; an interval in which nothing was slow has none."""
    reader = InMemoryMetricReader(preferred_temporality=DELTAS, preferred_aggregation=aggregation)

    def traces() -> set[str]:
        found = metrics(reader).values()
        return {
            f"{one.trace_id:032x}"
            for metric in found
            for point in metric.data.data_points
            for one in getattr(point, "exemplars", ())
        }

    with provider_with(reader):
        first, second = Case(), Case()
        run(first)
        assert traces() == {trace_id for trace_id, _ in first.wanted.values()}
        assert traces() == set()
        run(second)
        assert traces() == {trace_id for trace_id, _ in second.wanted.values()}


@pytest.mark.usefixtures("case")
def test_a_view_that_adds_series_up_keeps_one_for_each_bucket():
    """Without the label `kind` the series are one; its exemplars are theirs."""
    reader = InMemoryMetricReader()
    view = View(instrument_name=DURATION, attribute_keys={"asyncio.eventloop.name"})
    with provider_with(reader, views=[view]):
        (point,) = metrics(reader)[DURATION].data.data_points
    (meant,) = every(obsloop.snapshots()["main"])[DURATION]
    assert [f"{one.trace_id:032x}" for one in point.exemplars] == [meant.trace_id]


@pytest.mark.usefixtures("case")
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_who_switches_exemplars_off_gets_none(monkeypatch, by):
    """As OpenTelemetry has it: the provider's filter, or OTEL_METRICS_EXEMPLAR_FILTER."""
    if by == "environment":
        monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")
    reader = InMemoryMetricReader()
    chosen = {"exemplar_filter": AlwaysOffExemplarFilter()} if by == "argument" else {}
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False, **chosen)
    otel_metrics.install(provider)
    try:
        points = [point for metric in metrics(reader).values() for point in metric.data.data_points]
    finally:
        provider.shutdown()
    assert sum(getattr(point, "count", 0) for point in points), "the figures go out"
    assert not any(point.exemplars for point in points)


def test_both_exporters_show_the_same_cases(case):
    """One run through Prometheus and OTLP: the same trace at the same value in the same bucket."""
    assert case.wanted
    seen = {
        (family, le, exemplar.labels["trace_id"], exemplar.labels["span_id"], exemplar.value)
        for family, found in scraped(Exporter().render(OPENMETRICS)[1]).items()
        for le, exemplar in found
    }
    with provider_with(reader := InMemoryMetricReader()):
        found = metrics(reader)
    sent = set()
    for name, metric in found.items():
        if METRICS[name].kind == "histogram":
            for point in metric.data.data_points:
                for one in point.exemplars:
                    le = min(bound for bound in (*point.explicit_bounds, float("inf")) if one.value <= bound)
                    family = f"{name.replace('.', '_')}_seconds"
                    sent.add((family, le, f"{one.trace_id:032x}", f"{one.span_id:016x}", one.value))
    assert seen == sent
    assert len(seen) == 3


def test_an_exponential_point_keeps_one_for_each_of_its_buckets(freeze):
    """Fewer buckets are coarser ones: then fewer exemplars go out, never two of one bucket."""
    spans = [span() for _ in range(3)]

    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.02
        clock.advance(1e-6)  # a short step as well: two buckets are then too coarse to tell the others apart
        for one, seconds in zip(spans, (0.03, 0.06, 0.12), strict=True):
            with trace.use_span(one):
                await asyncio.sleep(0.001)
                clock.advance(seconds)
                await asyncio.sleep(0.001)

    with StepClock() as clock, closing(obsloop.Loop(clock.selector())) as loop:
        loop.run_until_complete(main())
        freeze()
    for max_size in (160, 2):
        aggregation = {sdk.Histogram: ExponentialBucketHistogramAggregation(max_size=max_size)}
        with provider_with(reader := InMemoryMetricReader(preferred_aggregation=aggregation)):
            points = metrics(reader)[DURATION].data.data_points
        (point,) = [point for point in points if point.exemplars]
        base = 2.0 ** (2.0**-point.scale)
        buckets = []
        for one in point.exemplars:
            (index,) = [
                i
                for i in range(point.positive.offset, point.positive.offset + len(point.positive.bucket_counts))
                if base**i < one.value <= base ** (i + 1)
            ]
            assert point.positive.bucket_counts[index - point.positive.offset]
            buckets.append(index)
        assert len(set(buckets)) == len(buckets)
        assert len(buckets) == (3 if max_size == 160 else 1)
        assert f"{point.exemplars[-1].trace_id:032x}" == ids(spans[-1])[0]

"""Against real receivers on loopback, OTLP over HTTP and gRPC: what arrived is what the snapshot says, each number."""

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from prometheus_client.core import CollectorRegistry
from prometheus_client.utils import floatToGoString

import obsloop
from obsloop import Histogram
from obsloop_exporters.prometheus import Collector
from tests.exporters.otel import DELTA, expected, explicit, exponential, exponential_of, provider_with
from tests.exporters.otlp import GrpcReceiver, HttpReceiver, Series, metrics_of, receiving
from tests.exporters.programs import UNUSED, everything, little, run
from tests.exporters.test_names import EXPECTED

NEVER = float("inf")
EXPONENTIAL = {sdk.Histogram: ExponentialBucketHistogramAggregation()}
DELTAS = {sdk.ObservableCounter: DELTA, sdk.Histogram: DELTA}
METRICS = {metric.name: metric for metric in obsloop.METRICS}

WIRES = pytest.mark.parametrize("wire", ["http", pytest.param("grpc", marks=pytest.mark.clients)])
FORMS = pytest.mark.parametrize("aggregation", [None, EXPONENTIAL], ids=["explicit", "exponential"])


def exporter_for(wire: str, receiver, **kwargs):
    """OpenTelemetry's own exporter, to that receiver."""
    if wire == "http":
        return HttpExporter(receiver.endpoint, **kwargs)
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

    return GrpcExporter(receiver.endpoint, insecure=True, **kwargs)


def kind_of(wire: str):
    """The receiver's class."""
    return HttpReceiver if wire == "http" else GrpcReceiver


def assert_same(found: Series, wanted, form: str) -> None:
    """Every series of the snapshots and no other, each number."""
    assert found.keys() == wanted.keys()
    for name, series in wanted.items():
        assert found[name].keys() == series.keys(), name
        for attributes, value in series.items():
            point = found[name][attributes]
            if not isinstance(value, Histogram):
                which = "as_double" if METRICS[name].unit in ("s", "1") else "as_int"
                assert (point.WhichOneof("value"), getattr(point, which)) == (which, value), name
                continue
            assert (point.count, point.sum) == (value.count, value.sum)
            assert not point.HasField("min"), "what is not known is not sent"
            assert not point.HasField("max"), "what is not known is not sent"
            if form == "explicit":
                bounds = METRICS[name].buckets
                assert tuple(point.explicit_bounds) == bounds
                assert list(point.bucket_counts) == explicit(value, bounds)
            else:
                assert (point.scale, point.zero_count) == (2, value.exponential().zero_count)
                assert exponential_of(point) == exponential(value, 2)


@WIRES
@FORMS
def test_what_arrives_is_what_the_snapshot_says(freeze, wire, aggregation):
    """A program that fills every metric, seen after it has stopped moving; every metric arrives."""
    with receiving(kind_of(wire)) as receiver:
        exporter = exporter_for(wire, receiver, preferred_aggregation=aggregation)
        with provider_with(PeriodicExportingMetricReader(exporter, NEVER)) as provider:
            loops, process = run(everything(freeze), name="judged")
            provider.force_flush()
        assert_same(receiver.last, expected(loops, process), "exponential" if aggregation else "explicit")
        assert receiver.last.keys() - UNUSED == METRICS.keys() - UNUSED
        for metric in metrics_of(receiver.requests[-1]):
            wanted = METRICS[metric.name]
            assert (metric.unit, metric.description) == (wanted.unit, wanted.help)
            if metric.WhichOneof("data") == "sum":
                assert metric.sum.is_monotonic == (wanted.kind == "counter")
            if metric.WhichOneof("data") != "gauge":
                assert getattr(metric, metric.WhichOneof("data")).aggregation_temporality == 2
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    assert 0 < point.start_time_unix_nano < point.time_unix_nano
                    assert point.start_time_unix_nano == round(
                        (process if wanted.scope == "process" else loops["judged"]).began * 1e9
                    )


@WIRES
def test_deltas_that_arrived_add_up_to_the_snapshot(wire):
    """Exports in between and at the end: the parts of every counter and every bucket are the whole."""
    with receiving(kind_of(wire)) as receiver:
        exporter = exporter_for(wire, receiver, preferred_aggregation=EXPONENTIAL, preferred_temporality=DELTAS)
        with provider_with(PeriodicExportingMetricReader(exporter, NEVER)) as provider:
            for _ in range(3):
                run(little)
                provider.force_flush()
            wanted = {"main": obsloop.snapshots()["main"]}
        added = added_up(receiver.requests)
        for name, series in expected(wanted, obsloop.process_snapshot()).items():
            if METRICS[name].scope == "process":
                continue  # goes on while it is compared
            for attributes, value in series.items():
                if isinstance(value, Histogram):
                    counts, total = added.get((name, attributes), ({}, 0.0))
                    assert {i: n for i, n in counts.items() if n} == exponential(value, 2)
                    assert total == pytest.approx(value.sum)
                elif METRICS[name].kind == "counter":
                    assert added[name, attributes] == pytest.approx(value)


def added_up(requests) -> dict:
    """What a backend for deltas would have: sums of numbers, and of buckets."""
    added: dict = {}
    for request in requests:
        for metric in metrics_of(request):
            data = getattr(metric, metric.WhichOneof("data"))
            for point in data.data_points:
                one = (metric.name, frozenset((pair.key, pair.value.string_value) for pair in point.attributes))
                if metric.WhichOneof("data") == "exponential_histogram":
                    counts, total = added.setdefault(one, ({}, 0.0))
                    for index, count in exponential_of(point).items():
                        counts[index] = counts.get(index, 0) + count
                    added[one] = (counts, total + point.sum)
                elif metric.WhichOneof("data") == "sum":
                    added[one] = added.get(one, 0) + (point.as_int or point.as_double)
    return added


def test_prometheus_and_otlp_show_the_same_histograms(freeze):
    """One run, two exporters: each bucket, count and sum, and each number, is the same."""
    registry = CollectorRegistry()
    registry.register(Collector())
    with receiving(HttpReceiver) as receiver:
        with provider_with(PeriodicExportingMetricReader(HttpExporter(receiver.endpoint), NEVER)) as provider:
            run(everything(freeze))
            provider.force_flush()
        last = receiver.last
    scraped = {(s.name, frozenset(s.labels.items())): s.value for family in registry.collect() for s in family.samples}
    buckets = 0

    def sample(name: str, labels: dict[str, str]) -> float:
        return scraped[name, frozenset(labels.items())]

    for name, series in last.items():
        family = EXPECTED[name][0] + ("_total" if METRICS[name].kind == "counter" else "")
        for attributes, point in series.items():
            labels = {key.replace(".", "_"): value for key, value in attributes}
            if METRICS[name].kind != "histogram":
                value = getattr(point, point.WhichOneof("value"))
                assert sample(family, labels) == value
                continue
            below = 0
            for bound, count in zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True):
                below += count
                le = {"le": floatToGoString(bound)}
                assert sample(f"{family}_bucket", labels | le) == below
                buckets += 1
            assert sample(f"{family}_count", labels) == point.count
            assert sample(f"{family}_sum", labels) == point.sum
    assert buckets > 200

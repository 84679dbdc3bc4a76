"""Values: a scrape says what the snapshot says, and buckets are exact."""

from types import MappingProxyType

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.utils import floatToGoString

import obsloop
from obsloop import Histogram, Snapshot
from obsloop_exporters.prometheus import Collector
from tests.exporters.programs import UNUSED, everything, run
from tests.exporters.test_names import EXPECTED

PAUSE = "cpython.gc.pause.duration"


def registry(**buckets) -> CollectorRegistry:
    """A registry with one collector of ours."""
    made = CollectorRegistry()
    made.register(Collector(**buckets))
    return made


@pytest.mark.parametrize("metric", obsloop.METRICS, ids=lambda metric: metric.name)
def test_a_scrape_says_what_the_snapshot_says(filled, metric):
    """Each figure of each series, for a program that filled everything."""
    loops, process = filled
    scrape, name = registry(), EXPECTED[metric.name][0] + ("_total" if metric.kind == "counter" else "")
    snapshot, base = (loops["judged"], {"asyncio_eventloop_name": "judged"})
    if metric.scope == "process":
        snapshot, base = process, {}
    if metric.name == "asyncio.eventloop.utilization":
        assert scrape.get_sample_value(name, base) == snapshot.utilization()
        return
    exported = snapshot.exported(metric)
    assert exported or metric.name in UNUSED
    for values, value in snapshot[metric.name].items():
        labels = base | {label.name.replace(".", "_"): v for label, v in zip(metric.labels, values, strict=True)}
        if not isinstance(value, Histogram):
            assert scrape.get_sample_value(name, labels) == (value if values in exported else None)
            continue
        if values not in exported:
            assert scrape.get_sample_value(f"{name}_count", labels) is None
            continue
        assert scrape.get_sample_value(f"{name}_sum", labels) == value.sum
        assert scrape.get_sample_value(f"{name}_count", labels) == value.count
        for bound, count in zip(metric.buckets, value.cumulative(metric.buckets), strict=True):
            le = {"le": floatToGoString(bound)}
            assert scrape.get_sample_value(f"{name}_bucket", labels | le) == count
        assert scrape.get_sample_value(f"{name}_bucket", labels | {"le": "+Inf"}) == value.count


def put_in(monkeypatch, values_ns: list[int]) -> None:
    """Make the process's garbage collections of generation 0 have lasted `values_ns`."""
    partition = obsloop.process_snapshot().histogram(PAUSE, "0").partition
    counts = [0] * partition.size
    for value in values_ns:
        counts[partition.index(value)] += 1
    histogram = Histogram(partition, tuple(counts), sum(values_ns) / 1e9)
    points = MappingProxyType({PAUSE: MappingProxyType({("0",): histogram})})
    monkeypatch.setattr(obsloop, "process_snapshot", lambda: Snapshot("", False, 0.0, points))


@pytest.mark.parametrize(
    "buckets",
    [None, next(metric.bounds for metric in obsloop.METRICS if metric.name == PAUSE)],
    ids=["default bounds", "all bounds"],
)
def test_a_bucket_holds_exactly_what_is_at_most_its_bound(monkeypatch, buckets):
    """A value at each bound, one nanosecond below and one above: counted as whole numbers count them."""
    own = next(metric.buckets for metric in obsloop.METRICS if metric.name == PAUSE)
    bounds = own if buckets is None else buckets
    bounds_ns = [round(bound * 1e9) for bound in bounds]
    values_ns = [bound + by for bound in bounds_ns for by in (-1, 0, 1)]
    put_in(monkeypatch, values_ns)
    scrape = registry(seconds_buckets=buckets)
    for bound, bound_ns in zip(bounds, bounds_ns, strict=True):
        labels = {"cpython_gc_generation": "0", "le": floatToGoString(bound)}
        found = scrape.get_sample_value("cpython_gc_pause_duration_seconds_bucket", labels)
        assert found == sum(value <= bound_ns for value in values_ns)


def bounds_of(metric) -> list[str]:
    """The values of `le` in the order of the samples, for the first series."""
    found = [sample.labels["le"] for sample in metric.samples if sample.name.endswith("_bucket")]
    return found[: found.index("+Inf") + 1]


def test_buckets_can_be_chosen():
    """In any order, with or without +Inf, whole or broken: they come out ascending, written as Prometheus does."""
    run(everything(lambda: None))
    scrape = registry(seconds_buckets=[1, 0.005, 0.005, float("inf")], count_buckets=(1000000, 1))
    metrics = {metric.name: metric for metric in scrape.collect()}
    assert bounds_of(metrics["asyncio_eventloop_poll_duration_seconds"]) == ["0.005", "1.0", "+Inf"]
    assert bounds_of(metrics["asyncio_eventloop_ready_depth"]) == ["1.0", "1e+06", "+Inf"]


def test_no_buckets_leave_count_and_sum():
    """Whoever wants averages only pays for two series a histogram and +Inf."""
    run(everything(lambda: None))
    metrics = {metric.name: metric for metric in registry(seconds_buckets=()).collect()}
    assert bounds_of(metrics["asyncio_eventloop_poll_duration_seconds"]) == ["+Inf"]


@pytest.mark.parametrize(
    ("buckets", "said"),
    [
        ({"seconds_buckets": [0.01, 0.3]}, r"seconds_buckets: .* at the bound 0\.3; choose among 1e-06, 2\.5e-06,"),
        ({"count_buckets": [3]}, r"count_buckets: .*ready\.depth.* at the bound 3; choose among 1, 2, 5, 10,"),
        ({"seconds_buckets": [float("nan")]}, r"seconds_buckets: .* at the bound nan;"),
        ({"seconds_buckets": ["0.1"]}, r"seconds_buckets: .* at the bound '0\.1';"),
        ({"seconds_buckets": [-1.0]}, r"seconds_buckets: .* at the bound -1\.0;"),
    ],
)
def test_a_bound_that_cannot_be_exact_is_refused_when_the_collector_is_made(buckets, said):
    """The error names the argument, the bound and what may be chosen; no scrape is needed to find out."""
    with pytest.raises(ValueError, match=said):
        Collector(**buckets)

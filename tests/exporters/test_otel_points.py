"""What a MeterProvider's readers are given: the catalogue, number by number, as each reader prefers it."""

import asyncio
import time
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import pytest
from hypothesis import given as examples, settings, strategies as st
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import (
    ExponentialHistogram,
    Gauge,
    Histogram as ExplicitHistogram,
    InMemoryMetricReader,
    Sum,
)
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    SumAggregation,
    View,
)

import obsloop
from obsloop import Histogram, Snapshot
from obsloop.metrics.buckets import COUNTS, SECONDS, Buckets
from obsloop_exporters import _otel_points, _otel_reading, otel_metrics
from tests.exporters.otel import (
    CUMULATIVE,
    DELTA,
    expected,
    explicit,
    exponential,
    exponential_of,
    given,
    metrics,
    provider_with,
)
from tests.exporters.programs import UNUSED, little, run
from tests.support import output

DELTAS = {sdk.Counter: DELTA, sdk.ObservableCounter: DELTA, sdk.Histogram: DELTA}
EXPONENTIAL = {sdk.Histogram: ExponentialBucketHistogramAggregation()}
ITERATIONS, DELAY = "asyncio.eventloop.iterations", "asyncio.eventloop.schedule.delay"
UTILIZATION = "asyncio.eventloop.utilization"
MAIN = frozenset({("asyncio.eventloop.name", "main")})
METRICS = {metric.name: metric for metric in obsloop.METRICS}


@pytest.fixture(autouse=True)
def says_anew(monkeypatch):
    """Warnings that other tests have caused already are said again."""
    monkeypatch.setattr(_otel_reading, "_told", set())


@pytest.mark.parametrize("aggregation", [None, EXPONENTIAL], ids=["explicit", "exponential"])
def test_a_reader_is_given_what_the_snapshot_says(filled, aggregation):
    """Every series of every metric of a program that filled them all: no other, and each number."""
    reader = InMemoryMetricReader(preferred_aggregation=aggregation)
    with provider_with(reader):
        loops, process = filled
        found, wanted = given(reader), expected(loops, process)
    # A busy machine may fill a lint, and a test before a process's metric.
    used = [name for name in found if name not in UNUSED]
    assert used == [metric.name for metric in obsloop.METRICS if metric.name not in UNUSED]
    for name, series in wanted.items():
        assert found[name].keys() == series.keys()
        for attributes, value in series.items():
            point = found[name][attributes]
            if not isinstance(value, Histogram):
                assert point.value == value
                assert type(point.value) is (float if METRICS[name].unit in ("s", "1") else int)
                continue
            assert (point.count, point.sum, point.min, point.max) == (value.count, value.sum, None, None)
            if aggregation is None:
                bounds = METRICS[name].buckets
                assert (tuple(point.explicit_bounds), list(point.bucket_counts)) == (bounds, explicit(value, bounds))
            else:
                assert (point.scale, exponential_of(point)) == (2, exponential(value, 2))
                assert point.zero_count == value.exponential().zero_count
                assert not any(point.negative.bucket_counts)


@pytest.mark.parametrize("metric", [m for m in obsloop.METRICS if m.name not in UNUSED], ids=lambda m: m.name)
def test_an_instrument_is_what_its_metric_is(filled, metric):
    """Name, unit, description and kind are the catalogue's."""
    reader = InMemoryMetricReader()
    with provider_with(reader):
        exported = metrics(reader)[metric.name]
    assert (exported.unit, exported.description) == (metric.unit, metric.help)
    kinds = {"counter": Sum, "updowncounter": Sum, "gauge": Gauge, "histogram": ExplicitHistogram}
    assert type(exported.data) is kinds[metric.kind]
    if isinstance(exported.data, Sum):
        assert exported.data.is_monotonic == (metric.kind == "counter")


def test_the_scope_is_obsloop_and_the_programs_own_metrics_stay(filled):
    """Our scope has our version and no schema; what the program records is beside it, in the same resource."""
    reader = InMemoryMetricReader()
    with provider_with(reader) as provider:
        provider.get_meter("shop").create_counter("orders").add(3)
        data = reader.get_metrics_data()
    (resource,) = data.resource_metrics
    scopes = {one.scope.name: one for one in resource.scope_metrics}
    assert scopes.keys() == {"shop", "obsloop"}
    assert [m.data.data_points[0].value for m in scopes["shop"].metrics] == [3]
    assert (scopes["obsloop"].scope.version, scopes["obsloop"].schema_url) == (obsloop.__version__, "")


def test_a_process_without_a_loop_exports_its_own_figures():
    """Nothing was recorded by anybody, and yet the reader is given something."""
    reader = InMemoryMetricReader()
    with provider_with(reader):
        found = given(reader)
    assert found.keys() == expected({}, obsloop.process_snapshot()).keys()
    assert "obsloop.dropped" in found


def test_a_label_value_that_utf8_cannot_write_is_exported_escaped(monkeypatch):
    """Half a surrogate pair would cost the program its whole export."""
    hostile = replace(at(1.0, 1.0), loop_name="half \udc80 pair")
    monkeypatch.setattr(obsloop, "snapshots", lambda: {hostile.loop_name: hostile})
    reader = InMemoryMetricReader()
    with provider_with(reader):
        (attributes,) = given(reader)[UTILIZATION]
    assert dict(attributes)["asyncio.eventloop.name"] == "half \\udc80 pair"


# Exponential buckets, exact. (That obsloop's own are is tests/metrics/test_buckets.py's.)


def histogram_of(partition: Buckets, values: list[int]) -> Histogram:
    """A histogram of these counted integers."""
    counts = [0] * partition.size
    for value in values:
        counts[partition.index(value)] += 1
    return Histogram(partition, tuple(counts), sum(values) / partition.units)


def index_of(value: int, units: int, scale: int) -> int:
    """The bucket by OpenTelemetry's definition, (base**i, base**(i + 1)], base 2**(2**-scale), in integers only."""

    def above(i: int) -> bool:
        """Whether value / units > base**i; both sides to the power 4, where i / 4 is whole quarters at scale 2."""
        quarters = i << (2 - scale) if scale <= 2 else None
        left, right = value**4, units**4
        return left > right << quarters if quarters >= 0 else left << -quarters > right

    i = -200
    while above(i + 1):
        i += 1
    return i


@pytest.mark.parametrize("partition", [SECONDS, COUNTS], ids=["seconds", "counts"])
@pytest.mark.parametrize("scale", [2, 1, 0, -1, -3])
def test_a_point_holds_each_value_where_opentelemetry_defines_it(partition, scale):
    """Each bound of the partition, one below and one above; at the scales held, and at coarser ones that are merged."""
    aggregation = ExponentialBucketHistogramAggregation(max_scale=scale)
    smallest = partition.bounds[0]
    top = partition.bounds[partition.index_of_exponent(partition.max_exponent)]
    for value in sorted({v for bound in partition.bounds for v in (bound - 1, bound, bound + 1)}):
        if value <= smallest or value > top:
            continue
        point = _otel_points.exponential({}, 0, 1, histogram_of(partition, [value]), aggregation)
        assert point.scale == scale
        assert exponential_of(point) == {index_of(value, partition.units, scale): 1}, value
        assert point.zero_count == 0


def test_zero_is_counted_as_zero():
    """An empty queue is zero and one handle is not; of times what is shorter than 60 ns, the smallest bound, is."""
    aggregation = ExponentialBucketHistogramAggregation()
    counts = _otel_points.exponential({}, 0, 1, histogram_of(COUNTS, [0, 0, 1, 2]), aggregation)
    assert (counts.zero_count, exponential_of(counts)) == (2, {-1: 1, 3: 1})
    times = _otel_points.exponential({}, 0, 1, histogram_of(SECONDS, [0, 59, 60]), aggregation)
    assert (times.zero_count, exponential_of(times)) == (2, {-96: 1})


@settings(max_examples=60, deadline=None, database=None)
@examples(
    values=st.lists(st.integers(60, 10**12), min_size=1, max_size=50),
    max_size=st.integers(2, 200),
)
def test_fewer_buckets_are_a_coarser_scale_with_nothing_lost(values, max_size):
    """The finest scale that fits, and each value where that scale has it."""
    histogram = histogram_of(SECONDS, values)
    point = _otel_points.exponential({}, 0, 1, histogram, ExponentialBucketHistogramAggregation(max_size=max_size))
    counted: dict[int, int] = {}
    for value in values:
        index = index_of(value, 10**9, point.scale)
        counted[index] = counted.get(index, 0) + 1
    assert exponential_of(point) == counted
    assert max(counted) - min(counted) < max_size
    if point.scale < 2:
        finer = {index_of(value, 10**9, point.scale + 1) for value in values}
        assert max(finer) - min(finer) >= max_size


# Temporality.


def test_deltas_are_the_differences_and_add_up(monkeypatch):
    """Three stretches of a program; each delta is the difference of the snapshots before and after, in each number."""
    reader = InMemoryMetricReader(preferred_temporality=DELTAS, preferred_aggregation=EXPONENTIAL)
    with provider_with(reader):
        before: dict = {}
        last_time = None
        for _ in range(3):
            run(little)
            loops, process = obsloop.snapshots(), obsloop.process_snapshot()
            with monkeypatch.context() as still:
                still.setattr(obsloop, "snapshots", lambda loops=loops: loops)
                still.setattr(obsloop, "process_snapshot", lambda process=process: process)
                found = given(reader)
            now = expected(loops, process)
            for name, series in now.items():
                for attributes, value in series.items():
                    earlier = before.get(name, {}).get(attributes)
                    point = found.get(name, {}).get(attributes)
                    if isinstance(value, Histogram):
                        change = histogram_difference(value, earlier)
                        if change.count == 0:
                            assert point is None, "what did not happen is left out"
                            continue
                        assert exponential_of(point) == exponential(change, 2)
                        assert point.sum == pytest.approx(change.sum)
                    elif METRICS[name].kind == "counter":
                        assert point.value == pytest.approx(value - (earlier or 0))
                    elif name != UTILIZATION:
                        assert point.value == value, "what goes up and down, and a gauge, is as it is"
            point = found[ITERATIONS][MAIN]
            assert point.value > 0
            assert last_time is None or point.start_time_unix_nano == last_time, "intervals follow one another"
            assert point.start_time_unix_nano < point.time_unix_nano
            before, last_time = now, point.time_unix_nano


def histogram_difference(now: Histogram, before: Histogram | None) -> Histogram:
    """What came to `before`."""
    if before is None:
        return now
    counts = tuple(a - b for a, b in zip(now.bucket_counts, before.bucket_counts, strict=True))
    return Histogram(now.partition, counts, now.sum - before.sum)


def test_two_readers_of_deltas_do_not_disturb_each_other():
    """One reads often, one seldom: each gets everything once. A third is cumulative."""
    often, seldom = (InMemoryMetricReader(preferred_temporality=DELTAS) for _ in range(2))
    total = InMemoryMetricReader()
    with provider_with(often, seldom, total):
        parts = []
        for _ in range(4):
            run(little)
            parts.append(given(often)[ITERATIONS][MAIN].value)
        all_of_it = obsloop.snapshots()["main"].value(ITERATIONS)
        assert min(parts) > 0
        assert sum(parts) == given(seldom)[ITERATIONS][MAIN].value == given(total)[ITERATIONS][MAIN].value == all_of_it


def test_the_temporality_is_that_of_the_kind():
    """As `lowmemory` has it: histograms are deltas, what is observed is not."""
    reader = InMemoryMetricReader(preferred_temporality={sdk.Counter: DELTA, sdk.Histogram: DELTA})
    with provider_with(reader):
        run(little)
        found = metrics(reader)
    assert found[DELAY].data.aggregation_temporality is DELTA
    assert found[ITERATIONS].data.aggregation_temporality is CUMULATIVE


def test_what_goes_up_and_down_can_be_a_delta_too(freeze):
    """Who asks for it gets the change, which may be below zero."""
    reader = InMemoryMetricReader(preferred_temporality={sdk.ObservableUpDownCounter: DELTA})
    with provider_with(reader):

        async def main():
            loop = asyncio.get_running_loop()
            timers = [loop.call_later(60, print) for _ in range(3)]
            up = given(reader)["asyncio.eventloop.timer.count"][MAIN].value
            for timer in timers:
                timer.cancel()
            await asyncio.sleep(0)
            loop._scheduled.clear()
            loop._timer_cancelled_count = 0
            return up, given(reader)["asyncio.eventloop.timer.count"][MAIN].value

        assert run(main) == (3, -3)


def test_figures_began_when_the_first_loop_of_the_name_ran():
    """The start of cumulative points lies before what they count and after what was before; it stays."""
    reader = InMemoryMetricReader()
    with provider_with(reader):
        before_ns = time.time_ns()
        run(little)
        first = given(reader)[ITERATIONS][MAIN]
        run(little)
        second = given(reader)[ITERATIONS][MAIN]
        process = given(reader)["obsloop.self.time"][frozenset({("what", "snapshot")})]
    assert before_ns - 1_000 <= first.start_time_unix_nano < first.time_unix_nano < second.time_unix_nano
    assert first.start_time_unix_nano == second.start_time_unix_nano
    assert process.start_time_unix_nano < before_ns


FORK = """
import os, time
import obsloop
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.exporters.otel import given, provider_with
from tests.exporters.programs import UNUSED, little, run
from tests.exporters.test_otel_points import DELTAS, ITERATIONS, MAIN

deltas, totals = InMemoryMetricReader(preferred_temporality=DELTAS), InMemoryMetricReader()
with provider_with(deltas, totals):
    for _ in range(20):
        run(little)
    given(deltas), given(totals)
    forked_ns = time.time_ns()
    child = os.fork()
    if child == 0:
        run(little)
        ours = obsloop.snapshots()["main"].value(ITERATIONS)
        for reader in deltas, totals:
            point = given(reader)[ITERATIONS][MAIN]
            print(0 < point.value == ours, point.start_time_unix_nano >= forked_ns - 1000, flush=True)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def test_a_fork_begins_anew():
    """The child's deltas and totals are its own: not below zero, not the parent's, and since the fork."""
    assert output(FORK).split() == ["True", "True"] * 2 + ["0"]


FORK_DURING_EXPORT = """
import os, signal, threading
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from obsloop_exporters import otel_metrics
from tests.exporters.test_otel_outage import Failing

class Slow(Failing):
    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        begun.set()
        go_on.wait()
        return MetricExportResult.SUCCESS

begun, go_on = threading.Event(), threading.Event()
exporter = otel_metrics.wrap(Slow())
thread = threading.Thread(target=exporter.export, args=(MetricsData([]),))
thread.start()
begun.wait()
child = os.fork()
go_on.set()
if child == 0:
    signal.alarm(20)
    os._exit(exporter.export(MetricsData([])) is not MetricExportResult.SUCCESS)
thread.join()
print(os.waitpid(child, 0)[1])
"""


def test_a_fork_in_the_middle_of_an_export_leaves_the_child_able_to_export():
    """The thread that was exporting is not in the child, and what it held is free there."""
    options = ["-W", "ignore:This process:DeprecationWarning"]  # that forking with threads is risky is why this is here
    assert output(FORK_DURING_EXPORT, *options) == "0\n"


# Utilization.


def at(idle: float, callback: float) -> Snapshot:
    """A loop that was idle and in callbacks for so many seconds since it began; nothing else is known of it."""
    time = {("idle",): idle, ("poll",): 0.0, ("callback",): callback, ("gc",): 0.0, ("overhead",): 0.0}
    data = {metric.name: {} for metric in obsloop.METRICS} | {"asyncio.eventloop.time": MappingProxyType(time)}
    return Snapshot("main", True, 0.0, MappingProxyType(data), 1.0)


def test_utilization_is_since_the_last_reading_of_the_reader(monkeypatch):
    """Each reader has its own interval."""
    often, seldom = InMemoryMetricReader(), InMemoryMetricReader()
    with provider_with(often, seldom):

        def utilization(reader, snapshot):
            monkeypatch.setattr(obsloop, "snapshots", lambda: {"main": snapshot})
            return given(reader)[UTILIZATION][MAIN].value

        assert utilization(often, at(9.0, 1.0)) == pytest.approx(0.1)
        assert utilization(seldom, at(9.0, 1.0)) == pytest.approx(0.1)
        assert utilization(often, at(10.0, 4.0)) == pytest.approx(0.75)
        assert utilization(often, at(12.0, 4.0)) == 0.0
        assert utilization(seldom, at(12.0, 4.0)) == pytest.approx(0.5)


# Views.


def test_views_are_obeyed():
    """Dropped, renamed, other buckets, fewer attributes, a sum: as for what the SDK records itself."""
    views = [
        View(instrument_name="asyncio.eventloop.poll.*", aggregation=DropAggregation()),
        View(instrument_name=ITERATIONS, name="turns", description="How often it turned."),
        View(
            instrument_name="asyncio.eventloop.callback.duration",
            aggregation=ExplicitBucketHistogramAggregation([0.001, 0.5]),
        ),
        View(
            instrument_name=DELAY,
            attribute_keys={"asyncio.eventloop.name"},
            aggregation=ExponentialBucketHistogramAggregation(max_scale=1),
        ),
        View(instrument_name="asyncio.eventloop.iteration.duration", aggregation=SumAggregation()),
        View(instrument_type=sdk.ObservableGauge, meter_name="obsloop", aggregation=DropAggregation()),
        View(instrument_name="asyncio.eventloop.time", attribute_keys=set()),
    ]
    reader = InMemoryMetricReader()
    with provider_with(reader, views=views):
        run(little)
        found = metrics(reader)
        snapshot = obsloop.snapshots()["main"]
    assert not found.keys() & {"asyncio.eventloop.poll.duration", ITERATIONS, UTILIZATION}
    assert found["turns"].description == "How often it turned."
    assert found["turns"].data.data_points[0].value == snapshot.value(ITERATIONS)
    durations = found["asyncio.eventloop.callback.duration"].data.data_points
    assert {point.explicit_bounds for point in durations} == {(0.001, 0.5)}
    assert isinstance(found[DELAY].data, ExponentialHistogram)
    (delay,) = found[DELAY].data.data_points
    assert (dict(delay.attributes), delay.scale) == ({"asyncio.eventloop.name": "main"}, 1)
    assert delay.count == sum(value.count for value in snapshot[DELAY].values())
    (spent,) = found["asyncio.eventloop.iteration.duration"].data.data_points
    assert spent.value == snapshot.histogram("asyncio.eventloop.iteration.duration").sum
    (ran,) = found["asyncio.eventloop.time"].data.data_points
    assert (dict(ran.attributes), ran.value) == ({}, pytest.approx(snapshot.run_time))


def test_merged_deltas_add_up():
    """A View that takes attributes away, and deltas: the parts of all series, and nothing twice."""
    reader = InMemoryMetricReader(preferred_temporality=DELTAS)
    with provider_with(reader, views=[View(instrument_name=DELAY, attribute_keys=set())]):
        counts = []
        for _ in range(3):
            run(little)
            (point,) = given(reader)[DELAY].values()
            counts.append(point.count)
        assert sum(counts) == sum(value.count for value in obsloop.snapshots()["main"][DELAY].values())


def test_bounds_that_cannot_be_exact_are_left_out_and_said_once(caplog):
    """Buckets are never guessed: what is between our bounds is not exported, and the log names what may be chosen."""
    view = View(instrument_name=DELAY, aggregation=ExplicitBucketHistogramAggregation([0.005, 0.0075, 0.01]))
    reader = InMemoryMetricReader()
    with provider_with(reader, views=[view]):
        run(little)
        given(reader)
        (point, *_) = given(reader)[DELAY].values()
    assert point.explicit_bounds == (0.005, 0.01)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "buckets cannot be given exactly at 0.0075, which are left out; choose among 1e-06" in said


def test_a_view_that_fits_histograms_only_leaves_the_rest_as_it_is(caplog):
    """All names, with buckets: histograms have them, counters stay counters, and one line for each kind says so."""
    view = View(instrument_name="asyncio.*", aggregation=ExplicitBucketHistogramAggregation([0.01]))
    reader = InMemoryMetricReader()
    with provider_with(reader, views=[view]):
        run(little)
        given(reader)
        found = given(reader)
    assert {point.explicit_bounds for point in found[DELAY].values()} == {(0.01,)}
    assert found[ITERATIONS][MAIN].value == obsloop.snapshots()["main"].value(ITERATIONS)
    said = [record.getMessage() for record in caplog.records if "does not fit" in record.getMessage()]
    assert [text.split(" such as ")[0].split("fit ")[1] for text in said] == ["a counter", "a gauge", "a updowncounter"]


def test_a_reader_that_wants_other_explicit_buckets_gets_them():
    """The reader's own boundaries, where no View says otherwise."""
    reader = InMemoryMetricReader(
        preferred_aggregation={sdk.Histogram: ExplicitBucketHistogramAggregation([0.01, 0.1, 1.0])}
    )
    with provider_with(reader):
        run(little)
        assert {point.explicit_bounds for point in given(reader)[DELAY].values()} == {(0.01, 0.1, 1.0)}


def test_buckets_can_be_chosen_at_installation_and_wrong_ones_are_refused():
    """As with the Prometheus collector: the same arguments, the same error."""
    reader = InMemoryMetricReader()
    with provider_with(reader, install=False) as provider:
        with pytest.raises(ValueError, match=r"seconds_buckets: .* at the bound 0\.3; choose among 1e-06, 2\.5e-06,"):
            otel_metrics.install(provider, seconds_buckets=[0.3])
        otel_metrics.install(provider, seconds_buckets=[1, 0.005], count_buckets=[1000])
        run(little)
        found = given(reader)
    assert {point.explicit_bounds for point in found[DELAY].values()} == {(0.005, 1.0)}
    assert found["asyncio.eventloop.ready.depth"][MAIN].explicit_bounds == (1000.0,)


# What goes wrong takes itself only.


def test_a_metric_that_cannot_be_read_is_left_out_and_said_once(monkeypatch, caplog):
    """The rest is exported, and the program's own metrics are, too."""
    real = obsloop.snapshots

    def broken():
        loops = real()
        data = dict(loops["main"].data) | {ITERATIONS: {("one", "too", "many"): 1}}
        return {"main": Snapshot("main", True, 0.0, MappingProxyType(data), 1.0)}

    reader = InMemoryMetricReader()
    with provider_with(reader):
        run(little)
        monkeypatch.setattr(obsloop, "snapshots", broken)
        for _ in range(3):
            found = given(reader)
            assert ITERATIONS not in found
            assert DELAY in found
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("left out of OpenTelemetry's metrics: asyncio.eventloop.iterations: ValueError")


def test_what_cannot_be_read_at_all_leaves_the_programs_own_metrics(monkeypatch, caplog):
    """An error of ours is a line in the log; the program's metrics arrive, and nothing is raised."""

    def broken():
        raise RuntimeError("no")

    reader = InMemoryMetricReader()
    with provider_with(reader) as provider:
        provider.get_meter("shop").create_counter("orders").add(3)
        monkeypatch.setattr(obsloop, "snapshots", broken)
        for _ in range(2):
            assert metrics(reader, "shop")["orders"].data.data_points[0].value == 3
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "left out of OpenTelemetry's metrics: all of it: RuntimeError('no')"


def test_our_own_cost_is_counted():
    """Making an export takes time, and that is in `obsloop.self.time` of the next."""
    reader = InMemoryMetricReader()
    export = frozenset({("what", "export")})
    with provider_with(reader):
        run(little)
        costs = [given(reader)["obsloop.self.time"][export].value for _ in range(4)]
    assert all(b > a for a, b in pairwise(costs))
    assert costs[-1] - costs[0] < 3.0

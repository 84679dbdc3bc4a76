"""The doors: whoever makes the MeterProvider and whenever, one line gives it our metrics, and one takes them back."""

import asyncio
import io
import json
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.metrics import MeterProvider as AnyProvider, NoOpMeter
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import DropAggregation, View

import obsloop
from obsloop_exporters import _otel_sdk, otel_metrics
from tests.exporters.otel import DELTA, expected, given, provider_with
from tests.exporters.otlp import HttpReceiver, metrics_of, receiving
from tests.exporters.programs import everything, little, run

ITERATIONS, DELAY = "asyncio.eventloop.iterations", "asyncio.eventloop.schedule.delay"
MAIN = frozenset({("asyncio.eventloop.name", "main")})
NEVER = float("inf")  # a periodic reader that exports when it is flushed


class Keeping(MetricExporter):
    """An exporter that keeps the metrics of obsloop's, by name."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.exports: list[dict] = []
        self.calls: list[str] = []
        self.own_attribute = "its own"

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        scopes = metrics_data.resource_metrics[0].scope_metrics
        self.exports.append({m.name: m for one in scopes if one.scope.name == "obsloop" for m in one.metrics})
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        self.calls.append("flush")
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        self.calls.append("shutdown")

    def value(self, name: str) -> float:
        """Of the first point of the last export."""
        return self.exports[-1][name].data.data_points[0].value


def program(text: str, **variables: str) -> str:
    """What a program of its own prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", textwrap.dedent(text)],
        env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_provider_that_is_there_is_given_the_metrics():
    """One line; its exporter is found, and what else it is asked goes to it as before."""
    exporter = Keeping()
    with provider_with(PeriodicExportingMetricReader(exporter, NEVER)) as provider:
        run(little)
        provider.force_flush()
        assert exporter.value(ITERATIONS) == obsloop.snapshots()["main"].value(ITERATIONS)
        assert exporter.exports[-1].keys() == expected(obsloop.snapshots(), obsloop.process_snapshot()).keys()
        (reader,) = _otel_sdk.readers(provider)
        assert _otel_sdk.exporter_of(reader).own_attribute == "its own"
    assert exporter.calls[0] == "flush"
    assert exporter.calls[-1] == "shutdown"


def test_a_reader_that_comes_later_is_found_too():
    """`add_metric_reader` on a provider that is installed already; its first collection has everything."""
    first, later = InMemoryMetricReader(), InMemoryMetricReader()
    exporter = Keeping()
    with provider_with(first) as provider:
        run(little)
        assert ITERATIONS in given(first)
        provider.add_metric_reader(later)
        provider.add_metric_reader(pushing := PeriodicExportingMetricReader(exporter, NEVER))
        assert ITERATIONS in given(later)
        pushing.force_flush()
        assert ITERATIONS in exporter.exports[0]
        provider.remove_metric_reader(later)
        pushing.force_flush()
        assert ITERATIONS in exporter.exports[1]
        pushing.shutdown()


def test_installing_twice_exports_once():
    """No series twice, whatever is called how often."""
    exporter = Keeping(preferred_temporality={sdk.ObservableCounter: DELTA})
    reader = PeriodicExportingMetricReader(exporter, NEVER)
    with provider_with(reader) as provider:
        otel_metrics.install(provider)
        run(little)
        provider.force_flush()
        total = exporter.value(ITERATIONS)
        otel_metrics.install(provider)
        provider.force_flush()
        assert (total, exporter.value(ITERATIONS)) == (obsloop.snapshots()["main"].value(ITERATIONS), 0)


def test_uninstalling_leaves_the_provider_as_it_was():
    """The exporter is in its place, nothing of ours arrives, and installing again counts on where it ended."""
    exporter = Keeping(preferred_temporality={sdk.ObservableCounter: DELTA})
    pushing, pulled = PeriodicExportingMetricReader(exporter, NEVER), InMemoryMetricReader()
    with provider_with(pushing, pulled) as provider:
        provider.get_meter("shop").create_counter("orders").add(1)
        run(little)
        provider.force_flush()
        before = exporter.value(ITERATIONS)
        assert ITERATIONS in given(pulled)
        otel_metrics.uninstall(provider)
        assert _otel_sdk.exporter_of(pushing) is exporter
        assert "_receive_metrics" not in vars(pulled)
        provider.force_flush()
        assert exporter.exports[-1] == {}
        assert given(pulled) == {}
        run(little)
        otel_metrics.install(provider)
        provider.force_flush()
        assert before + exporter.value(ITERATIONS) == obsloop.snapshots()["main"].value(ITERATIONS)
        assert ITERATIONS in given(pulled)


def test_a_provider_that_is_given_up_is_not_kept():
    """Nothing of ours holds it."""
    import gc
    import weakref

    provider = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
    otel_metrics.install(provider)
    provider.force_flush()
    provider.shutdown()
    gone = weakref.ref(provider)
    del provider
    gc.collect()
    assert gone() is None


def test_the_global_provider_may_come_later():
    """install() first, the provider after it, the loop in between: all is there. And the anchor is a metric of ours."""
    out = program("""
        import asyncio, obsloop
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from obsloop_exporters import otel_metrics
        otel_metrics.install()
        obsloop.run(asyncio.sleep(0.01))
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
        for _ in range(2):
            (resource,) = reader.get_metrics_data().resource_metrics
            (scope,) = resource.scope_metrics
            names = [metric.name for metric in scope.metrics]
            print("asyncio.eventloop.schedule.delay" in names, len(names) == len(set(names)))
            print(any(name.endswith((".sum", ".bucket")) for name in names))
        otel_metrics.install()  # once more, now that it is there
        otel_metrics.install(metrics.get_meter_provider())
        (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
        again = [metric.name for metric in scope.metrics]
        print(set(again) >= set(names), len(again) == len(set(again)))  # something may have happened in between
    """)
    assert out.split() == ["True", "True", "False"] * 2 + ["True", "True"]


WRAPPED = """
    import asyncio, obsloop
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
    from opentelemetry.sdk.metrics.view import DropAggregation, View
    import obsloop_exporters.otel_metrics
    reader = PeriodicExportingMetricReader(obsloop_exporters.otel_metrics.wrap(ConsoleMetricExporter()))
    drop = View(instrument_name="asyncio.eventloop.poll.duration", aggregation=DropAggregation())
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader], views=[drop]))
    {then}
    obsloop.run(asyncio.sleep(0.01))
"""


@pytest.mark.parametrize("then", ["", "obsloop_exporters.otel_metrics.install()"], ids=["alone", "and installed"])
def test_an_exporter_can_be_wrapped_by_hand(then):
    """Nothing else is called, and nothing else was recorded: the console's exporter prints all at the program's end."""
    printed = json.loads(program(WRAPPED.format(then=then)))
    (resource,) = printed["resource_metrics"]
    (scope,) = resource["scope_metrics"]
    names = [metric["name"] for metric in scope["metrics"]]
    assert (scope["scope"]["name"], scope["scope"]["version"]) == ("obsloop", obsloop.__version__)
    assert {ITERATIONS, DELAY, "obsloop.dropped"} <= set(names)
    assert len(names) == len(set(names))
    assert "asyncio.eventloop.poll.duration" not in names, "the View is obeyed"


def test_what_is_wrapped_already_is_not_wrapped_again():
    """Twice by hand, by hand and by install: one exporter of ours."""
    exporter = Keeping()
    wrapped = otel_metrics.wrap(exporter)
    assert otel_metrics.wrap(wrapped) is wrapped
    with provider_with(reader := PeriodicExportingMetricReader(wrapped, NEVER)) as provider:
        assert _otel_sdk.exporter_of(reader) is wrapped
        run(little)
        provider.force_flush()
        assert exporter.value(ITERATIONS) == obsloop.snapshots()["main"].value(ITERATIONS)


def test_the_console_shows_it():
    """The SDK's own console exporter, exponential: JSON that can be read, number by number of the snapshot."""
    out = io.StringIO()
    with provider_with(PeriodicExportingMetricReader(ConsoleMetricExporter(out=out), NEVER)) as provider:
        run(little)
        provider.force_flush()
        snapshot = obsloop.snapshots()["main"]
    (resource,) = json.loads(out.getvalue().split("\n}\n")[0] + "\n}")["resource_metrics"]
    found = {metric["name"]: metric["data"] for metric in resource["scope_metrics"][0]["metrics"]}
    assert found[ITERATIONS]["data_points"][0]["value"] == snapshot.value(ITERATIONS)
    counts = {point["attributes"]["kind"]: point["count"] for point in found[DELAY]["data_points"]}
    assert counts == {kind: value.count for (kind,), value in snapshot[DELAY].items() if value.count}


@pytest.mark.parametrize(
    ("variables", "kind", "temporality"),
    [
        ({}, "histogram", 2),
        ({"DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram"}, "exponential_histogram", 2),
        ({"TEMPORALITY_PREFERENCE": "delta"}, "histogram", 1),
    ],
    ids=["plain", "exponential", "delta"],
)
def test_under_opentelemetry_instrument(variables, kind, temporality):
    """It makes the provider and the exporter from the environment; the program calls install() and no more."""
    with receiving(HttpReceiver) as receiver:
        environment = {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            "OTEL_SERVICE_NAME": "shop",
        } | {f"OTEL_EXPORTER_OTLP_METRICS_{name}": value for name, value in variables.items()}
        code = (
            "import asyncio, obsloop, obsloop_exporters.otel_metrics as o\n"
            "o.install()\n"
            "obsloop.run(asyncio.sleep(0.5))\n"
            "print(obsloop.snapshots()['main'].value('asyncio.eventloop.iterations'))"
        )
        instrument = os.path.join(os.path.dirname(sys.executable), "opentelemetry-instrument")
        done = subprocess.run(
            [instrument, sys.executable, "-c", code],
            env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert len(receiver.requests) >= 2, "in between, and at the end"
        values = [
            point.as_int
            for request in receiver.requests
            for metric in metrics_of(request)
            if metric.name == ITERATIONS
            for point in metric.sum.data_points
        ]
        assert (sum(values) if temporality == 1 else values[-1]) == int(done.stdout)
        (resource,) = receiver.requests[-1].resource_metrics
        service = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        assert service["service.name"] == "shop"
        delays = [
            m for r in receiver.requests for m in r.resource_metrics[0].scope_metrics[0].metrics if m.name == DELAY
        ]
        assert {metric.WhichOneof("data") for metric in delays} == {kind}
        assert {getattr(metric, kind).aggregation_temporality for metric in delays} == {temporality}


def test_nothing_of_it_runs_in_the_loops_thread():
    """While a reader exports every few milliseconds, no function of the SDK or of ours runs in the loop's thread; and
    that the profiler would see one is seen. (Of the API, the context of an executor's job is looked up there.)"""
    seen: set[str] = set()
    parts = {os.path.join("opentelemetry", "sdk"), "obsloop_exporters"}

    def profile(frame, event, arg):
        seen.update(part for part in parts if part in frame.f_code.co_filename)

    exporter = Keeping()
    with provider_with(PeriodicExportingMetricReader(exporter, 5)) as provider:

        async def main():
            loop = asyncio.get_running_loop()
            sys.setprofile(profile)
            try:
                end = loop.time() + 0.3
                while loop.time() < end:
                    await asyncio.gather(*[asyncio.sleep(0.001) for _ in range(10)])
                    await loop.run_in_executor(None, int)
                while_it_ran = set(seen)
                provider.force_flush()
            finally:
                sys.setprofile(None)
            return while_it_ran

        assert run(main) == set()
        assert seen == parts
        assert len(exporter.exports) > 3


def test_installing_while_others_collect_does_not_lock_up():
    """Threads collect without end, others install and uninstall: the SDK's locks and ours are never crossed."""
    readers = [InMemoryMetricReader() for _ in range(3)]
    over = threading.Event()

    def collect(reader):
        while not over.is_set():
            given(reader)

    def change(provider):
        for _ in range(30):
            otel_metrics.install(provider)
            otel_metrics.uninstall(provider)

    with provider_with(*readers) as provider, ThreadPoolExecutor(5) as pool:
        run(little)
        collecting = [pool.submit(collect, reader) for reader in readers]
        changing = [pool.submit(change, provider) for _ in range(2)]
        try:
            for one in changing:
                one.result(60)
        finally:
            over.set()
        for one in collecting:
            one.result(60)
        otel_metrics.install(provider)
        assert all(ITERATIONS in given(reader) for reader in readers)


# Without the SDK, or with one that is not known.


class OtherMeter(NoOpMeter):
    """A meter that keeps the callbacks of what is observed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.callbacks: dict = {}

    def _keep(self, name, callbacks=None, unit="", description=""):
        self.callbacks[name] = (unit, callbacks)

    create_observable_counter = create_observable_gauge = create_observable_up_down_counter = _keep


class OtherProvider(AnyProvider):
    """Somebody's implementation of OpenTelemetry's API."""

    def __init__(self) -> None:
        self.meters: list[OtherMeter] = []

    def get_meter(self, name, version=None, schema_url=None, attributes=None):
        self.meters.append(OtherMeter(name))
        return self.meters[-1]

    def collect(self) -> dict:
        """One collection: values by name and attributes."""
        return {
            name: {
                frozenset(observation.attributes.items()): observation.value
                for callback in callbacks
                for observation in callback(None)
            }
            for meter in self.meters
            for name, (_, callbacks) in meter.callbacks.items()
        }


def test_any_provider_is_given_all_that_the_api_can_carry(freeze, caplog):
    """Counters and gauges as they are; a histogram as counters by bucket and its sum; and one line says so, once."""
    provider = OtherProvider()
    otel_metrics.install(provider)
    loops, process = run(everything(freeze), name="judged")
    found, wanted = provider.collect(), expected(loops, process)
    provider.collect()
    for metric in obsloop.METRICS:
        if metric.kind != "histogram":
            assert found.pop(metric.name) == wanted.get(metric.name, {})
            continue
        sums, buckets = found.pop(f"{metric.name}.sum"), found.pop(f"{metric.name}.bucket")
        bounds = metric.buckets
        for attributes, value in wanted.get(metric.name, {}).items():
            assert sums[attributes] == value.sum
            texts = [f"{bound:g}" for bound in bounds] + ["+Inf"]
            counts = [buckets[attributes | {("le", text)}] for text in texts]
            assert counts == [*value.cumulative(bounds), value.count]
    assert found == {}
    messages = [record.getMessage() for record in caplog.records]
    (said,) = [message for message in messages if "OtherProvider" in message]  # a busy machine adds slow callbacks
    assert "OtherProvider cannot be reached" in said
    assert "wrap(exporter)" in said
    otel_metrics.uninstall(provider)
    assert not any(provider.collect().values())


def test_one_collection_is_one_reading(monkeypatch):
    """All instruments of a collection show one moment; the next shows a new one."""
    provider = OtherProvider()
    otel_metrics.install(provider)
    run(little)
    taken = []
    real = obsloop.snapshots
    monkeypatch.setattr(obsloop, "snapshots", lambda: taken.append(1) or real())
    first = provider.collect()
    assert len(taken) == 1
    run(little)
    second = provider.collect()
    assert len(taken) == 2
    assert second[ITERATIONS][MAIN] > first[ITERATIONS][MAIN]


def test_readers_that_are_not_where_they_were_are_done_without(monkeypatch, caplog):
    """A future SDK that keeps its readers elsewhere: the API's way, through it, and one line."""
    monkeypatch.setattr(_otel_sdk, "readers", lambda provider: None)
    reader = InMemoryMetricReader()
    with provider_with(reader):
        run(little)
        found = given(reader)
        iterations = obsloop.snapshots()["main"].value(ITERATIONS)
    assert found[ITERATIONS][MAIN].value == iterations
    assert f"{DELAY}.bucket" in found
    assert DELAY not in found
    assert len([r for r in caplog.records if "cannot be reached" in r.getMessage()]) == 1


def test_only_the_api_is_needed():
    """With no SDK installed it imports, installs and observes nothing; nothing of the SDK is loaded."""
    out = program("""
        import asyncio, sys
        class NoSdk:
            def find_spec(self, name, path=None, target=None):
                if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "prometheus_client")):
                    raise ImportError(f"{name} is not installed")
        sys.meta_path.insert(0, NoSdk())
        import obsloop
        from obsloop_exporters import otel_metrics
        otel_metrics.install()
        obsloop.run(asyncio.sleep(0))
        otel_metrics.uninstall()
        print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "prometheus_client"))])
        try:
            otel_metrics.wrap(object())
        except ImportError as error:
            print(error)
    """)
    said = "wrap() needs OpenTelemetry's SDK (opentelemetry.sdk is not installed): pip install 'obsloop[otlp]'"
    assert out == f"[]\n{said}\n"


def test_views_that_drop_everything_drop_ours():
    """Nobody is sent what he has refused."""
    reader = InMemoryMetricReader()
    with provider_with(reader, views=[View(instrument_name="*", aggregation=DropAggregation())]):
        run(little)
        assert reader.get_metrics_data() is None

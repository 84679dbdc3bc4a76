"""The collector is down, slow, answers 503, or is gone for an hour: the loop does not notice, and nothing is lost."""

import json
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from statistics import median

import pytest
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader

import obsloop
from tests.exporters.otel import DELTA, expected, provider_with
from tests.exporters.otlp import HttpReceiver, receiving
from tests.exporters.programs import little, run
from tests.exporters.test_otel_receivers import METRICS, NEVER, WIRES, added_up, exporter_for, kind_of

ROOT = Path(__file__).parents[2]
ITERATIONS, DELAY = "asyncio.eventloop.iterations", "asyncio.eventloop.schedule.delay"
MAIN = frozenset({("asyncio.eventloop.name", "main")})
OUTAGES = pytest.mark.parametrize("outage", ["down", "unavailable", "slow"])
TEMPORALITIES = pytest.mark.parametrize(
    "temporality", [None, {sdk.ObservableCounter: DELTA, sdk.Histogram: DELTA}], ids=["cumulative", "delta"]
)


def failed_exports() -> int:
    """As counted by obsloop in this process."""
    return obsloop.process_snapshot().value("obsloop.dropped", "export")


def begin(receiver, outage: str) -> None:
    """Of the receiver's."""
    receiver.down() if outage == "down" else receiver.behave(outage)


def end(receiver, outage: str) -> None:
    """It is well again."""
    receiver.up() if outage == "down" else receiver.behave("ok")


@WIRES
@OUTAGES
@TEMPORALITIES
def test_exports_resume_with_everything(wire, outage, temporality):
    """What failed is counted, and the first export that arrives covers it: totals, or one delta over the outage."""
    with receiving(kind_of(wire)) as receiver:
        exporter = exporter_for(wire, receiver, preferred_temporality=temporality, timeout=0.3)
        with provider_with(PeriodicExportingMetricReader(exporter, NEVER)) as provider:
            run(little)
            provider.force_flush()
            (before,) = [point for attributes, point in receiver.last[ITERATIONS].items() if attributes == MAIN]
            failed = failed_exports()
            begin(receiver, outage)
            for _ in range(2):
                run(little)
                provider.force_flush()
            assert failed_exports() - failed == 2
            assert len(receiver.requests) == 1
            end(receiver, outage)
            arrived(provider, receiver)
        after = receiver.last[ITERATIONS][MAIN]
        total = obsloop.snapshots()["main"].value(ITERATIONS)
        if temporality is None:
            assert after.as_int == total
            assert after.start_time_unix_nano == before.start_time_unix_nano
        else:
            assert before.as_int + after.as_int == total
            assert after.start_time_unix_nano == before.time_unix_nano, "one interval, over the whole outage"


def arrived(provider, receiver) -> None:
    """Export until one has arrived: a client may take a moment to see that its server is back."""
    deadline = time.monotonic() + 30
    while len(receiver.requests) < 2:
        assert time.monotonic() < deadline, "it does not resume"
        provider.force_flush()


class Failing(MetricExporter):
    """An exporter that fails, or raises, and keeps nothing."""

    how = "fail"

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        if self.how == "raise":
            raise OSError("gone")
        if self.how == "work":
            self.last = metrics_data
            return MetricExportResult.SUCCESS
        return MetricExportResult.FAILURE

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass


@pytest.mark.parametrize("how", ["fail", "raise"])
@TEMPORALITIES
def test_an_hour_without_a_collector_costs_no_memory(how, temporality, caplog):
    """Sixty exports that fail: each is counted, nothing piles up, and then everything is there."""
    exporter = Failing(preferred_temporality=temporality)
    with provider_with(PeriodicExportingMetricReader(exporter, NEVER)) as provider:
        exporter.how = how
        caplog.set_level(100, "opentelemetry")  # pytest keeps what the SDK says of each
        failed = failed_exports()

        def minutes(n: int) -> None:
            for _ in range(n):
                run(little)
                provider.force_flush()

        tracemalloc.start()
        try:
            minutes(10)
            at_first, _ = tracemalloc.get_traced_memory()
            minutes(50)
            in_the_end, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert failed_exports() - failed == 60
        # One reading of these figures is more than 50 KB, and fifty of them are more than 2.5 MB.
        assert in_the_end - at_first < 1_000_000
        exporter.how = "work"
        provider.force_flush()
        total = obsloop.snapshots()["main"].value(ITERATIONS)
    (resource,) = exporter.last.resource_metrics
    found = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    assert found[ITERATIONS].data.data_points[0].value == total


def p99(before: list[int], after: list[int]) -> int:
    """The number of the bucket that the 99th percentile of what came in between is in."""
    upto = [b - a for a, b in zip(before, after, strict=True)]
    assert upto[-1] > 500, "too little was seen to tell"
    return next(i for i, n in enumerate(upto) if n >= 0.99 * upto[-1])


@pytest.mark.once
def test_the_loop_does_not_notice():
    """In turn a healthy collector and each kind of outage, for one program: the p99 of the schedule delay stays, within
    one bucket, failures are counted, exports resume, and memory does not grow."""
    delays: dict[str, list[int]] = {"ok": [], "down": [], "unavailable": [], "slow": []}
    with (
        receiving(HttpReceiver) as receiver,
        subprocess.Popen(
            [sys.executable, "-m", "tests.exporters.outage", receiver.endpoint],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as program,
    ):  # fmt: skip

        def ask() -> dict:
            program.stdin.write("now\n")
            program.stdin.flush()
            return json.loads(program.stdout.readline())

        program.stdout.readline()
        receiver.wait_for(3)
        blocks = []
        for _ in range(3):
            for outage in ("down", "unavailable", "slow"):
                for behaviour in ("ok", outage):
                    if behaviour != "ok":
                        begin(receiver, behaviour)
                    before = ask()
                    time.sleep(1.2)
                    after = ask()
                    delays[behaviour].append(p99(before["delays"], after["delays"]))
                    if behaviour == "ok":
                        blocks.append(after["blocks"])
                        continue
                    assert after["failed"] > before["failed"], behaviour
                    end(receiver, behaviour)
                    receiver.wait_for(len(receiver.requests) + 1)
        program.stdin.close()
        said = program.stderr.read()
        assert (program.wait(60), said) == (0, "")
    healthy = median(delays["ok"])
    for buckets in delays.values():
        assert abs(median(buckets) - healthy) <= 1, delays
    assert blocks[-1] - blocks[2] < 10_000, f"a reading is some thousand blocks; there were {blocks}"


@TEMPORALITIES
def test_what_is_never_delivered_is_in_no_other_exporters_way(temporality):
    """Two exporters of one provider, one of them broken for good: the other gets everything once."""
    broken = Failing(preferred_temporality=temporality)
    with receiving(HttpReceiver) as receiver:
        exporter = exporter_for("http", receiver, preferred_temporality=temporality)
        readers = [PeriodicExportingMetricReader(one, NEVER) for one in (broken, exporter)]
        with provider_with(*readers) as provider:
            for _ in range(3):
                run(little)
                provider.force_flush()
            wanted = expected({"main": obsloop.snapshots()["main"]}, obsloop.process_snapshot())
        last, added = receiver.last, added_up(receiver.requests)
        for name, series in wanted.items():
            for attributes, value in series.items():
                if METRICS[name].kind == "counter" and METRICS[name].scope == "loop":
                    point = last[name][attributes]
                    found = added[name, attributes] if temporality else point.as_int or point.as_double
                    assert found == pytest.approx(value)

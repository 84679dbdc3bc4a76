"""Names, types, units, labels and help: what dashboards and alerts are written against."""

import re

import pytest
from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import obsloop
from obsloop.metrics import registry as _ledger
from obsloop_exporters import _families
from obsloop_exporters.prometheus import Collector, Exporter
from tests.exporters.programs import UNUSED, WAYS, everything, run

LOOP = "asyncio_eventloop_name"

# metric: (family in OpenMetrics, type, unit, labels). Others lean on these names: a change here breaks their queries.
EXPECTED = {
    "asyncio.eventloop.time": ("asyncio_eventloop_time_seconds", "counter", "seconds", [LOOP, "state"]),
    "asyncio.eventloop.utilization": ("asyncio_eventloop_utilization_ratio", "gauge", "ratio", [LOOP]),
    "asyncio.eventloop.iterations": ("asyncio_eventloop_iterations", "counter", "", [LOOP]),
    "asyncio.eventloop.events": ("asyncio_eventloop_events", "counter", "", [LOOP]),
    "asyncio.eventloop.events_waiting": ("asyncio_eventloop_events_waiting", "counter", "", [LOOP]),
    "asyncio.eventloop.poll.duration": (
        "asyncio_eventloop_poll_duration_seconds", "histogram", "seconds", [LOOP],
    ),
    "asyncio.eventloop.iteration.duration": (
        "asyncio_eventloop_iteration_duration_seconds", "histogram", "seconds", [LOOP],
    ),
    "asyncio.eventloop.lag": ("asyncio_eventloop_lag_seconds", "histogram", "seconds", [LOOP]),
    "asyncio.eventloop.schedule.delay": (
        "asyncio_eventloop_schedule_delay_seconds", "histogram", "seconds", [LOOP, "kind"],
    ),
    "asyncio.eventloop.callback.duration": (
        "asyncio_eventloop_callback_duration_seconds", "histogram", "seconds", [LOOP, "kind"],
    ),
    "asyncio.eventloop.callback.slow": (
        "asyncio_eventloop_callback_slow", "counter", "", [LOOP, "code_function_name"],
    ),
    "asyncio.eventloop.block.episodes": ("asyncio_eventloop_block_episodes", "counter", "", [LOOP, "cause"]),
    "asyncio.eventloop.block.duration": (
        "asyncio_eventloop_block_duration_seconds", "histogram", "seconds", [LOOP, "cause"],
    ),
    "asyncio.eventloop.block.time": (
        "asyncio_eventloop_block_time_seconds", "counter", "seconds", [LOOP, "code_function_name", "cause"],
    ),
    "asyncio.eventloop.block.longest": (
        "asyncio_eventloop_block_longest_seconds", "gauge", "seconds", [LOOP, "code_function_name"],
    ),
    "asyncio.request.count": ("asyncio_requests", "counter", "", [LOOP, "http_route"]),
    "asyncio.request.time": ("asyncio_request_time_seconds", "counter", "seconds", [LOOP, "http_route", "state"]),
    "asyncio.eventloop.exceptions": (
        "asyncio_eventloop_exceptions", "counter", "", [LOOP, "error_type", "origin"],
    ),
    "asyncio.eventloop.ready.depth": ("asyncio_eventloop_ready_depth", "histogram", "", [LOOP]),
    "asyncio.eventloop.timer.count": ("asyncio_eventloop_timers", "gauge", "", [LOOP]),
    "asyncio.eventloop.timer.cancelled": ("asyncio_eventloop_timer_cancelled", "gauge", "", [LOOP]),
    "asyncio.eventloop.timer.lateness": (
        "asyncio_eventloop_timer_lateness_seconds", "histogram", "seconds", [LOOP],
    ),
    "asyncio.eventloop.blocked.time": ("asyncio_eventloop_blocked_time_seconds", "gauge", "seconds", [LOOP]),
    "asyncio.eventloop.callback.time": (
        "asyncio_eventloop_callback_time_seconds", "counter", "seconds", [LOOP, "code_function_name"],
    ),
    "asyncio.task.created": ("asyncio_task_created", "counter", "", [LOOP]),
    "asyncio.task.finished": ("asyncio_task_finished", "counter", "", [LOOP, "outcome"]),
    "asyncio.task.active": ("asyncio_task_active", "gauge", "", [LOOP]),
    "asyncio.task.oldest.age": ("asyncio_task_oldest_age_seconds", "gauge", "seconds", [LOOP]),
    "asyncio.task.first_step.delay": (
        "asyncio_task_first_step_delay_seconds", "histogram", "seconds", [LOOP],
    ),
    "asyncio.task.duration": ("asyncio_task_duration_seconds", "histogram", "seconds", [LOOP]),
    "asyncio.task.lint": ("asyncio_task_lint", "counter", "", [LOOP, "lint"]),
    "asyncio.executor.queue.length": ("asyncio_executor_queue_length", "gauge", "", [LOOP, "executor"]),
    "asyncio.executor.thread.count": ("asyncio_executor_threads", "gauge", "", [LOOP, "executor"]),
    "asyncio.executor.thread.active": ("asyncio_executor_thread_active", "gauge", "", [LOOP, "executor"]),
    "asyncio.executor.job.queue_duration": (
        "asyncio_executor_job_queue_duration_seconds", "histogram", "seconds", [LOOP, "executor", "outcome"],
    ),
    "asyncio.executor.job.duration": (
        "asyncio_executor_job_duration_seconds", "histogram", "seconds", [LOOP, "executor", "outcome"],
    ),
    "asyncio.executor.result.delay": (
        "asyncio_executor_result_delay_seconds", "histogram", "seconds", [LOOP, "executor", "outcome"],
    ),
    "asyncio.executor.oldest_job.age": (
        "asyncio_executor_oldest_job_age_seconds", "gauge", "seconds", [LOOP, "executor"],
    ),
    "asyncio.transport.active": ("asyncio_transport_active", "gauge", "", [LOOP, "network_transport", "role"]),
    "asyncio.transport.opened": ("asyncio_transport_opened", "counter", "", [LOOP, "network_transport", "role"]),
    "asyncio.transport.closed": ("asyncio_transport_closed", "counter", "", [LOOP, "network_transport", "reason"]),
    "asyncio.transport.io": (
        "asyncio_transport_io_bytes", "counter", "bytes", [LOOP, "direction", "network_transport"],
    ),
    "asyncio.transport.write_buffer.usage": ("asyncio_transport_write_buffer_usage_bytes", "gauge", "bytes", [LOOP]),
    "asyncio.transport.write_paused.time": (
        "asyncio_transport_write_paused_time_seconds", "counter", "seconds", [LOOP],
    ),
    "asyncio.transport.write_paused.episodes": ("asyncio_transport_write_paused_episodes", "counter", "", [LOOP]),
    "asyncio.connect.duration": (
        "asyncio_connect_duration_seconds", "histogram", "seconds", [LOOP, "network_type", "error_type"],
    ),
    "asyncio.tls.handshake.duration": (
        "asyncio_tls_handshake_duration_seconds", "histogram", "seconds", [LOOP, "role", "error_type"],
    ),
    "asyncio.server.accepted": ("asyncio_server_accepted", "counter", "", [LOOP, "server_address"]),
    "asyncio.server.accept.errors": (
        "asyncio_server_accept_errors", "counter", "", [LOOP, "server_address", "error_type"],
    ),
    "asyncio.server.connections.active": ("asyncio_server_connections_active", "gauge", "", [LOOP, "server_address"]),
    "dns.lookup.duration": ("dns_lookup_duration_seconds", "histogram", "seconds", [LOOP, "error_type"]),
    "asyncio.subprocess.active": ("asyncio_subprocess_active", "gauge", "", [LOOP]),
    "asyncio.subprocess.duration": ("asyncio_subprocess_duration_seconds", "histogram", "seconds", [LOOP, "exit"]),
    "asyncio.subprocess.reap.delay": (
        "asyncio_subprocess_reap_delay_seconds", "histogram", "seconds", [LOOP],
    ),
    "asyncio.signal.delivered": ("asyncio_signal_delivered", "counter", "", [LOOP, "signal"]),
    "cpython.gc.collections": ("cpython_gc_collections", "counter", "", ["cpython_gc_generation"]),
    "cpython.gc.pause.duration": (
        "cpython_gc_pause_duration_seconds", "histogram", "seconds", ["cpython_gc_generation"],
    ),
    "obsloop.self.time": ("obsloop_self_time_seconds", "counter", "seconds", ["what"]),
    "obsloop.dropped": ("obsloop_dropped", "counter", "", ["what"]),
    "obsloop.instrument.disabled": ("obsloop_instrument_disabled", "counter", "", ["what"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def scraped():
    """The families of a program that fills every metric, by name, as OpenMetrics' parser understands them."""
    accept = "application/openmetrics-text; version=1.0.0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ledger, "_by_name", {})
        _, body = run(everything(lambda: Exporter().render(accept)))
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def test_every_metric_has_a_name_here_and_every_name_a_metric():
    """Whoever adds a signal to the catalogue decides here what Prometheus's users will call it."""
    assert EXPECTED.keys() == {metric.name for metric in obsloop.METRICS}


def test_what_is_exported_is_the_catalogue_and_nothing_else(scraped):
    """A program that does everything shows each metric of the catalogue, and no other family. What goes wrong later has
    no series yet."""
    assert list(scraped) == [EXPECTED[metric.name][0] for metric in obsloop.METRICS]
    unused = {name for name, family in scraped.items() if not family.samples}
    assert unused <= {EXPECTED[name][0] for name in UNUSED}  # a test before may have filled a process's metric


@pytest.mark.parametrize("metric", obsloop.METRICS, ids=lambda metric: metric.name)
def test_a_family_is_what_its_metric_is(scraped, metric):
    """Type, unit, help and labels arrive as the catalogue has them."""
    name, kind, unit, labels = EXPECTED[metric.name]
    family = scraped[name]
    assert (family.type, family.unit, family.documentation) == (kind, unit, metric.help)
    for sample in family.samples:
        assert sample.labels.keys() - {"le"} == set(labels)
        suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}[kind]
        assert sample.name in [name + suffix for suffix in suffixes]


@pytest.mark.parametrize("metric", obsloop.METRICS, ids=lambda metric: metric.name)
def test_labels_have_only_values_of_the_catalogue(scraped, metric):
    """All of them from the first scrape where alerts need that; otherwise those of what has happened."""
    name, _, _, labels = EXPECTED[metric.name]
    for label, declared in zip([label for label in labels if label != LOOP], metric.labels, strict=True):
        values = {sample.labels[label] for sample in scraped[name].samples}
        if declared.bound:  # they come from the program
            assert 1 <= len(values) <= declared.bound + 1
        elif metric.from_start:
            assert values == set(declared.values)
        else:
            assert values <= set(declared.values)
            assert values or metric.name in UNUSED  # a test before may have filled a process's metric


@pytest.mark.parametrize("way", WAYS)
def test_each_way_onto_the_loop_is_counted(scraped, way):
    """The program above really came by each way, so the series above are filled and not only there."""
    for name in ("asyncio_eventloop_callback_duration_seconds", "asyncio_eventloop_schedule_delay_seconds"):
        counts = {s.labels["kind"]: s.value for s in scraped[name].samples if s.name.endswith("_count")}
        assert counts[way] >= 1


@pytest.mark.parametrize(
    "name",
    ["asyncio.eventloop.iterations", "asyncio.eventloop.events", "asyncio.eventloop.events_waiting",
     "asyncio.eventloop.timer.count", "asyncio.eventloop.timer.cancelled", "asyncio.eventloop.utilization",
     "asyncio.eventloop.blocked.time", "cpython.gc.collections"],
)  # fmt: skip
def test_each_plain_figure_is_filled(scraped, name):
    """The program above has timers, events, collections; it asks from inside a callback, so it is `blocked`."""
    assert all(sample.value > 0 for sample in scraped[EXPECTED[name][0]].samples)


def test_describe_names_what_collect_gives():
    """A registry learns all names at registration, so that a clash shows then and not at a scrape."""
    run(everything(lambda: None))
    collector = Collector()

    def shape(metric):
        return metric.name, metric.type, metric.unit, metric.documentation

    assert [shape(m) for m in collector.describe()] == [shape(m) for m in collector.collect()]
    assert [m.samples for m in collector.describe()] == [[] for _ in obsloop.METRICS]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_no_series_tells_when_it_was_created(accept):
    """`_created` doubles the counters of a scrape and tells nothing here: the figures are the process's age."""
    run(everything(lambda: None))
    registry = CollectorRegistry()
    registry.register(Collector())
    encoder, _ = choose_encoder(accept)
    for body in (encoder(registry), Exporter().render(accept)[1]):
        assert not re.search(rb"^\w+_created[{ ]", body, re.MULTILINE)
        assert b"asyncio_task_created_total{" in body  # the tasks', which is no such series


def test_a_unit_without_a_word_in_prometheus_is_refused(monkeypatch):
    """A unit new in the catalogue is an error that names it, not a family without a unit."""
    metric = obsloop.Metric("some.thing", "gauge", "furlong", "Far.")
    monkeypatch.setattr(_families, "METRICS", (metric,))
    with pytest.raises(ValueError, match=r"some\.thing: no Prometheus word .* 'furlong'"):
        Collector()


def test_units_map_by_the_usual_rules(monkeypatch):
    """Bytes get a word, a ratio is a gauge of unit 1 only, no unit is said twice, `_count` is a histogram's word."""
    metrics = {
        "a_bytes": obsloop.Metric("a", "counter", "By", ""),
        "b_seconds": obsloop.Metric("b.seconds", "gauge", "s", ""),
        "c": obsloop.Metric("c", "counter", "1", ""),
        "d": obsloop.Metric("d", "updowncounter", "1", ""),
        "e_ratio": obsloop.Metric("e", "gauge", "1", ""),
        "f_g": obsloop.Metric("f.g", "updowncounter", "{thing}", ""),
        "h_threads": obsloop.Metric("h.thread.count", "updowncounter", "{thread}", ""),
    }
    monkeypatch.setattr(_families, "METRICS", tuple(metrics.values()))
    assert [metric.name for metric in Collector().describe()] == list(metrics)

"""The setting `metrics`: which metrics a process exports, and who decides."""

import asyncio

import pytest

import obsloop
from obsloop.metrics import levels
from obsloop_exporters.prometheus import Exporter
from tests.support import output

BASIC = {metric.name for metric in obsloop.METRICS if metric.level == "basic"}


@pytest.fixture(autouse=True)
def not_chosen(monkeypatch):
    """No loop of another test has decided."""
    monkeypatch.setattr(levels, "_chosen", None)


def names() -> list[str]:
    """The metrics that are exported now."""
    return [metric.name for metric in obsloop.exported_metrics()]


def test_the_first_loop_whose_settings_say_so_decides():
    """A loop without the setting does not decide, and a later one changes nothing."""
    assert obsloop.exported_metrics() is obsloop.METRICS
    for level, decided in ((None, "full"), ("basic", "basic"), ("full", "basic"), (None, "basic")):
        obsloop.new_event_loop(obsloop.Settings(metrics=level)).close()
        assert len(names()) == (len(obsloop.METRICS) if decided == "full" else len(BASIC))
    assert set(names()) == BASIC
    assert obsloop.exported_metrics() is obsloop.exported_metrics()


def test_before_the_first_loop_the_variable_decides(monkeypatch):
    """A registry may be scraped before the program has a loop. A bad level is the default."""
    monkeypatch.setenv("OBSLOOP_METRICS", "basic")
    assert set(names()) == BASIC
    monkeypatch.setenv("OBSLOOP_METRICS", "bsaic")
    assert obsloop.exported_metrics() is obsloop.METRICS
    with pytest.raises(
        obsloop.SettingsError, match=r"'bsaic' is not accepted; did you mean basic[?] expected basic or"
    ):
        obsloop.Settings.from_env()


def test_basic_is_part_of_full_with_fewer_buckets():
    """In the same order. Each bound of basic is one of full, so that both can be put together."""
    full = {metric.name: metric for metric in obsloop.METRICS}
    levels.choose("basic")
    assert names() == [name for name in full if name in BASIC]
    for metric in obsloop.exported_metrics():
        assert set(metric.buckets) <= set(full[metric.name].buckets)
        assert len(metric.buckets) <= 5
        assert not metric.from_start or metric.level == "basic"


def test_a_collector_from_before_the_first_loop_follows():
    """Collectors are mostly registered first."""
    exporter = Exporter()
    loop = obsloop.new_event_loop(obsloop.Settings(metrics="basic", name="levels"))
    loop.run_until_complete(loop.run_in_executor(None, int))
    loop.close()
    text = exporter.render(None)[1].decode()
    assert 'asyncio_eventloop_schedule_delay_seconds_bucket{asyncio_eventloop_name="levels"' in text
    assert 'le="0.1"' in text
    assert 'le="5.0"' not in text
    assert "asyncio_eventloop_callback_duration" not in text


def test_opentelemetry_gets_the_same():
    """Through the SDK's data and through the API alone; the buckets are those of the level too."""
    shown = output(
        """
        import obsloop
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from obsloop_exporters import otel_metrics

        reader = InMemoryMetricReader()
        otel_metrics.install(MeterProvider(metric_readers=[reader]))
        async def main(): pass
        obsloop.run(main(), settings=obsloop.Settings(metrics="basic"))
        (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
        exported = {metric.name: metric for metric in obsloop.exported_metrics()}
        assert {metric.name for metric in scope.metrics} <= exported.keys()
        (delay,) = [metric for metric in scope.metrics if metric.name == "asyncio.eventloop.schedule.delay"]
        assert all(point.count for point in delay.data.data_points)
        assert {point.explicit_bounds for point in delay.data.data_points} == {exported[delay.name].buckets}
        print(len(exported))
        """
    )
    assert shown == f"{len(BASIC)}\n"


def test_a_series_begins_with_its_first_event_and_stays(clean_metrics):
    """Zero means no more, not never. Only those of `from_start` and without labels are there before."""
    loop = obsloop.Loop()
    by_name = {metric.name: metric for metric in obsloop.METRICS}

    def exported(name: str) -> dict:
        return dict(loop.snapshot().exported(by_name[name]))

    async def connect() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        transport.abort()
        server.close()
        for _ in range(10):
            await asyncio.sleep(0)

    assert exported("asyncio.transport.active") == exported("asyncio.transport.io") == {}
    assert exported("asyncio.eventloop.iteration.duration") == {}
    assert exported("asyncio.task.active") == {(): 0}
    assert len(exported("asyncio.eventloop.time")) == 5
    loop.run_until_complete(connect())
    assert exported("asyncio.transport.active")[("tcp", "client")] == 0
    assert exported("asyncio.eventloop.iteration.duration")[()].count > 0
    loop.close()

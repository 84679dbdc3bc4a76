"""The collector in a registry that a program has: beside its metrics, in its threads, and never in its way."""

import asyncio
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import MappingProxyType

import pytest
from prometheus_client import Counter, Gauge, generate_latest
from prometheus_client.core import CollectorRegistry

import obsloop
from obsloop import Snapshot
from obsloop_exporters.prometheus import Collector, Exporter
from tests.exporters.programs import everything, little, run, run_in_thread

UTILIZATION = "asyncio_eventloop_utilization_ratio"
ITERATIONS = "asyncio_eventloop_iterations_total"


def of(name: str) -> dict[str, str]:
    """The labels of a plain figure of the loop called `name`."""
    return {"asyncio_eventloop_name": name}


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


def test_one_line_adds_the_figures_to_a_registry_that_is_in_use(registry):
    """The program's own metrics stay, ours come beside them, and go again when they are unregistered."""
    Counter("orders", "Orders.", registry=registry).inc(3)
    run(little)
    collector = Collector()
    registry.register(collector)
    text = generate_latest(registry).decode()
    assert "orders_total 3.0" in text
    assert 'asyncio_eventloop_iterations_total{asyncio_eventloop_name="main"}' in text
    registry.unregister(collector)
    assert "asyncio_eventloop" not in generate_latest(registry).decode()


def test_registering_does_not_read(registry, monkeypatch):
    """A registry asks `describe`, so no reading is begun, nor an interval of utilization, by registering."""
    asked = []
    monkeypatch.setattr(obsloop, "snapshots", lambda: asked.append("loops") or {})
    registry.register(Collector())
    assert asked == []


def test_registering_twice_is_an_error_that_says_what_is_there(registry):
    """The second collector is refused by name, and the first goes on."""
    run(little)
    registry.register(Collector())
    with pytest.raises(ValueError, match=r"Duplicated timeseries.*asyncio_eventloop_iterations_total"):
        registry.register(Collector())
    assert registry.get_sample_value(ITERATIONS, of("main")) > 0


def test_a_clash_with_a_metric_of_the_program_shows_at_registration(registry):
    """Not at the first scrape, in production."""
    Gauge(UTILIZATION, "The program's own.", registry=registry)
    with pytest.raises(ValueError, match=UTILIZATION):
        registry.register(Collector())


def test_a_process_without_a_loop_can_be_scraped(registry):
    """Before the first loop there are the families and the process's figures, and no error."""
    registry.register(Collector())
    text = generate_latest(registry).decode()
    assert "# TYPE asyncio_eventloop_time_seconds_total counter" in text
    assert 'obsloop_dropped_total{what="asyncio.eventloop.name"}' in text
    assert "asyncio_eventloop_name=" not in text


def test_some_families_can_be_asked_for_alone(registry):
    """`/metrics?name[]=...`, which prometheus_client answers with a restricted registry."""
    run(little)
    registry.register(Collector())
    text = generate_latest(registry.restricted_registry([ITERATIONS])).decode()
    assert [line.split("{")[0] for line in text.splitlines() if line[0] != "#"] == [ITERATIONS]


def test_two_loops_in_two_threads_are_two_label_values(registry):
    """Each has its own figures; neither has the other's."""
    both_run = threading.Barrier(2)

    def steps(n: int):
        async def main() -> None:
            both_run.wait()
            for _ in range(n):
                await asyncio.sleep(0)

        return main

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, [steps(10), steps(500)], ["few", "many"]))
    registry.register(Collector())
    few, many = (registry.get_sample_value(ITERATIONS, of(name)) for name in ("few", "many"))
    assert 10 <= few < 100
    assert 500 <= many < 600


def test_a_thousand_runs_are_one_set_of_series(registry):
    """The loop's name is the series, not the loop."""
    registry.register(Collector())

    async def main() -> None:
        pass

    def names() -> set[str]:
        return set(re.findall('asyncio_eventloop_name="([^"]*)"', generate_latest(registry).decode()))

    run(main)
    assert names() == {"main"}
    for _ in range(50):
        run(main)
    assert names() == {"main"}


# Utilization: since the last reading of this reader.


def at(idle: float, callback: float) -> Snapshot:
    """A loop that was idle and in callbacks for so many seconds since it began."""
    time = {("idle",): idle, ("poll",): 0.0, ("callback",): callback, ("gc",): 0.0, ("overhead",): 0.0}
    return Snapshot("main", True, 0.0, MappingProxyType({"asyncio.eventloop.time": MappingProxyType(time)}))


@pytest.fixture
def show(monkeypatch):
    """A function that sets what every reader sees from then on."""

    def set_to(snapshot: Snapshot) -> None:
        monkeypatch.setattr(obsloop, "snapshots", lambda: {"main": snapshot})

    return set_to


def utilization(collector: Collector) -> float:
    """What a scrape of `collector` says."""
    (metric,) = [metric for metric in collector.collect() if metric.name == UTILIZATION]
    (sample,) = metric.samples
    return sample.value


def test_utilization_is_since_the_last_scrape(show):
    """First since the beginning, then over each interval alone."""
    collector = Collector()
    show(at(idle=9.0, callback=1.0))
    assert utilization(collector) == pytest.approx(0.1)
    show(at(idle=10.0, callback=4.0))
    assert utilization(collector) == pytest.approx(0.75)
    show(at(idle=12.0, callback=4.0))
    assert utilization(collector) == 0.0


def test_two_readers_do_not_shorten_one_anothers_interval(show):
    """A collector that is scraped often leaves the interval of another alone."""
    often, seldom = Collector(), Collector()
    show(at(idle=0.0, callback=0.0))
    utilization(often), utilization(seldom)
    show(at(idle=8.0, callback=0.0))
    assert utilization(often) == 0.0
    show(at(idle=8.0, callback=2.0))
    assert utilization(often) == 1.0
    assert utilization(seldom) == pytest.approx(0.2)


def test_a_loop_that_did_not_run_between_scrapes_was_not_busy(show):
    """No time passed on it: no division by nothing, and not the old figure again."""
    collector = Collector()
    show(at(idle=1.0, callback=3.0))
    assert utilization(collector) == pytest.approx(0.75)
    assert utilization(collector) == 0.0


def test_the_exporter_is_one_reader_in_whatever_format_it_is_asked(show):
    """Text and OpenMetrics share the interval: utilization is since the last answer, whatever its format."""
    exporter = Exporter()
    show(at(idle=5.0, callback=5.0))
    assert f'{UTILIZATION}{{asyncio_eventloop_name="main"}} 0.5'.encode() in exporter.render(None)[1]
    show(at(idle=5.0, callback=9.0))
    content_type, page = exporter.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert f'{UTILIZATION}{{asyncio_eventloop_name="main"}} 1.0'.encode() in page


def test_scrapes_at_the_same_time_never_see_time_go_backwards(monkeypatch):
    """The loop is always half idle; in whatever order threads take and compare, every answer is one half."""
    ticks = count(1)

    def snapshots() -> dict[str, Snapshot]:
        tick = float(next(ticks))
        threading.Event().wait(0.0002)  # lets another thread pass between the figure and its use
        return {"main": at(idle=tick, callback=tick)}

    monkeypatch.setattr(obsloop, "snapshots", snapshots)
    collector = Collector()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: utilization(collector), range(200)))
    assert answers == [0.5] * 200


def test_a_signal_handler_may_scrape_while_a_scrape_is_under_way(monkeypatch):
    """It runs in the thread that holds the reader's lock: it must not wait for itself."""
    collector = Collector()
    real = obsloop.snapshots

    def interrupted() -> dict[str, Snapshot]:
        monkeypatch.setattr(obsloop, "snapshots", real)
        list(collector.collect())
        return real()

    monkeypatch.setattr(obsloop, "snapshots", interrupted)
    scrape = threading.Thread(target=lambda: list(collector.collect()), daemon=True)
    scrape.start()
    scrape.join(10)
    assert not scrape.is_alive()


FORK = """
import os, signal, threading
import obsloop
from obsloop_exporters.prometheus import Collector

collector = Collector()
real, inside, go_on = obsloop.snapshots, threading.Event(), threading.Event()

def slow():
    inside.set()
    go_on.wait()
    return real()

obsloop.snapshots = slow
threading.Thread(target=lambda: list(collector.collect())).start()
inside.wait()
obsloop.snapshots = real
pid = os.fork()
if pid == 0:
    signal.alarm(20)  # a child that waits for ever would outlive the test
    list(collector.collect())
    os._exit(7)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
go_on.set()
print("child", code)
"""


def test_a_child_forked_in_the_middle_of_a_scrape_can_be_scraped():
    """The thread that scrapes in the parent does not exist in the child, and its lock is not waited for."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout == "child 7\n"


# Harmless: what is wrong on our side is left out; the program's own metrics are answered.


@pytest.fixture
def used(registry) -> Iterator[CollectorRegistry]:
    """A registry with a metric of the program and our collector, after a program has run."""
    Counter("orders", "Orders.", registry=registry).inc(3)
    run(little)
    registry.register(Collector())
    yield registry
    assert registry.get_sample_value("orders_total") == 3.0


def broken(*_args: object) -> None:
    """What fails."""
    raise RuntimeError("spoilt")


def test_loops_that_cannot_be_read_leave_the_rest(used, monkeypatch, caplog):
    """The process's figures are still there, the loops' are not, and the log says why, once."""
    monkeypatch.setattr(obsloop, "snapshots", broken)
    for _ in range(3):
        assert used.get_sample_value(ITERATIONS, of("main")) is None
        assert used.get_sample_value("obsloop_dropped_total", {"what": "asyncio.eventloop.name"}) is not None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "left out of /metrics: snapshots(): RuntimeError('spoilt')"


def test_a_process_that_cannot_be_read_leaves_the_loops(used, monkeypatch):
    """The other half."""
    monkeypatch.setattr(obsloop, "process_snapshot", broken)
    assert used.get_sample_value("obsloop_dropped_total", {"what": "asyncio.eventloop.name"}) is None
    assert used.get_sample_value(ITERATIONS, of("main")) > 0


@pytest.mark.parametrize(
    "wrong",
    [None, {("one", "too many"): 1}, {(): "text"}, {(): None}, "histogram"],
    ids=["missing", "labels", "text", "none", "kind"],
)
def test_one_signal_that_is_wrong_leaves_all_others(used, monkeypatch, wrong):
    """Whatever is in the snapshot's place for it: that family is empty, and no other."""
    data = dict(obsloop.snapshots()["main"].data)
    if wrong == "histogram":
        wrong = data["asyncio.eventloop.poll.duration"]
    data["asyncio.eventloop.iterations"] = wrong
    if wrong is None:
        del data["asyncio.eventloop.iterations"]
    monkeypatch.setattr(obsloop, "snapshots", lambda: {"main": Snapshot("main", False, 0.0, data)})
    assert used.get_sample_value(ITERATIONS, of("main")) is None
    assert used.get_sample_value("asyncio_eventloop_events_total", of("main")) is not None
    assert b"asyncio_eventloop_events_total{" in Exporter().render(None)[1]


def test_an_interrupt_is_not_ours_to_keep(used, monkeypatch):
    """KeyboardInterrupt in the middle of a scrape goes where the program wants it."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(obsloop, "snapshots", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate_latest(used)


def test_scraping_from_a_callback_of_the_observed_loop(registry):
    """`make_asgi_app` collects on the loop: it sees itself, in a callback, and does not wait for itself."""
    registry.register(Collector())
    text = run(everything(lambda: generate_latest(registry))).decode()
    assert 'asyncio_eventloop_timers{asyncio_eventloop_name="main"} 2.0' in text
    assert 'asyncio_eventloop_timer_cancelled{asyncio_eventloop_name="main"} 1.0' in text


def test_the_name_of_a_loop_without_settings_is_its_threads(registry):
    """And it is a label value like any other."""
    run_in_thread(little, "worker-7")
    registry.register(Collector())
    assert registry.get_sample_value(ITERATIONS, of("worker-7")) > 0

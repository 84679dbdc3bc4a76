"""A real Prometheus scrapes a real program, and its query API gives the figures back."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import obsloop
from tests.exporters.programs import UNUSED
from tests.exporters.target import BLOCK_SECONDS, BLOCKS, OTHER_LOOP, SPAN_ID, TRACE_ID
from tests.exporters.test_names import EXPECTED
from tests.parts import needed

DEADLINE_SECONDS = 60.0
JOBS = ("registry", "exporter")

CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - {job_name: registry, static_configs: [{targets: ["127.0.0.1:%d"]}]}
  - {job_name: exporter, static_configs: [{targets: ["127.0.0.1:%d"]}]}
"""


def get(url: str) -> str:
    """The body of a page."""
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read().decode()


def eventually(check: Callable[[], Any], why: str) -> Any:
    """The first true answer of `check`; what it raises for not being ready yet counts as no answer."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    last: object = None
    while time.monotonic() < deadline:
        try:
            if last := check():
                return last
        except (OSError, urllib.error.URLError) as error:
            last = error
            if isinstance(error, urllib.error.HTTPError):
                error.close()
        time.sleep(0.05)
    pytest.fail(f"not within {DEADLINE_SECONDS} s: {why}; last: {last!r}")


def end(process: subprocess.Popen) -> None:
    """Whatever state it is in."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def target_ports() -> Iterator[list[int]]:
    """The observed program, running: the ports of its registry's server and of its exporter's."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.exporters.target"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        try:
            yield json.loads(process.stdout.readline())
        finally:
            end(process)


class Prometheus:
    """A running server, asked through its query API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def api(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API."""
        answer = json.loads(get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """An instant vector: labels and value of each series."""
        data = self.api("query", query=expression)
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def one(self, expression: str) -> float | None:
        """The value of the only series, or None."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None


def launch(config: Path, data: Path) -> tuple[subprocess.Popen, str]:
    """A Prometheus on a free port; a port that another process took in between is tried no further."""
    binary = needed("prometheus", "prometheus")
    log = data.with_suffix(".log")
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with log.open("w") as out:
            process = subprocess.Popen(
                [
                    binary, f"--config.file={config}", f"--storage.tsdb.path={data}",
                    f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
                ],
                stdout=out, stderr=out,
            )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda process=process, url=url: process.poll() is not None or get(f"{url}/-/ready"), "ready")
        except BaseException:
            end(process)
            raise
        if process.poll() is None:
            return process, url
    pytest.fail(f"prometheus does not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def prometheus(target_ports, tmp_path_factory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the program, by both ways, after its last block."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "prometheus.yml"
    config.write_text(CONFIG % tuple(target_ports))
    process, url = launch(config, folder / "data")
    try:
        server = Prometheus(url)
        done = f'asyncio_eventloop_callback_duration_seconds_count{{kind="timer"}} == {BLOCKS}'
        eventually(lambda: len(server.query(done)) == len(JOBS), "both jobs have seen all blocks")
        yield server
    finally:
        end(process)


pytestmark = pytest.mark.parametrize("job", JOBS)


def loop(job: str, **more: str) -> str:
    """A selector of the program's main loop in one job."""
    labels = {"job": job, "asyncio_eventloop_name": "target"} | more
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def test_the_target_is_up_and_every_sample_is_taken(prometheus, job):
    """No parse error, no sample refused, and as many samples as were in the scrape."""
    assert prometheus.one(f'up{{job="{job}"}}') == 1.0
    (target,) = [t for t in prometheus.api("targets")["activeTargets"] if t["labels"]["job"] == job]
    assert target["lastError"] == ""
    scraped = prometheus.one(f'scrape_samples_scraped{{job="{job}"}}')
    assert scraped == prometheus.one(f'scrape_samples_post_metric_relabeling{{job="{job}"}}')
    assert scraped > 400


def test_slow_callbacks_come_back_by_name(prometheus, job):
    """Each block was as long as a slow callback, and they are all one function's."""
    ((labels, _),) = prometheus.query(f"asyncio_eventloop_callback_slow_total{loop(job)} >= {BLOCKS}")
    assert labels["code_function_name"] == "__main__.main.<locals>.block"


def test_every_metric_comes_back(prometheus, job):
    """Each family of the catalogue has series if it was used; Prometheus knows its type, unit and help."""
    target = f'{{job="{job}"}}'
    known = {entry["metric"]: entry for entry in prometheus.api("targets/metadata", match_target=target)}
    unused = UNUSED | {"asyncio.subprocess.duration", "asyncio.subprocess.reap.delay"}
    for metric in obsloop.METRICS:
        name, kind, unit, _ = EXPECTED[metric.name]
        entry = known[name]
        assert (entry["type"], entry["unit"], entry["help"]) == (kind, unit, metric.help)
        suffix = {"counter": "_total", "gauge": "", "histogram": "_count"}[kind]
        assert bool(prometheus.query(f"{name}{suffix}{target}")) == (metric.name not in unused), name


def test_counters_are_what_the_program_did(prometheus, job):
    """As many timer callbacks as blocks, as long as they lasted, and the states hold them."""
    timer = loop(job, kind="timer")
    duration = "asyncio_eventloop_callback_duration_seconds"
    assert prometheus.one(f"{duration}_count{timer}") == BLOCKS
    assert prometheus.one(f"asyncio_eventloop_timer_lateness_seconds_count{loop(job)}") == BLOCKS
    spent = prometheus.one(f"{duration}_sum{timer}")
    own = prometheus.one("program_block_seconds_sum")
    assert BLOCKS * BLOCK_SECONDS <= own <= spent < own + 0.5
    in_callbacks = prometheus.one(f"asyncio_eventloop_time_seconds_total{loop(job, state='callback')}")
    every_kind = prometheus.one(f"sum({duration}_sum{loop(job)})")
    assert spent <= every_kind
    assert in_callbacks == pytest.approx(every_kind, abs=0.5)  # collections within callbacks have a state of their own


def test_quantiles_are_of_the_delay_that_was_put_in(prometheus, job):
    """Blocks of 30 ms: the median is between the bounds around it, and p99 is what the program itself measured."""
    timer = loop(job, kind="timer")
    ours = f"asyncio_eventloop_callback_duration_seconds_bucket{timer}"
    assert 0.025 < prometheus.one(f"histogram_quantile(0.5, {ours})") <= 0.1
    p99 = prometheus.one(f"histogram_quantile(0.99, {ours})")
    own = prometheus.one("histogram_quantile(0.99, program_block_seconds_bucket)")
    assert p99 > 0.025
    assert own / 4 <= p99 <= own * 4  # one bucket: a block measured on both sides of a bound


def test_the_slow_buckets_lead_to_the_trace(prometheus, job):
    """Each block was slow, in one span: Prometheus has stored it, at a value that is a block's."""
    name = "asyncio_eventloop_callback_duration_seconds_bucket"
    selector = loop(job, kind="timer")
    now = time.time()
    found = eventually(
        lambda: prometheus.api("query_exemplars", query=f"{name}{selector}", start=f"{now - 600}", end=f"{now + 60}"),
        "exemplars are stored",
    )
    stored = [exemplar for series in found for exemplar in series["exemplars"]]
    for exemplar in stored:
        assert exemplar["labels"] == {"trace_id": f"{TRACE_ID:032x}", "span_id": f"{SPAN_ID:016x}"}
        assert BLOCK_SECONDS <= float(exemplar["value"]) < BLOCK_SECONDS + 2
        assert now - 600 < float(exemplar["timestamp"]) <= now
    for series in found:
        assert series["seriesLabels"]["job"] == job
        le = float(series["seriesLabels"]["le"])
        assert all(float(exemplar["value"]) <= le for exemplar in series["exemplars"])


def test_a_query_gives_back_exactly_what_the_page_says(prometheus, job, target_ports):
    """The loop waits now, so its counters stand still: page and database agree to the last digit."""
    page = get(f"http://127.0.0.1:{target_ports[JOBS.index(job)]}/metrics").splitlines()
    name = "asyncio_eventloop_callback_duration_seconds"
    written = [line for line in page if line.startswith(f"{name}_") and 'name="target"' in line]
    meant = sorted(float(line.rsplit(" ", 1)[1]) for line in written)
    query = f'{{__name__=~"{name}_(bucket|count|sum)",{loop(job)[1:]}'
    assert sorted(value for _, value in prometheus.query(query)) == meant
    bounds = next(s.buckets for s in obsloop.METRICS if s.name == "asyncio.eventloop.callback.duration")
    kinds = {line.partition('kind="')[2].partition('"')[0] for line in written}
    assert len(kinds) > 3
    assert len(meant) == len(kinds) * (len(bounds) + 1 + 2)


def test_a_waiting_loop_is_neither_blocked_nor_busy(prometheus, job):
    """After the last block it only waits, and Prometheus soon says so."""
    assert prometheus.one(f"asyncio_eventloop_blocked_time_seconds{loop(job)}") == 0.0
    busy = f"asyncio_eventloop_utilization_ratio{loop(job)}"
    eventually(lambda: prometheus.one(f"{busy} < 0.5") is not None, "not busy")


def test_a_hostile_name_comes_back_as_it_is(prometheus, job):
    """Quotes, a backslash, a newline and a hedgehog, through scrape, storage and query."""
    series = prometheus.query(f'asyncio_eventloop_iterations_total{{job="{job}"}}')
    assert {labels["asyncio_eventloop_name"] for labels, _ in series} == {"target", OTHER_LOOP}

"""The commands of compose.yaml and the Kubernetes example with real workers: one scrape has all, each sends spans."""

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.deploy.support import DEPLOY, LIMIT, ROOT, eventually, free_ports, get
from tests.exporters.otlp import HttpReceiver

pytestmark = [pytest.mark.clients, pytest.mark.once]
WORKERS = 4
NAME = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def commands() -> dict[str, list[str]]:
    """What the containers of the application run: from each file, in its own words."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["demo"]["command"]
    manifests = yaml.safe_load_all((DEPLOY / "kubernetes" / "application.yaml").read_text())
    (deployment,) = [each for each in manifests if each["kind"] == "Deployment"]
    image = re.search(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[1]
    return {
        "compose": compose,
        "kubernetes": deployment["spec"]["template"]["spec"]["containers"][0]["args"],
        "image": yaml.safe_load(image),
    }


def values(page: str, name: str) -> dict[str, float]:
    """A metric's values by the label `worker`; by an empty one if there is none."""
    found: Counter[str] = Counter()
    for metric, labels, value in NAME.findall(page):
        if metric == name:
            worker = re.search('worker="(\\d+)"', labels)
            found[worker[1] if worker else ""] += float(value)
    return found


class Running:
    """The application as a container runs it, on ports of loopback, with a folder in place of the volume."""

    def __init__(self, command: list[str], folder: Path, endpoint: str) -> None:
        app = free_ports(2)
        self.app, self.metrics = f"http://127.0.0.1:{app}", f"http://127.0.0.1:{app + 1}"
        words = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]
        program = shutil.which(words[0], path=os.path.dirname(sys.executable))
        assert program, f"{words[0]} is not installed beside {sys.executable}"
        environ = {
            k: v for k, v in os.environ.items() if not k.startswith(("OBSLOOP_", "OTEL_")) or k == "OBSLOOP_PURE"
        }
        environ |= {
            "OBSLOOP_ADDRESS": f"127.0.0.1:{app + 1}", "XDG_RUNTIME_DIR": str(folder), "OTEL_SERVICE_NAME": "demo",
            "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "200", "PYTHONPATH": str(ROOT / "demo"),
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        }  # fmt: skip
        self.process = subprocess.Popen(
            # On a busy machine uvicorn would take a worker that starts slowly for dead.
            [program, *words[1:], "--port", str(app), "--timeout-worker-healthcheck", str(int(LIMIT))],
            cwd=ROOT / "demo", env=environ, start_new_session=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            eventually(
                lambda: len(values(self.page(), "asyncio_task_active")) == WORKERS, "all workers are in the scrape"
            )
            eventually(lambda: get(f"{self.app}/compute"), "a worker listens")
        except BaseException:
            self.end()
            raise

    def page(self) -> str:
        """One scrape."""
        return get(f"{self.metrics}/metrics")

    def settled(self, metric: str) -> float:
        """The sum of a counter over all workers, once all have published it: a busy one does so late."""
        found: list[float] = []
        deadline = time.monotonic() + LIMIT
        while len(found) < 4 or len(set(found[-4:])) > 1:
            assert time.monotonic() < deadline, f"{metric} still changes: {found}"
            found.append(values(self.page(), metric)[""])
            time.sleep(0.75)
        return found[-1]

    def end(self) -> None:
        """End what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)


@pytest.fixture
def receiver():
    """What gets the spans."""
    receiving = HttpReceiver()
    yield receiving, receiving.base
    receiving.down()


@pytest.mark.parametrize("name", ["compose", "kubernetes", "image"])
def test_one_scrape_has_all_workers(name, tmp_path, receiver):
    """Every request is in it once, the folder is closed to others, and SIGTERM ends all with 0."""
    runtime = tmp_path / "volume"
    runtime.mkdir()
    runtime.chmod(0o1777)  # as an emptyDir is
    receiving, endpoint = receiver
    running = Running(commands()[name], runtime, endpoint)
    try:
        before = running.settled("asyncio_server_accepted_total")
        for _ in range(20):
            assert "waited" in get(f"{running.app}/wait?seconds=0")
        assert running.settled("asyncio_server_accepted_total") - before == 20
        assert set(values(running.page(), "asyncio_eventloop_lag_seconds_count")) == {"0", "1", "2", "3"}
        (folder,) = runtime.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        if name != "image":
            eventually(lambda: requests(receiving) == 20, "a span of each request")
        running.process.terminate()
        assert running.process.wait(LIMIT) == 0
    finally:
        running.end()


def requests(receiving) -> int:
    """How many requests to the route have a span."""
    spans = [
        span
        for request in list(receiving.traces)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    return sum(span.name == "GET /wait" for span in spans)


def test_each_worker_sends_the_spans_of_its_blocks(tmp_path, receiver):
    """opentelemetry-instrument instruments uvicorn's workers too: spans of blocks come from more than one of them."""
    receiving, endpoint = receiver
    running = Running(commands()["compose"], tmp_path, endpoint)
    try:

        def senders() -> set[str]:
            get(f"{running.app}/block?seconds=0.15")
            found = set()
            for resource in (each for request in list(receiving.traces) for each in request.resource_spans):
                names = [span.name for scope in resource.scope_spans for span in scope.spans]
                if "asyncio callback app.block" in names:
                    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
                    assert attributes["service.name"] == "demo"
                    found.add(attributes["service.instance.id"])
            return found

        eventually(lambda: len(senders()) > 1, "spans of two workers")
    finally:
        running.end()

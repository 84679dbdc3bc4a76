"""One Prometheus and one Redis for all servers, which run side by side."""

import contextlib
import json
import socket
import subprocess
import tempfile
import urllib.parse
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.doors.running import Running, get, until
from tests.doors.servers import LIMITED, SERVERS
from tests.doors.story import Seen, story, turnover
from tests.parts import needed

AT_ONCE = 6
"""So many servers run at once: most of the time they wait."""


def ports(n: int) -> list[int]:
    """Return free ports."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(n)]


class Prometheus:
    """A real one, which scrapes one address of each server."""

    def __init__(self, program: str, folder: Path, targets: dict[str, str], port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        jobs = ",\n  ".join(
            f"{{job_name: {name}, static_configs: [{{targets: ['{target}']}}]}}" for name, target in targets.items()
        )
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\nscrape_configs: [{jobs}]\n"
        )
        with (folder / "prometheus.log").open("w") as log:
            self.process = subprocess.Popen(
                [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
                stdout=log, stderr=log,
            )  # fmt: skip

    def value(self, query: str) -> float:
        """Return the answer to a query; 0 if it has none."""
        status, body = get(f"{self.base}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        result = json.loads(body)["data"]["result"] if status == 200 else []
        return float(result[0]["value"][1]) if result else 0.0


@pytest.fixture(scope="module")
def stories(request):
    """The story of each server that this run has chosen, begun side by side."""
    names = [item.callspec.params["server"] for item in request.session.items if "stories" in item.fixturenames]
    table = SERVERS | LIMITED
    chosen = [name for name in table if name in names]
    with contextlib.ExitStack() as stack:
        # A short path: sockets below it have names of at most 107 bytes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="doors")))
        prometheus_port, redis_port, *free = ports(2 + 2 * len(chosen))
        running = {
            name: Running(name, table[name], folder / name, free[2 * i], free[2 * i + 1], redis_port)
            for i, name in enumerate(chosen)
        }
        prometheus = Prometheus(
            needed("prometheus", "prometheus"),
            folder,
            {n: each.address for n, each in running.items()},
            prometheus_port,
        )
        stack.callback(prometheus.process.wait)
        stack.callback(prometheus.process.kill)
        if any(table[name].speaks in ("celery", "taskiq") for name in chosen):
            redis = subprocess.Popen(
                [needed("redis-server", "redis"), "--port", str(redis_port), "--save", "", "--dir", str(folder)],
                stdout=subprocess.DEVNULL,
            )
            stack.callback(redis.wait)
            stack.callback(redis.kill)
        until(lambda: get(f"{prometheus.base}/-/ready")[0] == 200, "Prometheus is ready")
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        begun: dict[str, Future[Seen]] = {
            name: pool.submit(turnover if name in LIMITED else story, each, prometheus.value)
            for name, each in running.items()
        }
        stack.callback(lambda: [each.kill() for each in running.values()])
        stack.callback(lambda: [future.cancel() for future in begun.values()])
        yield begun

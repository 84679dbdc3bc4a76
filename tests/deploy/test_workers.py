"""deploy/workers.py with real workers: each can be scraped at a port of its own, and they end together."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error

import pytest

from tests.deploy.support import DEPLOY, LIMIT, ROOT, eventually, free_ports, get

WORKERS = 2


class Running:
    """The parent, its workers' ids, and the ports."""

    def __init__(self, process: subprocess.Popen, app: int, metrics: int) -> None:
        self.process, self.app, self.metrics = process, app, metrics
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(iter(process.stdout.readline, "")))
        self._reader.start()

    @property
    def workers(self) -> list[int]:
        """The process ids, as the parent says them."""
        return [int(found) for found in re.findall(r"worker \d+ is process (\d+)", "".join(self.lines))]

    def figure(self, worker: int, name: str) -> float:
        """The sum of one figure's series, as a scraper would get it from that worker."""
        page = get(f"http://127.0.0.1:{self.metrics + worker}/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))

    def ends(self) -> int:
        """Its exit code; its output is complete then."""
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code


@pytest.fixture
def running():
    """Two workers that serve the demo's application."""
    app = free_ports(WORKERS + 1)
    words = [sys.executable, DEPLOY / "workers.py", "--workers", str(WORKERS), "--port", str(app)]
    with subprocess.Popen(
        [*words, "--metrics-port", str(app + 1), "app:app"], cwd=ROOT / "demo", text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={k: v for k, v in os.environ.items() if not k.startswith("OBSLOOP_") or k == "OBSLOOP_PURE"},
    ) as process:  # fmt: skip
        try:
            both = Running(process, app, app + 1)
            for worker in range(WORKERS):
                eventually(lambda worker=worker: both.figure(worker, "asyncio_eventloop_iterations_total"), "served")
            yield both
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_request_is_in_the_figures_of_one_worker(running):
    """What the workers say they accepted adds up to what was asked, as TCP; and SIGTERM ends all, with 0."""
    for _ in range(20):
        assert "waited" in get(f"http://127.0.0.1:{running.app}/wait?seconds=0")
    accepted = [running.figure(worker, "asyncio_server_accepted_total") for worker in range(WORKERS)]
    assert sum(accepted) == 20
    tcp = 'asyncio_transport_opened_total{asyncio_eventloop_name="main",network_transport="tcp",role="server"}'
    pages = [get(f"http://127.0.0.1:{running.metrics + worker}/metrics") for worker in range(WORKERS)]
    assert sum(float(line.split()[1]) for page in pages for line in page.splitlines() if line.startswith(tcp)) == 20
    running.process.terminate()
    assert running.ends() == 0
    assert all(gone(pid) for pid in running.workers)


def test_a_blocked_worker_is_scraped_and_tells_which_it_is(running):
    """While one blocks for two seconds its own port says so, and the other's does not."""
    blocking = threading.Thread(target=get, args=(f"http://127.0.0.1:{running.app}/block?seconds=2",))
    blocking.start()
    blocked = "asyncio_eventloop_blocked_time_seconds"
    seen = eventually(
        lambda: [w for w in range(WORKERS) if running.figure(w, blocked) > 0.5], "a worker that is blocked"
    )
    assert len(seen) == 1
    with pytest.raises(urllib.error.HTTPError) as unhealthy:
        eventually_unhealthy(f"http://127.0.0.1:{running.metrics + seen[0]}/healthz")
    unhealthy.value.close()
    assert unhealthy.value.code == 503
    assert get(f"http://127.0.0.1:{running.metrics + 1 - seen[0]}/healthz")
    blocking.join(LIMIT)


def eventually_unhealthy(url: str) -> None:
    """Ask until it answers with an error; a block of two seconds is unhealthy for one of them."""
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        get(url)
        time.sleep(0.05)


def test_a_worker_that_dies_takes_the_others_with_it(running):
    """One is killed: the parent says which, ends the other, and fails, so that the container is started again."""
    eventually(lambda: len(running.workers) == WORKERS, "the parent's lines")
    os.kill(running.workers[1], signal.SIGKILL)
    assert running.ends() == 1
    assert "worker 1 ended with -9" in "".join(running.lines)
    assert all(gone(pid) for pid in running.workers)
